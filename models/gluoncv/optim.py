"""The optimizer of a recipe, and the norm its gradients are cut to."""

import math
from typing import Any, Dict, List, Optional, Tuple

import mxnet as mx
from mxnet import gluon

from models import worker

EPSILON, BETA2 = 1e-8, 0.999


@mx.optimizer.register
class DecoupledAdam(mx.optimizer.Optimizer):
    """AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101), in every step the same as torch.optim.AdamW.

    MXNet 1 has the operator and no optimizer for it. The operator's step, eta (lr m / (sqrt(v) + epsilon) + wd w),
    knows no correction of the moments' bias: it goes into lr and epsilon.
    """

    def __init__(self, beta1: float, **values: Any) -> None:
        super().__init__(**values)
        self._beta1 = beta1

    def create_state(self, index: int, weight: mx.nd.NDArray) -> Tuple[mx.nd.NDArray, mx.nd.NDArray]:  # noqa: ARG002
        """The two moments, zero at first."""
        return mx.nd.zeros_like(weight), mx.nd.zeros_like(weight)

    def update(self, index: int, weight: mx.nd.NDArray, grad: mx.nd.NDArray, state: Any) -> None:
        """One step of one parameter."""
        self._update_count(index)
        lr, steps = self._get_lr(index), self._index_update_count[index]
        first, second = 1 - self._beta1**steps, math.sqrt(1 - BETA2**steps)
        mx.nd.contrib.adamw_update(
            weight,
            grad,
            *state,
            self.rescale_grad,
            lr=lr * second / first,
            eta=1.0,
            beta1=self._beta1,
            beta2=BETA2,
            epsilon=EPSILON * second,
            wd=lr * self._get_wd(index),
            out=weight,
        )


def build_trainer(
    learning: List[gluon.Parameter], values: Dict[str, Any], contexts: List[mx.Context], kvstore: str
) -> gluon.Trainer:
    """SGD with momentum or AdamW with beta1 = momentum.

    The contexts exchange gradients through the kvstore: "device", or "nccl" on GPUs.
    """
    if kvstore == "nccl" and contexts[0].device_type != "gpu":
        raise worker.WorkerError("kvstore nccl exchanges gradients between GPUs; use device on CPUs")
    chosen = {
        "sgd": ("sgd", {"momentum": values["momentum"]}),
        "adamw": ("decoupledadam", {"beta1": values["momentum"]}),
    }
    if values["name"] not in chosen:
        raise worker.WorkerError(f"unknown optimizer {values['name']!r}; this worker has sgd, adamw")
    name, own = chosen[values["name"]]
    own.update(learning_rate=values["lr"], wd=values["weight_decay"])
    exchange = kvstore if len(contexts) > 1 else None
    return gluon.Trainer(learning, name, own, kvstore=exchange, update_on_kvstore=False)


def apply_gradients(
    trainer: gluon.Trainer, learning: List[gluon.Parameter], contexts: List[mx.Context], clip_norm: Optional[float]
) -> None:
    """Average the contexts' gradients, cut their norm, and take the step."""
    trainer.allreduce_grads()
    if clip_norm is not None:
        for context in contexts:
            # They are summed by now, and averaged only in the step.
            gradients = [parameter.grad(context) for parameter in learning]
            gluon.utils.clip_global_norm(gradients, clip_norm * len(contexts), check_isfinite=False)
    trainer.update(len(contexts))
