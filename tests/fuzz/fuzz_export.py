"""fuzz_export.py - any bytes as a file that export.py reads: refused in a sentence, or written and read back.

    python tests/fuzz/fuzz_export.py CORPUS [-max_total_time=60 ...]    by atheris, with libFuzzer's options
    python tests/fuzz/fuzz_export.py --replay CORPUS                    each input once, without atheris
    python tests/fuzz/fuzz_export.py --seeds CORPUS                     good files, and small hostile ones
    python tests/fuzz/fuzz_export.py --minimize CORPUS FROM...          those with a step no smaller one has

The first byte of an input says which file the rest is. A step is from one line of convert/ to another.
"""

import hashlib
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
if len(sys.argv) > 2 and sys.argv[1] in ("--replay", "--seeds", "--minimize"):
    import hostile  # noqa: E402
else:
    import atheris
    with atheris.instrument_imports(include=["convert", "export"]):
        import hostile  # noqa: E402

import damage  # noqa: E402
import make_models  # noqa: E402
from convert.gguf_files import read_gguf, write_gguf  # noqa: E402
from convert.model import Refused, notes, printable  # noqa: E402
from export import read_path  # noqa: E402

FILES = ["bytes/config.json", "bytes/tokenizer.json", "bytes/tokenizer_config.json",
         "bytes/generation_config.json", "bytes/model.safetensors", "pieces/tokenizer.model",
         "pieces/tokenizer_config.json", "pieces/added_tokens.json", "shards/model.safetensors.index.json",
         "a.gguf", "llama2c/a.bin", "llama2c/tokenizer.bin"]
MAX_BYTES = 20_000               # bytes of a seed


def make_sources(root):
    """A good one of each kind."""
    for name in ("bytes", "pieces", "shards"):
        hostile.good_folder(root / name, name == "pieces")
    hostile.sharded('"a.safetensors"')(root / "shards")
    (root / "a.gguf").write_bytes(bytes(damage.GOOD))
    with TemporaryDirectory() as folder:
        make_models.make(Path(folder))
        (root / "llama2c").mkdir()
        shutil.copy(Path(folder) / make_models.name_of("gqa", 1, True), root / "llama2c" / "a.bin")
        shutil.copy(Path(folder) / "tokenizer.bin", root / "llama2c")


class Target:
    def __init__(self, root):
        self.root = root
        make_sources(root)
        self.good = {name: (root / name).read_bytes() for name in FILES if (root / name).exists()}

    def source_of(self, path):
        return self.root / "llama2c" / "a.bin" if "llama2c" in path.parts else \
            path if path.suffix == ".gguf" else path.parent

    def __call__(self, data):
        name = FILES[data[0] % len(FILES)] if data else FILES[0]
        path, out = self.root / name, self.root / "out.gguf"
        path.write_bytes(data[1:])
        try:
            write_gguf(out, read_path(self.source_of(path), None), None)
            read_gguf(out)
        except Refused as error:
            assert str(error) and printable(str(error)).isprintable()
        finally:
            notes.clear()
            path.unlink()
            if name in self.good:
                path.write_bytes(self.good[name])


def write_seeds(target, corpus):
    corpus.mkdir(parents=True, exist_ok=True)
    inputs = {bytes([i]) + target.good.get(name, b"{}") for i, name in enumerate(FILES)}
    for case, spoil in hostile.CASES.items():
        name = "pieces" if case.startswith("pieces") else "bytes"
        with TemporaryDirectory() as folder:
            hostile.good_folder(Path(folder, name), name == "pieces")
            spoil(Path(folder, name))
            for i, file in enumerate(FILES):
                path = Path(folder, file)
                if path.is_file() and not path.is_symlink() and path.stat().st_size < MAX_BYTES:
                    inputs.add(bytes([i]) + path.read_bytes())
    inputs |= {bytes([FILES.index("a.gguf")]) + case.data for case in damage.cases() if len(case.data) < MAX_BYTES}
    for i, data in enumerate(sorted(inputs)):
        (corpus / f"{i:04}").write_bytes(data)


def steps(target, data):
    found, last = set(), {}

    def watch(frame, event, _):
        if "/convert/" not in frame.f_code.co_filename:
            return None
        found.add((frame.f_code, last.get(frame), frame.f_lineno))
        last[frame] = frame.f_lineno
        return watch

    sys.settrace(watch)
    try:
        target(data)
    finally:
        sys.settrace(None)
    return found


def minimize(target, corpus, folders):
    corpus.mkdir(parents=True, exist_ok=True)
    inputs = {path.read_bytes() for folder in folders for path in Path(folder).iterdir()}
    known = set()
    for data in sorted(inputs, key=lambda data: (len(data), data)):
        new = steps(target, data) - known
        if new:
            known |= new
            (corpus / hashlib.sha1(data).hexdigest()[:16]).write_bytes(data)


def main():
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as root:
        target = Target(Path(root))
        if sys.argv[1] == "--seeds":
            write_seeds(target, Path(sys.argv[2]))
        elif sys.argv[1] == "--minimize":
            minimize(target, Path(sys.argv[2]), sys.argv[3:])
        elif sys.argv[1] == "--replay":
            inputs = sorted(Path(sys.argv[2]).iterdir())
            for path in inputs:
                try:
                    target(path.read_bytes())
                except Exception as error:
                    raise SystemExit(f"{path}: {type(error).__name__}: {error}")
            print(f"fuzz_export: {len(inputs)} inputs as promised")
        else:
            atheris.Setup(sys.argv, target)
            atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main()
