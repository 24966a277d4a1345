"""reference.py - the executable specification: a LLaMA's whole forward pass, in numpy and double precision.

It shares nothing with the engine but the papers, does everything the slow and plain way, and keeps no cache:
all positions go through every layer together. What the engine computes has to agree with this.

    python3 tests/reference.py MODEL.bin ID ID ...     the five likeliest ids to come next, with their logits

In shapes, T is the number of positions. `x @ w.T` multiplies every row of x by the matrix w: (rows, cols).
"""

import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class Config:
    """The blueprint. What a file does not say keeps the value that LLaMA has."""

    dim: int                    # width of the residual stream
    hidden_dim: int             # width inside the feed-forward network
    n_layers: int
    n_heads: int                # query heads
    n_kv_heads: int             # key/value heads
    vocab_size: int
    seq_len: int                # the longest context it was trained for
    norm: str = "rmsnorm"       # the norm it was trained with
    eps: float = 1e-5
    rope_theta: float = 10000.0

    @property
    def head_dim(self):
        return self.dim // self.n_heads


@dataclass
class Model:
    config: Config
    embedding: np.ndarray       # (vocab_size, dim)
    layers: list                # of dicts of arrays: attn_norm wq wk wv wo ffn_norm w_gate w_up w_down
    final_norm: np.ndarray      # (dim)
    classifier: np.ndarray      # (vocab_size, dim)  often the embedding once more


# ---------------------------------------------------------------------------- the mathematics


def rmsnorm(x, weight, eps):
    """Zhang & Sennrich 2019"""
    return weight * x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps)


def layernorm(x, weight, eps):
    """Ba et al. 2016. The variance is over n, not n - 1; our files have no bias."""
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return weight * (x - mean) / np.sqrt(variance + eps)


NORMS = {"rmsnorm": rmsnorm, "layernorm": layernorm}


def softmax(scores):
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def silu(z):
    return z / (1 + np.exp(-z))


def rotate(x, theta):
    """RoPE, Su et al. 2021: at position p, pair i of each head turns by p * theta^(-2i / head_dim) radians.

    A pair is two neighbours: a complex number, which is turned by multiplying it with e^(i * angle).
    x: (T, heads, head_dim).
    """
    T, heads, head_dim = x.shape
    frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    angles = np.outer(np.arange(T), frequencies)                        # (T, head_dim / 2)
    turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)[:, np.newaxis]
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def attention(x, w, c):
    """Every position mixes the values of those up to its own, by how well its query fits their keys."""
    T = len(x)
    q = rotate((x @ w["wq"].T).reshape(T, c.n_heads, c.head_dim), c.rope_theta)
    k = rotate((x @ w["wk"].T).reshape(T, c.n_kv_heads, c.head_dim), c.rope_theta)
    v = (x @ w["wv"].T).reshape(T, c.n_kv_heads, c.head_dim)

    # Grouped queries, Ainslie et al. 2023: neighbouring query heads share a key/value head.
    k, v = (np.repeat(heads, c.n_heads // c.n_kv_heads, axis=1) for heads in (k, v))

    scores = np.einsum("thi,phi->htp", q, k) / np.sqrt(c.head_dim)      # head h: how much t looks at p
    scores += np.triu(np.full((T, T), -np.inf), 1)                      # never at what comes later
    return np.einsum("htp,phi->thi", softmax(scores), v).reshape(T, -1) @ w["wo"].T


def ffn(x, w):
    """SwiGLU, Shazeer 2020"""
    return (silu(x @ w["w_gate"].T) * (x @ w["w_up"].T)) @ w["w_down"].T


def logits(model, ids, norm=None):
    """What the model expects after each of the ids: (len(ids), vocab_size). norm: another than the file's."""
    c = model.config
    normalize = NORMS[norm or c.norm]
    x = model.embedding[ids]                                            # the residual stream: (T, dim)
    for w in model.layers:
        x = x + attention(normalize(x, w["attn_norm"], c.eps), w, c)
        x = x + ffn(normalize(x, w["ffn_norm"], c.eps), w)
    return normalize(x, model.final_norm, c.eps) @ model.classifier.T


# ---------------------------------------------------------------------------- llama2.c's files
#
#   version 0   7 ints, floats                                     vocab_size < 0: a classifier of its own
#   version 1   "24ka", 1, 7 ints, a byte, zeros up to 256, floats         byte = 1: it shares the embedding
#
# https://github.com/karpathy/llama2.c, export.py

MAGIC = 0x616B3432
HEADER = ["dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len"]
ORDER = {                                               # of the floats; each name holds those of all layers
    0: "embedding attn_norm wq wk wv wo ffn_norm w_gate w_down w_up final_norm angles classifier".split(),
    1: "attn_norm ffn_norm final_norm embedding wq wk wv wo w_gate w_down w_up classifier".split(),
}


def shapes(c):
    L, kv_dim = c.n_layers, c.n_kv_heads * c.head_dim
    return {
        "embedding": (c.vocab_size, c.dim),
        "attn_norm": (L, c.dim),
        "wq": (L, c.dim, c.dim),
        "wk": (L, kv_dim, c.dim),
        "wv": (L, kv_dim, c.dim),
        "wo": (L, c.dim, c.dim),
        "ffn_norm": (L, c.dim),
        "w_gate": (L, c.hidden_dim, c.dim),
        "w_up": (L, c.hidden_dim, c.dim),
        "w_down": (L, c.dim, c.hidden_dim),
        "final_norm": (c.dim,),
        "angles": (2, c.seq_len, c.head_dim // 2),      # cosines, sines: nobody reads them any more
        "classifier": (c.vocab_size, c.dim),
    }


def read_llama2c(path):
    """A .bin of version 0 or 1 as (config, {name: array}). The arrays lack a classifier if it is shared."""
    data = Path(path).read_bytes()
    version = 1 if struct.unpack_from("<Ii", data) == (MAGIC, 1) else 0
    c = Config(*struct.unpack_from("<7i", data, 8 * version))
    shared = data[36] == 1 if version else c.vocab_size > 0
    c.vocab_size = abs(c.vocab_size)

    arrays, at = {}, 256 if version else 28
    for name in ORDER[version]:
        if shared and name == "classifier":
            continue
        shape = shapes(c)[name]
        arrays[name] = np.frombuffer(data, "<f4", np.prod(shape), at).reshape(shape)
        at += arrays[name].nbytes
    assert at == len(data), f"{path}: {len(data)} bytes, but its header asks for {at}"
    return c, arrays


def load(path):
    config, arrays = read_llama2c(path)
    w = {name: array.astype(float) for name, array in arrays.items()}
    per_layer = "attn_norm wq wk wv wo ffn_norm w_gate w_up w_down".split()
    layers = [{name: w[name][l] for name in per_layer} for l in range(config.n_layers)]
    return Model(config, w["embedding"], layers, w["final_norm"], w.get("classifier", w["embedding"]))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    last = logits(load(sys.argv[1]), [int(id) for id in sys.argv[2:]])[-1]
    for id in np.argsort(-last)[:5]:
        print(id, f"{last[id]:.4f}")
