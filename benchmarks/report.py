"""How long `zoo-bench report` takes for 300 cells with 10,000 runs, how much memory, and how large its pages are.

The first call writes every page, the second none, the third those that a new run of one cell changes. The cells of four
runs have the files that charts are drawn from. Exits with 1 when a limit is missed: 60 s, 1 GB, 2 MB a page.

    python benchmarks/report.py [RECORDS]
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from store import fill, measured
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from conftest import Zoo

RECORDS = 10_000
MOST_S, MOST_BYTES, MOST_PAGE_BYTES = 60.0, 10**9, 2 * 10**6
MOST_PAGES_OF_ONE_RUN = 4  # its cell's, and the three that speak of all


def add_run(zoo: Zoo) -> None:
    """Copy the newest run of a cell once more, a minute later."""
    newest = max(zoo.root.glob("results/fake/*/*.json"), key=lambda path: path.name)
    record = json.loads(newest.read_text())
    record["started_unix_s"] += 60.0
    record["run_id"] = newest.stem[:-4] + "ffff"
    newest.with_name(f"{record['run_id']}.json").write_text(json.dumps(record))


def changed(before: dict[Path, int], site: Path) -> int:
    """How many pages have been written since."""
    return sum(before.get(page) != page.stat().st_mtime_ns for page in site.rglob("*.html"))


def main(arguments: list[str]) -> int:
    """Measure, print a table, judge."""
    count = int(arguments[0]) if arguments else RECORDS
    lines, good = [], True
    with tempfile.TemporaryDirectory() as folder:
        zoo, site = Zoo(Path(folder)), Path(folder) / "site"
        fill(zoo, count)
        assert zoo.call("status").returncode == 0  # the index
        for what, most in (("all", None), ("nothing new", 0), ("one run more", MOST_PAGES_OF_ONE_RUN)):
            if what == "one run more":
                add_run(zoo)
            before = {page: page.stat().st_mtime_ns for page in site.rglob("*.html")}
            took_s, peak = measured(zoo, ("report", "-o", str(site)))
            pages, largest = changed(before, site), max(page.stat().st_size for page in site.rglob("*.html"))
            lines.append([what, pages, f"{took_s:.1f}", f"{peak / 1e6:.0f}", f"{largest / 1e6:.2f}"])
            good = good and took_s <= MOST_S and peak <= MOST_BYTES and largest <= MOST_PAGE_BYTES
            good = good and (most is None or pages <= most)
        shutil.rmtree(site)
    heads = [
        "",
        "pages",
        f"s (at most {MOST_S:.0f})",
        f"MB (at most {MOST_BYTES / 1e6:.0f})",
        "largest page, MB (at most 2)",
    ]
    print(f"{count:,} runs of 300 cells")
    print(tabulate(lines, headers=heads, tablefmt="pipe", disable_numparse=True))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
