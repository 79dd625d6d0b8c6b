"""What a person sees while a plan runs: live bars on a terminal, plain lines elsewhere. Both go to stderr."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from zoo_bench.events import Event
from zoo_bench.locks import Taken
from zoo_bench.plan import PlannedCell
from zoo_bench.record import Record

PLAIN_INTERVAL_S = 10.0
MIB = 2**20
UNLIMITED_COLUMNS = 10_000
PHASE_OF = {"step": "train", "infer_step": "infer", "eval_step": "evaluate", "eval_start": "evaluate"}


class Pace:
    """How far the running cell is, and how long the rest of it and of the matrix will take.

    `expected_s` says by cell id how long its runs take (costs.py); a cell without is expected to take as long as the
    mean of the cells that ended in this session or, before any has, as the running one will at least.
    """

    def __init__(self, planned: Sequence[PlannedCell], expected_s: dict[str, float]) -> None:
        self._waiting = [cell for cell in planned if not cell.fresh]
        self._expected_s = expected_s
        self._took_s: list[float] = []
        self._started_s = time.monotonic()
        self.done = 0
        self.phase = "starting"
        self.position = 0
        self.length = 0
        self._phase_started_s = self._last_event_s = self._started_s

    @property
    def cells(self) -> int:
        """Cells that are to be run."""
        return len(self._waiting)

    def start(self, planned: PlannedCell) -> None:
        """A cell begins; one that stands in for another was in no plan."""
        if planned.instead_of and planned not in self._waiting:
            self._waiting.insert(self.done, planned)
        self._started_s = self._phase_started_s = self._last_event_s = time.monotonic()
        self.phase, self.position, self.length = "starting", 0, 0

    def follow(self, event: Event) -> None:
        """Take over the position that an event tells."""
        phase = PHASE_OF.get(event.name)
        before_s, self._last_event_s = self._last_event_s, event.time_s
        if phase is None:
            return
        if phase != self.phase:  # its first step began where the event before it ended
            self.phase, self._phase_started_s = phase, before_s
        if event.name != "eval_start":
            self.position = int(event.number("iteration" if phase == "train" else "index"))
            self.length = int(event.number("iterations" if phase == "train" else "images"))

    def upload(self, done: int, size: int) -> None:
        """Take over how many bytes of a file are published; its position is told in MiB."""
        if self.phase != "publish" or done < self.position * MIB:
            self.phase, self._phase_started_s = "publish", time.monotonic()
        self.position, self.length = done // MIB, max(1, size // MIB)

    def end(self) -> None:
        """The cell has ended."""
        self._took_s.append(time.monotonic() - self._started_s)
        self.done += 1

    def phase_eta_s(self) -> float | None:
        """Seconds until the running phase ends."""
        if not self.position:
            return None
        return (time.monotonic() - self._phase_started_s) / self.position * (self.length - self.position)

    def matrix_eta_s(self) -> float | None:
        """Seconds until the last cell ends; None while there is nothing to go by."""
        spent_s = time.monotonic() - self._started_s
        phase_eta_s = self.phase_eta_s()
        so_far = [*self._took_s] or ([spent_s + phase_eta_s] if phase_eta_s is not None else [])
        if not so_far:
            return None
        typical_s = sum(so_far) / len(so_far)
        rest_s = [self._expected_s.get(cell.cell.id, typical_s) for cell in self._waiting[self.done :]]
        return sum(rest_s) - min(spent_s, rest_s[0]) if rest_s else 0.0


def format_s(seconds: float | None) -> str:
    """Write a duration as people do: ``1:02:03``, ``2:03``; ``?`` when it is not known."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class PlainDisplay:
    """A line when a cell starts or ends, and one every few seconds in between."""

    def __init__(self, console: Console, pace: Pace) -> None:
        self._console = console
        self._pace = pace
        self._last_s = 0.0
        self._detail = ""
        self._waits_for = ""

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def cell_started(self, planned: PlannedCell, log: Path) -> None:
        """Name the cell, why it runs, and its log."""
        self._pace.start(planned)
        number = f"[{self._pace.done + 1}/{self._pace.cells}]"
        phases = ", ".join(planned.phases)
        self._say(f"{number} {planned.cell.id}: {phases} ({planned.reason})")
        self._say(f"    log: {log}")

    def event(self, event: Event) -> None:
        """Say how far the cell is, now and then."""
        self._pace.follow(event)
        self._detail = detail(event) or self._detail
        self._show()

    def _show(self) -> None:
        if self._pace.position and time.monotonic() - self._last_s >= PLAIN_INTERVAL_S:
            self._last_s = time.monotonic()
            self._say(
                f"    {self._pace.phase} {self._pace.position}/{self._pace.length} {self._detail}"
                f" · phase ETA {format_s(self._pace.phase_eta_s())} · matrix ETA {format_s(self._pace.matrix_eta_s())}"
            )

    def uploading(self, name: str, done: int, size: int) -> None:
        """Say how far an upload is, now and then."""
        self._pace.upload(done, size)
        self._detail = f"MiB of {name}"
        self._show()

    def cell_ended(self, record: Record, *, again: bool) -> None:
        """Say how the cell ended, and whether it is tried again."""
        if not again:
            self._pace.end()
        self._say(
            f"    {record.status} in {format_s(record.duration_s)}{f': {record.reason}' if record.reason else ''}"
            f"{'; trying again' if again else ''}"
        )

    def cell_done_elsewhere(self, planned: PlannedCell, reason: str) -> None:
        """Say that there is nothing left to do for a cell."""
        self._pace.end()
        self._say(f"{planned.cell.id}: fresh by now ({reason})")

    def waiting(self, taken: Sequence[Taken]) -> None:
        """Say what is waited for, once as long as it is the same."""
        told = "; ".join(f"{one.what}, which {one.by} has" for one in taken)
        if told != self._waits_for:
            self._waits_for = told
            self._say(f"waiting for {told}")

    def set_aside(self, reason: str) -> None:
        """Say that a GPU is not used any more, and why."""
        self._say(reason)

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveDisplay(PlainDisplay):
    """Two bars that stay at the bottom of the terminal: the running cell and the whole matrix."""

    def __init__(self, console: Console, pace: Pace, name: Callable[[str], str]) -> None:
        super().__init__(console, pace)
        self._name = name
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
        self._bars = Progress(*columns, TextColumn("{task.fields[note]}"), TimeElapsedColumn(), console=console)
        self._cell: TaskID | None = None
        self._matrix = self._bars.add_task("[bold]matrix", total=pace.cells, note="")

    def __enter__(self) -> LiveDisplay:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def cell_started(self, planned: PlannedCell, log: Path) -> None:
        """Begin a new bar for the cell."""
        super().cell_started(planned, log)
        if self._cell is not None:
            self._bars.remove_task(self._cell)
        self._cell = self._bars.add_task(self._name(planned.cell.id), total=None, note="starting")
        self._bars.update(self._matrix, total=self._pace.cells)

    def _show(self) -> None:
        if self._cell is None or not self._pace.position:
            return
        note = f"{self._pace.phase} {self._detail} · ETA {format_s(self._pace.phase_eta_s())}"
        self._bars.update(self._cell, total=self._pace.length, completed=self._pace.position, note=note)
        self._bars.update(
            self._matrix, completed=self._pace.done, note=f"cells · ETA {format_s(self._pace.matrix_eta_s())}"
        )

    def cell_ended(self, record: Record, *, again: bool) -> None:
        """Write the cell's end above the bars."""
        super().cell_ended(record, again=again)
        self._bars.update(self._matrix, completed=self._pace.done)


def detail(event: Event) -> str:
    """Write the figures of an event, the ones a person watches."""
    if event.name == "step":
        return f"loss {event.number('loss'):.3f} · {event.number('iteration_time_s'):.3f} s/iter"
    if event.name == "infer_step":
        seconds = event.number("forward_s") + event.number("postprocess_s")
        return f"{1 / seconds:.1f} fps" if seconds > 0 else ""
    return "" if event.name != "eval_step" else "detections"


def make_display(console: Console, pace: Pace, name: Callable[[str], str]) -> PlainDisplay:
    """Return bars on a terminal, lines elsewhere; `name` shortens a cell's id for a bar."""
    return LiveDisplay(console, pace, name) if console.is_terminal else PlainDisplay(console, pace)


def table_console() -> Console:
    """Return the console of stdout: off a terminal as wide as a table needs, or what reads it would see cut words."""
    console = Console()
    return console if console.is_terminal else Console(width=UNLIMITED_COLUMNS)


def plain_table(title: str | None = None) -> Table:
    """Return an empty table that leaves its width to the words: no lines between them."""
    return Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))


@contextmanager
def download_bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show how far downloads are; yields what is told a file's address, its bytes that have come, and its size."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("")
        yield lambda url, done, total: progress.update(
            task, description=escape(url.rpartition("/")[2]), completed=done, total=total
        )


def bar(console: Console, what: str) -> tuple[Progress, Callable[[int, int], None]]:
    """Return a progress bar (to be entered) and the function that moves it: done, of how many."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    progress = Progress(*columns, console=console, disable=not console.is_terminal)
    task = progress.add_task(what, total=None)
    return progress, lambda done, total: progress.update(task, completed=done, total=total)
