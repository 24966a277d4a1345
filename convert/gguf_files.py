"""gguf_files.py - read and write GGUF: formats and writer by the `gguf` package, the numbers row by row."""

import logging
import math
import mmap
import os
import shutil

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type, GGUFValueType, LlamaFileType as FileType
from gguf.gguf_writer import GGUFValue
from tqdm import tqdm

from .files import MAX_DIM, MAX_INT, MAX_VOCAB, expect_number
from .model import Model, Refused, note, printable, stored

ARCHITECTURES = ["llama", "stablelm"]
TYPES = {"f32": Type.F32, "f16": Type.F16, "bf16": Type.BF16, "q8_0": Type.Q8_0, "q4_0": Type.Q4_0,
         "q4_1": Type.Q4_1, "q5_0": Type.Q5_0, "q5_1": Type.Q5_1}
FILE_TYPES = {Type.F32: FileType.ALL_F32, Type.F16: FileType.MOSTLY_F16, Type.BF16: FileType.MOSTLY_BF16,
              Type.Q8_0: FileType.MOSTLY_Q8_0, Type.Q4_0: FileType.MOSTLY_Q4_0,
              Type.Q4_1: FileType.MOSTLY_Q4_1, Type.Q5_0: FileType.MOSTLY_Q5_0,
              Type.Q5_1: FileType.MOSTLY_Q5_1}
logging.getLogger("gguf").setLevel(logging.ERROR)

# ---------------------------------------------------------------------------- reading


NUMBERS = {GGUFValueType.UINT8: "<u1", GGUFValueType.INT8: "<i1", GGUFValueType.UINT16: "<u2",
           GGUFValueType.INT16: "<i2", GGUFValueType.UINT32: "<u4", GGUFValueType.INT32: "<i4",
           GGUFValueType.FLOAT32: "<f4", GGUFValueType.BOOL: "?", GGUFValueType.UINT64: "<u8",
           GGUFValueType.INT64: "<i8", GGUFValueType.FLOAT64: "<f8"}
MAX_PAIRS, MAX_TENSORS = 1 << 16, 1 << 18


class Cursor:
    """Moves through a file. IndexError: what it is asked for does not lie in it. The reader of the `gguf`
    package needs some hundred bytes of memory for each byte of a list."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        if size > len(self.data) - self.at:
            raise IndexError("it ends inside its header")
        self.at += size
        return self.data[self.at - size:self.at]

    def numbers(self, kind, count):
        dtype = np.dtype(NUMBERS[kind])
        return np.frombuffer(self.take(count * dtype.itemsize), dtype).tolist()

    def u32(self):
        return int.from_bytes(self.take(4), "little")

    def u64(self):
        return int.from_bytes(self.take(8), "little")

    def string(self):
        """Tokens may be bytes of no character: they stay bytes."""
        data = self.take(self.u64())
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data

    def values(self, kind, count):
        if kind == GGUFValueType.STRING:
            if count > MAX_VOCAB:
                raise ValueError(f"a list of {count} texts")
            return [self.string() for _ in range(count)]
        return self.numbers(kind, count)

    def value(self):
        kind = GGUFValueType(self.u32())
        if kind != GGUFValueType.ARRAY:
            return GGUFValue(self.values(kind, 1)[0], kind)
        item = GGUFValueType(self.u32())
        return GGUFValue(self.values(item, self.u64()), kind, item)

    def tensor(self):
        """(name, shape, type, where it lies behind the header)"""
        name, dims = self.string(), self.u32()
        if not isinstance(name, str) or not 1 <= dims <= 4:
            raise ValueError(f"a tensor {name!r:.100} of {dims} dimensions")
        shape = tuple(self.u64() for _ in range(dims))[::-1]
        return name, shape, Type(self.u32()), self.u64()


def read_header(path, data):
    """(keys, tensors, where the numbers begin)"""
    cursor = Cursor(data)
    cursor.take(4)
    version, n_tensors, n_pairs = cursor.u32(), cursor.u64(), cursor.u64()
    if version in (2 << 24, 3 << 24):
        raise Refused(f"{path}: its numbers have the other byte order")
    if version not in (2, 3):
        raise Refused(f"{path}: GGUF of version {version}; 2 and 3 can be read")
    if n_pairs > MAX_PAIRS or n_tensors > MAX_TENSORS:
        raise Refused(f"{path}: {n_pairs} keys and {n_tensors} tensors; at most {MAX_PAIRS} and "
                      f"{MAX_TENSORS} can be read")
    keys = {}
    for _ in range(n_pairs):
        key = cursor.string()
        if not isinstance(key, str) or key in keys:
            raise Refused(f"{path}: the key {key!r:.100} stands there twice, or is no text")
        keys[key] = cursor.value()
    tensors = [cursor.tensor() for _ in range(n_tensors)]
    alignment = keys.pop("general.alignment", GGUFValue(32, None)).value
    alignment = expect_number(path, "general.alignment", alignment, 1, MAX_DIM)
    return keys, tensors, -(-cursor.at // alignment) * alignment


def check_tensor(path, name, shape, type, at, size):
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[type]
    numbers = math.prod(shape)
    if min(shape) < 1 or shape[-1] % per_block or (per_block > 1 and len(shape) == 1):
        raise Refused(f"{path}: the tensor {name} of {type.name} has the shape {shape}")
    if at + numbers // per_block * block_bytes > size:
        raise Refused(f"{path}: the tensor {name} ends behind the file, is the download complete?")


def read_gguf(path):
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            keys, tensors, start = read_header(path, data)
            size = len(data)
    except (ValueError, IndexError, KeyError) as error:
        raise Refused(f"{path}: it cannot be read to its end, is the download complete? ({error})")
    model = Model(keys)
    if expect_number(path, "split.count", model.get("split.count", 0), 0, MAX_INT) > 1:
        raise Refused(f"{path}: one part of a split model: join them with llama-gguf-split --merge")
    if model.architecture not in ARCHITECTURES:
        raise Refused(f"{path}: the architecture {model.architecture!s:.100}; {', '.join(ARCHITECTURES)} are "
                      "known")
    for name, shape, type, offset in tensors:
        check_tensor(path, name, shape, type, start + offset, size)
        model.tensors.append(stored(name, path, start + offset, shape, type))
    if len({t.name for t in model.tensors}) < len(model.tensors):
        raise Refused(f"{path}: two tensors of one name")
    layers = len({t.name.split(".")[1] for t in model.tensors if t.name.startswith("blk.")})
    if (said := model.need("*.block_count")) != layers:
        raise Refused(f"{path}: {model.architecture}.block_count is {said!r:.100}, and there are tensors of "
                      f"{layers} layers")
    return model


# ---------------------------------------------------------------------------- the types of what is written


def fits(type, tensor):
    return tensor.shape[-1] % gguf.GGML_QUANT_SIZES[type][0] == 0


def choose_types(tensors, wanted):
    """Vectors stay exact. Rows that are no whole number of blocks become F16. None wanted: each its own."""
    types, odd = {}, []
    for t in tensors:
        types[t.name] = Type.F32 if len(t.shape) < 2 else t.type if wanted is None else wanted
        if not fits(types[t.name], t):
            types[t.name] = Type.F16
            odd.append(t)
    if odd:
        note(f"{len(odd)} tensors become F16: their rows are no multiple of "
             f"{gguf.GGML_QUANT_SIZES[wanted][0]}; {odd[0].name} has rows of {odd[0].shape[-1]}")
    return types


def file_type(types):
    """The most frequent type of the matrices, by its number in this key."""
    matrices = [type for name, type in types.items() if type != Type.F32] or [Type.F32]
    return FILE_TYPES.get(max(set(matrices), key=matrices.count))


def encoded(tensor, rows, type):
    """The bytes of these rows. NaN and infinite numbers have no place in a model."""
    values = tensor.read(rows)
    if not np.isfinite(values).all():
        raise Refused(f"the tensor {tensor.name} holds numbers that are NaN or infinite")
    if type == tensor.type and tensor.raw:
        return tensor.raw(rows)
    if type == Type.F16 and np.abs(values).max(initial=0) > 65504:
        raise Refused(f"the tensor {tensor.name} holds {np.abs(values).max():g}, and F16 ends at 65504: "
                      "--type bf16 or f32 can hold it")
    return gguf.quants.quantize(values, type)


# ---------------------------------------------------------------------------- writing


def add_keys(writer, model, types):
    keys = {key: value for key, value in model.keys.items() if key != "general.architecture"}
    keys.pop("general.file_type", None)
    if (kind := file_type(types)) is not None:
        keys["general.file_type"] = int(kind)
    if any(gguf.GGML_QUANT_SIZES[type][0] > 1 for type in types.values()):
        keys["general.quantization_version"] = gguf.GGML_QUANT_VERSION
    plain = {bool: GGUFValueType.BOOL, int: GGUFValueType.UINT32, float: GGUFValueType.FLOAT32,
             str: GGUFValueType.STRING, list: GGUFValueType.ARRAY}
    for key, value in keys.items():
        if not isinstance(value, GGUFValue):
            value = GGUFValue(value, plain[type(value)])
        if value.type == GGUFValueType.ARRAY and not value.value:
            continue                                    # the package writes none of them
        writer.add_key_value(key, value.value, value.type, value.sub_type)


def bytes_of(tensor, type):
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[type]
    return math.prod(tensor.shape) // per_block * block_bytes


def check_room(folder, n_bytes):
    """A small file may say that it is a large one, most of which is a hole."""
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise Refused(f"{folder}: {n_bytes / 1e9:.1f} GB are to be written, and {free / 1e9:.1f} GB are free")


def write_gguf(path, model, wanted):
    types = choose_types(model.tensors, wanted)
    check_room(path.parent, sum(bytes_of(t, types[t.name]) for t in model.tensors))
    writer = gguf.GGUFWriter(path, model.architecture)
    add_keys(writer, model, types)
    for t in model.tensors:
        writer.add_tensor_info(t.name, t.shape, np.float32, bytes_of(t, types[t.name]),
                               raw_dtype=types[t.name])
    writer.write_header_to_file()
    [file] = writer.fout
    with file:
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        write_tensors(file, model.tensors, types)
        file.flush()
        os.fsync(file.fileno())                         # before it gets its name


def write_tensors(file, tensors, types):
    with Progress(tensors) as bar:
        for t in tensors:
            file.write(bytes(-file.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))
            for rows in t.chunks():
                file.write(encoded(t, rows, types[t.name]).tobytes())
                bar.advance(t, rows)
        file.write(bytes(-file.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))


class Progress(tqdm):
    """A bar on a terminal, with the rate and the time left: bytes of F32 that have gone through."""

    def __init__(self, tensors):
        super().__init__(total=sum(4 * int(np.prod(t.shape)) for t in tensors), unit="B", unit_scale=True,
                         disable=None, dynamic_ncols=True)

    def advance(self, tensor, rows):
        self.set_description(printable(tensor.name), refresh=False)
        self.update(4 * (rows.stop - rows.start) * int(np.prod(tensor.shape[1:])))
