"""test_damaged.py - files are hostile bytes: whatever stands in place of a checkpoint or a tokenizer, the
program either refuses it - status 1, nothing on standard output, one line on standard error that names the
file, within a second and with little memory - or it is legal, and then the text is right.
"""

import json
import os
import struct
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import damage
import make_models
import reference
from damage import EITHER, FILE, LATER, MODEL, RUNS, SAME, VOCABULARY

INTS = [0, -1, 3, 2**31 - 1, -2**31]
MEMORY = 64 << 20


def in_time(run, args):
    """Within a second. On a busy machine any run can be late once; three times it is the program's fault."""
    for _ in range(3):
        started = time.monotonic()
        outcome = run(*args)
        seconds = time.monotonic() - started
        if seconds < (5 if run.sanitized else 1):
            return outcome
    raise AssertionError(f"it took {seconds:.1f} seconds")


@pytest.fixture
def refused(run, models, tmp_path):
    """Each of {what: bytes, or the path of a file} is refused in place of a good checkpoint or tokenizer."""

    def check(role, cases, *words):
        outcomes, calls, problems = {}, [], []
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            for what, file in cases.items():
                if isinstance(file, bytes):
                    path = Path(folder, f"{role}-{len(calls)}.bin")
                    path.write_bytes(file)
                    file = path
                model, tokenizer = models / "gqa-v0-tied.bin", models / "tokenizer.bin"
                calls.append((file, "-z", tokenizer) if role == "checkpoint" else (model, "-z", file))
                try:
                    outcomes[what] = in_time(run, calls[-1])
                    outcomes[what].check_refused(1, file, *words)
                except AssertionError as problem:
                    problems.append(f"{what}: {str(problem).splitlines()[0]}")
            if not run.sanitized:
                for what, peak in zip(cases, run.peak_memory(*calls), strict=True):
                    if peak > MEMORY:
                        problems.append(f"{what}: it took {peak / 1e6:.0f} MB")
        assert not problems, f"{len(problems)} problems with {len(cases)} files:\n" + "\n".join(problems[:20])
        return outcomes

    return check


def put(data, at, value):
    """data with other bytes at one place"""
    return data[:at] + value + data[at + len(value):]


def spread(n, count):
    """count numbers from 0 to n - 1, evenly apart"""
    return sorted({i * n // count for i in range(count)})


# ---------------------------------------------------------------------------- the checkpoint

@pytest.fixture(params=["gqa-v0-tied.bin", "gqa-v0-untied.bin", "gqa-v1-tied.bin", "gqa-v1-untied.bin",
                        "g4-v2-tied.bin", "g4-v2-untied.bin"])
def checkpoint(request, models):
    return models / request.param


def test_header_fields(checkpoint, refused):
    data = checkpoint.read_bytes()
    marked = "v0" not in checkpoint.name
    first = 8 if marked else 0
    cases = {}
    for i, field in enumerate(reference.HEADER):
        for value in INTS:
            damaged = put(data, first + 4 * i, struct.pack("<i", value))
            legal = marked and field == "seq_len" and value > 0     # see the next test
            if damaged != data and not legal:
                cases[f"{field} = {value}"] = damaged
    refused("checkpoint", cases)


def test_any_seq_len_is_legal_in_version_1(models, run, tmp_path):
    """Version 1 stores nothing per position, so seq_len is only the length of the context."""
    model, path = models / "gqa-v1-tied.bin", tmp_path / "model.bin"
    for seq_len, written, said in ((3, 3, "context of 3 is full"), (2**31 - 1, 60, "context 4096")):
        path.write_bytes(put(model.read_bytes(), 32, struct.pack("<i", seq_len)))
        outcome = run(path, "-z", models / "tokenizer.bin", "-t", 0, "-n", 60)
        assert outcome.status == 0, outcome
        assert outcome.stdout == run(model, "-t", 0, "-n", written).stdout
        assert said in outcome.stderr                   # more than 4096 has to be asked for


def test_magic_version_and_flag(models, refused):
    tied, untied = (models / "gqa-v1-tied.bin").read_bytes(), (models / "gqa-v1-untied.bin").read_bytes()
    cases = {f"byte {i} of the magic + 1": put(tied, i, bytes([tied[i] + 1])) for i in range(4)}
    cases |= {f"version {value}": put(tied, 4, struct.pack("<i", value)) for value in [*INTS, 2]}
    cases |= {f"shared_classifier = {value}": put(tied, 36, bytes([value])) for value in (3, 128, 255)}
    cases |= {"no classifier": put(tied, 36, b"\0"), "a classifier too many": put(untied, 36, b"\1")}
    refused("checkpoint", cases)


def test_many_narrow_layers(models, run, tmp_path):
    """Each layer takes some pages of the KV cache: a small file of very many must not take much memory."""
    path = tmp_path / "model.bin"
    for layers, legal in ((4096, True), (4097, False), (65536, False)):
        config = reference.Config(2, 1, layers, 1, 1, make_models.V, 512)
        make_models.write_model(path, config, make_models.random_arrays(config, True, 0), 0)
        call = path, "-z", models / "tokenizer.bin", "-i", "a", "-n", 2, "-t", 0
        if legal:
            assert in_time(run, call).status == 0
        else:
            in_time(run, call).check_refused(1, path, f"n_layers = {layers}")
        if not run.sanitized:
            assert run.peak_memory(call)[0] < MEMORY


def test_group_size(models, refused):
    """Of version 2; groups must fill a row, and what divides it changes how much there should be."""
    data = (models / "g4-v2-tied.bin").read_bytes()
    assert struct.unpack_from("<i", data, 37) == (4,)
    values = [*(value for value in INTS if value != 4), 5, 7, 16, 48, 1 << 20]
    refused("checkpoint", {f"group_size = {x}": put(data, 37, struct.pack("<i", x)) for x in values},
            "group_size")
    refused("checkpoint", {f"group_size = {x}": put(data, 37, struct.pack("<i", x)) for x in (1, 2, 8)},
            "asks for")


def test_info_of_a_checkpoint(checkpoint, run, tmp_path):
    """It accounts for every byte behind the header, and refuses what generating refuses."""
    said = json.loads(run(checkpoint, "-m", "info", "--json").stdout)
    data, tensors = checkpoint.read_bytes(), sorted(said["tensors"], key=lambda t: t["offset"])
    angles = 64 * 6 * 4 if "v0" in checkpoint.name else 0           # version 0 stores them, nobody reads them
    assert tensors[0]["offset"] + sum(t["bytes"] for t in tensors) + angles == len(data)
    assert "tensors" in run(checkpoint, "-m", "info").stdout.decode()
    path = tmp_path / "model.bin"
    for n in spread(len(data), 20):
        path.write_bytes(data[:n])
        run(path, "-m", "info").check_refused(1, path)


def test_shapes_that_cannot_be(refused, tmp_path):
    """The file is as long as its header asks for, and yet there is no such model."""
    for dim, n_heads, n_kv_heads, word in ((25, 4, 4, "dim = 25"), (12, 4, 4, "heads of 3"),
                                           (24, 4, 3, "n_kv_heads = 3"), (24, 2, 4, "n_kv_heads = 4")):
        config = reference.Config(dim, 37, 1, n_heads, n_kv_heads, make_models.V, 64)
        for version in (0, 1):
            path = tmp_path / "model.bin"
            make_models.write_model(path, config, make_models.random_arrays(config, True, 0), version)
            refused("checkpoint", {f"{config}, version {version}": path}, word)


def test_truncated_checkpoint(checkpoint, refused):
    data = checkpoint.read_bytes()
    outcomes = refused("checkpoint", {n: data[:n] for n in spread(len(data), 200)})
    for n, outcome in outcomes.items():
        if n >= 256:                                    # behind the header: it says how much there should be
            assert f" {len(data) - n} are missing" in outcome.stderr
    refused("checkpoint", {n: data[:n] for n in range(28 if "v0" in checkpoint.name else 256)})


def test_one_byte_too_many(checkpoint, refused):
    refused("checkpoint", {"one byte too many": checkpoint.read_bytes() + b"\0"})


# ---------------------------------------------------------------------------- the tokenizer

def places():
    """(id, offset in tokenizer.bin) of every ninth token, and of the last: its score, and then its length."""
    at, found = 4, []
    for id, (_, text) in enumerate(make_models.pieces()):
        found.append((id, at))
        at += 8 + len(text)
    return found[::9] + found[-1:]


def test_tokenizer_lengths(models, refused):
    data = (models / "tokenizer.bin").read_bytes()
    cases = {}
    for value in INTS:
        field = struct.pack("<i", value)
        if value != 2**31 - 1:                          # see the next test
            cases[f"longest = {value}"] = put(data, 0, field)
        for id, at in places():
            if put(data, at + 4, field) != data:
                cases[f"length of token {id} = {value}"] = put(data, at + 4, field)
    refused("tokenizer", cases)


def test_longest_token_may_be_shorter_than_the_header_says(models, run, tmp_path):
    """It is a bound for the lengths that follow; nothing else depends on it."""
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(put((models / "tokenizer.bin").read_bytes(), 0, struct.pack("<i", 2**31 - 1)))
    model = models / "gqa-v0-tied.bin"
    options = "-t", 0, "-q", "-i", "the and then"
    assert run(model, "-z", path, *options) == run(model, *options)


def test_tokenizer_scores(models, refused):
    data = (models / "tokenizer.bin").read_bytes()
    refused("tokenizer", {f"score of token {id} = {value}": put(data, at, struct.pack("<f", float(value)))
                          for id, at in places() for value in ("nan", "inf", "-inf")})


def test_truncated_tokenizer(models, refused):
    data = (models / "tokenizer.bin").read_bytes()
    refused("tokenizer", {n: data[:n] for n in spread(len(data), 200)})
    refused("tokenizer", {"one byte too many": data + b"\0"})


def test_a_tokenizer_of_three_tokens(run, models, tmp_path):
    """With no model to say how many there should be: the ids of control, and nothing else."""
    path = tmp_path / "tokenizer.bin"
    make_models.write_tokenizer(path, make_models.pieces()[:3])
    outcome = run(models / "gqa-v0-tied.bin", "-m", "tokenize", "-z", path, "-i", "a")
    outcome.check_refused(1, path, "3 tokens")


def test_millions_of_empty_tokens(models, refused, tmp_path):
    """A hole costs nothing to store, and must not cost time or memory to refuse."""
    path = tmp_path / "hole.bin"
    path.write_bytes(struct.pack("<i", 5))
    os.truncate(path, 4 + 8 * 2**25)
    refused("tokenizer", {"32 million empty tokens": path})


# ---------------------------------------------------------------------------- GGUF
#
# The damaged files are made, and what must happen with them is said, in damage.py.

MODES = {
    "generate": ("-i", damage.PROMPT, "-t", 0, "-n", 8,
                 "--swap-norm"),     # the text and the hash of the logits
    "tokenize": ("-m", "tokenize", "-i", damage.PROMPT),
    "info": ("-m", "info", "--json"),
}
REFUSED = {"generate": (FILE, MODEL, VOCABULARY, LATER), "tokenize": (FILE, VOCABULARY), "info": (FILE,)}


def check_words(sentence, words):
    for word in words:
        assert str(word) in sentence, f"{word!r} is missing from {sentence!r}"


def check_gguf(outcome, mode, case, path, undamaged):
    """What one mode has made of a file is what was expected of it."""
    expected = case.expected
    if expected in REFUSED[mode] or (expected == EITHER and outcome.status != 0):
        if mode == "generate" and expected in (LATER, EITHER):      # the prompt may stand there already
            outcome = outcome._replace(stdout=b"")
        outcome.check_refused(1, path)
        assert outcome.stderr[:-1].isprintable(), outcome
        if expected != EITHER:                          # the path may hold a word by chance
            check_words(outcome.stderr.split(str(path))[1], case.words)
        return
    assert outcome.status == 0, outcome
    if mode == "info":
        said = json.loads(outcome.stdout)               # whatever a file's strings hold
        if expected in (MODEL, SAME, LATER):
            assert ("refused" in said) == (expected == MODEL), outcome
        if expected == MODEL:
            check_words(said["refused"], case.words)
    elif expected == SAME or (mode == "tokenize" and expected in (MODEL, LATER)):
        assert outcome.stdout == undamaged.stdout, (outcome, undamaged)
        if mode == "generate":
            assert outcome.statistic("hash") == undamaged.statistic("hash")


@pytest.fixture
def survives(run, tmp_path):
    """Each of the cases does what is expected of it: in every mode, or in those named."""
    good = tmp_path / "good.gguf"
    good.write_bytes(bytes(damage.GOOD))

    def check(cases, modes=tuple(MODES)):
        undamaged = {mode: run(good, *MODES[mode]) for mode in modes}
        problems, calls, names = [], [], []
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            for i, case in enumerate(cases):
                path = Path(folder, f"{i}.gguf")
                path.write_bytes(case.data)
                for mode in modes:
                    calls.append((path, *MODES[mode]))
                    names.append(f"{mode}: {case.name}")
                    try:
                        outcome = in_time(run, calls[-1])
                        check_gguf(outcome, mode, case, path, undamaged[mode])
                    except (AssertionError, ValueError) as problem:
                        problems.append(f"{names[-1]}: {case.expected}? {str(problem)[:300]}")
            if not run.sanitized:
                for name, peak in zip(names, run.peak_memory(*calls), strict=True):
                    if peak > MEMORY:
                        problems.append(f"{name}: it took {peak / 1e6:.0f} MB")
        assert not problems, f"{len(problems)} problems with {len(names)} runs:\n" + "\n".join(problems[:40])

    return check


def test_the_undamaged_file_shows_damage(run, tmp_path):
    """It writes a text, spells the prompt in several ids, and its weights and keys all count."""
    path = tmp_path / "good.gguf"
    path.write_bytes(bytes(damage.GOOD))
    good = run(path, *MODES["generate"])
    assert len(good.stdout) > len(damage.PROMPT) + 5, good
    assert len(run(path, *MODES["tokenize"]).stdout.split()) >= 4
    for t in damage.GOOD.tensors:
        path.write_bytes(bytes(damage.GOOD.tensor(t.name, data=t.data[:-4] + struct.pack("<f", 2))))
        assert run(path, *MODES["generate"]).statistic("hash") != good.statistic("hash"), t.name
    for key, value in (("attention.layer_norm_rms_epsilon", 1e-2), ("rope.freq_base", 500)):
        path.write_bytes(bytes(damage.GOOD.pair("llama." + key, damage.f32(value))))
        assert run(path, *MODES["generate"]).statistic("hash") != good.statistic("hash"), key


@pytest.mark.parametrize("part", damage.PARTS, ids=lambda part: part.__name__)
def test_damaged_gguf(part, survives):
    survives(list(part()))


def test_truncated_gguf(survives):
    """At 500 places in all, of every part; a file without its last padding is whole."""
    file = damage.GOOD.pair("general.name", damage.text("x" * 40))
    data, index = bytes(file), len(file.index())
    metadata = len(damage.replace(file, tensors=[]).index())
    parts = [range(24), range(24, metadata), range(metadata, index), range(index, len(data))]
    places = [part[i] for part in parts for i in spread(len(part), 160)]
    assert len(places) >= 500
    survives([damage.Case(f"cut to {n} of {len(data)} bytes", data[:n], FILE) for n in places], ["generate"])
    survives([damage.Case(f"cut to {n} of {len(data)} bytes", data[:n], FILE) for n in places[::20]],
             ["info", "tokenize"])


NUMBERS = [0, -1, 3, 2**31 - 1, 2**32 - 1, 2**40, 2**64 - 1]
LEGAL = {                                               # beside what damage.py says they are without damage
    "llama.context_length": {2**31 - 1},                # and 3: see the next test
    "llama.expert_count": {0}, "split.count": {0},
    **{key: set(NUMBERS) for key in damage.IDS},        # those of none, or of no token, are left out
}


def test_numbers_of_every_integer_type(survives):
    cases = []
    for key in damage.INTEGERS | damage.IDS:
        for type, make in (damage.UNSIGNED | damage.SIGNED).items():
            for number in NUMBERS:
                try:
                    data = make(number)
                except struct.error:                    # the type cannot hold it
                    continue
                if (key, number) == ("llama.context_length", 3):
                    continue
                expected = VOCABULARY if key in damage.IDS else MODEL
                if number in LEGAL.get(key, ()):
                    expected = RUNS
                file, name = damage.GOOD.pair(key, data), f"{key} = {number} as {damage.CODES[type]}"
                cases.append(damage.one(name, file, expected))
    survives(cases, ["generate"])


def test_info_for_people(run, tmp_path):
    """One line for each thing there is, whatever the strings in the file hold."""
    path = tmp_path / "model.gguf"
    for odd in ("plain", "a\nb", "\x1b[2J\x7f", "\x9b2J", b"\xff\xe2\x96", "%s%n", ""):
        path.write_bytes(bytes(damage.GOOD.pair("general.name", damage.text(odd))))
        lines = run(path, "-m", "info").stdout.decode().split("\n")
        assert all(line.isprintable() for line in lines), f"{odd!r}: {lines}"
        assert sum("token_embd.weight" in line for line in lines) == 1


def test_refusals_print_nothing_odd(run, tmp_path):
    """A file's strings reach the terminal in a refusal too."""
    path = tmp_path / "model.gguf"
    for odd in ("a\nb", "\x1b[2J\x7f", "\x9b2J", b"\xff\xe2\x96", "%s%n", "é" * 99):
        path.write_bytes(bytes(damage.GOOD.pair("general.architecture", damage.text(odd))))
        outcome = run(path, *MODES["generate"])
        outcome.check_refused(1, path, "architecture")
        assert outcome.stderr[:-1].isprintable(), outcome


def test_a_context_shorter_than_the_prompt(run, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(bytes(damage.GOOD.pair("llama.context_length", damage.u8(3))))
    run(path, *MODES["generate"]).check_refused(2, "context holds 3")
    assert "context of 3 is full" in run(path, "-t", 0).stderr


def test_counts_and_lengths(survives):
    """Every 64-bit count in the file, where the index and the strings are found by looking for them."""
    data, cases = bytes(damage.GOOD), []
    places = {"tensors": 8, "pairs": 16, "length of the first key": 24}
    for key in ("tokens", "scores", "token_type"):
        key = "tokenizer.ggml." + key
        places[f"items of {key}"] = data.index(key.encode()) + len(key) + 8     # behind two types
    places["length of the first token"] = places["items of tokenizer.ggml.tokens"] + 8
    places["length of the last token"] = data.index(damage.string("tokenizer.ggml.scores")) - 9
    for name in ("token_embd.weight", "output_norm.weight", "blk.0.ffn_down.weight"):
        at = data.index(damage.string(name))
        places[f"length of the name {name}"] = at
        places[f"columns of {name}"] = at + 8 + len(name) + 4
    for what, at in places.items():
        for number in NUMBERS:
            damaged = put(data, at, struct.pack("<Q", number % 2**64))
            if damaged != data:
                cases.append(damage.Case(f"{what} = {number}", damaged, EITHER if number in (0, 3) else FILE))
    survives(cases)


def test_every_byte_of_the_index(survives):
    """One bit of each fourth byte, over everything before the data: refused or run, and nothing else."""
    data, end = bytes(damage.GOOD), len(damage.GOOD.index())
    cases = [damage.Case(f"byte {at} with bit {at // 4 % 8} turned",
                         put(data, at, bytes([data[at] ^ 1 << at // 4 % 8])), EITHER)
             for at in range(0, end, 4)]
    survives(cases, ["generate"])


def colliding(n):
    """2^n texts of one FNV-1a hash: n times two words that lead on from one state to the same other."""
    state, texts = 2166136261, [b""]
    random = np.random.default_rng(0)
    for _ in range(n):
        words = random.integers(97, 123, (200_000, 8), "u8")
        hashes = np.full(len(words), state, "u8")
        for letters in words.T:
            hashes = (hashes ^ letters) * np.uint64(16777619) & np.uint64(2**32 - 1)
        order = np.argsort(hashes)
        pairs = order[[(i, i + 1) for i in np.flatnonzero(np.diff(hashes[order]) == 0)]]
        pair = next(pair for pair in pairs if (words[pair[0]] != words[pair[1]]).any())
        state = int(hashes[pair[0]])
        texts = [text + bytes(words[i].astype("u1")) for text in texts for i in pair]
    return texts


def test_a_vocabulary_made_to_collide(survives):
    """Whoever knows the hash must not make its table slow: 65536 tokens in one slot."""
    texts = [text.encode() for text in damage.TOKENS] + colliding(16)
    n = len(texts)
    file = damage.spells(texts, damage.TYPES + [1] * (n - damage.N))
    survives([damage.one(f"{n} tokens of one hash", file, EITHER)], ["tokenize"])


def test_a_vocabulary_with_the_wrong_model(run, tmp_path):
    """A number of tokens other than the model's is refused, and before room is made for them."""
    many = 2**20
    file = damage.spells([""] * many)
    path, good = tmp_path / "model.gguf", tmp_path / "good.gguf"
    path.write_bytes(bytes(file))
    good.write_bytes(bytes(damage.GOOD))
    run(path, *MODES["generate"]).check_refused(1, path, many, damage.N)
    run(good, "-z", path, *MODES["generate"]).check_refused(1, path, many, damage.N)
    if not run.sanitized:
        calls = [(path, *MODES["generate"]), (good, "-z", path, *MODES["generate"])]
        assert max(run.peak_memory(*calls)) < MEMORY


def test_more_tokens_than_possible(run, tmp_path):
    """Holes cost nothing to store: a vocabulary, and an embedding, of 2^24 + 1 rows."""
    path, many = tmp_path / "model.gguf", 2**24 + 1
    key = "tokenizer.ggml.tokens"
    none = damage.GOOD.pair(key, None).pair(key, damage.array(damage.STRING, [], many))
    path.write_bytes(damage.replace(none, tensors=[]).index())
    os.truncate(path, path.stat().st_size + 8 * many)
    run(path, *MODES["tokenize"]).check_refused(1, path, key, many)
    key = "tokenizer.ggml.merges"
    none = damage.ggml("model", damage.text("gpt2")).pair(key, damage.array(damage.STRING, [], many))
    path.write_bytes(damage.replace(none, tensors=[]).index())
    os.truncate(path, path.stat().st_size + 8 * many)
    run(path, *MODES["tokenize"]).check_refused(1, path, key, many)
    embedding = damage.replace(damage.GOOD.tensors[0], shape=[damage.DIM, many], type=2, data=b"")
    path.write_bytes(bytes(damage.replace(damage.GOOD, tensors=[*damage.GOOD.tensors[1:], embedding])))
    os.truncate(path, path.stat().st_size + 18 * many)
    run(path, *MODES["generate"]).check_refused(1, path, "token_embd", many)
    unread = damage.Tensor("blk.0.attn_rot_embd", [many], b"", type=1)
    path.write_bytes(bytes(damage.also(unread)))
    os.truncate(path, path.stat().st_size + 2 * many)
    assert run(path, *MODES["generate"]).status == 0


def test_gguf_and_bin_exchanged(run, models, tmp_path):
    """The contents count, not the name; a tokenizer may come from either kind of file."""
    gguf, bin = tmp_path / "model.bin", tmp_path / "model.gguf"
    gguf.write_bytes(bytes(damage.GOOD))
    bin.write_bytes((models / "mha-v0-tied.bin").read_bytes())
    good = run(gguf, *MODES["generate"])
    assert good.status == 0
    same = run(gguf, "-z", gguf, *MODES["generate"])
    assert (same.stdout, same.statistic("hash")) == (good.stdout, good.statistic("hash"))
    greedy = "-z", models / "tokenizer.bin", "-q", "-t", 0
    assert run(bin, *greedy) == run(models / "mha-v0-tied.bin", *greedy)
    run(bin, "-z", gguf).check_refused(1, gguf, damage.N, make_models.V)
    run(gguf, "-z", models / "tokenizer.bin").check_refused(1, "tokenizer.bin", damage.N)
    run(gguf, "-z", bin).check_refused(1, bin)


def test_a_mark_that_is_cut_off(run, models, tmp_path):
    """Less than "GGUF" is no GGUF file, even where a tokenizer lies beside it."""
    (tmp_path / "tokenizer.bin").write_bytes((models / "tokenizer.bin").read_bytes())
    path = tmp_path / "model.gguf"
    for n in (1, 2, 3):
        path.write_bytes(b"GGUF"[:n])
        run(path, "-m", "tokenize", "-i", "a").check_refused(1, path)


# ---------------------------------------------------------------------------- something else altogether

OTHERS = {                                              # what: (its first bytes, a word that says what it is)
    "an empty GGUF file": (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), ""),
    "GGUF of the other byte order": (b"FUGG" + struct.pack(">IQQ", 3, 0, 0), "GGUF"),
    "web page": (b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n", "web page"),
    "web page after blanks": (b"\r\n\n  <html>" + b" " * 99, "web page"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs"),
    "Zstandard": (b"\x28\xb5\x2f\xfd" + bytes(99), "unpack"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "unpack"),
    "xz": (b"\xfd7zXZ\0" + bytes(99), "unpack"),
    "bzip2": (b"BZh91AY&SY" + bytes(99), "unpack"),
    "LZ4": (b"\x04\x22\x4d\x18" + bytes(99), "unpack"),
    "RAR": (b"Rar!\x1a\x07\x01\0" + bytes(99), "unpack"),
    "tar": (b"model.gguf".ljust(257, b"\0") + b"ustar\x0000" + bytes(300), "unpack"),
    "NumPy": (b"\x93NUMPY\x01\0v\0" + bytes(99), "NumPy"),
    "ONNX": (b"\x08\x07\x12\x07pytorch" + bytes(99), "ONNX"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "a LoRA adapter from before GGUF": (b"algg\1\0\0\0" + bytes(99), "LoRA"),
    "zip": (b"PK\x03\x04\x14\0\0\0\x08\0" + bytes(99), "zip"),
    "gzip": (b"\x1f\x8b\x08\0\0\0\0\0" + bytes(99), "gzip"),
    "safetensors": (struct.pack("<Q", 40) + b'{"__metadata__":{"format":"pt"}}', "safetensors"),
    "text": ("Once upon a time there was a Zoë.\n".encode() * 9, "text"),
    "JSON": (b'{"dim": 64}\n', "text"),
    "one byte": (b"\x07", ""),
    "zeros": (bytes(4096), "zeros"),
    "ones": (b"\xff" * 4096, ""),
}


@pytest.mark.parametrize("role", ["checkpoint", "tokenizer"])
def test_something_else(role, models, refused):
    for what, (data, word) in OTHERS.items():
        refused(role, {what: data}, word)
    swapped = models / ("gqa-v0-tied.bin" if role == "tokenizer" else "tokenizer.bin")
    refused(role, {"the files exchanged": swapped}, "tokenizer.bin")
    halves = {f"{name} from byte {n * len(data) // 9} on": data[n * len(data) // 9:]
              for name, data in (("GGUF", bytes(damage.GOOD)), ("llama2.c", swapped.read_bytes()))
              for n in range(1, 9)}
    refused(role, halves, "neither" if role == "checkpoint" else "")
    refused(role, {f"random bytes {seed}": make_random(seed) for seed in range(50)})


def make_random(seed):
    """Random bytes; behind a magic, or a small number as any header has it, they get further."""
    data = bytes(np.random.default_rng(seed).integers(0, 256, 3000, "u1"))
    return [data, struct.pack("<Ii", reference.MAGIC, 1) + data, struct.pack("<i", 7) + data][seed % 3]


@pytest.mark.parametrize("role", ["checkpoint", "tokenizer"])
def test_no_plain_file(role, refused, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nothing").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(role, {"a directory": tmp_path}, "directory")
    refused(role, {"an empty file": tmp_path / "nothing"}, "empty")
    refused(role, {"a pipe": tmp_path / "pipe"}, "regular file")
    refused(role, {"a device": os.devnull}, "regular file")
    refused(role, {"no file": tmp_path / "missing"}, "No such file")
    refused(role, {"a link to nowhere": tmp_path / "dangling"}, "No such file")
    refused(role, {"a link to itself": tmp_path / "loop"})


@pytest.mark.parametrize("role", ["checkpoint", "tokenizer"])
def test_a_long_name_hides_nothing(role, refused, tmp_path):
    folder = tmp_path.joinpath(*["a" * 200] * 10)
    folder.mkdir(parents=True)
    (folder / "pointer.bin").write_bytes(OTHERS["git-lfs pointer"][0])
    refused(role, {"a git-lfs pointer": folder / "pointer.bin"}, "git lfs")
