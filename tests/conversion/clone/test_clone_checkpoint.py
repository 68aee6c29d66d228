"""Megatron checkpoints onto a new vocabulary: another checkpoint, with the same backbone, that trains on."""

import contextlib
import dataclasses
import io
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_vocabularies import ids_of
from training_runs import SMALL, SMALL_DECODER, losses

from conversion.clone import main
from conversion.clone.checkpoint import clone_checkpoint
from conversion.export import export_checkpoint
from conversion.hf_import import import_folder
from mecellem.errors import UserError
from megatron_recipes.config import DecoderConfig, EncoderConfig
from megatron_recipes.engine.checkpoint import damage, read_meta
from megatron_recipes.recipes import find_recipe

# rows beyond the tokenizer's 8,192 entries, which Megatron pads further
QWEN3 = DecoderConfig(
    family="qwen3", num_layers=4, hidden_size=64, ffn_hidden_size=96, num_attention_heads=4, num_query_groups=2, head_dim=16,
    vocab_size=8192 + 40, max_sequence_length=256, rope_theta=1_000_000.0,
)  # fmt: skip
LLAMA = DecoderConfig(
    family="llama", num_layers=2, hidden_size=64, ffn_hidden_size=96, num_attention_heads=4, num_query_groups=2, head_dim=16,
    vocab_size=8192, max_sequence_length=256, rope_theta=10_000.0, tie_embeddings=False,
)  # fmt: skip
MODERNBERT = EncoderConfig(4, 64, 96, 4, 8192 + 40, 256, local_attention=16, global_attention_every=2)
SHAPES = {"qwen3": QWEN3, "llama untied": LLAMA, "modernbert": MODERNBERT}


def imported(shape: DecoderConfig | EncoderConfig, tokenizer: Path, folder: Path) -> Path:
    """A checkpoint with random weights, from a folder that transformers saved."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

    from conversion.hf_config import special_ids, to_hf_config

    torch.manual_seed(0)
    auto = AutoModelForMaskedLM if isinstance(shape, EncoderConfig) else AutoModelForCausalLM
    model = auto.from_config(to_hf_config(shape, special_ids(tokenizer, shape), "float32"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    model.save_pretrained(folder / "hf")
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder / "hf")
    import_folder(folder / "hf", folder / "teacher", name="the teacher")
    return folder / "teacher"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_checkpoint_becomes_a_checkpoint(name: str, sample_tokenizer: Path, small_data: Path, tmp_path: Path):
    teacher, out, target = imported(SHAPES[name], sample_tokenizer, tmp_path), tmp_path / "clone", small_data / "tokenizer"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main(["--teacher", str(teacher), "--tokenizer", str(target), "--out", str(out)])
    assert "tensors beside the vocabulary have the teacher's bits" in " ".join(printed.getvalue().split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clone", "hf", "teacher"]  # nothing between is left
    meta, record = read_meta(out), json.loads((out / "clone.json").read_text())
    assert damage(out) is None and meta.step == 0 and meta.model.vocab_size == 1100 and meta.name == "the teacher"
    assert record["teacher"]["name"] == "the teacher" and record["tokenizer"]["rows"] == 1100
    export_checkpoint(out, tmp_path / "back")
    before, after = (load_file(tmp_path / folder / "model.safetensors") for folder in ("hf", "back"))
    old, new = ids_of(sample_tokenizer), ids_of(target)
    shared = sorted(piece for piece in new if piece in old)
    assert len(shared) > 500 and before.keys() == after.keys()
    for tensor, values in before.items():
        if tensor in record["vocabulary_tensors"]:
            rows = [[ids[piece] for piece in shared] for ids in (old, new)]
            assert torch.equal(values[rows[0]], after[tensor][rows[1]]) and len(after[tensor]) == 1100
        else:
            assert torch.equal(values, after[tensor]), tensor


@pytest.mark.slow
def test_a_cloned_decoder_trains_on(sample_tokenizer: Path, decoder_runner, tmp_path: Path):
    teacher = imported(QWEN3, sample_tokenizer, tmp_path)
    clone_checkpoint(teacher, decoder_runner.data / "tokenizer", tmp_path / "clone")
    assert SMALL_DECODER["model.vocab-size"] != 1100
    values = {"model__vocab_size": 1100, "init_from": tmp_path / "clone", "data__tokenizer": tmp_path / "clone" / "tokenizer"}
    decoder_runner(tmp_path / "run", **values)
    found = losses(tmp_path / "run")
    assert len(found) == 6 and all(loss == loss for loss in found.values())
    refused = decoder_runner(tmp_path / "none", code=2, **{**values, "init_from": teacher})
    assert "is another model than the run's, with vocab_size 8232" in refused


@pytest.mark.slow
def test_a_cloned_encoder_trains_on(sample_tokenizer: Path, small_data: Path, runner, tmp_path: Path):
    shape = {name.removeprefix("model.").replace("-", "_"): value for name, value in SMALL.items() if name.startswith("model.")}
    small = dataclasses.replace(find_recipe("mursit_tiny")().model, **shape)
    teacher = imported(dataclasses.replace(small, vocab_size=8192), sample_tokenizer, tmp_path)
    clone_checkpoint(teacher, small_data / "tokenizer", tmp_path / "clone")
    said = runner(tmp_path / "run", init_from=tmp_path / "clone")
    assert f"{tmp_path / 'clone'}, " in " ".join(said.split()) and len(losses(tmp_path / "run")) == 6
    runner(tmp_path / "random")
    cloned, drawn = losses(tmp_path / "run"), losses(tmp_path / "random")
    assert cloned[1] != drawn[1] and all(loss == loss for loss in cloned.values())
    refused = runner(tmp_path / "none", code=2, init_from=teacher)
    assert "is another model than the run's, with vocab_size 8192 (the run: 1100)" in refused


@pytest.mark.slow
def test_bad_input_leaves_nothing(sample_tokenizer: Path, small_data: Path, tmp_path: Path):
    teacher, out = imported(LLAMA, sample_tokenizer, tmp_path), tmp_path / "clone"
    with pytest.raises(UserError, match="--dtype float16: Megatron checkpoints"):
        clone_checkpoint(teacher, small_data / "tokenizer", out, dtype=torch.float16)
    (teacher / "__0_0.distcp").write_bytes(b"")
    with pytest.raises(UserError, match="the checkpoint is damaged"):
        clone_checkpoint(teacher, small_data / "tokenizer", out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    with pytest.raises(UserError, match="mine exists already"):
        clone_checkpoint(teacher, small_data / "tokenizer", tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "mine", "teacher"]
