"""``python -m models.torchvision.node --job JOB --ranks N --port P``: launches the ranks of a node beside the first.

Slurm starts it there for nodes.py, once a node.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from models.torchvision.launch import start_ranks
from models.torchvision.nodes import Meeting


def main() -> int:
    """Run this node's ranks to their end; what they have to say of a failure, they leave in files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    job = json.loads(asked.job.read_text(encoding="utf-8"))
    try:
        start_ranks(job, asked.ranks, Meeting(int(os.environ["SLURM_PROCID"]) + 1, asked.port))
    except (ChildFailedError, SignalException) as error:
        sys.stderr.write(f"node {os.environ.get('SLURMD_NODENAME', '?')}: {type(error).__name__}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
