#!/usr/bin/env python3
"""How many of a model's stories are stories of the grammar?

    python3 train/check.py ./run models/stories-rmsnorm.gguf -n 100 -t 0.8

Writes n stories, of seeds 1 to n, and reads each back by the rules of stories.txt. Exits with 1 if fewer than
95 of 100 can be read to the end.
"""

import argparse
import subprocess
import sys

from stories import Grammar, Misread


def write_story(binary, model, temperature, seed):
    """The text that the model writes, without the newline at its end."""
    command = [binary, model, "-t", str(temperature), "-s", str(seed), "-n", "-1", "-j", "1", "-q",
               "-i", "Once upon a time"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        sys.stderr.buffer.write(done.stderr)
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}")
    return done.stdout.decode(errors="replace").removesuffix("\n")


def main():
    parser = argparse.ArgumentParser(description="How many of a model's stories are stories of the grammar?")
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("-n", type=int, default=100, help="stories (100)")
    parser.add_argument("-t", type=float, default=0.8, help="temperature (0.8)")
    args = parser.parse_args()
    grammar = Grammar()
    read = 0
    for seed in range(1, args.n + 1):
        try:
            grammar.read(write_story(args.binary, args.model, args.t, seed))
            read += 1
        except Misread as error:
            print(f"seed {seed}: {error}")
    print(f"{args.model}: {read} of {args.n} stories at temperature {args.t:g} can be read")
    return read * 100 < 95 * args.n


if __name__ == "__main__":
    sys.exit(main())
