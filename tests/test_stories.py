"""The stories: one reading each, exact probabilities, and an exact entropy."""

import math
import random
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "train"))
from stories import SENTENCE, Grammar, Misread, bits, pieces, stories  # noqa: E402

GRAMMAR, TALK = Grammar(), Grammar(start="conversation")
LAW = {1: [Fraction(1)], 2: [Fraction(3, 5), Fraction(2, 5)],      # as 1/2 is to 1/3, and to 1/4
       3: [Fraction(6, 13), Fraction(4, 13), Fraction(3, 13)]}


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
            [(text, p * q) for q, option in zip(LAW[len(options)], options)
             for text, p in every_story(g, option)]
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


CHAINS = {}


def link(piece, rest):
    """The chain (piece, rest): one and the same for the same parts, so that a pair is known again."""
    return CHAINS.setdefault((piece if isinstance(piece, str) else id(piece), id(rest)), (piece, rest))


def chain(telling, rest=None):
    for piece in reversed(telling):
        rest = link(piece, rest)
    return rest


def steps(g, words, rest, capital=False):
    """What can come first in a chain (piece, rest): (character, rest after it). None for the end."""
    while rest:
        piece, after = rest
        if isinstance(piece, str):
            first, left = piece[0], piece[1:]
            yield first.upper() if capital else first, link(left, after) if left else after
            return
        if piece[0] == "set":
            rest = after
            continue
        options = g.rules[piece[1]] if piece[0] == "tell" else piece[1]
        if piece[0] == "again":
            options = words[piece[1].lower()]
            capital = capital or piece[1] != piece[1].lower()
        for option in options:
            yield from steps(g, words, chain(option, after), capital)
        return
    yield None, None


def shared_beginning(g, words, one, other):
    """A text of one telling that begins a text of the other, or None."""
    walks = [(chain(one), chain(other), "")]
    seen = set()
    while walks:
        a, b, text = walks.pop()
        ends = list(steps(g, words, b))
        for x, after_a in steps(g, words, a):
            for y, after_b in ends:
                if x is None or y is None:
                    return text
                if x == y and (id(after_a), id(after_b)) not in seen:
                    seen.add((id(after_a), id(after_b)))
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


@pytest.mark.parametrize("g, n", [(GRAMMAR, 1000), (TALK, 300)])
def test_stories_are_read_as_they_were_told(g, n):
    for _, (text, derivation) in zip(range(n), stories(1, g)):
        assert g.read(text) == derivation, text


def test_the_rest_of_a_story_is_read():
    rng = random.Random(2)
    for _, (text, _) in zip(range(60), stories(2)):
        at = rng.choice([m.end() for m in SENTENCE.finditer(text)])
        GRAMMAR.read_rest(text[at:])


def test_what_is_the_rest_of_no_story_is_refused():
    g = grammar(story=["<she><x = girl> ran. <rest>", "<he><x = boy> ran. <rest>"],
                rest=["{x} fell. {She} cried."], she=["{she := she}"], he=["{she := he}"],
                girl=["Ann", "Eve"], boy=["Tom", "Tim"])
    for rest in "Tom fell. He cried.", "Eve fell. She cried.", "He cried.", "Tim ran. Tim fell. He cried.":
        g.read_rest(rest)
    for rest in ("Tom fell. She cried.", "Max fell. He cried.", "It cried.", "Tim ran. Tom fell. He cried.",
                 "Tom fell."):
        with pytest.raises(Misread):
            g.read_rest(rest)


def test_the_same_seed_tells_the_same_stories():
    first, again, other = ([text for _, (text, _) in zip(range(20), stories(seed))] for seed in (3, 3, 4))
    assert first == again
    assert not set(first) & set(other)


@pytest.mark.parametrize("spoil, at", [
    (lambda text: "", lambda text: 0),
    (lambda text: text[:-1], lambda text: len(text) - 1),
    (lambda text: text + " ", lambda text: len(text)),
    (lambda text: text.replace("Once", "Xnce"), lambda text: 0),
    (lambda text: text.replace("time", "tide", 1), lambda text: text.index("time") + 2),
])
def test_what_is_no_story_is_refused(spoil, at):
    text = next(text for text, _ in stories(5) if text.startswith("Once upon a time"))
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
    # one: 2 * 3 = 6 stories; two: 1. "one" has the probability 3/5, and in it "b" and "cc" 3/5 and 2/5.
    g = grammar(story=["one <a> [x|y|z]", "two!"], a=["b", "cc"])
    told = every_story(g)
    assert g.count() == len(told) == len(dict(told)) == 7
    mean, characters = g.expect()
    two, three = (-sum(float(p) * math.log2(p) for p in LAW[n]) for n in (2, 3))
    assert mean == pytest.approx(two + 0.6 * (two + three), rel=1e-12)
    assert mean == pytest.approx(-sum(p * math.log2(p) for _, p in told), rel=1e-12)
    assert characters == pytest.approx(float(sum(p * len(text) for text, p in told)), rel=1e-12)


def test_what_is_said_again_costs_characters_and_no_bits():
    g = grammar(story=["{s := she}<x = a> and {x}, {s}", "<x = b>{s := he} {S}, {X}"],
                a=["xy", "yxyx"], b=["z"])
    # "xy and xy, she" 14 (3/5 of 3/5), "yxyx and yxyx, she" 18 (2/5 of 3/5), "z He, Z" 7 (2/5)
    mean, characters = g.expect()
    two = -0.6 * math.log2(0.6) - 0.4 * math.log2(0.4)
    assert mean == pytest.approx(1.6 * two)
    assert characters == pytest.approx(0.36 * 14 + 0.24 * 18 + 0.4 * 7)
    assert g.read("z He, Z") == [(1, 2)]


def test_entropy_equals_what_is_drawn():
    n = 4000
    told = [story for _, story in zip(range(n), stories(11))]
    for exact, drawn in zip(GRAMMAR.expect(), ([bits(d) for _, d in told], [len(text) for text, _ in told])):
        mean = sum(drawn) / n
        error = math.sqrt(sum((x - mean)**2 for x in drawn) / (n - 1) / n)
        assert abs(mean - exact) < 4 * error, f"drawn {mean:.3f} +- {error:.3f}, exact {exact:.3f}"
        assert error < exact / 100


def test_choices_follow_the_law():
    n, g = 12000, grammar(story=["[a|b|c]"])
    drawn = Counter(text for _, (text, _) in zip(range(n), stories(17, g)))
    for letter, p in zip("abc", LAW[3]):
        assert abs(drawn[letter] - n * p) < 5 * math.sqrt(n * p)
    assert bits(g.read("b")) == pytest.approx(math.log2(13 / 4))


def test_every_rule_is_told():
    def named(telling):
        for piece in telling:
            if piece[0] == "tell":
                yield piece[1]
            elif piece[0] == "one of":
                for option in piece[1]:
                    yield from named(option)

    told = {name for tellings in GRAMMAR.rules.values() for telling in tellings for name in named(telling)}
    assert told | {"story", "conversation"} == set(GRAMMAR.rules)


def test_plain_characters():
    for g, turns in (GRAMMAR, ""), (TALK, "§"):
        text = "".join(text for _, (text, _) in zip(range(500), stories(23, g)))
        assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz ,.!?'\"\n" + turns)
        assert "  " not in text and " \n" not in text and "\n " not in text
        assert not any(f" a {vowel}" in text for vowel in "aeio")
