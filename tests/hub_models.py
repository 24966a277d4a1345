"""hub_models.py - Hugging Face folders: tiny random models, and tokenizers trained on the spot.

What make_models.py is for GGUF files, but made by `transformers`, `tokenizers` and `sentencepiece`. The
fixtures at the end are for tests that import them.
"""

import contextlib
import io
import json
import shutil
import sys

import pytest
import sentencepiece
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (LlamaConfig, LlamaForCausalLM, LlamaTokenizer, MistralConfig, MistralForCausalLM,
                          PreTrainedTokenizerFast, StableLmConfig, StableLmForCausalLM)

from conftest import ROOT, Outcome
from convert.patterns import PATTERNS

import export as program                                # which conftest has made to be found

TEXT = ("Once upon a time, there was 1 girl named Zoë. \"She'd love it!\" x[3] = {y->z}; // 42 kB & more\n")
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,;:!?'\"()[]{}<>/=+-*&#_"


def export(*args):
    """As from the command line, without the start of another Python."""
    stdout, stderr, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            program.main([*map(str, args)])
        except SystemExit as end:
            status = end.code
    if isinstance(status, str):
        status = print(status, file=stderr) or 1
    return Outcome(status or 0, stdout.getvalue().encode(), stderr.getvalue())


def exported(source, out, *args):
    outcome = export(source, "-o", out, *args)
    assert outcome.status == 0, outcome
    return out


def write_json(path, data):
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


# ---------------------------------------------------------------------------- tokenizers


def corpus():
    sources = sorted(ROOT.glob("*.[ch]"))[:6]
    return [path.read_text(encoding="utf-8") for path in sources] + [TEXT, LETTERS]


def train_sentencepiece(path):
    """A tokenizer.model of 480 tokens."""
    lines = [line for text in corpus() for line in text.splitlines() if line]
    with open(path, "wb") as out:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=out, model_type="bpe", vocab_size=480,
            byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
            character_coverage=1.0, split_digits=True, minloglevel=2)


LLAMA = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
         "add_bos_token": True}


def train_byte_level(name, size=600):
    """A tokenizer that cuts words as the family of this name does, said as the family says it."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=name in ("llama-bpe", "tekken")))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=name in ("gpt-2", "smollm"))
    cut = {"gpt-2": [], "smollm": [pre_tokenizers.Digits(individual_digits=True)]}.get(name)
    if cut is None:
        cut = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PATTERNS[name]]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cut, byte_level]) if cut else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                  special_tokens=["<|begin|>", "<|end|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def put_byte_level(folder, name="llama-bpe", bos=True):
    folder.mkdir(exist_ok=True)
    tokenizer = train_byte_level(name)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", pair="<|begin|> $A $B", special_tokens=[("<|begin|>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>",
                            clean_up_tokenization_spaces=False).save_pretrained(folder)


# ---------------------------------------------------------------------------- models

V = 600
SIZES = dict(vocab_size=V, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=4, max_position_embeddings=128, bos_token_id=None, eos_token_id=None)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
FULL = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
LLAMA_KINDS = {             # what differs from SIZES
    "llama": {},
    "gqa-tied": dict(num_key_value_heads=2, tie_word_embeddings=True, rms_norm_eps=1e-3),
    "mqa": dict(num_key_value_heads=1),
    "head_dim": dict(num_key_value_heads=2, head_dim=20),
    "llama3": dict(num_key_value_heads=2, head_dim=16, rope_parameters=LLAMA3),
    "linear": dict(rope_parameters=LINEAR),
    "theta": dict(rope_parameters={"rope_type": "default", "rope_theta": 500.0}),
    "biases": dict(num_key_value_heads=2, attention_bias=True, mlp_bias=True),
    "odd-vocabulary": dict(vocab_size=613, tie_word_embeddings=True),
    "wide": dict(hidden_size=64, intermediate_size=112),    # rows of whole blocks, but for those of down_proj
}
MISTRAL_KINDS = {
    "mistral": dict(num_key_value_heads=2, head_dim=20, sliding_window=None),
    "mistral-window": dict(num_key_value_heads=2, sliding_window=128),
}
STABLELM_KINDS = {
    "stablelm": dict(hidden_size=64, num_key_value_heads=2, use_qkv_bias=True),
    "stablelm-full": dict(rope_parameters=FULL),
    "stablelm-tied": dict(num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
                          layer_norm_eps=1e-3),
}
KINDS = LLAMA_KINDS | MISTRAL_KINDS | STABLELM_KINDS
BYTE_LEVEL = {"gqa-tied", "llama3", "biases", "stablelm-tied"}      # the others have SentencePiece's tokens


def is_layernorm(kind):
    return kind in STABLELM_KINDS


def classes_of(kind):
    if kind in MISTRAL_KINDS:
        return MistralConfig, MistralForCausalLM
    return (StableLmConfig, StableLmForCausalLM) if is_layernorm(kind) else (LlamaConfig, LlamaForCausalLM)


def make_model(kind):
    """Random weights of a size that makes mistakes show: logits of about 1, norms that are not 1, a residual
    stream with a mean."""
    config, model = classes_of(kind)
    torch.manual_seed(0)
    model = model(config(**(SIZES | KINDS[kind]))).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                p.uniform_(0.5, 1.5)
            elif p.ndim == 1:
                p.normal_(0.3, 0.5)
            else:
                p.normal_(0, 1.5 / p.shape[-1] ** 0.5)
        model.get_input_embeddings().weight += 0.1
    return model


# ---------------------------------------------------------------------------- fixtures


@pytest.fixture(scope="session")
def put_sentencepiece(tmp_path_factory):
    """Put it into a folder, as tokenizer.model, or as the tokenizer.json that transformers makes of it."""
    trained = tmp_path_factory.mktemp("sentencepiece") / "tokenizer.model"
    train_sentencepiece(trained)

    def put(folder, as_json=False):
        folder.mkdir(exist_ok=True)
        shutil.copy(trained, folder)
        write_json(folder / "tokenizer_config.json", LLAMA)
        if as_json:
            LlamaTokenizer.from_pretrained(folder).save_pretrained(folder)
            (folder / "tokenizer.model").unlink(missing_ok=True)
            assert (folder / "tokenizer.json").is_file()

    return put


@pytest.fixture(scope="session")
def folders(tmp_path_factory, put_sentencepiece):
    """folders(kind): the folder of a model. Nobody changes it."""
    root, made = tmp_path_factory.mktemp("folders"), {}

    def folder(kind):
        if kind not in made:
            made[kind] = root / kind
            make_model(kind).save_pretrained(made[kind])
            if kind in BYTE_LEVEL:
                put_byte_level(made[kind])
            else:                                       # what is no Llama has no tokenizer.model of its own
                put_sentencepiece(made[kind], as_json=kind not in LLAMA_KINDS)
        return made[kind]

    return folder


@pytest.fixture
def copy(folders, tmp_path):
    """copy(kind, {key: value of config.json, "drop" for none}): a folder to be changed."""

    def copy(kind, change=None):
        folder = tmp_path / "copy"
        shutil.copytree(folders(kind), folder)
        config = json.loads((folder / "config.json").read_text()) | (change or {})
        write_json(folder / "config.json", {key: value for key, value in config.items() if value != "drop"})
        return folder

    return copy
