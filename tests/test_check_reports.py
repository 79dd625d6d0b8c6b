"""Where the verdicts of `zoo-bench check` go, and what cannot be said there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from xml.etree import ElementTree

from conftest import Zoo
from nights import MASK, RETINANET, Nightly, add, commit, findings, first, night

from zoo_bench.measurements import Measurements
from zoo_bench.revision import Revision


def test_every_report_says_what_to_run_and_junit_tells_all(nightly: Nightly) -> None:
    zoo = nightly()
    nothing = {"phases_done": (), "measurements": Measurements()}
    broken = night(first(zoo, MASK), 31, status="failed", reason="it broke", **nothing)
    add(zoo, broken, night(first(zoo, RETINANET), 31, slower=0.8))
    page, xml = zoo.root / "page.md", zoo.root / "check.xml"
    done = zoo.call("check", "--markdown", str(page), "--junit", str(xml), "--github")
    assert done.returncode == 1
    command = f"zoo-bench run --profile quick --select {MASK} --phases train,infer,evaluate --force"
    assert done.stdout.count(f"again: {command}") == 2, "once in the terminal, once for GitHub"
    assert page.read_text().count(command) == 1
    (annotation,) = [line for line in done.stdout.splitlines() if line.startswith("::error")]
    assert "Host mem (GB), s/iter, fps, box AP, mask AP" in annotation
    suite = ElementTree.parse(xml).getroot()
    cases = {(case.get("classname"), case.get("name")): "".join(case.itertext()) for case in suite.iter("testcase")}
    assert len(cases) == 9
    for (_, metric), text in cases.items():
        assert f"{metric}: " in text
        assert "again: zoo-bench run" in text


def test_every_kind_of_report_tells_the_same(nightly: Nightly) -> None:
    zoo = nightly()
    add(zoo, night(first(zoo, MASK), 31, slower=1.2))
    page, xml = zoo.root / "summary.md", zoo.root / "check.xml"
    page.write_text("# Another step\n")
    done = zoo.call("check", "--markdown", str(page), "--junit", str(xml), "--github")
    assert done.returncode == 3
    (annotation,) = [line for line in done.stdout.splitlines() if line.startswith("::error")]
    text = page.read_text()
    suite = ElementTree.parse(xml).getroot()
    (failure,) = suite.iter("failure")
    for said in (annotation, text, failure.get("message", "")):
        assert "mask-rcnn_r50_fpn_1x_shapes" in said
        assert "s/iter" in said
        assert "+20" in said or "+19" in said
        assert commit(31)[:12] in said
    assert text.startswith("# Another step\n"), "a summary is added to"
    assert "1 regressed, 8 unchanged" in text
    assert suite.get("tests") == "9"
    assert suite.get("failures") == "1"
    assert f"--select {MASK}" in annotation


def test_a_report_that_cannot_be_written_hides_nothing(nightly: Nightly) -> None:
    zoo = nightly()
    add(zoo, night(first(zoo, MASK), 31, slower=1.2))
    done = zoo.call("check", "--json", "nowhere/check.json")
    assert done.returncode == 2
    assert "nowhere/check.json: cannot be written" in done.stderr
    full = zoo.call("check", "--markdown", "/dev/full")
    assert full.returncode == 3
    assert "regressed" in full.stdout
    assert "/dev/full: cannot be written" in full.stderr
    add(zoo, night(first(zoo, MASK), 32))
    assert zoo.call("check", "--markdown", "/dev/full").returncode == 2


def test_what_a_record_says_begins_no_line_and_commands_nothing(nightly: Nightly) -> None:
    zoo = nightly()
    add(zoo, night(first(zoo, MASK), 31, slower=1.2, software={"python": "3.99\n::error::not ours"}))
    done = zoo.call("check", "--github")
    lines = done.stdout.splitlines()
    assert not any(line.lstrip().startswith("::error::not ours") for line in lines)
    (begin,) = [place for place, line in enumerate(lines) if line.startswith("::stop-commands::")]
    end = lines.index(f"::{lines[begin].rpartition('::')[2]}::")
    said = [place for place, line in enumerate(lines) if "not ours" in line]
    (annotation,) = [place for place, line in enumerate(lines) if line.startswith("::error title")]
    assert annotation > end
    assert all(begin < place < end or place == annotation for place in said)


def test_what_nobody_could_read_is_no_success(nightly: Nightly) -> None:
    zoo = nightly(1)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            zoo.command("check"), cwd=zoo.root, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert "stdout cannot be written" in done.stderr


def test_names_of_files_and_machines_begin_no_line(nightly: Nightly) -> None:
    zoo = nightly(1)
    (zoo.root / "results" / RETINANET / "a\n::error::name.json").write_text("{}")
    done = zoo.call("check", "--github")
    assert done.stdout.startswith("::stop-commands::")
    assert not any(line.startswith("::error") for line in done.stderr.splitlines())
    (file,) = (zoo.root / "results" / "baselines").glob("*.json")
    kept = json.loads(file.read_text())
    kept["machine"][1] = "a CPU\n::error::machine"
    file.write_text(json.dumps(kept))
    done = zoo.call("check", "--github")
    assert done.returncode == 2
    assert not any(line.startswith("::error") for line in done.stderr.splitlines())


def test_why_a_cell_failed_is_said_with_its_log(nightly: Nightly) -> None:
    zoo = nightly(1)
    nothing = {
        "phases_done": (),
        "measurements": Measurements(),
        "status": "failed",
        "reason": "CUDA out of\n::error::x",
    }
    failed = night(first(zoo, MASK), 2, **nothing)
    add(zoo, failed)
    page = zoo.root / "page.md"
    done = zoo.call("check", "--select", MASK, "--markdown", str(page), "--github")
    assert done.returncode == 1
    for text in (done.stdout, page.read_text()):
        assert f"failed in run {failed.run_id}: CUDA out of" in " ".join(text.split())
        assert f"; log: {failed.files['log']}" in text
    assert not any(line.startswith("::error::x") for line in done.stdout.splitlines())


def test_what_can_be_compared_with_nothing_is_to_be_accepted(finished: Zoo) -> None:
    done = finished.call("check", "--select", MASK, "--github")
    assert done.returncode == 4
    told = [line for line in done.stdout.splitlines() if "to accept it: " in line]
    assert len(told) == 2, "in the terminal, and for GitHub"
    command = shlex.split(told[0].partition("to accept it: ")[2])
    assert command[:2] == ["zoo-bench", "accept"]
    assert "after --why" in finished.call(*command[1:]).stderr, "but for the reason it can be called as it is"


def test_changes_beside_a_commit_are_told_from_the_commit(nightly: Nightly) -> None:
    zoo = nightly()
    dirty = Revision(commit=commit(30), dirty=True)
    add(zoo, night(first(zoo, MASK), 31, slower=1.2, revision=dirty), night(first(zoo, RETINANET), 31))
    same = commit(30)[:12]
    assert f"since commit {same} with changes (last good: {same})" in " ".join(zoo.call("check").stdout.split())


def test_how_it_moved_is_told_of_the_run_in_the_middle(nightly: Nightly) -> None:
    zoo = nightly()
    add(zoo, *(night(first(zoo, MASK), 31 + more / 100, slower=slower) for more, slower in enumerate((1.0, 1.2, 1.21))))
    _, found = findings(zoo, "--select", MASK)
    assert found[MASK, "s_per_iter"]["moved"].startswith("iterations: the fast tenth +20")


def test_figures_that_differ_are_not_printed_alike(nightly: Nightly) -> None:
    zoo = nightly()
    record = night(first(zoo, MASK), 31)
    memory = record.measurements.memory
    assert memory is not None
    assert memory.host_bytes is not None
    more = memory.model_copy(update={"host_bytes": int(memory.host_bytes * 1.03)})
    add(zoo, record.model_copy(update={"measurements": record.measurements.model_copy(update={"memory": more})}))
    told = zoo.call("check", "--select", MASK).stdout
    (line,) = [line for line in told.splitlines() if "regressed" in line and "GB" in line]
    before, after = re.findall(r"\d\.\d+", line)[:2]
    assert before != after
