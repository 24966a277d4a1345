#!/usr/bin/env python3
"""Train the default models on the stories of stories.py: the same network twice, but for the norm.

    pip install -r train/requirements.txt
    python train/train.py                              # three seeds of each norm, a core for each norm
    python train/train.py --norm rmsnorm --seed 0      # one of them

LlamaForCausalLM has RMSNorm; StableLmForCausalLM has LayerNorm, and is LLaMA otherwise. At the same seed both
begin with the same matrices and see the same stories in the same order. The biases that StableLM's norms have
stay zero, so that both networks have the same parameters, and differ in the mean that LayerNorm takes away
and in nothing else. With --norm prmsnorm it is LlamaForCausalLM, the RMS taken of the first sixteenth.

Every step draws new stories. So the loss is held against the floor (stories.py --floor), the entropy of the
stories themselves, in bits per character. A model's bits are those of every token of a story and of its end;
the characters are the story's.

Each run keeps train/out/<norm>-<seed>/ (a Hugging Face folder) and train/results/<norm>-<seed>.json (its
curve). An interrupted run goes on from its last checkpoint, and ends in the same weights as one that was not
interrupted.
"""

import argparse
import functools
import json
import math
import multiprocessing
import os
import sys
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import sentencepiece
import torch
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, StableLmConfig, StableLmForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from stories import Grammar, bits, stories

HERE = Path(__file__).resolve().parent
BOS, EOS = 1, 2
NORMS = ("rmsnorm", "layernorm")


@dataclass(frozen=True)
class Recipe:
    vocab: int = 1024
    dim: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 352
    context: int = 512
    init: float = 0.05
    batch: int = 16             # stories a step
    steps: int = 2400           # of a round: up and down goes the learning rate
    lr: float = 5e-3
    warmup: int = 100
    clip: float = 1.0
    held_out: int = 1000        # stories of the validation
    every: int = 200            # steps between two points of the curve, and between two checkpoints


def make_tokenizer(path, vocab, n=5000):
    """SentencePiece BPE with byte fallback. A new line has no piece of its own: it is the byte 0x0A."""
    lines = [line for text, _ in islice(stories("tokenizer"), n) for line in text.split("\n")]
    with open(path, "wb") as out:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=out, model_type="bpe", vocab_size=vocab,
            byte_fallback=True, character_coverage=1.0, normalization_rule_name="identity",
            remove_extra_whitespaces=False, unk_id=0, bos_id=BOS, eos_id=EOS, pad_id=-1, num_threads=1,
            minloglevel=2)


def partial_rmsnorm(module, x):
    """As prmsnorm in rmsnorm.c: the RMS of the first ceil(n / 16) numbers (Zhang & Sennrich 2019)."""
    first = x[..., :math.ceil(x.shape[-1] / 16)].float()
    scale = torch.rsqrt(first.square().mean(-1, keepdim=True) + module.variance_epsilon)
    return module.weight * (x.float() * scale).to(x.dtype)


def make_model(norm, recipe, seed):
    """The network, its matrices drawn by the seed alone."""
    common = dict(vocab_size=recipe.vocab, hidden_size=recipe.dim, intermediate_size=recipe.hidden,
                  num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads,
                  num_key_value_heads=recipe.heads, max_position_embeddings=recipe.context,
                  initializer_range=recipe.init, tie_word_embeddings=False, bos_token_id=BOS,
                  eos_token_id=EOS, rope_parameters={"rope_type": "default", "rope_theta": 10000.0,
                                                     "partial_rotary_factor": 1.0})
    torch.manual_seed(seed)
    llama = LlamaForCausalLM(LlamaConfig(rms_norm_eps=1e-5, **common))
    if norm == "prmsnorm":
        for module in llama.modules():
            if isinstance(module, LlamaRMSNorm):
                module.forward = functools.partial(partial_rmsnorm, module)
    if norm != "layernorm":
        return llama
    model = StableLmForCausalLM(StableLmConfig(layer_norm_eps=1e-5, use_qkv_bias=False, qk_layernorm=False,
                                               use_parallel_residual=False, **common))
    missing, unexpected = model.load_state_dict(llama.state_dict(), strict=False)
    assert not unexpected and all("norm" in name and name.endswith(".bias") for name in missing)
    for name in missing:
        model.get_parameter(name).data.zero_()
        model.get_parameter(name).requires_grad_(False)
    return model


def make_batch(tokenizer, texts):
    """(stories, tokens): BOS, the story, EOS, and EOS again to the end of the row, which is not learned."""
    rows = [[BOS] + ids + [EOS] for ids in tokenizer.encode(texts)]
    longest = max(map(len, rows))
    inputs = torch.tensor([row[:-1] + [EOS] * (longest - len(row)) for row in rows])
    targets = torch.tensor([row[1:] + [-100] * (longest - len(row)) for row in rows])
    return inputs, targets


def nats(model, inputs, targets):
    """What these stories cost the model, over all their tokens."""
    logits = model(input_ids=inputs, use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum")   # but for -100


@torch.no_grad()
def validate(model, tokenizer, held_out):
    """Bits per character of the held-out stories, in full precision."""
    batches = [held_out[i:i + 50] for i in range(0, len(held_out), 50)]
    total = sum(nats(model, *make_batch(tokenizer, batch)).item() for batch in batches)
    return total / math.log(2) / sum(map(len, held_out))


def learning_rate(step, recipe):
    """Up in a line, and down to nothing in a line; in rounds (Loshchilov & Hutter 2017)."""
    step %= recipe.steps
    return recipe.lr * min((step + 1) / recipe.warmup, (recipe.steps - step) / (recipe.steps - recipe.warmup))


def make_optimizers(model, recipe):
    """Muon (Jordan 2024) for the matrices of the layers, Adam for the rest: embeddings, classifier, norms."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    layers = [p for name, p in trained.items() if name.endswith("proj.weight")]
    rest = [p for name, p in trained.items() if not name.endswith("proj.weight")]
    return [torch.optim.Muon(layers, lr=recipe.lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
            torch.optim.Adam(rest, lr=recipe.lr, betas=(0.9, 0.98))]


def write(path, save):
    """All of the file, or what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def train(norm, seed, recipe=Recipe(), rounds=1, out=HERE / "out", results=HERE / "results", stop=None):
    """One run, from its checkpoint if there is one. With stop, it ends there as if it were interrupted."""
    steps = rounds * recipe.steps
    grammar = Grammar()
    folder, curve = out / f"{norm}-{seed}", results / f"{norm}-{seed}.json"
    checkpoint = folder / "checkpoint.pt"
    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(folder / "tokenizer.model", recipe.vocab)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    told = list(islice(stories("validation", grammar), recipe.held_out))
    held_out = [text for text, _ in told]
    held_out_floor = sum(bits(derivation) for _, derivation in told) / sum(map(len, held_out))

    model = make_model(norm, recipe, seed)
    optimizers = make_optimizers(model, recipe)
    report = {"norm": norm, "seed": seed, "recipe": asdict(recipe),
              "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
              "floor": grammar.floor(), "validation_floor": held_out_floor, "curve": []}
    first, tokens, seconds = 0, 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        assert saved["recipe"] == asdict(recipe), f"{checkpoint} was made by another recipe: remove it"
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(state)
        first, tokens, seconds = saved["step"], saved["tokens"], saved["seconds"]
        report["curve"] = saved["curve"]
        print(f"{norm}-{seed}: on from step {first}", flush=True)

    begin = time.monotonic() - seconds
    cost = characters = 0.0
    for step in range(first, steps):
        if step == stop:
            return None
        texts = [text for text, _ in islice(stories(f"training {seed} {step}", grammar), recipe.batch)]
        inputs, targets = make_batch(tokenizer, texts)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = learning_rate(step, recipe)
        with torch.autocast("cpu", torch.bfloat16):
            loss = nats(model, inputs, targets)
        count = (targets >= 0).sum().item()
        (loss / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

        tokens += count
        cost += loss.item() / math.log(2)
        characters += sum(map(len, texts))
        done = step + 1
        if done % 20 == 0:
            seconds = time.monotonic() - begin
            print(f"{norm}-{seed}: step {done} of {steps}, {cost / characters:.4f} bits per character "
                  f"(floor {report['floor']:.4f}), {seconds:.0f} s, "
                  f"{(steps - done) * seconds / done:.0f} s left", flush=True)
        if done % recipe.every == 0 or done == steps:
            found = validate(model, tokenizer, held_out if done % recipe.steps == 0 else held_out[:100])
            seconds = time.monotonic() - begin
            report["curve"].append({"step": done, "tokens": tokens, "seconds": round(seconds, 1),
                                    "train": cost / characters, "validation": found})
            print(f"{norm}-{seed}: validation {found:.5f} bits per character", flush=True)
            write(curve, lambda path: path.write_text(json.dumps(report, indent=1) + "\n"))
            write(checkpoint, lambda path: torch.save({
                "recipe": asdict(recipe), "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers], "step": done,
                "tokens": tokens, "seconds": seconds, "curve": report["curve"]}, path))
            cost = characters = 0.0

    model.save_pretrained(folder)
    GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, do_sample=True,
                     temperature=0.8).save_pretrained(folder)
    last = report["curve"][-1]
    ratio = last["validation"] / held_out_floor
    print(f"{norm}-{seed}: {last['validation']:.5f} bits per character, {ratio:.4f} times the floor of these "
          f"stories, {last['seconds']:.0f} s", flush=True)
    return model


def train_all(norm, seeds, recipe, rounds):
    torch.set_num_threads(1)
    for seed in seeds:
        train(norm, seed, recipe, rounds)


def main():
    parser = argparse.ArgumentParser(description="Train the default models.")
    parser.add_argument("--norm", choices=(*NORMS, "prmsnorm"), action="append",
                        help="one norm (rmsnorm and layernorm)")
    parser.add_argument("--seed", type=int, action="append", help="one seed (0, 1 and 2)")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help=f"steps of a round ({Recipe.steps})")
    parser.add_argument("--rounds", type=int, default=2, help="2; with 3, a finished run goes on for another")
    args = parser.parse_args()
    # A process for each norm, and one thread in each: sums of one thread are always rounded alike.
    recipe, seeds = Recipe(steps=args.steps), args.seed or (0, 1, 2)
    jobs = [multiprocessing.Process(target=train_all, args=(norm, seeds, recipe, args.rounds))
            for norm in args.norm or NORMS]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    return any(job.exitcode for job in jobs)


if __name__ == "__main__":
    sys.exit(main())
