#!/usr/bin/env python3
"""ablate.py - what the choice of norm does to a model: outputs, speed, where the time goes, and why.

    python3 ablate.py [CHECKPOINT ...] [--text FILE] [--quick]      (make ablate builds what it needs first)

Every checkpoint runs under the norm it was trained with and under the other one. One table goes to standard
output; report.json, report.html (it opens offline), its figures and its tables go to ablation/. lab/ holds
what it measures with.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from lab import copies, greedy, outputs, provenance, relink, residuals, throughput, verdicts
from lab.engine import NORMS, Checkpoint, Engine, Trouble
from lab.texts import HELD_OUT, held_out, read_text

ROOT = Path(__file__).resolve().parent
SEEDS = {"blocks of text": 1, "random directions": 1, "rounds": 1, "first order of linking": 1}
TWINS = [ROOT / "models" / f"stories-{norm}.gguf" for norm in NORMS]


class Plan:
    """How much of everything."""

    def __init__(self, quick):
        self.stories = 12 if quick else 60              # of the default text
        self.logits = 2**25 if quick else 2**28         # positions x vocabulary, of each run
        self.products = 2**37 if quick else 2**40       # positions x parameters
        self.min, self.max = (512, 4096) if quick else (1024, 16384)
        self.directions = 3 if quick else 8
        self.disk = 2**30                               # bytes of copies that lie there together
        self.prompts, self.tokens = (20, 40) if quick else (24, 120)        # of greedy texts
        self.effort = throughput.QUICK if quick else throughput.Effort()

    def positions(self, model):
        fast = min(self.logits // model.vocab_size, self.products // model.parameters)
        return max(self.min, min(self.max, fast))


class Progress:
    def __init__(self):
        self.started = time.monotonic()

    def __call__(self, text):
        print(f"[{time.monotonic() - self.started:4.0f} s] {text}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------- measuring


def texts_of(path, n):
    """The texts that are scored, each by itself, and what they are."""
    if path is None:
        return held_out()[:n], f"{n} stories of {HELD_OUT.name} that neither twin was trained on"
    return [read_text(path)], path.name


def roundings(of_model):
    """(name, path or None, note): the weights in coarser types."""
    for type in ("q8_0", "q4_0"):
        try:
            yield f"weights in {type.upper()}", *of_model.rounded(type)
        except Trouble as error:
            yield f"weights in {type.upper()}", None, str(error)


def dropped(own, of_model, windows, plan):
    """Random directions dropped from the residual stream, one at a time: what dropping the mean's costs is
    to be compared with that."""
    name, found = "a random direction dropped", {}
    drawn = list(enumerate(copies.directions(of_model.model.dim, plan.directions)))
    together = max(1, plan.disk // (4 * of_model.model.parameters))
    try:
        own = replace(own, path=of_model.plain)
        for at in range(0, len(drawn), together):
            runs = {i: replace(own, path=of_model.without(u, f"dropped-{i - at}.gguf"))
                    for i, u in drawn[at:at + together]}
            found |= outputs.compare_all(own, runs, windows)
    except Trouble as error:
        return {"name": name, "skipped": str(error)}
    each = list(found.values())
    return {"name": name, "note": None, "directions": each,
            "delta": spread([f["delta"]["mean"] for f in each]),
            "kl": spread([f["kl"]["mean"] for f in each]),
            "agreement": spread([f["agreement"]["all"]["share"] for f in each])}


def spread(x):
    return {"mean": mean(x), "sd": stdev(x), "min": min(x), "max": max(x)}


def oracles(engine, model, of_model, windows):
    """Where two runs have to agree: both norms without a mean in the stream, and a model beside one where the
    norms' weights have gone into the matrices."""
    own, other = (engine.run(model, norm) for norm in (model.norm, model.other))

    def check(p, p_path, q, q_path):
        try:
            found = outputs.compare(replace(p, path=p_path()), replace(q, path=q_path()), windows)
        except Trouble as error:
            return {"skipped": str(error)}
        kl, agreement = found["kl"], found["agreement"]["all"]["share"]
        return {"kl": kl["mean"], "kl_max": kl["max"], "agreement": agreement,
                "positions": found["positions"], "holds": kl["mean"] < 1e-8 and agreement == 1}

    return {"center": check(own, of_model.centered, other, of_model.centered),
            "fold": check(own, lambda: of_model.plain, own, of_model.folded)}


def greedy_texts(runs, windows, plan, model):
    prompts = greedy.prompts(windows, plan.prompts)
    found, texts = greedy.measure(runs, prompts, plan.tokens)
    example = greedy.example(prompts, found["swap"], texts)
    example["texts"] = {model.norm: example.pop("own"), model.other: example.pop("swap")}
    skipped = {"skipped": "there is no copy in Q8_0"}
    return {"prompts": len(prompts), "tokens": plan.tokens, "noise": skipped, **found, "example": example}


def measure_outputs(engine, model, windows, plan, say):
    """What the swap does to the outputs, and what else does as much."""
    own, other = (engine.run(model, norm) for norm in (model.norm, model.other))
    cache = "KV cache in F16"
    with tempfile.TemporaryDirectory(prefix="ablate-") as folder:
        say(f"{model.name}: distributions at {sum(len(w.ids) for w in windows)} positions")
        of_model = copies.Copies(model, folder)
        rounded = list(roundings(of_model))
        runs = {name: replace(own, path=path) for name, path, _ in rounded if path}
        runs[cache] = replace(own, kv="f16")
        found = outputs.compare_all(own, {"swap": other, **runs}, windows)
        noise = [{"name": name, **({"note": note} | found[name] if name in found else {"skipped": note})}
                 for name, _, note in [*rounded, (cache, None, None)]]
        say(f"{model.name}: {plan.directions} random directions")
        noise.append(dropped(own, of_model, windows, plan))
        say(f"{model.name}: greedy texts")
        beside = {"noise": runs[rounded[0][0]]} if rounded[0][0] in runs else {}
        texts = greedy_texts({"own": own, "swap": other, **beside}, windows, plan, model)
        say(f"{model.name}: the copies that have to agree")
        some = greedy.evenly(windows, max(8, len(windows) // 4))
        exact = oracles(engine, model, of_model, some)
    return {"swap": found["swap"], "noise": noise, "greedy": texts, "oracle": exact}


def measure(engine, model, texts, plan, say):
    """All there is to know of a checkpoint, but for the time it takes."""
    windows = outputs.windows(engine, model, texts, plan.positions(model))
    found = {"name": model.name, "file": str(model.path), "sha256": model.sha256, "norm": model.norm,
             "other": model.other, "parameters": model.parameters, "dim": model.dim, "layers": model.layers,
             "types": dict(model.types.most_common())}
    found |= measure_outputs(engine, model, windows, plan, say)
    say(f"{model.name}: the residual stream")
    prompt = found["greedy"]["example"]["prompt"]
    found["stream"] = {norm: residuals.measure(engine, model, norm, prompt, plan.tokens) for norm in NORMS}
    found["baseline"] = residuals.baseline(model.dim)
    return found


def control_builds(engine, folder, effort):
    """RMSNorm's program, linked again in other orders; or why it cannot be."""
    try:
        programs = relink.relinked(engine.programs["rmsnorm"], folder, effort.orders)
    except Trouble as trouble:
        return [], str(trouble)
    return [Engine({"rmsnorm": program}) for program in programs], None


def measure_time(engine, models, norms, effort, folder, say):
    """What the norms cost, of each checkpoint; and what belongs to the whole report."""
    def progress(name):
        return lambda rounds, width: say(f"{name}: {rounds} rounds, known to ± {100 * width:.2f} %")

    relinked, why_not = control_builds(engine, folder, effort)
    kernels = engine.report(models[0], models[0].norm, "-m", "bench", "-c", 2)["kernels"]
    say("what a norm costs, over the length of the vector")
    whole = {"kernels": kernels, "norm_curve": throughput.curve(norms, kernels, models, effort)}
    measured = [throughput.checkpoint(engine, model, relinked, norms, effort,
                                      progress(f"{model.name}: all builds in turn")) for model in models]
    speeds, comparisons = zip(*measured)
    throughput.judge(speeds, comparisons)
    whole["speed"] = {"family": sum(map(len, comparisons)), "level": verdicts.ALPHA,
                      "margin_percent": verdicts.MARGIN, "orders": len(relinked), "no_control": why_not}
    return speeds, whole


# ---------------------------------------------------------------------------- the table


def comparison(name, f):
    """A line of what is apart between two runs."""
    if "skipped" in f:
        return f"    {name:30}  left out: {f['skipped']}"
    if "directions" in f:
        d, kl, agreement = f["delta"], f["kl"], f["agreement"]
        scatter = f"± {d['sd']:.2g} over {len(f['directions'])}"
        return f"    {name:30}  {d['mean']:+10.3g}  {scatter:26}  {kl['mean']:9.3g}  {agreement['mean']:8.2%}"
    d = f["delta"]
    between = f"{f['blocks']} blocks: too few" if d["low"] is None else f"[{d['low']:+.3g}, {d['high']:+.3g}]"
    shares = [x["share"] for x in f["agreement"].values()]
    shares = "".join(f"  {'-' if x is None else format(x, '.2%'):>8}" for x in shares)
    return (f"    {name:30}  {d['mean']:+10.3g}  {between:26}  {f['kl']['mean']:9.3g}{shares}  "
            f"{f['verdict']}")


def parted(name, g, tokens):
    if "skipped" in g:
        return f"    {name:30}  left out: {g['skipped']}"
    middle = f"over {tokens}" if g["median"] is None else f"{g['median']:.0f}"
    low, high = (f"over {tokens}" if x is None else f"{x:.0f}" for x in g["quartiles"])
    return (f"    {name:30}  part after {middle} tokens (median; quartiles {low} and {high}), "
            f"{g['never']} of {len(g['each'])} do not part")


def table_outputs(c):
    """Lines for a terminal, of one checkpoint."""
    swap, g = c["swap"], c["greedy"]
    yield (f"{c['name']}, trained with {NORMS[c['norm']]}: perplexity {swap['perplexity']['p']:.4f}, with "
           f"{NORMS[c['other']]} {swap['perplexity']['q']:.4f}, at {swap['positions']} positions")
    yield (f"    {'':30}  {'nats/token':>10}  {'95 %, by ' + swap['block']:26}  {'KL, nats':>9}  "
           f"{'agree':>8}  {'certain':>8}  {'open':>8}")
    yield comparison("the norm swapped", swap)
    for row in c["noise"]:
        yield comparison(row["name"], row)
    yield parted("greedy texts, the norm swapped", g["swap"], g["tokens"])
    yield parted("greedy texts, weights in Q8_0", g["noise"], g["tokens"])
    for name, o in c["oracle"].items():
        told = f"left out: {o['skipped']}" if "skipped" in o else (
            f"KL {o['kl']:.2g}, agreement {o['agreement']:.2%}: "
            f"{'the same, as it must be' if o['holds'] else 'A DEFECT'}")
        yield f"    {'oracle: ' + name:30}  {told}"
    yield ""


def table_speed(report):
    """What the norms cost, for a terminal."""
    width = max(10, *(len(c["name"]) for c in report["checkpoints"]))
    yield (f"{'of one thread':{width}}  {'':7}  {'tokens/s':>9}  {'ns/norm':>17}  {'of time':>7}  "
           f"{'LayerNorm adds':>14}  {'whole programs':>15}  verdict")
    for c in report["checkpoints"]:
        for phase in throughput.PHASES:
            f = c["speed"][phase]
            whole, more = f["whole"]["layernorm"], f["expected_percent"]["layernorm"]
            layernorm = f["call"]["layernorm with bias" if c["speed"]["bias"] else "layernorm"]
            yield (f"{c['name'] if phase == 'decode' else '':{width}}  {phase:7}  "
                   f"{f['tokens_per_second']['rmsnorm']:9.0f}  "
                   f"{f['call']['rmsnorm']['value']:8.1f} {layernorm['value']:8.1f}  "
                   f"{f['share']['rmsnorm']['value']:7.2%}  {more['value']:+12.2f} %  "
                   f"{whole['low']:+6.2f} {whole['high']:+6.2f} %  "
                   f"{whole['verdict']}{': ' + whole['told_as'] if whole['told_as'] else ''}")
    yield "tokens/s, of time: RMSNorm; ns/norm: RMSNorm, LayerNorm; whole programs: an interval, only a check"
    yield ""
    for c in report["checkpoints"]:
        for phase in throughput.PHASES:
            yield f"{c['name']}, {phase}: {' '.join(throughput.sentences(c['speed'], phase))}"
    if report["speed"]["no_control"]:
        yield f"No whole programs can be told apart: {report['speed']['no_control']}"


def table(report):
    """Lines for a terminal."""
    for c in report["checkpoints"]:
        yield from table_outputs(c)
    yield "agree: the same likeliest token; certain, open: where the entropy is below 0.05 nats, and above"
    yield ""
    yield from table_speed(report)


# ---------------------------------------------------------------------------- the files


def check_folder(path):
    """Before anything is measured: a folder that cannot be written to would lose all of it."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise Trouble(f"{path}: no folder to write to; -o names one")


def save(folder, files):
    """files: {name: bytes}. Each is whole or not there; Ctrl-C leaves what was there before, or all of it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as new:
        for name, data in files.items():
            (Path(new) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(new) / name).write_bytes(data)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for name in files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(new) / name, folder / name)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


# ---------------------------------------------------------------------------- the program


def parse(arguments):
    parser = argparse.ArgumentParser(prog="ablate", description=__doc__.split("\n\n")[0].split(" - ")[1])
    parser.add_argument("checkpoints", nargs="*", type=Path, default=TWINS, help="(default: the twins)")
    parser.add_argument("--text", type=Path, metavar="FILE", help="what is scored (default: stories)")
    parser.add_argument("--quick", action="store_true", help="less of everything, in under 40 seconds")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "ablation", metavar="FOLDER")
    for norm in NORMS:
        name = "run" if norm == "rmsnorm" else f"run-{norm}"
        parser.add_argument(f"--{name}", dest=norm, type=Path, default=ROOT / name, metavar="FILE",
                            help=f"the build that runs {NORMS[norm]}")
    parser.add_argument("--run-nonorm", dest="nonorm", type=Path, default=ROOT / "run-nonorm", metavar="FILE",
                        help="the build without a norm")
    parser.add_argument("--bench-norm", type=Path, default=ROOT / "build" / "norms", metavar="FILE",
                        help="the program of make bench-norm")
    parser.add_argument("--compiler", metavar="TEXT", help="what built them, for the report to tell")
    return parser.parse_args(arguments)


def command(options):
    """What measures the same again."""
    words = ["make ablate"] + ["QUICK=1"] * options.quick
    if options.checkpoints != TWINS:
        words.append(f'MODELS="{" ".join(map(str, options.checkpoints))}"')
    return " ".join(words + [f"TEXT={options.text}"] * bool(options.text))


def ablate(options, say):
    engine, plan = Engine({norm: getattr(options, norm) for norm in throughput.BUILDS}), Plan(options.quick)
    models = [Checkpoint(engine, path) for path in options.checkpoints]
    texts, name = texts_of(options.text, plan.stories)
    origin = provenance.begin(engine.programs, options.checkpoints, texts, name, options.compiler, SEEDS)
    found = [measure(engine, model, texts, plan, say) for model in models]
    with tempfile.TemporaryDirectory(prefix="ablate-") as folder:
        speeds, of_speed = measure_time(engine, models, options.bench_norm, plan.effort, folder, say)
    for of_model, speed in zip(found, speeds):
        of_model["speed"] = speed
    report = {"text": name, "quick": options.quick, "tokens": plan.tokens, "command": command(options),
              "checkpoints": found}
    return report | of_speed | {"provenance": provenance.end(origin)}


def main(arguments=None):
    options, say = parse(arguments), Progress()
    try:
        check_folder(options.output)
        report = ablate(options, say)
        save(options.output, {"report.json": (json.dumps(report, indent=1) + "\n").encode()})
        print(*table(report), sep="\n")
        try:
            from lab import page
        except ImportError as error:
            raise Trouble(f"no pictures, so no report.html: {error}; make ablate installs what they need")
        save(options.output, page.build(report))
        say(f"{options.output / 'report.html'} shows it")
    except Trouble as error:
        sys.exit(f"ablate: {error}")
    except OSError as error:
        sys.exit(f"ablate: {error.filename or options.output}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
