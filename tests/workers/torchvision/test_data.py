from __future__ import annotations

import shutil
from dataclasses import fields, is_dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import HEIGHT, SMALL, WIDTH, block, cell
from PIL import Image
from pycocotools import mask as rle
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from models import worker
from models.coco import Sample, Samples, load_masks, load_pixels, read_split, with_objects
from models.torchvision import data
from models.torchvision.batch import Batch, Outlines, Target
from models.torchvision.resize import output_size, resize_image

LIMITS = [(800, 1333), (64, 96), (48, 60), (33, 1000)]


@pytest.fixture
def samples(dataset: Path) -> Samples:
    return with_objects(read_split(dataset, dataset / "instances.json", dataset / "index", masks=True).samples)


def loaded(sample: Sample, flip: bool, min_size: int, max_size: int) -> tuple[torch.Tensor, Target]:
    item = data.TrainingSet([sample], min_size, max_size)[0, flip]
    batch = data.collate([item]).batch()
    (size,) = batch.sizes
    return batch.images[0, :, : size[0], : size[1]], batch.targets[0]


def torchvisions(sample: Sample, flip: bool, min_size: int, max_size: int) -> tuple[torch.Tensor, dict[str, Any]]:
    """What torchvision trains on: floats from 0 to 1 without padding, boxes, masks."""
    pixels = torch.from_numpy(load_pixels(sample)).permute(2, 0, 1).float() / 255
    boxes, masks = torch.from_numpy(sample.boxes.copy()), torch.from_numpy(load_masks(sample))
    if flip:
        pixels, masks = pixels.flip(-1), masks.flip(-1)
        boxes = torch.stack([WIDTH - boxes[:, 2], boxes[:, 1], WIDTH - boxes[:, 0], boxes[:, 3]], dim=1)
    transform = GeneralizedRCNNTransform(min_size, max_size, [0.0] * 3, [1.0] * 3)
    images, targets = transform([pixels], [{"boxes": boxes, "masks": masks}])
    height, width = images.image_sizes[0]
    return images.tensors[0, :, :height, :width], targets[0]


def rasterised(outlines: Outlines, number: int, size: tuple[int, int]) -> np.ndarray:
    """The mask of one object, by pycocotools."""
    if outlines.planes[number] >= 0:
        return outlines.bitmaps[outlines.planes[number]].numpy()
    ends = [0, *outlines.polygon_ends.tolist()]
    first, last = ([0, *outlines.object_ends.tolist()][number + step] for step in (0, 1))
    polygons = [outlines.points[ends[part] : ends[part + 1]].flatten().tolist() for part in range(first, last)]
    return rle.decode(rle.merge(rle.frPyObjects(polygons, *size)))


def test_sizes_are_torchvisions() -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        height, width = (int(side) for side in draw.integers(20, 300, 2))
        least, most = (int(side) for side in draw.integers(20, 300, 2))
        transform = GeneralizedRCNNTransform(least, max(least, most), [0.0] * 3, [1.0] * 3)
        (size,) = transform([torch.zeros(3, height, width)])[0].image_sizes
        assert output_size((height, width), least, max(least, most)) == size


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("limits", LIMITS)
def test_images_and_boxes_are_torchvisions(samples: Samples, limits: tuple[int, int], flip: bool) -> None:
    for sample in samples:
        image, target = loaded(sample, flip, *limits)
        wanted, its = torchvisions(sample, flip, *limits)
        assert image.dtype == torch.uint8
        assert image.shape == wanted.shape
        difference = (image - wanted * 255).abs()
        assert difference.max() <= 1.01
        assert difference.mean() < 0.5
        torch.testing.assert_close(target.boxes, its["boxes"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("limits", LIMITS)
def test_outlines_are_the_masks_that_torchvision_resizes(samples: Samples, limits: tuple[int, int], flip: bool) -> None:
    for sample in samples:
        image, target = loaded(sample, flip, *limits)
        _, its = torchvisions(sample, flip, *limits)
        assert target.outlines is not None
        for number, mask in enumerate(its["masks"].numpy()):
            found = rasterised(target.outlines, number, image.shape[1:])
            if target.outlines.planes[number] >= 0:
                assert np.array_equal(found, mask)  # it came as run lengths
            else:
                # torchvision resizes whole pixels: the two may differ by one along the edge.
                around = [np.roll(mask, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
                inside, outside = np.logical_and.reduce(around), ~np.logical_or.reduce(around)
                assert found[inside].all()
                assert not found[outside].any()


def test_run_lengths_become_bitmaps_and_polygons_do_not(samples: Samples) -> None:
    _, target = loaded(samples[0], False, 128, 160)
    assert target.labels.tolist() == [1, 3]
    assert target.outlines is not None
    assert target.outlines.planes.tolist() == [-1, 0]
    assert target.outlines.object_ends.tolist() == [1, 1]
    assert target.outlines.points.tolist() == [[20, 40], [80, 40], [80, 88], [20, 88]]
    whole = block(50, 8, 16, 16).repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(target.outlines.bitmaps[0], whole)


def test_a_batch_is_black_beyond_its_images() -> None:
    items = [
        (resize_image(torch.full((3, *size), 255, dtype=torch.uint8), size, False), None)
        for size in ((40, 70), (64, 31))
    ]
    batch = data.collate(items)
    assert batch.images.shape == (2, 3, 64, 96)
    assert batch.sizes == ((40, 70), (64, 31))
    for image, (height, width) in zip(batch.images, batch.sizes, strict=True):
        assert (image[:, :height, :width] == 255).all()
        assert image.sum(dtype=torch.int64) == 3 * 255 * height * width


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff"])
def test_every_kind_of_image_is_what_pillow_makes_of_it(samples: Samples, tmp_path: Path, mode: str, kind: str) -> None:
    if (mode, kind) == ("CMYK", "png"):
        pytest.skip("png has no CMYK")
    path = tmp_path / f"image.{kind}"
    Image.fromarray(load_pixels(samples[0])).convert(mode).save(path)
    sample = samples[0]._replace(path=path)
    assert np.array_equal(data.load_image(sample).permute(1, 2, 0), load_pixels(sample))


def broken(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no image of their annotation, and what is said of them."""
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-200])
    (tmp_path / "none.jpg").write_bytes(b"\xff\xd8\xff no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    Image.fromarray(noise[:10, :12]).save(tmp_path / "small.jpg")
    names = ("cut.jpg", "none.jpg", "empty.jpg", "missing.jpg")
    said = {name: (tmp_path / name, "cannot read the image") for name in names}
    return {**said, "small.jpg": (tmp_path / "small.jpg", "is 12 x 10, its annotation says 80 x 64")}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", ["cut.jpg", "none.jpg", "empty.jpg", "missing.jpg", "small.jpg"])
def test_an_image_that_breaks_in_a_loading_process_is_one_line(
    samples: Samples, tmp_path: Path, workers: int, name: str
) -> None:
    path, said = broken(tmp_path)[name]
    bad = [sample._replace(path=path) for sample in samples]
    for stream in (data.image_stream(bad, workers), data.training_batches(bad, small_cell(workers))):
        with pytest.raises(worker.WorkerError, match=said) as caught:
            next(stream)
        assert caught.value.kind == "data"
        assert "\n" not in str(caught.value)


def small_cell(workers: int) -> dict[str, Any]:
    values = cell("mask-rcnn_fpn", "r18", SMALL)
    values["runtime"]["data_workers"] = workers
    return values


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same throughout: tensors, and what holds them."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other) and one.dtype == other.dtype
    if is_dataclass(one):
        return all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, tuple):
        return len(one) == len(other) and all(same(mine, its) for mine, its in zip(one, other, strict=True))
    return bool(one == other)


def first(samples: Samples, workers: int, count: int, **changes: Any) -> list[Batch]:
    return list(islice(data.training_batches(samples, small_cell(workers), **changes), count))


def test_worker_processes_change_nothing(samples: Samples) -> None:
    for one, other in zip(first(samples, 0, 6), first(samples, 2, 6), strict=True):
        assert same(one, other)


def test_batches_begin_where_a_training_was_left_and_are_shared_among_ranks(samples: Samples) -> None:
    whole = first(samples, 0, 5)
    assert all(same(one, other) for one, other in zip(whole[3:], first(samples, 0, 2, start=3), strict=True))
    for rank in (0, 1):
        for batch, part in zip(whole, first(samples, 0, 5, share=(rank, 2)), strict=True):
            assert same(part.targets, batch.targets[rank : rank + 1])
            assert part.sizes == batch.sizes[rank : rank + 1]


def test_without_masks_there_are_no_outlines(dataset: Path) -> None:
    split = read_split(dataset, dataset / "instances.json", dataset / "index", masks=False)
    batch = first(with_objects(split.samples), 0, 1)[0]
    assert [target.outlines for target in batch.targets] == [None, None]


def test_loading_that_shared_memory_cannot_hold_is_refused(samples: Samples) -> None:
    values = cell("retinanet_fpn")
    values["runtime"]["data_workers"] = 10**6
    with pytest.raises(worker.WorkerError, match=r"/dev/shm has \d+ MB, and 1000000 loading processes hold up to"):
        data.training_batches(samples, values)
    data.check_room(0, 10**18)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_vanishes_in_mid_run_is_named(dataset: Path, tmp_path: Path, workers: int) -> None:
    folder = shutil.copytree(dataset, tmp_path / "own")
    samples = with_objects(read_split(folder, folder / "instances.json", folder / "index", masks=True).samples)
    values = cell("retinanet_fpn")
    values["runtime"]["data_workers"] = workers
    batches = data.training_batches(samples, values)
    next(batches)
    gone = Path(samples[0].path)
    gone.unlink()
    with pytest.raises(worker.WorkerError, match=gone.name) as caught:
        for _ in batches:
            pass
    assert caught.value.kind == "data"
