"""A simulated node for tests: GPUs that do what a scenario says, behind the real nvidia-ml-py.

    build(folder)                                                # libnvidia-ml.so.1, once per folder
    scenario = Scenario(gpus=(Gpu(power_w=Curve.constant(300)),)).write(folder / "scenario.txt")
    subprocess.run([...], env={**os.environ, **environment(folder, scenario)})

The loader reads LD_LIBRARY_PATH when a process starts, so a process never finds the library by changing its own
environment. `run_python` starts one that does. Time in a scenario is real, or a virtual clock's (clock.py):

    with VirtualClock(folder / "clock") as clock:
        scenario = Scenario(gpus=(...), clock=clock.path).write(folder / "scenario.txt")
        run_python(code, folder, scenario, str(clock.path))

where the code opens the clock too, to set it between its calls of NVML:

    import sys
    from simulated_node.clock import VirtualClock
    clock = VirtualClock(sys.argv[1])
    clock.set(12.5)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from .clock import VirtualClock as VirtualClock  # part of what this module offers
from .curve import Curve

SOURCES = Path(__file__).parent
GIB = 2.0**30
FOREVER = float("inf")
LIBRARY = "libnvidia-ml.so.1"


class NodeError(Exception):
    """The library could not be built, or a process on the simulated node failed; the message holds its stderr."""


@dataclass(frozen=True)
class Process:
    """A process on a GPU while `from_s` <= time < `to_s`. `pid` is what NVML reports.

    With `pid_file` it is there only while the process runs whose PID stands, as a line, in that file. `pid` may then be
    left out, or be another number, as where a container hides the host's processes.
    """

    memory_bytes: Curve
    pid: int | None = None
    pid_file: Path | None = None
    from_s: float = -FOREVER
    to_s: float = FOREVER
    graphics: bool = False

    def text(self, gpu: int) -> str:
        """Return the directive. Raises ValueError where neither PID nor file is given."""
        if self.pid is None and self.pid_file is None:
            raise ValueError("a process has a pid, a pid_file or both")
        pid = f"{self.pid or ''}{f'@{self.pid_file}' if self.pid_file else ''}"
        kind = "graphics" if self.graphics else "process"
        return f"{kind} {gpu} {pid} {self.from_s!r} {self.to_s!r} {self.memory_bytes.text()}"


@dataclass(frozen=True)
class Failure:
    """Every call about the GPU answers with this nvmlReturn_t while `from_s` <= time < `to_s`."""

    code: int
    from_s: float = -FOREVER
    to_s: float = FOREVER


@dataclass(frozen=True)
class Gpu:
    """One GPU. A curve that is None stays as scenario.h has it; `not_supported` are names of its FIELDS.

    `clocks_events` are ClocksEvent bits and go in steps. The energy counter is `energy_start_j` plus the integral of
    power from time 0, brought up to date every `energy_step_s` (0: at once).
    """

    name: str | None = None
    uuid: str | None = None
    total_bytes: Curve | None = None
    reserved_bytes: Curve | None = None
    power_w: Curve | None = None
    power_limit_w: Curve | None = None
    energy_start_j: Curve | None = None
    energy_step_s: Curve | None = None
    sm_clock_hz: Curve | None = None
    mem_clock_hz: Curve | None = None
    max_sm_clock_hz: Curve | None = None
    max_mem_clock_hz: Curve | None = None
    clocks_events: Curve | None = None
    temperature_c: Curve | None = None
    utilization: Curve | None = None
    mem_utilization: Curve | None = None
    capability: Curve | None = None
    mig: Curve | None = None
    nvlinks: Curve | None = None
    topology: Curve | None = None
    processes: tuple[Process, ...] = ()
    failures: tuple[Failure, ...] = ()
    not_supported: tuple[str, ...] = ()

    def lines(self, index: int) -> Iterator[str]:
        """Yield the directives of this GPU."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Curve):
                yield f"{_directive(field.name)} {index} {value.text()}"
            elif isinstance(value, str):
                yield f"{field.name} {index} {value}"
        yield from (process.text(index) for process in self.processes)
        yield from (f"error {index} {e.from_s!r} {e.to_s!r} {e.code}" for e in self.failures)
        if self.not_supported:
            yield f"na {index} {' '.join(self.not_supported)}"

    def used_bytes(self, time_s: float) -> float:
        """Return the memory in use, what is reserved included; of processes with a `pid_file`, as if they ran."""
        there = [process for process in self.processes if process.from_s <= time_s < process.to_s]
        reserved = self.reserved_bytes or Curve.constant(0.5 * GIB)
        return float(sum(curve.at(time_s) for curve in [reserved, *(process.memory_bytes for process in there)]))


@dataclass(frozen=True)
class Scenario:
    """A node. Time is `clock`'s, else CLOCK_MONOTONIC less `start_s`; a path stands for the number on its line.

    `init_code` is the nvmlReturn_t of nvmlInit.
    """

    gpus: tuple[Gpu, ...] = ()
    driver: str = "570.86.15"
    cuda: int = 12080
    clock: Path | None = None
    start_s: float | Path = 0.0
    init_code: int = 0

    def text(self) -> str:
        """Return the scenario in the grammar of scenario.h."""
        start = f"@{self.start_s}" if isinstance(self.start_s, Path) else repr(self.start_s)
        lines = [f"driver {self.driver}", f"cuda {self.cuda}", f"init {self.init_code}", f"start {start}"]
        if self.clock:
            lines.append(f"clock {self.clock}")
        lines.append(f"gpus {len(self.gpus)}")
        lines.extend(line for index, gpu in enumerate(self.gpus) for line in gpu.lines(index))
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> Path:
        """Write the file that `environment` names; returns its path."""
        path.write_text(self.text(), encoding="utf-8")
        return path


def build(folder: Path) -> Path:
    """Build the library in `folder`, unless it is there; returns its path. Raises NodeError with what gcc says."""
    library = folder / LIBRARY
    if library.exists():
        return library
    if shutil.which("gcc") is None:
        raise NodeError("the simulated node needs gcc, which is not on PATH; install it (Debian: apt install gcc)")
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{LIBRARY}.{os.getpid()}"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", "-pthread"]
    sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    command = ["gcc", *flags, f"-Wl,-soname,{LIBRARY}", "-o", str(unfinished), *sources, "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NodeError(f"gcc could not build {library}:\n{done.stderr}")
    unfinished.replace(library)
    return library


def environment(folder: Path, scenario_file: Path) -> dict[str, str]:
    """Return the variables with which a new process sees the node whose library was built in `folder`."""
    inherited = os.environ.get("LD_LIBRARY_PATH")
    folders = [str(folder), *([inherited] if inherited else [])]
    return {"LD_LIBRARY_PATH": ":".join(folders), "ZOO_BENCH_SIMULATED_NODE": str(scenario_file)}


def run_python(code: str, folder: Path, scenario_file: Path, *arguments: str, timeout_s: float = 60.0) -> str:
    """Run Python code on the node and return its stdout; `simulated_node` and what we import it can import too.

    Raises:
        NodeError: the code failed.
    """
    search = [str(SOURCES.parent), *(path for path in sys.path if path)]
    variables = {**os.environ, **environment(folder, scenario_file), "PYTHONPATH": os.pathsep.join(search)}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise NodeError(done.stderr)
    return done.stdout


def _directive(field: str) -> str:
    name, _, unit = field.rpartition("_")
    if field == "clocks_events":
        return "reasons"  # NVML's older word, and shorter
    return name if unit in ("bytes", "w", "j", "s", "hz", "c") else field
