"""sentences.py - what the numbers of a report say, in words, and never more than they say. Plain text.

A difference is told from noise by its interval, in three verdicts: differs; no difference beyond a bound; not
resolved. Whatever is said holds for this text and these weights, on this machine.
"""

from lab.engine import NORMS
from lab.wording import between, counted, listed, number, percent, shown

LEVELS = {"decode": "writing", "prefill": "reading"}


def name_of(c):
    return shown(c["name"], 60)


def swapped(c):
    return f"{NORMS[c['other']]} in place of {NORMS[c['norm']]}"


def nats(delta):
    if delta["low"] is None:
        return f"{number(delta['mean'])} nats a token"
    return f"{between(delta['mean'], delta['low'], delta['high'])} nats a token"


def change(delta):
    """The same as per cent of perplexity."""
    p = delta["percent"]
    if p["low"] is None:
        return f"{number(p['mean'])}\u00a0%"
    return f"{between(p['mean'], p['low'], p['high'])}\u00a0%"


def verdict(found):
    """Of a COMPARISON of outputs."""
    if found["verdict"] == "differs":
        return "the difference is larger than chance"
    if found["verdict"] == "no difference":
        return f"no difference beyond {number(found['beyond'])} nats a token"
    if found["delta"]["low"] is None:
        return (f"not resolved: {counted(found['blocks'], 'block')} of text are too few for an interval; "
                f"a longer text would tell")
    return "not resolved: the interval holds 0 and is wide; a longer text would narrow it"


# ---------------------------------------------------------------------------- outputs


def noise_named(c, part):
    return next((row for row in c["noise"] if part in row["name"] and "skipped" not in row), None)


def swap_sentence(c):
    found = c["swap"]
    return (f"{swapped(c)}: {nats(found['delta'])}, {change(found['delta'])} of perplexity "
            f"({found['perplexity']['p']:.4f} to {found['perplexity']['q']:.4f}): {verdict(found)}.")


def beside(delta, directions):
    """Where the interval lies beside what random directions cost."""
    if delta["low"] is not None and delta["low"] > directions["max"]:
        return "costs more than any of them"
    if delta["high"] is not None and delta["high"] < directions["min"]:
        return "costs less than any of them"
    return "cannot be told from them"


def noise_sentence(c):
    """The swap beside noise that nobody minds, and beside directions that mean nothing."""
    swap = c["swap"]["delta"]
    rows = [row for row in c["noise"] if "skipped" not in row and "directions" not in row]
    told = [f"{number(row['delta']['mean'])} ({row['name']})" for row in rows]
    text = f"{name_of(c)}: {number(swap['mean'])} nats a token for the swap"
    text += f", beside {listed(told)}. " if told else ". "
    random = next((row for row in c["noise"] if "directions" in row), None)
    if random:
        d, n = random["delta"], len(random["directions"])
        text += (f"Dropping one of {n} random directions costs {number(d['min'])} to {number(d['max'])}, on "
                 f"average {number(d['mean'])}")
        if c["norm"] == "rmsnorm":
            text += f"; dropping the mean, which is the swap, {beside(swap, d)}"
        text += ". "
    skipped = [row for row in c["noise"] if "skipped" in row]
    text += "".join(f"Left out: {row['name']}, because {row['skipped'].rstrip('.')}. " for row in skipped)
    return text.strip()


def divergence_sentence(c):
    kl = c["swap"]["kl"]
    spread = "" if kl["low"] is None else f" ({number(kl['low'])} to {number(kl['high'])})"
    return (f"{name_of(c)}: the swap moves the next token's distribution by {number(kl['mean'])}{spread} "
            f"nats on average, by {number(kl['median'])} at the median position and by {number(kl['max'])} "
            f"at most; the top 1\u00a0% of the positions make {percent(kl['top_1_percent'], 0)} of the sum.")


def share_told(share):
    if share["low"] is None:
        return percent(share["share"], 2)
    return f"{percent(share['share'], 2)} ({percent(share['low'], 2)} to {percent(share['high'], 2)})"


def agreement_sentence(c):
    """Where the model is certain a tie cannot pass for a change."""
    a, q8 = c["swap"]["agreement"], noise_named(c, "Q8_0")
    parts = [f"{share_told(a[key])} of the {where}, {percent(a[key]['of_positions'], 0)} of all"
             for key, where in (("certain", "positions where the model is certain"), ("open", "others"))
             if a[key]["share"] is not None]
    text = f"{name_of(c)}: after the swap the likeliest token is the same at {listed(parts)}."
    if q8:
        parts = [f"{percent(q8['agreement'][key]['share'], 2)} of the {where}"
                 for key, where in (("certain", "certain"), ("open", "open"))
                 if q8["agreement"][key]["share"] is not None]
        text += f" Rounding the weights to Q8_0, without any swap, leaves {listed(parts)} as they were."
    return text


def parted_told(found, tokens):
    if found["median"] is None:
        return f"never part within {tokens} tokens in {found['never']} cases"
    ends = [f"more than {tokens}" if q is None else f"{q:g}" for q in found["quartiles"]]
    return f"part after {found['median']:g} tokens at the median (quartiles {ends[0]} and {ends[1]})"


def greedy_sentence(c):
    g = c["greedy"]
    text = (f"{name_of(c)}, {counted(g['prompts'], 'prompt')}: the texts with and without the swap "
            f"{parted_told(g['swap'], g['tokens'])}.")
    if "skipped" not in g["noise"]:
        text += f" With the weights in Q8_0 and no swap they {parted_told(g['noise'], g['tokens'])}."
    return text


def oracle_sentences(c):
    ways = (("center", "The two norms agree once nothing that enters the stream has a mean"),
            ("fold", "The norms' weights moved into the matrices that read them change nothing"))
    for key, claim in ways:
        found = c["oracle"].get(key)
        if found is None:
            continue
        if "skipped" in found:
            yield f"{name_of(c)}: left out, because {found['skipped'].rstrip('.')}."
            continue
        held = claim if found["holds"] else f"A DEFECT: it should hold that {claim[0].lower()}{claim[1:]}"
        yield (f"{name_of(c)}: {held}: KL {number(found['kl'])} nats on average, {number(found['kl_max'])} "
               f"at most, the same likeliest token at {percent(found['agreement'], 2)} of "
               f"{counted(found['positions'], 'position')}.")


# ---------------------------------------------------------------------------- speed


def curve_sentence(lines):
    """lines: {T: [(label, color, dims, ratios, low, high)]}"""
    dims = next(of_T[0][2] for of_T in lines.values())
    ends = [end for of_T in lines.values() for line in of_T for end in zip(*line[4:])]
    apart = sum(not low <= 1 <= high for low, high in ends)
    parts = []
    for T, of_T in lines.items():
        ratios = [f"{min(r):.2f} to {max(r):.2f} {label}" for label, _, _, r, *_ in of_T]
        parts.append(f"with {counted(T, 'token')} at a time {listed(ratios)}")
    return (f"From {dims[0]} to {dims[-1]} numbers, RMSNorm's time is this part of LayerNorm's: "
            f"{'; '.join(parts)}. The band reaches from quartile to quartile; in {apart} of "
            f"{len(ends)} points it does not hold 1.")


def call_sentence(c):
    s, key = c["speed"], "layer_to_rms_with_bias" if c["speed"]["bias"] else "layer_to_rms"
    parts = []
    for phase, doing in LEVELS.items():
        ratio = s[phase]["call"][key]
        apart = "" if ratio["low"] > 1 or ratio["high"] < 1 else ", not apart from 1"
        told = between(*(ratio[end] for end in ("value", "low", "high")), signed=False)
        parts.append(f"{told} times as long as RMSNorm when {doing}{apart}")
    bias = " with its bias" if s["bias"] else ""
    return (f"{name_of(c)}, vectors of {c['dim']} numbers: one call of LayerNorm{bias} takes "
            f"{listed(parts)}.")


def share_sentence(c):
    parts = []
    for phase, doing in LEVELS.items():
        of = c["speed"][phase]
        norm, left_out = of["share"][c["norm"]], of["expected_percent"]["nonorm"]
        share = between(*(100 * norm[end] for end in ("value", "low", "high")), signed=False)
        saved = between(*(-left_out[end] for end in ("value", "high", "low")), signed=False)
        parts.append(f"{share}\u00a0% of a token's time when {doing}, of which a norm that cost only its "
                     f"multiplication would save {saved}\u00a0%")
    return f"{name_of(c)}: the norms take {listed(parts)}."


def expected_sentence(c):
    parts = []
    for phase, doing in LEVELS.items():
        e = c["speed"][phase]["expected_percent"]["layernorm"]
        parts.append(f"{between(e['value'], e['low'], e['high'])}\u00a0% when {doing}")
    return f"{name_of(c)}: by share times ratio, LayerNorm should change a token's time by {listed(parts)}."


def control_sentence(report):
    facts = report["speed"]
    if facts["no_control"]:
        return f"There is no control of the placement of code: {facts['no_control'].rstrip('.')}."
    spreads = [c["speed"][phase]["control"]["spread"] for c in report["checkpoints"] for phase in LEVELS
               if c["speed"][phase]["control"]]
    low, high = number(min(spreads), 2), number(max(spreads), 2)
    told = low if low == high else f"{low} to {high}"
    return (f"RMSNorm's own objects linked in {facts['orders']} other orders, where only the placement of "
            f"code differs, scatter by {told}\u00a0% (standard deviation).")


# ---------------------------------------------------------------------------- the residual stream


def own_stream(c, what):
    return [p[what] for p in c["stream"][c["norm"]]] or [0.0]


def mean_sentence(c):
    values = own_stream(c, "mean_to_rms")
    return (f"{name_of(c)}: the mean is {number(min(values))} to {number(max(values))} of the stream's RMS; "
            f"of a random vector of {c['dim']} numbers it is {number(c['baseline']['mean_to_rms'])}.")


def angle_sentence(c):
    return (f"{name_of(c)}: from the same vector the two norms make directions whose 1 − cosine is at most "
            f"{number(max(1 - x for x in own_stream(c, 'cosine')))}.")


def size_sentence(c):
    values = own_stream(c, "rms")
    if not values[0]:
        return f"{name_of(c)}: nothing was written, so there is no stream to see."
    other = [p["rms"] for p in c["stream"][c["other"]]] or [0.0]
    ends = [number(x, 4) for x in (values[-1], other[-1])]
    return (f"{name_of(c)}: from the embedding to the last layer the stream grows "
            f"{number(values[-1] / values[0])} times; at the end its RMS is {ends[0]}, with the norm swapped "
            f"{ends[1]}.")


# ---------------------------------------------------------------------------- the lead


def lead(report):
    all_of = report["checkpoints"]
    texts = sorted({c["swap"]["positions"] for c in all_of})
    span = " and ".join(f"{n:,}" for n in texts[:1] + texts[1:][-1:])
    machine = report["provenance"]["machine"]["cpu"]
    return (f"{listed([name_of(c) for c in all_of])}, {'each ' * (len(all_of) > 1)}under the norm it was "
            f"trained with and under the other one. Outputs: {span} tokens of {shown(report['text'])}. "
            f"Times: one thread of {machine}, kernels {report['kernels']}.")
