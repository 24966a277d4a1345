"""sample_report.py - a report.json of invented numbers, for the tests of the page: it has every kind of row.

Nothing here was measured. The shapes are those of lab/outputs.py, lab/speed.py and lab/provenance.py.
"""

import copy

import numpy as np

NOISE = {"weights in Q8_0": 2e-5, "weights in Q4_0": 2e-3, "KV cache in F16": 4e-10}


def share(x, n, of):
    half = 2 * (x * (1 - x) / n) ** 0.5
    return {"share": x, "low": max(0, x - half), "high": min(1, x + half), "n": n, "of_positions": n / of}


def comparison(delta, stderr, kl, positions=14880):
    low, high = delta - 1.96 * stderr, delta + 1.96 * stderr
    verdict = "differs" if low > 0 or high < 0 else "no difference" if high - low < 0.02 else "not resolved"
    quantiles = kl * np.exp(3 * (np.linspace(-2, 2.6, 101) - 1.5))
    certain = round(0.81 * positions)
    return {"positions": positions, "windows": 60, "texts": 60, "blocks": 60, "block": "window",
            "nll": {"p": 0.1574, "q": 0.1574 + delta},
            "perplexity": {"p": float(np.exp(0.1574)), "q": float(np.exp(0.1574 + delta))},
            "delta": {"mean": delta, "stderr": stderr, "low": low, "high": high,
                      "percent": {key: 100 * float(np.expm1(x)) for key, x in
                                  (("mean", delta), ("low", low), ("high", high))}},
            "verdict": verdict, "beyond": max(abs(low), abs(high)),
            "kl": {"mean": kl, "median": float(quantiles[50]), "max": float(quantiles[-1]),
                   "top_1_percent": 0.55,
                   "stderr": kl / 5, "low": 0.7 * kl, "high": 1.4 * kl},
            "percentiles": quantiles.tolist(),
            "agreement": {"all": share(1 - 0.05 * min(1, kl * 400), positions, positions),
                          "certain": share(0.9999, certain, positions),
                          "open": share(1 - 0.26 * min(1, kl * 400), positions - certain, positions)}}


def too_short(found):
    """The same of a text of few blocks: no interval."""
    found["delta"] |= {"stderr": None, "low": None, "high": None}
    found["delta"]["percent"] |= {"low": None, "high": None}
    for part in (found["kl"], *found["agreement"].values()):
        part |= {"low": None, "high": None}
    found["agreement"]["certain"] |= {"share": None, "n": 0, "of_positions": 0.0}
    found |= {"verdict": "not resolved", "beyond": None, "blocks": 3}


def directions(kl):
    rng = np.random.default_rng(1)
    each = [comparison(x, x / 8, kl) for x in rng.uniform(0.001, 0.004, 8)]

    def spread(values):
        return {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)), "min": min(values),
                "max": max(values)}
    return {"name": "a random direction dropped", "directions": each, "note": None,
            "delta": spread([e["delta"]["mean"] for e in each]),
            "kl": spread([e["kl"]["mean"] for e in each]),
            "agreement": spread([e["agreement"]["all"]["share"] for e in each])}


def parted(middle, never, n=24):
    each = [max(0, round(middle * (0.4 + 1.4 * i / n))) for i in range(n - never)] + [None] * never
    return {"median": middle, "quartiles": [0.6 * middle, None if never > 6 else 1.6 * middle],
            "never": never, "each": each}


def interval(x, half):
    return {"value": x, "low": x - half, "high": x + half}


def phase(scale, whole, verdict, told_as):
    calls, token = 11, 32000 * scale
    rms, layer, bias, none = 27 * scale, 34 * scale, 36 * scale, 12 * scale
    rng = np.random.default_rng(2)
    orders = rng.normal(0, 0.6, 8).tolist()

    def row(value, half, verdict, told_as):
        return interval(value, half) | {"p": 0.2, "holm": 0.8, "bound": 1.2, "verdict": verdict,
                                        "beyond": abs(value) + half, "told_as": told_as}
    per_second = 1e9 / token
    return {"tokens_per_second": {"rmsnorm": per_second, "layernorm": 0.999 * per_second,
                                  "nonorm": 1.01 * per_second},
            "token_ns": token, "calls": calls,
            "call": {"rmsnorm": interval(rms, 0.6), "layernorm": interval(layer, 0.7),
                     "layernorm with bias": interval(bias, 0.7), "nonorm": interval(none, 0.3),
                     "layer_to_rms": interval(layer / rms, 0.02),
                     "layer_to_rms_with_bias": interval(bias / rms, 0.03)},
            "share": {"rmsnorm": interval(calls * rms / token, 2e-4),
                      "layernorm": interval(calls * layer / token, 3e-4)},
            "expected_percent": {"layernorm": interval(100 * calls * (layer - rms) / token, 0.02),
                                 "nonorm": interval(100 * calls * (none - rms) / token, 0.02)},
            "whole": {"layernorm": row(*whole, verdict, told_as),
                      "nonorm": row(-0.6, 0.8, "no difference", None)},
            "control": {"value": float(np.mean(orders)), "low": -1.5, "high": 1.6, "reach": 1.6,
                        "spread": float(np.std(orders)), "orders": orders},
            "parts": {"norm": 0.01, "attention": 0.11, "ffn": 0.03, "matmul": 0.8, "other": 0.05}}


def checkpoint(name, norm, delta, kl, stderr):
    other = "layernorm" if norm == "rmsnorm" else "rmsnorm"
    rms = [0.2, 0.4, 0.9, 1.1, 1.6, 2.2, 2.9, 3.3, 4.0, 4.4, 5.1]

    def points(scale):
        return [{"op": "embed", "layer": None, "depth": i / 2, "tokens": 120, "rms": r * scale,
                 "mean": 0.01 * r, "mean_to_rms": 0.02 + 0.003 * i, "cosine": 1 - (0.02 + 0.003 * i) ** 2 / 2}
                for i, r in enumerate(rms)]
    much = 1 + 0.3 * (norm == "layernorm")
    noise = [{"name": name, "note": None, **comparison(much * x, x / 4, much * max(x / 20, 1e-10))}
             for name, x in NOISE.items()]
    example = {"prompt": "The little dog", "parted": 12, "common_characters": 31,
               "texts": {"rmsnorm": "The little dog ran to the tree. It was <b>cold</b>.",
                         "layernorm": "The little dog ran to the tree. A red hen sang & danced."}}
    oracle = {"kl": 9e-14, "kl_max": 2e-12, "agreement": 1.0, "positions": 1280, "holds": True}
    return {"name": name, "file": f"models/{name}.gguf", "sha256": "0" * 64, "norm": norm, "other": other,
            "parameters": 1066112, "dim": 128, "layers": 5, "types": {"F16": 1063936, "F32": 2176},
            "swap": comparison(delta, stderr, kl), "noise": noise + [directions(kl)],
            "greedy": {"prompts": 24, "tokens": 120, "swap": parted(35, 3), "noise": parted(60, 8),
                       "example": example},
            "stream": {norm: points(1), other: points(1.0005)},
            "baseline": {"dim": 128, "mean_to_rms": 0.0707, "cosine": 0.9961},
            "oracle": {"center": oracle, "fold": dict(oracle)},
            "speed": {"rounds": 40, "bias": norm == "layernorm",
                      "decode": phase(1, (0.02, 0.4), "no difference", None),
                      "prefill": phase(0.4, (1.4, 0.7), "differs", "placement")}}


def norm_curve():
    results = []
    for dim in (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384):
        for T in (1, 64):
            base, ratio = 0.2 * dim * T, 0.74 + 0.02 * np.log2(dim / 64) + 0.01 * (T > 1)
            norms = {name: {"ns": {"median": base * k, "low": base * k * 0.97, "high": base * k * 1.05},
                            "limit_ns": {"median": base * 0.6, "low": base * 0.6, "high": base * 0.61},
                            "of_limit": {"median": 0.6 / k, "low": 0.58 / k, "high": 0.62 / k},
                            "gb_per_s": 60.0}
                     for name, k in (("rmsnorm", ratio), ("layernorm", 1), ("layernorm with bias", 1.07),
                                     ("prmsnorm", ratio * 0.6), ("nonorm", 0.55))}
            results.append({"kernels": "avx2", "dim": dim, "T": T, "norms": norms,
                            "rms_to_layer": {"median": ratio, "low": ratio - 0.02, "high": ratio + 0.03},
                            "rms_to_layer_with_bias": {"median": ratio - 0.06, "low": ratio - 0.08,
                                                       "high": ratio - 0.04}})
    return {"clock": "CLOCK_MONOTONIC", "results": results}


PROVENANCE = {
    "started": "2026-11-30T09:00:00+00:00", "finished": "2026-11-30T09:03:00+00:00",
    "load_at_start": [0.1, 0.2, 0.3], "load_at_end": [1.1, 0.9, 0.5], "arguments": [],
    "compiler": "gcc 12.2.0, -O3", "seeds": {"bootstrap": 1},
    "machine": {"cpu": "A CPU of no maker", "cores": 2, "memory": 8 * 2**30, "system": "Linux",
                "python": "3.11.7"},
    "source": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": True},
    "files": [{"what": "model", "name": "stories-rmsnorm.gguf", "bytes": 2145000, "sha256": "a" * 64},
              {"what": "program", "name": "run", "bytes": 300000, "sha256": "b" * 64},
              {"what": "text", "name": "60 stories", "bytes": 30000, "sha256": "c" * 64}]}


def report(names=("stories-rmsnorm", "stories-layernorm")):
    kinds = (("rmsnorm", 1.2e-3, 2.5e-3, 2e-4), ("layernorm", 3e-5, 8e-6, 4e-5))
    found = [checkpoint(name, *kinds[i % 2]) for i, name in enumerate(names)]
    return copy.deepcopy({
        "text": "60 stories that no model was trained on", "windows": 60, "positions": 14880, "quick": False,
        "tokens": 120, "command": "make ablate", "kernels": "avx2", "checkpoints": found,
        "speed": {"family": 8, "level": 0.05, "margin_percent": 1.0, "orders": 8, "no_control": None},
        "norm_curve": norm_curve(), "provenance": PROVENANCE})
