"""The documented nights, from a clean clone: the workflow's own commands, a night that turns red, a bisect."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from clones import CELL, Clone, git
from conftest import REPOSITORY

WORKFLOWS = REPOSITORY / "docs" / "ci"


def steps(workflow: str) -> Iterator[tuple[str, str]]:
    """The commands of a workflow, by the names of their steps; those of GitHub's own actions left out."""
    content: dict[str, Any] = yaml.safe_load((WORKFLOWS / workflow).read_text())
    for job in content["jobs"].values():
        yield from ((step["name"], step["run"]) for step in job["steps"] if "run" in step)


def test_the_workflows_are_what_github_reads() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    command = [checker, "--builtin-schema", "vendor.github-workflows", *WORKFLOWS.glob("*.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("workflow", ["nightly.yml", "smoke.yml"])
def test_the_workflows_set_up_what_their_other_steps_call(clone: Clone, workflow: str) -> None:
    paths = clone.root / "paths"
    done = clone.sh(dict(steps(workflow))["Set up"], GITHUB_PATH=str(paths), PYTHON=sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = paths.read_text().splitlines()
    assert Path(folder) == clone.root / ".venv" / "bin"
    done = clone.sh(f"PATH={folder}:$PATH; command -v zoo-bench; zoo-bench plan --profile quick --select {CELL}")
    assert done.stdout.startswith(folder)
    assert done.returncode == 0, done.stderr


def night(clone: Clone) -> tuple[int, str]:
    """Go through the nightly workflow, but for setting up; how its measuring ended, and the job's summary."""
    summary = clone.root / "summary.md"
    summary.unlink(missing_ok=True)
    code = 0
    for name, command in steps("nightly.yml"):
        if name != "Set up":
            given = {"NIGHT": "quick", "SELECT": CELL, "ZOO": str(clone.origin), "GITHUB_ACTIONS": "true"}
            done = clone.sh(command, GITHUB_STEP_SUMMARY=str(summary), **given)
            if name == "Measure and compare":
                code, annotations = done.returncode, done.stdout
            else:
                assert done.returncode == 0, (name, done.stderr)
    return code, summary.read_text() + annotations


def test_nights_go_red_with_the_commit_that_made_it_slow_and_bisect_finds_it(clone: Clone) -> None:
    code, _ = night(clone)
    assert code == 4, "nothing was accepted yet"
    assert clone.sh("zoo-bench run --force && zoo-bench accept --why 'the first models'").returncode == 0
    code, page = night(clone)
    assert code == 0, page
    assert "nothing was accepted" not in page, "of the night before"
    good = git(clone.root, "rev-parse", "HEAD")
    for number in range(2):
        clone.commit(f"harmless {number}")
    culprit = clone.slow_down(3)
    bad = clone.commit("harmless too")

    code, page = night(clone)
    assert code == 3
    assert "::error title=regressed%3A " in page
    assert "s/iter" in page
    assert f"since commit {bad[:12]}" in page
    assert "worker sources" in page
    kept = git(clone.origin, "ls-tree", "-r", "--name-only", "zoo-results").splitlines()
    assert any(name.startswith("baselines/") for name in kept)
    assert sum(name.startswith(f"{CELL}/") for name in kept) >= 4
    assert not any(name.startswith(("runs/", "locks/", "checkpoints/")) for name in kept)
    told = json.loads((clone.root / "nightly-report" / "check.json").read_text())
    (found,) = [one for one in told if one["metric"] == "s_per_iter"]
    assert found["figures"]["change"] == pytest.approx(2.0, abs=0.5)

    status = git(clone.root, "status", "--porcelain")
    records = sorted((clone.root / "results" / CELL).glob("*.json"))
    back = len(git(clone.root, "rev-list", f"{good}..{bad}").split())
    done = clone.sh(f"cd tools && python find_commit.py HEAD~{back} HEAD {CELL} --profile quick --runs 3")
    assert f"{culprit} is the first bad commit" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
    assert sorted((clone.root / "results" / CELL).glob("*.json")) == records, "what is searched is no night"
    assert git(clone.root, "status", "--porcelain") == status
    assert git(clone.root, "rev-parse", "HEAD") == bad


def test_a_full_recipe_is_trained_with_another_seed_each_week(clone: Clone) -> None:
    assert clone.sh("zoo-bench run --repeat 2 && zoo-bench accept --why 'two seeds' --runs 2").returncode == 0
    done = clone.sh("tools/nightly.sh --anew quick")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((clone.root / "nightly-report" / "check.json").read_text())
    assert {one["verdict"] for one in told} == {"unchanged"}
    newest = max((clone.root / "results" / CELL).glob("*.json"))
    assert json.loads(newest.read_text())["cell"]["seed"] == int(time.time()) // 604_800


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        ("tools/nightly.sh quick", {"CONFIRM": "often"}),
        ("tools/nightly.sh quick", {"CONFIRM": "1"}),
        ("tools/nightly.sh quick", {"CONFIRM": "200"}),
        ("tools/nightly.sh quick report more", {}),
        ("tools/nightly.sh quikc", {}),
        ("tools/nightly.sh quick", {"SELECT": "nothing/*"}),
    ],
)
def test_a_night_that_is_written_wrong_is_refused_before_anything_runs(
    clone: Clone, command: str, variables: dict[str, str]
) -> None:
    done = clone.sh(command, **variables)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) < 12, "it is said once"
    assert not (clone.root / "results").exists()


def test_the_hosted_workflow_compares_ap_alone(clone: Clone) -> None:
    assert clone.sh("zoo-bench run && zoo-bench accept --why 'a start'").returncode == 0
    summary = clone.root / "summary.md"
    for name, command in steps("smoke.yml"):
        if name != "Set up":
            ours = command.replace("--profile smoke --select 'torchvision/*'", "--profile quick")
            done = clone.sh(ours, GITHUB_STEP_SUMMARY=str(summary))
            assert done.returncode == 0, (name, done.stdout, done.stderr)
    assert "1 unchanged" in summary.read_text()
    assert "s/iter" not in summary.read_text()
