"""test_command_line.py - the program keeps the promises of its command line: what it prints where, when it
stops, and how it ends - 0: done, 1: the file, the memory or the machine, 2: the command line.
"""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
import time

import gguf
import numpy as np
import pytest

import make_models
import reference
from conftest import Outcome, Program
from make_models import BOS, EOS, VOCABULARY

PROMPT = "Once there was"


def rows(path):
    """How many positions a --logits file holds: those that went through the model."""
    return np.load(path).shape[0]


# ---------------------------------------------------------------------------- standard output is the text

TEXTS = {
    "unicode": "Zoë's café — 你好 🦙\n".encode(),
    "not UTF-8": b"a \xff\xfe \xc3( \xed\xa0\x80 \xf0\x9f",
    "NUL bytes": b"a\0b\0\0c\0",
    "lines": b"\n\nZ\r\n\t\n",
    "spaces": b"   a  ",
    "empty": b"",
}


@pytest.mark.parametrize("name", TEXTS)
def test_prompt_is_printed_as_given(name, model, run, tmp_path):
    text, file = TEXTS[name], tmp_path / "prompt.txt"
    file.write_bytes(text)
    options = model, "-n", 0, "-q"
    zeros = text.count(b"\0")
    for outcome in (run(*options, "-f", file), run(*options, "-f", "-", stdin=text)):
        assert outcome[:2] == (0, text + b"\n")
        said = f"{zeros} of {len(text)} bytes are zeros" if zeros else ""
        assert said in outcome.stderr and outcome.stderr.count("\n") == bool(zeros)
    assert run(*options, stdin=text + b"\n")[:2] == (0, text + b"\n"), "a pipe's last newline is echo's"
    if not zeros:
        assert run(*options, "-i", text) == (0, text + b"\n", "")


@pytest.mark.parametrize("encoding, mark", [("utf-16-le", b"\xff\xfe"), ("utf-16-be", b"\xfe\xff"),
                                            ("utf-8", b"\xef\xbb\xbf")])
def test_a_byte_order_mark_is_believed(encoding, mark, wide, run, tmp_path):
    """A text file is then read as what it is, in every mode and from a pipe; the mark is no part of it."""
    text, file = "Zoë's café — 你好 🦙 the Lion\n" * 3, tmp_path / "prompt.txt"
    file.write_bytes(mark + text.encode(encoding))
    assert run(wide, "-f", file, "-n", 0, "-q") == (0, text.encode() + b"\n", "")
    for mode in ("tokenize", "perplexity"):
        options = wide, "-m", mode, "-c", 16, "-q"
        asked = run(*options, "-i", text)
        assert asked.status == 0 and run(*options, "-f", file) == asked
        assert run(*options, "-f", "-", stdin=file.read_bytes()) == asked
        assert run(*options, stdin=mark + (text + "\n").encode(encoding)) == asked
    file.write_bytes(mark)
    assert run(wide, "-m", "tokenize", "-f", file) == run(wide, "-m", "tokenize", "-i", "")


def test_utf_16_that_is_damaged(model, run):
    """Half a pair, and half a unit, as Python replaces them."""
    for data in (b"a\0\x3d\xd8b\0", b"a\0\x3d\xd8", b"a\0\x99\xdc", b"a\0b\0c", b"\x3d\xd8\x3d\xd8\x99\xdc"):
        wanted = data.decode("utf-16-le", errors="replace").encode()
        assert run(model, "-n", 0, "-q", "-f", "-", stdin=b"\xff\xfe" + data)[:2] == (0, wanted + b"\n"), data


def test_utf_16_without_a_mark_is_suspected(model, run, tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_bytes("the Lion".encode("utf-16-le"))
    for mode in (["-n", 0, "-q"], ["-m", "tokenize"], ["-m", "perplexity", "-c", 8, "-q"]):
        outcome = run(model, "-f", file, *mode)
        assert outcome.status == 0 and outcome.stderr.count("\n") == 1, outcome
        assert "8 of 16 bytes are zeros" in outcome.stderr and "UTF-16" in outcome.stderr


def test_a_prompt_from_a_pipe(model, run, tmp_path):
    """Without -f -, where there is neither -i nor -f. Nothing else is read: no terminal, and no device."""
    asked, command = run(model, "-i", PROMPT, "-t", 0, "-q"), run.command((model, "-t", 0, "-q"))
    assert run(model, "-t", 0, "-q", stdin=PROMPT.encode() + b"\n") == asked
    assert run(model, "-t", 0, "-q", stdin=PROMPT.encode()) == asked
    file = tmp_path / "prompt.txt"
    file.write_text(PROMPT + "\n")
    with file.open() as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, timeout=60)
    assert done.stdout == asked.stdout
    assert run(model, "-i", PROMPT, "-t", 0, "-q", stdin=b"another") == asked
    assert run(model, "-m", "info", stdin=b"a").status == 0
    ours, theirs = os.openpty()                         # where nobody types
    for stdin in (theirs, subprocess.DEVNULL):
        done = subprocess.run(command, stdin=stdin, capture_output=True, timeout=60)
        assert done.stdout == run(model, "-i", "", "-t", 0, "-q").stdout
    os.close(ours), os.close(theirs)


@pytest.mark.parametrize("text", [PROMPT, ""])
def test_text_is_what_the_logits_say(text, model, run, tmp_path):
    """The text at temperature 0, byte for byte, from the best id of each row: stray bytes and all."""
    outcome = run(model, "-i", text, "-n", 40, "-t", 0, "-q", "--logits", tmp_path / "logits.npy")
    prompt = run(model, "-i", text, "-m", "tokenize").stdout.split()
    best = np.argmax(np.load(tmp_path / "logits.npy"), axis=1)[len(prompt):]
    assert len(best) == 40
    written = b"".join(bytes([id - 3]) if 3 <= id < 259 else VOCABULARY[id].encode() for id in best)
    assert outcome == (0, text.encode() + (written if text else written.removeprefix(b" ")) + b"\n", "")


@pytest.fixture
def write_first(model, models, run, tmp_path):
    """write_first(token, prompt, n): what a model writes that begins with this token, at temperature 0."""

    def write(token, prompt, n, call=Program.__call__):
        run(model, "-i", prompt, "-n", 0, "--logits", tmp_path / "logits.npy")
        best = np.argmax(np.load(tmp_path / "logits.npy")[-1])
        config, arrays = reference.read_llama2c(model)
        rows = arrays["classifier"].copy()
        rows[[token, best]] = rows[[best, token]]       # they change places
        make_models.write_model(tmp_path / "model.bin", config, arrays | {"classifier": rows}, 0)
        tokenizer = models / "tokenizer.bin"
        return call(run, tmp_path / "model.bin", "-z", tokenizer, "-i", prompt, "-n", n, "-t", 0, "-q")

    return write


@pytest.mark.parametrize("end", [BOS, EOS])
def test_ends_at_an_end_token(end, write_first):
    assert write_first(end, PROMPT, 9) == (0, PROMPT.encode() + b"\n", "")


def test_ends_at_the_end_of_a_turn_or_a_message(models, run, tmp_path):
    """What a GGUF file calls its EOT or its EOM ends a text like EOS. Which it is, only the file says."""
    args = models / "heads.gguf", "-i", PROMPT, "-t", 0, "-q"
    assert run(*args, "-n", 0, "--logits", tmp_path / "logits.npy").status == 0
    best = int(np.argmax(np.load(tmp_path / "logits.npy")[-1]))
    assert run(*args, "-n", 1).stdout != PROMPT.encode() + b"\n"
    kind = make_models.KINDS["heads"]
    for name in ("eot", "eom"):
        path = tmp_path / f"{name}.gguf"
        arrays = make_models.arrays_of(kind)
        make_models.write_gguf(path, kind, arrays, {f"tokenizer.ggml.{name}_token_id": best})
        assert run(path, *args[1:], "-n", 9) == (0, PROMPT.encode() + b"\n", "")


def test_only_the_first_space_of_a_text_is_dropped(write_first):
    the = VOCABULARY.index(" the")
    assert write_first(the, "", 1) == (0, b"the\n", "")
    assert write_first(the, PROMPT, 1) == (0, PROMPT.encode() + b" the\n", "")


def test_a_terminal_gets_whole_characters_only(model, run):
    """What is part of no character is U+FFFD there, and passes as it is anywhere else."""
    ours, theirs = os.openpty()
    outcome = run(model, "-n", 60, "-t", 0, stdout=theirs)
    on_terminal = os.read(ours, 4096).replace(b"\r\n", b"\n")
    os.close(ours), os.close(theirs)
    assert outcome.status == 0
    in_pipe = run(model, "-n", 60, "-t", 0).stdout
    assert "\ufffd" in on_terminal.decode()
    escaped = {code: f"\\u{code:04x}" for code in CONTROLS}
    assert on_terminal.decode() == in_pipe.decode(errors="replace").translate(escaped)


def shown(run, *args):
    """(status, what a terminal gets) of a run that has one for both of its outputs."""
    ours, theirs = os.openpty()
    done = subprocess.run(run.command(args), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs,
                          timeout=60)
    os.close(theirs)
    said = os.read(ours, 1 << 16).replace(b"\r\n", b"\n")
    os.close(ours)
    return done.returncode, said


CONTROLS = [*range(1, 9), *range(11, 32), 127, *range(0x80, 0xa0)]       # but tab and newline


def test_a_terminal_gets_no_escape_sequence(wide, run, tmp_path):
    """Neither from a prompt nor from a name; a pipe gets the bytes. What is printable stays."""
    wild = "".join(map(chr, CONTROLS))
    told = "".join(f"\\u{code:04x}" for code in CONTROLS)
    text = f"a\t{wild}\nZoë 🦙\\"
    options = "-n", 0, "-q"
    file = tmp_path / "prompt.txt"
    file.write_text(text)
    status, said = shown(run, wide, "-f", file, *options)
    assert (status, said.decode()) == (0, f"a\t{told}\nZoë 🦙\\\n")
    assert run(wide, "-f", file, *options).stdout == text.encode() + b"\n"

    name = tmp_path / f"no\x1b]0;{wild}\nfile"
    nowhere = tmp_path / "no" / "\x1b[2J"
    for args in ([name], [wide, "-f", name], [wide, "-z", name], [wide, "--logits", nowhere]):
        status, said = shown(run, *args)
        assert status == 1 and said.count(b"\n") == 1, said
        assert not [c for c in said.decode() if ord(c) in CONTROLS], said
        assert b"\\u001b" in said or b"?[2J" in said          # complain() has question marks
    assert b"\x1b]0;" in subprocess.run(run.command([name]), capture_output=True).stderr
    for args in (["--\x1b[31m"], ["-t", "\x1b[31m"], ["-m", "\x1b[31m"], ["a", "\x1b[31m"]):
        status, said = shown(run, *args)
        assert status == 2 and said.count(b"\n") == 1 and b"\x1b" not in said, said


def test_a_model_that_writes_escape_sequences(write_first):
    """Its token is ESC: a pipe gets it, a terminal sees its code."""
    escape = 3 + 0x1b
    assert write_first(escape, PROMPT, 1) == (0, PROMPT.encode() + b"\x1b\n", "")
    assert write_first(escape, PROMPT, 1, shown) == (0, PROMPT.encode() + b"\\u001b\n")


def test_quiet(model, run):
    loud, quiet = run(model, "-t", 0), run(model, "-t", 0, "-q", "-n", 20)
    for name in ("load", "prefill", "decode", "seed", "hash"):
        loud.statistic(name)
    assert quiet.stderr == ""


# ---------------------------------------------------------------------------- how much is written

def test_n_counts_what_is_written_after_the_prompt(model, run, tmp_path):
    out = tmp_path / "logits.npy"
    prompt = 1 + len(run(model, "-m", "tokenize", "-i", PROMPT).stdout.split())
    # The last token written does not go through the model again.
    for n, fed in ((0, prompt), (1, prompt), (2, prompt + 1), (20, prompt + 19)):
        outcome = run(model, "-i", PROMPT, "-t", 0, "-n", n, "--logits", out, "-q")
        assert (outcome.status, outcome.stderr, rows(out)) == (0, "", fed), f"-n {n}"


def test_stops_when_the_context_is_full(model, run, tmp_path):
    out = tmp_path / "logits.npy"
    for options, context in (([], 64), (["-c", 9], 9), (["-c", 1], 1)):
        for n in (-1, 500):
            outcome = run(model, "-t", 0, "-n", n, *options, "--logits", out, "-q")
            assert (outcome.status, rows(out)) == (0, context)
            assert outcome.stderr.count("\n") == 1 and f"context of {context} is full" in outcome.stderr
    outcome = run(model, "-t", 0, "-n", 64, "-q")       # as many as it holds: nothing was cut off
    assert (outcome.status, outcome.stderr) == (0, "")


def test_a_context_longer_than_trained_warns(model, run, tmp_path):
    out = tmp_path / "logits.npy"
    outcome = run(model, "-t", 0, "-c", 100, "-n", -1, "--logits", out)
    assert (outcome.status, rows(out)) == (0, 100)
    assert "trained for 64" in outcome.stderr
    assert "trained for" not in run(model, "-c", 64).stderr


def test_a_prompt_longer_than_the_context_is_refused(model, run, tmp_path):
    out = tmp_path / "logits.npy"
    length = 1 + len(run(model, "-m", "tokenize", "-i", PROMPT).stdout.split())
    run(model, "-i", PROMPT, "-c", length - 1).check_refused(2, length, length - 1)
    run(model, "-i", "Z" * 64).check_refused(2, 66, 64)         # BOS, the space in front, 64 letters
    outcome = run(model, "-i", PROMPT, "-c", length, "-n", 1, "-q", "--logits", out)
    assert (outcome.status, outcome.stderr, rows(out)) == (0, "", length), "a prompt that just fits"


def test_no_memory_for_a_context(model, run):
    outcome = run(model, "-c", 2**31 - 1, "-n", 1)      # more than a terabyte; some systems promise even that
    assert outcome.status in (0, 1)
    assert outcome.status == 0 or "no memory" in outcome.stderr.splitlines()[-1]


# ---------------------------------------------------------------------------- the same again

def test_seed(model, run):
    first, second = run(model), run(model)
    assert first.statistic("seed") != second.statistic("seed"), "a seed is drawn for each run"
    assert first.stdout != second.stdout
    again = run(model, "-s", first.statistic("seed"))
    assert (again.stdout, again.statistic("hash")) == (first.stdout, first.statistic("hash"))
    assert run(model, "-s", 2**64 - 1).statistic("seed") == str(2**64 - 1)
    again = first.statistic("again").split()            # with the kernels, which round in ways of their own
    assert again[::2] == ["-s", "--kernels"] and f"kernels {again[3]}," in first.stderr
    assert run(model, *again).stdout == first.stdout
    assert "again" not in run(model, "-t", 0).stderr, "nothing is left to chance"


def test_one_candidate_is_the_likeliest(model, run):
    greedy = run(model, "-t", 0).stdout
    for options in (["-k", 1], ["-p", 0], ["--min-p", 1]):
        assert run(model, "-t", 5, *options).stdout == greedy, options


def test_threads_change_nothing(wide, run):
    outcomes = [run(wide, "-s", 7, "-i", PROMPT * 25, "-n", 30, "-j", j) for j in (1, 2, 3, 7)]
    assert [o.status for o in outcomes] == [0, 0, 0, 0]
    assert len({(o.stdout, o.statistic("hash")) for o in outcomes}) == 1


OPS = """embed attn_norm q k v q_rope k_rope weights mix attn_out resid_mid
         ffn_norm gate up hidden ffn_out resid final_norm logits""".split()


def test_trace(model, run):
    options = model, "-s", 7, "-i", PROMPT, "-n", 10
    plain, traced = run(*options), run(*options, "--trace")
    assert traced.stdout == plain.stdout
    assert traced.statistic("hash") == plain.statistic("hash")

    lines = [line.split() for line in run(*options, "--trace", "-q").stderr.splitlines()]
    per_pass = [op for op in OPS if op not in ("embed", "final_norm", "logits", "weights")]
    prompt = 1 + len(run(model, "-m", "tokenize", "-i", PROMPT).stdout.split())
    assert {line[4] for line in lines} == set(OPS)
    for layer in "012":
        assert [line[4] for line in lines if line[1] == layer and line[4] != "weights"] == per_pass * 10
        positions = [int(line[3]) for line in lines if line[1] == layer and line[4] == "weights"]
        assert positions == list(range(prompt + 9))
    assert [int(line[3]) for line in lines if line[4] == "logits"] == list(range(prompt - 1, prompt + 9))
    for line in lines:
        if line[4] == "weights":                        # they sum to 1: the mean is one over their number
            assert float(line[line.index("mean") + 1]) * int(line[7]) == pytest.approx(1, rel=1e-3), line


# ---------------------------------------------------------------------------- the norm

def test_the_other_norm_is_refused(model, run, run_layernorm):
    run_layernorm(model).check_refused(1, model, "rmsnorm", "layernorm", "make NORM=rmsnorm", "--swap-norm")
    swapped = run_layernorm(model, "--swap-norm", "-t", 0)
    plain, needless = run(model, "-t", 0), run(model, "--swap-norm", "-t", 0)
    assert swapped.status == plain.status == needless.status == 0
    assert "layernorm" in swapped.stderr and "rmsnorm" in plain.stderr
    assert swapped.stdout != plain.stdout == needless.stdout


# ---------------------------------------------------------------------------- where the text goes

def test_a_closed_pipe_ends_quietly(wide, run):
    process = run.start(wide, "-t", 0, "-n", -1)
    assert len(process.stdout.read(10)) == 10           # as head -c 10 does
    process.stdout.close()
    stderr = process.stderr.read()
    process.wait(timeout=60)
    assert Outcome.of(process, b"", stderr) == (0, b"", "")


@pytest.mark.parametrize("args", [["-n", 60], ["-n", 0, "-i", "a" * 50], ["-m", "tokenize"], ["--help"],
                                  ["-m", "tokenize", "--json"], ["-m", "info"], ["-m", "info", "--json"],
                                  ["-m", "perplexity", "-i", "a" * 50, "-c", 16]])
def test_a_full_disk_is_reported(args, model, run):
    with open("/dev/full", "wb") as full:
        outcome = run(model, *args, stdout=full)
    assert outcome.status == 1
    assert outcome.stderr.count("\n") == 1 and "No space left" in outcome.stderr


def test_a_closed_standard_output_is_reported(model, run, tmp_path):
    """The first file that is opened takes its number: the text must not end up there."""
    for options in ([], ["--logits", tmp_path / "logits.npy"]):
        outcome = run(model, "-n", 5, *options, preexec_fn=lambda: os.close(1))
        assert outcome.status == 1, f"{options}: {outcome}"


@pytest.mark.parametrize("n", [1, 60])
def test_logits_that_cannot_be_written(n, model, run, tmp_path):
    for path, reason in ((tmp_path / "no" / "folder.npy", "No such file"), (tmp_path, "Is a directory"),
                         ("/dev/full", "No space left")):
        outcome = run(model, "--logits", path, "-n", n)
        assert outcome.status == 1
        assert outcome.stderr.count("\n") == 1 and str(path) in outcome.stderr and reason in outcome.stderr


def test_logits_do_not_overwrite_a_tokenizer_that_was_found(model, models, run, tmp_path):
    for name in ("tokenizer.bin", f"tok{len(make_models.VOCABULARY)}.bin"):
        folder = tmp_path / name[:-4]
        folder.mkdir()
        shutil.copy(model, folder / "model.bin")
        shutil.copy(models / "tokenizer.bin", folder / name)
        run(folder / "model.bin", "--logits", folder / name).check_refused(2, folder / name)
        assert (folder / name).read_bytes() == (models / "tokenizer.bin").read_bytes()


def test_options_of_another_mode_are_refused(model, run, tmp_path):
    """None is dropped in silence."""
    for mode in ("tokenize", "info", "perplexity"):
        run(model, "-m", mode, "-i", "a", "--trace").check_refused(2, "--trace")
        run(model, "-m", mode, "-i", "a", "--logits", tmp_path / "logits").check_refused(2, "--logits")
    run(model, "-m", "chat", "--json").check_refused(2, "--json")
    for option in (["--ignore-eos"], ["--top", 3], ["--pieces"]):
        run(model, "-m", "chat", *option).check_refused(2, option[0])
    run(model, "--pieces").check_refused(2, "--pieces", "tokenize")
    run(model, "-m", "tokenize", "--stop", "a").check_refused(2, "--stop")
    run(model, "-m", "perplexity").check_refused(2, "text")
    run(model, "-m", "chat", "--special").check_refused(2, "--special")
    for mode in ("bench", "info"):
        run(model, "-m", mode, "-i", "a").check_refused(2, "-i", mode)
        run(model, "-m", mode, "-f", "/dev/null").check_refused(2, "-f", mode)


def test_tokenizing_asks_for_no_norm(model, run, run_layernorm):
    options = model, "-m", "tokenize", "-i", "a b"
    assert run_layernorm(*options).stdout == run(*options).stdout != b""


def test_an_interrupt_ends_perplexity_with_what_there_is(wide, run, tmp_path):
    (tmp_path / "text").write_text("a bad cab and the rest " * 20000)
    process = run.start(wide, "-m", "perplexity", "-f", tmp_path / "text", "-c", 256)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    outcome = run.finish(process)
    assert outcome.status == 130 and outcome.stdout.startswith(b"perplexity "), outcome
    said = re.search(r"^run: interrupted after (\d+) of (\d+) windows$", outcome.stderr, re.M)
    assert said and int(said[1]) < int(said[2])
    assert outcome.stdout.endswith(f" in {said[1]} windows of 256, interrupted\n".encode())


def test_an_interrupt_ends_bench_with_the_runs_there_are(wide, run):
    ours, theirs = os.openpty()                         # a terminal hears of every run
    process, said = subprocess.Popen(run.command((wide, "-m", "bench", "-n", 16)),
                                     stdout=subprocess.PIPE, stderr=theirs), b""
    os.close(theirs)
    while b"run 2 of 16" not in said:
        said += os.read(ours, 1000)
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    said = re.search(rb"run: interrupted after (\d+) of 16 runs", said + os.read(ours, 10000))
    os.close(ours)
    assert process.returncode == -signal.SIGINT and said
    assert b", %s runs" % said[1] in stdout and stdout.endswith(b", interrupted\n")


def test_logits_do_not_overwrite_the_checkpoint(model, models, run, tmp_path):
    copy = tmp_path / "model.bin"
    shutil.copy(model, copy)
    run(copy, "-z", models / "tokenizer.bin", "--logits", copy).check_refused(2, copy)
    assert copy.read_bytes() == model.read_bytes()


def test_logits_do_not_overwrite_what_streams_stand_for(model, run, tmp_path):
    """But a device may be all of them."""
    path, options = tmp_path / "text", ("-n", 2, "-q")
    path.write_text("a bad cab")
    with path.open() as stream:
        command = run.command((model, "-f", "-", *options, "--logits", path))
        done = subprocess.run(command, stdin=stream, capture_output=True)
    Outcome.of(done, done.stdout, done.stderr).check_refused(2, path)
    assert path.read_text() == "a bad cab"
    with path.open("a") as stream:
        outcome = run(model, *options, "--logits", path, stdout=stream)
    assert outcome.status == 2 and str(path) in outcome.stderr
    assert path.read_text() == "a bad cab"
    with open("/dev/null", "w") as stream:
        assert run(model, *options, "--logits", "/dev/null", stdout=stream).status == 0


@pytest.mark.parametrize("flag", ["--trace", "--trace=json"])
def test_a_trace_that_cannot_be_written(flag, model, run):
    with open("/dev/full", "w") as full:
        done = subprocess.run(run.command((model, "-n", 2, flag)), stdout=subprocess.PIPE, stderr=full)
    assert done.returncode == 1


def test_a_prompt_without_an_end(model, run):
    """It is read no further than a text may be long."""
    (size,) = run.peak_memory((model, "-f", "/dev/zero", "-n", 1))
    assert size < 1 << 30
    run(model, "-f", "/dev/zero", "-n", 1).check_refused(1, "/dev/zero", "256 MB")


def test_a_terminal_ends_a_prompt_at_once(model, run):
    """One ^D behind a line."""
    ours, theirs = os.openpty()
    process = run.start(model, "-m", "tokenize", "-f", "-", stdin=theirs)
    os.close(theirs)
    os.write(ours, b"a bad cab\n\x04")
    outcome = run.finish(process)
    os.close(ours)
    assert outcome == run(model, "-m", "tokenize", "-i", "a bad cab\n")


# ---------------------------------------------------------------------------- interrupted

def until_full(pipe):
    """Wait until the writer of a pipe that nobody reads can write no more."""
    before, now = -1, 0
    while now != before or now == 0:
        time.sleep(0.1)
        before, now = now, int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("busy", ["reading the prompt", "writing", "waiting for a reader"])
def test_an_interrupt_ends_cleanly(busy, number, models, run, tmp_path):
    """With a whole line, the statistics, and the logits so far."""
    prompt = "Z" * 1000 if busy == "reading the prompt" else PROMPT
    model = models / ("mha-v0-untied.bin" if busy == "waiting for a reader" else "wide.bin")
    process = run.start(model, "-i", prompt, "-c", 100000, "-n", -1, "-t", 0,
                        "--logits", tmp_path / "logits.npy", pipesize=4096)
    if busy == "waiting for a reader":
        until_full(process.stdout)
        process.send_signal(number)
        time.sleep(0.1)                                 # it hears of the signal before somebody reads
        head = b""
    else:
        head = process.stdout.read(len(prompt) + (busy == "writing"))
        process.send_signal(number)
    outcome = run.finish(process)
    assert outcome.status == 128 + number, outcome.stderr
    text = head + outcome.stdout
    assert text.startswith(prompt.encode()) and text.endswith(b"\n")
    for name in ("load", "prefill", "seed"):
        outcome.statistic(name)
    assert rows(tmp_path / "logits.npy") == outcome.fed()


def test_many_processes_on_one_checkpoint(wide, run):
    """All at once, and all write the same; what one of them does is nothing to the others."""
    options = wide, "-i", PROMPT, "-s", 7, "-n", 20, "-q", "-j", 2
    alone = run(*options)
    processes = [run.start(*options, stdin=subprocess.DEVNULL) for _ in range(12)]
    assert {run.finish(process) for process in processes} == {alone}


# ---------------------------------------------------------------------------- tokens and tokenizers

@pytest.mark.parametrize("text, tokens", [
    ("", ""),
    (" ", "_ _"),
    ("the", "_the"),
    ("then the", "_the n _the"),
    ("Then", "_ T he n"),                               # "he" is a piece; " T", "Th" and "en" are none
    ("and in", "_and _ in"),                            # " a" and "nd" make " and"
    ("aé", "_a é"),
    ("lll", "_ ll l"),                                  # of two that are equal, the left one first
    ("1\n", "_ <0x31> <0x0A>"),
    ("你", "_ <0xE4> <0xBD> <0xA0>"),
    ("<s></s><0x41>", None),                            # no name of a token is a token
])
def test_tokenize(text, tokens, model, run):
    outcome = run(model, "-m", "tokenize", "-i", text)
    assert (outcome.status, outcome.stderr) == (0, "")
    ids = [int(id) for id in outcome.stdout.split()]
    if tokens is None:
        assert not {0, BOS, EOS, VOCABULARY.index("<0x41>")} & set(ids)
    else:
        assert [VOCABULARY[id].replace(" ", "_") for id in ids] == tokens.split()
        assert outcome.stdout == " ".join(map(str, ids)).encode() + b"\n"


@pytest.fixture
def heads(tmp_path):
    """heads(**keys of the vocabulary): a model in GGUF that has them."""

    def write(**keys):
        kind, path = make_models.KINDS["heads"], tmp_path / "heads.gguf"
        more = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
        make_models.write_gguf(path, kind, make_models.arrays_of(kind), more)
        return path

    return write


def test_a_vocabulary_without_a_space_in_front(heads, run):
    path = heads(add_space_prefix=False)
    ids = run(path, "-m", "tokenize", "-i", "the and").stdout.split()
    assert [VOCABULARY[int(id)] for id in ids] == ["t", "he", " and"]
    # Then a text that begins with a space begins with it.
    outcome = run(path, "-n", 9, "-t", 0, "--logits", path.with_suffix(".npy"), "-q")
    first = VOCABULARY[np.argmax(np.load(path.with_suffix(".npy"))[0])]
    assert first.startswith("<0x") or outcome.stdout.startswith(first.encode())


def test_a_text_without_bos(heads, run, tmp_path):
    """Where the file wants none, the prompt stands alone, and there has to be one."""
    path, out = heads(add_bos_token=False), tmp_path / "logits.npy"
    run(path).check_refused(2, "-i")
    ids = [int(id) for id in run(path, "-m", "tokenize", "-i", PROMPT).stdout.split()]
    assert run(path, "-i", PROMPT, "-n", 0, "-q", "--logits", out).status == 0
    wanted = reference.logits(reference.load(path), ids)
    assert np.load(out).shape == wanted.shape
    assert np.abs(np.load(out) - wanted).max() < 0.01 * np.abs(wanted).max()


def test_tokenizer_is_found_beside_the_checkpoint(model, models, run, tmp_path):
    right, sized = models / "tokenizer.bin", f"tok{len(VOCABULARY)}.bin"
    wrong = tmp_path / "elsewhere" / "wrong.bin"
    wrong.parent.mkdir()
    make_models.write_tokenizer(wrong, make_models.pieces()[:-1])
    beside = tmp_path / "beside"
    wanted = run(model, "-t", 0).stdout

    for files in ({"tokenizer.bin": right}, {sized: right}, {"tokenizer.bin": wrong, sized: right}):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        shutil.copy(model, beside / "model.bin")
        for name, file in files.items():
            shutil.copy(file, beside / name)
        outcome = run(beside / "model.bin", "-t", 0)
        assert (outcome.status, outcome.stdout) == (0, wanted), files
        outcome = run("model.bin", "-t", 0, cwd=beside)
        assert (outcome.status, outcome.stdout) == (0, wanted), f"{files}, from inside the folder"

    sizes = len(VOCABULARY), len(VOCABULARY) - 1
    shutil.copy(wrong, beside / sized)                  # now both are wrong
    run(beside / "model.bin").check_refused(1, beside / sized, *sizes, "-z")
    (beside / sized).unlink()                           # now there is only a wrong one
    run(beside / "model.bin").check_refused(1, beside / "tokenizer.bin", *sizes, "-z")
    (beside / "tokenizer.bin").unlink()                 # now there is none
    run(beside / "model.bin").check_refused(1, beside / "tokenizer.bin", "-z")
    run(beside / "model.bin", "-z", wrong).check_refused(1, wrong, *sizes)
    assert run(beside / "model.bin", "-t", 0, "-z", right).stdout == wanted


def test_messages_name_the_file(model, run, tmp_path):
    missing = tmp_path / "missing"
    run(missing).check_refused(1, missing)
    run(model, "-z", missing).check_refused(1, missing)
    run(model, "-f", missing).check_refused(1, missing)
    run(model, "-f", tmp_path).check_refused(1, tmp_path)


# ---------------------------------------------------------------------------- weights that are no numbers

@pytest.mark.parametrize("scale", [b"\0\x7e", b"\0\x7c", b"\0\xfc"])     # NaN, Inf, -Inf, in F16
@pytest.mark.parametrize("name", ["Q8_0", "Q4_1", "Q6_K", "IQ4_NL"])
def test_damaged_blocks_are_reported(name, scale, models, run, tmp_path):
    """The scale of one block of a matrix that every token meets."""
    path, at = tmp_path / "damaged.gguf", make_models.RANDOM_TYPES.get(name, (0,))[0]
    data = bytearray((models / f"{name}.gguf").read_bytes())
    for tensor in gguf.GGUFReader(models / f"{name}.gguf").tensors:
        if tensor.name == "blk.0.ffn_down.weight":
            data[tensor.data_offset + at:tensor.data_offset + at + 2] = scale
    path.write_bytes(data)
    run(path).check_refused(1, path, "not finite")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", reference.ORDER[1])
def test_damaged_weights_are_reported(name, value, model, models, run, tmp_path):
    config, arrays = reference.read_llama2c(model)
    damaged = arrays[name].copy()
    damaged.reshape(-1)[damaged.size // 2] = value
    if name == "embedding":
        damaged[BOS] = value                            # elsewhere it would do no harm before its token comes
    path = tmp_path / "damaged.bin"
    make_models.write_model(path, config, arrays | {name: damaged}, 0)
    run(path, "-z", models / "tokenizer.bin").check_refused(1, path, "not finite")
