"""Several seeds of a cell: `run --repeat`, the spread in the table, and which of the models a row speaks of."""

from __future__ import annotations

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


def test_the_typical_model_is_published(zoo: Zoo) -> None:
    zoo.change({"publish": {"address": "published"}})
    assert zoo.call("run", "--repeat", "3", "--phases", "train,infer,evaluate", *ONLY).returncode == 0
    done = zoo.call("run", "--phases", "publish", *ONLY)
    assert done.returncode == 0, done.stderr
    published = [record for record in zoo.records if record.published]
    assert len(published) == 1
    assert len(list((zoo.root / "published").glob("*.safetensors"))) == 1
