#!/usr/bin/env python3
"""Finds the commit that changed a metric of a cell, with git bisect: each commit is measured on this machine, now.

    .venv/bin/python tools/find_commit.py GOOD BAD CELL [--profile speed] [--metric s_per_iter] [--runs 5]

First BAD and GOOD are measured. A commit in between is bad when its figure (the median of its runs) is nearer to BAD's.
That is a fairer question than the nightly check's, which must never accuse in vain: of a change that stands it is known
that it is there. Where the runs of GOOD and BAD cannot be told apart, nothing is searched.

All of this happens in a worktree of its own, .zoo-bench/bisect: neither the checkout nor results/ is touched. Worker
environments, datasets and the accepted models (for fps and AP) are those of the workspace; sources and matrix are those
of each commit; zoo-bench itself is the one that is installed. A commit on which the cell does not run is skipped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from zoo_bench.figures import figure
from zoo_bench.rules import METRICS, RATES, Metric
from zoo_bench.store import read_record

# One run in so many may be far out for a reason of its own.
ODD_ONE_IN = 5
SKIP, FAILED = 125, 2
PHASES = {"memory": ["train"], "s_per_iter": ["train"], "fps": ["infer", "--accepted"]}
AP_PHASES = ["evaluate", "--accepted"]


@dataclass(frozen=True)
class Search:
    """What is measured, where, and between which figures; `good` and `bad` in base units."""

    worktree: str
    cell: str
    profile: str
    metric: Metric
    runs: int
    good: float = 0.0
    bad: float = 0.0

    @property
    def middle(self) -> float:
        """What is beyond this is bad."""
        return (self.good + self.bad) / 2

    def is_bad(self, value: float) -> bool:
        """Tell on which side a figure is."""
        return (value > self.middle) == (self.bad > self.good)

    def are_apart(self, good: Sequence[float], bad: Sequence[float]) -> bool:
        """Tell whether the runs of both ends lie on their own sides of the middle, but for odd ones."""
        wrong = (sum(not self.is_bad(value) for value in bad), sum(map(self.is_bad, good)))
        return self.bad != self.good and max(wrong) <= self.runs // ODD_ONE_IN


def main() -> int:
    """Return 0 when a commit was found, else 2; as a step of git bisect what that wants to know."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("good", metavar="GOOD", help="a commit before the change")
    parser.add_argument("bad", metavar="BAD", help="a commit after it")
    parser.add_argument("cell", metavar="CELL", help="the id of a cell")
    parser.add_argument("--profile", default="speed")
    parser.add_argument("--metric", default="s_per_iter", choices=METRICS)
    parser.add_argument("--runs", type=int, default=5, help="of each commit; AP needs one (default 5)")
    if sys.argv[1:2] == ["--step"]:
        return step(Search(**json.loads(sys.argv[2])))
    told = parser.parse_args()
    root = Path(git(Path.cwd(), "rev-parse", "--show-toplevel"))
    worktree = root / ".zoo-bench" / "bisect"
    runs = told.runs if told.metric in RATES else 1
    search = Search(str(worktree), told.cell, told.profile, told.metric, runs)
    git(root, "worktree", "prune")
    git(root, "worktree", "add", "--force", "--detach", str(worktree), told.bad)
    try:
        share(root, worktree, told.cell)
        return find(search, told.good, told.bad)
    finally:
        git(root, "worktree", "remove", "--force", str(worktree))


def share(root: Path, worktree: Path, cell: str) -> None:
    """Let the worktree have what git does not: environments, datasets, what was accepted, and its models."""
    for path in (*root.glob("machine.yaml"), *root.glob("data"), *(root / ".zoo-bench").iterdir()):
        if path != worktree and (path.is_dir() or path.parent == root):
            link(worktree / path.relative_to(root), path)
    results = worktree / "results"
    for folder in ("baselines", cell):
        if (root / "results" / folder).is_dir():
            shutil.copytree(root / "results" / folder, results / folder, dirs_exist_ok=True)
    for file in (results / cell).glob("*.json"):
        checkpoint = read_record(file).checkpoint
        if checkpoint is not None and (root / checkpoint.file).is_file():
            link(worktree / checkpoint.file, root / checkpoint.file)


def link(path: Path, to: Path) -> None:
    """Make a link, where nothing is yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.symlink_to(to)


def find(search: Search, good: str, bad: str) -> int:
    """Measure both ends, and have git look between them."""
    ends: list[list[float]] = []
    for what, commit in (("bad", bad), ("good", good)):
        git(Path(search.worktree), "checkout", "--quiet", "--detach", commit)
        ends.append(list(figures(search)))
        if not enough(ends[-1], search.runs):
            print(f"find_commit: {search.cell} cannot be measured on {commit}, the {what} commit", file=sys.stderr)
            return FAILED
        print(f"find_commit: {commit} ({what}): {search.metric} {statistics.median(ends[-1]):.6g}")
    search = Search(**{**asdict(search), "bad": statistics.median(ends[0]), "good": statistics.median(ends[1])})
    if not search.are_apart(ends[1], ends[0]):
        print(
            "find_commit: the runs of the two commits cannot be told apart here and now: nothing to search",
            file=sys.stderr,
        )
        return FAILED
    git(Path(search.worktree), "bisect", "start", bad, good)
    command = [sys.executable, str(Path(__file__).resolve()), "--step", json.dumps(asdict(search))]
    done = subprocess.run(["git", "-C", search.worktree, "bisect", "run", *command], check=False)
    return FAILED if done.returncode else 0


def step(search: Search) -> int:
    """Judge the commit that is checked out, as `git bisect run` wants it: 0 good, 1 bad, 125 skipped."""
    found = list(figures(search))
    if not enough(found, search.runs):
        return SKIP
    value = statistics.median(found)
    bad = search.is_bad(value)
    print(
        f"find_commit: {search.metric} {value:.6g}: {'bad' if bad else 'good'} ({search.good:.6g} to {search.bad:.6g})"
    )
    return int(bad)


def enough(found: Sequence[float], runs: int) -> bool:
    """Tell whether most runs gave a figure."""
    return len(found) > runs // 2


def figures(search: Search) -> Iterator[float]:
    """Run the cell as often as asked for; what its runs give, of those that nothing has spoiled."""
    folder = Path(search.worktree) / "results" / search.cell
    for _ in range(search.runs):
        before = set(folder.glob("*.json"))
        options = ["--profile", search.profile, "--select", search.cell, "--force", "--no-trial", "--phases"]
        command = [sys.executable, "-m", "zoo_bench", "run", *options, *PHASES.get(search.metric, AP_PHASES)]
        done = subprocess.run(command, cwd=search.worktree, check=False)
        if done.returncode >= 128:  # Ctrl-C ends all of it
            raise SystemExit(done.returncode)
        for file in sorted(set(folder.glob("*.json")) - before)[-1:]:
            record = read_record(file)
            value = figure(search.metric, record).value
            if value is not None and record.status == "succeeded" and not (record.noise and search.metric in RATES):
                yield value


def git(folder: Path, *words: str) -> str:
    """Return what git prints. Ends the program with git's own words where it fails."""
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"find_commit: git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
