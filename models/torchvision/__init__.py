"""The torchvision backend: trains, times and evaluates the zoo's four detectors with torchvision's own modules.

``python -m models.torchvision.train --job JOB`` runs a cell, ``python -m models.torchvision.probe`` describes the
environment. Run both in the folder that holds ``models/``: inside it, ``import torchvision`` would find this folder.
"""

import os

# Read once, when torch loads its OpenMP library. Its threads spin at every barrier; on a machine that is shared, the
# spinning takes the processor from the thread they wait for (an R-50 iteration went from 0.17 s to 2.1 s beside a
# second training; with this to 0.37 s). A short spin costs nothing on an idle machine.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
