"""The one module that knows whether there is CUDA: unmodified Megatron-Core on CUDA + NCCL, or on CPU + gloo.

Call `install()` before the first import of `megatron.core`. With CUDA it changes nothing but the last three of `SHIMS`.
Without CUDA, Megatron-Core's own modules see a *facade* of torch in place of torch: the same module with `cuda` replaced
by stand-ins that mean the CPU. The facade is put into the namespaces of `megatron.core.*` modules only, as they are
imported; user code, transformers and torch itself see torch as it is. What the facade cannot reach, because it is a
method of tensors, is patched by name and listed in `SHIMS`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.abc
import importlib.machinery
import logging
import queue
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

CPU = torch.device("cpu")

# name -> what breaks in Megatron-Core on a machine without CUDA when it is left out
SHIMS: dict[str, str] = {
    "facade.cuda": "current_device, streams, events, RNG and memory statistics are asked of torch.cuda everywhere",
    "facade.factories": 'schedules, clip_grads and the optimizer create tensors with device="cuda" or pinned memory',
    "facade.compile": "jit_fuser is torch.compile: minutes of C++ compilation, and a compiler, for small fusions",
    "tensor.cuda": "language_module copies the tied embedding, and the optimizer what it saves, with .cuda(); patched inside "
    "the two only",
    "tensor.type": "the optimizer compares tensor.type() with 'torch.cuda.FloatTensor'; patched inside it only",
    "rng": "random.py reads and writes torch.cuda.default_generators; here the CPU generator plays their part",
    "lone.collectives": "gloo copies every gradient and parameter for a group of one rank, where NCCL has nothing to do: "
    "a hundredth of a step",
    "adam": "without TE or Apex the distributed optimizer cannot load its own checkpoint (also needed with CUDA)",
    "save.queue": "each rank's first save starts a process for a queue; Slurm's SIGTERM to all processes ends it, and with "
    "it the save that the signal asked for; it outlives a killed rank (also needed with CUDA)",
    "save.error": "megatron-core 0.19 keeps of a writer's error only the class, not what a full disk is known by (also needed "
    "with CUDA)",
}

_installed = False


def has_cuda() -> bool:
    """Whether this process trains on GPUs."""
    return torch.cuda.is_available()


def device() -> torch.device:
    """Where tensors of this rank live."""
    return torch.device("cuda", torch.cuda.current_device()) if has_cuda() else CPU


def backend() -> str:
    """The process group backend that fits `device()`."""
    return "nccl" if has_cuda() else "gloo"


# ------------------------------------------------------------------------------------------------ the facade of torch


class _Stream:
    """A CUDA stream's interface where all work is already in order."""

    cuda_stream = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def wait_stream(self, stream: Any) -> None: ...
    def wait_event(self, event: Any) -> None: ...
    def synchronize(self) -> None: ...
    def record_event(self, event: Any = None) -> Any:
        return event or _Event()


class _Event:
    """A CUDA event's interface on the wall clock."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.time = 0.0

    def record(self, stream: Any = None) -> None:
        self.time = time.perf_counter()

    def wait(self, stream: Any = None) -> None: ...
    def synchronize(self) -> None: ...
    def elapsed_time(self, other: _Event) -> float:
        return (other.time - self.time) * 1e3


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Nothing to synchronise, free or mark."""


def _zero(*args: Any, **kwargs: Any) -> int:
    """No GPU memory is in use."""
    return 0


class _CudaFacade(types.ModuleType):
    """`torch.cuda` as Megatron-Core sees it: one device, which is the CPU. Names not listed are torch's own."""

    current_device = staticmethod(lambda: CPU)
    device_count = staticmethod(lambda: 1)  # the checkpoint writer computes rank % device_count()
    set_device = staticmethod(_nothing)
    synchronize = staticmethod(_nothing)
    empty_cache = staticmethod(_nothing)
    ipc_collect = staticmethod(_nothing)
    get_rng_state = staticmethod(lambda device="cuda": torch.default_generator.get_state())
    set_rng_state = staticmethod(lambda state, device="cuda": torch.default_generator.set_state(state))
    manual_seed = staticmethod(lambda seed: torch.default_generator.manual_seed(int(seed)) and None)
    Stream, Event = _Stream, _Event
    current_stream = default_stream = staticmethod(lambda device=None: _Stream())
    stream = staticmethod(lambda stream: contextlib.nullcontext())
    memory_allocated = max_memory_allocated = memory_reserved = max_memory_reserved = staticmethod(_zero)
    reset_peak_memory_stats = staticmethod(_nothing)
    get_device_capability = staticmethod(lambda device=None: (0, 0))
    nvtx = types.SimpleNamespace(range_push=_nothing, range_pop=_nothing)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cuda, name)


def _is_cuda(device: Any) -> bool:
    if isinstance(device, str):
        return device.startswith("cuda")
    return getattr(device, "type", None) == "cuda"


def _on_cpu(factory: Callable[..., Any]) -> Callable[..., Any]:
    """A tensor factory for which "cuda" means the CPU and memory is never pinned."""

    @functools.wraps(factory)
    def create(*args: Any, **kwargs: Any) -> Any:
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = CPU
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        return factory(*args, **kwargs)

    return create


_FACTORIES = (
    *("tensor", "zeros", "ones", "empty", "full", "arange", "rand", "randn", "randint"),
    *("as_tensor", "empty_like", "zeros_like", "ones_like", "full_like"),
)


class _TorchFacade(types.ModuleType):
    """`torch` as Megatron-Core's modules see it; everything not set here is torch's own, the same object."""

    def __init__(self) -> None:
        super().__init__("torch")
        self.cuda = _CudaFacade("torch.cuda")
        for name in _FACTORIES:
            setattr(self, name, _on_cpu(getattr(torch, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _disable_compilation(jit: types.ModuleType) -> None:
    """Called when `megatron.core.jit` is loaded, before any other module takes `jit_fuser` from it."""
    jit.__dict__["disable_jit_fuser"]()


class _FacadeLoader(importlib.abc.Loader):
    """Runs a module's own loader, then gives its namespace the facade."""

    def __init__(self, loader: Any, facade: _TorchFacade) -> None:
        self.loader, self.facade = loader, facade

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        self.loader.exec_module(module)
        if module.__dict__.get("torch") is torch:
            module.__dict__["torch"] = self.facade
        if module.__name__ == "megatron.core.jit":
            _disable_compilation(module)

    def __getattr__(self, name: str) -> Any:  # get_filename, get_source, ... for inspect and tracebacks
        return getattr(self.loader, name)


class _FacadeFinder(importlib.abc.MetaPathFinder):
    """Finds `megatron.core.*` as Python would and wraps the loader."""

    def __init__(self) -> None:
        self.facade = _TorchFacade()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "megatron.core" and not name.startswith("megatron.core."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _FacadeLoader(spec.loader, self.facade)
        return spec


# ------------------------------------------------------------------------- what the facade cannot reach, patched by name


@contextlib.contextmanager
def _cuda_type_names() -> Iterator[None]:
    """Let `tensor.type()` say 'torch.cuda.FloatTensor' for the time of one call."""
    real = torch.Tensor.type

    def named(self: torch.Tensor, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
        if dtype is None:
            return real(self).replace("torch.", "torch.cuda.", 1)
        return real(self, dtype, *args, **kwargs)

    torch.Tensor.type = named  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.Tensor.type = real  # type: ignore[method-assign]


@contextlib.contextmanager
def _cuda_is_here() -> Iterator[None]:
    """Let `tensor.cuda()`, which can only raise without CUDA, be the tensor itself for the time of one call."""
    real = torch.Tensor.cuda
    torch.Tensor.cuda = lambda self, *args, **kwargs: self  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.cuda = real  # type: ignore[method-assign]


def _inside(context: Callable[[], contextlib.AbstractContextManager[None]], function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with context():
            return function(*args, **kwargs)

    return call


def _patch_type_names() -> None:
    optimizer: Any = importlib.import_module("megatron.core.optimizer.optimizer")
    distributed: Any = importlib.import_module("megatron.core.optimizer.distrib_optimizer")
    clip: Any = importlib.import_module("megatron.core.optimizer.clip_grads")
    for cls in (optimizer.Float16OptimizerWithFloat16Params, distributed.DistributedOptimizer):
        cls.__init__ = _inside(_cuda_type_names, cls.__init__)
    patched = _inside(_cuda_type_names, clip.clip_grad_by_total_norm_fp32)
    for module in (clip, optimizer):  # optimizer.py imported the function by name
        module.clip_grad_by_total_norm_fp32 = patched


def _patch_tensor_cuda() -> None:
    language: Any = importlib.import_module("megatron.core.models.common.language_module.language_module")
    distributed: Any = importlib.import_module("megatron.core.optimizer.distrib_optimizer")
    for cls, name in (
        (language.LanguageModule, "setup_embeddings_and_output_layer"),
        (distributed.DistributedOptimizer, "get_parameter_state_dp_zero"),
    ):
        setattr(cls, name, _inside(_cuda_is_here, getattr(cls, name)))


def _patch_rng() -> None:
    random: Any = importlib.import_module("megatron.core.tensor_parallel.random")
    generator = torch.default_generator
    random._get_cuda_rng_state = lambda device="cuda", clone=False, graph_safe=False: generator.get_state()
    random._set_cuda_rng_state = lambda state, device=-1, graph_safe=False: generator.set_state(state)
    # "CPU RNG state changed within GPU RNG context": here they are one generator, so it always does
    logging.getLogger(random.__name__).addFilter(lambda record: "CPU RNG state changed" not in record.getMessage())


def _unless_alone(collective: Callable[..., Any]) -> Callable[..., Any]:
    """A collective from and into parts of one buffer, which a group of one rank need not call: the part is the whole."""

    @functools.wraps(collective)
    def call(output: torch.Tensor, source: torch.Tensor, *args: Any, group: Any = None, **kwargs: Any) -> Any:
        in_place = output.data_ptr() == source.data_ptr() and output.numel() == source.numel()
        if in_place and torch.distributed.get_world_size(group) == 1:
            return None
        return collective(output, source, *args, group=group, **kwargs)

    return call


def _patch_lone_collectives() -> None:
    buffers: Any = importlib.import_module("megatron.core.distributed.param_and_grad_buffer")
    for name in ("dist_all_gather_func", "dist_reduce_scatter_func"):
        setattr(buffers, name, _unless_alone(getattr(buffers, name)))


def _patch_adam() -> None:
    """Give Megatron-Core a FusedAdam where neither Transformer Engine nor Apex provides one."""
    from megatron_recipes.engine.adam import FusedAdam

    optimizer: Any = importlib.import_module("megatron.core.optimizer")
    distributed: Any = importlib.import_module("megatron.core.optimizer.distrib_optimizer")
    if distributed.HAVE_APEX_OR_TE:
        return
    optimizer.Adam = distributed.Adam = FusedAdam
    optimizer.USING_PYTORCH_OPTIMIZER = False
    distributed.HAVE_APEX_OR_TE, distributed.USING_APEX_OPTIMIZER = True, True


def _patch_save_queue() -> None:
    """Hand the writers' results over within this process: saving is synchronous, so they never leave it."""
    writer: Any = importlib.import_module("megatron.core.dist_checkpointing.strategies.filesystem_async")
    writer._results_queue = queue.Queue()


def _patch_save_error() -> None:
    """Let a writer without a queue for its results raise its error, whose text Megatron-Core then passes on."""
    writer: Any = importlib.import_module("megatron.core.dist_checkpointing.strategies.filesystem_async")
    write = writer.FileSystemWriterAsync.write_preloaded_data

    @functools.wraps(write)
    def write_or_raise(*args: Any, **kwargs: Any) -> Any:
        result = write(*args, **kwargs)
        if kwargs.get("results_queue") is None and isinstance(result[1], Exception):  # never so in 0.16
            raise result[1]
        return result

    writer.FileSystemWriterAsync.write_preloaded_data = staticmethod(write_or_raise)


def _quieten() -> None:
    """Megatron-Core warns on every rank about fallbacks that this module chooses on purpose."""
    logging.getLogger("megatron.core").setLevel(logging.ERROR)
    # megatron-core 0.19 imports it, and where nvcc is but no GPU it tells every rank so
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"megatron\.core\.")
    warnings.filterwarnings("ignore", module=r"torch\.distributed\.checkpoint\.")  # on how Megatron-Core calls it
    warnings.filterwarnings("ignore", message=r".*(reduce_scatter_tensor|all_gather_into_tensor).*deprecated")


def install() -> None:
    """Make `megatron.core` importable and usable on this machine. Idempotent; call it before importing megatron.core."""
    global _installed
    if _installed:
        return
    from megatron_recipes.engine.environment import refuse_environment

    refuse_environment()
    _quieten()
    if not has_cuda():
        loaded = sorted(name for name in sys.modules if name == "megatron.core" or name.startswith("megatron.core."))
        assert not loaded, f"runtime.install() must come before the import of {loaded[0]}"
        sys.meta_path.insert(0, _FacadeFinder())
        _patch_rng()
        _patch_tensor_cuda()
        _patch_type_names()
        _patch_lone_collectives()
    _patch_adam()
    _patch_save_queue()
    _patch_save_error()
    _installed = True
