#!/usr/bin/env python3
"""Tell stories by the rules of stories.txt, read them back, and say exactly how likely each one is.

    python3 train/stories.py              # one story
    python3 train/stories.py -n 3 -s 7    # three, of seed 7
    python3 train/stories.py --talk       # a conversation
    python3 train/stories.py --floor      # how many there are, and their entropy

The first of some options is the likeliest: option k = 1, 2, ... is chosen with a probability proportional
to 1 / (k + 1), the law of Zipf and Mandelbrot (1953) for words by their rank. So no two are equally likely,
and a model that has learned the stories knows which word is the likeliest.

A story can be read in one way only (tests/test_stories.py proves it). So the probability of a story is the
product of its choices' probabilities, and the entropy of the stories is the mean sum of its choices'
entropies: the floor that no model's loss can pass. (Shannon 1948, section 6: H(x, y) = H(x) + H(y | x), where
H(y | x) is the mean over x.)
"""

import argparse
import functools
import math
import os.path
import random
import re
from itertools import accumulate
from pathlib import Path

# What a telling is made of. A str is said as it is.
#   ("tell", rule, name)   a telling of the rule, remembered as name if that is not None
#   ("one of", options)    one of some tellings
#   ("again", name)        what was remembered
#   ("set", name, text)    remembered without being said
PIECE = re.compile(r"<(?:(?P<keep>\w+) = )?(?P<rule>[^<>]+)>|\[(?P<options>(?:[^][]|<[^<>]*>)+)\]"
                   r"|\{(?P<name>\w+) := (?P<text>\w+)\}|\{(?P<again>\w+)\}|¶|[^<[{¶]+")
SENTENCE = re.compile(r"(?<=[.!?]) |(?<=[.!?]\") |\n")          # what stands behind one, a quoted one too


class Misread(ValueError):
    """A text that is no story, and how far it was one."""

    def __init__(self, at, text):
        super().__init__(f"no story from character {at}: {text[:at][-40:]!r} goes on with {text[at:][:40]!r}")
        self.at = at


@functools.cache
def probabilities(n):
    """Of n options, the likeliest first."""
    total = math.fsum(1 / (k + 1) for k in range(1, n + 1))
    return [1 / (k + 1) / total for k in range(1, n + 1)]


@functools.cache
def cumulative(n):
    return list(accumulate(probabilities(n)))


@functools.cache
def entropy(n):
    """Of a choice among n options, in bits."""
    return -math.fsum(p * math.log2(p) for p in probabilities(n))


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
    """{thing} is the thing; {Thing} is the thing with a capital letter. None: nobody has said it."""
    if name in memory:
        return memory[name]
    text = memory.get(name.lower())
    return text and text[0].upper() + text[1:]


def before(telling, rest):
    """A chain (piece, the chain after it): the pieces of a telling, and then the rest."""
    for piece in reversed(telling):
        rest = piece, rest
    return rest


class Grammar:
    def __init__(self, rules=None, start="story"):
        self.rules = rules or read_rules()
        self.start = [("tell", start, None)]

    def tell(self, rng):
        """A story and its derivation: the list of the choices, each as (which, of how many)."""
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
                (which,) = rng.choices(range(len(options)), cum_weights=cumulative(len(options)))
                if len(options) > 1:
                    derivation.append((which, len(options)))
                said.append(self._tell(options[which], memory, derivation, rng))
                if piece[0] == "tell" and piece[2]:
                    memory[piece[2]] = said[-1]
        return "".join(said)

    def read(self, text):
        """The derivation of a story. Raises Misread where the text is none."""
        return self._read([before(self.start, None)], text)

    def read_rest(self, text):
        """Reads what follows some sentence of a story, to its end, as if the sentences before had said
        whatever they must have. Raises Misread where the text is the rest of no story."""
        self._read([chain for chain in self._sentences
                    if not isinstance(chain[0], str) or text.startswith(chain[0])], text)

    def _read(self, chains, text):
        """Tries one choice after the other, and goes back to the last one where the text is another.

        What is tried: a chain of pieces, what is remembered, where in the text, and the choices so far, the
        last one first. A remembered word may be unknown, if the text begins in the middle of a story: then it
        is one that some telling could have remembered, together with what that telling sets besides.
        """
        tried, furthest = [(chain, {}, 0, None) for chain in reversed(chains)], 0
        while tried:
            chain, memory, at, choices = tried.pop()
            while chain:
                piece, chain = chain
                if piece[0] == "keep":
                    memory = memory | {piece[1]: text[piece[2]:at]}
                elif piece[0] == "set":
                    memory = memory | {piece[1]: piece[2]}
                elif isinstance(piece, str) or piece[0] == "again" and said_again(memory, piece[1]):
                    word = piece if isinstance(piece, str) else said_again(memory, piece[1])
                    if not text.startswith(word, at):
                        same = os.path.commonprefix([word, text[at:at + len(word)]])
                        furthest = max(furthest, at + len(same))
                        break
                    at += len(word)
                elif piece[0] == "again":
                    tried += [((piece, chain), known, at, choices)
                              for known in self._unknown(piece[1].lower(), memory)
                              if text.startswith(said_again(known, piece[1]), at)]
                    break
                else:
                    options = self._options(piece)
                    after = (("keep", piece[2], at), chain) if piece[0] == "tell" and piece[2] else chain
                    for which in reversed(range(len(options))):
                        taken = ((which, len(options)), choices) if len(options) > 1 else choices
                        tried.append((before(options[which], after), memory, at, taken))
                    break
            else:
                if at == len(text):
                    derivation = []
                    while choices:
                        choice, choices = choices
                        derivation.append(choice)
                    return derivation[::-1]
                furthest = max(furthest, at)
        raise Misread(furthest, text)

    def _options(self, piece):
        return self.rules[piece[1]] if piece[0] == "tell" else piece[1]

    # A text that begins in the middle of a story.

    def _unknown(self, name, memory):
        """What else may be remembered where it is not known what was remembered as name."""
        for sets, rule in self._memories[name]:
            if all(memory.get(key, value) == value for key, value in sets.items()):
                for word in [sets[name]] if rule is None else self._words(rule):
                    yield memory | sets | {name: word}

    @functools.cache
    def _words(self, rule):
        """All that a rule can say."""
        def of(telling):
            said = [""]
            for piece in telling:
                if isinstance(piece, str):
                    words = [piece]
                elif piece[0] == "again":
                    words = [sets[piece[1]] for sets, _ in self._memories[piece[1]]]
                elif piece[0] == "set":
                    words = [""]
                else:
                    words = [word for option in self._options(piece) for word in of(option)]
                said = [a + b for a in said for b in words]
            return said
        return sorted({word for telling in self.rules[rule] for word in of(telling)})

    @functools.cached_property
    def _memories(self):
        """{name: [(all that is set where something is remembered as name, the rule that says it or None)]}"""
        found = {}

        def sets_of(telling):
            sets = {}
            for piece in telling:
                if piece[0] == "set":
                    sets[piece[1]] = piece[2]
                elif piece[0] == "tell" and len(self.rules[piece[1]]) == 1:
                    sets |= sets_of(self.rules[piece[1]][0])
            return sets

        for telling in (telling for tellings in self.rules.values() for telling in tellings):
            sets = sets_of(telling)
            ways = [(name, (sets, None)) for name in sets]
            ways += [(piece[2], (sets, piece[1])) for piece in telling if piece[0] == "tell" and piece[2]]
            for name, way in ways:
                if way not in found.setdefault(name, []):
                    found[name].append(way)
        return found

    @functools.cached_property
    def _sentences(self):
        """A chain to the end of the story from every piece, and from every sentence inside one."""
        found = []

        def walk(telling, rest):
            for i, piece in enumerate(telling):
                after = before(telling[i + 1:], rest)
                found.append((piece, after))
                if isinstance(piece, str):
                    starts = [m.end() for m in SENTENCE.finditer(piece)] + [piece[0] in " \n"]
                    found.extend((piece[at:], after) for at in starts if 0 < at < len(piece))
                elif piece[0] == "one of" or piece[0] == "tell" and not piece[2]:   # none is half remembered
                    for option in self._options(piece):
                        walk(option, after)

        walk(self.start, None)
        return found

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
                chances = probabilities(len(options))
                memories = [dict(memory) for _ in options]
                means = [self.expect(option, m) for option, m in zip(options, memories)]
                bits += entropy(len(options)) + sum(p * b for p, (b, _) in zip(chances, means))
                said = sum(p * c for p, (_, c) in zip(chances, means))
                characters += said
                memory.update({name: sum(p * m[name] for p, m in zip(chances, memories))
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
    return -sum(math.log2(probabilities(options)[which]) for which, options in derivation)


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
    parser.add_argument("--talk", action="store_true", help="conversations instead")
    parser.add_argument("--floor", action="store_true", help="how many there are, and their entropy")
    args = parser.parse_args()
    grammar = Grammar(start="conversation" if args.talk else "story")
    if args.floor:
        mean, characters = grammar.expect()
        print(f"{grammar.count():.3e} stories of {mean:.2f} bits and {characters:.1f} characters on average: "
              f"{grammar.floor():.5f} bits per character")
        return
    for i, (text, _) in zip(range(args.n), stories(args.seed, grammar)):
        print("" if i == 0 else "\n", text, sep="")


if __name__ == "__main__":
    main()
