"""How a run ended: the events, the exit code and what the harness saw -> status, reason, phases done. Pure."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Final

from zoo_bench.events import Event, timed_images
from zoo_bench.executors.local import Outcome
from zoo_bench.recipe import WORKER_PHASES, Phase
from zoo_bench.record import Status

ERROR_STATUS: Final[dict[str, Status]] = {"out_of_memory": "out_of_memory", "diverged": "diverged"}


def judge(outcome: Outcome, phases: Sequence[Phase]) -> tuple[Status, str]:
    """Return the status of a run and the reason for it.

    A run succeeded only if `run_stop` says so, the exit code is 0 and every phase that was asked for is done.
    """
    if outcome.overdue:  # also where somebody lost patience while it was being ended
        return outcome.overdue.status, outcome.overdue.reason
    if outcome.interrupted:
        return "interrupted", outcome.stopper
    if outcome.protocol_problem:
        return "failed", outcome.protocol_problem
    error = next((event for event in reversed(outcome.events) if event.name == "error"), None)
    said_error = f"{error.fields.get('phase', '?')}: {error.fields.get('message', 'no message')}" if error else ""
    if outcome.oom_kills and (outcome.exit_code == -signal.SIGKILL or "SIGKILL" in said_error):
        return "out_of_memory", (
            f"{said_error or 'the worker was killed by SIGKILL'}; meanwhile the kernel killed {outcome.oom_kills} "
            "process(es) of this machine for want of memory"
        )
    if error is not None:
        return ERROR_STATUS.get(str(error.fields.get("kind")), "failed"), said_error
    stop = next((event for event in reversed(outcome.events) if event.name == "run_stop"), None)
    said = stop.fields.get("status") if stop else None
    if outcome.exit_code != 0:
        words = f"; its log ends with: {outcome.last_words}" if outcome.last_words else ""
        return "failed", f"the worker {_exit(outcome.exit_code)} without saying why{words}"
    if said != "success":
        return "failed", f"the worker ended with exit code 0, but its run_stop says {said or 'nothing'}"
    missing = [phase for phase in phases if phase not in phases_done(outcome.events)]
    if missing:
        return "failed", f"the worker says success, but its events show no end of: {', '.join(missing)}"
    return "succeeded", ""


def _exit(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal, which has no name
        return f"was killed by signal {-code}"


def phases_done(events: Sequence[Event]) -> tuple[Phase, ...]:
    """Return the phases whose end the events show."""
    infer = timed_images(events)
    done: dict[Phase, bool] = {
        "train": any(event.name == "checkpoint_saved" and event.fields.get("final") for event in events),
        "infer": bool(infer) and infer[-1].number("index") >= infer[-1].number("images"),
        "evaluate": any(event.name in ("eval_stop", "eval_result") for event in events),
    }
    return tuple(phase for phase in WORKER_PHASES if done[phase])
