"""Adapters against direct computation, row by row, and folders that are no whole judges."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_judges import AXES, write_armorm, write_classifier
from transformers import AutoTokenizer, BertForSequenceClassification, LlamaForSequenceClassification, LlamaModel

from evaluation.reward.conversation import Conversation, encode
from evaluation.reward.judge_folder import ARMORM_AXES, check_judge, check_judges
from evaluation.reward.judges import batches, open_judge, score_conversations
from mecellem.errors import UserError

PAIRS = (
    ("Kira sözleşmesi nasıl feshedilir?", "Türk Borçlar Kanunu'nun 347. maddesine göre bildirimle."),
    ("Zamanaşımı", "10 yıl."),
    ("  Boşlukla başlayan soru\n", "Yanıt"),
    ("Uzun mu?", "Evet, " * 12),
    ("Boş yanıt?", ""),
)


def conversations(folder: Path, limit: int = 256) -> list[Conversation]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [encode(tokenizer, prompt, text, limit) for prompt, text in PAIRS]


def scores_of(folder: Path, tokens: int = 400) -> np.ndarray:
    return score_conversations(open_judge(check_judge(folder), "fp32", "cpu"), conversations(folder), tokens, "cpu")


def rendered(folder: Path, prompt: str, text: str) -> list[int]:
    """Ids by the template alone."""
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
    found = AutoTokenizer.from_pretrained(folder).apply_chat_template(turns, tokenize=True, return_dict=True)
    return list(found["input_ids"])


def armorm_by_hand(folder: Path, prompt: str, text: str) -> np.ndarray:
    """One row, unpadded, after the formulas of the paper: the gate reads the last <|eot|> before the assistant's header."""
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    backbone = LlamaModel.from_pretrained(folder, config=None).eval()
    ids = rendered(folder, prompt, text)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    header = tokenizer("<|eot|><|start|>assistant<|end|>\n\n", add_special_tokens=False)["input_ids"]
    starts = [place for place in range(len(ids)) if ids[place : place + len(header)] == header]
    with torch.no_grad():
        hidden = backbone(torch.tensor([ids])).last_hidden_state[0]
    raw = tensors["regression_layer.weight"] @ hidden[-1]
    debiased = torch.stack([(raw * column).sum() for column in tensors["reward_transform_matrix"].T])
    state = hidden[starts[-1]]
    for number in range(3):
        state = tensors[f"gating.layers.{number}.weight"] @ state + tensors[f"gating.layers.{number}.bias"]
        state = state.clamp_min(0) if number < 2 else state
    exponentials = torch.exp(state / config["gating_temperature"])
    weights = tensors["gating.logit_scale"][0] * exponentials / exponentials.sum()
    return torch.cat([raw, debiased, (weights * debiased).sum()[None]]).numpy()


def test_armorm_agrees_with_the_formulas(armorm):
    expected = np.stack([armorm_by_hand(armorm, *pair) for pair in PAIRS])
    found = scores_of(armorm)
    assert found.shape == (len(PAIRS), 11)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.ptp(found[:, -1]) > 1e-3  # the scores tell texts apart
    assert np.abs(found[:, :5] - found[:, 5:10]).max() > 1e-2  # the matrix does something


def test_a_gate_that_read_another_token_would_give_another_score(armorm):
    judge = open_judge(check_judge(armorm), "fp32", "cpu")
    rows = conversations(armorm)
    moved = [Conversation(row.ids, row.gate - 1, row.cut) for row in rows]
    right, wrong = (score_conversations(judge, items, 400, "cpu")[:, -1] for items in (rows, moved))
    assert np.abs(right - wrong).max() > 1e-4


def test_batches_do_not_change_scores(armorm, classifier):
    for folder in (armorm, classifier):
        np.testing.assert_allclose(scores_of(folder, 1), scores_of(folder, 10_000), atol=2e-5)


@pytest.mark.parametrize("padding", [True, False])
def test_classifier_agrees_with_its_own_model(tmp_path, padding):
    folder = write_classifier(tmp_path / "judge", seed=9, padding=padding)
    model = LlamaForSequenceClassification.from_pretrained(folder).eval()
    expected = []
    for prompt, text in PAIRS:
        with torch.no_grad():
            hidden = model.model(torch.tensor([rendered(folder, prompt, text)])).last_hidden_state[0, -1]
        expected.append((model.score.weight @ hidden).detach().numpy())
    np.testing.assert_allclose(scores_of(folder), np.stack(expected), atol=2e-5)


def test_an_encoder_reads_a_pair(bert):
    """Without a chat template: both texts with BERT's token types."""
    model = BertForSequenceClassification.from_pretrained(bert).eval()
    tokenizer = AutoTokenizer.from_pretrained(bert)
    expected = []
    for prompt, text in PAIRS:
        with torch.no_grad():
            expected.append(model(**tokenizer(prompt, text, return_tensors="pt")).logits[0].numpy())
    np.testing.assert_allclose(scores_of(bert), np.stack(expected), atol=2e-5)
    assert check_judge(bert).axes == ("reward",)


def test_rows_without_padding_share_a_batch_only_at_one_length():
    rows = [Conversation(tuple(range(length)), 0, False) for length in (5, 3, 5, 4, 3)]
    assert list(batches(rows, 100, padded=False)) == [[0, 2], [3], [1, 4]]
    assert list(batches(rows, 100, padded=True)) == [[0, 2, 3, 1, 4]]
    assert list(batches(rows, 10, padded=True)) == [[0, 2], [3, 1], [4]]


def test_names_of_axes(tmp_path, armorm):
    assert check_judge(armorm).axes == AXES and check_judge(armorm).overall
    assert check_judge(armorm, ("a", "b", "c", "d", "e")).axes == ("a", "b", "c", "d", "e")
    unnamed = write_armorm(tmp_path / "unnamed", named=False, gate=False)
    assert check_judge(unnamed).axes == tuple(f"axis_{number}" for number in range(5))
    assert not check_judge(unnamed).overall
    assert scores_of(unnamed).shape == (len(PAIRS), 10)
    assert check_judge(write_armorm(tmp_path / "nineteen", axes=19)).axes == ARMORM_AXES
    with pytest.raises(UserError, match=r"--axes names 2 axes but .* has 5"):
        check_judge(armorm, ("a", "b"))
    with pytest.raises(UserError, match="overall"):
        check_judge(armorm, ("a", "b", "c", "d", "overall"))


def test_judges_with_different_axes_are_refused(tmp_path, armorm, classifier):
    assert [judge.layout for judge in check_judges([armorm, classifier])] == ["armorm", "classifier"]
    other = write_classifier(tmp_path / "other", axes=("style", "facts"))
    with pytest.raises(UserError, match=r"other judges style, facts but .*armorm statute_reference.*--axes"):
        check_judges([armorm, other])
    with pytest.raises(UserError, match="same folder twice"):
        check_judges([armorm, armorm / "."])
    with pytest.raises(UserError, match="--judge names no folder"):
        check_judges([])


def edited(folder: Path, target: Path, change) -> Path:
    shutil.copytree(folder, target)
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


FAULTS = {
    "quantiles": (
        lambda t: t.update({"regression_layer.weight": torch.zeros(15, 32)}),
        r"\[15, 32\] but config.json tells of 5",
    ),
    "matrix": (lambda t: t.update(reward_transform_matrix=torch.eye(4)), r"reward_transform_matrix is \[4, 4\], not \[5, 5\]"),
    "gate": (lambda t: t.update({"gating.layers.2.weight": torch.zeros(4, 24)}), "the gate gives 4 weights for 5 axes"),
    "hole": (lambda t: t.pop("gating.layers.0.weight"), "gating.layers.0.weight is missing"),
    "strange": (lambda t: t.update({"gating.experts": torch.zeros(2)}), "gating.experts belongs to a gate of a kind"),
    "no head": (lambda t: t.pop("regression_layer.weight"), "no head that scores"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_heads_are_refused_before_weights_are_loaded(tmp_path, armorm, fault):
    change, message = FAULTS[fault]
    with pytest.raises(UserError, match=message):
        check_judge(edited(armorm, tmp_path / "judge", change))


def test_missing_backbone_weights_are_not_drawn_at_random(tmp_path, armorm):
    folder = edited(armorm, tmp_path / "judge", lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(UserError, match=r"lacks .*layers\.1\.mlp\.up_proj\.weight"):
        open_judge(check_judge(folder), "fp32", "cpu")


def test_a_score_that_is_no_number_is_refused(tmp_path, armorm):
    folder = edited(armorm, tmp_path / "judge", lambda t: t["regression_layer.weight"].fill_(float("nan")))
    with pytest.raises(UserError, match="not a number"):
        scores_of(folder)


def test_folders_that_are_no_judges(tmp_path, writers):
    with pytest.raises(UserError, match="is not a folder"):
        check_judge(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"config\.json is missing"):
        check_judge(tmp_path)
    with pytest.raises(UserError, match=r"no head that scores.*LlamaForCausalLM"):
        check_judge(writers[0])
    folder = write_armorm(tmp_path / "strange", model_type="someones_own")
    with pytest.raises(UserError, match="'someones_own' is not one of transformers' own"):
        check_judge(folder)
