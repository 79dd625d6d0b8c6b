"""How long the verbs that read the store take when it is large, and how much memory.

Records are made from those of real runs of the fake backend: many runs of 300 cells, each with a time of its own and
the AP of COCO's classes. The second of two calls counts, since the first one finds files in no cache, and makes the
index; what that first call takes is told too. Exits with 1 when a limit is missed at 10,000 records.

    python benchmarks/store.py [RECORDS ...]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from conftest import Zoo

SIZES = (1_000, 10_000, 100_000)
JUDGED, MOST_S, MOST_BYTES = 10_000, 2.0, 300 * 10**6
VERBS = (("render",), ("status",), ("plan",), ("check",))
SAID_BY_CHECK = (0, 3)  # figures here are made up
COCO_CLASSES = 80
DETECTORS = ["faster-rcnn_c4", "faster-rcnn_fpn", "mask-rcnn_fpn", "retinanet_fpn"]


def fill(zoo: Zoo, count: int) -> None:
    """Run one cell of each detector, and copy its record to `count` runs of the 300 cells of the matrix."""
    zoo.change({"axes": {"detector": DETECTORS, "backbone": ["r50"]}})
    assert zoo.call("run").returncode == 0
    templates = [record.model_dump(mode="json") for record in zoo.records]
    schedules = [f"s{number}" for number in range(75)]
    zoo.change({"schedules": {name: {"set": {"iterations": 30, "milestones": [20]}} for name in schedules}})
    zoo.change({"axes": {"schedule": schedules}})
    results = zoo.root / "results"
    for number in range(count):
        if number == count // 2:  # half of the runs are then nights since
            assert zoo.call("accept", "--why", "to have something to compare with").returncode == 0
        record = json.loads(json.dumps(templates[number % len(templates)]))
        schedule = schedules[number // len(templates) % len(schedules)]
        record["cell_id"] = record["cell_id"].replace("_1x_", f"_{schedule}_")
        record["cell"] |= {"schedule": schedule, "id": record["cell_id"]}
        record["started_unix_s"] += 60.0 * number
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(record["started_unix_s"]))
        record["run_id"] = f"{stamp}.000Z-{number % 65536:04x}"
        record["measurements"]["train"]["mean_s"] *= 1 + number % 7 / 1000
        for scores in (record["measurements"]["scores"]["box"], record["measurements"]["scores"]["mask"]):
            if scores is not None:
                scores["per_class"] = {f"class {category}": scores["ap"] for category in range(COCO_CLASSES)}
        folder = results / record["cell_id"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{record['run_id']}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def measured(zoo: Zoo, verb: tuple[str, ...]) -> tuple[float, int]:
    """Seconds and peak resident bytes of a call."""
    started_s = time.perf_counter()
    process = subprocess.Popen(zoo.command(*verb), cwd=zoo.root, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took_s = time.perf_counter() - started_s
    code = os.waitstatus_to_exitcode(status)
    assert code == 0 or (verb == ("check",) and code in SAID_BY_CHECK), code
    return took_s, usage.ru_maxrss * 1024


def main(arguments: list[str]) -> int:
    """Measure, print a table, judge."""
    good, lines = True, []
    for count in [int(word) for word in arguments] or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            zoo = Zoo(Path(folder))
            fill(zoo, count)
            for verb in VERBS:
                (zoo.root / ".zoo-bench" / "records.json").unlink(missing_ok=True)
                without_s, _ = measured(zoo, verb)
                took_s, peak = measured(zoo, verb)
                lines.append([f"{count:,}", " ".join(verb), f"{without_s:.2f}", f"{took_s:.2f}", f"{peak / 1e6:.0f}"])
                good = good and (count != JUDGED or (took_s <= MOST_S and peak <= MOST_BYTES))
    heads = [
        "records",
        "verb",
        "s without an index",
        f"s (at most {MOST_S} at {JUDGED:,})",
        f"MB (at most {MOST_BYTES / 1e6:.0f})",
    ]
    print(tabulate(lines, headers=heads, tablefmt="pipe", disable_numparse=True))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
