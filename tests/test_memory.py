"""test_memory.py - every allocation of every mode fails once: the program ends in one line with status 1, or
it does without and writes what it always writes. tests/fail_malloc.c stands before malloc.
"""

import os
import subprocess
from pathlib import Path

import pytest

import damage
from gguf_bytes import STRING, Tensor, array, text

MODES = {
    "generate": ("-i", damage.PROMPT, "-n", 4, "-t", 0),
    "generate, sampled": ("-i", damage.PROMPT, "-n", 4, "-s", 1, "-k", 5),
    "generate, logits": ("-i", damage.PROMPT, "-n", 2, "-t", 0, "--logits", "logits.npy"),
    "generate, traced": ("-i", "a", "-n", 1, "-t", 0, "--trace"),
    "generate, from a file": ("-f", "prompt.txt", "-n", 4, "-t", 0),
    "chat": ("-m", "chat", "--template", "llama2", "-y", "a", "-n", 4, "-t", 0, "-c", 64),
    "perplexity": ("-m", "perplexity", "-i", damage.PROMPT * 9, "-c", 8),
    "bench": ("-m", "bench", "-n", 1, "-c", 16),
    "tokenize": ("-m", "tokenize", "-i", damage.PROMPT),
    "info": ("-m", "info"),
    "info, for programs": ("-m", "info", "--json"),
    "help": ("--help",),
}


def byte_level():
    bpe = damage.ggml("model", text("gpt2"))
    bpe = bpe.pair("tokenizer.ggml.pre", text("gpt-2"))
    return bpe.pair("tokenizer.ggml.merges", array(STRING, ["a b", "ab a"]))


def half_norms():
    """A norm in F16, which is widened, and a bias."""
    file = damage.GOOD.tensor("output_norm.weight", type=1, data=b"\0\x3c" * damage.DIM)
    return damage.replace(file, tensors=[*file.tensors, Tensor("output_norm.bias", [damage.DIM],
                                                               b"\0\0" * damage.DIM, 30)])


FILES = {"SentencePiece": lambda: damage.GOOD, "byte-level BPE": byte_level, "norms in F16": half_norms}


@pytest.fixture(scope="module")
def fail_malloc(run, tmp_path_factory):
    if run.sanitized:
        pytest.skip("a sanitizer brings its own malloc")
    library = tmp_path_factory.mktemp("library") / "fail_malloc.so"
    source = Path(__file__).with_name("fail_malloc.c")
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", source, "-o", library], check=True)
    return library


@pytest.fixture
def sweep(run, fail_malloc, tmp_path):
    def check(file, arguments):
        (tmp_path / "prompt.txt").write_text(damage.PROMPT)

        def once(number):
            environment = {**os.environ, "LD_PRELOAD": str(fail_malloc), "FAIL_MALLOC": str(number),
                           "COUNT_MALLOC": str(tmp_path / "count")}
            return run(file, *arguments, "-q", "-j", 2, stdin=b"a\nb\n", cwd=tmp_path, env=environment)

        whole = once(0)
        assert whole.status == 0, whole
        n, failed, problems = int((tmp_path / "count").read_text().split()[-1]), 0, []
        for number in range(1, n + 1):
            try:
                outcome = once(number)
                failed += outcome.status
                if outcome.status == 0:                 # info describes the file, and says what refuses it
                    assert (outcome.stdout == whole.stdout or "bench" in arguments or
                            "info" in arguments and b"no memory" in outcome.stdout), outcome
                else:
                    *before, last = outcome.stderr.splitlines()
                    assert outcome.status == 1 and last.startswith("run: ") and "memory" in last, outcome
                    assert not before or "--trace" in arguments, outcome
            except AssertionError as problem:
                problems.append(f"allocation {number} of {n}: {str(problem)[:300]}")
        assert not problems, "\n".join(problems)
        return failed

    return check


@pytest.mark.parametrize("mode", MODES)
def test_every_allocation_of_a_mode(mode, sweep, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(damage.GOOD))
    assert sweep(path, MODES[mode]) >= (mode != "help")


@pytest.mark.parametrize("kind", FILES)
def test_every_allocation_for_a_file(kind, sweep, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(FILES[kind]()))
    assert sweep(path, MODES["generate"]) > 10


def test_every_allocation_for_llama2c(sweep, models):
    assert sweep(models / "gqa-v1-untied.bin", MODES["generate"]) > 10
