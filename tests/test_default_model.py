"""test_default_model.py - the model it comes with is found from any folder, and where it is installed."""

import shutil
import subprocess

import pytest

from conftest import ROOT

NORMS = {"rmsnorm": "--run", "layernorm": "--run-layernorm"}


def tell(program, *options):
    return subprocess.run([program, "-q", "-s", "1", *options], cwd="/", capture_output=True, timeout=60)


@pytest.fixture(params=NORMS)
def installed(request, tmp_path):
    """put(folder of the program, folder of the models): the program, alone with the twins."""

    def put(bin, models):
        (tmp_path / bin).mkdir(parents=True, exist_ok=True)
        if models:
            shutil.copytree(ROOT / "models", tmp_path / models)
        return shutil.copy(request.config.getoption(NORMS[request.param]), tmp_path / bin / "prenorm")

    put.norm = request.param
    return put


@pytest.mark.parametrize("bin, models", [(".", "models"), ("bin", "share/prenorm/models")])
def test_found(bin, models, installed):
    done = tell(installed(bin, models), "-n", "-1")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"Once upon a time") and done.stdout.endswith(b".\n"), done.stdout


def test_missing(installed):
    done = tell(installed("bin", None))
    assert done.returncode == 2 and done.stdout == b""
    assert f"models/stories-{installed.norm}.gguf".encode() in done.stderr
    assert tell(installed("bin", None), "").returncode == 2
