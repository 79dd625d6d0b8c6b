"""`show`: from a row's figures to the runs behind them."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from conftest import Zoo
from records import changed, with_measurements

from zoo_bench.measurements import InferTiming, Interval
from zoo_bench.noise import Noise
from zoo_bench.revision import Revision
from zoo_bench.store import Store

MASK = "mask-rcnn_r50_fpn_1x_shapes"


@pytest.fixture
def shown(finished: Zoo) -> str:
    done = finished.call("show", MASK)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_figure_stands_with_its_definition_and_its_run(finished: Zoo, shown: str) -> None:
    record = finished.records[0]
    assert record.measurements.train is not None
    blocks = {block.split("  ")[0].strip(): block for block in shown.split("\n\n")}
    assert f"{record.measurements.train.mean_s:.4f}" in blocks["Train time (s/iter)"]
    assert "37.50" in blocks["box AP"]
    for head in ("Host mem (GB)", "Train time (s/iter)", "Inf time (fps)", "box AP", "mask AP"):
        assert f"run {record.run_id}" in blocks[head]
    assert "proportional set size" in blocks["Host mem (GB)"]
    assert "steady-state" in blocks["Train time (s/iter)"]


def test_a_figure_stands_with_the_definition_that_its_run_was_made_under(zoo: Zoo) -> None:
    zoo.call("run", "--select", MASK)
    path = next((zoo.root / "results").glob(f"*/{MASK}/*.json"))
    definitions = {**zoo.records[0].definitions, "s_per_iter": "median of all iterations"}
    del definitions["fps"]
    path.write_text(zoo.records[0].model_copy(update={"definitions": definitions}).model_dump_json())
    shown = zoo.call("show", MASK).stdout
    assert "median of all iterations" in shown
    assert "Images per second at batch 1" in shown
    assert "Mean wall time" not in shown


def test_the_run_stands_with_its_surroundings_and_its_files(finished: Zoo, shown: str) -> None:
    record = finished.records[0]
    assert record.checkpoint is not None
    for text in (
        "succeeded in 0:",
        record.machine["cpu"],
        record.machine["os"],
        f"Python {record.software['python']}",
        record.recipe_sha256[:16],
        record.inputs.sources_sha256[:16],
        record.files["log"],
        record.files["events"],
        record.checkpoint.file,
        "-m models.fake.train",
    ):
        assert text in shown
    assert "(not here)" not in shown


def test_it_fits_80_columns(finished: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = finished.call("show", MASK).stdout.splitlines()
    assert max(len(line) for line in lines) <= 80


def test_files_that_are_gone_are_told(zoo: Zoo) -> None:
    zoo.call("run", "--select", MASK)
    (zoo.root / zoo.records[0].files["log"]).unlink()
    assert "worker.log (not here)" in zoo.call("show", MASK).stdout


@pytest.mark.parametrize("word", [f"fake/{MASK}", MASK, "mask-rcnn*", "detector=mask-rcnn_fpn"])
def test_a_cell_is_named_by_id_short_name_or_glob(finished: Zoo, word: str) -> None:
    assert finished.call("show", word).stdout.startswith(f"fake/{MASK}, profile quick\n")


def test_a_run_is_named_by_its_id_or_the_beginning_of_it(finished: Zoo) -> None:
    record = finished.records[0]
    for word in (record.run_id, record.run_id[:-5]):
        assert finished.call("show", word).stdout.startswith(f"fake/{MASK}, run {record.run_id}\n")


def test_a_word_for_several_things_names_them(finished: Zoo) -> None:
    done = finished.call("show", "*r50*")
    assert done.returncode == 2
    assert f"fake/{MASK}" in done.stderr
    assert "fake/retinanet_r50_fpn_1x_shapes" in done.stderr
    day = finished.records[0].run_id[:9]
    done = finished.call("show", day)
    assert done.returncode == 2
    assert all(record.run_id in done.stderr for record in finished.records)


def test_a_word_for_nothing_names_the_nearest(finished: Zoo) -> None:
    done = finished.call("show", "mask-rcn_r50_fpn_1x_shapes")
    assert done.returncode == 2
    assert f"did you mean '{MASK}'" in done.stderr


def test_a_cell_of_another_profile_is_found_and_may_never_have_run(finished: Zoo) -> None:
    done = finished.call("show", "mask-rcnn_r50_fpn_1x_coco")
    assert "Never run." in done.stdout
    assert "no figure: Mem (GB)" in done.stdout


def test_a_cell_that_the_matrix_has_left_still_shows_its_newest_run(zoo: Zoo) -> None:
    zoo.call("run", "--select", MASK)
    zoo.change({"axes": {"detector": ["retinanet_fpn"]}})
    assert zoo.call("show", MASK).stdout.startswith(f"fake/{MASK}, run {zoo.records[0].run_id}\n")


def test_a_quarantined_run_gives_no_figure_and_is_shown_all_the_same(zoo: Zoo) -> None:
    zoo.call("run", "--select", MASK)
    path = next((zoo.root / "results").glob(f"*/{MASK}/*.json"))
    spoilt = zoo.records[0].model_copy(update={"status": "quarantined", "reason": "a foreign process"})
    path.write_text(spoilt.model_dump_json())
    shown = zoo.call("show", MASK).stdout
    assert "No run counts for this row; the newest is quarantined, of profile quick." in shown
    assert "a foreign process" in shown
    assert "37.5" not in shown


def test_noise_revision_and_surroundings_are_shown(zoo: Zoo) -> None:
    zoo.call("run", "--select", MASK)
    path = next((zoo.root / "results").glob(f"*/{MASK}/*.json"))
    record = zoo.records[0]
    noise = Noise(kind="cpu_load", gpu=None, from_s=1, to_s=4, detail="1.5 of 2 cores were busy with something else")
    values = {
        "noise": (noise,),
        "unwatched": ("clock drops: GPU 0 gives no clocks", "slowdowns: GPU 0 gives no reasons"),
        "revision": Revision(commit="c" * 40, dirty=True),
        "machine": {**record.machine, "container": "an/image:1"},
    }
    path.write_text(record.model_copy(update=values).model_dump_json())
    shown = zoo.call("show", MASK).stdout
    assert "Noisy: 1.5 of 2 cores were busy with something else (1 to 4 s)." in shown
    assert re.search(r"not watched for +clock drops: GPU 0 gives no clocks *\n", shown)
    assert re.search(r"not watched for +slowdowns: GPU 0 gives no reasons *\n", shown)
    assert "commit cccccccccccc, with changes" in shown
    assert "an/image:1" in shown


def test_a_failed_run_shows_why(zoo: Zoo) -> None:
    zoo.options(fault={"phase": "train", "at": 3, "kind": "diverged"})
    zoo.call("run", "--select", MASK)
    shown = zoo.call("show", MASK).stdout
    assert "diverged" in shown
    assert "no figure: Mem (GB), Train time (s/iter), Inf time (fps), box AP, mask AP, Download" in shown


def test_figures_of_several_runs_name_theirs_and_intervals_are_shown(zoo: Zoo) -> None:
    zoo.call("run", "--select", MASK)
    first = zoo.records[0]
    train = first.measurements.train
    assert train is not None
    timing = train.model_copy(update={"mean_s": 0.2, "interval": Interval(low=0.19, high=0.22)})
    later = with_measurements(changed(first), train=timing, infer=None, scores=None)
    Store(zoo.root / "results").add(later)
    blocks = zoo.call("show", MASK).stdout.split("\n\n")
    timed = next(block for block in blocks if block.startswith("Train time"))
    assert "0.2000  95 % interval 0.1900 to 0.2200" in timed
    assert f"run {later.run_id}" in timed
    assert f"run {first.run_id}" in next(block for block in blocks if block.startswith("box AP"))
    assert sum(block.startswith(("run 2", "run 9")) for block in blocks) == 2


def test_an_interval_of_seconds_an_image_becomes_one_of_images_a_second(finished: Zoo) -> None:
    from zoo_bench.figures import figure

    timing = InferTiming(
        images=9, load_s=0, preprocess_s=0, forward_s=0.03, postprocess_s=0.01, encode_s=0, detections_per_image=1,
        interval=Interval(low=0.032, high=0.05),
    )  # fmt: skip
    found = figure("fps", with_measurements(finished.records[0], infer=timing))
    assert found.value == pytest.approx(25)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (pytest.approx(20), pytest.approx(31.25))


def test_json_holds_figures_in_base_units_and_the_whole_record(finished: Zoo) -> None:
    told = json.loads(finished.call("show", MASK, "--json").stdout)
    figures = {figure["column"]: figure for figure in told["figures"]}
    assert figures["box_ap"]["value"] == 0.375
    assert figures["memory"]["value"] > 64 * 2**20
    assert figures["fps"]["run_id"] == finished.records[0].run_id
    assert told["records"] == [finished.records[0].model_dump(mode="json")]


def test_sources_that_changed_since_are_told(zoo: Zoo) -> None:
    zoo.call("run", "--select", MASK)
    path = next((zoo.root / "results").glob(f"*/{MASK}/*.json"))
    record = zoo.records[0]
    inputs = record.inputs.model_copy(update={"sources_sha256": "0" * 64})
    path.write_text(record.model_copy(update={"inputs": inputs}).model_dump_json())
    assert "Stale: changed since the measurement: the worker's sources." in zoo.call("show", MASK).stdout


def test_show_starts_without_the_slow_imports(finished: Zoo) -> None:
    code = (
        f"import sys; sys.argv = ['zoo-bench', 'show', '{MASK}']\n"
        "from zoo_bench.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'pandas', 'hotcoco', 'pycocotools', 'PIL'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=finished.root, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_a_width_of_0_is_one_that_is_not_known(finished: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    assert "s/iter" in finished.call("show", "*retinanet*").stdout
