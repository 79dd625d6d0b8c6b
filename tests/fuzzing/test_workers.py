"""What the harness and its workers tell each other, and the annotations that both read."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import warnings
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fuzzing import hostile, origins
from models import coco, index, worker
from zoo_bench.cell import expand
from zoo_bench.datasets.check import check_dataset
from zoo_bench.display import LiveDisplay, Pace
from zoo_bench.errors import ZooBenchError
from zoo_bench.evaluate import score
from zoo_bench.events import EventReader, ProtocolError
from zoo_bench.executors.local import Outcome
from zoo_bench.job import DatasetPaths, Job, JobPaths, SplitPaths
from zoo_bench.load import load_matrix
from zoo_bench.plan import PlannedCell
from zoo_bench.record import Inputs, Record
from zoo_bench.recorder import Setting, make_record
from zoo_bench.store import Store, read_record
from zoo_bench.telemetry import HostSeries, Telemetry, floats
from zoo_bench.timing import PrecisionWatch
from zoo_bench.workspace import Workspace

MOST_SIDE = 4096  # of images whose masks are drawn here

jobs = st.deferred(
    lambda: hostile.files(
        json.loads(origins.run_file("job.json").read_bytes()), origins.run_file("job.json").read_bytes()
    )
)


@hostile.examined(150)
@given(jobs)
def test_a_job_is_read_or_refused_in_one_line_and_ends_in_an_event(content: bytes) -> None:
    path, events = origins.scratch() / "job.json", origins.run_file("events.jsonl")
    path.write_bytes(content)
    job, told = read(path)
    if job is None:
        assert "error: " in told.splitlines()[-1]
        return
    path.write_bytes(content.replace(str(events.parent).encode(), str(origins.scratch()).encode()))
    if not stays(worker.read_job(["--job", str(path)])["paths"]["events"]):
        return  # a worker writes where its harness says, and this one shall not
    (origins.scratch() / "events.jsonl").unlink(missing_ok=True)
    with kept_signals(), contextlib.redirect_stderr(io.StringIO()) as told:
        code = worker.run(use, ["--job", str(path)])
    assert code in (0, 1, 2)
    if code == 2:
        assert told.getvalue().startswith("events cannot be written to")
    elif job["paths"]["events"] == str(events):
        written = (origins.scratch() / "events.jsonl").read_text(encoding="utf-8").splitlines()
        assert json.loads(written[-1])["status"] == ("failed" if code else "success")


def stays(path: str) -> bool:
    """Whether a path is one of the folder that goes away with the process."""
    with contextlib.suppress(OSError, ValueError):
        return Path(path).is_absolute() and Path(path).resolve().is_relative_to(origins.scratch())
    return False


def read(path: Path) -> tuple[dict[str, Any] | None, str]:
    """A job; without one what the worker says, which then ends with 2."""
    with contextlib.redirect_stderr(io.StringIO()) as told:
        try:
            return worker.read_job(["--job", str(path)]), ""
        except SystemExit as stop:
            return (None, told.getvalue()) if stop.code == 2 else ({}, "")


def use(job: dict[str, Any], events: worker.EventWriter) -> None:
    """Take from a job what workers take from it."""
    events.write("run_start", phases=job["phases"])
    for phase in job["phases"]:
        events.phase = phase
    cell = job["cell"]
    events.write("init_stop", environment={}, parameters=cell["recipe"]["lr_schedule"]["iterations"] + 1, images={})
    worker.has_enough(job)


@contextlib.contextmanager
def kept_signals() -> Iterator[None]:
    """A worker takes signals over, and keeps them to its end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@cache
def planned() -> tuple[PlannedCell, Job, Setting]:
    """A cell of the workspace as it is about to run, in a folder of its own."""
    root = origins.zoo().root
    cell = expand(load_matrix(root / "matrix.yaml"))[0]
    cell = cell.model_copy(update={"measure": cell.measure.model_copy(update={"train_half_width": 0.01})})
    inputs = Inputs(sources_sha256="0" * 64, lock_sha256=None, dataset_sha256="0" * 64)
    folder = origins.scratch() / "run"
    folder.mkdir()
    split = SplitPaths(origins.dataset() / "train", origins.annotations_file())
    dataset = DatasetPaths("shapes", split, split)
    paths = JobPaths(folder, origins.scratch() / "index")
    job = Job("20261129T000000.000Z-0000", cell, cell.phases, dataset, (), None, paths, folder, ("python",), folder)
    workspace = Workspace(origins.scratch(), root / "matrix.yaml")
    machine = origins.record()["machine"]
    setting = Setting(workspace, Store(folder), "quick", machine, "hotcoco", None, None, None)
    return PlannedCell(cell, inputs, "0" * 64, cell.phases, "never run", None), job, setting


@cache
def long_run() -> list[Any]:
    """The events of a run with so many steps that all rules of timing look at them."""
    steps = [event for event in origins.events() if event["event"] == "step"]
    at = origins.events().index(steps[0])
    rest = [event for event in origins.events() if event["event"] != "step"]
    many = [{**steps[0], "iteration": n, "iteration_time_s": 0.01 + 0.001 * (n % 7)} for n in range(1, 91)]
    many[-1] = {**many[-1], "losses": {"box": 0.5}, "end_s": steps[-1]["time_s"]}
    return [*rest[:at], *many, *rest[at:]]


@st.composite
def flooded(draw: st.DrawFn) -> list[Any]:
    """The events of a run in which a field or two are the same odd value, or the one or the other, in all of them."""
    events = [dict(event) for event in long_run()]
    names = sorted({name for event in events for name, value in event.items() if isinstance(value, (int, float))})
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=3)):
        odd = draw(st.lists(hostile.numbers | hostile.fractions, min_size=1, max_size=3))
        having = [event for event in events if name in event]
        for number, event in enumerate(having):
            event[name] = odd[number % len(odd)]
    return events


def lines(events: Any) -> bytes:
    rows = events if isinstance(events, list) else [events]
    return b"".join(hostile.written(event) + b"\n" for event in rows)


streams = st.deferred(
    lambda: (
        (hostile.mutated(long_run()) | hostile.twisted(long_run()) | flooded()).map(lines)
        | hostile.damaged(lines(long_run()))
    )
)


@hostile.examined(60)
@given(streams)
def test_whatever_events_say_is_shown_timed_and_recorded(content: bytes) -> None:
    cell, job, setting = planned()
    job.paths.events.write_bytes(content)
    shutil.copy(origins.annotations_file(), job.paths.model)  # any file
    reader, events = EventReader(job.paths.events), []
    watch = PrecisionWatch(5, 0.5)
    problem = None
    with warnings.catch_warnings(), shown() as display:
        warnings.simplefilter("ignore")  # numpy's, about sums beyond floats
        display.cell_started(cell, job.paths.log)
        try:
            for event in reader.read():
                events.append(event)
                display.event(event)
                watch.see(event)
        except ProtocolError as error:
            problem = str(error)
        outcome = Outcome(tuple(events), nothing_seen(), 0, False, reader.malformed, problem, 1e9, 1.0, "", None, 0)
        record = make_record(cell, job, outcome, setting)
        display.cell_ended(record, again=False)
    path = origins.scratch() / "record.json"
    path.write_text(record.model_dump_json(), encoding="utf-8")
    assert isinstance(read_record(path), Record)


@contextlib.contextmanager
def shown() -> Iterator[LiveDisplay]:
    """The bars that a person sees."""
    console = Console(file=io.StringIO(), force_terminal=True)
    display = LiveDisplay(console, Pace([planned()[0]], {}), str)
    display._last_s = -1e9
    display._bars.live.auto_refresh = False
    with display:
        yield display
        display._bars.refresh()


def nothing_seen() -> Telemetry:
    none = floats(())
    return Telemetry(HostSeries(1, none, none, none, none), (), (), none, (), None)


datasets = st.deferred(lambda: hostile.files(origins.annotations(), origins.annotations_file().read_bytes()))


@hostile.examined(120)
@given(datasets)
def test_annotations_are_checked_and_packed_or_refused(content: bytes) -> None:
    folder = origins.scratch() / "coco"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / "instances.json"
    path.write_bytes(content)
    with contextlib.suppress(ZooBenchError):
        check_dataset(origins.dataset() / "train", path, decode=False, workers=1).to_text()
    with contextlib.suppress(worker.WorkerError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycocotools', about numpy
        for sample in coco.read_split(origins.dataset() / "train", path, folder, masks=True).samples:
            if max(sample.width, sample.height) <= MOST_SIDE:  # as load_pixels has found the image to be
                coco.load_masks(sample)


@cache
def made_index() -> tuple[Path, bytes]:
    """An index, and what it holds."""
    folder = origins.scratch() / "index-of-shapes"
    coco.read_split(origins.dataset() / "train", origins.annotations_file(), folder, masks=True)
    (path,) = folder.glob("*.index")
    return path, path.read_bytes()


def header() -> bytes:
    """Its second line, which says where the arrays lie in the rest."""
    return made_index()[1].split(b"\n")[1]


headers = st.deferred(lambda: hostile.files(json.loads(header()), header()))


@hostile.examined(60)
@given(headers)
def test_an_index_that_is_none_is_made_again(content: bytes) -> None:
    path, good = made_index()
    body = content.replace(b"\n", b" ") + b"\n" + good.split(b"\n", 2)[2]
    path.write_bytes(b"zoo-bench index %d %08x\n" % (index.VERSION, zlib.crc32(body)) + body)
    split = coco.read_split(origins.dataset() / "train", origins.annotations_file(), path.parent, masks=False)
    assert isinstance(split, coco.Split)


@cache
def found() -> Any:
    """Detections that are the objects themselves."""
    keys = ("image_id", "category_id", "bbox", "segmentation")
    entries = [{key: entry[key] for key in keys} for entry in origins.annotations()["annotations"]]
    runs = [entry for entry in entries if isinstance(entry["segmentation"], dict)]
    return [{**entry, "score": 0.5} for entry in runs]


detections = st.deferred(lambda: hostile.files(found(), hostile.written(found())))


@hostile.examined(80)
@given(detections)
def test_detections_are_scored_or_refused(content: bytes) -> None:
    path = origins.scratch() / "detections.json"
    path.write_bytes(content)
    with contextlib.suppress(ZooBenchError):
        score(origins.annotations_file(), path, masks=False)
