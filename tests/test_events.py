"""The event stream as it is written and read, and what it says of the phases."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from zoo_bench import events as harness
from zoo_bench.events import Event, EventReader, ProtocolError
from zoo_bench.outcome import phases_done
from zoo_bench.timing import infer_timing


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """models/worker.py, which the harness itself never imports."""
    monkeypatch.syspath_prepend(str(REPOSITORY))
    import models.worker as module

    yield module
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
        del sys.modules[name]


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
        b'{"event": ["step"], "time_s": 1, "unix_s": 1, "protocol": 1}',
        b'{"event": "run_stop", "time_s": 1e999, "unix_s": 1, "protocol": 1}',
        b'{"event": "run_stop", "time_s": 1, "unix_s": 1' + b"0" * 400 + b', "protocol": 1}',
        b'{"event": "allocator_peak", "time_s": 1, "unix_s": 1, "protocol": 1, "bytes": -1e999}',
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
