"""matrix.yaml and backend.yaml: read, or refused in an error of ours."""

from __future__ import annotations

import contextlib
from pathlib import Path

from conftest import MATRIX
from hypothesis import given
from hypothesis import strategies as st
from records import runs_of

from fuzzing import hostile, origins
from zoo_bench.backends import BackendSpec
from zoo_bench.cell import expand
from zoo_bench.document import DocumentOptions
from zoo_bench.errors import ZooBenchError
from zoo_bench.layout import lay_out
from zoo_bench.load import load_matrix
from zoo_bench.render import render
from zoo_bench.yamlfile import load_model

matrices = st.deferred(lambda: hostile.files(origins.matrix(), MATRIX.read_bytes(), hostile.RAW_YAML))
backends = st.deferred(lambda: hostile.files(origins.backend(), origins.BACKEND.read_bytes(), hostile.RAW_YAML))


@hostile.examined(60)
@given(matrices)
def test_a_matrix_is_read_or_refused(content: bytes) -> None:
    path = origins.scratch() / "matrix.yaml"
    path.write_bytes(content)
    with contextlib.suppress(ZooBenchError):
        matrix = load_matrix(path)
        for name in matrix.profiles:
            assert all(inside(origins.scratch() / cell.id) for cell in expand(matrix, name))
            with contextlib.suppress(ZooBenchError):
                lay_out(matrix, DocumentOptions(name))
                render(matrix, runs_of(), [origins.TEMPLATES], DocumentOptions(name))
    assert not Path("pwned").exists()


def inside(path: Path) -> bool:
    return path.resolve().is_relative_to(origins.scratch())


@hostile.examined(200)
@given(backends)
def test_a_backend_is_read_or_refused(content: bytes) -> None:
    path = origins.scratch() / "backend.yaml"
    path.write_bytes(content)
    with contextlib.suppress(ZooBenchError):
        spec = load_model(path, BackendSpec)
        locks = [variant.lock for variant in spec.variants.values() if variant.lock is not None]
        assert all(inside(origins.scratch() / lock) for lock in locks)
    assert not Path("pwned").exists()
