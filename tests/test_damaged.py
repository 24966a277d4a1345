"""test_damaged.py - files are hostile bytes: whatever stands in place of a checkpoint or a tokenizer, the
program either refuses it - status 1, nothing on standard output, one line on standard error that names the
file, within a second and with little memory - or it is legal, and then the text is right.
"""

import os
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import make_models
import reference

INTS = [0, -1, 3, 2**31 - 1, -2**31]
MEMORY = 64 << 20


@pytest.fixture
def refused(run, models, tmp_path):
    """Each of {what: bytes, or the path of a file} is refused in place of a good checkpoint or tokenizer."""

    def check(role, cases, *words):
        outcomes, calls, problems = {}, [], []
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            for what, file in cases.items():
                if isinstance(file, bytes):
                    path = Path(folder, f"{role}-{len(calls)}.bin")
                    path.write_bytes(file)
                    file = path
                model, tokenizer = models / "gqa-v0-tied.bin", models / "tokenizer.bin"
                calls.append((file, "-z", tokenizer) if role == "checkpoint" else (model, "-z", file))
                try:
                    started = time.monotonic()
                    outcomes[what] = run(*calls[-1])
                    seconds = time.monotonic() - started
                    outcomes[what].check_refused(1, file, *words)
                    assert seconds < (5 if run.sanitized else 1), f"it took {seconds:.1f} seconds"
                except AssertionError as problem:
                    problems.append(f"{what}: {str(problem).splitlines()[0]}")
            if not run.sanitized:
                for what, peak in zip(cases, run.peak_memory(*calls), strict=True):
                    if peak > MEMORY:
                        problems.append(f"{what}: it took {peak / 1e6:.0f} MB")
        assert not problems, f"{len(problems)} problems with {len(cases)} files:\n" + "\n".join(problems[:20])
        return outcomes

    return check


def put(data, at, value):
    """data with other bytes at one place"""
    return data[:at] + value + data[at + len(value):]


def spread(n, count):
    """count numbers from 0 to n - 1, evenly apart"""
    return sorted({i * n // count for i in range(count)})


# ---------------------------------------------------------------------------- the checkpoint

@pytest.fixture(params=["gqa-v0-tied.bin", "gqa-v0-untied.bin", "gqa-v1-tied.bin", "gqa-v1-untied.bin"])
def checkpoint(request, models):
    return models / request.param


def test_header_fields(checkpoint, refused):
    data = checkpoint.read_bytes()
    first = 8 if "v1" in checkpoint.name else 0
    cases = {}
    for i, field in enumerate(reference.HEADER):
        for value in INTS:
            damaged = put(data, first + 4 * i, struct.pack("<i", value))
            legal = "v1" in checkpoint.name and field == "seq_len" and value > 0        # see the next test
            if damaged != data and not legal:
                cases[f"{field} = {value}"] = damaged
    refused("checkpoint", cases)


def test_any_seq_len_is_legal_in_version_1(models, run, tmp_path):
    """Version 1 stores nothing per position, so seq_len is only the length of the context."""
    model, path = models / "gqa-v1-tied.bin", tmp_path / "model.bin"
    for seq_len, written, said in ((3, 3, "context of 3 is full"), (2**31 - 1, 60, "context 4096")):
        path.write_bytes(put(model.read_bytes(), 32, struct.pack("<i", seq_len)))
        outcome = run(path, "-z", models / "tokenizer.bin", "-t", 0, "-n", 60)
        assert outcome.status == 0, outcome
        assert outcome.stdout == run(model, "-t", 0, "-n", written).stdout
        assert said in outcome.stderr                   # more than 4096 has to be asked for


def test_magic_version_and_flag(models, refused):
    tied, untied = (models / "gqa-v1-tied.bin").read_bytes(), (models / "gqa-v1-untied.bin").read_bytes()
    cases = {f"byte {i} of the magic + 1": put(tied, i, bytes([tied[i] + 1])) for i in range(4)}
    cases |= {f"version {value}": put(tied, 4, struct.pack("<i", value)) for value in [*INTS, 2]}
    cases |= {f"shared_classifier = {value}": put(tied, 36, bytes([value])) for value in (3, 128, 255)}
    cases |= {"no classifier": put(tied, 36, b"\0"), "a classifier too many": put(untied, 36, b"\1")}
    refused("checkpoint", cases)


def test_shapes_that_cannot_be(refused, tmp_path):
    """The file is as long as its header asks for, and yet there is no such model."""
    for dim, n_heads, n_kv_heads, word in ((25, 4, 4, "dim = 25"), (12, 4, 4, "heads of 3"),
                                           (24, 4, 3, "n_kv_heads = 3"), (24, 2, 4, "n_kv_heads = 4")):
        config = reference.Config(dim, 37, 1, n_heads, n_kv_heads, make_models.V, 64)
        for version in (0, 1):
            path = tmp_path / "model.bin"
            make_models.write_model(path, config, make_models.random_arrays(config, True, 0), version)
            refused("checkpoint", {f"{config}, version {version}": path}, word)


def test_truncated_checkpoint(checkpoint, refused):
    data = checkpoint.read_bytes()
    outcomes = refused("checkpoint", {n: data[:n] for n in spread(len(data), 200)})
    for n, outcome in outcomes.items():
        if n >= 256:                                    # behind the header: it says how much there should be
            assert f" {len(data) - n} are missing" in outcome.stderr
    refused("checkpoint", {n: data[:n] for n in spread(256 if "v1" in checkpoint.name else 28, 28)})


def test_one_byte_too_many(checkpoint, refused):
    refused("checkpoint", {"one byte too many": checkpoint.read_bytes() + b"\0"})


# ---------------------------------------------------------------------------- the tokenizer

def places():
    """(id, offset in tokenizer.bin) of every ninth token, and of the last: its score, and then its length."""
    at, found = 4, []
    for id, (_, text) in enumerate(make_models.pieces()):
        found.append((id, at))
        at += 8 + len(text)
    return found[::9] + found[-1:]


def test_tokenizer_lengths(models, refused):
    data = (models / "tokenizer.bin").read_bytes()
    cases = {}
    for value in INTS:
        field = struct.pack("<i", value)
        if value != 2**31 - 1:                          # see the next test
            cases[f"longest = {value}"] = put(data, 0, field)
        for id, at in places():
            if put(data, at + 4, field) != data:
                cases[f"length of token {id} = {value}"] = put(data, at + 4, field)
    refused("tokenizer", cases)


def test_longest_token_may_be_shorter_than_the_header_says(models, run, tmp_path):
    """It is a bound for the lengths that follow; nothing else depends on it."""
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(put((models / "tokenizer.bin").read_bytes(), 0, struct.pack("<i", 2**31 - 1)))
    model = models / "gqa-v0-tied.bin"
    options = "-t", 0, "-q", "-i", "the and then"
    assert run(model, "-z", path, *options) == run(model, *options)


def test_tokenizer_scores(models, refused):
    data = (models / "tokenizer.bin").read_bytes()
    refused("tokenizer", {f"score of token {id} = {value}": put(data, at, struct.pack("<f", float(value)))
                          for id, at in places() for value in ("nan", "inf", "-inf")})


def test_truncated_tokenizer(models, refused):
    data = (models / "tokenizer.bin").read_bytes()
    refused("tokenizer", {n: data[:n] for n in spread(len(data), 200)})
    refused("tokenizer", {"one byte too many": data + b"\0"})


def test_millions_of_empty_tokens(models, refused, tmp_path):
    """A hole costs nothing to store, and must not cost time or memory to refuse."""
    path = tmp_path / "hole.bin"
    path.write_bytes(struct.pack("<i", 5))
    os.truncate(path, 4 + 8 * 2**25)
    refused("tokenizer", {"32 million empty tokens": path})


# ---------------------------------------------------------------------------- something else altogether

OTHERS = {                                              # what: (its first bytes, a word that says what it is)
    "GGUF": (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "GGUF"),
    "GGUF of the other byte order": (b"FUGG" + struct.pack(">IQQ", 3, 0, 0), "GGUF"),
    "web page": (b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n", "web page"),
    "web page after blanks": (b"\r\n\n  <html>" + b" " * 99, "web page"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs"),
    "zip": (b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(99), "zip"),
    "gzip": (b"\x1f\x8b\x08\0\0\0\0\0" + bytes(99), "gzip"),
    "safetensors": (struct.pack("<Q", 40) + b'{"__metadata__":{"format":"pt"}}', "safetensors"),
    "text": ("Once upon a time there was a Zoë.\n".encode() * 9, "text"),
    "JSON": (b'{"dim": 64}\n', "text"),
    "one byte": (b"\x07", ""),
    "zeros": (bytes(4096), ""),
    "ones": (b"\xff" * 4096, ""),
}


@pytest.mark.parametrize("role", ["checkpoint", "tokenizer"])
def test_something_else(role, models, refused):
    for what, (data, word) in OTHERS.items():
        refused(role, {what: data}, word)
    swapped = models / ("gqa-v0-tied.bin" if role == "tokenizer" else "tokenizer.bin")
    refused(role, {"the files exchanged": swapped})
    refused(role, {f"random bytes {seed}": make_random(seed) for seed in range(50)})


def make_random(seed):
    """Random bytes; behind a magic, or a small number as any header has it, they get further."""
    data = bytes(np.random.default_rng(seed).integers(0, 256, 3000, "u1"))
    return [data, struct.pack("<Ii", reference.MAGIC, 1) + data, struct.pack("<i", 7) + data][seed % 3]


@pytest.mark.parametrize("role", ["checkpoint", "tokenizer"])
def test_no_plain_file(role, refused, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nothing").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(role, {"a directory": tmp_path}, "directory")
    refused(role, {"an empty file": tmp_path / "nothing"}, "empty")
    refused(role, {"a pipe": tmp_path / "pipe"}, "regular file")
    refused(role, {"a device": os.devnull}, "regular file")
    refused(role, {"no file": tmp_path / "missing"}, "No such file")
    refused(role, {"a link to nowhere": tmp_path / "dangling"}, "No such file")
    refused(role, {"a link to itself": tmp_path / "loop"})


@pytest.mark.parametrize("role", ["checkpoint", "tokenizer"])
def test_a_long_name_hides_nothing(role, refused, tmp_path):
    folder = tmp_path.joinpath(*["a" * 200] * 10)
    folder.mkdir(parents=True)
    (folder / "pointer.bin").write_bytes(OTHERS["git-lfs pointer"][0])
    refused(role, {"a git-lfs pointer": folder / "pointer.bin"}, "git lfs")
