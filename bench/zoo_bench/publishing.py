"""The phase publish: a model and the log of its training are uploaded, and the record says where they are.

A model keeps its name, which holds the first 8 digits of its SHA-256; its log gets one that holds its own. So nothing
that was published is ever overwritten by something else, and a link says what it must lead to.
"""

from __future__ import annotations

import time
from pathlib import Path

from zoo_bench.datasets.coco import file_sha256
from zoo_bench.destination import Destination, Progress, PublishError, StoppedError
from zoo_bench.interrupts import stopper
from zoo_bench.model_file import HASH_DIGITS
from zoo_bench.plan import PlannedCell
from zoo_bench.privacy import public
from zoo_bench.record import Checkpoint, Published, Record
from zoo_bench.recorder import Setting, record_without_job
from zoo_bench.text import printable

LONGEST_LINE = 1 << 20


def publication(planned: PlannedCell, run_id: str, setting: Setting, scratch: Path, progress: Progress) -> Record:
    """Publish the model that a cell was planned with, and return the record of that, a failed one where it fails.

    Args:
        scratch: a folder, to be made, for what is uploaded beside the model.
    """
    record, began = record_without_job(planned, run_id, setting), time.monotonic()
    changes: dict[str, object]
    try:
        changes = {"published": _published(planned, setting, scratch, progress), "phases_done": ("publish",)}
    except StoppedError:
        changes = {"status": "interrupted", "reason": f"publish: {stopper()}"}
    except PublishError as error:
        changes = _failed(f"{error.message} ({error.hint})", setting)
    except Exception as error:  # noqa: BLE001 - whatever a storage's client does, the other cells are to be run
        changes = _failed(f"{type(error).__name__}: {error}", setting)
    return record.model_copy(update={**changes, "duration_s": time.monotonic() - began})


def _failed(why: str, setting: Setting) -> dict[str, object]:
    return {"status": "failed", "reason": public(f"publish: {printable(why)}", setting.workspace.root)}


def _published(planned: PlannedCell, setting: Setting, scratch: Path, progress: Progress) -> Published:
    if planned.checkpoint is None or planned.training_log is None:
        raise PublishError("the training left no model", "look into its log")
    if setting.destination is None:
        raise PublishError("matrix.yaml does not say where to", "add `publish: {address: ..., url: ...}`")
    scratch.mkdir(parents=True, exist_ok=True)
    root = setting.workspace.root
    return publish(planned.checkpoint, planned.training_log, setting.destination, root, scratch, progress)


def publish(
    checkpoint: Checkpoint, log: str, destination: Destination, root: Path, scratch: Path, progress: Progress
) -> Published:
    """Upload a model and the log of its training.

    Args:
        log: relative to the workspace's `root`; published without folders of this machine and without credentials.
        scratch: an existing folder for that copy of the log.

    Raises:
        PublishError: something is not there any more, is not what it was, or could not be uploaded.
        StoppedError: `progress` raised it.
    """
    model, source = root / checkpoint.file, root / log
    gone = next((path for path in (model, source) if not path.is_file()), None)
    if gone is not None:
        raise PublishError(f"{gone} is gone", "train the cell again with --force")
    if not checkpoint.trained:
        raise PublishError(f"{checkpoint.file} was not trained to the end of its schedule", "let the training finish")
    if file_sha256(model) != checkpoint.sha256:
        raise PublishError(f"{checkpoint.file} is not what was measured: its SHA-256 differs", "train the cell again")
    name = model.stem.removesuffix(f"-{checkpoint.sha256[:HASH_DIGITS]}")
    return Published(
        address=destination.address,
        model=destination.upload(model, progress),
        log=destination.upload(_public_log(source, scratch, name, root), progress),
    )


def _public_log(source: Path, scratch: Path, name: str, root: Path) -> Path:
    """Write the log as it may be read by all, and return its path; a log can be larger than memory."""
    copy = scratch / f"{name}.log"
    with source.open(encoding="utf-8", errors="replace") as log, copy.open("w", encoding="utf-8") as target:
        goes_on = False
        while line := log.readline(LONGEST_LINE):
            is_piece, goes_on = goes_on, len(line) == LONGEST_LINE and not line.endswith("\n")
            if not is_piece and not goes_on:
                target.write(public(line, root))
            elif not is_piece:  # in a piece of a line half a credential would not be found
                target.write("[zoo-bench left out a line of more than a million characters]\n")
    return copy.replace(copy.with_stem(f"{name}-{file_sha256(copy)[:HASH_DIGITS]}"))
