from __future__ import annotations

from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
from conftest import cell
from small import CPU, STEADY, batches_of, built, small_cell

from models import worker
from models.gluoncv import steps
from models.gluoncv.contexts import images_per_context, prepare_contexts, read_options
from models.gluoncv.detectors import Detector
from models.gluoncv.loop import backward
from models.gluoncv.optim import apply_gradients, build_trainer
from models.gluoncv.weights import parameters_of

TWO = (mx.cpu(0), mx.cpu(1))


def learning_of(detector: Detector) -> dict[str, mx.gluon.Parameter]:
    return {name: value for name, value in parameters_of(detector.net).items() if value.grad_req != "null"}


def test_two_contexts_have_the_gradients_of_one_on_the_whole_batch(dataset: Path) -> None:
    values = small_cell("retinanet_fpn", STEADY)
    found = []
    for contexts in ((CPU,), TWO):
        detector = built(values, contexts)
        (batch,) = batches_of(detector, dataset, 1)
        share = 2 // len(contexts)
        losses = backward(steps.build_step(detector, share), batch, share, list(contexts))
        gradients = {
            name: np.mean([value.grad(context).asnumpy() for context in contexts], axis=0)
            for name, value in learning_of(detector).items()
        }
        found.append((gradients, {name: np.mean([float(one.asscalar()) for one in v]) for name, v in losses.items()}))
    (whole, losses), (halves, other_losses) = found
    assert losses == pytest.approx(other_losses, rel=1e-5)
    for name, wanted in whole.items():
        assert np.abs(wanted).max() > 0, name
        assert np.abs(halves[name] - wanted).max() <= 1e-5 * np.abs(wanted).max(), name


def test_all_contexts_keep_the_same_weights(dataset: Path) -> None:
    made = built(small_cell("mask-rcnn_fpn", STEADY), TWO)
    step, learning = steps.build_step(made, 1), learning_of(made)
    before = {name: value.data(TWO[0]).asnumpy() for name, value in learning.items()}
    values = {"name": "adamw", "lr": 0.001, "momentum": 0.9, "weight_decay": 0.01}
    trainer = build_trainer(list(learning.values()), values, list(TWO), "device")
    for batch in batches_of(made, dataset, 2):
        backward(step, batch, 1, list(TWO))
        apply_gradients(trainer, list(learning.values()), list(TWO), 1.0)
    for name, value in learning.items():
        one, other = (value.data(context).asnumpy() for context in TWO)
        assert np.isfinite(one).all(), name
        assert np.array_equal(one, other), name
        # Images as small as these may lend no anchor and no region to the coarsest levels.
        assert name.startswith(("features.P5_conv1", "features.P6_")) or not np.array_equal(one, before[name]), name


def test_a_cpu_is_as_many_contexts_as_the_cell_says() -> None:
    values = cell("retinanet_fpn")
    assert prepare_contexts(values, ["cpu"]) == [mx.cpu(0)]
    assert prepare_contexts({**values, "options": {"cpu_contexts": 2}}, ["cpu"]) == list(TWO)


@pytest.mark.parametrize("count", [3, 4])
def test_a_batch_that_cannot_be_shared_evenly_is_refused(count: int) -> None:
    values = {**cell("retinanet_fpn"), "options": {"cpu_contexts": count}}
    with pytest.raises(worker.WorkerError, match=f"a batch of 2 images cannot be shared by {count} contexts"):
        prepare_contexts(values, ["cpu"])


def test_every_gpu_takes_its_own_images() -> None:
    values = {**cell("retinanet_fpn"), "gpus": 4}
    assert images_per_context(values, [mx.gpu(index) for index in range(4)]) == 2


def test_what_this_machine_or_this_worker_lacks_is_named() -> None:
    values = cell("retinanet_fpn")
    with pytest.raises(worker.WorkerError, match="unknown precision 'amp'; this worker has fp32"):
        prepare_contexts({**values, "precision": "amp"}, ["cpu"])
    for devices in (["gpu:99"], ["tpu:0"], ["gpu:x"]):
        with pytest.raises(worker.WorkerError, match=f"the job wants {devices[0]}; MXNet sees"):
            prepare_contexts(values, devices)


def test_a_seed_gives_the_same_numbers_again() -> None:
    def drawn(seed: int) -> list[float]:
        prepare_contexts({**cell("retinanet_fpn"), "seed": seed}, ["cpu"])
        return [float(mx.nd.random.uniform().asscalar()), np.random.random_sample()]

    first = drawn(2**40 + 1)
    assert drawn(2**40 + 1) == first
    assert drawn(5) != first


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cpu_contexts": 0}, "cpu_contexts: expected a count from 1 to 64, found 0"),
        ({"cpu_contexts": "x"}, "cpu_contexts: expected a count from 1 to 64, found 'x'"),
        ({"kvstore": "devise"}, "unknown kvstore 'devise'; this worker has device, nccl"),
        ({"cpu_context": 2}, "unknown option 'cpu_context'; this worker has cpu_contexts, kvstore"),
    ],
)
def test_options_that_this_worker_lacks_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(worker.WorkerError, match=said):
        read_options(options)
