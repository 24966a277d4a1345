"""test_chat.py - chat from outside: what the model reads and computes turn by turn, and what happens to
lines, replies, a full context and signals.
"""

import fcntl
import functools
import json
import os
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest

import damage
import make_models
import reference
from conftest import Outcome
from make_models import BOS, EOS, KINDS, VOCABULARY
from templates import FAMILIES, TEMPLATES
from test_reference import EXACT, differences

def test_misuse(models, run):
    model = models / "mqa-tied.gguf"
    for option, value in (("-y", "a"), ("--template", "chatml"), ("--on-full", "stop")):
        for mode in ("generate", "perplexity", "tokenize", "info"):
            run(model, "-m", mode, "-i", "a", option, value).check_refused(2, option, "chat")
        run(model, "-m", "chat", option).check_refused(2, option)
    for name in ("nope", "ChatML", "mistral", "llama2 "):
        run(model, "-m", "chat", "--template", name).check_refused(2, "--template", name, *TEMPLATES)
    run(model, "-m", "chat", "--template", "").check_refused(2, "--template")
    run(model, "-m", "chat", "--on-full", "forget").check_refused(2, "--on-full", "forget", "stop", "shift")
    run(model, "-m", "chat", "--json").check_refused(2, "--json")


# ---------------------------------------------------------------------------- what the model reads

load = functools.cache(reference.load)


class Follower:
    """Follows a chat at temperature 0 by the logits that it has written: a row for each id that is fed. What
    was fed twice, or left out, would leave rows over, or too few. Every row has to be what reference.py makes
    of the whole conversation at once."""

    def __init__(self, model, rows, render, context, limit, shift, ends):
        self.model, self.rows, self.render = model, rows, render
        self.context, self.limit, self.shift, self.ends = context, limit, shift, ends
        self.turns, self.said, self.replies = [], [], []
        self.fed, self.row_of, self.at = [], [], 0      # ids in the cache, the row of each, rows so far
        self.cuts = 0                                   # how often the cache was cut back

    def check(self):
        assert differences(self.rows[self.row_of], reference.logits(self.model, self.fed)).max() <= EXACT

    def feed(self, ids):
        same = 0
        while same < min(len(self.fed), len(ids) - 1) and self.fed[same] == ids[same]:
            same += 1
        if same < len(self.fed):
            self.check()
            self.cuts += 1
        self.row_of = self.row_of[:same] + list(range(self.at, self.at + len(ids) - same))
        self.at += len(ids) - same
        self.fed = ids
        assert self.at <= len(self.rows), f"{len(self.rows)} rows are too few for {len(self.turns)} turns"

    def recall(self):
        """Whole turns are forgotten, the oldest first, until a quarter of the context is free."""
        before, most = len(self.turns), self.context
        shift = self.shift and len(self.render(self.turns[-1:])) <= self.context
        while True:
            ids = self.render(self.turns)
            if len(ids) <= most or not shift or len(self.turns) == 1:
                break
            most = self.context - self.context // 4
            self.turns.pop(0)
        if before > len(self.turns):
            self.said.append((f"oldest {before - len(self.turns)} of {before} turns", f"of {self.context} "))
        return ids

    def hear(self, message):
        reply = []
        self.turns.append((message, reply))
        ids = self.recall()
        if len(ids) > self.context:
            self.said.append((f"takes {len(ids)} tokens", f"holds {self.context}", "left out"))
            self.turns.pop()
            return
        self.replies.append(reply)
        while self.write(ids, reply) == "full":
            ids = self.recall()
            if len(ids) > self.context:
                self.said.append((f"context of {self.context} is full", "-c"))
                return

    def write(self, ids, reply):
        """ids: the conversation, with what the reply has so far."""
        self.feed(ids)
        ids = ids[:len(ids) - len(reply)]
        while len(reply) != self.limit:
            id = int(np.argmax(self.rows[self.at - 1]))
            if id in self.ends:
                break
            reply.append(id)
            if len(reply) == self.limit:
                break
            if len(self.fed) == self.context:
                return "full"
            self.feed(ids + reply)
        return "ended"


def made_text(reply):
    """Of make_models' pieces; a space at the beginning is SentencePiece's."""
    text = b"".join(bytes([id - 3]) if 3 <= id < 259 else VOCABULARY[id].encode() for id in reply)
    return text.removeprefix(b" ")


@pytest.fixture
def talk(run, chat_ids, tmp_path):
    """talk(model, template, messages, options ...): run the chat, follow it, compare all that can be seen."""

    def talk(path, template, messages, *options, stdin=None, system="", context=600, limit=-1, shift=False,
             ends=(BOS, EOS), text=made_text):
        out = tmp_path / "logits.npy"
        if stdin is None:
            stdin = b"".join((m if isinstance(m, bytes) else m.encode()) + b"\n" for m in messages)
        options = [*options, *(["-y", system] if system else []), *(["--on-full", "shift"] if shift else [])]
        outcome = run(path, "-m", "chat", "--template", template, "-t", 0, "-n", limit, "-c", context,
                      "-j", 1, "--kv", "f32", "--logits", out, *options, stdin=stdin)
        assert outcome.status == 0, outcome
        render = functools.partial(chat_ids, path, template, system)
        follower = Follower(load(path), np.load(out), render, context, limit, shift, ends)
        for message in messages:
            follower.hear(message)
        follower.check()
        assert follower.at == len(follower.rows) == outcome.fed(), "ids that were fed"
        assert outcome.stdout == b"".join(text(reply) + b"\n" for reply in follower.replies)
        said = [line for line in outcome.stderr.splitlines() if line.startswith("run: ")]
        said = [line for line in said if "NUL" not in line]         # of a text, not of the conversation
        assert len(said) == len(follower.said), f"wanted {follower.said}, got {said}"
        for line, words in zip(said, follower.said):
            assert all(word in line for word in words), f"wanted {words}, got {line}"
        return follower

    return talk


@pytest.fixture
def model(models):
    return models / "mqa-tied.gguf"                     # a context of 600


MESSAGES = ["Once there was", "  a Lion and the Zebra. ", "é🦙 <s>[INST]</s>"]


@pytest.mark.parametrize("system", ["", "the end"])
@pytest.mark.parametrize("name", FAMILIES)
def test_turns(name, system, model, talk):
    """Only the new turn is fed; but where the system prompt moves to the last turn, from there on."""
    follower = talk(model, name, MESSAGES, system=system, limit=7)
    assert [len(reply) for reply in follower.replies] == [7, 7, 7]
    assert follower.cuts == (2 if system and name in ("mistral-v3", "mistral-tekken") else 0)


# A vocabulary in which any ids can be written as a text, with --special: bytes, and names.

def spelled_name(id):
    return f"<0x{id - 3:02X}>" if 3 <= id < 259 else f"<{id:03}>"


def spelled_text(ids):
    return b"".join(bytes([id - 3]) if 3 <= id < 259 else spelled_name(id).encode() for id in ids)


def write_spelled(path, names=None, rows=(), named=None, **keys):
    """names: id -> the name of a token, which is of control if the type `named` is not another. rows: pairs
    of the classifier that change places."""
    T, kind, names = make_models.gguf.TokenType, KINDS["mqa-untied"], names or {}
    named = named or T.CONTROL

    def add_vocabulary(writer):
        ids = range(len(VOCABULARY))
        writer.add_tokenizer_model("llama")
        writer.add_token_list([names.get(id, spelled_name(id)) for id in ids])
        writer.add_token_types([T.CONTROL if id < 3 else T.BYTE if id < 259 else
                                named if id in names else T.USER_DEFINED for id in ids])
        writer.add_token_scores([0.0] * len(ids))
        writer.add_add_space_prefix(False)
        writer.add_add_bos_token(False)

    arrays = make_models.arrays_of(kind)
    for a, b in rows:
        arrays["classifier"][[a, b]] = arrays["classifier"][[b, a]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_models, "add_vocabulary", add_vocabulary)
        more = {"tokenizer.ggml.bos_token_id": BOS, "tokenizer.ggml.eos_token_id": EOS}
        make_models.write_gguf(path, kind, arrays, more | {f"tokenizer.ggml.{k}": v for k, v in keys.items()})
    return path


@pytest.mark.parametrize("template", ["chatml", "phi3"])
def test_a_vocabulary_that_spells_nothing(template, run, tmp_path):
    """Neither the message nor what stands around it: there is nothing to read, and nothing to go on from."""
    path = tmp_path / "model.gguf"
    texts = ["<unk>", "<s>", "</s>"] + [f"\u4e00{i}" for i in range(damage.N - 3)]
    silent = damage.spells(texts, [1, 3, 3] + [1] * (damage.N - 3))
    path.write_bytes(bytes(silent.pair("tokenizer.ggml.unknown_token_id", None)))
    run(path, "-m", "chat", "--template", template, "-i", "hi").check_refused(1, path, "vocabulary")


@pytest.mark.parametrize("name", ["llama2", "chatml", "zephyr", "mistral-v3"])
def test_the_same_at_once(name, talk, run, tmp_path):
    """The last of the turns, and the whole conversation as one prompt: the same to the bit. Faster kernels
    add up in another order when there are many tokens."""
    path, plain = write_spelled(tmp_path / "model.gguf"), ("--kernels", "portable")
    messages = ["Hello!", "<259>a<300>", "more " * 30]
    follower = talk(path, name, messages, *plain, limit=20, text=spelled_text)
    text, out = tmp_path / "text", tmp_path / "logits.npy"
    text.write_bytes(spelled_text(follower.fed))
    options = path, "--special", "-f", text, *plain
    assert [int(id) for id in run(*options, "-m", "tokenize").stdout.split()] == follower.fed
    assert run(*options, "-n", 0, "--kv", "f32", "--logits", out, "-q").status == 0
    assert np.array_equal(np.load(out), follower.rows), "not the same to the bit"


# ---------------------------------------------------------------------------- where a reply ends

ENDS = {"eos": ("gemma", EOS, {}), "eot": ("gemma", 270, {}), "eom": ("gemma", 270, {}),
        "chatml": ("chatml", 270, {270: "<|im_end|>"}), "gemma": ("gemma", 270, {270: "<end_of_turn>"}),
        "llama3": ("llama3", 270, {270: "<|eot_id|>"}), "phi3": ("phi3", 270, {270: "<|end|>"})}


ODD_ENDS = [(name, "USER_DEFINED") for name in list(ENDS)[3:]]


@pytest.mark.parametrize("name, named", [*((name, "CONTROL") for name in ENDS), *ODD_ENDS])
def test_ends(name, named, talk, tmp_path):
    """The model would write a certain id, and not the end; now the two change places. There are files whose
    marks are USER_DEFINED; llama.cpp says so, and takes them for control tokens."""
    template, end, names = ENDS[name]
    keys = {"named": make_models.gguf.TokenType[named]}
    path = write_spelled(tmp_path / "a.gguf", names, **keys)
    keys |= {f"{name}_token_id": end} if name in ("eot", "eom") else {}
    reply = talk(path, template, ["Hello!"], limit=12, text=spelled_text).replies[0]
    at = next(i for i in range(3, 12) if reply[i] not in reply[:i])
    assert end not in reply
    path = write_spelled(tmp_path / "b.gguf", names, [(end, reply[at])], **keys)
    follower = talk(path, template, ["Hello!", "and more"], limit=12, ends=(EOS, end), text=spelled_text)
    assert follower.replies[0] == reply[:at]


NAMED_ENDS = ["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<EOT>",
              "<|end_of_text|>", "<|end_of_turn|>", "<end_of_utterance>"]


@pytest.mark.parametrize("named", ["CONTROL", "USER_DEFINED"])
@pytest.mark.parametrize("name", NAMED_ENDS)
def test_the_end_of_a_turn_ends_a_text(name, named, run, tmp_path):
    """In -m generate too, by its name, where no key of the file says which token it is. These are the names
    that the models of Meta, Alibaba, Google, Microsoft, Hugging Face and others have for it."""
    def text_of(*more, **keys):
        named_so = make_models.gguf.TokenType[named]
        path = write_spelled(tmp_path / "model.gguf", {270: name}, *more, named=named_so, **keys)
        outcome = run(path, "-t", 0, "-n", 12, "-i", "<260>", "-q", "--logits", tmp_path / "logits.npy")
        assert outcome.status == 0
        return outcome.stdout

    whole = text_of()
    ids = [int(id) for id in np.load(tmp_path / "logits.npy").argmax(axis=1)]
    assert whole == spelled_text([260, *ids]) + b"\n" and 270 not in ids
    at = next(i for i in range(3, 12) if ids[i] not in ids[:i])
    rows, cut = [(270, ids[at])], spelled_text([260, *ids[:at]]) + b"\n"
    assert text_of(rows) == cut
    key = "eom" if name == "<|eom_id|>" else "eot"
    assert text_of(rows, **{f"{key}_token_id": 271}) != cut, "the file's key goes before the name"


def test_n_limits_a_reply(model, talk):
    for limit in (0, 1, 5):
        follower = talk(model, "chatml", MESSAGES, limit=limit)
        assert [len(reply) for reply in follower.replies] == [limit] * 3


# ---------------------------------------------------------------------------- lines

LINES = {
    "empty lines": (b"\n\nab\n\n\ncd\n\n", [b"ab", b"cd"]),
    "CRLF": (b"\r\nab\r\n\r\ncd\r\n", [b"ab", b"cd"]),
    "no line end": (b"ab\ncd", [b"ab", b"cd"]),
    "NUL bytes": (b"a\0b\n\0\n", [b"a\0b", b"\0"]),
    "not UTF-8": (b"\xff\xfe \xc3(\n\xf0\x9f\n", [b"\xff\xfe \xc3(", b"\xf0\x9f"]),
    "blanks": (b"  ab\t\n \n", [b"  ab\t", b" "]),
}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("template", ["chatml", "llama3"])
def test_lines(name, template, model, talk):
    stdin, messages = LINES[name]
    talk(model, template, messages, stdin=stdin, limit=3)


SEVERAL_LINES = {
    "between lines": (b'"""\nab\n\ncd\n"""\nef\n', ["ab\n\ncd", "ef"]),
    "within lines": (b'"""ab\ncd"""\nef\n', ["ab\ncd", "ef"]),
    "one line": (b'"""ab"""\nef\n', ["ab", "ef"]),
    "CR LF": (b'"""\r\nab\r\ncd\r\n"""\r\nef\r\n', ["ab\ncd", "ef"]),
    "no end": (b'ab\n"""cd\nef\n', ["ab", "cd\nef"]),
    "nothing": (b'""""""\n"""\n"""\nab\n', ["ab"]),
    "quotes of other kinds": (b'""ab\ncd"""\n', ['""ab', 'cd"""']),
    "a command among them": (b'"""\nab\n/clear\n"""\nef\n', ["ab\n/clear", "ef"]),
}


@pytest.mark.parametrize("name", SEVERAL_LINES)
def test_a_message_of_several_lines(name, model, talk):
    stdin, messages = SEVERAL_LINES[name]
    talk(model, "chatml", messages, stdin=stdin, limit=3)


def test_clear(model, run, tmp_path):
    """What comes after it is said as at the beginning, the system prompt included. -i is no command."""
    def prompts(stdin, *more):
        outcome = run(model, "-m", "chat", "--template", "chatml", "-t", 0, "-n", 3, "-y", "s",
                      "--trace=json", *more, stdin=stdin)
        assert outcome.status == 0
        heads = [json.loads(line) for line in outcome.stderr.splitlines() if line.startswith('{"file"')]
        return [head["ids"] for head in heads]

    first, second = prompts(b"ab\ncd\n")
    assert prompts(b"ab\n/clear\nab\ncd\n") == [first, first, second]
    assert prompts(b"/clear\nab\n/clear\n/clear\nab\n") == [first, first]
    assert len(prompts(b"ab\n /clear\n/clear \n")) == 3, "messages like any others"
    assert len(prompts(b"", "-i", "/clear")) == 1
    outcome = run(model, "-m", "chat", "--template", "chatml", "-n", 1, "-q", stdin=b"ab\n/clear\n/clear\n")
    assert outcome.stderr == "run: the conversation begins anew\n"


def test_no_message_at_all(model, run):
    for stdin in (b"", b"\n\r\n\n"):
        outcome = run(model, "-m", "chat", "--template", "chatml", "-y", "s", stdin=stdin)
        assert (outcome.status, outcome.stdout, outcome.fed()) == (0, b"", 0)
        outcome.statistic("seed")


def test_the_first_message_on_the_command_line(model, talk, tmp_path):
    (tmp_path / "first").write_bytes(b"two\nlines")
    for options, first in ((["-i", "ab"], "ab"), (["-f", tmp_path / "first"], "two\nlines")):
        talk(model, "chatml", [first, "cd"], *options, stdin=b"cd\n", limit=3, system="s")
        talk(model, "chatml", [first], *options, stdin=b"", limit=3)
    talk(model, "chatml", ["two\nlines"], "-f", "-", stdin=b"two\nlines", limit=3)
    (tmp_path / "first").write_bytes(b"ab\0\0\r\n")
    talk(model, "chatml", ["ab\0\0"], "-f", tmp_path / "first", stdin=b"", limit=3)


def test_a_megabyte_in_a_line(model, talk):
    """Refused by its length, which is told; then the chat goes on where it was."""
    long = b"a bad cab " * 2**17
    follower = talk(model, "chatml", ["ab", long, "cd"], limit=4, system="s")
    assert len(follower.replies) == 2 and follower.cuts == 0
    assert len(follower.said) == 1 and "left out" in follower.said[0]


# ---------------------------------------------------------------------------- a full context

def test_stop_when_full(model, talk):
    """Said, with what helps; and what still waits on standard input is left alone."""
    lines = ["ab", "cd", "never read"]
    stdin = "\n".join(lines).encode()
    follower = talk(model, "zephyr", lines[:2], stdin=stdin, context=105, limit=30)
    assert len(follower.replies[0]) == 30 > len(follower.replies[1])
    assert len(follower.fed) == 105 and follower.cuts == 0
    [said] = follower.said
    assert "full" in said[0]


# A reply that is drawn can end anywhere; these draws fill a context of 60, on every machine.
LONG_REPLY = "-s", 1, "--kernels", "portable"


def test_stop_names_the_way_out(model, run):
    options = model, "-m", "chat", "--template", "zephyr", "-c", 60, "-q", *LONG_REPLY
    for more in ([], ["--on-full", "stop"]):
        outcome = run(*options, *more, stdin=b"ab\ncd\n")
        assert outcome.status == 0
        assert outcome.stderr.count("\n") == 1, outcome.stderr
        assert "context of 60 is full" in outcome.stderr and "--on-full shift" in outcome.stderr


def test_a_first_message_whose_reply_fills_the_context(model, run):
    """It is said of the first message on the command line, too."""
    for more in (["--on-full", "stop"], ["--on-full", "shift"]):
        outcome = run(model, "-m", "chat", "--template", "zephyr", "-c", 60, "-q", "-i", "ab", *LONG_REPLY,
                      *more)
        assert outcome.status == 0
        assert outcome.stderr.count("\n") == 1 and "context of 60 is full" in outcome.stderr, more


SHIFTS = {                                              # context, limit of a reply, messages
    "at a message": (150, 6, ["ab"] * 12),
    "in a reply": (200, 45, ["ab", "the cd", "and ef", "ghi", "k"]),
    "long and short": (160, 5, ["a", "b", "the " * 60, "c", "d", "the " * 50, "and " * 30, "e"]),
    "a reply fills the context alone": (100, -1, ["ab", "cd", "ef"]),
}


@pytest.mark.parametrize("system", ["", "in the end"])
@pytest.mark.parametrize("name", SHIFTS)
@pytest.mark.parametrize("template", ["zephyr", "gemma", "llama2", "mistral-v3"])
def test_shift(template, name, system, model, talk):
    """The oldest turns are gone, whole ones, and the system prompt stays: as reference.py says of the ids
    that are left."""
    context, limit, messages = SHIFTS[name]
    follower = talk(model, template, messages, context=context, limit=limit, shift=True, system=system)
    forgotten = [words for words in follower.said if "oldest" in words[0]]
    assert forgotten and len(follower.replies) == len(messages) > len(follower.turns)


@pytest.mark.parametrize("shift", [False, True])
def test_a_message_too_long_even_alone(shift, model, talk):
    """It is left out, and nothing is forgotten for it."""
    follower = talk(model, "zephyr", ["ab", "Z" * 200, "cd"], limit=5, shift=shift, context=150)
    assert [len(reply) for reply in follower.replies] == [5, 5] and len(follower.turns) == 2


# ---------------------------------------------------------------------------- interrupts

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")


def until(condition, what):
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(f"waited in vain until {what}")


def proc(process, name):
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(line.split(None, 1)[1] for line in lines if line.startswith(name + ":"))


def until_idle(process):
    """Until it waits: for a line, or for somebody to read."""
    until(lambda: all(proc(process, "State")[0] == "S" and time.sleep(0.01) is None for _ in range(5)),
          "it waits")


def until_heard(process, number):
    """Until it has been told of a signal: our handler is good for one."""
    until(lambda: not int(proc(process, "SigCgt"), 16) >> (number - 1) & 1, "it has heard")


@pytest.fixture
def start(models, run):
    """A chat whose replies never end by themselves, about a millisecond a token."""
    processes = []

    def start(*options, stdin=subprocess.PIPE, **more):
        process = run.start(models / "wide.bin", "-m", "chat", "--template", "chatml", "-t", 0, "-c", 20000,
                            "-j", 1, *options, stdin=stdin, **more)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def say(process, line):
    process.stdin.write(line)
    process.stdin.flush()


def filled(pipe):
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def read_some(process, n=10):
    return b"".join(os.read(process.stdout.fileno(), 1) for _ in range(n))


def interrupt(process):
    """What the reply was, from the moment it has stopped."""
    begun = read_some(process)
    process.send_signal(signal.SIGINT)
    until_idle(process)
    assert process.poll() is None, "it goes on"
    text = begun + os.read(process.stdout.fileno(), filled(process.stdout))
    assert text.endswith(b"\n"), "the line is ended"
    return text[:-1]


@needs_proc
def test_an_interrupt_stops_the_reply(start, run, chat_ids, models, tmp_path):
    """Twice, and the chat goes on: behind as much of the reply as was written, and all of it was fed once.
    The third interrupt comes while it waits, and ends the program."""
    process, turns = start("--logits", tmp_path / "logits.npy", "--kv", "f32"), []
    for message in ("Once there was", "and then"):
        say(process, message.encode() + b"\n")
        turns.append((message, interrupt(process)))
    process.send_signal(signal.SIGINT)
    outcome = run.finish(process)
    assert (outcome.status, outcome.stdout) == (130, b"")
    outcome.statistic("seed"), outcome.statistic("hash")

    rows = np.load(tmp_path / "logits.npy")
    assert outcome.fed() == len(rows)
    best, replies = [int(id) for id in rows.argmax(axis=1)], []
    for i, (message, text) in enumerate(turns):
        said = [(message, reply) for (message, _), reply in zip(turns, [*replies, []])]
        ids = chat_ids(models / "vocabulary.gguf", "chatml", "", said)
        written = best[len(ids) - 1:]
        replies.append(written[:next(n for n in range(len(written) + 1) if made_text(written[:n]) == text)])
    ids = (ids + replies[-1])[:len(rows)]               # the last one written may not have been fed
    assert len(ids) == len(rows)
    assert differences(rows, reference.logits(load(models / "wide.bin"), ids)).max() <= EXACT


@needs_proc
def test_an_interrupt_stops_the_reading_of_a_message(start, run):
    process = start()
    say(process, b"Z" * 15000 + b"\n")
    until(lambda: not filled(process.stdin) and proc(process, "State")[0] == "R", "it reads")
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    until_idle(process)
    assert process.poll() is None and filled(process.stdout) == 1
    outcome = run.finish(process)                       # closes standard input
    assert (outcome.status, outcome.stdout) == (0, b"\n") and 0 < outcome.fed() < 15000


@needs_proc
@pytest.mark.parametrize("signals", ["INT INT", "TERM", "INT TERM"])
def test_interrupts_of_one_reply(signals, start, run):
    """Any second ends the program, and so does SIGTERM. The reply is held up by a pipe that is full, so that
    both are its own."""
    numbers = [getattr(signal, "SIG" + name) for name in signals.split()]
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    before = 0
    try:
        while True:
            before += os.write(theirs, b"x" * 512)
    except BlockingIOError:
        os.set_blocking(theirs, True)
    process = start(stdout=theirs)
    os.close(theirs)
    say(process, b"ab\n")
    until(lambda: filled(process.stdin) == 0, "it has read the message")
    until_idle(process)
    process.send_signal(numbers[0])
    until_heard(process, numbers[0])
    if numbers[1:] == [signal.SIGINT]:                  # ends it at once
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == -signal.SIGINT
        os.close(ours)
        return
    for number in numbers[1:]:
        process.send_signal(number)
        until_heard(process, number)
    with open(ours, "rb") as pipe:
        text = pipe.read()
    assert len(text) > before + 1 and text.endswith(b"\n")
    outcome = run.finish(process)
    assert outcome.status == 128 + signal.SIGTERM
    outcome.statistic("seed")


@needs_proc
def test_a_termination_while_it_waits(start, run):
    process = start()
    until_idle(process)
    process.send_signal(signal.SIGTERM)
    outcome = run.finish(process)
    assert (outcome.status, outcome.stdout) == (128 + signal.SIGTERM, b"")
    outcome.statistic("seed")


def test_a_closed_pipe_ends_quietly(start):
    """In the middle of a reply, with a message still to come."""
    process = start("-q", "-c", 1000)
    say(process, b"ab\ncd\n")
    read_some(process)
    process.stdout.close()
    stderr = process.stderr.read()
    process.wait(timeout=60)
    assert Outcome.of(process, b"", stderr) == (0, b"", "")


def test_a_terminal_is_asked(start, run):
    """The question goes to standard error, so that standard output is text alone."""
    options = "-n", 3, "-q", "-c", 1000
    piped = start(*options)
    say(piped, b"ab\n\ncd\n")
    ours, theirs = os.openpty()
    process = start(*options, stdin=theirs)
    os.close(theirs)
    os.write(ours, b"ab\n\ncd\n")
    lines = [process.stdout.readline() for _ in range(2)]
    os.write(ours, b"\x04")                             # ^D
    outcome = run.finish(process)
    os.close(ours)
    assert (outcome.status, outcome.stderr) == (0, "> > > > \n")
    assert b"".join(lines) + outcome.stdout == run.finish(piped).stdout
