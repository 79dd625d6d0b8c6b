"""The document: the seed when nothing was measured, figures with their provenance when something was."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import MATRIX, REPOSITORY, Zoo
from records import GIB, changed, machine, matrix_on_gpus, memory, on_gpus, runs_of, with_measurements

from zoo_bench.document import DEFAULT_OPTIONS, DocumentOptions, memory_definition
from zoo_bench.load import load_matrix
from zoo_bench.markdown import escape, link, table
from zoo_bench.measurements import Energy, Interval, Memory
from zoo_bench.noise import Noise
from zoo_bench.provenance import CurrentInputs
from zoo_bench.record import Record
from zoo_bench.render import render


def normal(text: str) -> list[str]:
    """The lines of a document, whatever its white space and the length of its table rules."""
    squeezed = (re.sub(r"\s*\|\s*", "|", re.sub(r"-+", "-", " ".join(line.split()))) for line in text.splitlines())
    return [line for line in squeezed if line]


def document(
    records: tuple[Record, ...] = (), matrix: Path = MATRIX, options: DocumentOptions = DEFAULT_OPTIONS, **how: Any
) -> str:
    return render(load_matrix(matrix), runs_of(records), [REPOSITORY / "templates"], options, **how)


def test_with_an_empty_store_it_is_the_seed_but_for_two_misspelt_headings() -> None:
    seed = os.environ.get("ZOO_BENCH_SEED")
    if not seed:
        pytest.skip("ZOO_BENCH_SEED is not set; it names the seed document")
    text = (
        Path(seed).read_text(encoding="utf-8").replace("Benckmark", "Benchmark").replace("Environmnet", "Environment")
    )
    assert normal(document()) == normal(text)


def test_with_an_empty_store_every_cell_has_a_blank_row() -> None:
    lines = normal(document())
    assert [line for line in lines if line.startswith("#")] == [
        "# Benchmark and Model Zoo", "## Environment", "### Hardware", "### Software environment", "## Common setting",
        "### Faster RCNN", "### FPN", "### Mask RCNN", "### RetinaNet",
    ]  # fmt: skip
    assert lines.count("|R-50|1x|||||||") == 1
    assert lines.count("|R-50|1x||||||") == 3
    assert "- 8 NVIDIA Tesla V100 GPUs" in lines
    assert "- All baseline were trained using 8 GPUs with a batch size of 16 (2 images per GPU)." in lines


def test_records_fill_environment_and_tables(finished: Zoo) -> None:
    done = finished.call("render")
    assert done.returncode == 0
    lines = normal(done.stdout)
    row = next(line for line in lines if line.startswith("|R-50|1x|"))
    mask = finished.records[0]
    assert mask.measurements.train is not None
    assert f"|{mask.measurements.train.mean_s:.3f}|" in row
    assert "|37.5|34.1|" in row
    assert mask.checkpoint is not None
    assert f"[model]({mask.checkpoint.file})" in row
    assert "|Backbone|Lr schd|Host mem (GB)[^1]|" in next(line for line in lines if "|mask AP|" in line)
    assert "- All models were trained on 'shapes_train', and tested on the 'shapes_val'." in lines
    assert "V100" not in done.stdout
    assert done.stderr == ""


def cells_of(text: str, heading: str) -> list[str]:
    lines = normal(text.split(f"### {heading}", 1)[1])
    return next(line for line in lines if line.startswith("|R-50|"))[1:-1].split("|")


def test_columns_of_a_row_may_come_from_two_runs_of_one_recipe_and_a_footnote_says_so(finished: Zoo) -> None:
    first = finished.records[0]
    train = first.measurements.train
    assert train is not None
    faster = first.measurements.model_copy(
        update={"train": train.model_copy(update={"mean_s": 0.123}), "scores": None, "infer": None}
    )
    later = changed(first, measurements=faster, checkpoint=None)
    text = document((first, later), finished.root / "matrix.yaml")
    cells = cells_of(text, "Mask RCNN")
    assert cells[3].startswith("0.123")
    assert cells[5].startswith("37.5")
    assert re.search(r"From several runs of one recipe: .*Train time.* from 29991231T000000.000Z-ffff; ", text)


def test_another_recipe_never_lends_a_column(finished: Zoo) -> None:
    first = finished.records[0]
    train = first.measurements.train
    assert train is not None
    other = changed(
        first,
        recipe_sha256="0" * 64,
        measurements=first.measurements.model_copy(update={"train": train.model_copy(update={"mean_s": 9.9})}),
    )
    assert "9.9" not in document((first, other), finished.root / "matrix.yaml")


def test_a_recipe_the_matrix_has_left_is_told(finished: Zoo) -> None:
    text = (finished.root / "matrix.yaml").read_text(encoding="utf-8").replace("images_per_gpu: 2", "images_per_gpu: 4")
    other = finished.root / "wider.yaml"
    other.write_text(text, encoding="utf-8")
    assert "other values than the matrix has now: images_per_gpu: 2 -> 4" in document(finished.records, other)


def test_a_trial_of_another_profile_never_stands_in_for_the_published_recipe(finished: Zoo) -> None:
    trial = tuple(
        record.model_copy(update={"profile": "trial", "recipe_sha256": "0" * 64}) for record in finished.records
    )
    assert cells_of(document(trial, finished.root / "matrix.yaml"), "Mask RCNN")[2:] == [""] * 6


def test_a_failed_cell_shows_its_status_and_why(finished: Zoo) -> None:
    failed = changed(
        finished.records[0],
        status="diverged",
        reason="loss is | <b>NaN</b>\n# so",
        phases_done=(),
        checkpoint=None,
    )
    text = document((failed,), finished.root / "matrix.yaml")
    cells = cells_of(text, "Mask RCNN")
    assert cells[2].startswith("diverged[^")
    assert "diverged: loss is \\| &lt;b>NaN&lt;/b> # so" in text


def test_quarantined_runs_are_never_rendered_and_a_footnote_says_what_spoilt_them(finished: Zoo) -> None:
    spoilt = tuple(
        record.model_copy(update={"status": "quarantined", "reason": "GPU 0: process 42, up to 2.0 GB"})
        for record in finished.records
    )
    text = document(spoilt, finished.root / "matrix.yaml")
    marked, *others = cells_of(text, "Mask RCNN")[2:]
    assert others == [""] * 5
    assert re.fullmatch(r"\[\^\d+\]", marked)
    assert f"{marked}: Run {spoilt[0].run_id}: quarantined: GPU 0: process 42, up to 2.0 GB" in text
    assert "quarantined" not in document((*spoilt, *finished.records), finished.root / "matrix.yaml")


NOISE = Noise(kind="cpu_load", gpu=None, from_s=1, to_s=4, detail="1.5 of 2 cores were busy with something else")


def trained(record: Record, mean_s: float, iterations: int = 100, **values: Any) -> Record:
    """A record with another s/iter, over so many iterations."""
    train = record.measurements.train
    assert train is not None
    timing = train.model_copy(update={"mean_s": mean_s, "iterations_run": iterations, **values})
    return with_measurements(record, train=timing)


def test_a_clean_run_stands_before_a_newer_noisy_one(finished: Zoo) -> None:
    clean, matrix = trained(finished.records[0], 0.111), finished.root / "matrix.yaml"
    noisy = changed(trained(clean, 0.222), noise=(NOISE,))
    text = document((clean, noisy), matrix)
    assert cells_of(text, "Mask RCNN")[3] == "0.111"
    assert "Noisy" not in text
    assert cells_of(document((noisy,), matrix), "Mask RCNN")[3] == "0.222"
    newer = changed(trained(clean, 0.333), run_id="29991231T000001.000Z-ffff")
    assert cells_of(document((clean, noisy, newer), matrix), "Mask RCNN")[3] == "0.333"


def test_a_noisy_training_lends_no_model_where_a_clean_run_evaluated_one(finished: Zoo) -> None:
    clean, matrix = finished.records[0], finished.root / "matrix.yaml"
    assert clean.checkpoint is not None
    retrained = clean.checkpoint.model_copy(update={"sha256": "e" * 64, "file": "results/runs/noisy/model-eeeeeeee"})
    noisy = changed(clean, noise=(NOISE,), checkpoint=retrained)
    text = document((clean, noisy), matrix, available=lambda _: True)
    assert clean.checkpoint.file in cells_of(text, "Mask RCNN")[7]


def test_the_peak_of_a_short_training_never_replaces_that_of_a_long_one(finished: Zoo) -> None:
    matrix = matrix_on_gpus(finished.root, 1)
    measured = on_gpus(finished.records[0], matrix, run_id="20260101T000000.000Z-0001")
    full = trained(with_measurements(measured, memory=memory({"nvml_process_bytes": 6 * GIB})), 0.2, 90000)
    short = changed(trained(with_measurements(full, memory=memory({"nvml_process_bytes": 5 * GIB})), 0.3, 5000))
    cells = cells_of(document((full, short), matrix), "Mask RCNN")
    assert (cells[2][:3], cells[3]) == ("6.0", "0.300")
    again = changed(with_measurements(full, memory=memory({"nvml_process_bytes": 7 * GIB})))
    assert cells_of(document((full, again), matrix), "Mask RCNN")[2].startswith("7.0")


def test_a_run_that_knows_the_memory_asked_for_stands_before_one_that_does_not(finished: Zoo) -> None:
    matrix, options = matrix_on_gpus(finished.root, 1), DocumentOptions(memory=memory_definition("reserved", "max"))
    measured = on_gpus(finished.records[0], matrix, run_id="20260101T000000.000Z-0001")
    told = with_measurements(measured, memory=memory({}, allocator=((2 * GIB, 3 * GIB),)))
    silent = changed(with_measurements(measured, memory=memory({"nvml_process_bytes": 6 * GIB})))
    assert cells_of(document((told, silent), matrix, options), "Mask RCNN")[2].startswith("3.0")
    assert cells_of(document((told, silent), matrix), "Mask RCNN")[2].startswith("6.0")
    assert "no allocator peak of rank 0" in document((silent,), matrix, options)


def test_what_could_not_be_watched_for_is_told(finished: Zoo) -> None:
    record, matrix = finished.records[0].model_copy(update={"unwatched": ()}), finished.root / "matrix.yaml"
    assert "Not watched for" not in document((record,), matrix)
    blind = record.model_copy(update={"unwatched": ("clock drops: GPU 0 gives no clocks",)})
    assert "Not watched for: clock drops: GPU 0 gives no clocks." in document((blind,), matrix)


@pytest.mark.parametrize(
    ("ended_by", "high", "told"), [("cap", 0.212, True), ("precision", 0.212, False), ("cap", 0.2019, False)]
)
def test_a_timing_that_its_cap_left_imprecise_says_so(finished: Zoo, ended_by: str, high: float, told: bool) -> None:
    cell = finished.records[0].cell
    asked = finished.records[0].model_copy(
        update={"cell": {**cell, "measure": {**cell["measure"], "train_half_width": 0.01}}}
    )
    interval = Interval(low=0.4 - high, high=high)
    text = document((trained(asked, 0.2, 5000, ended_by=ended_by, interval=interval),), finished.root / "matrix.yaml")
    assert ("s/iter known to ±6.0 % only: ended at its cap of 5000 iterations." in text) is told
    assert ("ended at its cap" in text) is told


def test_fps_of_an_unfinished_model_stays_blank_with_a_reason(finished: Zoo) -> None:
    first = finished.records[0]
    assert first.checkpoint is not None
    untrained = changed(first, checkpoint=first.checkpoint.model_copy(update={"trained": False}))
    text = document((untrained,), finished.root / "matrix.yaml")
    assert cells_of(text, "Mask RCNN")[4] == ""
    assert "had not finished its training" in text


def test_a_profiles_note_stands_at_the_head() -> None:
    smoke = render(load_matrix(MATRIX), runs_of(), [REPOSITORY / "templates"], DocumentOptions("smoke"))
    assert "This is a smoke run" in smoke.split("## Environment")[0]
    assert "This is a smoke run" not in document()


TWO_GPUS = memory(
    {"nvml_process_bytes": 4 * GIB, "nvml_delta_bytes": 5 * GIB},
    {"nvml_process_bytes": 6 * GIB, "nvml_delta_bytes": 8 * GIB},
    allocator=((2 * GIB, 3 * GIB), (1 * GIB, 7 * GIB)),
)
HIDDEN = memory({"nvml_delta_bytes": 5 * GIB}, {"nvml_delta_bytes": 8 * GIB})


def memory_cell(zoo: Zoo, found: Memory, count: str = "nvml", over_gpus: str = "max", **how: Any) -> tuple[str, str]:
    """The memory that the first row shows for a run on two GPUs, and the whole document."""
    matrix = matrix_on_gpus(zoo.root)
    record = with_measurements(on_gpus(zoo.records[0], matrix), memory=found)
    options = DocumentOptions(memory=memory_definition(count, over_gpus), **how)
    text = document((record,), matrix, options)
    return cells_of(text, "Mask RCNN")[2], text


@pytest.mark.parametrize(
    ("count", "over_gpus", "shown"),
    [
        ("nvml", "max", "6.0"), ("nvml", "rank0", "4.0"), ("nvml", "sum", "10.0"),
        ("allocated", "max", "2.0"), ("allocated", "rank0", "2.0"), ("allocated", "sum", "3.0"),
        ("reserved", "max", "7.0"), ("reserved", "rank0", "3.0"), ("reserved", "sum", "10.0"),
    ],
)  # fmt: skip
def test_memory_is_what_was_asked_for_and_the_head_says_so(
    finished: Zoo, count: str, over_gpus: str, shown: str
) -> None:
    found, text = memory_cell(finished, TWO_GPUS, count, over_gpus)
    assert found == shown
    word = {"nvml": "NVML", "allocated": "(allocated)", "reserved": "(reserved"}[count]
    over = {"max": "on any one GPU", "rank0": "(rank 0)", "sum": "summed over"}[over_gpus]
    note = next(line for line in text.splitlines() if line.startswith("[^1]: "))
    assert word in note
    assert over in note


def test_hidden_processes_give_way_to_what_the_device_gained_and_a_footnote_says_so(finished: Zoo) -> None:
    found, text = memory_cell(finished, HIDDEN)
    assert re.fullmatch(r"8\.0\[\^\d+\]", found)
    assert "less what was in use before the job" in text


@pytest.mark.parametrize(
    ("found", "count", "over_gpus", "why"),
    [
        (memory({"nvml_process_bytes": 4 * GIB}, {}), "nvml", "max", "NVML gave no memory of the job"),
        (memory({"nvml_process_bytes": 4 * GIB}), "nvml", "sum", "NVML saw 1 of the job's 2 GPUs"),
        (memory(problem="no library"), "nvml", "max", "NVML saw 0 of the job's 2 GPUs: no library"),
        (HIDDEN, "allocated", "max", "no allocator peak of rank 0, 1"),
        (memory(allocator=((GIB, GIB),)), "reserved", "sum", "no allocator peak of rank 1"),
    ],
)
def test_memory_that_a_run_does_not_know_stays_blank_with_a_reason(
    finished: Zoo, found: Memory, count: str, over_gpus: str, why: str
) -> None:
    shown, text = memory_cell(finished, found, count, over_gpus)
    assert shown == ""
    assert why in text


def test_memory_of_the_host_never_stands_in_a_column_of_gpu_memory(finished: Zoo) -> None:
    text = document(finished.records, matrix_on_gpus(finished.root))
    assert cells_of(text, "Mask RCNN")[2] == ""
    assert "No Mem (GB): measured on the CPU." in text


def test_energy_is_a_column_when_asked_for(finished: Zoo) -> None:
    energy = Energy(joules_per_iteration=712.34, kwh=1.5, source="counter", gpus=1)
    record = with_measurements(finished.records[0], energy=energy)
    matrix = finished.root / "matrix.yaml"
    assert "712.3" not in document((record,), matrix)
    cells = cells_of(document((record,), matrix, DocumentOptions(energy=True)), "Mask RCNN")
    assert cells[4] == "712.3"


@pytest.mark.parametrize(
    ("problem", "why"), [("GPU 0: no energy counter, and no power", "GPU 0: no energy counter"), ("", "not known")]
)
def test_energy_that_a_run_does_not_know_stays_blank_with_a_reason(finished: Zoo, problem: str, why: str) -> None:
    found = memory({"nvml_process_bytes": GIB}, {"nvml_process_bytes": GIB}, problem=problem)
    _, text = memory_cell(finished, found, energy=True)
    assert cells_of(text, "Mask RCNN")[4] == ""
    assert f"No Energy (J/iter): {why}" in text
    assert "No Energy" not in memory_cell(finished, found)[1]


def test_energy_of_a_run_on_the_cpu_stays_blank_with_a_reason(finished: Zoo) -> None:
    text = document(finished.records, finished.root / "matrix.yaml", DocumentOptions(energy=True))
    assert "No Energy (J/iter): known of GPUs only." in text


def marks(zoo: Zoo, *records: Record, marks: bool = True, **current: Any) -> str:
    """The document of a workspace whose worker is now made of `current`."""
    now = {"sources_sha256": zoo.records[0].inputs.sources_sha256, "locks_sha256": frozenset[str](), **current}
    options = DocumentOptions(stale_marks=marks)
    return document(records, zoo.root / "matrix.yaml", options, current={"fake": CurrentInputs(**now)})


def test_a_row_is_stale_when_its_workers_sources_have_changed(finished: Zoo) -> None:
    record = finished.records[0]
    assert "Stale" not in marks(finished, record)
    stale = marks(finished, record, sources_sha256="0" * 64)
    assert "Stale: changed since the measurement: the worker's sources." in stale
    assert re.search(r"\[\^\d+\]$", cells_of(stale, "Mask RCNN")[2])
    assert "Stale" not in marks(finished, record, marks=False, sources_sha256="0" * 64)


def test_a_row_is_stale_when_no_variant_has_its_lock_any_more(finished: Zoo) -> None:
    record = finished.records[0]
    locked = record.model_copy(update={"inputs": record.inputs.model_copy(update={"lock_sha256": "a" * 64})})
    assert "Stale" not in marks(finished, locked, locks_sha256=frozenset({"a" * 64, "b" * 64}))
    assert "the lock of the worker's environment" in marks(finished, locked, locks_sha256=frozenset({"b" * 64}))
    assert "Stale" not in marks(finished, record, locks_sha256=frozenset({"b" * 64}))


def test_a_row_is_stale_when_its_machine_has_had_another_driver_since(finished: Zoo) -> None:
    matrix = matrix_on_gpus(finished.root)
    first, other = finished.records
    measured = with_measurements(on_gpus(first, matrix, run_id="20260101T000000.000Z-0001"), memory=TWO_GPUS)
    later = on_gpus(other, matrix, run_id="20260201T000000.000Z-0002", machine=machine(driver="550.1"))
    elsewhere = on_gpus(other, matrix, run_id="20260201T000000.000Z-0002", machine=machine(driver="550.1", cpu="B CPU"))
    assert "that machine's GPU driver (535.54, now 550.1)" in document((measured, later), matrix)
    assert "- GPU driver 535.54, 550.1" in document((measured, later), matrix)
    assert "Stale" not in document((measured, elsewhere), matrix)
    assert "Stale" not in document((measured, later), matrix, DocumentOptions(stale_marks=False))


def test_a_row_that_was_kept_in_spite_of_noise_says_so(finished: Zoo) -> None:
    noise = Noise(kind="foreign_process", gpu=1, from_s=12.2, to_s=15.0, detail="PID 7 held 2.0 GB")
    text = document((finished.records[0].model_copy(update={"noise": (noise,)}),), finished.root / "matrix.yaml")
    assert "Noisy: GPU 1: PID 7 held 2.0 GB (12 to 15 s)." in text


def test_a_row_from_another_machine_says_what_was_other(finished: Zoo) -> None:
    first, other = finished.records
    moved = other.model_copy(
        update={"machine": {**other.machine, "cpu": "B CPU", "cores": 64}, "software": {"python": "3.99"}}
    )
    text = document((first, moved), finished.root / "matrix.yaml")
    python = first.software["python"]
    assert f"Other surroundings: CPU B CPU, 64 cores in place of {first.machine['cpu']}" in text
    assert f"Python 3.99 in place of {python}" in text
    assert f"- Python {python}, 3.99" in text
    assert "Other surroundings" not in document((first, other), finished.root / "matrix.yaml")


@pytest.mark.parametrize(
    "value", ["a|b", "a\nb|\n|c", "<script>x</script>", "[x](y)", "`|`", "\\|", "*b*", "\x1b[31m\u2028|"]
)
def test_no_value_breaks_a_table(value: str) -> None:
    lines = table(["head", "tail"], [[escape(value), escape("end")]]).splitlines()
    assert len(lines) == 3
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", lines[2])) == 3
    assert "<" not in lines[2]
    assert "[x](" not in lines[2]


def test_a_link_cannot_be_left() -> None:
    assert link("log", "a b)|(c].txt") == "[log](a%20b%29%7C%28c%5D.txt)"


@pytest.mark.parametrize(
    "template",
    ["{{ nothing_of_the_kind }}", "{% if %}", "{{ ''.__class__.__mro__ }}", "{% include 'parts/none.j2' %}"],
)
def test_a_wrong_template_is_a_readable_error(zoo: Zoo, template: str) -> None:
    folder = zoo.root / "templates"
    folder.mkdir()
    (folder / "model_zoo.md.j2").write_text(template)
    done = zoo.call("render")
    assert done.returncode == 2
    assert "template" in done.stderr


def test_a_template_that_is_no_file_is_not_passed_over_for_the_bundled_one(zoo: Zoo) -> None:
    (zoo.root / "templates" / "model_zoo.md.j2").mkdir(parents=True)
    done = zoo.call("render")
    assert done.returncode == 2
    assert "model_zoo.md.j2 is no file" in done.stderr


def test_a_template_sends_a_terminal_no_commands(zoo: Zoo) -> None:
    folder = zoo.root / "templates"
    folder.mkdir()
    (folder / "model_zoo.md.j2").write_text("\x1b[2Jgone\n")
    ours, theirs = pty.openpty()
    subprocess.run(zoo.command("render"), cwd=zoo.root, stdout=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert shown.startswith(r"\x1b[2Jgone")
    assert zoo.call("render").stdout.startswith("\x1b[2Jgone"), "a file gets what the template says"
