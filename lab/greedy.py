"""greedy.py - after how many tokens do two runs part that always write the likeliest token?"""

import os
import re
import tempfile
from pathlib import Path

import numpy as np

PROMPT = 12                     # tokens, about


def evenly(items, n):
    """n of them, or all if there are fewer."""
    n = min(n, len(items))
    return [items[i * len(items) // n] for i in range(n)]


def prompts(windows, n):
    """Beginnings of sentences from all over the texts, or of words where there are too few sentences."""
    for start in (r"(?:^|[.!?][\"'”’]*\s+)(?=\w)", r"(?:^|(?<=\s))(?=\w)"):
        found = {}                                      # each once, in their order
        for window in windows:
            size = round(PROMPT * len(window.text) / len(window.ids))
            for match in re.finditer(start, window.text):
                if words := re.compile(r"\S.{%d,%d}?(?=\s)" % (size - 1, 2 * size), re.S).match(
                        window.text, match.end()):
                    found[words[0]] = None
        if len(found) >= n:
            break
    return evenly(list(found), n)


def written(run, prompt, begun, n, file):
    """The ids that it writes after the prompt, which has `begun` positions, and the text. The id that ends it
    is one of them."""
    logits, text = run.logits(file, "-t", 0, "-n", n, "-i", prompt)
    return np.argmax(logits[begun - 1:], axis=1).tolist(), text


def parted(a, b):
    """After how many tokens; None: they are the same."""
    return None if a == b else len(os.path.commonprefix([a, b]))


def summary(points):
    """The median and the quartiles: None where they lie among the texts that do not part."""
    ordered = np.sort([np.inf if point is None else point for point in points])
    low, median, high = (float(x) if np.isfinite(x) else None
                         for x in np.quantile(ordered, (0.25, 0.5, 0.75), method="inverted_cdf"))
    return {"median": median, "quartiles": [low, high], "never": points.count(None), "each": points}


def measure(runs, prompts, n):
    """runs: {"own": a Run, "swap": ..., "noise": ...}. Own beside each of the others, over all prompts."""
    ids, texts = {name: [] for name in runs}, {name: [] for name in runs}
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        file = Path(folder) / "logits.npy"
        for prompt in prompts:
            begun = len(runs["own"].logits(file, "-n", 0, "-i", prompt)[0])
            for name, run in runs.items():
                found, text = written(run, prompt, begun, n, file)
                ids[name].append(found)
                texts[name].append(text)
    points = {name: [parted(a, b) for a, b in zip(ids["own"], ids[name])] for name in runs if name != "own"}
    return {name: summary(each) for name, each in points.items()}, texts


def example(prompts, found, texts):
    """The prompt in the middle, when they are ordered by where their texts part."""
    each = found["each"]
    order = sorted(range(len(each)), key=lambda i: np.inf if each[i] is None else each[i])
    i = order[(len(order) - 1) // 2]
    pair = [texts[name][i] for name in ("own", "swap")]
    return {"prompt": prompts[i], "own": pair[0], "swap": pair[1], "parted": each[i],
            "common_characters": len(os.path.commonprefix(pair))}
