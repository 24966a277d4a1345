"""test_options.py - the command line is read as promised: letters, long names, values, what flags of other
engines mean here; --help, and the manual page that is made of it.
"""

import os
import shutil
import subprocess

import pytest

from conftest import ROOT

PROMPT = "Once there was"


BAD = {
    "-m": ["", "talk", "Info", "tokens"],
    "-i": [],                                           # any text will do, and none as well
    "-f": [""],
    "-n": ["", "five", "5x", "1.5", "-2", "2147483648", "99999999999999999999", "1e99", "inf", "nan"],
    "-t": ["", "hot", "-0.1", "101", "1e99", "inf", "nan"],
    "-p": ["", "most", "-0.1", "1.1", "inf", "nan"],
    "-k": ["", "few", "-1", "1.5", "2147483648", "nan"],
    "--min-p": ["", "least", "-0.1", "1.1", "nan"],
    "--repeat-penalty": ["", "much", "0", "-1", "101", "inf", "nan"],
    "-s": ["", "lucky", "-1", "1.5", "0x10", "18446744073709551616", "nan"],
    "-c": ["", "long", "0", "-1", "1.5", "2147483648", "nan"],
    "-j": ["", "all", "0", "-1", "1.5", "257", "nan"],
    "-z": [""],
    "--kv": ["", "f64", "F16"],
    "--kernels": ["", "fastest"],
    "--logits": [""],
    "--model": [""],
    "--stop": [""],
    "--top": ["", "few", "0", "101", "1.5"],
}


# Of llama2.c's letters and ours, the long names: llama.cpp's where it has one.
LONG = {"-m": "--mode", "-i": "--prompt", "-f": "--file", "-n": "--n-predict", "-t": "--temp",
        "-p": "--top-p", "-k": "--top-k", "-s": "--seed", "-c": "--ctx-size", "-j": "--threads",
        "-z": "--tokenizer", "-y": "--system-prompt", "-q": "--quiet", "-h": "--help"}
SWITCHES = ["--swap-norm", "--trace", "--trace=json", "--json", "--special", "--ignore-eos", "--pieces",
            "--version"]
MODES = ["generate", "perplexity", "tokenize", "info"]


@pytest.mark.parametrize("option, value", [(option, value) for option in BAD for value in BAD[option]])
def test_bad_value(option, value, model, run):
    run(model, option, value).check_refused(2, option, value)


@pytest.mark.parametrize("option", BAD)
def test_missing_value(option, model, run):
    run(model, option).check_refused(2, option)


@pytest.mark.parametrize("option", ["--nope", "-x", "-n5", "--nope=1", "--", "-"])
def test_unknown_option(option, model, run):
    run(model, option).check_refused(2, option)


@pytest.mark.parametrize("option, value", [(option, value) for option in BAD for value in BAD[option][1:]])
def test_bad_value_joined(option, value, model, run):
    """`--name=value` is the same as `--name value`."""
    run(model, f"{option}={value}").check_refused(2, option, value)


def test_a_name_is_as_good_as_its_letter(model, run):
    """In either form. A switch takes no value."""
    values = {"-m": "generate", "-i": PROMPT, "-n": 9, "-t": 0.7, "-p": 0.8, "-k": 5, "-s": 3, "-c": 60}
    short = run(model, *(word for option in values.items() for word in option), "-q")
    assert short.status == 0 and short.stderr == "" and short.stdout.startswith(PROMPT.encode())
    assert run(model, *(f"{letter}={value}" for letter, value in values.items()), "-q") == short
    assert run("--model", model, *(w for o, v in values.items() for w in (LONG[o], v)), "--quiet") == short
    assert run(f"--model={model}", *(f"{LONG[o]}={v}" for o, v in values.items()), "-q") == short
    assert run(model, "--prompt==", "-n", 0, "-q").stdout == b"=\n"
    for switch in ("-q", "--json", "--quiet"):
        run(model, f"{switch}=yes").check_refused(2, switch, "no value")


# What llama.cpp, llama2.c or transformers call by another name, and what the sentence has to say.
TRAPS = [
    (["-p", "Once"], ["-i"]), (["-p", "Once upon a time"], ["-i"]), (["-p", "3 little pigs"], ["-i"]),
    (["-p="], ["value"]), (["-n5"], ["-n 5"]), (["-t0.8"], ["-t 0.8"]), (["-m", "model.gguf"], ["--model"]),
    (["-m", "models/model"], ["--model"]), (["-cnv"], ["-m chat"]), (["-sys", "Hello"], ["--system-prompt"]),
    (["-r", "User:"], ["--stop"]), (["--max-tokens", 9], ["--n-predict"]), (["--steps=9"], ["--n-predict"]),
    (["--temperature", 1], ["--temp"]), (["--chat-template", "chatml"], ["--template"]),
    (["-s", -1], ["drawn"]), (["-ngl", 99], ["--help"]), (["--repetition-penalty=1.1"], ["--repeat-penalty"]),
]


@pytest.mark.parametrize("args, words", TRAPS)
def test_flags_of_other_engines(args, words, model, run):
    run(model, *args).check_refused(2, *words)


def test_a_temperature_that_looks_like_threads(model, run):
    """`-t 4` is llama2.c's letter; who means llama.cpp's is told. A name, or a temperature that can be meant,
    is taken at its word."""
    for value in (3, 4, 16, "8.0"):
        outcome = run(model, "-t", value, "-n", 2, "-q")
        assert outcome.status == 0 and outcome.stderr.count("\n") == 1, outcome
        assert f"-j {float(value):g}" in outcome.stderr and "temperature" in outcome.stderr
    for args in (["-t", 2], ["-t", 2.5], ["-t", 0], ["-t", "1e-40"], ["--temp", 4], ["--temp=4"], ["-j", 4]):
        assert run(model, *args, "-n", 2, "-q").stderr == "", args
    assert run(model, "-t", 4, "-n", 2, "--trace=json").stderr.startswith("{"), "which a trace has for itself"


def test_it_calls_itself_by_its_name(model, run, tmp_path):
    shutil.copy(run.path, tmp_path / "prenorm-here")
    here = type(run)(tmp_path / "prenorm-here")
    assert here(tmp_path / "none").stderr.startswith(f"prenorm-here: {tmp_path / 'none'}: ")
    here("--nope").check_refused(2, "prenorm-here: ", "prenorm-here --help")
    assert here("--help").stdout.startswith(b"usage: prenorm-here ")
    assert here(model, "-c", 9, "-n", -1, "-q").stderr.startswith("prenorm-here: the context of 9 ")


def test_the_manual_page_is_the_help(run):
    """Every option, its value and every word of what it does, where `make install` makes a page of it."""
    said = run("--help").stdout
    assert max(map(len, said.decode().splitlines())) <= 110
    page = subprocess.run(["awk", "-f", ROOT / "docs/man.awk"], input=said, capture_output=True, check=True)
    assert page.stderr == b""
    lines = page.stdout.decode().replace("\\-", "-").splitlines()
    assert [line.split()[0] for line in lines if line[0] == "."][:5] == [".TH", ".SH", ".SH", ".B", ".SH"]
    told = {line[3:] for before, line in zip(lines, lines[1:]) if before == ".TP"}
    for option in said.decode().split("\n\n", 2)[2].splitlines():
        names = option[:28].strip()
        if option.startswith("  ") and names:
            assert f"{names}" in told, f"{names} is missing"
            told.remove(names)
        assert option[28:] in lines or not option.startswith(" "), option
    assert not told
    if shutil.which("man"):
        shown = subprocess.run(["man", "--warnings", "-l", "-"], input=page.stdout, capture_output=True)
        assert shown.returncode == 0 and shown.stderr == b"" and b"--ignore-eos" in shown.stdout


def test_checkpoints_are_one(model, wide, run):
    run(model, wide).check_refused(2, model, wide)
    run().check_refused(2, "--help")
    run("").check_refused(2, "empty")


def test_one_prompt(model, run):
    run(model, "-i", "a", "-f", "b").check_refused(2, "-i", "-f")


def test_help_and_version(run, model):
    for option in ("-h", "--help"):
        outcome = run(option)
        assert (outcome.status, outcome.stderr) == (0, "")
        words = outcome.stdout.decode().replace(",", " ").split()
        for name in [*BAD, *MODES, *LONG.values(), *SWITCHES]:
            assert name in words
    outcome = run(model, "--version")
    assert (outcome.status, outcome.stderr) == (0, "")
    assert outcome.stdout.startswith(b"prenorm ") and outcome.stdout.endswith(b"\n")


def test_make_shows_a_line_a_file(tmp_path):
    """The command on request, and nothing where nothing is to be said."""
    target, shown = tmp_path / "utf8.o", {}
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "V")}
    for option in ("CC=cc", "V=1", "-s"):
        target.unlink(missing_ok=True)
        done = subprocess.run(["make", "--no-print-directory", "CC=cc", f"BUILD={tmp_path}", target, option],
                              cwd=ROOT, capture_output=True, text=True, check=True, env=env)
        shown[option] = done.stdout
        assert target.exists() and done.stderr == ""
    assert (shown["CC=cc"], shown["-s"]) == ("cc  utf8.c\n", "")
    assert shown["V=1"].count("\n") == 1 and "-std=c11" in shown["V=1"]
