"""`zoo-bench check`: its verdicts, and how it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Zoo
from nights import AP_SPREAD, MASK, RETINANET, Nightly, add, commit, findings, first, inexact, night

from zoo_bench.measurements import Measurements
from zoo_bench.noise import Noise
from zoo_bench.record import Record
from zoo_bench.revision import Revision


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
    add(zoo, inexact(night(first(zoo, MASK), 31, slower=1.03)), night(first(zoo, RETINANET), 31))
    assert findings(zoo)[0] == 1
    add(zoo, night(first(zoo, MASK), 32, slower=1.024), night(first(zoo, RETINANET), 32))
    code, found = findings(zoo)
    assert code == 0, "two nights would be an accusation"
    add(zoo, inexact(night(first(zoo, MASK), 33, slower=0.8)))
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
    add(zoo, inexact(night(first(zoo, MASK), 31, slower=1.4)))
    _, found = findings(zoo)
    assert found[MASK, "s_per_iter"]["verdict"] == "missing"
    assert "±40.0 %" in found[MASK, "s_per_iter"]["reason"]


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


def test_ap_alone_is_compared_across_machines(nightly: Nightly) -> None:
    zoo = nightly(3)
    elsewhere = {"machine": {"name": "elsewhere", "cpu": "A CPU", "gpus": []}}
    add(zoo, *(night(first(zoo, cell), 4, slower=3, **elsewhere) for cell in (MASK, RETINANET)))
    assert findings(zoo)[0] == 4
    code, found = findings(zoo, "--ap-only")
    assert code == 0
    assert {metric for _, metric in found} == {"box_ap", "mask_ap"}
