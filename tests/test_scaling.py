"""The recipe at another batch than it was written for: what is scaled, and what a reader is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import MATRIX, REPOSITORY, Zoo
from records import on_gpus, runs_of

from zoo_bench.cell import Cell, at_half_its_batch, digest, expand, recipe_values
from zoo_bench.errors import ConfigError
from zoo_bench.load import load_matrix
from zoo_bench.matrix import Matrix
from zoo_bench.recipe import differences, merge
from zoo_bench.record import Record
from zoo_bench.render import render
from zoo_bench.scaling import scaled, without_scaling

MASK = "torchvision/mask-rcnn_r50_fpn_1x_coco"


def matrix_with(tmp_path: Path, **recipe: Any) -> Matrix:
    """The repository's matrix with other values of the recipe."""
    content = merge(yaml.safe_load(MATRIX.read_text(encoding="utf-8")), {"defaults": {"recipe": recipe}})
    path = tmp_path / "matrix.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_matrix(path)


def mask_cell(matrix: Matrix | None = None, gpus: int | None = None) -> Cell:
    cells = expand(matrix or load_matrix(MATRIX), "full", gpus)
    return next(cell for cell in cells if cell.id == MASK)


@pytest.mark.parametrize(
    ("batch", "lr", "iterations", "milestones", "warmup"),
    [
        (16, 0.02, 90_000, (60_000, 80_000), 500),
        (4, 0.005, 360_000, (240_000, 320_000), 2000),
        (1, 0.00125, 1_440_000, (960_000, 1_280_000), 8000),
        (64, 0.08, 22_500, (15_000, 20_000), 125),
        (12, 0.015, 120_000, (80_000, 106_667), 667),  # 106666.67 and 666.67
        (10**6, 1250.0, 1, (1, 1), 0),  # 1.44, 0.96, 1.28 and 0.008
        (10**7, 12500.0, 1, (0, 0), 0),  # an iteration at least
    ],
)
def test_another_batch_scales_the_learning_rate_and_keeps_the_images_seen(
    batch: int, lr: float, iterations: int, milestones: tuple[int, int], warmup: int
) -> None:
    before = mask_cell().recipe
    after = scaled(before, batch)
    schedule = after.lr_schedule
    assert after.optimizer.lr == pytest.approx(lr, rel=1e-12)
    assert (schedule.iterations, schedule.milestones, schedule.warmup_iterations) == (iterations, milestones, warmup)
    changed = differences(before.model_dump(mode="json"), after.model_dump(mode="json"))
    assert {line.split(":")[0] for line in changed} <= {
        "optimizer.lr", "lr_schedule.iterations", "lr_schedule.milestones", "lr_schedule.warmup_iterations"
    }  # fmt: skip


def test_halves_are_rounded_up(tmp_path: Path) -> None:
    recipe = mask_cell(matrix_with(tmp_path, base_batch_size=16, lr_schedule={"warmup_iterations": 5})).recipe
    assert scaled(recipe, 32).lr_schedule.warmup_iterations == 3


def test_a_recipe_without_a_base_holds_for_any_batch(tmp_path: Path) -> None:
    cell = mask_cell(matrix_with(tmp_path, base_batch_size=None), gpus=2)
    assert (cell.batch_size, cell.recipe.optimizer.lr, cell.recipe.lr_schedule.iterations) == (4, 0.02, 90_000)


def test_gpus_and_images_per_gpu_count_alike_wherever_they_are_set(tmp_path: Path) -> None:
    asked = mask_cell(gpus=2)
    assert (asked.gpus, asked.recipe.optimizer.lr, asked.recipe.lr_schedule.iterations) == (2, 0.005, 360_000)
    assert asked.measure.train_iterations is None
    content = yaml.safe_load(MATRIX.read_text(encoding="utf-8"))
    content["overrides"] = [{"select": "backend=torchvision", "set": {"gpus": 4, "images_per_gpu": 1}}]
    path = tmp_path / "other.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    for cell in expand(load_matrix(path)):
        factor = 4 if cell.backend == "torchvision" else 1
        assert cell.recipe.lr_schedule.iterations == 90_000 * factor
    assert mask_cell(load_matrix(path), gpus=16).recipe.optimizer.lr == 0.02
    on_the_cpu = mask_cell(gpus=0)
    assert (on_the_cpu.batch_size, on_the_cpu.recipe.optimizer.lr) == (2, 0.0025)


def test_iterations_measured_are_not_scaled() -> None:
    speed = next(cell for cell in expand(load_matrix(MATRIX), "speed", 2) if cell.id == MASK)
    assert speed.measure.train_iterations == 5000
    full = recipe_values(mask_cell(gpus=2).resolved())
    assert digest(recipe_values(speed.resolved())) == digest(full)


def test_what_does_not_fit_once_scaled_is_one_readable_error(tmp_path: Path) -> None:
    matrix = matrix_with(tmp_path, base_batch_size=10**5)
    with pytest.raises(ConfigError) as caught:
        expand(matrix, "full", 1)
    assert "scaled from 100000 images an iteration to 2" in caught.value.message
    assert "iterations: Input should be less than or equal to 1000000000" in caught.value.message
    assert "base_batch_size: null" in caught.value.hint


def told(old: Cell, new: Cell) -> list[str]:
    return differences(*without_scaling(old.resolved(), new.resolved()))


def test_what_follows_from_the_batch_is_no_difference_of_its_own(tmp_path: Path) -> None:
    eight, two = mask_cell(), mask_cell(gpus=2)
    assert told(two, eight) == ["gpus: 2 -> 8"]
    assert told(mask_cell(gpus=3), mask_cell(gpus=7)) == ["gpus: 3 -> 7"]  # rounded both times
    longer = mask_cell(matrix_with(tmp_path, lr_schedule={"warmup_iterations": 1000}))
    assert "recipe.lr_schedule.warmup_iterations: 2000 -> 1000" in told(two, longer)
    assert "recipe.optimizer.lr: 0.005 -> 0.02" in told(two, longer)


def on_two_gpus(zoo: Zoo) -> tuple[Path, Record]:
    """The matrix for 8 GPUs with a base, and a run that was asked for 2."""
    recipe = {"base_batch_size": 16, "lr_schedule": {"iterations": 30, "milestones": [20], "warmup_iterations": 4}}
    content = merge(zoo.matrix, {"profiles": {"quick": {"set": {"gpus": 8, "recipe": recipe}}}})
    path = zoo.root / "eight.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path, on_gpus(zoo.records[0], path, gpus=2)


def test_the_row_of_a_smaller_batch_says_so_in_one_footnote(finished: Zoo) -> None:
    path, record = on_two_gpus(finished)
    text = render(load_matrix(path), runs_of([record]), [REPOSITORY / "templates"])
    assert record.measurements.train is not None
    assert f"{record.measurements.train.mean_s:.3f}" in text
    notes = [line.split(": ", 1)[1] for line in text.splitlines() if line.startswith("[^")]
    expected = "2 GPUs: 4 images an iteration, learning rate 0.005, 120 iterations; the recipe has 16 images."
    assert expected in notes
    assert not any("other values" in note for note in notes)


def test_another_change_of_the_recipe_is_told_beside_the_batch(finished: Zoo) -> None:
    path, record = on_two_gpus(finished)
    path.write_text(path.read_text(encoding="utf-8").replace("min_size: 800", "min_size: 640"))
    text = render(load_matrix(path), runs_of([record]), [REPOSITORY / "templates"])
    assert "other values than the matrix has now: recipe.input.min_size: 800 -> 640" in text
    assert "4 images an iteration, learning rate 0.005" in text


def test_a_model_that_was_only_evaluated_says_nothing_of_a_training(finished: Zoo) -> None:
    path, record = on_two_gpus(finished)
    given = record.model_copy(update={"phases_done": ("infer", "evaluate")})
    text = render(load_matrix(path), runs_of([given]), [REPOSITORY / "templates"])
    assert "images an iteration" not in text
    assert "other values than the matrix has now: gpus: 2 -> 8" in text


def test_plan_and_dry_run_tell_of_the_batch(zoo: Zoo) -> None:
    line = "4 images an iteration in place of the recipe's 16: learning rate x 0.25, iterations x 4"
    zoo.change({"profiles": {"quick": {"set": {"gpus": 8, "recipe": {"base_batch_size": 16}}}}})
    for command in (("plan",), ("run", "--dry-run")):
        assert line in zoo.call(*command, "--gpus", "2").stdout
        assert "in place of" not in zoo.call(*command).stdout


@pytest.mark.parametrize("gpus", [8, 4])
def test_a_cell_at_half_its_batch_is_trained_as_one_that_was_written_so(tmp_path: Path, gpus: int) -> None:
    cell = mask_cell(gpus=gpus)
    smaller = at_half_its_batch(cell, cell.id)
    assert smaller is not None
    assert smaller.id == f"{MASK}_{gpus}xb1"
    content = merge(yaml.safe_load(MATRIX.read_text(encoding="utf-8")), {"defaults": {"images_per_gpu": 1}})
    path = tmp_path / "matrix.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert smaller == mask_cell(load_matrix(path), gpus).model_copy(update={"id": smaller.id})
    assert at_half_its_batch(smaller, cell.id) is None
