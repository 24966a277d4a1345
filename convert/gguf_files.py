"""gguf_files.py - read and write GGUF: what lies where by the `gguf` package, the numbers row by row."""

import logging
import os

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type, GGUFValueType, LlamaFileType as FileType
from gguf.gguf_writer import GGUFValue
from tqdm import tqdm

from .model import Model, Refused, note, stored

ARCHITECTURES = ["llama", "stablelm"]
TYPES = {"f32": Type.F32, "f16": Type.F16, "bf16": Type.BF16, "q8_0": Type.Q8_0, "q4_0": Type.Q4_0,
         "q4_1": Type.Q4_1, "q5_0": Type.Q5_0, "q5_1": Type.Q5_1}
FILE_TYPES = {Type.F32: FileType.ALL_F32, Type.F16: FileType.MOSTLY_F16, Type.BF16: FileType.MOSTLY_BF16,
              Type.Q8_0: FileType.MOSTLY_Q8_0, Type.Q4_0: FileType.MOSTLY_Q4_0,
              Type.Q4_1: FileType.MOSTLY_Q4_1, Type.Q5_0: FileType.MOSTLY_Q5_0,
              Type.Q5_1: FileType.MOSTLY_Q5_1}
logging.getLogger("gguf").setLevel(logging.ERROR)

# ---------------------------------------------------------------------------- reading


def text(part):
    """Tokens may be bytes of no character: they stay bytes."""
    data = bytes(part)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def value_of(field):
    kind, item = field.types[0], field.types[-1]
    if item == GGUFValueType.STRING:
        found = [text(field.parts[at]) for at in field.data]
        value = found if kind == GGUFValueType.ARRAY else found[0]
    else:
        value = field.contents()
    return GGUFValue(value, kind, item if kind == GGUFValueType.ARRAY else None)


def read_gguf(path):
    try:
        with np.errstate(over="ignore"):                # of offsets: beyond the file in any case
            reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise Refused(f"{path}: it cannot be read to its end, is the download complete? ({error})")
    if reader.byte_order == "S":
        raise Refused(f"{path}: its numbers have the other byte order")
    skipped = ("GGUF.", "general.alignment")
    model = Model({key: value_of(field) for key, field in reader.fields.items()
                   if not key.startswith(skipped)})
    if model.get("split.count", 0) > 1:
        raise Refused(f"{path}: one part of a split model: join them with llama-gguf-split --merge")
    if model.architecture not in ARCHITECTURES:
        raise Refused(f"{path}: the architecture {model.architecture}; {', '.join(ARCHITECTURES)} are known")
    for t in reader.tensors:
        shape = tuple(int(n) for n in reversed(t.shape))
        model.tensors.append(stored(t.name, path, int(t.data_offset), shape, t.tensor_type))
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


def write_gguf(path, model, wanted):
    types = choose_types(model.tensors, wanted)
    writer = gguf.GGUFWriter(path, model.architecture)
    add_keys(writer, model, types)
    for t in model.tensors:
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[types[t.name]]
        writer.add_tensor_info(t.name, t.shape, np.float32, int(np.prod(t.shape)) // per_block * block_bytes,
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
        self.set_description(tensor.name, refresh=False)
        self.update(4 * (rows.stop - rows.start) * int(np.prod(tensor.shape[1:])))
