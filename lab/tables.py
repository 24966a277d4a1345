"""tables.py - the numbers of a report as CSV, a file for each kind: for R, pandas, or a spreadsheet."""

import csv
import io

PHASES = ("decode", "prefill")


def written(header, rows):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def named_comparisons(c):
    """(name, COMPARISON) of the swap, of all noise, and of every random direction by itself."""
    yield "norm swapped", c["swap"]
    for row in c["noise"]:
        if "directions" in row:
            yield from ((f"{row['name']}, {i + 1}", one) for i, one in enumerate(row["directions"]))
        elif "skipped" not in row:
            yield row["name"], row


def outputs(report):
    yield ("checkpoint", "norm", "comparison", "positions", "blocks", "block", "nll", "nll_compared",
           "delta_nats", "stderr", "low_95", "high_95", "verdict", "kl_mean", "kl_median", "kl_max",
           "kl_top_1_percent", "same_token", "same_token_certain", "same_token_open")
    for c in report["checkpoints"]:
        for name, found in named_comparisons(c):
            d, kl, same = found["delta"], found["kl"], found["agreement"]
            yield (c["name"], c["norm"], name, found["positions"], found["blocks"], found["block"],
                   found["nll"]["p"], found["nll"]["q"], d["mean"], d["stderr"], d["low"], d["high"],
                   found["verdict"], kl["mean"], kl["median"], kl["max"], kl["top_1_percent"],
                   *(same[key]["share"] for key in ("all", "certain", "open")))


def divergences(report):
    yield "checkpoint", "comparison", "percentile", "kl_nats"
    for c in report["checkpoints"]:
        for name, found in named_comparisons(c):
            yield from ((c["name"], name, i, x) for i, x in enumerate(found["percentiles"]))


def greedy(report):
    yield "checkpoint", "comparison", "prompt", "tokens_until_they_part"
    for c in report["checkpoints"]:
        for name, key in (("norm swapped", "swap"), ("weights in Q8_0", "noise")):
            if "skipped" not in c["greedy"][key]:
                yield from ((c["name"], name, i + 1, "never" if n is None else n)
                            for i, n in enumerate(c["greedy"][key]["each"]))


def speed(report):
    yield ("checkpoint", "phase", "build", "tokens_per_second", "norm_ns", "norm_ns_low", "norm_ns_high",
           "expected_percent", "expected_low", "expected_high", "whole_percent", "whole_low", "whole_high",
           "holm_p", "verdict", "told_as")
    for c in report["checkpoints"]:
        for phase in PHASES:
            s = c["speed"][phase]
            for build in ("rmsnorm", "layernorm", "nonorm"):
                with_bias = build == "layernorm" and c["speed"]["bias"]
                call = s["call"]["layernorm with bias" if with_bias else build]
                expected, whole = s["expected_percent"].get(build), s["whole"].get(build)
                yield (c["name"], phase, build, s["tokens_per_second"][build],
                       *(call[end] for end in ("value", "low", "high")),
                       *(expected[end] if expected else 0 for end in ("value", "low", "high")),
                       *(whole[key] if whole else None for key in ("value", "low", "high", "holm", "verdict",
                                                                   "told_as")))


def relinked(report):
    yield "checkpoint", "phase", "order", "percent_more_time"
    for c in report["checkpoints"]:
        for phase in PHASES:
            control = c["speed"][phase]["control"]
            if control:
                yield from ((c["name"], phase, i + 1, x) for i, x in enumerate(control["orders"]))


def norm_curve(report):
    yield "kernels", "dim", "tokens", "norm", "ns", "ns_quartile_1", "ns_quartile_3", "of_limit"
    for r in report["norm_curve"]["results"]:
        for norm, found in r["norms"].items():
            yield (r["kernels"], r["dim"], r["T"], norm,
                   *(found["ns"][key] for key in ("median", "low", "high")), found["of_limit"]["median"])


def stream(report):
    keys = ("op", "layer", "depth", "rms", "mean", "mean_to_rms", "cosine")
    yield "checkpoint", "norm", *keys
    for c in report["checkpoints"]:
        for norm, points in c["stream"].items():
            yield from ((c["name"], norm, *(p[key] for key in keys)) for p in points)


def files(report):
    yield "what", "name", "bytes", "sha256"
    for file in report["provenance"]["files"]:
        yield file["what"], file["name"], file["bytes"], file["sha256"]


def tables(report):
    """{file name: its text}"""
    makers = {"outputs": outputs, "divergences": divergences, "greedy": greedy, "speed": speed,
              "relinked": relinked, "norm-curve": norm_curve, "stream": stream, "files": files}
    texts = {}
    for name, make in makers.items():
        header, *rows = make(report)
        texts[f"{name}.csv"] = written(header, rows)
    return texts
