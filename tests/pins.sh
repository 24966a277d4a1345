#!/bin/sh
# Writes down what the tests and the lab are run with, to the version and hash of every package, those that a
# package asks for too. Whoever changes a requirements.in runs it; it needs uv (pip install uv).
#     tests/requirements.txt        what make installs in .venv, with one of
#     tests/torch-cpu.txt           torch for CPUs alone, where pip is told of an index that has it, or
#     tests/torch-pypi.txt          torch as PyPI has it, which on Linux asks for 3 GB of CUDA
#     lab/requirements.txt          what make ablate installs in .venv-lab
set -e
cd "$(dirname "$0")/.."
all=$(mktemp)
trap 'rm -f "$all"' EXIT
pins() {
    uv pip compile --quiet --no-config --no-header --universal --python-version 3.11 --generate-hashes "$1" -o "$2"
}
pins lab/requirements.in lab/requirements.txt
pins tests/requirements.in "$all"
rm -f tests/requirements.txt tests/torch-pypi.txt
awk '/^[a-z]/ { file = /^(torch=|cuda|nvidia|triton)/ ? "tests/torch-pypi.txt" : "tests/requirements.txt" }
     { print >> file }' "$all"
# The wheel of Python 3.11 on x86-64, by pip hash.
cat > tests/torch-cpu.txt <<END
$(grep "^torch==" tests/torch-pypi.txt)
    --hash=sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b
END
for file in lab/requirements.txt tests/requirements.txt tests/torch-cpu.txt tests/torch-pypi.txt; do
    sed -i '1i # Made by tests/pins.sh from requirements.in.' $file
done
