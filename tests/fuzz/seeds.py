"""seeds.py - where the fuzzers begin: small valid files of every kind, and the damaged ones of damage.py.

    python3 tests/fuzz/seeds.py FOLDER      writes FOLDER/checkpoint, FOLDER/tokenizer, FOLDER/chat

    clang -std=c11 -D_GNU_SOURCE -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \\
        tests/fuzz/fuzz_checkpoint.c $(ls *.c kernels/*.c | grep -v '^run.c') -o fuzz_checkpoint -lm -lpthread
    mkdir found
    ./fuzz_checkpoint -dict=tests/fuzz/gguf.dict -max_len=65536 -timeout=5 -rss_limit_mb=2048 \\
        found FOLDER/checkpoint
"""

import struct
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import damage  # noqa: E402
import make_models  # noqa: E402

MAX_BYTES = 65535                        # bytes: what fuzz_tokenizer's first two can say; larger inputs are slow
TEXT = "a bad cab, and the zoë \u2581\U0001f600\n".encode() + b"\xff\xe2\x96"

# ggml's types that run: number -> (columns of the smallest row, its bytes)
TYPES = {0: (32, 128), 1: (32, 64), 30: (32, 64),
         2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 20: (32, 18),
         10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210)}


def model_of(type):
    """damage.py's model with matrices of one type: one block to a row, whose bytes are all 17."""
    cols, size = TYPES[type]
    file, rows = damage.GOOD, {"token_embd": damage.N, "attn_q": 8, "attn_k": 8, "attn_v": 8,
                               "ffn_gate": cols, "ffn_up": cols}
    for key in ("embedding_length", "feed_forward_length"):
        file = file.pair("llama." + key, damage.u32(cols))
    for key, x in {"head_count": 1, "head_count_kv": 1, "key_length": 8}.items():
        file = file.pair("llama.attention." + key, damage.u32(x))
    for t in file.tensors:
        part = t.name.removesuffix(".weight").removeprefix("blk.0.")
        if "norm" in part:
            file = file.tensor(t.name, shape=[cols], data=struct.pack("<f", 1) * cols)
        elif part == "attn_output":                     # eight columns are too few for blocks
            file = file.tensor(t.name, shape=[8, cols], data=bytes(32 * cols))
        else:
            n = rows.get(part, cols)
            file = file.tensor(t.name, shape=[cols, n], type=type, data=b"\x11" * (size * n))
    return bytes(file)


def plain_models():
    """name -> bytes, as make_models.py makes them, where they are small."""
    with TemporaryDirectory() as folder:
        make_models.make(folder)
        paths = [path for path in Path(folder).iterdir() if path.stat().st_size <= MAX_BYTES]
        return {path.name: path.read_bytes() for path in sorted(paths)}


def checkpoints():
    yield from plain_models().items()
    for type in TYPES:
        yield f"type-{type}.gguf", model_of(type)
    for case in damage.cases():
        if len(case.data) <= MAX_BYTES:
            yield f"damage-{case.name}", case.data


def vocabularies():
    """Alone, without tensors."""
    alone = damage.replace(damage.GOOD, tensors=[])
    yield "tokenizer.bin", plain_models()["tokenizer.bin"]
    yield "vocabulary.gguf", plain_models()["vocabulary.gguf"]
    yield "small.gguf", bytes(alone)
    yield "no-space.gguf", bytes(alone.pair("tokenizer.ggml.add_space_prefix", damage.bool_(0)))
    yield "no-bos.gguf", bytes(alone.pair("tokenizer.ggml.bos_token_id", None))
    for case in damage.vocabulary():
        if len(case.data) <= MAX_BYTES:
            yield f"damage-{case.name}", case.data


def write(folder, seeds):
    folder.mkdir(parents=True, exist_ok=True)
    for i, (name, data) in enumerate(seeds):
        plain = "".join(c if c.isalnum() and c.isascii() or c in ".-" else "_" for c in name)[:60]
        (folder / f"{i:04}-{plain}").write_bytes(data)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(Path(sys.argv[1], "checkpoint"), checkpoints())
    texts = ((name, struct.pack("<H", len(data)) + data + TEXT) for name, data in vocabularies())
    write(Path(sys.argv[1], "tokenizer"), texts)
    marks = ["[INST] <<SYS>> [/INST]", "<|im_start|>user<|im_end|>", "<|user|><|assistant|><|end|>eos_token"]
    chats = [(f"{kind}-{family}", bytes([kind, family, 9, 40, 20]) + "|".join(marks).encode() + TEXT)
             for kind in range(32) for family in range(11)]
    write(Path(sys.argv[1], "chat"), [*((mark, mark.encode()) for mark in marks), *chats])
