"""models.py - models of real shapes and random weights, to measure speed with.

    python3 bench/models.py FOLDER SHAPE TYPE ...       writes SHAPE-TYPE.gguf, where it is not there yet

Time does not depend on what the weights are, as long as the numbers stay finite and of ordinary size. So
blocks are random bytes around scales that make a product as large as its input; a branch adds a tenth to the
stream. Rows are made and written some at a time, so that a large model takes little memory.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np


@dataclass(frozen=True)
class Shape:
    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int = 32000
    tied: bool = True

    def layer(self):
        """(name, rows, columns) of the matrices of a layer."""
        kv_dim = self.dim // self.n_heads * self.n_kv_heads
        return [("attn_q", self.dim, self.dim), ("attn_k", kv_dim, self.dim), ("attn_v", kv_dim, self.dim),
                ("attn_output", self.dim, self.dim), ("ffn_gate", self.hidden_dim, self.dim),
                ("ffn_up", self.hidden_dim, self.dim), ("ffn_down", self.dim, self.hidden_dim)]

    def weights(self):
        """How many a token meets: in the layers, and in the classifier."""
        return (self.n_layers * sum(rows * cols for _, rows, cols in self.layer()),
                self.vocab_size * self.dim)

    def cache_bytes(self, context):
        """Keys and values of F16."""
        return 2 * 2 * self.n_layers * context * self.dim // self.n_heads * self.n_kv_heads


SHAPES = {
    "15M": Shape(288, 768, 6, 6, 6),                    # llama2.c's stories15M and stories110M
    "110M": Shape(768, 2048, 12, 12, 12),
    "1.1B": Shape(2048, 5632, 22, 32, 4, tied=False),   # TinyLlama
    "tiny": Shape(64, 96, 2, 4, 2, vocab_size=320),     # for tests
}

# Where a block has its d and its m, and the m / d that makes the mean 0, or nearly.
FLOATS = "F32", "F16", "BF16"
BLOCKS = {
    "Q8_0": (0, None, 0), "Q4_0": (0, None, 0), "Q4_1": (0, 2, -7.5), "Q5_0": (0, None, 0),
    "Q5_1": (0, 2, -15.5), "Q2_K": (80, 82, 1.5), "Q3_K": (108, None, 0), "Q4_K": (0, 2, 7.5),
    "Q5_K": (0, 2, 15.5), "Q6_K": (208, None, 0), "IQ4_NL": (0, None, 0),
}
TYPES = [*FLOATS, *BLOCKS]


def fits(shape, type):
    """Is every row a whole number of blocks?"""
    block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type]]
    return shape.dim % block == 0 and shape.hidden_dim % block == 0


def bytes_of(type, n):
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type]]
    return n // block * size


def set_scales(blocks, type, d):
    at, at_min, ratio = BLOCKS[type]
    blocks[:, at:at + 2] = d.astype("<f2")[:, np.newaxis].view(np.uint8)
    if at_min is not None:
        blocks[:, at_min:at_min + 2] = (ratio * d).astype("<f2")[:, np.newaxis].view(np.uint8)


class Weights:
    """Random weights of a type, by the piece."""

    def __init__(self, type, seed=1):
        self.type, self.random = type, np.random.default_rng(seed)
        self.ggml = gguf.GGMLQuantizationType[type]
        if type in BLOCKS:                              # how large are they where d is 1/64?
            blocks = self.bytes(4096)
            set_scales(blocks, type, np.full(len(blocks), 1 / 64))
            self.unit = 64 * gguf.quants.dequantize(blocks, self.ggml).std()

    def bytes(self, n_blocks):
        _, size = gguf.GGML_QUANT_SIZES[self.ggml]
        return np.frombuffer(self.random.bytes(n_blocks * size), np.uint8).reshape(n_blocks, size).copy()

    def numbers(self, n, size):
        """n of them, this large."""
        if self.type not in BLOCKS:
            uniform = self.random.random(n, np.float32) - np.float32(0.5)
            return gguf.quants.quantize(uniform * np.float32(np.sqrt(12) * size), self.ggml)
        blocks = self.bytes(n // gguf.GGML_QUANT_SIZES[self.ggml][0])
        signs = self.random.choice((-1, 1), len(blocks))        # so that the mean is 0 where 8 stands for it
        set_scales(blocks, self.type, signs * self.random.uniform(0.8, 1.2, len(blocks)) * size / self.unit)
        return blocks


def tensors(shape, type):
    """(name, rows, columns, type, size of its numbers) in the order of the file; rows 0: a vector of ones"""
    yield "token_embd", shape.vocab_size, shape.dim, type, 1 / np.sqrt(shape.dim)
    for l in range(shape.n_layers):
        yield f"blk.{l}.attn_norm", 0, shape.dim, "F32", 1
        yield f"blk.{l}.ffn_norm", 0, shape.dim, "F32", 1
        for name, rows, cols in shape.layer():
            branch_ends = name in ("attn_output", "ffn_down")
            yield f"blk.{l}.{name}", rows, cols, type, (0.1 if branch_ends else 1) / np.sqrt(cols)
    yield "output_norm", 0, shape.dim, "F32", 1
    if not shape.tied:
        yield "output", shape.vocab_size, shape.dim, type, 1 / np.sqrt(shape.dim)


def add_keys(writer, shape):
    T = gguf.TokenType
    writer.add_context_length(2048)
    writer.add_embedding_length(shape.dim)
    writer.add_feed_forward_length(shape.hidden_dim)
    writer.add_block_count(shape.n_layers)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.dim // shape.n_heads)
    writer.add_vocab_size(shape.vocab_size)
    others = shape.vocab_size - 259
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)),
                           *(f"\u2581{id}" for id in range(others))])
    writer.add_token_scores([0.0] * 259 + [-float(id) for id in range(others)])
    writer.add_token_types([T.UNKNOWN, T.CONTROL, T.CONTROL, *[T.BYTE] * 256, *[T.NORMAL] * others])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def write(path, shape, type):
    """Under another name first, so that a model is there whole or not at all."""
    unfinished = path.with_suffix(".part")
    writer = gguf.GGUFWriter(unfinished, "llama")
    add_keys(writer, shape)
    for name, rows, cols, kind, _ in tensors(shape, type):
        writer.add_tensor_info(f"{name}.weight", (rows, cols) if rows else (cols,), np.dtype(np.float32),
                               bytes_of(kind, max(rows, 1) * cols), gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    weights = Weights(type)
    with open(unfinished, "ab") as file:
        def pad():
            file.write(bytes(-file.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))

        pad()
        for _, rows, cols, kind, size in tensors(shape, type):
            if rows == 0:
                np.ones(cols, "<f4").tofile(file)
            some = max(1, (1 << 20) // cols)            # rows at a time
            for first in range(0, rows, some):
                weights.numbers(min(some, rows - first) * cols, size).tofile(file)
            pad()
    unfinished.rename(path)


def make(folder, shape_name, type):
    """The model's file, made now or before."""
    path = Path(folder) / f"{shape_name}-{type}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, SHAPES[shape_name], type)
    return path


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[2] not in SHAPES or not set(sys.argv[3:]) <= set(TYPES):
        sys.exit(__doc__ + f"\nshapes: {', '.join(SHAPES)}\ntypes: {', '.join(TYPES)}")
    for type in sys.argv[3:]:
        print(make(sys.argv[1], sys.argv[2], type))
