"""What of a machine would break every run, found before Megatron-Core is imported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from megatron_recipes.config import require


def foreign_apex() -> str | None:
    """Where a package named `apex` lies that is not NVIDIA's Apex (PyPI's is a web toolkit), or None.

    Megatron-Core imports whatever answers to that name and breaks in the model's construction.
    """
    spec = importlib.util.find_spec("apex")
    if spec is None:
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or []]
    if any((folder / "optimizers").is_dir() and (folder / "multi_tensor_apply").is_dir() for folder in folders):
        return None
    return str(folders[0]) if folders else str(spec.origin)


def has_transformer_engine() -> bool:
    """Whether Transformer Engine and its torch part, a package of its own, are installed (neither is imported)."""
    return all(importlib.util.find_spec(name) is not None for name in ("transformer_engine", "transformer_engine_torch"))


def refuse_environment() -> None:
    """Raise `UserError` for what would break every run on this machine."""
    apex = foreign_apex()
    require(
        apex is None,
        f"the package `apex` in {apex} is not NVIDIA's Apex and breaks Megatron-Core: run `pip uninstall apex`",
    )
    require(
        importlib.util.find_spec("psutil") is not None,
        "psutil is missing: without it Megatron-Core hangs when it saves a checkpoint; run `pip install psutil`",
    )
    require(
        importlib.util.find_spec("megatron") is not None,
        "megatron-core is missing: install the project with its extra, `pip install -e .[cpu]` or `.[gpu]`",
    )
    from packaging.version import Version  # a requirement of megatron-core

    # megatron-core 0.18 and newer import triton for every model; torch's CPU builds come without it
    old = Version(importlib.metadata.version("megatron-core")) < Version("0.18")
    require(
        old or importlib.util.find_spec("triton") is not None,
        "triton is missing: this version of megatron-core cannot be imported without it, also where there is no GPU; run "
        "`pip install triton`",
    )
