"""throughput.py - is one build faster than the other?

The norms take hundredths of a token's time, and a shared machine is wrong by more than that from one second
to the next. So
  - what counts is processor time, of one thread: what else runs there takes little of it;
  - of the five runs of a process the fastest counts: what disturbs a run makes it slower, never faster;
  - a round runs A B B A, the next one B A A B, and the faster of the two counts: neither side goes first;
  - many short processes, not a few long ones: where a process lies in memory changes its speed for good;
  - rounds are summed up by their trimmed mean: one that was hit counts no more than one that was not.
The interval is a bootstrap-t over rounds (Efron & Tibshirani 1993, section 12.5; with trimmed means: Wilcox
2012).
"""

import math
import random
import time
from dataclasses import dataclass
from statistics import median

TRIM, LEVEL, RESAMPLES = 0.2, 0.99, 2000
PHASES = ("decode", "prefill")
COSTS = PHASES + ("decode_norm", "prefill_norm")        # time of a token, and of one norm of one token


@dataclass
class Effort:
    """Rounds until the intervals of a token's time are so narrow, or so much time has gone by."""

    least: int = 40
    half_width: float = 0.0025
    seconds: float = 40
    context: int = 128          # half of it is read, the other half is written


QUICK = Effort(least=20, half_width=0.01, seconds=5, context=64)


def trimmed(x):
    """The mean of the middle, and its standard error from the winsorized variance (Yuen 1974)."""
    x, n = sorted(x), len(x)
    cut = int(TRIM * n)
    middle = x[cut:n - cut]
    held = [x[cut]] * cut + middle + [x[n - cut - 1]] * cut
    center = sum(held) / n
    variance = sum((value - center) ** 2 for value in held) / (n - 1)
    return sum(middle) / len(middle), math.sqrt(variance / n) / (1 - 2 * cut / n)


def interval(differences, level=LEVEL, seed=1):
    """(estimate, low, high) of what the differences scatter around."""
    estimate, error = trimmed(differences)
    rng, distances = random.Random(seed), []
    for _ in range(RESAMPLES):
        mean, spread = trimmed(rng.choices(differences, k=len(differences)))
        distances.append(abs(mean - estimate) / spread if spread > 1e-6 * error else 0.0)
    reach = sorted(distances)[math.ceil(level * RESAMPLES) - 1] * error
    return estimate, estimate - reach, estimate + reach


def ratio(differences):
    """Of B to A, from the differences of their logarithms."""
    estimate, low, high = (math.exp(x) for x in interval(differences))
    return {"ratio": estimate, "low": low, "high": high, "differs": not low <= 1 <= high}


def bench(engine, model, norm, effort):
    """{what: nanoseconds} of one process, and its report."""
    report = engine.report(model, norm, "-m", "bench", "-j", 1, "-c", min(effort.context, model.context))
    costs = {phase: 1e9 / max(report[phase]["cpu_runs"]) for phase in PHASES}
    costs |= {"decode_norm": report["norm_ns"], "prefill_norm": report["prefill"]["norm_ns"]}
    return costs, report


def compare(run_a, run_b, effort, say=lambda rounds, width: None):
    """run_a, run_b: a process's costs. How many times as long as A does B take, and are they apart at all?"""
    differences, started = {}, time.monotonic()
    for rounds in range(1, 10**6):
        logs = {run_a: [], run_b: []}
        for run in (run_a, run_b, run_b, run_a) if rounds % 2 else (run_b, run_a, run_a, run_b):
            logs[run].append({what: math.log(cost) for what, cost in run().items()})
        for what in logs[run_a][0]:
            a, b = (min(log[what] for log in logs[run]) for run in (run_a, run_b))
            differences.setdefault(what, []).append(b - a)
        if rounds >= effort.least and rounds % 2 == 0:
            reach = [interval(differences[what]) for what in PHASES if what in differences]
            width = max((high - low) / 2 for _, low, high in reach)
            say(rounds, width)
            if width <= effort.half_width or time.monotonic() - started > effort.seconds:
                break
    return {"rounds": rounds, **{what: ratio(found) for what, found in differences.items()}}


def profile(reports):
    """Of the processes of one build: what is typical, and the shares of the one that was disturbed least."""
    def time_of_all(run):
        return run["norm_ns"] / run["share"]["norm"]

    decode = [{"norm_ns": r["norm_ns"], "share": r["share"], **r["decode"]} for r in reports]
    phases = {"decode": decode, "prefill": [r["prefill"] for r in reports]}
    return {phase: {"tokens_per_second": median(max(r["cpu_runs"]) for r in runs),
                    "norm_ns": median(r["norm_ns"] for r in runs),
                    "share": min(runs, key=time_of_all)["share"]}
            for phase, runs in phases.items()}


def norms(engine, model, effort, say):
    """LayerNorm's build beside RMSNorm's, on one checkpoint."""
    reports = {"rmsnorm": [], "layernorm": []}

    def process(norm):
        def run():
            costs, report = bench(engine, model, norm, effort)
            reports[norm].append(report)
            return costs
        return run

    found = compare(process("rmsnorm"), process("layernorm"), effort, say)
    return found, {norm: profile(runs) for norm, runs in reports.items()}


def control(engine, model, effort, say):
    """The same build on both sides: nothing may be found."""
    return compare(lambda: bench(engine, model, model.norm, effort)[0],
                   lambda: bench(engine, model, model.norm, effort)[0], effort, say)
