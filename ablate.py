#!/usr/bin/env python3
"""ablate.py - what the choice of norm does to a model: outputs, speed, where the time goes, and why.

    python3 ablate.py [CHECKPOINT ...] [--text FILE] [--quick]      (make ablate builds what it needs first)

Every checkpoint runs under the norm it was trained with and under the other one. One table goes to standard
output; report.json and report.html (it opens offline) go to ablation/. lab/ holds what it measures with.
"""

import argparse
import json
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from lab import outputs, residuals, throughput
from lab.engine import NORMS, Checkpoint, Engine, Trouble
from train.stories import stories

ROOT = Path(__file__).resolve().parent
TWINS = [ROOT / "models" / f"stories-{norm}.gguf" for norm in NORMS]


class Plan:
    """How much of everything."""

    def __init__(self, quick):
        self.stories = 12 if quick else 60              # of the default text
        self.logits = (1 if quick else 5) * 2**20       # of each norm: positions x vocabulary
        self.tokens = 40 if quick else 120              # that are written
        self.effort = throughput.QUICK if quick else throughput.Effort()

    def positions(self, vocab_size):
        return max(64, self.logits // vocab_size)


class Progress:
    def __init__(self):
        self.started = time.monotonic()

    def __call__(self, text):
        print(f"[{time.monotonic() - self.started:4.0f} s] {text}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------- measuring


def read_text(path, n):
    """The texts that are scored, each by itself, and what they are."""
    if path is None:
        told = [text for text, _ in islice(stories("ablation"), n)]
        return told, f"{n} stories of train/stories.py that no model was trained on"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Trouble(f"{path}: {error.strerror}; TEXT=file names a text")
    except UnicodeDecodeError:
        raise Trouble(f"{path}: a text in UTF-8 is wanted")
    if not text.strip():
        raise Trouble(f"{path}: there is no text in it")
    return [text], path.name


def oracle(engine, model, texts, most, folder):
    """Without a mean in the stream the two norms have to agree."""
    try:
        twin = Checkpoint(engine, outputs.centred(model, folder))
    except Trouble as error:
        return {"skipped": str(error)}
    found = outputs.distributions(engine, twin, texts, most, folder)
    del found["percentiles"]
    return found | {"holds": found["kl"] < 1e-8 and found["agreement"] == 1}


def measure(engine, model, texts, plan, folder, say):
    """All there is to know of a checkpoint, but for the time it takes."""
    prompt = " ".join(texts[0].split()[:4])
    say(f"{model.name}: perplexity")
    found = {"name": model.name, "file": str(model.path), "norm": model.norm, "other": model.other,
             "parameters": model.parameters, "dim": model.dim, "layers": model.layers,
             "perplexity": {norm: outputs.perplexity(engine, model, norm, texts, folder) for norm in NORMS}}
    positions = plan.positions(model.vocab_size)
    say(f"{model.name}: distributions at up to {positions} positions")
    found["distributions"] = outputs.distributions(engine, model, texts, positions, folder)
    say(f"{model.name}: greedy texts, and the residual stream behind them")
    found["greedy"] = outputs.greedy(engine, model, prompt, plan.tokens, folder)
    found["stream"] = {norm: residuals.measure(engine, model, norm, prompt, plan.tokens) for norm in NORMS}
    found["baseline"] = residuals.baseline(model.dim)
    say(f"{model.name}: the centred copy")
    found["oracle"] = oracle(engine, model, texts, max(64, positions // 4), folder)
    return found


def measure_time(engine, models, found, plan, say):
    def progress(name):
        return lambda rounds, width: say(f"{name}: {rounds} rounds, known to ± {100 * width:.2f} %")

    for model, of_model in zip(models, found):
        of_model["throughput"], of_model["time"] = throughput.norms(
            engine, model, plan.effort, progress(f"{model.name}: both builds in turn"))
    return throughput.control(engine, models[0], plan.effort, progress("the same build on both sides"))


# ---------------------------------------------------------------------------- the table


def table(report):
    """Lines for a terminal."""
    width = max(10, *(len(c["name"]) for c in report["checkpoints"]))
    yield (f"{'checkpoint':{width}}  {'norm':10}  {'perplexity':>17}  {'KL, nats':>9}  {'agree':>7}  "
           f"{'decode/s':>9}  {'prefill/s':>9}  {'ns/norm':>8}  {'of time':>7}")
    for c in report["checkpoints"]:
        for norm, name in NORMS.items():
            p, own, decode, prefill = c["perplexity"][norm], norm == c["norm"], *c["time"][norm].values()
            kl, agreement = (0, 1) if own else (c["distributions"][key] for key in ("kl", "agreement"))
            yield (f"{c['name'] if norm == 'rmsnorm' else '':{width}}  {name + '*' * own:10}  "
                   f"{p['perplexity']:9.4f} ± {p['stderr']:.3f}  {kl:9.3g}  {agreement:7.2%}  "
                   f"{decode['tokens_per_second']:9.0f}  {prefill['tokens_per_second']:9.0f}  "
                   f"{decode['norm_ns']:8.0f}  {decode['share']['norm']:7.2%}")
    yield "* trained with it. decode/s, prefill/s: tokens of one thread; ns/norm, of time: decode"
    yield ""
    compared = [(c["name"], c["throughput"]) for c in report["checkpoints"]]
    for name, found in compared + [("the same build twice", report["control"])]:
        yield f"{name}: time, LayerNorm : RMSNorm" if found is not report["control"] else f"{name}: time"
        for what in throughput.COSTS:
            f = found[what]
            verdict = "they differ" if f["differs"] else "no difference"
            yield (f"    {what.replace('_norm', ': a norm'):16}  {f['ratio']:.4f}  "
                   f"[{f['low']:.4f}, {f['high']:.4f}]  {verdict}")
    for c in report["checkpoints"]:
        g, o = c["greedy"], c["oracle"]
        parted = "do not part" if g["same"] else f"part after {g['tokens_until_they_part']} tokens"
        yield f"{c['name']}: greedy texts {parted}"
        if "skipped" in o:
            yield f"{c['name']}: centred: left out: {o['skipped']}"
        else:
            yield (f"{c['name']}: centred: KL {o['kl']:.2g}, agreement {o['agreement']:.2%}: "
                   f"{'the norms agree' if o['holds'] else 'A DEFECT'}")


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
    return parser.parse_args(arguments)


def command(options):
    """What measures the same again."""
    words = ["make ablate"] + ["QUICK=1"] * options.quick
    if options.checkpoints != TWINS:
        words.append(f'MODELS="{" ".join(map(str, options.checkpoints))}"')
    return " ".join(words + [f"TEXT={options.text}"] * bool(options.text))


def ablate(options, say):
    engine, plan = Engine({norm: getattr(options, norm) for norm in NORMS}), Plan(options.quick)
    models = [Checkpoint(engine, path) for path in options.checkpoints]
    texts, name = read_text(options.text, plan.stories)
    with tempfile.TemporaryDirectory(prefix="ablate-") as folder:
        found = [measure(engine, model, texts, plan, folder, say) for model in models]
    report = {"text": name, "quick": options.quick, "tokens": plan.tokens, "command": command(options),
              "checkpoints": found}
    report["kernels"] = engine.report(models[0], models[0].norm, "-m", "bench", "-c", 2)["kernels"]
    report["control"] = measure_time(engine, models, found, plan, say)
    return report


def main(arguments=None):
    options, say = parse(arguments), Progress()
    try:
        report = ablate(options, say)
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(*table(report), sep="\n")
        try:
            from lab.page import page
        except ImportError as error:
            raise Trouble(f"no pictures, so no report.html: {error}; pip install matplotlib, or make ablate")
        (options.output / "report.html").write_text(page(report), encoding="utf-8")
        say(f"{options.output / 'report.html'} shows it")
    except Trouble as error:
        sys.exit(f"ablate: {error}")
    except OSError as error:
        sys.exit(f"ablate: {error.filename or options.output}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
