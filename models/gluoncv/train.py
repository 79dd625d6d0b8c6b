"""``python -m models.gluoncv.train --job JOB``: run a cell's phases (train, infer, evaluate) in one process.

The protocol is described at the top of models/worker.py.
"""

import os
import sys
from typing import Any, Dict

from models import worker


def main(job: Dict[str, Any], events: worker.EventWriter) -> None:
    """Run the job's phases in order: train, infer, evaluate."""
    events.write("init_start")
    threads = job["cell"]["runtime"]["threads"]
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read once, when MXNet loads its OpenMP library
    try:
        # Not at the top: where the CUDA libraries of its build are missing, MXNet cannot be imported, and the
        # harness must hear which they are.
        from models.gluoncv import phases
    except (ImportError, OSError) as error:
        from models.gluoncv.probe import why_mxnet_fails

        raise worker.WorkerError(why_mxnet_fails(error)) from error
    phases.run(job, events)


if __name__ == "__main__":
    sys.exit(worker.run(main))
