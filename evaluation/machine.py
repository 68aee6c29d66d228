"""On what the figures were made: the hardware in a line and the versions of what computed them."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from mecellem.doctor import cpu_name, memory_gb

PACKAGES = (
    "mecellem",
    "torch",
    "megatron-core",
    "transformers",
    "tokenizers",
    "sentence-transformers",
    "bm25s",
    "pytrec_eval-terrier",
    "numpy",
)


def hardware_line(device: str) -> str:
    """`AMD EPYC, 2 cores, 25 GB memory`, with the GPU in front where `device` is one."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    line = f"{cpu_name()}, {cores} cores, {memory_gb():.0f} GB memory"
    return f"{torch.cuda.get_device_name(device)}; {line}" if device.startswith("cuda") else line


def versions() -> dict[str, str]:
    """Python's version and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
