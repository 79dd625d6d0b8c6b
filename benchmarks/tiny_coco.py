"""Real photographs: the main job on 100 images of COCO 2017, and Mask R-CNN R-18 overfitted on 4 of them.

These with every backend of the matrix; then the profile `full` of the torchvision backend as near as a CPU comes to it.

Needs ZOO_BENCH_TINY_COCO, a folder in COCO's own layout (train2017/, val2017/, annotations/). Everything goes through
`zoo-bench run` in a temporary workspace, whose matrix is the repository's.

    python benchmarks/tiny_coco.py cells      # a few iterations of all cells, profile photos
    python benchmarks/tiny_coco.py overfit    # box AP on the same 4 images; exits with 1 unless it exceeds 50 points
    python benchmarks/tiny_coco.py ranks      # profile full on 8 processes, only sizes and iterations changed
    python benchmarks/tiny_coco.py large      # profile full at 800 x 1333 in all eight cells, 2 iterations of 2 images
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

from zoo_bench.backends import find_backend
from zoo_bench.environments import ensure_environment
from zoo_bench.machine_config import load_machine_config
from zoo_bench.recipe import merge
from zoo_bench.record import Record
from zoo_bench.store import Store
from zoo_bench.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
OVERFIT_IMAGES = 4
OVERFIT_BOX_AP = 0.5

# Profile of the overfit: everything is seen again and again, nothing is flipped or frozen.
OVERFIT: dict[str, Any] = {
    "axes": {"detector": ["mask-rcnn_fpn"], "backbone": ["r18"]},
    "default_profile": "overfit",
    "profiles": {
        "overfit": {
            "description": "Mask R-CNN R-18 on 4 photographs until it knows them by heart",
            "set": {
                "dataset": "coco_2017",
                "gpus": 0,
                "trust": {"on_noise": "mark"},  # only AP is looked at
                "images_per_gpu": 4,
                "recipe": {
                    "base_batch_size": None,
                    "input": {"min_size": 224, "max_size": 320, "flip_probability": 0.0},
                    "model": {
                        "backbone_weights": "none",
                        "batch_norm": "live",
                        "frozen_stages": 0,
                        "fpn_channels": 128,
                        "box_head_channels": 256,
                        "mask_head_channels": 64,
                        "anchor_sizes": [8, 16, 32, 64, 128],
                        "rpn_pre_nms": {"train": 500, "test": 500},
                        "rpn_post_nms": {"train": 250, "test": 250},
                        "roi_batch_per_image": 64,
                        "box_loss_beta": 1 / 9,
                    },
                    "optimizer": {"name": "adamw", "lr": 0.001, "clip_norm": 10.0},
                    "lr_schedule": {"iterations": 150, "milestones": [120], "warmup_iterations": 20},
                },
                "measure": {"warmup_iterations": 10, "infer_images": 8, "infer_warmup_images": 2},
                "runtime": {"data_workers": 0},
            },
        }
    },
}

# What a CPU can do of the profile `full`: everything as it is, but for the devices and how much is done.
ON_CPU: dict[str, Any] = {
    "axes": {"backend": ["torchvision"]},
    "profiles": {
        "full": {
            "set": {
                "gpus": 0,
                "measure": {"warmup_iterations": 1, "infer_images": 2, "infer_warmup_images": 1},
                "trust": {"on_noise": "mark"},
                "runtime": {"checkpoint_interval": 2},
            }
        }
    },
}
RANKS: dict[str, Any] = {
    "images_per_gpu": 16,
    "options": {"cpu_ranks": 8},
    "recipe": {
        "input": {"min_size": 96, "max_size": 160},
        "lr_schedule": {"iterations": 4, "milestones": [3]},
        "model": {"rpn_pre_nms": {"train": 200, "test": 100}, "rpn_post_nms": {"train": 100, "test": 50}},
    },
    "runtime": {"data_workers": 1},
}
LARGE: dict[str, Any] = {
    "images_per_gpu": 2,
    # Not scaled to the smaller batch: that would be more iterations.
    "recipe": {"base_batch_size": None, "lr_schedule": {"iterations": 2, "milestones": []}},
    "measure": {"evaluate_images": 2, "warmup_iterations": 0},
    "runtime": {"data_workers": 0},
}
# Stand-ins for the ImageNet weights, which a machine without a network has not: read from where the real ones lie. Each
# block adds little, or under frozen batch norm a random ResNet's activations would grow without end.
STAND_INS = """
import sys
from pathlib import Path
import torch
from models.imagenet import FILES
from models.torchvision.backbones import BUILDERS
for name in sys.argv[2:]:
    torch.manual_seed(0)
    state = BUILDERS[name]().state_dict()
    for key, value in state.items():
        if key.endswith("bn3.weight"):
            value.fill_(0.2)
    torch.save(state, Path(sys.argv[1]) / FILES[name])
"""


def workspace(folder: Path, data: Path, changes: dict[str, Any]) -> Path:
    """Make a workspace with the repository's matrix, changed, and the dataset coco_2017 pointed at `data`."""
    matrix = merge(yaml.safe_load((ROOT / "matrix.yaml").read_text(encoding="utf-8")), changes)
    (folder / "matrix.yaml").write_text(yaml.safe_dump(matrix, sort_keys=False), encoding="utf-8")
    (folder / "machine.yaml").write_text(yaml.safe_dump({"datasets": {"coco_2017": str(data)}}), encoding="utf-8")
    environments = ROOT / ".zoo-bench" / "envs"
    if environments.is_dir():  # those of the checkout, not another 5 GB
        (folder / ".zoo-bench").mkdir()
        (folder / ".zoo-bench" / "envs").symlink_to(environments)
    return folder


def zoo_bench(folder: Path, *arguments: str) -> int:
    """Call the command line in a workspace."""
    return subprocess.run([sys.executable, "-m", "zoo_bench", *arguments], cwd=folder, check=False).returncode


def cells(data: Path) -> int:
    """Run the profile `photos`: a few iterations of every cell."""
    with tempfile.TemporaryDirectory() as folder:
        root = workspace(Path(folder), data, {})
        run, render = (["run", "--profile", "photos"], ["render", "--profile", "photos", "--tables", "apart"])
        backends = ",".join(yaml.safe_load((root / "matrix.yaml").read_text(encoding="utf-8"))["axes"]["backend"])
        return zoo_bench(root, *run) or zoo_bench(root, *render, "--backend", backends)


def overfit(data: Path) -> int:
    """Train on 4 images and evaluate on the same 4; 1 unless box AP exceeds the limit."""
    with tempfile.TemporaryDirectory() as folder:
        same = Path(folder) / "four"
        _four_images(data, same)
        root = workspace(Path(folder), same, OVERFIT)
        code = zoo_bench(root, "run")
        records = Store(root / "results").load().runs.records()
        reached = [_reached(record) for record in records]
        return code or int(not reached or not all(reached))


def ranks(data: Path) -> int:
    """Mask R-CNN R-50 by the profile `full`, on eight processes."""
    chosen = {"axes": {"detector": ["mask-rcnn_fpn"], "backbone": ["r50"]}}
    return _on_cpu(data, merge(chosen, {"profiles": {"full": {"set": RANKS}}}), ["r50"])


def large(data: Path) -> int:
    """All cells of the profile `full`, at its image size and widths."""
    return _on_cpu(data, {"profiles": {"full": {"set": LARGE}}}, ["r50", "r101"])


def _on_cpu(data: Path, changes: dict[str, Any], backbones: list[str]) -> int:
    """Run the profile `full` with ON_CPU and `changes` laid over it; print what became of each cell."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
        root = workspace(Path(folder), data, merge(ON_CPU, changes))
        found = Workspace.locate(root)
        python = ensure_environment(find_backend("torchvision", found), found, load_machine_config(found), print).python
        weights = Path(cache) / "hub" / "checkpoints"
        weights.mkdir(parents=True)
        subprocess.run([str(python), "-c", STAND_INS, str(weights), *backbones], cwd=ROOT, check=True)
        os.environ["TORCH_HOME"] = cache
        code = zoo_bench(root, "run")
        records = Store(root / "results").load().runs.records()
        rows = [_told(record) for record in records]
        print(tabulate(rows, headers=["cell", "status", "iterations", "s/iter", "memory GB", "images scored"]))
        return code or int(not records)


def _told(record: Record) -> list[object]:
    train, memory, scores = (getattr(record.measurements, name) for name in ("train", "memory", "scores"))
    return [
        record.cell_id,
        record.status,
        train and train.iterations_run,
        train and round(train.mean_s, 2),
        memory and round(memory.host_bytes / 2**30, 1),
        scores and scores.images,
    ]


def _reached(record: Record) -> bool:
    """Print what a record reached; whether that is enough."""
    scores = record.measurements.scores
    if scores is None or scores.box is None or scores.mask is None:
        return False
    box_ap, mask_ap = scores.box.ap or 0.0, scores.mask.ap or 0.0
    reached = f"box AP {100 * box_ap:.1f} (limit {100 * OVERFIT_BOX_AP:.0f}), mask AP {100 * mask_ap:.1f}"
    print(f"{record.cell_id} on {scores.images} images: {reached}")
    return box_ap > OVERFIT_BOX_AP


def _four_images(data: Path, target: Path) -> None:
    """Write a dataset whose train and val are the same few photographs, the first with 2 to 8 objects each."""
    content = json.loads((data / "annotations" / "instances_train2017.json").read_text(encoding="utf-8"))
    of_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in content["annotations"]:
        of_image.setdefault(annotation["image_id"], []).append(annotation)
    fitting = [
        image
        for image in content["images"]
        if 2 <= len(of_image.get(image["id"], ())) <= 8 and not any(a["iscrowd"] for a in of_image[image["id"]])
    ][:OVERFIT_IMAGES]
    content["images"] = fitting
    content["annotations"] = [annotation for image in fitting for annotation in of_image[image["id"]]]
    (target / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (target / "annotations" / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")
        (target / split).symlink_to((data / "train2017").resolve())


def main(arguments: list[str]) -> int:
    """Do what is asked for; without arguments, both."""
    named = os.environ.get("ZOO_BENCH_TINY_COCO")
    if not named:
        print("ZOO_BENCH_TINY_COCO is not set; it names a folder with train2017/, val2017/ and annotations/")
        return 0
    tasks = {"cells": cells, "overfit": overfit, "ranks": ranks, "large": large}
    wanted = arguments or list(tasks)
    unknown = [name for name in wanted if name not in tasks]
    if unknown:
        print(f"{unknown[0]}: not one of {', '.join(tasks)}", file=sys.stderr)
        return 2
    return max(tasks[name](Path(named).absolute()) for name in wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
