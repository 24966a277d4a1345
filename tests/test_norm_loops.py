"""What compilers make of kernels/norms.h: RMSNorm sums squares and nothing else, LayerNorm numbers, too.

A sum that nobody asked for changes no output, only the time, so no other test sees it.
"""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="reads the assembler code of x86-64")


@pytest.fixture(scope="module", params=["gcc", "clang"])
def compiler(request):
    if not shutil.which(request.param):
        pytest.skip(f"there is no {request.param}")
    return request.param


@pytest.fixture(scope="module", params=["portable", "avx2", "avx512"])
def assembler(request, compiler, tmp_path_factory):
    """A set of kernels as this compiler's assembler code, by the flags of the Makefile."""
    file = tmp_path_factory.mktemp("build") / "kernels" / f"{request.param}.o"
    # The compiler is found by PATH. All else of the environment stays out: a make that calls us passes its
    # own variables on, such as SANITIZE, and a sanitizer's additions are not those of the loop.
    subprocess.run(["make", "-s", f"CC={compiler}", "CFLAGS=-O3 -S", f"BUILD={file.parent.parent}", file],
                   cwd=ROOT, env={"PATH": os.environ["PATH"]}, check=True)
    return file.read_text()


def sums(assembler, function):
    """How many registers full of squares the function adds up, and how many other additions it has.

    A square is added by a multiplication and an addition, or by one instruction that does both.
    """
    [body] = re.findall(rf"^{function}:.*?^\s+\.size\s+{function},", assembler, re.M | re.S)
    multiplied, added, both = (len(re.findall(rf"^\s+{name}\s", body, re.M))
                               for name in ("v?mulps", "v?addps", r"vfmadd\d+ps"))
    return multiplied + both, added - multiplied


# However often a compiler unrolls a loop: SUMS registers take SUMS - 1 additions in the end, fewer than there
# are squares; the sum of the numbers takes one more for each square.


def test_rmsnorm_adds_squares_only(assembler):
    squares, others = sums(assembler, "mean_square_loop")
    assert squares >= 4 and others < squares, f"{squares} squares, and {others} additions besides"


def test_layernorm_adds_numbers_and_squares(assembler):
    """The additions are found where they have to be."""
    squares, others = sums(assembler, "variance_loop")
    assert squares >= 4 and others >= squares, f"{squares} squares, and {others} additions besides"
