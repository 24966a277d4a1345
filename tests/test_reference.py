"""test_reference.py - the engine computes what reference.py does, for every kind of model, by either norm."""

import functools

import numpy as np
import pytest

import make_models
import reference

PROMPT = "Once there was a Lion and the Zebra.\n"
# Of the largest logit. F16 keeps 11 bits of a number in the cache. Inputs of 8 bits lose half a per cent of
# their size at every product with quantized weights; where the reference rounds them too, hardly a trace is
# left.
EXACT, F16_CACHE, QUANTIZED, ROUNDED = 1e-4, 1e-2, 1e-2, 1e-5

load = functools.cache(reference.load)


def is_quantized(name):
    kind = make_models.KINDS.get(name.removesuffix(".gguf"))
    return kind is not None and not set(kind.types.values()) <= set(reference.FLOATS)


QUANTIZED_NAMES = [name for name in make_models.NAMES if is_quantized(name)]


def prompt_for(model):
    """49 tokens, or 529: more than are read together. 193 for the wide model, which takes its time."""
    return PROMPT * {64: 2, 600: 22, 1024: 8}[load(model).config.seq_len]


def greedy_ids(run, model, logits):
    """The ids behind the logits at temperature 0: BOS, the prompt, then the best of each row but the last."""
    prompt = run(model, "-m", "tokenize", "-i", prompt_for(model)).stdout.split()
    return [make_models.BOS, *map(int, prompt), *np.argmax(logits[len(prompt):-1], axis=1)]


def differences(a, b):
    """At each position the largest, as a part of the largest of all logits."""
    return np.abs(a - b).max(axis=1) / np.abs(b).max()


@pytest.fixture
def compute(models, run, run_layernorm, tmp_path):
    """compute(model's name, norm, type of the cache): the ids fed, and the engine's logits after each."""

    def compute(name, norm, kv):
        model, out = models / name, tmp_path / "logits.npy"
        program = run if norm == "rmsnorm" else run_layernorm
        swap = ["--swap-norm"] if norm != load(model).config.norm else []
        options = "-i", prompt_for(model), "-n", 8, "-t", 0, "--kv", kv, "--logits", out
        outcome = program(model, *swap, *options)
        assert outcome.status == 0, outcome
        got = np.load(out)
        ids = greedy_ids(run, model, got)
        assert got.dtype == np.float32
        assert got.shape == (len(ids), len(make_models.VOCABULARY))
        assert outcome.fed() == len(ids)
        return ids, got

    return compute


# The cache knows nothing of files: llama2.c's shapes, and the odd heads, will do for F16.
CASES = [(name, "f32") for name in make_models.NAMES]
CASES += [(name, "f16") for name in make_models.NAMES if name.endswith(".bin")]
CASES += [(f"{name}.gguf", "f16") for name in ("heads", "stablelm", "Q8_0", "mixed")]


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("name, kv", CASES)
def test_logits(name, norm, kv, models, compute, record_property):
    ids, got = compute(name, norm, kv)
    difference = differences(got, reference.logits(load(models / name), ids, norm)).max()
    record_property("difference", difference)
    assert difference <= (QUANTIZED if is_quantized(name) else EXACT if kv == "f32" else F16_CACHE)


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("name", QUANTIZED_NAMES)
def test_logits_with_rounded_inputs(name, norm, models, compute, record_property):
    """The reference rounds the inputs of quantized weights too: now the two agree, except that here and there
    a number so close to the middle of two that the last bit of a float decides goes the other way. That is
    felt at its position, and a little at some after it."""
    ids, got = compute(name, norm, "f32")
    difference = differences(got, reference.logits(load(models / name, round_inputs=True), ids, norm))
    record_property("difference", np.median(difference))
    assert np.median(difference) <= ROUNDED
    assert difference.max() <= QUANTIZED


@pytest.mark.parametrize("tied", ["tied", "untied"])
@pytest.mark.parametrize("shape", make_models.SHAPES)
def test_the_same_weights_in_any_file(shape, tied, models, run):
    """llama2.c's versions 0 and 1 and GGUF, whose vocabulary comes along, agree to the bit."""
    files = [f"{shape}-v0-{tied}.bin", f"{shape}-v1-{tied}.bin", f"{shape}-{tied}.gguf"]
    outcomes = [run(models / file, "-t", 0, "-i", PROMPT) for file in files]
    assert len({(o.status, o.stdout, o.statistic("hash")) for o in outcomes}) == 1


def test_two_ways_to_say_the_same(models, run):
    """A scaling by its new key and its old one; Llama 3.1's as keys, or computed by who made the file."""
    new, old = (run(models / name, "-t", 0) for name in ("linear.gguf", "linear-old.gguf"))
    assert (new.stdout, new.statistic("hash")) == (old.stdout, old.statistic("hash"))
    keys, factors = (load(models / name).slowdown for name in ("llama3.gguf", "llama3-factors.gguf"))
    assert keys == pytest.approx(factors, rel=1e-6)


# ---------------------------------------------------------------------------- the test can fail

def with_config(**change):
    def mistake(model):
        for name, value in change.items():
            setattr(model.config, name, value)
    return mistake


def without_slowdown(model):
    model.slowdown = 1.0


def slowed_down_by_half(model):
    model.slowdown = model.slowdown / 2


def swapped(a, b):
    def mistake(model):
        for w in model.layers:
            w[a], w[b] = w[b], w[a]
    return mistake


def without_bias(*names):
    def mistake(model):
        parts = [model.final_norm] if "final_norm" in names else []
        parts += [w[name] for w in model.layers for name in names if name in w]
        for part in parts:
            assert np.any(part.bias)
            part.bias = 0.0
    return mistake


def kv_heads_in_turn(model):
    """Query heads 0 1 2 3 look at key/value heads 0 1 0 1, where 0 0 1 1 is right."""
    rows = np.arange(len(model.layers[0]["wq"].weight)).reshape(4, -1)[[0, 2, 1, 3]].ravel()
    for w in model.layers:
        w["wq"].weight, w["wo"].weight = w["wq"].weight[rows], w["wo"].weight[:, rows]


def of_the_embedding(model):
    model.classifier.weight = model.embedding


MISTAKES = {
    "another theta": ("gqa-v0-untied.bin", with_config(rope_theta=500000.0)),
    "another eps": ("gqa-v0-untied.bin", with_config(eps=1e-6)),
    "the other norm": ("gqa-v0-untied.bin", with_config(norm="layernorm")),
    "gate is up": ("gqa-v0-untied.bin", swapped("w_gate", "w_up")),
    "key/value heads in turn": ("gqa-v0-untied.bin", kv_heads_in_turn),
    "halves for pairs": ("gqa-v0-untied.bin", with_config(rotation="halves")),
    "norms exchanged": ("gqa-v0-untied.bin", swapped("attn_norm", "ffn_norm")),
    "a layer left out": ("gqa-v0-untied.bin", lambda model: model.layers.pop()),
    "the embedding for a classifier": ("gqa-v0-untied.bin", of_the_embedding),
    "the default theta": ("theta.gguf", with_config(rope_theta=10000.0)),
    "the default eps": ("theta.gguf", with_config(eps=1e-5)),
    "the whole head turns": ("partial.gguf", with_config(rope_dim=16)),
    "linear scaling left out": ("linear.gguf", without_slowdown),
    "linear scaling by another factor": ("linear.gguf", slowed_down_by_half),
    "linear scaling, old key, left out": ("linear-old.gguf", without_slowdown),
    "llama3 scaling left out": ("llama3.gguf", without_slowdown),
    "llama3 factors left out": ("llama3-factors.gguf", without_slowdown),
    "stablelm: pairs for halves": ("stablelm.gguf", with_config(rotation="pairs")),
    "stablelm: the other norm": ("stablelm.gguf", with_config(norm="rmsnorm")),
    "stablelm: the whole head turns": ("stablelm-partial.gguf", with_config(rope_dim=16)),
    "stablelm: the norms' bias left out": ("stablelm.gguf", without_bias(*make_models.NORMS)),
    "stablelm: the last norm's bias left out": ("stablelm.gguf", without_bias("final_norm")),
    "stablelm: the bias of q, k, v left out": ("stablelm-partial.gguf", without_bias(*make_models.QKV)),
}
MISTAKES |= {f"{name}'s bias left out": ("biases.gguf", without_bias(name)) for name in make_models.ALL}


def worst_difference(a, b):
    return differences(a, b).max()


IDS = np.array([make_models.BOS, *range(259, 300)])


@pytest.mark.parametrize("name", make_models.NAMES)
def test_the_norms_differ_by_more_than_the_tolerance(name, models):
    rms, layer = (reference.logits(load(models / name), IDS, norm) for norm in ("rmsnorm", "layernorm"))
    assert worst_difference(layer, rms) > (2 * QUANTIZED if is_quantized(name) else 10 * F16_CACHE)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_show(mistake, models):
    name, make = MISTAKES[mistake]
    wrong = reference.load(models / name)
    make(wrong)
    right = reference.logits(load(models / name), IDS)
    assert worst_difference(reference.logits(wrong, IDS), right) > 2 * F16_CACHE


@pytest.mark.parametrize("name", QUANTIZED_NAMES)
def test_rounding_is_seen(name, models):
    """What the tight comparison allows is far less than what rounding the inputs does to any position."""
    plain, rounded = (reference.logits(load(models / name, rounds), IDS) for rounds in (False, True))
    assert np.median(differences(plain, rounded)) > 50 * ROUNDED
