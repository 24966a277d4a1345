"""test_trace.py - what --trace=json says is JSON, is true, and has standard error to itself."""

import json

import numpy as np
import pytest

import reference
from make_models import BOS
from test_reference import EXACT, load

PROMPT = "Once there was"
SUMMARY = ["rms", "mean", "max", "sum"]
EVENT = ["op", "layer", "pos", "shape", *SUMMARY, "values"]


def lines_of(outcome):
    """Every line of standard error, which is JSON strictly."""
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    assert outcome.status == 0, outcome
    return [json.loads(line, parse_constant=refuse) for line in outcome.stderr.splitlines()]


@pytest.fixture
def model(models):
    return models / "gqa-v0-untied.bin"                 # three layers, a context of 64


@pytest.fixture
def traced(model, run, tmp_path):
    """The header, the events by (op, layer, pos), and the logits, of a prompt and three tokens after it."""
    logits = tmp_path / "logits.npy"
    header, *events = lines_of(run(model, "-i", PROMPT, "-n", 4, "-t", 0, "--kv", "f32", "--trace=json",
                                   "--logits", logits))
    found = {(event["op"], event["layer"], event["pos"]): event for event in events}
    assert len(found) == len(events)
    return header, found, np.load(logits)


def test_the_header(traced, model, run):
    header, _, _ = traced
    assert list(header) == ["file", "norm", "kernels", "seed", "ids"]
    assert (header["file"], header["norm"]) == (str(model), "rmsnorm")
    assert header["kernels"] in run(model, "--kernels", "none").stderr
    tokens = run(model, "-m", "tokenize", "-i", PROMPT).stdout.split()
    assert header["ids"] == [BOS, *map(int, tokens)]
    assert lines_of(run(model, "-s", 2**64 - 1, "-n", 0, "--trace=json"))[0]["seed"] == 2**64 - 1


def test_events(traced):
    header, events, logits = traced
    prompt = len(header["ids"])
    for (op, layer, pos), event in events.items():
        assert list(event) == EVENT
        rows, cols = event["shape"]
        assert event["mean"] == pytest.approx(event["sum"] / (rows * cols), rel=1e-15)
        assert len(event["values"]) == min(cols, 8)
        assert all(np.float32(value) == value for value in event["values"])
        assert abs(event["mean"]) <= event["rms"] <= event["max"]
        assert (layer is None) == (op in ("embed", "final_norm", "logits"))
        if op == "weights":                             # every row of them sums to 1
            assert (rows, cols) == (4, pos + 1) and event["sum"] == pytest.approx(rows, rel=1e-6)
        else:
            assert rows == (prompt if pos == 0 else 1)

    for pos in range(prompt, prompt + 3):               # one row: its logits are those of --logits
        event, row = events["logits", None, pos], logits[pos].astype(float)
        assert event["values"] == list(row[:8])
        assert event["max"] == np.abs(row).max()
        assert event["sum"] == pytest.approx(row.sum(), abs=1e-12)
        assert event["rms"] == pytest.approx(np.sqrt(np.mean(row**2)), rel=1e-14)


def test_the_residual_stream_adds_up(traced):
    """resid = resid before + attn_out + ffn_out, in the sums and in each of the first values."""
    _, events, _ = traced
    for pos in {pos for _, _, pos in events if ("embed", None, pos) in events}:
        before = events["embed", None, pos]
        for layer in range(3):
            attention, ffn, after = (events[op, layer, pos] for op in ("attn_out", "ffn_out", "resid"))
            parts = [before, attention, ffn]
            assert after["sum"] == pytest.approx(sum(part["sum"] for part in parts), abs=1e-5)
            values = np.sum([part["values"] for part in parts], axis=0)
            assert after["values"] == pytest.approx(values, abs=1e-6)
            before = after


def test_against_the_reference(traced, model):
    """The last logits of a pass are those of the forward pass in NumPy."""
    header, events, logits = traced
    ids = header["ids"] + [int(id) for id in np.argmax(logits[len(header["ids"]) - 1:-1], axis=1)]
    wanted = reference.logits(load(model), ids)[-1]
    event = events["logits", None, len(ids) - 1]
    assert event["max"] == pytest.approx(np.abs(wanted).max(), rel=EXACT)
    assert event["rms"] == pytest.approx(np.sqrt(np.mean(wanted**2)), rel=EXACT)


def test_nothing_else_is_said(model, run, tmp_path):
    """Neither the statistics nor a remark; the text and the numbers stay as they are."""
    options = model, "-s", 7, "-i", PROMPT
    full = "-n", -1, "-c", 70                           # beyond what it was trained for, until it is full
    assert run(*options, *full, "-q").stderr.count("run: ") == 2
    outcome = run(*options, *full, "--trace=json")
    assert "kernels" in lines_of(outcome)[0]
    assert outcome.stdout == run(*options, *full).stdout
    run(model, "-m", "perplexity", "-i", "a", "--trace=json").check_refused(2, "--trace")
    run(model, "--trace=xml").check_refused(2, "--trace=xml")
    run(tmp_path / "missing", "--trace=json").check_refused(1, "missing")


def test_a_chat_has_a_header_before_each_reply(model, run):
    """The conversation so far is what the model reads."""
    outcome = run(model, "-m", "chat", "--template", "zephyr", "-n", 2, "-c", 512, "-t", 0, "--trace=json",
                  stdin=b"Once\nupon a time\n")
    headers = [line for line in lines_of(outcome) if "ids" in line]
    assert len(headers) == 2
    first, second = (header["ids"] for header in headers)
    assert second[:len(first)] == first and len(second) > len(first)


def test_odd_names(model, models, run, tmp_path):
    """A name is bytes; JSON is UTF-8."""
    odd = bytes(tmp_path) + b"/a \"b\"\\\n\xff\xc3\xa9.bin"
    with open(odd, "wb") as file:
        file.write(model.read_bytes())
    header = lines_of(run(odd, "-z", models / "tokenizer.bin", "-n", 0, "--trace=json"))[0]
    assert header["file"] == f"{tmp_path}/a \"b\"\\\n\ufffd\u00e9.bin"
