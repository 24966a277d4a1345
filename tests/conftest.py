"""conftest.py - what the Python tests share: the programs under test, the models, and a run that cannot hang.

    pytest tests                                     tests ./run and ./run-layernorm
    pytest tests --run=PATH --run-layernorm=PATH     tests other builds of them, with sanitizers for example
    pytest tests/conformance.py --data DIR           compares with other engines, on real checkpoints
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import make_models

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))                           # for convert/


def pytest_addoption(parser):
    parser.addoption("--run", default=ROOT / "run", metavar="PATH", help="the program (./run)")
    parser.addoption("--run-layernorm", default=ROOT / "run-layernorm", metavar="PATH",
                     help="its build with NORM=layernorm (./run-layernorm)")
    parser.addoption("--chat-ids", metavar="PATH", help="tests/chat_ids.c, built")
    parser.addoption("--data", metavar="DIR", help="checkpoints and what other engines make of them")


class Outcome(NamedTuple):
    """How a run ended: the status as a shell says it, 130 after SIGINT. Any signal that nobody sends to end a
    program, or a sanitizer's report, is a failure, whatever the test is about."""

    status: int
    stdout: bytes
    stderr: str

    @classmethod
    def of(cls, process, stdout, stderr):
        stderr = stderr.decode(errors="replace")
        number = -process.returncode
        assert number in (signal.SIGINT, signal.SIGTERM) or number <= 0, \
            f"ended by signal {number}: {process.args}\n{stderr}"
        assert "Sanitizer" not in stderr and "runtime error" not in stderr, f"{process.args}\n{stderr}"
        return cls(128 + number if number > 0 else process.returncode, stdout, stderr)

    def check_refused(self, status, *words):
        """One line on standard error that has these words, and nothing on standard output."""
        assert self.status == status, self
        assert self.stdout == b"", self
        assert self.stderr.count("\n") == 1 and self.stderr.endswith("\n"), self
        for word in words:
            assert str(word) in self.stderr, f"{word!r} is missing from {self.stderr!r}"

    def statistic(self, name):
        """What stands behind a name among the statistics: statistic("seed") -> "42"."""
        lines = [line.split(None, 1) for line in self.stderr.splitlines()]
        found = [line[1] for line in lines if len(line) == 2 and line[0] == name]
        assert len(found) == 1, f"{name} wanted once in:\n{self.stderr}"
        return found[0]

    def fed(self):
        """How many tokens went through the model."""
        return sum(map(int, re.findall(r"^(?:prefill|decode) .* (\d+) tokens,", self.stderr, re.M)))


# Linux counts to a process's peak memory what its parent held when it was born, and pytest holds much. So a
# small process stands between, and says what each of the commands it reads has needed.
SPAWN = r"""
import os, sys
null = os.open(os.devnull, os.O_RDWR)
for line in sys.stdin:
    command = line.rstrip("\n").split("\0")
    quiet = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in range(3)]
    child = os.posix_spawn(command[0], command, os.environ, file_actions=quiet)
    print(os.wait4(child, 0)[2].ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


class Program:
    def __init__(self, path):
        self.path = Path(path).resolve()
        assert self.path.is_file(), f"{path} is not there: build it with make, or make NORM=layernorm"
        marks = (b"__asan_", b"__ubsan_", b"__tsan_", b"__msan_")
        self.sanitized = any(mark in self.path.read_bytes() for mark in marks)

    def command(self, args):
        return [str(self.path), *(arg if isinstance(arg, bytes) else str(arg) for arg in args)]

    def __call__(self, *args, stdin=b"", stdout=subprocess.PIPE, limit=60, **more):
        """Run to the end, or fail after `limit` seconds."""
        process = subprocess.run(self.command(args), input=stdin, stdout=stdout, stderr=subprocess.PIPE,
                                 timeout=limit, **more)
        return Outcome.of(process, process.stdout, process.stderr)

    def start(self, *args, stdout=subprocess.PIPE, **more):
        return subprocess.Popen(self.command(args), stdout=stdout, stderr=subprocess.PIPE, **more)

    def finish(self, process):
        return Outcome.of(process, *process.communicate(timeout=60))

    def peak_memory(self, *calls):
        """Bytes that each call, a tuple of arguments, has in memory at its height."""
        lines = ["\0".join(self.command(args)) for args in calls]
        spawner = subprocess.run([sys.executable, "-I", "-S", "-c", SPAWN], input="\n".join(lines), text=True,
                                 capture_output=True, check=True, timeout=600)
        return [int(line) for line in spawner.stdout.split()]


def pytest_configure():
    # Memory that is not there to be had is NULL in every build; a sanitizer would rather end the program.
    os.environ.setdefault("ASAN_OPTIONS", "allocator_may_return_null=1")


@pytest.fixture(scope="session")
def run(request):
    return Program(request.config.getoption("--run"))


@pytest.fixture(scope="session")
def run_layernorm(request):
    return Program(request.config.getoption("--run-layernorm"))


@pytest.fixture(scope="session")
def chat_ids(request):
    """chat_ids(GGUF file, template, system prompt, [(message, ids of the reply)]): as chat.c renders them.
    The template None: as the file says. Of the last reply: what there is of it."""
    path = request.config.getoption("--chat-ids")
    assert path, "which build of tests/chat_ids.c? --chat-ids PATH"

    def chat_ids(file, template, system, turns):
        def counted(text):
            text = text.encode() if isinstance(text, str) else text
            return b"%d\n" % len(text) + text

        parts = [counted(system), b"%d\n" % len(turns)]
        for message, reply in turns:
            parts += [counted(message), *(b"%d\n" % number for number in (len(reply), *reply))]
        process = subprocess.run([str(path), str(file), template or "-"], input=b"".join(parts),
                                 capture_output=True, timeout=60)
        outcome = Outcome.of(process, process.stdout, process.stderr)
        assert (outcome.status, outcome.stderr) == (0, ""), outcome
        return [int(id) for id in outcome.stdout.split()]

    return chat_ids


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """The folder of the models that make_models.py makes, their tokenizer.bin beside them."""
    folder = tmp_path_factory.mktemp("models")
    make_models.make(folder)
    return folder


@pytest.fixture
def model(models):
    return models / "gqa-v0-untied.bin"                 # a context of 64


@pytest.fixture
def wide(models):
    return models / "wide.bin"                          # a context of 1024, about a millisecond a token
