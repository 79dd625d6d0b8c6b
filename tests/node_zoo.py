"""A workspace on a machine with simulated GPUs."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from conftest import Zoo
from simulated_node.curve import Curve
from simulated_node.node import GIB, Gpu, Process, Scenario

GPU = Gpu(
    name="Tesla V100-SXM2-16GB",
    total_bytes=Curve.constant(16 * GIB),
    power_w=Curve.constant(250.0),
    energy_step_s=Curve.constant(0.1),
    sm_clock_hz=Curve.constant(1530e6),
    clocks_events=Curve.constant(0),
    temperature_c=Curve.constant(60),
    utilization=Curve.constant(0.95),
)


class NodeZoo(Zoo):
    """A workspace on a machine with one simulated GPU, on which the job's worker holds 5 GiB.

    Its runs are too short to be judged by what else the processors do: other tests run beside these.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.change(
            {"profiles": {"quick": {"set": {"gpus": 1, "trust": {"process_period_s": 0.2, "on_noise": "quarantine"}}}}}
        )
        self.options(pid_file=str(root / "worker.pid"), iteration_s=0.05, image_s=0.05)

    def place(self, *others: Process, gpu: Gpu = GPU) -> None:
        """Put processes beside the job's on the GPU."""
        mine = Process(Curve.constant(5 * GIB), pid_file=self.root / "worker.pid")
        scenario = Scenario((replace(gpu, processes=(mine, *others)),), start_s=time.monotonic())
        scenario.write(self.root / "scenario")
