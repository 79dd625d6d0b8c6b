"""Several seeds of a cell: `run --repeat`, the spread in the table, and which of the models a row speaks of."""

from __future__ import annotations

import shutil
import statistics

from conftest import Zoo
from nights import add, night

from zoo_bench.record import Record

CELL = "fake/retinanet_r50_fpn_1x_shapes"
ONLY = ("--select", CELL)


def with_seed(record: Record, seed: int, ap_lost: float) -> Record:
    """The record of another seed, whose model is another one."""
    assert record.checkpoint is not None
    model = record.checkpoint.model_copy(update={"sha256": f"{seed:064x}"})
    cell = {**record.cell, "seed": seed}
    return night(record, seed, ap_lost=ap_lost, cell=cell, checkpoint=model, fingerprint=f"{seed:064x}")


def test_a_cell_is_run_with_a_seed_after_another_and_once_only(zoo: Zoo) -> None:
    assert zoo.call("run", "--repeat", "3", *ONLY).returncode == 0
    assert [record.cell["seed"] for record in zoo.records] == [0, 1, 2]
    assert len({record.recipe_sha256 for record in zoo.records}) == 1, "the seed is no part of the recipe"
    done = zoo.call("run", "--repeat", "3", *ONLY)
    assert "nothing to do" in done.stderr
    assert zoo.call("run", "--repeat", "4", *ONLY).returncode == 0
    assert len(zoo.records) == 4


def test_a_seed_can_be_named(zoo: Zoo) -> None:
    assert zoo.call("run", "--seed", "2970", "--repeat", "2", *ONLY).returncode == 0
    assert [record.cell["seed"] for record in zoo.records] == [2970, 2971]
    assert zoo.call("accept", "--why", "a start", "--runs", "2", *ONLY).returncode == 0
    add(zoo, with_seed(zoo.records[0], 2980, 0.02))
    done = zoo.call("check", "--metric", "box_ap", *ONLY)
    assert done.returncode == 3, done.stdout
    assert "--seed 2980 --force" in done.stdout, "the same model once more"
    done = zoo.call("run", "--phases", "publish", "--seed", "1", *ONLY)
    assert done.returncode == 2
    assert "nearest to the mean" in done.stderr


def test_the_row_shows_the_seed_nearest_to_the_mean_and_the_spread_when_it_is_asked_for(zoo: Zoo) -> None:
    assert zoo.call("run", *ONLY).returncode == 0
    (record,) = zoo.records
    lost = [0.0, 0.010, 0.004, 0.006]
    add(zoo, *(with_seed(record, seed, ap_lost) for seed, ap_lost in enumerate(lost) if seed))
    aps = [50 - 100 * one for one in lost]
    plain = zoo.call("render").stdout
    assert "49.6" in plain or "49.4" in plain
    assert "±" not in plain
    spread = zoo.call("render", "--spread").stdout
    assert f"{statistics.fmean(aps):.1f} ± {statistics.stdev(aps):.1f}" in spread
    assert "over 4 seeds" in spread
    document = zoo.root / "MODEL_ZOO.md"
    document.write_text(spread)
    assert zoo.call("verify", str(document)).returncode == 0, "its last line keeps the option"


def test_only_one_of_several_models_is_published(zoo: Zoo) -> None:
    zoo.change({"publish": {"address": "published"}})
    done = zoo.call("run", "--repeat", "3", "--phases", "train,evaluate,publish", *ONLY)
    assert done.returncode == 2
    assert "--phases publish afterwards" in done.stderr


def test_the_typical_of_the_accepted_models_is_measured_as_often_as_asked(zoo: Zoo) -> None:
    assert zoo.call("run", *ONLY).returncode == 0
    (record,) = zoo.records
    assert record.checkpoint is not None
    models = [with_seed(record, seed, lost) for seed, lost in ((1, 0.010), (2, 0.004), (3, 0.006))]
    for model in models:
        assert model.checkpoint is not None
        file = zoo.root / record.checkpoint.file.replace(record.checkpoint.sha256[:8], model.checkpoint.sha256[:8])
        shutil.copyfile(zoo.root / record.checkpoint.file, file)
        add(
            zoo,
            model.model_copy(
                update={"checkpoint": model.checkpoint.model_copy(update={"file": str(file.relative_to(zoo.root))})}
            ),
        )
    assert zoo.call("accept", "--why", "four seeds", "--runs", "4", *ONLY).returncode == 0
    done = zoo.call("run", "--phases", "evaluate", "--accepted", "--repeat", "2", *ONLY)
    assert done.returncode == 0, done.stderr
    again = [run for run in zoo.records if run.phases == ("evaluate",)]
    assert [run.checkpoint.sha256 for run in again if run.checkpoint] == [f"{2:064x}"] * 2


def test_a_model_of_another_recipe_is_not_taken_for_the_accepted_one(zoo: Zoo) -> None:
    assert zoo.call("run", *ONLY).returncode == 0
    assert zoo.call("accept", "--why", "a start", *ONLY).returncode == 0
    zoo.change({"profiles": {"quick": {"set": {"recipe": {"optimizer": {"lr": 0.5}}}}}})
    done = zoo.call("run", "--phases", "evaluate", "--accepted", *ONLY)
    assert done.returncode == 2
    assert "no trained model of it was accepted" in done.stderr


def test_an_evaluation_that_was_resumed_counts_for_its_seed(zoo: Zoo) -> None:
    assert zoo.call("run", *ONLY).returncode == 0
    (record,) = zoo.records
    other = with_seed(record, 1, 0.01)
    trained = {"phases_done": ("train",), "measurements": other.measurements.model_copy(update={"scores": None})}
    first = other.model_copy(update={**trained, "run_id": "20260101T000000.000Z-0001", "status": "failed"})
    add(zoo, first, other.model_copy(update={"phases_done": ("infer", "evaluate")}))
    assert "over 2 seeds" in zoo.call("render", "--spread").stdout


def test_the_typical_model_is_published(zoo: Zoo) -> None:
    zoo.change({"publish": {"address": "published"}})
    assert zoo.call("run", "--repeat", "3", "--phases", "train,infer,evaluate", *ONLY).returncode == 0
    done = zoo.call("run", "--phases", "publish", *ONLY)
    assert done.returncode == 0, done.stderr
    published = [record for record in zoo.records if record.published]
    assert len(published) == 1
    assert len(list((zoo.root / "published").glob("*.safetensors"))) == 1
