"""model.py - what every format is read into and written from: GGUF's keys, and tensors by GGUF's names.

A tensor is not in memory. It says what it is, and reads rows of itself when they are asked for, so that a
model far larger than the memory passes through it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type, quants
from gguf.gguf_writer import GGUFValue

CHUNK = 1 << 22             # numbers that are in memory together
MAX_LINE = 3000             # characters of a message


class Refused(Exception):
    """Why something cannot be exported, in a sentence that a user can act on."""


notes = []                  # what is carried in another way than it was found: said when all has gone well


def note(text):
    notes.append(text)


def printable(text):
    """One line for a terminal, whatever a file has put into it: what would steer it is spelled out."""
    text = text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]} ..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# ---------------------------------------------------------------------------- a tensor


@dataclass(slots=True)
class Tensor:
    name: str
    shape: tuple            # (rows, cols), or (n,)
    type: Type              # of its numbers where it comes from
    read: Callable          # read(rows) -> float32; rows: a slice, or an array of their numbers
    raw: Callable = None    # raw(rows) -> their bytes as they stand, where that is GGUF's own form

    def all(self):
        return self.read(slice(None))

    def chunks(self):
        """Slices that cover the rows, each of about CHUNK numbers."""
        step = max(1, CHUNK // int(np.prod(self.shape[1:], dtype=np.int64)))
        return [slice(at, min(at + step, self.shape[0])) for at in range(0, self.shape[0], step)]

    def with_rows(self, order):
        """The same rows in another order."""
        return replace(self, read=lambda rows: self.read(order[rows]), raw=None)


def stored(name, path, offset, shape, type):
    """A tensor in a file, which is mapped when rows of it are wanted, and no longer than that."""
    per_block, block_bytes = GGML_QUANT_SIZES[type]
    numbers = int(np.prod(shape[1:], dtype=np.int64))
    row_bytes = numbers // per_block * block_bytes

    def raw(rows):
        return np.ascontiguousarray(np.memmap(path, np.uint8, "r", offset, (shape[0], row_bytes))[rows])

    def read(rows):
        try:
            with np.errstate(all="ignore"):             # NaN is looked for later
                return quants.dequantize(raw(rows), type).reshape(-1, *shape[1:])
        except NotImplementedError:
            raise Refused(f"{path}: the tensor {name} has the type {type.name}, which cannot be read")

    return Tensor(name, tuple(shape), type, read, raw)


def computed(name, array):
    """A small one that is made here."""
    array = np.asarray(array, np.float32)
    return Tensor(name, array.shape, Type.F32, lambda rows: array[rows])


def pairs_from_halves(heads, rows):
    """Which row of q or k stands where, when RoPE turns (0, 1) (2, 3) ... and not (0, n/2) (1, n/2 + 1) ...:
    llama's weights on the hub are made for the second way, GGUF's for the first."""
    return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).ravel()


def halves_from_pairs(heads, rows):
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).ravel()


# ---------------------------------------------------------------------------- a model


@dataclass
class Model:
    keys: dict                  # of GGUF; its values are Python's, or a GGUFValue that says its type
    tensors: list = field(default_factory=list)
    folder: Path = None         # where it comes from, if that is a Hugging Face folder

    @property
    def architecture(self):
        return self.get("general.architecture")

    def get(self, key, fallback=None):
        """A key's value. The star of "*.x" is the architecture."""
        if key.startswith("*"):
            key = self.get("general.architecture") + key[1:]
        value = self.keys.get(key, fallback)
        return value.value if isinstance(value, GGUFValue) else value

    def need(self, key):
        value = self.get(key)
        if value is None:
            raise Refused(f"the key {key.replace('*', self.architecture)} is missing")
        return value

    def tensor(self, name):
        """None: there is none of that name."""
        return next((t for t in self.tensors if t.name == name), None)

    def untie(self):
        """Give the model an output matrix of its own, where that is the embedding once more."""
        if self.tensor("output.weight") is None:
            self.tensors.append(replace(self.tensor("token_embd.weight"), name="output.weight"))
