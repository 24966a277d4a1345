"""mistakes.py - what is easily got wrong about a norm, planted one at a time in a copy of the tree.

    python3 tests/mistakes.py                          do the C tests see each of them?
    python3 tests/mistakes.py --perplexity MODEL TEXT  what does each cost the model on the text? (-c CONTEXT)

Some can hardly be seen in what a model writes. That is why tests have to see them.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BY_HAND = """for (int i = 0; i < w->dim; i++)
        out[i] = (float)((x[i] - {center}) / sqrt({square} + w->eps)) + (w->bias ? w->bias[i] : 0);"""

# (name, function in rmsnorm.c, what stands there, what a reader would write); ... stands for anything.
MISTAKES = [
    ("eps outside the root", "rmsnorm", "sqrt(mean_square + w->eps)", "(sqrt(mean_square) + w->eps)"),
    ("eps outside the root", "layernorm", "sqrt(variance + w->eps)", "(sqrt(variance) + w->eps)"),
    ("no eps", "rmsnorm", "mean_square + w->eps", "mean_square"),
    ("no eps", "layernorm", "variance + w->eps", "variance"),
    ("over n - 1", "rmsnorm", "mean_square + w->eps", "mean_square * w->dim / (w->dim - 1) + w->eps"),
    ("over n - 1", "layernorm", "variance + w->eps", "variance * w->dim / (w->dim - 1) + w->eps"),
    ("weight forgotten", "rmsnorm", r"kernels.normalize(...);",
     BY_HAND.format(center=0, square="mean_square")),
    ("weight forgotten", "layernorm", r"kernels.normalize(...);",
     BY_HAND.format(center="mean", square="variance")),
    ("mean not subtracted", "layernorm", "x, mean,", "x, 0,"),
    ("the other norm", "rmsnorm", "{...}", "{\n    layernorm(out, x, w);\n}"),
    ("the other norm", "layernorm", "{...}", "{\n    rmsnorm(out, x, w);\n}"),
]
FORWARD = ("no norm before the logits",
           "norm(s, s->xb, s->x + (size_t)(T - wanted) * c->dim, &w->final_norm);",
           "memcpy(s->xb, s->x + (size_t)(T - wanted) * c->dim, (size_t)wanted * c->dim * sizeof(float));")


def mistakes_of(norm):
    """(name, file, its text with the mistake) of every mistake that a build of this norm can have."""
    source = (ROOT / "rmsnorm.c").read_text()
    [function] = re.findall(rf"^void {norm}\(float.*?^}}\n", source, re.M | re.S)
    for name, where, right, wrong in MISTAKES:
        if where == norm:
            pattern = re.escape(right).replace(r"\.\.\.", ".*?" if ";" in right else ".*")
            changed, count = re.subn(pattern, lambda _: wrong, function, flags=re.S)
            assert count == 1, f"{name}: {right} occurs {count} times in {norm}()"
            yield name, "rmsnorm.c", source.replace(function, changed)
    source = (ROOT / "model.c").read_text()
    assert source.count(FORWARD[1]) == 1, FORWARD[1]
    yield FORWARD[0], "model.c", source.replace(*FORWARD[1:])


class Copy:
    """A copy of the tree with a build of its own, in which one file at a time is changed."""

    def __init__(self, folder, norm, cflags="-O1"):
        self.folder, self.norm, self.cflags = Path(folder), norm, cflags
        for name in ("kernels", "tests"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in [*ROOT.glob("*.[ch]"), ROOT / "Makefile"]:
            shutil.copy(path, self.folder)

    def make(self, *targets):
        command = ["make", "-s", "-j2", f"NORM={self.norm}", f"CFLAGS={self.cflags}", "BUILD=build", *targets]
        # Nothing of a make that we are called by: it may build with sanitizers.
        process = subprocess.run(["env", "-u", "MAKEFLAGS", "-u", "MAKELEVEL", "-u", "MFLAGS", *command],
                                 cwd=self.folder, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr

    def change(self, name, text):
        (self.folder / name).write_text(text)

    def failing(self, tests):
        """The first line of complaint of each test that fails."""
        programs = [f"build/{self.norm}/{test}" for test in tests]
        self.make(*programs)
        runs = [subprocess.run([self.folder / path], capture_output=True, text=True) for path in programs]
        return {test: (run.stdout + run.stderr).partition("\n")[0]
                for test, run in zip(tests, runs) if run.returncode}

    def perplexity(self, model, text, context):
        name = "run" if self.norm == "rmsnorm" else f"run-{self.norm}"
        self.make(f"build/{name}")
        run = subprocess.run([self.folder / "build" / name, model, "-m", "perplexity", "-f", text, "--json",
                              *(["-c", context] if context else [])], capture_output=True, text=True)
        return json.loads(run.stdout)["perplexity"] if run.returncode == 0 else run.stderr.strip()


TESTS = ["test_rmsnorm", "test_formulas"]


def tried(norm, folder):
    """(name, {test: its complaint}) of the right tree first, and of every mistake."""
    copy = Copy(folder, norm)
    yield "none", copy.failing(TESTS)
    for name, file, text in mistakes_of(norm):
        right = (ROOT / file).read_text()
        copy.change(file, text)
        yield name, copy.failing(TESTS)
        copy.change(file, right)


def print_perplexities(model, text, context):
    info = subprocess.run([ROOT / "run", model, "-m", "info", "--json"], capture_output=True, check=True)
    norm = json.loads(info.stdout)["norm"]
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(folder, norm, "-O3")
        print(f"{'perplexity of ' + Path(model).name:40}{copy.perplexity(model, text, context)}", flush=True)
        for name, file, changed in mistakes_of(norm):
            right = (ROOT / file).read_text()
            copy.change(file, changed)
            print(f"{name:40}{copy.perplexity(model, text, context)}", flush=True)
            copy.change(file, right)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--perplexity", nargs=2, metavar=("MODEL", "TEXT"))
    parser.add_argument("-c", dest="context", metavar="CONTEXT")
    args = parser.parse_args()
    if args.perplexity:
        return print_perplexities(*(str(Path(path).resolve()) for path in args.perplexity), args.context)
    unseen = 0
    for norm in ("rmsnorm", "layernorm"):
        with tempfile.TemporaryDirectory() as folder:
            for name, failing in tried(norm, folder):
                unseen += bool(failing) == (name == "none")
                print(f"{norm:10}{name:28}{', '.join(failing) or 'no test fails'}", flush=True)
    return unseen


if __name__ == "__main__":
    sys.exit(main())
