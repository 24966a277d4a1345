"""test_reports.py - what the program says about files and numbers is true: -m info, tokenize and perplexity,
for people and, with --json, for programs; and what it says of a file that it cannot run.
"""

import json
import math
import shutil
import signal
import time
from dataclasses import replace

import gguf
import numpy as np
import pytest

import make_models
import reference
from conftest import ROOT
from make_models import BOS, KINDS, VOCABULARY

TEXT = "Once there was a Lion and the Zebra. They went to the hill, and he was in the water again.\n"


def report_of(outcome):
    """The one JSON object on standard output, strictly: no NaN, no key twice."""
    assert (outcome.status, outcome.stderr) == (0, ""), outcome

    def unique(pairs):
        assert len(dict(pairs)) == len(pairs), f"a key occurs twice: {[key for key, _ in pairs]}"
        return dict(pairs)

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    assert outcome.stdout.endswith(b"}\n") and outcome.stdout.count(b"\n") == 1
    return json.loads(outcome.stdout, object_pairs_hook=unique, parse_constant=refuse)


# ---------------------------------------------------------------------------- info

INFO = {"format", "version", "architecture", "norm", "parameters", "config", "tokenizer", "tensors"}
INFO_GGUF = INFO | {"general", "other"}


def bytes_at(path, tensor):
    return path.read_bytes()[tensor["offset"]:tensor["offset"] + tensor["bytes"]]


def check_memory(report, path, config, matrices):
    """matrices: {name: bytes} of those that a token's way leads through. The cache holds F16, and keys in
    spans of 128 positions."""
    positions = -(-config.seq_len // 128) * 128 + config.seq_len
    cache = 2 * config.n_layers * positions * config.n_kv_heads * config.head_dim
    assert report["memory"] == {"file": path.stat().st_size, "per_token": sum(matrices.values()),
                                "context": config.seq_len, "cache": cache}


@pytest.mark.parametrize("name", make_models.GGUFS)
def test_info_of_a_gguf(name, models, run):
    path = models / name
    report, reader = report_of(run(path, "-m", "info", "--json")), gguf.GGUFReader(path)
    kind = KINDS[path.stem]
    assert report.keys() == INFO_GGUF | {"memory"}
    assert (report["format"], report["version"]) == ("GGUF", 3)
    assert (report["architecture"], report["norm"]) == (kind.architecture, kind.config.norm)
    assert report["parameters"] == sum(int(t.n_elements) for t in reader.tensors)

    sections = {"general": "general.", "config": f"{kind.architecture}.", "tokenizer": "tokenizer."}
    fields = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert sum(len(report[section]) for section in sections) == len(fields), "every key is told"
    for section, prefix in sections.items():
        for key, value in report[section].items():
            field = fields[prefix + key]
            if field.types[0] == gguf.GGUFValueType.ARRAY:
                of = {"STRING": "string", "FLOAT32": "f32", "INT32": "i32"}[field.types[-1].name]
                assert value == f"{len(field.data)} x {of}"
            elif field.types[0] == gguf.GGUFValueType.FLOAT32:
                assert np.float32(value) == np.float32(field.contents()), key
            else:
                assert value == field.contents() and type(value) is type(field.contents()), key

    assert len(report["tensors"]) == len(reader.tensors)
    for told, tensor in zip(report["tensors"], reader.tensors):
        assert told.keys() == {"name", "type", "shape", "offset", "bytes"}
        assert (told["name"], told["type"]) == (tensor.name, tensor.tensor_type.name)
        assert told["shape"] == [int(n) for n in reversed(tensor.shape)]
        assert bytes_at(path, told) == tensor.data.tobytes()
    matrices = {t.name: t.n_bytes for t in reader.tensors if len(t.shape) == 2}
    if not kind.tied:
        del matrices["token_embd.weight"]               # only a row of it
    check_memory(report, path, kind.config, matrices)


@pytest.mark.parametrize("name", [name for name in make_models.NAMES if name.endswith(".bin")])
def test_info_of_a_llama2c_file(name, models, run):
    path = models / name
    report, (config, arrays) = report_of(run(path, "-m", "info", "--json")), reference.read_llama2c(path)
    version = int(name.partition("-v")[2][:1] or 0)
    group = int(name.partition("-")[0][1:]) if version == 2 else None
    assert report.keys() == INFO | {"memory"}
    assert (report["format"], report["version"], report["architecture"]) == ("llama2.c", version, "llama")
    assert (report["norm"], report["tokenizer"]) == ("rmsnorm", {})
    told = {field: getattr(config, field) for field in reference.HEADER}
    assert report["config"] == told | ({"group_size": group} if group else {})
    assert report["parameters"] == sum(a.size for name, a in arrays.items() if name != "angles")

    wanted = {}
    for name, array in arrays.items():
        if name in ("embedding", "final_norm", "classifier"):
            wanted[reference.GGUF_NAMES[name]] = array
        elif name != "angles":
            wanted |= {f"blk.{l}.{reference.GGUF_NAMES[name]}": array[l] for l in range(config.n_layers)}
    tensors = {tensor["name"]: tensor for tensor in report["tensors"]}
    assert tensors.keys() == wanted.keys() and len(tensors) == len(report["tensors"])
    for name, array in wanted.items():
        assert tensors[name]["shape"] == list(array.shape)
        data = bytes_at(path, tensors[name])
        if group and array.ndim == 2:
            assert tensors[name]["type"] == "Q8"
            q, scales = np.frombuffer(data, "<i1", array.size), np.frombuffer(data, "<f4", offset=array.size)
            assert np.array_equal(q * np.repeat(scales, group), array.ravel())
        else:
            assert tensors[name]["type"] == "F32"
            assert data == array.tobytes()
    own = "classifier" in arrays
    matrices = {name: tensors[name]["bytes"] for name, array in wanted.items()
                if array.ndim == 2 and not (own and name == "token_embd")}
    check_memory(report, path, config, matrices)


def lines_of(outcome):
    """The lines of a report for people: {what stands at the margin or in a group: the rest of the line}."""
    assert (outcome.status, outcome.stderr) == (0, ""), outcome
    found, group = {}, ""
    for line in outcome.stdout.decode().splitlines():
        name, _, rest = line.strip().partition(" ")
        group = "" if line[0] != " " else group
        found[group + name] = rest.strip()
        if line[0] != " " and not rest:
            group = f"{name}/"
    return found


def in_bytes(n):
    """With a unit of the SI, to three digits."""
    for power, unit in (3, "kB"), (6, "MB"), (9, "GB"), (12, "TB"):
        if n >= 1000 and n / 10**power < 999.5:
            return f"{n} bytes ({n / 10**power:.3g} {unit})"
    return f"{n} bytes"


@pytest.mark.parametrize("name", make_models.NAMES)
def test_info_says_the_same_to_people(name, models, run, run_layernorm):
    report = report_of(run(models / name, "-m", "info", "--json"))
    outcome = run(models / name, "-m", "info")
    assert run_layernorm(models / name, "-m", "info") == outcome, "it is about the file, not the program"
    lines = lines_of(outcome)
    for key in INFO - {"config", "tokenizer", "tensors"}:
        assert lines[key] == str(report[key])
    for group in ("config", "tokenizer", "memory"):
        for key, value in report[group].items():
            if group == "memory" and key != "context":
                assert lines[f"memory/{key}"] == in_bytes(value)
                continue
            text = f"{value:.9g}" if isinstance(value, float) else str(value)
            assert lines[f"{group}/{key}"] == (text.lower() if isinstance(value, bool) else text), key
    for tensor in report["tensors"]:
        shape = " x ".join(map(str, tensor["shape"]))
        line = " ".join(lines[f"tensors/{tensor['name']}"].split())
        assert line == f"{tensor['type']} {shape} {tensor['bytes']} bytes at {tensor['offset']}"


def test_info_of_a_vocabulary_alone(models, run):
    path = models / "vocabulary.gguf"
    report = report_of(run(path, "-m", "info", "--json"))
    assert report.keys() == INFO_GGUF | {"refused"}
    assert (report["tensors"], report["parameters"]) == ([], 0)
    assert report["tokenizer"]["ggml.tokens"] == f"{len(VOCABULARY)} x string"
    assert lines_of(run(path, "-m", "info"))["refused"] == report["refused"]
    run(path).check_refused(1, path, report["refused"], "a vocabulary alone")


def test_info_of_another_architecture(run, tmp_path):
    """Its blueprint and its tensors are told all the same, types that we cannot run too."""
    path = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_block_count(7)
    writer.add_float32("mamba.attention.layer_norm_rms_epsilon", 1e-5)
    plain = ("F16", "F32", "F64", "I8", "I16", "I32", "I64")
    # Of Q8_1 the package has an old size, 40 bytes; ggml-common.h: two halves and 32 numbers, 36.
    types = [t for t in gguf.GGMLQuantizationType if t.name not in (*plain, "Q8_1")]
    for type in types:
        block, size = gguf.GGML_QUANT_SIZES[type]
        writer.add_tensor(f"a.{type.name}", np.zeros((3, 2 * size), np.uint8), raw_dtype=type)
    for type in (np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64):
        writer.add_tensor(f"four.{np.dtype(type)}", np.zeros((2, 3, 4, 5), type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    report = report_of(run(path, "-m", "info", "--json"))
    assert (report["architecture"], report["norm"]) == ("mamba", "rmsnorm")
    assert report["config"]["block_count"] == 7
    for told, tensor in zip(report["tensors"], gguf.GGUFReader(path).tensors, strict=True):
        assert (told["name"], told["type"]) == (tensor.name, tensor.tensor_type.name)
        assert (told["shape"], told["bytes"]) == ([int(n) for n in reversed(tensor.shape)], tensor.n_bytes)
        assert told["offset"] == tensor.data_offset
    for word in ("mamba", "llama", "stablelm"):
        assert word in report["refused"]
    run(path).check_refused(1, path, "mamba", "llama", "stablelm")


def test_info_of_odd_metadata(run, tmp_path):
    """Every type of value at its ends; text with quotes, lines, bytes that are no UTF-8; what JSON lacks."""
    T = gguf.GGUFValueType
    values = {f"{t.name}.{value}": (value, t) for t, bits in (
        (T.UINT8, 8), (T.UINT16, 16), (T.UINT32, 32), (T.UINT64, 64)) for value in (0, 2**bits - 1)}
    values |= {f"{t.name}.{value}": (value, t) for t, bits in (
        (T.INT8, 8), (T.INT16, 16), (T.INT32, 32), (T.INT64, 64))
        for value in (-2**(bits - 1), -1, 2**(bits - 1) - 1)}
    reals = T.FLOAT32, T.FLOAT64
    values |= {f"{t.name}.{value}": (value, t) for t in reals for value in (0.5, -1.5e-30, 1 / 3)}
    values |= {"yes": (True, T.BOOL), "no": (False, T.BOOL)}
    values |= {"empty": ("", T.STRING), "Zoë": ("你好 🦙", T.STRING)}
    values |= {"text": ("a \"quoted\" \\ back\nline\ttab\x1b[31m\x7f", T.STRING)}
    no_json = {f"{t.name}.{value}": (value, t) for t in reals for value in (math.inf, -math.inf, math.nan)}
    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "odd")
    for key, (value, type) in (values | no_json).items():
        writer.add_key_value(f"odd.{key}", value, type)
    writer.add_key_value("odd.bytes", b"a\xff\xfeb", T.STRING)
    writer.add_array("odd.array", [1, 2, 3])
    writer.add_array("odd.nested", [[1, 2], [3]])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    config = report_of(run(path, "-m", "info", "--json"))["config"]
    for key, (value, type) in values.items():
        if type == T.FLOAT32:
            assert np.float32(config[key]) == np.float32(value), key
        else:
            assert config[key] == value, key
    assert [config[key] for key in no_json] == [None] * len(no_json)
    assert config["bytes"] == "a\ufffd\ufffdb"
    assert (config["array"], config["nested"]) == ("3 x i32", "2 x array")
    assert len(config) == len(values) + len(no_json) + 3

    outcome = run(path, "-m", "info")
    lines = lines_of(outcome)
    assert not set(outcome.stdout) & {*range(10), *range(11, 32), 127}, "no control characters"
    assert lines["config/UINT64.18446744073709551615"] == "18446744073709551615"
    assert lines["config/INT64.-9223372036854775808"] == "-9223372036854775808"
    assert (lines["config/yes"], lines["config/no"]) == ("true", "false")


def test_info_of_a_chat_template(models, run, tmp_path):
    """It is called by its family's name."""
    path = tmp_path / "model.gguf"
    arrays = make_models.arrays_of(KINDS["heads"])
    for template, family in (("<|im_start|>user\n{{ x }}<|im_end|>", "chatml"), ("{{ x }}", None)):
        make_models.write_gguf(path, KINDS["heads"], arrays, {"tokenizer.chat_template": template})
        assert report_of(run(path, "-m", "info", "--json")).get("chat") == family


def test_info_of_keys_without_a_home(models, run, tmp_path):
    """Those that belong neither to the file, the model nor the vocabulary are not kept secret."""
    path = tmp_path / "model.gguf"
    arrays = make_models.arrays_of(KINDS["heads"])
    make_models.write_gguf(path, KINDS["heads"], arrays, {"quantize.imatrix.file": "wiki.dat"})
    assert report_of(run(path, "-m", "info", "--json"))["other"] == {"quantize.imatrix.file": "wiki.dat"}
    assert lines_of(run(path, "-m", "info"))["other/quantize.imatrix.file"] == "wiki.dat"


def test_info_refuses_what_is_no_model(models, run, tmp_path):
    path = tmp_path / "file"
    for data, word in ((b"", "empty"), (b"<html>", "web page"), (b"GGUF", "complete"), (bytes(100), "0")):
        path.write_bytes(data)
        for form in ([], ["--json"]):
            run(path, "-m", "info", *form).check_refused(1, path, word)
    run(tmp_path / "missing", "-m", "info").check_refused(1, tmp_path / "missing")


# ---------------------------------------------------------------------------- a text, for programs

GENERATED = {"text", "ids", "logprobs", "top", "stop", "seed", "hash", "prompt", "prompt_ids", "context",
             "norm", "kernels"}


def log_softmax(logits):
    """Of each row, in double precision."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("options", [["-t", 0], ["-s", 7, "-t", 1.3], ["-k", 5, "--repeat-penalty", 1.3]])
@pytest.mark.parametrize("name", ["gqa-v0-untied.bin", "mqa-tied.gguf", "heads.gguf", "Q8_0.gguf",
                                  "stablelm.gguf"])
def test_log_probabilities(name, options, models, run, run_layernorm):
    """Those of reference.py, whatever the sampler makes of them; and the likeliest are, in order."""
    path, prompt, n, top = models / name, "Once there was", 20, 4
    model = reference.load(path, round_inputs=True)
    program = run_layernorm if model.config.norm == "layernorm" else run
    options = [path, "-i", prompt, "-n", n, "--kv", "f32", "--ignore-eos", "-q", *options]
    report = report_of(program(*options, "--json", "--top", top))
    assert report.keys() == GENERATED and report["norm"] == model.config.norm
    tokens = report_of(run(path, "-m", "tokenize", "-i", prompt, "--json"))["tokens"]
    assert (report["prompt"], report["prompt_ids"]) == (prompt, [BOS, *tokens])
    assert report["stop"] == "limit" and len(report["ids"]) == n

    ids = report["prompt_ids"] + report["ids"]
    wanted = log_softmax(reference.logits(model, ids))[len(tokens):-1]
    assert len(wanted) == len(report["logprobs"]) == len(report["top"]) == n
    assert report["logprobs"] == pytest.approx(wanted[np.arange(n), report["ids"]], abs=1e-4)
    for row, best in zip(wanted, report["top"]):
        assert [entry["logprob"] for entry in best] == pytest.approx(np.sort(row)[:-top - 1:-1], abs=1e-4)
        for entry in best:
            assert entry["logprob"] == pytest.approx(row[entry["id"]], abs=1e-4)
            byte, spelled = entry["id"] - 3, VOCABULARY[entry["id"]]
            assert entry["text"] == (chr(byte) if 0 <= byte < 128 else spelled)


def test_a_text_for_programs_is_the_text(models, run):
    """The same bytes, seed and hash as for people; what is no character is U+FFFD."""
    options = models / "gqa-v0-untied.bin", "-i", "the Lion", "-s", 2**64 - 1, "-n", 30
    told, report = run(*options), report_of(run(*options, "-q", "--json"))
    assert report["prompt"] + report["text"] + "\n" == told.stdout.decode(errors="replace")
    assert report["top"] == [] and len(report["logprobs"]) == len(report["ids"]) <= 30
    assert report["seed"] == 2**64 - 1 and report["hash"] == told.statistic("hash")
    assert f"context {report['context']}" in told.stderr and f"kernels {report['kernels']}" in told.stderr
    loud = run(*options, "--json")
    assert json.loads(loud.stdout) == report and loud.statistic("hash") == report["hash"]
    traced = run(*options, "--json", "--trace=json")
    assert json.loads(traced.stdout) == report and traced.stderr.startswith("{")


def test_why_a_text_ended(models, run, tmp_path):
    """eos, stop, limit, full; --ignore-eos goes on where the first would be."""
    path, kind = tmp_path / "model.gguf", KINDS["heads"]
    plain = ["-i", "the", "-t", 0, "--json", "-q"]
    first = report_of(run(models / "heads.gguf", *plain, "-n", 12))
    assert first["stop"] == "limit" and len(first["ids"]) == 12
    eot = first["ids"][5]                               # from now on it ends a text
    count = first["ids"].index(eot)
    make_models.write_gguf(path, kind, make_models.arrays_of(kind), {"tokenizer.ggml.eot_token_id": eot})
    ended = report_of(run(path, *plain, "-n", 12))
    assert ended["stop"] == "eos" and ended["ids"] == first["ids"][:count]
    assert first["text"].startswith(ended["text"]) and ended["logprobs"] == first["logprobs"][:count]
    on = report_of(run(path, *plain, "-n", 12, "--ignore-eos"))
    assert on["stop"] == "limit" and eot not in on["ids"] and on["ids"][:count] == ended["ids"]
    full = report_of(run(path, *plain, "-n", -1, "-c", 9, "--ignore-eos"))
    assert full["stop"] == "full"
    assert len(full["prompt_ids"]) + len(full["ids"]) == 10     # of which the last is not fed
    none = report_of(run(path, *plain, "-n", 0))
    assert (none["stop"], none["ids"], none["text"], none["logprobs"]) == ("limit", [], "", [])


def test_an_interrupted_text_says_so(models, run):
    options = "-i", "Once", "-n", -1, "-c", 100000, "--ignore-eos", "--json", "-q"
    process = run.start(models / "wide.bin", *options)
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    report = json.loads(run.finish(process).stdout)
    assert report["stop"] == "interrupt" and len(report["ids"]) == len(report["logprobs"])


@pytest.mark.parametrize("cut", range(1, 12))
def test_stop_texts(cut, models, run):
    """The text ends before the first of them, wherever tokens end; the prompt may hold them."""
    options = models / "mqa-tied.gguf", "-i", "Once", "-s", 5, "-n", 40, "--ignore-eos", "-q"
    plain = run(*options).stdout.removeprefix(b"Once").removesuffix(b"\n")
    ascii = "".join(chr(c) for c in plain if 32 < c < 127)
    assert len(ascii) > 12
    stop = next(plain[i:i + n] for n in (3, 2, 1) for i in range(cut, len(plain) - 3)
                if all(32 < c < 127 for c in plain[i:i + n]))
    for stops in ([stop], [b"nowhere", stop], [stop, plain[-2:]], [stop + b"nowhere", stop], [b"Once", stop]):
        if any(b"\0" in s or not s.isascii() for s in stops):
            continue
        given = [word for s in stops for word in ("--stop", s)]
        text = plain[:min(plain.find(s) for s in stops if s in plain)]
        assert run(*options, *given) == (0, b"Once" + text + b"\n", ""), stops
        report = report_of(run(*options, *given, "--json"))
        assert report["stop"] == "stop" and report["text"] == text.decode(errors="replace")
    held = plain[-1:] + b"and more"                     # begins at the very end: what was held back comes
    if b"\0" not in held:
        assert run(*options, "--stop", held).stdout == b"Once" + plain + b"\n"


def test_the_likeliest_for_readers(models, run):
    """A line for each token on standard error, after the text."""
    options = models / "gqa-v0-untied.bin", "-i", "Once", "-n", 5, "-t", 0, "-q", "--ignore-eos"
    report, told = report_of(run(*options, "--json", "--top", 3)), run(*options, "--top", 3)
    assert told.stdout == run(*options).stdout
    lines = told.stderr.splitlines()
    assert len(lines) == 5
    for i, (line, best) in enumerate(zip(lines, report["top"])):
        position = len(report["prompt_ids"]) + i
        row = ", ".join(f"{json.dumps(e['text'], ensure_ascii=False)} {100 * math.exp(e['logprob']):.2f} %"
                        for e in best)
        assert line.replace("\\u007f", "\x7f") == f"top {position:5}  {row.split(' %')[0]} % of {row}"
    run(*options, "--top", 3, "--trace=json").check_refused(2, "--top", "--json")
    assert len(report_of(run(*options, "--json", "--top", 100))["top"][0]) == 100


# ---------------------------------------------------------------------------- tokenize

@pytest.mark.parametrize("text", ["", " ", "the Lion", "Zoë's café — 你好 🦙\n"])
def test_tokens(text, models, run, run_layernorm):
    """The same ids from any file that holds this vocabulary, with weights and without, in either form."""
    bin, tokenizer, alone = models / "gqa-v0-tied.bin", models / "tokenizer.bin", models / "vocabulary.gguf"
    calls = [(bin,), (models / "gqa-tied.gguf",), (models / "stablelm.gguf",), (alone,), (bin, "-z", alone),
             (models / "gqa-tied.gguf", "-z", tokenizer), (alone, "-z", tokenizer),
             (tokenizer, "-z", tokenizer)]
    plain = run(bin, "-m", "tokenize", "-i", text)
    assert (plain.status, plain.stderr) == (0, "")
    ids = [int(id) for id in plain.stdout.split()]
    assert bool(ids) == bool(text)
    for call in calls:
        assert run(*call, "-m", "tokenize", "-i", text) == plain, call
        pieces = [chr(id - 3) if 3 <= id < 3 + 128 else VOCABULARY[id] for id in ids]      # a byte of ASCII
        report = report_of(run(*call, "-m", "tokenize", "-i", text, "--json"))
        assert report == {"tokens": ids, "pieces": pieces}, call
    assert run_layernorm(alone, "-m", "tokenize", "-i", text) == plain


def test_pieces(models, run):
    """A line for each token: its id, and its text in quotation marks as JSON has them."""
    options = models / "gqa-v0-untied.bin", "-m", "tokenize", "-i", 'the "é" 你\n'
    report = report_of(run(*options, "--json"))
    outcome = run(*options, "--pieces")
    assert (outcome.status, outcome.stderr) == (0, "")
    lines = [line.split(None, 1) for line in outcome.stdout.decode().splitlines()]
    assert [int(id) for id, _ in lines] == report["tokens"]
    assert [json.loads(text) for _, text in lines] == report["pieces"]
    assert report["pieces"] == [" the", " ", '"', "é", '"', " ", "<0xE4>", "<0xBD>", "<0xA0>", "\n"]
    assert run(*options, "--pieces", "--json") == run(*options, "--json")


def test_a_tokenizer_for_a_gguf(models, run, tmp_path):
    """-z takes the place of the vocabulary inside, and has to fit."""
    model, wrong = models / "gqa-untied.gguf", tmp_path / "wrong.bin"
    inside = run(model, "-t", 0, "-i", "the", "-q")
    assert run(model, "-t", 0, "-i", "the", "-q", "-z", models / "tokenizer.bin") == inside
    assert run(model, "-t", 0, "-i", "the", "-q", "-z", models / "vocabulary.gguf") == inside
    bin, alone = models / "gqa-v0-untied.bin", models / "vocabulary.gguf"
    assert run(bin, "-t", 0, "-i", "the", "-q", "-z", alone) == inside
    make_models.write_tokenizer(wrong, make_models.pieces()[:-1])
    run(model, "-z", wrong).check_refused(1, wrong, len(VOCABULARY), len(VOCABULARY) - 1)


# ---------------------------------------------------------------------------- perplexity

PERPLEXITY = {"perplexity", "stderr", "tokens", "windows", "all_windows", "interrupted", "context", "seconds",
              "norm", "kernels"}


@pytest.mark.parametrize("name, context", [
    ("gqa-v0-untied.bin", 64), ("gqa-untied.gguf", 17), ("mqa-tied.gguf", 600), ("g32-v2-tied.bin", 16),
    ("heads.gguf", 4), ("llama3.gguf", 33), ("stablelm-partial.gguf", 32), ("F16.gguf", 32),
    ("Q8_0.gguf", 32), ("mixed.gguf", 32),
])
def test_perplexity(name, context, models, run, run_layernorm, tmp_path):
    """What reference.py computes over the same windows. mqa's are longer than what is read together."""
    model = reference.load(models / name, round_inputs=True)
    program, text = (run_layernorm if model.config.norm == "layernorm" else run), TEXT * 3
    if context == 600:
        text = TEXT * 25
    (tmp_path / "text").write_text(text)
    args = models / name, "-m", "perplexity", "-f", tmp_path / "text", "-c", context, "--kv", "f32"
    loud = program(*args)
    assert loud.status == 0 and model.config.norm in loud.stderr
    quiet = program(*args, "-q")
    assert quiet == (0, loud.stdout, "")

    ids = [BOS, *report_of(run(models / "vocabulary.gguf", "-m", "tokenize", "-i", text, "--json"))["tokens"]]
    value, error, tokens = reference.perplexity(model, ids, context, BOS)
    report = report_of(program(*args, "-q", "--json"))
    assert report.keys() == PERPLEXITY
    assert report["perplexity"] == pytest.approx(value, rel=5e-4)
    assert report["stderr"] == pytest.approx(error, rel=2e-3)
    assert (report["tokens"], report["windows"], report["context"]) == (tokens, len(ids) // context, context)
    assert report["windows"] >= 2 and tokens == report["windows"] * (context - context // 2 - 1)
    assert report["all_windows"] == report["windows"] and report["interrupted"] is False
    assert report["norm"] == model.config.norm and report["kernels"] and report["seconds"] > 0
    words = quiet.stdout.decode().split()
    assert words == (f"perplexity {report['perplexity']:.4f} +/- {report['stderr']:.4f} "
                     f"over {tokens} tokens in {report['windows']} windows of {context}").split()


def test_perplexity_by_the_other_norm(models, run_layernorm):
    text, alone = TEXT * 3, models / "vocabulary.gguf"
    args = models / "gqa-untied.gguf", "-m", "perplexity", "-i", text, "-c", 32, "--kv", "f32", "--json", "-q"
    run_layernorm(*args).check_refused(1, "--swap-norm")
    report = report_of(run_layernorm(*args, "--swap-norm"))
    tokens = report_of(run_layernorm(alone, "-m", "tokenize", "-i", text, "--json"))["tokens"]
    wanted, _, _ = reference.perplexity(reference.load(args[0]), [BOS, *tokens], 32, BOS, "layernorm")
    assert (report["norm"], report["perplexity"]) == ("layernorm", pytest.approx(wanted, rel=5e-4))


def test_perplexity_without_bos(models, run, tmp_path):
    """Where the file wants no BOS in front, the first id of a window stays."""
    kind, path = KINDS["heads"], tmp_path / "model.gguf"
    make_models.write_gguf(path, kind, make_models.arrays_of(kind), {"tokenizer.ggml.add_bos_token": False})
    ids = report_of(run(path, "-m", "tokenize", "-i", TEXT * 3, "--json"))["tokens"]
    report = report_of(run(path, "-m", "perplexity", "-i", TEXT * 3, "-c", 16, "--kv", "f32", "--json", "-q"))
    wanted, _, _ = reference.perplexity(reference.load(path), ids, 16)
    assert report["perplexity"] == pytest.approx(wanted, rel=5e-4)
    with_bos, _, _ = reference.perplexity(reference.load(path), [BOS, *ids], 16, BOS)
    assert abs(with_bos / wanted - 1) > 0.01            # this test can fail


def test_perplexity_of_too_little(models, run):
    model = models / "heads.gguf"
    run(model, "-m", "perplexity", "-i", "the", "-c", 16).check_refused(1, "2 tokens", 16)
    run(model, "-m", "perplexity").check_refused(2, "which text")
    run(model, "-m", "perplexity", "-i", TEXT * 3, "-c", 3).check_refused(1, "context of 3")
    assert report_of(run(model, "-m", "perplexity", "-i", TEXT * 3, "-c", 4, "--json", "-q"))["tokens"] > 0


def test_perplexity_beyond_numbers(run, tmp_path):
    """Logits of 1e5 are numbers, what follows from them is none that JSON could write."""
    shutil.copy(ROOT / "models/stories-rmsnorm.gguf", tmp_path / "model.gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf", "r+")
    (norm,) = (tensor for tensor in reader.tensors if tensor.name == "output_norm.weight")
    norm.data[:] *= 1e4
    reader.data.flush()
    (tmp_path / "text").write_text("colourless green ideas sleep furiously " * 9)
    options = "-m", "perplexity", "-f", tmp_path / "text", "-c", 64, "--json", "-q"
    report = report_of(run(tmp_path / "model.gguf", *options))
    assert report["perplexity"] is None and report["stderr"] is None and report["tokens"] > 0


# ---------------------------------------------------------------------------- bench

def test_bench(models, run):
    """Rates that belong together: nobody has more of one processor than there is time."""
    report = report_of(run(models / "gqa-tied.gguf", "-m", "bench", "--json", "-q", "-j", 1, "-c", 40))
    assert report.keys() == {"prefill", "decode", "read_limit_gb_per_s", "share", "norm_ns", "load_ms",
                             "peak_bytes", "norm", "kernels", "threads", "interrupted"}
    assert report["interrupted"] is False
    assert report["prefill"].keys() == {"tokens", "runs", "cpu_runs", "mean", "sd", "share", "norm_ns"}
    assert report["decode"].keys() == {"tokens", "runs", "cpu_runs", "mean", "sd", "gb_per_s",
                                       "read_limits_gb_per_s"}
    limits = report["decode"]["read_limits_gb_per_s"]
    assert len(limits) == 5 and all(0 < limit < 1e4 for limit in limits)
    assert report["read_limit_gb_per_s"] == pytest.approx(sum(limits) / 5)
    for phase in (report["prefill"], report["decode"]):
        assert phase["tokens"] == 20 and len(phase["runs"]) == len(phase["cpu_runs"]) == 5
        assert all(0 < wall <= 1.05 * cpu for wall, cpu in zip(phase["runs"], phase["cpu_runs"])), phase
        assert phase["mean"] == pytest.approx(sum(phase["runs"]) / 5)
    for share in (report["share"], report["prefill"]["share"]):
        assert list(share) == ["norm", "attention", "ffn", "matmul", "other"]
        assert all(part > 0 for part in share.values()) and 0.8 < sum(share.values()) <= 1.001
    # A norm's time and its share are of the same run: 7 norms of each token, but the prompt's last, alone.
    for norm_ns, share, phase, norms in (
            (report["norm_ns"], report["share"], report["decode"], 7),
            (report["prefill"]["norm_ns"], report["prefill"]["share"], report["prefill"], 6 + 1 / 20)):
        fastest = 1e9 / max(phase["cpu_runs"])
        assert 0 < norm_ns and norm_ns * norms / share["norm"] > 0.2 * fastest


def test_bench_for_readers(models, run):
    lines = lines_of(run(models / "gqa-tied.gguf", "-m", "bench", "-j", 1, "-c", 40))
    assert {"prefill", "decode", "weights", "decoding", "load"} <= set(lines), lines
    once = lines_of(run(models / "gqa-tied.gguf", "-m", "bench", "-j", 1, "-c", 40, "-n", 1))
    assert "1 runs" in once["decode"], once
    run(models / "gqa-tied.gguf", "-m", "bench", "-c", 1).check_refused(1, "context of 1")
    for runs in (-1, 0, 17):
        run(models / "gqa-tied.gguf", "-m", "bench", "-n", runs).check_refused(2, "-n", "1 to 16")


# ---------------------------------------------------------------------------- what cannot be run

def test_unknown_modes(models, run):
    for mode in ("talk", "INFO", "perp"):
        outcome = run(models / "heads.gguf", "-m", mode)
        outcome.check_refused(2, mode, "generate", "perplexity", "tokenize", "info")


STABLELM = KINDS["stablelm"]
REFUSED = {            # {what: kind, keys that are added or the part that is left out, words in the sentence}
    "another architecture": (replace(KINDS["heads"], architecture="gpt2"), {}, ["gpt2", "llama", "stablelm"]),
    "part of a split model": (KINDS["heads"], {"split.count": 3, "split.no": 1}, ["split", "join"]),
    "experts": (KINDS["heads"], {"llama.expert_count": 8}, ["experts"]),
    "parallel residuals": (STABLELM, {"stablelm.use_parallel_residual": True}, ["parallel residual"]),
    "parallel residuals, unsaid": (STABLELM, "ffn_norm", ["parallel residual", "ffn_norm"]),
    "yarn": (KINDS["heads"], {"llama.rope.scaling.type": "yarn"}, ["yarn", "linear", "llama3"]),
    "another width of values": (KINDS["gqa-tied"], {"llama.attention.value_length": 8}, ["value_length"]),
    "an odd rotation": (KINDS["heads"], {"llama.rope.dimension_count": 7}, ["dimension_count", "7", "even"]),
    "too wide a rotation": (KINDS["heads"], {"llama.rope.dimension_count": 18}, ["dimension_count", "18"]),
    "no context": (KINDS["heads"], "context_length", ["context_length"]),
    "no final norm": (KINDS["heads"], "final_norm", ["output_norm.weight"]),
    "no key weights": (KINDS["heads"], "wk", ["attn_k.weight"]),
    "no embedding": (KINDS["heads"], "embedding", ["token_embd.weight"]),
    "llama with layernorm": (replace(STABLELM, architecture="llama"), {}, ["layer_norm_rms_epsilon"]),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_name(what, run, tmp_path, monkeypatch):
    """Running it is refused in one sentence, and info, which describes the file, has the same sentence."""
    kind, more, words = REFUSED[what]
    arrays, path = make_models.arrays_of(kind), tmp_path / "model.gguf"
    if more == "context_length":
        monkeypatch.setattr(gguf.GGUFWriter, "add_context_length", lambda *_: None)
    elif isinstance(more, str):
        del arrays[more]
        arrays.pop(f"{more}_bias", None)
    make_models.write_gguf(path, kind, arrays, more if isinstance(more, dict) else {})
    outcome = run(path, "--swap-norm")
    outcome.check_refused(1, path, *words)
    report = report_of(run(path, "-m", "info", "--json"))
    assert outcome.stderr == f"run: {path}: {report['refused']}\n"


def test_legal_oddities(models, run, tmp_path):
    """Keys and tensors nobody knows, a split of one, no experts: the model runs as it does without them."""
    kind, path = KINDS["heads"], tmp_path / "model.gguf"
    more = {"split.count": 1, "llama.expert_count": 0, "who.knows": "nobody",
            "tokenizer.ggml.padding_token_id": 2**32 - 1, "tokenizer.ggml.add_bos_token": True,
            "llama.rope.scaling.type": "none", "llama.vocab_size": len(VOCABULARY)}
    arrays = make_models.arrays_of(kind)
    make_models.write_gguf(path, kind, arrays, more)
    plain, odd = (run(file, "-t", 0, "-i", "the") for file in (models / "heads.gguf", path))
    assert (odd.status, odd.stdout, odd.statistic("hash")) == (0, plain.stdout, plain.statistic("hash"))
    path.write_bytes(path.read_bytes() + b"more")       # after the last tensor
    assert run(path, "-t", 0, "-i", "the").statistic("hash") == plain.statistic("hash")
