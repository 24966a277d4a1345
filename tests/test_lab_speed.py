"""test_lab_speed.py - what the norm lab says of speed: arithmetic by hand, statistics by simulation, and
programs that are slower or only linked in another order."""

import json
import math
import re
import shutil
import subprocess
from itertools import cycle
from threading import Lock

import numpy as np
import pytest

import ablate
import throughput as check                              # tests/throughput.py
from lab import relink, throughput, verdicts
from lab.engine import Checkpoint, Engine, Trouble

CC = pytest.mark.skipif(shutil.which("cc") is None, reason="links programs with cc")
ORDERS, ROUNDS = 8, 20

# ---------------------------------------------------------------------------- one difference


def test_trimmed_by_hand():
    """Of ten, two are cut off at each end, and held at what is left: 2 2 2 3 4 5 6 7 7 7, say."""
    mean, error = verdicts.trimmed(np.array([-90, 1, 2, 3, 4, 5, 6, 7, 8, 900.]))
    held = [2, 2, 2, 3, 4, 5, 6, 7, 7, 7]
    variance = sum((x - 4.5) ** 2 for x in held) / 9
    assert mean == 4.5 and error == pytest.approx(math.sqrt(variance / 10) / 0.6)


def test_interval():
    estimate = verdicts.Estimate([0.01 * (-1) ** i + 0.05 for i in range(20)])
    low, high = estimate.interval(0.01)
    assert estimate.value == pytest.approx(0.05) and low < 0.045 < 0.055 < high < 0.08
    constant = verdicts.Estimate([0.1] * 20)
    assert constant.interval(0.01) == pytest.approx((0.1, 0.1)) and constant.p() < 0.001
    assert verdicts.Estimate([0.0] * 20).p() == 1


def test_p_and_interval_agree():
    rng, seen = np.random.default_rng(3), set()
    for shift in np.linspace(0, 0.02, 60):
        estimate = verdicts.Estimate(shift + rng.normal(0, 0.01, 20))
        for alpha in (0.05, 0.01, 0.00625):
            low, high = estimate.interval(alpha)
            seen.add(estimate.p() <= alpha)
            assert (estimate.p() <= alpha) == (not low <= 0 <= high), (shift, alpha)
    assert seen == {True, False}


def test_holm_by_hand():
    """0.01, 0.04, 0.03 and 0.005: 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 no less than the one before it."""
    adjusted, level = verdicts.holm([0.01, 0.04, 0.03, 0.005])
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # 0.005 <= 0.05/4, 0.01 <= 0.05/3, but 0.03 > 0.05/2: there it stops.
    assert level == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4])
    assert verdicts.holm([0.2])[1] == 0.05
    assert verdicts.holm([0.001, 0.001])[1] == pytest.approx([0.025, 0.05])     # none fails


def test_relinking_by_hand():
    """Mean 1 %, standard deviation 1 %, of three; Student's t with 2 degrees of freedom at 95 %: 4.303."""
    control = verdicts.relinking([0.0, 0.01, 0.02], 0.05)
    reach = 4.303 * 0.01 * math.sqrt(4 / 3)
    assert control["spread"] == pytest.approx(1)
    assert control["value"] == pytest.approx(100 * math.expm1(0.01))
    assert control["low"] == pytest.approx(100 * math.expm1(0.01 - reach), rel=0.01)
    assert control["high"] == pytest.approx(100 * math.expm1(0.01 + reach), rel=0.01)
    assert verdicts.student(7, 0.01) == pytest.approx(3.499, rel=0.01)


# ---------------------------------------------------------------------------- the verdicts


def noise(rng, shape, load=0.05):
    """Under 1 %, and one round in ten was hit by something."""
    return np.where(rng.random(shape) < 0.9, rng.normal(0, 0.006, shape), rng.normal(0, load, shape))


def test_verdicts():
    """Each from the two numbers that it depends on: how large a difference is, and how well it is known."""
    sides = np.tile([-1, 1], 10)
    calm, wild, steady, loose = 0.001 * sides, 0.05 * sides, 0.0005 * sides[:ORDERS], 0.02 * sides[:ORDERS]

    def told(differences, bound, orders):
        (found, control), = verdicts.judge([(differences, bound, orders)])
        return found["verdict"], found["told_as"], verdicts.sentence("LayerNorm's program", found, control)

    assert told(calm, 1.0, steady)[:2] == ("no difference", None)
    assert told(wild, 1.0, steady)[:2] == ("not resolved", None)
    assert told(calm + 0.02, 3.0, steady)[:2] == ("differs", "norm")
    assert told(calm + 0.02, 1.0, steady)[:2] == ("differs", "program")
    assert told(calm + 0.02, 1.0, loose)[:2] == told(calm + 0.02, 3.0, loose)[:2] == ("differs", "placement")
    assert told(calm + 0.02, 3.0, [])[:2] == told(calm, 3.0, [])[:2] == ("not resolved", None)
    for args, words in [((calm, 1.0, steady), r"differ by no more than 0\.\d\d %"),
                        ((wild, 1.0, steady), r"not resolved \(−?\d+\.\d\d to"),
                        ((calm + 0.02, 3.0, steady), r"2\.\d\d % more time .*within the 3\.00 % that norms"),
                        ((calm - 0.02, 1.0, steady), r"1\.9\d % less time .*something else differs"),
                        ((calm + 0.02, 1.0, loose), r"placement of code \(or load\), not the norm"),
                        ((calm + 0.02, 3.0, []), "no relinked programs")]:
        assert re.search(words, told(*args)[2]), (words, told(*args)[2])


class Machine:
    """Rounds of a report of two checkpoints, as they come from programs that do the same: each program's code
    has its own place, and so its own speed, in each phase of each checkpoint; each round has its noise."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.placement = self.rng.uniform(0.01, 0.03)
        self.load = self.rng.choice([0.02, 0.05, 0.1])

    def times(self, rounds, planted=0.0):
        return planted + self.rng.normal(0, self.placement) + noise(self.rng, rounds, self.load)

    def comparison(self, bound, planted=0.0):
        base = self.times(ROUNDS)
        orders = [self.times(ROUNDS) - base for _ in range(ORDERS)]
        return (self.times(ROUNDS, planted) - base, bound,
                [np.median(order[i::ORDERS]) for i, order in enumerate(orders)])

    def report(self, bound=0.5, planted=0.0):
        return verdicts.judge([self.comparison(bound, planted) for _ in range(8)])


def test_without_a_difference_nothing_is_claimed():
    """100 reports of eight comparisons: the norm never, and other programs in 5 reports at most."""
    told = [[found["told_as"] for found, _ in Machine(seed).report()] for seed in range(100)]
    assert sum("norm" in of_report for of_report in told) == 0
    assert sum("program" in of_report for of_report in told) <= 5
    assert sum("placement" in of_report for of_report in told) > 50         # placement is there, and seen


def test_a_slowdown_of_the_program_is_found():
    """5 %, where norms take half a per cent: a difference in 19 of 20, and never the norm's."""
    found = [Machine(seed).report(planted=0.05)[0][0] for seed in range(100)]
    steady = [one for seed, one in enumerate(found) if Machine(seed).placement < 0.015]
    assert sum(one["verdict"] == "differs" and one["value"] > 0 for one in steady) >= 0.95 * len(steady)
    assert not any(one["told_as"] == "norm" for one in found)


def test_false_alarms():
    """Without placement, in 100 reports of eight comparisons, 5 have a difference, or 10 by bad luck."""
    rng = np.random.default_rng(11)

    def report():
        return verdicts.judge([(noise(rng, ROUNDS), 0.5, noise(rng, ORDERS) / 2) for _ in range(8)])

    assert sum(any(found["verdict"] == "differs" for found, _ in report()) for _ in range(100)) <= 10


def test_a_relink_is_told_as_placement():
    """A program that does the same from another place, known well: it differs, by placement in 19 of 20."""
    told = []
    for seed in range(100):
        rng = np.random.default_rng(1000 + seed)
        base, relinked, *orders = rng.normal(0, 0.02, 2 + ORDERS)
        (found, control), = verdicts.judge([(relinked - base + rng.normal(0, 0.002, ROUNDS), 0.5,
                                             orders - base + rng.normal(0, 0.002, ORDERS))])
        told += [found["told_as"]] if found["verdict"] == "differs" else []
        if found["told_as"] == "placement":
            assert "placement of code" in verdicts.sentence("LayerNorm's program", found, control)
    assert len(told) > 80 and told.count("placement") >= 0.95 * len(told) and "norm" not in told


# ---------------------------------------------------------------------------- measuring


def report_of(decode, prefill):
    """Of three runs, one of which was hit, and the median is asked for."""
    return {"decode": {"cpu_runs": [1e9 / decode, 0.5e9 / decode, 1e9 / decode]},
            "prefill": {"cpu_runs": [0.5e9 / prefill, 1e9 / prefill, 1e9 / prefill], "tokens": 32}}


def test_comparisons_are_fair():
    """A machine that gets slower all the time, and whose every second process is slower, favours nobody."""
    clock, lock = iter(range(10**6)), Lock()

    def run():
        with lock:
            i = next(clock)
        return report_of(100 * 1.001 ** i, 100 + 5 * (i % 2))

    effort = throughput.Effort(min_rounds=20, half_width=1)
    for relinked in ([run] * 4, []):
        builds = dict.fromkeys(throughput.BUILDS, run)
        logs, control = throughput.compare(builds, relinked, effort)
        assert [found.shape for found in logs.values()] == [(20, 2)] * 3
        assert control.shape == ((4, 2) if relinked else (0,))
        for build in ("layernorm", "nonorm"):
            for differences in (logs[build] - logs["rmsnorm"]).T:
                assert verdicts.Estimate(differences).p() > 0.05
        assert abs(control).max(initial=0) < 0.06


def test_a_round_by_hand():
    """Twice each: A takes 100 and 100, B 100 and 121, the relinked program 100 and 144; so 1.1 and 1.2."""
    times = {"a": cycle([100]), "b": cycle([100, 121]), "r": cycle([100, 144])}
    runs = {name: lambda name=name: report_of(next(times[name]), 50) for name in times}
    effort = throughput.Effort(min_rounds=2, half_width=1)
    logs, control = throughput.compare({"a": runs["a"], "b": runs["b"]}, [runs["r"]], effort)
    assert np.exp(logs["a"]) == pytest.approx(np.array([[100e-9, 50e-9]] * 2))
    assert np.exp(logs["b"] - logs["a"]) == pytest.approx(np.array([[1.1, 1]] * 2))
    assert np.exp(control) == pytest.approx(np.array([[1.2, 1]]))


NORMS = {"rmsnorm": 40, "layernorm": 50, "layernorm with bias": 60, "nonorm": 10}


def of_bench_norm(dim, scale=1):
    """As of a machine on which every quartile is 10 % away."""
    def spread(x):
        return {"median": x, "low": 0.9 * x, "high": 1.1 * x}
    return {"results": [{"kernels": "avx2", "dim": dim, "T": T, "norms": {
        norm: {"ns": spread(ns * T * scale)} for norm, ns in NORMS.items()},
        "rms_to_layer": spread(0.8), "rms_to_layer_with_bias": spread(2 / 3)} for T in (1, 64)]}


def test_a_call_by_hand():
    found = throughput.call([of_bench_norm(128), of_bench_norm(128, 2)], 128, "prefill")
    assert found["rmsnorm"] == pytest.approx({"value": 60, "low": 36, "high": 88})      # of 40 and 80
    assert found["layer_to_rms"] == pytest.approx({"value": 1.25, "low": 1 / 0.88, "high": 1 / 0.72})
    assert found["layer_to_rms_with_bias"]["value"] == pytest.approx(1.5)


class Model:
    dim, layers, norm_bias = 128, 4, False


def test_a_phase_by_hand():
    """9 norms of 40 ns in a token of 36,000 ns are 1 %; LayerNorm's are a quarter longer: 0.25 %. Without
    any, of 40 ns 30 are saved: 0.75 %."""
    parts = {"norm": 0.5, "attention": 0.1, "ffn": 0.1, "matmul": 0.2, "other": 0.1}
    report = report_of(36_000, 9_000) | {"share": parts}
    report["prefill"]["share"] = parts
    reports = {build: [report] * 3 for build in throughput.BUILDS}
    found = throughput.of_phase(Model, "decode", reports, [of_bench_norm(128)])
    assert found["calls"] == 9 and found["token_ns"] == pytest.approx(36_000)
    assert found["share"]["rmsnorm"] == pytest.approx({"value": 0.01, "low": 0.009, "high": 0.011})
    assert found["share"]["layernorm"]["value"] == pytest.approx(0.0125)
    expected = found["expected_percent"]
    assert expected["layernorm"] == pytest.approx({"value": 0.25, "low": 0.9 * (1 / 0.88 - 1),
                                                   "high": 1.1 * (1 / 0.72 - 1)})
    assert expected["nonorm"] == pytest.approx({"value": -0.75, "low": -1.1 * 31 / 40,
                                                "high": -0.9 * 29 / 40})
    assert found["parts"] == pytest.approx({"norm": 0.01, "attention": 0.198, "ffn": 0.198, "matmul": 0.396,
                                            "other": 0.198})
    prefill = throughput.of_phase(Model, "prefill", reports, [of_bench_norm(128)])
    assert prefill["calls"] == 8 + 1 / 32               # of a prompt of 32, one token goes through the last
    Model.norm_bias = True
    biased = throughput.of_phase(Model, "decode", reports, [of_bench_norm(128)])
    Model.norm_bias = False
    assert biased["expected_percent"]["layernorm"]["value"] == pytest.approx(0.5)
    assert biased["share"]["layernorm"]["value"] == pytest.approx(0.015)


# ---------------------------------------------------------------------------- real programs


@pytest.fixture(scope="module")
def relinked(run, tmp_path_factory):
    if run.sanitized:
        pytest.skip("the speed of a build with sanitizers means nothing")
    return relink.relinked(run.path, tmp_path_factory.mktemp("relinked"), 4)


@CC
def test_relinked_programs_do_the_same(run, relinked):
    """The same text, from other bytes."""
    model = str(check.MODEL)

    def text(program):
        return subprocess.run([program, model, "-i", "Once", "-n", "20", "-t", "0", "-q"], check=True,
                              capture_output=True).stdout

    assert {text(program) for program in relinked} == {text(run.path)}
    assert len({program.read_bytes() for program in (run.path, *relinked)}) == 5


def test_without_objects_there_is_no_control(tmp_path):
    stranger = tmp_path / "run"
    stranger.write_bytes(b"a program from elsewhere")
    with pytest.raises(Trouble, match="make"):
        relink.relinked(stranger, tmp_path, 2)
    with pytest.raises(Trouble, match="link"):
        relink.link([stranger], tmp_path / "out")


@CC
def test_a_planted_slowdown_is_found(run, relinked, tmp_path):
    """A build that spins for 5 % of each token's time. tests/throughput.py repeats it, and both ways."""
    slower = check.build_slower(run.path, tmp_path / "slower", 0.05)
    bench = check.Bench(run.path, relinked, throughput.QUICK)
    found = [bench.compare(program) for program in (run.path, slower, slower)]
    right = [check.right("plain", found[0]), *(check.right("slower", one) for one in found[1:])]
    assert sum(right) >= 2 and not any(w["told_as"] == "norm" for one in found for w, _ in one), found


# ---------------------------------------------------------------------------- a whole speed part


@pytest.fixture(scope="module")
def measured(run, run_layernorm, models, tmp_path_factory):
    """The speed part of a report on two tiny models."""
    programs = {"rmsnorm": run.path, "layernorm": run_layernorm.path,
                "nonorm": run.path.with_name("run-nonorm")}
    engine = Engine(programs)
    pair = [Checkpoint(engine, models / name) for name in ("gqa-untied.gguf", "stablelm.gguf")]
    effort = throughput.Effort(min_rounds=10, half_width=9, seconds=1, context=32, orders=2, dims=(64,))
    speeds, whole = ablate.measure_time(engine, pair, run.path.parent / "rmsnorm" / "norms", effort,
                                        tmp_path_factory.mktemp("builds"), lambda text: None)
    return whole | {"checkpoints": [{"name": model.name, "speed": speed}
                                    for model, speed in zip(pair, speeds)]}


def test_report(measured, run):
    assert json.loads(json.dumps(measured)) == measured         # plain numbers, all of them
    assert measured["speed"]["family"] == 8
    assert {r["T"] for r in measured["norm_curve"]["results"]} == {1, 64}
    assert {r["kernels"] for r in measured["norm_curve"]["results"]} == {measured["kernels"]}
    assert 64 in {r["dim"] for r in measured["norm_curve"]["results"]}
    for checkpoint in measured["checkpoints"]:
        speed = checkpoint["speed"]
        assert speed["rounds"] >= 10
        for phase in throughput.PHASES:
            found = speed[phase]
            assert 0 < found["share"]["rmsnorm"]["low"] <= found["share"]["rmsnorm"]["value"] < 1
            assert sum(found["parts"].values()) == pytest.approx(1)
            assert found["whole"].keys() == {"layernorm", "nonorm"}
            assert (found["control"] is None) == (measured["speed"]["no_control"] is not None)
    assert [c["speed"]["bias"] for c in measured["checkpoints"]] == [False, True]


def test_table(measured):
    text = "\n".join(ablate.table_speed(measured))
    for word in ("gqa-untied", "stablelm", "decode", "prefill", "tokens/s", "of a token's time",
                 "LayerNorm's program", "program without a norm"):
        assert word in text
    for line in text.splitlines():
        assert "  " not in line or len(line) <= 110, line
    assert list(check.overstated(measured)) == []


def test_an_overstatement_is_seen(measured):
    """The sentence that the report was wrong with once, where norms take 1.0 % of the time."""
    report = json.loads(json.dumps(measured))
    decode = report["checkpoints"][0]["speed"]["decode"]
    for share in decode["share"].values():
        share |= {"value": 0.01, "low": 0.009, "high": 0.011}
    decode["whole"]["layernorm"] |= {"value": -1.67, "verdict": "differs", "told_as": "norm", "bound": 1.1}
    decode["control"] = {"reach": 0.5}
    decode["expected_percent"] = {build: {"value": 0.1, "low": 0, "high": 0.2} for build in decode["whole"]}
    decode["whole"]["nonorm"] |= {"verdict": "not resolved", "told_as": None}
    (sentence,) = check.overstated(report)
    assert "1.67 % less time" in sentence
