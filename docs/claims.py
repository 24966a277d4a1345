#!/usr/bin/env python3
"""claims.py - measure what docs/claims.json says of the norms, and write the tables of docs/norms.md from it.

    .venv/bin/python docs/claims.py                 all claims, on a quiet machine: 1 and 2 are times
    .venv/bin/python docs/claims.py 4 5             these
    .venv/bin/python docs/claims.py --check         has a figure moved that is no time? Writes nothing.
    .venv/bin/python docs/claims.py --write-page    only the page, after a change of words in claims.json

In claims.json, claim, who and against are written by hand, and the rest by this program. A figure of a
public model that is not there keeps its value: --data is the folder that CONTRIBUTING.md describes, --smollm2
the file of `make smollm2`. docs/claims_rows.py says how each claim is measured.
"""

import argparse
import json
import math
import platform
import re
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import claims_page
from claims_rows import ROOT, ROWS, Bench, run

CLAIMS, PAGE = ROOT / "docs/claims.json", ROOT / "docs/norms.md"
DEVIATIONS = 3                      # of the difference: more is "moved"
ROUNDING = 1e-6                     # less is what another CPU may round differently


def machine():
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.*)$", info.read_text(), re.M) if info.exists() else None
    commit = run("git", "rev-parse", "--short=10", "HEAD").strip()
    changed = run("git", "status", "--porcelain", "--untracked-files=no", "--", "*.[ch]", "*.py", "models")
    return {"commit": commit + (" and changes" if changed else ""),
            "cpu": found[1] if found else platform.processor() or platform.machine(),
            "compiler": run("cc", "--version").splitlines()[0], "date": time.strftime("%Y-%m-%d")}


def measure(row, bench):
    """Its figures, as they come."""
    for figure in row.measure(bench):
        print(f"    {figure.what:85} {claims_page.said(asdict(figure))}", flush=True)
        yield figure


def updated(claim, row, figures, missing, where):
    """The claim with these figures, and old ones of models that are missing, which say where from."""
    measured = {figure.what for figure in figures}
    origin = {key: claim[key] for key in where if key in claim}
    kept = [{"from": origin, **old} for old in claim["ours"]
            if old["model"] in missing and old["what"] not in measured]
    ours = [asdict(figure) for figure in figures] + kept
    by_name = {f["what"]: argparse.Namespace(**f) for f in ours}
    words = {key: claim[key] for key in ("id", "claim", "who", "against")}
    return words | {"ours": ours, "verdict": row.verdict(by_name), "command": row.command,
                    "is_time": row.is_time} | where


def standard_error(figure):
    return (figure["high"] - figure["low"]) / 2 / 1.96


def moved(old, new):
    """Is the new value further from the old one than both errors together make likely?"""
    error = math.hypot(standard_error(old), standard_error(new))
    return abs(new["value"] - old["value"]) > max(DEVIATIONS * error, ROUNDING * max(1, abs(old["value"])))


def check(claim, figures, missing):
    """Sentences about what is no longer as claims.json says."""
    id = f"claim {claim['id']}"
    old = {f["what"]: f for f in claim["ours"] if f["model"] not in missing}
    new = {f.what: asdict(f) for f in figures}
    for what in old.keys() - new.keys():
        yield f"{id}: {what}: expected {claims_page.said(old[what])}, and it is measured no longer"
    for what in new.keys() - old.keys():
        yield f"{id}: {what}: {claims_page.said(new[what])} is not in claims.json"
    for what in old.keys() & new.keys():
        if moved(old[what], new[what]):
            yield f"{id}: {what}: expected {claims_page.said(old[what])}, found {claims_page.said(new[what])}"


def parse():
    parser = argparse.ArgumentParser(prog="claims.py", description="Measure docs/claims.json again.")
    parser.add_argument("ids", nargs="*", type=int, metavar="ID", help="claims (all)")
    parser.add_argument("--check", action="store_true", help="compare with claims.json, and write nothing")
    parser.add_argument("--write-page", action="store_true", help="measure nothing, and write the page")
    parser.add_argument("--data", type=Path, default=ROOT / "data", metavar="FOLDER")
    parser.add_argument("--smollm2", type=Path, metavar="FILE",
                        default=ROOT / "downloads/SmolLM2-135M-Instruct.Q4_1.gguf")
    options = parser.parse_args()
    if unknown := set(options.ids) - set(ROWS):
        parser.error(f"{', '.join(map(str, sorted(unknown)))}: expected claims from 1 to {max(ROWS)}")
    options.ids = options.ids or [id for id, row in ROWS.items() if not (options.check and row.is_time)]
    return options


def main():
    options = parse()
    claims = json.loads(CLAIMS.read_text(encoding="utf-8"))
    complaints = []
    with tempfile.TemporaryDirectory(prefix="claims-") as folder:
        bench = Bench(options.data, options.smollm2, folder)
        if bench.missing and not options.write_page:
            print(f"not there, so their figures stay: {', '.join(bench.missing)}")
        for claim in claims:
            if options.write_page or claim["id"] not in options.ids:
                continue
            print(f"{claim['id']}. {claim['claim']}", flush=True)
            row = ROWS[claim["id"]]
            figures = list(measure(row, bench))
            if options.check:
                complaints += check(claim, figures, bench.missing)
            else:
                claim.update(updated(claim, row, figures, bench.missing, machine()))
                CLAIMS.write_text(json.dumps(claims, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.check:
        print("\n".join(complaints) or "nothing has moved")
        return bool(complaints)
    PAGE.write_text(claims_page.written(PAGE.read_text(encoding="utf-8"), claims), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
