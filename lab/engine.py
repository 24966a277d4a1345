"""engine.py - the two builds of the program, and the checkpoints they run."""

import json
import subprocess
from pathlib import Path

NORMS = {"rmsnorm": "RMSNorm", "layernorm": "LayerNorm"}


class Trouble(Exception):
    """One sentence that a user can act on."""


def last_line(text):
    lines = text.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return lines[-1].removeprefix("run: ").removeprefix("export: ")


class Engine:
    """programs: {norm: the path of the build that runs it}"""

    def __init__(self, programs):
        self.programs = programs
        for norm, program in programs.items():
            if not Path(program).is_file():
                command = "make" if norm == "rmsnorm" else f"make NORM={norm}"
                raise Trouble(f"{program} is not there: build it with '{command}'")

    def command(self, model, norm, *args):
        swap = ["--swap-norm"] if getattr(model, "norm", norm) != norm else []
        path = getattr(model, "path", model)
        return [str(arg) for arg in (self.programs[norm], path, *swap, *args, "-q")]

    def __call__(self, model, norm, *args):
        """Standard output of one run."""
        command = self.command(model, norm, *args)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode < 0:
            raise Trouble(f"{' '.join(command)} was ended by signal {-done.returncode}")
        if done.returncode:
            raise Trouble(last_line(done.stderr))
        return done.stdout

    def report(self, model, norm, *args):
        return json.loads(self(model, norm, *args, "--json"))

    def count(self, model, file):
        """The ids of a text, without BOS."""
        return len(self.report(model, model.norm, "-m", "tokenize", "-f", file)["tokens"])

    def trace(self, model, norm, *args):
        """The lines of a trace, one after the other: there may be many."""
        command = self.command(model, norm, *args, "--trace=json")
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE) as process:
            line = b""
            for line in process.stderr:
                if line.startswith(b"{"):
                    yield line
        if process.returncode:
            raise Trouble(last_line(line))


class Checkpoint:
    def __init__(self, engine, path):
        if not Path(path).is_file():
            raise Trouble(f"{path}: there is no such file; MODELS=\"a.gguf b.gguf\" names the checkpoints")
        info = engine.report(path, "rmsnorm", "-m", "info")
        if "refused" in info:
            raise Trouble(f"{path}: {info['refused']}")
        if info.get("norm") not in NORMS:
            raise Trouble(f"{path}: a model with rmsnorm or layernorm is wanted, and this file has none")
        embedding = next((t["shape"] for t in info["tensors"] if t["name"].startswith("token_embd")), None)
        if not embedding:
            raise Trouble(f"{path}: there are no weights in it")
        self.path, self.name, self.norm = Path(path), Path(path).stem, info["norm"]
        self.other = "layernorm" if self.norm == "rmsnorm" else "rmsnorm"
        self.parameters, config = info["parameters"], info["config"]
        self.dim = config.get("embedding_length") or config["dim"]              # GGUF's name, llama2.c's
        self.layers = config.get("block_count") or config["n_layers"]
        self.vocab_size = embedding[0]
        self.context = min(config.get("context_length") or config["seq_len"], 512)
