"""What every worker tells of its phases: epochs, iterations, timed images, evaluated images. Python 3.6 syntax."""

from itertools import cycle, islice
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Sequence, Tuple, TypeVar

from models import worker
from models.coco import Detection, Sample, Split
from models.detections import DetectionsWriter, merge_detections

T = TypeVar("T")


def run_phases(events: worker.EventWriter, phases: Sequence[str], work: Dict[str, Callable[[], None]]) -> None:
    """Announce a job's phases and do their ``work``, in its order; a failure is reported for the phase it is in."""
    events.write("run_start", phases=phases)
    for phase, go in work.items():
        if phase in phases:
            events.phase = phase
            go()


# The losses of a detector begin at a few units; what is here has left for good, though it may take long to become nan.
LARGEST_LOSS = 1e6


class Epochs:
    """Reports where an epoch starts and stops in an endless stream of batches: after as many images as there are.

    ``seen`` images have been trained on before, where a training is resumed.
    """

    def __init__(self, images: int, events: worker.EventWriter, seen: int = 0) -> None:
        self._images = images
        self._events = events
        self._seen = seen
        self._epoch = 0
        self._first = seen // images + 1

    def before(self, batch_size: int) -> None:
        """To be called before each batch is taken."""
        if not self._epoch or self._seen >= self._epoch * self._images:
            self.end()
            self._epoch = self._epoch + 1 if self._epoch else self._first
            self._events.write("epoch_start", epoch=self._epoch)
        self._seen += batch_size

    def end(self) -> None:
        """To be called after the last batch."""
        if self._epoch:
            self._events.write("epoch_stop", epoch=self._epoch)


def step(
    events: worker.EventWriter,
    iteration: int,
    planned: int,
    losses: Dict[str, float],
    batch_size: int,
    **measured: float,
) -> None:
    """Write the ``step`` of an iteration.

    Raises WorkerError of kind "diverged" for a loss that is not finite, or above LARGEST_LOSS.
    """
    bad = {name: value for name, value in losses.items() if not abs(value) <= LARGEST_LOSS}
    if bad:
        named = ", ".join(f"{name} = {value}" for name, value in bad.items())
        raise worker.WorkerError(
            f"training diverged at iteration {iteration}: {named}. Lower the learning rate or clip the gradient.",
            kind="diverged",
        )
    events.write(
        "step",
        iteration=iteration,
        iterations=planned,
        loss=sum(losses.values()),
        losses=losses,
        batch_size=batch_size,
        **measured,
    )


def checkpoint(events: worker.EventWriter, path: Path, iteration: int) -> None:
    """Write that training can be resumed from ``path``."""
    _checkpoint_saved(events, path, iteration, final=False, trained=False)


def final_checkpoint(events: worker.EventWriter, path: Path, iteration: int, scheduled: int) -> None:
    """Write that the trained model is at ``path``."""
    _checkpoint_saved(events, path, iteration, final=True, trained=iteration == scheduled)


def _checkpoint_saved(events: worker.EventWriter, path: Path, iteration: int, final: bool, trained: bool) -> None:
    size = path.stat().st_size
    events.write("checkpoint_saved", path=str(path), iteration=iteration, final=final, trained=trained, bytes=size)


class Laps:
    """Seconds of each part of an image's way. ``clock`` reads the time once the device has done what it was given."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_s = clock()
        self.times: Dict[str, float] = {}

    def end(self, part: str, result: T) -> T:
        """Note how long ``result`` took to make, and give it back."""
        started_s, self._last_s = self._last_s, self._clock()
        self.times[part] = self._last_s - started_s
        return result


def measure_inference(
    split: Split,
    measure: Dict[str, Any],
    timed: Callable[[Sample], Tuple[Dict[str, float], int]],
    events: worker.EventWriter,
) -> None:
    """Time image by image, first over ``infer_warmup_images``, then over ``infer_images``.

    ``timed`` returns the seconds of each part and the number of detections. A split with fewer images is gone
    through again.
    """
    warmup = measure["infer_warmup_images"]
    planned = warmup + measure["infer_images"]
    for index, sample in enumerate(islice(cycle(split.samples), planned), start=1):
        times, count = timed(sample)
        events.write(
            "infer_step",
            index=index,
            images=planned,
            image_id=sample.image_id,
            detections=count,
            warmup=index <= warmup,
            **times,
        )


def evaluate(
    found: Iterable[List[Detection]],
    images: int,
    path: Path,
    events: worker.EventWriter,
    share: Tuple[int, int] = (0, 1),
    wait: Callable[[], None] = lambda: None,
) -> None:
    """Write the detections of ``images`` images, as they come one by one, for the harness to score.

    Of several ranks (``share``: rank, ranks) each gives its own part; ``wait`` returns when all have come so far, and
    rank 0 then joins the parts.
    """
    rank, ranks = share
    parts = [path.with_name(f"{path.name}.rank-{number}") for number in range(ranks)] if ranks > 1 else [path]
    events.write("eval_start", images=images)
    with DetectionsWriter(parts[rank]) as written:
        for index, detections in enumerate(found, start=1):
            written.add(detections)
            events.write("eval_step", index=min(index * ranks, images), images=images)
    count = written.count
    wait()
    if ranks > 1 and rank == 0:
        count = merge_detections(parts, path)
        for part in parts:
            part.unlink()
    events.write("eval_stop", detections=str(path), count=count)
