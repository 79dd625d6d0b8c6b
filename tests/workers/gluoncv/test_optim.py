from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon
from small import CPU

from models import worker
from models.gluoncv.optim import apply_gradients, build_trainer

TWO = [mx.cpu(0), mx.cpu(1)]
PLAIN = {"name": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}


def parameter(begin: list[float], contexts: list[mx.Context], name: str = "weight") -> gluon.Parameter:
    made = gluon.Parameter(name, shape=(len(begin),), init=mx.init.Constant(mx.nd.array(begin)))
    made.initialize(ctx=contexts)
    return made


def step(
    parameters: list[gluon.Parameter],
    gradients: list[list[list[float]]],
    values: dict[str, Any],
    contexts: list[mx.Context],
    clip_norm: float | None = None,
    trainer: gluon.Trainer | None = None,
) -> gluon.Trainer:
    """One step with these gradients: of each context, of each parameter."""
    trainer = trainer or build_trainer(parameters, values, contexts, "device")
    sums = []
    with autograd.record():
        for context, own in zip(contexts, gradients):
            pairs = zip(parameters, own)
            sums.append(sum((one.data(context) * mx.nd.array(wanted, context)).sum() for one, wanted in pairs))
    autograd.backward(sums)
    apply_gradients(trainer, parameters, contexts, clip_norm)
    return trainer


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("contexts", [[CPU], TWO])
def test_optimizers_lower_a_loss_and_leave_frozen_weights(name: str, contexts: list[mx.Context]) -> None:
    free, frozen = parameter([1, 1, 1], contexts, "free"), parameter([1, 1, 1], contexts, "frozen")
    frozen.grad_req = "null"
    values = {"name": name, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    trainer = build_trainer([free], values, contexts, "device")
    for _ in range(5):
        with autograd.record():
            losses = [((free.data(context) + frozen.data(context)) ** 2).sum() for context in contexts]
        autograd.backward(losses)
        apply_gradients(trainer, [free], contexts, None)
    for context in contexts:
        assert (free.data(context).asnumpy() < 1).all()
        assert (frozen.data(context).asnumpy() == 1).all()


def test_gradients_of_contexts_are_averaged() -> None:
    weight = parameter([0, 0], TWO)
    step([weight], [[[1, 0]], [[3, 4]]], PLAIN, TWO)
    for context in TWO:
        assert weight.data(context).asnumpy().tolist() == [-2, -2]


@pytest.mark.parametrize("contexts", [[CPU], TWO])
def test_the_norm_of_the_averaged_gradient_is_cut(contexts: list[mx.Context]) -> None:
    one, other = parameter([0, 0], contexts, "one"), parameter([0], contexts, "other")
    gradients = [[[6, 0], [8]], [[0, 6], [8]]]
    average = np.mean([np.concatenate(own) for own in gradients[: len(contexts)]], axis=0)
    step([one, other], gradients[: len(contexts)], PLAIN, contexts, clip_norm=2.0)
    for context in contexts:
        applied = -np.concatenate([one.data(context).asnumpy(), other.data(context).asnumpy()])
        assert np.linalg.norm(applied) == pytest.approx(2.0, rel=1e-5)
        np.testing.assert_allclose(applied, average * 2 / np.linalg.norm(average), rtol=1e-5)


@pytest.mark.parametrize("contexts", [[CPU], TWO])
def test_a_gradient_below_the_norm_stays_as_it_is(contexts: list[mx.Context]) -> None:
    weight = parameter([0, 0], contexts)
    step([weight], [[[3, 4]]] * len(contexts), PLAIN, contexts, clip_norm=5.5)
    np.testing.assert_allclose(weight.data(contexts[-1]).asnumpy(), [-3, -4], rtol=1e-6)


def test_sgd_adds_momentum_and_decay_as_the_papers_do() -> None:
    values = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    weight, expected, moment = parameter([1, -2], [CPU]), np.array([1.0, -2.0]), np.zeros(2)
    trainer, draw = None, np.random.RandomState(0)
    for _ in range(5):
        gradient = draw.normal(size=2)
        trainer = step([weight], [[gradient.tolist()]], values, [CPU], trainer=trainer)
        moment = 0.9 * moment + gradient + 0.01 * expected
        expected = expected - 0.1 * moment
    np.testing.assert_allclose(weight.data().asnumpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("contexts", [[CPU], TWO])
def test_adamw_is_the_papers(contexts: list[mx.Context]) -> None:
    values = {"name": "adamw", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}
    weight, expected = parameter([1, -2, 0.5], contexts, "layer_bias"), np.array([1, -2, 0.5])
    first, second = np.zeros(3), np.zeros(3)
    trainer, draw = build_trainer([weight], values, contexts, "device"), np.random.RandomState(0)
    for number in range(1, 9):
        lr = 0.01 / number  # a schedule between the steps
        trainer.set_learning_rate(lr)
        gradients = draw.normal(size=(len(contexts), 3)) * 10.0 ** draw.randint(-4, 3, 3)
        step([weight], [[own.tolist()] for own in gradients], values, contexts, trainer=trainer)
        average = gradients.mean(axis=0)
        first, second = 0.9 * first + 0.1 * average, 0.999 * second + 0.001 * average**2
        rate = (first / (1 - 0.9**number)) / (np.sqrt(second / (1 - 0.999**number)) + 1e-8)
        expected = expected - lr * rate - lr * 0.1 * expected
        for context in contexts:
            np.testing.assert_allclose(weight.data(context).asnumpy(), expected, rtol=1e-5)


def test_an_unknown_optimizer_names_the_known_ones() -> None:
    with pytest.raises(worker.WorkerError, match="sgd, adamw"):
        build_trainer([parameter([0], [CPU])], {**PLAIN, "name": "lamb"}, [CPU], "device")


def test_nccl_is_refused_on_cpus() -> None:
    with pytest.raises(worker.WorkerError, match="use device on CPUs"):
        build_trainer([parameter([1.0], TWO)], PLAIN, TWO, "nccl")
