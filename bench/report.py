"""report.py - from what compare.py has recorded to a table and a plot. Nothing is measured here.

    fraction of the read limit            bytes of weights that a token reads x tokens/s / bytes/s
    fraction of the multiply-add limit    weights that a token meets x tokens/s / multiply-adds/s

The limits have as many threads. How fast memory can be read changes from one second to the next on a shared
machine, so each run is held against the rate at which the same process read the same weights right after
it, llama.cpp's against ours. That of multiply-adds, of the best instruction of these kernels (int8 for
quantized weights, else fp32), is the best that was seen. What is typical is the median, its spread the
quartiles; ratios are formed within a round.
"""

import numpy as np

import models


def spread(values):
    low, median, high = np.percentile(values, (25, 50, 75))
    return {"median": float(median), "low": float(low), "high": float(high)}


def spread_of_runs(turns, part):
    return spread([run for turn in turns for run in turn[part]["runs"]])


def typical(turn, part):
    return float(np.median(turn[part]["runs"]))


def compare_part(row, part, work, limits):
    """Ours and theirs; the ratio of the two, and what of the limits they reach: a limit for each round."""
    out = {"work_per_token": work, "limit_per_s": float(np.median(limits["ours"])),
           "ours": spread_of_runs(row["ours"], part)}
    if row["theirs"]:
        out["theirs"] = spread_of_runs(row["theirs"], part)
        out["ratio"] = spread([typical(ours, part) / typical(theirs, part)
                               for ours, theirs in zip(row["ours"], row["theirs"])])
    for side in "ours", "theirs":
        if side in out:
            out[side]["fraction"] = float(np.median([work * typical(turn, part) / limit
                                                     for turn, limit in zip(row[side], limits[side])]))
    return out


def summarize(row):
    shape = models.SHAPES[row["shape"]]
    layers, classifier = shape.weights()
    prompt = row["ours"][0]["prefill"]["tokens"]
    context = prompt + row["ours"][0]["decode"]["tokens"]
    name = "float_g_per_s" if row["type"] in models.FLOATS else "int8_g_per_s"
    multiply_adds = 1e9 * max(turn[name][-1] for turn in row["limits"])
    rates = [turn["decode"]["read_limits_gb_per_s"] for turn in row["ours"]]
    theirs = [turn["decode"].get("read_limits_gb_per_s", rate) for turn, rate in zip(row["theirs"], rates)]
    reads = {"ours": [1e9 * np.median(rate) for rate in rates],
             "theirs": [1e9 * np.median(rate) for rate in theirs]}
    known = row["file_bytes"] + shape.cache_bytes(context)
    out = {
        "decode": compare_part(row, "decode", models.bytes_of(row["type"], layers + classifier), reads),
        # of a prompt, only the last token meets the classifier
        "prefill": compare_part(row, "prefill", layers + classifier / prompt,
                                dict.fromkeys(("ours", "theirs"), [multiply_adds] * len(row["ours"]))),
        "bytes_beyond_file_and_cache": {"ours": max(turn["peak_bytes"] for turn in row["ours"]) - known},
    }
    peaks = [turn["peak_bytes"] - turn.get("python_bytes", 0)
             for turn in row["theirs"] if "peak_bytes" in turn]
    if peaks:
        out["bytes_beyond_file_and_cache"]["theirs"] = max(peaks) - known
    return out


# ---------------------------------------------------------------------------- the table


def percent(side):
    return f"{100 * side['fraction']:.0f} %" if side else "-"


def with_quartiles(found, digits):
    one = found["low"] == found["high"]
    return ("{:.{d}f}" if one else "{:.{d}f} ({:.{d}f}-{:.{d}f})").format(
        *(found[key] for key in ("median", "low", "high")), d=digits)


def rate(side):
    return with_quartiles(side, 0 if side["median"] >= 1000 else 1) if side else "-"


def peer_name(result):
    return (result["peer"] or {}).get("name", "llama.cpp")


def header(peer):
    return ["model", "type", "decode tok/s", peer, "ratio", "of read limit", peer,
            "prefill tok/s", peer, "ratio", "of mul-add limit", peer, "MB beyond"]


def cells(row):
    out = [row["shape"], row["type"]]
    for part in "decode", "prefill":
        p = row["summary"][part]
        theirs = p.get("theirs")
        out += [rate(p["ours"]), rate(theirs), with_quartiles(p["ratio"], 2) if theirs else "-",
                percent(p["ours"]), percent(theirs)]
    return out + [f"{row['summary']['bytes_beyond_file_and_cache']['ours'] / 1e6:.1f}"]


def heading(result):
    m, peer = result["machine"], result["peer"]
    lines = [
        f"{m['cpu']}, {result['threads']} threads, {m['system']}, {result['compiler']}",
        f"{result['date']}, commit {result['commit']}, kernels {result['kernels']}, "
        f"{result['rounds']} rounds, load {m['load']:.1f} at the start",
        f"{peer_name(result)}: {peer['version']}, {peer['system_info']}" if peer else "without llama.cpp",
    ]
    if result["limits"]:
        limits = [max(turn[name][-1] for turn in result["limits"])
                  for name in ("read_gb_per_s", "int8_g_per_s", "float_g_per_s")]
        lines.append("limits: memory {:.1f} GB/s, {:.0f} G multiply-adds/s of int8, {:.0f} of fp32"
                     .format(*limits))
    if result["stories"]:
        stories = result["stories"]
        lines.append(f"{stories['tokens']} tokens of {stories['file']}, the whole command: "
                     f"{np.median(stories['milliseconds']):.1f} ms")
    return [*lines, result["command"]]


def table(result, markdown=False):
    """Lines of text; medians and quartiles, and MB of memory beyond the file and the cache."""
    rows = [header(peer_name(result)), *(cells(row) for row in result["rows"])]
    widths = [max(map(len, column)) for column in zip(*rows)]
    padded = [[cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))]
              for row in rows]
    if not markdown:
        return [*heading(result), "", *("  ".join(row) for row in padded)]
    rule = "|".join("---" if i < 2 else "---:" for i in range(len(widths)))
    lines = [f"| {' | '.join(row)} |" for row in padded]
    *about, command = heading(result)
    return [*(f"{line}  " for line in about), f"`{command}`", "", lines[0], f"|{rule}|", *lines[1:]]


# ---------------------------------------------------------------------------- the plot


def plot(result, path):
    """Fractions of the limits, a pair of bars for each file. False: there is no matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    rows = result["rows"]
    figure, axes = plt.subplots(1, 2, sharey=True, figsize=(10, 1.5 + 0.4 * len(rows)), layout="constrained")
    places = np.arange(len(rows))
    titles = {"decode": "decode, % of the read limit", "prefill": "prefill, % of the multiply-add limit"}
    for axis, (part, title) in zip(axes, titles.items()):
        for side, label, color, shift in (("ours", "prenorm", "#0072b2", -0.2),
                                          ("theirs", peer_name(result), "#e69f00", 0.2)):
            heights = [100 * row["summary"][part].get(side, {"fraction": 0})["fraction"] for row in rows]
            if side == "ours" or result["peer"]:
                axis.barh(places + shift, heights, 0.4, label=label, color=color)
        axis.axvline(100, color="black", linewidth=0.8)
        axis.set_title(title)
    axes[0].set_yticks(places, [f"{row['shape']} {row['type']}" for row in rows])
    axes[0].invert_yaxis()
    axes[1].legend(loc="lower right")
    figure.suptitle(f"{result['machine']['cpu']}, {result['threads']} threads, {result['date'][:10]}")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return True
