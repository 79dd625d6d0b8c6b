from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from models import worker


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_carry_the_envelope(tmp_path: Path) -> None:
    events = worker.EventWriter(str(tmp_path / "events.jsonl"))
    events.write("epoch_start", epoch=1)
    (event,) = lines(tmp_path / "events.jsonl")
    assert event.keys() == {"event", "time_s", "unix_s", "protocol", "epoch"}
    assert (event["event"], event["protocol"], event["epoch"]) == ("epoch_start", 1, 1)


@pytest.mark.parametrize(
    ("event", "value", "message"), [("stap", 1.0, "unknown event"), ("step", float("nan"), "not JSON compliant")]
)
def test_what_the_protocol_lacks_is_not_written(event: str, value: float, message: str, tmp_path: Path) -> None:
    events = worker.EventWriter(str(tmp_path / "events.jsonl"))
    with pytest.raises(ValueError, match=message):
        events.write(event, loss=value)
    assert lines(tmp_path / "events.jsonl") == []


def test_a_heartbeat_is_written_only_into_silence(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = worker.EventWriter(str(path))
    with worker.Heartbeat(events, interval_s=0.3):
        for _ in range(10):
            events.write("step", iteration=1)
            time.sleep(0.05)
        assert {line["event"] for line in lines(path)} == {"step"}
        time.sleep(0.8)
    assert [line["event"] for line in lines(path)].count("heartbeat") >= 2


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OutOfMemoryError("tried to allocate 2 GiB"), "out_of_memory"),
        (RuntimeError("CUDA error: out of memory"), "out_of_memory"),
        (RuntimeError("Check failed: cuDNN: CUDNN_STATUS_ALLOC_FAILED"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (worker.WorkerError("no file", kind="data"), "data"),
        (KeyError("x"), "exception"),
    ],
)
def test_failures_are_told_apart(error: Exception, kind: str) -> None:
    assert worker.error_kind(error) == kind


@pytest.mark.parametrize(("content", "message"), [("{", "cannot read the job"), ('{"protocol": 2}', "has protocol 2")])
def test_a_job_that_is_none_is_refused(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.json").write_text(content)
    with pytest.raises(SystemExit) as stop:
        worker.read_job(["--job", str(tmp_path / "job.json")])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
