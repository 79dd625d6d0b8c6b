"""What every verb needs: the workspace, the matrix's cells as the user narrowed them, the store, this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from zoo_bench.adapters.template import names_in
from zoo_bench.backends import Backend, backend_names, find_backend, has_backend, sources_sha256
from zoo_bench.baselines import Baseline
from zoo_bench.cell import Cell, digest, expand, recipe_values, short_name
from zoo_bench.datasets.locate import fingerprint as dataset_fingerprint
from zoo_bench.datasets.locate import locate
from zoo_bench.destination import Destination
from zoo_bench.environments import environment_status, lock_sha256
from zoo_bench.errors import ConfigError
from zoo_bench.job import DatasetPaths
from zoo_bench.load import load_matrix
from zoo_bench.lookup import find_machine
from zoo_bench.machine_config import MachineConfig, check_names, load_machine_config
from zoo_bench.matrix import Matrix
from zoo_bench.model_file import describe_model
from zoo_bench.plan import PlannedCell, Request, make_plan, parse_phases
from zoo_bench.provenance import CurrentInputs, MachineKey, machine_key_of
from zoo_bench.record import Checkpoint, Inputs
from zoo_bench.repeats import typical
from zoo_bench.runs import Runs
from zoo_bench.selector import choose
from zoo_bench.store import Contents, Store, is_run
from zoo_bench.text import one_line
from zoo_bench.workspace import Workspace, bundled_root

# What in a command tells as much as the name of an axis.
STAND_FOR = {
    "detector": ("family",),
    "backbone": (),
    "schedule": ("iterations", "recipe.lr_schedule.iterations"),
}


@dataclass(frozen=True)
class Asked:
    """The options of a verb, as they were typed."""

    root: Path | None = None
    matrix: Path | None = None
    profile: str | None = None
    select: str | None = None
    skip: str | None = None
    gpus: int | None = None
    phases: str | None = None
    checkpoint: Path | None = None
    force: bool = False
    allow_noisy: bool = False
    accepted: bool = False
    seed: int | None = None
    repeat: int = 1
    since: float | None = None
    machine: str | None = None


def _to_stderr(warning: str) -> None:
    print(warning, file=sys.stderr)


@dataclass(frozen=True)
class Session:
    """One call of zoo-bench. Everything is read when it is first wanted; `warn` hears what is odd about it."""

    asked: Asked
    workspace: Workspace
    warn: Callable[[str], None]

    @classmethod
    def open(cls, asked: Asked, warn: Callable[[str], None] = _to_stderr) -> Session:
        """Find the workspace. Raises ConfigError when what was named is not there."""
        return cls(asked, Workspace.locate(asked.root, asked.matrix), warn)

    @cached_property
    def matrix(self) -> Matrix:
        """The checked matrix."""
        return load_matrix(self.workspace.matrix_file)

    @cached_property
    def profile(self) -> str:
        """Name of the chosen profile."""
        return self.matrix.profile(self.asked.profile)[0]

    @cached_property
    def machine(self) -> MachineConfig:
        """What the user says about this machine."""
        config = load_machine_config(self.workspace)
        check_names(config, self.workspace, self.matrix.datasets, backend_names(self.workspace))
        return config

    @cached_property
    def store(self) -> Store:
        """The results folder."""
        return Store(self.workspace.results, self.workspace.records_index)

    @cached_property
    def runs(self) -> Runs:
        """What the store holds. Warns of files that are no records."""
        for problem in self._contents.problems.values():
            self.warn(f"zoo-bench: passed over: {one_line(problem)}")
        return self._contents.runs

    @cached_property
    def _contents(self) -> Contents:
        return self.store.load()

    def newest_damaged(self, cell_id: str) -> str:
        """Return the id of the newest run of a cell whose record cannot be read; empty where there is none."""
        names = [Path(name) for name in self._contents.problems]
        return max((name.stem for name in names if str(name.parent) == cell_id and is_run(name.stem)), default="")

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The chosen cells of the chosen profile, with --gpus and --allow-noisy laid over them.

        Warns where they are of no matrix of the user's own: the folder may be the wrong one.
        """
        if self.workspace.bundled:
            root = self.workspace.root
            self.warn(f"zoo-bench: {root} has no matrix.yaml: these are the cells of the zoo that came with zoo-bench")
        cells = choose(expand(self.matrix, self.profile, self.asked.gpus), self.asked.select, self.asked.skip)
        if not cells:
            raise ConfigError("--skip leaves no cell", "take back a part of it")
        if self.asked.allow_noisy:
            marked = {"on_noise": "mark"}
            cells = tuple(cell.model_copy(update={"trust": cell.trust.model_copy(update=marked)}) for cell in cells)
        return cells

    def as_offered(self, cell: Cell) -> Cell:
        """Leave out the phases that its backend cannot do: a trainer that is not ours cannot be asked for all."""
        if not has_backend(cell.backend, self.workspace):
            return cell
        offered = self.backend(cell).spec.phases
        kept = tuple(phase for phase in cell.phases if phase in offered)
        return cell if kept == cell.phases or not kept else cell.model_copy(update={"phases": kept})

    @property
    def seeded(self) -> tuple[Cell, ...]:
        """The cells, each as often as --repeat says, with a seed of its own each time, --seed first.

        Published is one of them, once all have been evaluated: that is a call of its own.
        """
        cells = tuple(map(self.as_offered, self.cells))
        self._warn_of_sameness(cells)
        if parse_phases(self.asked.phases) == ("publish",):
            if self.asked.seed is not None:
                raise ConfigError("--seed: of several seeds the one nearest to the mean is published", "leave it out")
            return tuple(map(self._as_published, cells))
        if self.asked.seed is not None:
            cells = tuple(cell.model_copy(update={"seed": self.asked.seed}) for cell in cells)
        if self.asked.accepted:
            cells = tuple(cell for cell in cells if cell.id in self._accepted_models)
        if self.asked.repeat == 1:
            return cells
        if "publish" in (parse_phases(self.asked.phases) or ()):
            raise ConfigError(
                "--repeat makes several models, and one of them is published",
                "zoo-bench run --phases publish afterwards: it takes the one nearest to the mean",
            )
        kept = {cell.id: tuple(phase for phase in cell.phases if phase != "publish") for cell in cells}
        return tuple(
            cell.model_copy(update={"seed": cell.seed + more, "phases": kept[cell.id]})
            for more in range(self.asked.repeat)
            for cell in cells
        )

    def _warn_of_sameness(self, cells: Sequence[Cell]) -> None:
        """Say where a trainer that is not ours would be started alike for cells that differ."""
        for name in {cell.backend for cell in cells if has_backend(cell.backend, self.workspace)}:
            mine = [cell for cell in cells if cell.backend == name]
            spec = self.backend(mine[0]).spec.command
            for axis in ("detector", "backbone", "schedule") if spec else ():
                differ = len({getattr(cell, axis) for cell in mine}) > 1
                if spec and differ and not names_in(spec.words) & (set(STAND_FOR[axis]) | {axis, "id"}):
                    self.warn(
                        f"zoo-bench: backend {name}: its command names no {{{axis}}}, so that cells which differ in it "
                        "alone are trained alike"
                    )

    def _as_published(self, cell: Cell) -> Cell:
        """Return the cell with the seed whose training stands for all that were made of its recipe."""
        recipe = digest(recipe_values(cell.resolved()))
        chosen = typical([run for run in self.runs.of(cell.id).summaries if run.recipe_sha256 == recipe])
        return cell.model_copy(update={"seed": chosen.seed}) if chosen else cell

    @cached_property
    def backends(self) -> frozenset[str]:
        """The backends that the profile has cells of, chosen or not."""
        return frozenset(cell.backend for cell in expand(self.matrix, self.profile))

    def name(self, cell_id: str) -> str:
        """Return how tables call a cell: what can be typed again, without its backend where the profile has one."""
        return cell_id if len(self.backends) > 1 else short_name(cell_id)

    def backend(self, cell: Cell) -> Backend:
        """The backend of a cell."""
        if cell.backend not in self._backends:
            self._backends[cell.backend] = find_backend(cell.backend, self.workspace)
        return self._backends[cell.backend]

    @cached_property
    def _backends(self) -> dict[str, Backend]:
        return {}

    def dataset(self, cell: Cell) -> DatasetPaths:
        """The paths of a cell's dataset on this machine."""
        return locate(cell.dataset, self.matrix.datasets[cell.dataset], self.workspace, self.machine.datasets)

    def dataset_sha256(self, cell: Cell) -> str:
        """The digest of a cell's dataset, as it is on this machine."""
        known = self._dataset_digests
        if cell.dataset not in known:
            known[cell.dataset] = dataset_fingerprint(self.matrix.datasets[cell.dataset], self.dataset(cell))
        return known[cell.dataset]

    @cached_property
    def _dataset_digests(self) -> dict[str, str]:
        return {}

    @property
    def destination(self) -> Destination | None:
        """Where models are published; None where the matrix does not say."""
        publish = self.matrix.publish
        return Destination.of(publish, self.workspace.root) if publish else None

    @property
    def template_folders(self) -> tuple[Path, ...]:
        """Where the document's template and its parts are looked for, in this order."""
        return self.workspace.root / "templates", bundled_root() / "templates"

    def current(self, backend_name: str) -> CurrentInputs | None:
        """What a backend's worker would be run from now; None when the backend is not here any more."""
        if not has_backend(backend_name, self.workspace):
            return None
        backend = find_backend(backend_name, self.workspace)
        locks = (backend.lock_path(variant) for variant in backend.spec.variants.values())
        return CurrentInputs(
            sources_sha256=sources_sha256(backend),
            locks_sha256=frozenset(lock_sha256(lock) for lock in locks if lock is not None),
        )

    def plan(self) -> tuple[PlannedCell, ...]:
        """Decide what is left to run."""
        return make_plan(self.seeded, self._inputs(), self.runs, self._request(self.runs))

    def replan(self, planned: PlannedCell) -> PlannedCell:
        """Decide once more what is left of a cell, by what is in the store now; what it is made from stays."""
        runs = self.store.load().runs
        return make_plan((planned.cell,), {planned.cell.id: planned.inputs}, runs, self._request(runs))[0]

    def _request(self, runs: Runs) -> Request:
        checkpoints = (run.checkpoint for run in runs.summaries)
        left_behind = {checkpoint.file for checkpoint in checkpoints if checkpoint and not checkpoint.given}
        return Request(
            phases=parse_phases(self.asked.phases),
            force=self.asked.force,
            since=self.asked.since,
            checkpoint=self._given_checkpoint,
            accepted=self._accepted_models if self.asked.accepted else {},
            available=frozenset(file for file in left_behind if (self.workspace.root / file).is_file()),
            destination=self.destination,
        )

    def _inputs(self) -> Mapping[str, Inputs]:
        sources: dict[str, str] = {}
        locks: dict[str, str | None] = {}
        for cell in self.cells:
            if cell.backend not in sources:
                backend = self.backend(cell)
                sources[cell.backend] = sources_sha256(backend)
                locks[cell.backend] = environment_status(backend, self.workspace, self.machine).lock_sha256
        return {
            cell.id: Inputs(
                sources_sha256=sources[cell.backend],
                lock_sha256=locks[cell.backend],
                dataset_sha256=self.dataset_sha256(cell),
            )
            for cell in self.cells
        }

    def baseline(self, machine: MachineKey) -> Baseline:
        """What was accepted on a machine."""
        return Baseline.of(self.store.root, machine)

    @cached_property
    def machine_key(self) -> MachineKey:
        """This machine, as records are told apart by it."""
        from zoo_bench.machine import describe_machine  # late: few calls look at the machine

        return machine_key_of(describe_machine(self.machine.name).model_dump(mode="json"))

    @cached_property
    def only_machine(self) -> MachineKey | None:
        """The machine that --machine names; None where nothing was said. Raises ConfigError as `find_machine`."""
        return find_machine(self.asked.machine, self.runs.summaries) if self.asked.machine else None

    @cached_property
    def _accepted_models(self) -> dict[str, Checkpoint]:
        """The model of every chosen cell that was accepted here; that it is still there is looked at now."""
        phases = parse_phases(self.asked.phases)
        if phases is None or {"train", "publish"} & set(phases) or self.asked.checkpoint is not None:
            raise ConfigError(
                "--accepted measures the models that were accepted, and trains none", "add --phases infer,evaluate"
            )
        baseline = self.baseline(self.machine_key)
        found: dict[str, Checkpoint] = {}
        for cell in self.cells:
            model = self._accepted_model(cell, baseline.runs_of(cell.id))
            if model is None:
                self.warn(f"zoo-bench: left out: {cell.id}: no trained model of it was accepted on this machine")
            elif not (self.workspace.root / model.file).is_file():
                self.warn(f"zoo-bench: left out: {cell.id}: its accepted model is gone: {model.file}")
            else:
                found[cell.id] = model
        if not found:
            raise ConfigError(
                "--accepted: none of these cells has an accepted model here",
                "zoo-bench accept, after a run that trained",
            )
        return found

    def _accepted_model(self, cell: Cell, accepted: frozenset[str]) -> Checkpoint | None:
        """Return the model that stands for some accepted runs: one of the cell's recipe."""
        runs = [run for run in self.runs.of(cell.id).summaries if run.run_id in accepted]
        made = [run for run in runs if run.checkpoint is not None and run.checkpoint.usable]
        mine = [run for run in made if _recipe(self.runs.read(run).cell) == _recipe(cell.resolved())]
        evaluated = [run for run in mine if "box_ap" in run.figures]
        chosen = typical(evaluated) or next(reversed(evaluated or mine), None)
        if chosen is None or chosen.checkpoint is None:
            return None
        # A run may have been given it; now it is what was accepted.
        return chosen.checkpoint.model_copy(update={"given": False})

    @cached_property
    def _given_checkpoint(self) -> Checkpoint | None:
        file = self.asked.checkpoint
        if file is None:
            return None
        if not file.is_file():
            raise ConfigError(f"--checkpoint {file}: no such file", "name a file of weights that the backend reads")
        phases = parse_phases(self.asked.phases)
        if phases is None or {"train", "publish"} & set(phases):
            raise ConfigError(
                "--checkpoint measures a model that is trained already, and published elsewhere",
                "add --phases infer,evaluate",
            )
        if len(self.cells) > 1:
            raise ConfigError(
                f"--checkpoint {file}: {len(self.cells)} cells are selected, and one model fits one",
                f"choose with --select, for instance --select {self.cells[0].id}",
            )
        return describe_model(file.resolve(), self.workspace.root, trained=True)


def _recipe(resolved: dict[str, Any]) -> dict[str, Any]:
    """Return the values that a model is made by."""
    return {key: value for key, value in recipe_values(resolved).items() if key != "evaluate_images"}
