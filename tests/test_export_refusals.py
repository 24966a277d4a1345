"""test_export_refusals.py - what export.py cannot do it says in one line, and leaves no file behind.

Bad sources of every kind, one test for each; a full disk, an interrupt, a source larger than the memory that
it takes.
"""

import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import damage
import hostile
import make_models
from conftest import ROOT, Outcome
from hub_models import (LLAMA, SIZES, V, copy, export, folders, put_sentencepiece, write_json)  # noqa: F401
from convert.patterns import PATTERNS


def export_alone(*args, **more):
    """In a process of its own."""
    command = [sys.executable, str(ROOT / "export.py"), *map(str, args)]
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120, **more)
    return Outcome.of(process, process.stdout, process.stderr)


def check_refused(outcome, tmp_path, *words):
    lines = outcome.stderr.splitlines()
    assert outcome.status == 1 and len(lines) == 1 and lines[0].startswith("export: "), outcome
    for word in words:
        assert word in lines[0], f"{word!r} is missing from {lines[0]!r}"
    assert outcome.stdout == b"" and not list(tmp_path.glob("*out*")), "a file is left"


# ---------------------------------------------------------------------------- bad sources

def edit_tokenizer(change):
    def edit(folder):
        path = folder / "tokenizer.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        change(data)
        write_json(path, data)
    return edit


def edit_config(**change):
    def edit(folder):
        path = folder / "config.json"
        write_json(path, json.loads(path.read_text()) | change)
    return edit


def edit_weights(change):
    def edit(folder):
        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors")
    return edit


def cut(name, size):
    def edit(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:size] if size >= 0 else data[:len(data) + size])
    return edit


def remove(*names):
    def edit(folder):
        for name in names:
            (folder / name).unlink()
    return edit


def poison(value):
    def change(weights):
        weights["model.layers.1.mlp.up_proj.weight"][7, 3] = value
    return edit_weights(change)


def missing_shard(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file({k: v for k, v in weights.items() if "layers.0" in k}, folder / "a.safetensors")
    write_json(folder / "model.safetensors.index.json",
               {"weight_map": {k: "a.safetensors" if "layers.0" in k else "b.safetensors" for k in weights}})


def weight_not_in_shard(folder):
    missing_shard(folder)
    save_file({"model.norm.weight": np.ones(48, np.float32)}, folder / "b.safetensors")


def longer_tokenizer(data):
    data["added_tokens"].append({**data["added_tokens"][0], "id": V, "content": "<|more|>"})


def set_step(**step):
    return edit_tokenizer(lambda data: data.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": r"\w+"}, "behavior": "Isolated", "invert": False} | step,
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}))


BAD = {                     # of a folder: (kind, what is done to it, words of the complaint)
    "no config": ("llama", remove("config.json"), ["config.json", "no such file"]),
    "config is no JSON": ("llama", cut("config.json", 40), ["config.json", "no JSON"]),
    "config is a list": ("llama", lambda folder: (folder / "config.json").write_text("[]"), ["config.json"]),
    "unknown architecture": ("llama", edit_config(architectures=["GPT2LMHeadModel"]), [
        "GPT2LMHeadModel", "LlamaForCausalLM", "MistralForCausalLM", "StableLmForCausalLM"]),
    "no architecture": ("llama", edit_config(architectures=None), ["LlamaForCausalLM"]),
    "a size is a word": ("llama", edit_config(hidden_size="wide"), ["hidden_size", "wide"]),
    "a size is negative": ("llama", edit_config(num_hidden_layers=-1), ["num_hidden_layers"]),
    "heads do not share": ("llama", edit_config(num_key_value_heads=3), ["heads"]),
    "sliding window": ("mistral", edit_config(sliding_window=32), ["sliding_window", "32"]),
    "parallel residual": ("stablelm-tied", edit_config(use_parallel_residual=True), ["parallel_residual"]),
    "qk norm": ("stablelm-tied", edit_config(qk_layernorm=True), ["qk_layernorm"]),
    "quantized": ("llama", edit_config(quantization_config={"quant_method": "gptq"}), ["quantization"]),
    "another activation": ("llama", edit_config(hidden_act="gelu"), ["hidden_act", "gelu"]),
    "yarn": ("llama", edit_config(rope_parameters={"rope_type": "yarn", "factor": 2.0}), ["yarn", "llama3"]),
    "scaling without factor": ("llama", edit_config(rope_parameters={"rope_type": "linear"}), ["factor"]),
    "partial llama": ("llama", edit_config(rope_parameters={"partial_rotary_factor": 0.5}), ["0.5"]),
    "half a pair turns": ("stablelm-full", edit_config(rope_parameters={"partial_rotary_factor": 0.25}),
                          ["partial_rotary_factor", "0.25"]),
    "theta is a word": ("llama", edit_config(rope_parameters={"rope_theta": "big"}), ["big"]),
    "scaling is a list": ("llama", edit_config(rope_parameters=["linear"]), ["copy"]),
    "no weights": ("llama", remove("model.safetensors"), ["model.safetensors"]),
    "missing shard": ("llama", missing_shard, ["b.safetensors", "no such file"]),
    "weight not in its shard": ("llama", weight_not_in_shard, ["is missing"]),
    "truncated": ("llama", cut("model.safetensors", -100), ["model.safetensors", "download"]),
    "truncated header": ("llama", cut("model.safetensors", 100), ["model.safetensors", "download"]),
    "empty weights": ("llama", cut("model.safetensors", 0), ["model.safetensors"]),
    "a weight is missing": ("llama", edit_weights(lambda w: w.pop("model.norm.weight")), ["model.norm"]),
    "a weight too many": ("llama", edit_weights(lambda w: w.update(extra=np.ones(3, np.float32))), ["extra"]),
    "a bias config denies": ("llama", edit_weights(lambda w: w.update(
        {"model.layers.0.self_attn.q_proj.bias": np.ones(48, np.float32)})), ["q_proj.bias"]),
    "untied without lm_head": ("llama", edit_weights(lambda w: w.pop("lm_head.weight")), ["lm_head.weight"]),
    "another shape": ("llama", edit_config(intermediate_size=81), ["mlp", "(80, 48)", "(81, 48)"]),
    "vocab_size is not the rows": ("llama", edit_config(vocab_size=V + 1), ["embed_tokens", str(V + 1)]),
    "int8 weights": ("llama", edit_weights(lambda w: w.update({"lm_head.weight": np.ones((V, 48), np.int8)})),
                     ["lm_head.weight", "I8"]),
    "NaN": ("llama", poison(np.nan), ["blk.1.ffn_up.weight", "NaN"]),
    "infinite": ("llama", poison(-np.inf), ["blk.1.ffn_up.weight", "infinite"]),
    "no tokenizer": ("llama", remove("tokenizer.model"), ["tokenizer.json", "tokenizer.model"]),
    "tokenizer.model truncated": ("llama", cut("tokenizer.model", -30), ["tokenizer.model"]),
    "tokenizer.model is text": ("llama", lambda f: (f / "tokenizer.model").write_text("Hello " * 99),
                                ["tokenizer.model"]),
    "tokenizer.json truncated": ("gqa-tied", cut("tokenizer.json", 1000), ["tokenizer.json"]),
    "tokenizer of another kind": ("gqa-tied", edit_tokenizer(lambda d: d["model"].update(type="WordPiece")),
                                  ["WordPiece"]),
    "tokenizer larger than the embedding": ("gqa-tied", edit_tokenizer(longer_tokenizer),
                                            [f"{V + 1} tokens", f"{V} rows"]),
    "tokenizer without merges": ("gqa-tied", edit_tokenizer(lambda d: d["model"].pop("merges")), ["merges"]),
    "words cut in another way": ("gqa-tied", set_step(), [r"\w+", *PATTERNS]),
    "words kept in another way": ("gqa-tied", set_step(pattern={"Regex": PATTERNS["llama-bpe"][0]},
                                                       behavior="MergedWithNext"), ["MergedWithNext"]),
    "text is rewritten": ("gqa-tied", edit_tokenizer(lambda d: d.update(normalizer={"type": "Lowercase"})),
                          ["Lowercase"]),
    "a special token is none": ("llama", lambda folder: write_json(
        folder / "tokenizer_config.json", LLAMA | {"eos_token": "<nope>"}), ["<nope>"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_folder(case, copy, tmp_path):
    kind, spoil, words = BAD[case]
    folder = copy(kind)
    spoil(folder)
    check_refused(export(folder, "-o", tmp_path / "out.gguf"), tmp_path, *words)


def test_merges_that_are_no_scores(copy, put_sentencepiece, tmp_path):
    """A tokenizer.json of SentencePiece's kind, whose merges SentencePiece would not do in this order."""
    folder = copy("llama")
    put_sentencepiece(folder, as_json=True)
    path = folder / "tokenizer.json"
    good = json.loads(path.read_text(encoding="utf-8"))
    merges = good["model"]["merges"]
    several = next(i for i, (a, b) in enumerate(merges) if i and a + b == "".join(merges[i - 1]))
    for changed, word in (
            ([*merges[:several], *merges[several + 1:]], "every way"),
            ([*merges[:several], *merges[several + 1:], merges[several]], "different times")):
        write_json(path, good | {"model": good["model"] | {"merges": changed}})
        check_refused(export(folder, "-o", tmp_path / "out.gguf"), tmp_path, word)
    split = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    spaces = good["model"]["vocab"] | {"▁▁": 599}
    write_json(path, good | {"pre_tokenizer": split, "model": good["model"] | {
        "vocab": spaces, "merges": [*merges, ["▁", "▁"]]}})
    check_refused(export(folder, "-o", tmp_path / "out.gguf"), tmp_path, "at every space")


def spoiled_model(path, number, value):
    """tokenizer.model with a field of the trainer's or the normalizer's part added at its end."""
    part, field = number
    how = 2 if len(value) > 1 else 0                    # a length and bytes, or a number
    path.write_bytes(path.read_bytes() + bytes([part << 3 | 2, 1 + len(value), field << 3 | how]) + value)


@pytest.mark.parametrize("part, field, value, word", [(2, 3, b"\1", "BPE"), (3, 2, b"\3abc", "identity")])
def test_sentencepiece_of_another_kind(part, field, value, word, copy, tmp_path):
    """Unigram instead of BPE; a table of characters to be replaced first."""
    folder = copy("llama")
    spoiled_model(folder / "tokenizer.model", (part, field), value)
    check_refused(export(folder, "-o", tmp_path / "out.gguf"), tmp_path, "tokenizer.model", word)


def test_bad_files(models, tmp_path):
    good, tokenizer = models / "gqa-v0-tied.bin", models / "tokenizer.bin"
    out = tmp_path / "out.gguf"
    check_refused(export(tmp_path / "nothing.bin", "-o", out), tmp_path, "nothing.bin", "no such file")
    check_refused(export("nobody/nothing", "-o", out), tmp_path, "nobody/nothing", "--hub")
    offline = export_alone("nobody/nothing", "--hub", "-o", out, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    check_refused(offline, tmp_path, "nobody/nothing", "the hub says")
    (tmp_path / "a.txt").write_text("hello")
    check_refused(export(tmp_path / "a.txt", "-o", out), tmp_path, "a.txt", ".bin")
    shutil.copy(good, tmp_path / "alone.bin")
    check_refused(export(tmp_path / "alone.bin", "-o", out), tmp_path, "alone.bin", "--tokenizer")
    for size, words in ((-1, ["download"]), (20, ["llama2.c"])):
        (tmp_path / "cut.bin").write_bytes(good.read_bytes()[:size])
        outcome = export(tmp_path / "cut.bin", "-o", out, "--tokenizer", tokenizer)
        check_refused(outcome, tmp_path, "cut.bin", *words)
    (tmp_path / "tok.bin").write_bytes(tokenizer.read_bytes()[:-1])
    check_refused(export(good, "-o", out, "--tokenizer", tmp_path / "tok.bin"), tmp_path, "tok.bin")
    make_models.write_tokenizer(tmp_path / "long.bin", [*make_models.pieces(), (0.0, b"more")])
    check_refused(export(good, "-o", out, "--tokenizer", tmp_path / "long.bin"), tmp_path, "tokens", "rows")
    (tmp_path / "cut.gguf").write_bytes((models / "heads.gguf").read_bytes()[:-5000])
    check_refused(export(tmp_path / "cut.gguf", "-o", out), tmp_path, "cut.gguf", "download")
    (tmp_path / "ckpt.pt").write_bytes(b"PK\3\4 no zip")
    check_refused(export(tmp_path / "ckpt.pt", "-o", out), tmp_path, "ckpt.pt")
    writer = gguf.GGUFWriter(tmp_path / "gpt2.gguf", "gpt2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check_refused(export(tmp_path / "gpt2.gguf", "-o", out), tmp_path, "gpt2", "llama, stablelm")


def test_what_f16_cannot_hold(copy, tmp_path):
    folder = copy("llama")
    poison(1e5)(folder)
    outcome = export(folder, "-o", tmp_path / "out.gguf", "--type", "f16")
    check_refused(outcome, tmp_path, "blk.1.ffn_up.weight", "100000", "65504", "bf16")


def test_what_a_folder_cannot_hold(models, tmp_path):
    check_refused(export(models / "partial.gguf", "--to", "hf", tmp_path / "out"), tmp_path, "turn")
    outcome = export(models / "heads.gguf", "--to", "hf", tmp_path / "out", "--type", "q8_0")
    check_refused(outcome, tmp_path, "q8_0")
    kind = make_models.KINDS["heads"]
    more, arrays = tmp_path / "more.gguf", make_models.arrays_of(kind)
    make_models.write_gguf(more, kind, arrays, {"llama.logit_scale": 2.0})
    check_refused(export(more, "--to", "hf", tmp_path / "out"), tmp_path, "logit_scale")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    outcome = export(models / "heads.gguf", "--to", "hf", tmp_path / "there")
    check_refused(outcome, tmp_path, "there", "not written over")


def test_it_does_not_write_over_what_it_reads(folders, tmp_path):
    """Under another of its names, too; nor in the place of a device or a pipe."""
    source, link, pipe = tmp_path / "model.gguf", tmp_path / "link.gguf", tmp_path / "pipe"
    assert export_alone(folders("llama"), "-o", source).status == 0
    before = source.read_bytes()
    link.symlink_to(source)
    for path in source, link:
        refused = export_alone(source, "-o", path, "--type", "q8_0")
        check_refused(refused, tmp_path, str(path), "over what is read")
        assert source.read_bytes() == before
    os.mkfifo(pipe)
    check_refused(export_alone(source, "-o", pipe), tmp_path, str(pipe), "not a regular file")
    assert pipe.is_fifo()


def test_it_writes_where_it_is_told(folders, copy, tmp_path):
    """A folder from elsewhere may hold links of the names that are written to, and is not spoiled."""
    (tmp_path / "victim").write_text("as before")
    (tmp_path / "a.gguf.partial").symlink_to("victim")
    assert export(folders("llama"), "-o", tmp_path / "a.gguf").status == 0
    assert (tmp_path / "victim").read_text() == "as before"
    folder = copy("llama")
    refused = export(folder, "-o", folder / "model.safetensors")
    check_refused(refused, tmp_path, "model.safetensors", "over what is read")
    assert export(folder, "-o", folder / "model.gguf").status == 0
    assert export(folder, "-o", folder / "model.gguf").status == 0


# ---------------------------------------------------------------------------- folders from a stranger


@pytest.fixture(scope="session")
def outcomes():
    done = subprocess.run([sys.executable, hostile.__file__], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {one["name"]: one for one in found}


@pytest.mark.parametrize("name", hostile.CASES)
def test_hostile_folder(name, outcomes):
    """One line within a second and 200 MB, nothing left, nothing outside read."""
    found = outcomes[name]
    assert found["status"] == 0, "it ended by a signal"
    said = found["said"]
    assert isinstance(said, str) and said.startswith("export: ") and said.isprintable(), said
    assert len(said) < 4000
    assert (found["stdout"], found["stderr"], found["left"], found["outside"]) == ("", "", [], [])
    assert hostile.SECRET not in said and "something in it is not as it should be" not in said
    assert found["seconds"] < 1 and found["bytes"] < 200e6


def test_damaged_gguf(tmp_path):
    """Every way that damage.py spoils a file: in one line, or it is legal."""
    for case in damage.cases():
        (tmp_path / "a.gguf").write_bytes(case.data)
        outcome = export(tmp_path / "a.gguf", "-o", tmp_path / "out.gguf")
        if outcome.status:
            check_refused(outcome, tmp_path)
            assert outcome.stderr.removesuffix("\n").isprintable(), (case.name, outcome)
            assert "something in it is not" not in outcome.stderr, (case.name, outcome)
        else:
            (tmp_path / "out.gguf").unlink()


@pytest.mark.parametrize("sentencepiece", [True, False])
def test_what_they_are_spoiled_from_is_good(sentencepiece, tmp_path):
    """As a folder, and as the hub's cache keeps it: with links to where the files are."""
    cache = tmp_path / "models--a--b"
    hostile.good_folder(cache / "blobs", sentencepiece)
    folder = cache / "snapshots" / "0123"
    folder.mkdir(parents=True)
    for path in (cache / "blobs").iterdir():
        (folder / path.name).symlink_to(f"../../blobs/{path.name}")
    for source in (cache / "blobs", folder):
        outcome = export(source, "-o", tmp_path / "out.gguf")
        assert (outcome.status, outcome.stderr) == (0, ""), outcome
        size = (tmp_path / "out.gguf").stat().st_size / 1000
        said = f"{tmp_path}/out.gguf: llama, 2 layers, 259 tokens, 21 tensors, {size:.1f}kB\n"
        assert outcome.stdout == said.encode()
        (tmp_path / "out.gguf").unlink()
    (cache / "blobs").rename(tmp_path / "elsewhere")
    (cache / "blobs").symlink_to(tmp_path / "elsewhere")
    check_refused(export(folder, "-o", tmp_path / "out.gguf"), tmp_path, "config.json", "outside")


def test_verify_runs_no_program_of_the_folder(copy, run, tmp_path):
    """transformers would, if it were allowed to: config.json can name a class in a file beside it."""
    folder = copy("llama", {"auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}})
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["evil.T", "evil.T"]}
    write_json(folder / "tokenizer_config.json", settings)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    export(folder, "-o", tmp_path / "out.gguf", "--verify", "--run", run.path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("line", ["", "-o a --to hf b", "--to onnx b", "-o a --type q2", "-o a --center",
                                  "-o a --fold", "-o a --center --type f32 --verify", "--to hf b --verify",
                                  "-o a --nope"])
def test_misused(line, tmp_path):
    outcome = export(tmp_path, *line.split())
    assert outcome.status == 2 and outcome.stdout == b"" and "error: " in outcome.stderr


# ---------------------------------------------------------------------------- the disk, the memory, the user

def test_a_full_disk(folders, tmp_path):
    """What is there before stays as it was."""
    (tmp_path / "kept.gguf").write_bytes(b"before")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    for args in (["-o", tmp_path / "kept.gguf"], ["--to", "hf", tmp_path / "out"]):
        outcome = export_alone(folders("llama"), *args, preexec_fn=limit)
        check_refused(outcome, tmp_path, "File too large", str(args[-1]))
    assert (tmp_path / "kept.gguf").read_bytes() == b"before"
    assert not list(tmp_path.glob("*.partial"))
    outcome = export(folders("llama"), "-o", tmp_path / "no" / "folder.gguf")
    check_refused(outcome, tmp_path, "No such file", "folder.gguf")


@pytest.fixture
def large(put_sentencepiece, tmp_path):
    """A folder of 800 MB, most of it a hole in a sparse file: zeros."""
    folder = tmp_path / "large"
    c = LlamaConfig(**(SIZES | dict(hidden_size=2048, intermediate_size=8192, num_attention_heads=16,
                                    num_key_value_heads=16, tie_word_embeddings=True)))
    c.architectures = ["LlamaForCausalLM"]
    folder.mkdir()
    c.save_pretrained(folder)
    put_sentencepiece(folder)
    with torch.device("meta"):
        shapes = {name: list(p.shape) for name, p in LlamaForCausalLM(c).named_parameters()}
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    assert at > 500e6
    return folder


def peak_memory(command):
    """Of a process whose parent is small; see conftest.py."""
    watch = ("import os, sys; child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ); "
             "_, status, used = os.wait4(child, 0); print(status, used.ru_maxrss)")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", watch, *map(str, command)], capture_output=True,
                          text=True, check=True, timeout=120)
    status, peak = done.stdout.split()[-2:]             # after what export.py says
    assert status == "0", done.stderr
    return int(peak) * 1024


def test_tensor_by_tensor(large, tmp_path, record_property):
    """The largest tensor has 67 MB, all of them together 540; what it takes is little more than the one."""
    out = tmp_path / "out.gguf"
    peak = peak_memory([sys.executable, ROOT / "export.py", large, "-o", out, "--type", "f16"])
    record_property("peak", peak)
    assert peak < 350e6


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted(end, large, tmp_path):
    """Nothing is left that looks finished."""
    out, partial = tmp_path / "out.gguf", tmp_path / "out.gguf.partial"
    # Who runs in the background of a shell ignores SIGINT, and so would what he starts.
    process = subprocess.Popen([sys.executable, ROOT / "export.py", large, "-o", out, "--type", "q5_1"],
                               stderr=subprocess.PIPE,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    deadline = time.monotonic() + 30
    while not (partial.exists() and partial.stat().st_size > 1 << 20):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)
    process.send_signal(end)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode != 0 and not out.exists()
    if end == signal.SIGINT:
        assert stderr == b"" and not partial.exists()


def test_a_bar_on_a_terminal(folders, tmp_path):
    """With a rate and the time that is left; nowhere else."""
    ours, theirs = os.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    command = [sys.executable, ROOT / "export.py", folders("llama"), "-o", tmp_path / "out.gguf"]
    outcome = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, timeout=60)
    os.close(theirs)
    text = os.read(ours, 1 << 16).decode(errors="replace")
    os.close(ours)
    assert outcome.returncode == 0 and "B/s" in text and "100%" in text and "<" in text
    assert export_alone(folders("llama"), "-o", tmp_path / "out.gguf").stderr == ""
