"""`make fuzz` knows every property."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tools"))
from fuzz import PROPERTIES


def test_every_property_is_fuzzed() -> None:
    found = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        module = importlib.import_module(f"fuzzing.{path.stem}")
        found |= {(path.stem, name) for name, value in vars(module).items() if hasattr(value, "hypothesis")}
    assert found == set(PROPERTIES.values())
