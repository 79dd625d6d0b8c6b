"""What can be found out about a repository that is to become a zoo: its training script, what that logs, its data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from zoo_bench.adapters import REGEX

SCRIPTS = ("train.py", "train_net.py", "main.py", "tools/train.py", "tools/train_net.py", "scripts/train.py")
# What each trainer's own logs are called, or hold.
LOG_FILES = {"mmdet": ("*.log.json", "scalars.json"), "detectron2": ("metrics.json",)}
LOG_WORDS = {"mllog": ":::MLLOG", "gluoncv": "samples/sec, "}
IMPORTS = {
    "mmdet": re.compile(r"^\s*(?:from|import) (?:mmdet|mmengine|mmcv)\b", re.MULTILINE),
    "detectron2": re.compile(r"^\s*(?:from|import) detectron2\b", re.MULTILINE),
    "gluoncv": re.compile(r"^\s*(?:from|import) gluoncv\b", re.MULTILINE),
    "mllog": re.compile(r"^\s*(?:from|import) mlperf_logging\b", re.MULTILINE),
}
ANNOTATIONS = "annotations/instances_train2017.json"
MOST_FILES = 20_000
HEAD_BYTES = 100_000
WORDS = {
    "mmdet": ("configs/CONFIG.py", "--work-dir", "{output}", "--cfg-options", "optimizer.lr={lr}"),
    "detectron2": (
        "--num-gpus", "{gpus}", "OUTPUT_DIR", "{output}", "SOLVER.BASE_LR", "{lr}", "SOLVER.MAX_ITER", "{iterations}",
        "SOLVER.IMS_PER_BATCH", "{batch_size}", "SEED", "{seed}",
    ),
    "gluoncv": ("--gpus", "0,1,2,3,4,5,6,7", "--lr", "{lr}", "--save-prefix", "{output}/", "--seed", "{seed}"),
}  # fmt: skip
OTHER_WORDS = ("--lr", "{lr}", "--iterations", "{iterations}", "--output", "{output}")
LOGS = {"mmdet": "{output}/**/*.json", "detectron2": "{output}/metrics.json"}
MODELS = {"detectron2": "{output}/model_final.pth"}


@dataclass(frozen=True)
class Repository:
    """What was found. `why`: how the adapter was told. `coco`: the dataset's folder."""

    root: Path
    script: str
    adapter: str
    why: str
    coco: str | None

    @property
    def words(self) -> tuple[str, ...]:
        """The command, as far as it can be guessed."""
        return "{python}", self.script, *WORDS.get(self.adapter, OTHER_WORDS)


def look(root: Path, script: str | None, adapter: str | None) -> Repository | None:
    """Look at a repository; None where no training script is found. What the user says is not looked for."""
    found = script or next((name for name in SCRIPTS if (root / name).is_file()), None) or _any_script(root)
    if found is None:
        return None
    told, why = (adapter, "as you say") if adapter else _adapter(root, root / found)
    return Repository(root, found, told, why, _coco(root))


def _any_script(root: Path) -> str | None:
    names = sorted(
        path.relative_to(root).as_posix() for path in _files(root) if re.fullmatch(r"train\w*\.py", path.name)
    )
    return min(names, key=lambda name: (name.count("/"), name), default=None)


def _adapter(root: Path, script: Path) -> tuple[str, str]:
    """Tell from the logs of earlier runs, else from what the script imports, what it prints."""
    for path in _files(root):
        for name, patterns in LOG_FILES.items():
            if any(path.match(pattern) for pattern in patterns):
                return name, f"{path.relative_to(root)} is such a log"
        if path.suffix in (".log", ".txt"):
            head = _head(path)
            for name, words in LOG_WORDS.items():
                if words in head:
                    return name, f"{path.relative_to(root)} is such a log"
    text = _head(script)
    for name, pattern in IMPORTS.items():
        if pattern.search(text):
            return name, f"{script.name} imports it"
    return REGEX, "nothing tells what it logs: write patterns for it"


def _coco(root: Path) -> str | None:
    for pattern in ("data/*", "datasets/*", "*", "data"):
        for folder in sorted(root.glob(pattern)):
            if (folder / ANNOTATIONS).is_file():
                return folder.relative_to(root).as_posix()
    return None


def _files(root: Path) -> Iterator[Path]:
    """The files of a repository, without those of hidden folders and of environments; no more than MOST_FILES."""
    paths = (path for path in root.rglob("*") if not any(part.startswith(".") for part in path.relative_to(root).parts))
    skipped = ("node_modules", "site-packages", "results")
    return (
        path for path in islice(paths, MOST_FILES) if not any(part in skipped for part in path.parts) and path.is_file()
    )


def _head(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(HEAD_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""
