"""From telemetry to the memory and the energy of a record."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from simulated_node.curve import Curve
from simulated_node.node import GIB, Gpu, Process, Scenario
from watching import grid, watch

from zoo_bench.energy import energy
from zoo_bench.events import Event
from zoo_bench.measurements import GpuMemory, Memory, SamplingPeriod
from zoo_bench.memory import memory, training_end_s
from zoo_bench.sampling import sampling
from zoo_bench.telemetry import OWNERS, GpuSeries, HostSeries, Owner, ProcessSeries, Telemetry, floats

NO_PID = 2**22 + 1


Sighting = tuple[float, int | None, Owner, int]


def telemetry(*gpus: GpuSeries, sightings: tuple[Sighting, ...] = (), host: tuple[float, ...] = ()) -> Telemetry:
    """GPUs and a host that were sampled at 0, 1, 2, ... seconds."""
    times = floats(range(len(host)))
    return Telemetry(
        host=HostSeries(2, times, floats(host), floats([0] * len(host)), floats([0] * len(host))),
        gpus=gpus,
        processes=tuple(process(sightings, pid) for pid in sorted({one[-1] for one in sightings})),
        list_times_s=floats(sorted({one[0] for one in sightings})),
        problems=(),
        own_cpu_share=0.001,
    )


def series(used: tuple[float, ...] = (), baseline: float = math.nan, **columns: tuple[float, ...]) -> GpuSeries:
    count = max(map(len, (used, *columns.values())))
    missing = floats([math.nan] * count)
    names = ("power_w", "energy_j", "sm_clock_hz", "temperature_c", "utilization", "time_s")
    given = {name: floats(columns[name]) if name in columns else missing for name in names}
    if "time_s" not in columns:
        given["time_s"] = floats(range(count))
    used_bytes = floats(used) if used else missing
    events = np.full(count, -1, dtype=np.int64)
    return GpuSeries(0, "GPU-0", baseline, used_bytes=used_bytes, clocks_events=events, **given)


def sighting(time_s: float, used: int | None, owner: Owner = "job", pid: int = 7) -> Sighting:
    return time_s, used, owner, pid


def process(sightings: tuple[Sighting, ...], pid: int) -> ProcessSeries:
    times_s, used, owners, _ = zip(*(one for one in sightings if one[-1] == pid), strict=True)
    held = floats([math.nan if one is None else one for one in used])
    return ProcessSeries(0, pid, floats(times_s), held, np.array([OWNERS.index(one) for one in owners], dtype=np.int8))


def step(**fields: float) -> Event:
    return Event("step", 5.5, 0, fields)


# Memory


def test_the_training_ends_with_its_last_iteration_and_not_with_the_line_about_it() -> None:
    assert training_end_s([]) == math.inf
    assert training_end_s([step()]) == 5.5
    assert training_end_s([step(end_s=3.5), step(end_s=4.5)]) == 4.5


def test_peaks_are_those_of_the_training() -> None:
    seen = telemetry(
        series((100, 150, 140, 999), baseline=100),
        host=(10, math.nan, 30, 99),
        sightings=(sighting(0, 20), sighting(1, 50), sighting(1, 5, pid=8), sighting(2, 50), sighting(3, 777)),
    )
    found = memory([], seen, until_s=2)
    assert found.gpus == (GpuMemory(index=0, nvml_process_bytes=55, nvml_delta_bytes=50, nvml_used_bytes=150),)
    assert found.host_bytes == 30
    assert found.problems == ()
    whole = memory([], seen, until_s=math.inf)
    assert whole.gpus[0].nvml_process_bytes == 777
    assert whole.host_bytes == 99


def test_a_training_that_ended_before_the_first_sample_has_the_jobs_peaks() -> None:
    found = memory([], telemetry(series((100, 150), baseline=40), host=(10, 20)), until_s=-1)
    assert (found.host_bytes, found.gpus[0].nvml_used_bytes, found.gpus[0].nvml_delta_bytes) == (20, 150, 110)


def test_nothing_seen_is_none_and_never_zero() -> None:
    found = memory([], telemetry(series((math.nan, math.nan))), until_s=math.inf)
    assert found.host_bytes is None
    assert found.gpus == (GpuMemory(index=0, nvml_process_bytes=None, nvml_delta_bytes=None, nvml_used_bytes=None),)
    assert found.problems == ("GPU 0: per-process memory: NVML names no process of the job in 0 lists",)


def test_a_level_that_sank_below_the_baseline_gives_no_difference() -> None:
    found = memory([], telemetry(series((80, 90), baseline=100)), until_s=math.inf)
    assert (found.gpus[0].nvml_delta_bytes, found.gpus[0].nvml_used_bytes) == (None, 90)


def test_a_list_with_a_gap_is_no_sum() -> None:
    seen = telemetry(
        series((100,)), sightings=(sighting(0, 10), sighting(1, 900), sighting(1, None, pid=8), sighting(2, 20))
    )
    found = memory([], seen, until_s=math.inf)
    assert found.gpus[0].nvml_process_bytes == 20
    assert found.problems == ("GPU 0: per-process memory: N/A in 1 of 3 lists",)


def test_unknown_and_foreign_processes_count_only_when_they_were_found_to_be_the_jobs() -> None:
    seen = telemetry(
        series((100,)), sightings=(sighting(0, 10, "unknown", pid=NO_PID), sighting(0, 90, "foreign", pid=9))
    )
    found = memory([], seen, until_s=math.inf)
    assert found.gpus[0].nvml_process_bytes is None
    assert "PIDs that this machine does not have" in found.problems[0]
    settled = memory([], seen, math.inf, hidden_own=frozenset({NO_PID}))
    assert settled.gpus[0].nvml_process_bytes == 10
    assert settled.problems == ()


def test_the_last_word_of_every_ranks_allocator_counts() -> None:
    def peak(rank: int, allocated: int) -> Event:
        fields = {"rank": rank, "device": f"gpu:{rank}", "allocated_bytes": allocated, "reserved_bytes": 2 * allocated}
        return Event("allocator_peak", 0, 0, fields)

    found = memory([peak(1, 5), peak(0, 3), peak(0, 8)], telemetry(), until_s=math.inf)
    assert [(one.rank, one.allocated_bytes, one.reserved_bytes) for one in found.allocator] == [(0, 8, 16), (1, 5, 10)]


def test_memory_of_records_of_the_first_schema_is_read() -> None:
    old = {"host_bytes": 5, "gpus": [{"index": 0, "nvml_process_bytes": 1, "nvml_used_bytes": 2}], "allocator": []}
    assert Memory.model_validate({**old, "problem": None}).problems == ()
    read = Memory.model_validate({**old, "problem": "GPU is lost"})
    assert read.problems == ("GPU is lost",)
    assert read.gpus[0].nvml_delta_bytes is None
    assert Memory.model_validate_json(read.model_dump_json()) == read


def test_the_peak_is_exact_to_the_sample_that_contains_it(tmp_path: Path) -> None:
    source = np.random.default_rng(20)

    def curve() -> Curve:
        points = zip(np.sort(source.uniform(0, 60, 40)), source.integers(1, 60, 40) * GIB / 4, strict=True)
        return Curve.linear(*((float(time_s), float(value)) for time_s, value in points))

    own = [(curve(), curve()) for _ in range(8)]
    files = (tmp_path / "worker.pid", tmp_path / "child.pid")
    gpus = [
        Gpu(
            processes=(
                *(Process(memory_bytes=one, pid_file=file) for one, file in zip(curves, files, strict=True)),
                Process(memory_bytes=Curve.constant(3 * GIB), pid=1, from_s=-1),
            )
        )
        for curves in own
    ]
    seen = watch(tmp_path, Scenario(gpus=tuple(gpus)), grid(60, 0.1), grid(60, 1), child_s=-0.5)
    found = memory([], seen, until_s=40)
    sampled, listed = np.array(grid(40, 0.1)), np.array(grid(40, 1))
    for gpu, curves, truth in zip(found.gpus, own, seen.gpus, strict=True):
        used = sum(np.floor(one.at(sampled)) for one in curves) + 3.5 * GIB
        assert gpu.nvml_used_bytes == pytest.approx(used.max(), abs=2)
        assert gpu.nvml_delta_bytes == pytest.approx(used.max() - truth.baseline_bytes, abs=2)
        assert gpu.nvml_process_bytes == pytest.approx(sum(np.floor(one.at(listed)) for one in curves).max(), abs=2)
    assert found.problems == ()


# How often


def test_the_periods_that_were_kept_are_those_of_the_worst_gpu() -> None:
    punctual = series(time_s=(0.0, 1.0, 2.0, 3.0))
    late = series(time_s=(0.0, 2.0, 4.0, 9.0))
    found = sampling(telemetry(punctual, late, host=(5, 5, 5), sightings=(sighting(0, 1), sighting(1.5, 1))))
    assert found.gpus == SamplingPeriod(median_s=2, largest_s=5)
    assert found.processes == SamplingPeriod(median_s=1.5, largest_s=1.5)
    assert found.host == SamplingPeriod(median_s=1, largest_s=1)


def test_what_was_not_sampled_twice_has_no_period() -> None:
    found = sampling(telemetry(host=(5,)))
    assert (found.gpus, found.processes, found.host) == (None, None, None)


# Energy


def test_energy_of_the_steady_state_and_of_the_job() -> None:
    counter = series(energy_j=(1000, 1100, 1300, 1500, 1600))
    found = energy(telemetry(counter, counter), [(1, 2), (2.5, 3)], iterations=10)
    assert found is not None
    assert found.joules_per_iteration == pytest.approx(2 * (200 + 100) / 10)
    assert found.kwh == pytest.approx(2 * 600 / 3.6e6)
    assert (found.source, found.gpus) == ("counter", 2)


def test_without_a_counter_power_is_integrated_and_that_is_said() -> None:
    by_power = series(power_w=(100, 100, 300, 300))
    found = energy(telemetry(by_power, series(energy_j=(0, 100, 200, 300))), [(1, 3)], iterations=1)
    assert found is not None
    assert found.joules_per_iteration == pytest.approx(500 + 200)
    assert found.source == "power"


@pytest.mark.parametrize("joules", [(5.0, 5.0, 5.0, 5.0), (7.0, 8.0, 1.0, 2.0), (math.nan,) * 4])
def test_a_counter_that_stands_or_is_set_back_is_none(joules: tuple[float, ...]) -> None:
    assert energy(telemetry(series(energy_j=joules)), [(1, 3)], 1) is None
    found = energy(telemetry(series(energy_j=joules, power_w=(10, 10, 10, 10))), [(1, 3)], 1)
    assert found is not None
    assert (found.source, found.joules_per_iteration) == ("power", 20)


def test_energy_that_is_not_known_for_all_gpus_and_all_the_time_is_none() -> None:
    good = series(energy_j=tuple(range(20)))
    lost = series(energy_j=(*range(10), *(math.nan,) * 10), power_w=(*(5,) * 10, *(math.nan,) * 10))
    hole = series(power_w=(*(5,) * 5, *(math.nan,) * 10, *(5,) * 5))
    assert energy(telemetry(), [(0, 1)], 1) is None
    assert energy(telemetry(good, lost), [(1, 2)], 1) is None
    assert energy(telemetry(good, hole), [(1, 2)], 1) is None


def test_a_job_without_a_steady_state_has_energy_all_the_same() -> None:
    seen = telemetry(series(energy_j=tuple(range(20))))
    for spans, iterations in (([], 0), ([(1.0, 2.0)], 0), ([(1.0, 200.0)], 9)):
        found = energy(seen, spans, iterations)
        assert found is not None
        assert found.joules_per_iteration is None
        assert found.kwh == pytest.approx(19 / 3.6e6)


@pytest.mark.parametrize("counter", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_energy_is_the_nodes_within_a_hundredth(tmp_path: Path, seed: int, counter: bool) -> None:
    source = np.random.default_rng(seed)
    times = np.arange(0, 121, 2.0)
    watts = [Curve(times, source.uniform(80, 700, len(times))) for _ in range(3)]
    lacking = () if counter else ("energy",)
    gpus = [Gpu(power_w=one, energy_step_s=Curve.constant(0.1), not_supported=lacking) for one in watts]
    sampled = np.array(grid(120, 0.1)) + source.uniform(0, 0.02, 1201)
    seen = watch(tmp_path, Scenario(gpus=tuple(gpus)), devices_s=sampled.tolist())
    spans = [(11.23, 30.57), (33.31, 60.02), (61.0, 95.77)]
    found = energy(seen, spans, iterations=100)
    truth_j = sum(one.integral(*span) for one in watts for span in spans)
    assert found is not None
    assert found.source == ("counter" if counter else "power")
    assert found.joules_per_iteration == pytest.approx(truth_j / 100, rel=0.01)
    assert found.kwh == pytest.approx(sum(one.integral(0, 120) for one in watts) / 3.6e6, rel=0.01)
    assert found.gpus == 3
