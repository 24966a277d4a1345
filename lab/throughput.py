"""throughput.py - what does a norm cost, and is one program faster than the other?

A norm's time is told by bench-norm (bench/norms.c), which calls it many times between two looks at the
clock; its share of a token's time, and what the other norm should add, follow from that. The norms take
hundredths of a token's time, and a shared machine is wrong by more than that from one second to the next, so
that whole programs are compared only as a check:
  - what counts is processor time, of one thread: what else runs there takes little of it;
  - the programs of a round run at the same time: what disturbs one of them disturbs all;
  - a round starts A B C, then C B A, the next one B C A and A C B: nobody goes first;
  - many short processes, not a few long ones: where a process lies in memory changes its speed for good;
  - of a process's runs the median counts, of rounds the trimmed mean: one that was hit counts no more than
    one that was not;
  - each round has one of RMSNorm's programs linked in another order, too: the control.
lab/verdicts.py says what may be told of that.
"""

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from lab import verdicts
from lab.engine import Trouble

PHASES = ("decode", "prefill")
ROWS = {"decode": 1, "prefill": 64}                     # of bench-norm, which both stand for
BUILDS = ("rmsnorm", "layernorm", "nonorm")
PARTS = ("attention", "ffn", "matmul", "other")         # of a token's time, beside the norm


@dataclass
class Effort:
    """Rounds until the intervals of a token's time are so narrow, or so much time has gone by."""

    min_rounds: int = 40
    half_width: float = 0.0025
    seconds: float = 60
    context: int = 128          # half of it is read, the other half is written; less by models above 2M
    orders: int = 8             # in which RMSNorm's program is linked again
    dims: tuple = (64, 128, 256, 512, 768, 1024, 2048, 4096, 5632, 8192, 16384)     # of the curve


QUICK = Effort(min_rounds=16, half_width=0.01, seconds=5, context=64, dims=(64, 256, 1024, 4096, 16384))

# ---------------------------------------------------------------------------- whole programs


def bench(engine, model, build, effort):
    """The report of one process."""
    context = min(effort.context, model.context, max(8, effort.context * 2_000_000 // model.parameters))
    return engine.report(model, build, "-m", "bench", "-j", 1, "-n", 8, "-c", context)


def at_once(runs):
    """The logarithms of a token's time, [runs, phases], of processes that run at the same time."""
    with ThreadPoolExecutor(len(runs)) as pool:
        reports = pool.map(lambda run: run(), runs)
    return -np.log([[np.median(report[phase]["cpu_runs"]) for phase in PHASES] for report in reports])


def compare(builds, relinked, effort, say=lambda rounds, width: None):
    """builds: {name: a function that runs a process and returns its report}, RMSNorm's first; relinked: such
    functions. -> {name: logarithms of a token's time, [rounds, phases]}, and for each relinked program the
    logarithm of how many times as long as RMSNorm's it takes, [orders, phases]."""
    logs, control = {name: [] for name in builds}, [[] for _ in relinked]
    base, second = list(builds)[:2]
    started = time.monotonic()
    for i in range(10**6):
        order = i % len(relinked) if relinked else None
        turn = list(builds.items()) + ([(None, relinked[order])] if relinked else [])
        names, runs = zip(*turn[i % len(turn):], *turn[:i % len(turn)])
        found = dict(zip(names, (at_once(runs) + at_once(runs[::-1])[::-1]) / 2))
        for name in builds:
            logs[name].append(found[name])
        if relinked:
            control[order].append(found[None] - found[base])
        if i + 1 >= max(effort.min_rounds, 2 * len(relinked)):
            differences = np.subtract(logs[second], logs[base])
            width = max(np.ptp(verdicts.Estimate(d).interval(0.01)) / 2 for d in differences.T)
            say(i + 1, width)
            if width <= effort.half_width or time.monotonic() - started > effort.seconds:
                break
    return ({name: np.array(found) for name, found in logs.items()},
            np.array([np.median(found, axis=0) for found in control]))


# ---------------------------------------------------------------------------- the norm alone


def bench_norm(program, kernels, *dims):
    """bench-norm's report, of the set of kernels in use."""
    try:
        done = subprocess.run([program, "--json", *map(str, dims)], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise Trouble(f"{program} does not run: build it with 'make build/norms'")
    report = json.loads(done.stdout)
    return report | {"results": [found for found in report["results"] if found["kernels"] == kernels]}


def spread(several, scale=1.0):
    """Medians and quartiles of several runs of bench-norm as one. (The quartiles of its 41 turns hold the
    median that these are drawn from in 99.8 % of all cases.)"""
    return {"value": scale * sum(s["median"] for s in several) / len(several),
            "low": scale * min(s["low"] for s in several), "high": scale * max(s["high"] for s in several)}


def inverse(s):
    return {"value": 1 / s["value"], "low": 1 / s["high"], "high": 1 / s["low"]}


def call(reports, dim, phase):
    """Nanoseconds of a norm of so many numbers, and LayerNorm's time : RMSNorm's."""
    found = [result for report in reports for result in report["results"]
             if result["dim"] == dim and result["T"] == ROWS[phase]]
    times = {norm: spread([result["norms"][norm]["ns"] for result in found], 1 / ROWS[phase])
             for norm in ("rmsnorm", "layernorm", "layernorm with bias", "nonorm")}
    return times | {key.replace("rms_to_layer", "layer_to_rms"): inverse(spread([r[key] for r in found]))
                    for key in ("rms_to_layer", "rms_to_layer_with_bias")}


def share(call_ns, calls, token):
    """What so many calls take of a token's time; token: its median and quartiles in nanoseconds."""
    return {"value": calls * call_ns["value"] / token["value"], "low": calls * call_ns["low"] / token["high"],
            "high": calls * call_ns["high"] / token["low"]}


def expected(of_token, change):
    """Per cent of a token's time: share x (ratio - 1), at the ends of both intervals."""
    ends = [of_token[a] * change[b] for a in ("low", "high") for b in ("low", "high")]
    return {"value": 100 * of_token["value"] * change["value"], "low": 100 * min(ends),
            "high": 100 * max(ends)}


# ---------------------------------------------------------------------------- a checkpoint


def of_phase(model, phase, reports, calls):
    """What the norms take of a token's time, and should add to it."""
    def token_ns(report):                               # what disturbs a run makes it slower, never faster
        return 1e9 / max(report[phase]["cpu_runs"])

    typical = {build: median(map(token_ns, runs)) for build, runs in reports.items()}
    low, high = np.percentile(list(map(token_ns, reports["rmsnorm"])), (25, 75))
    token = {"value": typical["rmsnorm"], "low": float(low), "high": float(high)}
    least = min(reports["rmsnorm"], key=token_ns)
    parts = (least if phase == "decode" else least["prefill"])["share"]
    # Only the last token of a prompt goes through the last norm.
    per_token = 2 * model.layers + (1 if phase == "decode" else 1 / least["prefill"]["tokens"])
    of_norm = call(calls, model.dim, phase)
    # Models that were trained with LayerNorm have a bias, and would not with RMSNorm.
    layernorm, ratio = ("layernorm with bias", "layer_to_rms_with_bias") if model.norm_bias else \
        ("layernorm", "layer_to_rms")
    shares = {norm: share(of_norm[key], per_token, token)
              for norm, key in (("rmsnorm", "rmsnorm"), ("layernorm", layernorm))}
    left = {key: of_norm["nonorm"][key] / of_norm["rmsnorm"]["value"] - 1 for key in ("value", "low", "high")}
    more = {key: of_norm[ratio][key] - 1 for key in ("value", "low", "high")}
    rest = sum(parts[part] for part in PARTS)
    of_time = shares["rmsnorm"]["value"]
    return {"tokens_per_second": {build: 1e9 / ns for build, ns in typical.items()},
            "token_ns": typical["rmsnorm"], "calls": per_token, "call": of_norm, "share": shares,
            "expected_percent": {"layernorm": expected(shares["rmsnorm"], more),
                                 "nonorm": expected(shares["rmsnorm"], left)},
            "parts": {"norm": of_time, **{part: parts[part] / rest * (1 - of_time) for part in PARTS}}}


def checkpoint(engine, model, relinked, norms, effort, say):
    """All but the verdicts; and what they are made from."""
    builds = {build: lambda build=build: bench(engine, model, build, effort) for build in BUILDS}
    alone, calls = {build: [] for build in BUILDS}, []

    def measure_alone():
        for build in BUILDS * 2:
            alone[build].append(builds[build]())
        calls.append(bench_norm(norms, alone["rmsnorm"][0]["kernels"], model.dim))

    measure_alone()
    logs, control = compare(builds, [lambda e=e: bench(e, model, "rmsnorm", effort) for e in relinked],
                            effort, say)
    measure_alone()                                     # before and after: the machine may have changed
    found = {"rounds": len(logs["rmsnorm"]), "bias": model.norm_bias,
             **{phase: of_phase(model, phase, alone, calls) for phase in PHASES}}
    comparisons = {}
    for i, phase in enumerate(PHASES):
        norms_share = found[phase]["share"]
        for build, dearest in (("layernorm", max(s["high"] for s in norms_share.values())),
                               ("nonorm", norms_share["rmsnorm"]["high"])):
            comparisons[phase, build] = ((logs[build] - logs["rmsnorm"])[:, i], 100 * dearest,
                                         control[:, i] if len(control) else [])
    return found, comparisons


def judge(found, comparisons):
    """The verdicts of all checkpoints, as one family."""
    told = iter(verdicts.judge([one for of_model in comparisons for one in of_model.values()]))
    for speed, of_model in zip(found, comparisons):
        for phase in PHASES:
            speed[phase]["whole"] = {}
        for phase, build in of_model:
            speed[phase]["whole"][build], speed[phase]["control"] = next(told)


def curve(norms, kernels, models, effort):
    """Both norms' time over the length of the vector."""
    return bench_norm(norms, kernels, *sorted({*effort.dims, *(model.dim for model in models)}))


def sentences(speed, phase):
    """What the numbers of one phase of a checkpoint say."""
    of_phase = speed[phase]
    of_time, expect = of_phase["share"]["rmsnorm"], of_phase["expected_percent"]
    added, saved = (f"{verdicts.signed(x['value'])} % ({verdicts.signed(x['low'])} to "
                    f"{verdicts.signed(x['high'])})" for x in (expect["layernorm"], expect["nonorm"]))
    yield (f"RMSNorm takes {100 * of_time['value']:.2f} % of a token's time ({100 * of_time['low']:.2f} to "
           f"{100 * of_time['high']:.2f}); so LayerNorm should change it by {added}, and no norm at all by "
           f"{saved}.")
    for build, name in (("layernorm", "LayerNorm's program"), ("nonorm", "The program without a norm")):
        yield verdicts.sentence(name, of_phase["whole"][build], of_phase["control"])
