"""hostile.py - folders as a stranger might make them, and what export.py does with each.

    python3 tests/hostile.py        a line of JSON for each: how it ended, what it said, opened, needed, left

A tiny good folder is made with NumPy and safetensors alone, so that a fuzzer can use it too, and one thing in
it is spoiled. Each export is a process of its own, which this one forks: nothing but the export counts.
"""

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import socket
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import export as program  # noqa: E402

SIZES = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 4, "max_position_embeddings": 32, "vocab_size": 259}
SECRET = "BEGIN OPENSSH PRIVATE KEY"

# ---------------------------------------------------------------------------- good folders


def byte_letters():
    """GPT-2's letter for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def tokenizer_json():
    vocab = {letter: byte for byte, letter in byte_letters().items()} | {"ab": 256}
    added = [{"id": 257 + i, "content": text, "special": True} for i, text in enumerate(["<s>", "</s>"])]
    return {"added_tokens": added, "normalizer": None, "post_processor": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
            "model": {"type": "BPE", "vocab": vocab, "merges": ["a b"]}}


def varint(n):
    return bytes([n & 127 | (128 if n > 127 else 0)]) + (varint(n >> 7) if n > 127 else b"")


def part(number, content):
    """A field of a protobuf message: a number, a float, or bytes."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    if isinstance(content, float):
        return varint(number << 3 | 5) + struct.pack("<f", content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def piece(text, score=0.0, kind=1):
    return part(1, part(1, text.encode() if isinstance(text, str) else text) + part(2, score) + part(3, kind))


PIECES = b"".join([piece("<unk>", kind=2), piece("<s>", kind=3), piece("</s>", kind=3)] +
                  [piece(f"<0x{byte:02X}>", kind=6) for byte in range(256)])
TRAINER = part(2, part(3, 2) + part(40, 0) + part(41, 1) + part(42, 2))
NORMALIZER = part(3, part(1, b"identity") + part(3, 1) + part(4, 0))


def write_json(path, data):
    path.write_text(json.dumps(data), encoding="utf-8")


def weights():
    c, random = SIZES, np.random.default_rng(0)
    dim, hidden, q, kv = c["hidden_size"], c["intermediate_size"], 8, 4
    shapes = {"self_attn.q_proj": (q, dim), "self_attn.k_proj": (kv, dim), "self_attn.v_proj": (kv, dim),
              "self_attn.o_proj": (dim, q), "mlp.gate_proj": (hidden, dim), "mlp.up_proj": (hidden, dim),
              "mlp.down_proj": (dim, hidden), "input_layernorm": (dim,), "post_attention_layernorm": (dim,)}
    names = {f"model.layers.{l}.{name}": shape for l in range(2) for name, shape in shapes.items()}
    names |= {"model.embed_tokens": (259, dim), "lm_head": (259, dim), "model.norm": (dim,)}
    return {f"{name}.weight": random.normal(size=shape).astype(np.float32) for name, shape in names.items()}


def good_folder(folder, sentencepiece=False):
    folder.mkdir(parents=True)
    write_json(folder / "config.json", {"architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5, **SIZES})
    save_file(weights(), folder / "model.safetensors")
    write_json(folder / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"})
    write_json(folder / "generation_config.json", {"eos_token_id": 2 if sentencepiece else 258})
    if sentencepiece:
        (folder / "tokenizer.model").write_bytes(PIECES + TRAINER + NORMALIZER)
    else:
        write_json(folder / "tokenizer.json", tokenizer_json())


# ---------------------------------------------------------------------------- what is spoiled

CASES = {}                  # name -> what is done to a good folder; "pieces ...": to one of SentencePiece's


def add(name, spoil):
    assert name not in CASES, name
    CASES[name] = spoil


def with_text(name, text):
    """A file of this text or these bytes, or of (begin, what is repeated, how often, end): who writes it has
    it in memory, and nobody else."""
    def spoil(folder):
        whole = text[0] + text[1] * text[2] + text[3] if isinstance(text, tuple) else text
        (folder / name).write_bytes(whole if isinstance(whole, bytes) else whole.encode())
    return spoil


def changed(name, *path, text):
    """One value of a JSON file, written as it stands: JSON as Python writes it has no 1e999."""
    def spoil(folder):
        data = here = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        for key in path[:-1]:
            here = here[key] if isinstance(here, list) else here.setdefault(key, {})
        here[path[-1]] = "@value@"
        (folder / name).write_text(json.dumps(data).replace('"@value@"', text))
    return spoil


def both(first, second):
    return lambda folder: (first(folder), second(folder))


# ---------------------------------------------------------------------------- numbers and texts

NO_NUMBERS = ["0", "-1", "-1e999", "1e999", "NaN", "Infinity", "true", '"8"', "[8]", "{}", "1" + 5000 * "0"]
LINEAR = '{"type": "linear", "factor": %s}'
LLAMA3 = '{"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": %s}'
for key in SIZES:
    for text in [*NO_NUMBERS, "0.5", "100000000000"]:
        add(f"config {key} {text[:20]}", changed("config.json", key, text=text))
for key in ("rms_norm_eps", "rope_theta", "partial_rotary_factor"):
    for text in [*NO_NUMBERS, "1e300"]:
        add(f"config {key} {text[:20]}", changed("config.json", key, text=text))
for text in ("1", "3", "4096", "65536"):
    add(f"config num_hidden_layers {text}", changed("config.json", "num_hidden_layers", text=text))
for text in NO_NUMBERS:
    add(f"rope linear {text[:20]}", changed("config.json", "rope_scaling", text=LINEAR % text))
    add(f"rope llama3 {text[:20]}", changed("config.json", "rope_scaling", text=LLAMA3 % text))
add("rope a list", changed("config.json", "rope_scaling", text="[1]"))
for text in ("[]", '[["a"]]', '["\\u001b[2J\\u009b1m"]', '"LlamaForCausalLM"', "[null]", "{}", "[{}]", "7"):
    add(f"config architectures {text}", changed("config.json", "architectures", text=text))

FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
         "special_tokens_map.json", "model.safetensors")
TEXTS = {
    "lists": ("", "[", 100_000, ""), "objects": ("", '{"a":', 100_000, ""),
    "blanks": ("", " ", 10_000_000, ""),
    "values": ('{"a": [', "0,", 3_000_000, "0]}"), "small objects": ('{"a": [', '{"b":1},', 500_000, "1]}"),
    "letters": ('{"a": "', "a", 10_000_000, '"}'), "digits": ('{"a": ', "9", 1_000_000, "}"),
    "nothing": "", "list": "[]", "text": '"a"', "cut": '{"a": {"b"', "bytes": bytes(range(256)),
    "zeros": bytes(99), "UTF-16": '{"a": 1}'.encode("utf-16"), "half a letter": '{"a": "\\ud800"}',
    "escapes": "\x1b[2J\x1b]0;x\a",
}
for name in FILES:
    for what, text in TEXTS.items():
        add(f"{name} of {what}", with_text(name, text))

# ---------------------------------------------------------------------------- what is no file, or elsewhere


def outside(folder):
    """Beside the folder, what would do."""
    other = folder.parent / "outside"
    if not other.exists():
        good_folder(other)
        (other / "chat_template.jinja").write_text(SECRET)
        shutil.copy(other / "model.safetensors", other / "secret.safetensors")
    return other


def bind(path):
    at = os.getcwd()
    os.chdir(path.parent)                               # for a name that is short enough
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(at)


def link_to_pipe(path):
    os.mkfifo(path.parent / "pipe")
    path.symlink_to("pipe")


def link_up(path):
    outside(path.parent)
    path.symlink_to(f"../outside/{path.name}")


SPECIAL = {
    "link outside": lambda path: path.symlink_to(outside(path.parent) / path.name), "link up": link_up,
    "link to /dev/zero": lambda path: path.symlink_to("/dev/zero"), "link to a pipe": link_to_pipe,
    "link to /dev/stdin": lambda path: path.symlink_to("/dev/stdin"), "socket": bind,
    "link to nothing": lambda path: path.symlink_to("nothing"), "pipe": os.mkfifo, "folder": os.mkdir,
    "link to itself": lambda path: path.symlink_to(path.name),
}


def replaced(name, make):
    def spoil(folder):
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
    return spoil


for name in [*FILES, "chat_template.jinja", "chat_template.json", "tokenizer.model"]:
    for what, make in SPECIAL.items():
        add(f"{name} is a {what}", replaced(name, make))


def sharded(text, spoil=lambda folder: None):
    """model.safetensors.index.json whose first weight lies in a file of this name."""
    def make(folder):
        outside(folder)
        os.rename(folder / "model.safetensors", folder / "a.safetensors")
        first, *others = weights()
        names = [f'"{first}": {text}', *(f'"{name}": "a.safetensors"' for name in others)]
        (folder / "model.safetensors.index.json").write_text('{"weight_map": {%s}}' % ", ".join(names))
        spoil(folder)
    return make


SHARDS = ['"../outside/secret.safetensors"', '"/etc/passwd"', '""', '"."', '".."', '"sub/a.safetensors"', "5",
          "null", "[]", "{}", "true", '"a\\u0000b"', '"a\\\\b"', '"%s"' % ("a" * 300), '"./a.safetensors"',
          '"\\u001b[2J"', '"none.safetensors"', '"../outside/../outside/model.safetensors"', '"/dev/zero"',
          '"~/a.safetensors"']
for text in SHARDS:
    add(f"shard {text[:40]}", sharded(text))
for what, make in SPECIAL.items():
    add(f"shard is a {what}", sharded('"b"', lambda folder, make=make: make(folder / "b")))
add("shard twice", sharded('"b"', lambda folder: os.link(folder / "a.safetensors", folder / "b")))
for text in ("[]", "null", "5", '""', "{}"):
    index = with_text("model.safetensors.index.json", '{"weight_map": %s}' % text)
    add(f"weight_map {text}", both(sharded("1"), index))

# ---------------------------------------------------------------------------- weights


def header(text, size=None, data=bytes(64)):
    size = len(text) if size is None else size
    return with_text("model.safetensors", struct.pack("<Q", size) + text.encode() + data)


def one(name="lm_head.weight", **change):
    return json.dumps({name: {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]} | change})


EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
HEADERS = {
    "of 2^63 bytes": header("{}", 1 << 63), "of 0 bytes": header("", 0),
    "beyond the file": header("{}", 1000),
    "of 19 MB": with_text("model.safetensors", (struct.pack("<Q", 19_000_000), b" ", 19_000_000, b"")),
    "of lists": header("[" * 100_000), "of objects": header('{"a":' * 100_000),
    "of numbers": header('{"a": 1}'), "of escapes": header(one("\x1b[2J\x9b1m")),
    "of 100,000 tensors": header(json.dumps({f"t{i}": EMPTY for i in range(100_000)}), data=b""),
    "of no offsets": header('{"a": {"dtype": "F32", "shape": []}}'),
    "of a negative shape": header(one(shape=[-4, -4])), "of no type": header(one(dtype="\x1b[2J")),
    "of a huge shape": header(one(shape=[1 << 62, 1 << 62])),
    "of another type": header(one(dtype="F8_E4M3")),
    "of offsets backwards": header(one(data_offsets=[64, 0])), "of words": header(one(shape=["4", "4"])),
    "of offsets outside": header(one(data_offsets=[0, 1 << 60])),
    "of a negative offset": header(one(data_offsets=[-64, 0])),
    "of a layer of many digits": header(one(f"model.layers.{'9' * 10_000}.mlp.up_proj.weight")),
    "of a hole": both(header(one(data_offsets=[0, 1 << 40], shape=[1 << 19, 1 << 19])),
                      lambda folder: os.truncate(folder / "model.safetensors", 1 << 40)),
}
for what, spoil in HEADERS.items():
    add(f"header {what}", spoil)
for name in ("pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.safetensors", "model.gguf",
             "tf_model.h5", "consolidated.00.pth", "flax_model.msgpack", "nothing.txt"):
    add(f"weights only in {name}", lambda folder, name=name: os.rename(folder / "model.safetensors",
                                                                       folder / name))
add("an adapter", lambda folder: os.rename(folder / "config.json", folder / "adapter_config.json"))

# ---------------------------------------------------------------------------- tokens

NO_IDS = ["1000000000", "-1", "1.5", '"x"', "true", "null", "[]", "1e999", "1" + 5000 * "0"]
TOKEN = "tokenizer.json"
for text in NO_IDS:
    add(f"added id {text[:20]}", changed(TOKEN, "added_tokens", 0, "id", text=text))
    add(f"vocab id {text[:20]}", changed(TOKEN, "model", "vocab", "ab", text=text))
for text in ("5", "null", "[]", '""', '"%s"' % ("a" * 100_000), "{}"):
    add(f"added content {text[:20]}", changed(TOKEN, "added_tokens", 0, "content", text=text))
add("vocab of a long token", changed(TOKEN, "model", "vocab", "a" * 100_000, text="256"))
add("vocab of one id twice", changed(TOKEN, "model", "vocab", "abc", text="5"))
for key in ("model", "added_tokens", "pre_tokenizer", "normalizer", "post_processor"):
    for text in ("5", '"x"', "[[]]", '{"type": 5}', '{"type": "\\u001b[2J"}'):
        add(f"tokenizer {key} {text}", changed(TOKEN, key, text=text))
for key in ("vocab", "merges"):
    for text in ("5", '"x"', "[5]", "[[]]", '[["a", "b", "c"]]', "null", '{"a": {}}'):
        add(f"tokenizer model {key} {text}", changed(TOKEN, "model", key, text=text))
for text in ("{}", '{"content": "a"}', '{"id": 5}', "null"):
    add(f"added token {text}", changed(TOKEN, "added_tokens", 0, text=text))
nested = '{"type": "Sequence", "pretokenizers": [' * 400 + "]}" * 400
add("steps nested", changed(TOKEN, "pre_tokenizer", text=nested))
long = json.dumps({"a" * n: i for i, n in enumerate(range(1, 40_000, 231))})
add("long tokens of pieces in JSON", both(changed(TOKEN, "model", "byte_fallback", text="true"),
                                          changed(TOKEN, "model", "vocab", text=long)))
for key, name in (("bos_token_id", "config.json"), ("eos_token_id", "generation_config.json")):
    for text in ("-2", "1000000000", "1.5", "1e999"):
        add(f"{key} {text}", both(changed("tokenizer_config.json", key[:-3], text="null"),
                                  changed(name, key, text=text)))
for text in ("[-1]", "[[1]]", "[1e999]", '["a"]', "[259]", "{}"):
    add(f"eos_token_id {text}", changed("generation_config.json", "eos_token_id", text=text))
for text in ('"<nope>"', '"\\u001b[2J"', "5", "[]", '{"content": 5}'):
    add(f"bos_token {text}", changed("tokenizer_config.json", "bos_token", text=text))
for text in ("5", '{"default": 5}', "[5]", '[{"name": "default", "template": [1]}]'):
    add(f"chat_template {text}", changed("tokenizer_config.json", "chat_template", text=text))
add("chat_template no text", with_text("chat_template.jinja", b"\xff\xfe"))
add("chat_template endless", with_text("chat_template.jinja", ("", "a", 10_000_000, "")))

FEWER = PIECES[:-len(piece("<0xFF>", kind=6))]
MODELS = {
    "whose varint never ends": (b"", b"\xff", 1_000_000, b""),
    "of empty pieces": (b"", part(1, b""), 1_000_000, b""),
    "of a length beyond the file": varint(1 << 3 | 2) + varint(1 << 60) + b"a", "of a group": b"\x0b" * 9,
    "of a score that is NaN": FEWER + piece("a", float("nan")) + TRAINER,
    "of a type 99": FEWER + piece("a", kind=99) + TRAINER, "of too many": piece("ab") * 100_000 + TRAINER,
    "of a long piece": FEWER + piece("a" * 100_000) + TRAINER,
    "of no UTF-8": FEWER + piece(b"\xff") + TRAINER,
    "of a text that is a number": FEWER + part(1, part(1, 5)) + TRAINER, "of letters": b"Hello " * 99,
    "of nothing": b"", "cut": (PIECES + TRAINER)[:-3], "whose part is a number": PIECES + part(2, 5),
    "whose score is a number": FEWER + part(1, part(1, b"a") + part(2, 5)) + TRAINER,
    "endless": (PIECES + b"\x4a" + varint(10_000_000), b"a", 10_000_000, b""),
}
for what, data in MODELS.items():
    add(f"pieces {what}", with_text("tokenizer.model", data))
for text in NO_IDS:
    add(f"pieces and added_tokens.json {text[:20]}", with_text("added_tokens.json", '{"a": %s}' % text))
for text in ("1000000000", "-1", "x", "9" * 5000):
    add(f"pieces and added_tokens_decoder {text[:20]}", changed(
        "tokenizer_config.json", "added_tokens_decoder", text='{"%s": {"content": "a"}}' % text))
for text in ('{"259": 5}', "[1]", '{"259": {"content": 5}}'):
    add(f"pieces and added_tokens_decoder {text}", changed(
        "tokenizer_config.json", "added_tokens_decoder", text=text))

# ---------------------------------------------------------------------------- what export.py does with it


def run(folder, result):
    """Writes to the file `result` how it ended. Never returns."""
    opened, stdout, stderr, status = [], io.StringIO(), io.StringIO(), 0
    sys.addaudithook(lambda event, args: event == "open" and opened.append(os.path.realpath(args[0])))
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            program.main([str(folder), "-o", str(folder.parent / "out.gguf")])
        except SystemExit as end:
            status = end.code
        except BaseException as error:
            status = f"a traceback: {type(error).__name__}: {error}"
    ours = (f"{folder}/", f"{folder.parent}/out.", sys.prefix, sys.base_prefix, str(ROOT))
    outside = [path for path in opened if not path.startswith(ours)]
    result.write(json.dumps({"said": status, "stdout": stdout.getvalue(), "stderr": stderr.getvalue(),
                             "outside": outside}))
    result.flush()
    os._exit(0)


def try_out(name, root):
    folder = root / "folder"
    good_folder(folder, sentencepiece=name.startswith("pieces"))
    CASES[name](folder)
    before = set(root.rglob("*"))
    with tempfile.TemporaryFile("w+") as result:
        child = os.fork()
        if child == 0:
            signal.alarm(20)                            # of the clock: it may wait for a pipe
            resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
            run(folder, result)
        _, status, used = os.wait4(child, 0)
        result.seek(0)
        found = json.loads(result.read() or "{}")
    return {"name": name, "status": status, "seconds": used.ru_utime + used.ru_stime,
            "bytes": used.ru_maxrss * 1024, "left": sorted(map(str, set(root.rglob("*")) - before)), **found}


def main():
    for name in CASES:
        with tempfile.TemporaryDirectory() as root:
            print(json.dumps(try_out(name, Path(root).resolve())), flush=True)


if __name__ == "__main__":
    main()
