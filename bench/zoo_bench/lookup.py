"""Words a user types -> the cell or the run that is meant. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zoo_bench.cell import Cell, expand, short_name
from zoo_bench.errors import ConfigError, nearest
from zoo_bench.matrix import Matrix
from zoo_bench.provenance import MachineKey, machine_text
from zoo_bench.runs import Summary
from zoo_bench.selector import matches

LEAST_PREFIX = len("20261123T")  # a day's runs: less would be a mistake rather than an id


@dataclass(frozen=True)
class FoundCell:
    """A cell, and the profile it was found in."""

    cell: Cell
    profile: str


def find_run(word: str, runs: Sequence[Summary]) -> Summary | None:
    """Return the run whose id is `word`, or begins with it where only one does; None when none does.

    Raises:
        ConfigError: several run ids begin with `word`.
    """
    found = [run for run in runs if run.run_id == word]
    if not found and len(word) >= LEAST_PREFIX:
        found = [run for run in runs if run.run_id.startswith(word)]
    if len(found) > 1:
        raise ConfigError(f"'{word}' begins the ids of {len(found)} runs", _listed([run.run_id for run in found]))
    return found[0] if found else None


def find_machine(word: str, runs: Sequence[Summary]) -> MachineKey:
    """Return the machine that made some of the runs and has this name, or the word in its GPUs or CPU.

    Raises:
        ConfigError: there is none, or there are several.
    """
    every = {run.machine: machine_text(run.machine) for run in runs}
    if not every:
        raise ConfigError(f"--machine {word}: no machine has run anything yet", "zoo-bench run first")
    # A machine that has a name is known by its parts too; what is a part of several may be all of one.
    in_full = {key: " ".join((text, *key[2], key[1])) for key, text in every.items()}
    found = {key: text for key, text in every.items() if text == word} or machines_called(word, in_full)
    if len(found) != 1:
        wrong = f"a part of {len(found)} machines" if found else "no machine that has run anything"
        raise ConfigError(f"--machine {word}: {wrong}", _listed([every[key] for key in found or every]))
    return next(iter(found))


def machines_called(word: str, described: Mapping[MachineKey, str]) -> dict[MachineKey, str]:
    """Return the machines whose name is `word`; without any, those that have it in their description."""
    named = {key: line for key, line in described.items() if key[0] == word}
    return named or {key: line for key, line in described.items() if word.lower() in line.lower()}


def newest_of(word: str, runs: Sequence[Summary]) -> Summary | None:
    """Return the newest run of the cell with this id or short name, which the matrix may have left.

    Raises:
        ConfigError: cells of several backends have this short name.
    """
    found = {run.cell_id: run for run in runs if word in (run.cell_id, short_name(run.cell_id))}
    if len(found) > 1:
        raise ConfigError(f"'{word}' is the name of {len(found)} cells that have been run", _listed(list(found)))
    return next(iter(found.values()), None)


def find_cell(word: str, matrix: Matrix, profile: str | None) -> FoundCell | None:
    """Return the one cell that `word` names: its id, its short name, or a glob over either.

    The cells of `profile` (None: the matrix's default one) come first; without a profile the others follow, in the
    order of the matrix, so that a cell that only the smoke profile has is found by its name alone.

    Raises:
        ConfigError: `word` matches several cells of a profile, or the profile is unknown.
    """
    chosen, _ = matrix.profile(profile)
    others = [] if profile else [name for name in matrix.profiles if name != chosen]
    for name in (chosen, *others):
        cells = expand(matrix, name)
        named = [cell for cell in cells if word in (cell.id, short_name(cell.id))]
        found = named or [cell for cell in cells if matches(word, cell)]
        if len(found) > 1:
            raise ConfigError(f"'{word}' matches {len(found)} cells", _listed([cell.id for cell in found]))
        if found:
            return FoundCell(found[0], name)
    return None


def not_found(word: str, matrix: Matrix, profile: str | None, runs: Sequence[Summary]) -> ConfigError:
    """Return the error for a word that names nothing: it names the nearest thing that exists."""
    profiles = [profile] if profile else list(matrix.profiles)
    names = [cell.id for name in profiles for cell in expand(matrix, name)]
    names += [short_name(name) for name in names]
    advice = nearest(word, [*names, *(run.run_id for run in runs)])
    listing = "zoo-bench plan lists the cells; results/ holds the runs"
    return ConfigError(f"'{word}' is no cell and no run", advice if advice.startswith("did you mean") else listing)


def _listed(names: Sequence[str]) -> str:
    return f"name one of them: {', '.join(names)}"
