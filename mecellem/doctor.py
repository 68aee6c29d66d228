"""`mecellem doctor`: what this machine can do, and what stands in the way. Imports nothing heavy and changes nothing."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json as json_module
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mecellem.flags import parse_and_call

Status = Literal["ok", "warn", "problem"]

OLDEST_MEGATRON, FIRST_UNTRIED_MEGATRON = (0, 16, 1), (0, 20)  # what the tests have seen: 0.16.1 to 0.19
DISK_PROBLEM_GB, DISK_WARN_GB = 1, 10  # the demo writes about 1 GB; mursit_base 2.2 GB a checkpoint
MEMORY_WARN_GB = 4  # the demo's two ranks


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table. Only a `problem` keeps training from working."""

    subject: str
    status: Status
    found: str
    advice: str = ""  # what to do; empty when there is nothing


def installed(name: str) -> str | None:
    """Version of a distribution, or None. Its code is not imported."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> tuple[int, ...]:
    """`0.16.1+cpu` -> (0, 16, 1)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def output_of(*command: str) -> str | None:
    """What a program prints, or None where it does not exist or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def check_python() -> Finding:
    """Python's version and environment (an older Python than 3.11 cannot install the package)."""
    return Finding("Python", "ok", f"{platform.python_version()} in {sys.prefix}")


def cpu_name() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def memory_gb() -> float:
    """This process's memory in GB: the machine's, or the container's where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    return total / 1e9


def check_processor() -> Finding:
    """Cores that this process may use, and memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = memory_gb()
    found = f"{cores} cores, {memory:.0f} GB memory"
    if memory < MEMORY_WARN_GB:
        return Finding("CPU", "warn", found, f"the demo wants {MEMORY_WARN_GB} GB: use --parallel.tensor 1 for training")
    return Finding("CPU", "ok", found)


def bf16_hardware() -> str | None:
    """The name of the instructions with which the CPU multiplies BF16 matrices, or None."""
    info = Path("/proc/cpuinfo")
    flags = set(re.findall(r"\w+", info.read_text())) if info.exists() else set()
    names = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512"}
    return next((name for flag, name in names.items() if flag in flags), None)


def emulates_bf16() -> bool:
    """Whether training here would multiply BF16 matrices without instructions for it: 65 times slower than FP32 with AVX2."""
    return not (gpus() and torch_cuda()) and bf16_hardware() is None


def check_bf16() -> Finding:
    """Whether the CPU multiplies BF16 matrices in hardware."""
    if name := bf16_hardware():
        return Finding("BF16 on the CPU", "ok", f"{name}, faster than FP32")
    return Finding("BF16 on the CPU", "warn", "not in hardware", "train on the CPU with --precision fp32, many times faster")


def gpus() -> list[str]:
    """`name, memory, driver` of each NVIDIA GPU."""
    query = "--query-gpu=name,memory.total,driver_version"
    return [line for line in (output_of("nvidia-smi", query, "--format=csv,noheader") or "").splitlines() if line]


def torch_cuda() -> str | None:
    """CUDA version that the installed torch was built for, read from its `version.py`; None for a CPU build."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    match = re.search(r"^cuda\b.*?=\s*'([\d.]+)'", (Path(spec.origin).parent / "version.py").read_text(), re.MULTILINE)
    return match[1] if match else None


def check_torch() -> Finding:
    """PyTorch, and whether it can use the GPUs."""
    version, cuda, found_gpus = installed("torch"), torch_cuda(), gpus()
    if version is None:
        return Finding("torch", "problem", "not installed", "pip install torch, then pip install -e '.[cpu]' or '.[gpu]'")
    build = f"{version}, {f'CUDA {cuda}' if cuda else 'CPU build'}"
    if found_gpus and not cuda:
        return Finding("torch", "warn", build, "this machine has a GPU: install torch's CUDA build to use it")
    return Finding("torch", "ok", build)


def check_gpus() -> Finding:
    """NVIDIA GPUs."""
    found = gpus()
    if not found:
        return Finding("GPU", "ok", "none: training runs on the CPU, small recipes only")
    return Finding("GPU", "ok", f"{len(found)} x {found[0]}")


def check_megatron() -> Finding:
    """Megatron-Core, in a version that this code has been tried with."""
    version = installed("megatron-core")
    wanted = "0.16.1" if sys.version_info < (3, 12) else "0.19.*"
    advice = f"pip install 'megatron-core=={wanted}'"
    if version is None:
        return Finding("megatron-core", "problem", "not installed", advice)
    if not OLDEST_MEGATRON <= numbers(version) < FIRST_UNTRIED_MEGATRON:
        return Finding("megatron-core", "problem", f"{version}; 0.16.1 to 0.19 are supported", advice)
    return Finding("megatron-core", "ok", version)


def check_transformers() -> Finding:
    """The transformers library, which export and evaluation need."""
    version = installed("transformers")
    if version is None:
        return Finding("transformers", "warn", "not installed", "pip install -e '.[demo]' to export and evaluate")
    return Finding("transformers", "ok", version)


def check_psutil() -> Finding:
    """psutil, which Megatron-Core needs without declaring it."""
    version = installed("psutil")
    if version is None:
        advice = "pip install psutil: without it Megatron-Core hangs when it saves a checkpoint"
        return Finding("psutil", "problem", "not installed", advice)
    return Finding("psutil", "ok", version)


def check_apex() -> Finding:
    """A package that only shares its name with NVIDIA's Apex, recognised by what lies in it."""
    from megatron_recipes.engine.environment import foreign_apex

    where = foreign_apex()
    if where is not None:
        advice = f"{sys.executable} -m pip uninstall apex (if it is not pip's: remove that folder from the Python path)"
        return Finding("apex", "problem", f"{where} is not NVIDIA's Apex; Megatron-Core breaks on it", advice)
    if importlib.util.find_spec("apex") is None:
        return Finding("apex", "ok", "not installed, not needed")
    return Finding("apex", "ok", "NVIDIA's Apex")


def check_gpu_library(subject: str, present: bool, distributions: Sequence[str], use: str) -> Finding:
    """A library that only a GPU needs: its absence matters where there is one."""
    if present:
        version = next((found for name in distributions if (found := installed(name))), "version unknown")
        return Finding(subject, "ok", version)
    if gpus():
        return Finding(subject, "warn", "not installed", f"pip install --no-build-isolation -e '.[gpu]': {use}")
    return Finding(subject, "ok", "not installed, only GPUs use it")


def check_transformer_engine() -> Finding:
    """Transformer Engine and its torch part: fused layers and FP8."""
    from megatron_recipes.engine.environment import has_transformer_engine

    names = ("transformer-engine", "transformer-engine-torch", "transformer_engine")
    use = "fused layers, packed attention, FP8 (it is compiled against the installed torch)"
    return check_gpu_library("Transformer Engine", has_transformer_engine(), names, use)


def check_flash_attention() -> Finding:
    """FlashAttention."""
    present = importlib.util.find_spec("flash_attn") is not None
    use = "attention over packed documents (it is compiled against the installed torch)"
    return check_gpu_library("flash-attn", present, ("flash-attn",), use)


def check_disk() -> Finding:
    """Free space in the current folder, where runs and data are written by default."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    found = f"{free:.0f} GB free in {Path.cwd()}" if free >= 10 else f"{free:.1f} GB free in {Path.cwd()}"
    if free < DISK_PROBLEM_GB:
        return Finding("disk", "problem", found, "free some space or work in another folder: the demo writes about 1 GB")
    if free < DISK_WARN_GB:
        return Finding("disk", "warn", found, "enough for the demo; mursit_base writes 2.2 GB a checkpoint")
    return Finding("disk", "ok", found)


def check_launchers() -> Finding:
    """Programs that start ranks on several machines. On one machine `mecellem train` starts its own."""
    beside = str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", "")
    programs = {name: shutil.which(name, path=beside) for name in ("srun", "torchrun", "apptainer")}
    return Finding("launchers", "ok", ", ".join(f"{name} {'yes' if path else 'no'}" for name, path in programs.items()))


CHECKS: tuple[Callable[[], Finding], ...] = (
    check_python,
    check_processor,
    check_bf16,
    check_gpus,
    check_torch,
    check_megatron,
    check_transformers,
    check_psutil,
    check_apex,
    check_transformer_engine,
    check_flash_attention,
    check_disk,
    check_launchers,
)


def print_table(findings: Sequence[Finding]) -> None:
    """The findings as a table, then one line that sums them up."""
    from rich.table import Table
    from rich.text import Text

    from mecellem.console import console

    table = Table(box=None, pad_edge=False)
    for heading in ("", "", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    colours = {"ok": "green", "warn": "yellow", "problem": "red"}
    for item in findings:
        status = Text(item.status, style=colours[item.status])
        table.add_row(status, Text(item.subject), Text(item.found), Text(item.advice))
    out = console()
    out.print(table)
    problems = [item.subject for item in findings if item.status == "problem"]
    out.print(f"\nin the way of training: {', '.join(problems)}" if problems else "\nthis machine can train", markup=False)


def doctor(json: bool = False) -> int:
    """Say what this machine can do and what stands in the way. Exit code 1 when something keeps training from working.

    Args:
        json: Print the findings as JSON instead of a table.
    """
    findings = [check() for check in CHECKS]
    if json:
        print(json_module.dumps([dataclasses.asdict(item) for item in findings], indent=2, ensure_ascii=False))
    else:
        print_table(findings)
    return 1 if any(item.status == "problem" for item in findings) else 0


def main(argv: Sequence[str]) -> int:
    """`mecellem doctor [--json]`."""
    return int(parse_and_call(doctor, argv, "mecellem doctor"))
