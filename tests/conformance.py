"""conformance.py - on a real checkpoint the program writes what other engines write.

    pytest tests/conformance.py --data DIR         checkpoints in DIR/llama2c, their outputs in DIR/reference

stories260K is a model of 260 thousand weights that tells short stories. The reference texts are llama2.c's.
"""

import re
import statistics
import struct
import time
from pathlib import Path

import numpy as np
import pytest

import reference

@pytest.fixture(scope="session")
def data(request):
    folder = request.config.getoption("--data")
    assert folder, "conformance needs --data DIR"
    return Path(folder)


@pytest.fixture
def v0(data):
    return data / "llama2c" / "stories260K.bin"


@pytest.fixture
def vocabulary(data):
    return "-z", data / "llama2c" / "tok512.bin"


def tokens(run, model, vocabulary, text):
    outcome = run(model, *vocabulary, "-m", "tokenize", "-i", text)
    assert outcome.status == 0, outcome
    return [int(id) for id in outcome.stdout.split()]


# ---------------------------------------------------------------------------- greedy text

def greedy_outputs(data):
    """{prompt: (n, text)}: llama2.c's greedy outputs. Its n counts the prompt in."""
    _, *entries = (data / "reference" / "stories260K_run.c_outputs.txt").read_text().split("### ")
    outputs = {}
    for entry in entries:
        options, text = entry.split("\n", 1)
        if greedy := re.fullmatch(r'-t 0 .* -n (\d+) -i "(.*)"', options):
            outputs[greedy[2]] = int(greedy[1]), text
    return outputs


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kv", ["f16", "f32"])
@pytest.mark.parametrize("model", ["stories260K.bin", "stories260K_v1.bin"])
def test_greedy_text(model, kv, threads, data, vocabulary, run):
    outputs, model = greedy_outputs(data), data / "llama2c" / model
    assert len(outputs) == 5
    for prompt, (n, text) in outputs.items():
        n -= len(tokens(run, model, vocabulary, prompt))
        if prompt == "Zoë's café — ¡hola! 你好 🦙":     # llama2.c drops what it has to spell in bytes; we do not
            text = prompt + text.removeprefix("Zo's café — hola!  ")
        outcome = run(model, *vocabulary, "-i", prompt, "-n", n, "-t", 0, "--kv", kv, "-j", threads, "-q")
        assert outcome == (0, text.encode(), "")


def test_published_text(data, v0, vocabulary, run):
    wanted = (data / "reference" / "stories260K_expected_greedy200.txt").read_bytes()
    assert run(v0, *vocabulary, "-t", 0, "-n", 200, "-q") == (0, wanted + b"\n", "")


def test_to_the_end_of_the_context(data, v0, vocabulary, run):
    _, text = greedy_outputs(data)["Tom and Sue"]
    outcome = run(v0, *vocabulary, "-t", 0, "-n", -1, "-i", "Tom and Sue", "-q")
    assert (outcome.status, outcome.stdout) == (0, text.encode())
    assert "context of 512 is full" in outcome.stderr


# ---------------------------------------------------------------------------- numbers

def test_logits(data, v0, vocabulary, run, tmp_path):
    prompt, ids, out = "Once upon a time", [1, 403, 407, 261, 378], tmp_path / "logits.npy"
    wanted = np.fromfile(data / "reference" / "stories260K_logits_once_upon_a_time_5x512.f32", "<f4")
    assert [1, *tokens(run, v0, vocabulary, prompt)] == ids
    run(v0, *vocabulary, "-i", prompt, "-n", 0, "--kv", "f32", "--logits", out)
    for got in (np.load(out), reference.logits(reference.load(v0), ids)):
        assert np.abs(got - wanted.reshape(5, 512)).max() <= 1e-4


def test_versions_hold_the_same_weights(data, v0):
    config, weights = reference.read_llama2c(v0)
    config_1, weights_1 = reference.read_llama2c(data / "llama2c" / "stories260K_v1.bin")
    assert config == config_1
    assert weights.keys() - weights_1.keys() == {"angles"}      # version 1 leaves them out
    for name in weights_1:
        assert np.array_equal(weights[name], weights_1[name]), name


# ---------------------------------------------------------------------------- tokens

def test_ids(data, v0, vocabulary, run, tmp_path):
    file = (data / "vocab" / "ggml-vocab-gpt-2.gguf.inp").read_bytes()
    *texts, rest = file.split(b"\n__ggml_vocab_test__\n")
    lines = (data / "reference" / "tok512_ids_for_ggml-vocab-inp.txt").read_bytes().splitlines()
    assert (len(texts), rest) == (46, b"")
    for text, line in zip(texts, lines):
        (tmp_path / "text").write_bytes(text)
        outcome = run(v0, *vocabulary, "-m", "tokenize", "-f", tmp_path / "text")
        assert outcome == (0, line.strip() + b"\n", ""), text


def read_pieces(path):
    """What each id of a tokenizer.bin spells."""
    data, at, pieces = path.read_bytes(), 4, []
    while at < len(data):
        _, length = struct.unpack_from("<fi", data, at)
        pieces.append(data[at + 8:at + 8 + length])
        at += 8 + length
    pieces[3:259] = [bytes([byte]) for byte in range(256)]
    return pieces


LONG_TEXTS = {                                          # of a megabyte
    "mixed": "Once upon a time, Zoë said: “你好 🦙”!\n".encode() * 22000,
    "one letter": b"a" * 1000000,
    "no spaces": b"onceuponatimethere" * 60000,
    "all bytes": bytes(range(256)) * 4000,
}


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_a_long_text_takes_no_long_time(name, v0, vocabulary, run, tmp_path):
    text = LONG_TEXTS[name]
    (tmp_path / "text").write_bytes(text)
    started = time.monotonic()
    outcome = run(v0, *vocabulary, "-m", "tokenize", "-f", tmp_path / "text")
    seconds = time.monotonic() - started
    assert outcome.status == 0
    pieces = read_pieces(vocabulary[1])
    assert b"".join(pieces[int(id)] for id in outcome.stdout.split()) == b" " + text, "the ids spell the text"
    print(f"{name}: {len(text) / 1e6:.1f} MB in {seconds:.2f} s")
    assert seconds < 2 or run.sanitized


# ---------------------------------------------------------------------------- time and memory

def test_two_hundred_tokens(v0, vocabulary, run):
    """The whole command, from its start to its end."""
    args, times = (v0, *vocabulary, "-t", 0, "-n", 200), []
    for _ in range(11):
        started = time.monotonic()
        run(*args)
        times.append(time.monotonic() - started)
    [peak] = run.peak_memory(args)
    print(f"median {1e3 * statistics.median(times):.1f} ms, peak {peak / 1e6:.1f} MB")
    if not run.sanitized:
        assert statistics.median(times) < 0.1           # some milliseconds; the machine may be busy
        assert peak < 16e6


# ---------------------------------------------------------------------------- what it does not read, so far

@pytest.mark.parametrize("file, word", [
    ("llama2c/stories260K_v1_badmagic.bin", "byte order"),
    ("llama2c/stories260K_q80_gs4.bin", "version 2"),
    ("llama2c/pr468_model_qint80.bin", "version 2"),
    ("gguf/stories260K.gguf", "GGUF"),
])
def test_refused(file, word, data, vocabulary, run):
    run(data / file, *vocabulary).check_refused(1, data / file, word)


def test_the_other_norm(v0, vocabulary, run_layernorm):
    run_layernorm(v0, *vocabulary).check_refused(1, v0, "make NORM=rmsnorm", "--swap-norm")
    assert run_layernorm(v0, *vocabulary, "--swap-norm").status == 0
