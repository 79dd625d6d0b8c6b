"""The soak of benchmarks/soak.py, for half a minute."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
from soak import soak


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_left_behind(tmp_path: Path) -> None:
    soaked = soak(tmp_path, cells=45, kills=3, seed=1)
    assert soaked.broken == ()
    assert soaked.figures["cells with a fault"] == 15
