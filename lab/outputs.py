"""outputs.py - how far the texts and the distributions of the two norms are apart.

    KL(p || q) = sum over tokens of p (log p - log q)      in nats, of the next token; Kullback, Leibler 1951
"""

import math
import os
import re
import statistics
import subprocess
import sys
from array import array
from contextlib import ExitStack, closing
from pathlib import Path

from lab.engine import Trouble, last_line

CACHE = ("--kv", "f32")         # a cache of F16 rounds what the norms differ in, and what they do not


def pooled(reports):
    """The perplexity of all texts together, from that of each: as if they had been scored in one run."""
    n = sum(r["tokens"] for r in reports)
    total = squares = 0.0
    for r in reports:
        mean, error = math.log(r["perplexity"]), r["stderr"] / r["perplexity"]
        total += r["tokens"] * mean
        squares += r["tokens"] * (error * error * (r["tokens"] - 1) + mean * mean)
    mean = total / n
    error = math.sqrt(max(0.0, squares / n - mean * mean) / max(n - 1, 1))
    return {"perplexity": math.exp(mean), "stderr": math.exp(mean) * error, "tokens": n,
            "windows": sum(r["windows"] for r in reports),
            "texts": [[r["tokens"], math.log(r["perplexity"])] for r in reports]}


def perplexity(engine, model, norm, texts, folder):
    """Each text by itself, in windows of the model's context, or in one where it is shorter."""
    path, reports = Path(folder) / "text.txt", []
    for text in texts:
        path.write_text(text, encoding="utf-8")
        context = min(model.context, engine.count(model, path) + 1)
        if context >= 16:
            reports.append(engine.report(model, norm, "-m", "perplexity", "-f", path, "-c", context, *CACHE))
    if not reports:
        raise Trouble("the text is too short: 16 tokens are the least that can be scored")
    return pooled(reports)


def relative(a, b):
    """How much higher b's perplexity is, as a part of a's, and the standard error: text by text, so that what
    is hard about a text falls out."""
    changes = [math.expm1(y - x) for (_, x), (_, y) in zip(a["texts"], b["texts"])]
    return statistics.mean(changes), statistics.stdev(changes) / math.sqrt(len(changes))


# ---------------------------------------------------------------------------- distributions


def read_npy(path):
    """The rows of a (rows, columns) file of little-endian floats, one at a time."""
    with open(path, "rb") as file:
        header = file.read(128)
        shape = re.search(rb"'<f4'.*\((\d+), (\d+)\)", header)
        if header[:8] != b"\x93NUMPY\1\0" or not shape:
            raise Trouble(f"{path}: not the logits that --logits writes")
        for _ in range(int(shape[1])):
            row = array("f")
            row.fromfile(file, int(shape[2]))
            if sys.byteorder == "big":
                row.byteswap()
            yield row


def divergence(p, q):
    """KL(softmax p || softmax q), and whether both have the same likeliest token."""
    top_p, top_q = max(p), max(q)
    weights = [math.exp(x - top_p) for x in p]
    total = sum(weights)
    cross = sum(w * (x - y) for w, x, y in zip(weights, p, q)) / total
    log_p, log_q = math.log(total) + top_p, math.log(sum(math.exp(y - top_q) for y in q)) + top_q
    return cross - log_p + log_q, p.index(top_p) == q.index(top_q)


def pieces(text, fits):
    """The text cut at spaces into parts that fit, each as long as halving allows."""
    if fits(text):
        yield text
    else:
        middle = text.rfind(" ", 1, len(text) // 2)
        middle = middle if middle > 0 else len(text) // 2
        yield from pieces(text[:middle], fits)
        yield from pieces(text[middle:], fits)


def summary(divergences, same):
    n = len(divergences)
    mean = math.fsum(divergences) / n
    spread = math.sqrt(math.fsum((d - mean) ** 2 for d in divergences) / max(n - 1, 1) / n)
    ranked = sorted(divergences)
    return {"kl": mean, "stderr": spread, "positions": n, "agreement": sum(same) / n,
            "percentiles": [ranked[round((n - 1) * i / 100)] for i in range(101)]}


def distributions(engine, model, texts, most, folder):
    """The swapped norm's distributions beside the trained norm's, at up to `most` positions of the texts."""
    source, divergences, same = Path(folder) / "piece.txt", [], []
    logits = {norm: Path(folder) / f"{norm}.npy" for norm in (model.norm, model.other)}

    def fits(piece):
        source.write_text(piece, encoding="utf-8")
        return engine.count(model, source) < model.context or len(piece) < 2

    for piece in (piece for text in texts for piece in pieces(text[:20 * most], fits)):
        source.write_text(piece, encoding="utf-8")
        for norm, path in logits.items():
            engine(model, norm, "-f", source, "-n", 0, "--logits", path, *CACHE)
        with ExitStack() as files:
            rows = [files.enter_context(closing(read_npy(path))) for path in logits.values()]
            for p, q in zip(*rows):
                kl, agrees = divergence(p, q)
                divergences.append(kl)
                same.append(agrees)
                if len(same) == most:
                    return summary(divergences, same)
    return summary(divergences, same)


# ---------------------------------------------------------------------------- texts


def greedy(engine, model, prompt, n, folder):
    """What each norm writes, always the likeliest token, and after how many tokens they part."""
    texts, ids = {}, {}
    for norm in (model.norm, model.other):
        written = engine(model, norm, "-t", 0, "-n", n, "-i", prompt, *CACHE).decode(errors="replace")
        texts[norm] = written.removesuffix("\n")
        path = Path(folder) / f"{norm}.txt"
        path.write_text(texts[norm], encoding="utf-8")
        ids[norm] = engine.report(model, norm, "-m", "tokenize", "-f", path)["tokens"]
    same = os.path.commonprefix(list(texts.values()))
    begun = len(engine.report(model, model.norm, "-m", "tokenize", "-i", prompt)["tokens"])
    parted = len(os.path.commonprefix(list(ids.values())))
    return {"prompt": prompt, "texts": texts, "same": texts[model.norm] == texts[model.other],
            "common_characters": len(same), "tokens_until_they_part": max(parted - begun, 0)}


# ---------------------------------------------------------------------------- the oracle


def centred(model, folder):
    """A copy of the model whose residual stream has no mean (convert/center.py), in F32."""
    output = Path(folder) / "centred.gguf"
    export = Path(__file__).resolve().parent.parent / "export.py"
    command = [sys.executable, export, model.path, "-o", output, "--type", "f32", "--center"]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        raise Trouble(last_line(done.stderr))
    return output
