from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, Cells, cell, in_process, named

from models import worker
from models.detections import DetectionsWriter, merge_detections


def detection(image_id: int, **changes: Any) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 1, "bbox": [0.5, 1.0, 2.0, 3.0], "score": 1 / image_id, **changes}


def write(path: Path, *images: list[dict[str, Any]]) -> Path:
    with DetectionsWriter(path) as writer:
        for found in images:
            writer.add(found)
    assert writer.count == sum(map(len, images))
    return path


def test_a_file_has_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "detections.json"
    with DetectionsWriter(path) as writer:
        writer.add([detection(1), detection(2, name="a ]\n[ é")])
        writer.add([])
        assert not path.exists()
        writer.add([detection(3)])
    assert json.loads(path.read_text()) == [detection(1), detection(2, name="a ]\n[ é"), detection(3)]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("images", [[], [[], []]])
def test_nothing_found_is_an_empty_list(images: list[list[Any]], tmp_path: Path) -> None:
    assert json.loads(write(tmp_path / "detections.json", *images).read_text()) == []


def test_an_evaluation_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        write(tmp_path / "detections.json", [detection(1)], [detection(2, score=object())])
    assert list(tmp_path.iterdir()) == []


def test_writing_takes_no_more_memory_for_more_images(tmp_path: Path) -> None:
    found = [detection(number) for number in range(1, 101)]
    tracemalloc.start()
    path = write(tmp_path / "detections.json", *[found] * 300)
    merge_detections([path] * 2, tmp_path / "both.json")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < path.stat().st_size / 10


def test_joined_files_hold_every_detection_once_and_in_order(tmp_path: Path) -> None:
    parts = [
        write(tmp_path / "rank0.json", [detection(1), detection(1, score=0.25)], [detection(3)]),
        write(tmp_path / "rank1.json"),
        write(tmp_path / "rank2.json", [detection(2, name="],\n[")]),
        write(tmp_path / "rank3.json", []),
    ]
    assert merge_detections(parts, tmp_path / "all.json") == 4
    whole = json.loads((tmp_path / "all.json").read_text())
    assert whole == [entry for part in parts for entry in json.loads(part.read_text())]
    assert merge_detections([tmp_path / "all.json", parts[0]], tmp_path / "again.json") == 7
    assert merge_detections([], tmp_path / "none.json") == 0
    assert json.loads((tmp_path / "none.json").read_text()) == []


@pytest.mark.parametrize("cut_off", [1, 3, 40, 10**6])
def test_a_part_that_breaks_off_is_not_joined(cut_off: int, tmp_path: Path) -> None:
    whole = write(tmp_path / "rank0.json", [detection(1)])
    broken = write(tmp_path / "rank1.json", [detection(2), detection(3)])
    broken.write_bytes(broken.read_bytes()[:-cut_off])
    with pytest.raises(worker.WorkerError, match=r"rank1\.json"):
        merge_detections([whole, broken], tmp_path / "all.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rank0.json", "rank1.json"]


def test_a_worker_that_is_killed_in_its_evaluation_leaves_no_detections(cells: Cells, tmp_path: Path) -> None:
    values = cell("faster-rcnn_fpn", "r18", SMALL)
    trained = cells.job(values, phases=["train"])
    assert in_process(trained)[0] == 0
    content = json.loads((cells.dataset / "instances.json").read_text())
    many = tmp_path.parent / f"{tmp_path.name}-many.json"
    images = [{**image, "id": 10 * number + image["id"]} for number in range(4000) for image in content["images"]]
    many.write_text(json.dumps({**content, "images": images, "annotations": []}))
    job = cells.job(values, phases=["evaluate"], checkpoint=trained["paths"]["model"])
    job["dataset"]["val"]["annotations"] = str(many)
    process = cells.start(job, until='"eval_step"')
    process.kill()
    assert process.wait(timeout=30) == -9
    detections = Path(job["paths"]["detections"])
    assert not detections.exists()
    # What a dead worker left is no hindrance to the next.
    code, events = in_process({**job, "dataset": trained["dataset"]})
    assert code == 0
    assert len(json.loads(detections.read_text())) == named(events, "eval_stop")[0]["count"]
    assert sorted(path.name for path in detections.parent.glob("detections*")) == ["detections.json"]
