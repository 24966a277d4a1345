"""page.py - the report as files: one HTML page, its figures as SVG and PDF, its tables as CSV.

The page is page.html.j2, filled in by Jinja2, which escapes whatever it is given; only the pictures, which
matplotlib wrote, go in as they are.
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lab import plots, sentences as say, tables, verdicts
from lab.engine import NORMS
from lab.wording import between, number, percent, shown, span

PHASES = ("decode", "prefill")
DIRECTIONS = "directions"


# ---------------------------------------------------------------------------- what is drawn


def noise_rows(c, color):
    """The swap, then what it is compared with, for one panel."""
    d = c["swap"]["delta"]
    yield "norm swapped", d["mean"], d["low"], d["high"], color, []
    for row in c["noise"]:
        if "skipped" in row:
            continue
        if DIRECTIONS in row:
            single = [one["delta"]["mean"] for one in row[DIRECTIONS]]
            yield "random directions\ndropped", row["delta"]["mean"], None, None, plots.COLORS[None], single
        else:
            d = row["delta"]
            yield row["name"], d["mean"], d["low"], d["high"], plots.COLORS[None], []


def tail_lines(report, colors):
    for c, color in zip(report["checkpoints"], colors):
        name = plots.short(c["name"], 17)
        yield f"{name}, swapped", color, False, c["swap"]
        q8 = say.noise_named(c, "Q8_0")
        if q8:
            yield f"{name}, Q8_0", color, True, q8


def agreement_rows(c):
    for key, label in (("all", "all"), ("certain", "certain"), ("open", "open")):
        swap, q8 = c["swap"]["agreement"][key], say.noise_named(c, "Q8_0")
        found = [(plots.MORE[4], swap["share"], swap["low"], swap["high"])]
        if q8:
            share = q8["agreement"][key]
            found.append((plots.COLORS[None], share["share"], share["low"], share["high"]))
        yield f"{label}: {percent(swap['of_positions'], 0)}", found


def partings(report, colors):
    for c, color in zip(report["checkpoints"], colors):
        yield f"{c['name']}\nswapped", color, c["greedy"]["swap"]
        if "skipped" not in c["greedy"]["noise"]:
            yield f"{c['name']}\nQ8_0", plots.COLORS[None], c["greedy"]["noise"]


def curve_lines(report):
    """{T: [line]} of bench-norm's results: RMSNorm's time in LayerNorm's, without its bias and with it."""
    lines = {}
    for T in sorted({r["T"] for r in report["norm_curve"]["results"]}):
        rows = sorted((r for r in report["norm_curve"]["results"] if r["T"] == T), key=lambda r: r["dim"])
        lines[T] = []
        for key, label, color in (("rms_to_layer", "without a bias", plots.COLORS["rmsnorm"]),
                                  ("rms_to_layer_with_bias", "with a bias", plots.COLORS["layernorm"])):
            ratios = [r[key] for r in rows if key in r]
            if ratios:
                lines[T].append((label, color, [r["dim"] for r in rows],
                                 *([r[part] for r in ratios] for part in ("median", "low", "high"))))
    return lines


def layernorm_of(c):
    """The LayerNorm that the file has: with a bias or without one."""
    return "layernorm with bias" if c["speed"]["bias"] else "layernorm"


def call_times(c, phase):
    call = c["speed"][phase]["call"]
    return {"rmsnorm": call["rmsnorm"], "layernorm": call[layernorm_of(c)], "nonorm": call["nonorm"]}


def of_whole(s):
    """LayerNorm's build beside RMSNorm's: as expected, as measured, and RMSNorm's beside itself."""
    return s["expected_percent"]["layernorm"], s["whole"]["layernorm"], s["control"]


def stream_panels(report, colors, what, level=lambda c: None):
    for c, color in zip(report["checkpoints"], colors):
        lines = [([p["depth"] for p in c["stream"][norm]], [max(what(p), 1e-12) for p in c["stream"][norm]])
                 for norm in (c["norm"], c["other"])]
        if lines[0][0] and lines[1][0]:
            yield c["name"], color, *lines, level(c)


def drawings(report):
    """(name, what it shows, a Figure, its sentences), in the order of the page."""
    all_of = report["checkpoints"]
    colors = plots.colors_of(all_of)
    phases = [(f"{c['name']}\n{phase}", c, phase) for c in all_of for phase in PHASES]

    def each(sentence):
        return [sentence(c) for c in all_of]

    yield ("differences", "what a swap of norms changes in the likelihood of a token, beside noise",
           plots.differences([(c["name"], list(noise_rows(c, color))) for c, color in zip(all_of, colors)]),
           each(say.noise_sentence))
    yield ("divergences", "how the KL divergence is spread over the positions",
           plots.tails(list(tail_lines(report, colors))), each(say.divergence_sentence))
    yield ("agreement", "how often the likeliest token changes, where the model is certain and elsewhere",
           plots.changed_tokens([(c["name"], list(agreement_rows(c))) for c in all_of]),
           each(say.agreement_sentence))
    yield ("greedy", "after how many tokens the greedy texts of each prompt part",
           plots.partings(list(partings(report, colors)), all_of[0]["greedy"]["tokens"]),
           each(say.greedy_sentence))
    lines = curve_lines(report)
    yield ("norm-curve", "the time of RMSNorm as a part of LayerNorm's, by the length of the vector",
           plots.norm_curve([(f"{T} token{'s' * (T > 1)} at a time", of_T) for T, of_T in lines.items()]),
           [say.curve_sentence(lines)])
    yield ("norm-times", "nanoseconds of one norm of one token",
           plots.norm_times([(label, call_times(c, phase)) for label, c, phase in phases],
                            {"rmsnorm": "RMSNorm", "layernorm": "LayerNorm", "nonorm": "no norm"}),
           each(say.call_sentence))
    yield ("shares", "where the time of a token goes",
           plots.time_shares([(label, c["speed"][phase]["parts"]) for label, c, phase in phases]),
           each(say.share_sentence))
    yield ("end-to-end", "what LayerNorm costs a whole token: expected, measured, and relinked for control",
           plots.end_to_end([(label, *of_whole(c["speed"][phase])) for label, c, phase in phases]),
           each(say.expected_sentence) + [say.control_sentence(report)])
    for name, label, what, level, sentence in (
            ("mean", "|mean| / RMS", lambda p: p["mean_to_rms"], lambda c: c["baseline"]["mean_to_rms"],
             say.mean_sentence),
            ("angle", "1 − cosine", lambda p: 1 - p["cosine"], lambda c: 1 - c["baseline"]["cosine"],
             say.angle_sentence),
            ("size", "RMS", lambda p: p["rms"], lambda c: None, say.size_sentence)):
        panels = list(stream_panels(report, colors, what, level))
        if panels:
            note = None if name == "size" else "random vector"
            yield name, f"{label} of the residual stream, layer by layer", plots.along_layers(
                panels, label, note), each(sentence)


# ---------------------------------------------------------------------------- what is written


# What a difference between programs is told as, where the question was the norm's.
TOLD = {None: None, "norm": "differs", "placement": "placement of code",
        "program": "differs, not by the norm"}


def findings(report):
    """(what was asked, what was found, one of three verdicts, how it is told): the report in a few lines."""
    for c in report["checkpoints"]:
        yield (f"Does the swap change the likelihoods of {say.name_of(c)}?", say.swap_sentence(c),
               c["swap"]["verdict"], c["swap"]["verdict"])
    for c in report["checkpoints"]:
        for phase, doing in say.LEVELS.items():
            s = c["speed"][phase]
            whole = s["whole"]["layernorm"]
            told = verdicts.sentence("LayerNorm's program", whole, s["control"])
            yield f"Does LayerNorm slow {say.name_of(c)} down when {doing}?", told, whole["verdict"], (
                TOLD[whole["told_as"]] or whole["verdict"])


def percents(found, scale=1.0):
    return between(*(scale * found[end] for end in ("value", "low", "high"))) + "\u00a0%"


def machine_facts(report):
    """Rows of the header."""
    p = report["provenance"]
    m, source = p["machine"], p["source"]
    gigabytes = f"{m['memory'] / 2**30:.1f} GiB" if m["memory"] else "memory not known"
    commit = source["commit"] or "not a git checkout"
    changed = {True: ", with changes that are not committed", False: ", nothing changed", None: ""}
    loads = " and ".join(f"{number(x[0])}" for x in (p["load_at_start"], p["load_at_end"]) if x)
    yield "machine", f"{m['cpu']}, {m['cores']} cores, {gigabytes}, {m['system']}"
    yield "load", f"{loads} at start and end, the average of a minute" if loads else "not known"
    yield "kernels", report["kernels"]
    yield "commit", commit + changed[source["dirty"]]
    yield "compiler", p["compiler"] or "not told: make ablate tells it"
    yield "date", span(p["started"], p["finished"])
    yield "seeds", ", ".join(f"{what}: {seed}" for what, seed in p["seeds"].items())


def example(c):
    """One pair of texts, each cut where the two part."""
    found = c["greedy"]["example"]
    n = found["common_characters"]
    parted = "never part" if found["parted"] is None else f"part after {found['parted']} tokens"
    return {"name": say.name_of(c), "parted": parted, "prompt": found["prompt"],
            "texts": [{"norm": norm, "label": NORMS[norm], "trained": norm == c["norm"],
                       "same": found["texts"][norm][:n], "rest": found["texts"][norm][n:]} for norm in NORMS]}


def comparisons(c):
    """The swap and the noise, a row each."""
    for name, found in [("norm swapped", c["swap"])] + [(row["name"], row) for row in c["noise"]]:
        if "skipped" in found:
            yield {"name": name, "skipped": found["skipped"]}
        elif DIRECTIONS in found:
            yield {"name": name + f", {len(found[DIRECTIONS])} of them: mean and range",
                   "delta": between(*(found["delta"][key] for key in ("mean", "min", "max"))),
                   "kl": number(found["kl"]["mean"]), "same": percent(found["agreement"]["mean"], 2),
                   "verdict": "–"}
        else:
            d = found["delta"]
            yield {"name": name, "kl": number(found["kl"]["mean"]), "verdict": found["verdict"],
                   "delta": say.nats(d).removesuffix(" nats a token"),
                   "same": percent(found["agreement"]["all"]["share"], 2)}


def costs(c):
    """Per phase, what the tables say of speed."""
    for phase in PHASES:
        s = c["speed"][phase]
        call = call_times(c, phase)
        yield {"phase": phase, "rows": [
            ("tokens/s", [f"{s['tokens_per_second'][norm]:,.0f}" for norm in call]),
            ("one norm, ns", [number(found["value"]) for found in call.values()]),
            ("norms' share of the time",
             [percent(s["share"][norm]["value"], 2) for norm in ("rmsnorm", "layernorm")] + ["–"]),
            ("expected of a token, against RMSNorm",
             ["0"] + [percents(s["expected_percent"][norm]) for norm in ("layernorm", "nonorm")]),
            ("whole program, against RMSNorm",
             ["0"] + [percents(s["whole"][norm]) for norm in ("layernorm", "nonorm")]),
            ("verdict", ["–"] + [s["whole"][norm]["verdict"] for norm in ("layernorm", "nonorm")])]}


# ---------------------------------------------------------------------------- the files


def template():
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)
    environment.filters |= {"shown": shown, "number": number, "percent": percent}
    return environment.get_template("page.html.j2")


def html(report, figures):
    """The page. figures: {name: {"svg": Markup, "told": its sentences}}"""
    return template().render(
        report=report, figures=figures, lead=say.lead(report), findings=list(findings(report)), norms=NORMS,
        facts=list(machine_facts(report)), tables=sorted(tables.tables(report)), checkpoints=[
            {"c": c, "name": say.name_of(c), "comparisons": list(comparisons(c)), "costs": list(costs(c)),
             "example": example(c), "oracle": list(say.oracle_sentences(c))} for c in report["checkpoints"]])


def build(report):
    """{where it belongs in the report's folder: bytes}"""
    files, figures = {}, {}
    for name, shows, figure, told in drawings(report):
        pictures = plots.files_of(figure, shows[0].upper() + shows[1:])
        files |= {f"figures/{name}.{kind}": data for kind, data in pictures.items()}
        figures[name] = {"svg": Markup(plots.inline(pictures["svg"], name)), "told": told}
    texts = tables.tables(report) | {"report.html": html(report, figures)}
    return files | {name: text.encode("utf-8", "replace") for name, text in texts.items()}
