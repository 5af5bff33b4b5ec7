"""The plug-ins in examples/, by the references that a user gives."""

from pathlib import Path

import pytest

from arm_core.registry import ARMS, FORECASTERS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def at_the_root(monkeypatch) -> Path:
    """References in the examples are relative to the folder that holds examples/."""
    monkeypatch.chdir(ROOT)
    return ROOT


@pytest.fixture
def transformer(at_the_root):
    """The class of the transformer."""
    return ARMS.resolve("examples/causal_transformer.py:CausalTransformer")


@pytest.fixture
def copies(at_the_root):
    """The function and the class in copy_above.py."""
    return [FORECASTERS.resolve(f"examples/copy_above.py:{name}") for name in ("copy_above", "CopyFrom")]
