"""fold.py - a norm without parameters: its weight and its bias go into the matrices that read it.

    W (g * n + b) + c = (W diag(g)) n + (W b + c)       n: what the norm makes of x, before its weight g

The columns of W are multiplied by g, W b joins the bias c; the norm keeps a weight of ones and a bias of
zeros. It computes what it did, but for the rounding of these products. FlashNorm, arXiv 2407.09577
"""

from dataclasses import replace

import numpy as np

from .model import Refused, computed

READERS = {"attn_norm": ["attn_q", "attn_k", "attn_v"], "ffn_norm": ["ffn_gate", "ffn_up"],
           "output_norm": ["output"]}


def with_columns_times(t, factors):
    return replace(t, read=lambda rows: t.read(rows) * factors, raw=None)


def product(t, vector):
    """In double precision, some rows at a time."""
    return np.concatenate([t.read(rows) @ vector.astype(np.float64) for rows in t.chunks()])


def fold_norm(tensors, prefix, norm):
    """tensors: all of them by name, of which some are replaced."""
    def need(name):
        if name not in tensors:
            raise Refused(f"the tensor {name} is missing: --fold must know all that reads the norm")
        return tensors[name]

    weight = need(f"{prefix}{norm}.weight")
    bias = tensors.get(f"{prefix}{norm}.bias")
    for reader in READERS[norm]:
        matrix = need(f"{prefix}{reader}.weight")
        tensors[matrix.name] = with_columns_times(matrix, weight.all())
        if bias is not None and bias.all().any():
            name = f"{prefix}{reader}.bias"
            old = tensors[name].all() if name in tensors else 0
            tensors[name] = computed(name, product(matrix, bias.all()) + old)
    tensors[weight.name] = computed(weight.name, np.ones(weight.shape))
    if bias is not None:
        tensors[bias.name] = computed(bias.name, np.zeros(bias.shape))


def fold(model):
    model.untie()
    tensors = {t.name: t for t in model.tensors}
    for l in range(model.need("*.block_count")):
        fold_norm(tensors, f"blk.{l}.", "attn_norm")
        fold_norm(tensors, f"blk.{l}.", "ffn_norm")
    fold_norm(tensors, "", "output_norm")
    model.tensors = list(tensors.values())
