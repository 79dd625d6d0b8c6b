"""`compare`: two records, dates or machines, and our figures beside published ones."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import MATRIX, Zoo
from records import GIB, changed, machine, matrix_on_gpus, memory, on_gpus, runs_of, with_measurements

from zoo_bench.beside import Comparison, Entry, put_beside, throughput_beside
from zoo_bench.compare import compare_figures, unlike
from zoo_bench.errors import ConfigError
from zoo_bench.load import load_matrix
from zoo_bench.measurements import Interval
from zoo_bench.noise import Noise
from zoo_bench.published import load_published, source_names
from zoo_bench.record import Record
from zoo_bench.revision import Revision
from zoo_bench.sides import find_side
from zoo_bench.store import Store

MASK = "fake/mask-rcnn_r50_fpn_1x_shapes"
DAY_S = 86400.0


def timed(record: Record, mean_s: float, half_width_s: float | None = None) -> Record:
    """A record with another s/iter, and an interval where a half-width is given."""
    interval = None if half_width_s is None else Interval(low=mean_s - half_width_s, high=mean_s + half_width_s)
    assert record.measurements.train is not None
    train = record.measurements.train.model_copy(update={"mean_s": mean_s, "interval": interval})
    return with_measurements(record, train=train)


def s_per_iter(a: Record, b: Record) -> tuple[float | None, str]:
    compared = next(compared for compared in compare_figures(a, b) if compared.column == "s_per_iter")
    return compared.change, compared.verdict


def test_a_change_is_told_in_percent_of_a(finished: Zoo) -> None:
    record = finished.records[0]
    assert s_per_iter(timed(record, 0.2), timed(record, 0.25)) == (pytest.approx(0.25), "")
    assert s_per_iter(timed(record, 0.25), timed(record, 0.2)) == (pytest.approx(-0.2), "")


@pytest.mark.parametrize(
    ("b", "half_widths", "verdict"),
    [
        (0.204, (0.003, 0.004), "within noise"),
        (0.206, (0.003, 0.004), "differs"),
        (0.194, (0.003, 0.004), "differs"),
        (0.3, (0.003, None), ""),
        (0.3, (None, None), ""),
    ],
)
def test_a_verdict_takes_both_intervals(
    finished: Zoo, b: float, half_widths: tuple[float | None, float | None], verdict: str
) -> None:
    record, (first, second) = finished.records[0], half_widths
    assert s_per_iter(timed(record, 0.2, first), timed(record, b, second))[1] == verdict


def test_a_noisy_side_is_named_and_gets_no_verdict(finished: Zoo) -> None:
    clean = timed(finished.records[0], 0.2, 0.003)
    noise = Noise(kind="foreign_process", gpu=0, from_s=1, to_s=4, detail="process 42, up to 2.0 GB")
    noisy = changed(timed(clean, 0.3, 0.003), noise=(noise,))
    assert s_per_iter(clean, noisy) == (pytest.approx(0.5), "")
    assert s_per_iter(noisy, clean)[1] == ""
    assert unlike(clean, noisy) == ["noise: none -> GPU 0: process 42, up to 2.0 GB (1 to 4 s)"]
    assert len(unlike(noisy, noisy)) == 1


def test_memory_of_a_host_and_of_a_gpu_is_never_one_change(finished: Zoo) -> None:
    record = finished.records[0]
    gpu = with_measurements(on_gpus(record, matrix_on_gpus(finished.root)), memory=memory({"nvml_process_bytes": GIB}))
    found = next(compared for compared in compare_figures(record, gpu) if compared.column == "memory")
    assert (found.change, found.remark) == (None, "memory of the host on one side, of a GPU on the other")


def test_memory_counted_in_another_way_is_never_one_change(finished: Zoo) -> None:
    matrix = matrix_on_gpus(finished.root, 1)
    known, hidden = (
        with_measurements(on_gpus(finished.records[0], matrix), memory=memory({key: GIB}))
        for key in ("nvml_process_bytes", "nvml_delta_bytes")
    )
    found = compare_figures(known, hidden)[0]
    assert found.change is None
    assert "less what was in use before the job" in found.remark
    assert compare_figures(hidden, hidden)[0].change == 0


def test_what_differs_in_how_two_records_came_about_is_told(finished: Zoo) -> None:
    first = finished.records[0]
    inputs = first.inputs.model_copy(update={"sources_sha256": "5" * 64, "lock_sha256": "a" * 64})
    cell = {**first.cell, "images_per_gpu": 4, "seed": 7}
    other = changed(first, inputs=inputs, cell=cell, software={"python": "3.99"}, machine=machine(cpu="B CPU"))
    told = unlike(first, other)
    assert "recipe: images_per_gpu: 2 -> 4" in told
    assert f"worker sources: SHA-256 {first.inputs.sources_sha256[:8]} -> SHA-256 55555555" in told
    assert "lock: none -> SHA-256 aaaaaaaa" in told
    assert f"Python: {first.software['python']} -> 3.99" in told
    assert any(line.startswith("CPU: ") and "-> B CPU" in line for line in told)
    assert not any("seed" in line or line.startswith("dataset") for line in told)
    assert unlike(first, first) == []


def test_the_revision_of_the_zoo_is_a_difference(finished: Zoo) -> None:
    first = finished.records[0]
    a, b = (
        changed(first, revision=Revision(commit=letter * 40, dirty=letter == "b"), definitions={}) for letter in "ab"
    )
    assert unlike(a, b) == ["revision: commit aaaaaaaaaaaa -> commit bbbbbbbbbbbb, with changes"]


def test_drivers_differ(finished: Zoo) -> None:
    matrix = matrix_on_gpus(finished.root)
    a, b = (on_gpus(finished.records[0], matrix, machine=machine(driver=driver)) for driver in ("535.54", "550.1"))
    assert unlike(a, b) == ["GPU driver: 535.54 -> 550.1"]


def history(zoo: Zoo) -> list[Record]:
    """Four runs of one cell on three days (UTC noon) and two machines, the last of them failed; oldest first."""
    noon = 1_795_176_000.0  # 2026-11-20 12:00 UTC
    first, lab = zoo.records[0], {"machine": machine(0, name="lab", cpu="Xeon Gold")}
    return [
        changed(first, run_id="20261120T120000.000Z-0001", started_unix_s=noon, machine=machine(0, name="den")),
        changed(first, run_id="20261121T120000.000Z-0002", started_unix_s=noon + DAY_S, **lab),
        changed(first, run_id="20261122T120000.000Z-0003", started_unix_s=noon + 2 * DAY_S, **lab),
        changed(first, run_id="20261122T130000.000Z-0004", started_unix_s=noon + 2 * DAY_S, status="failed", **lab),
    ]


@pytest.mark.parametrize(
    ("word", "run"),
    [
        ("20261120T120000.000Z-0001", "0001"),  # a run
        ("20261122T12", "0003"),  # the beginning of one
        ("2026-11-20", "0001"),  # the end of a day
        ("2026-11-21", "0002"),
        ("2026-11-21T11:59", "0001"),  # a moment
        ("2026-11-21 12:01", "0002"),
        ("2027-01-01", "0003"),  # runs that failed never count
        ("den", "0001"),  # a machine's name
        ("lab", "0003"),
        ("xeon", "0003"),  # a part of a machine's description
    ],
)
def test_sides_are_runs_dates_or_machines(finished: Zoo, word: str, run: str) -> None:
    side = find_side(word, runs_of(history(finished)))
    assert side.runs[MASK].run_id.endswith(run)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("CPU", "is a part of 2 machines: den, No GPU, A CPU, 20 cores; lab2, No GPU, B CPU, 20 cores"),
        ("20261120T", "begins the ids of 2 runs"),
        ("2026-13-01", "is no date"),
        ("dem", "did you mean 'den'"),
        ("nothing like it", "backends in the store: fake; machines: den"),
    ],
)
def test_words_that_are_ambiguous_or_unknown_are_readable_errors(finished: Zoo, word: str, told: str) -> None:
    first = history(finished)[0]
    second = changed(first, run_id="20261120T130000.000Z-0002", machine=machine(0, name="lab2", cpu="B CPU"))
    with pytest.raises(ConfigError) as caught:
        find_side(word, runs_of([first, second]))
    assert told in f"{caught.value.message} {caught.value.hint}"


def test_the_command_compares_every_common_cell(zoo: Zoo) -> None:
    zoo.call("run")
    store = Store(zoo.root / "results")
    for record in zoo.records:
        later = timed(changed(record, run_id=f"29991231T000000.000Z-{record.run_id[-4:]}"), 2.0, 0.01)
        store.add(later.model_copy(update={"started_unix_s": 4e9, "machine": {**record.machine, "name": "lab"}}))
    done = zoo.call("compare", "2090-01-01", "lab")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^fake/", done.stdout, re.MULTILINE)) == 2
    assert re.search(r"s/iter +0\.\d{4} +2\.0000 \(1\.9900 to 2\.0100\) +\+\d", done.stdout)
    assert "What differs from A to B, every cell:" in done.stdout
    assert "machine: none -> lab" in done.stdout
    markdown = zoo.call("compare", "2090-01-01", "lab", "--markdown").stdout
    assert "| s/iter" in " ".join(markdown.split())


def test_records_are_compared_from_files_and_across_cells(finished: Zoo, tmp_path: Path) -> None:
    paths = sorted((finished.root / "results").glob("fake/*/*.json"))
    moved = shutil.copy(paths[1], tmp_path / "theirs.json")
    done = finished.call("compare", finished.records[0].run_id, str(moved))
    assert done.returncode == 0, done.stderr
    assert f"{finished.records[0].cell_id} and {finished.records[1].cell_id}" in done.stdout
    (tmp_path / "other.json").write_text("{}")
    assert finished.call("compare", str(moved), str(tmp_path / "other.json")).returncode == 2


def test_sides_without_a_common_cell_are_a_readable_error(finished: Zoo) -> None:
    done = finished.call("compare", "2000-01-01", "2090-01-01")
    assert done.returncode == 2
    assert "up to 2000-01-02 00:00:00 UTC has none" in done.stderr
    assert finished.call("compare", "2090-01-01").returncode == 2


def test_every_published_source_is_read() -> None:
    zoos, throughput = load_published()
    names = {
        "mmdetection-2018", "mmdetection-2019", "detectron2", "maskrcnn-benchmark", "simpledet",
        "detectron2-benchmarks", "deeplearningexamples", "mlperf",
    }  # fmt: skip
    assert {source.name for source in (*zoos, *throughput)} == set(source_names()) == names
    matrix = load_matrix(MATRIX)
    for zoo in zoos:
        assert all(row.detector in matrix.detectors and row.backbone in matrix.backbones for row in zoo.rows)


@pytest.mark.parametrize(
    ("source", "cell", "figures"),
    [
        ("mmdetection-2018", "faster-rcnn_fpn r101", (8.0, 0.698, 8.3, 38.6, None)),
        ("mmdetection-2018", "mask-rcnn_fpn r50", (5.8, 0.690, 7.7, 37.3, 34.2)),
        ("mmdetection-2019", "faster-rcnn_c4 r50", (None, None, 9.5, 34.9, None)),
        ("mmdetection-2019", "retinanet_fpn r101", (5.5, 0.429, 10.9, 37.7, None)),
        ("detectron2", "faster-rcnn_c4 r50", (4.8, 0.551, 9.8, 35.7, None)),
        ("detectron2", "mask-rcnn_fpn r50", (3.4, 0.261, 23.3, 38.6, 35.2)),
        ("maskrcnn-benchmark", "faster-rcnn_c4 r50", (5.8, 0.404, 5.8, 34.8, None)),
        ("maskrcnn-benchmark", "mask-rcnn_fpn r101", (7.9, 0.567, 5.3, 40.1, 36.1)),
        ("simpledet", "faster-rcnn_c4 r101", (10.2, 1.0, None, 38.3, None)),
        ("simpledet", "mask-rcnn_fpn r101", (None, None, None, 40.4, 36.3)),
        ("simpledet", "retinanet_fpn r50", (4.7, 0.364, None, 35.6, None)),
    ],
)
def test_published_figures_are_those_of_the_sources(source: str, cell: str, figures: tuple[float | None, ...]) -> None:
    (zoo,), _ = load_published(source)
    row = zoo.row(*cell.split(), "1x")
    assert row is not None
    assert (row.memory_gb, row.s_per_iter, row.fps, row.box_ap, row.mask_ap) == figures


def beside(matrix: Path, source: str, *records: Record) -> dict[str, dict[str, Entry]]:
    """The lines for Mask R-CNN R-50 by whose they are."""
    zoos, throughput = load_published(source)
    arguments: Any = (load_matrix(matrix), None, runs_of(records))
    tables: list[Comparison] = [*put_beside(*arguments, zoos), *throughput_beside(*arguments, throughput)]
    table = next(table for table in tables if table.title.startswith("Mask RCNN"))
    return {line.whose: dict(line.entries) for line in table.lines if line.cell == "R-50 1x"}


def test_with_an_empty_store_ours_is_blank_and_definitions_are_told() -> None:
    lines = beside(MATRIX, "mmdetection-2018")
    assert {entry.text for entry in lines["ours"].values()} == {""}
    theirs = lines["mmdetection 2018"]
    assert theirs["memory"].text == "5.8"
    assert "what the framework's allocator held" in theirs["memory"].differs[0]
    assert "data loading included" in theirs["fps"].differs[0]
    assert "12 epochs" in theirs["mask_ap"].differs[0]


def test_our_memory_and_speed_are_counted_once_more_as_a_source_does(finished: Zoo) -> None:
    matrix = matrix_on_gpus(finished.root)
    found = memory(
        {"nvml_process_bytes": 6 * GIB}, {"nvml_process_bytes": 5 * GIB},
        allocator=((2 * GIB, 3 * GIB), (4 * GIB, 4 * GIB)),
    )  # fmt: skip
    record = with_measurements(on_gpus(finished.records[0], matrix), memory=found)
    infer = record.measurements.infer
    assert infer is not None
    parts = {"load_s": 0.01, "preprocess_s": 0.01, "forward_s": 0.03, "postprocess_s": 0.02, "encode_s": 0.03}
    record = with_measurements(record, infer=infer.model_copy(update=parts))
    so = {name: beside(matrix, name, record) for name in ("mmdetection-2018", "mmdetection-2019", "detectron2")}
    ours = so["detectron2"]["ours"]
    assert (ours["memory"].text, ours["fps"].text) == ("6.0", "20.0")
    counted = {name: lines["  ours, counted so"] for name, lines in so.items()}
    assert {name: entries["memory"].text for name, entries in counted.items()} == {
        "mmdetection-2018": "4.0",
        "mmdetection-2019": "4.0",
        "detectron2": "2.0",
    }
    assert counted["mmdetection-2018"]["fps"].text == "10.0"
    assert "fps" not in counted["detectron2"]
    assert "  ours, counted so" not in beside(matrix, "simpledet", record)


def test_hardware_batch_dataset_and_size_that_differ_are_told(finished: Zoo) -> None:
    matrix = matrix_on_gpus(finished.root)
    record = on_gpus(finished.records[0], matrix, machine=machine(gpu="NVIDIA H200"))
    told = " | ".join(beside(matrix, "detectron2", record)["detectron2"]["s_per_iter"].differs)
    assert "theirs on 8 x V100 (NVLink), ours on 2 NVIDIA H200 GPUs" in told
    assert "theirs with batch 16, ours with 4" in told
    assert "theirs on coco_2017, ours on shapes" in told
    speed = " | ".join(beside(matrix, "detectron2", record)["detectron2"]["fps"].differs)
    assert "batch" not in speed
    assert "theirs on 8 x V100" not in " | ".join(beside(matrix, "detectron2")["detectron2"]["fps"].differs)


def test_one_gpu_of_the_same_kind_is_the_same_hardware_for_fps(finished: Zoo) -> None:
    matrix = matrix_on_gpus(finished.root)
    record = on_gpus(finished.records[0], matrix)
    theirs = beside(matrix, "detectron2", record)["detectron2"]
    assert not any("V100" in text for text in theirs["fps"].differs)
    assert any("theirs on 8 x V100 (NVLink), ours on 2 NVIDIA Tesla V100" in text for text in theirs["memory"].differs)


def test_a_row_with_another_batch_says_so() -> None:
    (zoo,), _ = load_published("maskrcnn-benchmark")
    (table, *_) = put_beside(load_matrix(MATRIX), None, runs_of(), [zoo])
    theirs = next(line for line in table.lines if line.whose == "maskrcnn-benchmark")
    assert "theirs with batch 8, ours with 16" in theirs.entries["s_per_iter"].differs
    assert not any("batch" in text for text in theirs.entries["fps"].differs)


def test_training_throughput_is_per_gpu(finished: Zoo) -> None:
    matrix = matrix_on_gpus(finished.root)
    record = timed(on_gpus(finished.records[0], matrix), 0.5)
    lines = beside(matrix, "detectron2-benchmarks", record)
    assert lines["ours"]["images/s per GPU"].text == "4.0"
    assert lines["detectron2's benchmarks: detectron2"]["images/s per GPU"].text == "7.8"


def test_the_command_prints_a_table_a_detector_with_marks(finished: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = finished.call("compare", "--published", "--matrix", str(MATRIX), "--root", str(finished.root))
    assert done.returncode == 0, done.stderr
    assert re.search(r"SimpleDet +5\.9 \w,\w +0\.800", done.stdout)
    assert re.search(r"^ +- +\w: theirs was trained with scale jitter", done.stdout, re.MULTILINE)
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    for title in ("Faster RCNN", "FPN", "Mask RCNN", "RetinaNet"):
        assert f"\n{title}\n" in done.stdout
    one = finished.call("compare", "--published", "simpledet", "--markdown", "--matrix", str(MATRIX)).stdout
    assert "detectron2" not in one
    assert re.search(r"\| 5\.9\[\^1\]\[\^2\]", " ".join(one.split()))
    assert "[^1]: theirs is what nvidia-smi shows" in one


def test_an_unknown_source_names_the_nearest(finished: Zoo) -> None:
    done = finished.call("compare", "--published", "detectron")
    assert done.returncode == 2
    assert "did you mean 'detectron2'" in done.stderr


def test_a_date_that_no_calendar_has_after_it_is_refused(finished: Zoo) -> None:
    done = finished.call("compare", "9999-12-31", "2026-11-24")
    assert done.returncode == 2
    assert "9999-12-31" in done.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"files": {"log": "/etc/passwd"}}, "is not in the workspace"),
        ({"files": {"log": "results/../../x"}}, "is not in the workspace"),
        ({"started_unix_s": 1e18}, "started_unix_s"),
    ],
)
def test_a_record_that_cannot_be_true_is_passed_over(
    finished: Zoo, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    path = tmp_path / "record.json"
    values = finished.records[0].model_dump(mode="json")
    path.write_text(json.dumps({**values, **change}), encoding="utf-8")
    done = finished.call("compare", str(path), str(path))
    assert done.returncode == 2
    assert words in done.stderr
