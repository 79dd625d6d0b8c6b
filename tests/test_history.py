"""`zoo-bench show CELL --history`: every metric night by night, and where it changed."""

from __future__ import annotations

import json
import re

import pytest
from nights import MASK, RETINANET, Nightly, add, commit, first, night


def test_the_history_of_an_accepted_models_ap_is_drawn(nightly: Nightly) -> None:
    zoo = nightly(0)
    again = {"phases": ("evaluate",), "phases_done": ("evaluate",)}
    record = first(zoo, MASK)
    file = zoo.root / "results" / MASK / f"{record.run_id}.json"
    add(zoo, *(night(record, number, ap_lost=0.001 * (number > 12), **again) for number in range(1, 25)))
    file.unlink()
    nights = json.loads(zoo.call("show", MASK, "--history", "--json").stdout)["box_ap"]
    assert [one["commit"] for one in nights if one["step"]] == [commit(13)]


def test_history_draws_every_metric_and_finds_its_steps(nightly: Nightly) -> None:
    zoo = nightly()
    for number in range(31, 50):
        add(zoo, night(first(zoo, MASK), number, slower=1.06, software={"python": "3.99"}))
    done = zoo.call("show", MASK, "--history")
    assert done.returncode == 0, done.stderr
    assert "s/iter, night by night" in done.stdout
    (step,) = [line for line in done.stdout.splitlines() if "+6." in line or "+5." in line]
    assert commit(31)[:12] in step
    assert f"between {commit(30)[:12]}..{commit(31)[:12]}" in done.stdout
    assert "-> 3.99" in done.stdout


def test_history_of_a_model_that_finds_nothing(nightly: Nightly) -> None:
    zoo = nightly(0)
    record = first(zoo, RETINANET)
    assert record.measurements.scores is not None
    assert record.measurements.scores.box is not None
    ap = record.measurements.scores.box.ap
    assert ap is not None
    add(zoo, *(night(record, number, ap_lost=ap) for number in (1, 2)))
    file = zoo.root / "results" / RETINANET / f"{record.run_id}.json"
    file.unlink()
    done = zoo.call("show", RETINANET, "--history")
    assert done.returncode == 0, done.stderr
    assert "box AP, night by night" in done.stdout


def test_history_as_json_names_the_nights_and_the_step(nightly: Nightly) -> None:
    zoo = nightly()
    for number in range(31, 50):
        add(zoo, night(first(zoo, MASK), number, slower=1.06))
    nights = json.loads(zoo.call("show", MASK, "--history", "--json").stdout)["s_per_iter"]
    assert len(nights) == 50
    assert [one["commit"] for one in nights if one["step"]] == [commit(31)]
    done = zoo.call("show", nights[0]["runs"][0], "--history")
    assert done.returncode == 2
    assert f"zoo-bench show {MASK} --history" in done.stderr


def test_a_history_is_legible_in_a_narrow_terminal(nightly: Nightly, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # taken for a terminal
    monkeypatch.setenv("NO_COLOR", "1")
    zoo = nightly()
    told = re.sub(r"\x1b\[\d*m", "", zoo.call("show", MASK, "--history").stdout)
    assert "…" not in told
    assert commit(0)[:12] in told
    assert max(map(len, told.splitlines())) <= 60
