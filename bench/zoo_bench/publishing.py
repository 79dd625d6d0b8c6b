"""The phase publish: a model and the log of its training are uploaded, and the record says where they are.

A model keeps its name, which holds the first 8 digits of its SHA-256; its log gets one that holds its own. So nothing
that was published is ever overwritten by something else, and a link says what it must lead to.
"""

from __future__ import annotations

import time
from pathlib import Path

from zoo_bench.datasets.coco import file_sha256
from zoo_bench.destination import Destination, Progress, PublishError, StoppedError
from zoo_bench.model_file import HASH_DIGITS
from zoo_bench.plan import PlannedCell
from zoo_bench.privacy import public
from zoo_bench.record import Checkpoint, Published, Record
from zoo_bench.recorder import Setting

LONGEST_LINE = 1 << 20


def with_published(record: Record, planned: PlannedCell, setting: Setting, scratch: Path, progress: Progress) -> Record:
    """Publish the model of a run that succeeded, and return its record with that; where it fails, a failed one."""
    assert setting.destination is not None  # preflight saw to it
    assert record.checkpoint is not None  # the plan, or the training that has just succeeded
    log = record.files["log"] if "train" in record.phases_done else planned.training_log or ""
    began = time.monotonic()
    changes: dict[str, object]
    try:
        files = publish(record.checkpoint, log, setting.destination, setting.workspace.root, scratch, progress)
        changes = {"published": files, "phases_done": (*record.phases_done, "publish")}
    except PublishError as error:
        changes = _failed(f"{error.message} ({error.hint})", setting)
    except OSError as error:
        changes = _failed(str(error), setting)
    except StoppedError:
        changes = {"status": "interrupted", "reason": "publish: stopped from the terminal"}
    return record.model_copy(update={**changes, "duration_s": record.duration_s + time.monotonic() - began})


def _failed(why: str, setting: Setting) -> dict[str, object]:
    return {"status": "failed", "reason": public(f"publish: {why}", setting.workspace.root)}


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
    with source.open("rb") as lines, copy.open("w", encoding="utf-8") as target:
        while line := lines.readline(LONGEST_LINE):
            target.write(public(line.decode("utf-8", "replace"), root))
    return copy.replace(copy.with_stem(f"{name}-{file_sha256(copy)[:HASH_DIGITS]}"))
