"""Our reader and writer against safetensors and transformers themselves; folders that cannot be read are told apart."""

import json
import struct
from pathlib import Path

import pytest
import torch
from hf_folders import decoder, hf_model
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from conversion.safetensors_folder import INDEX, SINGLE, SafetensorsReader, write_safetensors
from mecellem.errors import UserError


def write(folder: Path, tensors: dict[str, torch.Tensor], dtype: torch.dtype, shard_bytes: int, pieces: int = 1) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    with write_safetensors(folder, shapes, dtype, shard_bytes) as writer:
        for name in reversed(tensors):  # places are known before: any order will do
            writer.put(name, tensors[name].chunk(pieces) if tensors[name].dim() > 0 else [tensors[name]])


def read_all(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@settings(max_examples=30)
@given(
    shapes=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=8),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    shard=st.integers(1, 400),
    pieces=st.integers(1, 3),
)
def test_what_is_written_is_what_safetensors_reads(shapes, dtype, shard, pieces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    tensors = {f"layer.{i}.ğ": torch.randn(shape) for i, shape in enumerate(shapes)}
    write(folder, tensors, dtype, shard, pieces)
    found = read_all(folder)
    assert found.keys() == tensors.keys()
    reader = SafetensorsReader(folder)
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor.to(dtype)) and torch.equal(reader.tensor(name), tensor.to(dtype))
        assert reader.shapes[name] == tuple(tensor.shape)
        assert torch.equal(reader.rows(name, 0, 1), tensor.to(dtype)[:1])
    assert reader.dtype() == dtype


def test_shards_are_named_and_indexed_as_transformers_does(tmp_path: Path):
    model = hf_model(decoder())
    state = {name: weight for name, weight in model.state_dict().items() if name != "lm_head.weight"}
    model.save_pretrained(tmp_path / "theirs", max_shard_size="500KB")
    (tmp_path / "ours").mkdir()
    write(tmp_path / "ours", state, torch.float32, 500_000)
    names = sorted(path.name for path in (tmp_path / "theirs").glob("model*"))
    assert sorted(path.name for path in (tmp_path / "ours").glob("model*")) == names and len(names) > 3
    ours, theirs = (json.loads((tmp_path / side / INDEX).read_text()) for side in ("ours", "theirs"))
    assert ours["metadata"] == theirs["metadata"]
    assert ours["weight_map"].keys() == theirs["weight_map"].keys()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, {"a": torch.randn(40, 10), "b": torch.randn(30, 10)}, torch.float32, 1600)
    assert (tmp_path / "model-00002-of-00002.safetensors").exists()
    return tmp_path


SHARD = "model-00002-of-00002.safetensors"


def cut(path: Path, size: int) -> None:
    with path.open("r+b") as handle:
        handle.truncate(size)


def test_damaged_files(folder: Path):
    size = (folder / SHARD).stat().st_size
    for wrong in (size - 1, 100, 4, 0):
        cut(folder / SHARD, wrong)
        with pytest.raises(UserError, match=rf"{SHARD} cannot be read .*truncated or damaged"):
            SafetensorsReader(folder)
    (folder / SHARD).write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(UserError, match="truncated or damaged"):
        SafetensorsReader(folder)
    (folder / SHARD).unlink()
    with pytest.raises(UserError, match=rf"{SHARD} is missing, .*index\.json lists it"):
        SafetensorsReader(folder)
    (folder / INDEX).write_text("{}")
    with pytest.raises(UserError, match="is not an index of safetensors files"):
        SafetensorsReader(folder)


OUTSIDE = [
    "../model.safetensors",
    "/model.safetensors",
    "part/model.safetensors",
    "..",
    "",
    "a\\b.safetensors",
    "a\0.safetensors",
]


@pytest.mark.parametrize("name", [*OUTSIDE, "model.bin", 1, None, True])
def test_an_index_names_files_of_its_folder(name: object, folder: Path):
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UserError, match=r"index\.json is not an index of safetensors files"):
        SafetensorsReader(folder)


@pytest.mark.parametrize("values", [[], ["a"], 1, None, {"weight_map": []}, {"weight_map": {"a": ["b"]}}, {"weight_map": None}])
def test_an_index_of_another_form(values: object, folder: Path):
    (folder / INDEX).write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"index\.json is not an index of safetensors files"):
        SafetensorsReader(folder)


def test_an_index_of_mixed_values(folder: Path):
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": SHARD, "b": 1}}))
    with pytest.raises(UserError, match=r"index\.json is not an index of safetensors files"):
        SafetensorsReader(folder)


def test_pickles_are_never_opened(tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('the pickle ran')",))

    torch.save(Bomb(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin: pickle files can run any code and are never loaded"):
        SafetensorsReader(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="not a Hugging Face model folder"):
        SafetensorsReader(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"a": torch.ones(2, 2)}, r"1 tensor\(s\) are missing, the first is b"),
        ({"a": torch.ones(2, 2), "b": torch.ones(3), "c": torch.ones(1)}, "do not belong to the architecture .*first is c"),
        ({"a": torch.ones(2, 3), "b": torch.ones(3)}, r"a has shape \[2, 3\], its config\.json makes it \[2, 2\]"),
    ],
)
def test_other_tensors_than_expected(tensors: dict, sentence: str, tmp_path: Path):
    save_file(tensors, tmp_path / SINGLE)
    with pytest.raises(UserError, match=sentence):
        SafetensorsReader(tmp_path).check({"a": (2, 2), "b": (3,)})


def test_types(tmp_path: Path):
    save_file({"a": torch.ones(2).half()}, tmp_path / SINGLE)
    with pytest.raises(UserError, match="a is F16: convert the folder to float32 or bfloat16 first"):
        SafetensorsReader(tmp_path).dtype()
    save_file({"a": torch.ones(2), "b": torch.ones(2).bfloat16()}, tmp_path / SINGLE)
    with pytest.raises(UserError, match=r"mixes types \(a is F32, b is BF16\)"):
        SafetensorsReader(tmp_path).dtype()
