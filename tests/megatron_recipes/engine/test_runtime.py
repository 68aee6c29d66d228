"""What megatron.core sees on a machine without CUDA, what nobody else sees, and that nothing happens with CUDA."""

import inspect
import pickle
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from training_runs import ROOT, Runner, losses, metrics, validation_losses

from megatron_recipes.engine import runtime
from megatron_recipes.engine.parallel import single_process

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the shims are for machines without CUDA")


@pytest.fixture(scope="module")
def megatron() -> Iterator[None]:
    with single_process():
        yield


def child(code: str, *, fails: bool = False) -> str:
    """Run code in a fresh interpreter; returns what it printed, or the last line of its traceback."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stderr.strip().splitlines()[-1] if fails else done.stdout


def test_with_cuda_only_what_is_marked_is_patched():
    """`is_available` says yes, as on a GPU node; no GPU is touched by installing."""
    marked = {name for name, text in runtime.SHIMS.items() if "also needed with CUDA" in text}
    assert marked == {"adam", "save.queue", "save.error"}
    child("""
        import sys
        import torch
        torch.cuda.is_available = lambda: True
        before = (torch.Tensor.cuda, torch.Tensor.type, torch.zeros, torch.cuda.current_device)
        from megatron_recipes.engine import runtime
        runtime.install()
        assert (torch.Tensor.cuda, torch.Tensor.type, torch.zeros, torch.cuda.current_device) == before
        assert not [finder for finder in sys.meta_path if isinstance(finder, runtime._FacadeFinder)]
        from megatron.core.optimizer import clip_grads, distrib_optimizer
        from megatron.core.tensor_parallel import random
        from megatron_recipes.engine.adam import FusedAdam
        assert clip_grads.torch is torch and random.torch is torch
        for function in (random._get_cuda_rng_state, random._set_cuda_rng_state, clip_grads.clip_grad_by_total_norm_fp32):
            assert function.__module__.startswith("megatron.core"), function
            assert not hasattr(function, "__wrapped__"), function
        assert not hasattr(distrib_optimizer.DistributedOptimizer.__init__, "__wrapped__")
        assert distrib_optimizer.Adam is FusedAdam
        assert runtime.backend() == "nccl"
    """)


def test_without_cuda_only_megatron_core_sees_the_facade(megatron):
    import megatron.core.tensor_parallel.layers as layers
    import transformers.models.modernbert.modeling_modernbert as modernbert

    assert isinstance(layers.torch, runtime._TorchFacade)
    assert layers.torch.cuda.current_device() == torch.device("cpu")
    assert layers.torch.nn is torch.nn and layers.torch.Tensor is torch.Tensor and layers.torch.add is torch.add
    assert modernbert.torch is torch and sys.modules["torch"] is torch
    assert torch.zeros.__module__ != runtime.__name__ and not hasattr(torch.zeros, "__wrapped__")
    assert inspect.getmodule(torch.cuda.current_device) is torch.cuda
    with pytest.raises((RuntimeError, AssertionError)):
        torch.zeros(1, device="cuda")
    for name, module in list(sys.modules.items()):
        if not name.startswith("megatron.core") and module is not None:
            assert not isinstance(vars(module).get("torch"), runtime._TorchFacade), name


def test_modules_imported_later_get_it_too(megatron):
    name = (
        "megatron.core.models.T5.t5_spec"
        if "megatron.core.models.T5.t5_model" in sys.modules
        else ("megatron.core.models.T5.t5_model")
    )
    assert name not in sys.modules
    module = __import__(name, fromlist=["_"])
    assert not hasattr(module, "torch") or isinstance(module.torch, runtime._TorchFacade)
    loaded = [m for n, m in sys.modules.items() if n.startswith("megatron.core.") and isinstance(m, type(sys))]
    assert not [m.__name__ for m in loaded if vars(m).get("torch") is torch]


@pytest.mark.parametrize("place", ["cuda", "cuda:0", torch.device("cuda", 0), torch.device("cpu"), None])
def test_factories_mean_the_cpu(place, megatron):
    from megatron.core.optimizer.clip_grads import torch as seen

    like = torch.zeros(2)
    arguments = {"full": ((2,), 1.0), "full_like": (like, 1.0), "tensor": ([1.0, 2.0],), "as_tensor": ([1.0, 2.0],)}
    arguments |= {"randint": (5, (2,)), "empty_like": (like,), "zeros_like": (like,), "ones_like": (like,)}
    for name in runtime._FACTORIES:
        made = getattr(seen, name)(*arguments.get(name, (2,)), device=place)
        assert made.device.type == "cpu" and made.shape == (2,), name
    assert not seen.empty(3, pin_memory=True).is_pinned()
    assert seen.empty(3, device="meta").device.type == "meta"


def test_type_names_are_back_after_the_call(megatron):
    assert torch.zeros(1).type() == "torch.FloatTensor"
    with runtime._cuda_type_names():
        assert torch.zeros(1).type() == "torch.cuda.FloatTensor"
        assert torch.zeros(1).type(torch.bfloat16).dtype == torch.bfloat16
    assert torch.zeros(1).type() == "torch.FloatTensor"


def test_cuda_is_the_tensor_itself_inside_the_call_only(megatron):
    weight = torch.zeros(1)
    with runtime._cuda_is_here():
        assert weight.cuda(non_blocking=True) is weight
    with pytest.raises((RuntimeError, AssertionError)):
        weight.cuda()


def test_rng_tracker_forks_a_stream_of_its_own(megatron):
    from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

    tracker = get_cuda_rng_tracker()
    before = torch.get_rng_state()
    with tracker.fork():
        first = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)  # the default stream has not moved
    saved = {name: state.clone() for name, state in tracker.get_states().items()}
    with tracker.fork():
        second = torch.rand(4)
    assert not torch.equal(first, second)
    tracker.set_states(saved)
    with tracker.fork():
        assert torch.equal(torch.rand(4), second)


def test_source_and_pickles_of_megatron_core_work(megatron):
    from megatron.core.packed_seq_params import PackedSeqParams
    from megatron.core.transformer.mlp import MLP
    from megatron.core.transformer.transformer_config import TransformerConfig

    assert inspect.getsource(MLP).startswith("class MLP")
    assert Path(inspect.getfile(TransformerConfig)).name == "transformer_config.py"
    config = TransformerConfig(num_layers=2, hidden_size=8, num_attention_heads=2)
    assert pickle.loads(pickle.dumps(config)).hidden_size == 8
    assert pickle.loads(pickle.dumps(PackedSeqParams)) is PackedSeqParams


def test_installing_too_late_is_our_bug():
    line = child("import megatron.core.utils; from megatron_recipes.engine import runtime; runtime.install()", fails=True)
    assert "AssertionError: runtime.install() must come before the import of megatron.core" in line


STEP = """
    import tempfile
    from dataclasses import replace
    from pathlib import Path
    from megatron_recipes.engine import runtime
    {without}
    from megatron_recipes.engine.parallel import single_process
    from megatron_recipes.recipes import find_recipe
    config = find_recipe("mursit_tiny")()
    shape = dict(num_layers=2, hidden_size=32, ffn_hidden_size=32, num_attention_heads=2, vocab_size=200)
    config = replace(config, model=replace(config.model, **shape, attention_dropout=0.1), precision="{precision}")
    with single_process():
        import torch
        from megatron.core import jit
        from megatron_recipes.engine import checkpoint
        from megatron_recipes.engine.setup import build_training, set_rates
        from megatron_recipes.engine.tasks.masked import build_encoder
        assert jit.jit_fuser is jit.noop_decorator, "its fusions would be compiled with a C++ compiler"
        training = build_training(config, build_encoder(config))
        set_rates(training, 1e-3)
        ids = torch.randint(0, 200, (2, 16))
        for step in range(2):
            training.wrapped.zero_grad_buffer()
            training.wrapped(ids, labels=ids).sum().backward()
            training.wrapped.finish_grad_sync()
            training.optimizer.step()
        with tempfile.TemporaryDirectory() as folder:
            meta = checkpoint.CheckpointMeta(2, 0, config.model, config.precision, "", checkpoint.layout(), dict(), "")
            saved = checkpoint.save(Path(folder) / "step", meta, training.model, training.optimizer, Path(folder))
            checkpoint.load(saved, training.model, training.optimizer)
    print("trained")
"""

NO_CUDA = "Torch not compiled with CUDA enabled|Found no NVIDIA driver"  # torch's CPU build, and its CUDA build
WITHOUT = {  # how to leave a shim out, and what then happens
    "facade.cuda": (
        "import torch; runtime._CudaFacade.current_device = staticmethod(lambda: torch.cuda.current_device())",
        NO_CUDA,
    ),
    "facade.factories": ("runtime._on_cpu = lambda factory: factory", NO_CUDA),
    "facade.compile": ("runtime._disable_compilation = lambda module: None", "compiled with a C\\+\\+ compiler"),
    "tensor.cuda": ("runtime._patch_tensor_cuda = lambda: None", NO_CUDA),
    "tensor.type": ("runtime._patch_type_names = lambda: None", "must be one of torch.cuda.FloatTensor"),
    "rng": ("runtime._patch_rng = lambda: None", NO_CUDA),
    "adam": ("runtime._patch_adam = lambda: None", "KeyError: 'step'"),
}


def test_every_shim_is_tried():
    """`save.*` is about processes and full disks: engine/test_checkpoint.py and engine/test_launch.py show it.

    `lone.collectives` is about time: the test below.
    """
    assert WITHOUT.keys() | {"save.queue", "save.error", "lone.collectives"} == runtime.SHIMS.keys()


def test_alone_nothing_is_gathered_into_itself(megatron):
    from megatron.core.distributed import param_and_grad_buffer as buffers

    for collective in (buffers.dist_all_gather_func, buffers.dist_reduce_scatter_func):
        whole = torch.arange(6.0)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            assert collective(whole, whole[:]) is None
        assert not [event for event in profile.events() if "copy_" in event.name or "gloo" in event.name]
        other = torch.zeros(6)
        collective(other, whole)  # another buffer is filled, as ever
        assert torch.equal(other, whole)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_with_all_shims(precision: str):
    assert "trained" in child(STEP.format(without="", precision=precision))


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT)
def test_steps_fail_without(name: str):
    """Each name in SHIMS is there for a reason: building, two steps, saving and loading need it."""
    without, reason = WITHOUT[name]
    assert re.search(reason, child(STEP.format(without=without, precision="bf16"), fails=True))


@pytest.mark.slow
def test_dropout_is_reproducible_and_resumes_bit_for_bit(runner: Runner, reference: Path, tmp_path: Path):
    values = {"model.hidden-dropout": 0.1, "model.attention-dropout": 0.1, "parallel.tensor": 2}
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    runner(whole, **values)
    assert losses(whole)[1] != pytest.approx(losses(reference)[1], rel=1e-4)  # dropout does something
    runner(halved, **values)
    assert losses(halved) == losses(whole)
    newest = halved / "checkpoints" / "step_0000006"
    newest.rename(tmp_path / "away")
    runner(halved, **values)
    assert losses(halved) == losses(whole) and validation_losses(halved) == validation_losses(whole)
    assert len([line for line in metrics(halved) if "loss" in line]) == 6
