"""What a run leaves in the store: one immutable, versioned JSON document.

Schema history: 1, the first. 2 adds intervals, energy, noise and the zoo's revision; what 1 lacks is read as absent.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from zoo_bench.measurements import Measurements
from zoo_bench.noise import Noise
from zoo_bench.recipe import Phase, Strict
from zoo_bench.revision import Revision

Status = Literal["succeeded", "failed", "out_of_memory", "timed_out", "hung", "diverged", "interrupted", "quarantined"]


class Inputs(Strict):
    """Digests (SHA-256, hex) of what a run was made from."""

    sources_sha256: str
    lock_sha256: str | None
    dataset_sha256: str


class Checkpoint(Strict):
    """The weights a run made or was given. `file` is relative to the workspace; of one outside, the bare name.

    `trained`: the whole schedule was run. `given`: the user supplied the file with --checkpoint.
    """

    file: str
    sha256: str
    bytes: int
    trained: bool
    given: bool


class Record(Strict):
    """One run of one cell."""

    schema_version: Literal[1, 2] = 2
    run_id: str
    cell_id: str
    profile: str
    cell: dict[str, Any] = Field(description="every value of the cell, as the worker got it")
    recipe_sha256: str = Field(description="over all values but those that say how much was measured")
    fingerprint: str = Field(description="over all values and inputs: equal means nothing that matters changed")
    inputs: Inputs
    status: Status
    reason: str
    phases: tuple[Phase, ...] = Field(description="the phases that were asked for")
    phases_done: tuple[Phase, ...]
    started_unix_s: float
    duration_s: float
    measurements: Measurements
    noise: tuple[Noise, ...] = Field(default=(), description="what else happened on the machine while it was timed")
    definitions: dict[str, str] = Field(description="which definition each number used")
    machine: dict[str, Any]
    software: dict[str, str]
    revision: Revision | None = Field(default=None, description="of the zoo's files; None outside of git")
    checkpoint: Checkpoint | None
    files: dict[str, str] = Field(description="log, events, samples, detections: relative to the workspace")
    command: tuple[str, ...]
    zoo_bench: str = Field(description="version of zoo-bench that wrote the record")

    @property
    def dataset(self) -> str:
        """Name of the dataset that was trained and evaluated on."""
        return str(self.cell["dataset"])
