"""A cell's page: what stands behind its row, drawn, and listed run by run."""

from __future__ import annotations

import shlex
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo_bench.addresses import is_address
from zoo_bench.baselines import Baseline
from zoo_bench.cell import Cell, digest
from zoo_bench.check import accepted_for
from zoo_bench.columns import COLUMNS, Column
from zoo_bench.errors import ZooBenchError
from zoo_bench.evaluate import curves
from zoo_bench.findings import command_of_cell, commit_of
from zoo_bench.ground_truth import evaluated_ids
from zoo_bench.history import FEWEST_NIGHTS, nights_of
from zoo_bench.provenance import MachineKey, cpu_line, gpu_lines, machine_line, revision_text, versions
from zoo_bench.record import Record
from zoo_bench.report.cell_charts import history_chart, machine_charts, score_charts, training_charts
from zoo_bench.report.charts import Chart
from zoo_bench.report.overview import FIGURES, Line
from zoo_bench.report.paths import PICTURES, run_anchor
from zoo_bench.report.pictures import QUALITY, Drawn, best_and_worst
from zoo_bench.report.series import RunSeries, read_series
from zoo_bench.report.sides import sides
from zoo_bench.rules import METRICS
from zoo_bench.runs import Summary
from zoo_bench.session import Session
from zoo_bench.table import Row
from zoo_bench.units import COLUMN_HEADS, written

RUNS_SHOWN = 100


@dataclass(frozen=True)
class CellPage:
    """What a page is made from. `folder`: where it is written, with its pictures beside it."""

    session: Session
    row: Row
    line: Line
    baselines: Mapping[MachineKey, Baseline]
    folder: Path
    heads: Mapping[Column, str]

    @property
    def cell(self) -> Cell:
        """The cell."""
        return self.row.cell

    @property
    def runs(self) -> tuple[Summary, ...]:
        """Every run of it, oldest first."""
        return self.session.runs.of(self.cell.id).summaries

    @property
    def _scored(self) -> Record | None:
        return self.row.sources.get("box_ap") or self.row.sources.get("mask_ap")

    def key(self) -> str:
        """Say the same as long as the page would be the same."""
        here = [
            _stamp(self.session.workspace.root / file) for record in self.row.records for file in record.files.values()
        ]
        scored = self._scored
        seen = scored is not None and self._evaluation(scored) is not None
        accepted = [sorted(one.runs_of(self.cell.id)) for one in self.baselines.values()]
        runs = [run.run_id for run in self.runs]
        check = self.session.matrix.check.model_dump(mode="json")
        told = [self.line.traits, self.line.remarks, {column: one.text for column, one in self.line.figures.items()}]
        return digest([self.cell.resolved(), self.session.profile, runs, accepted, here, seen, check, told])

    def values(self) -> Mapping[str, Any]:
        """Return what the template shows."""
        drawn = self._pictures()
        charts = list(self._charts())
        shown_ = {record.run_id for record in self.row.records} | {run.run_id for run in self.runs[-RUNS_SHOWN:]}
        records = [self.session.runs.read(run) for run in reversed(self.runs) if run.run_id in shown_]
        return {
            "title": f"{self.cell.id}, profile {self.session.profile}",
            "line": self.line,
            "heads": self.heads,
            "charts": charts,
            "data": {"charts": [chart.as_json() for chart in charts], "sides": sides(records)},
            "pictures": drawn,
            "sources": [self._facts(record) for record in self.row.records],
            "runs": [_run(record) for record in records],
            "left_out": len(self.runs) - len(records),
            "command": command_of_cell(self.cell.id, self.session.profile),
            "lost_series": "s_per_iter" in self.row.sources and not any(chart.id == "times" for chart in charts),
        }

    def _charts(self) -> Iterator[Chart]:
        timed = self.row.sources.get("s_per_iter")
        if timed is not None:
            series = self._series(timed)
            if series is not None and series.training is not None:
                yield from training_charts(series.training)
            if series is not None:
                yield from machine_charts(series)
        scored = self._scored
        if scored is not None and scored.measurements.scores is not None:
            yield from score_charts(scored.measurements.scores, self._curves(scored))
        for metric in METRICS:
            nights = nights_of(self.cell, self.runs, self.session.profile, metric)
            if len(nights) >= FEWEST_NIGHTS:
                newest, check = nights[-1].runs[-1], self.session.matrix.check
                accepted = accepted_for(self.cell, metric, newest, self.session.runs, self.baselines, check)
                middle = statistics.median(run.figures[metric] for run in accepted) if accepted else None
                yield history_chart(metric, nights, middle, check, self.heads[metric])

    def _series(self, record: Record) -> RunSeries | None:
        root = self.session.workspace.root
        events, samples = (root / record.files.get(name, "none") for name in ("events", "samples"))
        return read_series(events, samples, int(record.cell["measure"].get("warmup_iterations", 0)))

    def _evaluation(self, record: Record) -> tuple[Path, Path, Path, int | None] | None:
        """Return annotations, detections, images and how many were evaluated; None where they are not here."""
        detections = self.session.workspace.root / record.files.get("detections", "none")
        try:
            dataset = self.session.dataset(self.cell)
            if not detections.is_file() or self.session.dataset_sha256(self.cell) != record.inputs.dataset_sha256:
                return None
            return (
                dataset.val.annotations,
                detections,
                dataset.val.images,
                record.cell["measure"]["evaluate_images"],
            )
        except (ZooBenchError, OSError):
            return None

    def _curves(self, record: Record) -> Mapping[str, Mapping[float, Sequence[float | None]]]:
        found = self._evaluation(record)
        scores = record.measurements.scores
        if found is None or scores is None:
            return {}
        annotations, detections, _, limit = found
        kinds = {"box": scores.box, "mask": scores.mask}
        try:
            images = evaluated_ids(annotations, limit)
            return {
                kind: curves(annotations, detections, masks=kind == "mask", image_ids=images)
                for kind, known in kinds.items()
                if known is not None
            }
        except ZooBenchError:
            return {}

    def _pictures(self) -> list[tuple[str, Drawn]]:
        """Draw and write the best and the worst images; return their files' names beside the page."""
        for left in self.folder.glob(PICTURES):
            left.unlink()
        scored = self._scored
        found = self._evaluation(scored) if scored is not None else None
        if found is None:
            return []
        annotations, detections, images, limit = found
        try:
            drawn = best_and_worst(annotations, detections, images, evaluated_ids(annotations, limit))
        except (ZooBenchError, OSError, ValueError):
            return []
        files = []
        for place, one in enumerate(drawn):
            name = PICTURES.replace("*", str(place + 1))
            one.picture.save(self.folder / name, quality=QUALITY)
            files.append((name, one))
        return files

    def _facts(self, record: Record) -> dict[str, Any]:
        checkpoint = record.checkpoint
        return {
            "run_id": record.run_id,
            "columns": ", ".join(COLUMN_HEADS[column] for column in COLUMNS if self.row.sources.get(column) is record),
            "facts": {
                "machine": machine_line(record),
                "GPUs": ", ".join(gpu_lines(record)),
                "CPU": cpu_line(record),
                **versions(record),
                "zoo-bench": record.zoo_bench,
                "revision": revision_text(record.revision) or "none",
                "worker's command": shlex.join(record.command),
                "log": record.files.get("log", ""),
                "checkpoint": f"{checkpoint.file}, SHA-256 {checkpoint.sha256}" if checkpoint else "none",
                **{f"definition of {name}": text for name, text in record.definitions.items()},
            },
            "published": [
                (what, file, is_address(file.url))
                for what, file in (("model", record.published.model), ("log", record.published.log))
            ]
            if record.published
            else [],
        }


def _run(record: Record) -> dict[str, Any]:
    """Return a line of the list of runs."""
    summary = Summary.of(record)
    return {
        "anchor": run_anchor(record.run_id),
        "run_id": record.run_id,
        "day": time.strftime("%Y-%m-%d %H:%M", time.gmtime(record.started_unix_s)),
        "status": record.status.replace("_", " "),
        "reason": record.reason,
        "commit": commit_of(summary),
        "machine": machine_line(record),
        "profile": record.profile,
        "figures": {column: written(column, summary.figures.get(column)) for column in FIGURES},
    }


def _stamp(path: Path) -> list[int] | None:
    """Return what tells a file from what had its name before; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
