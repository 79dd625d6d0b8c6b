"""tools/sync_results.sh: results/ and its branch, whatever state they are in."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from clones import Clone, git


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
