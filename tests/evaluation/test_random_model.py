from __future__ import annotations

import shutil

import pytest
import torch

from evaluation.random_model import write_random_model
from mecellem.errors import UserError
from mecellem.files import sha256_of
from mecellem.tokenizer_files import TOKENIZER_FILES
from post_training.model_folder import check_model_folder, count_parameters, load_masked_lm, load_tokenizer


def test_same_shape_and_tokenizer_other_weights(small_model, tmp_path):
    write_random_model(small_model, tmp_path / "random", seed=5)
    check_model_folder(tmp_path / "random")
    assert count_parameters(tmp_path / "random") == count_parameters(small_model)
    model, twin = load_masked_lm(small_model, "cpu"), load_masked_lm(tmp_path / "random", "cpu")
    assert type(model) is type(twin)
    name = "model.layers.0.attn.Wqkv.weight"
    ours, theirs = model.state_dict()[name], twin.state_dict()[name]
    assert ours.shape == theirs.shape and not torch.equal(ours, theirs)
    assert abs(ours.std() - theirs.std()) < 0.2 * ours.std(), "drawn as training starts"
    text = "Türkiye Büyük Millet Meclisi"
    assert load_tokenizer(tmp_path / "random")(text)["input_ids"] == load_tokenizer(small_model)(text)["input_ids"]


def test_every_file_of_the_tokenizer_comes_along(small_model, tmp_path):
    folder = shutil.copytree(small_model, tmp_path / "with_template")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    write_random_model(folder, tmp_path / "random")
    for name in TOKENIZER_FILES:
        assert (folder / name).exists() == (tmp_path / "random" / name).exists()
        if (folder / name).exists():
            assert (folder / name).read_bytes() == (tmp_path / "random" / name).read_bytes()


def test_the_seed_decides(small_model, tmp_path):
    state = torch.random.get_rng_state()
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_random_model(small_model, tmp_path / name, seed=seed)
    a, b, c = (sha256_of(tmp_path / name / "model.safetensors") for name in "abc")
    assert a == b != c
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random stream moved"


def test_bad_folder(tmp_path):
    with pytest.raises(UserError, match="not a model folder"):
        write_random_model(tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()
