"""damage.py - a small GGUF model, and every way to spoil it that we could think of.

    python3 tests/damage.py FOLDER      writes the files, and index.txt: what must happen with each

What published advisories about other readers of GGUF come down to is in here, each under its own name.
"""

import random
import struct
import sys
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

from gguf_bytes import (ARRAY, BOOL, CODES, F32, F64, HUGE, I8, I16, I32, I64, INF, NAN, SIGNED, STRING, U8,
                        U16, U32, U64, UNSIGNED, File, Tensor, array, bool_, f32, f64, i32, i64, nested,
                        string, text, u8, u16, u32, u64, value)

# ---------------------------------------------------------------------------- the model that is spoiled

DIM, HIDDEN, HEADS, KV_HEADS, CONTEXT = 32, 32, 4, 2, 64
PROMPT = "a bad cab"
TOKENS = ["<unk>", "<s>", "</s>", "<0x0A>", "<0x41>", "▁", "▁a", "ab", "ad", "▁b", "▁bad", "▁c",
          *"abcdefghijklmnopqrst"]
TYPES = [2, 3, 3, 6, 6] + [1] * (len(TOKENS) - 5)       # unknown, control, byte, normal
N = len(TOKENS)


def floats(random, n, size):
    return struct.pack(f"<{n}f", *(random.gauss(0, size) for _ in range(n)))


def model(architecture="llama"):
    """One layer, every tensor in F32: 30 kB."""
    a, numbers = architecture, random.Random(7)
    norm = "layer_norm_epsilon" if a == "stablelm" else "layer_norm_rms_epsilon"
    kv_dim = DIM // HEADS * KV_HEADS
    matrices = {"attn_q": (DIM, DIM), "attn_k": (DIM, kv_dim), "attn_v": (DIM, kv_dim),
                "attn_output": (DIM, DIM),
                "ffn_gate": (DIM, HIDDEN), "ffn_up": (DIM, HIDDEN), "ffn_down": (HIDDEN, DIM)}
    shapes = {"token_embd": (DIM, N), "blk.0.attn_norm": (DIM,), "blk.0.ffn_norm": (DIM,),
              "output_norm": (DIM,)}
    shapes |= {f"blk.0.{name}": shape for name, shape in matrices.items()}
    tensors = [Tensor(f"{name}.weight", list(shape), floats(numbers, shape[0] * (*shape, 1)[1], 0.3))
               for name, shape in shapes.items()]
    control = floats(numbers, 5 * DIM, 0.01)       # never the likeliest, so that there is a text to compare
    tensors[0].data = control + tensors[0].data[len(control):]
    return File([
        ("general.architecture", text(a)),
        (f"{a}.context_length", u32(CONTEXT)),
        (f"{a}.embedding_length", u32(DIM)),
        (f"{a}.feed_forward_length", u32(HIDDEN)),
        (f"{a}.block_count", u32(1)),
        (f"{a}.attention.head_count", u32(HEADS)),
        (f"{a}.attention.head_count_kv", u32(KV_HEADS)),
        (f"{a}.attention.{norm}", f32(1e-5)),
        (f"{a}.rope.dimension_count", u32(DIM // HEADS)),
        (f"{a}.rope.freq_base", f32(10000)),
        ("tokenizer.ggml.model", text("llama")),
        ("tokenizer.ggml.tokens", array(STRING, TOKENS)),
        ("tokenizer.ggml.scores", array(F32, [-float(i) for i in range(N)])),
        ("tokenizer.ggml.token_type", array(I32, TYPES)),
        ("tokenizer.ggml.bos_token_id", u32(1)),
        ("tokenizer.ggml.eos_token_id", u32(2)),
        ("tokenizer.ggml.unknown_token_id", u32(0)),
    ], tensors)


# ---------------------------------------------------------------------------- what must happen
#
# A fault of the file stops every mode. One of the model leaves the vocabulary and the description alone, one
# of the vocabulary leaves the description.

FILE, MODEL, VOCABULARY = "the file is refused", "the model is refused", "the vocabulary is refused"
LATER = "the model is refused when it runs"             # NaN in a weight, or one token fewer than embeddings
SAME, RUNS, EITHER = "runs, and the text is the undamaged file's", "runs", "runs or is refused"


@dataclass
class Case:
    name: str
    data: bytes
    expected: str
    words: tuple = field(default=())    # that a refusal must contain


GOOD = model()


def one(name, file, expected, *words):
    return Case(name, bytes(file), expected, words)


def llama(key, value):
    return GOOD.pair("llama." + key, value)


def ggml(key, value):
    return GOOD.pair("tokenizer.ggml." + key, value)


def first(*pairs):
    return replace(GOOD, pairs=[*pairs, *GOOD.pairs])


def also(*tensors):
    return replace(GOOD, tensors=[*GOOD.tensors, *tensors])


def spells(texts, types=None, scores=None):
    """GOOD with another vocabulary."""
    file = ggml("tokens", array(STRING, texts))
    file = file.pair("tokenizer.ggml.scores", array(F32, scores or [-float(i) for i in range(len(texts))]))
    return file.pair("tokenizer.ggml.token_type", array(I32, types or [1] * len(texts)))


def header():
    for version in (0, 4, 255):
        yield one(f"version {version}", replace(GOOD, version=version), FILE, f"version {version}")
    yield one("version 1", replace(GOOD, version=1), FILE, "version 1")
    yield one("version 2", replace(GOOD, version=2), SAME)
    yield one("version 2^31", replace(GOOD, version=2**31), FILE, "GGUF")
    yield one("big-endian: version swapped", replace(GOOD, version=3 << 24), FILE, "byte order")
    yield one("big-endian: all of the header", b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(64), FILE,
              "byte order")
    yield one("big-endian: the mark swapped", replace(GOOD, magic=b"FUGG"), FILE, "GGUF")
    for magic in (b"GGML", b"ggjt", b"gguf", b"GGU\0"):
        yield one(f"mark {magic}", replace(GOOD, magic=magic), FILE)
    for size in (4, 8, 12, 16, 20, 23):
        yield one(f"header cut to {size} bytes", bytes(GOOD)[:size], FILE, "ends inside its header")
    yield one("header alone, nothing promised", File([], []), VOCABULARY)
    for what in ("n_pairs", "n_tensors"):
        true = len(getattr(GOOD, what[2:]))
        words = "metadata" if what == "n_pairs" else "tensor"
        for size in (14, 24, 33, 56, 64, 80, 96):       # n * size wraps to something small
            yield one(f"{what} x {size} wraps", replace(GOOD, **{what: 2**64 // size + 1}), FILE, words)
        for n in (2**31, 2**32 - 1, 2**60, 2**63, HUGE):
            yield one(f"{what} = {n}", replace(GOOD, **{what: n}), FILE, words)
        yield one(f"{what} one too many", replace(GOOD, **{what: true + 1}), FILE)
        yield one(f"{what} one too few", replace(GOOD, **{what: true - 1}), EITHER)
        yield one(f"{what} = 0", replace(GOOD, **{what: 0}), EITHER)


def metadata():
    def odd(value):
        return first(("odd", value))

    def raw_key(data):
        """A pair whose key is these bytes, its length included."""
        return first((None, data + u8(0)))

    for length in (HUGE, HUGE - 7, 2**63, 2**40, 2**32, 2**31):
        yield one(f"key of {length} bytes", raw_key(struct.pack("<Q", length) + b"key"), FILE, "metadata")
        yield one(f"string of {length} bytes", odd(struct.pack("<IQ", STRING, length) + b"x"), FILE, "odd")
        yield one(f"string of {length} bytes in an array",
                  odd(struct.pack("<IIQQ", ARRAY, STRING, 1, length)), FILE, "odd")
        yield one(f"array of {length} strings", odd(array(STRING, ["a"], length)), FILE)
        yield one(f"array of {length} arrays", odd(struct.pack("<IIQ", ARRAY, ARRAY, length)), FILE)
    rest = len(bytes(odd(text("")))) - 24 - len(string("odd") + text(""))      # what is behind the string
    yield one("string that ends past the end", odd(struct.pack("<IQ", STRING, rest + 1)), FILE, "odd")
    yield one("string that ends with the file", odd(struct.pack("<IQ", STRING, rest)), FILE, "ends inside")
    yield one("empty key", raw_key(string("")), FILE, "key of 0 bytes")
    yield one("key of 65535 bytes", raw_key(string("k" * 65535)), SAME)
    yield one("key of 65536 bytes", raw_key(string("k" * 65536)), FILE, "key of 65536 bytes")
    yield one("key that is no UTF-8", raw_key(string(b"\xff\xc0\x80\0\n\x1b[2J")), SAME)
    for size, type in ((2, U16), (4, F32), (8, U64)):   # count * size wraps to 0, or to one item
        for extra in (0, 1):
            yield one(f"array count x {size} wraps to {extra * size}",
                      odd(array(type, [0], 2**64 // size + extra)), FILE, "odd")
    yield one("array of 2^63 bytes", odd(array(U8, [0], 2**63)), FILE, "odd")
    for type in (13, 14, 255, 2**31, 2**32 - 1):
        yield one(f"value of type {type}", odd(struct.pack("<IQ", type, 0)), FILE, "odd", f"{type}")
        yield one(f"array of type {type}", odd(struct.pack("<IIQ", ARRAY, type, 0)), FILE, "odd")
        yield one(f"array of 2^63 items of type {type}", odd(struct.pack("<IIQ", ARRAY, type, 2**63)), FILE,
                  "odd")
    for depth in (1, 8):
        yield one(f"arrays nested {depth} deep", odd(nested(depth)), SAME)
    for depth in (10, 100, 10_000, 1_000_000):
        yield one(f"arrays nested {depth} deep", odd(nested(depth)), FILE, "nested")
    yield one("arrays nested 8 deep around strings",
              odd(nested(8, struct.pack("<IQ", STRING, 2) + string("a") * 2)), SAME)
    cut = struct.pack("<IIQ", ARRAY, ARRAY, 2) + struct.pack("<IQI", U8, 0, U8)
    yield one("array of two arrays, and the file ends", File([("odd", cut)], [], alignment=1), FILE, "odd")
    yield one("100000 empty arrays in an array",
              odd(struct.pack("<IIQ", ARRAY, ARRAY, 100_000) + struct.pack("<IQ", U8, 0) * 100_000), SAME)
    yield one("array of nothing", odd(array(STRING, [])), SAME)
    for type, x in ((U8, 255), (I8, -1), (U16, 65535), (I16, -1), (I32, -1), (U64, HUGE), (I64, -2**63),
                    (BOOL, 2), (F32, NAN), (F32, -INF), (F64, NAN), (F64, 1e300),
                    (STRING, b"\xed\xa0\x80\0\"\\\n"), (STRING, "")):
        yield one(f"unknown key of type {type}: {x}", odd(value(type, x)), SAME)
    for data in (bool_(1), u32(7), f32(0.5), text("new"), array(F32, [0.0, 1.0])):
        yield one(f"unknown key of the architecture: {data[:12]}", llama("unheard_of", data), MODEL,
                  "llama.unheard_of")
    for data in (bool_(0), u32(0), f32(0), text(""), array(F32, [0.0, 0.0])):
        yield one(f"unknown key that says none: {data[:12]}", llama("unheard_of", data), SAME)
    yield one("unknown key of another architecture", first(("mamba.unheard_of", u32(7))), SAME)
    yield one("40000 unknown keys", first(*((f"k{i}", u8(0)) for i in range(40_000))), SAME)
    yield one("duplicate key", first(GOOD.pairs[1]), FILE, GOOD.pairs[1][0], "twice")
    yield one("duplicate key, unknown", first(("odd", u8(0)), ("odd", u8(1))), FILE, "odd", "twice")
    yield one("keys that differ in a zero byte", first(("odd", u8(0)), ("odd\0", u8(1))), SAME)
    yield one("a key with a zero byte is another key", first(("llama.block_count\0", u32(9))), MODEL, "known")
    yield one("keys in the other order", replace(GOOD, pairs=GOOD.pairs[::-1]), SAME)


INTEGERS = {                        # that the engine reads: key -> what it is without damage
    "llama.context_length": CONTEXT, "llama.embedding_length": DIM, "llama.feed_forward_length": HIDDEN,
    "llama.block_count": 1, "llama.attention.head_count": HEADS, "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.key_length": DIM // HEADS, "llama.attention.value_length": DIM // HEADS,
    "llama.rope.dimension_count": DIM // HEADS, "llama.expert_count": 0, "split.count": 1,
}
IDS = {f"tokenizer.ggml.{name}_token_id": id for name, id in {
    "bos": 1, "eos": 2, "eot": 2, "eom": 2, "unknown": 0, "padding": 0, "seperator": 0, "separator": 0,
}.items()}


def types():
    """Every key that is read, with a value of every type it must not have, and of those it may."""
    for key, right in (INTEGERS | IDS).items():
        where = VOCABULARY if key in IDS else MODEL
        wrong = {"string": text(str(right)), "array": array(U32, [right]), "empty array": array(U32, []),
                 "f32": f32(right), "f64": f64(right), "bool": bool_(right != 0)}
        for kind, data in wrong.items():
            yield one(f"{key}: {kind}", GOOD.pair(key, data), where, key, "type")
        for kind, make in SIGNED.items():               # an id of -1 is none
            yield one(f"{key}: {CODES[kind]} -1", GOOD.pair(key, make(-1)), RUNS if key in IDS else where)
        for kind, make in (UNSIGNED | SIGNED).items():
            yield one(f"{key}: {CODES[kind]} {right}", GOOD.pair(key, make(right)), SAME)
    for key, right in (("general.architecture", "llama"), ("tokenizer.ggml.model", "llama"),
                       ("llama.rope.scaling.type", "none")):
        where = VOCABULARY if "token" in key else MODEL
        for kind, data in {"u32": u32(1), "array": array(STRING, [right]), "bool": bool_(1)}.items():
            yield one(f"{key}: {kind}", GOOD.pair(key, data), where, key, "type")
        for odd in ("", "x" * 5000, right.upper(), b"\xff\0\n\x1b[2J%s%n", right + "\0"):
            yield one(f"{key}: {str(odd)[:20]!r}", GOOD.pair(key, text(odd)), EITHER if odd == "" else where)
    for key in ("llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base", "llama.rope.scaling.factor",
                "llama.rope.scale_linear"):
        for kind, data in {"u32": u32(1), "f64": f64(1), "array": array(F32, [1.0]), "string": text("1"),
                           "bool": bool_(1)}.items():
            yield one(f"{key}: {kind}", GOOD.pair(key, data), MODEL, key, "type")
        for x in (NAN, INF, -INF, -1, 1e30):
            yield one(f"{key} = {x}", GOOD.pair(key, f32(x)), MODEL, key)
    for key in ("tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_space_prefix"):
        for kind, data in {"u8": u8(1), "u32": u32(1), "string": text("true"),
                           "array": array(BOOL, [1])}.items():
            yield one(f"{key}: {kind}", GOOD.pair(key, data), VOCABULARY, key, "type")
        yield one(f"{key} = 255", GOOD.pair(key, bool_(255)), EITHER)
        yield one(f"{key} = 0", GOOD.pair(key, bool_(0)), RUNS)
        yield one(f"{key} = 1", GOOD.pair(key, bool_(1)), SAME)
    for name in ("tokens", "scores", "token_type"):
        key, items = "tokenizer.ggml." + name, "array of " + ("string" if name == "tokens" else "numbers")
        arrays = struct.pack("<IIQ", ARRAY, ARRAY, N) + struct.pack("<IQ", U8, 0) * N
        for kind, data in {"u32": u32(N), "string": text("abc"), "array of bool": array(BOOL, [1] * N),
                           "array of arrays": arrays}.items():
            yield one(f"{key}: {kind}", GOOD.pair(key, data), VOCABULARY, key, items)
        for kind, data in {"array of u8": array(U8, [1] * N), "array of u64": array(U64, [1] * N),
                           "array of f64": array(F64, [0.0] * N)}.items():
            yield one(f"{key}: {kind}", GOOD.pair(key, data), RUNS if "numbers" in items else VOCABULARY)


def hyperparameters():
    for key in ("context_length", "embedding_length", "feed_forward_length", "block_count",
                "attention.head_count"):
        for x in (0, 2**31, 2**32 - 1):
            yield one(f"llama.{key} = {x}", llama(key, u32(x)), MODEL, key, f"{x};")
        for x in (2**40, HUGE):
            yield one(f"llama.{key} = {x}", llama(key, u64(x)), MODEL, key, f"{x};")
        yield one(f"no llama.{key}", llama(key, None), MODEL, f"the key llama.{key} is missing", "convert")
    yield one("context of 8", llama("context_length", u32(8)), RUNS)
    yield one("context of 2^31 - 1", llama("context_length", u32(2**31 - 1)), SAME)
    for n in (2, 4096, 4097, 65536):
        yield one(f"{n} layers, and the tensors of one", llama("block_count", u32(n)), MODEL)
    second = [replace(t, name=t.name.replace("blk.0", "blk.1")) for t in GOOD.tensors if "blk" in t.name]
    yield one("two layers, and the tensors of two", replace(llama("block_count", u32(2)),
                                                            tensors=[*GOOD.tensors, *second]), RUNS)
    yield one("one layer, and the tensors of two", also(*second), MODEL, "block_count is 1")
    for t in second:
        yield one(f"one layer, and {t.name}", also(t), MODEL, "block_count is 1", t.name)
    for n in (3, 5, 31, 33, 2**20):
        yield one(f"{n} heads for a width of {DIM}", llama("attention.head_count", u32(n)), MODEL, "heads")
    for n in (3, 5, 8):
        yield one(f"{HEADS} heads for {n} key/value heads", llama("attention.head_count_kv", u32(n)), MODEL,
                  "heads")
    yield one("no key/value heads", llama("attention.head_count_kv", u32(0)), MODEL, "head_count_kv")
    for n in (0, 1, 3, 7, 10, 2**20, 2**31):
        yield one(f"rotary dimension {n}", llama("rope.dimension_count", u32(n)), MODEL,
                  "rope.dimension_count")
    yield one("rotary dimension 2", llama("rope.dimension_count", u32(2)), RUNS)
    for n in (0, 1, 7, 9, 16, 2**20, 2**31):
        yield one(f"key_length {n}", llama("attention.key_length", u32(n)), MODEL)
        yield one(f"value_length {n}", llama("attention.value_length", u32(n)), MODEL, "value_length")
    yield one("heads x key_length too wide", llama("attention.key_length", u32(2**19)), MODEL)
    yield one("width 64, tensors of 32", llama("embedding_length", u32(64)), MODEL, "tensor")
    yield one("hidden width 64, tensors of 32", llama("feed_forward_length", u32(64)), MODEL, "ffn_gate")
    yield one("8 experts", llama("expert_count", u32(8)), MODEL, "experts")
    yield one("part of a split model", GOOD.pair("split.count", u16(3)), MODEL, "split")
    yield one("no architecture", GOOD.pair("general.architecture", None), MODEL, "architecture")
    for name in ("mamba", "gpt2", "llama4", "stablelm\0"):
        yield one(f"architecture {name}", GOOD.pair("general.architecture", text(name)), MODEL,
                  "architecture", "llama")
    key = "llama.attention.layer_norm_rms_epsilon"
    yield one("no epsilon", GOOD.pair(key, None), MODEL, "epsilon", "missing")
    yield one("epsilon 0", GOOD.pair(key, f32(0)), EITHER)
    yield one("epsilon -0", GOOD.pair(key, f32(-0.0)), EITHER)
    yield one("theta 0", llama("rope.freq_base", f32(0)), MODEL, "rope.freq_base")
    yield one("theta of the smallest number", llama("rope.freq_base", f32(1e-45)), MODEL, "rope.freq_base")
    yield one("theta missing", llama("rope.freq_base", None), SAME)
    yield one("scale 0: none", llama("rope.scaling.factor", f32(0)), SAME)
    yield one("scale 1", llama("rope.scaling.factor", f32(1)), SAME)
    for kind in ("none", "linear"):
        yield one(f"scaling {kind}, by 1", llama("rope.scaling.type", text(kind)), SAME)
    for kind in ("yarn", "longrope", "su", "dynamic"):
        yield one(f"scaling {kind}", llama("rope.scaling.type", text(kind)), MODEL, kind)
    for n in (1, 4, CONTEXT - 1):
        yield one(f"a window of {n}", llama("attention.sliding_window", u32(n)), MODEL, "sliding_window", n)
    for n in (0, CONTEXT, 2**31 - 1):
        yield one(f"a window of {n}", llama("attention.sliding_window", u32(n)), SAME)
    for key, neutral in {"attention.clamp_kqv": 0, "attention.scale": 0, "attention.max_alibi_bias": 0,
                         "logit_scale": 1, "embedding_scale": 1, "residual_scale": 1,
                         "attn_logit_softcapping": 0, "final_logit_softcapping": 0,
                         "rope.scaling.attn_factor": 1}.items():
        yield one(f"{key} of 2", llama(key, f32(2)), MODEL, key)
        for x in {0, neutral}:
            yield one(f"{key} of {x}", llama(key, f32(x)), SAME)
    yield one("attention that is not causal", llama("attention.causal", bool_(0)), MODEL, "causal")
    yield one("attention that is causal", llama("attention.causal", bool_(1)), SAME)
    yield one("a scale of 1e-7", llama("rope.scaling.factor", f32(1e-7)), MODEL, "scaling")
    for kind in ("adapter", "mmproj", "imatrix"):
        yield one(f"a file of the type {kind}", first(("general.type", text(kind))), MODEL, "not ", "model")
    yield one("a file of the type model", first(("general.type", text("model"))), SAME)
    llama3 = llama("rope.scaling.type", text("llama3")).pair("llama.rope.scaling.factor", f32(8))
    yield one("scaling llama3", llama3, RUNS)
    yield one("scaling llama3, low = high", llama3.pair("llama.rope.scaling.low_freq_factor", f32(4)), MODEL,
              "low_freq_factor")
    yield one("scaling llama3, low is NaN", llama3.pair("llama.rope.scaling.low_freq_factor", f32(NAN)),
              MODEL, "low_freq_factor")
    yield one("scaling llama3, high is 0", llama3.pair("llama.rope.scaling.high_freq_factor", f32(0)), MODEL,
              "high_freq_factor")
    yield one("scaling llama3, context 0", llama3.pair("llama.rope.scaling.original_context_length", u32(0)),
              MODEL, "original_context_length")
    for key in ("llama.attention.head_count_kv", "llama.rope.dimension_count"):
        yield one(f"no {key}", GOOD.pair(key, None), MODEL if "kv" in key else SAME)
    stablelm = model("stablelm")
    yield one("stablelm", stablelm, RUNS)
    yield one("stablelm with parallel residuals", stablelm.pair("stablelm.use_parallel_residual", bool_(1)),
              MODEL, "parallel")
    yield one("stablelm, use_parallel_residual: u32", stablelm.pair("stablelm.use_parallel_residual", u32(1)),
              MODEL, "use_parallel_residual")
    yield one("stablelm without ffn_norm", stablelm.tensor("blk.0.ffn_norm.weight"), MODEL, "parallel")
    yield one("stablelm with the epsilon of RMSNorm", stablelm.rename("layer_norm_eps", "layer_norm_rms_eps"),
              MODEL, "layer_norm_epsilon")
    yield one("llama with the epsilon of LayerNorm", GOOD.rename("layer_norm_rms_eps", "layer_norm_eps"),
              MODEL, "layer_norm_rms_epsilon")


def vocabulary():
    tokens, scores, kinds = "tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"

    def token(id, spelling):
        return GOOD.pair(tokens, array(STRING, [*TOKENS[:id], spelling, *TOKENS[id + 1:]]))

    for what in ("bos", "eos", "eot", "eom", "unknown", "padding", "separator", "seperator"):
        key = f"tokenizer.ggml.{what}_token_id"
        none = RUNS if what in ("bos", "eos", "eot", "eom") else SAME
        for id in (N, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1):          # left out; the last: none
            yield one(f"{what} = {id}", GOOD.pair(key, u32(id)), none)
        yield one(f"{what} = {N - 1}, the last", GOOD.pair(key, u32(N - 1)), SAME if none == SAME else RUNS)
    for key, items, type in ((scores, [0.0] * N, F32), (kinds, TYPES, I32)):
        for n in (0, 1, N - 1, N + 1):
            yield one(f"{key}: {n} items for {N} tokens", GOOD.pair(key, array(type, (items + items)[:n])),
                      VOCABULARY, key)
    yield one("no tokens", GOOD.pair(tokens, None), VOCABULARY, tokens)
    yield one("tokens, but none", GOOD.pair(tokens, array(STRING, [])), VOCABULARY, tokens)
    yield one("no scores", GOOD.pair(scores, None), VOCABULARY, scores)
    yield one("no types", GOOD.pair(kinds, None), RUNS)
    yield one(f"{N - 1} tokens, {N} embeddings", spells(TOKENS[:-1], TYPES[:-1]), RUNS)
    more = spells([*TOKENS, "zz"], [*TYPES, 1])         # a vocabulary by itself it still is
    yield one(f"{N + 1} tokens, {N} embeddings", more, LATER, f"{N + 1} tokens", N, "embedding")
    padded = GOOD.tensors[0].data + floats(random.Random(8), 32 * DIM, 3)      # the likeliest, if they count
    for n in (1, 32):
        yield one(f"{n} embeddings too many", GOOD.tensor("token_embd.weight", shape=[DIM, N + n],
                                                          data=padded[:4 * DIM * (N + n)]), SAME)
    for x in (NAN, INF, -INF):
        yield one(f"score {x}", GOOD.pair(scores, array(F32, [0.0] * (N - 1) + [x])), VOCABULARY,
                  f"token {N - 1}", "score")
    yield one("scores as far apart as they go", GOOD.pair(scores, array(F32, [3e38, -3e38] * (N // 2))), RUNS)
    for x in (-1, 7, 2**31 - 1, -2**31):
        yield one(f"token of type {x}", GOOD.pair(kinds, array(I32, [x] + TYPES[1:])), VOCABULARY, "token 0",
                  x)
    for spelling in ("<0x0G>", "", "<0x0A", "<0x0A> ", "0x0A", "<0X0A>"):
        yield one(f"byte token spelled {spelling!r}", token(3, spelling), VOCABULARY, "token 3")
    for x in range(7):
        yield one(f"every token of type {x}", GOOD.pair(kinds, array(I32, [x] * N)),
                  VOCABULARY if x == 6 else RUNS)
    last = N - 1                                        # a letter that the text does not have
    yield one("duplicate byte token", token(4, "<0x0A>"), SAME)
    yield one("duplicate token", token(last, TOKENS[last - 1]), SAME)
    yield one("empty token", token(last, ""), SAME)
    yield one("token of zero bytes", token(last, "\0\0"), SAME)
    yield one("token that is no UTF-8", token(last, b"\xe2\x96"), SAME)
    yield one("token of spaces", token(last, "▁" * 300), SAME)
    yield one("token of half a space", token(last, "▁".encode()[:2] + "▁".encode()), SAME)
    yield one("token of 65535 bytes", token(last, "x" * 65535), SAME)
    yield one("token of 65536 bytes", token(last, "x" * 65536), VOCABULARY, f"token {last}")
    yield one("every token empty", spells([""] * N), RUNS)
    yield one("every token the same", spells(["a"] * N), RUNS)
    bpe, merges = ggml("model", text("gpt2")), "tokenizer.ggml.merges"
    yield one("byte-level BPE", bpe.pair(merges, array(STRING, ["a b", "ab a", "xyz zyx"])), RUNS)
    yield one("byte-level BPE without merges", bpe, VOCABULARY, f"{merges} is missing")
    few = bpe.pair(merges, array(STRING, ["a b"]))
    yield one("byte-level BPE without scores", few.pair(scores, None), RUNS)
    for name in ("llama-bpe", "tekken", "gpt-2"):
        yield one(f"words cut in the way of {name}", few.pair("tokenizer.ggml.pre", text(name)), RUNS)
    for odd in "\u0120\u0121\u0143\u0144":              # a space, bytes 127 and 173, and no byte
        yield one(f"a token {odd!r} in byte-level BPE",
                  few.pair(tokens, array(STRING, [*TOKENS[:-1], odd])), RUNS)
    for n in (65535, 65536):
        long = bpe.pair(merges, array(STRING, ["a b", "a " + "b" * (n - 2)]))
        yield one(f"a merge of {n} bytes", long, *((RUNS,) if n == 65535 else (VOCABULARY, "merge 1")))
    two = spells(["a", "b"]).pair("tokenizer.ggml.bos_token_id", None)
    yield one("two tokens, of which none ends a text", two.pair("tokenizer.ggml.eos_token_id", None), EITHER)
    yield one("merges of numbers", bpe.pair(merges, array(U32, [1, 2])), VOCABULARY, merges)
    for odd in ("", "a", " ", "ab", " a", "a "):
        yield one(f"a merge of {odd!r}", bpe.pair(merges, array(STRING, ["a b", odd])), VOCABULARY, "merge 1")
    yield one("words cut in an unknown way", bpe.pair("tokenizer.ggml.pre", text("kana")), VOCABULARY, "kana")
    for kind in ("bert", "t5", "rwkv", "none", "no_vocab"):
        yield one(f"vocabulary of {kind}", ggml("model", text(kind)), VOCABULARY, kind)
    yield one("no kind of vocabulary", ggml("model", None), VOCABULARY, "ggml.model is missing", "-z")
    yield one("merges under a vocabulary without", ggml("merges", array(STRING, ["a b"])), SAME)
    yield one("a chat template of formats", GOOD.pair("tokenizer.chat_template", text("%s%n{{ x }}" * 100)),
              SAME)
    for key in (*IDS, "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_space_prefix"):
        yield one(f"no {key}", GOOD.pair(key, None), RUNS if "bos" in key or "eos" in key else SAME)
    yield one("a vocabulary alone", replace(GOOD, tensors=[]), MODEL)


def tensors():
    name = "blk.0.attn_q.weight"

    def shape(*dims, **more):
        return GOOD.tensor(name, shape=list(dims), **more)

    yield one("product of dimensions wraps to 0", shape(2**32, 2**32), FILE, name)
    yield one("product of dimensions wraps to the true one", shape(2**33 + DIM, 2**59), FILE, name)
    yield one("product of four dimensions wraps", shape(2**16, 2**16, 2**16, 2**16), FILE, name)
    yield one("dimensions x type size wraps to 0", shape(2**62), FILE, name)
    yield one("dimensions x type size wraps to the true one", shape(2**62 + DIM * DIM), FILE, name)
    yield one("blocks x block size wraps", shape(2**60, type=8), FILE, name)
    yield one("padding wraps", shape(2**63 - 1, 2, type=24), FILE, name)
    yield one("size of 2^64 - 1", shape(2**32 - 1, 2**32 + 1, type=24), FILE, name)
    for n in (2**31, 2**32, 2**40, 2**62 - 1, 2**63 - 1, 2**63, HUGE):
        yield one(f"dimension {n}", shape(DIM, n), FILE, name)
    yield one("first dimension 0", shape(0, DIM), FILE, name, "dimension of 0")
    yield one("second dimension 0", shape(DIM, 0), FILE, name, "dimension of 0")
    for n in (0, 5, 6, 255, 2**31, 2**32 - 1):
        yield one(f"{n} dimensions", GOOD.tensor(name, n_dims=n), FILE, name, f"{n} dimensions")
    yield one("five dimensions, all there", shape(DIM, DIM, 1, 1, 1), FILE, name, "5 dimensions")
    for ones in ((1,), (1, 1)):
        yield one(f"a matrix with {len(ones)} dimensions of 1", shape(DIM, DIM, *ones), SAME)
        yield one(f"a norm with {len(ones)} dimensions of 1",
                  GOOD.tensor("output_norm.weight", shape=[DIM, *ones]), SAME)
        yield one(f"embeddings with {len(ones)} dimensions of 1",
                  GOOD.tensor("token_embd.weight", shape=[DIM, N, *ones]), SAME)
    for dims in ((DIM, 4, 8), (DIM, 1, DIM), (4, 8, DIM), (DIM, 4, 1, 8), (1, 1, DIM, DIM)):
        yield one(f"a matrix of the shape {dims}", shape(*dims), MODEL, name, ", ".join(map(str, dims[::-1])))
    yield one("one dimension for a matrix", shape(DIM * DIM), MODEL, name)
    yield one("rows and columns exchanged", GOOD.tensor("blk.0.attn_k.weight", shape=[16, DIM]), MODEL,
              "attn_k")
    for dims in ([DIM // 2, 2], [DIM, 2], [1, DIM]):
        wrong = GOOD.tensor("output_norm.weight", shape=dims, data=bytes(8 * DIM))
        yield one(f"a norm of {dims}", wrong, MODEL, "output_norm")
    for type in (4, 5, 31, 32, 33, 36, 37, 38, 50, 255, 2**31, 2**32 - 1):
        yield one(f"tensor of type {type}", GOOD.tensor(name, type=type), FILE, name, f"type {type}")
    for type, kind in {4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4",
                       37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8"}.items():         # names and numbers: old ggml.h
        yield one(f"tensor of {kind}, which was removed", GOOD.tensor(name, type=type), FILE, kind, "removed")
    block, super = bytes(1024), bytes(2048)
    for type, kind in {9: "Q8_1", 15: "Q8_K", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
                       16: "IQ2_XXS", 19: "IQ1_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0",
                       39: "MXFP4", 40: "NVFP4"}.items():
        dims, more = ([DIM, DIM], bytes(8192)) if type in (9, 24, 25, 26, 27, 28, 39) else ([256, 4], super)
        yield one(f"tensor of {kind}, which is not run", GOOD.tensor(name, shape=dims, type=type, data=more),
                  MODEL, name)
    for type in (2, 3, 6, 7, 8, 20):
        yield one(f"rows of 31 in blocks of 32, type {type}", shape(31, DIM, type=type), FILE, name,
                  "blocks of 32")
        yield one(f"tensor of zeros, type {type}", GOOD.tensor(name, type=type, data=block + block), RUNS)
    for type in (10, 11, 12, 13, 14):
        yield one(f"rows of {DIM} in blocks of 256, type {type}", shape(DIM, DIM, type=type), FILE, name,
                  "blocks of 256")
    for type in (1, 30):
        yield one(f"tensor of zeros, type {type}", GOOD.tensor(name, type=type, data=super), RUNS)
        ones = struct.pack("<H", {1: 0x3c00, 30: 0x3f80}[type]) * DIM          # 1.0 in F16, in BF16
        for t in [t for t in GOOD.tensors if len(t.shape) == 1]:
            yield one(f"{t.name} of type {type}", GOOD.tensor(t.name, type=type, data=ones), RUNS)
        yield one(f"norm of type {type} and half the width",
                  GOOD.tensor("output_norm.weight", shape=[DIM // 2], type=type, data=ones), MODEL,
                  "output_norm")
    yield one("norm of Q8_0", GOOD.tensor("output_norm.weight", type=8), MODEL, "output_norm")
    for t in GOOD.tensors:
        yield one(f"no {t.name}", GOOD.tensor(t.name), MODEL, t.name)
        short = GOOD.tensor(t.name, shape=[*t.shape[:-1], t.shape[-1] - 1])
        if t.name == "token_embd.weight":
            yield one(f"{t.name} one row short", short, LATER, f"{N} tokens", N - 1)
        else:
            yield one(f"{t.name} one row short", short, MODEL, t.name)
    extra = Tensor("extra.weight", [DIM], bytes(4 * DIM))
    for odd in ("extra.weight", "x", "token_embd_norm.weight", "position_embd.weight", "token_types.weight",
                "rope_factors_long.weight", "rope_factors_short.weight", "cls.weight", "output.scale",
                "token_embd.bias", "blk.0.attn_gate.weight", "blk.0.attn_sinks.weight", "blk.0.attn_q.scale",
                "blk.0.attn_q.lora_a", "blk.0.ffn_up.weight.bias", "blk.00.ffn_up.weight",
                "TOKEN_EMBD.weight"):
        yield one(f"a tensor {odd}", also(replace(extra, name=odd)), MODEL, odd)
    yield one("unknown tensor of a type that is not run", also(replace(extra, type=26)), MODEL, extra.name)
    for odd in ("blk.0.attn_rot_embd", "blk.0.attn_rot_embd.weight"):   # of old converters
        yield one(f"a tensor {odd}", also(replace(extra, name=odd)), SAME)
    yield one("tensors in the other order", replace(GOOD, tensors=GOOD.tensors[::-1]), SAME)
    yield one("duplicate tensor", also(GOOD.tensors[0]), FILE, "token_embd.weight", "twice")
    yield one("tensor without a name", also(replace(extra, name="")), FILE, "name of 0 bytes")
    yield one("tensor with a name of 65536", also(replace(extra, name="n" * 65536)), FILE, "name of 65536")
    yield one("tensor with a name of 200, not ASCII", also(replace(extra, name="é\n\0" * 50)), MODEL,
              "tensor")
    bias = Tensor("blk.0.attn_q.bias", [DIM], bytes(4 * DIM))
    yield one("bias of zeros", also(bias), SAME)
    yield one("bias too short", also(replace(bias, shape=[DIM - 1])), MODEL, bias.name)
    yield one("bias of F16", also(replace(bias, type=1)), SAME)
    for x in "qk":
        norm = replace(bias, name=f"blk.0.attn_{x}_norm.weight")
        yield one(f"a norm on {x}", also(norm), MODEL, "normalizes")
    yield one("classifier of its own", also(replace(GOOD.tensors[0], name="output.weight")), SAME)
    yield one("classifier one row short", also(Tensor("output.weight", [DIM, N - 1], bytes(4 * DIM * N))),
              MODEL, "output.weight")
    for x in (NAN, INF, -INF):
        for t in GOOD.tensors:
            yield one(f"{x} in {t.name}", GOOD.tensor(t.name, data=struct.pack("<f", x) + t.data[4:]), LATER,
                      "finite")
    for what, factors in {"1": [1.0] * 4, "2": [2.0] * 4}.items():
        freqs = Tensor("rope_freqs.weight", [4], struct.pack("<4f", *factors))
        yield one(f"rope factors of {what}", also(freqs), SAME if what == "1" else RUNS)
    yield one("rope factors, and scaling llama3, which made them",
              also(freqs).pair("llama.rope.scaling.type", text("llama3")), RUNS)
    for x in (0.0, -1.0, NAN, INF):
        bad = replace(freqs, data=struct.pack("<4f", 1, 1, 1, x))
        yield one(f"a rope factor of {x}", also(bad), MODEL, "rope_freqs")
    for more in ({"shape": [3]}, {"shape": [5]}, {"shape": [4, 1]}, {"shape": [2, 2]}, {"type": 1}):
        expected = EITHER if more == {"shape": [4, 1]} else MODEL
        yield one(f"rope factors with {more}", also(replace(freqs, **more)), expected, "rope_freqs")


    yield one("rope factors that end with the file", bytes(replace(GOOD, tensors=[
        *GOOD.tensors, replace(freqs, shape=[3], data=bytes(12))]))[:-20], MODEL, "rope_freqs")
    yield one("one rope factor for 65536, and the file ends", bytes(replace(wide_heads(2**17), tensors=[
        *wide_heads(2**17).tensors, replace(freqs, shape=[1], data=bytes(4))]))[:-28], MODEL, "rope_freqs")


def wide_heads(width):
    """One head, so much wider than the stream that what is read once per number of it goes far."""
    file = llama("embedding_length", u32(2)).pair("llama.attention.key_length", u32(width))
    file = file.pair("llama.attention.head_count", u32(1)).pair("llama.attention.head_count_kv", u32(1))
    file = file.pair("llama.rope.dimension_count", None)
    for t in file.tensors:
        shape = [2 if n == DIM else n for n in t.shape]
        if "attn_output" in t.name:
            shape = [width, 2]
        elif "attn_" in t.name and "norm" not in t.name:
            shape = [2, width]
        elif t.name.startswith("token_embd"):
            shape = [2, N]
        elif "ffn_gate" in t.name or "ffn_up" in t.name:
            shape = [2, HIDDEN]
        elif "ffn_down" in t.name:
            shape = [HIDDEN, 2]
        file = file.tensor(t.name, shape=shape, type=0 if len(shape) == 1 else 1,
                           data=bytes(4 * shape[0] * (*shape, 1)[1]))
    return file


def layout():
    last = GOOD.tensors[-1]
    size = sum(-(-len(t.data) // 32) * 32 for t in GOOD.tensors)
    for offset in (size, size + 2**20, 2**32, 2**40, 2**63, 2**64 - 32, 2**64 - len(last.data)):
        yield one(f"offset {offset}, past the end", GOOD.tensor(last.name, offset=offset), FILE, last.name,
                  "missing")
    for offset in (1, 4, 31, 33, HUGE):
        yield one(f"offset {offset}, not aligned", GOOD.tensor(last.name, offset=offset), FILE, last.name,
                  "alignment")
    yield one("two tensors at one place", GOOD.tensor(last.name, offset=0), FILE, "overlap")
    piled = [replace(t, offset=0) for t in GOOD.tensors]
    yield one("every tensor at one place", replace(GOOD, tensors=piled), FILE, "overlap")
    yield one("a tensor that reaches 32 bytes into the next",
              GOOD.tensor(last.name, offset=size - len(last.data) - 32), FILE, "overlap")

    def aligned(alignment):
        return GOOD.pair("general.alignment", u32(alignment))

    for n in (0, 3, 5, 24, 31, 33, 2**31 + 1, 2**32 - 1):
        yield one(f"alignment {n}", aligned(n), FILE, "general.alignment", n)
    for n in (2**16, 2**20, 2**30, 2**31):
        yield one(f"alignment {n}, in a small file", aligned(n), FILE)
    for n in (1, 2, 4):                                 # floats have to lie where the machine wants them
        filled = [replace(aligned(n), alignment=n).pair("odd", text("x" * i)) for i in range(8)]
        skewed = next(file for file in filled if len(file.index()) % 8 == n)
        yield one(f"alignment {n}, kept", skewed, *((SAME,) if n == 4 else (MODEL, "multiple of 4")))
        half = skewed.tensor("output_norm.weight", type=1, data=b"\0\x3c" * DIM)
        yield one(f"alignment {n}, kept, a norm in F16", half, RUNS if n == 4 else MODEL)
    for n in (8, 64, 4096):
        yield one(f"alignment {n}, kept", replace(aligned(n), alignment=n), SAME)
    for kind, data in {"u64": u64(32), "i32": i32(32), "string": text("32"), "array": array(U32, [32]),
                       "f32": f32(32), "u8": u8(32)}.items():
        key = "general.alignment"
        yield one(f"{key}: {kind}", GOOD.pair(key, data), FILE, key, "type")
    yield one("bytes after the last tensor", replace(GOOD, tail=b"tail" * 99), SAME)
    yield one("one byte after the last tensor", replace(GOOD, tail=b"x"), SAME)
    short = Tensor("blk.0.attn_rot_embd", [1], b"\0\0\0\0")
    unpadded = bytes(also(short))
    yield one("no padding after the last tensor", unpadded[:-28], SAME)
    yield one("one byte of the last tensor missing", unpadded[:-29], FILE, "1 are missing")
    moved = replace(GOOD, tensors=[deepcopy(t) for t in GOOD.tensors])
    at = 64
    for t in moved.tensors:
        t.offset, t.data = at - 64, t.data + bytes(64)
        at += len(t.data)
    yield one("gaps between the tensors", moved, SAME)
    yield one("a gap of a page before the data", replace(GOOD, tensors=[
        replace(t, offset=4096 + sum(-(-len(u.data) // 32) * 32 for u in GOOD.tensors[:i]),
                data=t.data) for i, t in enumerate(GOOD.tensors)]), FILE, "missing")


def others():
    """Other files where GGUF is meant."""
    head = b'{"__metadata__":{"format":"pt"},"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    yield one("safetensors", struct.pack("<Q", len(head)) + head + bytes(4), FILE, "safetensors")
    yield one("git-lfs pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", FILE,
              "git lfs pull")
    yield one("web page", b"<!DOCTYPE html>\n<html>" + b" " * 99, FILE, "web page")
    yield one("zip", b"PK\x03\x04" + bytes(99), FILE, "zip")
    yield one("PyTorch of the old form", b"\x80\2\x8a\nl\xfc" + bytes(99), FILE, "PyTorch")
    yield one("nothing but the mark", b"GGUF", FILE, "header")
    yield one("the mark and zeros", b"GGUF" + bytes(4096), FILE, "version 0")
    yield one("the mark and ones", b"GGUF" + b"\xff" * 4096, FILE, "GGUF")
    for part in (b"G", b"GG", b"GGU"):
        yield one(f"the first {len(part)} bytes of the mark", part, FILE)


PARTS = (header, metadata, types, hyperparameters, vocabulary, tensors, layout, others)


def cases():
    """Every case there is; their names differ."""
    found = [case for part in PARTS for case in part()]
    assert len({case.name for case in found}) == len(found), "two cases have one name"
    return found


def main(folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "good.gguf").write_bytes(bytes(GOOD))
    with (folder / "index.txt").open("w") as index:
        for i, case in enumerate(cases()):
            (folder / f"{i:04}.gguf").write_bytes(case.data)
            print(f"{i:04}.gguf", repr(case.name), case.expected, *case.words, sep="  ", file=index)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
