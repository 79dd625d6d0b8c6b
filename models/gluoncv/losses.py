"""The losses of Faster and Mask R-CNN, as GluonCV trains them, each from what its networks return in training."""

from typing import Any, Tuple

from mxnet.gluon import HybridBlock

# Where smooth L1 of the region proposals' offsets turns from a square to a line, in Detectron and GluonCV.
PROPOSAL_BETA = 1 / 9


class ProposalLoss(HybridBlock):
    """Of the region proposal network: whether the sampled anchors are objects, and where the objects among them are.

    scores [B, N, 1] and offsets [B, N, 4] of all anchors; of the sampled ones their places among all B * N, what they
    are (1, 0, or -1: none was left to sample) and the offsets of those that are objects: [S], [S] and [S, 4].
    """

    def hybrid_forward(  # noqa: D102
        self,
        F: Any,
        scores: Any,
        offsets: Any,
        places: Any,
        wanted: Any,
        targets: Any,
    ) -> Tuple[Any, Any]:
        scores, offsets = F.take(scores.reshape((-1,)), places), F.take(offsets.reshape((-1, 4)), places)
        count = F.maximum((wanted >= 0).sum(), F.ones((1,)))
        entropy = cross_entropy(F, scores, wanted) * (wanted >= 0)
        far = smooth_l1(F, offsets - targets, PROPOSAL_BETA).sum(axis=1) * (wanted > 0)
        return F.broadcast_div(entropy.sum(), count), F.broadcast_div(far.sum(), count)


class RegionLoss(HybridBlock):
    """Of the regions: their classes, and where the objects among them are.

    scores [B, R, K + 1], offsets [B, P, K, 4], wanted classes [B, R] (0 background, -1 not sampled), targets and
    weights [B, P, K, 4]. ``box_loss_beta`` is the recipe's.
    """

    def __init__(self, box_loss_beta: float) -> None:
        super().__init__()
        self._beta = box_loss_beta

    def hybrid_forward(  # noqa: D102
        self,
        F: Any,
        scores: Any,
        offsets: Any,
        wanted: Any,
        targets: Any,
        weights: Any,
    ) -> Tuple[Any, Any]:
        counted = wanted >= 0
        count = F.maximum(counted.sum(), F.ones((1,)))
        entropy = -F.pick(F.log_softmax(scores, axis=-1), F.relu(wanted), axis=-1) * counted
        far = smooth_l1(F, offsets - targets, self._beta) * weights
        return F.broadcast_div(entropy.sum(), count), F.broadcast_div(far.sum(), count)


class MaskLoss(HybridBlock):
    """Of the masks [B, P, K, S, S]: per pixel, of the right class alone. ``weights`` is 1 there and 0 elsewhere."""

    def hybrid_forward(self, F: Any, masks: Any, targets: Any, weights: Any) -> Any:  # noqa: D102
        count = F.maximum(weights.sum(), F.ones((1,)))
        return F.broadcast_div((cross_entropy(F, masks, targets) * weights).sum(), count)


def smooth_l1(F: Any, away: Any, beta: float) -> Any:
    """Smooth L1 (Girshick 2015, arXiv:1504.08083) of every number: a square up to ``beta``, then a line; 0: L1."""
    return F.smooth_l1(away, scalar=beta**-0.5) if beta else F.abs(away)


def cross_entropy(F: Any, logits: Any, wanted: Any) -> Any:
    """Of independent yes-or-no questions, never a logarithm of zero."""
    return F.relu(logits) - logits * wanted + F.Activation(-F.abs(logits), act_type="softrelu")
