"""test_lab_page.py - the norm lab's page: numbers in words, pictures that can be read, whole files."""

import csv
import hashlib
import io
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text

from conftest import ROOT
import ablate
import sample_report
from lab import page, plots, provenance, sentences, wording

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PICTURES = 11
ODD_NAMES = ["<b>bold</b>", "$x^2$", "a_b%", "_hidden", "${7", "\\frac{", "a\nb\x07", "\udce9", "狮子",
             "x" * 300]

# ---------------------------------------------------------------------------- numbers in words


@pytest.mark.parametrize("found, expected", [
    ((0.1543, 0.1341, 0.1746), "+0.154 (+0.134 to +0.175)"),
    ((1.2e-6, -3.1e-6, 5.5e-6), "+1.2 (−3.1 to +5.5)·10⁻⁶"),
    ((-0.00001, -0.00046, 0.00044), "−0.1 (−4.6 to +4.4)·10⁻⁴"),
    ((17.0, 12.0, 22.0), "+17.0 (+12.0 to +22.0)"),
    ((0.5, 0.5, 0.5), "+0.50"),
    ((0.0, 0.0, 0.0), "0"),
])
def test_an_interval_has_two_digits_of_its_width(found, expected):
    assert wording.between(*found) == expected


@pytest.mark.parametrize("x, digits, expected", [
    (0.9501, 2, "95.01\u00a0%"), (1, 2, "100.00\u00a0%"), (0.999999, 2, "more than 99.99\u00a0%"),
    (0, 1, "0.0\u00a0%"), (0.000001, 1, "less than 0.1\u00a0%"), (-0.5, 0, "−50\u00a0%")])
def test_a_share_is_never_rounded_to_all_or_nothing(x, digits, expected):
    assert wording.percent(x, digits) == expected


@pytest.mark.parametrize("x, expected", [
    (0, "0"), (0.00123, "0.00123"), (2.04e-5, "2.04·10⁻⁵"), (-4e-10, "−4.00·10⁻¹⁰"), (12345.6, "12,346"),
    (3e7, "3.00·10⁷"), (123.4, "123")])
def test_numbers(x, expected):
    assert wording.number(x) == expected


def test_a_name_is_one_line_of_what_can_be_printed():
    assert wording.shown("a\nb\x07c\udce9") == "a\ufffdb\ufffdc?"
    assert wording.shown("abcdefghijkl", 6) == "abc…kl" and wording.shown("abcdef", 6) == "abcdef"


# ---------------------------------------------------------------------------- sentences


def of_swap(delta, stderr):
    report = sample_report.report()
    report["checkpoints"][0]["swap"] = sample_report.comparison(delta, stderr, 1e-3)
    return report["checkpoints"][0]


def test_three_verdicts():
    """By the interval: 0.154 ± 0.04; 0.001 ± 0.004, within 1 %; 0.01 ± 0.04, which is too wide."""
    assert "larger than chance" in sentences.swap_sentence(of_swap(0.154, 0.02))
    assert "no difference beyond 0.00492 nats" in sentences.swap_sentence(of_swap(0.001, 0.002))
    wide = sentences.swap_sentence(of_swap(0.01, 0.02))
    assert "not resolved" in wide and "no difference" not in wide and "larger than chance" not in wide


def test_too_few_blocks_are_told():
    report = sample_report.report()
    c = report["checkpoints"][0]
    sample_report.too_short(c["swap"])
    told = sentences.swap_sentence(c)
    assert "not resolved: 3 blocks of text are too few" in told and "larger than chance" not in told
    assert "not resolved" in page.html(report, {})


@pytest.mark.parametrize("mean, stderr, expected", [
    (0.1, 0.01, "more than any of them"), (1e-5, 1e-6, "less than any of them"),
    (0.0027, 1e-4, "cannot be told from them"), (0.1, 0.06, "cannot be told from them")])
def test_the_mean_beside_random_directions(mean, stderr, expected):
    """By the interval, never by the mean alone. The eight directions cost 0.001 to 0.004."""
    c = of_swap(mean, stderr)
    assert expected in sentences.noise_sentence(c)


def test_what_was_left_out_is_told():
    report = sample_report.report()
    c = report["checkpoints"][0]
    c["noise"] = [{"name": "weights in Q8_0", "skipped": "the rows are 48 numbers long"}]
    c["greedy"]["noise"] = {"skipped": "the rows are 48 numbers long"}
    c["oracle"]["fold"] = {"skipped": "the norm has a bias"}
    html = page.html(report, {})
    assert "the rows are 48 numbers long" in html and "the norm has a bias" in html
    assert "the rows are 48 numbers long" in sentences.noise_sentence(c)


def test_a_defect_is_told():
    c = sample_report.report()["checkpoints"][0]
    c["oracle"]["center"] |= {"holds": False}
    assert "A DEFECT" in next(sentences.oracle_sentences(c))


def test_the_lead_says_what_was_measured_on_what():
    told = sentences.lead(sample_report.report())
    for word in ("stories-rmsnorm", "stories-layernorm", "14,880 tokens", "60 stories", "A CPU of no maker",
                 "avx2"):
        assert word in told


# ---------------------------------------------------------------------------- pictures


def odd_reports():
    """Reports at the edges."""
    yield "two models", sample_report.report()
    yield "one model", sample_report.report(("stories260K",))
    short = sample_report.report()
    for c in short["checkpoints"]:
        sample_report.too_short(c["swap"])
        c["greedy"]["swap"] |= {"median": None, "quartiles": [None, None], "never": 24, "each": [None] * 24}
    yield "too short", short
    same = sample_report.report()
    for c in same["checkpoints"]:
        c["swap"] = sample_report.comparison(0.0, 0.0, 0.0)
        c["speed"]["decode"]["control"] = None
    same["speed"] |= {"no_control": "there is no compiler", "orders": 0}
    yield "no change", same
    large = sample_report.report()
    large["checkpoints"][0]["swap"] = sample_report.comparison(4.1, 0.3, 2.0)
    yield "a large change", large
    yield "odd names", sample_report.report(("_$x^2$ <b>", "y" * 100))


@pytest.fixture(scope="module", params=list(odd_reports()), ids=lambda case: case[0].replace(" ", "-"))
def drawn(request):
    """[(name, figure, its renderer)] of one report."""
    found = []
    for name, _, figure, _ in page.drawings(request.param[1]):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        found.append((name, figure, canvas.get_renderer()))
    return found


def texts_of(axis, renderer):
    low, high = sorted(axis.get_view_interval())
    return [label for tick, label in zip(axis.get_majorticklocs(), axis.get_ticklabels())
            if low - 1e-12 <= tick <= high + 1e-12 and label.get_text()]


def test_every_axis_of_numbers_has_four_ticks_and_room_for_them(drawn):
    for name, figure, renderer in drawn:
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                labels = [label for label in texts_of(axis, renderer) if label.get_visible()]
                if not axis.get_label_text() or not labels:         # rows, or the one below has the numbers
                    continue
                assert len(labels) >= 4, (name, axis.get_label_text(), [x.get_text() for x in labels])
                boxes = [label.get_window_extent(renderer) for label in labels]
                for (a, one), (b, other) in itertools.combinations(zip(labels, boxes), 2):
                    assert not one.overlaps(other), (name, a.get_text(), b.get_text())


def test_no_letter_leaves_the_picture(drawn):
    for name, figure, renderer in drawn:
        whole = figure.bbox
        out_of_view = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)
                       for label in set(axis.get_ticklabels()) - set(texts_of(axis, renderer))}
        for text in figure.findobj(Text):
            if text not in out_of_view and text.get_visible() and text.get_text():
                box = text.get_window_extent(renderer)
                assert whole.x0 - 1 <= box.x0 and box.x1 <= whole.x1 + 1, (name, text.get_text(), box)
                assert whole.y0 - 1 <= box.y0 and box.y1 <= whole.y1 + 1, (name, text.get_text(), box)


def look(line):
    return to_hex(line.get_color()), line.get_marker() if line.get_markersize() else "None"


def test_legends_mean_what_they_say(drawn):
    """A mark in a legend is drawn in the picture; in its color, unless it is gray and stands for all."""
    for name, figure, _ in drawn:
        lines = [line for axes in figure.axes for line in axes.lines]
        patches = {to_hex(patch.get_facecolor()) for axes in figure.axes for patch in axes.patches}
        for handle in figure.legends[0].legend_handles:
            if not hasattr(handle, "get_marker"):
                assert to_hex(handle.get_facecolor()) in patches, name
                continue
            color, marker = look(handle)
            drawn_looks = {look(line) for line in lines}
            if color == plots.COLORS[None]:
                kinds = {(look(line)[1], line.get_linewidth()) for line in lines}
                assert marker in {"None"} | {kind for kind, _ in kinds} or name == "differences", name
            else:
                assert (color, marker) in drawn_looks, (name, color, marker, drawn_looks)


def test_no_line_hides_another(drawn):
    """Where two lines of a picture are the same, the lower one is wider by far."""
    for name, figure, _ in drawn:
        for axes in figure.axes:
            for below, above in itertools.combinations([x for x in axes.lines if len(x.get_xdata()) > 2], 2):
                same = len(below.get_ydata()) == len(above.get_ydata()) and all(
                    math.isclose(a, b, rel_tol=1e-2) for a, b in zip(below.get_ydata(), above.get_ydata()))
                alike = same and list(below.get_xdata()) == list(above.get_xdata())
                assert not alike or below.get_linewidth() > 3 * above.get_linewidth(), name


# ---------------------------------------------------------------------------- the files


@pytest.fixture(scope="module")
def built():
    return page.build(sample_report.report())


def test_files(built):
    for kind in ("svg", "pdf"):
        assert sum(name.endswith(kind) for name in built) == PICTURES
    for name, data in built.items():
        if name.endswith(".svg"):
            root = ElementTree.fromstring(data)
            namespace = "{http://www.w3.org/2000/svg}"
            title = root.find(namespace + "title")
            assert root.tag == namespace + "svg" and root.get("role") == "img" and len(title.text) > 20
            assert root.get("aria-label") == title.text
        if name.endswith(".pdf"):
            assert data.startswith(b"%PDF-") and data.rstrip().endswith(b"%%EOF")


def test_the_same_report_makes_the_same_files(built):
    name, shows, figure, _ = next(page.drawings(sample_report.report()))
    again = plots.files_of(figure, shows[0].upper() + shows[1:])
    assert {kind: built[f"figures/{name}.{kind}"] for kind in again} == again


def test_tables(built):
    """What a CSV file says is what the report says."""
    report = sample_report.report()
    rows = {name: list(csv.DictReader(io.StringIO(data.decode()))) for name, data in built.items()
            if name.endswith(".csv")}
    assert all(rows.values()) and len(rows) == 8
    swap = next(row for row in rows["outputs.csv"] if row["comparison"] == "norm swapped")
    found = report["checkpoints"][0]["swap"]
    assert float(swap["delta_nats"]) == found["delta"]["mean"]
    assert float(swap["low_95"]) == found["delta"]["low"]
    assert sum("random direction" in row["comparison"] for row in rows["outputs.csv"]) == 16
    assert {row["tokens_until_they_part"] for row in rows["greedy.csv"]} >= {"never"}
    assert len(rows["norm-curve.csv"]) == 5 * len(report["norm_curve"]["results"])
    assert {row["sha256"] for row in rows["files.csv"]} == {"a" * 64, "b" * 64, "c" * 64}


class Page(HTMLParser):
    """What a page is made of, and whether its tags close in order."""

    VOID = {"meta", "link", "br", "img", "hr"}

    def __init__(self, text):
        super().__init__()
        self.open, self.counts, self.addresses, self.ids, self.captions = [], {}, [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        self.ids += [value for name, value in attributes if name == "id"]
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


def test_page(built):
    text = built["report.html"].decode()
    found = Page(text)
    assert found.open == [] and found.counts["svg"] == found.counts["figure"] == PICTURES
    assert len(found.captions) == PICTURES and all(len(caption) > 40 for caption in found.captions)
    assert len(found.ids) == len(set(found.ids))
    there = set(built) | {"report.json"}
    for address in found.addresses:
        assert address == "data:," or address in there or address.removeprefix("#") in found.ids, address
    assert not re.search(r"https?:|//[a-z]|@import|<script|<!DOCTYPE svg|\bnan\b|NaN|None", text)
    for c in sample_report.report()["checkpoints"]:
        assert f"{c['swap']['perplexity']['p']:.4f}" in text
    for word in ("A CPU of no maker", "0123456789abcdef0123456789abcdef01234567", "gcc 12.2.0, -O3", "a" * 64,
                 "not committed", "differs", "no difference"):
        assert word in text, word


def test_names_may_hold_anything():
    """Models whose names are markup, mathematics, no UTF-8 or far too long: the page has the tags that it has
    with plain names, and the pictures have the names."""
    def of(names):
        report = sample_report.report(names)
        report["text"], report["command"] = names[0], f"make ablate MODELS={names[1]}"
        for c in report["checkpoints"]:
            c["greedy"]["example"]["prompt"] = c["name"].encode("utf-8", "replace").decode()
        return report

    report = of(ODD_NAMES)
    found, plain = (Page(page.html(r, {})) for r in (report, of([f"m{i}" for i in range(10)])))
    assert found.open == [] and found.counts == plain.counts
    pictures = [plots.files_of(figure, shows)["svg"].decode()
                for _, shows, figure, _ in page.drawings(of(ODD_NAMES[:6]))]
    for picture in pictures:
        ElementTree.fromstring(picture)
    for name in ("&lt;b&gt;bold&lt;/b&gt;", "$x^2$", "a_b%", "_hidden", "${7", "\\frac{"):
        assert sum(name in picture for picture in pictures) >= 8, name


def test_names_are_no_mathematics():
    """What matplotlib would read as mathematics, and cannot: a letter is a letter."""
    names = "$x^$", "$\\frac{$", "$a_b_c$", "$$"
    for _, shows, figure, _ in page.drawings(sample_report.report(names)):
        plots.files_of(figure, shows)


def test_what_the_lab_imports_is_what_it_installs():
    """Without torch, transformers and whatever else only the tests have."""
    pins = re.split(r"\n(?=[a-z])", (ROOT / "lab/requirements.txt").read_text())[1:]
    assert len(pins) > 20
    assert all(re.match(r"[\w.-]+==[\w.]+ .*\\\n +--hash=sha256:[0-9a-f]{64}\b", pin) for pin in pins), pins
    code = ("import sys; sys.modules |= dict.fromkeys(['torch', 'transformers', 'scipy', 'tokenizers', "
            "'sentencepiece', 'pytest', 'pandas']); import ablate, export; from lab import page")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------------- where it comes from


def test_hashes(tmp_path):
    """The example of FIPS 180-2, B.1."""
    (tmp_path / "abc").write_bytes(b"abc")
    assert provenance.hashed("text", tmp_path / "abc") == {
        "what": "text", "name": "abc", "bytes": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
    found = provenance.begin({}, [], ["ab", "c"], "two", None, {})["files"]
    assert found[-1]["sha256"] == hashlib.sha256(b"ab\0c").hexdigest()


def test_the_commit_and_whether_it_is_what_ran(tmp_path):
    def git(*words):
        done = subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert provenance.source(tmp_path / "nowhere") == {"commit": None, "dirty": None}
    git("init", "-q")
    (tmp_path / "a").write_text("a")
    git("add", "a")
    git("commit", "-q", "-m", "a")
    assert provenance.source(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "a").write_text("b")
    assert provenance.source(tmp_path)["dirty"] is True


def test_the_machine():
    found = provenance.machine()
    assert found["cpu"] and 1 <= found["cores"] <= os.cpu_count() and found["memory"] > 2**20


# ---------------------------------------------------------------------------- whole or not there


def test_files_are_saved_whole(tmp_path):
    ablate.save(tmp_path / "out", {"a.txt": b"1", "figures/b.svg": b"2"})
    ablate.save(tmp_path / "out", {"a.txt": b"3"})
    (tmp_path / "out" / "of mine").write_text("stays")
    with pytest.raises(TypeError):
        ablate.save(tmp_path / "out", {"a.txt": b"4", "bad": None})
    there = {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*")
             if p.is_file()}
    assert there == {"a.txt": b"3", "figures/b.svg": b"2", "of mine": b"stays"}


def test_a_folder_that_cannot_be_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    done = subprocess.run([sys.executable, ROOT / "ablate.py", "-o", tmp_path / "file" / "below"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "no folder to write to" in done.stderr


def test_ctrl_c_leaves_nothing(run, run_layernorm, models, tmp_path):
    """Ended in the middle of measuring: no report, no half of one, and no word of Python's."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, ROOT / "ablate.py", models / "gqa-untied.gguf", "-o", tmp_path / "out",
               "--run", run.path, "--run-layernorm", run_layernorm.path,
               "--run-nonorm", run.path.with_name("run-nonorm")]
    # What a shell runs in the background ignores SIGINT, and so does all that it starts.
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=os.environ | {"TMPDIR": str(scratch)}, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    first = process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, rest = process.communicate(timeout=60)
    assert process.returncode == 130 and out == "" and "Traceback" not in first + rest, (first, rest)
    assert not (tmp_path / "out").exists() and list(scratch.iterdir()) == []


# ---------------------------------------------------------------------------- in a browser

MEASURE = """<script>
window.addEventListener("load", () => {
  const root = document.documentElement;
  const visible = [...document.querySelectorAll("svg")].filter(svg => {
    const box = svg.getBoundingClientRect(), inside = svg.getBBox();
    return box.width > 200 && box.height > 60 && inside.width > 100 && box.right <= innerWidth;
  });
  const out = [...document.querySelectorAll("main *")].filter(
    x => !x.closest("svg") && x.getBoundingClientRect().right > innerWidth + 0.5).map(x => x.tagName);
  const letters = [...document.querySelectorAll("svg text")].map(t => t.getBoundingClientRect().height);
  root.dataset.found = JSON.stringify({width: innerWidth, overflow: root.scrollWidth - innerWidth,
    plots: visible.length, least: Math.min(...letters), out: out,
    requests: performance.getEntriesByType("resource").map(r => r.name)});
});
</script></head>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 400])
def test_page_in_a_browser(width, built, tmp_path):
    """Every plot visible, letters that can be read, nothing to scroll sideways, no request, no complaint.

    A window of Chromium's is no narrower than 500 pixels, so the page is looked at through a frame."""
    html = built["report.html"].decode()
    name, frame = tmp_path / "page.html", tmp_path / "frame.html"
    name.write_text(html.replace("</head>", MEASURE, 1))
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
    assert found["width"] == width and found["overflow"] <= 0 and found["plots"] == PICTURES, found
    assert found["least"] >= 9 and found["out"] == [] and found["requests"] == [], found
    assert done.returncode == 0
