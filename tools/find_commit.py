#!/usr/bin/env python3
"""Finds the commit that changed a metric of a cell, with git bisect: each commit is measured on this machine, now.

    .venv/bin/python tools/find_commit.py GOOD BAD CELL [--profile speed] [--metric s_per_iter] [--runs 4]

First BAD and GOOD are measured, in turns. A commit in between is bad when its figure (the median of its runs) is nearer
to BAD's. That is a fairer question than the nightly check's, which must never accuse in vain: here it is known that
something changed. Where the ends do not differ by what matters (`check` in matrix.yaml), nothing is searched.

All of this happens in a worktree of its own, .zoo-bench/bisect: neither the checkout nor results/ is touched. Worker
environments, datasets and the accepted models (for fps and AP) are those of the workspace; sources and matrix are those
of each commit; zoo-bench itself is the one that is installed. A commit on which the cell does not run is skipped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType

import filelock
import psutil

from zoo_bench.cell import expand
from zoo_bench.errors import ConfigError, ZooBenchError, nearest
from zoo_bench.figures import figure
from zoo_bench.load import load_matrix
from zoo_bench.rules import METRICS, RATES, Metric, comparable, rule_of
from zoo_bench.store import read_record

FOUND, NOT_FOUND = 0, 2
# To git bisect run: whatever is above 127 ends the search.
SKIP, ABORT = 125, 255
FEWEST_RUNS = 3
# One run in so many may be far out for a reason of its own.
ODD_ONE_IN = 4
PHASES = {"memory": ["train"], "s_per_iter": ["train"], "fps": ["infer", "--accepted"]}
AP_PHASES = ["evaluate", "--accepted"]


@dataclass(frozen=True)
class Search:
    """What is measured, and between which figures: `good` and `bad`, in base units.

    `root`: the zoo's folder, and `inside`: where in its repository that is. `least`: the smallest change that matters,
    as the nightly check compares values.
    """

    root: str
    inside: str
    cell: str
    profile: str
    metric: Metric
    runs: int
    least: float = 0.0
    good: float = 0.0
    bad: float = 0.0

    @property
    def worktree(self) -> Path:
        """Where commits are checked out."""
        return Path(self.root) / ".zoo-bench" / "bisect"

    @property
    def folder(self) -> Path:
        """The zoo in the worktree."""
        return self.worktree / self.inside

    def is_bad(self, value: float) -> bool:
        """Tell to which end a figure is nearer."""
        return (value > (self.good + self.bad) / 2) == (self.bad > self.good)

    def between(self, good: Sequence[float], bad: Sequence[float]) -> Search | None:
        """Return the search between two ends; None where they are not apart."""
        found = replace(self, good=statistics.median(good), bad=statistics.median(bad))
        wrong = max(sum(not found.is_bad(value) for value in bad), sum(map(found.is_bad, good)))
        change = abs(comparable(self.metric, found.bad) - comparable(self.metric, found.good))
        return found if change >= self.least and wrong <= self.runs // ODD_ONE_IN else None


def main() -> int:
    """Return 0 when a commit was found, 2 when none was; as a step of git bisect what that wants to know."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    if sys.argv[1:2] == ["--step"]:
        try:
            return step(Search(**json.loads(sys.argv[2])))
        except BaseException as error:  # noqa: BLE001 - git takes Python's exit code 1 for "this commit is bad"
            print(f"find_commit: {type(error).__name__}: {error}", file=sys.stderr)
            return ABORT
    told = _arguments()
    try:
        root = zoo()
        return search(root, commit_called(told.good, root), commit_called(told.bad, root), told)
    except ZooBenchError as error:
        print("; ".join(filter(None, (f"find_commit: {error.message}", error.hint))), file=sys.stderr)
        return NOT_FOUND
    except (subprocess.SubprocessError, OSError, filelock.Timeout) as error:
        print(f"find_commit: {error}", file=sys.stderr)
        return NOT_FOUND
    except KeyboardInterrupt:
        print("find_commit: interrupted", file=sys.stderr)
        return 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("good", metavar="GOOD", help="a commit before the change")
    parser.add_argument("bad", metavar="BAD", help="a commit after it")
    parser.add_argument("cell", metavar="CELL", help="the id of a cell: backend/name")
    parser.add_argument("--profile", default="speed")
    parser.add_argument("--metric", default="s_per_iter", choices=METRICS)
    parser.add_argument("--runs", type=int, default=4, help="of each commit, 3 at least; AP needs one (default 4)")
    told = parser.parse_args()
    if told.metric not in RATES:
        told.runs = 1
    elif told.runs < FEWEST_RUNS:
        parser.error(f"--runs {told.runs}: of fewer than {FEWEST_RUNS} nobody knows which is the odd one")
    return told


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise KeyboardInterrupt


def zoo() -> Path:
    """Return the folder of the zoo that this is called in. Raises ConfigError where it is in none."""
    here, top = Path.cwd().resolve(), Path(git(Path.cwd(), "rev-parse", "--show-toplevel"))
    for folder in (here, *here.parents):
        if (folder / "matrix.yaml").is_file():
            return folder
        if folder == top:
            break
    raise ConfigError("there is no matrix.yaml here, nor above", "call it in the folder of a zoo")


def commit_called(word: str, root: Path) -> str:
    """Return the commit that a word means to git. Raises ConfigError where there is none."""
    try:
        return git(root, "rev-parse", "--verify", "--quiet", f"{word}^{{commit}}")
    except subprocess.SubprocessError:
        raise ConfigError(f"{word}: git knows no such commit", "git log --oneline names them") from None


def search(root: Path, good: str, bad: str, told: argparse.Namespace) -> int:
    """Make the worktree, search in it, and take it away again, however that ends."""
    matrix = load_matrix(root / "matrix.yaml")
    cells = {cell.id: cell for cell in expand(matrix, told.profile)}
    if told.cell not in cells:
        raise ConfigError(f"{told.cell}: profile {told.profile} has no such cell", nearest(told.cell, list(cells)))
    if told.metric == "mask_ap" and not cells[told.cell].masks:
        raise ConfigError(f"{told.cell} finds no masks, and has no mask AP", "--metric box_ap")
    if good == bad or git(root, "merge-base", good, bad) != good:
        raise ConfigError(f"{told.good} does not come before {told.bad}", "name the good commit first")
    rule = rule_of(told.metric, matrix.check, same_model=told.metric not in RATES)
    inside = git(root, "rev-parse", "--show-prefix")
    asked = Search(str(root), inside, told.cell, told.profile, told.metric, told.runs, rule.least)
    asked.worktree.parent.mkdir(exist_ok=True)
    with filelock.FileLock(asked.worktree.with_suffix(".lock"), timeout=0):
        remove(asked)  # what a search left that was killed
        git(root, "worktree", "add", "--force", "--detach", str(asked.worktree), bad)
        try:
            return find(asked, good, bad)
        finally:
            remove(asked)


def remove(asked: Search) -> None:
    """Take the worktree away, where there is one."""
    shutil.rmtree(asked.worktree, ignore_errors=True)
    git(Path(asked.root), "worktree", "prune")


def find(asked: Search, good: str, bad: str) -> int:
    """Measure both ends, and have git look between them."""
    ends: dict[str, list[float]] = {bad: [], good: []}
    for _ in range(asked.runs):
        for commit, found in ends.items():
            git(asked.worktree, "checkout", "--quiet", "--detach", commit)
            found += figures(asked, 1)
    for commit, found in ends.items():
        if not enough(found, asked.runs):
            print(f"find_commit: {asked.cell} cannot be measured on {commit}", file=sys.stderr)
            return NOT_FOUND
        what = "bad" if commit == bad else "good"
        print(f"find_commit: {commit} ({what}): {asked.metric} {statistics.median(found):.6g}", flush=True)
    between = asked.between(ends[good], ends[bad])
    if between is None:
        print(f"find_commit: here and now {asked.metric} of the two does not differ by what matters", file=sys.stderr)
        return NOT_FOUND
    git(asked.worktree, "bisect", "start", bad, good, "--")
    command = [sys.executable, str(Path(__file__).resolve()), "--step", json.dumps(asdict(between))]
    return NOT_FOUND if call(["git", "bisect", "run", *command], asked.worktree) else FOUND


def step(asked: Search) -> int:
    """Judge the commit that is checked out, as `git bisect run` wants it: 0 good, 1 bad, 125 skipped."""
    found = figures(asked, asked.runs)
    if not enough(found, asked.runs):
        return SKIP
    value = statistics.median(found)
    bad = asked.is_bad(value)
    ends = f"{asked.good:.6g} is good, {asked.bad:.6g} bad"
    print(f"find_commit: {asked.metric} {value:.6g}: {'bad' if bad else 'good'} ({ends})", flush=True)
    return int(bad)


def enough(found: Sequence[float], runs: int) -> bool:
    """Tell whether most runs gave a figure."""
    return len(found) > runs // 2


def figures(asked: Search, runs: int) -> list[float]:
    """Run the cell on the commit that is checked out; what its runs give, of those that nothing has spoiled."""
    folder = asked.folder / "results" / asked.cell
    if not (asked.folder / "matrix.yaml").is_file():
        return []
    options = ["--profile", asked.profile, "--select", asked.cell, "--force", "--no-trial", "--phases"]
    command = [sys.executable, "-m", "zoo_bench", "run", *options, *PHASES.get(asked.metric, AP_PHASES)]
    found = []
    with shared(asked):
        for _ in range(runs):
            before = set(folder.glob("*.json"))
            call(command, asked.folder)
            for file in sorted(set(folder.glob("*.json")) - before)[-1:]:
                record = read_record(file)
                value = figure(asked.metric, record).value
                if value is not None and record.status == "succeeded" and not (record.noise and asked.metric in RATES):
                    found.append(value)
    return found


@contextlib.contextmanager
def shared(asked: Search) -> Iterator[None]:
    """Let the worktree have what git does not: environments, datasets, what was accepted, and its models.

    Afterwards it holds what its commit holds, so that the next one can be checked out.
    """
    root, results = Path(asked.root), asked.folder / "results"
    for path in (*root.glob("machine.yaml"), *root.glob("data"), *(root / ".zoo-bench").iterdir()):
        if path != asked.worktree and (path.is_dir() or path.parent == root):
            link(asked.folder / path.relative_to(root), path)
    shutil.rmtree(results, ignore_errors=True)
    for folder in ("baselines", asked.cell):
        if (root / "results" / folder).is_dir():
            shutil.copytree(root / "results" / folder, results / folder)
    for file in (results / asked.cell).glob("*.json"):
        with contextlib.suppress(ZooBenchError):  # a damaged record has no model
            checkpoint = read_record(file).checkpoint
            if checkpoint is not None and (root / checkpoint.file).is_file():
                link(asked.folder / checkpoint.file, root / checkpoint.file)
    try:
        yield
    finally:
        shutil.rmtree(results, ignore_errors=True)
        git(asked.worktree, "checkout", "--quiet", "--force", "HEAD")


def link(path: Path, to: Path) -> None:
    """Make a link, where nothing is yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(path):
        path.symlink_to(to)


def call(command: Sequence[str], folder: Path) -> int:
    """Run a command in a session of its own, and end all of it where this is ended: git does not pass that on."""
    with subprocess.Popen(command, cwd=folder, start_new_session=True) as process:
        try:
            return process.wait()
        except BaseException:
            family = psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, signal.SIGINT)
            process.wait()
            psutil.wait_procs(family)  # git does not wait for what it has started
            raise


def git(folder: Path, *words: str) -> str:
    """Return what git prints. Raises SubprocessError, with git's own words."""
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise subprocess.SubprocessError(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
