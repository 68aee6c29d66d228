"""The gate notices what it is there for, and nothing else."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from conversion.verify import TEXTS, Verification, compare, require_passed, verification_batches
from mecellem.errors import UserError

VOCABULARY = 7


class Fixed(torch.nn.Module):
    """Logits that depend on the token only; the Megatron form has vocabulary padding behind them."""

    def __init__(self, table: torch.Tensor, padding: int = 0) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.cat([table, torch.full((len(table), padding), float("-inf"))], dim=1))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor | SimpleNamespace:
        logits = self.table[input_ids]
        return logits if self.table.size(1) > VOCABULARY else SimpleNamespace(logits=logits)


@pytest.fixture
def table() -> torch.Tensor:
    return torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(0))


def figures(ours: torch.Tensor, theirs: torch.Tensor) -> dict:
    ids = torch.tensor([[1, 2, 3, 0], [4, 5, 6, 1]])
    batch = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    return compare(Fixed(ours, padding=3), Fixed(theirs), [batch], VOCABULARY)


def test_equal(table: torch.Tensor):
    found = figures(table, table)
    assert found["max_logit_difference"] == 0.0 and found["top1_agreement"] == 1.0
    assert (found["tokens_compared"], found["sequences_compared"], found["longest_sequence"]) == (7, 2, 4)


def test_padding_is_not_compared(table: torch.Tensor):
    other = table.clone()
    other[0] += 100.0  # only the padding's own logits
    assert figures(other, table)["max_logit_difference"] == 0.0


def test_a_difference_and_a_lost_top_1(table: torch.Tensor):
    other = table.clone()
    other[3] = other[3].roll(1)
    found = figures(other, table)
    assert found["max_logit_difference"] == pytest.approx(float((other - table).abs().max()))
    assert found["top1_agreement"] < 1.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_no_agreement(value: float, table: torch.Tensor):
    other = table.clone()
    other[2, 2] = value
    assert figures(other, table)["max_logit_difference"] > 1e30


def test_batches_are_padded_alone_long_and_masked(sample_tokenizer: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(sample_tokenizer)
    padded, first, second, long, masked = verification_batches(tokenizer, 300)
    assert len(padded["input_ids"]) == len(TEXTS) and not padded["attention_mask"].all()
    assert first["attention_mask"].all() and second["attention_mask"].all()
    assert long["input_ids"].shape == (1, 300)
    places = masked["input_ids"] == tokenizer.mask_token_id
    assert 0.1 < places.sum() / masked["attention_mask"].sum() < 0.2
    assert masked["attention_mask"].bool()[places].all()


PASSED = Verification(True, 1e-7, 3.0, 3e-5, 1.0, 7, 2, 4, True, 0.02, 3, 3072, {"torch": "2"})


def test_the_gate(tmp_path: Path):
    require_passed(PASSED, tmp_path)
    failed = dataclasses.replace(PASSED, passed=False, tied=False)
    with pytest.raises(UserError, match=r"was not written: .*head NOT tied"):
        require_passed(failed, tmp_path)
