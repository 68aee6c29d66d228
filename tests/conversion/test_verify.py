"""The gate notices what it is there for, and nothing else."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_folders import SHAPES, decoder, hf_model, write_folder
from safetensors.torch import load_file, save_file

from conversion.streamed import FolderSource, StreamedEmbedding, StreamedHead, best_entry, stream_weights
from conversion.verify import (
    TEXTS,
    Comparison,
    Verification,
    check_statistics,
    hf_outline,
    require_passed,
    verification_batches,
)
from mecellem.errors import UserError

VOCABULARY, WIDTH = 700, 8


class Blocks:
    """A source in memory whose parameters come in several blocks."""

    def __init__(self, **tensors: torch.Tensor) -> None:
        self.tensors = tensors

    def blocks(self, name: str) -> Any:
        yield from self.tensors[name].split(300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    tensors = {"w": torch.randn(VOCABULARY, WIDTH, generator=generator), "b": torch.randn(VOCABULARY, generator=generator)}
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


def compared(folder: Path, change: Any = None, monkeypatch: pytest.MonkeyPatch | None = None) -> Comparison:
    stored = load_file(folder / "model.safetensors")
    ours = {name: tensor.clone() for name, tensor in stored.items()}
    hidden = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(1))
    keep = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    mine = hidden.clone()
    if change is not None:
        change(ours, mine)
    heads = (StreamedHead(Blocks(**ours), "w", "b", True), StreamedHead(FolderSource(folder), "w", "b", False))
    assert heads[0](mine)[1] is None and heads[1](hidden).shape == (2, 4, 1)
    total = Comparison()
    total.add(*heads, keep)
    logits = [h.flatten(0, 1)[keep.flatten()] @ t["w"].T + t["b"] for h, t in ((mine, ours), (hidden, stored))]
    difference = (logits[0] - logits[1]).abs().max().nan_to_num(float("inf"))
    torch.testing.assert_close(total.max_logit_difference, float(difference), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(total.largest_logit, float(logits[1].abs().max()), atol=1e-5, rtol=1e-5)
    if torch.isfinite(difference):
        assert total.agreed == int((logits[0].argmax(-1) == logits[1].argmax(-1)).sum())
        assert best_entry(heads[1]) == int((hidden[-1, -1] @ stored["w"].T + stored["b"]).argmax())
    return total


def test_equal(folder: Path):
    found = compared(folder)
    assert found.max_logit_difference == 0.0 and found.agreed == found.tokens_compared == 7
    assert (found.sequences_compared, found.longest_sequence) == (2, 4)


def test_small_pieces_of_the_vocabulary(folder: Path, monkeypatch: pytest.MonkeyPatch):
    from conversion import streamed

    monkeypatch.setattr(streamed, "BLOCK_BYTES", 4096)
    assert compared(folder).agreed == 7
    assert compared(folder, lambda ours, hidden: ours["w"].copy_(ours["w"].roll(1, 0))).agreed < 7


def test_padding_is_not_compared(folder: Path):
    assert compared(folder, lambda ours, hidden: hidden[0, 3].add_(100.0)).max_logit_difference == 0.0


def test_a_difference_and_a_lost_top_1(folder: Path):
    found = compared(folder, lambda ours, hidden: hidden.copy_(hidden.roll(1, -1)))
    assert found.max_logit_difference > 0.1 and found.agreed < found.tokens_compared


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_no_agreement(value: float, folder: Path):
    assert compared(folder, lambda ours, hidden: ours["w"][650].fill_(value)).max_logit_difference > 1e30


def test_the_rows_of_an_embedding(folder: Path):
    stored = load_file(folder / "model.safetensors")["w"]
    ids = torch.tensor([[0, 299, 300], [699, 5, 0]])
    assert torch.equal(StreamedEmbedding(Blocks(w=stored), "w")(ids), stored[ids])


class WithTied(FolderSource):
    """Also knows a tied head by its own name."""

    def blocks(self, name: str) -> Any:
        names = ("model.embed_tokens.weight", "model.embeddings.tok_embeddings.weight")
        yield from super().blocks(name if name in self.reader.shapes else next(n for n in names if n in self.reader.shapes))


@pytest.mark.parametrize("name", SHAPES)
def test_streamed_models_compute_what_transformers_computes(name: str, sample_tokenizer: Path, tmp_path: Path):
    source = write_folder(tmp_path / "hf", SHAPES[name], sample_tokenizer)
    model = hf_outline(source).eval()
    stream_weights(model, WithTied(source), {}, torch.device("cpu"))
    ids = torch.randint(5, 8000, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(ids).logits, hf_model(SHAPES[name])(ids).logits)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_batches_are_padded_alone_long_and_masked(sample_tokenizer: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(sample_tokenizer)
    padded, alone, long, masked = verification_batches(tokenizer, 300)
    assert len(padded["input_ids"]) == len(TEXTS) and not padded["attention_mask"].all()
    assert padded["attention_mask"][:, 0].all()  # on the right
    assert alone["attention_mask"].all() and len(alone["input_ids"]) == 1
    assert long["input_ids"].shape == (1, 300)
    places = masked["input_ids"] == tokenizer.mask_token_id
    assert 0.1 < places.sum() / masked["attention_mask"].sum() < 0.2
    assert masked["attention_mask"].bool()[places].all()
    tokenizer.mask_token = None
    assert len(verification_batches(tokenizer, 300)) == 3


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (torch.zeros(3, 4), "lm_head.weight is all zero"),
        (torch.tensor([[1.0, float("inf")]]), "lm_head.weight has values that are not finite"),
        (torch.tensor([[float("nan"), 0.0]]), "lm_head.weight has values that are not finite"),
    ],
)
def test_weights_that_are_none(tensor: torch.Tensor, sentence: str, tmp_path: Path):
    save_file({"bias": torch.zeros(3), "lm_head.weight": tensor}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=sentence):
        check_statistics(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics(dtype: torch.dtype, tmp_path: Path):
    tensor = (3.0 * torch.randn(500, 300) + 1.0).to(dtype)
    save_file({"a": tensor, "bias": torch.zeros(3, dtype=dtype)}, tmp_path / "model.safetensors")
    found = check_statistics(tmp_path)
    std, largest = found["a"]
    assert std == pytest.approx(float(tensor.float().std()), rel=1e-4)
    assert largest == float(tensor.float().abs().max())
    assert found["bias"] == (0.0, 0.0)


PASSED = Verification(
    passed=True,
    max_logit_difference=1e-7,
    largest_logit=3.0,
    tolerance=3e-5,
    top1_agreement=1.0,
    tokens_compared=7,
    sequences_compared=2,
    longest_sequence=4,
    tied=True,
    embedding_std=0.02,
    checkpoint_step=3,
    checkpoint_tokens=3072,
    versions={"torch": "2"},
    continuation="bir metin",
    tensors=3,
    smallest_std=0.01,
    smallest_std_of="a",
)


def test_the_gate(tmp_path: Path):
    require_passed(PASSED, tmp_path)
    assert "bir metin" in PASSED.sentence()
    failed = dataclasses.replace(PASSED, passed=False, tied=False)
    with pytest.raises(UserError, match=r"was not written: .*head NOT tied"):
        require_passed(failed, tmp_path)


def test_tied_or_not_is_what_the_config_says(sample_tokenizer: Path, tmp_path: Path):
    for tied in (True, False):
        folder = write_folder(tmp_path / str(tied), decoder(tie_embeddings=tied, num_layers=1), sample_tokenizer)
        model = hf_outline(folder)
        assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) is tied
