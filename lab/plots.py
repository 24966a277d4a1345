"""plots.py - one picture for each thing that was found: SVG for the page, SVG and PDF as files.

Every function takes rows of plain numbers and gives a Figure. Every axis of numbers has four labelled ticks
or more; where one line may lie on another, the lower one is wide and pale, so that both are seen.
"""

import io
import math
import re
import warnings
from html import escape

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

from lab.wording import minus, number, power, shown

COLORS = {"rmsnorm": "#2166ac", "layernorm": "#c2571a", None: "#767676"}
MORE = ["#2166ac", "#c2571a", "#4d7f3a", "#8456a8", "#a33a5f", "#3f7f87"]  # where norms tell no models apart
PARTS = {"norm": "#b2182b", "attention": "#92b4d4", "ffn": "#6d8f5e", "matmul": "#d5dbe1", "other": "#8a8a8a"}
WIDTH = 4.4                                             # inches: at 400 pixels letters have 11, at 1280 16

matplotlib.rcParams.update({
    "text.parse_math": False,                           # a model's name may hold dollars
    "svg.fonttype": "none", "svg.hashsalt": "prenorm", "pdf.fonttype": 42,
    "font.size": 9.5, "font.family": "sans-serif", "axes.titlesize": 9.5, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#777777", "axes.linewidth": 0.8,
    "axes.labelcolor": "#333333", "xtick.color": "#555555", "ytick.color": "#555555", "text.color": "#222222",
    "axes.grid": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.8, "axes.axisbelow": True,
    "lines.linewidth": 1.8, "lines.markersize": 5, "legend.frameon": False, "legend.fontsize": 8.5,
})


# ---------------------------------------------------------------------------- files


def saved(figure, kind, **more):
    out = io.BytesIO()
    unset = {"pdf": ("CreationDate", "Creator", "Producer"), "svg": ("Date", "Creator", "Format", "Type")}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")          # a name in letters that the font lacks
        figure.savefig(out, format=kind, metadata=dict.fromkeys(unset[kind]), **more)
    return out.getvalue()


def files_of(figure, title):
    """{"svg": bytes, "pdf": bytes} of one picture. The SVG says what it shows to those who do not see it."""
    svg = saved(figure, "svg").decode()
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px sans-serif", svg)
    start = svg.index("<svg")
    head, rest = svg[start:].split(">", 1)
    head += f' role="img" aria-label="{escape(title)}"><title>{escape(title)}</title'
    figure.set_layout_engine("none")                    # the PDF has everything where the SVG has it
    return {"svg": (svg[:start] + head + ">" + rest).encode(), "pdf": saved(figure, "pdf")}


def inline(svg, name):
    """An SVG file for the middle of an HTML page: no header, no size, ids that no other picture has."""
    text = svg.decode()
    text = text[text.index("<svg"):]
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'( id="| href="#|url\(#)', rf"\g<1>{name}-", text)
    head, rest = text.split(">", 1)
    return re.sub(r' (width|height)="[^"]*"', "", head) + ">" + rest


# ---------------------------------------------------------------------------- axes


def canvas(height, rows=1, **more):
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, squeeze=False, **more)[:, 0]
    for one in axes:
        one.tick_params(length=0)
    return figure, axes


def tick_label(x, _=None):
    """0.01, 20, 10⁻³, 2·10⁻⁶, 16384."""
    if x == 0:
        return "0"
    exponent = math.floor(math.log10(abs(x)) + 1e-9)
    if -2 <= exponent < 6:
        return minus(f"{x:.10g}")
    mantissa = f"{abs(x) / 10.0 ** exponent:.3g}"
    return ("−" if x < 0 else "") + (power(exponent) if mantissa == "1" else f"{mantissa}·{power(exponent)}")


def linear(axis, integer=False):
    axis.set_major_locator(MaxNLocator(nbins=6, min_n_ticks=4, integer=integer, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(tick_label)


def inside(locator, low, high):
    return [x for x in locator.tick_values(low, high) if low <= x <= high]


def apart(ticks, place, gap):
    """Those of the ticks, the first ones first, that lie no nearer to one another than their labels are wide.
    place: where a tick is, as a part of the axis."""
    kept = []
    for tick in ticks:
        if all(abs(place(tick) - place(other)) >= gap for other in kept):
            kept.append(tick)
    return sorted(kept)


def set_ticks(axis, choices, place, gap):
    """The first of the choices that leaves four ticks or more."""
    found = [apart(ticks, place, gap) for ticks in choices]
    axis.set_major_locator(FixedLocator(next((ticks for ticks in found if len(ticks) >= 4), found[-1])))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(tick_label)


def logarithmic(axes, which):
    """A logarithmic axis whose limits are set: decades where they give four ticks, else steps between."""
    getattr(axes, f"set_{which}scale")("log")
    low, high = getattr(axes, f"get_{which}lim")()
    locators = [LogLocator(numticks=7), LogLocator(subs=(1, 3), numticks=100),
                LogLocator(subs=(1, 2, 5), numticks=100), LogLocator(subs=(1, 1.5, 2, 3, 5, 7), numticks=100),
                MaxNLocator(nbins=6, min_n_ticks=4), MaxNLocator(nbins=12, min_n_ticks=6)]
    set_ticks(getattr(axes, f"{which}axis"), [inside(locator, low, high) for locator in locators],
              lambda x: math.log(x / low) / math.log(high / low), 0.13)


def about_zero(all_axes, values):
    """A scale that is linear about 0 and logarithmic farther out, for numbers of either sign and any size."""
    sizes = [abs(v) for v in values if v] or [1.0]
    last = math.ceil(math.log10(max(sizes)) - 1e-9)
    first = max(math.floor(math.log10(min(sizes)) + 1e-9), last - 10)
    low, high, reach = min(0.0, *values), max(0.0, *values), 10.0 ** first
    for axes in all_axes:
        axes.set_xscale("symlog", linthresh=reach, linscale=0.6)
        axes.set_xlim(1.6 * low - 0.35 * reach, 1.6 * high + 0.35 * reach)
        at = axes.transScale.transform
        (start, _), (end, _) = (at((x, 0)) for x in axes.get_xlim())

        def choice(step, parts):
            sizes = [part * 10.0 ** d for d in range(last, first - 1, -step) for part in parts]
            ticks = [0.0, *(sign * size for size in sizes for sign in (1, -1))]
            return [tick for tick in ticks if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]

        choices = [choice(step, (1,)) for step in range(max(1, (last - first) // 4), 0, -1)]
        choices += [choice(1, parts) for parts in ((1, 3), (1, 2, 5), range(1, 10))]
        set_ticks(axes.xaxis, choices, lambda x: (at((x, 0))[0] - start) / (end - start), 0.16)


def rows_of(axes, labels):
    """Horizontal rows, the first on top."""
    axes.set_yticks(range(len(labels)), [short(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def short(name, longest=18):
    return "\n".join(shown(line, longest) for line in str(name).split("\n"))


def legend_above(figure, entries, columns=2):
    """entries: (how it is drawn, what it is). Given, not gathered: a name that begins with _ is lost."""
    handles, labels = zip(*entries)
    figure.legend(handles, [shown(label, 34) for label in labels], loc="outside upper left", ncols=columns,
                  handlelength=1.6, columnspacing=1.2, borderpad=0.1)


def colors_of(checkpoints):
    """A checkpoint has the color of its norm, where that is not another one's too."""
    norms = [c["norm"] for c in checkpoints]
    if len(set(norms)) == len(norms):
        return [COLORS[norm] for norm in norms]
    return [MORE[i % len(MORE)] for i in range(len(norms))]


def bar(axes, low, high, row, color):
    """An interval: taller than a dot, so that a narrow one is seen behind it."""
    axes.plot([low, high], [row, row], color=color, linewidth=8, alpha=0.35, solid_capstyle="butt")


def interval(axes, low, x, high, row, color):
    bar(axes, low, high, row, color)
    axes.plot(x, row, "o", color=color, markersize=4)


def key(color, marker=None, size=4, width=0.0, **more):
    """What stands in a legend."""
    return Line2D([], [], color=color, marker=marker, markersize=size, linewidth=width, **more)


# ---------------------------------------------------------------------------- outputs


def differences(panels):
    """panels: (title, rows); a row: (label, mean, low, high, color, [single values]). Nats a token."""
    figure, axes = canvas(0.75 + sum(0.55 + 0.27 * len(rows) for _, rows in panels), len(panels))
    values = [x for _, rows in panels for _, *ends, _, single in rows for x in (*ends, *single)
              if x is not None]
    about_zero(axes, values)
    for one, (title, rows) in zip(axes, panels):
        for row, (_, mean, low, high, color, single) in enumerate(rows):
            one.plot(single, [row] * len(single), "|", color=color, markersize=9, markeredgewidth=1)
            if low is not None:
                bar(one, low, high, row, color)
            one.plot(mean, row, "o", color=color, markersize=4)
        one.axvline(0, color="#333333", linewidth=1)
        rows_of(one, [label for label, *_ in rows])
        one.set_title(shown(title, 34))
    axes[-1].set_xlabel("change of −log likelihood, nats a token")
    gray = COLORS[None]
    legend_above(figure, [(key(gray, "o"), "mean"), (key(gray, width=8, alpha=0.35), "95 % interval"),
                          (key(gray, "|", 9), "one direction")], 3)
    return figure


def tails(lines):
    """lines: (label, color, dashed, comparison): of how many positions the divergence is larger than x."""
    figure, (axes,) = canvas(3.0)
    entries, lowest, smallest, largest = [], 100.0, math.inf, 0.0
    for label, color, dashed, found in lines:
        x = np.array(found["percentiles"])
        y = np.append(100.0 - np.arange(100), 100 / found["positions"])
        seen = x > 0
        if not seen.any():
            continue
        drawn, = axes.plot(x[seen], y[seen], color=color, linestyle=(0, (4, 2)) if dashed else "-",
                           linewidth=1.3 if dashed else 1.8)
        mean = found["kl"]["mean"]
        axes.plot(mean, np.interp(mean, x, y), "D", color=color, markersize=5)
        entries.append((drawn, label))
        lowest, largest = min(lowest, y[-1]), max(largest, x[-1])
        smallest = min(smallest, max(x[10], x[-1] * 1e-7) or x[-1])
    axes.set_xlim(smallest / 2 if entries else 0.1, 2 * largest if entries else 10)
    axes.set_ylim(lowest / 1.6, 140)
    logarithmic(axes, "x")
    logarithmic(axes, "y")
    axes.set_xlabel("KL divergence, nats")
    axes.set_ylabel("% of positions with more")
    entries.append((key(COLORS[None], "D", 5), "mean"))
    legend_above(figure, entries, 2)
    return figure


def changed_tokens(panels):
    """panels: (title, rows); a row: (label, [(color, share, low, high)]): the same likeliest token."""
    figure, axes = canvas(0.75 + sum(0.6 + 0.36 * len(rows) for _, rows in panels), len(panels))
    shares = [x for _, rows in panels for _, found in rows for _, *share in found for x in share]
    about_zero(axes, [round(100 * (1 - x), 9) for x in shares if x is not None] or [100.0])
    for one, (title, rows) in zip(axes, panels):
        for row, (_, found) in enumerate(rows):
            for shift, (color, *share) in zip((-0.2, 0.2), found):
                x, high, low = (None if s is None else 100 * (1 - s) for s in share)
                if low is not None:
                    bar(one, low, high, row + shift, color)
                if x is not None:
                    one.plot(x, row + shift, "o", color=color, markersize=4)
        rows_of(one, [label for label, _ in rows])
        one.set_title(shown(title, 34))
    axes[-1].set_xlabel("another likeliest token, % of positions")
    legend_above(figure, [(key(MORE[4], "o"), "norm swapped"), (key(COLORS[None], "o"), "weights in Q8_0"),
                          (key(COLORS[None], width=8, alpha=0.35), "95 % interval")], 3)
    return figure


def partings(rows, tokens):
    """rows: (label, color, parted): after how many tokens the texts of each prompt part."""
    figure, (axes,) = canvas(0.95 + 0.5 * len(rows))
    never = 1.22 * tokens
    for row, (_, color, found) in enumerate(rows):
        each = sorted(never if n is None else n for n in found["each"])
        low, high = (never if q is None else q for q in found["quartiles"])
        middle = never if found["median"] is None else found["median"]
        heights = [row + 0.24 * ((i * 0.618) % 1 - 0.5) for i in range(len(each))]
        axes.plot([low, high], [row, row], color=color, linewidth=9, alpha=0.3, solid_capstyle="butt")
        axes.plot(each, heights, "o", color=color, markersize=3, markeredgewidth=0)
        axes.plot([middle, middle], [row - 0.28, row + 0.28], color=color, linewidth=2.5)
    rows_of(axes, [label for label, _, _ in rows])
    axes.set_xlim(-0.03 * tokens, 1.3 * tokens)
    ticks = inside(MaxNLocator(5, min_n_ticks=4, integer=True, steps=[1, 2, 4, 5, 10]), 0, tokens)
    axes.set_xticks([*ticks, never], [*map(tick_label, ticks), "never"])
    axes.set_xlabel("tokens until the greedy texts part")
    gray = COLORS[None]
    legend_above(figure, [(key(gray, "o", 3), "a prompt"), (key(gray, width=2.5), "median"),
                          (key(gray, width=8, alpha=0.3), "quartiles")], 3)
    return figure


# ---------------------------------------------------------------------------- speed


def norm_curve(panels):
    """panels: (title, lines); a line: (label, color, dims, ratios, low, high), RMSNorm : LayerNorm."""
    figure, axes = canvas(0.8 + 1.6 * len(panels), len(panels), sharex=True)
    entries = {}
    for one, (title, lines) in zip(axes, panels):
        for label, color, dims, ratios, low, high in lines:
            drawn, = one.plot(dims, ratios, marker="o", markersize=4, color=color)
            one.fill_between(dims, low, high, color=color, alpha=0.2, linewidth=0)
            entries.setdefault(label, drawn)
        one.axhline(1, color="#333333", linewidth=1)
        one.set_xscale("log", base=2)
        one.set_title(title)
        one.set_ylabel("RMSNorm : LayerNorm")
        values = [x for line in lines for part in line[4:] for x in part]
        one.set_ylim(min(values + [0.9]) - 0.04, max(values + [1.0]) + 0.04)
        linear(one.yaxis)
    dims = sorted({d for _, lines in panels for line in lines for d in line[2]})
    axes[0].set_xlim(dims[0] / 1.2, dims[-1] * 1.2)
    ticks = [d for d in dims if d & (d - 1) == 0 and d.bit_length() % 2] or dims
    axes[-1].xaxis.set_major_locator(FixedLocator(ticks if len(ticks) >= 4 else dims))
    axes[-1].xaxis.set_minor_locator(NullLocator())
    axes[-1].xaxis.set_major_formatter(tick_label)
    axes[-1].set_xlabel("numbers in a vector")
    legend_above(figure, [(drawn, label) for label, drawn in entries.items()], 2)
    return figure


def norm_times(rows, names):
    """rows: (label, {norm: interval}); names: {norm: what the legend says}. Nanoseconds of one call."""
    figure, (axes,) = canvas(0.95 + 0.55 * len(rows))
    palette = COLORS | {"nonorm": COLORS[None]}
    for row, (_, times) in enumerate(rows):
        for shift, (norm, found) in zip((-0.22, 0, 0.22), times.items()):
            axes.barh(row + shift, found["value"], 0.18, color=palette[norm])
            axes.plot([found["low"], found["high"]], [row + shift] * 2, color="#222222", linewidth=1)
            axes.annotate(number(found["value"]), (found["high"], row + shift), (4, 0), va="center",
                          textcoords="offset points", fontsize=8)
    rows_of(axes, [label for label, _ in rows])
    axes.set_xlim(0, 1.16 * max(found["high"] for _, times in rows for found in times.values()))
    linear(axes.xaxis)
    axes.set_xlabel("ns for one norm of one token")
    bars = [(matplotlib.patches.Patch(color=palette[norm]), name) for norm, name in names.items()]
    legend_above(figure, bars, 3)
    return figure


def time_shares(rows):
    """rows: (label, {part: share of the time})"""
    figure, (axes,) = canvas(0.95 + 0.4 * len(rows))
    for row, (_, share) in enumerate(rows):
        left = 0
        for part, color in PARTS.items():
            axes.barh(row, 100 * share[part], 0.66, left, color=color)
            left += 100 * share[part]
    rows_of(axes, [label for label, _ in rows])
    axes.set_xlim(0, 100)
    linear(axes.xaxis)
    axes.set_xlabel("% of a token's time")
    legend_above(figure, [(matplotlib.patches.Patch(color=color), part) for part, color in PARTS.items()], 5)
    return figure


def end_to_end(rows):
    """rows: (label, expected, whole, control or None): LayerNorm's build beside RMSNorm's, per cent."""
    figure, (axes,) = canvas(1.05 + 0.66 * len(rows))
    expected_color, whole_color, gray = "#222222", COLORS["layernorm"], COLORS[None]
    reach = [0.5]
    for row, (_, expected, whole, control) in enumerate(rows):
        interval(axes, expected["low"], expected["value"], expected["high"], row - 0.25, expected_color)
        interval(axes, whole["low"], whole["value"], whole["high"], row, whole_color)
        reach += [abs(found[end]) for found in (expected, whole) for end in ("low", "high")]
        if control:
            bar(axes, control["low"], control["high"], row + 0.25, gray)
            axes.plot(control["orders"], [row + 0.25] * len(control["orders"]), "|", color=gray, markersize=9)
            reach += [abs(x) for x in (control["low"], control["high"], *control["orders"])]
    axes.axvline(0, color="#333333", linewidth=1)
    rows_of(axes, [label for label, *_ in rows])
    axes.set_xlim(-1.1 * max(reach), 1.1 * max(reach))
    linear(axes.xaxis)
    axes.set_xlabel("extra time of a token, % of RMSNorm's")
    legend_above(figure, [(key(expected_color, "o"), "LayerNorm: expected, share × ratio"),
                          (key(whole_color, "o"), "LayerNorm: whole program"),
                          (key(gray, "|", 9), "RMSNorm, linked in another order")], 1)
    return figure


# ---------------------------------------------------------------------------- the residual stream


def along_layers(panels, label, note=None):
    """panels: (title, color, trained, swapped, level or None); trained, swapped: (depths, values)."""
    figure, axes = canvas(0.85 + 1.45 * len(panels), len(panels))
    for one, (title, color, trained, swapped, level) in zip(axes, panels):
        one.plot(*swapped, color=color, linewidth=6, alpha=0.3, solid_capstyle="round")
        one.plot(*trained, color=color, marker="o", markersize=3.5, linewidth=1.2)
        values = [x for x in (*trained[1], *swapped[1], *([level] if level else [])) if x > 0] or [1.0]
        if level:
            one.axhline(level, color="#333333", linewidth=1.2, linestyle=":")
        one.set_ylim(min(values) / 1.3, max(values) * 1.3)
        logarithmic(one, "y")
        one.set_title(shown(title, 34))
        one.set_ylabel(label)
        one.xaxis.set_major_locator(MaxNLocator(nbins=8, min_n_ticks=4, integer=max(trained[0]) >= 4))
        one.xaxis.set_major_formatter(tick_label)
    axes[-1].set_xlabel("layers passed")
    gray = COLORS[None]
    entries = [(key(gray, "o", 3.5, 1.2), "with its norm"),
               (key(gray, width=6, alpha=0.3), "with its norm swapped")]
    if note:
        entries.append((key("#333333", width=1.2, linestyle=":"), note))
    legend_above(figure, entries, len(entries))
    return figure
