"""test_words.py - byte-level BPE in every way to cut words: ids equal those of Hugging Face's `tokenizers`.

For each way a vocabulary is trained on the spot, on this repository's own texts, and written as GGUF; then
both tokenize texts in many scripts, and thousands of random strings over all planes of Unicode.
"""

import json
import random
from pathlib import Path

import gguf
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from convert.patterns import PATTERNS

ROOT = Path(__file__).resolve().parent.parent
IGNORE_MERGES = {"llama-bpe", "tekken"}

TEXTS = [
    "Once upon a time, there was a girl named Lily. She'd loved it; they'LL've 3 cats, 12345 dogs!\n\n\n",
    "  leading,   inner   and trailing spaces   ", "\ttabs\t\tand\r\nline ends \n \n\n x",
    "a\u00a0b\u3000c\u2028d",
    "Zoë's café — ¡hola! 你好，世界。 こんにちは 안녕하세요 Привет, Мир! Γειά σου ǅungla ʰello",
    "नमस्ते दुनिया สวัสดี שלום مرحبا ١٢٣ ½ ⅷ 🦙👩‍👩‍👧 e\u0301 \u0301x",
    "if (x != 3.14e-10) { return f[0]->y << 2; } // $5 + 1 < 6 ~ a|b", "'s 'S 'ſ 'tis 're'RE i'm I'M 'll",
    "1 12 123 1234 12345 1,234.5", "HELLOWorld helloWORLD ÀÉîõÜ/\n/path/to\n",
    "", " ", "\n", "'", "a" * 300, " " * 300 + "x", "\n" * 100, "ab" * 200, "<|special|> <|end|>",
]


def random_text(source, n):
    """Half of it what the patterns look at, half anything."""
    hot = ("  \n\r\t'sStTrReEvVmMlLdD'ſ0123456789aAbBéÉǅʰª中가。，!?/.-_$+<=>^~| "
           "\u0301\u0300\u3000\u00a0\u2028\u0660\u00bd")

    def one():
        code = source.randrange(0x3000) if source.random() < 0.5 else source.randrange(0x110000)
        return one() if 0xD800 <= code < 0xE000 else chr(code)

    return "".join(source.choice(hot) if source.random() < 0.6 else one() for _ in range(n))


def trained(name):
    tokenizer = Tokenizer(models.BPE(ignore_merges=name in IGNORE_MERGES))
    cut = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PATTERNS[name]]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=900, show_progress=False,
                                  special_tokens=["<|special|>", "<|end|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    texts = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*.[ch]"))]
    tokenizer.train_from_iterator(texts + TEXTS, trainer)
    return tokenizer


def write_vocabulary(path, tokenizer, name):
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") and token.endswith("|>") else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


@pytest.fixture(scope="module", params=PATTERNS)
def pair(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / f"{request.param}.gguf"
    tokenizer = trained(request.param)
    write_vocabulary(path, tokenizer, request.param)
    return path, tokenizer


@pytest.fixture
def ids(run, tmp_path):
    def ids(path, text, *options):
        (tmp_path / "text").write_bytes(text.encode())
        outcome = run(path, "-m", "tokenize", "-f", tmp_path / "text", *options)
        assert outcome.status == 0, outcome
        return [int(id) for id in outcome.stdout.split()]
    return ids


def expected(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def test_texts(pair, ids):
    path, tokenizer = pair
    for text in TEXTS:
        if "<|" not in text:
            assert ids(path, text) == expected(tokenizer, text), text


def test_random_strings(pair, ids):
    """5,000 strings of 20 characters, 100 of them at a time; and each text comes back from its ids."""
    path, tokenizer = pair
    source = random.Random(1)
    for _ in range(50):
        text = random_text(source, 2000)
        got = ids(path, text)
        assert got == expected(tokenizer, text)
        assert tokenizer.decode(got, skip_special_tokens=False) == text


def test_a_megabyte(pair, ids):
    path, tokenizer = pair
    text = "".join(TEXTS[:10]) + random_text(random.Random(2), 1000)
    text *= 2**20 // len(text.encode())
    assert ids(path, text) == expected(tokenizer, text)


def test_control_tokens_where_asked(pair, ids):
    """With --special as `tokenizers` has it; without, their letters."""
    path, tokenizer = pair
    text = "a<|special|> b<|end|><|end"
    assert ids(path, text, "--special") == expected(tokenizer, text)
    special = {tokenizer.token_to_id("<|special|>"), tokenizer.token_to_id("<|end|>")}
    plain = ids(path, text)
    assert not special & set(plain)
    assert tokenizer.decode(plain, skip_special_tokens=False) == text


def test_an_unknown_way_is_refused(run, tmp_path):
    path = tmp_path / "model.gguf"
    write_vocabulary(path, trained("gpt-2"), "no-such-way")
    run(path, "-m", "tokenize", "-i", "a").check_refused(1, path, "no-such-way", *PATTERNS)
