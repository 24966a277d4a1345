"""peer.py - what -m bench measures, of llama.cpp: a prompt is read, and text written after it, some times.

    python3 bench/peer.py MODEL [-j N] [-r RUNS]
    python3 bench/peer.py --about

As it comes, but for the number of threads: mapped file, cache of F16, flash attention as it decides, weights
laid out anew at load where it likes. The report on standard output is JSON.
"""

import argparse
import ctypes
import json
import resource
import sys
import time

import llama_cpp as llama

PROMPT, WRITTEN = 512, 128                              # tokens, as -m bench has them


def about():
    return {"version": f"llama-cpp-python {llama.__version__}",
            "system_info": " ".join(llama.llama_print_system_info().decode().split())}


def load(path, threads):
    options = llama.llama_model_default_params()
    options.n_gpu_layers = 0
    options.load_mode = llama.LLAMA_LOAD_MODE_MMAP
    model = llama.llama_model_load_from_file(path.encode(), options)
    if not model:
        sys.exit(f"peer.py: llama.cpp does not load {path}")
    options = llama.llama_context_default_params()      # flash attention auto, keys and values of F16
    options.n_ctx = PROMPT + WRITTEN
    options.n_batch = options.n_ubatch = PROMPT
    options.n_threads = options.n_threads_batch = threads
    context = llama.llama_init_from_model(model, options)
    if not context:
        sys.exit(f"peer.py: llama.cpp has no memory for {path}")
    return model, context


def feed(context, ids):
    """The logits of the last one are what we wait for."""
    tokens = (ctypes.c_int32 * len(ids))(*ids)          # the batch only points there
    if llama.llama_decode(context, llama.llama_batch_get_one(tokens, len(ids))):
        sys.exit("peer.py: llama.cpp failed to decode")
    llama.llama_synchronize(context)
    return llama.llama_get_logits_ith(context, -1)


def measure(context, vocab_size):
    """(tokens/s of reading, of writing)"""
    ids = [i * 11 % vocab_size for i in range(PROMPT)]
    llama.llama_memory_clear(llama.llama_get_memory(context), True)
    started = time.perf_counter()
    feed(context, ids)
    read = time.perf_counter()
    for i in range(WRITTEN):
        logits = feed(context, [i * 7 % vocab_size])
    end = time.perf_counter()
    assert all(abs(logits[i]) < 1e6 for i in range(vocab_size)), "the logits are not finite"
    return PROMPT / (read - started), WRITTEN / (end - read)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--about", action="store_true", help="the version, and what it was built with")
    parser.add_argument("-j", type=int, default=1, help="threads")
    parser.add_argument("-r", type=int, default=5, help="runs, after one that warms up")
    given = parser.parse_args()
    quiet = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    llama.llama_backend_init()
    if given.about or not given.model:
        print(json.dumps(about()))
        return
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    model, context = load(given.model, given.j)
    vocab_size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    runs = [measure(context, vocab_size) for _ in range(given.r + 1)][1:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({
        "prefill": {"tokens": PROMPT, "runs": [read for read, _ in runs]},
        "decode": {"tokens": WRITTEN, "runs": [wrote for _, wrote in runs]},
        "peak_bytes": peak, "python_bytes": before, "threads": given.j,
    }))
    sys.stdout.flush()
    llama.llama_free(context)
    llama.llama_model_free(model)


if __name__ == "__main__":
    main()
