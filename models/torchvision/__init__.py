"""The torchvision backend: trains, times and evaluates the zoo's four detectors with torchvision's own modules.

``python -m models.torchvision.train --job JOB`` runs a cell, ``python -m models.torchvision.probe`` describes the
environment. Run both in the folder that holds ``models/``: inside it, ``import torchvision`` would find this folder.
"""
