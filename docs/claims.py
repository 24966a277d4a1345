#!/usr/bin/env python3
"""claims.py - measure again what docs/norms.md says of the norms, and mark what moved.

    .venv/bin/python docs/claims.py            all of it: some minutes, on a quiet machine
    .venv/bin/python docs/claims.py 4 5        these rows

A row of the table on that page says its figures as "1.234 ± 0.005", in the order in which its function here
yields them. A figure has moved when it is off by more than both spreads together.
"""

import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "train"), str(ROOT / "bench")]

import mistakes  # noqa: E402
import models  # noqa: E402
from lab import outputs  # noqa: E402
from lab.engine import Checkpoint, Engine  # noqa: E402
from stories import stories  # noqa: E402

TWINS = {norm: ROOT / f"models/stories-{norm}.gguf" for norm in ("rmsnorm", "layernorm")}
NUMBER = r"\d+(?:\.\d+)?(?:e-?\d+)?"
FIGURE = re.compile(rf"(-?{NUMBER}) ± ({NUMBER})")
done = {}                                               # what several rows need is measured once


def run(*command):
    return subprocess.run([str(word) for word in command], cwd=ROOT, check=True, stdout=subprocess.PIPE,
                          text=True).stdout


def once(measure):
    def result():
        if measure not in done:
            done[measure] = measure()
        return done[measure]
    return result


@once
def ablation():
    run("make", "-s", "ablate")
    return json.loads((ROOT / "ablation/report.json").read_text())["checkpoints"]


@once
def calls():
    return json.loads(run("make", "-s", "bench-norm", "JSON=1", "DIMS=512 2048 8192"))["results"]


@once
def texts():
    return [text for text, _ in islice(stories("claims"), 40)]


def score(norm, program, model):
    engine = Engine({model.norm: ROOT / "run", norm: program})      # the first one only counts tokens
    with tempfile.TemporaryDirectory() as folder:
        return outputs.perplexity(engine, model, norm, texts(), folder)


def changed(norm, replacements):
    """The perplexity of this norm's twin, in per cent of the right one's, in builds with something else."""
    for name in ("rmsnorm", "layernorm"):
        run("make", "-s", f"NORM={name}")
    model = Checkpoint(Engine({"rmsnorm": ROOT / "run"}), TWINS[norm])
    right = score(norm, ROOT / ("run" if norm == "rmsnorm" else f"run-{norm}"), model)
    with tempfile.TemporaryDirectory() as folder:
        copy = mistakes.Copy(folder, norm, "-O3")
        for name, file, text in replacements:
            original = (ROOT / file).read_text()
            copy.change(file, text)
            program = f"build/run{'' if norm == 'rmsnorm' else '-' + norm}"
            copy.make(program)
            change, error = outputs.relative(right, score(norm, Path(folder) / program, model))
            copy.change(file, original)
            yield f"{norm}'s twin, {name}: perplexity, %", 100 * change, 100 * error


# ---------------------------------------------------------------------------- the rows


def cheaper():
    """1. RMSNorm is cheaper."""
    fastest = calls()[-1]["kernels"]
    for found in calls():
        if found["kernels"] == fastest:
            r = found["rms_to_layer"]
            yield (f"a call, {found['dim']} numbers x {found['T']}: RMSNorm's time : LayerNorm's",
                   r["median"], (r["high"] - r["low"]) / 2)
    for twin in ablation():
        for phase in ("decode", "prefill"):
            r = twin["throughput"][phase]
            yield (f"{twin['name']}, {phase}: LayerNorm's build takes more, %", 100 * (r["ratio"] - 1),
                   50 * (r["high"] - r["low"]))
    for shape in ("110M", "1.1B"):
        path = models.make(ROOT / "build/bench", shape, "Q8_0")
        for norm, *program in (("RMSNorm", "run", path), ("LayerNorm", "run-layernorm", path, "--swap-norm")):
            command = [f"./{program[0]}", *program[1:], "-m", "bench", "-c", 32, "-j", 1, "--json", "-q"]
            found = [json.loads(run(*command))["share"]["norm"] for _ in range(3)]
            yield (f"{shape}, decode: {norm}'s share of the time, %", 100 * statistics.median(found),
                   50 * (max(found) - min(found)))


def training():
    """2. It shortens training."""
    for shape, found in json.loads(run(sys.executable, "train/steps.py", "--json")).items():
        for name, r in found.items():
            if name != "ms":                            # the ratios
                low, high = r["quartiles"]
                yield f"{shape}: time of a step, {name}", r["median"], (high - low) / 2


def over_floor(norm, rounds):
    """How far the validation loss of each seed is above the floor after so many rounds of training, in %."""
    for path in sorted((ROOT / "train/results").glob(f"{norm}-*")):
        told = json.loads(path.read_text())
        (loss,) = (point["validation"] for point in told["curve"]
                   if point["step"] == rounds * told["recipe"]["steps"])
        yield 100 * (loss / told["validation_floor"] - 1)


def quality():
    """3. The quality is the same."""
    over = {norm: list(over_floor(norm, 2)) for norm in TWINS}
    for norm, found in over.items():
        yield (f"{norm}: over the floor, % (spread: of the seeds)", statistics.mean(found),
               statistics.stdev(found))
    apart = [b - a for a, b in zip(over["rmsnorm"], over["layernorm"])]
    yield ("LayerNorm less RMSNorm, points", statistics.mean(apart),
           statistics.stdev(apart) / math.sqrt(len(apart)))


DROPPED = """void rmsnorm(float *out, const float *x, const Norm *w) {
    double part = 0, square = 0;                        // along a vector of plus and minus one
    for (int pass = 0; pass < 2; pass++) {
        uint64_t seed = %d;
        for (int i = 0; i < w->dim; i++) {
            double sign = random_next(&seed) & 1 << 20 ? 1 : -1, left = x[i] - part * sign;
            if (pass == 0) square += x[i] * sign / w->dim;
            else out[i] = (float)left;
        }
        if (pass == 0) part = square;
    }
    double mean_square = kernels.mean_square(out, w->dim);
    kernels.normalize(out, out, 0, 1 / sqrt(mean_square + w->eps), w->weight, w->bias, w->dim);
}
"""


def mean_direction():
    """4. The mean is nearly zero."""
    for twin in ablation():
        stream = [point["mean_to_rms"] for point in twin["stream"][twin["norm"]]]
        yield f"{twin['name']}: |mean| / RMS of the stream", statistics.mean(stream), statistics.stdev(stream)
    base = ablation()[0]["baseline"]
    yield ("random vectors of that length", base["mean_to_rms"],
           base["mean_to_rms"] * math.sqrt(math.pi / 2 - 1) / math.sqrt(base["vectors"]))
    source = (ROOT / "rmsnorm.c").read_text()
    [function] = re.findall(r"^void rmsnorm\(float.*?^}\n", source, re.M | re.S)
    plans = [("a random direction dropped", "rmsnorm.c", source.replace(function, DROPPED % seed))
             for seed in range(1, 9)]
    found = [value for _, value, _ in changed("rmsnorm", plans)]
    yield ("rmsnorm's twin, a random direction dropped: perplexity, % (of 8)", statistics.mean(found),
           statistics.stdev(found) / math.sqrt(len(found)))
    plans = [plan for plan in mistakes.mistakes_of("rmsnorm") if plan[0] == "the other norm"]
    for _, value, error in changed("rmsnorm", plans):
        yield "rmsnorm's twin, the mean's direction dropped: perplexity, %", value, error


def swap():
    """5. No drop-in replacement."""
    for twin in ablation():
        own, other = (twin["perplexity"][twin[which]] for which in ("norm", "other"))
        change, error = outputs.relative(own, other)
        yield f"{twin['name']}, the norm swapped: perplexity, %", 100 * change, 100 * error
        found = twin["distributions"]
        yield f"{twin['name']}: mean KL, nats", found["kl"], found["stderr"]
        n, p = found["positions"], found["agreement"]
        yield f"{twin['name']}: the same likeliest token, %", 100 * p, 100 * math.sqrt(p * (1 - p) / n)


def partial():
    """6. A part of the RMS will do."""
    full = list(over_floor("rmsnorm", 1))
    yield "RMSNorm's training, one round: over the floor, %", statistics.mean(full), statistics.stdev(full)
    for value in over_floor("prmsnorm", 1):
        yield "trained with it (spread: of RMSNorm's seeds)", value, statistics.stdev(full)
    run("make", "-s", "NORM=prmsnorm")
    for norm, path in TWINS.items():
        model = Checkpoint(Engine({"rmsnorm": ROOT / "run"}), path)
        right = score(norm, ROOT / ("run" if norm == "rmsnorm" else f"run-{norm}"), model)
        change, error = outputs.relative(right, score("prmsnorm", ROOT / "run-prmsnorm", model))
        yield f"{norm}'s twin by prmsnorm: perplexity, %", 100 * change, 100 * error
    fastest = calls()[-1]["kernels"]
    for found in calls():
        if found["kernels"] == fastest:
            full, part = found["norms"]["rmsnorm"]["ns"], found["norms"]["prmsnorm"]["ns"]
            ratio = part["median"] / full["median"]
            spread = ratio * (part["high"] - part["low"]) / part["median"] / 2
            yield f"a call, {found['dim']} numbers x {found['T']}: its time : RMSNorm's", ratio, spread


def no_mean():
    """7. With a mean of zero they are the same."""
    for twin in ablation():
        yield f"{twin['name']}, centred: mean KL, nats", twin["oracle"]["kl"], twin["oracle"]["stderr"]


def mistaken():
    """10. What mistakes cost."""
    for norm in TWINS:
        yield from changed(norm, mistakes.mistakes_of(norm))


ROWS = {1: cheaper, 2: training, 3: quality, 4: mean_direction, 5: swap, 6: partial, 7: no_mean, 10: mistaken}


def said_in(page, number):
    """(figure, spread) in the order of the row. 8 and 9 have none: one is counted, one is a test."""
    rows = re.findall(rf"^\| {number} \|.*$", page, re.M)
    return [tuple(map(float, pair)) for row in rows for pair in FIGURE.findall(row)]


def main():
    page = (ROOT / "docs/norms.md").read_text()
    moved = 0
    wanted = sys.argv[1:] or [str(number) for number in ROWS]
    if unknown := set(wanted) - {str(number) for number in ROWS}:
        sys.exit(f"claims.py: {' '.join(sorted(unknown))}: rows {', '.join(map(str, ROWS))} have figures; "
                 "8 and 9 are tests")
    for number in map(int, wanted):
        print(f"{ROWS[number].__doc__}", flush=True)
        said = said_in(page, number)
        found = list(ROWS[number]())
        for i, (what, value, spread) in enumerate(found):
            verdict = "is not on the page"
            if i < len(said):
                off = abs(value - said[i][0])
                verdict = "as said" if off <= spread + said[i][1] else "MOVED"
                verdict += f": {said[i][0]:g} ± {said[i][1]:g}"
            moved += not verdict.startswith("as said")
            print(f"    {what:75} {value:.4g} ± {spread:.2g}    {verdict}", flush=True)
    print(f"{moved} figures moved")
    return moved > 0


if __name__ == "__main__":
    sys.exit(main())
