"""Checkpoints that conversion writes load in Megatron-Core on any layout, and what Megatron-Core writes there exports."""

import dataclasses
import itertools
import pickle
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_ranks import __file__ as RANKS
from hf_folders import SHAPES, Bomb, command, nothing_left, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from whole_states import to_megatron

from conversion.dist_metadata import METADATA, read_metadata
from conversion.torch_dist import Chunk, TorchDistReader, write_tensors
from mecellem.errors import UserError
from megatron_recipes.engine import runtime
from megatron_recipes.engine.launch import start_ranks


@pytest.fixture(scope="module", autouse=True)
def megatron() -> None:
    runtime.install()  # before the first import of Megatron-Core, whichever of these tests is the first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tp", "pp", "ranks"), [("qwen3 untied", 2, 2, 4), ("llama tied", 1, 1, 2), ("modernbert", 2, 1, 2)]
)
def test_layouts(name: str, tp: int, pp: int, ranks: int, sample_tokenizer: Path, tmp_path: Path):
    """TP x PP, and data parallel with the distributed optimizer; `llama tied` has one group, which TP 2 would not split."""
    source = write_folder(tmp_path / "hf", SHAPES[name], sample_tokenizer)
    command("convert", "import", source, tmp_path / "imported")
    before = load_file(source / "model.safetensors")
    torch.save(to_megatron(before, SHAPES[name]), tmp_path / "full.pt")
    line = [sys.executable, RANKS, tmp_path / "imported", tp, pp, tmp_path / "trained"]
    assert start_ranks(list(map(str, line)), ranks, on_cpu=True) == 0
    command("convert", "export", tmp_path / "trained", tmp_path / "back")
    after = load_file(tmp_path / "back" / "model.safetensors")
    assert after.keys() == before.keys()
    for tensor, weight in before.items():
        assert torch.equal(after[tensor], 2.0 * weight), tensor


@settings(max_examples=40)
@given(data=st.data())
def test_any_chunks_are_read_as_one(data, tmp_path_factory):
    """Blocks of a grid, as TP, PP and stacked layers cut tensors; any rows of any layer."""
    layers, rows, columns = (data.draw(st.integers(1, high)) for high in (3, 7, 5))
    stacked = data.draw(st.booleans())
    tensor = torch.randn(layers, rows, columns)
    row_cuts = sorted({0, rows, *data.draw(st.lists(st.integers(1, rows), max_size=2))})
    column_cuts = sorted({0, columns, *data.draw(st.lists(st.integers(1, columns), max_size=2))})
    shape = (layers, rows, columns) if stacked else (rows, columns)
    blocks = []
    for layer in range(layers if stacked else 1):
        for top, bottom in itertools.pairwise(row_cuts):
            for left, right in itertools.pairwise(column_cuts):
                offset = (layer, top, left) if stacked else (top, left)
                chunk = Chunk("w", shape, offset, (bottom - top, right - left))
                blocks.append((chunk, lambda a=layer, b=slice(top, bottom), c=slice(left, right): tensor[a, b, c]))
    folder = tmp_path_factory.mktemp("checkpoint")
    write_tensors(folder, data.draw(st.permutations(blocks)), torch.float32, {})
    layer = data.draw(st.integers(0, layers - 1)) if stacked else 0
    first = data.draw(st.integers(0, rows - 1))
    last = data.draw(st.integers(first + 1, rows))
    part = Chunk("w", shape, (layer, 0, 0) if stacked else (0, 0), (rows, columns)).rows(first, last)
    reader = TorchDistReader(folder)
    assert reader.check({"w": [part]}) == torch.float32
    assert torch.equal(reader.whole(part), tensor[layer, first:last])
    most = data.draw(st.integers(1, 4 * rows * columns))
    found = list(reader.blocks(part, most))
    assert torch.equal(torch.cat(found), tensor[layer, first:last])
    assert all(block.nbytes <= most or len(block) == 1 for block in found)


def test_what_is_not_there(tmp_path: Path):
    part = Chunk("w", (4, 2), (0, 0), (4, 2))
    write_tensors(tmp_path, [(dataclasses.replace(part, shape=(3, 2)), lambda: torch.ones(3, 2))], torch.float32, {})
    reader = TorchDistReader(tmp_path)
    with pytest.raises(UserError, match="it has no tensor v"):
        reader.check({"v": [dataclasses.replace(part, key="v")]})
    with pytest.raises(UserError, match="w has parts missing, the checkpoint is damaged"):
        reader.whole(part)
    (tmp_path / ".metadata").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"\.metadata cannot be loaded .*the checkpoint is damaged"):
        TorchDistReader(tmp_path)
    assert nothing_left(tmp_path / "out")


def test_a_file_that_is_not_as_metadata_says(tmp_path: Path):
    part = Chunk("w", (4, 2), (0, 0), (4, 2))
    write_tensors(tmp_path, [(part, lambda: torch.ones(4, 2))], torch.float32, {})
    found = read_metadata(tmp_path)
    properties = dataclasses.replace(found.state_dict_metadata["w"].properties, dtype=torch.int32)
    found.state_dict_metadata["w"] = dataclasses.replace(found.state_dict_metadata["w"], properties=properties)
    (tmp_path / METADATA).write_bytes(pickle.dumps(found))
    with pytest.raises(UserError, match=r"w is there as torch\.float32 \[4, 2\], not as \.metadata says"):
        TorchDistReader(tmp_path).whole(part)


def test_types_that_differ(tmp_path: Path):
    parts = {name: [Chunk(name, (4, 2), (0, 0), (4, 2))] for name in "ab"}
    for name, dtype in (("a", torch.float32), ("b", torch.bfloat16)):
        (tmp_path / name).mkdir()
        write_tensors(tmp_path / name, [(parts[name][0], lambda dtype=dtype: torch.ones(4, 2, dtype=dtype))], dtype, {})
    both = read_metadata(tmp_path / "a")
    both.state_dict_metadata |= read_metadata(tmp_path / "b").state_dict_metadata
    (tmp_path / "a" / METADATA).write_bytes(pickle.dumps(both))
    with pytest.raises(UserError, match=r"mixes types \(a is float32, b is bfloat16\): save all parameters in one type"):
        TorchDistReader(tmp_path / "a").check(parts)


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside whole metadata"])
def test_metadata_run_no_code(inside: bool, tmp_path: Path):
    part = Chunk("w", (4, 2), (0, 0), (4, 2))
    write_tensors(tmp_path, [(part, lambda: torch.ones(4, 2))], torch.float32, {})
    found = read_metadata(tmp_path)
    found.planner_data = [Bomb(tmp_path / "ran")]
    content = pickle.dumps(found if inside else Bomb(tmp_path / "ran"))
    (tmp_path / METADATA).write_bytes(content)
    with pytest.raises(UserError, match=r"\.metadata asks for builtins\.exec, .* was not loaded"):
        TorchDistReader(tmp_path)
    assert not (tmp_path / "ran").exists()
    pickle.loads(content)
    assert (tmp_path / "ran").exists()  # the pickle is one that runs


@pytest.mark.parametrize(
    "name", ["posix system", "torch load", "torch nn.Module", "torch._utils _rebuild_tensor", "torch.distributed.checkpoint os"]
)
def test_metadata_name_nothing_else(name: str, tmp_path: Path):
    (tmp_path / METADATA).write_bytes(b"c" + name.replace(" ", "\n").encode() + b"\n.")
    with pytest.raises(UserError, match=f"asks for {name.replace(' ', '.')}, which no checkpoint needs"):
        read_metadata(tmp_path)


def test_other_objects_are_no_metadata(tmp_path: Path):
    for content in (pickle.dumps([1]), pickle.dumps(torch.Size([2])), b"", b"\x80\x04N", b"0."):
        (tmp_path / METADATA).write_bytes(content)
        with pytest.raises(UserError, match=r"\.metadata cannot be loaded .*the checkpoint is damaged"):
            read_metadata(tmp_path)


def test_metadata_as_megatron_core_writes_them(tmp_path: Path):
    """Types, plans and objects: what is read is what torch itself reads."""
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing import ShardedTensor
    from megatron.core.dist_checkpointing.mapping import ShardedObject
    from torch.distributed.checkpoint import FileSystemReader

    from megatron_recipes.engine.parallel import single_process

    types = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn)
    state = {str(dtype): ShardedTensor.from_rank_offsets(str(dtype), torch.ones(4, 2).to(dtype)) for dtype in types}
    with single_process():
        dist_checkpointing.save({**state, "rng": ShardedObject("rng", {"a": 1}, (1,), (0,)), "lr": 0.1}, str(tmp_path))
    found, theirs = read_metadata(tmp_path), FileSystemReader(tmp_path).read_metadata()
    assert found.state_dict_metadata == theirs.state_dict_metadata and len(found.state_dict_metadata) == len(types) + 1
    assert found.storage_data == theirs.storage_data
