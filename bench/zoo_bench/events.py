"""The event stream of a job, read while it is written. The protocol is documented in models/worker.py."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from zoo_bench.bounded import LARGEST
from zoo_bench.text import each_text, printable

PROTOCOL = 1
EVENTS = frozenset(
    [
        "init_start",
        "init_stop",
        "run_start",
        "train_resumed",
        "epoch_start",
        "step",
        "epoch_stop",
        "checkpoint_saved",
        "infer_step",
        "eval_start",
        "eval_step",
        "eval_stop",
        "eval_result",
        "allocator_peak",
        "memory_peak",
        "heartbeat",
        "error",
        "run_stop",
    ]
)

# The numbers an event is worthless without; a line that lacks one is malformed.
REQUIRED_NUMBERS: dict[str, tuple[str, ...]] = {
    "step": ("iteration", "iterations", "iteration_time_s", "batch_size"),
    "train_resumed": ("iteration",),
    "checkpoint_saved": ("iteration",),
    "infer_step": (
        "index", "images", "load_s", "preprocess_s", "forward_s", "postprocess_s", "encode_s", "detections",
    ),
    "eval_step": ("index", "images"),
    "memory_peak": ("bytes",),
    "allocator_peak": ("rank", "allocated_bytes", "reserved_bytes"),
}  # fmt: skip


READ_BYTES = 2**24
LONGEST_LINE = 2**20
# Signs of life, not of progress: a worker that only writes these has hung.
NO_PROGRESS = frozenset(["heartbeat", "allocator_peak"])


class ProtocolError(Exception):
    """The worker's events cannot be understood: it speaks another version of the protocol, most likely."""


@dataclass(frozen=True)
class Event:
    """One event: its name, when it was written (monotonic and Unix seconds) and its own fields."""

    name: str
    time_s: float
    unix_s: float
    fields: dict[str, Any]

    def number(self, field: str) -> float:
        """Return a numeric field; NaN when the worker left it out or wrote no number."""
        value = self.fields.get(field)
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else float("nan")


def ended_s(step: Event) -> float:
    """Return when the iteration of a `step` ended; the event may have been written some iterations later."""
    end_s = step.number("end_s")
    return step.time_s if math.isnan(end_s) else end_s


def averaged_over(step: Event) -> int:
    """Return how many iterations a `step` stands for: of an adapter it may be the mean of several."""
    count = step.number("averaged_over")
    return max(1, int(count)) if math.isfinite(count) else 1


def timed_images(events: Iterable[Event]) -> list[Event]:
    """Return the images of inference that count: those after its warm-up."""
    return [event for event in events if event.name == "infer_step" and not event.fields.get("warmup")]


class EventReader:
    """Reads what has been added to an event file since the last call.

    `malformed` counts lines that are no events, `offset` the bytes that were read so far.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.offset = 0
        self._too_long = False
        self.malformed = 0

    def read(self) -> list[Event]:
        """Return the complete new events, of READ_BYTES at most; a half-written last line waits for the next call.

        A line that is longer than LONGEST_LINE is no event; it is passed over in pieces.

        Raises:
            ProtocolError: an event of another protocol version, or a file that cannot be read.
        """
        try:
            with self._path.open("rb") as stream:
                stream.seek(self.offset)
                chunk = stream.read(READ_BYTES)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ProtocolError(f"the worker's events cannot be read: {error}") from None
        complete, newline, rest = chunk.rpartition(b"\n")
        self.offset += len(complete) + len(newline)
        lines = complete.split(b"\n")
        if self._too_long and newline:  # its end
            del lines[0]
            self._too_long = False
        if len(rest) > LONGEST_LINE:
            self.offset += len(rest)
            self.malformed += not self._too_long
            self._too_long = True
        parsed = [self._parse(line) for line in lines if line.strip()]
        return [event for event in parsed if event is not None]

    def _parse(self, line: bytes) -> Event | None:
        try:
            if len(line) > LONGEST_LINE:
                raise ValueError("too long")
            read = json.loads(line, parse_constant=_refuse, parse_float=_float, parse_int=_int)
            fields = each_text(read, printable)
            protocol, name = fields.pop("protocol"), fields.pop("event")
            event = Event(_name(name), _time(fields.pop("time_s")), _time(fields.pop("unix_s")), fields)
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            self.malformed += 1
            return None
        if protocol != PROTOCOL:
            raise ProtocolError(f"the worker speaks event protocol {protocol!r}; this zoo-bench speaks {PROTOCOL}")
        if name not in EVENTS:
            return None
        if any(math.isnan(event.number(field)) for field in REQUIRED_NUMBERS.get(name, ())):
            self.malformed += 1
            return None
        return event


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _float(text: str) -> float:
    value = float(text)
    return value if abs(value) <= LARGEST else _refuse(text)


def _int(text: str) -> int:
    value = int(text)
    return value if abs(value) <= LARGEST else _refuse(text)


def _time(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else _refuse(repr(value))


def _name(value: object) -> str:
    return value if isinstance(value, str) else _refuse(repr(value))
