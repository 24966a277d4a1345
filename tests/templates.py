"""templates.py - what test_templates.py compares with: for every family of chat templates a Jinja template of
our own that renders what the published one does, and a small tokenizer of the kind that its models have, both
for Hugging Face's `transformers` and as a GGUF file.

The rules are those of the tokenizer_config.json of Llama-2-7b-chat, Meta-Llama-3-8B-Instruct, OpenHermes-2.5
(ChatML), gemma-3-1b-it, Phi-3-mini-4k-instruct, zephyr-7b-beta, DeepSeek-R1, deepseek-llm-7b-chat and
Mistral-7B-Instruct v0.1 (as of 2024-09), v0.3 and Nemo. Gemma 1 and 2 have no system prompt; Gemma 3 puts it
before the first message.
"""

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path

import gguf
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        trainers)
from transformers import PreTrainedTokenizerFast

from convert.patterns import PATTERNS

ROOT = Path(__file__).resolve().parent.parent
BAR, LOW = "\uff5c", "\u2581"                           # in DeepSeek's marks

# ---------------------------------------------------------------------------- templates


def template(user, assistant, system="", begin="", generate=""):
    """system: said of the first message where it has that role. s: its text, in the other parts."""
    return (r"{% set s = messages[0].content if messages[0].role == 'system' else none %}" + begin +
            r"{% for m in messages %}{% set t = m.content %}"
            r"{% if m.role == 'system' %}" + system + r"{% elif m.role == 'user' %}" + user +
            r"{% else %}" + assistant + r"{% endif %}{% endfor %}"
            r"{% if add_generation_prompt %}" + generate + r"{% endif %}")


TEMPLATES = {
    "llama2": template(
        user=r"{% set f = '<<SYS>>\n' ~ s ~ '\n<</SYS>>\n\n' if s is not none and loop.index0 == 1 else '' %}"
             r"{{ bos_token ~ '[INST] ' ~ (f ~ t).strip() ~ ' [/INST]' }}",
        assistant=r"{{ ' ' ~ t.strip() ~ ' ' ~ eos_token }}"),
    "llama3": template(
        begin=r"{{ bos_token }}",
        system=r"{{ '<|start_header_id|>system<|end_header_id|>\n\n' ~ t.strip() ~ '<|eot_id|>' }}",
        user=r"{{ '<|start_header_id|>user<|end_header_id|>\n\n' ~ t.strip() ~ '<|eot_id|>' }}",
        assistant=r"{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' ~ t.strip() ~ '<|eot_id|>' }}",
        generate=r"{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"),
    "chatml": template(
        system=r"{{ '<|im_start|>system\n' ~ t ~ '<|im_end|>\n' }}",
        user=r"{{ '<|im_start|>user\n' ~ t ~ '<|im_end|>\n' }}",
        assistant=r"{{ '<|im_start|>assistant\n' ~ t ~ '<|im_end|>\n' }}",
        generate=r"{{ '<|im_start|>assistant\n' }}"),
    "gemma": template(
        begin=r"{{ bos_token }}",
        user=r"{{ '<start_of_turn>user\n' ~ (s ~ '\n\n' if s is not none and loop.index0 == 1 else '')"
             r" ~ t.strip() ~ '<end_of_turn>\n' }}",
        assistant=r"{{ '<start_of_turn>model\n' ~ t.strip() ~ '<end_of_turn>\n' }}",
        generate=r"{{ '<start_of_turn>model\n' }}"),
    "phi3": template(
        system=r"{{ '<|system|>\n' ~ t ~ '<|end|>\n' }}",
        user=r"{{ '<|user|>\n' ~ t ~ '<|end|>\n' }}",
        assistant=r"{{ '<|assistant|>\n' ~ t ~ '<|end|>\n' }}",
        generate=r"{{ '<|assistant|>\n' }}"),
    "zephyr": template(
        system=r"{{ '<|system|>\n' ~ t ~ eos_token ~ '\n' }}",
        user=r"{{ '<|user|>\n' ~ t ~ eos_token ~ '\n' }}",
        assistant=r"{{ '<|assistant|>\n' ~ t ~ eos_token ~ '\n' }}",
        generate=r"{{ '<|assistant|>\n' }}"),
    "deepseek": template(
        begin=r"{{ bos_token }}",
        system=r"{{ t }}",
        user=r"{{ '<" + BAR + "User" + BAR + r">' ~ t }}",
        assistant=r"{{ '<" + BAR + "Assistant" + BAR + r">' ~ t.split('</think>')[-1] ~ eos_token }}",
        generate=r"{{ '<" + BAR + "Assistant" + BAR + r">' }}"),
    "deepseek-llm": template(
        begin=r"{{ bos_token }}",
        system=r"{{ t ~ '\n\n' }}",
        user=r"{{ 'User: ' ~ t ~ '\n\n' }}",
        assistant=r"{{ 'Assistant: ' ~ t ~ eos_token }}",
        generate=r"{{ 'Assistant:' }}"),
    "mistral-v1": template(
        begin=r"{% set system_message = s %}{{ bos_token }}",
        user=r"{{ ' [INST] ' ~ (system_message ~ '\n\n' if s is not none and loop.index0 == 1 else '') ~ t ~"
             r" ' [/INST]' }}",
        assistant=r"{{ ' ' ~ t ~ eos_token }}"),
    "mistral-v3": template(
        begin=r'{{ bos_token }}{% if tools %}{{ "[AVAILABLE_TOOLS] " ~ tools }}{% endif %}',
        user=r'{{ "[INST] " ~ (s ~ "\n\n" if s is not none and loop.last else "") ~ t ~ "[/INST]" }}',
        assistant=r'{{ " " ~ t.strip() ~ eos_token }}'),
    "mistral-tekken": template(
        begin=r'{{ bos_token }}{% if tools %}{{ "[AVAILABLE_TOOLS]" ~ tools }}{% endif %}',
        user=r'{{ "[INST]" ~ (s ~ "\n\n" if s is not none and loop.last else "") ~ t ~ "[/INST]" }}',
        assistant=r'{{ t ~ eos_token }}'),
}

# Mistral-7B-Instruct before there was a system prompt: in tokens the same.
OLD_MISTRAL = template(begin=r"{{ bos_token }}", user=r"{{ '[INST] ' ~ t ~ ' [/INST]' }}",
                       assistant=r"{{ t ~ eos_token }}")


@dataclass
class Family:
    """How the models that use a template tokenize."""

    cutter: str = None          # of byte-level BPE; None: SentencePiece
    bos: str = "<s>"
    eos: str = "</s>"
    space: str = "all"          # before which texts SentencePiece puts a space: "all", the "first", "none"
    marks: list = field(default_factory=list)           # control tokens
    plain: list = field(default_factory=list)           # tokens that are found in any text
    swallows: bool = False      # the marks take the blanks that follow them
    lead: str = ""              # what stands before a reply, and is its first token's


SENTENCE = "<" + BAR + "{}" + LOW + "of" + LOW + "sentence" + BAR + ">"
FAMILIES = {
    "llama2": Family(lead=" "),
    "llama3": Family("llama-bpe", "<|begin_of_text|>", "<|eot_id|>",
                     marks=["<|start_header_id|>", "<|end_header_id|>"]),
    "chatml": Family("qwen2", None, "<|im_end|>", marks=["<|im_start|>"]),
    "gemma": Family(None, "<bos>", "<eos>", "none", ["<start_of_turn>", "<end_of_turn>"]),
    "phi3": Family(marks=["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"], swallows=True),
    "zephyr": Family(),
    "deepseek": Family("deepseek-llm", SENTENCE.format("begin"), SENTENCE.format("end"),
                       marks=[f"<{BAR}User{BAR}>", f"<{BAR}Assistant{BAR}>"], plain=["<think>", "</think>"]),
    "deepseek-llm": Family("deepseek-llm", SENTENCE.format("begin"), SENTENCE.format("end"), lead=" "),
    "mistral-v1": Family(space="first", lead=" "),
    "mistral-v3": Family(space="first", lead=" ", marks=["[INST]", "[/INST]", "[AVAILABLE_TOOLS]"]),
    "mistral-tekken": Family("tekken", marks=["[INST]", "[/INST]", "[AVAILABLE_TOOLS]"]),
}
assert FAMILIES.keys() == TEMPLATES.keys()

# ---------------------------------------------------------------------------- tokenizers


def corpus():
    return [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*.[ch]"))]


@functools.cache
def sentence_pieces():
    """What SentencePiece calls BPE: pieces, the earlier the better. No piece reaches over a space, except for
    rows of spaces, as in Llama's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace("\n", " ")           # a newline is spelled as a byte
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=LOW, prepend_scheme="never")
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=900, show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    merged = ["".join(merge) for merge in model["merges"]]
    letters = sorted(set(model["vocab"]) - set(merged))
    return [LOW * 2, LOW * 4, LOW * 8, *dict.fromkeys(merged), *letters]


def sentence_tokenizer(family):
    """Of Hugging Face's kind: every pair of pieces that makes a piece is a merge, in the pieces' order."""
    special = ["<unk>", family.bos, family.eos]
    tokens = special + [f"<0x{byte:02X}>" for byte in range(256)] + sentence_pieces()
    vocabulary = {token: id for id, token in enumerate(tokens)}
    merges = [(piece[:i], piece[i:]) for piece in sentence_pieces() for i in range(1, len(piece))
              if piece[:i] in vocabulary and piece[i:] in vocabulary]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True,
                                     byte_fallback=True))
    if family.space == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=LOW, prepend_scheme="first",
                                                           split=False)
    else:
        before = [normalizers.Prepend(LOW)] if family.space == "all" else []
        tokenizer.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", LOW)])
    return tokenizer, special


@functools.cache
def byte_level_model(cutter):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = byte_level_cuts(cutter)
    trainer = trainers.BpeTrainer(vocab_size=900, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus(), trainer)
    return json.loads(tokenizer.to_str())["model"]


def byte_level_cuts(cutter):
    cut = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PATTERNS[cutter]]
    return pre_tokenizers.Sequence([*cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def byte_level_tokenizer(family):
    model = byte_level_model(family.cutter)
    tokenizer = Tokenizer(models.BPE(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]],
                                     ignore_merges=family.cutter in ("llama-bpe", "tekken")))
    tokenizer.pre_tokenizer = byte_level_cuts(family.cutter)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, [token for token in (family.bos, family.eos) if token]


@functools.cache
def tokenizer_of(name):
    """A tokenizer of `transformers`, with the family's template."""
    family = FAMILIES[name]
    tokenizer, special = (byte_level_tokenizer if family.cutter else sentence_tokenizer)(family)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    tokenizer.add_special_tokens([AddedToken(mark, normalized=False, rstrip=family.swallows)
                                  for mark in family.marks])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in family.plain])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=family.bos, eos_token=family.eos,
                                   unk_token=None if family.cutter else "<unk>",
                                   chat_template=TEMPLATES[name])


# ---------------------------------------------------------------------------- the same as GGUF


def kind_of(family, token):
    T = gguf.TokenType
    if token in family.plain:
        return T.USER_DEFINED
    if token in (family.bos, family.eos, *family.marks):
        return T.CONTROL
    if not family.cutter and token == "<unk>":
        return T.UNKNOWN
    return T.BYTE if not family.cutter and token.startswith("<0x") else T.NORMAL


def write_vocabulary(path, name, chat_template=None):
    family, tokenizer = FAMILIES[name], tokenizer_of(name)
    ids = tokenizer.get_vocab()
    tokens = sorted(ids, key=ids.get)
    assert [ids[token] for token in tokens] == list(range(len(tokens)))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2" if family.cutter else "llama")
    writer.add_token_list(tokens)
    writer.add_token_types([kind_of(family, token) for token in tokens])
    if family.cutter:
        writer.add_tokenizer_pre(family.cutter)
        writer.add_token_merges([" ".join(pair) for pair in byte_level_model(family.cutter)["merges"]])
    else:
        rank = {piece: -float(i) for i, piece in enumerate(sentence_pieces())}
        writer.add_token_scores([rank.get(token, 0.0) for token in tokens])
        writer.add_add_space_prefix(family.space != "none")
    if family.bos:
        writer.add_bos_token_id(ids[family.bos])
    writer.add_eos_token_id(ids[family.eos])
    writer.add_chat_template(chat_template or TEMPLATES[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
