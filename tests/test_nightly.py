"""The documented nights, from a clean clone: the workflow's own commands, a night that turns red, a bisect."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from conftest import FAKE, REPOSITORY
from test_surroundings import wait_for

from zoo_bench.recipe import merge

WORKFLOWS = REPOSITORY / "docs" / "ci"
CELL = "fake/retinanet_r50_fpn_1x_shapes"
# A fake iteration takes what it is told to, and a busy machine's clock: what is looked for here is three times as much.
ROUGH = {"check": {"least_change": {"memory": 1.0, "s_per_iter": 0.5, "fps": 1.0}}}
QUICK = {"axes": {"detector": ["retinanet_fpn"]}, "profiles": {"quick": {"set": {"options": {"iteration_s": 0.02}}}}}


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=A Tester", "-c", "user.email=tester@localhost", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True
    ).stdout.strip()


class Clone:
    """A clone of this repository, whose zoo is the fake backend's, and a repository for its results."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "zoo"
        origin = folder / "results.git"
        copy_of_repository(self.root)
        matrix = yaml.safe_load((self.root / "matrix.yaml").read_text())
        for values in (FAKE, QUICK, ROUGH):
            matrix = merge(matrix, values)
        (self.root / "matrix.yaml").write_text(yaml.safe_dump(matrix, sort_keys=False))
        self.commit("the fake zoo")
        git(folder, "init", "--bare", str(origin))
        self.origin = origin

    def commit(self, message: str) -> str:
        git(self.root, "add", "--all", "--", ".", ":!results")
        git(self.root, "commit", "--allow-empty", "-m", message)
        return git(self.root, "rev-parse", "HEAD")

    def slow_down(self, times: int) -> str:
        """Commit a worker whose iterations take so many times as long."""
        worker = self.root / "models" / "fake" / "train.py"
        text = worker.read_text()
        told = 'options.get("iteration_s", 0.001)'
        assert told in text
        worker.write_text(text.replace(told, f"{times} * {told}"))
        return self.commit("a worker that takes its time")

    def sh(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        hidden = {name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")}
        return subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=self.root,
            env={**hidden, "PATH": path, **variables},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


def copy_of_repository(to: Path) -> None:
    """What a clone of the working tree would hold: what git knows of, as it is now."""
    names = git(REPOSITORY, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for name in filter(None, names):
        if (REPOSITORY / name).is_file() and not name.startswith("results/"):
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, to / name)
    git(to, "init")


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


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


def test_nothing_is_searched_between_commits_that_cannot_be_told_apart(clone: Clone) -> None:
    assert clone.sh("zoo-bench run && zoo-bench accept --why 'a model'").returncode == 0
    good, bad = git(clone.root, "rev-parse", "HEAD"), clone.commit("harmless")
    for metric in ("fps", "box_ap"):
        done = clone.sh(f"python tools/find_commit.py {good} {bad} {CELL} --profile quick --runs 3 --metric {metric}")
        assert f"{bad} (bad): {metric} " in done.stdout, done.stdout + done.stderr
    assert done.returncode == 2
    assert "does not differ by what matters" in done.stderr, "the AP of a model is the same to the last digit"


def test_a_full_recipe_is_trained_with_another_seed_each_week(clone: Clone) -> None:
    assert clone.sh("zoo-bench run --repeat 2 && zoo-bench accept --why 'two seeds' --runs 2").returncode == 0
    done = clone.sh("tools/nightly.sh --anew quick")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((clone.root / "nightly-report" / "check.json").read_text())
    assert {one["verdict"] for one in told} == {"unchanged"}
    newest = max((clone.root / "results" / CELL).glob("*.json"))
    assert json.loads(newest.read_text())["cell"]["seed"] == int(time.time()) // 604_800


def left_in(folder: Path) -> list[psutil.Process]:
    """The processes whose command names something in a folder."""
    every = psutil.process_iter(["cmdline"])
    return [one for one in every if any(str(folder) in word for word in one.info["cmdline"] or ())]


@pytest.mark.parametrize(("number", "to_all"), [(signal.SIGINT, True), (signal.SIGHUP, True), (signal.SIGTERM, False)])
def test_a_search_that_is_ended_leaves_nothing(clone: Clone, number: signal.Signals, to_all: bool) -> None:
    slow = yaml.safe_load((clone.root / "matrix.yaml").read_text())
    slow["profiles"]["quick"]["set"]["options"]["iteration_s"] = 60
    (clone.root / "matrix.yaml").write_text(yaml.safe_dump(slow))
    good, bad = clone.commit("slow"), clone.commit("slow too")
    command = [sys.executable, "tools/find_commit.py", good, bad, CELL, "--profile", "quick"]
    with subprocess.Popen(command, cwd=clone.root, start_new_session=True, stderr=subprocess.PIPE, text=True) as search:
        worker = clone.root / ".zoo-bench" / "bisect" / "results" / "runs"
        wait_for(lambda: any(worker.glob("*/events.jsonl")), "the worker begins")
        (os.killpg if to_all else os.kill)(search.pid, number)
        assert search.wait(60) == 130
    assert not (clone.root / ".zoo-bench" / "bisect").exists()
    assert len(git(clone.root, "worktree", "list").splitlines()) == 1
    wait_for(lambda: not left_in(worker), "all of it has ended")


def test_a_search_that_is_ended_in_its_midst_waits_for_what_runs(clone: Clone) -> None:
    """The ends are measured; the commit between them hangs."""

    def commit(iteration_s: float) -> str:
        matrix = yaml.safe_load((clone.root / "matrix.yaml").read_text())
        matrix["profiles"]["quick"]["set"]["options"]["iteration_s"] = iteration_s
        (clone.root / "matrix.yaml").write_text(yaml.safe_dump(matrix))
        return clone.commit(f"{iteration_s} s")

    good, _, bad = commit(0.01), commit(60), commit(0.05)
    command = [sys.executable, "tools/find_commit.py", good, bad, CELL, "--profile", "quick", "--runs", "3"]
    with subprocess.Popen(command, cwd=clone.root, start_new_session=True, stderr=subprocess.PIPE, text=True) as search:
        git_dir = Path(git(clone.root, "rev-parse", "--absolute-git-dir")) / "worktrees" / "bisect"
        events = clone.root / ".zoo-bench" / "bisect" / "results" / "runs"
        wait_for(lambda: (git_dir / "BISECT_LOG").exists() and any(events.glob("*/events.jsonl")), "a step", 120)
        search.send_signal(signal.SIGINT)
        assert search.wait(60) == 130
        assert not left_in(events), "when it ends all of it has ended"
        assert search.stderr is not None
        told = search.stderr.read()
    assert "Error" not in told
    assert not (clone.root / ".zoo-bench" / "bisect").exists()


def test_a_zoo_in_a_folder_of_its_repository_is_searched_too(clone: Clone, tmp_path: Path) -> None:
    shutil.rmtree(clone.root / ".git")
    clone.root = clone.root.rename(tmp_path / "repository")
    (tmp_path / "zoo").mkdir()
    clone.root = clone.root.rename(tmp_path / "zoo" / "inside")
    git(tmp_path / "zoo", "init")
    (good, bad) = (clone.commit("one"), clone.commit("two"))
    assert clone.sh("zoo-bench run && zoo-bench accept --why 'a model'").returncode == 0
    done = clone.sh(f"cd tools && python find_commit.py {good} {bad} {CELL} --profile quick --metric box_ap")
    assert "does not differ by what matters" in done.stderr, done.stdout + done.stderr
    done = clone.sh(f"cd .. && python inside/tools/find_commit.py {good} {bad} {CELL} --profile quick")
    assert done.returncode == 2
    assert "there is no matrix.yaml here" in done.stderr


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


@pytest.mark.parametrize(
    ("words", "said"),
    [("nope HEAD", "nope: git knows no such commit"), ("HEAD HEAD --metric mask_ap", "finds no masks")],
)
def test_a_search_that_could_find_nothing_is_refused(clone: Clone, words: str, said: str) -> None:
    done = clone.sh(f"python tools/find_commit.py --profile quick {words} {CELL}")
    assert done.returncode == 2
    assert said in done.stderr


def test_a_search_among_committed_results_ends_too(clone: Clone) -> None:
    assert clone.sh("zoo-bench run && zoo-bench accept --why 'a model'").returncode == 0
    git(clone.root, "add", "--force", "results/baselines", f"results/{CELL}")
    good = clone.commit("with results")
    assert clone.sh("zoo-bench accept --why 'once more'").returncode == 0
    git(clone.root, "add", "--force", "results/baselines")
    clone.slow_down(3)
    assert clone.sh("zoo-bench accept --why 'not committed'").returncode == 0
    before = git(clone.root, "status", "--porcelain")
    done = clone.sh(f"python tools/find_commit.py {good} HEAD {CELL} --profile quick --runs 3")
    assert "is the first bad commit" in done.stdout, done.stdout + done.stderr
    assert git(clone.root, "status", "--porcelain") == before


def test_a_step_that_breaks_says_nothing_of_its_commit(clone: Clone) -> None:
    assert clone.sh("python tools/find_commit.py --step '{}'").returncode >= 128


def test_results_that_two_machines_push_are_all_kept(clone: Clone, tmp_path: Path) -> None:
    sync = f"tools/sync_results.sh {clone.origin}"
    other = tmp_path / "other"
    shutil.copytree(clone.root, other)
    for root, name in ((clone.root, "a"), (other, "b"), (clone.root, "c"), (other, "d")):
        (root / "results").mkdir(exist_ok=True)
        (root / "results" / f"{name}.json").write_text("{}")
        done = subprocess.run(["bash", "-c", sync], cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert git(clone.origin, "ls-tree", "--name-only", "zoo-results").split() == [
        "a.json",
        "b.json",
        "c.json",
        "d.json",
    ]
    assert (other / "results" / "c.json").is_file()

    (other / "results" / "c.json").unlink()
    assert subprocess.run(["bash", "-c", sync], cwd=other, check=False).returncode == 0
    assert (other / "results" / "c.json").is_file(), "nothing is deleted"

    for root in (clone.root, other):
        (root / "results" / "a.json").write_text(root.name)
    assert clone.sh(sync).returncode == 0
    for _ in range(2):
        done = subprocess.run(["bash", "-c", sync], cwd=other, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "results/a.json" in done.stderr
        assert "hint:" not in done.stderr
        assert (other / "results" / "a.json").read_text() == "other"
    logs = (other / "results" / ".git" / "logs").rglob("*")
    assert not any(str(clone.origin) in file.read_text() for file in logs if file.is_file())


def test_a_machine_is_retired_for_good_and_leftovers_are_not_pushed(clone: Clone) -> None:
    sync = f"tools/sync_results.sh {clone.origin}"
    (clone.root / "results" / "baselines").mkdir(parents=True)
    for name in ("a.json", "b.json", ".b.json.k2j3x"):
        (clone.root / "results" / "baselines" / name).write_text("{}")
    lock = clone.root / "results" / ".git" / "index.lock"
    assert clone.sh(sync).returncode == 0
    git(clone.root / "results", "rm", "--quiet", "baselines/a.json")
    lock.touch()
    assert clone.sh(sync).returncode != 0, "somebody may be at it"
    os.utime(lock, (0, 0))
    assert clone.sh(sync).returncode == 0
    assert git(clone.origin, "ls-tree", "-r", "--name-only", "zoo-results") == "baselines/b.json"


def test_a_new_machine_gets_the_results_of_the_others(clone: Clone) -> None:
    sync = f"tools/sync_results.sh {clone.origin}"
    (clone.root / "results").mkdir()
    (clone.root / "results" / "a.json").write_text("{}")
    assert clone.sh(sync).returncode == 0
    shutil.rmtree(clone.root / "results")
    for _ in range(2):
        done = clone.sh(sync)
        assert done.returncode == 0, done.stderr
        assert (clone.root / "results" / "a.json").read_text() == "{}"


def test_results_may_be_a_worktree_with_settings_of_its_own(clone: Clone, tmp_path: Path) -> None:
    sync = f"tools/sync_results.sh {clone.origin}"
    git(tmp_path, "init", "elsewhere")
    git(tmp_path / "elsewhere", "commit", "--allow-empty", "-m", "nothing")
    git(tmp_path / "elsewhere", "worktree", "add", str(clone.root / "results"))
    for text in ("*.tmp", "*.log"):
        (clone.root / "results" / ".gitignore").write_text(text)
        for _ in range(2):
            done = clone.sh(sync)
            assert (done.returncode, done.stderr) == (0, "")
        assert git(clone.origin, "show", "zoo-results:.gitignore") == text


def test_a_conflict_is_never_pushed(clone: Clone) -> None:
    """One that leaves no mark but itself."""
    sync, results = f"tools/sync_results.sh {clone.origin}", clone.root / "results"
    results.mkdir()
    (results / "a.json").write_text("1")
    assert clone.sh(sync).returncode == 0
    (results / "a.json").write_text("2")
    git(results, "stash")
    (results / "a.json").write_text("3")
    git(results, "commit", "--all", "-m", "three")
    with pytest.raises(subprocess.CalledProcessError):
        git(results, "stash", "pop")
    done = clone.sh(sync)
    assert done.returncode == 1
    assert "in the midst of merging" in done.stderr
    assert git(clone.origin, "show", "zoo-results:a.json") == "1"


def test_syncs_at_once_wait_for_each_other(clone: Clone) -> None:
    (clone.root / "results").mkdir()
    sync = ["bash", "-c", f"tools/sync_results.sh {clone.origin}"]
    assert subprocess.run(sync, cwd=clone.root, check=False).returncode == 0
    for number in range(3):
        (clone.root / "results" / f"{number}.json").write_text("{}")
        several = [subprocess.Popen(sync, cwd=clone.root, stderr=subprocess.PIPE, text=True) for _ in range(3)]
        assert [one.communicate()[1] for one in several] == [""] * 3
    assert len(git(clone.origin, "ls-tree", "--name-only", "zoo-results").split()) == 3


def test_what_somebody_is_merging_in_results_is_left_to_them(clone: Clone, tmp_path: Path) -> None:
    sync = ["bash", "-c", f"tools/sync_results.sh {clone.origin}"]
    other = tmp_path / "other"
    shutil.copytree(clone.root, other)
    for root in (clone.root, other):
        (root / "results").mkdir()
        (root / "results" / "a.json").write_text(root.name)
    assert clone.sh(sync[2]).returncode == 0
    assert subprocess.run(sync, cwd=other, capture_output=True, check=False).returncode == 1
    results = other / "results"
    with pytest.raises(subprocess.CalledProcessError):
        git(results, "pull", "--rebase", str(clone.origin), "zoo-results")
    (results / "a.json").write_text("by hand")
    git(results, "add", "a.json")
    done = subprocess.run(sync, cwd=other, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "in the midst of merging" in done.stderr
    git(results, "-c", "core.editor=true", "rebase", "--continue")
    assert subprocess.run(sync, cwd=other, check=False).returncode == 0
    assert git(clone.origin, "show", "zoo-results:a.json") == "by hand"


def test_records_are_pushed_whatever_git_is_set_to(clone: Clone, tmp_path: Path) -> None:
    (tmp_path / "ignored").write_text("*.json\n")
    hook = tmp_path / "hooks" / "pre-commit"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    settings = f"[core]\nexcludesFile = {tmp_path / 'ignored'}\nhooksPath = {hook.parent}\n[commit]\ngpgSign = true\n"
    (tmp_path / "settings").write_text(settings)
    (clone.root / "results").mkdir()
    (clone.root / "results" / "a.json").write_text("{}")
    done = clone.sh(f"tools/sync_results.sh {clone.origin}", GIT_CONFIG_GLOBAL=str(tmp_path / "settings"))
    assert done.returncode == 0, done.stderr
    assert git(clone.origin, "ls-tree", "--name-only", "zoo-results") == "a.json"


@pytest.mark.parametrize("address", ["https://127.0.0.1:9/zoo.git", "../nowhere.git"])
def test_a_repository_that_cannot_be_read_is_no_new_one(clone: Clone, address: str) -> None:
    done = clone.sh(f"tools/sync_results.sh {address}")
    assert done.returncode == 1
    assert "the repository cannot be read" in done.stderr
    assert clone.sh("tools/sync_results.sh --helf").returncode == 2


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
