"""plots.py - one picture for each thing that was found, as SVG that stands inside a page."""

import io
import re

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from lab.engine import NORMS

COLORS = {"rmsnorm": "#2166ac", "layernorm": "#c2571a", None: "#8a8a8a"}
MORE = ["#2166ac", "#c2571a", "#4d7f3a", "#8456a8", "#a33a5f", "#4a8f99"]  # where norms tell nothing
PARTS = {"norm": "#b2182b", "attention": "#92b4d4", "ffn": "#6d8f5e", "matmul": "#d5dbe1", "other": "#8a8a8a"}
MARKS, SWAPPED = {True: "o", False: "s"}, (0, (4, 2))           # with the trained norm, and the swapped one

matplotlib.rcParams.update({
    "svg.fonttype": "none", "svg.hashsalt": "prenorm", "font.size": 9.5, "font.family": "sans-serif",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#777777", "axes.linewidth": 0.8,
    "axes.labelcolor": "#333333", "xtick.color": "#555555", "ytick.color": "#555555", "text.color": "#222222",
    "axes.grid": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.8, "axes.axisbelow": True,
    "lines.linewidth": 1.8, "lines.markersize": 5, "legend.frameon": False, "legend.fontsize": 8.5,
})


def canvas(height=2.6):
    figure = Figure(figsize=(4.4, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(length=0)
    return figure, axes


def svg(figure):
    """For the middle of an HTML page: no header, no names of XML's, nothing that is elsewhere."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True,
                   metadata={key: None for key in ("Date", "Creator", "Format", "Type")})
    text = out.getvalue()[out.getvalue().index("<svg"):]
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px sans-serif", text)
    tag, rest = text.split(">", 1)
    return re.sub(r' (width|height)="[^"]*"', "", tag) + ">" + rest


def rows_of(axes, labels):
    """Horizontal rows, the first on top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def legend_above(figure, columns):
    figure.legend(loc="outside upper left", ncols=columns, handlelength=1.6, columnspacing=1.2, borderpad=0.1)


def colors_of(checkpoints):
    """A checkpoint has the color of its norm, where that is not another one's too."""
    norms = [c["norm"] for c in checkpoints]
    if len(set(norms)) == len(norms):
        return [COLORS[norm] for norm in norms]
    return [MORE[i % len(MORE)] for i in range(len(norms))]


def perplexity(checkpoints):
    figure, axes = canvas(1.0 + 0.42 * len(checkpoints))
    for row, c in enumerate(checkpoints):
        for shift, (norm, found) in zip((-0.12, 0.12), c["perplexity"].items()):
            axes.errorbar(found["perplexity"], row + shift, xerr=2 * found["stderr"], color=COLORS[norm],
                          marker=MARKS[norm == c["norm"]], capsize=3, label="" if row else NORMS[norm])
            end = found["perplexity"] + 2 * found["stderr"], row + shift
            axes.annotate(f"{found['perplexity']:.4f}", end, (6, 0), textcoords="offset points", va="center",
                          fontsize=8.5, color=COLORS[norm])
    rows_of(axes, [c["name"] for c in checkpoints])
    axes.margins(x=0.22)
    axes.set_xlabel("perplexity, ± 2 standard errors")
    legend_above(figure, 2)
    return svg(figure)


def divergences(checkpoints):
    figure, axes = canvas()
    for c, color in zip(checkpoints, colors_of(checkpoints)):
        found = [max(x, 1e-12) for x in c["distributions"]["percentiles"]]
        axes.plot(found[1:], range(1, 101), color=color, label=c["name"])
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("KL divergence from the trained norm, nats")
    axes.set_ylabel("% of positions below it")
    axes.set_ylim(0, 102)
    legend_above(figure, 2)
    return svg(figure)


def speed(rows):
    """rows: (label, a ratio with its interval, is it a control?)"""
    figure, axes = canvas(0.8 + 0.4 * len(rows))
    for row, (label, found, is_control) in enumerate(rows):
        color = COLORS[None] if is_control else COLORS["layernorm"]
        percent = [100 * (found[key] - 1) for key in ("low", "ratio", "high")]
        axes.plot([percent[0], percent[2]], [row, row], color=color, linewidth=4, alpha=0.45)
        axes.plot(percent[1], row, "o", color=color, markersize=6)
    axes.axvline(0, color="#333333", linewidth=1)
    rows_of(axes, [label for label, _, _ in rows])
    reach = 1.15 * max(0.5, *(abs(100 * (found[key] - 1)) for _, found, _ in rows for key in ("low", "high")))
    axes.set_xlim(-reach, reach)
    axes.set_xlabel("extra time of a token, %  (99 % intervals)")
    return svg(figure)


def norm_time(rows):
    """rows: (label, {norm: nanoseconds})"""
    figure, axes = canvas(0.9 + 0.5 * len(rows))
    for row, (_, times) in enumerate(rows):
        for shift, (norm, ns) in zip((-0.19, 0.19), times.items()):
            axes.barh(row + shift, ns, 0.34, color=COLORS[norm], label="" if row else NORMS[norm])
            axes.annotate(f"{ns:.0f}", (ns, row + shift), (4, 0), textcoords="offset points", va="center",
                          fontsize=8.5)
    rows_of(axes, [label for label, _ in rows])
    axes.margins(x=0.12)
    axes.set_xlabel("ns for one norm of one token")
    legend_above(figure, 2)
    return svg(figure)


def time_shares(rows):
    """rows: (label, {part: share of the time})"""
    figure, axes = canvas(0.9 + 0.4 * len(rows))
    for row, (_, share) in enumerate(rows):
        left, whole = 0, sum(share.values())
        for part, color in PARTS.items():
            width = 100 * share[part] / whole
            axes.barh(row, width, 0.66, left, color=color, label="" if row else part)
            left += width
    rows_of(axes, [label for label, _ in rows])
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of a token's time")
    legend_above(figure, 5)
    return svg(figure)


def along_layers(checkpoints, what, label, baselines=(), note=None):
    """what: of a point of the stream. baselines: a number for each checkpoint's length of vectors."""
    figure, axes = canvas()
    for c, color in zip(checkpoints, colors_of(checkpoints)):
        for norm, points in c["stream"].items():
            depths, values = [p["depth"] for p in points], [max(what(p), 1e-12) for p in points]
            if norm == c["norm"]:
                axes.plot(depths, values, marker="o", color=color, label=c["name"])
            else:
                first = "with its norm swapped" if c is checkpoints[0] else None
                axes.plot(depths, values, linewidth=1.1, color=color, linestyle=SWAPPED, label=first)
    for i, value in enumerate(sorted(set(baselines))):
        axes.axhline(value, color="#333333", linewidth=1.2, linestyle=":", label=None if i else note)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:.0e}".replace("e-0", "e-") if y < 1e-3 else f"{y:g}")
    axes.set_xlabel("layers passed")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(figure, 2)
    return svg(figure)
