"""outputs.py - how far what two runs expect of the same text is apart.

    difference of log likelihood     log p(token) - log q(token)                     nats, of each token
    KL(p || q)                       sum over tokens of p (log p - log q)            nats; Kullback 1951
    agreement                        the likeliest token is the same

All of them come from the same logits, at the same positions of the same windows: those of every token that is
known. p is what is compared with, q what may have changed. Sums are in double precision.
"""

import math
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lab.engine import Trouble
from lab.intervals import MIN_BLOCKS, Blocks, interval, share

CHUNK = 1 << 16                 # logits that are worked on together, of each side: they fit a cache
CERTAIN = 0.05                  # nats of entropy
MARGIN = 0.01                   # nats a token: what is less is no difference to speak of, 1 % of perplexity


# ---------------------------------------------------------------------------- windows


@dataclass(frozen=True)
class Window:
    """What the model reads at once, from an empty context."""

    text: str
    ids: tuple                  # without BOS
    source: int                 # the number of the text it is from


def cut(text, parts):
    """The text in parts of about equal length, cut at white space, of which one character goes each time."""
    at, size = 0, len(text) / parts
    for i in range(1, parts):
        space = re.compile(r"\s").search(text, round(i * size), round((i + 1) * size))
        end, next_at = space.span() if space else (round(i * size), round(i * size))
        yield text[at:end]
        at = next_at
    yield text[at:]


def read(engine, model, text, source, folder):
    path = Path(folder) / "text.txt"
    path.write_text(text, encoding="utf-8", newline="")
    return Window(text, tuple(engine.run(model, model.norm).ids("-f", path)), source)


def fitting(engine, model, window, folder):
    """The window, without the words at its end that leave no room for BOS in the model's context."""
    while len(window.ids) >= model.context and len(window.text) > 1:
        start = window.text[:len(window.text) * (model.context - 1) // len(window.ids)]
        words = re.match(r".*\S(?=\s)", start, re.S)
        window = read(engine, model, words[0] if words else start, window.source, folder)
    return window


def windows(engine, model, texts, positions=None):
    """A text that fits into the model's context is one window. A longer one is cut into equal parts, about as
    long as the context. Of more than so many positions: windows that lie evenly over the texts."""
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        parts, n = [], 0
        for i, text in enumerate(texts):
            whole = read(engine, model, text, i, folder)
            n += len(whole.ids)
            count = math.ceil(1.02 * len(whole.ids) / (model.context - 1))      # some parts have more tokens
            parts += [whole] if len(whole.ids) < model.context else [(part, i) for part in cut(text, count)]
        if n < 16:
            raise Trouble(f"expected a text of 16 tokens or more, and it has {n}")
        step, found = max(1.0, n / positions) if positions else 1.0, []
        for i in range(math.ceil(len(parts) / step)):
            part = parts[int(i * step)]
            window = part if isinstance(part, Window) else read(engine, model, *part, folder)
            found.append(fitting(engine, model, window, folder))
    return [window for window in found if len(window.ids) > 1]


# ---------------------------------------------------------------------------- distributions


def log_softmax(logits):
    x = logits.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=-1, keepdims=True))
    return x


def contrast(p, q, ids):
    """Logits of p and q, (rows, vocabulary), and the id that follows each row: of each row
    [-log p(id), -log q(id), KL(p || q), the entropy of p, 1 if the likeliest token is the same]."""
    log_p, log_q, rows = log_softmax(p), log_softmax(q), np.arange(len(ids))
    weights = np.exp(log_p)
    kl = np.maximum((weights * (log_p - log_q)).sum(axis=1), 0)         # less than 0 by rounding alone
    entropy = -(weights * log_p).sum(axis=1)
    same = log_p.argmax(axis=1) == log_q.argmax(axis=1)
    return np.stack([-log_p[rows, ids], -log_q[rows, ids], kl, entropy, same], axis=1)


def of_window(p, q, ids):
    """contrast() at all positions of a window whose next token is known. p, q: its logits."""
    if p.shape != q.shape:
        raise Trouble(f"logits of {p.shape} and of {q.shape} (positions, vocabulary) cannot be compared")
    ids = np.array(ids if len(p) > len(ids) else ids[1:])               # with BOS, the first is expected too
    rows = max(1, CHUNK // p.shape[1])
    return np.concatenate([contrast(p[at:at + rows][:len(ids) - at], q[at:at + rows][:len(ids) - at],
                                    ids[at:at + rows]) for at in range(0, len(ids), rows)])


def compare_all(p, others, windows):
    """{name: what summary() says of p and that run}. p, and the values of others: each a Run."""
    found = {name: [] for name in others}
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        source, ours, theirs = (Path(folder) / name for name in ("text.txt", "p.npy", "q.npy"))
        for window in windows:
            source.write_text(window.text, encoding="utf-8", newline="")
            expected, _ = p.logits(ours, "-f", source, "-n", 0)
            for name, q in others.items():
                got, _ = q.logits(theirs, "-f", source, "-n", 0)
                found[name].append(of_window(expected, got, window.ids))
    texts = len({window.source for window in windows})
    return {name: summary(parts, texts) for name, parts in found.items()}


def compare(p, q, windows):
    return compare_all(p, {"": q}, windows)[""]


# ---------------------------------------------------------------------------- what there is to say


def verdict_of(delta):
    """Is there a difference? Or none beyond the margin? Or cannot it be told?"""
    if delta["low"] is None:
        return {"verdict": "not resolved", "beyond": None}
    beyond = max(abs(delta["low"]), abs(delta["high"]))
    if not delta["low"] <= 0 <= delta["high"]:
        return {"verdict": "differs", "beyond": beyond}
    return {"verdict": "no difference" if beyond <= MARGIN else "not resolved", "beyond": beyond}


def percent(nats):
    return None if nats is None else 100 * math.expm1(nats)


def summary(parts, texts):
    """parts: what contrast() says of each window."""
    blocks = Blocks([len(part) for part in parts])
    p, q, kl, entropy, same = np.concatenate(parts).T
    same, certain = same == 1, entropy < CERTAIN
    delta = interval(blocks, q - p)
    highest = np.sort(kl)[-math.ceil(len(kl) / 100):]
    return {
        "positions": len(p), "windows": len(parts), "texts": texts,
        "blocks": blocks.count, "block": blocks.name,
        "nll": {"p": float(p.mean()), "q": float(q.mean())},
        "perplexity": {"p": math.exp(p.mean()), "q": math.exp(q.mean())},
        "delta": delta | {"percent": {key: percent(delta[key]) for key in ("mean", "low", "high")}},
        **verdict_of(delta),
        "kl": interval(blocks, kl, least=0.0) | {
            "median": float(np.median(kl)), "max": float(kl.max()),
            "top_1_percent": float(highest.sum() / kl.sum()) if kl.any() else None},
        "percentiles": np.percentile(kl, range(101)).tolist(),
        "agreement": {"all": share(blocks, same, np.ones(len(same), bool)),
                      "certain": share(blocks, same, certain), "open": share(blocks, same, ~certain)},
    }
