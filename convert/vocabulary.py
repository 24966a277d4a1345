"""vocabulary.py - tokens, from every kind of tokenizer: SentencePiece's tokenizer.model, Hugging Face's
tokenizer.json, llama2.c's tokenizer.bin, and the keys of a GGUF file.

Two kinds run: "llama", SentencePiece's BPE, where every token has a score, and "gpt2", byte-level BPE, with a
list of merges and a name for the way the text is cut into words first.
"""

import json
import math
import re
import struct
from dataclasses import dataclass, field

from gguf import TokenType

from .files import MAX_VOCAB, expect, expect_number, read_bytes
from .model import Refused, note
from .patterns import GPT2, PATTERNS

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = (int(TokenType(kind)) for kind in range(1, 7))
SPACE = "\u2581"            # how SentencePiece writes one
REMOVE_SPACES = [{"type": "Replace", "pattern": {"Regex": "^ +| +$"}, "content": ""},
                 {"type": "Replace", "pattern": {"Regex": " +"}, "content": " "}]
BYTE_FORM = re.compile("<0x[0-9A-Fa-f]{2}>")
MAX_LENGTH = 65535          # of a token, in bytes
MAX_HOLES = 65535           # ids without a token, of which a tokenizer leaves some and an embedding has more
MAX_WORK = 1 << 30          # letters to look at


@dataclass
class Vocabulary:
    kind: str               # "llama" or "gpt2"
    tokens: list
    types: list
    scores: list = None     # of "llama": the higher, the sooner it is merged
    merges: list = None     # of "gpt2": "left right", the earlier the sooner
    pre: str = "default"    # of "gpt2": who cuts the words; see patterns.py
    ids: dict = field(default_factory=dict)             # of those that there are: "bos", "eos", "unk" ...
    add_bos: bool = True
    add_eos: bool = False
    add_space: bool = True  # of "llama": in front of a text
    remove_spaces: bool = False     # of "llama": of spaces in a row one stays, and none at the ends of a text
    around: tuple = None    # the tokens that are put before and after a text, where the source says so
    chat_template: str = None

    def id_of(self, token):
        """None: there is no such token."""
        if not hasattr(self, "index"):
            self.index = {}
            for id, text in enumerate(self.tokens):
                self.index.setdefault(text, id)
        return self.index.get(token)

    def keys(self, rows):
        """As GGUF has them. Where the embedding has more rows, there are tokens that nobody uses."""
        if not rows - MAX_HOLES <= len(self.tokens) <= rows:
            raise Refused(f"the tokenizer has {len(self.tokens)} tokens, and the embedding {rows} rows: "
                          "they do not belong together")
        self.check()
        more = range(len(self.tokens), rows)
        keys = {"tokenizer.ggml.model": self.kind, "tokenizer.ggml.pre": self.pre,
                "tokenizer.ggml.tokens": self.tokens + [f"[PAD{id}]" for id in more]}
        if self.scores is not None:
            keys["tokenizer.ggml.scores"] = self.scores + [-1e6 for _ in more]
        keys["tokenizer.ggml.token_type"] = self.types + [UNUSED for _ in more]
        if self.merges is not None:
            keys["tokenizer.ggml.merges"] = self.merges
        names = {"bos": "bos", "eos": "eos", "eot": "eot", "eom": "eom", "unk": "unknown", "pad": "padding"}
        keys |= {f"tokenizer.ggml.{names[name]}_token_id": id for name, id in self.ids.items()}
        keys["tokenizer.ggml.add_bos_token"] = self.add_bos and "bos" in self.ids
        keys["tokenizer.ggml.add_eos_token"] = self.add_eos
        if self.kind == "llama":
            keys["tokenizer.ggml.add_space_prefix"] = self.add_space
            keys |= {"tokenizer.ggml.remove_extra_whitespaces": True} if self.remove_spaces else {}
        if self.chat_template:
            keys["tokenizer.chat_template"] = self.chat_template
        return keys

    def check(self):
        """What the engine would refuse."""
        for id, text in enumerate(self.tokens):
            if len(text.encode()) > MAX_LENGTH:
                raise Refused(f"token {id} has {len(text.encode())} bytes; at most {MAX_LENGTH} are possible")
        if unknown := set(self.types) - set(range(NORMAL, BYTE + 1)):
            raise Refused(f"the tokenizer has a token of the type {unknown.pop()}; {NORMAL} to {BYTE} are "
                          "known")
        if not all(map(math.isfinite, self.scores or [])):
            raise Refused("the tokenizer has a score that is NaN or infinite")
        if bad := [f"{name} {id}" for name, id in self.ids.items() if not 0 <= id < len(self.tokens)]:
            raise Refused(f"the tokenizer has {len(self.tokens)} tokens, and none of the id of {bad[0]}")

    def add_tokens(self, added):
        """(id, text, special) of tokens that stand beside the model's own."""
        added, most = list(added), len(self.tokens) + MAX_HOLES
        for id, text, special in added:
            expect("the tokenizer", "an added token", text, str)
            expect_number("the tokenizer", f"the id of {text!r:.100}", id, 0, most)
        for id, text, special in sorted(added):
            for hole in range(len(self.tokens), id + 1):
                self.tokens.append(f"[PAD{hole}]")
                self.types.append(UNUSED)
                if self.scores is not None:
                    self.scores.append(-1e6)
            self.tokens[id] = text
            if self.types[id] != UNKNOWN:
                self.types[id] = CONTROL if special else USER
        self.__dict__.pop("index", None)


# ---------------------------------------------------------------------------- tokenizer.model
#
# A protobuf message: fields one after the other, each with a tag, its number << 3 | how it is written.
# https://protobuf.dev/programming-guides/encoding, https://github.com/google/sentencepiece


def fields(data):
    """(number, value) of each field of a message."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            if shift > 63:
                raise IndexError
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
            continue
        size = {1: 8, 2: None, 5: 4}[tag & 7]
        size = varint() if size is None else size
        if size > len(data) - at:
            raise IndexError
        yield tag >> 3, data[at:at + size]
        at += size


def read_sentencepiece(path, rows=MAX_VOCAB):
    """rows: how many tokens there may be."""
    pieces, trainer, normalizer = [], {}, {}
    try:
        for number, value in fields(read_bytes(path, rows)):
            if number == 1:
                pieces.append(dict(fields(value)))
                if 1 not in pieces[-1]:
                    raise IndexError
                if len(pieces) > rows:
                    raise Refused(f"{path}: more than {rows} tokens, and the embedding has {rows} rows: they "
                                  "do not belong together")
            elif number == 2:
                trainer = dict(fields(value))
            elif number == 3:
                normalizer = dict(fields(value))
        tokens = [piece[1].decode() for piece in pieces]
        scores = [struct.unpack("<f", piece.get(2, bytes(4)))[0] for piece in pieces]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, struct.error):
        raise Refused(f"{path}: no model of SentencePiece, or not all of one")
    if trainer.get(3, 1) != 2:
        raise Refused(f"{path}: a SentencePiece model of another kind than BPE cannot be run")
    if normalizer.get(2) or not normalizer.get(5, 1) or trainer.get(24):
        raise Refused(f"{path}: it rewrites a text before it cuts it "
                      f"({normalizer.get(1, b'').decode(errors='replace')}); only identity can be run")
    names = {40: ("unk", 0), 41: ("bos", 1), 42: ("eos", 2), 43: ("pad", -1)}
    ids = {name: trainer.get(number, fallback) for number, (name, fallback) in names.items()}
    ids = {name: id for name, id in ids.items() if 0 <= id < len(tokens)}
    return Vocabulary("llama", tokens, [piece.get(3, NORMAL) for piece in pieces], scores, ids=ids,
                      add_space=bool(normalizer.get(3, 1)), remove_spaces=bool(normalizer.get(4, 1)))


# ---------------------------------------------------------------------------- tokenizer.bin


def read_llama2c_tokenizer(path, rows=MAX_VOCAB):
    """Of llama2.c: int longest; then for each id float score, int length, char text[length]."""
    data, tokens, scores, at = read_bytes(path, rows), [], [], 4
    try:
        while at < len(data):
            score, length = struct.unpack_from("<fi", data, at)
            if not 0 <= length <= len(data) - at - 8:
                raise ValueError
            tokens.append(data[at + 8:at + 8 + length].decode().replace(" ", SPACE))
            scores.append(score)
            at += 8 + length
    except (struct.error, ValueError):
        raise Refused(f"{path}: it ends inside token {len(tokens)}, or is no tokenizer.bin of llama2.c")
    if len(tokens) < 4:
        raise Refused(f"{path}: it holds {len(tokens)} tokens; is it a tokenizer.bin?")
    types = [BYTE if BYTE_FORM.fullmatch(token) else NORMAL for token in tokens]
    types[:3] = UNKNOWN, CONTROL, CONTROL               # by convention
    tokens[1], tokens[2] = (tokens[id].strip() for id in (1, 2))
    return Vocabulary("llama", tokens, types, scores, ids={"bos": 1, "eos": 2, "unk": 0})


# ---------------------------------------------------------------------------- tokenizer.json


def steps_of(part, inside):
    """The steps of a normalizer, a pre-tokenizer or a post-processor, one after the other."""
    if part is None:
        return []
    if expect("tokenizer.json", "a step", part, dict).get("type") == "Sequence":
        steps = expect("tokenizer.json", inside, part.get(inside), list)
        return [step for one in steps for step in steps_of(one, inside)]
    expect("tokenizer.json", "the type of a step", part.get("type"), str)
    return [part]


def expressions(pre_tokenizer):
    """What a pre-tokenizer searches for, step by step; None where a step is of another nature."""
    found = []
    for step in steps_of(pre_tokenizer, "pretokenizers"):
        kind = step["type"]
        whole = step.get("behavior") == "Isolated" and not step.get("invert")
        rest = step.get("behavior") == "Removed" and step.get("invert")     # the same, where nothing is left
        if kind == "Split" and (whole or rest):
            found.append(step["pattern"].get("Regex") or re.escape(step["pattern"]["String"]))
        elif kind == "ByteLevel" and not step.get("add_prefix_space"):
            found += [GPT2] if step.get("use_regex", True) else []
        elif kind == "Digits":
            found.append(r"\p{N}" if step.get("individual_digits") else r"\p{N}+")
        else:
            return None
    return found


def name_of_cutter(path, pre_tokenizer, tokens, stablelm):
    """Ours for the way that a tokenizer cuts words."""
    found = expressions(pre_tokenizer)
    names = [name for name, patterns in PATTERNS.items() if patterns == found]
    if found and found[-1] == r"\p{N}" and not any(len(t) > 1 and t.isdecimal() for t in tokens):
        # It cuts single digits, and those of a name whole numbers: the same, where no token has two digits.
        names += [name for name, patterns in PATTERNS.items() if patterns == [*found[:-1], r"\p{N}+"]]
    if not names:
        raise Refused(f"{path}: it cuts words in a way that is not known, "
                      f"{json.dumps(pre_tokenizer)[:1000]}; known are {', '.join(PATTERNS)}")
    return "stablelm2" if stablelm and "stablelm2" in names else names[0]


def tokens_around(processor):
    """Which special tokens a post-processor puts before and after a text; None for none."""
    for step in steps_of(processor, "processors"):
        if step["type"] == "TemplateProcessing":
            first, last = step["single"][0], step["single"][-1]
            return tuple(piece.get("SpecialToken", {}).get("id") for piece in (first, last))
        if step["type"] != "ByteLevel":                 # which is about where words lie in the text
            raise Refused(f"tokenizer.json: it puts tokens around a text by {step['type']}: that cannot be "
                          "run")
    return None, None


def check_added(path, tokens):
    """Objects with a text; add_tokens looks at their ids."""
    for token in tokens:
        expect(path, "an added token", token, dict)
        if not expect(path, "the content of an added token", token.get("content"), str):
            raise Refused(f"{path}: an added token is an empty text")


def added_tokens(path, data):
    """Those of a tokenizer.json."""
    added = expect(path, "added_tokens", data.get("added_tokens") or [], list)
    check_added(path, added)
    return added


def check_tokens(path, model):
    """What is built from is what it should be: a token of each id, of which few are without."""
    vocab = expect(path, "vocab", model.get("vocab"), dict)
    merges = expect(path, "merges", model.get("merges"), list)
    most = len(vocab) + MAX_HOLES
    for token, id in vocab.items():
        expect_number(path, f"the id of {token!r:.100}", id, 0, most)
    if len(set(vocab.values())) < len(vocab):
        raise Refused(f"{path}: two of its tokens have one id")
    for merge in merges:
        pair = merge.split(" ", 1) if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise Refused(f"{path}: a merge is {merge!r:.100}; two tokens are expected")


def read_tokenizer_json(path, data, stablelm):
    """data: what is in it."""
    model, added = expect(path, "model", data.get("model"), dict), added_tokens(path, data)
    if model.get("type", "BPE") != "BPE":
        raise Refused(f"{path}: a tokenizer of the kind {model['type']}; BPE is known")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise Refused(f"{path}: its {key} is {model[key]}: that cannot be run")
    check_tokens(path, model)
    tokens = [None] * (1 + max(model["vocab"].values(), default=-1))
    for token, id in model["vocab"].items():
        tokens[id] = token
    types = [UNUSED if token is None else NORMAL for token in tokens]
    tokens = [f"[PAD{id}]" if token is None else token for id, token in enumerate(tokens)]
    merges = [tuple(merge.split(" ", 1) if isinstance(merge, str) else merge) for merge in model["merges"]]
    if model.get("byte_fallback"):
        special = {token["content"] for token in added} | {model.get("unk_token")}
        vocabulary = sentencepiece_from_json(path, data, tokens, types, merges, special)
    else:
        vocabulary = byte_level_from_json(path, data, tokens, types, merges, stablelm)
    vocabulary.add_tokens((token.get("id"), token["content"], token.get("special", False)) for token in added)
    note_what_is_around(path, added)
    vocabulary.around = tokens_around(data.get("post_processor"))
    return vocabulary


def note_what_is_around(path, added):
    """A GGUF file has no place for what an added token asks of the text beside it."""
    for flags, what in ((("lstrip", "rstrip"), "takes the blanks beside it"),
                        (("single_word",), "is not found inside a word")):
        found = [token["content"] for token in added if any(token.get(flag) for flag in flags)]
        if found:
            more = f" (as {len(found) - 1} more)" if len(found) > 1 else ""
            note(f"{path}: {found[0]!r}{more} {what} there, and not so here")


def byte_level_from_json(path, data, tokens, types, merges, stablelm):
    pre = name_of_cutter(path, data.get("pre_tokenizer"), tokens, stablelm)
    for step in steps_of(data.get("normalizer"), "normalizers"):
        if step["type"] != "NFC":
            refuse_step(path, step)
        note(f"{path}: it composes letters and their accents (NFC) first; here a text is taken as it is")
    whole_words = bool(data["model"].get("ignore_merges"))
    if whole_words != (pre in ("llama-bpe", "tekken")):
        note(f"{path}: ignore_merges is {whole_words}, and not so here for what cuts words as {pre}: a rare "
             "word may become other tokens")
    return Vocabulary("gpt2", tokens, types, merges=[" ".join(merge) for merge in merges], pre=pre)


def refuse_step(path, step):
    raise Refused(f"{path}: it rewrites a text by {step['type']} before it cuts it: that cannot be run")


# ---------------------------------------------------------------------------- SentencePiece as tokenizer.json
#
# SentencePiece merges any two neighbours that spell a token, the highest score first, of equals the leftmost.
# A list of merges says the same if it has every way to spell each token, and those of one token stand
# together. Tokens of equal score have theirs mixed: that is the same for runs of one character, as spaces are
# in Llama 2, if the longer left side goes first.


def sentencepiece_from_json(path, data, tokens, types, merges, special):
    types = [UNKNOWN if token == data["model"].get("unk_token") else BYTE if BYTE_FORM.fullmatch(token) else
             kind for token, kind in zip(tokens, types)]
    normal = {token for token, kind in zip(tokens, types) if kind == NORMAL and token not in special}
    check_ways(path, normal, set(merges))
    rank = rank_groups(path, merges)
    scores = [-float(rank.get(token, len(merges) + id)) for id, token in enumerate(tokens)]
    return Vocabulary("llama", tokens, types, scores, add_space=puts_space(path, data, tokens),
                      remove_spaces=steps_of(data.get("normalizer"), "normalizers")[:2] == REMOVE_SPACES)


def check_ways(path, normal, merges):
    if sum(len(token) ** 2 for token in normal) > MAX_WORK:
        raise Refused(f"{path}: its tokens are too long for SentencePiece's")
    for token in normal:
        ways = [(token[:at], token[at:]) for at in range(1, len(token))]
        if any(way not in merges and normal.issuperset(way) for way in ways) or \
                ways and not normal.issuperset(token):
            raise Refused(f"{path}: its merges do not have every way to spell {token!r}: SentencePiece would "
                          "merge what this tokenizer does not")


def rank_groups(path, merges):
    """{token: which group of merges makes it}"""
    tokens = [left + right for left, right in merges]
    last = {token: at for at, token in enumerate(tokens)}
    rank, begin, end = {}, 0, -1
    for at, token in enumerate(tokens):
        if at > end:                                    # nothing before is made once more
            begin = at
        end = max(end, last[token])
        rank.setdefault(token, begin)
        if at == end and len(made := set(tokens[begin:end + 1])) > 1:
            lengths = [len(left) for left, _ in merges[begin:end + 1]]
            if len(set("".join(made))) > 1 or lengths != sorted(lengths, reverse=True):
                raise Refused(f"{path}: its merges make {tokens[begin]!r} at different times: no scores can "
                              "say that")
    return rank


def puts_space(path, data, tokens):
    """Does a text begin with a space of the tokenizer's own?"""
    space, written = False, False
    for step in steps_of(data.get("normalizer"), "normalizers"):
        if step["type"] == "Prepend" and step["prepend"] in (SPACE, " "):
            space = True
        elif step in REMOVE_SPACES:
            continue
        elif step["type"] == "Replace" and step["pattern"] == {"String": " "} and step["content"] == SPACE:
            written = True
        else:
            refuse_step(path, step)
    for step in steps_of(data.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] != "Metaspace" or step.get("replacement", SPACE) != SPACE:
            raise Refused(f"{path}: SentencePiece's tokens, but it cuts words by {step['type']}: that cannot "
                          "be run")
        if step.get("split", True) and any(SPACE in token[1:] for token in tokens):
            raise Refused(f"{path}: it cuts words at every space, and has tokens with a space inside: that "
                          "cannot be run")
        scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")
        space, written = space or scheme != "never", True
        if scheme != "never":
            note(f"{path}: it puts a space in front of a text where there is none; here one stands, as by "
                 "SentencePiece, in front of any text, and of what follows a special token")
    if not written:
        raise Refused(f"{path}: SentencePiece's tokens, but it does not write spaces as {SPACE}")
    return space
