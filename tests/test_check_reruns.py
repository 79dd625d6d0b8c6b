"""`zoo-bench check --confirm`, and nights of several runs: what reruns take back, and what they do not."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable

import pytest
from conftest import Zoo
from nights import MASK, RETINANET, Nightly, add, findings, first, inexact, night
from test_surroundings import wait_for

from zoo_bench.measurements import Measurements


def test_a_rerun_that_fails_takes_nothing_back(nightly: Nightly) -> None:
    zoo = nightly()
    slow = night(first(zoo, MASK), 31, slower=1.2)
    rerun = {"run_id": "20261030T000000.000Z-ffff", "started_unix_s": slow.started_unix_s + 600}
    failed = slow.model_copy(update={**rerun, "status": "quarantined", "reason": "noise"})
    add(zoo, slow, failed, night(first(zoo, RETINANET), 31))
    code, found = findings(zoo)
    assert code == 3
    assert found[MASK, "s_per_iter"]["verdict"] == "regressed"


def test_a_cell_that_failed_tonight_is_not_unchanged_since_it_ran_before(nightly: Nightly) -> None:
    zoo = nightly()
    good = night(first(zoo, MASK), 31)
    later = {"run_id": "20261030T000000.000Z-ffff", "started_unix_s": good.started_unix_s + 600}
    nothing = {"phases_done": (), "measurements": Measurements(), "status": "failed", "reason": "it broke"}
    add(zoo, good, good.model_copy(update={**later, **nothing}), night(first(zoo, RETINANET), 31))
    code, found = findings(zoo)
    assert code == 1
    assert found[MASK, "s_per_iter"]["reason"].startswith("failed in run 20261030T000000.000Z-ffff: it broke; log: ")


@pytest.mark.parametrize("spoiled", ["failed", "inexact"])
@pytest.mark.parametrize(("good", "verdict"), [(3, "unchanged"), (2, "missing")])
def test_a_rerun_that_tells_nothing_takes_nothing_from_three_that_do(
    nightly: Nightly, spoiled: str, good: int, verdict: str
) -> None:
    zoo = nightly()
    times = [1.2 if good == 3 else 1.0, *[1.0] * good]
    *reruns, last = (night(first(zoo, MASK), 31 + more / 100, slower=slower) for more, slower in enumerate(times))
    nothing = {"phases_done": (), "measurements": Measurements(), "status": "failed", "reason": "it broke"}
    add(zoo, *reruns, inexact(last) if spoiled == "inexact" else last.model_copy(update=nothing))
    _, found = findings(zoo, "--select", MASK)
    told = {metric: one["verdict"] for (_, metric), one in found.items()}
    assert told["s_per_iter"] == verdict
    if spoiled == "failed":
        assert set(told.values()) == {verdict}, "of every metric"


def test_a_rerun_that_fails_takes_no_accusation_back(nightly: Nightly) -> None:
    zoo = nightly()
    add(zoo, night(first(zoo, MASK), 31, slower=2), night(first(zoo, RETINANET), 31))
    zoo.options(fault={"phase": "train", "at": 1, "kind": "error"})
    done = zoo.call("check", "--confirm", "2")
    assert done.returncode == 3
    assert "failed" in done.stdout + done.stderr


def reports_after_an_interruption(zoo: Zoo, number: signal.Signals, when: Callable[[], bool]) -> tuple[int, str]:
    """Interrupt a check that confirms when something is so; how it ends, and its JSON."""
    file = zoo.root / "check.json"
    file.unlink(missing_ok=True)
    command = zoo.command("check", "--confirm", "50", "--select", RETINANET, "--json", str(file))
    with subprocess.Popen(command, cwd=zoo.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as check:
        wait_for(when, "it is as asked for", 60)
        check.send_signal(number)
        check.communicate(timeout=60)
    return check.returncode, file.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_confirmation_that_is_interrupted_takes_no_accusation_back(zoo: Zoo, number: signal.Signals) -> None:
    """Between two runs, and in one: that moment cannot be chosen, so that several are tried."""
    zoo.change({"check": {"least_change": {"s_per_iter": 0.4, "memory": 0.9, "fps": 0.9}}})
    assert zoo.call("run", "--select", RETINANET).returncode == 0
    assert zoo.call("accept", "--why", "a start", "--select", RETINANET).returncode == 0
    (record,) = zoo.records
    folder = zoo.root / "results" / RETINANET
    for more in range(1, 4):
        slow = night(record, 0, slower=30, run_id=f"2999010{more}T000000.000Z-0000", revision=record.revision)
        add(zoo, slow.model_copy(update={"started_unix_s": record.started_unix_s + more}))
        before = set(folder.glob("*.json"))
        code, told = reports_after_an_interruption(zoo, number, lambda seen=before: seen < set(folder.glob("*.json")))
        assert code == 130
        (found,) = [one for one in json.loads(told) if one["metric"] == "s_per_iter"]
        assert found["figures"] is not None


def test_a_suspicious_cell_is_run_again_before_it_is_accused(zoo: Zoo) -> None:
    """Real runs: what was accepted is made to look slow, then twice as fast as the worker is."""
    zoo.options(iteration_s=0.02)
    zoo.change({"check": {"least_change": {"s_per_iter": 0.4, "memory": 0.9, "fps": 0.9}}})
    only = ("--select", "*retinanet*")
    assert zoo.call("run", *only).returncode == 0
    assert zoo.call("accept", "--why", "a start", *only).returncode == 0
    (accepted,) = zoo.records
    assert accepted.measurements.train is not None
    outlier = night(
        accepted, 0, slower=3.0, run_id="29991231T000000.000Z-0000", started_unix_s=accepted.started_unix_s + 60
    )
    outlier = outlier.model_copy(update={"revision": accepted.revision})
    add(zoo, outlier)
    assert zoo.call("check", *only).returncode == 3
    done = zoo.call("check", "--confirm", "2", *only)
    assert done.returncode == 0, done.stdout
    assert len(zoo.records) == 4, "two runs more"
    assert subprocess.run(zoo.command("check", *only), cwd=zoo.root, check=False).returncode == 0
