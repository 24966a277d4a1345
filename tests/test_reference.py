"""test_reference.py - the engine computes what reference.py does, for every shape and by either norm."""

import numpy as np
import pytest

import make_models
import reference

PROMPT = "Once there was a Lion and the Zebra.\n"
TOLERANCE = {"f32": 1e-4, "f16": 1e-2}                  # of the largest logit; f16 keeps 11 bits of a number


def prompt_for(model):
    """49 tokens, or 529: more than are read together. 193 for the wide model, which takes its time."""
    return PROMPT * {64: 2, 600: 22, 1024: 8}[reference.load(model).config.seq_len]


def greedy_ids(run, model, logits):
    """The ids behind the logits at temperature 0: BOS, the prompt, then the best of each row but the last."""
    prompt = run(model, "-m", "tokenize", "-i", prompt_for(model)).stdout.split()
    return [make_models.BOS, *map(int, prompt), *np.argmax(logits[len(prompt):-1], axis=1)]


def largest_difference(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.mark.parametrize("kv", ["f32", "f16"])
@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
@pytest.mark.parametrize("name", make_models.NAMES)
def test_logits(name, norm, kv, models, run, run_layernorm, tmp_path):
    model, out = models / name, tmp_path / "logits.npy"
    program, swap = (run, []) if norm == "rmsnorm" else (run_layernorm, ["--swap-norm"])
    outcome = program(model, *swap, "-i", prompt_for(model), "-n", 8, "-t", 0, "--kv", kv, "--logits", out)
    assert outcome.status == 0, outcome

    got = np.load(out)
    ids = greedy_ids(run, model, got)
    assert got.dtype == np.float32
    assert got.shape == (len(ids), len(make_models.VOCABULARY))
    assert outcome.fed() == len(ids)
    wanted = reference.logits(reference.load(model), ids, norm)
    assert largest_difference(got, wanted) <= TOLERANCE[kv]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shape", make_models.SHAPES)
def test_versions_agree_to_the_bit(shape, tied, models, run):
    v0, v1 = (run(models / make_models.name_of(shape, version, tied), "-t", 0) for version in (0, 1))
    assert v0.stdout == v1.stdout
    assert v0.statistic("hash") == v1.statistic("hash")


# ---------------------------------------------------------------------------- the test can fail

def with_config(**change):
    def mistake(model):
        for field, value in change.items():
            setattr(model.config, field, value)
    return mistake


def swapped(a, b):
    def mistake(model):
        for w in model.layers:
            w[a], w[b] = w[b], w[a]
    return mistake


def kv_heads_in_turn(model):
    """Query heads 0 1 2 3 look at key/value heads 0 1 0 1, where 0 0 1 1 is right."""
    rows = np.arange(model.config.dim).reshape(4, -1)[[0, 2, 1, 3]].ravel()
    for w in model.layers:
        w["wq"], w["wo"] = w["wq"][rows], w["wo"][:, rows]


def rotation_by_halves(model):
    """RoPE turns (0, 3) (1, 4) (2, 5) of a head of 6, where (0, 1) (2, 3) (4, 5) is right."""
    for w in model.layers:
        for name in ("wq", "wk"):
            heads = w[name].reshape(-1, 6, model.config.dim)
            w[name] = heads[:, [0, 3, 1, 4, 2, 5]].reshape(w[name].shape)


MISTAKES = {
    "another theta": with_config(rope_theta=500000.0),
    "another eps": with_config(eps=1e-6),
    "the other norm": with_config(norm="layernorm"),
    "gate is up": swapped("w_gate", "w_up"),
    "key/value heads in turn": kv_heads_in_turn,
    "rotation by halves": rotation_by_halves,
    "norms exchanged": swapped("attn_norm", "ffn_norm"),
    "a layer left out": lambda model: model.layers.pop(),
}


@pytest.mark.parametrize("name", make_models.NAMES)
def test_the_norms_differ_by_more_than_the_tolerance(name, models):
    model, ids = reference.load(models / name), np.arange(3, 40)
    rms, layer = (reference.logits(model, ids, norm) for norm in ("rmsnorm", "layernorm"))
    assert largest_difference(layer, rms) > 10 * TOLERANCE["f16"]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_show(mistake, models):
    path, ids = models / make_models.name_of("gqa", 0, False), np.array([make_models.BOS, *range(259, 300)])
    wrong = reference.load(path)
    MISTAKES[mistake](wrong)
    difference = largest_difference(reference.logits(wrong, ids), reference.logits(reference.load(path), ids))
    assert difference > 2 * TOLERANCE["f16"]
