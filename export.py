"""export.py - a model from where it was trained to where it runs, and back.

    python3 export.py SOURCE -o OUT.gguf [--type f32|f16|bf16|q8_0|q4_0|q4_1|q5_0|q5_1] [--center] [--fold]
                                         [--verify]
    python3 export.py SOURCE --to hf DIR [--type f32|f16|bf16]

SOURCE is a Hugging Face folder, with --hub the name of one on the hub, a checkpoint of llama2.c (.pt, or .bin
of any version) with its tokenizer beside it, or a GGUF file. Without --type, weights keep the type that they
have.

What changes the result is carried over, or refused by name. A file has its name when it is whole, not before.
No source is trusted (SECURITY.md): what it holds is read within bounds, and nothing of it is run.
convert/ reads and writes the formats; model.py there is where to start.
"""

import argparse
import os
import re
import sys
from pathlib import Path

try:
    from tqdm import tqdm

    from convert.center import center
    from convert.files import check_regular
    from convert.fold import fold
    from convert.gguf_files import TYPES, read_gguf, write_gguf
    from convert.huggingface import read_folder
    from convert.llama2c import read_bin, read_pt
    from convert.model import Refused, notes, printable
    from convert.to_huggingface import write_folder
    from convert.verify import compute_by_engine, compute_by_transformers, verify
except ImportError as error:
    sys.exit(f"export: {error}: pip install -r requirements.txt")

# How far logits may be off, as a part of the largest, when weights become a type that they did not have.
TOLERANCES = {None: 2e-4, "f32": 2e-4, "f16": 1e-2, "bf16": 5e-2, "q8_0": 5e-2, "q5_1": 0.3, "q5_0": 0.3,
              "q4_1": 0.5, "q4_0": 0.5}

# ---------------------------------------------------------------------------- from where


def download(name):
    """A folder with what lies on the hub under this name."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise Refused(f"{name}: to look on the hub, pip install huggingface_hub")
    try:
        return Path(snapshot_download(name, ignore_patterns=["*/*", "consolidated*"],
                                      allow_patterns=["*.json", "*.safetensors", "*.model", "*.jinja"]))
    except Exception as error:                          # of many kinds: the network's, the hub's, the disk's
        raise Refused(f"{name}: the hub says: {(str(error) or type(error).__name__).splitlines()[0]}")


def read_path(path, tokenizer):
    if path.is_dir():
        return read_folder(path)
    check_regular(path)
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF":
        return read_gguf(path)
    if path.suffix in (".pt", ".pth"):
        return read_pt(path, tokenizer)
    if path.suffix == ".bin":
        return read_bin(path, tokenizer)
    raise Refused(f"{path}: neither a folder, nor a .gguf, .bin or .pt")


def read_source(source, tokenizer, from_hub):
    """The network is asked when the user asks for it, not where a name has been mistyped."""
    if not from_hub and not os.path.lexists(source):
        hint = "; for a model on the hub, --hub" if re.fullmatch(r"[\w.-]+/[\w.-]+", source) else ""
        raise Refused(f"{source}: there is no such file or folder{hint}")
    model = read_path(download(source) if from_hub else Path(source), tokenizer)
    if from_hub:
        model.keys["general.name"] = Path(source).name
    return model


# ---------------------------------------------------------------------------- to where


def export_gguf(options, model):
    if options.output.is_dir():
        raise Refused(f"{options.output}: a folder; for one of Hugging Face's, --to hf DIR")
    if options.output.exists() and not options.output.is_file():
        raise Refused(f"{options.output}: not a regular file, and a GGUF file would take its place")
    inside = (path for path in Path(options.source).glob("*") if path.suffix != ".gguf")
    read = [path for path in (Path(options.source), options.tokenizer, *inside) if path and path.exists()]
    if options.output.exists() and any(options.output.samefile(path) for path in read):
        raise Refused(f"{options.output} would be written over what is read")
    partial = options.output.with_name(f"{options.output.name}.partial")
    try:
        partial.unlink(missing_ok=True)                 # of a run that was killed, or a link elsewhere
        partial.open("xb").close()
        write_gguf(partial, model, TYPES.get(options.type))
        os.replace(partial, options.output)
    finally:
        partial.unlink(missing_ok=True)


def size_of(path):
    files = [path] if path.is_file() else path.iterdir()
    return sum(file.stat().st_size for file in files)


def say_what_was_written(path, model):
    tokens = model.get("tokenizer.ggml.tokens")
    tokens = len(tokens) if isinstance(tokens, list) else 0
    print(printable(f"{path}: {model.architecture}, {model.need('*.block_count')} layers, {tokens} tokens, "
                    f"{len(model.tensors)} tensors, {tqdm.format_sizeof(size_of(path))}B"))


def check(options, model):
    """The file that was written beside its source. True: they agree."""
    name = "run-layernorm" if model.architecture == "stablelm" else "run"
    program = options.run or Path(__file__).resolve().parent / name
    if not program.is_file():
        raise Refused(f"{program}: --verify runs it: make{' NORM=layernorm' if 'norm' in name else ''}")
    tolerance = TOLERANCES[options.type] if options.tolerance is None else options.tolerance
    bos = model.get("tokenizer.ggml.bos_token_id")
    ours = compute_by_engine(program, options.output, bos)
    if options.fold:                                    # a norm without its weight gives something else
        ours.statistics = {key: x for key, x in ours.statistics.items() if not key[1].endswith("norm")}
    if model.folder:
        theirs = compute_by_transformers(model.folder, ours.ids)
    else:
        theirs = compute_by_engine(program, options.source, bos, options.tokenizer)
    return verify(ours, theirs, tolerance)


# ---------------------------------------------------------------------------- the program


def parse(arguments):
    parser = argparse.ArgumentParser(prog="export", description=__doc__.split("\n\n")[0].split(" - ")[1],
                                     allow_abbrev=False)
    parser.add_argument("source", help="a folder, a .gguf, .bin or .pt")
    parser.add_argument("--hub", action="store_true", help="the source is a name on the hub: fetch it")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.gguf", help="the GGUF file to write")
    parser.add_argument("--to", nargs=2, metavar=("hf", "DIR"), help="write a Hugging Face folder instead")
    parser.add_argument("--type", choices=TYPES, help="of the matrices (default: as they are)")
    parser.add_argument("--tokenizer", type=Path, metavar="FILE",
                        help="of a .bin or .pt, where it does not stand beside it")
    parser.add_argument("--center", action="store_true",
                        help="make LayerNorm and RMSNorm compute the same (with --type f32)")
    parser.add_argument("--fold", action="store_true",
                        help="move the norms' weights and biases into the matrices that read them (with a "
                             "--type; f32 computes the same)")
    parser.add_argument("--verify", action="store_true",
                        help="run the source and what was written, and compare")
    parser.add_argument("--tolerance", type=float, metavar="X",
                        help="of --verify: how far logits may be off, as a part of the largest")
    parser.add_argument("--run", type=Path, metavar="FILE",
                        help="of --verify: the program (./run, or ./run-layernorm)")
    options = parser.parse_args(arguments)
    if bool(options.output) == bool(options.to):
        parser.error("where to? -o OUT.gguf, or --to hf DIR")
    if options.to and options.to[0] != "hf":
        parser.error(f"--to {options.to[0]}: hf is what is known")
    if options.center and options.type != "f32":
        parser.error("--center is exact with --type f32 only")
    if options.fold and not options.type:
        parser.error("--fold makes new weights: in which --type? f32 computes the same")
    if options.verify and (options.center or options.to):
        parser.error("--verify compares a GGUF file with its source: not with --center, nor with --to")
    if options.verify and options.source.endswith((".pt", ".pth")):
        parser.error("--verify: nothing here runs a .pt")
    return options


def main(arguments=None):
    options = parse(arguments)
    notes.clear()
    try:
        model = read_source(options.source, options.tokenizer, options.hub)
        if options.center:
            center(model)
        if options.fold:
            fold(model)
        if options.to:
            write_folder(Path(options.to[1]), model, TYPES.get(options.type))
        else:
            export_gguf(options, model)
        for text in notes:
            print(f"export: note: {printable(text)}", file=sys.stderr)
        say_what_was_written(options.output or Path(options.to[1]), model)
        if options.verify and not check(options, model):
            sys.exit(1)
    except Refused as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{error.filename or options.output or options.to[1]}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        # Where a number is expected stands a list, or the like: nobody can foresee all that a file may hold.
        refuse(f"{options.source}: something in it is not as it should be ({type(error).__name__}: {error})")


def refuse(sentence):
    sys.exit(f"export: {printable(sentence)}")


if __name__ == "__main__":
    main()
