"""How long does it take to score what was detected on 5,000 images, 100 detections on each, and how much memory?

Two files are made, as workers write them: boxes, and boxes with masks, of which both are scored. Each is scored in a
process of its own. Prints the seconds until the file is read and checked, those of the scoring, and the largest memory
of the process (median of the runs); then, on fewer images, the same beside pycocotools, and by how much the scores
differ. Exits with 1 where a limit is missed (boxes 2 s, masks 5 s, 1 GB), or the scores are not the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

PER_IMAGE = 100
LIMITS_S = {"boxes": 2.0, "masks": 5.0}
LIMIT_BYTES = 10**9
LARGEST_DIFFERENCE = 1e-9
HEADERS = ["scored", "scorer", "detections", "file MB", "read, check s", "score s", "total s", "limit s", "peak MB"]


def main() -> int:
    """Print the tables; 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--images-of-both", type=int, default=500, help="to score with pycocotools too")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--score", nargs=3, metavar=("FOLDER", "SHAPE", "SCORER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.score:
        print(json.dumps(scored(Path(options.score[0]), *options.score[1:])))
        return 0
    with tempfile.TemporaryDirectory() as name:
        large, small = Path(name) / "large", Path(name) / "small"
        make_files(large, options.images)
        make_files(small, options.images_of_both)
        passed = [limits_are_held(large, options.runs), scores_are_equal(small)]
    return 0 if all(passed) else 1


def make_files(folder: Path, images: int) -> None:
    """Write the annotation file and both files of detections."""
    from coco_like import detections, make_things, write_truth

    from models.detections import DetectionsWriter

    folder.mkdir()
    things = make_things(images)
    write_truth(things, folder / "truth.json")
    for shape in LIMITS_S:
        with DetectionsWriter(folder / f"{shape}.json") as writer:
            for found in detections(things, PER_IMAGE, masks=shape == "masks"):
                writer.add(found)


def limits_are_held(folder: Path, runs: int) -> bool:
    """Score both files by hotcoco and print the table."""
    rows, passed = [], True
    for shape, limit_s in LIMITS_S.items():
        results = [in_own_process(folder, shape, "hotcoco") for _ in range(runs)]
        middle = {name: statistics.median(result[name] for result in results) for name in ("read_s", "total_s", "peak")}
        passed = passed and middle["total_s"] < limit_s and middle["peak"] < LIMIT_BYTES
        rows.append(row(folder, shape, "hotcoco", {**results[0], **middle}, f"{limit_s:g}"))
    print(tabulate(rows, HEADERS, tablefmt="pipe", disable_numparse=True))
    print(f"limit of the memory: {LIMIT_BYTES / 1e6:.0f} MB\n")
    return passed


def scores_are_equal(folder: Path) -> bool:
    """Score both files by hotcoco and by pycocotools, and print the table and how much they differ."""
    rows, differences = [], {}
    for shape in LIMITS_S:
        ours, theirs = (in_own_process(folder, shape, scorer) for scorer in ("hotcoco", "pycocotools"))
        rows += [row(folder, shape, scorer, found) for scorer, found in (("hotcoco", ours), ("pycocotools", theirs))]
        pairs = zip(ours["values"], theirs["values"], strict=True)
        differences[shape] = max(abs(one - other) for one, other in pairs)
    print(tabulate(rows, HEADERS, tablefmt="pipe", disable_numparse=True))
    for shape, difference in differences.items():
        print(f"largest difference between the scorers, {shape}: {difference:.1e} (limit {LARGEST_DIFFERENCE:g})")
    return max(differences.values()) <= LARGEST_DIFFERENCE


def row(folder: Path, shape: str, scorer: str, found: dict[str, Any], limit: str = "") -> list[str]:
    """Format what a process told."""
    scored_shapes = "boxes and masks" if shape == "masks" else "boxes"
    size = (folder / f"{shape}.json").stat().st_size
    seconds = [found["read_s"], found["total_s"] - found["read_s"], found["total_s"]]
    numbers = [f"{found['detections']:,}", f"{size / 1e6:.0f}", *(f"{value:.2f}" for value in seconds), limit]
    return [scored_shapes, scorer, *numbers, f"{found['peak'] / 1e6:.0f}"]


def in_own_process(folder: Path, shape: str, scorer: str) -> dict[str, Any]:
    """Score in a fresh Python, with nothing imported."""
    command = [sys.executable, __file__, "--score", str(folder), shape, scorer]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def scored(folder: Path, shape: str, scorer: str) -> dict[str, Any]:
    """Score one file here. The imports are part of the total, as they are of the first evaluation of a run."""
    started = time.perf_counter()
    from zoo_bench import detections, evaluate

    spent: list[float] = []
    evaluate.read_ground_truth = timed(evaluate.read_ground_truth, spent)
    detections.read_detections = timed(detections.read_detections, spent)
    scores = evaluate.score(folder / "truth.json", folder / f"{shape}.json", masks=shape == "masks", scorer=scorer)
    total_s = time.perf_counter() - started
    return {
        "detections": scores.detections,
        "read_s": sum(spent),
        "total_s": total_s,
        "peak": peak_bytes(),
        "values": [value for metrics in (scores.box, scores.mask) if metrics for value in values(asdict(metrics))],
    }


def timed(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """Return the function, which adds the seconds of each call to a list."""

    def call(*arguments: Any) -> Any:
        started = time.perf_counter()
        result = function(*arguments)
        spent.append(time.perf_counter() - started)
        return result

    return call


def values(metrics: dict[str, Any]) -> list[float]:
    """Return the 12 numbers and the AP of each category, -1 where there is none."""
    found = [*metrics.pop("per_class").values(), *metrics.values()]
    return [-1.0 if value is None else value for value in found]


def peak_bytes() -> int:
    """Return the largest resident memory of this process, without that of the one that started it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
