"""How every worker says that a file's weights do not fit its model. Standard library only and Python 3.6 syntax."""

from pathlib import Path
from typing import Sequence, Tuple

from models import worker

NAMES_SHOWN = 3


def refuse_misfit(path: Path, *problems: Tuple[Sequence[str], str]) -> None:
    """Raise WorkerError of kind "data" that names the first weights of each problem; nothing where all are empty.

    A problem is the weights' names and what is wrong with them.
    """
    told = [f"{len(names)} weights {what}: {shown(names)}" for names, what in problems if names]
    if told:
        raise misfit(path, "; ".join(told))


def misfit(path: Path, reason: str) -> worker.WorkerError:
    """The error for a file that does not fit."""
    return worker.WorkerError(f"{path} does not fit this model: {reason}", kind="data")


def shown(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
