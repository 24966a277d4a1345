"""engine.py - the two builds of the program, and the checkpoints they run."""

import hashlib
import json
import math
import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NORMS = {"rmsnorm": "RMSNorm", "layernorm": "LayerNorm"}


class Trouble(Exception):
    """One sentence that a user can act on."""


def last_line(text):
    lines = text.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return re.sub(r"^(run[\w-]*|export): ", "", lines[-1])


@dataclass(frozen=True)
class Run:
    """How logits come about: a build of the program, a checkpoint, and what else they depend on."""

    program: Path
    path: Path
    swap_norm: bool = False
    kv: str = "f32"             # a cache of F16 rounds what the norms differ in, and what they do not

    def command(self, *args):
        swap = ["--swap-norm"] if self.swap_norm else []
        return [str(arg) for arg in (self.program, self.path, *swap, *args, "-q")]

    def __call__(self, *args):
        """Standard output of one run."""
        command = self.command(*args)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
        if done.returncode < 0:
            raise Trouble(f"{' '.join(command)} was ended by signal {-done.returncode}")
        if done.returncode:
            raise Trouble(last_line(done.stderr))
        return done.stdout

    def ids(self, *text):
        """text: -i TEXT or -f FILE. Without BOS."""
        return json.loads(self(*text, "-m", "tokenize", "--json"))["tokens"]

    def logits(self, file, *args):
        """(positions, vocabulary) float32, mapped from the file they are written to; and what was written."""
        text = self(*args, "--kv", self.kv, "--logits", file)
        return np.load(file, mmap_mode="r"), text.decode(errors="replace").removesuffix("\n")


class Engine:
    """programs: {norm: the path of the build that runs it}"""

    def __init__(self, programs):
        self.programs = programs
        for norm, program in programs.items():
            if not Path(program).is_file():
                command = "make" if norm == "rmsnorm" else f"make NORM={norm}"
                raise Trouble(f"{program} is not there: build it with '{command}'")

    def run(self, model, norm, kv="f32"):
        """model: a Checkpoint, or the path of one that was trained with this norm."""
        swap = getattr(model, "norm", norm) != norm
        return Run(self.programs[norm], getattr(model, "path", model), swap, kv)

    def __call__(self, model, norm, *args):
        return self.run(model, norm)(*args)

    def report(self, model, norm, *args):
        return json.loads(self(model, norm, *args, "--json"))

    def trace(self, model, norm, *args):
        """The lines of a trace, one after the other: there may be many."""
        command = self.run(model, norm).command(*args, "--trace=json")
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
            raise Trouble(f"{path}: expected a model with rmsnorm or layernorm, and this file has none")
        embedding = next((t["shape"] for t in info["tensors"] if t["name"].startswith("token_embd")), None)
        if not embedding:
            raise Trouble(f"{path}: there are no weights in it")
        self.path, self.name, self.norm = Path(path), Path(path).stem, info["norm"]
        self.other = "layernorm" if self.norm == "rmsnorm" else "rmsnorm"
        self.parameters, config = info["parameters"], info["config"]
        self.dim = config.get("embedding_length") or config["dim"]              # GGUF's name, llama2.c's
        self.layers = config.get("block_count") or config["n_layers"]
        self.norm_bias = any(tensor["name"].endswith("norm.bias") for tensor in info["tensors"])
        self.vocab_size = embedding[0]
        self.types = Counter()                          # numbers of each type
        for t in info["tensors"]:
            self.types[t["type"]] += math.prod(t["shape"])
        with open(path, "rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self.context = min(config.get("context_length") or config["seq_len"], 512)
