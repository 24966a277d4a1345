"""copies.py - copies of a checkpoint with one thing changed, to compare a change of norm with."""

import contextlib
import io
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import gguf
import numpy as np

from convert.center import center, drop
from convert.fold import fold
from convert.gguf_files import TYPES, fits, read_gguf, write_gguf
from convert.llama2c import read_bin
from convert.model import Refused
from lab.engine import Trouble

FLOATS = {"F32", "F16", "BF16"}


def directions(dim, n):
    """Unit vectors of plus and minus one, drawn: (1, ..., 1), which LayerNorm drops, is one of them."""
    return np.random.default_rng(1).choice([-1.0, 1.0], size=(n, dim)) / np.sqrt(dim)


class Copies:
    """Of a lab.engine.Checkpoint; they lie in the folder. What cannot be written is Trouble."""

    def __init__(self, model, folder):
        self.model, self.folder = model, Path(folder)

    @cached_property
    def whole(self):
        try:
            with open(self.model.path, "rb") as file:
                is_gguf = file.read(4) == b"GGUF"
            return read_gguf(self.model.path) if is_gguf else read_bin(self.model.path, None)
        except Refused as error:
            raise Trouble(str(error))

    def write(self, name, type, change=lambda whole: None):
        """The path, and what was to be said of it."""
        whole = replace(self.whole, tensors=list(self.whole.tensors))
        path, said = self.folder / name, io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                change(whole)
                write_gguf(path, whole, TYPES[type])
        except Refused as error:
            raise Trouble(str(error))
        return path, said.getvalue().strip().removeprefix("export: note: ") or None

    def rounded(self, type):
        """Its matrices in another type, and a note. The engine rounds their inputs to 8 bits then."""
        if self.model.types.most_common(1)[0][0] == type.upper():
            raise Trouble(f"the weights of {self.model.name} are in {type.upper()} as they stand")
        if not any(fits(TYPES[type], t) for t in self.whole.tensors if len(t.shape) > 1):
            block = gguf.GGML_QUANT_SIZES[TYPES[type]][0]
            raise Trouble(f"{self.model.name} has no matrix whose rows are a multiple of {block}")
        path, note = self.write(f"{type}.gguf", type)
        coarse = [name for name in self.model.types if name not in FLOATS]
        again = f"rounded once more, from {', '.join(coarse)}" if coarse else None
        return path, "; ".join(filter(None, (again, note))) or None

    @cached_property
    def plain(self):
        """The path of the same weights, where nothing that is multiplied with them is rounded."""
        return self.model.path if set(self.model.types) <= FLOATS else self.write("plain.gguf", "f32")[0]

    def without(self, direction, name):
        """Nothing that is added to the residual stream has a part along the direction."""
        return self.write(name, "f32", lambda whole: drop(whole, direction))[0]

    def centered(self):
        """No vector of the residual stream has a mean."""
        return self.write("centered.gguf", "f32", center)[0]

    def folded(self):
        """The norms have no weights: what reads them has them."""
        return self.write("folded.gguf", "f32", fold)[0]
