"""center.py - make LayerNorm and RMSNorm equal: no vector of the residual stream may have a mean.

What is added to the stream is projected beforehand, so that no part of it lies along a direction u:

    x - u (u . x)       x: the rows of the embedding, the columns of the two projections that end a branch,
                        and their biases

With u = (1, ..., 1) / sqrt(n) that takes the mean away. LayerNorm takes it away anyway, and computes what it
did; RMSNorm now computes the same. arXiv 2305.14858
"""

from dataclasses import replace

import numpy as np


def rows_without(t, u):
    def read(rows):
        x = t.read(rows).astype(np.float64)
        return (x - np.outer(x @ u, u)).astype(np.float32)
    return replace(t, read=read, raw=None)


def columns_without(t, u):
    """A bias is a matrix of one column."""
    def read(rows):
        if not hasattr(read, "along"):
            read.along = sum(u[part] @ t.read(part).astype(np.float64) for part in t.chunks())
        return (t.read(rows) - np.multiply.outer(u[rows], read.along)).astype(np.float32)
    return replace(t, read=read, raw=None)


def drop(model, u):
    """Take the direction out of the residual stream. u: (dim,), of length 1."""
    model.untie()                                       # what reads from the stream stays as it is
    for i, t in enumerate(model.tensors):
        if t.name == "token_embd.weight":
            model.tensors[i] = rows_without(t, u)
        elif t.name.startswith("blk.") and t.name.split(".")[2] in ("attn_output", "ffn_down"):
            model.tensors[i] = columns_without(t, u)


def center(model):
    dim = model.tensor("token_embd.weight").shape[1]
    drop(model, np.full(dim, dim ** -0.5))
