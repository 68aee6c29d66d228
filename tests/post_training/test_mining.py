from __future__ import annotations

import json

import numpy as np
import pytest

from mecellem.errors import UserError
from post_training.contrastive import ContrastiveSettings, train_contrastive
from post_training.mining import MiningSettings, main, mine_negatives
from post_training.mining.mine import report_path
from post_training.pairs import pair_set, read_pairs
from post_training.start import pooled


@pytest.fixture(scope="module")
def pairs(triplets):
    return pair_set([row[:2] for row in triplets[:80]], "pairs")


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_negatives_are_the_nearest_below_the_margin(small_model, pairs, tmp_path):
    """Against the definition, by brute force over the same model's cosines."""
    found = mine_negatives(pairs, small_model, tmp_path / "a.jsonl", MiningSettings(negatives=2), device="cpu")
    model = pooled(small_model, "mean", 256, "cpu")
    anchors, positives = (pairs.table.column(name).to_pylist() for name in ("anchor", "positive"))
    texts = list(dict.fromkeys(positives))
    cosines = model.encode(anchors) @ model.encode(texts).T
    expected = {}
    for row, (anchor, positive) in enumerate(zip(anchors, positives, strict=True)):
        own = cosines[row, texts.index(positive)]
        allowed = [n for n in np.argsort(-cosines[row]) if texts[n] != positive and cosines[row, n] <= own - abs(own) * 0.05]
        expected[anchor] = {texts[n] for n in allowed[:2]}
    mined = {}
    for line in lines(tmp_path / "a.jsonl"):
        assert line["negative_score"] <= line["positive_score"] * 0.95 + 1e-3
        mined.setdefault(line["anchor"], set()).add(line["negative"])
    agreeing = [anchor for anchor, texts in mined.items() if texts <= expected[anchor]]
    assert len(agreeing) == len(mined) > 5
    assert found.lines == sum(map(len, mined.values())) and found.queries - found.queries_without == len(mined)
    assert json.loads(report_path(tmp_path / "a.jsonl").read_text())["data"]["sha256"] == pairs.sha256


def test_a_false_negative_among_the_candidates_is_left_out(small_model, triplets, tmp_path):
    """A query made of its positive's words, and a candidate that is the positive and a full stop more."""
    texts = [positive for _, positive, _ in triplets if len(positive.split()) > 11][:80]
    queries = [" ".join(text.split()[:-1]) for text in texts]
    twins = {query: f"{text}." for query, text in zip(queries, texts, strict=True)}
    pairs = pair_set(list(zip(queries, texts, strict=True)), "pairs")
    taken = {}
    for name, settings in (("open", MiningSettings(relative_margin=None, max_score=1.5)), ("shut", MiningSettings())):
        out = tmp_path / f"{name}.jsonl"
        mine_negatives(pairs, small_model, out, settings, candidates=list(twins.values()), device="cpu")
        taken[name] = sum(twins[line["anchor"]] == line["negative"] for line in lines(out))
    assert taken["open"] > 60 > 10 > taken["shut"]


def test_a_guide_decides(small_model, pairs, triplet_set, tmp_path):
    """With a guide the scores are its own, and so is the verdict."""
    guide = tmp_path / "guide"
    settings = ContrastiveSettings(steps=10, batch_size=16, train_seq_length=32, lr=2e-3, query_prompt="soru: ")
    train_contrastive(small_model, guide, triplet_set, settings, device="cpu")
    mine_negatives(pairs, small_model, tmp_path / "a.jsonl", guide=guide, device="cpu")
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(guide), device="cpu", local_files_only=True)
    for line in lines(tmp_path / "a.jsonl")[:5]:
        query, texts = model.encode_query([line["anchor"]]), model.encode_document([line["positive"], line["negative"]])
        assert (query @ texts.T)[0] == pytest.approx([line["positive_score"], line["negative_score"]], abs=1e-3)


def test_what_was_mined_can_be_trained_on_and_the_same_call_gives_the_same_file(small_model, pairs, tmp_path):
    settings = MiningSettings(sampling="random", mining_seed=3, range_max=20)
    for name in ("a.jsonl", "b.jsonl"):
        mine_negatives(pairs, small_model, tmp_path / name, settings, device="cpu")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    triplets = read_pairs([tmp_path / "a.jsonl"])
    assert triplets.negatives == 1 and triplets.columns == ("anchor", "positive", "negative")
    train_contrastive(small_model, tmp_path / "out", triplets, ContrastiveSettings(steps=1, batch_size=4), device="cpu")


def test_the_command(small_model, triplet_file, tmp_path, capsys):
    out = tmp_path / "mined.jsonl"
    assert main([str(triplet_file), "--model", str(small_model), "--out", str(out), "--device", "cpu", "--negatives", "1"]) == 0
    shown = capsys.readouterr().out
    assert "triplets;" in shown and "negative " in shown and out.exists()
    with pytest.raises(UserError, match="exists already"):
        main([str(triplet_file), "--model", str(small_model), "--out", str(out), "--device", "cpu"])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"negatives": 0}, "--negatives"),
        ({"relative_margin": None}, "set one of them"),
        ({"relative_margin": -0.1}, "--relative-margin must be at least 0"),
        ({"range_min": 5, "range_max": 6}, "--range-max must leave --negatives"),
        ({"mining_seed": 1}, "--mining-seed has no effect with --sampling top"),
    ],
)
def test_bad_settings(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        MiningSettings(**settings)


def test_nothing_found_and_bad_calls_are_told(small_model, pairs, tmp_path):
    with pytest.raises(UserError, match="no text is left as a hard negative of any of 80 queries"):
        mine_negatives(pairs, small_model, tmp_path / "a.jsonl", MiningSettings(absolute_margin=3.0), device="cpu")
    with pytest.raises(UserError, match=r"ends in \.jsonl"):
        mine_negatives(pairs, small_model, tmp_path / "a.csv", device="cpu")
    with pytest.raises(UserError, match="--guide judges by"):
        settings = MiningSettings(relative_margin=None, range_min=5)
        mine_negatives(pairs, small_model, tmp_path / "a.jsonl", settings, guide=small_model, device="cpu")
    assert not list(tmp_path.iterdir())
