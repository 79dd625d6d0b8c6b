"""What `zoo-bench plan` expects its cells to cost, and where it says that this is known from."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from conftest import MATRIX, Zoo
from records import V100, changed, machine, matrix_on_gpus, on_gpus, runs_of, with_measurements

from zoo_bench.cell import expand
from zoo_bench.costs import Cost, costs, total
from zoo_bench.load import load_matrix
from zoo_bench.plan import PlannedCell
from zoo_bench.provenance import MachineKey, machine_key
from zoo_bench.published import Zoo as PublishedZoo
from zoo_bench.published import load_published
from zoo_bench.recipe import WORKER_PHASES, Phase
from zoo_bench.record import Inputs, Record

NOWHERE: MachineKey = ("", "A login node's CPU", ())
ON_V100: MachineKey = ("", "A CPU", (V100,) * 8)
HOUR_S = 3600.0


def planned(
    matrix: Path,
    name: str,
    phases: tuple[Phase, ...] = WORKER_PHASES,
    *,
    profile: str | None = None,
    gpus: int | None = None,
) -> PlannedCell:
    """A cell of which phases are left."""
    cell = next(cell for cell in expand(load_matrix(matrix), profile, gpus) if cell.id == name)
    return PlannedCell(cell, Inputs(sources_sha256="", lock_sha256=None, dataset_sha256=""), "", phases, "", None)


def cost(
    one: PlannedCell,
    *records: Record,
    here: MachineKey = ON_V100,
    zoos: tuple[PublishedZoo, ...] = (),
    target: str = V100,
) -> Cost:
    (found,) = costs([one], runs_of(records), here, zoos, target)
    return found


def lasting(record: Record, duration_s: float, mean_s: float, iterations: int, **values: object) -> Record:
    """A record of a run that took so long, so many iterations of it training."""
    train = record.measurements.train
    assert train is not None
    timing = train.model_copy(update={"mean_s": mean_s, "iterations_run": iterations})
    return with_measurements(record, train=timing).model_copy(update={"duration_s": duration_s, **values})


@pytest.fixture
def recorded(finished: Zoo) -> tuple[Path, Record]:
    """A matrix of cells for two GPUs, and a record of one: 100 iterations of 0.5 s, and 20 s for all else."""
    matrix = matrix_on_gpus(finished.root)
    return matrix, lasting(on_gpus(finished.records[0], matrix), 70.0, 0.5, 100)


# ---------------------------------------------------------------- earlier runs


def test_a_cell_costs_its_iterations_and_what_else_an_earlier_run_took(recorded: tuple[Path, Record]) -> None:
    matrix, record = recorded
    found = cost(planned(matrix, record.cell_id), record)
    assert found.wall_s == pytest.approx(30 * 0.5 + 20.0), "the matrix has 30 iterations"
    assert found.gpu_s == pytest.approx(2 * 35.0)
    assert found.source == f"record of {time.strftime('%Y-%m-%d', time.gmtime(record.started_unix_s))}"
    assert found.recorded
    assert found.without == ()


def test_phases_that_are_left_cost_no_training(recorded: tuple[Path, Record]) -> None:
    matrix, record = recorded
    assert cost(planned(matrix, record.cell_id, ("infer", "evaluate")), record).wall_s == pytest.approx(20.0)


def test_of_a_training_that_was_resumed_only_its_own_iterations_are_taken_off(recorded: tuple[Path, Record]) -> None:
    matrix, record = recorded
    train = record.measurements.train
    assert train is not None
    resumed = with_measurements(record, train=train.model_copy(update={"resumed_at": 60}))
    assert cost(planned(matrix, record.cell_id), resumed).wall_s == pytest.approx(30 * 0.5 + 70.0 - 40 * 0.5)


def test_what_no_run_has_done_is_left_out_and_said(recorded: tuple[Path, Record]) -> None:
    matrix, record = recorded
    speed = record.model_copy(update={"phases_done": ("train", "infer")})
    found = cost(planned(matrix, record.cell_id), speed)
    assert found.wall_s == pytest.approx(15.0)
    assert found.without == ("infer", "evaluate")
    assert cost(planned(matrix, record.cell_id, ("train", "infer")), speed).without == ()


def test_the_newest_clean_run_counts_and_a_quarantined_one_never(recorded: tuple[Path, Record]) -> None:
    matrix, record = recorded
    newer = changed(lasting(record, 90.0, 0.7, 100), run_id="29991231T000001.000Z-ffff")
    spoilt = changed(lasting(record, 900.0, 7.0, 100), status="quarantined")
    assert cost(planned(matrix, record.cell_id), record, newer).wall_s == pytest.approx(30 * 0.7 + 20.0)
    assert cost(planned(matrix, record.cell_id), record, spoilt).wall_s == pytest.approx(35.0)
    assert cost(planned(matrix, record.cell_id), spoilt).wall_s is None


def test_a_run_of_another_recipe_says_nothing(recorded: tuple[Path, Record]) -> None:
    matrix, record = recorded
    other = record.model_copy(update={"recipe_sha256": "0" * 64})
    found = cost(planned(matrix, record.cell_id), other)
    assert (found.wall_s, found.gpu_s, found.source, found.recorded) == (None, None, "?", False)


def test_a_run_on_other_gpus_says_nothing_where_the_cell_will_run_on_these(recorded: tuple[Path, Record]) -> None:
    matrix, record = recorded
    faster = record.model_copy(update={"machine": machine(2, gpu="NVIDIA H200")})
    assert cost(planned(matrix, record.cell_id), faster).wall_s is None
    found = cost(planned(matrix, record.cell_id), faster, here=NOWHERE)
    assert found.wall_s == pytest.approx(35.0), "it cannot run here, so it will run where others ran"
    assert found.source.endswith(" on NVIDIA H200")


def test_on_the_cpu_the_same_cpu_counts(finished: Zoo) -> None:
    record, matrix = finished.records[0], finished.root / "matrix.yaml"
    found = cost(planned(matrix, record.cell_id), record, here=machine_key(record))
    assert found.wall_s is not None
    assert found.gpu_s == 0
    assert cost(planned(matrix, record.cell_id), record, here=NOWHERE).wall_s is None


# ---------------------------------------------------------------- published figures


FPN = "torchvision/faster-rcnn_r50_fpn_1x_coco"


def zoos(*names: str) -> tuple[PublishedZoo, ...]:
    return tuple(zoo for zoo in load_published()[0] if not names or zoo.name in names)


def test_without_a_run_a_cell_costs_what_a_published_one_took() -> None:
    found = cost(planned(MATRIX, FPN, profile="full"), zoos=zoos("detectron2"))
    assert found.wall_s == pytest.approx(90_000 * 0.210 + 2100 / 26.3)
    assert found.gpu_s == pytest.approx(8 * (90_000 * 0.210 + 2100 / 26.3))
    assert found.source == "published by detectron2 (8 x V100 (NVLink))"
    assert found.without == ("evaluate",)
    assert not found.recorded


@pytest.mark.parametrize("gpus", [1, 4, 16])
def test_a_published_training_takes_as_many_gpu_hours_on_any_number_of_gpus(gpus: int) -> None:
    found = cost(planned(MATRIX, FPN, ("train",), profile="full", gpus=gpus), zoos=zoos("detectron2"))
    assert found.gpu_s == pytest.approx(8 * 90_000 * 0.210)


def test_a_published_batch_of_its_own_is_minded() -> None:
    """maskrcnn-benchmark trained C4 with 8 images, 1 a GPU: two of them take twice as long."""
    name = "torchvision/faster-rcnn_r50_c4_1x_coco"
    found = cost(planned(MATRIX, name, ("train",), profile="full"), zoos=zoos("maskrcnn-benchmark"))
    assert found.wall_s == pytest.approx(90_000 * 0.404 * 2)


def test_of_several_published_ones_the_slowest_on_the_likest_gpu_counts() -> None:
    one = planned(MATRIX, FPN, ("train",), profile="full")
    v100, gtx = "published by mmdetection 2018 (8 x V100)", "published by SimpleDet (8 x 1080 Ti)"
    assert cost(one, zoos=zoos()).source == v100
    assert cost(one, zoos=zoos(), here=("", "A CPU", ("NVIDIA GeForce GTX 1080 Ti",))).source == gtx
    assert cost(one, zoos=zoos(), here=("", "A CPU", ("NVIDIA H200",))).source == v100, "that of the matrix's target"
    assert cost(one, zoos=zoos(), here=NOWHERE, target="NVIDIA GeForce GTX 1080 Ti").source == gtx
    assert cost(one, zoos=zoos("simpledet")).source == gtx, "any before none"


def test_a_training_that_ends_early_costs_at_most_its_cap() -> None:
    found = cost(planned(MATRIX, FPN, ("train",), profile="speed"), zoos=zoos("detectron2"))
    assert found.wall_s == pytest.approx(5000 * 0.210)
    assert found.source.startswith("at most: ")


def test_what_is_not_published_is_unknown() -> None:
    smoke = FPN.replace("coco", "shapes")
    assert cost(planned(MATRIX, smoke, profile="smoke"), zoos=zoos()).wall_s is None, "on the CPU"
    on_gpus = planned(MATRIX, smoke, profile="smoke", gpus=8)
    assert cost(on_gpus, zoos=zoos()).wall_s is None, "images of another size"
    assert cost(planned(MATRIX, FPN, ("evaluate",), profile="full"), zoos=zoos()).wall_s is None


def test_a_run_of_ones_own_stands_before_what_was_published(recorded: tuple[Path, Record]) -> None:
    matrix, record = recorded
    assert cost(planned(matrix, record.cell_id), record, zoos=zoos()).recorded
    assert cost(planned(matrix, record.cell_id), zoos=zoos()).source.startswith("published by ")


# ---------------------------------------------------------------- in all


def test_the_total_counts_what_is_known_and_says_how_many_cells_are_not() -> None:
    found = total(
        [
            Cost("a", 8, HOUR_S, "record"),
            Cost("b", 2, 2 * HOUR_S, "published", without=("evaluate",)),
            Cost("c", 8, None, "?"),
        ]
    )
    assert (found.wall_s, found.gpu_s) == (3 * HOUR_S, 12 * HOUR_S)
    assert (found.unknown, found.without) == (1, {"evaluate": 1})


def test_the_plan_tells_what_each_cell_will_cost_and_all_of_them(zoo: Zoo) -> None:
    told = zoo.call("plan").stdout
    assert "expected: ?" in told
    zoo.options(iteration_s=0.02)
    assert zoo.call("run", "--select", "*retinanet*").returncode == 0
    today = time.strftime("%Y-%m-%d", time.gmtime(zoo.records[0].started_unix_s))
    for words in (("plan", "--force"), ("run", "--dry-run", "--force")):
        told = zoo.call(*words).stdout
        line = next(line for line in told.splitlines() if "retinanet" in line)
        assert f"record of {today}" in line
        assert "0.00" in line, "no GPU"
        assert "expected: 0.00 GPU-hours, 0:0" in told
        assert "not included, of 2 cells: all of 1, of which nothing is known" in told
    assert "record of" not in zoo.call("plan", "--select", "*retinanet*").stdout, "what is fresh costs nothing"


def test_the_full_profile_has_a_budget_before_anything_has_been_run(zoo: Zoo) -> None:
    told = zoo.call("plan", "--matrix", str(MATRIX), "--root", str(zoo.root), "--profile", "full").stdout
    assert "published by " in told
    hours = float(told.split("expected: ")[1].split(" GPU-hours")[0].replace(",", ""))
    assert 500 < hours < 5000, "16 cells of 8 GPUs, 12 to 25 hours each"
