"""huggingface.py - read a Hugging Face folder: config.json, safetensors, and whatever tokenizer lies there.

What a config.json leaves out has the default of `transformers`. What would change the result in a way that
the engine does not compute is refused by name.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors import SafetensorError, safe_open

from .files import (MAX_DIM, MAX_INT, MAX_LAYERS, MAX_VOCAB, expect, expect_number, find, find_shard,
                    max_bytes, parse_json, read_json, read_text)
from .model import Model, Refused, computed, note, pairs_from_halves, stored
from .vocabulary import (BYTE, NORMAL, UNKNOWN, UNUSED, added_tokens, check_added, note_what_is_around,
                         read_sentencepiece, read_tokenizer_json, tokens_around)

ARCHITECTURES = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "llama",
                 "StableLmForCausalLM": "stablelm"}
DEFAULTS = {
    "LlamaForCausalLM": {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6},
    "MistralForCausalLM": {"max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "num_key_value_heads": 8,
                           "sliding_window": 4096},
    "StableLmForCausalLM": {"max_position_embeddings": 4096, "layer_norm_eps": 1e-5,
                            "num_key_value_heads": 32, "partial_rotary_factor": 0.25},
}
LAYER_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
TOP_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
DTYPES = {"F32": Type.F32, "F16": Type.F16, "BF16": Type.BF16}


# ---------------------------------------------------------------------------- config.json


class Config:
    """config.json, with the defaults of its architecture, and complaints about what makes no sense."""

    def __init__(self, folder):
        self.path, self.values = folder / "config.json", read_json(folder, "config.json")
        self.name, *_ = expect(self.path, "architectures", self.values.get("architectures") or ["none"], list)
        if self.name not in list(ARCHITECTURES):
            raise Refused(f"{self.path}: the architecture {self.name!s:.100}; {', '.join(ARCHITECTURES)} are "
                          "known")
        self.stablelm = ARCHITECTURES[self.name] == "stablelm"

    def get(self, key, fallback=None):
        """null is no value; what is not there at all has the default of the architecture."""
        value = self.values[key] if key in self.values else DEFAULTS[self.name].get(key)
        return fallback if value is None else value

    def number(self, key, fallback=None, high=MAX_DIM):
        return expect_number(self.path, key, self.get(key, fallback), 1, high)

    def refuse(self, key, why):
        raise Refused(f"{self.path}: {key} is {self.get(key)!r:.100}: {why}")


def refuse_what_does_not_run(c):
    for key in ("qk_layernorm", "use_parallel_residual", "quantization_config"):
        if c.get(key):
            c.refuse(key, "that cannot be run")
    if c.get("hidden_act", "silu") not in ("silu", "swish"):
        c.refuse("hidden_act", "silu can be run")
    window = c.get("sliding_window") if c.name == "MistralForCausalLM" else None
    length = c.number("max_position_embeddings", high=MAX_INT)
    if window and c.number("sliding_window", high=MAX_INT) < length:
        c.refuse("sliding_window", "attention that sees only so far back cannot be run")


# The kinds of RoPE scaling, and the numbers that each is told by.
SCALINGS = {"default": [], "linear": ["factor"],
            "llama3": ["factor", "high_freq_factor", "low_freq_factor", "original_max_position_embeddings"]}


def read_rope(c, head_dim):
    """Its keys, and what the frequencies are to be divided by, if each by another number."""
    given = c.get("rope_scaling") or c.get("rope_parameters") or {}         # before transformers 5, and since
    rope = dict(expect(c.path, "rope_scaling or rope_parameters", given, dict))
    older = rope.pop("type", "default")
    kind = rope.pop("rope_type", older)
    part = rope.pop("partial_rotary_factor", c.get("partial_rotary_factor", 1.0))
    theta = rope.pop("rope_theta", c.get("rope_theta", 10000.0))
    if kind not in list(SCALINGS):
        raise Refused(f"{c.path}: RoPE scaling of the kind {kind!r:.100}: none, linear and llama3 can be run")
    part = expect_number(c.path, "partial_rotary_factor", part, 0, 1, float)
    theta = expect_number(c.path, "rope_theta", theta, 1e-3, 1e15, float)
    if kind == "llama3":
        original = rope.get("original_max_position_embeddings") or c.get("max_position_embeddings")
        rope["original_max_position_embeddings"] = c.number("original_max_position_embeddings", original,
                                                            MAX_INT)
    else:
        rope.pop("original_max_position_embeddings", None)              # of no effect there
    if kind != "default" and sorted(rope) != SCALINGS[kind]:
        raise Refused(f"{c.path}: RoPE scaling of the kind {kind!r} by {sorted(rope)}; {SCALINGS[kind]} are "
                      "expected")
    for key in SCALINGS[kind]:
        expect_number(c.path, f"{key} of RoPE's scaling", rope[key], 1e-3, MAX_INT, float)
    if kind == "llama3" and rope["high_freq_factor"] <= rope["low_freq_factor"]:
        raise Refused(f"{c.path}: high_freq_factor of RoPE's scaling is not above low_freq_factor")
    rope_dim = int(head_dim * part)
    if rope_dim != head_dim and not c.stablelm or rope_dim % 2 or rope_dim < 2:
        raise Refused(f"{c.path}: partial_rotary_factor is {part}: for {c.name} and heads of {head_dim} that "
                      "cannot be run")
    keys = {"*.rope.dimension_count": rope_dim, "*.rope.freq_base": theta}
    if kind == "linear":
        keys |= {"*.rope.scaling.type": "linear", "*.rope.scaling.factor": float(rope["factor"])}
    return keys, llama3_factors(theta, rope_dim, **rope) if kind == "llama3" else None


def llama3_factors(theta, rope_dim, factor, low_freq_factor, high_freq_factor,
                   original_max_position_embeddings):
    """Llama 3.1: what turns often enough over the original context stays, what turns too seldom is slowed
    down by the factor, and between the two one goes over into the other."""
    frequencies = theta ** (-np.arange(0, rope_dim, 2) / rope_dim)
    turns = original_max_position_embeddings * frequencies / (2 * math.pi)
    fast = np.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
    return 1 / (fast + (1 - fast) / factor)


def read_config(c):
    """(keys, heads of q, heads of k and v, width of one, divisors of RoPE's frequencies)"""
    refuse_what_does_not_run(c)
    dim, heads = c.number("hidden_size"), c.number("num_attention_heads")
    kv_heads = c.number("num_key_value_heads", heads)
    if dim % heads and c.get("head_dim") is None or heads % kv_heads:
        raise Refused(f"{c.path}: {heads} heads of queries and {kv_heads} of keys and values in a width of "
                      f"{dim}: one of them is wrong")
    head_dim = c.number("head_dim", dim // heads)
    if heads * head_dim > MAX_DIM:
        raise Refused(f"{c.path}: {heads} heads of {head_dim} are wider than {MAX_DIM}")
    ours, theirs = "layer_norm_rms_epsilon", "rms_norm_eps"
    if c.stablelm:
        ours, theirs = "layer_norm_epsilon", "layer_norm_eps"
    keys = {
        "general.architecture": ARCHITECTURES[c.name],
        "general.name": Path(str(c.get("_name_or_path") or c.path.parent.resolve().name)).name[:100],
        "*.context_length": c.number("max_position_embeddings", high=MAX_INT),
        "*.embedding_length": dim,
        "*.block_count": c.number("num_hidden_layers", high=MAX_LAYERS),
        "*.feed_forward_length": c.number("intermediate_size"),
        "*.attention.head_count": heads,
        "*.attention.head_count_kv": kv_heads,
        "*.attention.key_length": head_dim,
        "*.attention.value_length": head_dim,
        f"*.attention.{ours}": expect_number(c.path, theirs, c.get(theirs), 1e-30, 1, float),
        "*.vocab_size": c.number("vocab_size", high=MAX_VOCAB),
    }
    if c.stablelm:
        keys["*.use_parallel_residual"] = False
    rope_keys, by = read_rope(c, head_dim)
    return keys | rope_keys, heads, kv_heads, head_dim, by


# ---------------------------------------------------------------------------- the weights


def shapes_of(c, heads, kv_heads, head_dim):
    """{name: shape} of every weight that there has to be."""
    dim, hidden = c.number("hidden_size"), c.number("intermediate_size")
    rows, layers = c.number("vocab_size", high=MAX_VOCAB), c.number("num_hidden_layers", high=MAX_LAYERS)
    q_dim, kv_dim = heads * head_dim, kv_heads * head_dim
    matrices = {"attn_q": (q_dim, dim), "attn_k": (kv_dim, dim), "attn_v": (kv_dim, dim),
                "attn_output": (dim, q_dim), "ffn_gate": (hidden, dim), "ffn_up": (hidden, dim),
                "ffn_down": (dim, hidden), "token_embd": (rows, dim), "output": (rows, dim)}
    biased = set()
    if c.stablelm:
        biased |= {"attn_norm", "ffn_norm", "output_norm"}
        biased |= {"attn_q", "attn_k", "attn_v"} if c.get("use_qkv_bias") else set()
    elif c.name == "LlamaForCausalLM":
        biased |= {"attn_q", "attn_k", "attn_v", "attn_output"} if c.get("attention_bias") else set()
        biased |= {"ffn_gate", "ffn_up", "ffn_down"} if c.get("mlp_bias") else set()
    names = {f"model.layers.{layer}.{theirs}": ours
             for layer in range(layers) for theirs, ours in LAYER_NAMES.items()}
    shapes = {}
    for theirs, ours in (TOP_NAMES | names).items():
        shapes[f"{theirs}.weight"] = matrices.get(ours, (dim,))
        if ours in biased:
            shapes[f"{theirs}.bias"] = shapes[f"{theirs}.weight"][:1]
    return shapes


def gguf_name(name):
    stem, _, kind = name.rpartition(".")
    if stem in TOP_NAMES:
        return f"{TOP_NAMES[stem]}.{kind}"
    _, _, layer, inner = stem.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[inner]}.{kind}"


def is_made_anew(name):
    """RoPE's frequencies were stored, once."""
    return name.endswith("rotary_emb.inv_freq")


MAX_HEADERS = max_bytes()    # bytes, of all files together
OTHER_WEIGHTS = {
    "pytorch_model*.bin*": "pickled by PyTorch, which may run a program when it is read: save them as "
                           "safetensors (by transformers, from_pretrained and save_pretrained)",
    "adapter_model*": "an adapter (LoRA), which is no model: merge it into its own (by peft, "
                      "merge_and_unload)",
    "consolidated*": "Meta's or Mistral's own: take the folder of the same model for transformers",
    "*.gguf": "GGUF already: name that file, not its folder",
    "*.h5": "TensorFlow's: save them as safetensors",
    "*.msgpack": "Flax's: save them as safetensors",
}


def refuse_without_weights(folder):
    for pattern, what in OTHER_WEIGHTS.items():
        for path in sorted(folder.glob(pattern)):
            raise Refused(f"{folder}: there is no model.safetensors; the weights of {path.name} are {what}")
    raise Refused(f"{folder}: there is no model.safetensors, and the model is not whole without it")


def read_header(path, room):
    """({name: (type, shape, where its numbers begin)} of a safetensors file, bytes that its header has)"""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > room:
            raise Refused(f"{path}: a header of {size} bytes: no safetensors file, or of more tensors than "
                          "any model has")
        data = file.read(size)
    try:
        with safe_open(path, "numpy"):                  # which checks the header, and the size
            header = parse_json(path, data)
    except (SafetensorError, ValueError) as error:
        raise Refused(f"{path}: no whole safetensors file, is the download complete? ({error})")
    header.pop("__metadata__", None)
    return {name: (t["dtype"], tuple(t["shape"]), 8 + size + t["data_offsets"][0])
            for name, t in header.items()}, size


def read_safetensors(folder):
    """{name: Tensor} of all that lies there, in one file or in several; one goes first, as for
    transformers."""
    index, wanted = folder / "model.safetensors.index.json", {}
    if one := find(folder, "model.safetensors"):
        paths = [one]
    elif find(folder, index.name):
        wanted = expect(index, "weight_map", read_json(folder, index.name).get("weight_map"), dict)
        names = [expect(index, "a name in weight_map", name, str) for name in wanted.values()]
        paths = [find_shard(folder, index, name) for name in dict.fromkeys(names)]
    else:
        refuse_without_weights(folder)
    found, room = {}, MAX_HEADERS
    for path in paths:
        header, size = read_header(path, room)
        room -= size
        for name, (dtype, shape, at) in header.items():
            if is_made_anew(name):
                continue
            if dtype not in DTYPES:
                raise Refused(f"{path}: {name} holds {dtype} numbers; {', '.join(DTYPES)} can be read")
            if name in found:
                raise Refused(f"{path}: {name} stands in another file, too")
            found[name] = stored(name, path, at, shape, DTYPES[dtype])
    if missing := [name for name in wanted if name not in found and not is_made_anew(name)]:
        raise Refused(f"{folder / wanted[missing[0]]}: the weight {missing[0]} is missing")
    return found


def check_layers(c, found):
    """Before a name is made for every weight of every layer."""
    layers = {name.split(".")[2] for name in found if name.startswith("model.layers.")}
    if len(layers) != c.number("num_hidden_layers", high=MAX_LAYERS):
        raise Refused(f"{c.path}: num_hidden_layers is {c.get('num_hidden_layers')}, and there are weights "
                      f"of {len(layers)}")


def same_numbers(a, b):
    return a.shape == b.shape and all(np.array_equal(a.read(rows), b.read(rows)) for rows in a.chunks())


def read_weights(c, folder, heads, kv_heads, head_dim):
    """{name: Tensor}, checked: nothing is missing, nothing is left."""
    found = read_safetensors(folder)
    check_layers(c, found)
    shapes = shapes_of(c, heads, kv_heads, head_dim)
    if c.get("tie_word_embeddings"):
        # As in transformers: where both are there and differ, they are not one.
        both = "lm_head.weight" in found and "model.embed_tokens.weight" in found
        if both and not same_numbers(found["lm_head.weight"], found["model.embed_tokens.weight"]):
            note(f"{c.path}: tie_word_embeddings is true, but lm_head.weight is another: it is kept")
        elif c.stablelm and "model.embed_tokens.weight" in found:
            # Other engines read no stablelm whose classifier is the embedding: it stands there twice.
            found["lm_head.weight"] = replace(found["model.embed_tokens.weight"])
        else:
            shapes.pop("lm_head.weight")
            found.pop("lm_head.weight", None)
    if unknown := sorted(found.keys() - shapes.keys()):
        raise Refused(f"{folder}: {unknown[0]} has no place in {c.name} as config.json describes it")
    for name, shape in shapes.items():
        if name not in found:
            raise Refused(f"{folder}: the weight {name} is missing")
        if found[name].shape != shape:
            raise Refused(f"{folder}: {name} has the shape {found[name].shape}; {shape} is expected by "
                          "config.json")
    return {name: found[name] for name in shapes}


# ---------------------------------------------------------------------------- the vocabulary


def read_tokens(c, folder, settings, rows):
    """Of tokenizer.json if it is byte-level; otherwise tokenizer.model, which has the scores, goes first."""
    path, as_model = folder / "tokenizer.json", find(folder, "tokenizer.model")
    data = read_json(folder, path.name, False, rows)
    if data and (not as_model or not expect(path, "model", data.get("model"), dict).get("byte_fallback")):
        return read_tokenizer_json(path, data, c.stablelm)
    if not as_model:
        raise Refused(f"{folder}: no tokenizer; tokenizer.json or tokenizer.model is expected")
    vocabulary = read_sentencepiece(as_model, rows)
    if data:
        added = [(t.get("id"), t["content"], t.get("special", False)) for t in added_tokens(path, data)]
        vocabulary.around = tokens_around(data.get("post_processor"))
        note_what_is_around(path, added_tokens(path, data))
    else:
        decoder = expect(folder, "added_tokens_decoder", settings.get("added_tokens_decoder") or {}, dict)
        check_added(folder, decoder.values())
        added = [(int(id) if id.isdecimal() and len(id) < 10 else id, t["content"], t.get("special", False))
                 for id, t in decoder.items()]
        note_what_is_around(folder, decoder.values())
        known = {text for _, text, _ in added}
        more = read_json(folder, "added_tokens.json", False, rows)
        added += [(id, text, False) for text, id in more.items() if text not in known]
    vocabulary.add_tokens(added)
    return vocabulary


def chat_template(folder, settings):
    """As `transformers` looks for it: a file of its own goes first."""
    if path := find(folder, "chat_template.jinja"):
        return read_text(path)
    alone = read_json(folder, "chat_template.json", False)
    found = alone.get("chat_template") or settings.get("chat_template")
    if isinstance(found, list):
        found = {str(one.get("name")): one.get("template") for one in found
                 if expect(folder, "a chat_template", one, dict)}
    found = found.get("default") if isinstance(found, dict) else found
    return found and expect(folder, "chat_template", found, str)


def leave_out_defaults(vocabulary, settings, files):
    """`transformers` writes 1 and 2 as BOS and EOS of any Llama, but where SentencePiece was trained without
    them, ordinary tokens stand there."""
    for name, usual in (("bos", 1), ("eos", 2)):
        ordinary = usual < len(vocabulary.types) and vocabulary.types[usual] in (NORMAL, UNUSED, BYTE)
        if vocabulary.kind != "llama" or not ordinary or settings.get(f"{name}_token"):
            continue
        for path, values in files:
            if values.get(f"{name}_token_id") == usual:
                del values[f"{name}_token_id"]
                note(f"{path}: {name}_token_id is {usual}, and that is an ordinary token, "
                     f"{vocabulary.tokens[usual]!r}: it is left out")


def special_ids(c, vocabulary, settings):
    """Special tokens by number: as the tokenizer names them, or else config.json."""
    for name in ("bos", "eos", "unk", "pad"):
        text = settings.get(f"{name}_token")
        text = text.get("content") if isinstance(text, dict) else text
        text = text if text is None else expect(c.path.parent, f"{name}_token", text, str)
        id = vocabulary.ids.get(name) if text is None else vocabulary.id_of(text)
        if text is not None and id is None:
            raise Refused(f"{c.path.parent}: {name}_token is {text!r}, and there is no such token")
        if id is None:
            id = c.get(f"{name}_token_id")
        if isinstance(id, (int, float)) and id != -1:   # EOS may be several, and -1 stands for none
            size = len(vocabulary.tokens)
            vocabulary.ids[name] = expect_number(c.path, f"{name}_token_id", id, 0, size - 1)
    unknown = vocabulary.ids.get("unk", len(vocabulary.types))
    if vocabulary.kind == "llama" and unknown < len(vocabulary.types):
        vocabulary.types[unknown] = UNKNOWN


def ends_of_text(c, vocabulary, generation):
    """All tokens that end a text. There are three names for them: EOS, EOT, EOM."""
    ends, size = {}, len(vocabulary.tokens)
    for given in (vocabulary.ids.get("eos"), generation.get("eos_token_id"), c.get("eos_token_id")):
        for id in given if isinstance(given, list) else [given]:
            if id is not None:
                ends[expect_number(c.path, "a token that ends a text", id, 0, size - 1)] = True
    ends = list(ends)
    if ends:
        vocabulary.ids["eos"] = ends.pop(0)
    for name, texts in (("eom", ["<|eom_id|>"]), ("eot", ["<|eot_id|>", "<|im_end|>"])):
        for id in ends:
            if vocabulary.tokens[id] in texts:
                vocabulary.ids.setdefault(name, id)
    ends = [id for id in ends if id not in vocabulary.ids.values()]
    for name in ("eot", "eom"):
        if ends and name not in vocabulary.ids:
            vocabulary.ids[name] = ends.pop(0)
    if ends:
        note(f"{c.path}: a text ends at more tokens than there are names for: {ends} are left out")


def read_vocabulary(c, folder, rows):
    settings = read_json(folder, "special_tokens_map.json", False, rows)
    settings |= read_json(folder, "tokenizer_config.json", False, rows)
    vocabulary = read_tokens(c, folder, settings, rows)
    generation = read_json(folder, "generation_config.json", False)
    files = [(c.path, c.values), (folder / "generation_config.json", generation)]
    leave_out_defaults(vocabulary, settings, files)
    special_ids(c, vocabulary, settings)
    ends_of_text(c, vocabulary, generation)
    vocabulary.chat_template = chat_template(folder, settings)
    first, last = vocabulary.around or (None, None)
    if first is not None and vocabulary.id_of(first) != vocabulary.ids.get("bos"):
        raise Refused(f"{folder}: its tokenizer begins a text with {first!r}, which is not BOS")
    # Where nobody says so, SentencePiece's texts begin with BOS.
    vocabulary.add_bos = first is not None or bool(settings.get("add_bos_token", vocabulary.around is None))
    vocabulary.add_eos = last is not None or bool(settings.get("add_eos_token"))
    return vocabulary


# ---------------------------------------------------------------------------- a folder


def read_folder(folder):
    if not find(folder, "config.json") and find(folder, "adapter_config.json"):
        raise Refused(f"{folder}: {OTHER_WEIGHTS['adapter_model*']}")
    c = Config(folder)
    keys, heads, kv_heads, head_dim, by = read_config(c)
    tensors = []
    for name, t in read_weights(c, folder, heads, kv_heads, head_dim).items():
        t.name = gguf_name(name)
        if not c.stablelm and ".attn_q." in t.name:
            t = t.with_rows(pairs_from_halves(heads, t.shape[0]))
        if not c.stablelm and ".attn_k." in t.name:
            t = t.with_rows(pairs_from_halves(kv_heads, t.shape[0]))
        tensors.append(t)
    if by is not None:
        tensors.insert(0, computed("rope_freqs.weight", by))
    architecture = keys["general.architecture"]
    model = Model({key.replace("*", architecture): value for key, value in keys.items()}, tensors, folder)
    model.keys |= read_vocabulary(c, folder, keys["*.vocab_size"]).keys(keys["*.vocab_size"])
    return model
