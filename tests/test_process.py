"""The program as a process: what interrupts it, what is done to its files while it runs, how many threads the
system lets it have. Each in every mode that it can happen in."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time

import pytest

from conftest import Outcome

TEXT = "a bad cab and the rest "
LONG = {                                                # takes minutes, unless something ends it
    "generate": ("-i", "a bad cab", "-n", -1, "-t", 0, "-c", 100000),
    "chat": ("-m", "chat", "--template", "chatml", "-i", "a bad cab", "-n", -1, "-t", 0, "-c", 100000),
    "perplexity": ("-m", "perplexity", "-i", TEXT * 5000, "-c", 256),
    "bench": ("-m", "bench", "-n", 16),
}


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    """A checkpoint of 12 MB, and the tokenizer beside it."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("wide.bin", "tokenizer.bin"):
        shutil.copy(models / name, folder)
    return folder


def start(run, files, mode, *more):
    process = run.start(files / "wide.bin", *LONG[mode], *more, stdin=subprocess.PIPE)
    time.sleep(1)
    assert process.poll() is None, process.communicate()
    return process


# ---------------------------------------------------------------------------- interrupts

@pytest.mark.parametrize("shell", ["bash", "dash"])
@pytest.mark.parametrize("mode", LONG)
def test_one_interrupt_ends_a_loop(mode, shell, files, run):
    """bash goes on with a loop unless the program dies of the signal itself. A chat hears of it twice: the
    first stops its reply."""
    if not shutil.which(shell):
        pytest.skip(f"no {shell}")
    command = run.command((files / "wide.bin", *LONG[mode]))
    script = 'for i in 1 2 3; do "$@" > /dev/null 2>&1; echo round $i; done'
    loop = subprocess.Popen([shell, "-c", script, "-", *command], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, start_new_session=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        for _ in range(2 if mode == "chat" else 1):
            time.sleep(1)
            os.killpg(loop.pid, signal.SIGINT)
        stdout, _ = loop.communicate(timeout=30)
    finally:
        if loop.poll() is None:
            os.killpg(loop.pid, signal.SIGKILL)
    assert stdout == b"" and loop.returncode in (130, -signal.SIGINT), (stdout, loop.returncode)


@pytest.mark.parametrize("mode", ["perplexity", "bench"])
def test_an_interrupted_report_says_so(mode, files, run):
    """For programs, too; and it is no success, even where nothing was measured yet."""
    process = start(run, files, mode, "--json")
    process.send_signal(signal.SIGINT)
    outcome = run.finish(process)
    assert outcome.status == 130
    if not outcome.stdout:
        assert "stopped before the first run" in outcome.stderr
        return
    report = json.loads(outcome.stdout)
    assert report["interrupted"] is True
    if mode == "perplexity":
        assert 1 <= report["windows"] < report["all_windows"]


# ---------------------------------------------------------------------------- files that change

def check_shortened(outcome, name):
    assert outcome.status == 1, outcome
    said = [line for line in outcome.stderr.splitlines() if line.startswith("run: ") and "shorter" in line]
    assert len(said) == 1 and str(name) in said[0], outcome.stderr


@pytest.mark.parametrize("bytes_left", [4096, -1])
@pytest.mark.parametrize("mode", LONG)
def test_a_checkpoint_that_is_cut_short(mode, bytes_left, files, run):
    """Of a byte less within the last page no bus error tells: it is seen at the end."""
    path = files / "wide.bin"
    whole = path.read_bytes()
    process = start(run, files, mode)
    try:
        os.truncate(path, bytes_left % len(whole))
        if bytes_left == -1:
            time.sleep(0.2)
            for _ in range(2 if mode == "chat" else 1):
                process.send_signal(signal.SIGINT)
                time.sleep(0.5 if mode == "chat" else 0)
        check_shortened(run.finish(process), path)
    finally:
        path.write_bytes(whole)


def test_a_file_that_is_cut_short_while_it_waits_for_text(files, models, run):
    """A prompt from standard input comes after the file was read, and before it is needed again."""
    for mode, name in (("generate", "wide.bin"), ("generate", "tokenizer.bin"), ("perplexity", "wide.bin"),
                       ("tokenize", "tokenizer.bin")):
        path = files / name
        whole = path.read_bytes()
        process = run.start(files / "wide.bin", "-m", mode, "-f", "-", "-c", 152, stdin=subprocess.PIPE)
        time.sleep(0.5)
        os.truncate(path, 0)
        stdout, stderr = process.communicate(TEXT.encode() * 10, timeout=60)
        path.write_bytes(whole)
        check_shortened(Outcome.of(process, stdout, stderr), path)


def test_files_that_are_replaced_or_grow_change_nothing(files, run):
    path = files / "wide.bin"
    whole = path.read_bytes()
    options = "-i", "a bad cab", "-n", 300, "-t", 0, "-q"
    expected = run(path, *options)
    for change in ("replace", "remove", "grow"):
        process = run.start(path, *options)
        time.sleep(0.1)
        if change == "grow":
            with path.open("ab") as f:
                f.write(b"more")
        elif change == "remove":
            path.unlink()
        else:
            (files / "new").write_bytes(whole[:5000])
            os.replace(files / "new", path)
        assert run.finish(process) == expected
        path.unlink(missing_ok=True)
        path.write_bytes(whole)


# ---------------------------------------------------------------------------- threads

def test_a_system_that_makes_no_threads(files, run):
    """Each would need a stack that there is no room for: one thread does it all, with the same bytes."""
    def no_threads():
        resource.setrlimit(resource.RLIMIT_STACK, (1 << 36, resource.getrlimit(resource.RLIMIT_STACK)[1]))
        resource.setrlimit(resource.RLIMIT_AS, (1 << 35, 1 << 35))

    if run.sanitized or resource.getrlimit(resource.RLIMIT_STACK)[1] not in (-1, resource.RLIM_INFINITY):
        pytest.skip("a sanitizer needs more room, or this system limits stacks")
    options = files / "wide.bin", "-i", "a bad cab", "-n", 20, "-t", 0, "-q", "-j", 4
    assert run(*options, preexec_fn=no_threads) == run(*options)
    report = run(options[0], "-m", "bench", "-n", 1, "-c", 16, "--json", "-j", 4, preexec_fn=no_threads)
    assert json.loads(report.stdout)["threads"] == 1


# ---------------------------------------------------------------------------- installed

@pytest.mark.parametrize("prefix", ["plain", "with a space", "it's $HOME; \"quoted\""])
def test_install(prefix, tmp_path, request):
    """Whatever the folder is called: the programs are there, and find their models."""
    root = request.config.rootpath
    folder = str(tmp_path / prefix).replace("$", "$$")
    done = subprocess.run(["make", "-s", "install", f"PREFIX={folder}"], cwd=root, capture_output=True,
                          text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for name in ("prenorm", "prenorm-layernorm"):
        program = tmp_path / prefix / "bin" / name
        told = subprocess.run([program, "-n", "3", "-t", "0"], capture_output=True, text=True, timeout=60)
        assert told.returncode == 0 and told.stdout.startswith("Once upon a time"), told
        assert re.search(r"^seed ", told.stderr, re.M)
