"""test_lab_outputs.py - what the norm lab says of outputs: by hand, simulated, and beside reference.py."""

import dataclasses
import math

import numpy as np
import pytest

import reference
from convert.center import drop
from convert.gguf_files import read_gguf
from lab import copies, greedy, intervals, outputs, residuals
from lab.engine import Checkpoint, Engine, Trouble
from lab.intervals import Blocks

TEXT = "the lion and the tree sang all night. a red hen ran on the wall, and it rained. " * 6


@pytest.fixture(scope="module")
def engine(run, run_layernorm):
    return Engine({"rmsnorm": run.path, "layernorm": run_layernorm.path})


@pytest.fixture(scope="module", params=["gqa-untied", "stablelm"])
def model(request, engine, models):
    return Checkpoint(engine, models / f"{request.param}.gguf")


# ---------------------------------------------------------------------------- distributions


def test_contrast_by_hand():
    """p = (1/4, 3/4), q = (1/2, 1/2): KL is 1/4 log 1/2 + 3/4 log 3/2."""
    kl = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    entropy = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    p, q = np.float32([[0, math.log(3)]]), np.float32([[7, 7]])
    [found] = outputs.contrast(p, q, np.array([1]))
    assert found == pytest.approx([-math.log(0.75), math.log(2), kl, entropy, 0], rel=1e-7)
    assert outputs.contrast(p + 100, q, np.array([1]))[0] == pytest.approx(found, rel=1e-5)
    same = outputs.contrast(p, p, np.array([0]))[0]
    assert same == pytest.approx([math.log(4), math.log(4), 0, entropy, 1])
    far = outputs.contrast(np.float32([[1000, 0]]), np.float32([[0, 0]]), np.array([0]))[0]
    assert far == pytest.approx([0, math.log(2), math.log(2), 0, 1])            # no overflow


@pytest.mark.parametrize("bos", [True, False])
def test_which_token_follows_which_row(bos, monkeypatch):
    """Row i expects id i where BOS stands before the text, else id i + 1. The last expects nothing known."""
    ids, vocabulary = (2, 0, 1, 3, 1), 4
    rows = np.full((len(ids) + bos, vocabulary), -50, np.float32)
    for row, id in enumerate(ids if bos else ids[1:]):
        rows[row, id] = 50
    for chunk in (1, 8, 1000):                          # rows at a time: 1, 2 and all
        monkeypatch.setattr(outputs, "CHUNK", chunk)
        found = outputs.of_window(rows, rows, ids)
        assert found.shape == (len(ids) - (not bos), 5) and np.abs(found[:, :2]).max() < 1e-9
    with pytest.raises(Trouble, match="cannot be compared"):
        outputs.of_window(rows, rows[:, 1:], ids)


def test_summary_by_hand():
    """Two windows: differences 1, 3 and 2, 2, 5; KL 0, 1, 2, 5, 2; certain at the first two positions."""
    first = np.array([[2, 3, 0, 0.01, 1], [1, 4, 1, 0.04, 0.0]])
    second = np.array([[1, 3, 2, 0.06, 1], [1, 3, 5, 1, 1], [0, 5, 2, 2, 0.0]])
    found = outputs.summary([first, second], 2)
    assert (found["positions"], found["windows"], found["texts"]) == (5, 2, 2)
    assert found["nll"] == {"p": pytest.approx(1), "q": pytest.approx(18 / 5)}
    assert found["perplexity"]["q"] == pytest.approx(math.exp(18 / 5))
    assert found["delta"]["mean"] == pytest.approx(13 / 5)
    assert found["delta"]["percent"]["mean"] == pytest.approx(100 * (math.exp(13 / 5) - 1))
    assert (found["kl"]["mean"], found["kl"]["median"], found["kl"]["max"]) == (2, 2, 5)
    assert found["kl"]["top_1_percent"] == 0.5          # one of five positions is the top, with 5 of 10
    assert [found["percentiles"][i] for i in (0, 25, 100)] == [0, 1, 5]
    shares = {name: (f["share"], f["n"], f["of_positions"]) for name, f in found["agreement"].items()}
    assert shares == {"all": (0.6, 5, 1), "certain": (0.5, 2, 0.4), "open": (pytest.approx(2 / 3), 3, 0.6)}
    assert found["verdict"] == "not resolved" and found["delta"]["low"] is None         # by two blocks


@pytest.mark.parametrize("low, high, verdict", [
    (0.001, 0.002, "differs"), (-0.2, -0.1, "differs"), (-0.009, 0.001, "no difference"),
    (-0.001, 0.02, "not resolved"), (0, 0, "no difference"), (None, None, "not resolved")])
def test_verdict(low, high, verdict):
    found = outputs.verdict_of({"low": low, "high": high})
    assert found["verdict"] == verdict
    assert found["beyond"] == (None if low is None else max(abs(low), abs(high)))


# ---------------------------------------------------------------------------- intervals


def test_blocks():
    few, many = Blocks([130, 40]), Blocks([3, 1, 2, 2, 2, 2, 2, 2])
    assert (few.count, few.name, few.starts.tolist()) == (3, "64 positions", [0, 65, 130])
    assert (many.count, many.name) == (8, "window")
    assert many.sums(range(16)).tolist() == [3, 3, 9, 13, 17, 21, 25, 29]


def test_standard_error_of_a_ratio_by_hand():
    """Sums 2, 6, 4 of counts 1, 2, 1: the mean is 3, what is left of each block -1, 0, 1."""
    mean, error = intervals.ratio(np.array([2.0, 6, 4]), np.array([1.0, 2, 1]))
    assert mean == 3 and error == pytest.approx(math.sqrt(3 / 2 * 2) / 4)


def test_student():
    """From its table (two-sided, 95 %)."""
    for degrees, wanted in ((7, 2.365), (11, 2.201), (30, 2.042), (1000, 1.962)):
        assert intervals.student(degrees) == pytest.approx(wanted, abs=0.012)


def test_what_never_differs_has_no_width():
    blocks = Blocks([10] * 9)
    always = intervals.interval(blocks, np.full(90, 0.25))
    assert always == {"mean": 0.25, "stderr": 0, "low": 0.25, "high": 0.25}
    always = intervals.share(blocks, np.ones(90, bool), np.ones(90, bool))
    assert always["share"] == 1 and always["high"] == pytest.approx(1) and 0.9 < always["low"] < 0.97
    nothing = intervals.share(blocks, np.ones(90, bool), np.zeros(90, bool))
    assert nothing["share"] is None and nothing["n"] == 0


def autocorrelated(rng, texts, windows, n, memory=0.6):
    """x[i] = memory x[i - 1] + what Student's t of 3 degrees draws: heavy tails, and a mean of 0."""
    x = rng.standard_t(3, (n + 50, texts, windows))
    for i in range(1, len(x)):
        x[i] += memory * x[i - 1]
    return x[50:]


@pytest.mark.parametrize("windows, n, between", [(1, 1500, 0), (1, 560, 0), (12, 260, 0.1), (60, 260, 0.1)])
def test_coverage_of_intervals(windows, n, between, monkeypatch):
    """Of 400 texts whose tokens depend on their neighbours, and whose windows differ, the interval holds the
    truth for 90 to 98 in 100. By position, as if all were independent, it would hold it for far fewer."""
    monkeypatch.setattr(intervals, "RESAMPLES", 500)
    rng, held, held_by_position = np.random.default_rng(11), 0, 0
    drawn = autocorrelated(rng, 400, windows, n) + between * rng.standard_normal((400, windows))
    for text in range(400):
        x = drawn[:, text].T.ravel()
        found = intervals.interval(Blocks([n] * windows), x)
        held += found["low"] <= 0 <= found["high"]
        held_by_position += abs(x.mean()) <= 1.96 * x.std() / math.sqrt(len(x))
    assert 360 <= held <= 392, held
    assert held_by_position < 320, held_by_position


@pytest.mark.parametrize("p", [0.8, 0.995])
def test_coverage_of_shares(p):
    """60 windows, in each of which the chance is a little different."""
    rng, held = np.random.default_rng(3), 0
    for _ in range(400):
        chances = np.repeat(rng.beta(40 * p, 40 * (1 - p), 60), 100)
        found = intervals.share(Blocks([100] * 60), rng.random(6000) < chances, np.ones(6000, bool))
        held += found["low"] <= p <= found["high"]
    assert 360 <= held <= 396, held


# ---------------------------------------------------------------------------- windows


def test_cut():
    assert list(outputs.cut("one two three four", 2)) == ["one two three", "four"]
    assert list(outputs.cut("abcdefgh", 4)) == ["ab", "cd", "ef", "gh"]
    text = "\n".join(f"{i} and so on" for i in range(100))
    for parts in (1, 2, 7, 30):
        cut = list(outputs.cut(text, parts))
        assert len(cut) == parts and sum(map(len, cut)) == len(text) - parts + 1
        assert all(0.5 < len(part) * parts / len(text) < 1.5 for part in cut)


def test_windows(engine, model):
    """They fit, are nearly full, and follow one another; their ids are those of their text."""
    text = " ".join(f"{i}: {TEXT}" for i in range(20))
    texts, own, at = [text, TEXT[:80]], engine.run(model, model.norm), 0
    found = outputs.windows(engine, model, texts)
    for window in found[:-1]:
        assert 0.75 * model.context < len(window.ids) < model.context
        place = text.index(window.text, at)             # at most some words are left out between two
        assert place - at < 0.25 * len(window.text)
        at = place + len(window.text)
    assert len(text) - at < 0.25 * len(found[-2].text) and found[-1].text == TEXT[:80]
    assert [window.source for window in found] == [0] * (len(found) - 1) + [1]
    assert list(found[3].ids) == own.ids("-i", found[3].text)
    n = sum(len(window.ids) for window in found)
    some = outputs.windows(engine, model, texts, n // 3)
    assert 0.2 * n < sum(len(window.ids) for window in some) < 0.5 * n
    assert some[0] == found[0] and found.index(some[-1]) > len(found) // 2
    with pytest.raises(Trouble, match="16"):
        outputs.windows(engine, model, ["the"])


def test_compare_is_what_numpy_finds(engine, model):
    """The forward pass of reference.py, in double precision, at all positions of all windows."""
    windows, spec = outputs.windows(engine, model, [TEXT, TEXT[40:130]]), reference.load(model.path)
    found = outputs.compare(engine.run(model, model.norm), engine.run(model, model.other), windows)
    losses, divergences = {model.norm: [], model.other: []}, []
    for window in windows:
        ids = np.array([1, *window.ids])                # after BOS
        log = {norm: np.log(reference.softmax(reference.logits(spec, ids, norm)))[:-1] for norm in losses}
        for norm, of_norm in losses.items():
            of_norm += list(-log[norm][np.arange(len(ids) - 1), ids[1:]])
        p, q = log[model.norm], log[model.other]
        divergences += list((np.exp(p) * (p - q)).sum(axis=1))
    assert found["positions"] == len(divergences)
    assert found["nll"]["p"] == pytest.approx(np.mean(losses[model.norm]), abs=1e-5)
    assert found["nll"]["q"] == pytest.approx(np.mean(losses[model.other]), abs=1e-5)
    assert found["kl"]["mean"] == pytest.approx(np.mean(divergences), rel=1e-3)
    assert found["kl"]["median"] == pytest.approx(np.median(divergences), rel=1e-3)


def test_a_norm_that_keeps_the_mean_is_noticed(engine, model):
    """With the same build on both sides, as if LayerNorm had forgotten the mean, nothing differs."""
    windows, own = outputs.windows(engine, model, [TEXT]), engine.run(model, model.norm)
    found = outputs.compare_all(own, {"same": own, "swap": engine.run(model, model.other)}, windows)
    assert found["same"]["kl"]["max"] == 0 and found["same"]["agreement"]["all"]["share"] == 1
    assert found["swap"]["kl"]["mean"] > 1e-6


# ---------------------------------------------------------------------------- copies


def test_a_dropped_direction_is_projected_out_before_every_norm(engine, model, tmp_path, monkeypatch):
    """In the file it is what writes into the stream that changes; in NumPy, what the norms read."""
    [u] = copies.directions(model.dim, 1)
    assert u @ u == pytest.approx(1) and 0 < (u > 0).sum() < model.dim
    plain, spec = reference.NORMS[model.norm], reference.load(model.path)
    monkeypatch.setitem(reference.NORMS, model.norm, lambda x, *rest: plain(x - np.outer(x @ u, u), *rest))
    own = engine.run(model, model.norm)
    without = dataclasses.replace(own, path=copies.Copies(model, tmp_path).without(u, "without.gguf"))
    ids = [1, *own.ids("-i", TEXT[:80])]
    expected = reference.logits(spec, ids)
    found, _ = without.logits(tmp_path / "x.npy", "-n", 0, "-i", TEXT[:80])
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    before, _ = own.logits(tmp_path / "y.npy", "-n", 0, "-i", TEXT[:80])
    assert np.abs(found - before).max() > 0.01 * np.abs(expected).max()


def test_centering_is_dropping_ones(models):
    """What writes into the stream has no mean, but for rounding; what reads from it is as it was."""
    model, before = (read_gguf(models / "stablelm.gguf") for _ in range(2))
    dim = model.need("*.embedding_length")
    drop(model, np.ones(dim) / math.sqrt(dim))
    for old in before.tensors:
        new, x = model.tensor(old.name).all(), old.all()
        kind = old.name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]
        if kind == "token_embd":
            x = x - x.mean(axis=1, keepdims=True, dtype=float)
        elif kind in ("attn_output", "ffn_down"):
            x = x - x.mean(axis=0, dtype=float)
        assert np.abs(new - x).max() < 1e-6, old.name


def test_rounded_copies(engine, models, tmp_path):
    model = Checkpoint(engine, models / "F16.gguf")
    path, note = copies.Copies(model, tmp_path).rounded("q8_0")
    rounded = Checkpoint(engine, path)
    assert set(rounded.types) == {"Q8_0", "F32"} and note is None
    with pytest.raises(Trouble, match="Q8_0"):          # it has that type already
        copies.Copies(rounded, tmp_path).rounded("q8_0")
    with pytest.raises(Trouble, match="32"):            # rows of 24 and 37
        copies.Copies(Checkpoint(engine, models / "gqa-untied.gguf"), tmp_path).rounded("q8_0")
    assert copies.Copies(model, tmp_path).plain == model.path
    plain = Checkpoint(engine, copies.Copies(rounded, tmp_path).plain)
    assert set(plain.types) == {"F32"}
    for ours, theirs in zip(read_gguf(plain.path).tensors, read_gguf(rounded.path).tensors, strict=True):
        assert np.array_equal(ours.all(), theirs.all()), ours.name


# ---------------------------------------------------------------------------- greedy texts


def test_where_texts_part():
    assert greedy.parted([5, 6, 7], [5, 6, 8]) == 2 and greedy.parted([5], [6]) == 0
    assert greedy.parted([5, 6], [5, 6]) is None and greedy.parted([5, 6], [5]) == 1    # one has ended
    points = [4, None, 1, 2]
    assert greedy.summary(points) == {"median": 2, "quartiles": [1, 4], "never": 1, "each": points}
    assert greedy.summary([None, 3, None])["median"] is None
    found = greedy.example(["a", "b", "c"], {"each": [None, 0, 7]}, {"own": "xxu", "swap": "xyu"})
    assert (found["prompt"], found["parted"], found["common_characters"]) == ("c", 7, 1)


def test_prompts():
    """Where enough sentences begin, each once, cut behind a word; else where words begin."""
    text = "One day a hen ran far away. The fox saw her there, by the wall. Then it rained all day. So be it."
    window = outputs.Window(text, (0,) * 48, 0)         # 12 tokens are 24 characters
    assert greedy.prompts([window, window], 3) == ["One day a hen ran far away.", "The fox saw her there, by",
                                                   "Then it rained all day. So"]
    words = greedy.prompts([window], 6)
    assert words[:2] == ["One day a hen ran far away.", "a hen ran far away. The fox"]
    assert len(set(words)) == 6
    assert greedy.evenly("abcdefgh", 4) == ["a", "c", "e", "g"] and greedy.evenly("ab", 4) == ["a", "b"]


def test_written_is_what_numpy_writes(engine, model, tmp_path):
    own, spec, prompt = engine.run(model, model.norm), reference.load(model.path), TEXT[:40]
    ids = [1, *own.ids("-i", prompt)]
    begun, expected = len(ids), list(ids)
    for _ in range(12):
        expected.append(int(np.argmax(reference.logits(spec, expected)[-1])))
        if expected[-1] == 2:                           # the end
            break
    found, text = greedy.written(own, prompt, begun, 12, tmp_path / "x.npy")
    assert found == expected[begun:] and text.startswith(prompt)
    same, _ = greedy.measure({"own": own, "swap": own}, [prompt, TEXT[5:30]], 12)
    assert same["swap"]["never"] == 2


# ---------------------------------------------------------------------------- the residual stream


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


def test_baseline_by_hand():
    """On a circle the mean of |cos| and of |sin| is 2 / pi. On a sphere |z| is uniform: its mean is 1/2, and
    that of sqrt(1 - z^2) is pi / 4."""
    circle, sphere = residuals.baseline(2), residuals.baseline(3)
    assert [circle["mean_to_rms"], circle["cosine"]] == pytest.approx([2 / math.pi, 2 / math.pi])
    assert [sphere["mean_to_rms"], sphere["cosine"]] == pytest.approx([1 / 2, math.pi / 4])


@pytest.mark.parametrize("dim, published", [(64, 0.1001), (128, 0.0707)])
def test_baseline_is_what_random_vectors_show(dim, published):
    """100,000 of them: to five standard errors."""
    x = np.random.default_rng(0).standard_normal((100_000, dim))
    mean, rms = x.mean(axis=1), np.sqrt((x**2).mean(axis=1))
    centered = x - mean[:, np.newaxis]
    cosines = (x * centered).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(centered, axis=1)
    found = residuals.baseline(dim)
    assert found["mean_to_rms"] == pytest.approx(published, abs=5e-5)
    for drawn, exact in ((np.abs(mean) / rms, found["mean_to_rms"]), (cosines, found["cosine"])):
        assert abs(drawn.mean() - exact) < 5 * drawn.std() / math.sqrt(len(drawn))


def test_interval_of_the_median():
    """Of 20 values the 6th and the 15th: in 2.07 % of samples 5 or fewer are below the median."""
    assert intervals.interval_of_median(range(1, 21)) == (6, 15)
    assert intervals.interval_of_median(range(1, 7)) == (1, 6)
    with pytest.raises(ValueError, match="6 are needed"):
        intervals.interval_of_median(range(5))
