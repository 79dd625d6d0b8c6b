"""A simulated node behind the real nvidia-ml-py, and simulated runs with known truth: see node, runs, incidents."""
