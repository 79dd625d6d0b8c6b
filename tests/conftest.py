"""A workspace whose cells the fake backend runs, and the command line as a user calls it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from zoo_bench.installer import SYSTEM_CERTIFICATES
from zoo_bench.recipe import merge
from zoo_bench.record import Record
from zoo_bench.store import Store

if TYPE_CHECKING:  # they build on this module
    from clones import Clone
    from nights import Nightly
    from node_zoo import NodeZoo

# Tests that install something must work in a bare environment too, as zoo-bench itself does.
for certificates in SYSTEM_CERTIFICATES:
    if Path(certificates).exists():
        os.environ.setdefault("SSL_CERT_FILE", certificates)

# Tests that were started in a script's background have these two ignored, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

REPOSITORY = Path(__file__).resolve().parents[1]
MATRIX = REPOSITORY / "matrix.yaml"

# The repository's own matrix, run by the fake backend: two cells a detector would only be slower.
FAKE: dict[str, Any] = {
    "default_profile": "quick",
    "document": {"backends": ["fake"]},
    "datasets": {"shapes": {"train_images": 16, "val_images": 8}},  # each workspace draws its own
    "axes": {"backend": ["fake"], "detector": ["mask-rcnn_fpn", "retinanet_fpn"], "backbone": ["r50"]},
    "profiles": {
        "quick": {
            "description": "a second a cell",
            "set": {
                "dataset": "shapes",
                "gpus": 0,
                "recipe": {"base_batch_size": None, "lr_schedule": {"iterations": 30, "milestones": [20]}},
                "measure": {"warmup_iterations": 5, "infer_images": 5, "infer_warmup_images": 2},
                "trust": {"on_noise": "mark"},  # other tests run beside
            },
        }
    },
}


# What waits longest begins first, or all others would be done and wait for it.
FIRST = ("test_slurm.py", "test_nightly.py", "test_find_commit.py", "test_soak.py", "test_given_back.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of these files first."""
    ranks = {name: rank for rank, name in enumerate(FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(FIRST)))


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the user's machine.yaml, nor colours or widths of the terminal the tests run in."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    monkeypatch.delenv("ZOO_BENCH_MACHINE", raising=False)
    # Tests beside this one have the same simulated GPUs.
    monkeypatch.setenv("ZOO_BENCH_LEASES", str(tmp_path_factory.mktemp("leases")))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


class Zoo:
    """A temporary workspace and the command line in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.matrix = yaml.safe_load(MATRIX.read_text(encoding="utf-8"))
        self.change(FAKE)

    def change(self, values: dict[str, Any]) -> None:
        """Lay values over the workspace's matrix.yaml."""
        self.matrix = merge(self.matrix, values)
        (self.root / "matrix.yaml").write_text(yaml.safe_dump(self.matrix, sort_keys=False), encoding="utf-8")

    def options(self, **options: Any) -> None:
        """Give every cell options for the fake worker."""
        self.change({"profiles": {"quick": {"set": {"options": options}}}})

    def command(self, *arguments: str) -> list[str]:
        """The words of a call."""
        return [sys.executable, "-m", "zoo_bench", *arguments]

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Call zoo-bench in the workspace; fails on a traceback, whatever the test expects."""
        done = subprocess.run(
            self.command(*arguments), cwd=self.root, capture_output=True, text=True, timeout=300, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    @property
    def records(self) -> tuple[Record, ...]:
        """The records in the store, oldest first."""
        contents = Store(self.root / "results").load()
        assert not contents.problems
        return contents.runs.records()


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    """A workspace of its own for the test."""
    return Zoo(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """A workspace in which both cells have been run. Tests must not change it."""
    zoo = Zoo(tmp_path_factory.mktemp("finished"))
    zoo.options(box_ap=0.375, mask_ap=0.341, hold_bytes=64 * 2**20, iteration_s=0.02)
    done = zoo.call("run")
    assert done.returncode == 0, done.stderr
    return zoo


@pytest.fixture
def nightly(finished: Zoo, tmp_path: Path) -> Nightly:
    """Makes a workspace of nights in which nothing changed."""
    from nights import quiet_nights

    return partial(quiet_nights, finished, tmp_path)


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    from clones import Clone

    return Clone(tmp_path)


@pytest.fixture
def broken_matrix(tmp_path: Path) -> Callable[[str, str], list[str]]:
    """A function that replaces text in the repository's matrix and returns the lines of the error it gives."""
    from zoo_bench.load import load_matrix
    from zoo_bench.yamlfile import YamlFileError

    def broken(old: str, new: str) -> list[str]:
        text = MATRIX.read_text(encoding="utf-8")
        assert old in text
        path = tmp_path / "matrix.yaml"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(YamlFileError) as caught:
            load_matrix(path)
        return [problem.replace(f"{path}:", "", 1) for problem in caught.value.problems]

    return broken


@pytest.fixture
def node(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> NodeZoo:
    from node_zoo import NodeZoo
    from simulated_node.node import build, environment

    zoo = NodeZoo(tmp_path)
    library = tmp_path_factory.getbasetemp() / "simulated_node"
    build(library)
    for name, value in environment(library, tmp_path / "scenario").items():
        monkeypatch.setenv(name, value)
    zoo.place()
    return zoo


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process of this machine that is not the job's."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process.pid
    process.kill()
    process.wait()
