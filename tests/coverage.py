"""coverage.py - which branches of the readers no test takes.

    python3 tests/coverage.py FOLDER file gguf ...      FOLDER: objects of gcc --coverage, after the tests

A branch is gcov's: each outcome of each condition. One that is not taken has to be explained in
tests/uncovered.txt, by its file, the line as it stands there, and why no test takes it. What is explained and
taken all the same is reported too.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent


def explained():
    """{(file, line of source): how many of its branches}"""
    found = Counter()
    for line in (HERE / "uncovered.txt").read_text().splitlines():
        if line.startswith("    ") and line[4] != " ":
            found[file, line.strip()] += 1
        elif line.endswith(":") and line.split()[0].endswith(".c:"):
            file = line[:-1]
    return found


def main(folder, *names):
    missing, total, taken = Counter(), 0, 0
    for name in names:
        command = ["gcov", "--branch-probabilities", "--json-format", "--stdout", f"{folder}/{name}.o"]
        report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        source = (HERE.parent / f"{name}.c").read_text().splitlines()
        for part in report["files"]:
            if part["file"] != f"{name}.c":
                continue
            counts = [(line["line_number"], branch["count"]) for line in part["lines"]
                      for branch in line["branches"]]
            hit = sum(count > 0 for _, count in counts)
            total, taken = total + len(counts), taken + hit
            print(f"{name}.c: {hit} of {len(counts)} branches, {100 * hit / len(counts):.1f} %")
            for number, count in counts:
                if not count:
                    missing[f"{name}.c", source[number - 1].strip()] += 1
    print(f"all: {taken} of {total} branches, {100 * taken / total:.1f} %")
    reasons = explained()
    for file, line in missing - reasons:
        print(f"not taken and not explained: {file}: {line}")
    for file, line in reasons - missing:
        print(f"explained as not taken, but taken: {file}: {line}")
    return missing != reasons


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
