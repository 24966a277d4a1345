"""test_vocabularies.py - what a vocabulary says of its tokens and of texts: SentencePiece's switches in every
combination, ids equal to the library's; and token types and ids that are not as they should be.
"""

import io
import itertools
import json
import random

import gguf
import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from conftest import ROOT
from hub_models import TEXT, export, train_byte_level
from test_words import TEXTS as WORDS, random_text

from convert.gguf_files import add_keys, read_gguf, write_gguf
from convert.model import Model
from convert.to_huggingface import sentencepiece_json
from convert.vocabulary import NORMAL, UNUSED, USER, read_sentencepiece, sentencepiece_from_json


def write_keys(path, keys):
    """A GGUF file of a vocabulary alone."""
    writer = gguf.GGUFWriter(path, "llama")
    add_keys(writer, Model({"general.architecture": "llama", **keys}), {})
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.fixture
def ids(run, tmp_path):
    def ids(path, text, *options):
        (tmp_path / "text").write_bytes(text.encode())
        outcome = run(path, "-m", "tokenize", "-f", tmp_path / "text", *options)
        assert (outcome.status, outcome.stderr) == (0, ""), outcome
        return [int(id) for id in outcome.stdout.split()]
    return ids


# ---------------------------------------------------------------------------- SentencePiece's switches

SWITCHES = ["byte_fallback", "no_ends", "user", "unused", "add_dummy_prefix", "remove_extra_whitespaces"]
SYMBOLS = ["<sep>", "<sep>>", "\u2581\u2581\u2581", "int"]
TEXTS = ["", " ", "  ", "a", " a", "  a  ", "for  the   int ",
         "\u2581", "\u2581\u2581a\u2581 b \u2581", " \u2581 a", "a\n\nb\t\tc", "<s>the</s><unk><0x41>",
         "日本", "日本 a日本", "ZoëZoë ëë", "🦙\u0301🦙 \u3000 🦙",
         "<sep>the<sep> the <sep>>int<sep", "  <sep>  a  <sep>  "]


@pytest.fixture(scope="module")
def trained():
    """trained(byte_fallback, no_ends, user): a model; with no_ends it has no BOS and no EOS."""
    lines, made = [*(ROOT / "utf8.c").read_text().splitlines(), TEXT], {}

    def trained(*on):
        if on not in made:
            byte_fallback, no_ends, user = on
            made[on] = io.BytesIO()
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines), model_writer=made[on], model_type="bpe",
                vocab_size=500 if byte_fallback else 240, byte_fallback=byte_fallback,
                split_by_whitespace=False, allow_whitespace_only_pieces=True, character_coverage=0.98,
                normalization_rule_name="identity", minloglevel=2,
                user_defined_symbols=SYMBOLS if user else [],
                **{"bos_id": -1, "eos_id": -1} if no_ends else {})
        return made[on].getvalue()
    return trained


def switched(model, unused, add_dummy_prefix, remove_extra_whitespaces):
    """With `unused`, every third piece of several letters must not be in an output."""
    model = sentencepiece_model_pb2.ModelProto.FromString(model)
    longer = [piece for piece in model.pieces if piece.type == NORMAL and len(piece.piece) > 1]
    for piece in longer[::3] if unused else []:
        piece.type = UNUSED
    model.normalizer_spec.add_dummy_prefix = add_dummy_prefix
    model.normalizer_spec.remove_extra_whitespaces = remove_extra_whitespaces
    return model.SerializeToString()


# Where a space is put before a text, one is put after tokens of the user's as well, as in llama.cpp: that is
# not compared.
COMBINATIONS = [on for on in itertools.product([False, True], repeat=6) if not (on[2] and on[4])]


@pytest.mark.parametrize("on", COMBINATIONS, ids=["+".join(itertools.compress(SWITCHES, on)) or "none"
                                                  for on in COMBINATIONS])
def test_switches(on, trained, ids, tmp_path):
    model = switched(trained(*on[:3]), *on[3:])
    (tmp_path / "tokenizer.model").write_bytes(model)
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocabulary = read_sentencepiece(tmp_path / "tokenizer.model")
    path = write_keys(tmp_path / "vocabulary.gguf", vocabulary.keys(len(vocabulary.tokens)))
    source = random.Random(3)
    pieces = [token.replace("\u2581", source.choice(" \u2581")) for token in vocabulary.tokens]
    mixed = ["".join(source.choice(pieces) for _ in range(500)) for _ in range(3)]
    for text in [*TEXTS, random_text(source, 500), *mixed]:
        assert ids(path, text) == library.encode(text), text


@pytest.mark.parametrize("add_dummy_prefix", [False, True])
def test_spaces_in_a_tokenizer_json(add_dummy_prefix, trained, tmp_path):
    """The way back: what the library removes is removed there as well, and is read from there."""
    model = switched(trained(True, False, False), False, add_dummy_prefix, True)
    (tmp_path / "tokenizer.model").write_bytes(model)
    keys = read_sentencepiece(tmp_path / "tokenizer.model").keys(500)
    tokens, types = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    data = sentencepiece_json(Model(keys), tokens, types)
    data["model"]["vocab"] = {token: id for id, token in enumerate(tokens)}
    tokenizer = Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], **data}))
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in TEXTS:
        if "\u2581" not in text and "<" not in text:
            assert tokenizer.encode(text).ids == library.encode(text), text
    vocabulary = sentencepiece_from_json("tokenizer.json", data, tokens, types, [
        tuple(merge) for merge in data["model"]["merges"]], {"<unk>", "<s>", "</s>"})
    assert (vocabulary.remove_spaces, vocabulary.add_space) == (True, add_dummy_prefix)


def folder_without_ends(folder, trained):
    """A Llama as `transformers` saves it, its tokenizer trained without BOS and EOS."""
    LlamaForCausalLM(LlamaConfig(vocab_size=500, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                                 num_attention_heads=2)).save_pretrained(folder)
    (folder / "tokenizer.model").write_bytes(trained(True, True, False))
    return folder


def test_exported_without_ends(trained, tmp_path):
    """The 1 and 2 that `transformers` writes for any Llama are left out, and that is told."""
    folder = folder_without_ends(tmp_path / "folder", trained)
    outcome = export(folder, "-o", tmp_path / "out.gguf")
    assert outcome.status == 0, outcome
    keys = read_gguf(tmp_path / "out.gguf").keys
    assert not {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"} & keys.keys()
    assert keys["tokenizer.ggml.add_bos_token"].value is False
    assert "bos_token_id is 1" in outcome.stderr and "eos_token_id is 2" in outcome.stderr


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_what_added_tokens_ask_of_the_text(flag, special, trained, tmp_path):
    """There is no place for that in GGUF: it is told, whichever file says so."""
    folder = folder_without_ends(tmp_path / "folder", trained)
    token = {"content": "<mark>", "special": special, flag: True}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"499": token}}))
    assert "'<mark>'" in export(folder, "-o", tmp_path / "out.gguf").stderr
    (folder / "tokenizer_config.json").unlink()
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": [token | {"id": 499}],
                                                       "model": {"byte_fallback": True}}))
    assert "'<mark>'" in export(folder, "-o", tmp_path / "out.gguf").stderr


# ---------------------------------------------------------------------------- token types


def with_types(keys, types):
    """The keys of a vocabulary whose tokens are all of one type; None: which has no types."""
    keys = {**keys, "tokenizer.ggml.token_type": [types] * len(keys["tokenizer.ggml.tokens"])}
    return {key: value for key, value in keys.items() if types or not key.endswith("token_type")}


@pytest.mark.parametrize("types", [NORMAL, USER, None])
def test_types_that_tell_nothing_of_sentencepiece(types, trained, ids, tmp_path):
    model = trained(True, False, False)
    (tmp_path / "tokenizer.model").write_bytes(model)
    library = sentencepiece.SentencePieceProcessor(model_proto=model)
    keys = read_sentencepiece(tmp_path / "tokenizer.model").keys(500)
    path = write_keys(tmp_path / "vocabulary.gguf", with_types(keys, types))
    for text in [*TEXTS, random_text(random.Random(4), 500)]:
        assert ids(path, text) == library.encode(text), text
    assert ids(path, "<s>for</s>", "--special") == library.encode("for", add_bos=True, add_eos=True)


def byte_level_keys(tokenizer):
    model = json.loads(tokenizer.to_str())["model"]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": sorted(model["vocab"], key=model["vocab"].get),
            "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]]}


@pytest.mark.parametrize("types", [NORMAL, USER, None])
def test_types_that_tell_nothing_of_byte_level_bpe(types, ids, tmp_path):
    tokenizer = train_byte_level("gpt-2")
    path = write_keys(tmp_path / "vocabulary.gguf", with_types(byte_level_keys(tokenizer), types))
    texts = [text for text in WORDS if "<|" not in text]
    for text in [*texts, random_text(random.Random(5), 500)]:
        assert ids(path, text) == tokenizer.encode(text).ids, text
    text = "for<|end|> the<|begin|>"
    assert ids(path, text, "--special") == tokenizer.encode(text).ids
    assert not {0, 1} & set(ids(path, text))            # which are <|begin|> and <|end|>


# ---------------------------------------------------------------------------- what is said of a vocabulary


def remarks(outcome):
    assert outcome.status == 0, outcome
    return [line for line in outcome.stderr.splitlines() if line.startswith("run: ")]


def test_two_bos(models, run):
    """Where the text brings one with it, as llama.cpp warns; not where a letter is all that it looks like."""
    model = models / "heads.gguf"
    for options, n in (["-i", "<s>a", "--special"], 1), (["-i", "<s>a"], 0), (["-i", "a<s>", "--special"], 0):
        assert len(remarks(run(model, *options, "-n", 1))) == n
    assert "BOS" in remarks(run(model, "-i", "<s><s>a", "--special", "-n", 1, "-q"))[0]
    assert remarks(run(model, "-m", "tokenize", "-i", "<s>a", "--special")) == []
    assert remarks(run(model, "-i", "<s>a", "--special", "-n", 1, "--trace=json")) == []


def test_ids_that_no_token_has(models, run, tmp_path):
    """They are left out and told, as by llama.cpp; those of none are in order."""
    for role, id, n in ("bos", 100000, 1), ("eos", 100000, 1), ("eot", 100000, 1), ("padding", 100000, 0), \
            ("unknown", 2**32 - 1, 0), ("eot", 2**32 - 1, 0), ("bos", 2**32 - 1, 0):
        key = f"tokenizer.ggml.{role}_token_id"
        model = read_gguf(models / "heads.gguf")
        model.keys[key] = id
        write_gguf(tmp_path / "model.gguf", model, None)
        lines = remarks(run(tmp_path / "model.gguf", "-i", "a", "-n", 1))
        assert len(lines) == n and all(key in line and str(id) in line for line in lines)


def test_how_words_are_cut_is_not_said(ids, run, tmp_path):
    tokenizer = train_byte_level("gpt-2")
    keys = byte_level_keys(tokenizer)
    path = write_keys(tmp_path / "named.gguf", keys)
    assert remarks(run(path, "-m", "tokenize", "-i", "a")) == []
    del keys["tokenizer.ggml.pre"]
    path = write_keys(tmp_path / "unnamed.gguf", keys)
    [line] = remarks(run(path, "-m", "tokenize", "-i", "a"))
    assert "tokenizer.ggml.pre" in line
    assert run(path, "-m", "tokenize", "-i", "a").stdout == b"%d\n" % tokenizer.token_to_id("a")
