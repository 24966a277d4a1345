#!/usr/bin/env python3
"""throughput.py - does the lab see a difference where there is one, and none where there is none?

    make && make NORM=nonorm && make build/norms && .venv/bin/python tests/throughput.py [RUNS] [--quick]

RUNS comparisons (20) of ./run with itself, with itself linked in another order, and with a build that spins
for 5 % of each token's time. With --reports: so many speed parts of a report, of which no sentence may say
that a norm makes a difference larger than the time it takes.

Exits with 1 where more than one in twenty comes out wrong, or one report says so.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import ablate                                                       # noqa: E402
from lab import relink, throughput, verdicts                        # noqa: E402
from lab.engine import Checkpoint, Engine                           # noqa: E402

MODEL = ROOT / "models" / "stories-rmsnorm.gguf"
KINDS = {"plain": "the same build", "relinked": "in another order", "slower": "slower by 5 %"}
BOUND = 1.0                     # per cent of a token's time: more than the norms of the default model take

# A forward pass, and then 5 % of the least time that one of so many tokens has taken.
SPIN = r"""
#include <time.h>
static double clock_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
float *forward(const Model *m, State *s, const int *tokens, int T, int pos, int wanted) {
    static double least[PROMPT_CHUNK + 1];
    double started = clock_now();
    float *logits = plain_forward(m, s, tokens, T, pos, wanted);
    double done = clock_now(), taken = done - started;
    if (least[T] == 0 || taken < least[T]) least[T] = taken;
    while (clock_now() < done + %s * least[T]) {}
    return logits;
}
"""


def build_slower(program, output, slowdown):
    """The program once more, from its objects and a model.c that is slower."""
    objects = [path for path in relink.objects(program) if path.name != "model.o"]
    text, model = (ROOT / "model.c").read_text(), output.with_suffix(".c")
    assert text.count("float *forward(") == 1
    model.write_text(text.replace("float *forward(", "static float *plain_forward(") +
                     SPIN.replace("%s", str(slowdown)))
    flags = ["-std=c11", "-D_GNU_SOURCE", "-ffp-contract=off", "-falign-functions=64", "-O3", "-I", ROOT]
    subprocess.run(["cc", *flags, "-c", model, "-o", output.with_suffix(".o")], check=True)
    return relink.link([output.with_suffix(".o"), *objects], output)


class Bench:
    """Compares other programs with ./run, and with ./run linked in other orders."""

    def __init__(self, plain, relinked, effort):
        self.effort, self.plain = effort, self.process(plain)
        self.relinked = [self.process(program) for program in relinked]

    def process(self, program):
        engine = Engine({"rmsnorm": program})
        model = Checkpoint(engine, MODEL)
        return lambda: throughput.bench(engine, model, "rmsnorm", self.effort)

    def compare(self, program):
        """A verdict and its control for decode, and for prefill."""
        logs, control = throughput.compare({"plain": self.plain, "other": self.process(program)},
                                           self.relinked, self.effort)
        return verdicts.judge([((logs["other"] - logs["plain"])[:, i], BOUND, control[:, i])
                               for i in range(len(throughput.PHASES))])


def right(kind, found):
    """A slowdown is found in decode and in prefill; what does the same differs by placement or not at all."""
    if kind == "slower":
        return all(w["verdict"] == "differs" and w["value"] > 0 for w, _ in found)
    return all(w["told_as"] in (None, "placement") for w, _ in found)


def compare_all(runs, effort):
    wrong = dict.fromkeys(KINDS, 0)
    with tempfile.TemporaryDirectory() as folder:
        plain = ROOT / "run"
        bench = Bench(plain, relink.relinked(plain, folder, effort.orders), effort)
        slower = build_slower(plain, Path(folder) / "slower", 0.05)
        for run in range(runs):
            (other,) = relink.relinked(plain, folder, 1, first=100 + run)
            for kind, program in (("plain", plain), ("relinked", other), ("slower", slower)):
                started = time.monotonic()
                found = bench.compare(program)
                good = right(kind, found)
                wrong[kind] += not good
                print(f"{run + 1:2} {KINDS[kind]}{'' if good else ', WRONG'}: "
                      f"{time.monotonic() - started:.0f} s",
                      *(f"{phase}: {verdicts.sentence('it', *of_phase)}"
                        for phase, of_phase in zip(throughput.PHASES, found)), sep="\n       ", flush=True)
    for kind, count in wrong.items():
        print(f"{KINDS[kind]}: {runs - count} of {runs} right")
    return max(wrong.values()) * 20 > runs


def claims(report):
    return [whole for c in report["checkpoints"] for phase in throughput.PHASES
            for whole in c["speed"][phase]["whole"].values()]


def overstated(report):
    """Sentences by which a norm makes a difference that is larger than all the time it takes."""
    for c in report["checkpoints"]:
        for phase in throughput.PHASES:
            most = max(100 * share["high"] for share in c["speed"][phase]["share"].values())
            for sentence in throughput.sentences(c["speed"], phase):
                if re.search("not resolved|differ by no more|placement of code|something else", sentence):
                    continue
                if any(abs(float(x)) > most + 0.01 for x in re.findall(r"(\d+\.\d+) %", sentence)):
                    yield sentence


def report_all(reports, effort):
    """Speed parts of the default report, one after the other."""
    engine = Engine({"rmsnorm": ROOT / "run", "layernorm": ROOT / "run-layernorm",
                     "nonorm": ROOT / "run-nonorm"})
    models, bad, counts = [Checkpoint(engine, path) for path in ablate.TWINS], 0, {}
    for number in range(1, reports + 1):
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            speeds, whole = ablate.measure_time(engine, models, ROOT / "build/norms", effort, folder,
                                                lambda text: None)
        report = whole | {"checkpoints": [{"name": model.name, "speed": speed}
                                          for model, speed in zip(models, speeds)]}
        wrong = list(overstated(report))
        bad += bool(wrong)
        told = [claim["told_as"] or claim["verdict"] for claim in claims(report)]
        for verdict in told:
            counts[verdict] = counts.get(verdict, 0) + 1
        print(f"{number:2} {time.monotonic() - started:.0f} s: {', '.join(told)}", *wrong, sep="\n   ",
              flush=True)
    print(f"reports that overstate a norm: {bad} of {reports}; verdicts: {counts}")
    return bad > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="?", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="with the effort of QUICK=1")
    parser.add_argument("--reports", action="store_true", help="whole speed parts, not comparisons")
    args = parser.parse_args()
    effort = throughput.QUICK if args.quick else throughput.Effort()
    return (report_all if args.reports else compare_all)(args.runs, effort)


if __name__ == "__main__":
    sys.exit(main())
