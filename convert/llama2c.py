"""llama2c.py - read the checkpoints of llama2.c: a .bin of version 0, 1 or 2, or the .pt of its training.

    version 0   7 ints, floats                                      vocab_size < 0: a classifier of its own
    version 1   "24ka", 1, 7 ints, a byte, zeros up to 256, floats          byte = 1: it shares the embedding
    version 2   "24ka", 2, 7 ints, a byte, group size, zeros up to 256, the norms' floats, then matrix after
                matrix: whole numbers of 8 bits, then the float scale of each group of them

https://github.com/karpathy/llama2.c, export.py
"""

import math
import struct

import numpy as np
from gguf import GGMLQuantizationType as Type

from .files import MAX_DIM, MAX_INT, MAX_LAYERS, MAX_VOCAB, expect_number, find
from .model import Model, Refused, Tensor, stored
from .vocabulary import read_llama2c_tokenizer, read_sentencepiece

MAGIC = 0x616B3432
HEADER = "dim hidden_dim n_layers n_heads n_kv_heads vocab_size seq_len".split()
ORDER = {                                               # each name holds the numbers of all layers
    0: "token_embd attn_norm attn_q attn_k attn_v attn_output ffn_norm ffn_gate ffn_down ffn_up output_norm "
       "angles output".split(),
    1: "attn_norm ffn_norm output_norm token_embd attn_q attn_k attn_v attn_output ffn_gate ffn_down ffn_up "
       "output".split(),
}
TOP = ("token_embd", "output_norm", "angles", "output")


def shape_of(name, c):
    kv_dim = c["dim"] // c["n_heads"] * c["n_kv_heads"]
    return {
        "token_embd": (c["vocab_size"], c["dim"]), "output": (c["vocab_size"], c["dim"]),
        "attn_q": (c["dim"], c["dim"]), "attn_k": (kv_dim, c["dim"]), "attn_v": (kv_dim, c["dim"]),
        "attn_output": (c["dim"], c["dim"]), "ffn_gate": (c["hidden_dim"], c["dim"]),
        "ffn_up": (c["hidden_dim"], c["dim"]), "ffn_down": (c["dim"], c["hidden_dim"]),
        "angles": (c["seq_len"], c["dim"] // c["n_heads"]),
    }.get(name, (c["dim"],))


def check_sizes(path, c):
    bounds = {"n_layers": MAX_LAYERS, "vocab_size": MAX_VOCAB, "seq_len": MAX_INT}
    for name in HEADER:
        expect_number(path, name, c[name], 1, bounds.get(name, MAX_DIM))


def keys_of(c, name, eps):
    head_dim = c["dim"] // c["n_heads"]
    return {
        "general.architecture": "llama", "general.name": name,
        "llama.context_length": c["seq_len"], "llama.embedding_length": c["dim"],
        "llama.block_count": c["n_layers"], "llama.feed_forward_length": c["hidden_dim"],
        "llama.attention.head_count": c["n_heads"], "llama.attention.head_count_kv": c["n_kv_heads"],
        "llama.attention.key_length": head_dim, "llama.attention.value_length": head_dim,
        "llama.rope.dimension_count": head_dim, "llama.rope.freq_base": 10000.0,
        "llama.attention.layer_norm_rms_epsilon": eps, "llama.vocab_size": c["vocab_size"],
    }


def find_tokenizer(path, given, size):
    """Beside the checkpoint, as ./run looks for it."""
    folder = path.parent
    names = ["tokenizer.bin", f"tok{size}.bin", "tokenizer.model", f"tok{size}.model"]
    paths = [given] if given else [found for name in names if (found := find(folder, name))]
    if not paths:
        raise Refused(f"{path}: no tokenizer beside it ({', '.join(names)}); name one with --tokenizer")
    readers = [read_sentencepiece if path.suffix == ".model" else read_llama2c_tokenizer for path in paths]
    found = [read(path, max(size, 1 << 18)) for read, path in zip(readers, paths)]     # or another model's
    return next((vocabulary for vocabulary in found if len(vocabulary.tokens) == size), found[0])


# ---------------------------------------------------------------------------- .bin


def grouped(name, path, offset, shape, group):
    """A matrix of version 2."""
    rows, cols = shape
    scales_at = offset + rows * cols

    def read(which):
        numbers = np.memmap(path, np.int8, "r", offset, shape)[which]
        scales = np.memmap(path, "<f4", "r", scales_at, (rows, cols // group))[which]
        return numbers * np.repeat(scales, group, axis=1)

    return Tensor(name, shape, Type.F32, read)


def bytes_of(shape, group):
    numbers = math.prod(shape)
    return numbers + 4 * (numbers // group) if group and len(shape) == 2 else 4 * numbers


def read_header(path):
    """(sizes, where the weights begin, version, does the classifier share the embedding, group size)"""
    with path.open("rb") as file:
        head = file.read(256)
    marked = len(head) >= 8 and struct.unpack_from("<I", head)[0] == MAGIC
    version = struct.unpack_from("<i", head, 4)[0] if marked else 0
    if len(head) < (256 if marked else 28) or version not in (0, 1, 2):
        raise Refused(f"{path}: no .bin of llama2.c of version 0, 1 or 2, or not all of one")
    c = dict(zip(HEADER, struct.unpack_from("<7i", head, 8 if marked else 0)))
    shared = head[36] == 1 if marked else c["vocab_size"] > 0
    c["vocab_size"] = abs(c["vocab_size"])
    check_sizes(path, c)
    if c["dim"] % (2 * c["n_heads"]) or c["n_heads"] % c["n_kv_heads"]:
        raise Refused(f"{path}: its header makes no sense as that of a .bin of llama2.c: {c}")
    group = struct.unpack_from("<i", head, 37)[0] if version == 2 else 0
    if version == 2 and (group < 1 or c["dim"] % group or c["hidden_dim"] % group):
        raise Refused(f"{path}: its group size is {group}, which does not divide {c['dim']} and "
                      f"{c['hidden_dim']}")
    return c, 256 if marked else 28, version, shared, group


def read_bin(path, tokenizer):
    c, at, version, shared, group = read_header(path)
    names = [name for name in ORDER[min(version, 1)] if name != "output" or not shared]
    size = path.stat().st_size
    expected = at + sum(bytes_of(shape_of(name, c), group) * (1 if name in TOP else c["n_layers"])
                        for name in names)
    if size != expected:
        raise Refused(f"{path}: {size} bytes long, but its header asks for {expected}; is the download "
                      "complete?")
    tensors = []
    for name in names:
        shape = shape_of(name, c)
        for layer in [None] if name in TOP else range(c["n_layers"]):
            full = f"{name}.weight" if layer is None else f"blk.{layer}.{name}.weight"
            in_groups = group and len(shape) == 2
            tensors.append(grouped(full, path, at, shape, group) if in_groups else
                           stored(full, path, at, shape, Type.F32))
            at += bytes_of(shape, group)
    model = Model(keys_of(c, path.stem, 1e-5), [t for t in tensors if not t.name.startswith("angles")])
    model.keys |= find_tokenizer(path, tokenizer, c["vocab_size"]).keys(c["vocab_size"])
    return model


# ---------------------------------------------------------------------------- .pt

NAMES = {
    "tok_embeddings": "token_embd", "norm": "output_norm", "output": "output", "attention_norm": "attn_norm",
    "ffn_norm": "ffn_norm", "attention.wq": "attn_q", "attention.wk": "attn_k", "attention.wv": "attn_v",
    "attention.wo": "attn_output", "feed_forward.w1": "ffn_gate", "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
}


def gguf_name(name):
    """Of a weight in a .pt; None: not known."""
    parts = name.split(".")
    layer = f"blk.{parts[1]}." if parts[0] == "layers" else ""
    inner = ".".join(parts[2:-1] if layer else parts[:-1])
    return f"{layer}{NAMES[inner]}.weight" if inner in NAMES and parts[-1] == "weight" else None


def from_torch(name, weight):
    return Tensor(name, tuple(weight.shape), Type.F32, lambda rows: weight[rows].float().numpy())


def read_pt(path, tokenizer):
    try:
        import torch
    except ImportError:
        raise Refused(f"{path}: a .pt is read with PyTorch: pip install torch")
    try:
        checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        given, weights = checkpoint["model_args"], checkpoint["model"]
    except Exception as error:                          # of many kinds, pickle's and zip's among them
        raise Refused(f"{path}: no .pt of llama2.c's training that can be read ({type(error).__name__}: "
                      f"{str(error).splitlines()[0][:100]})")
    weights = {name.removeprefix("_orig_mod."): weight for name, weight in weights.items()
               if "freqs_" not in name}
    found = {name: gguf_name(name) for name in weights}
    if unknown := [name for name in found if not found[name]]:
        raise Refused(f"{path}: the weight {unknown[0]} is not known")
    tensors = {found[name]: from_torch(found[name], weight) for name, weight in weights.items()}
    if "blk.0.ffn_gate.weight" not in tensors or not all(torch.is_tensor(x) for x in weights.values()):
        raise Refused(f"{path}: no .pt of llama2.c's training: it has no layers, or what are no tensors")
    c = {"dim": given["dim"], "n_layers": given["n_layers"], "n_heads": given["n_heads"],
         "n_kv_heads": given.get("n_kv_heads") or given["n_heads"], "seq_len": given["max_seq_len"],
         "vocab_size": given["vocab_size"], "hidden_dim": tensors["blk.0.ffn_gate.weight"].shape[0]}
    check_sizes(path, c)
    eps = expect_number(path, "norm_eps", given.get("norm_eps", 1e-5), 1e-30, 1, float)
    check_shapes(path, tensors, c)
    embedding, classifier = weights["tok_embeddings.weight"], weights.get("output.weight")
    if classifier is not None and torch.equal(embedding, classifier):
        del tensors["output.weight"]
    model = Model(keys_of(c, path.stem, eps), list(tensors.values()))
    model.keys |= find_tokenizer(path, tokenizer, c["vocab_size"]).keys(c["vocab_size"])
    return model


def check_shapes(path, tensors, c):
    for name in ORDER[1]:
        for layer in [None] if name in TOP else range(c["n_layers"]):
            full = f"{name}.weight" if layer is None else f"blk.{layer}.{name}.weight"
            if full == "output.weight" and full not in tensors:
                continue
            if full not in tensors:
                raise Refused(f"{path}: the weight {full} is missing")
            if tensors[full].shape != shape_of(name, c):
                raise Refused(f"{path}: {full} has the shape {tensors[full].shape}; {shape_of(name, c)} is "
                              "wanted")
