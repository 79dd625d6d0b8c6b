"""The gluoncv backend: trains, times and evaluates the zoo's four detectors with GluonCV's own modules on MXNet.

``python -m models.gluoncv.train --job JOB`` runs a cell, ``python -m models.gluoncv.probe`` describes the environment.
Run both in the folder that holds ``models/``: inside it, ``import gluoncv`` would find this folder. Python 3.6 syntax,
since MXNet has no builds for newer ones than 3.8.
"""
