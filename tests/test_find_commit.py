"""tools/find_commit.py: what a search measures, refuses and leaves behind; one that finds is in test_nightly.py."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from clones import CELL, Clone, git
from test_surroundings import wait_for


def test_nothing_is_searched_between_commits_that_cannot_be_told_apart(clone: Clone) -> None:
    assert clone.sh("zoo-bench run && zoo-bench accept --why 'a model'").returncode == 0
    good, bad = git(clone.root, "rev-parse", "HEAD"), clone.commit("harmless")
    for metric in ("fps", "box_ap"):
        done = clone.sh(f"python tools/find_commit.py {good} {bad} {CELL} --profile quick --runs 3 --metric {metric}")
        assert f"{bad} (bad): {metric} " in done.stdout, done.stdout + done.stderr
    assert done.returncode == 2
    assert "does not differ by what matters" in done.stderr, "the AP of a model is the same to the last digit"


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
