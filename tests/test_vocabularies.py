"""test_vocabularies.py - what a vocabulary says of its tokens and of texts: SentencePiece's switches in every
combination, ids equal to the library's; and token types and ids that are not as they should be.
"""

import io
import itertools
import random

import gguf
import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from conftest import ROOT
from hub_models import TEXT
from test_words import random_text

from convert.gguf_files import add_keys
from convert.model import Model
from convert.vocabulary import NORMAL, UNUSED, read_sentencepiece


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
USER = ["<sep>", "<sep>>", "\u2581\u2581\u2581", "int"]
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
                normalization_rule_name="identity", user_defined_symbols=USER if user else [], minloglevel=2,
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
