"""follow_add_a_norm.py - does what docs/add-a-norm.md says, to a copy of the tree.

Before each block of code the page says, in a comment, where it goes: "FILE, before: TEXT" or "FILE, instead
of: TEXT", or that it is to be run.    usage: python3 tests/follow_add_a_norm.py [name=value for make ...]
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"<!-- (.*?) -->\n```\w*\n(.*?)```", re.S)


def follow(folder, *variables):
    for name in ("kernels", "tests", "models"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*ROOT.glob("*.[ch]"), ROOT / "Makefile"]:
        shutil.copy(path, folder)
    page = (ROOT / "docs" / "add-a-norm.md").read_text()
    blocks = BLOCK.findall(page)
    assert len(blocks) == page.count("```") // 2, "a block of code does not say where it goes"
    for where, code in blocks:
        if where == "run":
            for line in code.splitlines():
                words = " ".join(variables) if line.startswith("make ") else ""
                print(f"$ {line}", flush=True)
                subprocess.run(f"{line} {words}", shell=True, check=True, cwd=folder)
            continue
        name, how, there = re.fullmatch(r"(\S+), (before|instead of): (.*)", where).groups()
        text = (folder / name).read_text()
        assert text.count(there) == 1, f"{there!r} stands {text.count(there)} times in {name}"
        code = code + there if how == "before" else code.rstrip("\n")
        (folder / name).write_text(text.replace(there, code))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        follow(Path(folder), *sys.argv[1:])
