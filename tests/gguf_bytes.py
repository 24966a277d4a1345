"""gguf_bytes.py - write GGUF, true or not.

The writer knows the format and does not hold anybody to it: every count, length, type and offset can be
said to be what it is not. A value is the bytes that stand in the file, its type included, so anything can be
there.
"""

import struct
from dataclasses import dataclass, replace
from functools import partial

# ---------------------------------------------------------------------------- values

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q",
         F64: "d"}
HUGE = 2**64 - 1


def string(text):
    """A length and the bytes: how keys and names stand there, and strings in an array."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def item(type, x):
    return string(x) if type == STRING else struct.pack("<" + CODES[type], x)


def value(type, x):
    return struct.pack("<I", type) + item(type, x)


def array(type, items, count=None):
    count = len(items) if count is None else count
    return struct.pack("<IIQ", ARRAY, type, count) + b"".join(item(type, x) for x in items)


def nested(depth, inside=struct.pack("<IQ", U8, 0)):
    """An array of one array, and so on: `depth` of them, the outermost not counted."""
    return struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * depth + inside


u8, u16, u32, u64 = (partial(value, type) for type in (U8, U16, U32, U64))
i8, i16, i32, i64 = (partial(value, type) for type in (I8, I16, I32, I64))
f32, f64, bool_, text = (partial(value, type) for type in (F32, F64, BOOL, STRING))
UNSIGNED, SIGNED = {U8: u8, U16: u16, U32: u32, U64: u64}, {I8: i8, I16: i16, I32: i32, I64: i64}
NAN, INF = float("nan"), float("inf")

# ---------------------------------------------------------------------------- the file


@dataclass
class Tensor:
    name: str
    shape: list                     # the fastest index first
    data: bytes
    type: int = 0                   # ggml's number; 0 is F32
    offset: int = None              # None: behind the one before it, where the alignment allows
    n_dims: int = None              # None: as many as there are


@dataclass
class File:
    pairs: list                     # of (key, value); key None: it is in the value
    tensors: list
    magic: bytes = b"GGUF"
    version: int = 3
    n_tensors: int = None           # None: as many as there are
    n_pairs: int = None
    alignment: int = 32             # that is kept; what the file says about it is a pair
    tail: bytes = b""

    def index(self):
        """Everything before the data, the padding not counted."""
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_pairs = len(self.pairs) if self.n_pairs is None else self.n_pairs
        out = self.magic + struct.pack("<IQQ", self.version, n_tensors, n_pairs)
        out += b"".join((b"" if key is None else string(key)) + value for key, value in self.pairs)
        at = 0
        for t in self.tensors:
            offset = at if t.offset is None else t.offset
            out += string(t.name) + struct.pack("<I", len(t.shape) if t.n_dims is None else t.n_dims)
            out += struct.pack(f"<{len(t.shape)}QIQ", *t.shape, t.type, offset)
            at += -(-len(t.data) // self.alignment) * self.alignment
        return out

    def __bytes__(self):
        def pad(data):
            return data + bytes(-len(data) % self.alignment)

        return pad(self.index()) + b"".join(pad(t.data) for t in self.tensors) + self.tail

    def pair(self, key, value):
        """With another value there; None: without that key."""
        keys = [k for k, _ in self.pairs]
        if value is None:
            return replace(self, pairs=[(k, v) for k, v in self.pairs if k != key])
        if key not in keys:
            return replace(self, pairs=[*self.pairs, (key, value)])
        return replace(self, pairs=[(k, value if k == key else v) for k, v in self.pairs])

    def tensor(self, name, **changes):
        """With one tensor changed; no changes: without it."""
        if not changes:
            return replace(self, tensors=[t for t in self.tensors if t.name != name])
        return replace(self, tensors=[replace(t, **changes) if t.name == name else t for t in self.tensors])

    def rename(self, old, new):
        """With other keys and tensor names, where they contain `old`."""
        return replace(self, pairs=[(k.replace(old, new), v) for k, v in self.pairs],
                       tensors=[replace(t, name=t.name.replace(old, new)) for t in self.tensors])
