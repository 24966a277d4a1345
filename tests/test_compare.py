"""test_compare.py - bench/: the models it makes are sound, the limits are numbers, and a report says what
follows from its own measurements. Nothing here is about how large they are."""

import importlib.util
import json
import re
import statistics
import subprocess
import sys

import gguf
import numpy as np
import pytest

from conftest import ROOT, Program

sys.path.insert(0, str(ROOT / "bench"))
import models  # noqa: E402
import report  # noqa: E402

SUPER = models.Shape(256, 512, 1, 4, 2, vocab_size=320, tied=False)     # rows that hold blocks of 256
ABSENT = "import runpy, sys; sys.path.insert(0, 'bench'); sys.modules['llama_cpp'] = None; " \
         "runpy.run_path('bench/compare.py', run_name='__main__')"
INSTALLED = importlib.util.find_spec("llama_cpp")
quick = "--shape", "tiny", "--types", "Q8_0,F32", "--quick", "--threads", "2"


@pytest.fixture(scope="session")
def limits():
    return Program(ROOT / "build/limits")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


def compare(*args, program=("bench/compare.py",)):
    return subprocess.run([sys.executable, *program, *map(str, args)], cwd=ROOT, capture_output=True,
                          text=True, timeout=300)


@pytest.fixture(scope="module")
def measured(run, folder):
    """(what was recorded, what was printed)"""
    out = folder / "alone.json"
    done = compare(*quick, "--rounds", 2, "--without-peer", "--run", run.path, "--models", folder,
                   "--out", out)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text()), done.stdout


# ---------------------------------------------------------------------------- models


@pytest.mark.parametrize("type", models.TYPES)
def test_models_are_sound(type, run, tmp_path):
    models.SHAPES["super"] = SUPER
    path = models.make(tmp_path, "super", type)
    info = json.loads(run(path, "-m", "info", "--json").stdout)
    weights, classifier = SUPER.weights()
    norms, embedding = 3 * SUPER.dim, classifier        # two of the layer, and the last
    assert info["parameters"] == weights + classifier + embedding + norms
    kinds = {tensor["type"] for tensor in info["tensors"] if len(tensor["shape"]) == 2}
    assert kinds == {type}
    outcome = run(path, "-i", "a b c", "-n", 0, "--logits", tmp_path / "logits.npy")
    assert outcome.status == 0, outcome
    logits = np.load(tmp_path / "logits.npy")
    assert np.isfinite(logits).all() and 0.1 < logits.std() < 10, logits.std()
    assert [file.name for file in tmp_path.glob("*.part")] == []


@pytest.mark.parametrize("type", models.TYPES)
def test_weights_are_as_large_as_asked_for(type):
    numbers = models.Weights(type).numbers(1 << 16, 0.05)
    assert numbers.nbytes == models.bytes_of(type, 1 << 16)
    values = gguf.quants.dequantize(numbers, gguf.GGMLQuantizationType[type])
    assert 0.045 < values.std() < 0.055 and abs(values.mean()) < 0.005


# ---------------------------------------------------------------------------- limits


def check_limits(found, n):
    assert found["threads"] == [1, 2][:n]
    for rates in (found["read_gb_per_s"], found["int8_g_per_s"], found["float_g_per_s"]):
        assert len(rates) == n and all(0 < rate < 1e6 for rate in rates)
    for int8, best in ((True, "int8_g_per_s"), (False, "float_g_per_s")):
        rates = [i["g_per_s"] for i in found["instructions"] if i["int8"] == int8]
        assert [max(column) for column in zip(*rates)] == found[best]


def test_limits(limits, run):
    sets = run("--kernels", "none").stderr.split("this CPU runs ")[1].split()
    found = json.loads(limits("-j", 2, "--quick").stdout)
    check_limits(found, 2)
    assert found["bytes"] == 64 << 20 and found["kernels"] == sets[-1]
    file = ROOT / "models/stories-rmsnorm.gguf"
    found = json.loads(limits(file, "-j", 1, "--kernels", "portable", "--quick").stdout)
    check_limits(found, 1)
    assert found["bytes"] == file.stat().st_size
    assert {i["kernels"] for i in found["instructions"]} == {"portable"}


def test_limits_refuses(limits, tmp_path):
    (tmp_path / "small").write_bytes(b"abc")
    limits("--kernels", "none").check_refused(2, "none")
    limits("-j", 0).check_refused(2, "-j")
    limits("--wrong").check_refused(2, "--wrong", "usage")
    limits(tmp_path / "absent").check_refused(1, "absent")
    limits(tmp_path / "small").check_refused(1, "small", "page")


# ---------------------------------------------------------------------------- the report


# tiny, by hand: a layer is 2 x 64 x 64 and 2 x 32 x 64 (attention), and 3 x 96 x 64; there are two of them,
# and a classifier of 320 x 64. In Q8_0 32 weights take 34 bytes.
LAYERS, CLASSIFIER = 2 * (8192 + 4096 + 18432), 20480
BYTES = {"Q8_0": (LAYERS + CLASSIFIER) // 32 * 34, "F32": (LAYERS + CLASSIFIER) * 4}


def test_arithmetic(measured):
    result, _ = measured
    assert result["rounds"] == 2 and result["peer"] is None and result["threads"] == 2
    assert [row["type"] for row in result["rows"]] == ["Q8_0", "F32"]
    for row in result["rows"]:
        assert len(row["ours"]) == len(row["limits"]) == 2 and row["theirs"] == []
        reads = [1e9 * turn["decode"]["read_limits_gb_per_s"][0] for turn in row["ours"]]
        name = "int8_g_per_s" if row["type"] == "Q8_0" else "float_g_per_s"
        multiply = 1e9 * max(turn[name][1] for turn in row["limits"])
        for part, work, limits in (("decode", BYTES[row["type"]], reads),
                                   ("prefill", LAYERS + CLASSIFIER / 512, [multiply, multiply])):
            summary = row["summary"][part]
            runs = [run for turn in row["ours"] for run in turn[part]["runs"]]
            assert len(runs) == 2
            assert summary["ours"]["median"] == pytest.approx(statistics.median(runs))
            low, _, high = statistics.quantiles(runs, n=4, method="inclusive")
            assert (summary["ours"]["low"], summary["ours"]["high"]) == pytest.approx((low, high))
            fractions = [work * run / limit for run, limit in zip(runs, limits)]
            assert summary["ours"]["fraction"] == pytest.approx(statistics.mean(fractions))
            assert "ratio" not in summary and "theirs" not in summary
        for turn in row["ours"]:                        # what the engine takes for the bytes of a token
            decode = turn["decode"]
            assert 1e9 * decode["gb_per_s"] / decode["mean"] == pytest.approx(BYTES[row["type"]])
        cache = 2 * 2 * 2 * 640 * 32                    # keys and values, two layers, F16
        peak = max(turn["peak_bytes"] for turn in row["ours"])
        assert row["summary"]["bytes_beyond_file_and_cache"]["ours"] == peak - row["file_bytes"] - cache


def test_tables(measured, folder):
    result, printed = measured
    assert all(line in printed for line in report.table(result))
    done = compare("--show", folder / "alone.json", "--markdown")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 4 and len({line.count("|") for line in rows}) == 1
    fraction = result["rows"][0]["summary"]["decode"]["ours"]["fraction"]
    assert rows[2].split("|")[2].strip() == "Q8_0" and f" {100 * fraction:.0f} % " in rows[2]
    picture = folder / "alone.svg"
    assert picture.exists() == bool(importlib.util.find_spec("matplotlib"))


def test_a_ratio_has_its_spread(measured, tmp_path):
    """Three rounds: as fast, twice and four times as fast as who stands beside it, in the order of chance."""
    result = json.loads(json.dumps(measured[0]))
    result["peer"] = {"version": "1", "system_info": "none"}
    turn, limits = result["rows"][0]["ours"][0], result["rows"][0]["limits"][0]
    for row in result["rows"]:
        row["ours"], row["theirs"], row["limits"] = [], [], [limits] * 3
        for rate, theirs in (80, 20), (30, 30), (20, 10):
            for side, runs in (row["ours"], rate), (row["theirs"], theirs):
                phases = {part: {**turn[part], "runs": [runs]} for part in ("prefill", "decode")}
                side.append({**turn, **phases})
    path = tmp_path / "three.json"
    path.write_text(json.dumps(result))
    done = compare("--show", path)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines()[-2:]:
        assert line.count("30.0 (25.0-55.0)") == line.count("20.0 (15.0-25.0)") == 2
        assert line.count("2.00 (1.50-3.00)") == 2


def test_without_llama_cpp(run, folder):
    done = compare(*quick, "--run", run.path, "--models", folder, "--out", folder / "absent.json",
                   program=("-c", ABSENT))
    assert done.returncode == 0, done.stderr
    assert "`make peers`" in done.stderr and json.loads((folder / "absent.json").read_text())["rows"]


# ---------------------------------------------------------------------------- llama.cpp


BENCH = """#!/bin/sh
echo "$@" >> "$0.calls"
case " $* " in *" -p 512 "*) rates=1000,3000,2000 ;; *) rates=100,300 ;; esac
echo '[{"build_number": 1, "build_commit": "abc", "cpu_info": "a CPU", "backends": "CPU",
        "samples_ts": ['$rates']}]'
"""


def test_llama_bench(run, folder, tmp_path):
    """A stand-in for the program, which has its options and its keys."""
    program, out = tmp_path / "llama-bench", tmp_path / "out.json"
    program.write_text(BENCH)
    program.chmod(0o755)
    done = compare(*quick, "--run", run.path, "--models", folder, "--out", out, "--llama-bench", program)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["peer"] == {"version": "llama-bench 1 (abc)", "system_info": "a CPU, CPU"}
    for row in result["rows"]:
        for part, median, limit in (("decode", 200, "read_gb_per_s"), ("prefill", 2000, None)):
            summary = row["summary"][part]
            assert summary["theirs"]["median"] == median
            ratio = summary["ratio"]["median"]
            assert ratio == pytest.approx(summary["ours"]["median"] / median)
            assert summary["ours"]["fraction"] / summary["theirs"]["fraction"] == pytest.approx(ratio)
    read, wrote = (tmp_path / "llama-bench.calls").read_text().splitlines()[:2]
    for call in read, wrote:
        assert " -t 2 " in f" {call} " and " -b 512 -ub 512 -ngl 0 " in call and "tiny-Q8_0.gguf" in call
    assert read.endswith("-p 512 -n 0") and wrote.endswith("-p 0 -n 128 -d 512")


HALF = """#!/usr/bin/env python3
import json, subprocess, sys
done = subprocess.run(["{run}", *sys.argv[1:]], check=True, capture_output=True, text=True)
if "bench" not in sys.argv:
    sys.exit(print(done.stdout))
result = json.loads(done.stdout)
for part in "prefill", "decode":
    result[part]["twice"] = result[part]["runs"][0]
    result[part]["runs"] = [result[part]["twice"] / 2]
result["decode"]["read_limits_gb_per_s"] = [1]
print(json.dumps(result))
"""


def test_another_build(run, folder, tmp_path):
    """It stands where llama.cpp would, and is half as fast."""
    program, out = tmp_path / "run", tmp_path / "out.json"
    program.write_text(HALF.format(run=run.path))
    program.chmod(0o755)
    done = compare(*quick, "--run", run.path, "--models", folder, "--out", out, "--against", program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("other build") == 5 and "llama.cpp" not in done.stdout
    for row in json.loads(out.read_text())["rows"]:
        (ours,), (theirs,) = row["ours"], row["theirs"]
        for part in "decode", "prefill":
            ratio = 2 * ours[part]["runs"][0] / theirs[part]["twice"]
            assert row["summary"][part]["ratio"]["median"] == pytest.approx(ratio)
        decode = row["summary"]["decode"]               # of the limit that the other build itself has told
        reads = decode["work_per_token"] * decode["theirs"]["median"]
        assert decode["theirs"]["fraction"] == pytest.approx(reads / 1e9)


def test_who_goes_first_changes(run, folder, tmp_path):
    for name in "ours", "theirs":
        (tmp_path / name).write_text(f"""#!/bin/sh
case "$*" in *bench*) echo {name} >> {tmp_path}/calls ;; esac
exec {run.path} "$@"
""")
        (tmp_path / name).chmod(0o755)
    done = compare(*quick, "--types", "F32", "--rounds", 3, "--run", tmp_path / "ours", "--models", folder,
                   "--out", tmp_path / "out.json", "--against", tmp_path / "theirs")
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / "calls").read_text().split()
    assert calls == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]


@pytest.mark.skipif(not INSTALLED, reason="llama.cpp is not installed; `make peers` sets it up")
def test_llama_cpp(run, folder, tmp_path):
    done = compare(*quick, "--threads", 1, "--run", run.path, "--models", folder,
                   "--out", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert "llama-cpp-python" in result["peer"]["version"]
    for row in result["rows"]:
        (theirs,) = row["theirs"]
        assert theirs["threads"] == 1 and theirs["python_bytes"] < theirs["peak_bytes"]
        assert [theirs[part]["tokens"] for part in ("prefill", "decode")] == [512, 128]
        assert row["summary"]["decode"]["ratio"]["median"] > 0


# ---------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("args, word", [
    (("--types", "Q9_9"), "Q9_9"), (("--shape", "900B"), "900B"),
    (("--types", "Q4_K", "--shape", "15M"), "15M"),
    (("--llama-bench", "/absent/llama-bench"), "/absent/llama-bench"),
    (("--against", "/absent/old"), "/absent/old"), (("--run", "/absent/run"), "make"),
    (("--limits", "/absent/limits"), "make"), (("--show", "/absent/file.json"), "/absent/file.json"),
    (("--show", "tests/test_compare.py"), "test_compare.py"), (("--show", "{folder}/list.json"), "list.json"),
    (("--threads", "0"), "--threads"), (("--rounds", "0"), "--rounds"),
    (("--kernels", "none", "--types", "Q8_0", "--shape", "tiny"), "none"),
])
def test_one_clear_line(args, word, run, folder):
    (folder / "list.json").write_text('{"rows": [{"shape": "15M"}]}')
    args = [arg.format(folder=folder) for arg in args]
    done = compare("--run", run.path, "--models", folder, "--without-peer", "--quick", *args)
    said = [line for line in done.stderr.splitlines() if line.startswith("compare.py: ")]
    assert done.returncode in (1, 2) and len(said) == 1 and word in said[0], done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


# ---------------------------------------------------------------------------- norms


def test_norms_for_readers():
    """Each column has a heading, which says of which norm and in which unit, and ends where numbers do."""
    done = subprocess.run(["make", "-s", "bench-norm", "DIMS=64"], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    blocks = done.stdout.strip().split(" kernels: ")[1:]
    assert blocks
    for block in blocks:
        names, units, *rows = block.split("\n\n")[1].splitlines()
        norms = re.split(r" {2,}", names.strip())
        assert norms == ["limit", "rmsnorm", "layernorm", "with bias", "prmsnorm", "nonorm",
                         "rmsnorm : layernorm", "rmsnorm : with bias"]
        words = ["dim", "T", "ns", "GB/s", *["ns", "limit"] * 5, *["median", "(quartiles)"] * 2]
        assert units.split() == words
        assert len(rows) == 2
        for row in rows:
            numbers = [n.end() for n in re.finditer(r"\d+\.\d", row[:names.index("rmsnorm :")])]
            headings = [n.end() for n in re.finditer(r"\bns|GB/s", units)]
            assert numbers == headings, f"{units}\n{row}"


def test_norms_in_json():
    """Every set of kernels, one token and 64."""
    done = subprocess.run(["make", "-s", "bench-norm", "JSON=1", "DIMS=128"], cwd=ROOT, capture_output=True,
                          text=True, check=True)
    results = json.loads(done.stdout)["results"]
    assert [(r["dim"], r["T"]) for r in results] == [(128, 1), (128, 64)] * (len(results) // 2)
    assert results[0]["kernels"] == "portable"
    for r in results:
        time = {norm: found["ns"]["median"] for norm, found in r["norms"].items()}
        assert set(time) == {"rmsnorm", "layernorm", "layernorm with bias", "prmsnorm", "nonorm"}
        assert all(0 < ns < 1e7 for ns in time.values())
        for name, layer in ("rms_to_layer", "layernorm"), ("rms_to_layer_with_bias", "layernorm with bias"):
            spread = r[name]
            assert 0 < spread["low"] <= spread["median"] <= spread["high"]
            # The median of ratios, each formed within a turn, is near the ratio of the medians.
            assert spread["median"] == pytest.approx(time["rmsnorm"] / time[layer], rel=0.25), name
