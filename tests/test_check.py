"""`zoo-bench accept` and `zoo-bench check`: verdicts, where they go, and how the check ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import Zoo
from nights import MASK, RETINANET, add, commit, findings, first, night, quiet_nights
from test_surroundings import wait_for

from zoo_bench.measurements import Interval, Measurements
from zoo_bench.noise import Noise
from zoo_bench.record import Record
from zoo_bench.revision import Revision

Nightly = Callable[..., Zoo]
AP_SPREAD = (0.0, 0.001, -0.001, 0.002, -0.002)


@pytest.fixture
def nightly(finished: Zoo, tmp_path: Path) -> Nightly:
    """Makes a workspace of nights in which nothing changed."""
    return partial(quiet_nights, finished, tmp_path)


def test_nothing_got_worse(nightly: Nightly) -> None:
    code, found = findings(nightly())
    assert code == 0
    assert {one["verdict"] for one in found.values()} == {"unchanged"}
    metrics = {"memory", "s_per_iter", "fps", "box_ap"}
    assert set(found) == {(cell, metric) for cell in (MASK, RETINANET) for metric in metrics} | {(MASK, "mask_ap")}


def test_what_got_slower_is_named_with_its_commit_and_what_else_changed(nightly: Nightly) -> None:
    zoo = nightly()
    slow = night(first(zoo, MASK), 31, slower=1.06, software={"python": "3.99"})
    add(zoo, slow, night(first(zoo, RETINANET), 31))
    done = zoo.call("check", "--confirm", "0")
    assert done.returncode == 3
    (line,) = [line for line in done.stdout.splitlines() if "regressed" in line and "mask-rcnn" in line]
    assert "s/iter" in line
    assert f"since commit {commit(31)[:12]} (last good: {commit(30)[:12]})" in done.stdout
    assert "-> 3.99" in done.stdout
    assert f"zoo-bench run --profile quick --select {MASK} --phases train,infer,evaluate --force" in done.stdout
    code, found = findings(zoo)
    verdict = found[MASK, "s_per_iter"]
    assert code == 3
    assert verdict["figures"]["change"] == pytest.approx(0.06, abs=0.012)
    assert verdict["figures"]["change_low"] < 0.06 < verdict["figures"]["change_high"]
    assert verdict["figures"]["bad_since"]["commit"] == commit(31)
    assert [key for key, one in found.items() if one["verdict"] != "unchanged"] == [(MASK, "s_per_iter")]


def test_among_many_cells_more_is_left_to_chance(nightly: Nightly) -> None:
    zoo = nightly()
    add(zoo, night(first(zoo, MASK), 31, slower=1.05), night(first(zoo, RETINANET), 31))
    assert findings(zoo)[0] == 3
    (file,) = (zoo.root / "results" / "baselines").glob("*.json")
    kept = json.loads(file.read_text())
    kept["accepted"] += [{**kept["accepted"][0], "cell_id": f"fake/another_{number}"} for number in range(298)]
    file.write_text(json.dumps(kept))
    code, found = findings(zoo)
    assert code == 0
    assert found[MASK, "s_per_iter"]["figures"]["limit"] > 0.05


def test_a_cell_that_left_the_matrix_is_mentioned(nightly: Nightly) -> None:
    zoo = nightly(1)
    zoo.change({"axes": {"detector": ["retinanet_fpn"]}})
    done = zoo.call("check")
    assert done.returncode == 0
    assert f"not in the matrix now: {MASK}" in done.stderr
    assert RETINANET not in done.stderr


def test_how_the_iterations_moved_is_told(nightly: Nightly) -> None:
    """Most iterations are as fast as ever; those that wait are not."""
    zoo = nightly()
    slow = night(first(zoo, MASK), 31, slower=1.06)
    train = slow.measurements.train
    assert train is not None
    stalled = train.model_copy(update={"p10_s": train.p10_s / 1.06, "median_s": train.median_s / 1.06})
    measured = slow.measurements.model_copy(update={"train": stalled})
    add(zoo, slow.model_copy(update={"measurements": measured}), night(first(zoo, RETINANET), 31))
    page = zoo.root / "page.md"
    done = zoo.call("check", "--markdown", str(page), "--github")
    assert done.returncode == 3
    (annotation,) = [line for line in done.stdout.splitlines() if line.startswith("::error")]
    for text in (done.stdout, page.read_text().replace("\\", ""), annotation.replace("%25", "%")):
        assert "iterations: the fast tenth" in text
        fast, middle, slow_tenth = (
            text.split(part)[1][:5] for part in ("the fast tenth ", "the middle ", "slow tenth ")
        )
        assert abs(float(fast.rstrip("% "))) < 2
        assert abs(float(middle.rstrip("% "))) < 2
        assert float(slow_tenth.rstrip("% ")) > 3


def test_what_changed_when_it_began_is_told_from_what_changed_later(nightly: Nightly) -> None:
    zoo = nightly()
    for number in range(31, 36):
        others = {"software": {"python": "3.98" if number == 31 else "3.99"}}
        add(zoo, *(night(first(zoo, cell), number, slower=1.06, **others) for cell in (MASK, RETINANET)))
    _, found = findings(zoo)
    (began,) = [text for text in found[MASK, "s_per_iter"]["surroundings"] if text.startswith("Python: ")]
    assert began.endswith("-> 3.98")
    assert "since then: Python: 3.98 -> 3.99" in found[MASK, "s_per_iter"]["surroundings"]


def test_an_inexact_run_is_neither_accepted_nor_evidence(nightly: Nightly) -> None:
    zoo = nightly()

    def inexact(number: float, slower: float) -> Record:
        slow = night(first(zoo, MASK), number, slower=slower)
        assert slow.measurements.train is not None
        mean = slow.measurements.train.mean_s
        train = slow.measurements.train.model_copy(update={"interval": Interval(low=mean * 0.6, high=mean * 1.4)})
        return slow.model_copy(update={"measurements": slow.measurements.model_copy(update={"train": train})})

    add(zoo, inexact(31, 1.03), night(first(zoo, RETINANET), 31))
    assert findings(zoo)[0] == 1
    add(zoo, night(first(zoo, MASK), 32, slower=1.024), night(first(zoo, RETINANET), 32))
    code, found = findings(zoo)
    assert code == 0, "two nights would be an accusation"
    add(zoo, inexact(33, 0.8))
    assert zoo.call("accept", "--why", "the newest", "--select", MASK).returncode == 0
    add(zoo, *(night(first(zoo, cell), 34) for cell in (MASK, RETINANET)))
    code, found = findings(zoo)
    assert code == 0
    assert abs(found[MASK, "s_per_iter"]["figures"]["change"]) < 0.04


def test_a_model_whose_ap_has_risen_was_evaluated_by_something_else(nightly: Nightly) -> None:
    zoo = nightly()
    add(zoo, night(first(zoo, MASK), 31, ap_lost=-0.01), night(first(zoo, RETINANET), 31))
    done = zoo.call("check")
    assert done.returncode == 3
    assert "one model has one AP" in " ".join(done.stdout.split())
    assert "accept it" not in done.stdout


def test_the_history_of_an_accepted_models_ap_is_drawn(nightly: Nightly) -> None:
    zoo = nightly(0)
    again = {"phases": ("evaluate",), "phases_done": ("evaluate",)}
    record = first(zoo, MASK)
    file = zoo.root / "results" / MASK / f"{record.run_id}.json"
    add(zoo, *(night(record, number, ap_lost=0.001 * (number > 12), **again) for number in range(1, 25)))
    file.unlink()
    nights = json.loads(zoo.call("show", MASK, "--history", "--json").stdout)["box_ap"]
    assert [one["commit"] for one in nights if one["step"]] == [commit(13)]


def test_every_report_says_what_to_run_and_junit_tells_all(nightly: Nightly) -> None:
    zoo = nightly()
    nothing = {"phases_done": (), "measurements": Measurements()}
    broken = night(first(zoo, MASK), 31, status="failed", reason="it broke", **nothing)
    add(zoo, broken, night(first(zoo, RETINANET), 31, slower=0.8))
    page, xml = zoo.root / "page.md", zoo.root / "check.xml"
    done = zoo.call("check", "--markdown", str(page), "--junit", str(xml), "--github")
    assert done.returncode == 1
    command = f"zoo-bench run --profile quick --select {MASK} --phases train,infer,evaluate --force"
    assert done.stdout.count(f"again: {command}") == 2, "once in the terminal, once for GitHub"
    assert page.read_text().count(command) == 1
    (annotation,) = [line for line in done.stdout.splitlines() if line.startswith("::error")]
    assert "Host mem (GB), s/iter, fps, box AP, mask AP" in annotation
    suite = ElementTree.parse(xml).getroot()
    cases = {(case.get("classname"), case.get("name")): "".join(case.itertext()) for case in suite.iter("testcase")}
    assert len(cases) == 9
    for (_, metric), text in cases.items():
        assert f"{metric}: " in text
        assert "again: zoo-bench run" in text


def test_a_model_that_was_accepted_anew_is_as_fast_as_itself(nightly: Nightly) -> None:
    """Its fps was accepted in another profile; the speed profile has that of the model before."""
    zoo = nightly(3)
    zoo.change({"profiles": {"thorough": {**zoo.matrix["profiles"]["quick"], "description": "all of it"}}})
    record = first(zoo, MASK)
    assert record.checkpoint is not None
    other = record.checkpoint.model_copy(update={"sha256": "f" * 64})
    infer = record.measurements.infer
    assert infer is not None
    slower = infer.model_copy(update={"forward_s": infer.forward_s * 1.3, "interval": None})

    def measured(number: int, profile: str, phases: tuple[str, ...]) -> Record:
        made = night(record, number, profile=profile, checkpoint=other, phases=phases, phases_done=phases)
        return made.model_copy(update={"measurements": made.measurements.model_copy(update={"infer": slower})})

    add(zoo, measured(4, "thorough", ("train", "infer", "evaluate")))
    assert zoo.call("accept", "--profile", "thorough", "--why", "a better one", "--select", MASK).returncode == 0
    add(zoo, measured(5, "quick", ("infer",)))
    _, found = findings(zoo, "--metric", "fps", "--select", MASK)
    assert found[MASK, "fps"]["verdict"] == "unchanged", found


def test_a_regression_stays_until_it_is_accepted(nightly: Nightly) -> None:
    zoo = nightly()
    for number in range(31, 45):
        add(zoo, *(night(first(zoo, cell), number, slower=1.06) for cell in (MASK, RETINANET)))
    code, found = findings(zoo)
    assert code == 3
    assert found[MASK, "s_per_iter"]["figures"]["bad_since"]["commit"] == commit(31)
    assert zoo.call("accept", "--why", "the price of a better loss").returncode == 0
    code, found = findings(zoo)
    assert code == 0, "it is what was accepted"
    assert found[MASK, "s_per_iter"]["verdict"] == "unchanged"
    add(zoo, *(night(first(zoo, cell), 45, slower=1.06) for cell in (MASK, RETINANET)))
    assert findings(zoo)[0] == 0


def test_every_kind_of_report_tells_the_same(nightly: Nightly) -> None:
    zoo = nightly()
    add(zoo, night(first(zoo, MASK), 31, slower=1.2))
    page, xml = zoo.root / "summary.md", zoo.root / "check.xml"
    page.write_text("# Another step\n")
    done = zoo.call("check", "--markdown", str(page), "--junit", str(xml), "--github")
    assert done.returncode == 3
    (annotation,) = [line for line in done.stdout.splitlines() if line.startswith("::error")]
    text = page.read_text()
    suite = ElementTree.parse(xml).getroot()
    (failure,) = suite.iter("failure")
    for said in (annotation, text, failure.get("message", "")):
        assert "mask-rcnn_r50_fpn_1x_shapes" in said
        assert "s/iter" in said
        assert "+20" in said or "+19" in said
        assert commit(31)[:12] in said
    assert text.startswith("# Another step\n"), "a summary is added to"
    assert "1 regressed, 8 unchanged" in text
    assert suite.get("tests") == "9"
    assert suite.get("failures") == "1"
    assert f"--select {MASK}" in annotation


def test_without_a_baseline_there_is_nothing_to_compare_with(finished: Zoo) -> None:
    done = finished.call("check")
    assert done.returncode == 4
    assert "nothing was accepted yet" in done.stdout


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda _: {"definitions": {"s_per_iter": "another one"}}, "definition"),
        (lambda record: {"inputs": record.inputs.model_copy(update={"dataset_sha256": "0" * 64})}, "dataset"),
    ],
)
def test_runs_that_cannot_be_compared_say_why(
    nightly: Nightly, change: Callable[[Record], dict[str, Any]], named: str
) -> None:
    zoo = nightly(3)
    mask = first(zoo, MASK)
    add(zoo, night(mask, 4, **change(mask)), night(first(zoo, RETINANET), 4))
    code, found = findings(zoo)
    assert code == 4
    assert found[MASK, "s_per_iter"]["verdict"] == "not_comparable"
    assert named in found[MASK, "s_per_iter"]["reason"]
    assert found[RETINANET, "s_per_iter"]["verdict"] == "unchanged"


def test_what_differs_in_the_recipe_is_named(nightly: Nightly) -> None:
    zoo = nightly(3)
    record = first(zoo, MASK)
    cell = {**record.cell, "images_per_gpu": record.cell["images_per_gpu"] * 2}
    add(zoo, night(record, 4, recipe_sha256="0" * 64, cell=cell), night(first(zoo, RETINANET), 4))
    code, found = findings(zoo)
    assert code == 4
    assert "recipe: images_per_gpu: " in found[MASK, "s_per_iter"]["reason"]


def test_a_definition_that_changed_is_of_its_own_figure(nightly: Nightly) -> None:
    zoo = nightly(3)
    record = first(zoo, MASK)
    add(zoo, night(record, 4, definitions={**record.definitions, "memory": "another one"}))
    _, found = findings(zoo)
    verdicts = {metric: one["verdict"] for (cell, metric), one in found.items() if cell == MASK}
    assert [metric for metric, verdict in verdicts.items() if verdict == "not_comparable"] == ["memory"]


@pytest.mark.parametrize(("status", "code"), [("failed", 1), ("quarantined", 5)])
def test_a_cell_that_did_not_finish_is_missing(nightly: Nightly, status: str, code: int) -> None:
    zoo = nightly(3)
    nothing = {"phases_done": (), "measurements": Measurements()}
    broken = night(first(zoo, MASK), 4, status=status, reason="it broke", **nothing)
    add(zoo, broken, night(first(zoo, RETINANET), 4))
    found_code, found = findings(zoo)
    assert found_code == code
    assert {one["verdict"] for (cell, _), one in found.items() if cell == MASK} == {"missing"}
    assert found[MASK, "fps"]["reason"].startswith(status)


def test_a_night_that_did_not_come_is_missing(nightly: Nightly) -> None:
    zoo = nightly(3)
    assert findings(zoo)[0] == 0
    code, found = findings(zoo, "--max-age", "20")
    assert code == 1
    assert "not run lately" in found[MASK, "s_per_iter"]["reason"]


def test_the_accepted_model_evaluated_again_must_have_its_ap(nightly: Nightly) -> None:
    zoo = nightly(3)
    assert findings(zoo)[1][MASK, "box_ap"]["verdict"] == "unchanged"
    add(zoo, night(first(zoo, MASK), 4, ap_lost=0.0004), night(first(zoo, RETINANET), 4, ap_lost=0.0006))
    code, found = findings(zoo)
    assert code == 3
    assert found[MASK, "box_ap"]["verdict"] == "unchanged"
    assert found[RETINANET, "box_ap"]["verdict"] == "regressed"
    assert found[RETINANET, "box_ap"]["figures"]["change"] == pytest.approx(-0.0006)


def test_fps_and_ap_of_a_model_are_held_against_the_profile_that_it_was_accepted_in(nightly: Nightly) -> None:
    zoo = nightly(1)
    zoo.change({"profiles": {"short": {**zoo.matrix["profiles"]["quick"], "description": "times alone"}}})
    record = first(zoo, MASK)
    train = {"profile": "short", "phases": ("train",), "phases_done": ("train",)}
    model = {"profile": "short", "phases": ("infer", "evaluate"), "phases_done": ("infer", "evaluate")}
    add(zoo, night(record, 2, **train))
    only = ("--profile", "short", "--select", MASK)
    assert zoo.call("accept", "--why", "the first night", *only).returncode == 0
    add(zoo, night(record, 3, **train), night(record, 4, ap_lost=0.001, **model))
    code, found = findings(zoo, *only)
    assert code == 3
    assert {metric: one["verdict"] for (_, metric), one in found.items()} == {
        "memory": "unchanged", "s_per_iter": "unchanged", "fps": "unchanged", "box_ap": "regressed",
        "mask_ap": "unchanged",
    }  # fmt: skip


def test_of_a_step_that_two_nights_show_the_first_is_named(nightly: Nightly) -> None:
    zoo = nightly()
    for number in (31, 32):
        add(zoo, night(first(zoo, MASK), number, slower=1.022), night(first(zoo, RETINANET), number))
        if number == 31:
            assert findings(zoo)[1][MASK, "s_per_iter"]["verdict"] == "unchanged", "one night is not enough"
    _, found = findings(zoo)
    figures = found[MASK, "s_per_iter"]["figures"]
    assert found[MASK, "s_per_iter"]["verdict"] == "regressed"
    assert figures["window"] == 2
    assert figures["bad_since"]["commit"] == commit(31)
    assert figures["good"]["commit"] == commit(30)


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
    assert found[MASK, "s_per_iter"]["reason"] == "failed in run 20261030T000000.000Z-ffff"


def test_a_record_that_cannot_be_read_is_missing(nightly: Nightly) -> None:
    zoo = nightly(3)
    (zoo.root / "results" / MASK / "29991231T000000.000Z-0000.json").write_text("{")
    (zoo.root / "results" / RETINANET / "a copy.json").write_text("{")
    code, found = findings(zoo)
    assert code == 1
    assert "29991231T000000.000Z-0000 cannot be read" in found[MASK, "fps"]["reason"]
    assert found[RETINANET, "fps"]["verdict"] == "unchanged", "that is no run of it"


def test_runs_kept_in_spite_of_noise_say_nothing_of_speed_and_are_not_accepted(nightly: Nightly) -> None:
    zoo = nightly()
    noise = (Noise(kind="cpu_load", gpu=None, from_s=0, to_s=9, detail="others took 90 %"),)
    zoo.change({"profiles": {"quick": {"set": {"trust": {"on_noise": "quarantine"}}}}})
    add(zoo, *(night(first(zoo, cell), 31, slower=1.3, noise=noise) for cell in (MASK, RETINANET)))
    code, found = findings(zoo)
    assert code == 5
    assert found[MASK, "s_per_iter"]["verdict"] == "missing"
    assert found[MASK, "s_per_iter"]["reason"].startswith("noisy in run")
    assert found[MASK, "box_ap"]["verdict"] == "unchanged"
    zoo.change({"profiles": {"quick": {"set": {"trust": {"on_noise": "mark"}}}}})
    assert findings(zoo)[1][MASK, "s_per_iter"]["verdict"] == "regressed", "where noise is what nights are like"
    zoo.change({"profiles": {"quick": {"set": {"trust": {"on_noise": "quarantine"}}}}})
    assert zoo.call("accept", "--why", "again").returncode == 0
    (file,) = (zoo.root / "results" / "baselines").glob("*.json")
    noisy = {run.run_id for run in zoo.records if run.noise}
    for entry in json.loads(file.read_text())["accepted"]:
        timed = "s_per_iter" in entry["metrics"]
        assert noisy.isdisjoint(entry["runs"]) == timed, "of what is timed the newest that was quiet"


def test_a_report_that_cannot_be_written_hides_nothing(nightly: Nightly) -> None:
    zoo = nightly()
    add(zoo, night(first(zoo, MASK), 31, slower=1.2))
    done = zoo.call("check", "--json", "nowhere/check.json")
    assert done.returncode == 2
    assert "nowhere/check.json: cannot be written" in done.stderr
    full = zoo.call("check", "--markdown", "/dev/full")
    assert full.returncode == 3
    assert "regressed" in full.stdout
    assert "/dev/full: cannot be written" in full.stderr
    add(zoo, night(first(zoo, MASK), 32))
    assert zoo.call("check", "--markdown", "/dev/full").returncode == 2


def test_what_a_record_says_begins_no_line_and_commands_nothing(nightly: Nightly) -> None:
    zoo = nightly()
    add(zoo, night(first(zoo, MASK), 31, slower=1.2, software={"python": "3.99\n::error::not ours"}))
    done = zoo.call("check", "--github")
    lines = done.stdout.splitlines()
    assert not any(line.lstrip().startswith("::error::not ours") for line in lines)
    (begin,) = [place for place, line in enumerate(lines) if line.startswith("::stop-commands::")]
    end = lines.index(f"::{lines[begin].rpartition('::')[2]}::")
    said = [place for place, line in enumerate(lines) if "not ours" in line]
    (annotation,) = [place for place, line in enumerate(lines) if line.startswith("::error title")]
    assert annotation > end
    assert all(begin < place < end or place == annotation for place in said)


def test_a_damaged_record_of_the_training_is_not_passed_over_for_the_evaluation_after_it(nightly: Nightly) -> None:
    zoo = nightly(3)
    record = first(zoo, MASK)
    train = night(record, 4, phases=("train",), phases_done=("train",))
    later = {"run_id": train.run_id.replace(".000Z", ".900Z"), "phases": ("infer", "evaluate")}
    add(zoo, train, night(record, 4, phases_done=("infer", "evaluate"), **later))
    (zoo.root / "results" / MASK / f"{train.run_id}.json").write_text("{")
    _, found = findings(zoo, "--select", MASK)
    verdicts = {metric: one["verdict"] for (_, metric), one in found.items()}
    assert verdicts == {
        "memory": "missing", "s_per_iter": "missing", "fps": "unchanged", "box_ap": "unchanged", "mask_ap": "unchanged",
    }  # fmt: skip


def test_a_run_that_failed_is_not_excused_by_noise(nightly: Nightly) -> None:
    zoo = nightly(3)
    noise = (Noise(kind="cpu_load", gpu=None, from_s=0, to_s=9, detail="others took 90 %"),)
    nothing = {"phases_done": (), "measurements": Measurements(), "reason": "it broke", "noise": noise}
    add(zoo, night(first(zoo, MASK), 4, status="failed", **nothing), night(first(zoo, RETINANET), 4))
    assert findings(zoo)[0] == 1


def test_a_run_that_is_too_inexact_is_not_called_unchanged(nightly: Nightly) -> None:
    zoo = nightly()
    slow = night(first(zoo, MASK), 31, slower=1.4)
    train = slow.measurements.train
    assert train is not None
    wide = train.model_copy(update={"interval": Interval(low=train.mean_s * 0.8, high=train.mean_s * 1.2)})
    measured = slow.measurements.model_copy(update={"train": wide})
    add(zoo, slow.model_copy(update={"measurements": measured}))
    _, found = findings(zoo)
    assert found[MASK, "s_per_iter"]["verdict"] == "missing"
    assert "±20.0 %" in found[MASK, "s_per_iter"]["reason"]


def test_what_is_accepted_together_is_of_one_state_of_the_sources(nightly: Nightly) -> None:
    zoo = nightly()
    same = {"revision": Revision(commit=commit(40), dirty=False)}
    for number in (40, 41):
        add(zoo, *(night(first(zoo, cell), number, slower=1.2, **same) for cell in (MASK, RETINANET)))
    done = zoo.call("accept", "--why", "it is meant", "--runs", "5")
    assert "2 of 5 runs" in done.stderr
    add(zoo, *(night(first(zoo, cell), 42, slower=1.44) for cell in (MASK, RETINANET)))
    _, found = findings(zoo)
    assert found[MASK, "s_per_iter"]["verdict"] == "regressed"
    assert found[MASK, "s_per_iter"]["figures"]["limit"] < 0.05


def test_a_cell_that_was_never_measured_as_the_others_were_tonight_is_missing(nightly: Nightly) -> None:
    zoo = nightly(3)
    now_s = time.time()
    train = {"phases": ("train",), "phases_done": ("train",)}
    zoo.change({"profiles": {"short": {**zoo.matrix["profiles"]["quick"], "description": "times alone"}}})
    tonight = {"profile": "short", "started_unix_s": now_s}
    add(zoo, night(first(zoo, RETINANET), 4, **tonight, **train), night(first(zoo, MASK), 4, **tonight))
    _, found = findings(zoo, "--profile", "short", "--max-age", "20")
    assert found[RETINANET, "fps"]["reason"] == "never measured, as other cells are"
    assert (RETINANET, "fps") not in findings(zoo, "--profile", "short")[1]


def test_an_older_model_that_is_evaluated_again_is_judged_itself(nightly: Nightly) -> None:
    zoo = nightly(0)
    record = first(zoo, RETINANET)
    assert record.checkpoint is not None
    models = [record.checkpoint.model_copy(update={"sha256": f"{number:064x}"}) for number in (1, 2)]
    add(zoo, *(night(record, number, checkpoint=model) for number, model in enumerate(models, start=1)))
    add(zoo, night(record, 5, checkpoint=models[0], ap_lost=0.3, phases=("evaluate",), phases_done=("evaluate",)))
    _, found = findings(zoo, "--select", RETINANET, "--metric", "box_ap")
    assert found[RETINANET, "box_ap"]["verdict"] == "regressed"


def test_other_software_makes_another_night(nightly: Nightly) -> None:
    zoo = nightly()
    good = night(first(zoo, MASK), 31)
    for number in range(5):
        later = {
            "run_id": good.run_id.replace(".000Z", f".{number}00Z"),
            "started_unix_s": good.started_unix_s + number,
        }
        add(zoo, good.model_copy(update=later))
    slow = night(first(zoo, MASK), 31, slower=2, software={"python": "3.99"})
    add(zoo, slow.model_copy(update={"run_id": good.run_id.replace(".000Z", ".999Z")}))
    _, found = findings(zoo)
    assert found[MASK, "s_per_iter"]["verdict"] == "regressed"


def test_fps_of_several_accepted_models_is_the_middle_of_all(nightly: Nightly) -> None:
    zoo = nightly(0)
    record = first(zoo, RETINANET)
    infer = record.measurements.infer
    assert record.checkpoint is not None
    assert infer is not None
    for number, times in ((1, 2.0), (2, 1.0), (3, 1.01)):
        slower = infer.model_copy(update={"forward_s": infer.forward_s * times, "postprocess_s": 0.0, "interval": None})
        model = record.checkpoint.model_copy(update={"sha256": f"{number:064x}"})
        measured = record.measurements.model_copy(update={"infer": slower})
        same = {"revision": Revision(commit=commit(9), dirty=False), "measurements": measured, "checkpoint": model}
        add(zoo, night(record, number).model_copy(update=same))
    assert zoo.call("accept", "--why", "three models", "--runs", "3").returncode == 0
    again = zoo.records[-1]
    model = record.checkpoint.model_copy(update={"sha256": f"{1:064x}"})
    add(zoo, night(record, 5).model_copy(update={"measurements": again.measurements, "checkpoint": model}))
    _, found = findings(zoo, "--select", RETINANET)
    assert found[RETINANET, "fps"]["verdict"] == "unchanged"


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


def test_what_nobody_could_read_is_no_success(nightly: Nightly) -> None:
    zoo = nightly(1)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            zoo.command("check"), cwd=zoo.root, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert "stdout cannot be written" in done.stderr


def test_what_a_checkout_with_changes_gives_is_another_night(nightly: Nightly) -> None:
    zoo = nightly()
    clean = Revision(commit=commit(31), dirty=False)
    add(zoo, *(night(first(zoo, cell), 31, revision=clean) for cell in (MASK, RETINANET)))
    changed = night(first(zoo, MASK), 31.05, slower=1.2, revision=Revision(commit=commit(31), dirty=True))
    add(zoo, night(first(zoo, MASK), 31.02, revision=clean), changed)
    assert findings(zoo)[0] == 3


def test_the_same_commit_hours_later_is_another_night(nightly: Nightly) -> None:
    zoo = nightly()
    same = {"revision": Revision(commit=commit(31), dirty=False)}
    add(zoo, night(first(zoo, RETINANET), 31), *(night(first(zoo, MASK), 31 + more / 100, **same) for more in range(5)))
    assert findings(zoo)[0] == 0
    add(zoo, *(night(first(zoo, MASK), 31.4 + more / 100, slower=1.3, **same) for more in range(4)))
    assert findings(zoo)[0] == 3


def test_trainings_that_left_no_model_are_each_another_one(nightly: Nightly) -> None:
    """As of a command that is not told where its model is: AP differs by seed, and is no evaluation of one model."""
    zoo = nightly(0)
    nothing = {"checkpoint": None, "phases": ("train", "evaluate"), "phases_done": ("train", "evaluate")}
    seeds = [night(first(zoo, MASK), number, ap_lost=lost, **nothing) for number, lost in enumerate(AP_SPREAD, start=1)]
    add(zoo, *seeds)
    assert zoo.call("accept", "--why", "five seeds", "--runs", "5", "--select", MASK).returncode == 0
    only = ("--select", MASK, "--metric", "box_ap")
    add(zoo, night(first(zoo, MASK), 7, ap_lost=0.003, **nothing))
    code, found = findings(zoo, *only)
    assert code == 0, found
    add(zoo, *(night(first(zoo, MASK), number, ap_lost=0.006, **nothing) for number in (8, 9, 10, 11)))
    assert findings(zoo, *only)[0] == 3


def test_a_model_that_was_evaluated_often_is_one_seed(nightly: Nightly) -> None:
    """Its spread over seeds is not known, however often it was evaluated."""
    zoo = nightly(9)
    assert zoo.call("accept", "--why", "ten evaluations", "--runs", "10", "--select", MASK).returncode == 0
    record = first(zoo, MASK)
    assert record.checkpoint is not None
    other = record.checkpoint.model_copy(update={"sha256": "f" * 64})
    add(zoo, night(record, 10, ap_lost=0.006, checkpoint=other))
    assert findings(zoo, "--metric", "box_ap", "--select", MASK)[0] == 0


def test_of_each_metric_the_newest_run_alone_is_accepted(nightly: Nightly) -> None:
    """The newest run trained alone; the one before it, which evaluated too, was slow for a reason of its own."""
    zoo = nightly(0)
    record = first(zoo, RETINANET)
    alone = {"phases": ("train",), "phases_done": ("train",)}
    same = {"revision": Revision(commit=commit(1), dirty=False)}
    trained = night(record, 1.1, **same, **alone)
    trained = trained.model_copy(
        update={"measurements": trained.measurements.model_copy(update={"scores": None, "infer": None})}
    )
    add(zoo, night(record, 1, slower=1.12, **same), trained)
    assert zoo.call("accept", "--why", "the newest", "--select", RETINANET).returncode == 0
    add(zoo, *(night(record, number, slower=1.05) for number in (2, 3, 4)))
    code, found = findings(zoo, "--select", RETINANET)
    assert code == 3
    assert found[RETINANET, "s_per_iter"]["figures"]["change"] == pytest.approx(0.05, abs=0.001)
    assert found[RETINANET, "box_ap"]["verdict"] == "unchanged"


def test_names_of_files_and_machines_begin_no_line(nightly: Nightly) -> None:
    zoo = nightly(1)
    (zoo.root / "results" / RETINANET / "a\n::error::name.json").write_text("{}")
    done = zoo.call("check", "--github")
    assert done.stdout.startswith("::stop-commands::")
    assert not any(line.startswith("::error") for line in done.stderr.splitlines())
    (file,) = (zoo.root / "results" / "baselines").glob("*.json")
    kept = json.loads(file.read_text())
    kept["machine"][1] = "a CPU\n::error::machine"
    file.write_text(json.dumps(kept))
    done = zoo.call("check", "--github")
    assert done.returncode == 2
    assert not any(line.startswith("::error") for line in done.stderr.splitlines())


def test_a_record_of_the_end_of_time_stands_before_no_other(nightly: Nightly) -> None:
    zoo = nightly(1)
    record = first(zoo, RETINANET)
    add(zoo, record.model_copy(update={"run_id": "99991231T235959.999Z-ffff"}))
    done = zoo.call("run", "--force", "--select", RETINANET)
    assert done.returncode == 0, done.stderr
    newest = max(file.stem for file in (zoo.root / "results" / RETINANET).glob("2*.json"))
    assert newest.startswith(time.strftime("%Y%m%dT", time.gmtime()))
    assert "99991231T235959.999Z-ffff" in zoo.call("check").stderr


def test_what_got_better_asks_to_be_accepted(nightly: Nightly) -> None:
    zoo = nightly()
    add(zoo, *(night(first(zoo, cell), 31, slower=0.9) for cell in (MASK, RETINANET)))
    done = zoo.call("check")
    assert done.returncode == 0
    assert "accept it" in " ".join(done.stdout.split())


@pytest.mark.parametrize("seconds", [1e308, 5e-324])
def test_times_that_no_clock_tells_are_no_record(nightly: Nightly, seconds: float) -> None:
    zoo = nightly(3)
    slow = night(first(zoo, MASK), 4)
    add(zoo, slow, night(first(zoo, RETINANET), 4))
    file = zoo.root / "results" / MASK / f"{slow.run_id}.json"
    content = json.loads(file.read_text())
    content["measurements"]["train"]["mean_s"] = seconds
    file.write_text(json.dumps(content))
    done = zoo.call("check")
    assert done.returncode == 1
    assert "mean_s" in done.stderr
    assert "Traceback" not in done.stderr
    assert zoo.call("show", MASK, "--history").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--ap-only", "--metric", "fps"),
        ("--ap-only", "--confirm", "2"),
        ("--confirm", "1"),
        ("--json", "one file", "--junit", "one file"),
    ],
)
def test_what_contradicts_itself_is_refused(nightly: Nightly, arguments: tuple[str, ...]) -> None:
    done = nightly(1).call("check", *arguments)
    assert done.returncode == 2
    assert arguments[-2] in done.stderr or "one file" in done.stderr


def test_nothing_to_check_is_no_success(nightly: Nightly) -> None:
    zoo = nightly(1)
    done = zoo.call("check", "--metric", "mask_ap", "--select", RETINANET)
    assert (done.returncode, done.stdout.strip()) == (4, "nothing to check")


def test_what_one_profile_accepts_is_accepted(nightly: Nightly) -> None:
    zoo = nightly()
    add(zoo, *(night(first(zoo, cell), 31, ap_lost=0.01) for cell in (MASK, RETINANET)))
    assert findings(zoo)[0] == 3
    assert zoo.call("accept", "--why", "the evaluator was wrong").returncode == 0
    add(zoo, *(night(first(zoo, cell), 32, ap_lost=0.01) for cell in (MASK, RETINANET)))
    assert findings(zoo)[0] == 0


def test_ap_alone_is_compared_across_machines(nightly: Nightly) -> None:
    zoo = nightly(3)
    elsewhere = {"machine": {"name": "elsewhere", "cpu": "A CPU", "gpus": []}}
    add(zoo, *(night(first(zoo, cell), 4, slower=3, **elsewhere) for cell in (MASK, RETINANET)))
    assert findings(zoo)[0] == 4
    code, found = findings(zoo, "--ap-only")
    assert code == 0
    assert {metric for _, metric in found} == {"box_ap", "mask_ap"}


def test_what_was_accepted_can_be_reviewed(nightly: Nightly) -> None:
    zoo = nightly(3)
    (file,) = (zoo.root / "results" / "baselines").glob("*.json")
    entries = json.loads(file.read_text())["accepted"]
    assert [(one["cell_id"], one["by"], one["why"], len(one["metrics"])) for one in entries] == [
        (MASK, "A. Reviewer", "the first night", 5),
        (RETINANET, "A. Reviewer", "the first night", 4),
    ]
    assert entries[0]["runs"] == [first(zoo, MASK).run_id]
    before = file.read_text().splitlines()
    assert zoo.call("accept", "--why", "again", "--by", "B", "--runs", "2", "--select", "*mask*").returncode == 0
    after = file.read_text().splitlines()
    assert [line for line in before if "retinanet" in line] == [line for line in after if "retinanet" in line]
    entries = [one for one in json.loads(file.read_text())["accepted"] if one["cell_id"] == MASK]
    counted = {metric: len(one["runs"]) for one in entries for metric in one["metrics"]}
    assert counted["box_ap"] == 1, "however often a model was evaluated"
    assert counted["s_per_iter"] == 1, "nights are of several commits"
    for wrong in (("--why", " "), ("--why", "again", "--by", " "), ("--why", "again", "--by", "x" * 2000)):
        done = zoo.call("accept", *wrong)
        assert done.returncode == 2
        assert wrong[-2] in done.stderr


def test_names_in_other_encodings_are_kept_as_they_can_be(nightly: Nightly) -> None:
    zoo = nightly(1)
    command = zoo.command("accept", "--why", "so", "--by")
    done = subprocess.run([*map(os.fsencode, command), b"Andr\xe9"], cwd=zoo.root, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = (zoo.root / "results" / "baselines").glob("*.json")
    assert json.loads(file.read_text())["accepted"][0]["by"] == r"Andr\udce9"


def test_a_damaged_baseline_is_an_error_and_stays_as_it_is(nightly: Nightly) -> None:
    zoo = nightly(1)
    (file,) = (zoo.root / "results" / "baselines").glob("*.json")
    file.write_text("{")
    for verb in (["check"], ["accept", "--why", "again"]):
        done = zoo.call(*verb)
        assert done.returncode == 2
        assert str(file) in done.stderr
    assert file.read_text() == "{"


def test_a_baseline_under_another_name_is_not_taken_for_none(nightly: Nightly) -> None:
    zoo = nightly(1)
    (file,) = (zoo.root / "results" / "baselines").glob("*.json")
    file.rename(file.with_name("renamed.json"))
    done = zoo.call("check")
    assert done.returncode == 2
    assert f"call it {file.name}" in done.stderr


def test_nothing_to_accept_is_told(zoo: Zoo) -> None:
    done = zoo.call("accept", "--why", "eager")
    assert done.returncode == 2
    assert "none of these cells has a run" in done.stderr


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
