"""make_models.py - tiny random models: every shape, kind and number format of a file, in some kilobytes.

    python3 tests/make_models.py FOLDER      writes SHAPE-vVERSION-tied|untied.bin, wide.bin, tokenizer.bin,
                                             KIND.gguf (a vocabulary inside), vocabulary.gguf (nothing else)

The numbers are the same on every run. They are drawn so that a mistake shows: logits of about 1, attention
that prefers some positions to others, norm weights that are not 1, a residual stream whose mean is not 0.
"""

import struct
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import gguf
import numpy as np

from reference import GGUF_NAMES, HEADER, MAGIC, ORDER, Config, frequencies, llama3_slowdown, shapes

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


# ---------------------------------------------------------------------------- llama2.c's models

V = len(VOCABULARY)
SHAPES = {
    "mha": Config(16, 37, 1, 2, 2, V, 64),              # heads of 8, each with keys and values of its own
    "gqa": Config(24, 37, 3, 4, 2, V, 64),              # heads of 6, two to a key/value head
    "mqa": Config(12, 13, 3, 6, 1, V, 600),             # heads of 2, one key/value head for all
}
WIDE = Config(288, 768, 3, 6, 6, V, 1024)               # 12 MB: enough work to share out, or to interrupt
GROUPS = {4: Config(24, 40, 3, 4, 2, V, 64), 32: Config(64, 96, 2, 4, 2, V, 64)}        # of version 2
VARIANTS = [(shape, version, tied) for shape in SHAPES for version in (0, 1) for tied in (True, False)]


def name_of(shape, version, tied):
    return f"{shape}-v{version}-{'tied' if tied else 'untied'}.bin"


def random_arrays(config, tied, seed, biases=()):
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
    for name in biases:
        rows = arrays[name].shape[:-1] if name.startswith("w") else arrays[name].shape
        arrays[f"{name}_bias"] = 0.3 + 0.5 * random.standard_normal(rows)
    if tied:
        del arrays["classifier"]
    return arrays


def quantize_groups(matrix, group):
    """Whole numbers from -127 to 127, then the scale of each group of them."""
    groups = matrix.astype("<f4").reshape(-1, group)
    scales = np.abs(groups).max(axis=1, keepdims=True) / np.float32(127)
    return np.rint(groups / scales).astype("<i1").tobytes() + scales.tobytes()


def write_model(path, config, arrays, version, group=None):
    c = replace(config)
    header = b""
    if version:
        header = struct.pack("<Ii", MAGIC, version)
    elif "classifier" in arrays:
        c.vocab_size = -c.vocab_size
    header += struct.pack("<7i", *(getattr(c, name) for name in HEADER))
    if version:
        header += bytes(["classifier" not in arrays])
        header += struct.pack("<i", group) if group else b""
        header = header.ljust(256, b"\0")
    with open(path, "wb") as file:
        file.write(header)
        for name in ORDER[version]:
            if name in arrays and group and not name.endswith("norm"):
                matrices = arrays[name].reshape(-1, *arrays[name].shape[-2:])
                file.writelines(quantize_groups(matrix, group) for matrix in matrices)
            elif name in arrays:
                file.write(arrays[name].astype("<f4").tobytes())


# ---------------------------------------------------------------------------- GGUF: the kinds of models


@dataclass
class Kind:
    config: Config
    tied: bool = True
    architecture: str = "llama"
    biases: tuple = ()          # of these weights
    keys: dict = field(default_factory=dict)            # those that are written as they stand here
    factors: np.ndarray = None  # rope_freqs.weight
    types: dict = field(default_factory=dict)           # of these weights; "*": of all others
    alignment: int = 32
    seed: int = 100


HEADS = Config(24, 37, 2, 4, 2, V, 64, head_dim=16)     # four heads of 16 are wider than the 24 of the stream
BLOCKS = Config(64, 96, 2, 4, 2, V, 64)                 # blocks of 32 want rows that are multiples of 32,
SUPERS = Config(256, 256, 1, 4, 1, V, 64)               # superblocks of 256
STABLE = replace(HEADS, norm="layernorm", rotation="halves")
NORMS = ("attn_norm", "ffn_norm", "final_norm")
QKV, ALL = ("wq", "wk", "wv"), ("wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down")
FACTORS = llama3_slowdown(frequencies(HEADS), 8, 1, 4, 64)      # one of 8 stays, 2 lie between, 5 are slowed

KINDS = {f"{shape}-{'tied' if tied else 'untied'}": Kind(config, tied, seed=seed)       # llama2.c's, as GGUF
         for seed, (shape, config) in enumerate(SHAPES.items()) for tied in (True, False)}
KINDS |= {
    "heads": Kind(HEADS, False),
    "partial": Kind(replace(HEADS, rope_dim=6)),
    "theta": Kind(replace(HEADS, rope_theta=500000.0, eps=1e-3), alignment=64),
    "biases": Kind(HEADS, biases=ALL, alignment=8),
    "linear": Kind(HEADS, keys={"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
    "linear-old": Kind(HEADS, keys={"rope.scale_linear": 4.0}),
    "llama3": Kind(HEADS, keys={
        "rope.scaling.type": "llama3", "rope.scaling.factor": 8.0, "rope.scaling.low_freq_factor": 1.0,
        "rope.scaling.high_freq_factor": 4.0, "rope.scaling.original_context_length": 64}),
    "llama3-factors": Kind(HEADS, factors=FACTORS),
    "stablelm": Kind(STABLE, True, "stablelm", NORMS),
    "stablelm-partial": Kind(replace(STABLE, rope_dim=4), False, "stablelm", NORMS + QKV,
                             keys={"use_parallel_residual": False}),
    "stablelm-plain": Kind(replace(STABLE, n_kv_heads=4, rope_dim=4), False, "stablelm"),
    "mixed": Kind(SUPERS, biases=("wo",), types={"embedding": "Q6_K", "*": "Q4_K"}),    # as real files are
    "mixed-own": Kind(SUPERS, False, biases=("wo",), types={
        "classifier": "Q6_K", "embedding": "Q4_0", "wv": "Q5_K", "wk": "F16", "*": "Q8_0"}),
}
FLOAT_TYPES = ("F16", "BF16")
BLOCK_TYPES = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
RANDOM_TYPES = {            # where a block has its d and its dmin, and the dmin / d that makes the mean 0
    "Q2_K": (80, 82, 1.5), "Q3_K": (108, None, 0), "Q4_K": (0, 2, 7.5), "Q5_K": (0, 2, 15.5),
    "Q6_K": (208, None, 0), "IQ4_NL": (0, None, 0),
}
KINDS |= {name: Kind(BLOCKS, False, biases=("wo",), types={"*": name})
          for name in (*FLOAT_TYPES, *BLOCK_TYPES, "IQ4_NL")}
KINDS |= {name: Kind(SUPERS, False, biases=("wo",), types={"*": name})
          for name in RANDOM_TYPES if name != "IQ4_NL"}
KINDS |= {"stablelm-Q4_0": Kind(replace(BLOCKS, norm="layernorm", rotation="halves", rope_dim=4), False,
                                "stablelm", NORMS + QKV, types={"*": "Q4_0"})}

GGUFS = [f"{name}.gguf" for name in KINDS]
NAMES = [name_of(*variant) for variant in VARIANTS] + ["wide.bin"] + \
        [name_of(f"g{group}", 2, tied) for group in GROUPS for tied in (True, False)] + GGUFS

# ---------------------------------------------------------------------------- GGUF: writing them


def random_blocks(size, shape, type, random):
    """Blocks of random bytes, which are all valid; but scales that give numbers of this size."""
    at, at_min, ratio = RANDOM_TYPES[type.name]
    per_block, n_bytes = gguf.GGML_QUANT_SIZES[type]
    blocks = random.integers(0, 256, (np.prod(shape) // per_block, n_bytes), np.uint8)
    d = random.uniform(0.5, 1.5, len(blocks))
    for _ in range(2):                                  # once to see how large they become
        blocks[:, at:at + 2] = d.astype("<f2")[:, np.newaxis].view(np.uint8)
        if at_min is not None:
            blocks[:, at_min:at_min + 2] = (ratio * d).astype("<f2")[:, np.newaxis].view(np.uint8)
        d = d * size / gguf.quants.dequantize(blocks, type).std()
    return blocks.reshape(shape[0], -1)


def encode(array, type, random):
    if type.name in RANDOM_TYPES:
        return random_blocks(array.std(), array.shape, type, random)
    return gguf.quants.quantize(array.astype(np.float32), type)


def add(writer, key, value):
    write = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    write[type(value)](key, value)


def add_vocabulary(writer):
    T = gguf.TokenType
    types = [T.UNKNOWN, T.CONTROL, T.CONTROL, *[T.BYTE] * 256, *[T.NORMAL] * (V - 259)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text.strip().replace(" ", "\u2581") if id < 3 else text.replace(" ", "\u2581")
                           for id, text in enumerate(VOCABULARY)])
    writer.add_token_scores([score for score, _ in pieces()])
    writer.add_token_types(types)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(0)


def add_config(writer, kind):
    c = kind.config
    default = Config(c.dim, c.hidden_dim, c.n_layers, c.n_heads, c.n_kv_heads, c.vocab_size, c.seq_len)
    writer.add_context_length(c.seq_len)
    writer.add_embedding_length(c.dim)
    writer.add_feed_forward_length(c.hidden_dim)
    writer.add_block_count(c.n_layers)
    writer.add_head_count(c.n_heads)
    writer.add_head_count_kv(c.n_kv_heads)
    (writer.add_layer_norm_eps if c.norm == "layernorm" else writer.add_layer_norm_rms_eps)(c.eps)
    if c.head_dim != default.head_dim:                  # what is as it is by default need not be there
        writer.add_key_length(c.head_dim)
        writer.add_value_length(c.head_dim)
    if c.rope_dim != c.head_dim:
        writer.add_rope_dimension_count(c.rope_dim)
    if c.rope_theta != default.rope_theta:
        writer.add_rope_freq_base(c.rope_theta)


def add_tensors(writer, kind, arrays, random):
    def add_tensor(name, full, array):
        type = kind.types.get(name, kind.types.get("*", "F32")) if array.ndim == 2 else "F32"
        type = gguf.GGMLQuantizationType[type]
        writer.add_tensor(full, encode(array, type, random), raw_dtype=type)

    for name, array in arrays.items():
        weight, _, bias = name.partition("_bias")
        suffix = ".bias" if name.endswith("_bias") else ".weight"
        if weight in ("embedding", "final_norm", "classifier"):
            add_tensor(weight, GGUF_NAMES[weight] + suffix, array)
        elif weight != "angles":
            for l in range(kind.config.n_layers):
                add_tensor(weight, f"blk.{l}.{GGUF_NAMES[weight]}{suffix}", array[l])
    if kind.factors is not None:
        add_tensor("rope_freqs", "rope_freqs.weight", kind.factors)


def write_gguf(path, kind, arrays=None, more=None):
    """more: keys of the file's own, as they stand. A kind without arrays: a vocabulary alone."""
    writer = gguf.GGUFWriter(path, kind.architecture)
    if kind.alignment != 32:
        writer.add_custom_alignment(kind.alignment)
    writer.add_name("a tiny one, \"made\" for tests")
    add_config(writer, kind)
    for key, value in {f"{kind.architecture}.{key}": value for key, value in kind.keys.items()}.items():
        add(writer, key, value)
    for key, value in (more or {}).items():
        add(writer, key, value)
    add_vocabulary(writer)
    add_tensors(writer, kind, arrays or {}, np.random.default_rng(kind.seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def arrays_of(kind):
    """Where inputs are rounded to 8 bits, the stream is about 1 and a branch adds a tenth to it, as deep in a
    trained model: otherwise each layer would make the rounding of the one before it larger."""
    arrays = random_arrays(kind.config, kind.tied, kind.seed, kind.biases)
    if not set(kind.types.values()) <= {"F32", "F16", "BF16"}:
        arrays["embedding"] *= np.sqrt(kind.config.dim)
        for name in ("wo", "w_down"):
            arrays[name] *= 0.05
    return arrays


# ---------------------------------------------------------------------------- all of them


def make(folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder / "tokenizer.bin", pieces())
    for shape, version, tied in VARIANTS:               # by shape alone: versions hold the same weights
        arrays = random_arrays(SHAPES[shape], tied, seed=list(SHAPES).index(shape))
        write_model(folder / name_of(shape, version, tied), SHAPES[shape], arrays, version)
    write_model(folder / "wide.bin", WIDE, random_arrays(WIDE, True, seed=len(SHAPES)), 0)
    for group, config in GROUPS.items():
        for tied in (True, False):
            arrays = random_arrays(config, tied, seed=group)
            write_model(folder / name_of(f"g{group}", 2, tied), config, arrays, 2, group)
    for name, kind in KINDS.items():
        write_gguf(folder / f"{name}.gguf", kind, arrays_of(kind))
    write_gguf(folder / "vocabulary.gguf", replace(KINDS["heads"], types={}))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(sys.argv[1])
