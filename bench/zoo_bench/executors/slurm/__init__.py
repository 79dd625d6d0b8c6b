"""`run --executor slurm`: each cell is one job of a cluster, in which `run` does what it does on any machine.

Three sides, which meet only through files in the workspace that all nodes share, and through Slurm's queue:

- the controller (`controller.py`) submits jobs, follows them and, where one has gone without a word, writes a record;
- the job (`node.py`) starts ``zoo-bench run --executor local`` for its cell, and has Slurm queue it again when it is
  told to make room;
- the store says how a cell ended. Nothing else does.

All that the controller knows is in notes (`notes.py`) and in the queue (`queue.py`), so it can be stopped and started.
"""
