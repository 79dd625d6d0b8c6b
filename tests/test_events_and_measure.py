"""From an event file to figures: the stream as it is written, the rules that cut and summarise."""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from zoo_bench import events as harness
from zoo_bench.events import Event, EventReader, ProtocolError
from zoo_bench.gpu import GpuSample, Sample
from zoo_bench.measure import infer_timing, memory, train_timing
from zoo_bench.outcome import phases_done


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """models/worker.py, which the harness itself never imports."""
    monkeypatch.syspath_prepend(str(REPOSITORY))
    import models.worker as module

    yield module
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
        del sys.modules[name]


def step(iteration: int, seconds: float, data_s: float = 0.0, time_s: float = 0.0) -> Event:
    numbers = {"iteration": iteration, "iterations": 100, "lr": 0.1, "loss": 1.0, "batch_size": 16}
    return Event("step", time_s, time_s, {**numbers, "iteration_time_s": seconds, "data_time_s": data_s})


def test_worker_and_harness_speak_of_the_same_events(worker: Any) -> None:
    assert frozenset(worker.EVENTS) == harness.EVENTS
    assert worker.PROTOCOL == harness.PROTOCOL


def test_what_a_worker_writes_the_harness_reads_while_it_is_written(worker: Any, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert reader.read() == []
    writer = worker.EventWriter(str(path))
    writer.write("run_start", phases=["train"])
    with path.open("ab") as stream:
        stream.write(b'{"event": "eval_start", "protocol": 1, "time_')
    assert [event.name for event in reader.read()] == ["run_start"]
    with path.open("ab") as stream:
        stream.write(b's": 1, "unix_s": 2, "images": 3}\n')
    assert reader.read() == [Event("eval_start", 1.0, 2.0, {"images": 3})]
    assert reader.malformed == 0


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe\x00",
        b"[]",
        b'"step"',
        b"{}",
        b'{"event": "step", "time_s": 1, "unix_s": 1, "protocol": 1}',
        b'{"event": "step", "time_s": NaN, "unix_s": 1, "protocol": 1}',
        b'{"event": "run_stop", "time_s": "now", "unix_s": 1, "protocol": 1}',
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_event_is_counted_and_passed_over(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "events.jsonl"
    good = json.dumps({"event": "run_stop", "time_s": 1, "unix_s": 1, "protocol": 1, "status": "success"}).encode()
    path.write_bytes(line + b"\n" + good + b"\n")
    reader = EventReader(path)
    assert [event.name for event in reader.read()] == ["run_stop"]
    assert reader.malformed == 1


def test_unknown_events_are_ignored_and_another_protocol_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "tea", "time_s": 1, "unix_s": 1, "protocol": 1}\n')
    reader = EventReader(path)
    assert reader.read() == []
    assert reader.malformed == 0
    with path.open("a") as stream:
        stream.write('{"event": "tea", "time_s": 1, "unix_s": 1, "protocol": 2}\n')
    with pytest.raises(ProtocolError, match="protocol 2"):
        reader.read()


def test_warm_up_and_the_iteration_after_a_checkpoint_are_cut() -> None:
    events = [step(n, 5.0 if n <= 10 else 0.5, data_s=0.1) for n in range(1, 51)]
    events.insert(30, Event("checkpoint_saved", 0, 0, {"iteration": 30}))
    events[31] = step(31, 60.0)
    timing = train_timing(events, warmup_iterations=10)
    assert timing is not None
    assert (timing.iterations_run, timing.iterations_measured) == (50, 39)
    assert timing.mean_s == pytest.approx(0.5)
    assert timing.data_share == pytest.approx(0.2)


def test_quantiles_agree_with_numpy() -> None:
    import numpy as np

    source = random.Random(0)
    times = [source.lognormvariate(0, 0.3) for _ in range(997)]
    timing = train_timing([step(n, seconds) for n, seconds in enumerate(times, start=1)], 0)
    assert timing is not None
    found = (timing.mean_s, timing.median_s, timing.p10_s, timing.p90_s)
    expected = (np.mean(times), *np.quantile(times, (0.5, 0.1, 0.9)))
    assert found == pytest.approx(tuple(map(float, expected)))


def test_nothing_measured_is_none_and_never_zero() -> None:
    assert train_timing([], 0) is None
    assert train_timing([step(1, 0.5)], 5) is None
    assert infer_timing([]) is None
    assert memory([], [], None).host_bytes is None


def test_fps_is_forward_and_postprocess_without_warm_up() -> None:
    def image(index: int, seconds: float, *, warmup: bool) -> Event:
        parts = dict.fromkeys(("load_s", "preprocess_s", "forward_s", "postprocess_s", "encode_s"), seconds)
        return Event("infer_step", 0, 0, {**parts, "index": index, "images": 3, "detections": 4, "warmup": warmup})

    events = [image(1, 9.0, warmup=True), image(2, 0.05, warmup=False), image(3, 0.05, warmup=False)]
    timing = infer_timing(events)
    assert timing is not None
    assert (timing.images, timing.detections_per_image) == (2, 4)
    assert timing.fps == pytest.approx(10)
    assert phases_done(events) == ("infer",)
    assert phases_done(events[:2]) == ()


def test_memory_is_the_peak_of_the_training_on_each_gpu() -> None:
    def sample(time_s: float, host: int, *gpus: tuple[int, int | None]) -> Sample:
        return Sample(time_s, host, tuple(GpuSample(index, used, mine) for index, (used, mine) in enumerate(gpus)))

    samples = [
        sample(1, 10, (100, 50), (200, None)),
        sample(2, 30, (150, 90), (300, None)),
        sample(9, 99, (999, 999), (999, 999)),
    ]
    found = memory([step(1, 1, time_s=5)], samples, None)
    assert found.host_bytes == 30
    assert [(gpu.nvml_process_bytes, gpu.nvml_used_bytes) for gpu in found.gpus] == [(90, 150), (None, 300)]
    assert math.isfinite(found.host_bytes)
