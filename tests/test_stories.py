"""The stories: one reading each, exact probabilities, and an exact entropy."""

import math
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "train"))
from stories import Grammar, Misread, bits, pieces, stories  # noqa: E402

GRAMMAR = Grammar()


def grammar(**rules):
    """A grammar of a few rules, its start named story."""
    return Grammar({name: [pieces(line) for line in lines] for name, lines in rules.items()})


def every_story(g, telling=None):
    """All that a small grammar without memory can tell: (text, probability)."""
    told = [("", Fraction(1))]
    for piece in g.start if telling is None else telling:
        options = [[piece]]
        if not isinstance(piece, str):
            options = g.rules[piece[1]] if piece[0] == "tell" else piece[1]
        ends = [(piece, Fraction(1))] if isinstance(piece, str) else \
            [(text, p / len(options)) for option in options for text, p in every_story(g, option)]
        told = [(a + b, p * q) for a, p in told for b, q in ends]
    return told


# One reading. Where no telling of a rule begins with the whole of another telling of that rule (a prefix
# code), a reader who comes to a rule knows from the text which telling it is, and where it ends. What follows
# walks two tellings at once, one character at a time. A remembered word may be anything that it could ever
# be: that allows more than the grammar does, so what is proved here holds there.

def words_of(g):
    """{name: every piece that is ever remembered as name}."""
    found = {}

    def look(telling):
        for piece in telling:
            if piece[0] == "set":
                found.setdefault(piece[1], []).append([piece[2]])
            elif piece[0] == "tell" and piece[2]:
                found.setdefault(piece[2], []).append([("tell", piece[1], None)])
            elif piece[0] == "one of":
                for option in piece[1]:
                    look(option)

    for tellings in g.rules.values():
        for telling in tellings:
            look(telling)
    return found


def steps(g, words, rest, capital=False):
    """What can come first in a chain (piece, rest): (character, rest after it). None for the end."""
    while rest:
        piece, after = rest
        if isinstance(piece, str):
            first, left = piece[0], piece[1:]
            yield first.upper() if capital else first, (left, after) if left else after
            return
        if piece[0] == "set":
            rest = after
            continue
        options = g.rules[piece[1]] if piece[0] == "tell" else piece[1]
        if piece[0] == "again":
            options = words[piece[1].lower()]
            capital = capital or piece[1] != piece[1].lower()
        for option in options:
            chain = after
            for part in reversed(option):
                chain = (part, chain)
            yield from steps(g, words, chain, capital)
        return
    yield None, None


def chain(telling):
    out = None
    for part in reversed(telling):
        out = (part, out)
    return out


def shared_beginning(g, words, one, other):
    """A text of one telling that begins a text of the other, or None."""
    walks = [(chain(one), chain(other), "")]
    seen = set()
    while walks:
        a, b, text = walks.pop()
        for x, after_a in steps(g, words, a):
            for y, after_b in steps(g, words, b):
                if x is None or y is None:
                    return text
                if x == y and (repr(after_a), repr(after_b)) not in seen:
                    seen.add((repr(after_a), repr(after_b)))
                    walks.append((after_a, after_b, text + x))
    return None


def clashes(g):
    """Every pair of tellings that could be taken for each other."""
    words = words_of(g)

    def look(where, telling):
        for piece in telling:
            if piece[0] == "one of":
                yield from compare(where, piece[1])
                for option in piece[1]:
                    yield from look(where, option)

    def compare(where, options):
        for i, one in enumerate(options):
            for other in options[i + 1:]:
                text = shared_beginning(g, words, one, other)
                if text is not None:
                    yield f"{where}: {text!r} could be {one} or {other}"

    for rule, tellings in g.rules.items():
        yield from compare(rule, tellings)
        for telling in tellings:
            yield from look(rule, telling)


def test_no_telling_begins_another():
    assert list(clashes(GRAMMAR)) == []


@pytest.mark.parametrize("rules", [
    {"story": ["a ball", "a balloon"]},
    {"story": ["<toy>."], "toy": ["[red|red hot] ball", "green ball"]},
    {"story": ["<x = a>{x}!", "ttt?"], "a": ["t", "s", "t"]},
    {"story": ["<x = a>.", "<x = a> {x}.", "<x = b>{X}.", "boBo. And so on."], "a": ["a"], "b": ["bo"]},
])
def test_a_clash_is_found(rules):
    assert list(clashes(grammar(**rules))) != []


def test_stories_are_read_as_they_were_told():
    for _, (text, derivation) in zip(range(2000), stories(1)):
        assert GRAMMAR.read(text) == derivation, text


def test_the_same_seed_tells_the_same_stories():
    first, again, other = ([text for _, (text, _) in zip(range(20), stories(seed))] for seed in (3, 3, 4))
    assert first == again
    assert not set(first) & set(other)


@pytest.mark.parametrize("spoil, at", [
    (lambda text: "", lambda text: 0),
    (lambda text: text[:-1], lambda text: len(text) - 1),
    (lambda text: text + " ", lambda text: len(text)),
    (lambda text: text.replace("Once", "Twice"), lambda text: 0),
    (lambda text: text.replace("time", "tide", 1), lambda text: text.index("time") + 2),
])
def test_what_is_no_story_is_refused(spoil, at):
    text = next(stories(5))[0]
    with pytest.raises(Misread) as error:
        GRAMMAR.read(spoil(text))
    assert error.value.at == at(text)


def test_another_name_halfway_is_refused():
    g = grammar(story=["<x = a> and {x}."], a=["Tom", "Tim"])
    assert g.read("Tim and Tim.") == [(1, 2)]
    with pytest.raises(Misread) as error:
        g.read("Tim and Tom.")
    assert error.value.at == 9


def test_a_million_stories():
    assert GRAMMAR.count() >= 10**6


def test_counted_by_hand():
    # one: 2 * 3 = 6 stories; two: 1. Each "one" has probability 1/2 * 1/6, "two" 1/2.
    g = grammar(story=["one <a> [x|y|z]", "two!"], a=["b", "cc"])
    told = every_story(g)
    assert g.count() == len(told) == len(dict(told)) == 7
    mean, characters = g.expect()
    assert mean == pytest.approx(1 + math.log2(6) / 2, rel=1e-12)
    assert mean == pytest.approx(-sum(p * math.log2(p) for _, p in told), rel=1e-12)
    assert characters == pytest.approx(float(sum(p * len(text) for text, p in told)), rel=1e-12)


def test_what_is_said_again_costs_characters_and_no_bits():
    g = grammar(story=["{s := she}<x = a> and {x}, {s}", "<x = b>{s := he} {S}, {X}"],
                a=["xy", "yxyx"], b=["z"])
    # "xy and xy, she" 14, "yxyx and yxyx, she" 18, "z He, Z" 7
    mean, characters = g.expect()
    assert mean == pytest.approx(1.5)
    assert characters == pytest.approx((16 + 7) / 2)
    assert g.read("z He, Z") == [(1, 2)]


def test_entropy_equals_what_is_drawn():
    n = 4000
    told = [story for _, story in zip(range(n), stories(11))]
    for exact, drawn in zip(GRAMMAR.expect(), ([bits(d) for _, d in told], [len(text) for text, _ in told])):
        mean = sum(drawn) / n
        error = math.sqrt(sum((x - mean)**2 for x in drawn) / (n - 1) / n)
        assert abs(mean - exact) < 4 * error, f"drawn {mean:.3f} +- {error:.3f}, exact {exact:.3f}"
        assert error < exact / 100


def test_choices_are_uniform():
    n = 12000
    drawn = Counter(d[0][0] for _, (_, d) in zip(range(n), stories(17)))
    options = len(GRAMMAR.rules["opening"])
    for which in range(options):
        assert abs(drawn[which] - n / options) < 5 * math.sqrt(n / options)


def test_every_rule_is_told():
    def named(telling):
        for piece in telling:
            if piece[0] == "tell":
                yield piece[1]
            elif piece[0] == "one of":
                for option in piece[1]:
                    yield from named(option)

    told = {name for tellings in GRAMMAR.rules.values() for telling in tellings for name in named(telling)}
    assert told | {"story"} == set(GRAMMAR.rules)


def test_plain_characters():
    text = "".join(text for _, (text, _) in zip(range(500), stories(23)))
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz ,.!?'\"\n")
    assert "  " not in text and " \n" not in text and "\n " not in text
    assert not any(f" a {vowel}" in text for vowel in "aeio")
