"""test_export.py - what export.py writes computes what the source computes.

Tiny random models of `transformers` are exported and run: the logits of 64 positions and the ids of texts
have to be theirs. Then the way back, the number formats, the other sources, --center and --verify.
"""

import json
import random
import re
import shutil

import gguf
import numpy as np
import pytest
import sentencepiece
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import make_models
import reference
from hub_models import (KINDS, LLAMA3, TEXT, classes_of, copy, export, exported, folders,  # noqa: F401
                        is_layernorm, make_model, put_byte_level, put_sentencepiece, write_json)
from test_words import TEXTS as WORDS, random_text

from convert import huggingface, to_huggingface, verify, vocabulary
from convert.patterns import PATTERNS

TEXTS = [text for text in WORDS if "<|" not in text]
EXACT = 2e-4                # of the largest logit


def random_texts(seed, count=5):
    source = random.Random(seed)
    return [random_text(source, 300) for _ in range(count)]


def ids_of(run, model, text, tmp_path):
    (tmp_path / "text").write_bytes(text.encode())
    outcome = run(model, "-m", "tokenize", "-f", tmp_path / "text")
    assert outcome.status == 0, outcome
    return [int(id) for id in outcome.stdout.split()]


def check_ids(run, model, folder, tmp_path, texts):
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in texts:
        assert ids_of(run, model, text, tmp_path) == theirs.encode(text, add_special_tokens=False), text


def wanted_logits(folder):
    """(ids of the text, logits of the first 64) by transformers, in F32."""
    ids = AutoTokenizer.from_pretrained(folder)(TEXT * 2)["input_ids"]
    assert len(ids) >= 64 and len(set(ids[:64])) > 20
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return ids, model(torch.tensor([ids[:64]])).logits[0].numpy()


def logits_of(program, model, tmp_path, *args, text=TEXT * 2):
    out = tmp_path / "logits.npy"
    outcome = program(model, "-i", text, "-n", 0, "-c", 256, "--kv", "f32", "--logits", out, *args)
    assert outcome.status == 0, outcome
    return np.load(out)


def difference(a, b):
    return np.abs(a[:64] - b[:64]).max() / np.abs(b).max()


def keys_of(path):
    return {key: field.contents() for key, field in gguf.GGUFReader(path).fields.items()
            if not key.startswith("GGUF.")}


def tensors_of(path):
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def check_same_tensors(a, b):
    a, b = tensors_of(a), tensors_of(b)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tensor_type == b[name].tensor_type and np.array_equal(a[name].data, b[name].data), name


def check_same_keys(a, b, *but):
    a, b = keys_of(a), keys_of(b)
    for key in ("general.name", *but):
        a.pop(key, None), b.pop(key, None)
    assert a == b


# ---------------------------------------------------------------------------- from a Hugging Face folder


@pytest.mark.parametrize("kind", KINDS)
def test_logits(kind, folders, run, run_layernorm, tmp_path, record_property):
    program, folder = run_layernorm if is_layernorm(kind) else run, folders(kind)
    out = exported(folder, tmp_path / "out.gguf", "--type", "f32")
    ids, wanted = wanted_logits(folder)
    got = logits_of(program, out, tmp_path)
    assert ids[1:] == ids_of(program, out, TEXT * 2, tmp_path)
    assert len(got) == len(ids), "BOS is the same, too"
    record_property("difference", difference(got, wanted))
    assert difference(got, wanted) <= EXACT
    assert [path.name for path in tmp_path.glob("*out*")] == ["out.gguf"]


OLDER = {                   # as config.json was written before transformers 5
    "llama3": dict(rope_parameters="drop", rope_theta=LLAMA3["rope_theta"],
                   rope_scaling={key: value for key, value in LLAMA3.items() if key != "rope_theta"}),
    "linear": dict(rope_parameters="drop", rope_scaling={"type": "linear", "factor": 4.0}),
    "theta": dict(rope_parameters="drop", rope_theta=500.0, rope_scaling=None),
    "stablelm": dict(rope_parameters="drop", rope_theta=10000, partial_rotary_factor=0.25),
}


@pytest.mark.parametrize("kind", OLDER)
def test_older_config(kind, folders, copy, tmp_path):
    new = exported(folders(kind), tmp_path / "new.gguf")
    old = exported(copy(kind, OLDER[kind]), tmp_path / "old.gguf")
    check_same_keys(new, old)
    check_same_tensors(new, old)


DEFAULTS = [("llama", "rms_norm_eps", "attention.layer_norm_rms_epsilon"),
            ("stablelm", "layer_norm_eps", "attention.layer_norm_epsilon"),
            ("llama", "max_position_embeddings", "context_length"),
            ("stablelm", "max_position_embeddings", "context_length")]


@pytest.mark.parametrize("kind, theirs, ours", DEFAULTS)
def test_what_is_left_out_has_the_default(kind, theirs, ours, copy, tmp_path):
    keys = keys_of(exported(copy(kind, {theirs: "drop"}), tmp_path / "out.gguf"))
    config, _ = classes_of(kind)
    assert keys[f"{kind}.{ours}"] == pytest.approx(getattr(config(), theirs))


def test_the_default_of_rope(copy, tmp_path):
    keys = keys_of(exported(copy("stablelm", {"rope_parameters": "drop"}), tmp_path / "out.gguf"))
    assert (keys["stablelm.rope.dimension_count"], keys["stablelm.rope.freq_base"]) == (16 * 0.25, 10000)


def test_a_name_on_the_hub(folders, monkeypatch, tmp_path):
    """What is downloaded is read like any folder, and keeps its name."""
    asked = []

    def download(name, **_):
        asked.append(name)
        return folders("mqa")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    keys = keys_of(exported("somebody/a-model", tmp_path / "out.gguf", "--hub"))
    assert (asked, keys["general.name"]) == (["somebody/a-model"], "a-model")


def test_mistakes_show(folders, run, tmp_path):
    """The comparison is not blind: rows of q as they stand in the folder give other logits."""
    out = exported(folders("llama"), tmp_path / "out.gguf", "--type", "f32")
    data = bytearray(out.read_bytes())
    for name, t in tensors_of(out).items():
        if name.endswith("attn_q.weight"):
            rows = t.data.reshape(4, 6, 2, -1).swapaxes(1, 2).tobytes()
            data[t.data_offset:t.data_offset + t.n_bytes] = rows
    out.write_bytes(data)
    assert difference(logits_of(run, out, tmp_path), wanted_logits(folders("llama"))[1]) > 10 * EXACT


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("shards", [False, True])
def test_a_folder_in_sixteen_bits(dtype, shards, put_sentencepiece, run, tmp_path):
    """Without --type the weights stay what they are; in one file or in several."""
    folder, more = tmp_path / "hf", {"max_shard_size": "30KB"} if shards else {}
    make_model("gqa-tied").to(getattr(torch, dtype)).save_pretrained(folder, **more)
    assert len(list(folder.glob("*.safetensors"))) > 2 * shards
    put_sentencepiece(folder)
    out = exported(folder, tmp_path / "out.gguf")
    types = {t.tensor_type.name for t in tensors_of(out).values()}
    assert types == {"F32", {"bfloat16": "BF16", "float16": "F16"}[dtype]}
    assert difference(logits_of(run, out, tmp_path), wanted_logits(folder)[1]) <= EXACT


def test_a_classifier_of_its_own_though_tied(copy, run, tmp_path):
    """As in transformers, where lm_head.weight differs from the embedding although config.json ties them."""
    folder = copy("llama", {"tie_word_embeddings": True})
    outcome = export(folder, "-o", tmp_path / "out.gguf")
    assert outcome.status == 0 and "lm_head.weight" in outcome.stderr
    assert difference(logits_of(run, tmp_path / "out.gguf", tmp_path), wanted_logits(folder)[1]) <= EXACT
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    save_file(weights, folder / "model.safetensors")
    assert "output.weight" not in tensors_of(exported(folder, tmp_path / "same.gguf"))


# ---------------------------------------------------------------------------- number formats

FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32, "q8_0": 7, "q4_0": 2, "q4_1": 3, "q5_0": 8, "q5_1": 9}
# Of the largest logit. Random weights are as hard to round as can be; a wrong block gives about 1.
ROUNDED = {"f32": EXACT, "f16": 0.01, "bf16": 0.1, "q8_0": 0.1}


@pytest.mark.parametrize("name", FILE_TYPES)
def test_types(name, folders, run, tmp_path):
    plain, out = exported(folders("wide"), tmp_path / "plain.gguf"), tmp_path / "out.gguf"
    outcome = export(folders("wide"), "-o", out, "--type", name)
    assert outcome.status == 0 and ("become F16" in outcome.stderr) == name.startswith("q")
    exact, typed = tensors_of(plain), tensors_of(out)
    assert exact.keys() == typed.keys()
    for tensor in typed:
        type = gguf.GGMLQuantizationType[name.upper()]
        if exact[tensor].data.ndim == 1:
            type = type.F32
        elif "ffn_down" in tensor and name.startswith("q"):
            type = type.F16
        assert typed[tensor].tensor_type == type
        wanted = gguf.quants.quantize(exact[tensor].data, type)
        assert typed[tensor].data.tobytes() == wanted.tobytes(), tensor
    assert keys_of(out)["general.file_type"] == FILE_TYPES[name]
    got, wanted = (logits_of(run, path, tmp_path) for path in (out, plain))
    assert difference(got, wanted) <= ROUNDED.get(name, 0.7)
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("name", ["llama3-factors", "biases", "stablelm-partial", "mixed-own"])
def test_a_gguf_changes_its_type(name, models, tmp_path):
    """All its keys and tensors stay, the biases and factors too; and a type that it has is copied."""
    source = models / f"{name}.gguf"
    same = exported(source, tmp_path / "same.gguf")
    half = exported(source, tmp_path / "half.gguf", "--type", "f16")
    check_same_tensors(source, same)
    for path in (same, half):
        check_same_keys(source, path, "general.file_type", "general.quantization_version",
                        "general.alignment")
    assert tensors_of(half).keys() == tensors_of(source).keys()
    assert {t.tensor_type.name for t in tensors_of(half).values()} == {"F32", "F16"}
    whole = exported(half, tmp_path / "whole.gguf", "--type", "f32")
    assert {t.tensor_type.name for t in tensors_of(whole).values()} == {"F32"}


# ---------------------------------------------------------------------------- ids


def test_ids_of_sentencepiece(put_sentencepiece, copy, run, tmp_path):
    """By tokenizer.model, as SentencePiece has them; by the tokenizer.json that transformers makes of it."""
    folder = copy("llama")
    by_model = exported(folder, tmp_path / "model.gguf")
    library = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for text in TEXTS + random_texts(1, 20):
        assert ids_of(run, by_model, text, tmp_path) == library.encode(text), text
    # A text that begins with a space gets another one from SentencePiece, and none from transformers.
    texts = [text for text in TEXTS + random_texts(2, 20) if not text.startswith(" ")]
    check_ids(run, by_model, folder, tmp_path, texts)
    put_sentencepiece(folder, as_json=True)
    outcome = export(folder, "-o", tmp_path / "json.gguf")
    assert outcome.status == 0 and "puts a space in front" in outcome.stderr
    check_ids(run, tmp_path / "json.gguf", folder, tmp_path, texts)
    check_same_keys(by_model, tmp_path / "json.gguf", "tokenizer.ggml.scores")


@pytest.mark.parametrize("name", PATTERNS)
def test_ids_of_byte_level_bpe(name, copy, run, tmp_path):
    folder = copy("llama")
    (folder / "tokenizer.model").unlink()
    put_byte_level(folder, name, bos=name == "llama-bpe")
    out = exported(folder, tmp_path / "out.gguf")
    same = {"stablelm2": "qwen2"}                       # two names for one way
    assert keys_of(out)["tokenizer.ggml.pre"] == same.get(name, name)
    assert keys_of(out)["tokenizer.ggml.add_bos_token"] == (name == "llama-bpe")
    check_ids(run, out, folder, tmp_path, TEXTS + random_texts(3))
    assert export(out, "--to", "hf", tmp_path / "hf").status == 0
    check_ids(run, out, tmp_path / "hf", tmp_path, TEXTS + random_texts(4))


def test_single_digits(copy, tmp_path):
    """deepseek-llm's own file cuts digit by digit: the same as by numbers, if no token has two of them."""
    folder, out = copy("gqa-tied"), tmp_path / "out.gguf"
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    steps = [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": True}
             for pattern in PATTERNS["deepseek-llm"][:-1]]
    steps += [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "use_regex": False}]
    data["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    names = [f"<{token}>" if len(token) > 1 and token.isdecimal() else token
             for token in data["model"]["vocab"]]
    for last, works in ((names[-1], True), ("42", False)):
        vocab = dict(zip([*names[:-1], last], data["model"]["vocab"].values()))
        write_json(path, data | {"model": data["model"] | {"vocab": vocab}})
        outcome = export(folder, "-o", out)
        assert (outcome.status == 0) == works == out.exists(), outcome
        if works:
            assert keys_of(out)["tokenizer.ggml.pre"] == "deepseek-llm"
            out.unlink()


def test_scores_of_runs():
    """Llama 2's runs of spaces have one score. As merges they are mixed, and a run grows from its left end:
    one score says that again, and that two spaces make a run only where none can grow."""
    runs = ["\u2581" * n for n in range(1, 9)]
    tokens, scores = [*runs, "a", "b", "ab", "bab"], [-1e9] * 8 + [-9.0, -9.0, -1.0, -2.0]
    merges = [tuple(way) for way in to_huggingface.merges_of(tokens, scores, [vocabulary.NORMAL] * 12)]
    assert merges[:2] == [("a", "b"), ("b", "ab")] and merges[2:4] == [(runs[6], runs[0]), (runs[5], runs[1])]
    rank = vocabulary.rank_groups("path", merges)
    assert [rank[token] for token in ("ab", "bab")] == [0, 1]
    assert {rank[token] for token in runs[2:]} == {2} and rank[runs[1]] == len(merges) - 1


# ---------------------------------------------------------------------------- the way out


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(kind, folders, run, run_layernorm, tmp_path):
    """GGUF -> Hugging Face -> GGUF: the same tensors to the bit, the same keys, but that scores become ranks;
    and transformers runs what lies between."""
    program, middle = run_layernorm if is_layernorm(kind) else run, tmp_path / "hf"
    there = exported(folders(kind), tmp_path / "there.gguf", "--type", "f32")
    outcome = export(there, "--to", "hf", middle)
    assert (outcome.status, outcome.stderr) == (0, "") and outcome.stdout.startswith(f"{middle}: ".encode())
    back = exported(middle, tmp_path / "back.gguf", "--type", "f32")
    check_same_tensors(there, back)
    check_same_keys(there, back, "tokenizer.ggml.scores")
    assert difference(logits_of(program, back, tmp_path), wanted_logits(middle)[1]) <= EXACT
    check_ids(program, there, middle, tmp_path, TEXTS + random_texts(5))


@pytest.mark.parametrize("name", ["gqa-untied", "heads", "theta", "biases", "linear-old", "llama3", "Q4_0",
                                  "llama3-factors", "stablelm-Q4_0", "mixed"])
def test_any_gguf(name, models, run, run_layernorm, tmp_path):
    """Not only what export.py has written: defaults left out, odd heads, some biases, blocks of any kind."""
    program, source = run_layernorm if "stablelm" in name else run, models / f"{name}.gguf"
    assert export(source, "--to", "hf", tmp_path / "hf").status == 0
    ids = ids_of(program, source, TEXT * 2, tmp_path)[:60]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    with torch.no_grad():
        theirs = model(torch.tensor([[make_models.BOS, *ids]])).logits[0].numpy()
    wanted = reference.logits(reference.load(source), [make_models.BOS, *ids])
    assert difference(theirs, wanted) <= EXACT
    check_ids(program, source, tmp_path / "hf", tmp_path, ["Once there was", "  a\n b é 1"])


def test_a_folder_in_several_files(folders, monkeypatch, tmp_path):
    monkeypatch.setattr(to_huggingface, "MAX_BYTES", 100_000)
    to_huggingface.write_folder(tmp_path / "hf", huggingface.read_folder(folders("llama")), None)
    assert len(list((tmp_path / "hf").glob("model-*-of-*.safetensors"))) > 3
    check_same_tensors(exported(folders("llama"), tmp_path / "a.gguf"),
                       exported(tmp_path / "hf", tmp_path / "b.gguf"))
    assert difference(wanted_logits(tmp_path / "hf")[1], wanted_logits(folders("llama"))[1]) <= 1e-6


# ---------------------------------------------------------------------------- llama2.c


@pytest.mark.parametrize("name", [name for name in make_models.NAMES if re.fullmatch(r".*-v\d-.*bin", name)])
def test_llama2c(name, models, run, tmp_path):
    """The same floats give the same logits, to the bit. Of version 2 the engine rounds the inputs as well."""
    out = exported(models / name, tmp_path / "out.gguf")
    got, wanted = (logits_of(run, path, tmp_path, text="Once there was a Lion\nand the Zebra")
                   for path in (out, models / name))
    assert difference(got, wanted) <= (3e-2 if "v2" in name else 0)
    for text in ("Once there was\n the é", "  a 1 ßx"):
        assert ids_of(run, out, text, tmp_path) == ids_of(run, models / name, text, tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_of_the_training(tied, models, tmp_path):
    """A .pt with the weights of a .bin."""
    source = models / make_models.name_of("gqa", 1, tied)
    config, arrays = reference.read_llama2c(source)
    arrays = {name: torch.tensor(array) for name, array in arrays.items()}
    weights = {"tok_embeddings.weight": arrays["embedding"], "norm.weight": arrays["final_norm"],
               "output.weight": arrays.get("classifier", arrays["embedding"]),
               "freqs_cos": torch.zeros(3), "freqs_sin": torch.zeros(3)}
    names = {"wq": "attention.wq", "wk": "attention.wk", "wv": "attention.wv", "wo": "attention.wo",
             "w_gate": "feed_forward.w1", "w_down": "feed_forward.w2", "w_up": "feed_forward.w3",
             "attn_norm": "attention_norm", "ffn_norm": "ffn_norm"}
    for ours, theirs in names.items():
        weights |= {f"layers.{l}.{theirs}.weight": arrays[ours][l] for l in range(config.n_layers)}
    weights = {f"_orig_mod.{name}": weight for name, weight in weights.items()}
    args = {"dim": config.dim, "n_layers": config.n_layers, "n_heads": config.n_heads, "multiple_of": 32,
            "n_kv_heads": config.n_kv_heads, "vocab_size": config.vocab_size, "max_seq_len": config.seq_len}
    torch.save({"model": weights, "model_args": args, "iter_num": 7}, tmp_path / "ckpt.pt")
    shutil.copy(models / "tokenizer.bin", tmp_path)
    out = exported(tmp_path / "ckpt.pt", tmp_path / "out.gguf")
    same = exported(source, tmp_path / "same.gguf")
    check_same_tensors(out, same)
    check_same_keys(out, same)


def test_a_tokenizer_of_sentencepiece(put_sentencepiece, models, tmp_path):
    """Named, or beside the checkpoint."""
    put_sentencepiece(tmp_path)
    config = reference.Config(16, 37, 1, 2, 2, 480, 64)
    make_models.write_model(tmp_path / "a.bin", config, make_models.random_arrays(config, True, 0), 0)
    found = exported(tmp_path / "a.bin", tmp_path / "found.gguf")
    named = exported(tmp_path / "a.bin", tmp_path / "named.gguf", "--tokenizer", tmp_path / "tokenizer.model")
    check_same_keys(found, named)
    assert keys_of(found)["tokenizer.ggml.tokens"][:4] == ["<unk>", "<s>", "</s>", "<0x00>"]


# ---------------------------------------------------------------------------- --center


@pytest.mark.parametrize("kind", ["llama", "gqa-tied", "biases", "stablelm", "stablelm-tied"])
def test_center(kind, folders, run, run_layernorm, tmp_path, record_property):
    """The two norms compute the same then, and not before. LayerNorm computes what it did."""
    plain = exported(folders(kind), tmp_path / "plain.gguf", "--type", "f32")
    centred = exported(folders(kind), tmp_path / "centred.gguf", "--type", "f32", "--center")

    def by_both(path):
        swap = ["--swap-norm"]
        return (logits_of(run, path, tmp_path, *(swap if is_layernorm(kind) else [])),
                logits_of(run_layernorm, path, tmp_path, *([] if is_layernorm(kind) else swap)))

    (rms, layer), before = by_both(centred), by_both(plain)
    record_property("difference", difference(rms, layer))
    assert difference(rms, layer) <= 1e-4
    assert difference(*before) > 0.05
    assert difference(layer, before[1]) <= 1e-4
    new, old = tensors_of(centred), tensors_of(plain)
    assert np.abs(new["token_embd.weight"].data.mean(axis=1)).max() < 1e-7
    if "tied" in kind:
        assert np.array_equal(new["output.weight"].data, old["token_embd.weight"].data)


# ---------------------------------------------------------------------------- --verify


@pytest.mark.parametrize("kind", ["llama", "gqa-tied", "stablelm"])     # with all kinds of tokenizers
def test_verify(kind, folders, run, run_layernorm, tmp_path):
    program = run_layernorm if is_layernorm(kind) else run
    outcome = export(folders(kind), "-o", tmp_path / "out.gguf", "--verify", "--run", program.path)
    assert outcome.status == 0, outcome
    assert re.search(rb"the same (\d+) ids\n.* best token is the same at \1 of \1 ", outcome.stdout), outcome


def test_verify_by_the_engine(models, run, tmp_path):
    source, verify = models / "gqa-v1-tied.bin", ["--verify", "--run", run.path]
    outcome = export(source, "-o", tmp_path / "out.gguf", *verify)
    assert outcome.status == 0 and b"largest difference is 0.0e+00" in outcome.stdout
    outcome = export(tmp_path / "out.gguf", "-o", tmp_path / "half.gguf", "--type", "f16", *verify)
    assert outcome.status == 0 and b"largest difference is 0.0e+00" not in outcome.stdout


def test_verify_finds_a_difference(folders, run, tmp_path):
    """Weights of four bits are not those of the source, and the embedding is the first to show it."""
    out = tmp_path / "out.gguf"
    outcome = export(folders("wide"), "-o", out, "--type", "q4_0", "--verify", "--run", run.path,
                     "--tolerance", "0.001")
    assert outcome.status == 1 and out.exists()
    assert b"the first that differs: embed: rms" in outcome.stdout, outcome


def test_verify_finds_other_ids(capsys):
    """The same ids are fed to both, so that the logits may agree and the texts' ids not."""
    logits = np.ones((3, 5), np.float32)
    ours = verify.Result([1, 2, 3], logits, {("-", "embed"): (1.0, 0.5, 2.0), ("0", "q"): (1.0, 0.0, 2.0)})
    assert verify.verify(ours, verify.Result([1, 2, 3], logits + 1e-6, {}), 1e-5)
    assert "the same 3 ids" in capsys.readouterr().out
    assert not verify.verify(ours, verify.Result([1, 4, 3], logits, {}), 1e-5)
    assert "from number 1 on they differ: [2, 3], [4, 3]" in capsys.readouterr().out
    theirs = ours.statistics | {("0", "q"): (1.1, 0.0, 2.0)}
    assert not verify.verify(ours, verify.Result([1, 2, 3], 2 * logits, theirs), 1e-5)
    assert "first that differs: q of layer 0: rms 1, mean 0, largest 2; 1.1, 0, 2" in capsys.readouterr().out


# ---------------------------------------------------------------------------- what else is carried


@pytest.fixture
def chatty(copy):
    """A folder with more special tokens, some ends of a text, rows of the embedding without a token."""
    folder = copy("gqa-tied")
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    size = len(data["model"]["vocab"])
    for i, name in enumerate(["<|eot_id|>", "<|eom_id|>", "<tool>"]):
        more = {"id": size + i, "content": name, "special": i < 2}
        data["added_tokens"].append(data["added_tokens"][0] | more)
    write_json(folder / "tokenizer.json", data)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"vocab_size": size + 13, "pad_token_id": -1})
    weights = load_file(folder / "model.safetensors")
    rows = weights["model.embed_tokens.weight"]
    weights["model.embed_tokens.weight"] = np.resize(rows, (size + 13, rows.shape[1]))
    save_file(weights, folder / "model.safetensors")
    write_json(folder / "generation_config.json", {"eos_token_id": [1, size + 1, size]})
    return folder, size


def test_special_tokens(chatty, tmp_path):
    folder, size = chatty
    out = exported(folder, tmp_path / "out.gguf")
    keys = keys_of(out)
    names = ("bos", "eos", "eot", "eom", "padding")
    ids = [keys.get(f"tokenizer.ggml.{name}_token_id") for name in names]
    assert ids == [0, 1, size, size + 1, None]
    assert keys["tokenizer.ggml.tokens"][size:] == ["<|eot_id|>", "<|eom_id|>", "<tool>", *(
        f"[PAD{id}]" for id in range(size + 3, size + 13))]
    assert keys["tokenizer.ggml.token_type"][size:] == [3, 3, 4] + [5] * 10
    assert export(out, "--to", "hf", tmp_path / "hf").status == 0
    theirs = AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert (theirs.bos_token_id, theirs.eos_token_id) == (0, 1)
    assert theirs("<tool>")["input_ids"] == [0, size + 2]
    generation = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [1, size, size + 1]


def test_chat_template(chatty, tmp_path):
    """Wherever it lies; the file of its own goes first."""
    folder, _ = chatty
    out = tmp_path / "out.gguf"

    def template():
        return keys_of(exported(folder, out)).get("tokenizer.chat_template")

    assert template() is None
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    several = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "among several"}]
    write_json(folder / "tokenizer_config.json", settings | {"chat_template": several})
    assert template() == "among several"
    write_json(folder / "chat_template.json", {"chat_template": "alone in JSON"})
    assert template() == "alone in JSON"
    (folder / "chat_template.jinja").write_text("{{ bos_token }}é")
    assert template() == "{{ bos_token }}é"
    assert export(out, "--to", "hf", tmp_path / "hf").status == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "hf").chat_template == "{{ bos_token }}é"


def test_notes(copy, tmp_path):
    """What is carried in another way than it was found is said."""
    folder = copy("gqa-tied", {"eos_token_id": [3, 4, 5, 6]})
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    data["normalizer"] = {"type": "NFC"}
    data["model"]["ignore_merges"] = False
    write_json(folder / "tokenizer.json", data)
    outcome = export(folder, "-o", tmp_path / "out.gguf")
    assert outcome.status == 0
    for word in ("NFC", "ignore_merges", "[5, 6] are left out"):
        assert word in outcome.stderr
