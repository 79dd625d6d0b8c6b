"""A job's phases: what they need is read and built once, then train, infer and evaluate go in order."""

from pathlib import Path
from typing import Any, Dict, List

import mxnet as mx

from models import report, worker
from models.coco import Split, read_splits
from models.gluoncv import infer
from models.gluoncv.contexts import images_per_context, prepare_contexts
from models.gluoncv.data import Loaders
from models.gluoncv.detectors import Detector, build_detector
from models.gluoncv.loop import train
from models.gluoncv.probe import versions
from models.gluoncv.weights import load_detector, read_category_ids


def run(job: Dict[str, Any], events: worker.EventWriter) -> None:
    """Everything between ``init_start`` and ``run_stop``."""
    cell = job["cell"]
    # First of all: the loading processes are to be forked before MXNet computes anything.
    with Loaders(cell["runtime"]["data_workers"]) as loaders:
        contexts = prepare_contexts(cell, job["devices"])
        splits = read_splits(job)
        detector = prepare_detector(job, splits, contexts)
        events.write(
            "init_stop",
            environment=versions(),
            parameters=detector.parameter_count(),
            images={name: len(split.samples) for name, split in splits.items()},
        )
        work = {
            "train": lambda: train(detector, splits["train"], contexts, loaders, job, events),
            "infer": lambda: infer.measure_inference(detector, splits["val"], contexts[0], events),
            "evaluate": lambda: infer.evaluate(detector, splits["val"], contexts[0], loaders, job, events),
        }
        report.run_phases(events, job["phases"], work)


def prepare_detector(job: Dict[str, Any], splits: Dict[str, Split], contexts: List[mx.Context]) -> Detector:
    """The cell's detector on its contexts: to be trained, or loaded from the job's checkpoint."""
    cell, checkpoint = job["cell"], None if "train" in job["phases"] else job["checkpoint"]
    if "train" not in job["phases"] and not checkpoint:
        raise worker.WorkerError("nothing to measure: the job neither trains nor names a checkpoint", kind="data")
    category_ids = read_category_ids(Path(checkpoint)) if checkpoint else None
    if category_ids is None:
        category_ids = tuple(sorted({number for split in splits.values() for number in split.category_ids}))
    most_objects = max(len(sample.boxes) for split in splits.values() for sample in split.samples)
    share = images_per_context(cell, contexts)
    detector = build_detector(cell, category_ids, contexts, share, most_objects, bool(checkpoint))
    if checkpoint:
        load_detector(detector.net, Path(checkpoint))
    return detector
