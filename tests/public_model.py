"""public_model.py - from a chat model that others have made the engine computes what `transformers` does.

    make pytest PYTEST="tests/public_model.py [--data DIR]"     on README.md, or on DIR/text/wiki100k.txt

SmolLM2-135M-Instruct, most of it in Q4_1, as `make smollm2` fetches it; where that cannot be downloaded, all
is skipped. `export.py --to hf` makes floats of its weights for transformers, whose RMSNorm gives way to
torch's LayerNorm to see what the other norm does.
"""

import json
import subprocess
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import layer_norm
from transformers import AutoModelForCausalLM, AutoTokenizer

import reference
from conftest import ROOT
from hub_models import export, exported
from test_export import ids_of, random_texts
from test_words import TEXTS

CONTEXT = 512
EXACT = 1e-4            # of a perplexity: two sums of floats differ in their last bits


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    fetched = subprocess.run(["make", "-s", "smollm2"], cwd=ROOT, capture_output=True, text=True)
    if "cannot be downloaded" in fetched.stderr:
        pytest.skip("make smollm2 cannot download it")
    assert fetched.returncode == 0, fetched.stderr
    [path] = (ROOT / "downloads").glob("SmolLM2-135M-Instruct*.gguf")
    folder = tmp_path_factory.mktemp("smollm2")
    outcome = export(path, "--to", "hf", folder / "hf")
    assert outcome.status == 0, outcome
    model = AutoModelForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32).eval()
    return SimpleNamespace(quantized=path, floats=exported(path, folder / "f32.gguf", "--type", "f32"),
                           tokenizer=AutoTokenizer.from_pretrained(folder / "hf"), model=model)


@pytest.fixture
def text(request, tmp_path):
    """The file of a text of four or five windows."""
    data = request.config.getoption("--data")
    source = f"{data}/text/wiki100k.txt" if data else ROOT / "README.md"
    with open(source, encoding="utf-8") as file:
        (tmp_path / "text").write_text(file.read(10_000), encoding="utf-8")
    return tmp_path / "text"


@pytest.fixture(params=reference.NORMS)
def engine(request, smollm2, run, run_layernorm, monkeypatch):
    """The program of one norm, as a function of its arguments; smollm2.model has that norm as well."""
    if request.param == "rmsnorm":
        return partial(run, limit=600)
    for module in smollm2.model.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            monkeypatch.setattr(module, "forward", partial(
                layer_norm, normalized_shape=module.weight.shape, weight=module.weight,
                eps=module.variance_epsilon))
    return partial(run_layernorm, "--swap-norm", limit=600)


def log_probabilities(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()


def their_perplexity(smollm2, path):
    """In the windows of reference.perplexity(); this vocabulary wants no BOS."""
    ids, losses = smollm2.tokenizer(path.read_text(encoding="utf-8"), verbose=False)["input_ids"], []
    for start in range(0, len(ids) - CONTEXT + 1, CONTEXT):
        window = ids[start:start + CONTEXT]
        log_p = log_probabilities(smollm2.model, window)
        losses += [-log_p[i - 1, window[i]] for i in range(CONTEXT // 2 + 1, CONTEXT)]
    return np.exp(np.mean(losses)), len(losses)


def test_perplexity(smollm2, engine, text, record_property):
    """Of its weights as floats: against quantized weights the engine rounds its inputs to 8 bits, too."""
    outcome = engine(smollm2.floats, "-m", "perplexity", "-f", text, "-c", CONTEXT, "--kv", "f32", "--json")
    assert outcome.status == 0, outcome
    ours, (theirs, tokens) = json.loads(outcome.stdout), their_perplexity(smollm2, text)
    record_property("perplexity", (ours["perplexity"], theirs))
    assert ours["tokens"] == tokens >= 4 * (CONTEXT // 2 - 1)
    assert ours["perplexity"] == pytest.approx(theirs, rel=EXACT)


def test_what_comes_next(smollm2, engine):
    """By either norm, and whether or not inputs are rounded."""
    prompt = "The capital of France is"
    best = log_probabilities(smollm2.model, smollm2.tokenizer(prompt)["input_ids"])[-1].argmax()
    wanted = prompt + smollm2.tokenizer.decode(best)
    assert wanted == "The capital of France is Paris"
    for file in (smollm2.quantized, smollm2.floats):
        assert engine(file, "-i", prompt, "-n", 1, "-t", 0, "-q").stdout.decode() == wanted + "\n"


def test_ids(smollm2, run, tmp_path):
    """But for code points from U+40000 on. Their first byte is no token of this vocabulary, so both leave it
    out, and tokenizers merges what stands before it with what follows."""
    for text in TEXTS + random_texts(6, 20):
        text = "".join(c for c in text if c < "\U00040000")
        theirs = smollm2.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids_of(run, smollm2.quantized, text, tmp_path) == theirs, text
