"""residuals.py - why the norms differ: what the residual stream is like, layer by layer.

LayerNorm takes the mean m of a vector x away, RMSNorm does not. With r the root of the mean square of x,
their outputs point in directions that differ by the angle whose cosine is sqrt(1 - (m / r)^2), before any
weights. For random vectors of n numbers |m| / r is about sqrt(2 / (pi n)): nothing to do with training, and
the least to compare with.
"""

import json
import math

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


def baseline(dim):
    """The expected values of a vector of Gaussian numbers.

    Its direction is a random point of the sphere, and mean / rms one coordinate of it, along (1, ..., 1). The
    square of a coordinate is Beta(1/2, (n - 1)/2), and the moments of that distribution give
        E |mean| / rms = gamma(n/2) / (sqrt(pi) gamma((n + 1)/2))
        E cosine       = gamma(n/2)^2 / (gamma((n + 1)/2) gamma((n - 1)/2))
    """
    n, lgamma = dim, math.lgamma
    return {"dim": dim,
            "mean_to_rms": math.exp(lgamma(n / 2) - lgamma((n + 1) / 2)) / math.sqrt(math.pi),
            "cosine": math.exp(2 * lgamma(n / 2) - lgamma((n + 1) / 2) - lgamma((n - 1) / 2))}
