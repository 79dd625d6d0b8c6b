"""Logs that count iterations within each epoch -> iterations counted from where the log begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zoo_bench.adapters import Told


def numbered(told: Iterable[Told]) -> Iterator[Told]:
    """Give each step its `iteration`, and `averaged_over`, from its `epoch` (from 0) and its place `within` that.

    A log has every n-th iteration, so an epoch is taken to be as long as the last one logged of any epoch before it:
    short by less than n. A log that begins in a later epoch is counted from there, and says so.
    """
    length, epochs, first = 0, 0, 0
    epoch, last = -1, 0
    for name, fields in told:
        epochs = fields.get("epochs", epochs) if name == "described" else epochs
        if name != "step":
            yield name, fields
            continue
        if epoch < 0 < fields["epoch"]:
            first = fields["epoch"]
            yield "remark", {"text": f"its log begins in epoch {first}, counted from 0: what was before is not in it"}
        if fields["epoch"] != epoch:
            length = max(length, last)
            epoch, last = fields["epoch"], 0
        if fields["within"] <= last:  # the epoch began again: another run
            last = 0
        rest = {key: value for key, value in fields.items() if key not in ("epoch", "within", "iteration")}
        number = max(0, epoch - first) * length + fields["within"]
        total = {"iterations": (epochs - first) * length} if epochs > first and length else {}
        yield name, {"iteration": number, "averaged_over": fields["within"] - last, **total, **rest}
        last = fields["within"]
