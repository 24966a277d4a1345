"""conformance.py - on a real checkpoint the program writes what other engines write.

    pytest tests/conformance.py --data DIR      checkpoints in DIR/llama2c and DIR/gguf, what other engines
                                                make of them in DIR/reference, vocabularies, damaged files

stories260K is a model of 260 thousand weights that tells short stories. The reference texts are llama2.c's,
the perplexities llama.cpp's.
"""

import json
import re
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import pytest

import reference
from conftest import ROOT
from lab import outputs
from lab.engine import Checkpoint, Engine


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


def fitting(model, vocabulary):
    """The tokenizer to name for a model: a GGUF file has its own inside."""
    return () if model.suffix == ".gguf" else vocabulary


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


# The same floats in three formats.
SAME = ["llama2c/stories260K.bin", "llama2c/stories260K_v1.bin", "gguf/stories260K.gguf"]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kv", ["f16", "f32"])
@pytest.mark.parametrize("model", SAME)
def test_greedy_text(model, kv, threads, data, vocabulary, run):
    outputs, model = greedy_outputs(data), data / model
    assert len(outputs) == 5
    vocabulary = fitting(model, vocabulary)
    for prompt, (n, text) in outputs.items():
        n -= len(tokens(run, model, vocabulary, prompt))
        if prompt == "Zoë's café — ¡hola! 你好 🦙":     # llama2.c drops lone bytes
            text = prompt + text.removeprefix("Zo's café — hola!  ")
        outcome = run(model, *vocabulary, "-i", prompt, "-n", n, "-t", 0, "--kv", kv, "-j", threads, "-q")
        assert outcome == (0, text.encode(), "")


@pytest.mark.parametrize("model", ["llama2c/stories260K_q80_gs4.bin", "gguf/stories260K-F16.gguf",
                                   "gguf/stories260K-BF16.gguf"])
def test_greedy_text_of_rounded_weights(model, data, vocabulary, run):
    """Sixty-four positions are few enough for the rounding not to be seen."""
    prompt, model = "Once upon a time", data / model
    n, text = greedy_outputs(data)[prompt]
    vocabulary = fitting(model, vocabulary)
    n -= len(tokens(run, model, vocabulary, prompt))
    assert run(model, *vocabulary, "-i", prompt, "-n", n, "-t", 0, "-q") == (0, text.encode(), "")


@pytest.mark.parametrize("model", SAME)
def test_published_text(model, data, vocabulary, run):
    wanted = (data / "reference" / "stories260K_expected_greedy200.txt").read_bytes()
    model, vocabulary = data / model, fitting(data / model, vocabulary)
    assert run(model, *vocabulary, "-t", 0, "-n", 200, "-q") == (0, wanted + b"\n", "")


def test_to_the_end_of_the_context(data, v0, vocabulary, run):
    _, text = greedy_outputs(data)["Tom and Sue"]
    outcome = run(v0, *vocabulary, "-t", 0, "-n", -1, "-i", "Tom and Sue", "-q")
    assert (outcome.status, outcome.stdout) == (0, text.encode())
    assert "context of 512 is full" in outcome.stderr


# ---------------------------------------------------------------------------- numbers

@pytest.mark.parametrize("model", SAME)
def test_logits(model, data, vocabulary, run, tmp_path):
    prompt, ids, out = "Once upon a time", [1, 403, 407, 261, 378], tmp_path / "logits.npy"
    wanted = np.fromfile(data / "reference" / "stories260K_logits_once_upon_a_time_5x512.f32", "<f4")
    model, vocabulary = data / model, fitting(data / model, vocabulary)
    assert [1, *tokens(run, model, vocabulary, prompt)] == ids
    run(model, *vocabulary, "-i", prompt, "-n", 0, "--kv", "f32", "--logits", out)
    for got in (np.load(out), reference.logits(reference.load(model), ids)):
        assert np.abs(got - wanted.reshape(5, 512)).max() <= 1e-4


def test_versions_hold_the_same_weights(data, v0):
    config, weights = reference.read_llama2c(v0)
    config_1, weights_1 = reference.read_llama2c(data / "llama2c" / "stories260K_v1.bin")
    assert config == config_1
    assert weights.keys() - weights_1.keys() == {"angles"}      # version 1 leaves them out
    for name in weights_1:
        assert np.array_equal(weights[name], weights_1[name]), name


def test_gguf_holds_the_same_weights(data, v0):
    bin, gguf = reference.load(v0), reference.load(data / "gguf" / "stories260K.gguf")
    gguf.config.seq_len = bin.config.seq_len            # the one number that differs: 512 and 2048
    gguf.config.eps = float(f"{gguf.config.eps:.6g}")   # a float of 1e-5 there, the number itself here
    assert bin.config == gguf.config
    assert np.array_equal(bin.embedding, gguf.embedding)
    assert np.array_equal(bin.classifier.weight, gguf.classifier.weight)
    assert np.array_equal(bin.final_norm.weight, gguf.final_norm.weight)
    for ours, theirs in zip(bin.layers, gguf.layers, strict=True):
        for name in ours:
            assert np.array_equal(ours[name].weight, theirs[name].weight), name


def test_the_same_weights_in_any_file(data, vocabulary, run):
    """Read by the engine, they give the same logits, to the bit."""
    outcomes = [run(data / model, *fitting(data / model, vocabulary), "-t", 0, "-c", 512, "-i", "Tom and Sue")
                for model in SAME]
    assert len({(o.status, o.stdout, o.statistic("hash")) for o in outcomes}) == 1


@pytest.mark.parametrize("model, tokenizer", [("stories260K_q80_gs4.bin", "tok512.bin"),
                                              ("pr468_model_qint80.bin", "pr468_tok1024.bin")])
def test_version_2(model, tokenizer, data, run, tmp_path):
    model, vocabulary = data / "llama2c" / model, ("-z", data / "llama2c" / tokenizer)
    prompt, out = "Once upon a time", tmp_path / "logits.npy"
    outcome = run(model, *vocabulary, "-i", prompt, "-n", 20, "-t", 0, "--kv", "f32", "--logits", out)
    assert outcome.status == 0 and outcome.stdout.startswith(b"Once upon a time")
    got = np.load(out)
    ids = [1, *tokens(run, model, vocabulary, "Once upon a time")]
    ids += list(np.argmax(got[len(ids) - 1:-1], axis=1))
    assert np.isfinite(got).all()
    wanted = reference.logits(reference.load(model), ids)
    difference = np.abs(got - wanted).max() / np.abs(wanted).max()
    print(f"{model.name}: {difference:.1e}")
    assert difference <= 1e-4


# From reference/stories260K_perplexity_llama.cpp.txt.
PERPLEXITIES = [
    # text, context, file, cache, perplexity, how far it may be off
    ("tinystories_sample.txt", 128, "stories260K.gguf", "f32", 6.8453, 5e-4),
    ("tinystories_sample.txt", 128, "stories260K.gguf", "f16", 6.8466, 1e-3),
    ("tinystories_sample.txt", 128, "stories260K-F16.gguf", "f16", 6.8455, 1e-2),
    ("tinystories_sample.txt", 128, "stories260K-BF16.gguf", "f16", 6.8398, 1e-2),
    ("tinystories_sample.txt", 128, "stories260K-q8_0-f16.gguf", "f16", 6.8533, 1e-2),
    ("tinystories_sample.txt", 128, "stories260K-q5_0-q8_0-f16.gguf", "f16", 7.0041, 1e-2),
    ("tinystories_sample.txt", 128, "stories260K-iq4_nl-q8_0-f16.gguf", "f16", 7.2213, 1e-2),
    ("tinystories_sample.txt", 128, "stories260K-q5_1-q4_0-q4_1.gguf", "f16", 7.4302, 1e-2),
    ("wiki100k.txt", 512, "stories260K.gguf", "f32", 155.2510, 5e-4),
    ("wiki100k.txt", 512, "stories260K.gguf", "f16", 155.2555, 1e-3),
]


@pytest.mark.parametrize("text, context, file, kv, wanted, tolerance", PERPLEXITIES)
def test_perplexity(text, context, file, kv, wanted, tolerance, data, run):
    if run.sanitized and context == 512:
        pytest.skip("63,000 tokens take minutes with sanitizers")
    outcome = run(data / "gguf" / file, "-m", "perplexity", "-f", data / "text" / text, "-c", context,
                  "--kv", kv, "--json", "-q", limit=600)
    assert (outcome.status, outcome.stderr) == (0, "")
    report = json.loads(outcome.stdout)
    print(f"{file} {text}, cache {kv}: {report['perplexity']:.4f} +/- {report['stderr']:.4f}, "
          f"{wanted} wanted: "
          f"{100 * (report['perplexity'] / wanted - 1):+.3f} %, in {report['seconds']:.2f} s")
    assert report["perplexity"] == pytest.approx(wanted, rel=tolerance)
    assert report["windows"] == {"tinystories_sample.txt": 14, "wiki100k.txt": 123}[text]


@pytest.mark.parametrize("file", ["stories260K-q8_0-f16.gguf", "stories260K-q5_1-q4_0-q4_1.gguf",
                                  "stories260K-iq4_nl-q8_0-f16.gguf", "stories260K-q5_0-q8_0-f16.gguf"])
def test_logits_of_quantized_weights(file, data, run, tmp_path):
    """Against the reference, which rounds the inputs as well; see test_reference.py for what may remain."""
    model, out = data / "gguf" / file, tmp_path / "logits.npy"
    text = "Once upon a time there was a little girl"
    assert run(model, "-i", text, "-n", 0, "--kv", "f32", "--logits", out).status == 0
    got, ids = np.load(out), [1, *tokens(run, model, (), text)]
    wanted = reference.logits(reference.load(model, round_inputs=True), ids)
    difference = np.abs(got - wanted).max(axis=1) / np.abs(wanted).max()
    print(f"{file}: median {np.median(difference):.1e}, worst {difference.max():.1e}")
    assert np.median(difference) <= 1e-5 and difference.max() <= 0.05


TYPES = "f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q2_K q3_K q4_K q5_K q6_K iq4_nl".split()


@pytest.mark.parametrize("name", TYPES)
def test_the_reference_decodes_blocks(name, data):
    """The package that reference.py takes on trust decodes ggml's blocks as ggml does, to the bit."""
    type = gguf.GGMLQuantizationType[name.upper()]
    blocks = np.fromfile(data / "quant" / f"{name}.q", np.uint8).reshape(8, -1)
    wanted = np.fromfile(data / "quant" / f"{name}.f32", "<f4").reshape(8, 256)
    assert np.array_equal(gguf.quants.dequantize(blocks, type), wanted)


# ---------------------------------------------------------------------------- tokens

def texts_of(path):
    *texts, rest = path.read_bytes().split(b"\n__ggml_vocab_test__\n")
    assert (len(texts), rest) == (46, b"")
    return texts


def check_ids(run, texts, lines, tmp_path, *args):
    for text, line in zip(texts, lines, strict=True):
        (tmp_path / "text").write_bytes(text)
        outcome = run(*args, "-m", "tokenize", "-f", tmp_path / "text")
        assert outcome == (0, line.strip() + b"\n", ""), text


@pytest.mark.parametrize("model", SAME)
def test_ids(model, data, vocabulary, run, tmp_path):
    lines = (data / "reference" / "tok512_ids_for_ggml-vocab-inp.txt").read_bytes().splitlines()[:46]
    texts = texts_of(data / "vocab" / "ggml-vocab-gpt-2.gguf.inp")
    check_ids(run, texts, lines, tmp_path, data / model, *fitting(data / model, vocabulary))


@pytest.mark.parametrize("name", ["llama-spm", "gpt-2", "qwen2"])
def test_ids_of_a_large_vocabulary(name, data, run, tmp_path):
    """Up to 151,646 pieces, and no weights."""
    file = data / "vocab" / f"ggml-vocab-{name}.gguf"
    lines = file.with_name(f"{file.name}.out").read_bytes().splitlines()
    check_ids(run, texts_of(file.with_name(f"{file.name}.inp")), lines, tmp_path, file)


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


# ---------------------------------------------------------------------------- what a file is

@pytest.mark.parametrize("file, version, architecture, tokens", [
    ("gguf/ggml-vocab-falcon.v2.gguf", 2, "falcon", 65024), ("vocab/ggml-vocab-gpt-2.gguf", 3, "gpt2", 50257),
    ("vocab/ggml-vocab-qwen2.gguf", 3, "qwen2", 151646),
    ("vocab/ggml-vocab-llama-spm.gguf", 3, "llama", 32000),
])
def test_info_of_vocabularies(file, version, architecture, tokens, data, run):
    outcome = run(data / file, "-m", "info", "--json")
    assert (outcome.status, outcome.stderr) == (0, "")
    report = json.loads(outcome.stdout)
    assert (report["format"], report["version"], report["architecture"]) == ("GGUF", version, architecture)
    assert report["tokenizer"]["ggml.tokens"] == f"{tokens} x string"
    assert report["tensors"] == [] and report["refused"]
    assert run(data / file, "-m", "info").status == 0
    run(data / file).check_refused(1, data / file)


def test_info_of_a_model(data, run):
    for path in sorted((data / "gguf").glob("stories260K*.gguf")):
        report = json.loads(run(path, "-m", "info", "--json").stdout)
        assert report["parameters"] == 260032 + 512 * 64     # the classifier stands there once more
        for told, tensor in zip(report["tensors"], gguf.GGUFReader(path).tensors, strict=True):
            assert (told["name"], told["type"]) == (tensor.name, tensor.tensor_type.name)
            assert path.read_bytes()[told["offset"]:told["offset"] + told["bytes"]] == tensor.data.tobytes()


# ---------------------------------------------------------------------------- hostile bytes

READABLE = ["ok_HEADER_EMPTY.gguf", "ok_KV_RANDOM_KV.gguf", "ok_DATA_SUCCESS.gguf",
            "ok_DATA_CUSTOM_ALIGN.gguf"]
EITHER = {"bad_DATA_NOT_ENOUGH_DATA.gguf"}              # only padding is missing


def test_hostile_files(data, run):
    """None of them is a model, and running them is refused; info reads those that are well-formed."""
    files, problems = sorted((data / "hostile").iterdir()), []
    assert len(files) == 29
    for path in files:
        for args in ((), ("-m", "info"), ("-m", "info", "--json")):
            started = time.monotonic()
            outcome = run(path, *args)
            seconds = time.monotonic() - started
            try:
                if args and (path.name in READABLE or path.name in EITHER and outcome.status == 0):
                    assert (outcome.status, outcome.stderr) == (0, "") and b"GGUF" in outcome.stdout, outcome
                    assert len(args) < 3 or json.loads(outcome.stdout)
                else:
                    outcome.check_refused(1, path)
                assert seconds < 1 or run.sanitized, f"{seconds:.1f} s"
            except (AssertionError, ValueError) as problem:
                problems.append(f"{path.name} {args}: {problem}")
            print(outcome.stderr, end="")
    assert not problems, "\n".join(problems)


def test_the_other_byte_order(data, vocabulary, run):
    for file in ("llama2c/stories260K_v1_badmagic.bin", "hostile/ggml-vocab-llama.badmagic-FUGG.gguf"):
        run(data / file, *vocabulary).check_refused(1, data / file, "byte order")


# ---------------------------------------------------------------------------- the norm

def test_the_other_norm(v0, vocabulary, run_layernorm):
    run_layernorm(v0, *vocabulary).check_refused(1, v0, "make NORM=rmsnorm", "--swap-norm")
    assert run_layernorm(v0, *vocabulary, "--swap-norm").status == 0


def test_what_a_swap_costs(data, run, run_layernorm):
    """What the norm lab finds at every position of a text, beside reference.py in double precision. An audit
    that shares no code with either found +0.154 nats a token, with a standard error of 0.020."""
    engine = Engine({"rmsnorm": run.path, "layernorm": run_layernorm.path})
    model = Checkpoint(engine, data / "gguf" / "stories260K.gguf")
    text = (data / "text" / "tinystories_sample.txt").read_text(encoding="utf-8")
    windows, spec, losses = outputs.windows(engine, model, [text]), reference.load(model.path), {}
    found = outputs.compare(engine.run(model, "rmsnorm"), engine.run(model, "layernorm"), windows)
    for norm in ("rmsnorm", "layernorm"):
        for window in windows:
            ids = np.array([1, *window.ids])
            p = reference.softmax(reference.logits(spec, ids, norm))
            losses.setdefault(norm, []).extend(-np.log(p[np.arange(len(ids) - 1), ids[1:]]))
    differences, delta = np.subtract(losses["layernorm"], losses["rmsnorm"]), found["delta"]
    print(f"{delta['mean']:+.4f} [{delta['low']:+.4f}, {delta['high']:+.4f}] nats a token, "
          f"{len(differences)} tokens; reference.py {differences.mean():+.4f}")
    assert len(differences) == found["positions"] > 1500
    assert delta["mean"] == pytest.approx(differences.mean(), abs=1e-3)
    assert delta["mean"] == pytest.approx(0.154, abs=0.02) and delta["low"] > 0
    assert found["verdict"] == "differs"


# ---------------------------------------------------------------------------- export.py

def test_export(data, v0, run, tmp_path):
    """llama2.c's checkpoint as a GGUF file, with the tokenizer that lies beside it: it tells its story."""
    out, wanted = tmp_path / "out.gguf", data / "reference" / "stories260K_expected_greedy200.txt"
    subprocess.run([sys.executable, ROOT / "export.py", v0, "-o", out], check=True)
    assert run(out, "-t", 0, "-n", 200, "-q") == (0, wanted.read_bytes() + b"\n", "")
