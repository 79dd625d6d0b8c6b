"""Finished runs of other trainers: logs like theirs, of every family, become records with the figures they hold."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
from pathlib import Path

import pytest
import yaml
from conftest import Zoo
from typer.testing import CliRunner

from zoo_bench.adapters import find_adapter
from zoo_bench.cli import app
from zoo_bench.errors import ZooBenchError
from zoo_bench.imports.finished import finished_run
from zoo_bench.record import Record

GLUONCV = """\
Namespace(batch_size=8, dataset='coco', epochs=2, gpus='0,1,2,3', lr=0.01, momentum=0.9, network='resnet50_v1b', \
save_prefix='faster_rcnn_fpn_resnet50_v1b_coco', seed=233, wd=0.0001)
Start training from [Epoch 0]
[Epoch 0 Iteration 0] Set learning rate to 0.003
"""
LOSSES = "RPN_Conf=0.3,RCNN_SmoothL1=0.2,RPNAcc=0.9"
SUMMARY = """\
[Epoch {epoch}] Validation:
~~~~ Summary metrics ~~~~
=Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = {ap}
 Average Precision  (AP) @[ IoU=0.50      | area=   all | maxDets=100 ] = 0.578
 Average Precision  (AP) @[ IoU=0.75      | area=   all | maxDets=100 ] = 0.396
 Average Precision  (AP) @[ IoU=0.50:0.95 | area= small | maxDets=100 ] = -1.000
 Average Precision  (AP) @[ IoU=0.50:0.95 | area=medium | maxDets=100 ] = 0.418
 Average Precision  (AP) @[ IoU=0.50:0.95 | area= large | maxDets=100 ] = 0.510
 Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=  1 ] = 0.309
 Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets= 10 ] = 0.475
 Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.494
 Average Recall     (AR) @[ IoU=0.50:0.95 | area= small | maxDets=100 ] = 0.282
 Average Recall     (AR) @[ IoU=0.50:0.95 | area=medium | maxDets=100 ] = 0.547
 Average Recall     (AR) @[ IoU=0.50:0.95 | area= large | maxDets=100 ] = 0.660
"""


def epoch(number: int, speed: float, ap: float, lines: int = 10) -> str:
    steps = "".join(
        f"[Epoch {number}][Batch {100 * line - 1}], Speed: {speed} samples/sec, {LOSSES}\n"
        for line in range(1, lines + 1)
    )
    cost = f"[Epoch {number}] Training cost: {8 / speed * 100 * lines:.3f}, RPN_Conf=0.3\n"
    return steps + cost + SUMMARY.format(epoch=number, ap=ap)


WHOLE = GLUONCV + epoch(0, 16.0, 0.2) + epoch(1, 20.0, 0.37)


def imported(zoo: Zoo, adapter: str, content: str | list[str], *options: str, code: int = 0) -> list[Record]:
    """Write the files, import them, and return what that has added. In this process: there are many."""
    before = {record.run_id for record in zoo.records}
    names = []
    for number, text in enumerate([content] if isinstance(content, str) else content):
        names.append(str(zoo.root / f"{adapter}-{number}.log"))
        Path(names[-1]).write_text(text, encoding="utf-8")
    done = CliRunner().invoke(app, ["import", adapter, *names, "--root", str(zoo.root), *options])
    assert done.exit_code == code, f"{done.output} {done.exception!r}"
    return [record for record in zoo.records if record.run_id not in before]


def remarks(record: Record) -> str:
    assert record.origin is not None
    return "; ".join(record.origin.remarks)


def test_a_log_of_gluoncv_tells_times_losses_scores_and_its_recipe(zoo: Zoo) -> None:
    (record,) = imported(zoo, "gluoncv", WHOLE)
    assert record.cell_id == "gluoncv-imported/faster-rcnn_r50_fpn_2e_coco"
    assert (record.cell["gpus"], record.cell["images_per_gpu"]) == (4, 2)
    assert record.cell["recipe"]["optimizer"]["lr"] == 0.01
    train, scores = record.measurements.train, record.measurements.scores
    assert train is not None
    assert train.averaged_over == 100
    assert train.iterations_run == 2000
    assert train.mean_s == pytest.approx((10 * 0.5 + 10 * 0.4) / 20, rel=0.05)
    assert train.final_loss == pytest.approx(0.5), "an accuracy is no loss"
    assert train.data_share is None
    assert scores is not None
    assert scores.box is not None
    assert (scores.box.ap, scores.box.ap_small, scores.box.ar_large) == (0.37, None, 0.66)
    assert record.origin is not None
    assert "recipe.optimizer.lr" in record.origin.known
    assert "recipe.model.fpn_channels" not in record.origin.known


def test_show_tells_where_an_imported_run_is_from_and_nothing_that_is_not_known(zoo: Zoo) -> None:
    imported(zoo, "gluoncv", WHOLE)
    told = zoo.call("show", "gluoncv-imported/faster-rcnn_r50_fpn_2e_coco").stdout
    assert "gluoncv-0.log" in told
    assert "known of its cell" in told
    assert "means over 100 of 2000 iterations" in told
    for absent in ("CPU", "system", "begun", "sources"):
        assert absent not in told


def test_what_was_trained_twice_counts_once(zoo: Zoo) -> None:
    """A run that was started anew in the same file, and one that went on after its first epoch."""
    (again,) = imported(zoo, "gluoncv", GLUONCV + epoch(0, 4.0, 0.1) + WHOLE)
    train = again.measurements.train
    assert train is not None
    assert train.mean_s < 0.5, "nothing of the slow first try is in it"
    assert "joined from 2 segments; 10 lines are left out" in remarks(again)
    (resumed,) = imported(
        zoo, "gluoncv", [GLUONCV + epoch(0, 16.0, 0.2) + epoch(1, 20.0, 0.2, lines=3), GLUONCV + epoch(1, 20.0, 0.36)],
        "--one-run",
    )  # fmt: skip
    assert resumed.status == "succeeded"
    assert "joined from 2 segments; 3 lines" in remarks(resumed)
    assert resumed.measurements.scores is not None
    assert resumed.measurements.scores.box is not None
    assert resumed.measurements.scores.box.ap == 0.36


def test_a_log_that_is_cut_off_is_no_result(zoo: Zoo) -> None:
    cut = WHOLE[: WHOLE.index("[Epoch 1][Batch 699]")]
    (record,) = imported(zoo, "gluoncv", cut, code=1)
    assert record.status == "interrupted"
    assert record.reason == "its log ends at iteration 1600 of 2000"
    document = zoo.call("render", "--backend", "gluoncv-imported").stdout
    assert "20.0" not in document.split("[^1]:")[0], "an AP on the way is none of the model"
    assert "interrupted" in document


def test_a_log_without_its_last_evaluation_has_times_and_no_ap(zoo: Zoo) -> None:
    (record,) = imported(zoo, "gluoncv", WHOLE[: WHOLE.rindex("[Epoch 1] Validation")])
    assert record.measurements.train is not None
    assert record.measurements.scores is None
    assert "its last evaluation was after iteration 1000 of 2000: no AP is taken" in remarks(record)


def mmdet(version: int, epochs: int = 2) -> str:
    config = (
        "model = dict(\n    type='MaskRCNN',\n    backbone=dict(\n        type='ResNet',\n        depth=50),\n"
        "    neck=dict(type='FPN'))\n"
        "optimizer = dict(type='SGD', lr=0.02, momentum=0.9)\nrunner = dict(type='EpochBasedRunner', max_epochs=2)\n"
        "data = dict(samples_per_gpu=2)\ngpu_ids = range(0, 8)\n"
    )
    lines: list[dict[str, object]] = [{"env_info": "GPU 0,1,2,3,4,5,6,7: Tesla V100\nPyTorch: 1.9.0", "config": config}]
    lines = lines if version == 2 else []
    for number in range(1, epochs + 1):
        for place in range(50, 501, 50):
            step = {"lr": 0.02, "data_time": 0.1, "loss": 1.5, "loss_cls": 1.0, "time": 0.4, "memory": 3905 + place}
            throughout = {"epoch": number, "iter": place, "mode": "train"}
            if version == 3:
                throughout = {"epoch": number, "iter": (number - 1) * 500 + place, "step": (number - 1) * 500 + place}
            lines.append({**throughout, **step})
        name = "bbox_mAP" if version == 2 else "coco/bbox_mAP"
        lines.append({"mode": "val", name: 0.3 + number / 100, name.replace("bbox", "segm"): 0.2 + number / 100})
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.mark.parametrize(("version", "options"), [(2, ()), (3, ("--detector", "mask-rcnn_fpn", "--backbone", "r50"))])
def test_logs_of_mmdetection_of_every_version_are_read(version: int, options: tuple[str, ...], zoo: Zoo) -> None:
    (record,) = imported(zoo, "mmdet", mmdet(version), *options)
    train, scores, reported = record.measurements.train, record.measurements.scores, record.measurements.reported
    assert train is not None
    assert (train.iterations_run, train.averaged_over, train.mean_s) == (1000, 50, pytest.approx(0.4))
    assert train.data_share == pytest.approx(0.25)
    assert reported is not None
    assert reported.memory is not None
    assert (reported.memory.bytes, reported.memory.count) == (4405 * 2**20, "allocated"), "MiB, the largest"
    assert scores is not None
    assert scores.mask is not None
    assert scores.mask.ap == pytest.approx(0.22)
    assert ("its batch is not told" in remarks(record)) == (version == 3)
    document = zoo.call("render", "--backend", "mmdet").stdout
    assert " 4.3[^" in document
    assert "torch.cuda.max_memory_allocated" in document
    assert "Imported, not measured by zoo-bench" in document


def detectron2(last: int, *, evaluated: bool) -> str:
    lines: list[dict[str, object]] = [
        {
            "iteration": place - 1,
            "total_loss": 0.5,
            "lr": 0.02,
            "time": 0.2,
            "data_time": 0.01,
            "eta_seconds": (900 - place) * 0.2,
        }
        for place in range(20, last + 1, 20)
    ]
    if evaluated:
        lines.append(
            {
                "iteration": last - 1,
                "bbox/AP": 40.21,
                "segm/AP": 37.17,
                "bbox/AP-person": 55.0,
                "bbox/APs": float("nan"),
            }
        )
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_a_metrics_file_of_detectron2_is_in_points_and_grows_when_resumed(zoo: Zoo) -> None:
    options = (
        "--detector",
        "mask-rcnn_fpn",
        "--backbone",
        "r50",
        "--schedule",
        "3x",
        "--gpus",
        "8",
        "--images-per-gpu",
        "2",
    )
    (record,) = imported(
        zoo, "detectron2", detectron2(500, evaluated=False) + detectron2(900, evaluated=True), *options
    )
    train, scores = record.measurements.train, record.measurements.scores
    assert train is not None
    assert (train.iterations_run, train.mean_s, train.batch_size) == (900, pytest.approx(0.2), 16)
    assert scores is not None
    assert scores.box is not None
    assert (scores.box.ap, scores.box.ap_small) == (pytest.approx(0.4021), None)
    (cut,) = imported(zoo, "detectron2", detectron2(500, evaluated=False), *options, code=1)
    assert cut.reason == "its log ends at iteration 500 of 900"


def mllog(throughput: float, *, status: str = "success") -> str:
    """500 iterations an epoch of 64 images on 8 GPUs, in 100 s: 320 images a second."""
    entries: list[tuple[int, str, object, dict[str, object]]] = [
        (0, "submission_benchmark", "ssd", {}), (0, "global_batch_size", 64, {}), (0, "local_batch_size", 8, {}),
        (1000, "run_start", None, {}), (1000, "train_samples", 500, {}),
    ]  # fmt: skip
    for number in range(2):
        at = 1000 + number * 110_000
        entries += [(at, "epoch_start", None, {}), (at + 100_000, "epoch_stop", None, {})]
        entries += [(at + 100_000, "tracked_stats", {"throughput": throughput}, {"step": number + 1})]
        entries += [(at + 109_000, "eval_accuracy", 0.3 + number / 100, {})]
    entries.append((230_000, "run_stop", None, {"status": status}))
    return "".join(
        ":::MLLOG " + json.dumps({"time_ms": 10**12 + at, "key": key, "value": value, "metadata": metadata}) + "\n"
        for at, key, value, metadata in entries
    )


@pytest.mark.parametrize(
    ("throughput", "remark"), [(320.0, ""), (40.0, "that of one GPU: it is taken 8 times"), (150.0, "is not told")]
)
def test_a_throughput_is_of_all_gpus_whatever_the_log_counts(throughput: float, remark: str, zoo: Zoo) -> None:
    (record,) = imported(zoo, "mllog", mllog(throughput))
    train, scores = record.measurements.train, record.measurements.scores
    assert train is not None
    assert train.mean_s == pytest.approx(64 / (throughput if throughput != 40 else 320))
    assert remark in remarks(record)
    assert scores is not None
    assert scores.box is not None
    assert scores.box.ap == pytest.approx(0.31)
    assert record.started_unix_s == pytest.approx(10**9 + 1)
    assert record.duration_s == pytest.approx(229)


def test_a_run_that_says_that_it_failed_did(zoo: Zoo) -> None:
    (record,) = imported(zoo, "mllog", mllog(320.0, status="aborted"), code=1)
    assert (record.status, record.phases_done) == ("failed", ("evaluate",))


def test_any_format_is_read_by_patterns_whose_names_say_the_unit(zoo: Zoo) -> None:
    lines = "".join(f"iter {place} loss 0.5 speed 160 img/s used 4.5G\n" for place in range(10, 1001, 10))
    (record,) = imported(
        zoo, "regex", lines + "final: 38.25 AP\n", "--detector", "retinanet_fpn", "--backbone", "r50",
        "--iterations", "1000", "--gpus", "8", "--images-per-gpu", "2",
        "--pattern", r"step=iter (?P<iteration>\d+) loss (?P<loss>\S+) speed (?P<images_per_s>\d+)",
        "--pattern", r"memory_peak=used (?P<gb>[\d.]+)G", "--pattern", r"eval_result=final: (?P<box_ap_points>\S+) AP",
    )  # fmt: skip
    train, reported = record.measurements.train, record.measurements.reported
    assert train is not None
    assert train.mean_s == pytest.approx(0.1)
    assert reported is not None
    assert reported.memory is not None
    assert reported.memory.bytes == 4_500_000_000


METAFILE = """\
Collections:
  - Name: Faster R-CNN
    Metadata: {Training Resources: 8x V100 GPUs}
Models:
  - Name: faster-rcnn_r50_fpn_1x_coco
    In Collection: Faster R-CNN
    Config: configs/faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py
    Metadata:
      Training Memory (GB): 4.3
      inference time (ms/im):
        - {value: 46.73, hardware: V100}
    Results:
      - {Task: Object Detection, Dataset: COCO, Metrics: {box AP: 37.4}}
    Weights: https://example.org/faster-rcnn-047c8118.pth
  - Name: faster-rcnn_x101-32x4d_fpn_ms-3x_coco
    In Collection: Faster R-CNN
    Config: configs/faster_rcnn/other.py
    Metadata: {Training Memory (GB): 7.0}
    Results: {Task: Object Detection, Dataset: COCO, Metrics: {box AP: 42.5}}
"""
TABLE = """\
| Backbone | Lr schd | Mem (GB) | Inf time (fps) | box AP | Config | Download |
| :------: | :-----: | :------: | :------------: | :----: | :----: | :------: |
| R-50-FPN | 1x | 3.7 | 21.4 | 37.4 | [config](./faster-rcnn_r50_fpn_1x_coco.py) | [log](https://example.org/l) |
| X-101    |   3x    |    -     |       -        |  42.5  | [config](./other.py) | |
| R-50     |   1x    |    -     |       -        |  30.0  | [config](./gone.py) | |
"""


def test_a_metafile_fills_a_table_and_its_conflicts_with_the_hand_written_one_are_told(zoo: Zoo) -> None:
    (zoo.root / "metafile.yml").write_text(METAFILE)
    (zoo.root / "README.md").write_text(TABLE)
    done = zoo.call("import", "metafile", "metafile.yml")
    assert done.returncode == 0, done.stderr
    assert "3 figures agree, 2 do not" in done.stderr
    assert "faster-rcnn_r50_fpn_1x_coco: Mem (GB): 4.3 in the metafile, 3.7 in README.md:3" in done.stderr
    assert "Mem (GB): 7.0 in the metafile, '-' in README.md:4" in done.stderr
    assert "line 5: gone is not in the metafile" in done.stderr
    document = zoo.call("render", "--backend", "mmdet").stdout
    row = next(line for line in document.splitlines() if "R-50" in line)
    for text in (
        "4.3[",
        " 21.4",
        "37.4",
        "https://example.org/faster-rcnn-047c8118.pth",
        "https://example.org/l",
    ):
        assert text in row
    assert "x101-32x4d-ms" in document
    (zoo.root / "MODEL_ZOO.md").write_text(document)
    assert zoo.call("verify", "MODEL_ZOO.md").returncode == 0
    assert "imported before" in zoo.call("import", "metafile", "metafile.yml").stderr
    assert len(zoo.records) == 2


@pytest.mark.parametrize(
    ("adapter", "content", "options", "words"),
    [
        ("mmdte", "", (), "did you mean 'mmdet'"),
        ("mmdet", "hello\n", (), "finds no iteration and no evaluation"),
        ("mmdet", mmdet(3), (), "--detector NAME"),
        (
            "gluoncv",
            WHOLE,
            ("--backend", "fake", "--schedule", "1x", "--detector", "retinanet_fpn", "--dataset", "shapes"),
            "is a cell of the matrix",
        ),
        ("gluoncv", WHOLE, ("--backend", "a/b"), "cell_id"),
        ("metafile", "[}", (), "not YAML"),
        ("metafile", "Models: 3", (), "expected a list under Models"),
        ("metafile", "Models: [{Config: x}]", (), "the entry 1 has no Name"),
        ("regex", "x", ("--pattern", "step=("), "is no regular expression"),
        ("regex", "x", (), "needs patterns"),
        ("gluoncv", WHOLE, ("--table", "README.md"), "--table is compared with a metafile"),
    ],
)
def test_what_cannot_be_imported_is_told_and_nothing_is_kept(
    adapter: str, content: str, options: tuple[str, ...], words: str, zoo: Zoo
) -> None:
    (zoo.root / "run.log").write_text(content)
    done = CliRunner().invoke(app, ["import", adapter, str(zoo.root / "run.log"), "--root", str(zoo.root), *options])
    assert isinstance(done.exception, ZooBenchError)
    assert done.exception.exit_code == 2
    assert words in f"{done.exception.message} {done.exception.hint}"
    assert not zoo.records


def test_a_dry_run_keeps_nothing_and_compressed_files_are_read(zoo: Zoo) -> None:
    (zoo.root / "run.log.gz").write_bytes(gzip.compress(WHOLE.encode()))
    done = zoo.call("import", "gluoncv", "run.log.gz", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "37.0" in done.stdout
    assert not zoo.records


def lines(count: int, *, epochs: int = 1, **more: object) -> str:
    """mmdet's lines, every tenth iteration of `count`, counted throughout."""
    found = []
    for place in range(10, count + 1, 10):
        epoch = 1 + (place - 1) * epochs // count
        found.append({"mode": "train", "epoch": epoch, "iter": place, "loss": 1.0, "time": 0.1, **more})
    return "".join(json.dumps(line) + "\n" for line in found)


VAL = json.dumps({"mode": "val", "bbox_mAP": 0.3}) + "\n"
MODEL = ("--detector", "retinanet_fpn", "--backbone", "r50", "--gpus", "8", "--images-per-gpu", "2")


def test_iterations_that_are_counted_throughout_are_no_iterations_of_an_epoch(zoo: Zoo) -> None:
    config = json.dumps({"config": "runner = dict(type='IterBasedRunner', max_iters=600)"}) + "\n"
    for text in (config + lines(600, epochs=3) + VAL, lines(600, epochs=3) + VAL):
        (record,) = imported(zoo, "mmdet", text, *MODEL, "--backend", f"x{len(text)}")
        assert record.measurements.train is not None
        assert record.measurements.train.iterations_run == 600
        assert record.measurements.train.averaged_over == 10


def test_a_length_that_the_log_does_not_tell_can_be_said(zoo: Zoo) -> None:
    (record,) = imported(zoo, "mmdet", lines(600) + VAL, *MODEL)
    assert "its length is not told" in remarks(record)
    (cut,) = imported(zoo, "mmdet", lines(600) + VAL, *MODEL, "--iterations", "900", code=1)
    assert cut.reason == "its log ends at iteration 600 of 900"


def test_what_was_imported_wrongly_is_put_right_by_importing_it_again(zoo: Zoo) -> None:
    (wrong,) = imported(zoo, "mmdet", lines(600) + VAL, *MODEL)
    right = ("--detector", "retinanet_fpn", "--backbone", "r50", "--gpus", "4", "--images-per-gpu", "4")
    (record,) = imported(zoo, "mmdet", lines(600) + VAL, *right)
    assert (record.cell_id, record.cell["gpus"]) == (wrong.cell_id, 4)
    assert not imported(zoo, "mmdet", lines(600) + VAL, *right)


STEP = r"step=it (?P<iteration>\d+)/(?P<iterations>\d+) loss (?P<loss>\S+) (?P<iteration_time_ms>\d+)ms"
EPOCH = r"step=Epoch: \[(?P<epoch>\d+)\] \[ *(?P<iteration>\d+)/\d+\] loss (?P<loss>\S+) (?P<iteration_time_s>\S+)"


def test_scripts_that_count_from_0_and_within_epochs_are_whole(zoo: Zoo) -> None:
    from_0 = "".join(f"it {place}/500 loss 0.5 100ms\n" for place in range(500)) + "AP 0.3\n"
    (record,) = imported(
        zoo, "regex", from_0, *MODEL, "--pattern", STEP, "--pattern", r"eval_result=AP (?P<box_ap>\S+)"
    )
    assert record.status == "succeeded"
    assert record.measurements.train is not None
    assert record.measurements.train.iterations_run == 500
    within = "".join(
        f"Epoch: [{epoch}] [{place:3}/500] loss 0.5 0.2\n" for epoch in range(3) for place in range(0, 500, 50)
    )
    (record,) = imported(zoo, "regex", within, *MODEL, "--pattern", EPOCH, "--iterations", "1400", "--schedule", "3e")
    assert record.measurements.train is not None
    assert record.measurements.train.iterations_run == 1353, "each epoch as long as its last line, counted from 1"
    assert "segments" not in remarks(record)


def test_a_log_that_begins_late_counts_nothing_of_what_was_before(zoo: Zoo) -> None:
    late = "".join(
        json.dumps(json.loads(line) | {"iter": json.loads(line)["iter"] + 100_000}) + "\n"
        for line in lines(600).splitlines()
    )
    (record,) = imported(zoo, "mmdet", late + VAL, *MODEL)
    assert record.duration_s == pytest.approx(60.0)
    assert record.measurements.train is not None
    assert record.measurements.train.resumed_at == 100_000


def test_the_second_of_two_submissions_in_a_file_is_the_one_that_counts(zoo: Zoo) -> None:
    (record,) = imported(zoo, "mllog", mllog(320.0) + mllog(160.0).replace("0.3", "0.4"), "--iterations", "1")
    assert record.measurements.train is not None
    assert record.measurements.train.mean_s == pytest.approx(64 / 160)


def test_ssd_of_gluoncv_is_timed_by_its_epochs(zoo: Zoo) -> None:
    text = WHOLE.replace("faster_rcnn_fpn_resnet50_v1b_coco", "ssd_512_resnet50_v1_coco")
    text = re.sub(r"Training cost: [\d.]+", "Training cost: 700.0", text)
    (record,) = imported(zoo, "gluoncv", text)
    assert record.measurements.train is not None
    assert record.measurements.train.mean_s == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("adapter", "old", "new"),
    [
        ("gluoncv", "Speed: 16.0", "Speed: 8.4.525"),
        ("gluoncv", "RPN_Conf=0.3", "RPN_Conf=1e-"),
        ("gluoncv", "lr=0.01", "lr=[0.01]"),
        ("gluoncv", "batch_size=8", "batch_size='x'"),
        ("gluoncv", "Training cost: 5", "Training cost: 5.5."),
        ("gluoncv", "] = 0.2", "] = 0.2.2"),
        ("mmdet", '"memory": 3955', '"memory": 1e300'),
        ("mmdet", '"memory": 3955', '"memory": -4'),
        ("mmdet", '"loss": 1.5', '"loss": ' + "9" * 400),
        ("mllog", '"time_ms": 1', '"time_ms": ' + "9" * 400),
        ("mllog", '"value": 64', '"value": "x"'),
    ],
)
def test_a_damaged_log_is_no_traceback(adapter: str, old: str, new: str, zoo: Zoo) -> None:
    text = {"gluoncv": WHOLE, "mmdet": mmdet(2), "mllog": mllog(320.0)}[adapter]
    assert old in text
    (zoo.root / "run.log").write_text(text.replace(old, new), encoding="utf-8")
    words = [
        "import",
        adapter,
        str(zoo.root / "run.log"),
        "--root",
        str(zoo.root),
        "--gpus",
        "8",
        "--images-per-gpu",
        "1",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exception is None or isinstance(done.exception, (SystemExit, ZooBenchError)), repr(done.exception)


@pytest.mark.parametrize(
    ("adapter", "text", "words"),
    [
        ("regex", "it 1/1 loss 1 1ms\nAP 37.5\n", "box"),
        ("detectron2", detectron2(900, evaluated=True).replace("40.21", "402.1"), "box"),
        ("metafile", METAFILE.replace("box AP: 37.4", "box AP: 374"), "box"),
        ("metafile", METAFILE.replace("https://example.org/f", "https://x/a b|c)(f"), "weights"),
    ],
)
def test_what_no_record_can_hold_is_refused_before_anything_is_kept(
    adapter: str, text: str, words: str, zoo: Zoo
) -> None:
    (zoo.root / "run.log").write_text(text)
    options = () if adapter == "metafile" else MODEL
    options += ("--pattern", STEP, "--pattern", r"eval_result=AP (?P<box_ap>\S+)") if adapter == "regex" else ()
    done = zoo.call("import", adapter, "run.log", *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert not list(zoo.root.glob("results/*/*.json"))


def test_what_was_said_against_the_log_stands_in_the_record(zoo: Zoo) -> None:
    (record,) = imported(zoo, "gluoncv", WHOLE, "--detector", "retinanet_fpn", "--gpus", "4")
    assert "detector retinanet_fpn is what was said when it was imported; its log tells faster-rcnn_fpn" in remarks(
        record
    )
    assert "gpus" not in remarks(record)


def test_a_cut_at_any_place_is_read() -> None:
    for text, adapter in (
        (WHOLE, "gluoncv"),
        (mmdet(2), "mmdet"),
        (mllog(320.0), "mllog"),
        (detectron2(900, evaluated=True), "detectron2"),
    ):
        read = find_adapter(adapter)
        for end in range(0, len(text), 37):
            finished_run(read(text[:end].splitlines()))


def test_imported_rows_are_exported_with_what_is_known_of_them_alone(zoo: Zoo) -> None:
    (zoo.root / "metafile.yml").write_text(METAFILE.replace("Collections:", "Other:"))
    zoo.call("import", "metafile", "metafile.yml")
    imported(zoo, "mllog", mllog(320.0), "--dataset", "openimages")
    for name in ("csv", "json", "latex", "model-card", "model-index", "metafile"):
        done = zoo.call("export", name, "--backend", "mmdet,mllog")
        assert done.returncode == 0, done.stderr
    models = {model["Name"]: model["Metadata"] for model in yaml.safe_load(done.stdout)["Models"]}
    of_metafile = models["mmdet/faster-rcnn_r50_fpn_1x_coco"]
    assert of_metafile["inference time (ms/im)"][0]["value"] == pytest.approx(46.73)
    assert not {"Iterations", "Batch Size", "Training Techniques", "Training Resources"} & of_metafile.keys()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{box AP: 37.4}", "37.4", ""),
        ("Training Memory (GB): 4.3", "Training Memory (GB): .inf", ""),
        ("Training Memory (GB): 4.3", "Training Memory (GB): -4", ""),
        ("Name: faster-rcnn_r50_fpn_1x_coco", "Name: ssd300", "passed over"),
    ],
)
def test_an_odd_model_of_a_metafile_costs_no_other(old: str, new: str, words: str, zoo: Zoo) -> None:
    (zoo.root / "metafile.yml").write_text(METAFILE.replace(old, new, 1))
    done = zoo.call("import", "metafile", "metafile.yml")
    assert words in done.stderr
    assert any("x101" in record.cell_id for record in zoo.records)


def test_a_damaged_compressed_file_is_told_and_a_whole_one_is_kept_as_it_was(zoo: Zoo) -> None:
    content = gzip.compress(WHOLE.encode())
    (zoo.root / "run.log.gz").write_bytes(content[:-20])
    done = zoo.call("import", "gluoncv", "run.log.gz")
    assert done.returncode == 2
    assert "cannot be unpacked" in done.stderr
    (zoo.root / "run.log.gz").write_bytes(content)
    assert zoo.call("import", "gluoncv", "run.log.gz").returncode == 0
    (record,) = zoo.records
    assert (zoo.root / record.files["log"]).read_bytes() == content
    assert record.origin is not None
    assert record.origin.files[0].sha256 == hashlib.sha256(content).hexdigest()


LOGS = Path(os.environ.get("ZOO_BENCH_LOGS", ""))


@pytest.mark.skipif(not os.environ.get("ZOO_BENCH_LOGS"), reason="ZOO_BENCH_LOGS does not name a folder of real logs")
@pytest.mark.parametrize(
    ("adapter", "file", "options", "ap"),
    [
        ("gluoncv", "gluoncv/faster_rcnn_resnet50_v1b_coco_train.log", (), (37.0, None)),
        ("gluoncv", "gluoncv/faster_rcnn_fpn_resnet50_v1b_coco_train.log", (), (38.4, None)),
        ("mmdet", "mmdet/vitdet_ViT-Base-GPU.log.json", (), (51.1, 45.4)),
        ("mllog", "mllog/v2.1_NVIDIA_8xA100_maskrcnn_result_0.txt", (), (37.8, 34.4)),
        ("mllog", "mllog/v4.0_NVIDIA_8xH200_retinanet_result_0.txt", (), (34.6, None)),
    ],
)
def test_real_logs_give_the_ap_that_their_authors_published(
    adapter: str, file: str, options: tuple[str, ...], ap: tuple[float, float | None], zoo: Zoo
) -> None:
    done = zoo.call("import", adapter, str(LOGS / file), *options)
    assert done.returncode == 0, done.stderr
    (record,) = zoo.records
    scores = record.measurements.scores
    assert scores is not None
    found = [metrics.ap if metrics else None for metrics in (scores.box, scores.mask)]
    assert [None if value is None else round(100 * value, 1) for value in found] == list(ap)


def columns(document: str) -> dict[str, tuple[str, str, str]]:
    """Memory, fps and box AP of every row, by the address of its log."""
    found: dict[str, tuple[str, str, str]] = {}
    heads: list[str] = []
    for line in document.splitlines():
        cells = [re.sub(r"\[\^\d+\]", "", cell).strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        heads = [] if not cells else heads or cells
        log = re.search(r"\[log\]\((\S+)\)", line)
        if log and cells != heads:
            row = dict(zip(heads, cells, strict=True))
            figures = (row.get(head, "").strip("-") for head in ("Mem (GB)", "Inf time (fps)", "box AP"))
            found[log[1]] = tuple(figures)  # type: ignore[assignment]
    return found


MMDET = os.environ.get("ZOO_BENCH_MMDET", "")


@pytest.mark.skipif(not MMDET, reason="ZOO_BENCH_MMDET does not name a folder with a real metafile and its table")
def test_a_real_metafile_renders_as_its_authors_table_but_for_the_conflicts_that_are_told(zoo: Zoo) -> None:
    folder = Path(MMDET)
    done = zoo.call("import", "metafile", str(folder / "faster_rcnn_metafile.yml"))
    assert done.returncode == 0, done.stderr
    conflicts = [line for line in done.stderr.splitlines() if " in the metafile, " in line]
    mine = columns(zoo.call("render", "--backend", "mmdet").stdout)
    theirs = columns((folder / "faster_rcnn_README.md").read_text(encoding="utf-8"))
    shared = mine.keys() & theirs.keys()
    assert len(shared) > 20
    pairs = [pair for log in shared for pair in zip(mine[log], theirs[log], strict=True)]
    different = [pair for pair in pairs if pair[0] != pair[1]]
    assert ("4.3", "3.7") in different
    assert len(different) == len(conflicts)
