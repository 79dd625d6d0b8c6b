"""The devices of a job as MXNet's contexts, and what has to be set before anything runs on them."""

import random
from typing import Any, Dict, List, NamedTuple

import mxnet as mx
import numpy as np

from models import worker
from models.schedule import batch_size

KVSTORES = ("device", "nccl")
MOST_CONTEXTS = 64


def prepare_contexts(cell: Dict[str, Any], devices: List[str]) -> List[mx.Context]:
    """Seed everything; return a context for each GPU, or as many of the CPU as ``options.cpu_contexts`` says (1).

    Raises WorkerError for what this worker cannot do.
    """
    options = read_options(cell["options"])
    if cell["precision"] != "fp32":
        raise worker.WorkerError(f"unknown precision {cell['precision']!r}; this worker has fp32")
    random.seed(cell["seed"])
    np.random.seed(cell["seed"] % 2**32)
    mx.random.seed(cell["seed"] % 2**31)
    if devices == ["cpu"]:
        contexts = [mx.cpu(index) for index in range(options.cpu_contexts)]
    else:
        contexts = [_gpu(name) for name in devices]
    images_per_context(cell, contexts)
    return contexts


class Options(NamedTuple):
    """A cell's ``options``: among how many contexts a CPU's batch is shared, and how contexts exchange gradients."""

    cpu_contexts: int = 1
    kvstore: str = KVSTORES[0]


def read_options(options: Dict[str, Any]) -> Options:
    """The options, with what is not said. Raises WorkerError for one that this worker lacks, or of another kind."""
    unknown = [name for name in options if name not in Options._fields]
    if unknown:
        raise worker.WorkerError(f"unknown option {unknown[0]!r}; this worker has {', '.join(Options._fields)}")
    found = Options(**options)
    count = found.cpu_contexts
    if type(count) is not int or not 1 <= count <= MOST_CONTEXTS:
        raise worker.WorkerError(f"options: cpu_contexts: expected a count from 1 to {MOST_CONTEXTS}, found {count!r}")
    if found.kvstore not in KVSTORES:
        raise worker.WorkerError(f"unknown kvstore {found.kvstore!r}; this worker has {', '.join(KVSTORES)}")
    return found


def images_per_context(cell: Dict[str, Any], contexts: List[mx.Context]) -> int:
    """How many images of a batch each context trains on. Raises WorkerError where they cannot share it evenly."""
    images = batch_size(cell)
    if not contexts or images % len(contexts):
        raise worker.WorkerError(f"a batch of {images} images cannot be shared by {len(contexts)} contexts")
    return images // len(contexts)


def _gpu(name: str) -> mx.Context:
    kind, _, index = name.partition(":")
    count = mx.context.num_gpus()
    if kind != "gpu" or not index.isdigit() or int(index) >= count:
        raise worker.WorkerError(f"the job wants {name}; MXNet sees {count} GPUs")
    return mx.gpu(int(index))
