"""claims_rows.py - how each claim of docs/claims.json is measured, and what follows from the figures.

A row is a generator of Figures and a verdict, a function of them by name. The verdicts are "holds", "fails",
"depends on ..." and "not measured". Intervals are of 95 %. MARGIN and the comparison of outputs, paired by
token and bootstrapped by blocks, are lab/outputs.py's.
"""

import json
import math
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import namedtuple
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]

import numpy as np  # noqa: E402

import mistakes  # noqa: E402
import models as shapes  # noqa: E402
import reference  # noqa: E402
from lab import greedy, residuals  # noqa: E402
from lab.copies import Copies, directions  # noqa: E402
from lab.engine import NORMS, Checkpoint, Engine, Run  # noqa: E402
from lab.intervals import interval_of_median, student  # noqa: E402
from lab.outputs import MARGIN, compare, compare_all, windows  # noqa: E402
from lab.texts import held_out  # noqa: E402

TWINS = {"RMSNorm's twin": "stories-rmsnorm", "LayerNorm's twin": "stories-layernorm"}
DIRECTIONS, RUNS = 8, 5
# Student's t: between -t and t lie 95 %, with 1, 2, ... degrees of freedom (Fisher 1925, table IV).
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145)


@dataclass
class Figure:
    what: str                   # unique within its claim
    value: float
    low: float                  # the interval of 95 %; both equal the value of what is counted
    high: float
    n: int                      # so many `of` were measured
    of: str
    unit: str = ""
    model: str = None           # which the figure cannot be measured without; None: any checkout has it
    shown: bool = False         # in the table


PROMPTS, TOKENS = 20, 40        # of greedy texts
Row = namedtuple("Row", "measure verdict command is_time", defaults=[False])


def run(*command):
    done = subprocess.run([str(word) for word in command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"claims.py: {' '.join(map(str, command))} ended with exit status {done.returncode}")
    return done.stdout


def make(*arguments):
    return run("make", "-s", *arguments)


def of_sample(what, values, of, unit="", **more):
    """The mean of independent values, and its interval by Student's t."""
    n, mean = len(values), statistics.mean(values)
    t = STUDENT[n - 2] if n - 2 < len(STUDENT) else student(n - 1)
    reach = t * statistics.stdev(values) / math.sqrt(n)
    return Figure(what, mean, mean - reach, mean + reach, n, of, unit, **more)


def counted(what, number, of, unit="", **more):
    return Figure(what, number, number, number, 1, of, unit, **more)


def of_interval(what, found, comparison, unit="nats a token", factor=1, **more):
    """found: {mean or share, low, high} of a comparison by lab/outputs.py."""
    value, block = found.get("mean", found.get("share")), comparison["block"]
    low, high = min(value, found["low"]), max(value, found["high"])         # an end at 1 is rounded, too
    return Figure(what, factor * value, factor * low, factor * high, comparison["blocks"],
                  "windows" if block == "window" else f"blocks of {block}", unit, **more)


class OneThread(Run):
    """The same numbers come from any number of threads, and those of a busy machine wait for each other."""

    def command(self, *args):
        return super().command(*args, "-j", "1")


class Builds(Engine):
    def run(self, model, norm, kv="f32"):
        found = super().run(model, norm, kv)
        return OneThread(found.program, found.path, found.swap_norm, found.kv)


class Bench:
    """What rows measure on. Whatever several of them need is made once."""

    def __init__(self, data, smollm2, folder):
        self.folder = Path(folder)
        self.paths = {name: ROOT / f"models/{file}.gguf" for name, file in TWINS.items()}
        self.paths |= {"stories260K": data / "gguf/stories260K.gguf", "SmolLM2": smollm2}
        self.texts = {"stories260K": data / "text/tinystories_sample.txt",
                      "SmolLM2": data / "text/wiki100k.txt"}

    def has(self, name):
        return self.paths[name].is_file() and (name in TWINS or self.texts[name].is_file())

    @property
    def missing(self):
        return [name for name in self.paths if not self.has(name)]

    @cached_property
    def engine(self):
        for norm in ("rmsnorm", "layernorm"):
            make(f"NORM={norm}")
        return Builds({"rmsnorm": ROOT / "run", "layernorm": ROOT / "run-layernorm"})

    @cache
    def checkpoint(self, name):
        return Checkpoint(self.engine, self.paths[name])

    def models(self, norm=None):
        """(name, Checkpoint) of those that are there, and were trained with this norm, or with any."""
        for name in self.paths:
            if self.has(name) and norm in (None, self.checkpoint(name).norm):
                yield name, self.checkpoint(name)

    @cache
    def windows(self, name):
        texts = (held_out()[60:] if name in TWINS else                # make ablate takes the first 60
                 [self.texts[name].read_bytes()[:30000].decode(errors="ignore")])
        return windows(self.engine, self.checkpoint(name), texts)

    @cache
    def copies(self, name):
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir()
        return Copies(self.checkpoint(name), folder)

    @cache
    def swapped(self, name):
        model = self.checkpoint(name)
        return compare(self.engine.run(model, model.norm), self.engine.run(model, model.other),
                       self.windows(name))

    @cached_property
    def copy(self):
        """A copy of the tree, to plant mistakes in, with all that is compiled already."""
        assert self.engine
        copy, built = mistakes.Copy(self.folder / "tree", "rmsnorm", "-O3"), self.folder / "tree/build"
        objects = Path(make("--eval", "where: ; @echo $(BUILD)", "where").strip())
        for path in (ROOT / objects).rglob("*.o"):
            (built / path.relative_to(ROOT / objects)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, built / path.relative_to(ROOT / objects))
        return copy

    @cache
    def planted(self, norm):
        """{name: a build of this norm in which something is wrong}"""
        builds, self.copy.norm = {}, norm
        program = "run" if norm == "rmsnorm" else f"run-{norm}"
        for i, (name, file, text) in enumerate([*mistakes.mistakes_of(norm), *wrong_eps(norm)]):
            original = (ROOT / file).read_text()
            self.copy.change(file, text)
            self.copy.make(f"build/{program}")
            builds[name] = (self.copy.folder / "build" / program).rename(self.folder / f"{norm}-{i}")
            self.copy.change(file, original)
        return builds

    @cache
    def norm_calls(self, dims):
        """Of so many runs of bench-norm, on the fastest set of kernels: {(dim, T): [result, ...]}"""
        found = {}
        for _ in range(RUNS):
            results = json.loads(make("bench-norm", "JSON=1", f"DIMS={dims}"))["results"]
            for r in results:
                if r["kernels"] == results[-1]["kernels"]:
                    found.setdefault((r["dim"], r["T"]), []).append(r)
        return found


def wrong_eps(norm):
    source = (ROOT / "rmsnorm.c").read_text()
    [function] = re.findall(rf"^void {norm}\(float.*?^}}\n", source, re.M | re.S)
    assert function.count("w->eps") == 1, f"expected eps once in {norm}(), found {function}"
    for name, factor in (("a tenth of its eps", "0.1"), ("ten times its eps", "10.0")):
        yield name, "rmsnorm.c", source.replace(function, function.replace("w->eps", f"{factor} * w->eps"))


# ---------------------------------------------------------------------------- 1, 2: time

DIMS = (128, 512, 2048, 8192)


def cost(bench):
    for (dim, T), found in bench.norm_calls(" ".join(map(str, DIMS))).items():
        of, rows = "runs", f"{dim} numbers, {T} token{'s' * (T > 1)}"

        for bias in ("without", "with"):
            key = "rms_to_layer" if bias == "without" else "rms_to_layer_with_bias"
            ratios = [r[key]["median"] for r in found]
            yield of_sample(f"{rows}: RMSNorm's time : LayerNorm's {bias} bias", ratios, of,
                            shown=T == 1 and (bias == "without" or dim == 2048))
        part = [r["norms"]["prmsnorm"]["ns"]["median"] / r["norms"]["rmsnorm"]["ns"]["median"] for r in found]
        yield of_sample(f"{rows}: pRMSNorm's time : RMSNorm's", part, of)
    written = {shape: shapes.make(ROOT / "build/bench", shape, "Q8_0") for shape in ("110M", "1.1B")}
    for name, path in {"RMSNorm's twin": bench.paths["RMSNorm's twin"], **written}.items():
        model = Checkpoint(bench.engine, path)
        calls, shares, saved = 2 * model.layers + 1, [], []
        for result in bench.norm_calls(str(model.dim))[model.dim, 1]:
            report = bench.engine.report(model, "rmsnorm", "-m", "bench", "-c", 32)
            token = 1e9 / max(report["decode"]["cpu_runs"])
            share = calls * result["norms"]["rmsnorm"]["ns"]["median"] / token
            shares.append(100 * share)
            saved.append(100 * share * (1 / result["rms_to_layer"]["median"] - 1))
        yield of_sample(f"{name}, writing: all RMSNorms' share of the time", shares, "runs", "%")
        yield of_sample(f"{name}, writing: LayerNorm would take more", saved, "runs", "%",
                        shown=name == "1.1B")


def cost_verdict(figures):
    ratios = [f for what, f in figures.items() if "LayerNorm's without bias" in what]
    return less(ratios, 1, "the vector's length")


def less(figures, bound, otherwise):
    """Do all lie below the bound?"""
    if not figures:
        return "not measured"
    if all(f.high < bound for f in figures):
        return "holds"
    return "fails" if all(f.low > bound for f in figures) else f"depends on {otherwise}"


def training(bench):
    found = json.loads(run(sys.executable, "train/steps.py", "--json"))
    for norm, n in found.pop("functions").items():
        yield counted(f"functions of the backward pass of PyTorch's {norm} on a CPU", n, "profile",
                      "functions")
    for shape, report in found.items():
        for name, r in report["ratios"].items():
            yield Figure(f"{shape} parameters, a step: {name}", r["median"], r["low"], r["high"], r["rounds"],
                         "rounds", shown="none" not in name)


def training_verdict(figures):
    """7 % less time with RMSNorm would be 1 / 0.93 with LayerNorm."""
    ratios = [f for what, f in figures.items() if "layernorm, by hand : rmsnorm, by hand" in what]
    if not ratios or any(f.low <= 1 / 0.93 <= f.high for f in ratios):      # or not closely enough
        return "not measured"
    faster = [f.low > 1 / 0.93 for f in ratios]
    return "holds" if all(faster) else "depends on the model" if any(faster) else "fails"


# ---------------------------------------------------------------------------- 3, 6, 11: what was trained


@cache
def trained():
    """What train/train.py has written, one object for each run. Without those of other stories or another
    recipe than RMSNorm has: nothing is there to compare them with."""
    found = [json.loads(path.read_text()) for path in sorted((ROOT / "train/results").glob("*.json"))]
    found = [r | {"optimizer": r.get("optimizer", "muon")} for r in found if r["curve"]]

    def recipe(r):
        return r["optimizer"], r["validation_floor"], r["recipe"]

    comparable = [recipe(r) for r in found if r["norm"] == "rmsnorm"]
    return [r for r in found if recipe(r) in comparable]


def over_floor(rounds):
    """{(optimizer, norm): {seed: per cent over the floor of the stories after so many rounds}}"""
    found = {}
    for r in trained():
        for point in r["curve"]:
            if point["step"] == rounds * r["recipe"]["steps"]:
                losses = found.setdefault((r["optimizer"], r["norm"]), {})
                losses[r["seed"]] = 100 * (point["validation"] / r["validation_floor"] - 1)
    return found


def last_round():
    return max(r["curve"][-1]["step"] // r["recipe"]["steps"] for r in trained())


def quality(bench):
    found = over_floor(last_round())
    for (optimizer, norm), losses in sorted(found.items()):
        if len(losses) > 1:
            yield of_sample(f"{optimizer}, {norm}: over the floor", [*losses.values()], "seeds", "%")
    for optimizer in sorted({optimizer for optimizer, _ in found}):
        rms, layer = (found.get((optimizer, norm), {}) for norm in ("rmsnorm", "layernorm"))
        seeds = sorted(rms.keys() & layer.keys())
        if len(seeds) > 1:
            yield of_sample(f"{optimizer}: LayerNorm's less RMSNorm's", [layer[s] - rms[s] for s in seeds],
                            "pairs of seeds", "points", shown=True)


def quality_verdict(figures):
    """The same, if all intervals lie within a quarter of a point; not, if one lies beside zero."""
    apart = [f for what, f in figures.items() if "less RMSNorm's" in what]
    if not apart:
        return "not measured"
    if all(-0.25 < f.low and f.high < 0.25 for f in apart):
        return "holds"
    differ = [not f.low <= 0 <= f.high for f in apart]
    return "fails" if all(differ) else "depends on the optimizer" if any(differ) else "depends on the seed"


def partial(bench):
    found = over_floor(1)
    for (optimizer, norm), losses in sorted(found.items()):
        full = found.get((optimizer, "rmsnorm"), {})
        seeds = sorted(losses.keys() & full.keys())
        if norm == "prmsnorm" and seeds and len(full) > 1:
            spread = of_sample("", [*full.values()], "")
            reach = (spread.high - spread.low) / 2 * math.sqrt(1 + len(full))       # of one more seed
            more = losses[seeds[0]] - statistics.mean(full.values())
            yield Figure(f"{optimizer}: trained with it, over RMSNorm's loss", more, more - reach,
                         more + reach, 1, "seeds", "points", shown=True)
    make("NORM=prmsnorm")
    for name, model in bench.models():
        swapped = OneThread(ROOT / "run-prmsnorm", model.path, True)
        found = compare(bench.engine.run(model, model.norm), swapped, bench.windows(name))
        yield of_interval(f"{name} by pRMSNorm", found["delta"], found, model=name, shown=True)


def partial_verdict(figures):
    if not figures:
        return "not measured"
    bad = [f.low > MARGIN for f in figures.values()]
    return "fails" if all(bad) else "depends on the model" if any(bad) else "holds"


def column_means(bench):
    """train.py says how the column means of the matrices that write into the stream correlate with those
    that the matrices began with."""
    found = {}
    for r in trained():
        if r["norm"] in ("rmsnorm", "layernorm"):
            for part, means in r.get("column_means", {}).items():
                found.setdefault((r["optimizer"], r["norm"], part), []).append(means["correlation"])
    for (optimizer, norm, part), values in sorted(found.items()):
        if len(values) > 1:
            yield of_sample(f"{optimizer}, {norm}, {part}: correlation with the beginning", values, "seeds",
                            shown=norm == "layernorm")


def column_means_verdict(figures):
    """A correlation above one half: the mean is more what it was than what was learned."""
    kept = {f.value > 0.5 for what, f in figures.items() if ", layernorm," in what}
    if not kept:
        return "not measured"
    return "depends on the optimizer" if len(kept) == 2 else "fails" if kept == {True} else "holds"


# ---------------------------------------------------------------------------- 4, 5, 12: the mean and the swap


def mean_direction(bench):
    for name, model in bench.models():
        stream = [[p["mean_to_rms"] for p in points] for points in streams(bench, name)]
        yield of_sample(f"{name}: |mean| / RMS of the stream", [statistics.mean(points) for points in stream],
                        "texts", model=name)
        yield counted(f"{name}: the same, expected of random vectors of {model.dim}",
                      residuals.baseline(model.dim)["mean_to_rms"], "formula", model=name)
    for name, model in bench.models("rmsnorm"):
        copies, by = bench.copies(name), bench.engine.run
        dropped = {i: copies.without(direction, f"without-{i}.gguf") for i, direction in enumerate(
            [np.ones(model.dim) / math.sqrt(model.dim), *directions(model.dim, DIRECTIONS)])}
        windows = bench.windows(name) if small(model) else spread(bench.windows(name), 8)
        found = compare_all(by(copies.plain, "rmsnorm"),
                            {i: by(path, "rmsnorm") for i, path in dropped.items()}, windows)
        of_mean, *of_random = found.values()
        yield of_interval(f"{name}: the mean dropped", of_mean["delta"], of_mean, model=name, shown=True)
        yield of_sample(f"{name}: a random direction dropped", [f["delta"]["mean"] for f in of_random],
                        "directions", "nats a token", model=name, shown=True)


def streams(bench, name, prompts=5, tokens=60):
    """What lab/residuals.py says of the stream while the model goes on with halves of texts."""
    model = bench.checkpoint(name)
    for window in spread(bench.windows(name), prompts):
        prompt = window.text[:len(window.text) // 2]
        yield residuals.measure(bench.engine, model, model.norm, prompt, tokens)


def small(model):
    """A copy in F32 has four bytes for each parameter."""
    return model.parameters < 1e7


def spread(items, n):
    """So many of the items, evenly."""
    return [items[i * len(items) // n] for i in range(min(n, len(items)))]


def lossless(figures, what, otherwise):
    """Does the loss stay the same, up to the margin?"""
    deltas = [f for name, f in figures.items() if what in name]
    if not deltas:
        return "not measured"
    if all(-MARGIN < f.low and f.high < MARGIN for f in deltas):
        return "holds"
    return "fails" if all(f.low > MARGIN for f in deltas) else f"depends on {otherwise}"


def mean_verdict(figures):
    return lossless(figures, "the mean dropped", "the model")


def swap(bench):
    for name, model in bench.models():
        found = bench.swapped(name)
        yield of_interval(f"{name} by {NORMS[model.other]}", found["delta"], found, model=name, shown=True)
        yield of_interval(f"{name}: perplexity", found["delta"]["percent"], found, "%", model=name)
        yield of_interval(f"{name}: mean KL", found["kl"], found, "nats", model=name)
        for which in ("all", "certain", "open"):
            share = found["agreement"][which]
            if share["low"] is not None:
                yield of_interval(f"{name}: the same likeliest token, {which} positions", share, found, "%",
                                  100, model=name)
        runs = {"own": bench.engine.run(model, model.norm), "swap": bench.engine.run(model, model.other)}
        prompts = greedy.prompts(bench.windows(name), PROMPTS)
        points = [TOKENS if point is None else point
                  for point in greedy.measure(runs, prompts, TOKENS)[0]["swap"]["each"]]
        yield Figure(f"{name}: greedy texts part after (median; {TOKENS}: not at all)",
                     statistics.median_low(points), *interval_of_median(points), len(points), "prompts",
                     "tokens", model=name)


def swap_verdict(figures):
    opposite = {"holds": "fails", "fails": "holds"}
    verdict = lossless(figures, " by ", "the model")
    return opposite.get(verdict, verdict)


def growth(bench):
    for name, model in bench.models():
        logs = [math.log(points[-1]["rms"] / points[0]["rms"]) for points in streams(bench, name)]
        f = of_sample("", logs, "")
        yield Figure(f"{name}: RMS of the stream at the end, over that of the embedding", math.exp(f.value),
                     math.exp(f.low), math.exp(f.high), f.n, "texts", "times", model=name, shown=True)


def growth_verdict(figures):
    opposite = {"holds": "fails", "fails": "holds"}
    verdict = less([*figures.values()], 1, "the model")
    return opposite.get(verdict, verdict)


# ---------------------------------------------------------------------------- 7, 8, 9: arithmetic


def rewrites(bench):
    for name, model in bench.models():
        if not small(model):
            continue
        copies, by = bench.copies(name), bench.engine.run
        centered = copies.centered()
        by_other = OneThread(bench.engine.programs[model.other], centered, True)
        pairs = {"centred, by the other norm": (by(centered, model.norm), by_other),
                 "folded": (by(copies.plain, model.norm), by(copies.folded(), model.norm))}
        for what, (p, q) in pairs.items():
            found = compare(p, q, bench.windows(name))
            agreement = found["agreement"]["all"]
            yield of_interval(f"{name}, {what}: mean KL", found["kl"], found, "nats", model=name, shown=True)
            yield of_interval(f"{name}, {what}: the same likeliest token", agreement, found, "%", 100,
                              model=name)


def rewrites_verdict(figures):
    return less([f for what, f in figures.items() if "mean KL" in what], 1e-8, "the model")


class Counted(float):
    """A number that counts the operations it takes part in."""

    count = 0

    def _count(operation):
        def counting(*operands):
            Counted.count += 1
            return Counted(operation(*operands))
        return counting

    __add__ = __radd__ = _count(float.__add__)
    __sub__ = _count(float.__sub__)
    __mul__ = __rmul__ = _count(float.__mul__)
    __truediv__ = _count(float.__truediv__)


def operations(norm, with_bias, dim):
    """For each number: how many more there are for a vector of twice the length."""
    def of(n):
        x = np.array([Counted(i) for i in range(1, n + 1)], object)
        Counted.count = 0
        by_definition(norm, x, x if with_bias else None)
        return Counted.count
    return (of(2 * dim) - of(dim)) / dim


def by_definition(norm, x, bias):
    """As loops do it: a square is a multiplication, a mean a sum. The divisions by n and the root are there
    once for a vector."""
    n = len(x)
    mean = sum(x[1:], x[0]) / n if norm == "layernorm" else None
    centered = x - mean if norm == "layernorm" else x
    square = centered * centered
    scale = 1 / math.sqrt(sum(square[1:], square[0]) / n)
    y = x * scale * x if norm == "rmsnorm" else (x - mean) * scale * x
    return y if bias is None else y + bias


def operation_counts(bench):
    for norm, bias in (("rmsnorm", False), ("layernorm", False), ("layernorm", True)):
        yield counted(f"{norm}{' with bias' * bias}: operations for each number", operations(norm, bias, 64),
                      "count", "operations", shown=True)
    for name, model in bench.models():
        tensors = bench.engine.report(model, model.norm, "-m", "info")["tensors"]
        for part in ("weight", "bias"):
            n = sum(math.prod(t["shape"]) for t in tensors if re.search(rf"norm\.{part}$", t["name"]))
            yield counted(f"{name}: numbers in the norms' {part}", n, "count", "numbers", model=name)
            yield counted(f"{name}: the norms' {part}, of all parameters", 100 * n / model.parameters,
                          "count", "%", model=name)


def counts_verdict(figures):
    of = {what.split(":")[0]: f.value for what, f in figures.items() if "operations" in what}
    if not of:
        return "not measured"
    return "holds" if of["rmsnorm"] < of["layernorm"] < of["layernorm with bias"] else "fails"


def symmetries(bench):
    """By the formulas of tests/reference.py; test_rmsnorm asks the engine."""
    rng, dim = np.random.default_rng(1), 128
    x = rng.normal(size=(100, dim)) + 1                 # with a mean
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    for name, norm in reference.NORMS.items():
        def apart(a, b):
            return np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)

        y = norm(x, 1, 0)
        for what, change in (("scaled by 4", apart(norm(4 * x, 1, 0), y)),
                             ("shifted by 1", apart(norm(x + 1, 1, 0), y)),
                             ("rotated", apart(norm(x @ rotation, 1, 0), y @ rotation))):
            yield of_sample(f"{name}, {what}: change of the output", [float(c) for c in change], "vectors",
                            shown="scaled" not in what)


def symmetries_verdict(figures):
    changes = {what.partition(":")[0]: f for what, f in figures.items()}
    if not changes:
        return "not measured"
    kept = {what for what, f in changes.items() if f.high < 1e-12}
    expected = {"rmsnorm, scaled by 4", "layernorm, scaled by 4", "layernorm, shifted by 1",
                "rmsnorm, rotated"}
    return "holds" if kept == expected else "fails"


# ---------------------------------------------------------------------------- 10: mistakes


def mistaken(bench):
    for name, model in bench.models():
        p = bench.engine.run(model, model.norm)
        others = {what: OneThread(program, model.path) for what, program in bench.planted(model.norm).items()
                  if name != "SmolLM2" or "eps" in what}
        for what, found in compare_all(p, others, bench.windows(name)).items():
            yield of_interval(f"{name}: {what}", found["delta"], found, model=name,
                              shown=what == "a tenth of its eps")


def mistaken_verdict(figures):
    seen = {f.low > MARGIN for f in figures.values()}
    return {0: "not measured", 2: "depends on the mistake"}.get(
        len(seen), "holds" if seen == {True} else "fails")


ROWS = {
    1: Row(cost, cost_verdict, "make bench-norm JSON=1", is_time=True),
    2: Row(training, training_verdict, "python train/steps.py --json", is_time=True),
    3: Row(quality, quality_verdict, "python train/train.py"),
    4: Row(mean_direction, mean_verdict, "python docs/claims.py 4"),
    5: Row(swap, swap_verdict, "python docs/claims.py 5"),
    6: Row(partial, partial_verdict, "python docs/claims.py 6"),
    7: Row(rewrites, rewrites_verdict, "python docs/claims.py 7"),
    8: Row(operation_counts, counts_verdict, "python docs/claims.py 8"),
    9: Row(symmetries, symmetries_verdict, "python docs/claims.py 9"),
    10: Row(mistaken, mistaken_verdict, "python docs/claims.py 10"),
    11: Row(column_means, column_means_verdict, "python train/train.py"),
    12: Row(growth, growth_verdict, "python docs/claims.py 12"),
}
