"""residuals.py - why the norms differ: what the residual stream is like, layer by layer.

LayerNorm takes the mean m of a vector x away, RMSNorm does not. With r the root of the mean square of x,
their outputs point in directions that differ by the angle whose cosine is sqrt(1 - (m / r)^2), before any
weights. So all depends on |m| / r. For random vectors of n numbers it is about sqrt(2 / (pi n)): nothing
to do with training, and the least to compare with.
"""

import json
import math
import random

OPS = (b'{"op": "embed"', b'{"op": "resid')


def cosine(mean, rms):
    """Between x / rms(x) and (x - mean(x)) / sd(x)."""
    return math.sqrt(max(0.0, 1 - (mean / rms) ** 2)) if rms else 1.0


def of_stream(lines):
    """The stream where each branch reads it, over the tokens that were written: one row at a time."""
    points = {}
    for line in lines:
        if line.startswith(OPS):
            event = json.loads(line)
            if event["shape"][0] == 1:
                points.setdefault((event["op"], event["layer"]), []).append((event["mean"], event["rms"]))
    found = []
    for (op, layer), seen in points.items():
        def mean_of(values):
            return math.fsum(values) / len(seen)

        depth = 0 if op == "embed" else layer + (0.5 if op == "resid_mid" else 1)
        found.append({"op": op, "layer": layer, "depth": depth, "tokens": len(seen),
                      "rms": mean_of(r for _, r in seen), "mean": mean_of(m for m, _ in seen),
                      "mean_to_rms": mean_of(abs(m) / r if r else 0 for m, r in seen),
                      "cosine": mean_of(cosine(m, r) for m, r in seen)})
    return found


def measure(engine, model, norm, prompt, tokens):
    return of_stream(engine.trace(model, norm, "-t", 0, "-n", tokens + 1, "-i", prompt, "--kv", "f32"))


def baseline(dim, vectors=400, seed=1):
    """The same of random vectors: independent Gaussian numbers."""
    rng, ratios, cosines = random.Random(seed), [], []
    for _ in range(vectors):
        x = [rng.gauss(0, 1) for _ in range(dim)]
        mean, rms = sum(x) / dim, math.sqrt(sum(value * value for value in x) / dim)
        ratios.append(abs(mean) / rms)
        cosines.append(cosine(mean, rms))
    return {"dim": dim, "vectors": vectors, "mean_to_rms": math.fsum(ratios) / vectors,
            "expected": math.sqrt(2 / (math.pi * dim)), "cosine": math.fsum(cosines) / vectors}
