"""One table of names, used both ways: nothing is lost, nothing is left over, heads land where they belong."""

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch
from hf_folders import SHAPES, decoder, hf_model
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from conversion import export
from conversion.export import write_folder
from conversion.hf_import import without_padding, write_checkpoint
from conversion.mapping import entries, group, grouped_rows, grouped_views, hf_shapes, tied_head
from conversion.megatron_model import outline
from conversion.safetensors_folder import SafetensorsReader, SafetensorsWriter
from conversion.torch_dist import parameter_chunks, row_shape
from megatron_recipes.config import EncoderConfig, ModelConfig
from megatron_recipes.engine.checkpoint import TOKENIZER, read_meta
from megatron_recipes.engine.parallel import single_process


@pytest.fixture(scope="module", autouse=True)
def megatron() -> Iterator[None]:
    with single_process():
        yield


def own_weights(model) -> dict[str, torch.Tensor]:
    """A state dict of transformers without the copies of tied weights."""
    return {name: weight for name, weight in model.state_dict().items() if name not in model.all_tied_weights_keys}


@pytest.mark.parametrize("name", SHAPES)
def test_the_table_is_complete(name: str):
    shape = dataclasses.replace(SHAPES[name], num_layers=2)
    names = [part for entry in entries(shape) for part in entry.hf]
    model = hf_model(shape)
    state = own_weights(model)
    assert len(names) == len(set(names)) and set(names) == set(state)
    chunks = without_padding(parameter_chunks(outline(shape, torch.float32))[0], shape)
    assert sorted(entry.megatron for entry in entries(shape)) == sorted(chunks)
    ours = {name: row_shape(parts) for name, parts in chunks.items()}
    assert hf_shapes(shape, ours) == {name: tuple(weight.shape) for name, weight in state.items()}
    assert dict([tied_head(shape)] if tied_head(shape) else []) == model.all_tied_weights_keys


def put_small(put: Callable[..., None], most: int) -> Callable[..., None]:
    """`put`, after a look at its blocks: they are small, in memory of their own, and no view of a whole matrix."""

    def checked(writer: SafetensorsWriter, name: str, blocks: Iterable[torch.Tensor]) -> None:
        blocks = list(blocks)
        for block in blocks:
            assert block.untyped_storage().nbytes() <= most or len(block) == 1, (name, block.shape)
        put(writer, name, blocks)

    return checked


def round_trip(shape: ModelConfig, tokenizer: Path, folder: Path) -> None:
    """Through a checkpoint and back, with the functions that the commands call."""
    state = {name: torch.randn_like(weight) for name, weight in own_weights(hf_model(shape)).items()}
    source, checkpoint, back = folder / "hf", folder / "checkpoint", folder / "back"
    shutil.copytree(tokenizer, source)
    for new in (checkpoint, back):
        new.mkdir()
    save_file(state, source / "model.safetensors")
    (source / "config.json").write_text("{}")
    write_checkpoint(checkpoint, shape, SafetensorsReader(source), "random")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "COPY_BYTES", 100)
        patch.setattr(SafetensorsWriter, "put", put_small(SafetensorsWriter.put, 100))
        write_folder(checkpoint, read_meta(checkpoint), checkpoint / TOKENIZER, back, "stored", None)
    found = load_file(back / "model.safetensors")
    assert found.keys() == state.keys()
    for name, weight in state.items():
        assert torch.equal(found[name], weight), name
    shutil.rmtree(folder)


@settings(max_examples=20)
@given(layers=st.integers(1, 3), heads=st.integers(1, 5), half=st.integers(1, 4), vocab=st.integers(6, 40))
def test_encoders_there_and_back(layers: int, heads: int, half: int, vocab: int, sample_tokenizer, tmp_path_factory):
    shape = EncoderConfig(layers, heads * 2 * half, 3 * heads, heads, vocab, 32, local_attention=4)
    round_trip(shape, sample_tokenizer, tmp_path_factory.mktemp("encoder"))


@settings(max_examples=20)
@given(
    family=st.sampled_from(["qwen3", "llama"]),
    groups=st.integers(1, 3),
    per_group=st.integers(1, 3),
    half=st.integers(1, 4),
    hidden=st.integers(1, 4),
    tied=st.booleans(),
)
def test_decoders_there_and_back(
    family: str, groups: int, per_group: int, half: int, hidden: int, tied: bool, sample_tokenizer, tmp_path_factory
):
    heads = groups * per_group
    shape = decoder(
        family=family,
        num_layers=2,
        num_attention_heads=heads,
        num_query_groups=groups,
        head_dim=2 * half,
        hidden_size=hidden * heads,
        vocab_size=17,
        tie_embeddings=tied,
    )
    round_trip(shape, sample_tokenizer, tmp_path_factory.mktemp("decoder"))


def test_a_head_is_its_own_query_key_and_value():
    shape = EncoderConfig(1, 6, 3, 3, 10, 32)
    rows = [f"{part}{head}{channel}" for part in "qkv" for head in range(3) for channel in range(2)]
    weight = torch.arange(len(rows))[:, None]
    grouped = [rows[i] for i in group([weight], shape).flatten().tolist()]
    assert grouped[:6] == ["q00", "q01", "k00", "k01", "v00", "v01"]
    assert grouped[-2:] == ["v20", "v21"]
    (back,) = grouped_views(group([weight], shape), shape, 1)
    assert torch.equal(back.reshape(-1, 1), weight)


@pytest.mark.parametrize(("shape", "parts"), [(EncoderConfig(1, 12, 3, 3, 10, 32), 1), (decoder(num_query_groups=2), 3)])
def test_the_rows_of_a_group_are_those_of_its_views(shape, parts: int):
    heads = 3 * shape.num_attention_heads if parts == 1 else shape.num_attention_heads + 2 * shape.num_query_groups
    weight = torch.randn(heads * shape.head_dim, 3)
    runs = grouped_rows(len(weight), shape, parts)
    for view, own in zip(grouped_views(weight, shape, parts), runs, strict=True):
        assert torch.equal(torch.cat([weight[start:stop] for start, stop in own]), view.reshape(-1, 3))
        assert all(before[1] != after[0] for before, after in itertools.pairwise(own))  # runs are as long as they can be


def test_a_group_is_its_queries_and_their_key_and_value():
    shape = decoder(num_attention_heads=4, num_query_groups=2, head_dim=2)
    heads = {"q": 4, "k": 2, "v": 2}
    names = [f"{part}{head}{channel}" for part in heads for head in range(heads[part]) for channel in range(2)]
    numbers = torch.arange(len(names))[:, None].split([8, 4, 4])
    grouped = [names[i] for i in group(list(numbers), shape).flatten().tolist()]
    assert " ".join(grouped) == "q00 q01 q10 q11 k00 k01 v00 v01 q20 q21 q30 q31 k10 k11 v10 v11"
