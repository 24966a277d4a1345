#!/usr/bin/env python3
"""Train the default models on the stories of stories.py: the same network twice, but for the norm.

    pip install -r train/requirements.txt
    python train/train.py                              # three seeds of each norm, a core for each norm
    python train/train.py --norm rmsnorm --seed 0      # one of them
    python train/train.py --optimizer adamw            # with AdamW in place of Muon

LlamaForCausalLM has RMSNorm; StableLmForCausalLM has LayerNorm with its bias, and is LLaMA otherwise. At the
same seed both begin with the same matrices and see the same texts in the same order. With --norm prmsnorm it
is LlamaForCausalLM, the RMS taken of the first sixteenth.

Every step draws new texts, of three kinds: whole stories, stories from some sentence on (so that the model
goes on from wherever its reader begins), and conversations in which the reader asks for a story.

The loss is measured on whole stories that were never trained on, and held against its floor, in bits per
character. A model's bits are those of every token of a story and of its end; the characters are the story's.
The floor is the entropy of the stories (stories.py --floor), and what it costs to tell a whole story from one
that begins in the middle: log2(1 + MIDDLES / WHOLE) bits each, as no text is both.

Each run keeps train/out/<norm>-<optimizer>-<seed>/ (a Hugging Face folder) and a file of the same name in
train/results/ (its curve). An interrupted run goes on from its last checkpoint, and ends in the same weights
as one that was not interrupted.
"""

import argparse
import functools
import json
import math
import multiprocessing
import os
import random
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

from muon import Muon
from stories import SENTENCE, Grammar, bits, stories

HERE = Path(__file__).resolve().parent
BOS, EOS = 1, 2
NORMS = ("rmsnorm", "layernorm")
LEARNING_RATES = {"muon": 5e-3, "adamw": 4e-3}
WHOLE, MIDDLES, TALKS = 0.6, 0.2, 0.2                   # which part of the texts are of each kind

# How a conversation is written, as Zephyr's models have it: a mark for who speaks, what is said, and EOS.
MARKS = ["<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = """{% for message in messages %}{% if message['role'] == 'user' %}<|user|>
{% elif message['role'] == 'system' %}<|system|>
{% else %}<|assistant|>
{% endif %}{{ message['content'] + eos_token }}
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""


@dataclass(frozen=True)
class Recipe:
    vocab: int = 1024
    dim: int = 128
    layers: int = 4
    heads: int = 4
    hidden: int = 384
    context: int = 1024
    init: float = 0.05
    batch: int = 16             # texts a step
    part: int = 4               # of them go through together: the shorter ones need not wait for the longest
    steps: int = 2400           # of a round: up and down goes the learning rate
    optimizer: str = "muon"     # or "adamw"
    lr: float = LEARNING_RATES["muon"]
    decay: float = 0.1          # of the layers' matrices
    warmup: int = 100
    clip: float = 1.0
    held_out: int = 1000        # stories of the validation
    every: int = 200            # steps between two points of the curve, and between two checkpoints


def make_tokenizer(path, vocab, n=5000):
    """SentencePiece BPE with byte fallback. A new line has no piece of its own: it is the byte 0x0A. No space
    is put in front of a text, so that a word is the same where a text begins, a line and a turn."""
    told = [*islice(stories("tokenizer"), n),
            *islice(stories("tokenizer", Grammar(start="conversation")), n // 5)]
    lines = [line for text, _ in told for line in text.replace("§", "\n").split("\n")]
    with open(path, "wb") as out:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=out, model_type="bpe", vocab_size=vocab,
            byte_fallback=True, character_coverage=1.0, normalization_rule_name="identity",
            remove_extra_whitespaces=False, add_dummy_prefix=False, user_defined_symbols=MARKS, unk_id=0,
            bos_id=BOS, eos_id=EOS, pad_id=-1, num_threads=1, minloglevel=2)


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
    return model


class Texts:
    """What a model learns from: the same texts for the same seed and step, whatever the norm."""

    def __init__(self):
        self.whole, self.talk = Grammar(), Grammar(start="conversation")

    def draw(self, seed, n):
        rng = random.Random(seed)
        kinds = rng.choices((self._story, self._middle, self._talk), (WHOLE, MIDDLES, TALKS), k=n)
        return [kind(rng) for kind in kinds]

    def _story(self, rng):
        return self.whole.tell(rng)[0]

    def _middle(self, rng):
        """A story from some sentence on, but not from its first."""
        text = self._story(rng)
        return text[rng.choice([m.end() for m in SENTENCE.finditer(text)]):]

    def _talk(self, rng):
        return self.talk.tell(rng)[0]


def encode(tokenizer, text):
    """The ids of a text: BOS, the story, EOS. A conversation is as CHAT_TEMPLATE writes it: without BOS."""
    turns = text.split("§")
    if len(turns) == 1:
        return [BOS] + tokenizer.encode(text) + [EOS]
    row = []
    for i, turn in enumerate(turns):
        row += tokenizer.encode("\n" * (i > 0) + MARKS[1 + i % 2] + "\n" + turn) + [EOS]
    return row


def make_batch(tokenizer, texts):
    """(texts, tokens): the ids, and EOS again to the end of the row, which is not learned."""
    rows = [encode(tokenizer, text) for text in texts]
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
    """AdamW (Loshchilov & Hutter 2019), or Muon for the matrices of the layers and Adam for the rest:
    embeddings, classifier, norms. Only matrices of the layers decay."""
    trained = dict(model.named_parameters())
    layers = [p for name, p in trained.items() if name.endswith("proj.weight")]
    rest = [p for name, p in trained.items() if not name.endswith("proj.weight")]
    if recipe.optimizer == "muon":
        return [Muon(layers, lr=recipe.lr, weight_decay=recipe.decay),
                torch.optim.Adam(rest, lr=recipe.lr, betas=(0.9, 0.98))]
    groups = [{"params": layers, "weight_decay": recipe.decay}, {"params": rest, "weight_decay": 0.0}]
    return [torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98))]


def column_means(model, norm, recipe, seed):
    """Do the matrices that write into the stream still hold the means that they were drawn with? Their
    columns' means over the stream's dimension are what LayerNorm takes away again. Their correlation with
    the initial ones, and how many times as large they are, beside all numbers of the matrices."""
    states, found = (make_model(norm, recipe, seed).state_dict(), model.state_dict()), {}
    for kind in ("o_proj", "down_proj"):
        names = [name for name in states[0] if name.endswith(f"{kind}.weight")]
        then, now = (torch.cat([state[name].mean(0) for name in names]) for state in states)
        all_then, all_now = (torch.cat([state[name].flatten() for name in names]) for state in states)
        found[kind] = {"correlation": torch.corrcoef(torch.stack([then, now]))[0, 1].item(),
                       "growth": (now.norm() / then.norm()).item(),
                       "growth_of_all": (all_now.norm() / all_then.norm()).item()}
    return found


def write(path, save):
    """All of the file, or what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def train(norm, seed, recipe=Recipe(), rounds=1, out=HERE / "out", results=HERE / "results", stop=None):
    """One run, from its checkpoint if there is one. With stop, it ends there as if it were interrupted."""
    steps, name = rounds * recipe.steps, f"{norm}-{recipe.optimizer}-{seed}"
    texts_of, grammar = Texts(), Grammar()
    folder, curve = out / name, results / f"{name}.json"
    checkpoint = folder / "checkpoint.pt"
    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(folder / "tokenizer.model", recipe.vocab)
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    told = list(islice(stories("validation", grammar), recipe.held_out))
    held_out = [text for text, _ in told]
    which_kind = math.log2(1 + MIDDLES / WHOLE)
    held_out_floor = sum(bits(derivation) + which_kind for _, derivation in told) / sum(map(len, held_out))

    model = make_model(norm, recipe, seed)
    optimizers = make_optimizers(model, recipe)
    mean_bits, mean_characters = grammar.expect()
    report = {"norm": norm, "optimizer": recipe.optimizer, "seed": seed, "recipe": asdict(recipe),
              "parameters": sum(p.numel() for p in model.parameters()),
              "floor": (mean_bits + which_kind) / mean_characters, "validation_floor": held_out_floor,
              "curve": []}
    first, tokens, seconds = 0, 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        assert saved["recipe"] == asdict(recipe), f"{checkpoint} was made by another recipe: remove it"
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(state)
        first, tokens, seconds = saved["step"], saved["tokens"], saved["seconds"]
        report["curve"] = saved["curve"]
        print(f"{name}: on from step {first}", flush=True)

    begin = time.monotonic() - seconds
    cost = characters = 0.0
    for step in range(first, steps):
        if step == stop:
            return None
        texts = sorted(texts_of.draw(f"training {seed} {step}", recipe.batch), key=len)
        parts = [make_batch(tokenizer, texts[i:i + recipe.part]) for i in range(0, len(texts), recipe.part)]
        count = sum((targets >= 0).sum().item() for _, targets in parts)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, recipe)
        for inputs, targets in parts:
            loss = nats(model, inputs, targets)
            (loss / count).backward()
            cost += loss.item() / math.log(2)
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

        tokens += count
        characters += sum(map(len, texts))
        done = step + 1
        if done % 20 == 0:
            seconds = time.monotonic() - begin
            print(f"{name}: step {done} of {steps}, {cost / characters:.4f} bits per character, "
                  f"{seconds:.0f} s, {(steps - done) * seconds / done:.0f} s left", flush=True)
        if done % recipe.every == 0 or done == steps:
            found = validate(model, tokenizer, held_out if done % recipe.steps == 0 else held_out[:100])
            seconds = time.monotonic() - begin
            report["column_means"] = column_means(model, norm, recipe, seed)
            report["curve"].append({"step": done, "tokens": tokens, "seconds": round(seconds, 1),
                                    "train": cost / characters, "validation": found})
            print(f"{name}: validation {found:.5f} bits per character", flush=True)
            write(curve, lambda path: path.write_text(json.dumps(report, indent=1) + "\n"))
            write(checkpoint, lambda path: torch.save({
                "recipe": asdict(recipe), "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers], "step": done,
                "tokens": tokens, "seconds": seconds, "curve": report["curve"]}, path))
            cost = characters = 0.0

    model.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, do_sample=True,
                     temperature=0.8).save_pretrained(folder)
    last = report["curve"][-1]
    ratio = last["validation"] / held_out_floor
    print(f"{name}: {last['validation']:.5f} bits per character, {ratio:.4f} times the floor of these "
          f"stories, {last['seconds']:.0f} s", flush=True)
    return model


def train_all(norm, seeds, recipe, rounds):
    torch.set_num_threads(1)                            # sums of one thread are always rounded alike
    for seed in seeds:
        train(norm, seed, recipe, rounds)


def main():
    parser = argparse.ArgumentParser(description="Train the default models.")
    parser.add_argument("--norm", choices=(*NORMS, "prmsnorm"), action="append",
                        help="one norm (rmsnorm and layernorm)")
    parser.add_argument("--seed", type=int, action="append", help="one seed (0, 1 and 2)")
    parser.add_argument("--optimizer", choices=LEARNING_RATES, default=Recipe.optimizer)
    parser.add_argument("--steps", type=int, default=Recipe.steps, help=f"steps of a round ({Recipe.steps})")
    parser.add_argument("--rounds", type=int, default=1, help="1; with 2, a finished run goes on for another")
    args = parser.parse_args()
    recipe = Recipe(steps=args.steps, optimizer=args.optimizer, lr=LEARNING_RATES[args.optimizer])
    seeds = args.seed or (0, 1, 2)
    jobs = [multiprocessing.Process(target=train_all, args=(norm, seeds, recipe, args.rounds))
            for norm in args.norm or NORMS]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    return any(job.exitcode for job in jobs)


if __name__ == "__main__":
    sys.exit(main())
