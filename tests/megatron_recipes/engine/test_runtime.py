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
    assert marked == {"adam", "save.queue"}
    child("""
        import sys
        import torch
        torch.cuda.is_available = lambda: True
        before = (list(sys.meta_path), torch.Tensor.cuda, torch.Tensor.type, torch.zeros, torch.cuda.current_device)
        from megatron_recipes.engine import runtime
        runtime.install()
        assert (list(sys.meta_path), torch.Tensor.cuda, torch.Tensor.type, torch.zeros, torch.cuda.current_device) == before
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


@pytest.mark.parametrize("name", ["zeros", "empty", "full", "tensor", "arange", "ones_like", "randn"])
def test_factories_mean_the_cpu(name: str, megatron):
    import megatron.core.optimizer.clip_grads as clip

    arguments = {"full": ((2,), 1.0), "tensor": ([1.0, 2.0],), "ones_like": (torch.zeros(2),), "arange": (2,)}
    for place in ("cuda", "cuda:0", torch.device("cuda", 0), None):
        made = (
            getattr(clip.torch, name)(*arguments.get(name, (2,)), device=place, pin_memory=False)
            if name not in ("ones_like")
            else clip.torch.ones_like(torch.zeros(2), device=place)
        )
        assert made.device.type == "cpu" and made.shape == (2,)
    assert not clip.torch.empty(3, pin_memory=True).is_pinned()
    assert clip.torch.empty(3, device="meta").device.type == "meta"


def test_type_names_are_back_after_the_call(megatron):
    assert torch.zeros(1).type() == "torch.FloatTensor"
    with runtime._cuda_type_names():
        assert torch.zeros(1).type() == "torch.cuda.FloatTensor"
        assert torch.zeros(1).type(torch.bfloat16).dtype == torch.bfloat16
    assert torch.zeros(1).type() == "torch.FloatTensor"


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
    assert pickle.loads(pickle.dumps(config)) == config
    assert pickle.loads(pickle.dumps(PackedSeqParams)) is PackedSeqParams


def test_installing_too_late_is_our_bug():
    line = child("import megatron.core.utils; from megatron_recipes.engine import runtime; runtime.install()", fails=True)
    assert "AssertionError: runtime.install() must come before the import of megatron.core" in line


STEP = """
    import sys
    from pathlib import Path
    from megatron_recipes.engine import runtime
    {without}
    from dataclasses import replace
    from megatron_recipes.engine.parallel import single_process
    from megatron_recipes.recipes import find_recipe
    config = find_recipe("mursit_tiny")()
    model = replace(config.model, num_layers=2, hidden_size=32, ffn_hidden_size=32, num_attention_heads=2, vocab_size=200)
    config = replace(config, model=model, precision="bf16")
    with single_process():
        import torch
        from megatron_recipes.engine.setup import build_training
        training = build_training(config)
        training.wrapped.train()
        training.wrapped.zero_grad_buffer()
        ids = torch.randint(0, 200, (2, 16))
        with __import__("megatron.core.tensor_parallel", fromlist=["_"]).get_cuda_rng_tracker().fork():
            training.wrapped(ids, labels=ids).sum().backward()
        training.wrapped.finish_grad_sync()
        training.optimizer.step()
        from megatron_recipes.engine import checkpoint
        state = training.optimizer.sharded_state_dict(
            training.model.sharded_state_dict(), is_loading=True, metadata=checkpoint.sharded_metadata()
        )
        loaded = training.optimizer.state_dict()
        training.optimizer.load_state_dict(loaded)
        from megatron.core import jit
        assert jit.jit_fuser is jit.noop_decorator, "megatron.core compiles its fusions"
    print("trained")
"""

WITHOUT = {
    "facade.cuda": "runtime._CudaFacade.current_device = staticmethod(lambda: __import__('torch').cuda.current_device())",
    "facade.factories": "runtime._FACTORIES = ()",
    "facade.compile": "import megatron.core.jit as j; [sys.modules.pop(n) for n in list(sys.modules) if n.startswith('megatron')]; "
    "runtime._FacadeLoader.exec_module = lambda self, module: ("
    "self.loader.exec_module(module), module.__dict__.get('torch') is not None and module.__dict__.update(torch=self.facade))",
    "tensor.cuda": "runtime._patch_tensor_cuda = lambda: None",
    "tensor.type": "runtime._patch_type_names = lambda: None",
    "rng": "runtime._patch_rng = lambda: None",
    "adam": "runtime._patch_adam = lambda: None",
}


def test_every_shim_is_tried():
    """`save.queue` is about processes: engine/test_checkpoint.py and engine/test_launch.py show it."""
    assert WITHOUT.keys() | {"save.queue"} == runtime.SHIMS.keys()


@pytest.mark.slow
def test_a_step_with_all_shims():
    assert "trained" in child(STEP.format(without=""))


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT)
def test_a_step_fails_without(name: str):
    """Each name in SHIMS is there for a reason: building, one step and the optimizer's state need it."""
    assert re.search(r"\w+(Error|Exception)|cuda|CUDA", child(STEP.format(without=WITHOUT[name]), fails=True))


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
