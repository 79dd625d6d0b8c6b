"""`zoo-bench export`: what real readers of each format find in it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import modelindex
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import REPOSITORY, Zoo
from huggingface_hub import ModelCard, ModelCardData
from records import GIB, changed, machine, matrix_on_gpus, memory, on_gpus, runs_of, with_measurements

from zoo_bench.document import DEFAULT_OPTIONS, DocumentOptions, memory_definition
from zoo_bench.export.fields import FIELDS, flat
from zoo_bench.export.hub import as_model_card
from zoo_bench.export.latex import as_latex
from zoo_bench.export.metafile import as_metafile
from zoo_bench.export.tabular import as_csv, as_json, as_parquet
from zoo_bench.load import load_matrix
from zoo_bench.measurements import Interval
from zoo_bench.record import Published, PublishedFile, Record
from zoo_bench.render import Content, gather

MASK, RETINA = "fake/mask-rcnn_r50_fpn_1x_shapes", "fake/retinanet_r50_fpn_1x_shapes"
HOSTILE = "A&B 50% x_y #1 $2 <script>alert('x')</script> | \"quoted\" {b} ^~ \\end{table} -- `c` [d]*"
# What mmdetection's own metafile.yml files hold of a model.
MODEL_KEYS = {"Name", "In Collection", "Metadata", "Results", "Weights"}
INFERENCE_KEYS = {"value", "hardware", "backend", "batch size", "mode", "resolution"}


def exported(zoo: Zoo, form: str, *options: str) -> str:
    done = zoo.call("export", form, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def content(
    matrix: Path, *records: Record, options: DocumentOptions = DEFAULT_OPTIONS, select: str | None = None
) -> Content:
    templates = [REPOSITORY / "templates"]
    return gather(load_matrix(matrix), runs_of(records), templates, options, select=select, available=lambda _: True)


def timed(record: Record) -> Record:
    """A record whose s/iter has an interval."""
    train = record.measurements.train
    assert train is not None
    return with_measurements(record, train=train.model_copy(update={"interval": Interval(low=0.01, high=0.09)}))


def published(record: Record) -> Record:
    """A record that links its model and log elsewhere."""
    assert record.checkpoint is not None
    model = PublishedFile(url="https://models.example/a_b%20c~d.safetensors", sha256=record.checkpoint.sha256, bytes=1)
    log = PublishedFile(url="https://models.example/a.log", sha256="0" * 64, bytes=1)
    return record.model_copy(update={"published": Published(address="s3://models", model=model, log=log)})


@pytest.fixture
def on_two_gpus(finished: Zoo) -> tuple[Path, Record]:
    """A matrix of cells for two GPUs, and the record of one of them, published."""
    matrix = matrix_on_gpus(finished.root)
    record = on_gpus(finished.records[0], matrix, software={"torch": "2.9.0", "python": "3.11"})
    found = memory(
        {"nvml_process_bytes": 3 * GIB}, {"nvml_process_bytes": int(3.26 * GIB)}, allocator=((GIB, GIB),) * 2
    )
    return matrix, published(timed(with_measurements(record, memory=found)))


# ---------------------------------------------------------------- figures that are not rounded


def test_csv_has_the_rows_of_the_document_with_figures_as_they_were_measured(finished: Zoo) -> None:
    rows = list(csv.DictReader(io.StringIO(exported(finished, "csv"))))
    assert [row["cell_id"] for row in rows] == [MASK, RETINA]
    for row, record in zip(rows, finished.records, strict=True):
        train, infer = record.measurements.train, record.measurements.infer
        assert train is not None
        assert infer is not None
        assert record.measurements.memory is not None
        assert float(row["train_s_per_iter"]) == train.mean_s
        assert float(row["inference_fps"]) == infer.fps
        assert int(row["memory_bytes"]) == record.measurements.memory.host_bytes
        assert row["train_run_id"] == row["box_ap_run_id"] == record.run_id
        assert row["train_definition"] == record.definitions["s_per_iter"]
        assert float(row["box_ap"]) == 0.375
    assert [row["mask_ap"] for row in rows] == ["0.341", ""]


def test_another_reader_of_csv_finds_numbers_and_text(finished: Zoo) -> None:
    table = pa.csv.read_csv(io.BytesIO(exported(finished, "csv").encode()))
    assert table.column_names == [field.name for field in FIELDS]
    assert table.schema.field("memory_bytes").type == pa.int64()
    assert table.schema.field("train_s_per_iter").type == pa.float64()
    assert table.schema.field("train_definition").type == pa.string()
    assert table.num_rows == 2


def test_json_and_parquet_hold_the_same_and_say_what_each_column_is(finished: Zoo) -> None:
    told = json.loads(exported(finished, "json"))
    assert exported(finished, "parquet", "-o", "zoo.parquet") == ""
    table = pq.read_table(finished.root / "zoo.parquet")
    assert told["rows"] == table.to_pylist()
    assert table.schema.metadata[b"profile"] == told["profile"].encode() == b"quick"
    for name, about in told["columns"].items():
        assert table.schema.field(name).metadata[b"about"] == about.encode()
    assert table.schema.field("memory_bytes").type == pa.int64()
    assert table.schema.field("remarks").type == pa.list_(pa.string())


def test_parquet_goes_through_a_pipe(finished: Zoo) -> None:
    done = subprocess.run(finished.command("export", "parquet"), cwd=finished.root, capture_output=True, check=False)
    assert pq.read_table(io.BytesIO(done.stdout)).num_rows == 2


def test_parquet_without_its_library_names_the_command_that_installs_it(
    finished: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError('No module named pyarrow')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = finished.call("export", "parquet", "-o", "none.parquet")
    assert done.returncode == 2
    assert "pip install 'zoo-bench[parquet]'" in done.stderr
    assert not (finished.root / "none.parquet").exists()
    assert finished.call("export", "csv").returncode == 0


def test_a_row_says_intervals_the_memory_that_was_asked_for_and_where_the_model_is(
    on_two_gpus: tuple[Path, Record],
) -> None:
    matrix, record = on_two_gpus
    row = flat(content(matrix, record))[0]
    assert (row["train_s_per_iter_low"], row["train_s_per_iter_high"]) == (0.01, 0.09)
    assert row["memory_bytes"] == int(3.26 * GIB)
    assert (row["model_sha256"], row["log"]) == (record.published.model.sha256, "https://models.example/a.log")  # type: ignore[union-attr]
    assert row["machine"] == ("2 NVIDIA Tesla V100-SXM2-16GB GPUs, A CPU, 20 cores",)
    allocated = DocumentOptions(memory=memory_definition("allocated", "sum"))
    row = flat(content(matrix, record, options=allocated))[0]
    assert row["memory_bytes"] == 2 * GIB
    assert "allocated" in str(row["memory_definition"])


def test_what_a_row_lacks_is_blank_and_a_remark_says_why(on_two_gpus: tuple[Path, Record]) -> None:
    matrix, record = on_two_gpus
    hidden = with_measurements(record, memory=memory({}, {}, problem="no NVML here"))
    first, second = flat(content(matrix, hidden))
    assert first["memory_bytes"] is None
    assert "no NVML here" in str(first["memory_remark"])
    assert (second["status"], second["box_ap"], second["train_run_id"]) == (None, None, None)


def test_what_was_quarantined_is_in_no_format(finished: Zoo) -> None:
    spoilt = content(finished.root / "matrix.yaml", changed(finished.records[0], status="quarantined", reason="busy"))
    assert [row["box_ap"] for row in flat(spoilt)] == [None, None]
    assert yaml.safe_load(as_metafile(spoilt))["Models"] == []
    assert "model-index" not in as_model_card(spoilt)


# ---------------------------------------------------------------- mmdetection


def test_a_metafile_has_mmdetections_keys_and_the_documents_digits(on_two_gpus: tuple[Path, Record]) -> None:
    matrix, record = on_two_gpus
    whole = yaml.safe_load(as_metafile(content(matrix, record)))
    (collection,) = whole["Collections"]
    (model,) = whole["Models"]
    assert collection == {"Name": "Mask RCNN", "Metadata": {"Training Data": "shapes"}}
    assert set(model) == MODEL_KEYS
    assert (model["Name"], model["In Collection"]) == ("mask-rcnn_r50_fpn_1x_shapes", "Mask RCNN")
    metadata = model["Metadata"]
    assert metadata["Training Memory (GB)"] == 3.3
    assert metadata["Training Resources"] == "2x Tesla V100-SXM2-16GB GPUs"
    assert (metadata["Iterations"], metadata["Batch Size"]) == (30, 4)
    assert metadata["Epochs"] == round(30 * 4 / 16, 2)
    (inference,) = metadata["inference time (ms/im)"]
    assert set(inference) == INFERENCE_KEYS
    assert record.measurements.infer is not None
    assert inference["value"] == pytest.approx(1000 / record.measurements.infer.fps, abs=0.005)
    assert (inference["backend"], inference["mode"], inference["resolution"]) == ("PyTorch", "FP32", "(800, 1333)")
    assert model["Results"] == [
        {"Task": "Object Detection", "Dataset": "shapes", "Metrics": {"box AP": 37.5}},
        {"Task": "Instance Segmentation", "Dataset": "shapes", "Metrics": {"mask AP": 34.1}},
    ]
    assert model["Weights"] == record.published.model.url  # type: ignore[union-attr]


def test_a_metafile_is_read_by_the_package_that_openmmlab_reads_them_with(
    on_two_gpus: tuple[Path, Record], tmp_path: Path
) -> None:
    matrix, record = on_two_gpus
    path = tmp_path / "metafile.yml"
    path.write_text(as_metafile(content(matrix, record)), encoding="utf-8")
    read = modelindex.load(str(path))
    assert read.check(silent=True) == []
    (model,) = read.models
    assert (model.name, model.in_collection) == ("mask-rcnn_r50_fpn_1x_shapes", "Mask RCNN")
    assert [(one.task, one.metrics) for one in model.results] == [
        ("Object Detection", {"box AP": 37.5}),
        ("Instance Segmentation", {"mask AP": 34.1}),
    ]
    assert model.weights == record.published.model.url  # type: ignore[union-attr]
    assert model.metadata.data["Training Memory (GB)"] == 3.3


def test_the_memory_of_a_host_is_none_that_a_metafile_could_hold(finished: Zoo) -> None:
    for model in yaml.safe_load(exported(finished, "metafile"))["Models"]:
        assert "Training Memory (GB)" not in model["Metadata"]
        assert model["Weights"].endswith(".safetensors")


def test_models_of_two_backends_have_two_names(finished: Zoo) -> None:
    finished_matrix = yaml.safe_load((finished.root / "matrix.yaml").read_text(encoding="utf-8"))
    finished_matrix["axes"]["backend"] = ["fake", "torchvision"]
    finished_matrix["document"]["backends"] = ["fake", "torchvision"]
    both = finished.root / "both.yaml"
    both.write_text(yaml.safe_dump(finished_matrix), encoding="utf-8")
    names = [model["Name"] for model in yaml.safe_load(as_metafile(content(both, *finished.records)))["Models"]]
    assert names == [MASK, RETINA]


# ---------------------------------------------------------------- Hugging Face


def test_a_model_card_of_one_model_is_read_by_huggingface_hub(on_two_gpus: tuple[Path, Record], tmp_path: Path) -> None:
    matrix, record = on_two_gpus
    path = tmp_path / "README.md"
    path.write_text(as_model_card(content(matrix, record, select="*mask-rcnn*")), encoding="utf-8")
    card = ModelCard.load(path)
    assert isinstance(card.data, ModelCardData)
    assert card.data.model_name == "mask-rcnn_r50_fpn_1x_shapes"
    assert card.data.pipeline_tag == "object-detection"
    assert card.data.eval_results is not None
    found = {(one.task_type, one.metric_type): one for one in card.data.eval_results}
    assert set(found) == {("object-detection", "box_ap"), ("image-segmentation", "mask_ap")}
    box = found["object-detection", "box_ap"]
    assert (box.metric_value, box.metric_name) == (0.375, "box AP (COCO AP@[.50:.95])")
    assert (box.dataset_type, box.dataset_name, box.dataset_split) == ("shapes", "shapes", "val")
    assert (box.source_name, box.source_url) == (f"run {record.run_id}", "https://models.example/a.log")
    assert "### Mask RCNN" in card.text
    assert re.search(r"\| *37\.5 *\|", card.text)
    assert "RetinaNet" not in card.text


def test_of_several_models_each_result_says_whose_it_is(finished: Zoo) -> None:
    exported(finished, "model-card", "-o", "card/README.md")
    card = ModelCard.load(finished.root / "card" / "README.md")
    assert isinstance(card.data, ModelCardData)
    names = [str(one.metric_name).partition(":")[0] for one in card.data.eval_results or ()]
    assert names == [MASK.split("/")[1]] * 2 + [RETINA.split("/")[1]]


def test_a_model_index_goes_into_a_card_of_ones_own(finished: Zoo) -> None:
    index = yaml.safe_load(exported(finished, "model-index", "--select", RETINA))["model-index"]
    data = ModelCardData(license="apache-2.0", **{"model-index": index})
    assert data.model_name == RETINA.split("/")[1]
    assert [one.metric_value for one in data.eval_results or ()] == [0.375]


# ---------------------------------------------------------------- LaTeX


LATEX = shutil.which("pdflatex")
needs_latex = pytest.mark.skipif(LATEX is None, reason="there is no pdflatex (Debian: texlive-latex-recommended)")


def made_pdf(text: str, folder: Path) -> None:
    """Typeset tables in a document that has what their head asks for, and in one without links."""
    (folder / "zoo.tex").write_text(text, encoding="utf-8")
    for links in (r"\usepackage{hyperref}", ""):
        lines = [r"\documentclass{article}", r"\usepackage{booktabs}", links, r"\begin{document}"]
        (folder / "paper.tex").write_text("\n".join([*lines, r"\input{zoo}", r"\end{document}"]), encoding="utf-8")
        call = [str(LATEX), "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
        done = subprocess.run(call, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
        assert done.returncode == 0, done.stdout
        assert (folder / "paper.pdf").stat().st_size > 0


def cells_of(line: str, between: str) -> list[str]:
    """A row's cells without footnote marks and links."""
    line = re.sub(r"\[\^\d+\]|\\textsuperscript\{\d+\}", "", line)
    line = re.sub(r"\\href\{[^}]*\}\{(\w+)\}|\[(\w+)\]\([^)]*\)", r"\1\2", line)
    line = line.replace(r"\textbar{}", "/").replace(r"\|", "/").removesuffix(r"\\")
    return [cell.strip() for cell in line.strip(" |").split(between)]


def test_latex_prints_what_the_markdown_table_does(finished: Zoo) -> None:
    text = exported(finished, "latex")
    document = finished.call("render").stdout
    mine = [cells_of(line, " & ") for line in text.splitlines() if line.startswith("    R-")]
    theirs = [cells_of(line, "|") for line in document.splitlines() if re.match(r"\|\s*R-", line)]
    assert mine == theirs
    assert len(mine) == 2
    assert r"\caption{Mask RCNN}" in text
    assert r"GB = 2\textasciicircum{}30 bytes." in text


def test_a_link_in_latex_is_the_documents(on_two_gpus: tuple[Path, Record]) -> None:
    text = as_latex(content(*on_two_gpus))
    assert r"\href{https://models.example/a\_b\%20c\~d.safetensors}{model}" in text


@needs_latex
def test_latex_typesets_the_tables(finished: Zoo, on_two_gpus: tuple[Path, Record], tmp_path: Path) -> None:
    made_pdf(exported(finished, "latex"), tmp_path)
    made_pdf(as_latex(content(*on_two_gpus)), tmp_path)


# ---------------------------------------------------------------- whatever the text is


def hostile(finished: Zoo, words: str) -> Content:
    """A document in which all that people name is called `words`."""
    matrix = yaml.safe_load((finished.root / "matrix.yaml").read_text(encoding="utf-8"))
    matrix["document"]["title"] = words
    for declared in ("detectors", "backbones"):
        for one in matrix[declared].values():
            one["title"] = words
    path = finished.root / "hostile.yaml"
    path.write_text(yaml.safe_dump(matrix), encoding="utf-8")
    first, second = finished.records
    failed = changed(second, status="failed", reason=words, phases_done=(), checkpoint=None)
    return content(
        path, first.model_copy(update={"machine": machine(0, name=words), "software": {"torch": words}}), failed
    )


WORDS = (HOSTILE, "=1+1", "@SUM(A1)", "two\nlines", "---\n---\nkey: value", ", ; \t'' --- :")


@needs_latex
@pytest.mark.parametrize("words", WORDS)
def test_no_text_breaks_a_latex_run(finished: Zoo, words: str, tmp_path: Path) -> None:
    made_pdf(as_latex(hostile(finished, words)), tmp_path)


@pytest.mark.parametrize("words", WORDS)
def test_text_comes_through_as_text(finished: Zoo, words: str, tmp_path: Path) -> None:
    made = hostile(finished, words)
    expected = json.loads(json.dumps(flat(made)))  # its texts are lists, as in the files
    assert words in expected[0]["machine"][0]
    assert pq.read_table(io.BytesIO(as_parquet(made))).to_pylist() == expected
    assert json.loads(as_json(made))["rows"] == expected
    for row, wanted in zip(csv.DictReader(io.StringIO(as_csv(made), newline="")), expected, strict=True):
        assert {name: text.removeprefix("'") for name, text in row.items()} == {
            name: "; ".join(value) if isinstance(value, list) else "" if value is None else str(value)
            for name, value in wanted.items()
        }
        assert not [text for text in row.values() if text[:1] in "=+-@\t" and text]
    (tmp_path / "README.md").write_text(as_model_card(made), encoding="utf-8")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.text.strip().startswith("# ")
    assert "<script>" not in card.text
    collections = yaml.safe_load(as_metafile(made))["Collections"]
    assert collections[0]["Name"] == words.replace("\n", r"\n")


# ---------------------------------------------------------------- the verb


def test_a_row_can_be_chosen_and_one_that_is_not_there_is_an_error(finished: Zoo) -> None:
    assert [row["cell_id"] for row in json.loads(exported(finished, "json", "--select", "*retinanet*"))["rows"]] == [
        RETINA
    ]
    done = finished.call("export", "json", "--select", "*retinanut*")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'retinanet'?" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("exel",), "export exel: no such format"),
        (("jsn",), "did you mean 'json'?"),
        (("csv", "-o", "results"), "results: cannot be written"),
        (("csv", "-o", "matrix.yaml/zoo.csv"), "cannot be written"),
        (("csv", "--profile", "quik"), "did you mean 'quick'?"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(finished: Zoo, words: tuple[str, ...], told: str) -> None:
    done = finished.call("export", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


@pytest.mark.parametrize("form", ["csv", "json", "latex", "metafile", "model-card", "model-index"])
def test_an_empty_store_gives_a_whole_file_and_says_so(zoo: Zoo, form: str) -> None:
    done = zoo.call("export", form)
    assert done.returncode == 0
    assert done.stdout
    assert "none of the 2 rows has a figure yet" in done.stderr


def test_a_file_is_replaced_wholly(finished: Zoo) -> None:
    target: Any = finished.root / "zoo.json"
    target.write_text("an older one", encoding="utf-8")
    exported(finished, "json", "-o", "zoo.json")
    assert len(json.loads(target.read_text(encoding="utf-8"))["rows"]) == 2


def test_what_is_no_file_is_written_to_and_not_replaced(finished: Zoo, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        assert finished.call("export", "csv", "-o", str(pipe)).returncode == 0
        assert reader.stdout is not None
        assert reader.stdout.read().startswith("cell_id,")
    assert pipe.is_fifo()
