"""What fuzzing has found, or would have found with more time: each case as it was made small."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MATRIX
from pycocotools import mask as rle

from fuzzing import origins
from models import coco, worker
from zoo_bench.backends import BackendSpec
from zoo_bench.baselines import Baseline
from zoo_bench.bounded import read_bytes
from zoo_bench.datasets.check import check_dataset
from zoo_bench.datasets.coco import read_json
from zoo_bench.errors import ConfigError, DatasetError, StoreError
from zoo_bench.events import EventReader
from zoo_bench.interval import bootstrap_interval
from zoo_bench.load import MOST_NAMES, load_matrix
from zoo_bench.markdown import escape
from zoo_bench.recipe import merge
from zoo_bench.store import Store
from zoo_bench.timing import is_precise
from zoo_bench.yamlfile import MOST_BYTES, load_model

Path_ = tuple[str | int, ...]


def changed(value: Any, path: Path_, new: object) -> Any:
    """A copy of a structure with another value at a place."""
    whole = copy.deepcopy(value)
    inner = whole
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return whole


def store_with(root: Path, content: bytes) -> Store:
    """A store whose only file holds this."""
    path = root / "fake" / "cell" / "1.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return Store(root)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("run_id",), "../../../x"),
        (("run_id",), "\u202e"),
        (("run_id",), ""),
        (("cell_id",), "../../x"),
        (("cell_id",), "fake"),
        (("cell_id",), "fake/.."),
        (("cell_id",), "fake/a/b"),
        (("files", "log"), "../x"),
        (("files", "log"), "/etc/passwd"),
        (("files", "log"), "javascript:alert(1)"),
        (("files", "log"), "x" * 300),  # no file system looks for it without an error
        (("checkpoint", "file"), "a/../../x"),
        # What readers of a record compute with, in places that were not looked at.
        (("cell", "gpus"), "2"),
        (("cell", "gpus"), True),
        (("cell", "recipe"), {}),
        (("cell", "recipe", "optimizer", "lr"), "x"),
        (("cell", "recipe", "optimizer", "lr"), 10**400),
        (("cell", "recipe", "lr_schedule", "iterations"), 10**400),
        (("cell", "measure", "train_half_width"), "x"),
        (("cell", "images_per_gpu"), None),
        (("machine", "memory_bytes"), "x"),
        (("machine", "driver"), ["535"]),
        (("machine", "gpus"), [{"name": "x", "index": [0]}]),
        (("measurements", "memory", "host_bytes"), 10**400),
        (("measurements", "train", "iterations_run"), 10**400),
    ],
)
def test_a_record_that_no_reader_is_fit_for_is_passed_over(tmp_path: Path, path: Path_, value: object) -> None:
    contents = store_with(tmp_path, json.dumps(changed(origins.record(), path, value)).encode()).load()
    assert contents.runs.summaries == ()
    (problem,) = contents.problems.values()
    assert problem.startswith(f"{tmp_path}/fake/cell/1.json: not a record: ")


def test_a_record_says_nothing_to_a_terminal(tmp_path: Path) -> None:
    hostile = changed(origins.record(), ("reason",), "\x1b]0;x\x07\x9b2J\u202e\x7f")
    for text in (json.dumps(hostile), json.dumps(hostile, ensure_ascii=False).replace("\x1b", "\\u001B")):
        folder = tmp_path / str(len(text))
        contents = store_with(folder, text.replace("\x07", "\\u0007").encode()).load()
        (run,) = contents.runs.summaries
        assert contents.runs.read(run).reason == r"\x1b]0;x\x07\x9b2J\u202e\x7f"


def test_memory_of_a_billion_gpus_is_not_told_gpu_by_gpu(tmp_path: Path) -> None:
    content = changed(origins.record(), ("cell", "gpus"), 10**9)
    started = time.monotonic()
    contents = store_with(tmp_path, json.dumps(content).encode()).load()
    assert not contents.problems
    assert time.monotonic() - started < 10  # it took all memory there is


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"a":' * 100_000, b'{"run_id": "\\u001b", "x": ' + b"[" * 100_000]
)
def test_a_deep_record_is_passed_over(tmp_path: Path, content: bytes) -> None:
    assert len(store_with(tmp_path, content).load().problems) == 1


def test_a_record_that_is_a_fifo_or_larger_than_any_is_passed_over(tmp_path: Path) -> None:
    store = store_with(tmp_path, b"{}")
    os.mkfifo(tmp_path / "fake" / "cell" / "2.json")
    with (tmp_path / "fake" / "cell" / "3.json").open("wb") as stream:
        stream.truncate(2**40)
    problems = list(store.load().problems.values())
    assert "regular file" in problems[1]
    assert "larger than 16 MiB" in problems[2]


def test_a_folder_that_is_named_like_no_date_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "runs" / "99999999T999999.999Z-ffff").mkdir(parents=True)
    assert Store(tmp_path).new_run_id() < "9999"


def matrix_of(tmp_path: Path, **changes: Any) -> Path:
    """The project's matrix.yaml, changed."""
    path = tmp_path / "matrix.yaml"
    path.write_text(json.dumps(merge(origins.matrix(), changes)), encoding="utf-8")
    return path


@pytest.mark.parametrize("key", ["? [*a, *a] : x", "? {x: *a} : x", "? *a : x"])
def test_a_key_that_is_no_text_is_not_written_out(tmp_path: Path, key: str) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} {{? *a{n - 1} : [], ? [*a{n - 1}, *a{n - 1}] : []}}" for n in range(1, 30)]
    path = tmp_path / "matrix.yaml"
    path.write_text("\n".join(["a: &a [x]", key]), encoding="utf-8")
    with pytest.raises(ConfigError, match="a key is text"):
        load_matrix(path)
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ConfigError, match="a key is text"):
        load_matrix(path)


def test_a_configuration_that_is_a_fifo_or_larger_than_any_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_bytes(MATRIX.read_bytes() + b"#" * MOST_BYTES)
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_matrix(path)
    os.mkfifo(tmp_path / "backend.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        load_model(tmp_path / "backend.yaml", BackendSpec)
    with pytest.raises(OSError, match="not a regular file"):
        read_bytes(Path("/dev/zero"), 1)


def test_axes_that_make_more_cells_than_fit_into_memory_are_refused(tmp_path: Path) -> None:
    axes = {"backend": ["fake"] * 999, "detector": ["mask-rcnn_fpn"] * 999, "backbone": ["r50"] * 999}
    path = matrix_of(tmp_path, axes=axes, document={"backends": ["fake"]})
    with pytest.raises(ConfigError, match="cells, and 10000 is the most"):
        load_matrix(path)


def test_more_names_than_can_be_looked_through_are_refused(tmp_path: Path) -> None:
    backbones = {f"b{number}": {"title": "x"} for number in range(MOST_NAMES)}
    path = matrix_of(tmp_path, backbones=backbones)
    with pytest.raises(ConfigError):
        load_matrix(path)
    fewer = {name: backbones[name] for name in list(backbones)[: MOST_NAMES // 50]}
    with pytest.raises(ConfigError, match=f"and {MOST_NAMES} is the most"):
        load_matrix(matrix_of(tmp_path, backbones=fewer))


@pytest.mark.parametrize("lock", ["../../../etc/passwd", "/etc/passwd", "a/../../b", "file:///etc/passwd"])
def test_a_lock_outside_of_its_backend_is_refused(tmp_path: Path, lock: str) -> None:
    path = tmp_path / "backend.yaml"
    path.write_text(json.dumps(changed(origins.backend(), ("variants", "current", "lock"), lock)), encoding="utf-8")
    with pytest.raises(ConfigError, match="is not in the workspace"):
        load_model(path, BackendSpec)


@pytest.mark.parametrize("key", ["images", "annotations"])
def test_a_split_outside_of_its_dataset_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match="is not in the workspace"):
        load_matrix(matrix_of(tmp_path, datasets={"coco_2017": {"val": {key: "../../etc"}}}))


@pytest.mark.parametrize("name", ["../x", "..", "/x", "a/b", "a b", "a\n", "", ".x", "é", "x" * 65, "$(x)", "a*"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    for changes in (
        {"backbones": {name: {"title": "x"}}},
        {"axes": {"backend": [name]}},
        {"axes": {"schedule": [name]}, "schedules": {name: {"set": {}}}},
        {"datasets": {"coco_2017": {"label": name}}},
        {"detectors": {"retinanet_fpn": {"family": name}}},
    ):
        with pytest.raises(ConfigError, match=r"should match pattern|should have at most 64|a key is text"):
            load_matrix(matrix_of(tmp_path, **changes))


@pytest.mark.parametrize("number", ["1" + "0" * 300, "-1e300", "9223372036854775809", '"nan"', '"1"', "null", "true1"])
def test_an_event_of_no_time_is_none(tmp_path: Path, number: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(f'{{"event": "run_stop", "time_s": {number}, "unix_s": 1, "protocol": 1}}\n', encoding="utf-8")
    reader = EventReader(path)
    assert reader.read() == []
    assert reader.malformed == 1


def test_iterations_of_no_time_are_never_known_precisely() -> None:
    assert not is_precise(np.zeros(100), 0.01)


def test_what_is_wrong_with_a_baseline_says_nothing_to_a_terminal(tmp_path: Path) -> None:
    machine = ("", "A CPU", ())
    path = Baseline.of(tmp_path, machine).path
    path.parent.mkdir()
    path.write_text(json.dumps({"machine": ["", "A CPU", []], "accepted": [], "\x1b[2J": 1}))
    with pytest.raises(StoreError) as caught:
        Baseline.of(tmp_path, machine)
    assert "\x1b" not in caught.value.message


def test_times_whose_squares_are_nothing_have_no_interval() -> None:
    assert bootstrap_interval(np.linspace(1e-200, 2e-200, 80)) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda job: job.pop("paths"), "does not say where events are to be written"),
        (lambda job: job.update(paths=[]), "does not say where events are to be written"),
        (lambda job: job["paths"].update(events=5), "does not say where events are to be written"),
        (lambda job: job["paths"].update(events="/nowhere/at/all"), "events cannot be written to '/nowhere/at/all'"),
        (lambda job: job["paths"].update(events="a\0b"), "events cannot be written to"),
        (lambda job: job.update(protocol=2), "has protocol 2; this worker speaks 1"),
    ],
)
def test_a_job_without_a_place_for_events_is_refused_in_a_line(
    tmp_path: Path, change: Callable[[Any], object], words: str
) -> None:
    job = json.loads(origins.run_file("job.json").read_bytes())
    change(job)
    assert words in refused(tmp_path, json.dumps(job))


def test_a_deep_job_is_refused_in_a_line(tmp_path: Path) -> None:
    assert "cannot read the job" in refused(tmp_path, "[" * 100_000)


def refused(tmp_path: Path, text: str) -> str:
    """The last line that a worker says before it ends with 2."""
    path = tmp_path / "job.json"
    path.write_text(text, encoding="utf-8")
    with contextlib.redirect_stderr(io.StringIO()) as told:
        try:
            code: Any = worker.run(lambda *_: None, ["--job", str(path)])
        except SystemExit as stop:
            code = stop.code
    assert code == 2
    return told.getvalue().splitlines()[-1]


HUGE = 10**4000
FAR = [0, 0, 1e9, 0, 0, 1e9]
LARGER = rle.encode(np.ones((99, 99), np.uint8, order="F"))["counts"].decode()


@pytest.mark.parametrize(
    ("place", "value", "kind"),
    [
        (("images", 0, "width"), HUGE, "malformed entry"),
        (("annotations", 0, "bbox"), [17 * 10**307, 1, 17 * 10**307, 1], "that is not a finite number"),
        (("annotations", 0, "segmentation"), [[10**400, 1.5, 1, 2, 3, 4]], "number that is not finite"),
        (("annotations", 0, "segmentation"), {"size": [HUGE, HUGE], "counts": [1]}, "run lengths without a size"),
        (
            ("annotations", 0, "segmentation"),
            {"size": [64, 64], "counts": [HUGE] * 9},
            "run lengths that are not counts",
        ),
        (("annotations", 0, "segmentation"), [FAR], "a corner far outside of the image"),
        (("annotations", 0, "segmentation"), [[-5e4, 0, 5, 0, 0, 5]], "a corner far outside of the image"),
    ],
)
def test_annotations_beyond_any_image_are_named(tmp_path: Path, place: Path_, value: object, kind: str) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(changed(origins.annotations(), place, value)), encoding="utf-8")
    report = check_dataset(origins.dataset() / "train", path, decode=False)
    assert not report.ok
    assert kind in report.to_text()


def test_an_annotation_file_larger_than_any_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    with path.open("wb") as stream:
        stream.truncate(2**43)
    assert "larger than 8192 MiB" in check_dataset(tmp_path, path).to_text()
    with pytest.raises(DatasetError, match="regular file"):
        read_json(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([FAR], "has a corner far outside of its image"),
        ([[float("nan"), 1, 2, 3, 4, 5]], "has a corner far outside of its image"),
        ({"size": [64, 64], "counts": ""}, "neither polygons nor run lengths"),
        ({"size": [64, 64], "counts": LARGER}, "cannot draw the masks"),
        ([[10**400, 1, 2, 3, 4, 5]], "cannot read the annotations"),
    ],
)
def test_a_worker_draws_no_mask_that_is_none(tmp_path: Path, segmentation: object, words: str) -> None:
    path = tmp_path / "instances.json"
    content = changed(origins.annotations(), ("annotations", 0, "segmentation"), segmentation)
    content = changed(content, ("annotations", 0, "iscrowd"), 0)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(worker.WorkerError, match=words) as caught:
        drawn(path, tmp_path)
    assert caught.value.kind == "data"


def drawn(path: Path, index: Path) -> list[Any]:
    """All masks of an annotation file."""
    samples = coco.read_split(origins.dataset() / "train", path, index, masks=True).samples
    return [coco.load_masks(sample) for sample in samples]


@pytest.mark.parametrize("side", [-64, 0, 10**400, "wide", None])
def test_an_image_of_no_size_is_refused_by_a_worker(tmp_path: Path, side: object) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(changed(origins.annotations(), ("images", 0, "width"), side)), encoding="utf-8")
    with pytest.raises(worker.WorkerError, match="cannot read the annotations"):
        drawn(path, tmp_path)


def test_deep_annotations_are_refused_by_a_worker(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(worker.WorkerError, match="cannot read the annotations"):
        drawn(path, tmp_path)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("# x", r"\# x"),
        ("- x", r"\- x"),
        ("---", r"\---"),
        ("> x", r"\> x"),
        ("1. x", r"1\. x"),
        ("=", r"\="),
        ("~~~", r"\~\~\~"),
        ("__x__", r"\_\_x\_\_"),
        ("a_b_c -5 1.5 #1", "a_b_c -5 1.5 #1"),
        ("-5", "-5"),
        ("1.5 GB", "1.5 GB"),
    ],
)
def test_a_value_begins_no_block_and_no_emphasis(text: str, written: str) -> None:
    assert escape(text) == written
