"""Which images an iteration trains on, how many iterations there are, and at what learning rate.

The same for every worker, so that two backends see the same images in the same order. numpy and Python 3.6 syntax.
"""

from itertools import cycle, islice
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import numpy as np

from models.coco import Sample

Drawn = Tuple[int, bool]


def batch_size(cell: Dict[str, Any]) -> int:
    """The images of one iteration, of all devices together; a CPU counts as one."""
    return int(cell["images_per_gpu"] * max(cell["gpus"], 1))


def planned_iterations(cell: Dict[str, Any]) -> int:
    """The iterations a cell trains for: of its whole schedule, or the first of them that are measured."""
    scheduled = int(cell["recipe"]["lr_schedule"]["iterations"])
    return min(scheduled, cell["measure"]["train_iterations"] or scheduled)


def learning_rate(iteration: int, base: float, schedule: Dict[str, Any]) -> float:
    """Learning rate of an iteration (from 1): linear warm-up from ``warmup_factor``, then steps at the milestones.

    The schedule of Detectron and torchvision: the factor grows from ``warmup_factor`` to 1 over
    ``warmup_iterations``, and is multiplied by ``gamma`` after each milestone.
    """
    done = iteration - 1
    factor = float(schedule["gamma"] ** sum(done >= milestone for milestone in schedule["milestones"]))
    if done < schedule["warmup_iterations"]:
        share = done / schedule["warmup_iterations"]
        factor *= schedule["warmup_factor"] * (1 - share) + share
    return base * factor


def largest_samples(samples: Sequence[Sample], sizes: Dict[str, int], count: int) -> List[Sample]:
    """``count`` images that fill memory most: the largest once they are resized, with most objects, all of one shape.

    ``sizes`` has ``min_size`` and ``max_size``, as a recipe's input. With too few images, some come again.
    """

    def weight(sample: Sample) -> Tuple[float, int]:
        short, long = sorted((sample.height, sample.width))
        scale = min(sizes["min_size"] / short, sizes["max_size"] / long)
        return round(scale * short) * round(scale * long), len(sample.boxes)

    heaviest = sorted(samples, key=weight, reverse=True)
    alike = [one for one in heaviest if _is_upright(one) == _is_upright(heaviest[0])]
    return list(islice(cycle(alike), count))


def _is_upright(sample: Sample) -> bool:
    return sample.height > sample.width


class EndlessBatches:
    """Batches of (index, flip) without end: one seeded shuffle of the images after another.

    A batch holds only upright or only wide images, so that little of it is padding (as in Detectron's and
    torchvision's own training). Endless, so that one loader, with its worker processes, serves the whole training.

    ``start`` batches are passed over, as a training that is resumed has seen them. ``share`` (rank, ranks) gives a
    rank its part of every batch: all ranks together see what one would.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        batch_size: int,
        flip_probability: float,
        seed: int,
        start: int = 0,
        share: Tuple[int, int] = (0, 1),
    ) -> None:
        self._upright = [_is_upright(sample) for sample in samples]
        self._batch_size = batch_size
        self._flip_probability = flip_probability
        self._seed = seed
        self._start = start
        rank, ranks = share
        self._part = slice(rank * batch_size // ranks, (rank + 1) * batch_size // ranks)

    def __iter__(self) -> Iterator[List[Drawn]]:
        return (batch[self._part] for batch in islice(self._whole(), self._start, None))

    def _whole(self) -> Iterator[List[Drawn]]:
        # numpy promises that the stream of this old generator stays the same in every version.
        generator = np.random.RandomState([self._seed % 2**32, self._seed // 2**32])
        waiting: Dict[bool, List[Drawn]] = {True: [], False: []}
        while True:
            order = generator.permutation(len(self._upright)).tolist()
            flips = (generator.random_sample(len(order)) < self._flip_probability).tolist()
            for index, flip in zip(order, flips):
                batch = waiting[self._upright[index]]
                batch.append((index, flip))
                if len(batch) == self._batch_size:
                    yield list(batch)
                    batch.clear()
