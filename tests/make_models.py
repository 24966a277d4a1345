"""make_models.py - tiny random models: every shape that a llama2.c file can have, in some kilobytes.

    python3 tests/make_models.py FOLDER      writes SHAPE-vVERSION-tied|untied.bin, wide.bin and tokenizer.bin

The numbers are the same on every run. They are drawn so that a mistake shows: logits of about 1, attention
that prefers some positions to others, norm weights that are not 1, a residual stream whose mean is not 0.
"""

import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from reference import HEADER, MAGIC, ORDER, Config, shapes

# ---------------------------------------------------------------------------- the vocabulary
#
# In the order of llama2.c's tokenizers: three of control, the bytes, merges, letters. The higher the score,
# the earlier a piece is merged. A newline, a digit, a "ß" has no piece of its own and is spelled in bytes.

MERGES = [" t", "he", " the", "in", "re", " a", "an", "nd", " and", "ed", "on", "ing", " w", "at", "er", "ll"]
LETTERS = list(" abcdefghijklmnopqrstuvwxyzLOTZ.,!é")
VOCABULARY = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256)), *MERGES, *LETTERS]
BOS, EOS = 1, 2


def pieces():
    """(score, text) of every token."""
    first = 3 + 256
    return [(-float(max(0, id - first)), text.encode()) for id, text in enumerate(VOCABULARY)]


def write_tokenizer(path, pieces):
    longest = max(len(text) for _, text in pieces)
    tokens = [struct.pack("<fi", score, len(text)) + text for score, text in pieces]
    Path(path).write_bytes(struct.pack("<i", longest) + b"".join(tokens))


# ---------------------------------------------------------------------------- the models

V = len(VOCABULARY)
SHAPES = {
    "mha": Config(16, 37, 1, 2, 2, V, 64),              # heads of 8, each with keys and values of its own
    "gqa": Config(24, 37, 3, 4, 2, V, 64),              # heads of 6, two to a key/value head
    "mqa": Config(12, 13, 3, 6, 1, V, 600),             # heads of 2, one key/value head for all
}
WIDE = Config(288, 768, 3, 6, 6, V, 1024)               # 12 MB: enough work to share out, or to interrupt
VARIANTS = [(shape, version, tied) for shape in SHAPES for version in (0, 1) for tied in (True, False)]


def name_of(shape, version, tied):
    return f"{shape}-v{version}-{'tied' if tied else 'untied'}.bin"


NAMES = [name_of(*variant) for variant in VARIANTS] + ["wide.bin"]


def random_arrays(config, tied, seed):
    """Inputs of size 1 give outputs of size 1.5: logits of about 1, and scores that make attention choose."""
    random = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes(config).items():
        if name == "angles":
            arrays[name] = np.full(shape, np.nan)       # who reads them gets what he deserves
        elif name.endswith("norm"):
            arrays[name] = random.uniform(0.5, 1.5, shape)
        else:
            arrays[name] = 1.5 * random.standard_normal(shape) / np.sqrt(shape[-1])
    arrays["embedding"] += 0.5 / np.sqrt(config.dim)    # the two norms differ in what they do to the mean
    # Short rows make small logits, so that no text ends early, and small inputs, so that eps counts.
    for name in ("embedding", "classifier"):
        arrays[name][[BOS, EOS]] *= 0.02
    if tied:
        del arrays["classifier"]
    return arrays


def write_model(path, config, arrays, version):
    c = replace(config)
    header = b""
    if version == 1:
        header = struct.pack("<Ii", MAGIC, 1)
    elif "classifier" in arrays:
        c.vocab_size = -c.vocab_size
    header += struct.pack("<7i", *(getattr(c, field) for field in HEADER))
    if version == 1:
        header += bytes(["classifier" not in arrays])
        header = header.ljust(256, b"\0")
    floats = [arrays[name].astype("<f4").tobytes() for name in ORDER[version] if name in arrays]
    Path(path).write_bytes(header + b"".join(floats))


def make(folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder / "tokenizer.bin", pieces())
    for shape, version, tied in VARIANTS:               # by shape alone: versions hold the same weights
        arrays = random_arrays(SHAPES[shape], tied, seed=list(SHAPES).index(shape))
        write_model(folder / name_of(shape, version, tied), SHAPES[shape], arrays, version)
    write_model(folder / "wide.bin", WIDE, random_arrays(WIDE, True, seed=len(SHAPES)), 0)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(sys.argv[1])
