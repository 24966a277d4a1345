#!/usr/bin/env python3
"""Tell stories by the rules of stories.txt, read them back, and say exactly how likely each one is.

    python3 train/stories.py              # one story
    python3 train/stories.py -n 3 -s 7    # three, of seed 7
    python3 train/stories.py --floor      # how many there are, and their entropy

Every choice is uniform, and a story can be read in one way only (tests/test_stories.py proves it). So the
probability of a story is the product of its choices' probabilities, and the entropy of the stories is the
mean sum of its choices' entropies: the floor that no model's loss can pass. (Shannon 1948, section 6: H(x, y)
= H(x) + H(y | x), where H(y | x) is the mean over x.)
"""

import argparse
import math
import os.path
import random
import re
from pathlib import Path

# What a telling is made of. A str is said as it is.
#   ("tell", rule, name)   a telling of the rule, remembered as name if that is not None
#   ("one of", options)    one of some tellings
#   ("again", name)        what was remembered
#   ("set", name, text)    remembered without being said
PIECE = re.compile(r"<(?:(?P<keep>\w+) = )?(?P<rule>[^<>]+)>|\[(?P<options>[^]]+)\]"
                   r"|\{(?P<name>\w+) := (?P<text>\w+)\}|\{(?P<again>\w+)\}|¶|[^<[{¶]+")


class Misread(ValueError):
    """A text that is no story, and how far it was one."""

    def __init__(self, at, text):
        super().__init__(f"no story from character {at}: {text[:at][-40:]!r} goes on with {text[at:][:40]!r}")
        self.at = at


def pieces(line):
    """The telling written in one line of the rules."""
    out = []
    for m in PIECE.finditer(line):
        if m["rule"]:
            out.append(("tell", m["rule"], m["keep"]))
        elif m["options"]:
            out.append(("one of", [pieces(option) for option in m["options"].split("|")]))
        elif m["name"]:
            out.append(("set", m["name"], m["text"]))
        elif m["again"]:
            out.append(("again", m["again"]))
        else:
            out.append("\n" if m[0] == "¶" else m[0])
    return out


def read_rules(path=Path(__file__).with_name("stories.txt")):
    """{rule: its tellings}, in the order of the file."""
    rules = {}
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith("        "):
            tellings[-1] += ("" if tellings[-1].endswith("|") else " ") + line.strip()
        elif line.startswith("    "):
            tellings.append(line.strip())
        elif line and not line.startswith("#"):
            assert line not in rules, f"two rules named {line!r}"
            tellings = rules[line] = []
    return {rule: [pieces(telling) for telling in tellings] for rule, tellings in rules.items()}


def said_again(memory, name):
    """{thing} is the thing; {Thing} is the thing with a capital letter."""
    if name in memory:
        return memory[name]
    text = memory[name.lower()]
    return text[0].upper() + text[1:]


class Grammar:
    def __init__(self, rules=None, start="story"):
        self.rules = rules or read_rules()
        self.start = [("tell", start, None)]

    # To tell and to read are the same walk over the same pieces. The teller draws each choice; the reader
    # finds out which one was taken. A derivation is the list of the choices, each as (which, of how many).

    def tell(self, rng):
        """A story and its derivation."""
        derivation = []
        return self._tell(self.start, {}, derivation, rng), derivation

    def _tell(self, telling, memory, derivation, rng):
        said = []
        for piece in telling:
            if isinstance(piece, str):
                said.append(piece)
            elif piece[0] == "again":
                said.append(said_again(memory, piece[1]))
            elif piece[0] == "set":
                memory[piece[1]] = piece[2]
            else:
                options = self._options(piece)
                which = int(rng.random() * len(options))
                if len(options) > 1:
                    derivation.append((which, len(options)))
                said.append(self._tell(options[which], memory, derivation, rng))
                if piece[0] == "tell" and piece[2]:
                    memory[piece[2]] = said[-1]
        return "".join(said)

    def read(self, text):
        """The derivation of a story. Raises Misread where the text is none."""
        self.furthest = 0
        end, derivation = self._read(self.start, {}, text, 0)
        if end != len(text):
            raise Misread(self.furthest if end is None else end, text)
        return derivation

    def _read(self, telling, memory, text, at):
        """Where the telling that begins at text[at] ends, and its choices; None where the text is another.

        The first telling of a rule that fits is taken for good. No other one can fit: the tests prove that no
        telling begins with the whole of another.
        """
        derivation = []
        for piece in telling:
            if piece[0] == "set":
                memory[piece[1]] = piece[2]
            elif isinstance(piece, str) or piece[0] == "again":
                word = piece if isinstance(piece, str) else said_again(memory, piece[1])
                if not text.startswith(word, at):
                    same = os.path.commonprefix([word, text[at:at + len(word)]])
                    self.furthest = max(self.furthest, at + len(same))
                    return None, None
                at += len(word)
            else:
                options = self._options(piece)
                for which, option in enumerate(options):
                    end, choices = self._read(option, memory, text, at)
                    if end is not None:
                        break
                else:
                    return None, None
                derivation += [(which, len(options))] * (len(options) > 1) + choices
                if piece[0] == "tell" and piece[2]:
                    memory[piece[2]] = text[at:end]
                at = end
        return at, derivation

    def _options(self, piece):
        return self.rules[piece[1]] if piece[0] == "tell" else piece[1]

    # Exact sums over all stories, without telling any.

    def count(self, telling=None):
        """How many stories there are."""
        product = 1
        for piece in self.start if telling is None else telling:
            if piece[0] in ("tell", "one of"):
                product *= sum(self.count(option) for option in self._options(piece))
        return product

    def expect(self, telling=None, memory=None):
        """The mean number of bits and of characters. memory holds the mean length of what is remembered.

        Nothing later depends on what was remembered but the text itself, so the mean length of a repeated
        word is the mean length of the word: expectations add up, however the parts depend on each other.
        """
        memory = {} if memory is None else memory
        bits = characters = 0.0
        for piece in self.start if telling is None else telling:
            if isinstance(piece, str):
                characters += len(piece)
            elif piece[0] == "again":
                characters += memory[piece[1] if piece[1] in memory else piece[1].lower()]
            elif piece[0] == "set":
                memory[piece[1]] = len(piece[2])
            else:
                options = self._options(piece)
                memories = [dict(memory) for _ in options]
                means = [self.expect(option, m) for option, m in zip(options, memories)]
                bits += math.log2(len(options)) + sum(b for b, _ in means) / len(options)
                said = sum(c for _, c in means) / len(options)
                characters += said
                memory.update({name: sum(m[name] for m in memories) / len(options)
                               for name in memories[0] if all(name in m for m in memories)})
                if piece[0] == "tell" and piece[2]:
                    memory[piece[2]] = said
        return bits, characters

    def floor(self):
        """Bits per character. A story's end is certain: it adds no bits, and it counts as no character."""
        bits, characters = self.expect()
        return bits / characters


def bits(derivation):
    """-log2 of the probability of a story with these choices."""
    return sum(math.log2(options) for _, options in derivation)


def stories(seed, grammar=None):
    """Stories without end, the same ones for the same seed: (text, derivation)."""
    grammar = grammar or Grammar()
    rng = random.Random(seed)
    while True:
        yield grammar.tell(rng)


def main():
    parser = argparse.ArgumentParser(description="Tell stories by the rules of stories.txt.")
    parser.add_argument("-n", type=int, default=1, help="how many (1)")
    parser.add_argument("-s", "--seed", type=int, default=0, help="which ones (0)")
    parser.add_argument("--floor", action="store_true", help="how many there are, and their entropy")
    args = parser.parse_args()
    if args.floor:
        grammar = Grammar()
        mean, characters = grammar.expect()
        print(f"{grammar.count():.3e} stories of {mean:.2f} bits and {characters:.1f} characters on average: "
              f"{grammar.floor():.5f} bits per character")
        return
    for i, (text, _) in zip(range(args.n), stories(args.seed)):
        print(text if i == 0 else "\n" + text)


if __name__ == "__main__":
    main()
