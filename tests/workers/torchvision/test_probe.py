from __future__ import annotations

import json
import subprocess
import sys

import torch
from conftest import ROOT


def test_the_probe_prints_one_json_object() -> None:
    command = [sys.executable, "-m", "models.torchvision.probe"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout)
    assert set(found) == {"versions", "arch_list", "cuda_available"}
    assert set(found["versions"]) == {"python", "torch", "torchvision", "cuda", "cudnn", "nccl"}
    assert found["versions"]["torch"] == torch.__version__
    assert found["cuda_available"] == torch.cuda.is_available()
    if torch.version.cuda:
        assert all(arch.startswith(("sm_", "compute_")) for arch in found["arch_list"])
        assert found["arch_list"]
