"""center.py - make LayerNorm and RMSNorm equal: no vector of the residual stream may have a mean.

Everything that is added to the stream has its mean over the stream's dimension taken away beforehand: the
rows of the embedding, the columns of the two projections that end a branch, and their biases. LayerNorm takes
the mean away anyway, and computes what it did; RMSNorm now computes the same. arXiv 2305.14858
"""

from dataclasses import replace

import numpy as np


def without_mean_of_rows(t):
    def read(rows):
        x = t.read(rows).astype(np.float64)
        return (x - x.mean(axis=1, keepdims=True)).astype(np.float32)
    return replace(t, read=read, raw=None)


def without_mean_of_columns(t):
    """A bias is a matrix of one column."""
    def read(rows):
        if not hasattr(read, "mean"):
            sums = [t.read(part).sum(axis=0, dtype=np.float64) for part in t.chunks()]
            read.mean = sum(sums) / t.shape[0]
        return (t.read(rows) - read.mean).astype(np.float32)
    return replace(t, read=read, raw=None)


def center(model):
    model.untie()                                       # what reads from the stream stays as it is
    for i, t in enumerate(model.tensors):
        if t.name == "token_embd.weight":
            model.tensors[i] = without_mean_of_rows(t)
        elif t.name.startswith("blk.") and t.name.split(".")[2] in ("attn_output", "ffn_down"):
            model.tensors[i] = without_mean_of_columns(t)
