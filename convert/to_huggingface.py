"""to_huggingface.py - write a Hugging Face folder: config.json, safetensors, tokenizer.json and the rest.

The way out: `transformers` loads it, and so does what builds on it.
"""

import json
import math
import os
import shutil

import numpy as np
from gguf import GGMLQuantizationType as Type

from .files import expect_number
from .gguf_files import Progress, check_room, encoded
from .huggingface import LAYER_NAMES, TOP_NAMES, llama3_factors
from .model import Refused, computed, halves_from_pairs
from .patterns import PATTERNS
from .vocabulary import BYTE, CONTROL, MAX_WORK, NORMAL, REMOVE_SPACES, SPACE, UNKNOWN, UNUSED, USER

DTYPES = {Type.F32: ("F32", "float32", 4), Type.F16: ("F16", "float16", 2),
          Type.BF16: ("BF16", "bfloat16", 2)}
MAX_BYTES = 5 << 30        # of one safetensors file

# ---------------------------------------------------------------------------- config.json

KNOWN = {"context_length", "embedding_length", "block_count", "feed_forward_length", "attention.head_count",
         "attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count",
         "rope.freq_base", "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear", "vocab_size",
         "attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon", "use_parallel_residual",
         "rope.scaling.original_context_length", "rope.scaling.low_freq_factor",
         "rope.scaling.high_freq_factor"}


def short(number):
    """A float of 32 bits by the fewest digits that mean it: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(number)))


def llama3_scaling(model, by, theta, rope_dim):
    """The numbers that these divisors of RoPE's frequencies have come from."""
    given = {"factor": short(by.max()), "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    for original in (1 << power for power in range(4, 24)):
        wanted = llama3_factors(theta, rope_dim, original_max_position_embeddings=original, **given)
        if np.allclose(by, wanted, rtol=1e-5):
            return {"rope_type": "llama3", **given, "original_max_position_embeddings": original}
    raise Refused("rope_freqs.weight holds divisors that are not Llama 3.1's: a Hugging Face folder has no "
                  "place for them")


def rope_of(model, theta, rope_dim):
    kind = model.get("*.rope.scaling.type", "linear")
    factor = model.get("*.rope.scaling.factor", model.get("*.rope.scale_linear", 1.0)) or 1.0
    by = model.tensor("rope_freqs.weight")
    linear = kind == "linear" and factor != 1
    if kind == "llama3" and by is None:
        given = {name: short(model.need(f"*.rope.scaling.{name}"))
                 for name in ("low_freq_factor", "high_freq_factor")}
        return {"rope_type": "llama3", "factor": short(factor), **given,
                "original_max_position_embeddings": model.need("*.rope.scaling.original_context_length")}
    if kind not in ("none", "linear", "llama3") or by is not None and linear:
        raise Refused(f"RoPE scaling of the kind {kind!r}: a Hugging Face folder has no place for it")
    if by is not None:
        return llama3_scaling(model, by.all(), theta, rope_dim)
    return {"rope_type": "linear", "factor": short(factor)} if linear else None


def config_of(model, biased, dtype):
    for key in model.keys:
        if key.startswith(f"{model.architecture}.") and key.split(".", 1)[1] not in KNOWN:
            raise Refused(f"the key {key} has no place in a Hugging Face folder")
    if model.get("*.use_parallel_residual", False):
        raise Refused("parallel residuals: that is not known here")
    stablelm = model.architecture == "stablelm"
    dim, heads = model.need("*.embedding_length"), model.need("*.attention.head_count")
    head_dim = model.get("*.attention.key_length", dim // heads)
    rope_dim = model.get("*.rope.dimension_count", head_dim)
    theta = short(model.get("*.rope.freq_base", 10000.0))
    if stablelm and head_dim * heads != dim or not stablelm and rope_dim != head_dim:
        raise Refused(f"heads of {head_dim}, of which {rope_dim} turn: a Hugging Face folder of this "
                      "architecture has no place for that")
    norm = "layer_norm_e" if stablelm else "layer_norm_rms_e"
    config = {
        "architectures": ["StableLmForCausalLM" if stablelm else "LlamaForCausalLM"],
        "model_type": model.architecture, "hidden_act": "silu", "hidden_size": dim,
        "intermediate_size": model.need("*.feed_forward_length"),
        "num_hidden_layers": model.need("*.block_count"), "num_attention_heads": heads,
        "num_key_value_heads": model.get("*.attention.head_count_kv", heads),
        "max_position_embeddings": model.need("*.context_length"),
        "layer_norm_eps" if stablelm else "rms_norm_eps": short(model.need(f"*.attention.{norm}psilon")),
        "rope_theta": theta, "rope_scaling": rope_of(model, theta, rope_dim),
        "tie_word_embeddings": model.tensor("output.weight") is None,
        "vocab_size": model.tensor("token_embd.weight").shape[0], "torch_dtype": dtype,
    }
    if stablelm:
        # rope_dim = int(head_dim * factor), however the division has been rounded
        factor = rope_dim / head_dim
        factor = factor if int(head_dim * factor) == rope_dim else float(np.nextafter(factor, 2))
        config["partial_rotary_factor"] = factor
        config |= {"use_qkv_bias": "qkv" in biased, "use_parallel_residual": False, "qk_layernorm": False}
    else:
        config |= {"head_dim": head_dim, "attention_bias": "qkv" in biased, "mlp_bias": "ffn" in biased}
    for name, id in ids_of(model).items():
        config[f"{name}_token_id"] = id
    return config


# ---------------------------------------------------------------------------- the weights


OURS_TO_THEIRS = {ours: theirs for theirs, ours in (LAYER_NAMES | TOP_NAMES).items()}


def hf_name(name, stablelm):
    """None: there is no such weight."""
    *place, ours, kind = ["", *name.split(".")]
    never = {"token_embd", "output"}                    # have a bias
    never |= {"attn_output", "ffn_gate", "ffn_up", "ffn_down"} if stablelm else \
        {"attn_norm", "ffn_norm", "output_norm"}
    if ours not in OURS_TO_THEIRS or kind not in ("weight", "bias") or kind == "bias" and ours in never:
        return None
    if place == [""] and OURS_TO_THEIRS[ours] in TOP_NAMES:
        return f"{OURS_TO_THEIRS[ours]}.{kind}"
    if len(place) == 3 and place[1] == "blk" and OURS_TO_THEIRS[ours] in LAYER_NAMES:
        return f"model.layers.{place[2]}.{OURS_TO_THEIRS[ours]}.{kind}"
    return None


def with_all_biases(model):
    """The tensors, and the groups of weights that have a bias: there all of a group have one, be it zero."""
    stablelm = model.architecture == "stablelm"
    groups = {"qkv": ["attn_q", "attn_k", "attn_v"] + ([] if stablelm else ["attn_output"]),
              "ffn": [] if stablelm else ["ffn_gate", "ffn_up", "ffn_down"],
              "norm": ["attn_norm", "ffn_norm", "output_norm"] if stablelm else []}
    tensors = {t.name: t for t in model.tensors if t.name != "rope_freqs.weight"}
    if unknown := [name for name in tensors if hf_name(name, stablelm) is None]:
        raise Refused(f"the tensor {unknown[0]} has no place in a Hugging Face folder")
    biased = {name.split(".")[-2] for name in tensors if name.endswith(".bias")}
    found = {group for group, names in groups.items() if biased & set(names)}
    for name, t in list(tensors.items()):
        kind = name.split(".")[-2]
        wanted = any(kind in groups[group] for group in found | {"norm"})
        if wanted and name.endswith(".weight"):
            bias = name.replace(".weight", ".bias")
            tensors.setdefault(bias, computed(bias, np.zeros(t.shape[0])))
    return list(tensors.values()), found


def hf_tensors(model, tensors):
    stablelm = model.architecture == "stablelm"
    heads = {"attn_q": model.need("*.attention.head_count")}
    heads["attn_k"] = model.get("*.attention.head_count_kv", heads["attn_q"])
    found = {}
    for t in tensors:
        name, kind = hf_name(t.name, stablelm), t.name.split(".")[-2]
        if kind in heads and not stablelm:
            t = t.with_rows(halves_from_pairs(heads[kind], t.shape[0]))
        found[name] = t
    return found


def write_file(path, tensors, type, bar):
    """Eight bytes for the size of a JSON header, the header, the numbers."""
    dtype, _, size = DTYPES[type]
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, t in tensors.items():
        end = at + size * int(np.prod(t.shape))
        header[name] = {"dtype": dtype, "shape": t.shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for t in tensors.values():
            for rows in t.chunks():
                file.write(encoded(t, rows, type).tobytes())
                bar.advance(t, rows)
        file.flush()
        os.fsync(file.fileno())


def write_safetensors(folder, tensors, type):
    """A further file every 5 GB."""
    files, room = [], 0
    for name, t in tensors.items():
        n_bytes = DTYPES[type][2] * int(np.prod(t.shape))
        if n_bytes > room:
            files.append({})
            room = MAX_BYTES
        room -= n_bytes
        files[-1][name] = t
    names = [f"model-{i + 1:05}-of-{len(files):05}.safetensors" for i in range(len(files))]
    names = names if len(files) > 1 else ["model.safetensors"]
    with Progress(tensors.values()) as bar:
        for file_name, part in zip(names, files):
            write_file(folder / file_name, part, type, bar)
    if len(files) > 1:
        places = {name: file_name for file_name, part in zip(names, files) for name in part}
        write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})


# ---------------------------------------------------------------------------- the tokenizer


def special_ids(model, names):
    """{name: id} of those that there are. GGUF may say that there is none by the largest number, or by -1."""
    size, found = len(model.need("tokenizer.ggml.tokens")), {}
    for name, key in names.items():
        id = model.get(f"tokenizer.ggml.{key}_token_id")
        if id not in (None, -1, 0xFFFFFFFF):
            found[name] = expect_number("the GGUF file", f"tokenizer.ggml.{key}_token_id", id, 0, size - 1)
    return found


def ids_of(model):
    return special_ids(model, {"bos": "bos", "eos": "eos", "pad": "padding"})


def merges_of(tokens, scores, types):
    """Every way to make a token from two, the highest score first: what SentencePiece does, as a list. Of
    equals the longer left side: a run of spaces grows from its left end."""
    score = {token: score for token, score, kind in zip(tokens, scores, types) if kind == NORMAL}
    if sum(len(token) ** 2 for token in score) > MAX_WORK:
        raise Refused("its tokens are too long for a list of all ways to make each of two")
    ways = [(-score[token], -at, -len(token), (token[:at], token[at:]))
            for token in score for at in range(1, len(token))
            if token[:at] in score and token[at:] in score]
    return [list(way) for *_, way in sorted(ways)]


def sentencepiece_json(model, tokens, types):
    unknown = next((token for token, kind in zip(tokens, types) if kind == UNKNOWN), None)
    space = model.get("tokenizer.ggml.add_space_prefix", True)
    decoder = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"},
               {"type": "Fuse"}]
    decoder += [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if space else []
    normalizer = [*REMOVE_SPACES] if model.get("tokenizer.ggml.remove_extra_whitespaces", False) else []
    normalizer += [{"type": "Prepend", "prepend": SPACE}] if space else []
    normalizer += [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]
    scores = model.need("tokenizer.ggml.scores")
    return {"normalizer": {"type": "Sequence", "normalizers": normalizer}, "pre_tokenizer": None,
            "decoder": {"type": "Sequence", "decoders": decoder},
            "model": {"type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": BYTE in types,
                      "ignore_merges": False, "merges": merges_of(tokens, scores, types)}}


def byte_level_json(model):
    pre = model.get("tokenizer.ggml.pre", "default")
    if pre not in PATTERNS:
        raise Refused(f"the vocabulary cuts words in the way of {pre!r}; {', '.join(PATTERNS)} are known")
    steps = [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
             for pattern in PATTERNS[pre]]
    steps.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False})
    merges = [merge.split(" ", 1) for merge in model.need("tokenizer.ggml.merges")]
    return {"normalizer": None, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                        "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                      "ignore_merges": pre in ("llama-bpe", "tekken"), "merges": merges}}


def post_processor(model, tokens):
    bos = ids_of(model).get("bos")
    llama = model.need("tokenizer.ggml.model") == "llama"
    if bos is None or not model.get("tokenizer.ggml.add_bos_token", llama):
        return None
    first = {"SpecialToken": {"id": tokens[bos], "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    other = {"Sequence": {"id": "B", "type_id": 1}}
    return {"type": "TemplateProcessing", "single": [first, text], "pair": [first, text, other],
            "special_tokens": {tokens[bos]: {"id": tokens[bos], "ids": [bos], "tokens": [tokens[bos]]}}}


def tokenizer_json(model, tokens, types):
    kind = model.need("tokenizer.ggml.model")
    if kind not in ("llama", "gpt2"):
        raise Refused(f"a vocabulary of the kind {kind!r}; llama and gpt2 are known")
    made = sentencepiece_json(model, tokens, types) if kind == "llama" else byte_level_json(model)
    made["model"]["vocab"] = vocab = {}
    for id, (token, what) in enumerate(zip(tokens, types)):
        if what != UNUSED:
            vocab.setdefault(token, id)
    added = [{"id": id, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": what == CONTROL}
             for id, (token, what) in enumerate(zip(tokens, types)) if what in (CONTROL, USER)]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "post_processor": post_processor(model, tokens), **made}


def tokenizer_config(model, tokens):
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    settings = {f"{name}_token": tokens[id] for name, id in special_ids(model, names).items()}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
                 "model_max_length": model.need("*.context_length")}
    if template := model.get("tokenizer.chat_template"):
        settings["chat_template"] = template
    return settings


def generation_config(model):
    ends = list(dict.fromkeys(special_ids(model, {name: name for name in ("eos", "eot", "eom")}).values()))
    return {f"{name}_token_id": id for name, id in (ids_of(model) | {"eos": ends}).items() if id != []}


# ---------------------------------------------------------------------------- a folder


def write_json(path, data):
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_folder(folder, model, type):
    """Under another name until all of it is there."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(f"{folder}: there is something of this name, and it is not written over")
    type = type or Type.F32
    if type not in DTYPES:
        raise Refused(f"a Hugging Face folder holds f32, f16 or bf16, not {type.name.lower()}")
    tokens, types = model.need("tokenizer.ggml.tokens"), model.need("tokenizer.ggml.token_type")
    if len(tokens) != len(types) or len(tokens) > model.tensor("token_embd.weight").shape[0]:
        raise Refused(f"{len(tokens)} tokens, {len(types)} types of tokens, and an embedding of "
                      f"{model.tensor('token_embd.weight').shape[0]} rows: they do not belong together")
    if any(isinstance(token, bytes) for token in tokens):
        raise Refused("its vocabulary has tokens that are no UTF-8: a tokenizer.json has no place for them")
    tensors, biased = with_all_biases(model)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)          # of a run that was killed
    try:
        partial.mkdir(parents=True)
        check_room(partial, sum(DTYPES[type][2] * math.prod(t.shape) for t in tensors))
        write_json(partial / "config.json", config_of(model, biased, DTYPES[type][1]))
        write_json(partial / "generation_config.json", generation_config(model))
        write_json(partial / "tokenizer.json", tokenizer_json(model, tokens, types))
        write_json(partial / "tokenizer_config.json", tokenizer_config(model, tokens))
        write_safetensors(partial, hf_tensors(model, tensors), type)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
