"""``python -m zoo_bench.adapters.launch --job JOB --backend FILE --python PYTHON``: launches a foreign trainer.

It is a worker like any other, in the harness's own interpreter: it starts the command of backend.yaml, reads what that
prints or logs through an adapter, and writes the events that the harness understands. So such a trainer is sampled,
watched, stopped and recorded as every other is.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from zoo_bench.adapters import find_adapter
from zoo_bench.adapters.follow import followed
from zoo_bench.adapters.template import fill, values_of
from zoo_bench.backends import BackendSpec, CommandSpec
from zoo_bench.yamlfile import load_model

LAST_LINES = 20
POLL_S = 0.2
LEFT_S = 1.0  # in which what it printed last is there
CLOCK_S = 2.0  # by which a file's time may lag behind


def main(argv: list[str] | None = None) -> int:
    """Run the job; return the exit code of a worker."""
    parser = argparse.ArgumentParser(description="Launches a foreign trainer; the harness starts it.")
    parser.add_argument("--job", required=True)
    parser.add_argument("--backend", type=Path, required=True)
    parser.add_argument("--python", required=True)
    words = parser.parse_args(argv)
    spec = load_model(words.backend, BackendSpec).command
    assert spec is not None  # else the harness starts the backend's own worker
    worker: Any = importlib.import_module("models.worker")

    def launch(job: dict[str, Any], events: Any) -> None:
        Launch(job, spec, values_of(job, words.python), events, worker.WorkerError).run()

    return int(worker.run(launch, ["--job", words.job]))


class Launch:
    """One launch: the process, and what has been told of it so far."""

    def __init__(
        self, job: Mapping[str, Any], spec: CommandSpec, values: Mapping[str, str], events: Any, error: type[Exception]
    ) -> None:
        self._job = job
        self._spec = spec
        self._values = values
        self._events = events
        self._error = error
        self._last: dict[str, float] = {}
        self._iteration = 0
        self._scores: dict[str, Any] = {}
        self._said_end = True
        self._ended_at_s = time.monotonic()
        self._started_s = time.monotonic()
        self._began_unix_s = time.time() - CLOCK_S
        self._words: list[str] = []

    def run(self) -> None:
        """Start the command, pass on what it tells, and report how it ended. Raises a WorkerError where it failed."""
        self._events.write("init_start")
        adapter = find_adapter(self._spec.adapter, self._spec.patterns or None)
        command = [fill(word, self._values) for word in self._spec.words]
        if "train" not in self._job["phases"]:
            raise self._error("a launched trainer trains and evaluates in one go: run its train phase too")
        folder = fill(self._spec.folder, self._values)
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace",
        )  # fmt: skip
        self._events.write("init_stop", environment={}, images={})
        self._events.write("run_start", phases=self._job["phases"])
        self._events.phase = "train"
        self._events.write("epoch_start", epoch=1)
        self._ended_at_s = time.monotonic()
        printed = self._printed(process)
        try:
            lines = printed if self._spec.log is None else self._logged(process, printed)
            for name, fields in adapter(lines):
                self._tell(name, fields)
            code = process.wait()
        finally:
            process.kill()
        if code != 0:
            raise self._error(self._failure(code))
        self._finish()

    def _printed(self, process: subprocess.Popen[str]) -> Iterator[str]:
        """Yield every line, printed once more for the worker's log; the last ones are kept for an error.

        What the trainer has started may hold its output open for ever: once it has ended, that is not waited for.
        """
        queue: SimpleQueue[str | None] = SimpleQueue()
        stream = process.stdout
        assert stream is not None

        def read() -> None:
            for line in stream:
                queue.put(line)
            queue.put(None)

        threading.Thread(target=read, daemon=True).start()
        while True:
            gone = process.poll() is not None
            try:
                line = queue.get(timeout=LEFT_S if gone else POLL_S)
            except Empty:
                if gone:
                    return
                continue
            if line is None:
                return
            sys.stdout.write(line)
            sys.stdout.flush()
            self._words = [*self._words[1 - LAST_LINES :], line.rstrip()]
            yield line

    def _logged(self, process: subprocess.Popen[str], printed: Iterator[str]) -> Iterator[str]:
        """Yield the lines of the file that the trainer logs to, as it grows, until the trainer has ended."""
        threading.Thread(target=lambda: [None for _ in printed], daemon=True).start()
        pattern = fill(self._spec.log or "", self._values)
        yield from followed(pattern, self._began_unix_s, lambda: process.poll() is not None)

    def _tell(self, name: str, fields: dict[str, Any]) -> None:
        fields = {key: value for key, value in fields.items() if key != "unix_s"}
        if name == "step":
            self._step(fields)
        elif name == "eval_result":
            self._scores.update(fields)
            self._ended_at_s = time.monotonic()  # the next iteration does not pay for it
        elif name == "run_stop":
            self._said_end = fields.get("status") == "success"
        elif name == "memory_peak":
            self._events.write("memory_peak", **fields)

    def _step(self, fields: dict[str, Any]) -> None:
        """Write a step, with what its line does not tell: the cell says batch and length, the clock the time."""
        now_s, batch = time.monotonic(), int(self._values["batch_size"])
        self._scores = {}  # of a model that has been trained on since
        gap = max(1, int(fields.get("averaged_over") or fields["iteration"] - self._iteration))
        images_per_s = fields.pop("images_per_s", None)
        since_s = now_s - self._started_s
        if float(fields.get("iteration_time_s", 0.0)) * gap > since_s + CLOCK_S:  # in another unit, or of another run
            del fields["iteration_time_s"]
        told = {
            "iterations": int(self._values["iterations"]),
            "batch_size": batch,
            "iteration_time_s": batch / images_per_s if images_per_s else (now_s - self._ended_at_s) / gap,
            **fields,
            "averaged_over": gap,
        }
        self._iteration, self._ended_at_s = int(fields["iteration"]), now_s
        self._last = told
        self._events.write("step", **told)

    def _finish(self) -> None:
        """Report the model and the scores of a command that ended well."""
        if not self._last:
            where = f"the files {self._spec.log}" if self._spec.log else "what the command printed"
            raise self._error(f"the adapter '{self._spec.adapter}' found no iteration in {where}")
        if not self._said_end:
            raise self._error("its log says that it did not end well")
        whole = self._iteration + self._last["averaged_over"] > self._last["iterations"]
        if not whole and not Path(self._job["paths"]["enough"]).exists():
            planned = f"{self._last['iterations']:.0f}; {{iterations}} in its command would tell it"
            raise self._error(f"it ended well after iteration {self._iteration} of {planned}")
        self._events.write("epoch_stop", epoch=1)
        scheduled = self._job["cell"]["recipe"]["lr_schedule"]["iterations"]
        trained = self._iteration + self._last["averaged_over"] > scheduled
        kept = self._model()
        self._events.write("checkpoint_saved", iteration=self._iteration, final=True, trained=trained, **kept)
        if "evaluate" in self._job["phases"]:
            self._events.phase = "evaluate"
            if not self._scores:
                raise self._error(
                    f"the adapter '{self._spec.adapter}' found no AP in what the command told after its last iteration"
                )
            self._events.write("eval_result", **self._scores)

    def _model(self) -> dict[str, Any]:
        """Put the weights where a worker leaves its own, and say what they are; nothing where none are kept."""
        if self._spec.model is None:
            return {}
        source = Path(*(fill(text, self._values) for text in (self._spec.folder, self._spec.model)))
        if not source.is_file():
            raise self._error(f"the command left no model at {source} (model: in backend.yaml)")
        if source.stat().st_mtime < self._began_unix_s:
            raise self._error(f"the model at {source} is older than this run (model: in backend.yaml)")
        target = Path(self._job["paths"]["model"]).with_suffix(source.suffix)
        if source.resolve() != target.resolve():
            shutil.copyfile(source, target)
        return {"path": str(target), "bytes": target.stat().st_size}

    def _failure(self, code: int) -> str:
        said = next((line for line in reversed(self._words) if line.strip()), "nothing")
        return f"the command ended with exit code {code}; the last it printed: {said}"


if __name__ == "__main__":
    sys.exit(main())
