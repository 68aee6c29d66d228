"""Checkpoints: Megatron-Core's `torch_dist` format, written to a temporary name and renamed when complete.

`checkpoints/step_NNNNNNN/` holds the model, the optimizer (fully reshardable), RNG states and `mecellem.json`, a small
text file with the step, the data cursor, the configuration and versions. A folder of that name is whole by
construction; `latest` names the newest and is updated last. megatron-core 0.16.1 and 0.19.2 read each other's, in any
layout.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mecellem.errors import UserError
from mecellem.files import atomic_write, commit_folder, disk_full_cause, disk_full_error
from mecellem.tokenizer_files import MODEL_CONFIG, copy_tokenizer
from megatron_recipes.config import DecoderConfig, EncoderConfig, ModelConfig, RopeScaling
from megatron_recipes.run_folder import CHECKPOINT, TOKENIZER

FORMAT = "mecellem.checkpoint/3"
COMMON = "common.pt"  # Megatron-Core's name for what is no tensor
LATEST = "latest"


@dataclasses.dataclass(frozen=True, slots=True)
class CheckpointMeta:
    """What `mecellem.json` says about a checkpoint without opening its tensors."""

    step: int
    tokens: int
    model: ModelConfig
    precision: str
    tokenizer_sha256: str
    layout: dict[str, int]
    versions: dict[str, str]
    name: str  # of the recipe that trained it, or of the model that was imported
    cursor: dict[str, Any] | None = None  # where the data stand; None where the step says it all

    def to_json(self, files: dict[str, int]) -> str:
        """The text of `mecellem.json`; `files` are the checkpoint's files and their sizes in bytes."""
        values = dataclasses.asdict(self)
        values["model"] = {"kind": "encoder" if isinstance(self.model, EncoderConfig) else "decoder", **values["model"]}
        return json.dumps({"format": FORMAT, **values, "files": files}, indent=2) + "\n"


def read_meta(folder: Path) -> CheckpointMeta:
    """Read `mecellem.json`. Raises `UserError` when the folder is no checkpoint or one of another format."""
    values = _read_values(folder)
    del values["files"]
    try:
        model = _read_model(values["model"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{Path(folder) / CHECKPOINT} is not as it was written (model: {error}): the checkpoint is damaged, use another one"
        ) from None
    return CheckpointMeta(**{**values, "model": model})


def _read_model(values: dict[str, Any]) -> ModelConfig:
    shape = {name: value for name, value in values.items() if name != "kind"}
    if values["kind"] == "encoder":
        return EncoderConfig(**shape)
    return DecoderConfig(**{**shape, "rope_scaling": RopeScaling(**shape["rope_scaling"])})


def _read_values(folder: Path) -> dict[str, Any]:
    path = Path(folder) / CHECKPOINT
    if Path(folder).name == LATEST and Path(folder).is_file():
        raise UserError(f"{folder} is a file that names the newest checkpoint: give that folder beside it")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{folder} is not a checkpoint: it has no {CHECKPOINT}; give a .../checkpoints/step_NNNNNNN folder"
        ) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): the checkpoint is damaged, use another one") from None
    found = values.pop("format", None)
    if found != FORMAT:
        raise UserError(f"{path} has format {found!r}, this version reads {FORMAT!r}")
    expected = {field.name for field in dataclasses.fields(CheckpointMeta)} | {"files"}
    if set(values) != expected:
        names = ", ".join(sorted(set(values) ^ expected))
        raise UserError(f"{path} is not as it was written ({names}): the checkpoint is damaged, use another one")
    return values


def versions() -> dict[str, str]:
    """Versions of what a checkpoint depends on."""
    found = {name: version(name) for name in ("mecellem", "torch", "megatron-core", "numpy")}
    return {"python": platform.python_version(), **found}


def step_folder(run: Path, step: int) -> Path:
    """`RUN/checkpoints/step_NNNNNNN`."""
    return run / "checkpoints" / f"step_{step:07d}"


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below `folder` except `mecellem.json` itself, by relative name."""
    files = sorted(item for item in folder.rglob("*") if item.is_file())
    return {str(item.relative_to(folder)): item.stat().st_size for item in files if item != folder / CHECKPOINT}


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint as far as names and sizes tell (no tensor is read), or None."""
    try:
        recorded: dict[str, int] = _read_values(folder)["files"]
    except UserError as error:
        return str(error)
    found = file_sizes(folder)
    for name, size in recorded.items():
        if name not in found:
            return f"{folder / name} is missing"
        if found[name] != size:
            return f"{folder / name} has {found[name]:,} bytes instead of {size:,}"
    return None


def newest_whole(run: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint of a run that is not damaged, and what is wrong with the newer ones that were passed over.

    (None, []) for a run without checkpoints. Raises `UserError` when there are checkpoints and all are damaged: a run must
    not start from scratch unasked.
    """
    folder = run / "checkpoints"
    found = [item for item in folder.iterdir() if re.fullmatch(r"step_\d{7,}", item.name)] if folder.is_dir() else []
    faults: list[str] = []
    for item in sorted(found, key=lambda item: int(item.name.removeprefix("step_")), reverse=True):
        fault = damage(item)
        if fault is None:
            return item, faults
        faults.append(fault)
    if faults:
        raise UserError(
            f"every checkpoint in {folder} is damaged ({faults[0]}): put whole ones back, or remove the folder to start from "
            "the beginning"
        )
    return None, []


def step_to_resume(run: Path) -> int:
    """The steps done in the checkpoint that the run goes on from, 0 for none. Raises `UserError` as `newest_whole` does."""
    newest, _ = newest_whole(run)
    return 0 if newest is None else read_meta(newest).step


def remove_unfinished(run: Path) -> None:
    """Delete what a killed process left half-written (temporary names start with a dot)."""
    folder = run / "checkpoints"
    for item in folder.glob(".*") if folder.is_dir() else ():
        if item.is_dir():
            shutil.rmtree(item, ignore_errors=True)
        else:
            item.unlink(missing_ok=True)


def sharded_metadata() -> dict[str, Any]:
    """How Megatron-Core lays out the optimizer: `fully_reshardable` loads into any other layout, chosen explicitly."""
    from megatron.core import parallel_state

    return {
        "distrib_optim_sharding_type": "fully_reshardable",
        "dp_cp_group": parallel_state.get_data_parallel_group(with_context_parallel=True),
    }


def layout() -> dict[str, int]:
    """Sizes of this run's parallel groups."""
    from megatron.core import parallel_state as mpu

    return {
        "tensor": mpu.get_tensor_model_parallel_world_size(),
        "pipeline": mpu.get_pipeline_model_parallel_world_size(),
        "context": mpu.get_context_parallel_world_size(),
        "data": mpu.get_data_parallel_world_size(),
    }


def _rng_object() -> Any:
    """This rank's random states as a `ShardedObject` (they only mean something in the same layout)."""
    from megatron.core import parallel_state as mpu
    from megatron.core.dist_checkpointing.mapping import ShardedObject
    from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

    from megatron_recipes.engine import runtime

    states = {"torch": torch.get_rng_state(), "tracker": get_cuda_rng_tracker().get_states()}
    if runtime.has_cuda():
        states["cuda"] = torch.cuda.get_rng_state()
    sizes = layout()
    place = (
        mpu.get_pipeline_model_parallel_rank(),
        mpu.get_tensor_model_parallel_rank(),
        mpu.get_context_parallel_rank(),
        mpu.get_data_parallel_rank(),
    )
    return ShardedObject("rng", states, (sizes["pipeline"], sizes["tensor"], sizes["context"], sizes["data"]), place)


def _restore_rng(states: dict[str, Any]) -> None:
    from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

    from megatron_recipes.engine import runtime

    torch.set_rng_state(states["torch"])
    get_cuda_rng_tracker().set_states(states["tracker"])
    if runtime.has_cuda():
        torch.cuda.set_rng_state(states["cuda"])


def save(folder: Path, meta: CheckpointMeta, model: Any, optimizer: Any | None, tokenizer: Path) -> Path:
    """Write a checkpoint into `folder`, all ranks together; returns it. Raises `UserError` when the disk is full.

    `model` is the bare module of this rank, `optimizer` Megatron-Core's (None for weights only), `tokenizer` the folder
    whose files travel with the weights.
    """
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.utils import force_all_tensors_to_non_fp8

    from megatron_recipes.engine.optimizer_state import optimizer_state

    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.tmp")
    rank = dist.get_rank()
    try:
        if rank == 0:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        dist.barrier()
        metadata = sharded_metadata()
        state: dict[str, Any] = {"model": model.sharded_state_dict(metadata=metadata)}
        if optimizer is not None:
            state["optimizer"] = optimizer_state(optimizer, state["model"], metadata, is_loading=False)
            state["rng"] = _rng_object()
        force_all_tensors_to_non_fp8(state["model"])  # as a load does: files of plain tensors, which anyone reads
        dist_checkpointing.save(state, str(temporary))
        dist.barrier()
        if rank == 0:
            if not (temporary / COMMON).exists():  # megatron-core 0.19 keeps these values elsewhere; 0.16 looks only here
                torch.save(dist_checkpointing.load_common_state_dict(str(temporary)), temporary / COMMON)
            copy_tokenizer(tokenizer, temporary / TOKENIZER)
            if (tokenizer / MODEL_CONFIG).exists():
                shutil.copyfile(tokenizer / MODEL_CONFIG, temporary / TOKENIZER / MODEL_CONFIG)
            (temporary / CHECKPOINT).write_text(meta.to_json(file_sizes(temporary)), encoding="utf-8")
            commit_folder(temporary, folder, replace=folder.exists())
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        full = disk_full_cause(error)
        if full is not None:
            raise disk_full_error(folder, full) from error
        raise
    dist.barrier()
    return folder


def point_latest(run: Path, folder: Path) -> None:
    """Let `RUN/checkpoints/latest` name the newest checkpoint, for scripts and people: resuming looks at the folders."""
    with atomic_write(run / "checkpoints" / LATEST) as handle:
        handle.write(folder.name + "\n")


def load(folder: Path, model: Any, optimizer: Any) -> CheckpointMeta:
    """Load a checkpoint of any layout into this rank's model and optimizer. Raises `UserError` when it is damaged."""
    meta, state = _read_state(folder, model, optimizer)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if "rng" in state:
        _restore_rng(state["rng"])
    return meta


def load_weights(folder: Path, model: Any) -> dict[str, Any]:
    """Load the weights alone of a checkpoint of any layout; returns them as they were read, by this rank's names.

    A model with parameters in FP8 has rounded them. Raises `UserError` when the checkpoint is damaged.
    """
    _, state = _read_state(folder, model, optimizer=None)
    weights: dict[str, Any] = state["model"]
    model.load_state_dict(weights)
    return weights


def _read_state(folder: Path, model: Any, optimizer: Any | None) -> tuple[CheckpointMeta, dict[str, Any]]:
    """This rank's part of a checkpoint: model, optimizer unless it is None, and random states where the layout is the same."""
    fault = damage(folder)
    if fault is not None:
        raise UserError(f"{folder} cannot be loaded, the checkpoint is damaged: {fault}; use an older one")
    from megatron.core import dist_checkpointing
    from torch.distributed.checkpoint import CheckpointException  # a BaseException: `except Exception` misses it

    from megatron_recipes.engine.optimizer_state import optimizer_state
    from megatron_recipes.models.fp8_emulation import without_fp8_state

    meta = read_meta(folder)
    metadata = sharded_metadata()
    state: dict[str, Any] = {"model": model.sharded_state_dict(metadata=metadata)}
    if optimizer is None:  # a start from weights alone: scales of FP8 begin anew
        state["model"] = without_fp8_state(state["model"])
    else:
        state["optimizer"] = optimizer_state(optimizer, state["model"], metadata, is_loading=True)
        if meta.layout == layout():
            state["rng"] = _rng_object()
    try:
        state = dist_checkpointing.load(state, str(folder))
    except (Exception, CheckpointException) as error:
        raise UserError(
            f"{folder} cannot be loaded ({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}): "
            f"it was written with {meta.versions}; if the versions are right the checkpoint is damaged: use an older one (a "
            "run resumes from the one before when this folder is moved away)"
        ) from error
    return meta, state
