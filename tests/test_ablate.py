"""test_ablate.py - the norm lab: its arithmetic by hand, its statistics by simulation, and a whole run."""

import json
import math
import random
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from conftest import ROOT
from lab import outputs, residuals, throughput
from lab.engine import NORMS, Checkpoint, Engine
import throughput as check                              # tests/throughput.py

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TEXT = "the lion and the tree sang all night. a red hen ran on the wall, and it rained. " * 6

# ---------------------------------------------------------------------------- arithmetic


def test_divergence_by_hand():
    """p = (1/4, 3/4), q = (1/2, 1/2): 1/4 log 1/2 + 3/4 log 3/2."""
    wanted = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    p, q = [math.log(1), math.log(3)], [7.0, 7.0]
    kl, same = outputs.divergence(p, q)
    assert kl == pytest.approx(wanted, rel=1e-12) and not same      # of equals the first is the likeliest
    assert outputs.divergence([x + 100 for x in p], q)[0] == pytest.approx(wanted, rel=1e-9)
    assert outputs.divergence(p, p) == (pytest.approx(0, abs=1e-15), True)
    assert outputs.divergence([1000.0, 0.0], [0.0, 0.0])[0] == pytest.approx(math.log(2))   # no overflow


def test_summary_by_hand():
    found = outputs.summary([0.0, 1.0, 2.0, 5.0], [True, True, False, True])
    assert (found["kl"], found["agreement"], found["positions"]) == (2, 0.75, 4)
    assert found["stderr"] == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3 / 4))
    assert [found["percentiles"][i] for i in (0, 33, 100)] == [0, 1, 5]


def test_pooled_by_hand():
    """Two texts of log losses (1, 3) and (2, 2, 5) are one of (1, 3, 2, 2, 5)."""
    def report(losses):
        n, mean = len(losses), sum(losses) / len(losses)
        variance = sum(x * x for x in losses) / n - mean * mean
        return {"perplexity": math.exp(mean), "stderr": math.sqrt(variance / (n - 1)) * math.exp(mean),
                "tokens": n, "windows": 1}

    found, wanted = outputs.pooled([report([1, 3]), report([2, 2, 5])]), report([1, 3, 2, 2, 5])
    assert found["perplexity"] == pytest.approx(wanted["perplexity"])
    assert found["stderr"] == pytest.approx(wanted["stderr"])
    assert (found["tokens"], found["windows"]) == (5, 2)


def test_pieces():
    text = "one two three four five six seven"
    cut = list(outputs.pieces(text, lambda piece: len(piece) <= 9))
    assert "".join(cut) == text and all(len(piece) <= 9 for piece in cut)
    assert list(outputs.pieces("abcdef", lambda piece: len(piece) <= 3)) == ["abc", "def"]


def test_cosine_is_that_of_the_outputs():
    """x = (2, 4, 4, 8): RMSNorm (0.4, 0.8, 0.8, 1.6), LayerNorm along (-2.5, -0.5, -0.5, 3.5)."""
    a, b = (0.4, 0.8, 0.8, 1.6), (-2.5, -0.5, -0.5, 3.5)
    dot, lengths = sum(x * y for x, y in zip(a, b)), math.hypot(*a) * math.hypot(*b)
    assert residuals.cosine(4.5, 5) == pytest.approx(dot / lengths)
    assert residuals.cosine(0, 5) == 1 and residuals.cosine(5, 5) == 0 and residuals.cosine(0, 0) == 1


def test_stream_of_a_trace():
    lines = [b'{"file": "x", "norm": "rmsnorm", "ids": [1]}\n',                          # then a prompt
             b'{"op": "embed", "layer": null, "pos": 0, "shape": [3, 4], "rms": 9, "mean": 9}\n',
             b'{"op": "embed", "layer": null, "pos": 3, "shape": [1, 4], "rms": 5, "mean": -3}\n',
             b'{"op": "embed", "layer": null, "pos": 4, "shape": [1, 4], "rms": 10, "mean": 8}\n',
             b'{"op": "ffn_norm", "layer": 0, "pos": 3, "shape": [1, 4], "rms": 1, "mean": 1}\n',
             b'{"op": "resid_mid", "layer": 2, "pos": 3, "shape": [1, 4], "rms": 2, "mean": 0}\n']
    embed, middle = residuals.of_stream(lines)
    assert (embed["op"], embed["depth"], embed["tokens"]) == ("embed", 0, 2)
    assert (embed["rms"], embed["mean"]) == (7.5, 2.5)
    assert (embed["mean_to_rms"], embed["cosine"]) == (pytest.approx(0.7), pytest.approx(0.7))
    assert (middle["layer"], middle["depth"], middle["cosine"]) == (2, 2.5, 1)


def test_relative_by_hand():
    """Two texts: one's perplexity doubles, the other's triples. 1 and 2 higher: 1.5, and 0.5 either side."""
    before = {"texts": [[10, 0.0], [20, 1.0]]}
    after = {"texts": [[10, math.log(2)], [20, 1 + math.log(3)]]}
    assert outputs.relative(before, after) == pytest.approx((1.5, 0.5))


def test_baseline():
    found = residuals.baseline(64)
    assert found["mean_to_rms"] == pytest.approx(math.sqrt(2 / (math.pi * 64)), rel=0.1)
    assert found == residuals.baseline(64)


# ---------------------------------------------------------------------------- statistics


def test_trimmed_by_hand():
    """Of ten, two are cut off at each end, and held at what is left: 2 2 2 3 4 5 6 7 7 7, say."""
    mean, error = throughput.trimmed([-90, 1, 2, 3, 4, 5, 6, 7, 8, 900])
    held = [2, 2, 2, 3, 4, 5, 6, 7, 7, 7]
    variance = sum((x - 4.5) ** 2 for x in held) / 9
    assert mean == 4.5 and error == pytest.approx(math.sqrt(variance / 10) / 0.6)


def test_interval():
    estimate, low, high = throughput.interval([0.01 * (-1) ** i + 0.05 for i in range(20)])
    assert estimate == pytest.approx(0.05) and low < 0.045 < 0.055 < high < 0.08
    assert throughput.interval([0.1] * 20) == pytest.approx((0.1, 0.1, 0.1))
    assert throughput.ratio([0.1] * 20)["differs"] and not throughput.ratio([0.0] * 20)["differs"]


def noise(rng):
    """As it was measured: under 1 %, and one round in ten was hit by something."""
    return rng.gauss(0, 0.006) if rng.random() < 0.9 else rng.gauss(0, 0.05)


@pytest.mark.parametrize("planted, least, most", [(0, 0, 5), (0.05, 100, 100)])
def test_comparisons_by_simulation(planted, least, most):
    """In 100 comparisons of the same build a difference is found 5 times at most; with 5 %, every time."""
    rng = random.Random(7)
    found = sum(throughput.ratio([planted + noise(rng) for _ in range(20)])["differs"] for _ in range(100))
    assert least <= found <= most


def test_comparisons_are_fair():
    """A machine that gets slower all the time, and whose every second process is slower, favours nobody."""
    clock = iter(range(10**6))

    def run():
        i = next(clock)
        return {"decode": 100 * 1.001 ** i, "prefill": 100 + 5 * (i % 2)}

    found = throughput.compare(lambda: run(), lambda: run(), throughput.Effort(least=20, half_width=1))
    assert found["rounds"] == 20
    assert not found["decode"]["differs"] and not found["prefill"]["differs"], found


@pytest.mark.skipif(shutil.which("cc") is None, reason="builds a slower program with cc")
def test_a_planted_slowdown_is_found(run, tmp_path):
    """A build that spins for 5 % of each token's time. tests/throughput.py repeats it, and both ways."""
    if run.sanitized:
        pytest.skip("the speed of a build with sanitizers means nothing")
    slower = check.build_slower(run.path, tmp_path / "slower", 0.05)
    found = [(program == slower, check.compare(run.path, program, throughput.QUICK))
             for program in (run.path, slower, slower)]
    assert sum(check.right(report, planted) for planted, report in found) >= 2, found


# ---------------------------------------------------------------------------- a whole run

TIMES = {"throughput", "time"}


def ablate(run, run_layernorm, folder, *args):
    command = [sys.executable, ROOT / "ablate.py", *args, "-o", folder, "--run", run.path, "--run-layernorm",
               run_layernorm.path]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def reports(run, run_layernorm, models, tmp_path_factory):
    """The folders of two runs on two tiny models, one of either norm."""
    base = tmp_path_factory.mktemp("ablation")
    (base / "text").write_text(TEXT)
    pair = models / "gqa-untied.gguf", models / "stablelm.gguf"
    for name in ("first", "second"):
        done = ablate(run, run_layernorm, base / name, *pair, "--quick", "--text", base / "text")
        assert done.returncode == 0, done.stderr
        for word in ("gqa-untied", "stablelm", "perplexity", "KL", "prefill", "no difference", "part after"):
            assert word in done.stdout, (word, done.stdout)
        assert "distributions" in done.stderr           # it says what it is at
    return base / "first", base / "second"


def load(folder):
    return json.loads((folder / "report.json").read_text())


def test_report(reports, models):
    report = load(reports[0])
    assert [(c["name"], c["norm"]) for c in report["checkpoints"]] == [
        ("gqa-untied", "rmsnorm"), ("stablelm", "layernorm")]
    for c in report["checkpoints"]:
        perplexity, found = c["perplexity"], c["distributions"]
        assert perplexity["rmsnorm"]["perplexity"] != perplexity["layernorm"]["perplexity"]
        assert perplexity["rmsnorm"]["tokens"] == perplexity["layernorm"]["tokens"] > 0
        assert found["kl"] > 1e-6 and 0 <= found["agreement"] <= 1 and found["positions"] > 60
        assert found["percentiles"] == sorted(found["percentiles"])
        assert c["greedy"]["texts"].keys() == set(NORMS)
        points = c["stream"][c["norm"]]
        assert len(points) == 1 + 2 * c["layers"] and [p["depth"] for p in points] == [
            i / 2 for i in range(1 + 2 * c["layers"])]
        oracle = c["oracle"]
        assert oracle["kl"] < 1e-8 and oracle["agreement"] == 1 and oracle["holds"], oracle
        for what in throughput.COSTS:
            assert 0 < c["throughput"][what]["low"] <= c["throughput"][what]["ratio"]
        for phases in c["time"].values():
            assert all(0 < p["share"]["norm"] < 1 and p["norm_ns"] > 0 for p in phases.values())
    assert report["control"]["rounds"] >= throughput.QUICK.least


def test_second_run(reports):
    """Outputs equal to the digit; intervals of the times overlap."""
    first, second = map(load, reports)
    for a, b in zip(first["checkpoints"], second["checkpoints"]):
        assert a.keys() == b.keys() >= TIMES
        assert all(a[key] == b[key] for key in a.keys() - TIMES)
        for phase in throughput.PHASES:
            one, other = a["throughput"][phase], b["throughput"][phase]
            assert one["low"] <= other["high"] and other["low"] <= one["high"], (phase, one, other)


def test_a_norm_that_keeps_the_mean_is_noticed(reports, run, models, tmp_path):
    """With the same build on both sides, as if LayerNorm had forgotten the mean, nothing differs."""
    (tmp_path / "text").write_text(TEXT)
    wrong = tmp_path / "forgetful"
    wrong.write_text(f'#!/bin/sh\nfor last; do :; done\nexec "{run.path}" "$@"\n')
    wrong.chmod(0o755)
    engine = Engine({"rmsnorm": run.path, "layernorm": wrong})
    model = Checkpoint(engine, models / "gqa-untied.gguf")
    found = outputs.distributions(engine, model, [TEXT], 64, tmp_path)
    assert found["kl"] == pytest.approx(0, abs=1e-14)
    assert load(reports[0])["checkpoints"][0]["distributions"]["kl"] > 1e-6


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


# ---------------------------------------------------------------------------- the page


class Page(HTMLParser):
    """What a page is made of, and whether its tags close in order."""

    VOID = {"meta", "link", "br", "img", "hr", "path", "use", "rect", "circle", "line", "stop"}

    def __init__(self, text):
        super().__init__()
        self.open, self.counts, self.addresses, self.captions = [], {}, [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag == "figcaption":
            self.captions.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if "figcaption" in self.open:
            self.captions[-1] += data


def test_page(reports):
    text = (reports[0] / "report.html").read_text()
    page = Page(text)
    assert page.open == [] and page.counts["table"] == 2
    assert page.counts["svg"] == page.counts["figure"] == len(page.captions) == 8
    for caption in page.captions:
        assert len(caption) > 40 and caption.endswith("."), caption
    assert all(address.startswith(("#", "data:,")) for address in page.addresses), page.addresses
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)|<script|<!DOCTYPE svg|nan|NaN", text)
    for c in load(reports[0])["checkpoints"]:
        assert f"{c['perplexity'][c['norm']]['perplexity']:.4f}" in text


MEASURE = """<script>
window.addEventListener("load", () => {
  const root = document.documentElement;
  const visible = [...document.querySelectorAll("svg")].filter(svg => {
    const box = svg.getBoundingClientRect(), inside = svg.getBBox();
    return box.width > 200 && box.height > 60 && inside.width > 100 && box.right <= innerWidth;
  });
  const letters = [...document.querySelectorAll("svg text")].map(t => t.getBoundingClientRect().height);
  root.dataset.found = JSON.stringify({width: innerWidth, overflow: root.scrollWidth - innerWidth,
    plots: visible.length, least: Math.min(...letters),
    requests: performance.getEntriesByType("resource").map(r => r.name)});
});
</script></head>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 400])
def test_page_in_a_browser(width, reports, tmp_path):
    """Every plot visible, letters that can be read, nothing to scroll sideways, no request, no complaint.

    A window of Chromium's is no narrower than 500 pixels, so the page is looked at through a frame."""
    page, frame = tmp_path / "page.html", tmp_path / "frame.html"
    page.write_text((reports[0] / "report.html").read_text().replace("</head>", MEASURE, 1))
    frame.write_text(f'<!doctype html><iframe src="page.html" style="width:{width}px; height:900px; '
                     'border:0"></iframe>'
                     "<script>onload = () => document.documentElement.dataset.found = document"
                     ".querySelector('iframe').contentDocument.documentElement.dataset.found</script>")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
         "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}",
         f"--window-size={width + 200},1000", "--dump-dom", f"file://{frame}"],
        capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    data = re.search(r'data-found="([^"]*)"', done.stdout)
    assert data, (done.stdout[:500], done.stderr)
    found = json.loads(data[1].replace("&quot;", '"'))
    assert found["width"] == width and found["overflow"] <= 0 and found["plots"] == 8, found
    assert found["least"] >= 9 and found["requests"] == [], found
    assert done.returncode == 0
