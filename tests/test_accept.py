"""`zoo-bench accept`: which runs become the reference, and the file that a reviewer reads."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from conftest import Zoo
from filelock import FileLock
from nights import MASK, RETINANET, Nightly, add, commit, findings, first, night

from zoo_bench.record import Record
from zoo_bench.revision import Revision


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


def test_what_one_profile_accepts_is_accepted(nightly: Nightly) -> None:
    zoo = nightly()
    add(zoo, *(night(first(zoo, cell), 31, ap_lost=0.01) for cell in (MASK, RETINANET)))
    assert findings(zoo)[0] == 3
    assert zoo.call("accept", "--why", "the evaluator was wrong").returncode == 0
    add(zoo, *(night(first(zoo, cell), 32, ap_lost=0.01) for cell in (MASK, RETINANET)))
    assert findings(zoo)[0] == 0


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


def test_who_accepts_while_another_does_waits_and_keeps_both(nightly: Nightly) -> None:
    zoo = nightly(0)
    (file,) = (zoo.root / "results" / "baselines").glob("*.json")
    command = zoo.command("accept", "--why", "mine", "--select", MASK)
    with FileLock(zoo.root / "results" / "locks" / "baselines.lock"):
        accept = subprocess.Popen(command, cwd=zoo.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            accept.wait(5)
        file.write_text(file.read_text().replace("the first night", "theirs"))
    accept.communicate()
    assert accept.returncode == 0
    whys = {one["cell_id"]: one["why"] for one in json.loads(file.read_text())["accepted"]}
    assert whys == {MASK: "mine", RETINANET: "theirs"}


def test_what_is_accepted_is_shown_beside_what_was(nightly: Nightly) -> None:
    zoo = nightly(0)
    same = {"revision": Revision(commit=commit(1), dirty=False)}
    add(zoo, *(night(first(zoo, MASK), number, slower=2.0, **same) for number in (1, 2)))
    done = zoo.call("accept", "--why", "two", "--runs", "2", "--select", MASK)
    assert "was 0.0" in done.stdout
    assert "in place of" not in done.stderr
    done = zoo.call("accept", "--why", "one", "--select", MASK)
    assert "1 in place of 2 runs" in done.stderr
