"""What machine this is: processor, memory, system, GPUs, and the limits that stop a training run half-way."""

from __future__ import annotations

import os
import platform
import resource
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from zoo_bench.nvml import open_nvml
from zoo_bench.recipe import Strict

SHARED_MEMORY = Path("/dev/shm")


class GpuDevice(Strict):
    """One GPU as NVML describes it. `index` is NVML's, in PCI bus order."""

    index: int
    name: str
    uuid: str
    memory_bytes: int
    compute_capability: str


class MachineInfo(Strict):
    """The machine as a record keeps it. `cores` are physical, `threads` logical ones this process may use.

    `name` is what machine.yaml calls it, `interconnect` how its GPUs reach one another, `container` what this process
    runs in; None for none or not known. `nvml_problem` says why GPUs could not be looked at (no driver, no library),
    None when they could.
    """

    name: str | None = None
    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    os: str
    kernel: str
    gpus: tuple[GpuDevice, ...]
    interconnect: str | None = None
    container: str | None = None
    driver: str | None
    cuda_driver: str | None
    nvml_problem: str | None


class Limits(Strict):
    """What can run out during training. `shared_memory_bytes` is None where the system has no /dev/shm."""

    disk_free_bytes: int
    shared_memory_bytes: int | None
    open_files: int


def describe_machine(name: str | None = None) -> MachineInfo:
    """Look at this machine, which the user calls `name`. Never fails for want of a GPU, a driver or a library."""
    nvml, problem = open_nvml()
    gpus: tuple[GpuDevice, ...] = ()
    driver = cuda = link = None
    if nvml is not None:
        try:
            gpus, driver, cuda = _gpus(nvml), str(nvml.nvmlSystemGetDriverVersion()), _cuda_driver(nvml)
            link = _interconnect(nvml, len(gpus))
        except nvml.NVMLError as error:
            problem = f"NVML: {error}"
        finally:
            nvml.nvmlShutdown()
    return MachineInfo(
        name=name,
        cpu=cpu_model(),
        cores=psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        threads=_usable_threads(),
        memory_bytes=psutil.virtual_memory().total,
        os=_os_name(),
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
        gpus=gpus,
        interconnect=link,
        container=container(),
        driver=driver,
        cuda_driver=cuda,
        nvml_problem=problem,
    )


def usable_gpus(machine: MachineInfo) -> tuple[GpuDevice, ...]:
    """Return the GPUs that the caller may use: all, or those that CUDA_VISIBLE_DEVICES names, in its order."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return machine.gpus
    words = [word.strip() for word in listed.split(",") if word.strip()]
    return tuple(gpu for word in words for gpu in machine.gpus if word == str(gpu.index) or gpu.uuid.startswith(word))


def describe_limits(folder: Path) -> Limits:
    """Look at what `folder`, which exists, and this process have left."""
    return Limits(
        disk_free_bytes=shutil.disk_usage(folder).free,
        shared_memory_bytes=shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else None,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    )


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name as its maker gives it, or the architecture where that is not told."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model") and value.strip():
                return " ".join(value.split())
    return platform.processor() or platform.machine() or "unknown CPU"


def container(root: Path = Path("/")) -> str | None:
    """Return the image that this process runs in, where its maker tells it; else the kind of container; else None."""
    podman = root / "run/.containerenv"
    if podman.is_file():
        lines = podman.read_text(encoding="utf-8", errors="replace").splitlines()
        images = [line.partition("=")[2].strip('"') for line in lines if line.startswith("image=")]
        return images[0] if images and images[0] else "podman"
    for variable in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).name
    return "docker" if (root / ".dockerenv").exists() else None


def _usable_threads() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform(terse=True)


def _gpus(nvml: ModuleType) -> tuple[GpuDevice, ...]:
    return tuple(_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))


def _gpu(module: ModuleType, index: int) -> GpuDevice:
    nvml: Any = module
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return GpuDevice(
        index=index,
        name=str(nvml.nvmlDeviceGetName(handle)),
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        compute_capability=f"{major}.{minor}",
    )


def _cuda_driver(nvml: ModuleType) -> str:
    """Return the newest CUDA the driver supports: NVML counts 1000 a major and 10 a minor version."""
    version = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
    return f"{version // 1000}.{version % 1000 // 10}"


def _interconnect(module: ModuleType, count: int) -> str | None:
    nvml: Any = module
    if count < 2:
        return None
    links = [_active_links(nvml, nvml.nvmlDeviceGetHandleByIndex(index)) for index in range(count)]
    if min(links) == 0:
        return "PCIe" if max(links) == 0 else "PCIe and NVLink"
    return f"NVLink, {min(links)} links a GPU"


def _active_links(nvml: Any, handle: object) -> int:
    """Count the NVLinks of a GPU that are up. A GPU without the links, or a number past its last, is not supported."""
    active = 0
    for link in range(nvml.NVML_NVLINK_MAX_LINKS):
        try:
            active += nvml.nvmlDeviceGetNvLinkState(handle, link) == nvml.NVML_FEATURE_ENABLED
        except nvml.NVMLError:
            break
    return active
