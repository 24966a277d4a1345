"""provenance.py - where a report comes from: the machine, the source, the compiler, and hashes of what ran.

A reader who wants to repeat a number, or to know why theirs differs, needs these. What cannot be found out
is None, never a guess.
"""

import hashlib
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def output_of(*command):
    """Standard output of a command without the newline at its end, or None where it fails or is not there."""
    try:
        done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True)
    except OSError:
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


def now():
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def processor():
    """The model of the CPU as Linux tells it, else macOS, else the kind of processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return (named or [output_of("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()])[0]


def cores():
    """Those that this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def memory():
    """Bytes of RAM."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def load():
    """How many processes wanted a core, over the last 1, 5 and 15 minutes."""
    return [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None


def machine():
    return {"cpu": processor(), "cores": cores(), "memory": memory(), "system": platform.platform(),
            "python": platform.python_version()}


def source(root=ROOT):
    """The commit, and whether tracked files differ from it."""
    commit = output_of("git", "-C", root, "rev-parse", "HEAD")
    changed = output_of("git", "-C", root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


def file_hash(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashed(what, path):
    return {"what": what, "name": Path(path).name, "bytes": os.path.getsize(path), "sha256": file_hash(path)}


def begin(programs, models, texts, text_name, compiler, seeds):
    """What is known before anything is measured. programs: {norm: path}; models: [path]; texts: as scored,
    hashed in UTF-8 with a NUL between two; compiler: what built the programs; seeds: {for what: which}."""
    text = "\0".join(texts).encode()
    return {"started": now(), "load_at_start": load(), "machine": machine(), "source": source(),
            "compiler": compiler, "arguments": sys.argv[1:], "seeds": seeds,
            "files": [hashed("program", path) for path in programs.values()]
            + [hashed("model", path) for path in models]
            + [{"what": "text", "name": text_name, "bytes": len(text),
                "sha256": hashlib.sha256(text).hexdigest()}]}


def end(found):
    """The same with what is only known at the end."""
    return found | {"finished": now(), "load_at_end": load()}
