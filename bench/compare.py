"""compare.py - this engine, llama.cpp, and what the machine can do at all, side by side in one run.

    make bench                                        the 110M model in every type
    make bench BENCH="--shape 1.1B --types Q8_0,F16"  or .venv/bin/python bench/compare.py with these
    make bench BENCH="--against RUN"                  another build of this program in llama.cpp's place
    .venv/bin/python bench/compare.py --show FILE     the table of an earlier run

Every round measures the limits, this engine and llama.cpp, one after the other, each in a process of its own
that warms up first, and runs once; in the next round llama.cpp comes before this engine. So whatever else the
machine does disturbs all of them alike. A prompt of 512 is read, then 128 tokens are written. All that was
measured goes into a JSON file, the plot beside it.
"""

import argparse
import datetime
import importlib.util
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import models
import report

ROOT = Path(__file__).resolve().parent.parent


def fail(sentence):
    sys.exit(f"compare.py: {sentence}")


# ---------------------------------------------------------------------------- what is measured


def run_json(*command):
    """What a program reports. A shell stands between: Linux counts to a process's peak memory what its
    parent held when it was born, and we hold much."""
    command = [str(word) for word in command]
    done = subprocess.run(["sh", "-c", '"$@"; exit $?', "sh", *command], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        fail(f"{shlex.join(command)}: {said[-1] if said else f'exit status {done.returncode}'}")
    return json.loads(done.stdout)


def measure_limits(given, *words):
    kernels = ["--kernels", given.kernels] if given.kernels else []
    return run_json(given.limits, *words, "-j", given.threads, *kernels)


def measure_run(given, run, file):
    kernels = ["--kernels", given.kernels] if given.kernels else []
    return run_json(run, file, "-m", "bench", "-n", 1, "--json", "-q", "-j", given.threads, *kernels)


class LlamaPython:
    """llama.cpp in the Python package llama-cpp-python."""

    def __init__(self):
        self.peer = [sys.executable, ROOT / "bench/peer.py"]
        self.about = run_json(*self.peer, "--about")

    def measure(self, given, file):
        return run_json(*self.peer, file, "-j", given.threads, "-r", 1)


class LlamaBench:
    """llama.cpp's own program; it reads and writes in two calls, and says nothing about memory."""

    def __init__(self, path):
        self.path = path
        self.about = {"version": "llama-bench", "system_info": "it has not said"}

    def measure(self, given, file):
        fixed = ["-m", file, "-t", given.threads, "-r", 1, "-b", 512, "-ub", 512,
                 "-ngl", 0, "-o", "json"]
        (read,) = run_json(self.path, *fixed, "-p", 512, "-n", 0)
        (wrote,) = run_json(self.path, *fixed, "-p", 0, "-n", 128, "-d", 512)
        self.about = {"version": f"llama-bench {read.get('build_number')} ({read.get('build_commit')})",
                      "system_info": f"{read.get('cpu_info')}, {read.get('backends')}"}
        return {"prefill": {"tokens": 512, "runs": read["samples_ts"]},
                "decode": {"tokens": 128, "runs": wrote["samples_ts"]}, "threads": given.threads}


class OtherBuild:
    """This program once more: by another compiler, or of another commit."""

    def __init__(self, path):
        self.path = path.resolve()
        self.about = {"name": "other build", "version": first_line(self.path, "--version"),
                      "system_info": str(path)}

    def measure(self, given, file):
        return measure_run(given, self.path, file)


def find_peer(given):
    if given.without_peer:
        return None
    if given.against:
        return OtherBuild(given.against)
    if given.llama_bench:
        return LlamaBench(given.llama_bench)
    if importlib.util.find_spec("llama_cpp"):
        return LlamaPython()
    note("llama.cpp is not installed, so the comparison is with the limits alone; `make peers` sets it up")
    return None


def measure_row(given, shape, type, peer):
    file = models.make(given.models, shape, type)
    row = {"shape": shape, "type": type, "file_bytes": file.stat().st_size,
           "limits": [], "ours": [], "theirs": []}
    sides = [("ours", lambda: measure_run(given, given.run, file))]
    if peer:
        sides.append(("theirs", lambda: peer.measure(given, file)))
    for round in range(given.rounds):
        note(f"{file.name}: round {round + 1} of {given.rounds}")
        row["limits"].append(measure_limits(given, file, "--quick"))
        for side, measure in sides if round % 2 == 0 else reversed(sides):
            row[side].append(measure())
    row["summary"] = report.summarize(row)
    return row


def measure_stories(given):
    """Milliseconds of the whole command, from its start to its end."""
    command, taken = [given.run, given.stories, "-t", "0", "-n", "200", "-j", str(given.threads)], []
    for _ in range(3 if given.quick else 20):
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True)
        taken.append(1e3 * (time.perf_counter() - started))
        if done.returncode:
            fail(done.stderr.strip())
    tokens = re.search(r"^decode .* (\d+) tokens,", done.stderr, re.M)      # a story may end early
    return {"file": Path(given.stories).name, "tokens": int(tokens[1]) + 1 if tokens else 1,
            "milliseconds": taken}


# ---------------------------------------------------------------------------- where it is measured


def first_line(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.split("\n")[0]
    except OSError:
        return ""


def cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def about_machine():
    return {"cpu": cpu_name(), "processors": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0],
            "system": f"{platform.system()} {platform.release()}"}


# ---------------------------------------------------------------------------- the command line


def note(text):
    print(text, file=sys.stderr, flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--shape", default="110M", help=f"any of {', '.join(models.SHAPES)}, with commas (110M)")
    add("--types", help="with commas (all that fit the shape)")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of all who are measured")
    add("--rounds", type=int, help="turns for each (5)")
    add("--kernels", help="of this engine, and of its limits (the fastest)")
    add("--quick", action="store_true", help="one round, and no limits of the machine before and after")
    add("--out", type=Path, help="the JSON file (bench/results/DATE-SHAPE.json)")
    add("--markdown", action="store_true", help="print the table as Markdown")
    add("--show", type=Path, metavar="FILE", help="measure nothing, print the table of this JSON file")
    add("--stories", metavar="FILE", help="also the whole command of 200 tokens, by stories260K")
    add("--models", type=Path, default=ROOT / "build/bench", help="where models are made (build/bench)")
    add("--llama-bench", metavar="PATH", help="measure llama.cpp with its own program")
    add("--against", metavar="RUN", type=Path, help="another build of this program, in llama.cpp's place")
    add("--without-peer", action="store_true", help="against the limits alone")
    add("--run", default=ROOT / "run", help="the program (./run)")
    add("--limits", default=ROOT / "build/limits", help="bench/limits.c, built (build/limits)")
    add("--compiler", help="that built them, for the record")
    given = parser.parse_args()
    if given.rounds is None:
        given.rounds = 1 if given.quick else 5
    return given


def rows_wanted(given):
    """(shape, type) of every row; of the types that nobody named, those that fit."""
    shapes, named = given.shape.split(","), given.types.split(",") if given.types else []
    for shape in shapes:
        if shape not in models.SHAPES:
            fail(f"--shape {shape}: one of {', '.join(models.SHAPES)} is wanted")
    for type in named:
        if type not in models.TYPES:
            fail(f"--types {type}: of {', '.join(models.TYPES)} are wanted")
        for shape in shapes:
            if not models.fits(models.SHAPES[shape], type):
                fail(f"--types {type}: the rows of {shape} are not whole blocks of it")
    return [(shape, type) for shape in shapes for type in named or models.TYPES
            if models.fits(models.SHAPES[shape], type)]


def check(given):
    if given.threads < 1 or given.rounds < 1:
        fail("--threads and --rounds: at least 1")
    for path, cure in ((given.run, "build it with make"), (given.limits, "build it with make build/limits"),
                       (given.llama_bench, "name llama.cpp's program"),
                       (given.against, "name a build of this program"), (given.stories, "name a model")):
        if path and not Path(path).is_file():
            fail(f"{path} is not there: {cure}")


def save(result, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def measure(given):
    check(given)
    wanted, machine, peer = rows_wanted(given), about_machine(), find_peer(given)
    if machine["load"] > 0.5:
        note(f"this machine is busy (load {machine['load']:.1f}): the numbers will say little")
    now = datetime.datetime.now().astimezone()
    result = {
        "date": now.isoformat(timespec="seconds"), "machine": machine, "threads": given.threads,
        "compiler": given.compiler or first_line("cc", "--version"), "rounds": given.rounds,
        "commit": first_line("git", "describe", "--always", "--dirty") or "unknown",
        "command": shlex.join(["python3", *sys.argv]), "kernels": None, "peer": None,
        "limits": [], "rows": [], "stories": None,
    }
    out = given.out or ROOT / "bench/results" / f"{now:%Y-%m-%d-%H%M}-{given.shape}.json"
    result["limits"] = [] if given.quick else [measure_limits(given)]
    for shape, type in wanted:
        result["rows"].append(measure_row(given, shape, type, peer))
        result["kernels"] = result["rows"][0]["ours"][0]["kernels"]
        result["peer"] = peer and peer.about
        save(result, out)                               # what was measured is there, however this run ends
    if not given.quick:
        result["limits"].append(measure_limits(given))
    if given.stories:
        result["stories"] = measure_stories(given)
    save(result, out)
    picture = out.with_suffix(".svg")
    if not report.plot(result, picture):
        picture = "no plot: pip install -r bench/requirements.txt"
    note(f"{out}, {picture}")
    return result


def main():
    given = parse()
    if given.show:
        try:
            result = json.loads(given.show.read_text())
            for row in result["rows"]:
                row["summary"] = report.summarize(row)
        except (OSError, ValueError) as error:
            fail(f"{given.show}: {error}")
        except (KeyError, TypeError):
            fail(f"{given.show}: not a record of this program's measurements")
    else:
        result = measure(given)
    print("\n".join(report.table(result, given.markdown)))


if __name__ == "__main__":
    main()
