"""test_mistakes.py - the C tests turn red for each mistake of mistakes.py, and for nothing else."""

import pytest

import mistakes


@pytest.mark.parametrize("norm", ["rmsnorm", "layernorm"])
def test_mistakes_are_seen(norm, tmp_path):
    outcomes = list(mistakes.tried(norm, tmp_path))
    assert outcomes[0] == ("none", {})
    assert len(outcomes) == {"rmsnorm": 7, "layernorm": 8}[norm]
    assert [name for name, failing in outcomes[1:] if not failing] == []
