#!/usr/bin/env python3
"""How many of a model's stories are stories of the grammar?

    python3 train/check.py ./run models/stories-rmsnorm.gguf [own] [openings] [asked] [-n 100] [-t 0.8]

Writes n stories that begin with "Once upon a time", of seeds 1 to n ("own"); n that go on from the openings
of tests/openings.txt in turn, which a person wrote ("openings"); and n that are asked for in a conversation
("asked"). Each is read back by the rules of stories.txt. Where an opening is none of theirs, the rest of the
story is read, from the first sentence that the model began. Exits with 1 if fewer than 95 of 100 can be read
to the end, 85 of 100 from the openings, or 85 of 100 that were asked for.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from stories import SENTENCE, Grammar, Misread

OPENINGS = Path(__file__).resolve().parent.parent / "tests" / "openings.txt"
ASKED = ["Tell me a story about a fox.", "Please tell me a story about a brave little bear.",
         "Can you tell me a story about a dog?", "A story about a girl named Mia, please.",
         "I want a story about a cat and a kite!", "Write a story about a clever mouse.",
         "Tell me a story about a lost toy.", "Tell a story about a boy named Leo.",
         "Tell me a story about a rabbit who wanted to swim.",
         "Please tell me a story about a noise at night."]


def run(binary, model, options, text=b""):
    """What the model writes, without the newline at its end."""
    command = [binary, model, *options, "-j", "1", "-q"]
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        sys.stderr.buffer.write(done.stderr)
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}")
    return done.stdout.decode(errors="replace").removesuffix("\n")


def go_on(binary, model, temperature, seed, opening):
    return run(binary, model, ["-t", str(temperature), "-s", str(seed), "-n", "-1", "-i", opening])


def reply(binary, model, temperature, seed, message):
    """What the model says to a message in a conversation."""
    options = ["-m", "chat", "-t", str(temperature), "-s", str(seed), "-n", "-1"]
    return run(binary, model, options, message.encode() + b"\n").strip()


def read_on(grammar, opening, text):
    """Reads a whole story, or what follows the sentence in which the opening ends."""
    try:
        grammar.read(text)
    except Misread as error:
        starts = [m.end() for m in SENTENCE.finditer(text) if m.end() > len(opening)]
        if not starts:
            raise error
        grammar.read_rest(text[starts[0]:])


def read_reply(talk, message, text):
    talk.read(f"{message}§{text}§Thank you!§You are welcome. Good night!")


def check(name, n, floor, write, read):
    """Writes n texts and reads each; True where too few can be read."""
    good = 0
    for seed in range(1, n + 1):
        text = write(seed)
        try:
            read(seed, text)
            good += 1
        except Misread as error:
            print(f"{name}, seed {seed}: {error}")
    print(f"{name}: {good} of {n} can be read", flush=True)
    return good * 100 < floor * n


def main():
    parser = argparse.ArgumentParser(description="How many of a model's stories are stories of the grammar?")
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("kinds", nargs="*", help="own, openings, asked (all of them)")
    parser.add_argument("-n", type=int, default=100, help="stories of each kind (100)")
    parser.add_argument("-t", type=float, default=0.8, help="temperature (0.8)")
    args = parser.parse_args()
    story, talk = Grammar(), Grammar(start="conversation")
    openings = OPENINGS.read_text(encoding="utf-8").splitlines()
    model = args.binary, args.model, args.t

    def opening(seed):
        return openings[(seed - 1) % len(openings)]

    def asked(seed):
        return ASKED[(seed - 1) % len(ASKED)]

    kinds = {
        "own": (95, lambda seed: go_on(*model, seed, "Once upon a time"),
                lambda seed, text: story.read(text)),
        "openings": (85, lambda seed: go_on(*model, seed, opening(seed)),
                     lambda seed, text: read_on(story, opening(seed), text)),
        "asked": (85, lambda seed: reply(*model, seed, asked(seed)),
                  lambda seed, text: read_reply(talk, asked(seed), text))}
    if unknown := set(args.kinds) - kinds.keys():
        parser.error(f"{' '.join(unknown)}: expected {', '.join(kinds)}")
    return any([check(kind, args.n, *kinds[kind]) for kind in args.kinds or kinds])


if __name__ == "__main__":
    sys.exit(main())
