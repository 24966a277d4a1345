#!/usr/bin/env python3
"""throughput.py - does the lab see a difference where there is one, and none where there is none?

    make && python3 tests/throughput.py [RUNS] [--quick]

RUNS comparisons (20) of ./run with itself, and as many with a build that spins for 5 % of each token's time.

Exits with 1 where more than one comparison in twenty of either kind comes out wrong.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from lab import throughput                              # noqa: E402
from lab.engine import Checkpoint, Engine, Trouble      # noqa: E402

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
    same = [path.parent for path in (program, *ROOT.glob("build/*/run"))
            if (path.parent / "model.o").exists() and path.read_bytes() == program.read_bytes()]
    if not same:
        raise Trouble(f"the objects that {program} was linked from are not there: make")
    objects = [path for path in [*same[0].glob("*.o"), *same[0].glob("kernels/*.o")]
               if path.name != "model.o" and not path.name.endswith(".norm.o")]
    objects.append(same[0] / "rmsnorm.norm.o")
    text, model = (ROOT / "model.c").read_text(), output.with_suffix(".c")
    assert text.count("float *forward(") == 1
    model.write_text(text.replace("float *forward(", "static float *plain_forward(") +
                     SPIN.replace("%s", str(slowdown)))
    flags = ["-std=c11", "-D_GNU_SOURCE", "-ffp-contract=off", "-falign-functions=64", "-O3", "-I", ROOT]
    subprocess.run(["cc", *flags, model, *objects, "-o", output, "-lm", "-lpthread"], check=True)
    return output


def compare(plain, other, effort, model=ROOT / "models" / "stories-rmsnorm.gguf"):
    engines = [Engine({"rmsnorm": program, "layernorm": program}) for program in (plain, other)]
    checkpoint = Checkpoint(engines[0], model)
    a, b = (lambda engine=engine: throughput.bench(engine, checkpoint, checkpoint.norm, effort)[0]
            for engine in engines)
    return throughput.compare(a, b, effort)


def right(found, planted):
    """Decode and prefill both: slower where a slowdown was planted, and no different where none was."""
    return all(found[phase]["differs"] == planted and (not planted or found[phase]["ratio"] > 1)
               for phase in throughput.PHASES)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="?", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="with the effort of QUICK=1")
    args = parser.parse_args()
    effort = throughput.QUICK if args.quick else throughput.Effort()
    wrong = {False: 0, True: 0}
    with tempfile.TemporaryDirectory() as folder:
        plain = ROOT / "run"
        programs = {False: plain, True: build_slower(plain, Path(folder) / "slower", 0.05)}
        for run in range(args.runs):
            for planted, program in programs.items():
                started = time.monotonic()
                found = compare(plain, program, effort)
                good = right(found, planted)
                wrong[planted] += not good
                seen = ", ".join(f"{phase} {found[phase]['ratio']:.4f} [{found[phase]['low']:.4f}, "
                                 f"{found[phase]['high']:.4f}]" for phase in throughput.PHASES)
                print(f"{run + 1:2} {'slower by 5 %' if planted else 'the same build'}: {seen}; "
                      f"{found['rounds']} rounds, {time.monotonic() - started:.0f} s"
                      f"{'' if good else '   WRONG'}", flush=True)
    for planted, count in wrong.items():
        print(f"{'slower by 5 %' if planted else 'the same build'}: {args.runs - count} of {args.runs} right")
    return max(wrong.values()) * 20 > args.runs


if __name__ == "__main__":
    sys.exit(main())
