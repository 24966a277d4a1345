#!/usr/bin/env python3
"""How much of a training step the norm costs: the same network, the same stories, four norms taking turns.

    python train/steps.py                  # the twins' shape, and a wider one
    python train/steps.py --json

by hand: the formulas in PyTorch's operations, as transformers' LlamaRMSNorm has them: the fair pair.
module: nn.RMSNorm and nn.LayerNorm. On a CPU they are not alike: nn.LayerNorm is one kernel, nn.RMSNorm is
put together from several (PyTorch issue 157345); the profiler counts what their backward passes call. "none"
multiplies by the weight only: what is left is the rest of a step.
"""

import argparse
import json
import math
import statistics
import sys
import time
from dataclasses import replace

import sentencepiece
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from stories import stories
from train import HERE, Recipe, make_batch, make_model, make_optimizers, make_tokenizer, nats

sys.path.append(str(HERE.parent))
from lab.intervals import interval_of_median  # noqa: E402

ENGINE = "autograd::engine::evaluate_function: "
SHAPES = {"1M": Recipe(), "11M": replace(Recipe(), dim=384, layers=6, heads=6, hidden=1024, batch=4)}


class ByHand(nn.Module):
    def __init__(self, dim, norm):
        super().__init__()
        self.weight, self.norm = nn.Parameter(torch.ones(dim)), norm

    def forward(self, x):
        return self.weight * self.norm(x)


def rms_by_hand(x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


def layer_by_hand(x):
    x = x - x.mean(-1, keepdim=True)
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


NORMS = {
    "rmsnorm, module": lambda dim: nn.RMSNorm(dim, eps=1e-5),
    "layernorm, module": lambda dim: nn.LayerNorm(dim, eps=1e-5, bias=False),
    "rmsnorm, by hand": lambda dim: ByHand(dim, rms_by_hand),
    "layernorm, by hand": lambda dim: ByHand(dim, layer_by_hand),
    "none": lambda dim: ByHand(dim, lambda x: x),
}
RATIOS = [("layernorm, by hand", "rmsnorm, by hand"), ("layernorm, module", "rmsnorm, module"),
          ("rmsnorm, by hand", "none"), ("layernorm, by hand", "none")]


def with_norm(make, recipe):
    model = make_model("rmsnorm", recipe, 0)
    for layer in model.model.layers:
        layer.input_layernorm, layer.post_attention_layernorm = make(recipe.dim), make(recipe.dim)
    model.model.norm = make(recipe.dim)
    return model


def step(model, optimizers, batch):
    started = time.perf_counter()
    (nats(model, *batch) / batch[1].numel()).backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - started


def measure(recipe, rounds, tokenizer):
    """Seconds of a step: {norm: one for each round}. The norms take turns, in another order every round."""
    told = stories("steps")
    batch = make_batch(tokenizer, [next(told)[0] for _ in range(recipe.batch)])
    models = {name: with_norm(make, recipe) for name, make in NORMS.items()}
    optimizers = {name: make_optimizers(model, recipe) for name, model in models.items()}
    names, spent = list(NORMS), {name: [] for name in NORMS}
    for turn in range(-1, rounds):                      # the first one warms up
        order = names[turn % len(names):] + names[:turn % len(names)]
        for name in order:
            seconds = step(models[name], optimizers[name], batch)
            if turn >= 0:
                spent[name].append(seconds)
    return spent


def ratio(a, b):
    """Median of the ratios round by round, and its interval at 95 %."""
    ratios = [x / y for x, y in zip(a, b)]
    low, high = interval_of_median(ratios)
    return {"median": statistics.median(ratios), "low": low, "high": high, "rounds": len(ratios)}


def functions_of(norm):
    """How many functions the backward pass of a norm calls, by the profiler."""
    x = torch.randn(8, norm.weight.numel(), requires_grad=True)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        norm(x).sum().backward()
    names = [event.name for event in found.events() if event.name.startswith(ENGINE)]
    return sum("AccumulateGrad" not in name and "SumBackward" not in name for name in names)


def main():
    parser = argparse.ArgumentParser(description="Time training steps with every norm.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    path = HERE / "out" / "steps.model"
    path.parent.mkdir(exist_ok=True)
    make_tokenizer(path, Recipe.vocab)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(path))
    modules = {norm: NORMS[f"{norm}, module"](128) for norm in ("rmsnorm", "layernorm")}
    report = {"functions": {norm: functions_of(module) for norm, module in modules.items()}}
    for shape, recipe in SHAPES.items():
        spent = measure(recipe, args.rounds, tokenizer)
        report[shape] = {"ms": {name: 1e3 * statistics.median(times) for name, times in spent.items()},
                         "ratios": {f"{a} : {b}": ratio(spent[a], spent[b]) for a, b in RATIOS}}
        if args.json:
            continue
        print(f"{shape}: a step of {recipe.batch} stories, one thread, {args.rounds} rounds")
        for name, ms in report[shape]["ms"].items():
            print(f"  {name:20} {ms:8.1f} ms")
        for name, r in report[shape]["ratios"].items():
            print(f"  {name:40} {r['median']:.3f}  ({r['low']:.3f} to {r['high']:.3f}, 95 %)")
    if args.json:
        print(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
