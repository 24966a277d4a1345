"""test_export_rewrites.py - models that export.py writes with other weights compute what they did: --fold.

The models are tiny, of both architectures, tied and not, with and without biases. The norms' weights lie
between 0.5 and 1.5, some are 0; the biases are about 0.5.
"""

from dataclasses import replace

import gguf
import numpy as np
import pytest

import make_models
import reference
from hub_models import export, exported, folders, put_sentencepiece  # noqa: F401
from make_models import BLOCKS, HEADS, KINDS, NORMS, QKV, Kind
from test_export import difference, logits_of, tensors_of

from convert.center import center
from convert.fold import fold
from convert.gguf_files import read_gguf
from convert.model import Refused

# As parts of the largest logit. A folded weight is rounded once, by 2^-24 = 6e-8 of itself at most. The
# errors of a sum have both signs, so that it is as wrong as one of its parts; the five to ten products in a
# row that these models have may add theirs up: below 1e-6. The engine rounds sums of its own, of either file:
# ten times that. Centered weights are sums themselves: ten times again, as in test_export.py.
WEIGHTS, ENGINE, CENTERED = 1e-6, 1e-5, 1e-4
MODELS = {name: KINDS[name] for name in ("gqa-tied", "gqa-untied", "biases", "llama3", "stablelm",
                                         "stablelm-partial", "stablelm-plain")}
MODELS |= {
    "rmsnorm-biases": Kind(HEADS, biases=NORMS),
    "stablelm-own": replace(KINDS["stablelm-partial"], biases=NORMS + QKV + ("wo", "w_gate")),
}
IDS = [make_models.BOS, *range(260, 290)]


@pytest.fixture
def write(tmp_path):
    """write(kind): the file of a model, with weights of 0 in its norms."""

    def write(kind):
        arrays = make_models.arrays_of(kind)
        for name in NORMS:
            arrays[name][..., ::7] = 0
        make_models.write_gguf(tmp_path / "plain.gguf", kind, arrays)
        return tmp_path / "plain.gguf"

    return write


@pytest.fixture
def compute(run, run_layernorm, tmp_path):
    """compute(file, norm): the engine's logits."""

    def compute(path, norm):
        program = run if norm == "rmsnorm" else run_layernorm
        swap = reference.load(path).config.norm != norm
        return logits_of(program, path, tmp_path, *["--swap-norm"][:swap])

    return compute


@pytest.mark.parametrize("name", MODELS)
def test_fold(name, write, compute, tmp_path, record_property):
    """By the reference in double precision only the rounding of the weights shows; by the engine its own."""
    plain = write(MODELS[name])
    folded = exported(plain, tmp_path / "folded.gguf", "--type", "f32", "--fold")
    new, old = tensors_of(folded), tensors_of(plain)
    assert {"output.weight"} <= new.keys() and old.keys() <= new.keys()
    for tensor in new:
        if "norm" in tensor:
            assert (new[tensor].data == (1 if tensor.endswith("weight") else 0)).all(), tensor
    wanted = reference.logits(reference.load(plain), IDS)
    got = reference.logits(reference.load(folded), IDS)
    record_property("weights", difference(got, wanted))
    assert difference(got, wanted) <= WEIGHTS
    for norm in reference.NORMS:
        got, wanted = compute(folded, norm), compute(plain, norm)
        record_property("engine", difference(got, wanted))
        assert difference(got, wanted) <= ENGINE


@pytest.mark.parametrize("forgotten", ["blk.1.attn_v.weight", "blk.0.ffn_up.weight", "output.weight",
                                       "blk.0.attn_k.bias", "blk.1.ffn_gate.bias", "output.bias"])
def test_mistakes_show(forgotten, write, tmp_path):
    """The comparison is not blind: of one matrix the norm's weight or its bias has been forgotten."""
    plain = write(KINDS["stablelm"])
    folded = exported(plain, tmp_path / "folded.gguf", "--type", "f32", "--fold")
    wanted, old, data = reference.logits(reference.load(plain), IDS), tensors_of(plain), folded.read_bytes()
    t = tensors_of(folded)[forgotten]
    source = "token_embd.weight" if forgotten == "output.weight" else forgotten
    before = old[source].data.tobytes() if source in old else bytes(t.n_bytes)
    folded.write_bytes(data[:t.data_offset] + before + data[t.data_offset + t.n_bytes:])
    assert difference(reference.logits(reference.load(folded), IDS), wanted) > 1e4 * WEIGHTS


@pytest.mark.parametrize("type", ["f16", "q8_0", "q4_0"])
def test_fold_goes_before_rounding(type, write, tmp_path):
    kind = gguf.GGMLQuantizationType[type.upper()]
    plain = write(Kind(BLOCKS, biases=NORMS))
    exact = tensors_of(exported(plain, tmp_path / "exact.gguf", "--type", "f32", "--fold"))
    typed = tensors_of(exported(plain, tmp_path / "typed.gguf", "--type", type, "--fold"))
    assert exact.keys() == typed.keys()
    for name in exact:
        if exact[name].data.ndim == 2:
            wanted = gguf.quants.quantize(exact[name].data, kind)
            assert typed[name].tensor_type == kind and typed[name].data.tobytes() == wanted.tobytes(), name
        else:
            assert np.array_equal(typed[name].data, exact[name].data), name


@pytest.mark.parametrize("name", ["gqa-tied", "stablelm-partial"])
def test_center_and_fold(name, write, compute, tmp_path):
    """One after the other, in whichever order: by both norms the same, and what LayerNorm computed before."""
    plain = write(MODELS[name])
    both = exported(plain, tmp_path / "both.gguf", "--type", "f32", "--center", "--fold")
    other = read_gguf(plain)
    fold(other), center(other)
    written = tensors_of(both)
    assert {t.name for t in other.tensors} == written.keys()
    for t in other.tensors:
        assert np.array_equal(t.all(), written[t.name].data), t.name
    rms, layer = compute(both, "rmsnorm"), compute(both, "layernorm")
    assert difference(rms, layer) <= CENTERED
    assert difference(layer, compute(plain, "layernorm")) <= CENTERED
    assert difference(layer, compute(plain, "rmsnorm")) > 0.05


@pytest.mark.parametrize("kind", ["gqa-tied", "stablelm"])
def test_verify(kind, folders, run, run_layernorm, tmp_path):  # noqa: F811
    """What transformers computes from the source, to what --verify allows where nothing is rounded."""
    program = run_layernorm if kind == "stablelm" else run
    outcome = export(folders(kind), "-o", tmp_path / "out.gguf", "--type", "f32", "--fold", "--verify",
                     "--run", program.path)
    assert outcome.status == 0 and b"2.0e-04 is allowed" in outcome.stdout, outcome


def test_a_reader_that_is_not_known(write, tmp_path):
    """Where attention and feed-forward network share a norm, or a matrix has another name."""
    model = read_gguf(write(KINDS["stablelm-plain"]))
    for name in ("blk.1.ffn_norm.weight", "blk.0.attn_q.weight"):
        less = replace(model, tensors=[t for t in model.tensors if t.name != name])
        with pytest.raises(Refused, match=f"the tensor {name} is missing"):
            fold(less)
