"""The gluoncv backend: trains, times and evaluates the zoo's four detectors with GluonCV's own modules on MXNet.

``python -m models.gluoncv.train --job JOB`` runs a cell, ``python -m models.gluoncv.probe`` describes the environment.
Run both in the folder that holds ``models/``: inside it, ``import gluoncv`` would find this folder. Python 3.6 syntax,
since MXNet has no builds for newer ones than 3.8.
"""

import os

# All are read once, when MXNet is loaded; a user's own come first.
# Threads of OpenMP spin at every barrier; on a machine that is shared, the spinning takes the processor from the thread
# they wait for. A short spin costs nothing on an idle machine.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# As GluonCV's own training scripts: no search for the best convolution at every new size of images, memory pooled in
# rounded sizes, and longer runs of operators handed to the engine at once.
os.environ.setdefault("MXNET_CUDNN_AUTOTUNE_DEFAULT", "0")
os.environ.setdefault("MXNET_GPU_MEM_POOL_TYPE", "Round")
os.environ.setdefault("MXNET_GPU_MEM_POOL_ROUND_LINEAR_CUTOFF", "26")
os.environ.setdefault("MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_FWD", "999")
os.environ.setdefault("MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_BWD", "25")
