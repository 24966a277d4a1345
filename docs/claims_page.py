"""claims_page.py - docs/claims.json as the tables of docs/norms.md, which stand there between marks:

    <!-- claims -->  the table of all claims            <!-- /claims -->
    <!-- claim 5 --> every figure of claim 5            <!-- /claim 5 -->
"""

import math
import re

MARKED = re.compile(r"(<!-- (claims|claim (\d+)) -->\n).*?(<!-- /\2 -->)", re.S)


def decimals(figure):
    """Two digits of the interval."""
    width = (figure["high"] - figure["low"]) / 2
    return max(0, 1 - math.floor(math.log10(width))) if width > 0 else 0


def number(x, places):
    size = f"{abs(x):.1e}" if places > 7 or abs(x) >= 1e6 else f"{abs(x):,.{places}f}"
    return "−" * (x < 0) + size


def said(figure):
    """A figure with its interval and unit, as the page says it."""
    unit = f" {figure['unit']}" if figure["unit"] else ""
    if figure["low"] == figure["high"] and figure["of"] != "prompts":   # theirs may be a point, and no count
        return f"{figure['value']:,.6g}{unit} (exact)"
    places = decimals(figure)
    value, low, high = (number(figure[key], places) for key in ("value", "low", "high"))
    return f"{value}{unit} ({low} to {high})"


def table(heads, rows):
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def joined(parts, otherwise):
    return "<br>".join(parts) or otherwise


def overview(claims):
    def cells(c):
        who = [f"{w['reference']}: {w['their_number']}" for w in c["who"]]
        ours = [f"{f['what']}: {said(f)}" for f in c["ours"] if f["shown"]]
        against = [f"{a['reference']}: {a['what']}" for a in c["against"]]
        return (str(c["id"]), c["claim"], joined(who, ""), joined(ours, "nothing yet"), f"**{c['verdict']}**",
                joined(against, "none found"))

    heads = ("", "claim", "who says it", "ours (95 %)", "verdict", "best evidence against")
    return table(heads, map(cells, claims))


def origin(claim):
    return f"{claim['date']}, commit {claim['commit']}, {claim['cpu']}, {claim['compiler']}"


def details(claim):
    """All figures of a claim, and where they are from."""
    if not claim["ours"]:
        yield "Not measured yet."
        return
    rows = [(f["what"], said(f), f"{f['n']:,} {f['of']}",
             origin(f["from"]) if "from" in f else "") for f in claim["ours"]]
    older = any(row[3] for row in rows)
    heads = ("what", "ours (95 %)", "of") + ("older, from",) * older
    yield from table(heads, [row[:len(heads)] for row in rows])
    yield ""
    yield f"`{claim['command']}`; {origin(claim)}."


def written(page, claims):
    """The page with its tables as claims.json has them."""
    by_id = {str(claim["id"]): claim for claim in claims}

    def replaced(match):
        lines = overview(claims) if match[2] == "claims" else details(by_id[match[3]])
        return match[1] + "\n" + "\n".join(lines) + "\n\n" + match[4]

    return MARKED.sub(replaced, page)
