"""relink.py - a program once more, from the same objects in another order.

Its instructions are the same, and lie elsewhere: what differs between the two is the placement of code alone.
"""

import random
import subprocess
from pathlib import Path

from lab.engine import Trouble

BUILDS = Path(__file__).resolve().parent.parent / "build"


def objects(program, norm="rmsnorm"):
    """What a build of make was linked from: the objects are in the folder of an equal program."""
    program = Path(program)
    for other in (program, *sorted(BUILDS.glob(f"*/{program.name}"))):
        folder = other.parent
        if (folder / "model.o").is_file() and other.read_bytes() == program.read_bytes():
            shared = [path for path in [*folder.glob("*.o"), *folder.glob("kernels/*.o")]
                      if not path.name.endswith(".norm.o")]
            return sorted(shared) + [folder / f"{norm}.norm.o"]
    raise Trouble(f"the objects that {program} was linked from are not there: build it with 'make'")


def link(parts, output):
    try:
        done = subprocess.run(["cc", *parts, "-o", output, "-lm", "-lpthread"], capture_output=True)
    except FileNotFoundError:
        raise Trouble("there is no compiler (cc) here that could link a program again")
    if done.returncode:
        raise Trouble("cc could not link the objects again: a build with OPENMP or SANITIZE needs its flags")
    return Path(output)


def relinked(program, folder, count, first=1):
    """So many more of RMSNorm's program, each linked in an order of its own."""
    parts = objects(program)
    return [link(random.Random(order).sample(parts, len(parts)), Path(folder) / f"relinked-{order}")
            for order in range(first, first + count)]
