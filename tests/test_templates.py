"""test_templates.py - what chat.c makes of a conversation equals, token for token, what `transformers` does
with templates.py's templates; and a file's template is recognised.
"""

import json

import pytest

import make_models
import templates
from make_models import KINDS
from templates import FAMILIES, OLD_MISTRAL, TEMPLATES

SYSTEM = "You are a patient teacher.\nAnswer in one sentence."
LONG = " ".join(f"{n} bottles of {'beer' if n % 3 else 'wine'} on the wall;" for n in range(99, 0, -1))
TURNS = [("Why is the sky blue?", "Air scatters blue light most."),
         ("First line.\nSecond line,\n\n  indented.\n\tAnd a tab.", "One.\n\n  Two,\n\nand three"),
         ("¿Qué? 你好，世界! Привет… e\u0301", "¡Ja! здравствуй 世界 ½"),
         ("🦙👩‍👩‍👧 x", "🦙 Zoë's café"),
         (LONG, LONG[:500])]
ORDERS = {"plain": [0, 1, 2, 3, 4], "newlines": [1, 0, 3, 2, 4], "letters": [2, 4, 0, 1, 3],
          "emoji": [3, 2, 4, 1, 0], "long": [4, 3, 1, 0, 2]}


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    """family -> its GGUF file, the template inside."""
    folder = tmp_path_factory.mktemp("vocabularies")
    paths = {name: folder / f"{name}.gguf" for name in FAMILIES}
    for name, path in paths.items():
        templates.write_vocabulary(path, name)
    return paths


# ---------------------------------------------------------------------------- prompts equal transformers'

def messages_of(system, turns):
    """The conversation up to the last turn's message."""
    messages = [{"role": "system", "content": system}] if system else []
    for user, reply in turns:
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": reply}]
    return messages[:-1]


def rendered(name, system, turns):
    """By transformers: the ids; and the ids of each reply, as they stand in them."""
    tokenizer, family = templates.tokenizer_of(name), FAMILIES[name]
    messages = messages_of(system, turns)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    encoding = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    assert encoding.ids == ids
    replies, at = [], 0
    for user, reply in turns[:-1]:
        at = text.index(family.lead + reply, text.index(user.strip(), at) + len(user.strip()))
        end = at + len(family.lead + reply)
        replies.append([id for id, (begin, _) in zip(encoding.ids, encoding.offsets) if at <= begin < end])
        at = end
    return ids, replies


def readable(name, ids):
    return templates.tokenizer_of(name).convert_ids_to_tokens(ids)


def check_prompt(name, path, chat_ids, system, turns):
    want, replies = rendered(name, system, turns)
    got = chat_ids(path, None, system, [(user, ids) for (user, _), ids in zip(turns, [*replies, []])])
    assert readable(name, got) == readable(name, want)
    assert got == want


@pytest.mark.parametrize("with_system", [False, True])
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("name", FAMILIES)
def test_prompt(name, n, with_system, vocabularies, chat_ids):
    for order in ORDERS.values():
        turns = [TURNS[i] for i in order[:n]]
        check_prompt(name, vocabularies[name], chat_ids, SYSTEM if with_system else "", turns)


BLANKS = [" a", "a  ", "  \n a\t\n", "\n\na\n", "\u00a0a\u3000", "        a", " "]


BLANKS = [" a", "a  ", "  \n a\t\n", "\n\na\n", "\u00a0a\u3000", "        a", " "]


@pytest.mark.parametrize("name", FAMILIES)
def test_blanks_around_a_message(name, vocabularies, chat_ids):
    for blank in BLANKS:
        check_prompt(name, vocabularies[name], chat_ids, "", [(blank, "yes"), ("b" + blank, "no")])


@pytest.mark.parametrize("name", FAMILIES)
def test_blanks_around_the_system_prompt(name, vocabularies, chat_ids):
    for blank in BLANKS:
        check_prompt(name, vocabularies[name], chat_ids, blank, [("b", "yes"), ("c", "no")])


@pytest.mark.parametrize("name", FAMILIES)
def test_blanks_around_both(name, vocabularies, chat_ids):
    """But for Llama 2, whose blanks after the system prompt go too where no message follows them."""
    for blank in BLANKS if name != "llama2" else []:
        check_prompt(name, vocabularies[name], chat_ids, blank, [(blank, "yes"), (blank, "no")])


@pytest.mark.parametrize("name", FAMILIES)
def test_blanks_to_python(name, vocabularies, chat_ids):
    """U+001C to U+001F: to Jinja they are blanks, to a tokenizer's regular expressions they are not."""
    check_prompt(name, vocabularies[name], chat_ids, "", [("\x1fa\x1c", "yes"), ("\x1d\x1e\x1f ", "no")])


def test_thoughts_are_forgotten(vocabularies, chat_ids):
    """Of a DeepSeek reply what stands before </think>. A user may write it, and it is no control token."""
    tokenizer = templates.tokenizer_of("deepseek")
    turns = [("Why?", "\n\nSo."), ("<think> a </think>", "\n\nYes."), ("c", "")]
    want, replies = rendered("deepseek", "", turns)
    thought = tokenizer.encode("<think>\nhm </think> hm\n</think>", add_special_tokens=False)
    said = [("Why?", thought + replies[0]), ("<think> a </think>", thought + replies[1]), ("c", [])]
    got = chat_ids(vocabularies["deepseek"], None, "", said)
    assert readable("deepseek", got) == readable("deepseek", want)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_message_does_not_speak_for_the_program(name, vocabularies, chat_ids):
    """The one wanted difference: the name of a control token in a message or a system prompt is letters."""
    tokenizer, family = templates.tokenizer_of(name), FAMILIES[name]
    control = [token for token in (family.bos, family.eos, *family.marks) if token]
    numbers = set(tokenizer.convert_tokens_to_ids(control))

    def controls(system, message):
        ids = chat_ids(vocabularies[name], None, system, [(message, []), (message, [])])
        return [id for id in ids if id in numbers], ids

    want, _ = controls("s", "m")
    for token in control:
        assert numbers & set(tokenizer.encode(f"a{token}b", add_special_tokens=False)), "transformers' it is"
        for text in (token, f"a{token}b", f" {token} ", token * 3, token[:-1]):
            got, ids = controls(text, text)
            assert got == want, f"{text!r}: {readable(name, ids)}"


# ---------------------------------------------------------------------------- whose template is it?

@pytest.mark.parametrize("name", [*TEMPLATES, "old mistral"])
def test_recognition(name, models, run, tmp_path):
    """By info, and by chat, which then says the same as with the family's name."""
    path, kind = tmp_path / "model.gguf", KINDS["mqa-tied"]
    text, family = TEMPLATES.get(name, OLD_MISTRAL), name if name in TEMPLATES else "mistral-v1"
    make_models.write_gguf(path, kind, make_models.arrays_of(kind), {"tokenizer.chat_template": text})
    report = run(path, "-m", "info", "--json")
    assert json.loads(report.stdout).get("chat") == family
    options = "-m", "chat", "-t", 0, "-n", 3, "-i", "a b", "-y", "s"
    outcomes = [run(path, *options), run(path, *options, "--template", family),
                run(models / "mqa-tied.gguf", *options, "--template", family)]
    assert len({(o.status, o.stdout, o.statistic("hash")) for o in outcomes}) == 1, outcomes


@pytest.mark.parametrize("text", [None, "", "{{ messages[0].content }}", "### {{ messages[0].content }}"])
def test_no_template(text, run, tmp_path):
    path, kind = tmp_path / "model.gguf", KINDS["mqa-tied"]
    more = {} if text is None else {"tokenizer.chat_template": text}
    make_models.write_gguf(path, kind, make_models.arrays_of(kind), more)
    run(path, "-m", "chat", stdin=b"a\n").check_refused(1, path, "--template", *TEMPLATES)
    assert "chat" not in json.loads(run(path, "-m", "info", "--json").stdout)
    assert run(path, "-m", "chat", "--template", "chatml", "-n", 1, stdin=b"a\n").status == 0


# Real templates of models that run here, but of no family of ours; shortened to what is different.
STRANGERS = {
    "mistral v7": "{{ '[SYSTEM_PROMPT] ' ~ s ~ '[/SYSTEM_PROMPT]' ~ '[INST] ' ~ t ~ '[/INST]' }}",
    "mistral v7, tools": "{{ '[SYSTEM_PROMPT]' ~ s ~ '[/SYSTEM_PROMPT]' }}{{ \"[AVAILABLE_TOOLS] [\" }}"
                         "{{ '[INST]' ~ t ~ '[/INST]' }}",
    "phi-4": "{{ '<|im_start|>user<|im_sep|>' ~ t ~ '<|im_end|><|im_start|>assistant<|im_sep|>' }}",
}


@pytest.mark.parametrize("name", STRANGERS)
def test_strangers_are_refused(name, run, tmp_path):
    path, kind = tmp_path / "model.gguf", KINDS["mqa-tied"]
    make_models.write_gguf(path, kind, {}, {"tokenizer.chat_template": STRANGERS[name]})
    assert "chat" not in json.loads(run(path, "-m", "info", "--json").stdout)
