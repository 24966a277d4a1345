"""texts.py - what models are scored on."""

from pathlib import Path

from lab.engine import Trouble

HELD_OUT = Path(__file__).resolve().parent.parent / "models" / "stories-held-out.txt"


def held_out():
    """The stories that lie beside the twins and that neither was trained on."""
    return HELD_OUT.read_text(encoding="utf-8").removesuffix("\n").split("\n\n")


def read_text(path):
    """A user's text."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Trouble(f"{path}: {error.strerror}; TEXT=file names a text")
    except UnicodeDecodeError:
        raise Trouble(f"{path}: expected a text in UTF-8")
    if not text.strip():
        raise Trouble(f"{path}: there is no text in it")
    return text
