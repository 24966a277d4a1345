"""test_published.py - by every template in published.py a conversation has the ids that `transformers`
renders, or one line says that it is not understood, and names --template.
"""

import re

import gguf
import pytest
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

import make_models
import templates
from make_models import KINDS
from published import BAR, READ, SAID

MARKS = ["<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
         "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "<start_of_turn>", "<end_of_turn>",
         "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", f"<{BAR}User{BAR}>", f"<{BAR}Assistant{BAR}>",
         "<think>", "</think>"]
FAMILY = templates.Family("qwen2", "<s>", "</s>", marks=MARKS)
SYSTEM = "You are a patient teacher.\n Answer in one sentence."
TURNS = [("Why is the sky blue?", "Air scatters blue light most."),
         ("  and the\n sea\t ", "It mirrors it {}."), ("你好 {{ x }}", "Привет, ½"), ("42!", "")]


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer, special = templates.byte_level_tokenizer(FAMILY)
    tokenizer.add_special_tokens([*special, *MARKS])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def write(tokenizer):
    """write(path, template): the tokenizer as a GGUF file, with this template."""
    ids = tokenizer.get_vocab()
    tokens = sorted(ids, key=ids.get)

    def write(path, template):
        T = gguf.TokenType
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list(tokens)
        writer.add_token_types([T.CONTROL if t in ("<s>", "</s>", *MARKS) else T.NORMAL for t in tokens])
        writer.add_token_merges([" ".join(pair) for pair in templates.byte_level_model("qwen2")["merges"]])
        writer.add_bos_token_id(ids["<s>"])
        writer.add_eos_token_id(ids["</s>"])
        writer.add_chat_template(template)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        return path

    return write


def messages_of(system, turns):
    messages = [{"role": "system", "content": system}] if system else []
    for user, reply in turns:
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": reply}]
    return messages[:-1]


def rendered(tokenizer, template, system, turns):
    """The ids by transformers, and those of each reply in them. A blank that stands before a reply, and not
    before one that is to be written, is the reply's."""
    def text_of(system, turns):
        return tokenizer.apply_chat_template(messages_of(system, turns), chat_template=template,
                                             tokenize=False, add_generation_prompt=True)

    text, plain, alone = text_of(system, turns), text_of("", turns), text_of("", turns[:1])
    encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    reply = plain.find(turns[0][1], len(alone.rstrip()))
    lead = plain[len(alone):reply] if plain.startswith(alone) and len(turns) > 1 else ""
    at, replies = 0, []
    for user, reply in turns[:-1]:
        at = text.index(reply, text.index(user.strip(), at) + len(user.strip()))
        end = at + len(reply)
        replies.append([id for id, (begin, _) in zip(encoding.ids, encoding.offsets)
                        if at - len(lead) <= begin < end])
        at = end
    return encoding.ids, replies


@pytest.mark.parametrize("name", READ)
def test_read(name, tokenizer, write, chat_ids, tmp_path):
    path = write(tmp_path / "vocabulary.gguf", READ[name])
    for system in ("", SYSTEM, "  a quagga\n "):
        for turns in (TURNS[:1], TURNS[:2], TURNS):
            try:
                want, replies = rendered(tokenizer, READ[name], system, turns)
            except TemplateError:
                assert system, "it refuses a plain conversation"
                continue
            if system.strip() not in tokenizer.decode(want):
                continue                                # it leaves the system prompt out
            got = chat_ids(path, None, system, [(user, ids) for (user, _), ids in zip(turns, [*replies, []])])
            assert tokenizer.decode(got) == tokenizer.decode(want)
            assert got == want


@pytest.mark.parametrize("name", READ)
def test_nothing_is_said_of_what_is_read(name, run, tmp_path):
    """But where a system prompt is given to a template without a place for one."""
    path, kind = tmp_path / "model.gguf", KINDS["mqa-tied"]
    make_models.write_gguf(path, kind, make_models.arrays_of(kind), {"tokenizer.chat_template": READ[name]})
    outcome = run(path, "-m", "chat", "-n", 1, "-q", stdin=b"a\n")
    assert (outcome.status, outcome.stderr) == (0, "")


@pytest.mark.parametrize("name", SAID)
def test_said(name, run, tmp_path):
    path, kind = tmp_path / "model.gguf", KINDS["mqa-tied"]
    make_models.write_gguf(path, kind, make_models.arrays_of(kind), {"tokenizer.chat_template": SAID[name]})
    outcome = run(path, "-m", "chat", "-n", 1, "-q", stdin=b"a\n")
    assert outcome.status == 0
    assert re.fullmatch("run: the chat template .*chatml.*--template\n", outcome.stderr)
    outcome = run(path, "-m", "chat", "-n", 1, "-q", "--template", "chatml", stdin=b"a\n")
    assert (outcome.status, outcome.stderr) == (0, ""), "who has named one knows"
