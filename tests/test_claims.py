"""test_claims.py - docs/claims.json is whole, its verdicts follow from its figures, docs/norms.md says what
it says; and the arithmetic of docs/claims.py by hand.
"""

import json
import re
import sys
from dataclasses import asdict

import pytest
import yaml

from conftest import ROOT

sys.path[:0] = [str(ROOT / "docs"), str(ROOT / "train")]
import claims as program  # noqa: E402
import claims_page  # noqa: E402
import claims_rows  # noqa: E402
from claims_rows import ROWS, Figure  # noqa: E402

CLAIMS = json.loads((ROOT / "docs/claims.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs/norms.md").read_text(encoding="utf-8")
WORDS = {"reference": str, "their_number": str, "their_hardware": str}
FIGURE = {"what": str, "value": (int, float), "low": (int, float), "high": (int, float), "n": int, "of": str,
          "unit": str, "model": (str, type(None)), "shown": bool}
ORIGIN = {"commit": str, "cpu": str, "compiler": str, "date": str}
CLAIM = {"id": int, "claim": str, "who": list, "against": list, "ours": list, "verdict": str, "command": str,
         "is_time": bool}


def check_keys(thing, expected, *optional):
    assert expected.keys() <= thing.keys() <= expected.keys() | set(optional), thing
    for key, type in expected.items():
        assert isinstance(thing[key], type), f"{key}: expected {type}, found {thing[key]!r}"


def figures_of(claim):
    return {f["what"]: program.argparse.Namespace(**f) for f in claim["ours"]}


# ---------------------------------------------------------------------------- the file


def test_every_claim_is_there_once():
    assert [claim["id"] for claim in CLAIMS] == list(ROWS)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: str(claim["id"]))
def test_claim(claim):
    check_keys(claim, CLAIM, *ORIGIN)
    assert claim["who"], "somebody has to have said it"
    for who in claim["who"]:
        check_keys(who, WORDS)
    for against in claim["against"]:
        check_keys(against, {"reference": str, "what": str})
    for figure in claim["ours"]:
        check_keys(figure, FIGURE, "from")
        assert figure["low"] <= figure["value"] <= figure["high"] and figure["n"] >= 1, figure
        if "from" in figure:
            check_keys(figure["from"], ORIGIN)
    names = [figure["what"] for figure in claim["ours"]]
    assert len(set(names)) == len(names), "a figure has a name of its own"
    if claim["ours"]:
        check_keys({key: claim[key] for key in ORIGIN}, ORIGIN)
        assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", claim["date"])
    row = ROWS[claim["id"]]
    assert (claim["is_time"], claim["command"]) == (row.is_time, row.command)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: str(claim["id"]))
def test_verdict_follows_from_the_figures(claim):
    assert re.fullmatch(r"holds|fails|not measured|depends on .+", claim["verdict"])
    assert len(claim["verdict"].split()) <= 5
    assert claim["verdict"] == ROWS[claim["id"]].verdict(figures_of(claim))
    assert claim["ours"] or claim["verdict"] == "not measured"


@pytest.mark.parametrize("row", ROWS)
def test_without_figures_nothing_is_measured(row):
    assert ROWS[row].verdict({}) == "not measured"


# ---------------------------------------------------------------------------- the page


def test_page_is_written_from_the_claims():
    assert claims_page.written(PAGE, CLAIMS) == PAGE, "docs/claims.py --write-page writes it again"


def test_page_has_every_claim():
    assert PAGE.count("<!-- claims -->") == 1
    for claim in CLAIMS:
        assert PAGE.count(f"### {claim['id']}. {claim['claim']}\n") == 1
        assert PAGE.count(f"<!-- claim {claim['id']} -->\n") == 1


def test_no_figure_stands_in_the_prose():
    """What was measured stands in the tables, with its interval; 95 % and 0.05 nats are definitions."""
    prose = claims_page.MARKED.sub("", PAGE.partition("## What is said, and what we measured")[2])
    prose = prose.replace("below 0.05 nats", "").replace("Student's t is 4.3", "")
    assert re.findall(r"\d+\.\d+", prose) == []
    assert {line for line in prose.splitlines() if "%" in line and "95 %" not in line} == {
        "### 2. RMSNorm cuts training time by 7 to 64 %"}


def test_every_number_in_the_tables_has_its_spread():
    for cell in re.findall(r"^\|.*\|$", claims_page.MARKED.search(PAGE)[0], re.M)[2:]:
        for figure in cell.split(" | ")[3].split("<br>"):
            assert re.search(r" \((?:exact|\S+ to \S+)\)$", figure) or figure == "nothing yet", figure


# ---------------------------------------------------------------------------- arithmetic


def figure(value, low, high, what="a", **more):
    return asdict(Figure(what, value, low, high, 10, "runs", **more))


@pytest.mark.parametrize("given, expected", [
    ((0.1541, 0.1149, 0.1933, "a", "nats"), "0.154 nats (0.115 to 0.193)"),
    ((-12345.6, -12400, -12300), "−12,346 (−12,400 to −12,300)"),
    ((1152, 1152, 1152), "1,152 (exact)"),
    ((1.1e-13, 1.0e-13, 1.2e-13), "1.1e-13 (1.0e-13 to 1.2e-13)"),
])
def test_said(given, expected):
    value, low, high, *rest = given
    assert claims_page.said(figure(value, low, high, *rest[:1], **dict(zip(["unit"], rest[1:])))) == expected


def test_moved_by_three_standard_errors():
    """Intervals of ± 1.96: errors of 1 each, of the difference the root of 2; three of them are 4.24."""
    old = figure(0, -1.96, 1.96)
    assert not program.moved(old, figure(4.2, 2.24, 6.16))
    assert program.moved(old, figure(4.3, 2.34, 6.26))
    assert not program.moved(figure(1e-13, 1e-13, 1e-13), figure(3e-13, 3e-13, 3e-13)), "rounding"
    assert program.moved(figure(7, 7, 7), figure(8, 8, 8)), "what is counted has no error"


def test_check_says_what_moved():
    claim = {"id": 7, "ours": [figure(0, -1, 1, "same"), figure(0, -1, 1, "moved"), figure(0, -1, 1, "gone"),
                      figure(0, -1, 1, "away", model="stories260K")]}
    found = [Figure("same", 0.1, -1, 1, 10, "runs"), Figure("moved", 9, 8, 10, 10, "runs"),
             Figure("new", 1, 0, 2, 10, "runs")]
    said = sorted(program.check(claim, found, ["stories260K"]))
    assert [text.split(": ")[1] for text in said] == ["gone", "moved", "new"]
    assert said[1] == "claim 7: moved: expected 0.0 (−1.0 to 1.0), found 9.0 (8.0 to 10.0)"


def test_a_figure_of_a_model_that_is_missing_stays():
    where = {"commit": "b", "cpu": "c", "compiler": "gcc", "date": "2026-01-02"}
    old = figure(1, 0, 2, "SmolLM2: x", model="SmolLM2")
    claim = {"id": 5, "claim": "c", "who": [], "against": [], "ours": [old], **where, "commit": "a"}
    row = claims_rows.Row(None, lambda figures: f"depends on {len(figures)}", "make")
    new = program.updated(claim, row, [Figure("y", 1, 0, 2, 3, "runs")], ["SmolLM2"], where)
    assert [f["what"] for f in new["ours"]] == ["y", "SmolLM2: x"]
    assert new["ours"][1]["from"] == where | {"commit": "a"}
    assert (new["verdict"], new["commit"]) == ("depends on 2", "b")
    again = program.updated(new, row, [], ["SmolLM2"], where)
    assert again["ours"][0]["from"]["commit"] == "a", "where it is from, not where it was kept"


def test_of_sample_by_hand():
    """1, 2, 3: the deviation is 1, its error 1 / sqrt(3), and t is 4.303."""
    f = claims_rows.of_sample("x", [1, 2, 3], "seeds")
    assert (f.value, f.n) == (2, 3) and f.high - f.value == pytest.approx(4.303 / 3**0.5) == f.value - f.low


def test_operations_by_hand():
    """RMSNorm: square, add, two products. LayerNorm: a sum and two differences more. A bias: an addition."""
    found = [claims_rows.operations(*norm, 16) for norm in
             (("rmsnorm", False), ("layernorm", False), ("layernorm", True))]
    assert found == [4, 7, 8]


def test_cost_by_hand(monkeypatch):
    """Two layers have 5 norms. Of 10 ns each, in a token of 1000 ns: 5 %; at a ratio of 0.8, LayerNorm would
    take a quarter more of them, 1.25 % of the token."""
    def result(ratio):
        return {"norms": {norm: {"ns": {"median": ns}} for norm, ns in (("rmsnorm", 10), ("prmsnorm", 5))},
                "rms_to_layer": {"median": ratio}, "rms_to_layer_with_bias": {"median": ratio - 0.1}}

    class Bench:
        paths, engine = {"RMSNorm's twin": "twin"}, program.argparse.Namespace(
            report=lambda *command: {"decode": {"cpu_runs": [5e5, 1e6]}})

        def norm_calls(self, dims):
            return {(int(dim), T): [result(0.79), result(0.81)] for dim in dims.split() for T in (1, 64)}

    model = program.argparse.Namespace(layers=2, dim=7)
    monkeypatch.setattr(claims_rows, "Checkpoint", lambda engine, path: model)
    monkeypatch.setattr(claims_rows.shapes, "make", lambda *shape: "model")
    found = {f.what: f for f in claims_rows.cost(Bench())}
    ratio = found["2048 numbers, 1 token: RMSNorm's time : LayerNorm's without bias"]
    assert ratio.value == pytest.approx(0.8) and ratio.high - ratio.value == pytest.approx(12.706 * 0.01)
    assert found["512 numbers, 64 tokens: RMSNorm's time : LayerNorm's with bias"].value == pytest.approx(0.7)
    assert found["128 numbers, 1 token: pRMSNorm's time : RMSNorm's"].value == 0.5
    assert found["1.1B, writing: all RMSNorms' share of the time"].value == pytest.approx(5)
    assert found["1.1B, writing: LayerNorm would take more"].value == pytest.approx(1.25, rel=1e-3)


@pytest.mark.parametrize("intervals, expected", [
    ([(0.97, 1.02), (0.92, 1.05)], "fails"), ([(1.08, 1.2), (1.1, 1.3)], "holds"),
    ([(0.97, 1.02), (1.1, 1.3)], "depends on the model"), ([(0.97, 1.02), (0.92, 1.08)], "not measured"),
    ([], "not measured"),
])
def test_verdict_of_training(intervals, expected):
    """7 % less than LayerNorm's time is 1 / 0.93 = 1.0753 the other way round."""
    figures = {f"{i}M parameters, a step: layernorm, by hand : rmsnorm, by hand":
               Figure("", low, low, high, 20, "") for i, (low, high) in enumerate(intervals)}
    assert claims_rows.training_verdict(figures) == expected


@pytest.mark.parametrize("intervals, expected", [
    ([(0.02, 0.03), (0.1, 0.2)], "holds"), ([(-0.001, 0.001)], "fails"),
    ([(0.02, 0.03), (-0.001, 0.001)], "depends on the model"), ([(-0.1, 0.1)], "depends on the model")])
def test_verdict_of_the_swap(intervals, expected):
    """It holds if every model loses more than 0.01 nats, and fails if none does."""
    figures = {f"{i} by LayerNorm": Figure(f"{i} by LayerNorm", sum(i_) / 2, *i_, 10, "blocks")
               for i, i_ in enumerate(intervals)}
    assert ROWS[5].verdict(figures) == expected


@pytest.mark.parametrize("intervals, expected", [
    ([(0.8, 0.9), (0.95, 0.99)], "holds"), ([(1.01, 1.1)], "fails"),
    ([(0.8, 0.9), (0.99, 1.01)], "depends on the vector's length")])
def test_verdict_of_the_cost(intervals, expected):
    names = [f"{i}: RMSNorm's time : LayerNorm's without bias" for i in range(len(intervals))]
    figures = {name: Figure(name, sum(i) / 2, *i, 5, "runs") for name, i in zip(names, intervals)}
    assert ROWS[1].verdict(figures) == expected


# ---------------------------------------------------------------------------- how to cite


def test_citation():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["cff-version"], cited["type"], cited["license"]) == ("1.2.0", "software", "MIT")
    assert cited["message"] and cited["title"] and cited["authors"] == [{"name": "The prenorm authors"}]
    assert not {"doi", "url", "repository-code", "identifiers"} & cited.keys(), "there is none yet"
