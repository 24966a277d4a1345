"""reference.py - the executable specification: a LLaMA's whole forward pass, in numpy and double precision.

It shares nothing with the engine but the papers, does everything the slow and plain way, and keeps no cache:
all positions go through every layer together. What the engine computes has to agree with this.

    python3 tests/reference.py MODEL ID ID ...     the five likeliest ids to come next, with their logits

The mathematics comes first, below it how files are read: llama2.c's .bin by hand, GGUF by the package `gguf`,
whose GGUFReader finds the tensors and whose quants.dequantize says what their blocks mean.

In shapes, T is the number of positions. `x @ w.T` multiplies every row of x by the matrix w: (rows, cols).
"""

import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
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
    head_dim: int = None        # width of one head; dim / n_heads where nobody says otherwise
    rope_dim: int = None        # how many numbers of each head turn with the position; all of them
    rotation: str = "pairs"     # which of them turn together: neighbours ("pairs"), or by "halves" as in NeoX

    def __post_init__(self):
        if self.head_dim is None:
            self.head_dim = self.dim // self.n_heads
        if self.rope_dim is None:
            self.rope_dim = self.head_dim


@dataclass
class Norm:
    weight: np.ndarray          # (dim)
    bias: np.ndarray = 0.0      # (dim)


@dataclass
class Linear:
    weight: np.ndarray          # (rows, cols)
    bias: np.ndarray = 0.0      # (rows)
    rounded: bool = False       # its input is rounded to 8 bits first

    def __call__(self, x):
        return (round_to_8_bits(x) if self.rounded else x) @ self.weight.T + self.bias


@dataclass
class Model:
    config: Config
    embedding: np.ndarray       # (vocab_size, dim)
    layers: list                # of dicts: Norms attn_norm ffn_norm, Linears wq wk wv wo w_gate w_up w_down
    final_norm: Norm
    classifier: Linear          # (vocab_size, dim)  often the embedding once more
    slowdown: np.ndarray = 1.0  # (rope_dim / 2)  what RoPE's frequencies are divided by, to reach further


# ---------------------------------------------------------------------------- the mathematics


def rmsnorm(x, weight, eps):
    """Zhang & Sennrich 2019"""
    return weight * x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps)


def layernorm(x, weight, eps):
    """Ba et al. 2016. The variance is over n, not n - 1."""
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return weight * (x - mean) / np.sqrt(variance + eps)


NORMS = {"rmsnorm": rmsnorm, "layernorm": layernorm}


def softmax(scores):
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def silu(z):
    return z / (1 + np.exp(-z))


def round_to_8_bits(x):
    """x as the engine gives it to quantized weights: 32 whole numbers from -127 to 127, times one scale."""
    blocks = x.reshape(*x.shape[:-1], -1, 32)
    scale = np.abs(blocks).max(axis=-1, keepdims=True) / 127
    return (np.rint(blocks / np.where(scale > 0, scale, 1)) * scale).reshape(x.shape)


def frequencies(c):
    """How many radians each pair of numbers turns per position: theta^(-2i / rope_dim)."""
    return c.rope_theta ** (-np.arange(0, c.rope_dim, 2) / c.rope_dim)


def llama3_slowdown(frequencies, factor, low, high, context):
    """Llama 3.1: what turns often enough over the original context stays, what turns too seldom is slowed
    down by the factor, and between `high` and `low` turns one goes over into the other."""
    turns = context * frequencies / (2 * np.pi)
    fast = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / (fast + (1 - fast) / factor)


def rotate(x, angles, rotation):
    """RoPE, Su et al. 2021: at position p, pair i of each head turns by angles[p, i].

    A pair is a complex number, which is turned by multiplying it with e^(i * angle). What is left of a head
    when all pairs are taken stays as it is. x: (T, heads, head_dim), angles: (T, rope_dim / 2).
    """
    half = angles.shape[-1]
    turning, still = x[..., :2 * half], x[..., 2 * half:]
    if rotation == "pairs":
        a, b = turning[..., 0::2], turning[..., 1::2]
    else:
        a, b = turning[..., :half], turning[..., half:]
    turned = (a + 1j * b) * np.exp(1j * angles)[:, np.newaxis]
    if rotation == "pairs":
        turned = np.stack([turned.real, turned.imag], axis=-1).reshape(turning.shape)
    else:
        turned = np.concatenate([turned.real, turned.imag], axis=-1)
    return np.concatenate([turned, still], axis=-1)


def attention(x, w, c, angles):
    """Every position mixes the values of those up to its own, by how well its query fits their keys."""
    T = len(x)
    q = rotate(w["wq"](x).reshape(T, c.n_heads, c.head_dim), angles, c.rotation)
    k = rotate(w["wk"](x).reshape(T, c.n_kv_heads, c.head_dim), angles, c.rotation)
    v = w["wv"](x).reshape(T, c.n_kv_heads, c.head_dim)

    # Grouped queries, Ainslie et al. 2023: neighbouring query heads share a key/value head.
    k, v = (np.repeat(heads, c.n_heads // c.n_kv_heads, axis=1) for heads in (k, v))

    scores = np.einsum("thi,phi->htp", q, k) / np.sqrt(c.head_dim)      # head h: how much t looks at p
    scores += np.triu(np.full((T, T), -np.inf), 1)                      # never at what comes later
    return w["wo"](np.einsum("htp,phi->thi", softmax(scores), v).reshape(T, -1))


def ffn(x, w):
    """SwiGLU, Shazeer 2020"""
    return w["w_down"](silu(w["w_gate"](x)) * w["w_up"](x))


def logits(model, ids, norm=None):
    """What the model expects after each of the ids: (len(ids), vocab_size). norm: another than the file's."""
    c = model.config
    angles = np.outer(np.arange(len(ids)), frequencies(c) / model.slowdown)     # (T, rope_dim / 2)

    def normalize(x, w):
        return NORMS[norm or c.norm](x, w.weight, c.eps) + w.bias

    x = model.embedding[ids]                                            # the residual stream: (T, dim)
    for w in model.layers:
        x = x + attention(normalize(x, w["attn_norm"]), w, c, angles)
        x = x + ffn(normalize(x, w["ffn_norm"]), w)
    return model.classifier(normalize(x, model.final_norm))


def perplexity(model, ids, context, bos=None, norm=None):
    """exp(mean -log p), its standard error, and of how many ids: llama.cpp's windows.

    Whole windows of the context follow one another. The first id of each gives way to BOS, and only the ids
    of the second half are scored, without its first: each by what the model expected after those before it.
    """
    losses = []
    for start in range(0, len(ids) - context + 1, context):
        window = np.array(ids[start:start + context])
        if bos is not None:
            window[0] = bos
        p = softmax(logits(model, window, norm))
        losses += [-np.log(p[i - 1, window[i]]) for i in range(context // 2 + 1, context)]
    value = np.exp(np.mean(losses))
    return value, value * np.std(losses, ddof=1) / np.sqrt(len(losses)), len(losses)


# ---------------------------------------------------------------------------- llama2.c's files
#
#   version 0   7 ints, floats                                     vocab_size < 0: a classifier of its own
#   version 1   "24ka", 1, 7 ints, a byte, zeros up to 256, floats         byte = 1: it shares the embedding
#   version 2   "24ka", 2, 7 ints, a byte, group size, zeros up to 256, the norms' floats, then matrix after
#               matrix: whole numbers of 8 bits, then the float scale of each group of them
#
# https://github.com/karpathy/llama2.c, export.py

MAGIC = 0x616B3432
HEADER = ["dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len"]
ORDER = {                                               # each name holds the numbers of all layers
    0: "embedding attn_norm wq wk wv wo ffn_norm w_gate w_down w_up final_norm angles classifier".split(),
    1: "attn_norm ffn_norm final_norm embedding wq wk wv wo w_gate w_down w_up classifier".split(),
    2: "attn_norm ffn_norm final_norm embedding wq wk wv wo w_gate w_down w_up classifier".split(),
}


def shapes(c):
    L, q_dim, kv_dim = c.n_layers, c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    return {
        "embedding": (c.vocab_size, c.dim),
        "attn_norm": (L, c.dim),
        "wq": (L, q_dim, c.dim),
        "wk": (L, kv_dim, c.dim),
        "wv": (L, kv_dim, c.dim),
        "wo": (L, c.dim, q_dim),
        "ffn_norm": (L, c.dim),
        "w_gate": (L, c.hidden_dim, c.dim),
        "w_up": (L, c.hidden_dim, c.dim),
        "w_down": (L, c.dim, c.hidden_dim),
        "final_norm": (c.dim,),
        "angles": (2, c.seq_len, c.head_dim // 2),      # cosines, sines: nobody reads them any more
        "classifier": (c.vocab_size, c.dim),
    }


def read_llama2c(path):
    """A .bin as (config, {name: array}). The arrays lack a classifier if it is shared."""
    data = Path(path).read_bytes()
    magic, version = struct.unpack_from("<Ii", data)
    version = version if magic == MAGIC else 0
    c = Config(*struct.unpack_from("<7i", data, 8 if version else 0))
    shared = data[36] == 1 if version else c.vocab_size > 0
    [group] = struct.unpack_from("<i", data, 37)
    c.vocab_size = abs(c.vocab_size)
    at = 256 if version else 28

    def take(dtype, *shape):
        nonlocal at
        array = np.frombuffer(data, dtype, np.prod(shape), at).reshape(shape)
        at += array.nbytes
        return array

    def take_groups(rows, cols):
        numbers, scales = take("<i1", rows, cols), take("<f4", rows, cols // group)
        return numbers * np.repeat(scales, group, axis=1)

    arrays = {}
    for name in ORDER[version]:
        shape = shapes(c)[name]
        if shared and name == "classifier":
            continue
        if version == 2 and not name.endswith("norm"):
            count = shape[0] if len(shape) == 3 else 1
            arrays[name] = np.stack([take_groups(*shape[-2:]) for _ in range(count)]).reshape(shape)
        else:
            arrays[name] = take("<f4", *shape)
    assert at == len(data), f"{path}: {len(data)} bytes, but its header asks for {at}"
    return c, arrays


def model_from(config, arrays):
    w = {name: array.astype(float) for name, array in arrays.items()}

    def layer(l):
        linear = {name: Linear(w[name][l]) for name in "wq wk wv wo w_gate w_up w_down".split()}
        return linear | {name: Norm(w[name][l]) for name in ("attn_norm", "ffn_norm")}

    layers = [layer(l) for l in range(config.n_layers)]
    classifier = Linear(w.get("classifier", w["embedding"]))
    return Model(config, w["embedding"], layers, Norm(w["final_norm"]), classifier)


# ---------------------------------------------------------------------------- GGUF
#
# Keys of the architecture begin with its name, tensors of layer l with "blk.l.". A shape in the file lists
# the fastest index first; in numpy's order, (rows, cols), it is what we call a matrix.

GGUF_NAMES = {
    "attn_norm": "attn_norm", "wq": "attn_q", "wk": "attn_k", "wv": "attn_v", "wo": "attn_output",
    "ffn_norm": "ffn_norm", "w_gate": "ffn_gate", "w_up": "ffn_up", "w_down": "ffn_down",
    "embedding": "token_embd", "final_norm": "output_norm", "classifier": "output",
}
FLOATS = ("F32", "F16", "BF16")                         # everything else comes in blocks


def read_gguf(path):
    """({key: value}, {name: tensor}) of a file."""
    reader = gguf.GGUFReader(path)
    keys = {key: field.contents() for key, field in reader.fields.items()}
    return keys, {tensor.name: tensor for tensor in reader.tensors}


def dequantized(tensor):
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(float)


def config_of(keys, tensors):
    architecture = keys["general.architecture"]
    stablelm = {"llama": False, "stablelm": True}[architecture]         # no other is specified here

    def value(key, *fallback):
        return keys.get(f"{architecture}.{key}", *fallback) if fallback else keys[f"{architecture}.{key}"]

    n_heads = value("attention.head_count")
    return Config(
        dim=value("embedding_length"),
        hidden_dim=value("feed_forward_length"),
        n_layers=value("block_count"),
        n_heads=n_heads,
        n_kv_heads=value("attention.head_count_kv", n_heads),
        vocab_size=int(tensors["token_embd.weight"].shape[1]),
        seq_len=value("context_length"),
        norm="layernorm" if stablelm else "rmsnorm",
        eps=value("attention.layer_norm_epsilon" if stablelm else "attention.layer_norm_rms_epsilon"),
        rope_theta=value("rope.freq_base", 10000.0),
        head_dim=value("attention.key_length", None),
        rope_dim=value("rope.dimension_count", None),
        rotation="halves" if stablelm else "pairs",
    )


def slowdown_of(c, keys, tensors):
    """Llama 3.1's comes as factors that who made the file has computed, or as the keys to compute them."""
    scaling = {key.partition(".rope.")[2]: value for key, value in keys.items()}
    factors = 1.0
    if "rope_freqs.weight" in tensors:
        factors = dequantized(tensors["rope_freqs.weight"])
    elif scaling.get("scaling.type") == "llama3":
        factors = llama3_slowdown(
            frequencies(c), scaling["scaling.factor"], scaling["scaling.low_freq_factor"],
            scaling["scaling.high_freq_factor"], scaling["scaling.original_context_length"])
    if scaling.get("scaling.type", "linear") == "linear":
        factors = factors * scaling.get("scaling.factor", scaling.get("scale_linear", 1.0))
    return factors


def load_gguf(path, round_inputs):
    keys, tensors = read_gguf(path)
    c = config_of(keys, tensors)

    def named(kind, name, layer=None):
        name = GGUF_NAMES[name] if layer is None else f"blk.{layer}.{GGUF_NAMES[name]}"
        bias = dequantized(tensors[f"{name}.bias"]) if f"{name}.bias" in tensors else 0.0
        tensor = tensors[f"{name}.weight"]
        if kind is Norm:
            return Norm(dequantized(tensor), bias)
        return Linear(dequantized(tensor), bias, round_inputs and tensor.tensor_type.name not in FLOATS)

    per_layer = [(name, Norm if name.endswith("norm") else Linear) for name in list(GGUF_NAMES)[:9]]
    layers = [{name: named(kind, name, l) for name, kind in per_layer} for l in range(c.n_layers)]
    classifier = named(Linear, "classifier" if "output.weight" in tensors else "embedding")
    embedding = dequantized(tensors["token_embd.weight"])
    return Model(c, embedding, layers, named(Norm, "final_norm"), classifier, slowdown_of(c, keys, tensors))


def load(path, round_inputs=False):
    """The model in a file. round_inputs: those of block-quantized weights to 8 bits, as the engine does."""
    with open(path, "rb") as file:
        is_gguf = file.read(4) == b"GGUF"
    return load_gguf(path, round_inputs) if is_gguf else model_from(*read_llama2c(path))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    last = logits(load(sys.argv[1]), [int(id) for id in sys.argv[2:]])[-1]
    for id in np.argsort(-last)[:5]:
        print(id, f"{last[id]:.4f}")
