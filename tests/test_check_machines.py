"""Several machines that share one results folder: each is judged, accepted and drawn by itself."""

from __future__ import annotations

import json
import shutil
import time
from typing import Any

import pytest
from conftest import Zoo
from nights import DAY_S, FIRST_NIGHT_S, MASK, RETINANET, add, findings, first, night, quiet_nights

ELSEWHERE: dict[str, Any] = {"machine": {"name": "elsewhere", "cpu": "A CPU", "gpus": []}}
ONLY = ("--select", RETINANET)


@pytest.fixture
def shared(finished: Zoo, tmp_path: Any) -> Zoo:
    """Nothing changed here; the other machine is half as fast in its last night, which was before the last one here."""
    zoo = quiet_nights(finished, tmp_path, 1)
    record = first(zoo, RETINANET)
    for number in range(2, 21):
        add(zoo, night(record, number, slower=2 if number == 20 else 1, **ELSEWHERE))
        if number == 2:
            assert zoo.call("accept", "--why", "that one", "--machine", "elsewhere", *ONLY).returncode == 0
    add(zoo, night(record, 21))
    return zoo


def test_the_newest_night_here_does_not_hide_what_got_worse_elsewhere(shared: Zoo) -> None:
    done = shared.call("check", *ONLY)
    assert done.returncode == 3
    (line,) = [line for line in done.stdout.splitlines() if "regressed" in line and "s/iter" in line]
    assert "on elsewhere" in " ".join(done.stdout.split())
    assert "+100.0 %" in line or "+100.0%" in line
    code, found = findings(shared, *ONLY, "--machine", "elsewhere")
    assert code == 3
    assert found[RETINANET, "s_per_iter"]["machine"] == ELSEWHERE["machine"]
    here = shared.records[0].machine["cpu"]
    code, found = findings(shared, *ONLY, "--machine", str(here)[:12])
    assert code == 0
    assert {one["verdict"] for one in found.values()} == {"unchanged"}


def test_the_nights_of_another_machine_are_not_missed_here(shared: Zoo) -> None:
    hours = (time.time() - FIRST_NIGHT_S - 20.5 * DAY_S) / 3600
    code, found = findings(shared, *ONLY, "--max-age", str(hours))
    assert code == 0, "only what ran since is judged"
    assert {one["verdict"] for one in found.values()} == {"unchanged"}
    add(shared, night(first(shared, RETINANET), 22, slower=2, **ELSEWHERE))
    assert findings(shared, *ONLY, "--max-age", str(hours))[0] == 3


def test_another_machine_in_the_midst_of_its_night_misses_nothing(shared: Zoo) -> None:
    """It has run one cell of two, and is at the other one; nobody but its own check knows when it should be done."""
    add(shared, *(night(first(shared, MASK), number, **ELSEWHERE) for number in (18, 19)))
    assert shared.call("accept", "--why", "too", "--machine", "elsewhere", "--select", MASK).returncode == 0
    add(shared, *(night(first(shared, cell), 21) for cell in (MASK, RETINANET)))
    hours = str((time.time() - FIRST_NIGHT_S - 19.5 * DAY_S) / 3600)
    code, found = findings(shared, "--max-age", hours)
    assert code == 3, "what it has run is judged"
    assert {one["verdict"] for (cell, _), one in found.items() if cell == MASK} == {"unchanged"}
    code, found = findings(shared, "--max-age", hours, "--machine", "elsewhere")
    assert {one["verdict"] for (cell, _), one in found.items() if cell == MASK} == {"missing"}


def test_what_another_machine_has_not_evaluated_yet_is_to_come(shared: Zoo) -> None:
    timed = {"phases": ("train",), "phases_done": ("train",)}
    add(shared, night(first(shared, RETINANET), 21.1, **ELSEWHERE, **timed))
    hours = str((time.time() - FIRST_NIGHT_S - 21.05 * DAY_S) / 3600)
    _, found = findings(shared, *ONLY, "--max-age", hours, "--machine", "elsewhere")
    assert found[RETINANET, "box_ap"]["verdict"] == "missing"
    findings(shared, *ONLY, "--max-age", hours)
    told = json.loads((shared.root / "check.json").read_text())
    there = {one["metric"] for one in told if one["machine"] == ELSEWHERE["machine"]}
    assert there == {"s_per_iter", "memory"}
    _, found = findings(shared, *ONLY, "--max-age", hours, "--ap-only")
    assert found[RETINANET, "box_ap"]["verdict"] == "missing", "where any machine will do nobody else asks for it"


def test_a_machine_is_known_by_its_parts_too(shared: Zoo) -> None:
    assert shared.call("check", *ONLY, "--machine", "a cpu").returncode == 3


def test_a_run_of_the_future_is_named(shared: Zoo) -> None:
    later = night(first(shared, RETINANET), 5000)
    add(shared, later)
    assert f"run {later.run_id} began in the future" in shared.call("check", *ONLY).stderr


def test_a_machine_that_accepted_nothing_is_told(shared: Zoo) -> None:
    add(shared, night(first(shared, RETINANET), 22, machine={"name": "a third", "cpu": "A CPU", "gpus": []}))
    done = shared.call("check", *ONLY)
    assert "machine: accepted on " in " ".join(done.stdout.split())
    assert "run on a third" in " ".join(done.stdout.split())
    assert "--machine 'a third'" in done.stdout, "or what is accepted would be of this one"


def test_what_was_made_elsewhere_is_not_run_again_here(shared: Zoo) -> None:
    count = len(shared.records)
    done = shared.call("check", "--confirm", "2", *ONLY)
    assert done.returncode == 3
    assert "not run again" in done.stderr
    assert len(shared.records) == count


def test_what_is_accepted_is_of_this_machine_unless_another_is_named(shared: Zoo) -> None:
    add(shared, night(first(shared, RETINANET), 22, slower=2, **ELSEWHERE))
    assert shared.call("accept", "--why", "this one", *ONLY).returncode == 0
    assert shared.call("check", *ONLY, "--machine", "elsewhere").returncode == 3, "not accepted by the way"
    assert shared.call("accept", "--why", "that one", "--machine", "elsewhere", *ONLY).returncode == 0
    assert shared.call("check", *ONLY).returncode == 0


def test_of_machines_that_are_not_this_one_the_newest_runs_are_accepted(shared: Zoo) -> None:
    machines = [{"name": name, "cpu": "A CPU", "gpus": []} for name in ("a third", "a fourth")]
    shutil.rmtree(shared.root / "results" / RETINANET)
    record = first(shared, MASK).model_copy(update={"cell_id": RETINANET})
    add(shared, *(night(record, 30 + number, machine=machine) for number, machine in enumerate(machines)))
    done = shared.call("accept", "--why", "theirs", *ONLY)
    assert "a-fourth" in done.stderr


def test_runs_elsewhere_are_named_where_nothing_here_can_be_accepted(shared: Zoo) -> None:
    shutil.rmtree(shared.root / "results" / MASK)
    failed = {"status": "quarantined", "cell_id": MASK}
    add(shared, night(first(shared, RETINANET), 22).model_copy(update=failed))
    add(shared, night(first(shared, RETINANET), 23, **ELSEWHERE).model_copy(update={"cell_id": MASK}))
    done = shared.call("accept", "--why", "mine", "--select", MASK)
    assert done.returncode == 2
    assert "--machine elsewhere" in done.stderr


def test_what_is_accepted_together_is_of_one_machine(shared: Zoo) -> None:
    """This machine ran one of the cells: what only the other one ran is not accepted for it by the way."""
    elsewhere = night(first(shared, MASK), 22, **ELSEWHERE)
    shutil.rmtree(shared.root / "results" / MASK)
    add(shared, elsewhere)
    done = shared.call("accept", "--why", "mine")
    assert done.returncode == 0, done.stderr
    assert "none: run on elsewhere: name it with --machine" in " ".join(done.stdout.split())
    (accepted,) = [line for line in done.stderr.splitlines() if "accepted in" in line]
    assert accepted.startswith("zoo-bench: 1 cell ")


def _nights_of_levels(text: str) -> list[str]:
    """The second word of each line: of how many nights a first level is, which has no change."""
    return [word for line in text.splitlines() for word in line.split()[1:2]]


def test_a_history_is_of_one_machine_and_names_the_others(shared: Zoo) -> None:
    done = shared.call("show", RETINANET, "--history")
    assert done.returncode == 0, done.stderr
    assert "also run on elsewhere" in done.stdout
    assert "19" not in _nights_of_levels(done.stdout)
    done = shared.call("show", RETINANET, "--history", "--machine", "elsewhere")
    assert "on elsewhere" in done.stdout.splitlines()[0]
    assert "also run on" in done.stdout
    assert "19" in _nights_of_levels(done.stdout)


@pytest.mark.parametrize("verb", [["check"], ["accept", "--why", "x"], ["show", RETINANET, "--history"]])
def test_a_machine_that_nobody_knows_is_told_with_those_that_there_are(shared: Zoo, verb: list[str]) -> None:
    done = shared.call(*verb, "--machine", "nowhere")
    assert done.returncode == 2
    assert "no machine that has run anything" in done.stderr
    assert "elsewhere" in done.stderr
