"""page.py - the report as one HTML file: tables, pictures, and beside each the sentence it supports."""

from html import escape

from lab import outputs, plots
from lab.engine import NORMS
from lab.throughput import PHASES

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #222; font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .75rem; padding-top: 1rem; border-top: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
p { max-width: 44rem; margin: .5rem 0; }
.lead { font-size: 1.1rem; color: #444; }
.small, footer { font-size: .875rem; color: #555; }
figure { display: grid; grid-template-columns: minmax(0, 34rem) minmax(0, 1fr); gap: 2rem;
         align-items: center; margin: 1.25rem 0 2rem; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { font-size: 1.05rem; }
.tables, .texts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
.tables { gap: 0 3rem; } .texts { gap: 1rem 2rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .75rem 0 .35rem; }
caption small, thead small { font-weight: 400; }
th, td { text-align: right; padding: .3rem 0 .3rem .6rem; border-bottom: 1px solid #e8e8e8; }
th, td { vertical-align: top; }
th:first-child { text-align: left; font-weight: 400; padding-left: 0; color: #444; }
tr.group th { font-weight: 600; padding-top: .9rem; color: #222; }
thead th { font-weight: 600; border-bottom: 1px solid #999; }
.rmsnorm { color: #2166ac; } .layernorm { color: #c2571a; }
blockquote { margin: .25rem 0; padding: .75rem 1rem; background: #f6f6f4; white-space: pre-wrap;
             overflow-wrap: anywhere; font: .95rem/1.5 Georgia, serif; }
blockquote .same { color: #777; }
code { font-size: .875em; overflow-wrap: anywhere; }
@media (max-width: 760px) {
  main { padding: 1.25rem 1rem 3rem; }
  figure { grid-template-columns: minmax(0, 1fr); gap: .5rem; }
  table { font-size: .82rem; } th, td { padding-left: .35rem; }
}
"""


def number(x, digits=3):
    """As many digits as help; powers of ten as they are written by hand."""
    if x and not 1e-3 <= abs(x) < 1e5:
        mantissa, exponent = f"{x:.1e}".split("e")
        return f"{mantissa}·10<sup>{int(exponent)}</sup>".replace("-", "−")
    return f"{x:.{digits}g}" if abs(x) < 1000 else f"{x:,.0f}"


def percent(x, digits=1):
    return f"{100 * x:.{digits}f}\u00a0%"


def change(ratio):
    return f"{100 * (ratio - 1):+.2f}".replace("-", "−")


def spread(found):
    """A ratio of times with its interval, as per cent of more time."""
    between = f"{change(found['low'])} to {change(found['high'])}"
    return f"{change(found['ratio'])}\u00a0%<br><small>{between}</small>"


def verdict(found):
    if not found["differs"]:
        return "no different"
    return f"{abs(100 * (found['ratio'] - 1)):.2f}\u00a0% {'slower' if found['ratio'] > 1 else 'faster'}"


def tokens(n):
    return f"{n} token{'s' * (n != 1)}"


# ---------------------------------------------------------------------------- the sentences


def listed(parts):
    parts = list(parts)
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def paired(a, b):
    """Of b's perplexity to a's. (Nothing where there are too few texts.)"""
    if len(a["texts"]) < 5:
        return ""
    mean, error = outputs.relative(a, b)
    return f"text by text {100 * mean:+.2f} ± {100 * error:.2f}\u00a0%".replace("-", "−")


def perplexity_sentence(report):
    parts, all_of = [], report["checkpoints"]
    for c in all_of:
        own, swapped = c["perplexity"][c["norm"]], c["perplexity"][c["other"]]
        notes = "; ".join(filter(None, (escape(c["name"]), paired(own, swapped))))
        parts.append(f"from {own['perplexity']:.4f} to {swapped['perplexity']:.4f} ({notes})")
    sentence = f"With the norm swapped, perplexity goes {listed(parts)}."
    if len(all_of) == 2 and paired(*(c["perplexity"][c["norm"]] for c in all_of)):
        gap = paired(*(c["perplexity"][c["norm"]] for c in all_of))
        name = escape(all_of[1]["name"])
        sentence += f" Each with the norm it was trained with, {name} is {gap} from the other."
    return sentence


def divergence_sentence(report):
    parts = []
    for c in report["checkpoints"]:
        d = c["distributions"]
        parts.append(f"Swapping the norm of {escape(c['name'])} moves the next token's distribution by "
                     f"{number(d['kl'])} nats on average (median {number(d['percentiles'][50])}), and leaves "
                     f"the likeliest token as it was at {percent(d['agreement'])} of "
                     f"{d['positions']:,} positions.")
    return " ".join(parts)


def speed_sentence(report):
    found = [(c, phase, c["throughput"][phase]) for c in report["checkpoints"] for phase in PHASES]
    apart = [f"{phase} of {escape(c['name'])} (LayerNorm is {verdict(f)})"
             for c, phase, f in found if f["differs"]]
    widest = max((f["high"] - f["low"]) / 2 for _, _, f in found)
    start = "Of a whole token's time the choice of norm costs nothing that could be seen" if not apart else \
        f"The choice of norm shows in {listed(apart)}"
    control = report["control"]
    clean = not any(control[phase]["differs"] for phase in PHASES)
    return (f"{start}: the intervals reach {percent(widest, 2)} to either side. The same build on both sides "
            f"{'shows no difference, as it must' if clean else 'shows one too, so believe none of it'}.")


def norm_sentence(report):
    parts = [f"{verdict(c['throughput'][phase + '_norm'])} in {phase} of {escape(c['name'])}"
             for c in report["checkpoints"] for phase in PHASES]
    return f"Call for call, LayerNorm is {listed(parts)} (the table has the intervals)."


def share_sentence(report):
    shares = [p["share"]["norm"] for c in report["checkpoints"] for phases in c["time"].values()
              for p in phases.values()]
    return (f"Whichever the norm, it takes {percent(min(shares))} to {percent(max(shares))} of a token's "
            f"time: a norm that cost nothing could save no more than that.")


def own_stream(c, what):
    return [p[what] for p in c["stream"][c["norm"]]] or [0.0]


def mean_sentence(report):
    parts = [f"{number(min(own_stream(c, 'mean_to_rms')))} to {number(max(own_stream(c, 'mean_to_rms')))} "
             f"({escape(c['name'])}, {c['dim']} numbers)" for c in report["checkpoints"]]
    base = sorted({(c["baseline"]["dim"], c["baseline"]["mean_to_rms"]) for c in report["checkpoints"]})
    random = listed(f"{number(ratio)} for {dim} numbers" for dim, ratio in base)
    return (f"The mean is {listed(parts)} of the stream's RMS. Small or not is a question of what to compare "
            f"with: in random vectors it is {random}.")


def angle_sentence(report):
    parts = [f"{number(max(1 - x for x in own_stream(c, 'cosine')))} ({escape(c['name'])})"
             for c in report["checkpoints"]]
    return (f"From the same vector the two norms make nearly the same direction: 1 − cosine is at most "
            f"{listed(parts)}. Before the weights, the cosine is √(1 − (mean/RMS)²), exactly.")


def size_sentence(report):
    parts = [f"{number(own_stream(c, 'rms')[-1] / own_stream(c, 'rms')[0])} times in {escape(c['name'])}"
             for c in report["checkpoints"] if own_stream(c, "rms")[0]]
    if not parts:
        return "Nothing was written, so there is no stream to see."
    return f"From the embedding to the last layer the stream grows {listed(parts)}: what a norm is for."


def oracle_sentence(c):
    if "skipped" in c["oracle"]:
        return f"{escape(c['name'])}: left out, because {escape(c['oracle']['skipped'])}."
    found, swapped = c["oracle"], c["distributions"]
    verdict = "the same distributions" if found["holds"] else "other distributions, <strong>a defect</strong>"
    return (f"{escape(c['name'])}: once nothing that enters the stream has a mean, the two norms give "
            f"{verdict}: KL {number(found['kl'])} nats, agreement {percent(found['agreement'])} of "
            f"{found['positions']:,} positions. (As it was trained: {number(swapped['kl'])} nats, "
            f"{percent(swapped['agreement'])}.)")


# ---------------------------------------------------------------------------- the parts of the page


def row(label, cells):
    return f"<tr><th scope=row>{label}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def wide(label, cell):
    return f"<tr><th scope=row>{label}</th><td colspan=2>{cell}</td></tr>"


def table(c):
    """One checkpoint with RMSNorm, with LayerNorm, and by how much the second takes longer."""
    d, g, time = c["distributions"], c["greedy"], c["time"]
    swapped = ["–" if norm == c["norm"] else "{}" for norm in NORMS]
    parted = "never" if g["same"] else tokens(g["tokens_until_they_part"])
    lines = [
        row("perplexity", [f"{c['perplexity'][n]['perplexity']:.4f}<br>± {c['perplexity'][n]['stderr']:.4f}"
                           for n in NORMS]),
        row("KL from the trained norm, nats", [s.format(number(d["kl"])) for s in swapped]),
        row("same likeliest token", [s.format(percent(d["agreement"])) for s in swapped]),
        row("greedy texts part after", [s.format(parted) for s in swapped]),
    ]
    for phase in PHASES:
        found = c["throughput"][phase]
        verdict = "they differ" if found["differs"] else "no difference"
        lines += [
            f"<tr class=group><th scope=rowgroup colspan=3>{phase}, one thread</th></tr>",
            row("tokens/s", [number(time[n][phase]["tokens_per_second"]) for n in NORMS]),
            wide("LayerNorm's extra time", f"{spread(found)}<br>{verdict}"),
            row("a norm, ns", [f"{time[n][phase]['norm_ns']:.0f}" for n in NORMS]),
            wide("LayerNorm's extra time", spread(c["throughput"][phase + "_norm"])),
            row("norms' share of the time", [percent(time[n][phase]["share"]["norm"], 2) for n in NORMS])]
    heads = "".join(f"<th scope=col class={norm}>{NORMS[norm]}<br><small>"
                    f"{'trained with' if norm == c['norm'] else 'swapped'}</small></th>" for norm in NORMS)
    return (f"<table><caption>{escape(c['name'])}<br><small>{c['parameters']:,} parameters, {c['layers']} "
            f"layers of {c['dim']}</small></caption><thead><tr><th></th>{heads}</tr></thead>"
            f"<tbody>{''.join(lines)}</tbody></table>")


def figure(svg, sentence):
    return f"<figure>{svg.replace('<svg ', '<svg role=img ', 1)}<figcaption>{sentence}</figcaption></figure>"


def texts(c):
    g = c["greedy"]
    together = g["common_characters"]
    parted = "never part" if g["same"] else f"part after {tokens(g['tokens_until_they_part'])}"
    quotes = "".join(
        f"<div><strong class={norm}>{NORMS[norm]}</strong>{' (trained with it)' if norm == c['norm'] else ''}"
        f"<blockquote><span class=same>{escape(g['texts'][norm][:together])}</span>"
        f"{escape(g['texts'][norm][together:])}</blockquote></div>" for norm in NORMS)
    return f"<h3>{escape(c['name'])}: the texts {parted}</h3><div class=texts>{quotes}</div>"


def figures(report):
    all_of = report["checkpoints"]
    by_phase = [(f"{c['name']}\n{phase}", c, phase) for c in all_of for phase in PHASES]
    speeds = [(label, c["throughput"][phase], False) for label, c, phase in by_phase]
    speeds += [(f"the same build\n{phase}", report["control"][phase], True) for phase in PHASES]
    shares = [(label, c["time"][c["norm"]][phase]["share"]) for label, c, phase in by_phase]
    times = [(label, {norm: c["time"][norm][phase]["norm_ns"] for norm in NORMS})
             for label, c, phase in by_phase]
    return {
        "perplexity": figure(plots.perplexity(all_of), perplexity_sentence(report)),
        "divergence": figure(plots.divergences(all_of), divergence_sentence(report)),
        "speed": figure(plots.speed(speeds), speed_sentence(report)),
        "norm": figure(plots.norm_time(times), norm_sentence(report)),
        "share": figure(plots.time_shares(shares), share_sentence(report)),
        "mean": figure(plots.along_layers(all_of, lambda p: p["mean_to_rms"], "|mean| / RMS",
                                          [c["baseline"]["mean_to_rms"] for c in all_of], "random vectors"),
                       mean_sentence(report)),
        "angle": figure(plots.along_layers(all_of, lambda p: 1 - p["cosine"], "1 − cosine of the outputs",
                                           [1 - c["baseline"]["cosine"] for c in all_of], "random vectors"),
                        angle_sentence(report)),
        "size": figure(plots.along_layers(all_of, lambda p: p["rms"], "RMS of the stream"),
                       size_sentence(report)),
    }


def page(report):
    f, all_of = figures(report), report["checkpoints"]
    oracle = "".join(f"<p>{oracle_sentence(c)}</p>" for c in all_of)
    return f"""<!doctype html>
<html lang=en>
<head><meta charset=utf-8><meta name=viewport content="width=device-width, initial-scale=1">
<link rel=icon href="data:,"><title>RMSNorm or LayerNorm?</title><style>{STYLE}</style></head>
<body><main>
<h1>RMSNorm or LayerNorm?</h1>
<p class=lead>Every checkpoint under the norm it was trained with, and under the other one. The engine is the
same but for one line.</p>
<div class=tables>{''.join(table(c) for c in all_of)}</div>
<h2>What a swap does to the output</h2>{f['perplexity']}{f['divergence']}{''.join(texts(c) for c in all_of)}
<h2>What it costs</h2>{f['speed']}{f['norm']}{f['share']}
<h2>Why: the mean of the residual stream</h2>{f['mean']}{f['angle']}{f['size']}
<h2>The check: without a mean they are the same</h2>{oracle}
<h2>How this was measured</h2>
<p class=small>Text: {escape(report['text'])}. Times: processor time of one thread, kernels
{escape(report['kernels'])}; the two builds in turn, A B B A, then B A A B, for
{report['control']['rounds']} rounds or so; 99 % bootstrap intervals of the rounds' trimmed mean. A second run
finds the same outputs to the digit, and times as the intervals say. Stream: over the {report['tokens']}
tokens that a model wrote, greedily. All numbers are in <code>report.json</code>. Again:
<code>{escape(report['command'])}</code></p>
</main></body></html>
"""
