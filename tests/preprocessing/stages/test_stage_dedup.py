"""The three searches for duplicates, through whole runs of several shards."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pipeline"))
from pipeline_runs import documents, jsonl_source, sentences, write_corpus, write_jsonl

from mecellem.errors import UserError
from preprocessing.pipeline.ledger import read_ledger
from preprocessing.pipeline.run import run
from preprocessing.stages.minhash import MinhashConfig, TurkishSignature
from preprocessing.stages.semantic_dedup import SemanticDedupSettings, close_documents, encoder
from preprocessing.turkish import upper


def kept(tmp_path, texts, stage, shard_size="4KB"):
    """The texts that a run with only this stage keeps, and its ledger."""
    path = write_jsonl(tmp_path / "laws.jsonl", texts)
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], [stage], shard_size=shard_size)
    run(corpus, workers=1)
    [name] = stage
    folder = tmp_path / "out" / "stages" / f"01_{name}"
    return [document["text"] for document in documents(folder)], read_ledger(folder / "ledger.json").total()


def test_exact_duplicates_differ_at_most_in_white_space_and_turkish_case(tmp_path):
    texts = ["IŞIK ılık\n\niş", "ışık  ılık iş", "İŞ", "iş", "IŞ", "ışık ilik iş", *map(sentences, range(40)), "ışık ılık iş"]
    stays, ledger = kept(tmp_path, texts, {"exact_dedup": {}}, shard_size="1KB")
    assert stays == ["IŞIK ılık\n\niş", "İŞ", "IŞ", "ışık ilik iş", *map(sentences, range(40))]
    assert ledger.dropped["exact_duplicate"].documents == 3


def test_the_first_of_the_input_stays_in_whatever_place_of_its_shard_it_is(tmp_path):
    # the later copy is the first of its own shard, the earlier one the last: datatrove alone would keep the later
    texts = [*map(sentences, range(20)), "aynı belge", *map(sentences, range(20, 60))]
    path, other = write_jsonl(tmp_path / "a.jsonl", texts[:21]), write_jsonl(tmp_path / "b.jsonl", ["aynı belge", *texts[21:]])
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path, other)], [{"exact_dedup": {}}], shard_size="10KB")
    run(corpus, workers=1)
    found = documents(tmp_path / "out" / "stages" / "01_exact_dedup")
    assert [document["text"] for document in found] == texts
    assert [document["origin"] for document in found if document["text"] == "aynı belge"] == [f"{path}:21"]


def test_near_duplicates_of_other_shards_and_other_case_go(tmp_path):
    texts = [sentences(n, 150) for n in range(20)]
    near = upper(texts[3]) + " SON CÜMLE EKLENDİ"
    stays, ledger = kept(tmp_path, [*texts, near, texts[7].replace("Belge", "Karar", 1)], {"minhash": {"n_grams": 3}})
    assert len(stays) == 20
    assert ledger.dropped["near_duplicate"].documents == 2
    assert sum(sentences(n, 150)[10:] in "".join(stays) for n in range(20) if n not in (3, 7)) == 18


def test_shingles_fold_turkish_case_and_are_hashed_once(tmp_path):
    signature = TurkishSignature(str(tmp_path), MinhashConfig(n_grams=2))
    assert set(signature.get_shingles("IŞIK İLE").ravel()) == set(signature.get_shingles("ışık ile").ravel())
    assert len(signature.get_shingles("a b a b a b")) == 2
    assert signature.get_shingles("tek").shape == (0, 1)


def test_semantic_duplicates_go_within_a_group_of_shards_only(tmp_path):
    legal = "Mahkeme davanın kabulüne ve tazminatın davalıdan tahsiline karar verdi."
    again = "Davanın kabulüne, tazminatın davalıdan tahsiline mahkeme karar verdi."
    cooking = "Soğanlar pembeleşince kıyma eklenir ve kısık ateşte on dakika kavrulur."
    texts = [legal, cooking, again]
    stays, ledger = kept(tmp_path, texts, {"semantic_dedup": {"group_shards": 8}}, shard_size=10)
    assert stays == [legal, cooking]
    assert ledger.dropped["semantic_duplicate"].documents == 1
    (tmp_path / "alone").mkdir()
    stays, _ = kept(tmp_path / "alone", texts, {"semantic_dedup": {"group_shards": 1}}, shard_size=10)
    assert stays == texts


def test_close_documents_go_only_with_one_that_stays_and_not_by_a_chain():
    angles = np.array([0.0, 0.5, 1.0, 3.0, 0.1])  # cosines: 0-1 0.88, 1-2 0.88, 0-2 0.54
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = close_documents(vectors, 0.75)
    assert sorted(found) == [1, 4]
    assert found[1] == pytest.approx(np.cos(0.5), abs=1e-3)


def test_close_documents_are_the_same_whenever_they_are_searched_for():
    vectors = np.random.default_rng(5).normal(size=(3000, 16)).astype(np.float32)
    first = close_documents(vectors, 0.8)
    assert first and all(close_documents(vectors, 0.8) == first for _ in range(3))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    stays = np.array([row for row in range(len(vectors)) if row not in first])
    similar = unit[stays] @ unit[stays].T - 2 * np.eye(len(stays))
    # the index is approximate: hardly any pair that is too close is left
    assert (similar.max(axis=1) >= 0.8).mean() < 0.01
    for row in first:
        assert (unit[stays[stays < row]] @ unit[row]).max() >= 0.8 - 1e-6


def test_a_model2vec_folder_is_a_model_and_another_folder_is_not(tmp_path):
    from model2vec import StaticModel
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "karar": 1, "dava": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    StaticModel(np.eye(3, dtype=np.float32), tokenizer).save_pretrained(str(tmp_path / "static"))
    vectors = encoder(str(tmp_path / "static"))(["karar karar", "dava"])
    assert vectors.shape == (2, 3) and vectors[0].argmax() == 1
    encoder.cache_clear()
    with pytest.raises(UserError, match="is no folder of a model"):
        encoder(str(tmp_path))
    assert SemanticDedupSettings().threshold == 0.75
