"""The zoo's backends: one folder each, holding backend.yaml and the code of its worker.

A workspace may carry its own ``models/`` beside the one that travels in the wheel: ``extend_path`` merges every
folder of this name on ``sys.path`` into one package, the workspace's first. Python 3.6 syntax, since the oldest
worker environments import this file too.
"""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
