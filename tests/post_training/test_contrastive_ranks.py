"""Two ranks of torchrun on CPU: the same training as one, because the batch is the same one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from post_train import post_train
from safetensors.numpy import load_file

from mecellem.errors import UserError
from post_training.contrastive import TRAINING_RECORD, ContrastiveSettings, train_contrastive
from post_training.pairs import read_pairs

SETTINGS = {"steps": 5, "batch_size": 16, "train_seq_length": 32, "lr": 1e-3}
CACHED = {"loss": "cached-mnrl", "mini_batch_size": 3, "matryoshka_dims": (64, 16)}


def flags(values):
    """The settings as a user types them."""
    for name, value in values.items():
        yield f"--{name.replace('_', '-')}"
        yield from map(str, value if isinstance(value, tuple) else (value,))


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, CACHED], ids=["mnrl", "cached-mnrl"])
def test_two_ranks_train_as_one(more, small_model, triplet_file, tmp_path):
    settings = SETTINGS | more
    train_contrastive(small_model, tmp_path / "1", read_pairs([triplet_file]), ContrastiveSettings(**settings), device="cpu")
    words = ["contrastive", small_model, "--data", triplet_file, "--out", tmp_path / "2", *flags(settings)]
    done = post_train(*words, "--device", "cpu", "--checkpoint-every", "3", ranks=2)
    assert done.stdout.count("contrastive training") == 1, "one rank speaks"
    one, two = (json.loads((tmp_path / name / TRAINING_RECORD).read_text()) for name in "12")
    assert two["speed"]["ranks"] == 2 and two["speed"]["tokens"] == one["speed"]["tokens"]
    assert two["result"]["losses"] == pytest.approx(one["result"]["losses"], abs=2e-4)
    before, alone, together = (load_file(path / "model.safetensors") for path in (small_model, tmp_path / "1", tmp_path / "2"))
    for name, array in alone.items():
        moved = np.abs(array - before[f"model.{name}"]).max()
        assert np.abs(array - together[name]).max() < 0.02 * max(moved, 1e-3), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_a_batch_that_ranks_cannot_share_is_refused(small_model, triplet_set, tmp_path, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "3"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="--batch-size 16 is shared by 3 ranks: give a multiple of 3"):
        train_contrastive(small_model, tmp_path / "out", triplet_set, ContrastiveSettings(batch_size=16), device="cpu")
