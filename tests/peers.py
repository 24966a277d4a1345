"""peers.py - llama.cpp reads what export.py writes, and writes the same text.

    pip install llama-cpp-python && pytest tests/peers.py

At every position of a greedy text the best token is the same, or the two best are closer than 1e-3: there the
last bit of a sum decides. llama.cpp is fed our text, so that one such place does not hide those after it.
"""

import numpy as np
import pytest
from llama_cpp import Llama

import make_models
from hub_models import KINDS, TEXT, exported, folders, is_layernorm, put_sentencepiece  # noqa: F401

F32 = 0                     # ggml's number of the type, for the cache
TYPES = ["f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1"]
BINS = [name for name in make_models.NAMES if name.endswith(".bin") and name != "wide.bin"]


@pytest.fixture
def compare(run, run_layernorm, tmp_path):
    """compare(file): (our logits, theirs, where the best token is another, and not for want of a bit)"""

    def compare(path, layernorm=False):
        out, program = tmp_path / "logits.npy", run_layernorm if layernorm else run
        theirs = Llama(str(path), n_ctx=128, n_batch=128, n_threads=2, logits_all=True, type_k=F32,
                       type_v=F32, verbose=False)
        prompt = theirs.tokenize(TEXT.encode()[:40], add_bos=True)
        options = "-i", TEXT[:40], "-n", 40, "-t", 0, "-c", 128, "--kv", "f32", "--logits", out
        outcome = program(path, *options)
        assert outcome.status == 0, outcome
        ours = np.load(out)
        ids = program(path, "-m", "tokenize", "-i", TEXT[:40]).stdout.split()
        assert prompt[len(prompt) - len(ids):] == [int(id) for id in ids]
        theirs.eval([*prompt, *ours.argmax(axis=1)[len(prompt) - 1:len(ours) - 1].tolist()])
        logits = np.array(theirs.scores[:len(ours)])
        assert theirs.n_tokens == len(ours), "BOS is the same, too"
        two = np.sort(ours, axis=1)[:, -2:]
        other = (ours.argmax(axis=1) != logits.argmax(axis=1)) & (two[:, 1] - two[:, 0] > 1e-3)
        return ours, logits, np.flatnonzero(other).tolist()

    return compare


def difference(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_writes_the_same(kind, folders, compare, tmp_path, record_property):
    out = exported(folders(kind), tmp_path / "out.gguf", "--type", "f32")
    ours, theirs, other = compare(out, is_layernorm(kind))
    record_property("difference", difference(ours, theirs))
    assert other == [] and difference(ours, theirs) < 1e-3


@pytest.mark.parametrize("type", TYPES)
def test_llama_cpp_reads_any_type(type, folders, compare, tmp_path, record_property):
    """Both round what they multiply with, each in its own way."""
    out = exported(folders("wide"), tmp_path / "out.gguf", "--type", type)
    ours, theirs, _ = compare(out)
    record_property("difference", difference(ours, theirs))
    assert difference(ours, theirs) < 0.1


@pytest.mark.parametrize("name", BINS)
def test_llama_cpp_reads_llama2c(name, models, compare, tmp_path, record_property):
    ours, theirs, other = compare(exported(models / name, tmp_path / "out.gguf"))
    record_property("difference", difference(ours, theirs))
    assert other == [] and difference(ours, theirs) < 1e-3
