"""Records made from one that the fake backend left, as if they had been measured elsewhere, later, or on GPUs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo_bench.cell import digest, expand, recipe_values
from zoo_bench.load import load_matrix
from zoo_bench.measurements import AllocatorPeak, GpuMemory, Memory
from zoo_bench.record import Record
from zoo_bench.runs import Runs, Summary

GIB = 2**30
V100 = "Tesla V100-SXM2-16GB"


def changed(record: Record, **values: object) -> Record:
    """A copy of a record that came later."""
    return record.model_copy(update={"run_id": "29991231T000000.000Z-ffff", **values})


def runs_of(records: Iterable[Record] = ()) -> Runs:
    """Records as a store gives them; two of them may have one id."""
    summarised = [(Summary.of(record), record) for record in records]
    read = {id(summary): record for summary, record in summarised}
    return Runs(tuple(summary for summary, _ in summarised), lambda run: read[id(run)])


def machine(gpus: int = 2, gpu: str = V100, **values: Any) -> dict[str, Any]:
    """A machine as a record keeps it."""
    found = [{"index": index, "name": gpu, "uuid": f"GPU-{index}"} for index in range(gpus)]
    return {"cpu": "A CPU", "cores": 20, "os": "An OS", "gpus": found, "driver": "535.54", **values}


def memory(*gpus: dict[str, int | None], allocator: tuple[tuple[int, int], ...] = (), problem: str = "") -> Memory:
    """Peaks by GPU, and the allocator's (allocated, reserved) by rank."""
    every = {"nvml_process_bytes": None, "nvml_delta_bytes": None, "nvml_used_bytes": None}
    return Memory(
        host_bytes=GIB,
        gpus=tuple(GpuMemory(index=index, **{**every, **gpu}) for index, gpu in enumerate(gpus)),
        allocator=tuple(
            AllocatorPeak(rank=rank, device=f"cuda:{rank}", allocated_bytes=allocated, reserved_bytes=reserved)
            for rank, (allocated, reserved) in enumerate(allocator)
        ),
        problems=(problem,) if problem else (),
    )


def matrix_on_gpus(root: Path, gpus: int = 2) -> Path:
    """The workspace's matrix, but for the number of GPUs; its path."""
    path = root / f"on_{gpus}_gpus.yaml"
    text = (root / "matrix.yaml").read_text(encoding="utf-8")
    assert text.count("gpus: 0") >= 1
    path.write_text(text.replace("gpus: 0", f"gpus: {gpus}"), encoding="utf-8")
    return path


def on_gpus(record: Record, matrix: Path, gpus: int | None = None, **values: object) -> Record:
    """A record as if its cell had been run with the GPUs that `matrix` says, or with --gpus."""
    cell = next(cell for cell in expand(load_matrix(matrix), None, gpus) if cell.id == record.cell_id)
    resolved = cell.resolved()
    made = {"cell": resolved, "recipe_sha256": digest(recipe_values(resolved)), "machine": machine(cell.gpus)}
    return changed(record, **{**made, **values})


def with_measurements(record: Record, **values: object) -> Record:
    """A record with other measurements."""
    return record.model_copy(update={"measurements": record.measurements.model_copy(update=values)})
