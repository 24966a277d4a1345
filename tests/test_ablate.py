"""test_ablate.py - the norm lab: a whole run of everything, and another one that finds the same.

Its parts: test_lab_outputs.py, test_lab_speed.py, test_lab_page.py."""

import json
import subprocess
import sys

import pytest

from conftest import ROOT
from lab import throughput
from lab.engine import NORMS

TEXT = "the lion and the tree sang all night. a red hen ran on the wall, and it rained. " * 6

TIMES = {"speed"}


def ablate(run, run_layernorm, folder, *args):
    command = [sys.executable, ROOT / "ablate.py", *args, "-o", folder, "--run", run.path, "--run-layernorm",
               run_layernorm.path, "--run-nonorm", run.path.with_name("run-nonorm"), "--bench-norm",
               run.path.parent / "rmsnorm" / "norms"]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def reports(run, run_layernorm, models, tmp_path_factory):
    """The folders of two runs on two tiny models, one of either norm."""
    base = tmp_path_factory.mktemp("ablation")
    (base / "text").write_text(TEXT)
    pair = models / "F16.gguf", models / "stablelm-Q4_0.gguf"
    for name in ("first", "second"):
        done = ablate(run, run_layernorm, base / name, *pair, "--quick", "--text", base / "text")
        assert done.returncode == 0, done.stderr
        for word in ("F16", "stablelm", "perplexity", "KL", "prefill", "part after"):
            assert word in done.stdout, (word, done.stdout)
        assert "distributions" in done.stderr           # it says what it is at
    return base / "first", base / "second"


def load(folder):
    return json.loads((folder / "report.json").read_text())


def test_report(reports, models):
    report = load(reports[0])
    assert [(c["name"], c["norm"]) for c in report["checkpoints"]] == [
        ("F16", "rmsnorm"), ("stablelm-Q4_0", "layernorm")]
    for c in report["checkpoints"]:
        swap, noise, greedy = c["swap"], c["noise"], c["greedy"]
        assert swap["perplexity"]["p"] != swap["perplexity"]["q"] and swap["positions"] > 60
        assert swap["kl"]["mean"] > 1e-6 and 0 <= swap["agreement"]["all"]["share"] <= 1
        assert swap["percentiles"] == sorted(swap["percentiles"])
        assert [row["name"] for row in noise] == ["weights in Q8_0", "weights in Q4_0", "KV cache in F16",
                                                  "a random direction dropped"]
        q8, q4, cache, direction = noise
        assert 0 < cache["kl"]["mean"] and 0 < q8["kl"]["mean"]
        if c["norm"] == "rmsnorm":
            assert cache["kl"]["mean"] < q8["kl"]["mean"] < q4["kl"]["mean"]
        else:
            assert "Q4_0 as they stand" in q4["skipped"]
        assert len(direction["directions"]) == 3 and direction["kl"]["min"] > 1e-6
        assert greedy["prompts"] == 20 and len(greedy["swap"]["each"]) == len(greedy["noise"]["each"]) == 20
        assert greedy["example"]["texts"].keys() == set(NORMS)
        points = c["stream"][c["norm"]]
        assert len(points) == 1 + 2 * c["layers"] and [p["depth"] for p in points] == [
            i / 2 for i in range(1 + 2 * c["layers"])]
        for oracle in (c["oracle"][name] for name in ("center", "fold")):
            assert oracle["kl"] < 1e-8 and oracle["agreement"] == 1 and oracle["holds"], oracle
        assert c["speed"]["rounds"] >= throughput.QUICK.min_rounds
    there = {str(path.relative_to(reports[0])) for path in reports[0].rglob("*") if path.is_file()}
    assert {"report.json", "report.html", "outputs.csv", "speed.csv", "figures/differences.svg",
            "figures/end-to-end.pdf"} <= there
    hashes = {file["what"]: file["sha256"] for file in report["provenance"]["files"]}
    assert hashes.keys() == {"program", "model", "text"} and report["provenance"]["finished"]


def test_second_run(reports):
    """Outputs equal to the digit; intervals of the times overlap."""
    first, second = map(load, reports)
    for a, b in zip(first["checkpoints"], second["checkpoints"]):
        assert a.keys() == b.keys() >= TIMES
        assert all(a[key] == b[key] for key in a.keys() - TIMES)
        for phase in throughput.PHASES:
            one, other = (found["speed"][phase]["whole"]["layernorm"] for found in (a, b))
            assert one["low"] <= other["high"] and other["low"] <= one["high"], (phase, one, other)


def test_errors_teach(run, run_layernorm, models, tmp_path):
    good, text, odd = models / "gqa-untied.gguf", tmp_path / "text", tmp_path / "odd"
    text.write_text(" \n")
    odd.write_bytes(b"\xff\xfe")
    short = tmp_path / "short"
    short.write_text("the")
    cases = [((tmp_path / "missing.gguf",), "missing.gguf"), ((text,), "text"),
             ((models / "vocabulary.gguf",), "vocabulary.gguf"),
             ((good, "--text", tmp_path / "nowhere"), "nowhere"), ((good, "--text", text), "no text"),
             ((good, "--text", odd), "UTF-8"), ((good, "--text", short), "16 tokens")]
    for args, word in cases:
        done = ablate(run, run_layernorm, tmp_path / "out", *args, "--quick")
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 1 and last.startswith("ablate: ") and word in last, (args, done.stderr)
        assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
    done = subprocess.run([sys.executable, ROOT / "ablate.py", "--run", tmp_path / "no-run"],
                          capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "make" in done.stderr, done.stderr
