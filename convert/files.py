"""files.py - bytes from outside, of which none is trusted: which files are opened, and how much is read.

A folder may come from a stranger. Its symbolic links may lead to a private key, its files be devices and
pipes, its numbers beyond all bounds and its texts without an end. What is read is a regular file inside its
folder, no longer than its model can need; the bounds of numbers are those of the engine's model.h.
"""

import json
import math
import os
import re
import stat

from .model import Refused

MAX_DIM, MAX_LAYERS, MAX_VOCAB = 1 << 20, 1 << 12, 1 << 24
MAX_INT = (1 << 31) - 1
KINDS = {str: "a text", int: "a whole number", float: "a number", dict: "an object", list: "a list",
         bool: "true or false"}

# ---------------------------------------------------------------------------- which files are opened


def check_regular(path):
    """A pipe waits forever, and a device may never end."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device, a pipe or a socket"
        raise Refused(f"{path}: {kind}, where a file is expected")


def check_inside(folder, path):
    """Links may lead elsewhere in the folder, and in the cache of the hub to where it keeps the files:
    models--NAME/snapshots/REVISION/config.json -> ../../blobs/HASH"""
    home, target = folder.resolve(), path.resolve()
    cache = home.parent.parent if home.parent.name == "snapshots" else None
    in_cache = cache and cache.name.startswith("models--") and target.parent == cache / "blobs"
    if home not in target.parents and not in_cache:
        raise Refused(f"{path}: a link to a file outside of {folder}: put that file itself there")


def find(folder, name):
    """The file of this name in the folder; None: there is none."""
    path = folder / name
    if not os.path.lexists(path):
        return None
    check_regular(path)
    check_inside(folder, path)
    return path


def find_shard(folder, index, name):
    """A file that an index names, which has to lie beside it."""
    if not name or set(name) & set("/\\\0"):
        raise Refused(f"{index}: weight_map names {name[:100]!r}, which is no name of a file beside it")
    if not (path := find(folder, name)):
        raise Refused(f"{folder / name}: there is no such file, and the model is not whole without it")
    return path


# ---------------------------------------------------------------------------- how much is read of them


def max_bytes(rows=0):
    """Of a file about a vocabulary of so many rows: three times what any tokenizer.json has that we know."""
    return (4 << 20) + 512 * rows


def read_bytes(path, rows=0):
    check_regular(path)
    limit = max_bytes(rows)
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        whose = f"no model of {rows} tokens" if rows else "no model"
        raise Refused(f"{path}: it has more than {limit} bytes, and {whose} needs as many")
    return data


def read_text(path):
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise Refused(f"{path}: no UTF-8 ({error})")


def finite(text):
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large for a number")
    return number


def no_number(text):
    raise ValueError(f"{text} is no number in JSON")


def parse_json(path, data, rows=0):
    """An object of JSON. It is refused before it takes memory, as every value takes some 100 bytes."""
    limit = (1 << 19) + 64 * rows
    if sum(map(data.count, (b"{", b"[", b",", b":"))) > limit:
        raise Refused(f"{path}: it holds more than {limit} values, and no model needs as many")
    try:
        text = data.decode()
        found = json.loads(text, parse_float=finite, parse_constant=no_number)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(found, ensure_ascii=False).encode()      # half a character is none
    except RecursionError:
        raise Refused(f"{path}: no JSON that can be read: it is nested too deep")
    except ValueError as error:
        raise Refused(f"{path}: no JSON ({error})")
    return expect(path, "all of it", found, dict)


def read_json(folder, name, needed=True, rows=0):
    """Where it is not needed and not there: {}."""
    if path := find(folder, name):
        return parse_json(path, read_bytes(path, rows), rows)
    if needed:
        raise Refused(f"{folder / name}: there is no such file")
    return {}


# ---------------------------------------------------------------------------- what a value is


def expect(path, what, value, kind):
    """The value, if it is of this kind. True is no number."""
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds) or isinstance(value, bool) and kind is not bool:
        raise Refused(f"{path}: {what} is {value!r:.100}; {KINDS[kind]} is expected")
    return value


def expect_number(path, what, value, low, high, kind=int):
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not known or not low <= value <= high or value != kind(value):
        raise Refused(f"{path}: {what} is {value!r:.100}; {KINDS[kind]} from {low} to {high} is expected")
    return kind(value)
