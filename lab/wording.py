"""wording.py - numbers as a reader wants them: as many digits as are known, in plain text.

Plain text only: what stands in the page is escaped by the template, and matplotlib reads no mathematics in
it.
"""

import math
from datetime import datetime

SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def minus(text):
    return text.replace("-", "−")


def power(exponent):
    return "10" + str(exponent).translate(SUPERSCRIPT)


def number(x, digits=3):
    """Three digits, and powers of ten as they are written by hand."""
    if x and not 1e-3 <= abs(x) < 1e5:
        mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
        return f"{minus(mantissa)}·{power(int(exponent))}"
    if abs(x) >= 1000:
        return minus(f"{x:,.0f}")
    return minus(f"{x:.{digits}g}")


def percent(x, digits=1):
    """A share as per cent. One that is not 0 or 1 is never printed as if it were."""
    text = f"{100 * x:.{digits}f}"
    smallest = 10.0 ** -digits
    if x > 0 and float(text) == 0:
        text = f"less than {smallest:.{digits}f}"
    if x < 1 and float(text if text[0].isdigit() else 0) == 100:
        text = f"more than {100 - smallest:.{digits}f}"
    return minus(text) + "\u00a0%"


def between(x, low, high, signed=True):
    """A number with its interval, to two digits of the interval's half width: +0.154 (+0.134 to +0.174)."""
    largest, half = max(abs(x), abs(low), abs(high)), (high - low) / 2
    if largest == 0:
        return "0"
    exponent = math.floor(math.log10(largest))
    scale = exponent if exponent < -3 else 0
    width = half or largest
    places = min(max(1 - math.floor(math.log10(width)) + scale, 0), 9)
    sign = "+" if signed else ""
    x, low, high = (f"{value / 10.0 ** scale:{sign}.{places}f}" for value in (x, low, high))
    unit = f"·{power(scale)}" if scale else ""
    return minus(f"{x} ({low} to {high}){unit}" if half else f"{x}{unit}")


def listed(parts):
    parts = list(parts)
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def counted(n, what):
    return f"{n:,} {what}{'s' * (n != 1)}"


def shown(name, longest=200):
    """A name that may hold anything, as one line that can be printed; of a long one both ends."""
    text = str(name).encode("utf-8", "replace").decode()
    text = "".join(c if c.isprintable() or c == "\u00a0" else "\N{REPLACEMENT CHARACTER}" for c in text)
    end = (longest - 1) // 2
    return text if len(text) <= longest else text[:longest - 1 - end] + "…" + text[len(text) - end:]


def span(started, finished):
    """Two moments in ISO 8601, UTC: 2026-11-30 09:00 to 09:03 UTC."""
    start, end = (datetime.fromisoformat(moment) for moment in (started, finished))
    day = "" if start.date() == end.date() else "%Y-%m-%d "
    return f"{start:%Y-%m-%d %H:%M} to {end:{day}%H:%M} UTC"
