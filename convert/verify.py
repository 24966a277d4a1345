"""verify.py - does the engine compute from what was written what the source computes?

A fixed text goes through both: the source by `transformers` if it is a Hugging Face folder, otherwise by the
engine as well. The logits are compared, and where they differ, the statistics of every operation: --trace on
our side, hooks on theirs. The rms, the mean and the largest number do not depend on the order of the rows.
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .model import Refused

TEXT = ("Once upon a time, in 1984, there was a little girl named Zoë. She'd never seen the sea!\n\n"
        "\"Look,\" said her mother, \"it's over there: behind the hills (and far away).\" The waves were as "
        "tall as trees.\n")
HOOKS = [                   # (of which module, its input or its output, what the engine calls that)
    ("model.embed_tokens", "output", "embed"), ("input_layernorm", "output", "attn_norm"),
    ("self_attn.q_proj", "output", "q"), ("self_attn.k_proj", "output", "k"),
    ("self_attn.v_proj", "output", "v"), ("self_attn.o_proj", "input", "mix"),
    ("self_attn.o_proj", "output", "attn_out"), ("post_attention_layernorm", "input", "resid_mid"),
    ("post_attention_layernorm", "output", "ffn_norm"),
    ("mlp.gate_proj", "output", "gate"), ("mlp.up_proj", "output", "up"),
    ("mlp.down_proj", "input", "hidden"), ("mlp.down_proj", "output", "ffn_out"), ("", "output", "resid"),
    ("model.norm", "output", "final_norm"), ("lm_head", "output", "logits"),
]

# For transformers: no program that lies in the folder is run, and nothing is fetched that it names.
NOTHING_ELSE = {"trust_remote_code": False, "local_files_only": True}

# ---------------------------------------------------------------------------- what the engine computes


@dataclass
class Result:
    ids: list               # of the text, BOS and all
    logits: np.ndarray      # (ids, vocabulary)
    statistics: dict        # {(layer, operation): (rms, mean, largest)}, in the order they are computed


def compute_by_engine(program, path, bos, tokenizer=None):
    def call(*more):
        arguments = [program, path, *(["-z", tokenizer] if tokenizer else []), *more]
        process = subprocess.run([str(argument) for argument in arguments], capture_output=True)
        if process.returncode:
            raise Refused(f"{path}: {process.stderr.decode(errors='replace').strip()}")
        return process

    ids = [int(id) for id in call("-m", "tokenize", "-i", TEXT).stdout.split()]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "logits.npy"
        # The context is the text's, whatever the file says.
        trace = call("-i", TEXT, "-n", 0, "-c", len(ids) + 1, "--kv", "f32", "--trace", "-q",
                     "--logits", out).stderr
        logits = np.load(out)
    form = r"layer +(-|\d+)  pos +0  (\w+) +\d+ x \d+ +rms (\S+) +mean (\S+) +max (\S+)"
    statistics = {(layer, op): (float(rms), float(mean), float(largest))
                  for layer, op, rms, mean, largest in re.findall(form, trace.decode())}
    return Result([bos] * (len(logits) - len(ids)) + ids, logits, statistics)


# ---------------------------------------------------------------------------- what transformers computes


def ids_by_source(folder, ours):
    """The text's ids by the source's tokenizer. A tokenizer.model alone is run by SentencePiece itself, which
    knows of no BOS; what transformers makes of it differs from class to class."""
    if (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file():
        from sentencepiece import SentencePieceProcessor
        ids = SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).encode(TEXT)
        return ours[:len(ours) - len(ids)] + ids
    from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(folder, **NOTHING_ELSE)(TEXT)["input_ids"]


def compute_by_transformers(folder, ids):
    """What the source computes from these ids, and what its own would be."""
    try:
        import torch
        from transformers import AutoModelForCausalLM
        their_ids = ids_by_source(folder, ids)
    except ImportError as error:
        raise Refused(f"--verify runs the source: {error}: pip install torch transformers sentencepiece")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                 use_safetensors=True, **NOTHING_ELSE).eval()
    found = {}

    def watch(module, side, key):
        def hook(module, inputs, output):
            x = inputs[0] if side == "input" else output[0] if isinstance(output, tuple) else output
            x = x.detach().double()
            found[key] = float(x.square().mean().sqrt()), float(x.mean()), float(x.abs().max())
        module.register_forward_hook(hook)

    for name, side, op in HOOKS:
        if name.startswith(("model.", "lm_head")):
            watch(model.get_submodule(name), side, ("-", op))
            continue
        for l, layer in enumerate(model.model.layers):
            watch(layer.get_submodule(name), side, (str(l), op))
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].numpy()
    return Result(their_ids, logits, found)


# ---------------------------------------------------------------------------- are they the same?


def first_difference(ours, theirs, tolerance):
    """The first operation, in the order they are computed, whose statistics are too far apart."""
    tolerance = max(tolerance, 2e-3)                    # the trace has four digits
    for key, (rms, mean, largest) in ours.items():
        if key not in theirs:
            continue
        size, center, most = theirs[key]
        if abs(rms - size) > tolerance * size or abs(mean - center) > tolerance * size or \
                abs(largest - most) > tolerance * most:
            place = "" if key[0] == "-" else f" of layer {key[0]}"
            return (f"{key[1]}{place}: rms {rms:.4g}, mean {mean:.4g}, largest {largest:.4g}; "
                    f"{size:.4g}, {center:.4g}, {most:.4g} in the source")
    return "no operation alone: from one to the next it adds up"


def verify(ours, theirs, tolerance):
    """Prints what was found. True: the two agree."""
    same_ids = ours.ids == theirs.ids
    if same_ids:
        print(f"verify: the text becomes the same {len(ours.ids)} ids")
    else:
        pairs = list(zip(ours.ids, theirs.ids))
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
        print(f"verify: the text becomes {len(ours.ids)} ids, and {len(theirs.ids)} in the source; from "
              f"number {at} on they differ: {ours.ids[at:at + 5]}, {theirs.ids[at:at + 5]}")
        if len(ours.logits) != len(theirs.logits):
            return False
    difference = np.abs(ours.logits - theirs.logits).max() / np.abs(theirs.logits).max()
    agree = int((ours.logits.argmax(axis=1) == theirs.logits.argmax(axis=1)).sum())
    print(f"verify: the largest difference is {difference:.1e} of the largest logit, {tolerance:.1e} is "
          f"allowed; the best token is the same at {agree} of {len(ours.ids)} positions")
    if not difference <= tolerance:
        first = first_difference(ours.statistics, theirs.statistics, tolerance)
        print(f"verify: the first that differs: {first}")
    return bool(same_ids and difference <= tolerance)
