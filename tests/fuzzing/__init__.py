"""Properties of all that reads what others wrote: it works, or raises an error of ours. `make fuzz` runs them long."""

import sys
from pathlib import Path

# Workers' code that needs no framework is looked at too; the harness itself never imports it.
sys.path.append(str(Path(__file__).resolve().parents[2]))
