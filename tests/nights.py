"""A store that looks as if a zoo had been run night after night: records made from those of the fake backend."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conftest import Zoo

from zoo_bench.cell import digest
from zoo_bench.evaluate import CocoScores
from zoo_bench.measurements import Interval
from zoo_bench.record import Record
from zoo_bench.revision import Revision
from zoo_bench.store import Store

MASK, RETINANET = "fake/mask-rcnn_r50_fpn_1x_shapes", "fake/retinanet_r50_fpn_1x_shapes"
DAY_S = 86_400.0
AP_SPREAD = (0.0, 0.001, -0.001, 0.002, -0.002)
"""Of five seeds."""
Nightly = Callable[..., Zoo]
"""Makes a workspace of nights in which nothing changed, as `quiet_nights`."""
FIRST_NIGHT_S = 1_790_000_000.0


def commit(number: int) -> str:
    """The commit of a night."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:40]


def night(record: Record, number: float, *, slower: float = 1.0, ap_lost: float = 0.0, **values: object) -> Record:
    """A record as if it had been made `number` nights later, by another commit, `slower` times as long an iteration."""
    started_s = FIRST_NIGHT_S + number * DAY_S
    measured = record.measurements
    assert measured.train is not None
    assert measured.scores is not None
    seconds = {name: getattr(measured.train, name) * slower for name in ("mean_s", "median_s", "p10_s", "p90_s")}
    update = {
        "run_id": f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(started_s))}.000Z-{digest(record.cell_id)[:4]}",
        "started_unix_s": started_s,
        "revision": Revision(commit=commit(int(number)), dirty=False),
        "measurements": measured.model_copy(
            update={
                "train": measured.train.model_copy(update={**seconds, "interval": None}),
                "scores": lower(measured.scores, ap_lost),
            }
        ),
    }
    return record.model_copy(update={**update, **values})


def lower(scores: CocoScores, lost: float) -> CocoScores:
    """Scores with so much less box AP."""
    assert scores.box is not None
    return replace(scores, box=replace(scores.box, ap=scores.box.ap - lost))


def add(zoo: Zoo, *records: Record) -> None:
    """Put records into a workspace's store."""
    for record in records:
        Store(zoo.root / "results").add(record)


def without_runs(zoo: Zoo, root: Path) -> Zoo:
    """A workspace with the same matrix and no records."""
    other = Zoo(root)
    other.change(zoo.matrix)
    return other


def quiet_nights(finished: Zoo, root: Path, quiet: int = 30) -> Zoo:
    """A workspace whose first night was accepted, with `quiet` nights after it in which nothing changed."""
    zoo = without_runs(finished, root)
    noise = 1 + 0.005 * np.random.default_rng(0).standard_normal((quiet + 1, len(finished.records)))
    for number in range(quiet + 1):
        for record, factor in zip(finished.records, noise[number], strict=True):
            add(zoo, night(record, number, slower=factor if number else 1.0))
        if not number:
            done = zoo.call("accept", "--why", "the first night", "--by", "A. Reviewer")
            assert done.returncode == 0, done.stderr
    return zoo


def first(zoo: Zoo, cell: str) -> Record:
    """The oldest record of a cell."""
    return next(record for record in zoo.records if record.cell_id == cell)


def findings(zoo: Zoo, *arguments: str) -> tuple[int, dict[tuple[str, str], dict[str, Any]]]:
    """The exit code, and by cell and metric what `check --json` says."""
    file = zoo.root / "check.json"
    done = zoo.call("check", "--json", str(file), *arguments)
    told = json.loads(file.read_text())
    return done.returncode, {(one["cell"], one["metric"]): one for one in told}


def inexact(record: Record) -> Record:
    """A record whose s/iter is known to 40 % only."""
    train = record.measurements.train
    assert train is not None
    interval = Interval(low=train.mean_s * 0.6, high=train.mean_s * 1.4)
    measurements = record.measurements.model_copy(update={"train": train.model_copy(update={"interval": interval})})
    return record.model_copy(update={"measurements": measurements})
