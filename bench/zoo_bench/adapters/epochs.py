"""Logs that count iterations within each epoch -> iterations counted from the start of training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zoo_bench.adapters import Told


def numbered(told: Iterable[Told]) -> Iterator[Told]:
    """Give each step its `iteration`, and `averaged_over`, from its `epoch` (from 0) and its place `within` that.

    A log has every n-th iteration, so an epoch's length is taken to be the last that was logged of the first epoch that
    ended: short by less than n. The steps of a log that begins in a later epoch are kept back until one has ended.
    """
    length, epochs = 0, 0
    epoch, last = -1, 0
    held: list[Told] = []
    for name, fields in told:
        epochs = fields.get("epochs", epochs) if name == "described" else epochs
        if name != "step":
            if held:
                held.append((name, fields))
            else:
                yield name, fields
            continue
        if fields["epoch"] != epoch:
            if 0 <= epoch == fields["epoch"] - 1:
                length = length or last
                yield from (_number(one, length, epochs) for one in held)
                held = []
            epoch, last = fields["epoch"], 0
        if fields["within"] < last:  # the epoch began again: another run
            last = 0
        step = (name, {**fields, "averaged_over": fields["within"] - last})
        last = fields["within"]
        if length or epoch == 0:
            yield _number(step, length, epochs)
        else:
            held.append(step)
    yield from (_number(one, last, epochs) for one in held)


def _number(told: Told, length: int, epochs: int) -> Told:
    name, fields = told
    if name != "step":
        return told
    rest = {key: value for key, value in fields.items() if key not in ("epoch", "within")}
    total = {"iterations": epochs * length} if epochs and length else {}
    return name, {"iteration": fields["epoch"] * length + fields["within"], **total, **rest}
