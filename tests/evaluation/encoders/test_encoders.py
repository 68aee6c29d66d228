"""Every kind of model as an encoder: vectors, prompts, pooling, what is cut, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from encoder_models import (
    POSITIONS,
    TEXTS,
    edit_json,
    spoil,
    write_asymmetric,
    write_model2vec,
    write_sentence_transformer,
    write_transformer,
)

from evaluation.encoders import EncoderSettings, open_encoder
from evaluation.encoders.base import Role
from mecellem.errors import UserError

MIXED = [*TEXTS, "Kısa.", " ".join(TEXTS), "", TEXTS[0] * 3, "  \n\t"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_transformer(tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture(scope="module")
def sentence_transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentence_transformer(tmp_path_factory.mktemp("sentence") / "model")


def test_plain_folder_is_mean_pooled_as_computed_by_hand_and_says_that_it_was_assumed(plain: Path):
    import torch
    from transformers import AutoModel, AutoTokenizer

    encoder = open_encoder(str(plain), device="cpu")
    assert encoder.facts.pooling == "mean" and encoder.facts.pooling_assumed
    assert "assumed" in encoder.facts.sentence()
    tokenizer, model = AutoTokenizer.from_pretrained(plain), AutoModel.from_pretrained(plain).eval()
    found = encoder.encode(TEXTS, "text")
    for text, vector in zip(TEXTS, found, strict=True):  # one by one: no padding takes part
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=POSITIONS)).last_hidden_state[0]
        mean = states.mean(0).numpy()
        assert np.allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_order_and_batch_size_change_nothing(plain: Path):
    large = open_encoder(str(plain), device="cpu").encode(MIXED, "text")
    small = open_encoder(str(plain), device="cpu", settings=EncoderSettings(batch_tokens=70)).encode(MIXED[::-1], "text")
    assert np.allclose(large, small[::-1], atol=1e-5)


def test_a_remembered_text_is_not_encoded_again_and_counted_all_the_same(plain: Path, monkeypatch):
    encoder = open_encoder(str(plain), device="cpu")
    first = encoder.encode(MIXED, "document")
    before = encoder.counts.copy()
    encoder.remember(len(MIXED))
    assert np.array_equal(encoder.encode(MIXED, "document"), first)
    counted = encoder.counts.since(before)
    asked = []
    vectors = encoder.vectors
    monkeypatch.setattr(encoder, "vectors", lambda texts, role: asked.extend(texts) or vectors(texts, role))
    again = encoder.encode([*MIXED[::-1], "Yeni bir metin."], "document")
    assert asked == ["Yeni bir metin."] and np.array_equal(again[:-1], first[::-1])
    assert np.array_equal(encoder.encode(TEXTS, "query"), encoder.encode(TEXTS, "document")) and len(asked) == 1
    ours = encoder.counts.since(before).since(counted)
    assert ours.texts == len(MIXED) + 1 + 2 * len(TEXTS) and ours.empty == counted.empty == 2
    assert counted.truncated == before.truncated > 0 and counted.tokens_cut == before.tokens_cut


@pytest.mark.parametrize("reason", ["prompt", "query length", "parts"])
def test_a_text_that_another_role_reads_in_another_way_is_encoded_again(plain: Path, tmp_path: Path, reason: str):
    settings = EncoderSettings(query_prompt="soru: " if reason == "prompt" else "", document_prompt="")
    folder = plain
    if reason != "prompt":
        folder = write_asymmetric(tmp_path / "model", query_length=4 if reason == "query length" else None)
    encoder = open_encoder(str(folder), device="cpu", settings=settings)
    fresh = encoder.encode(TEXTS, "query")
    encoder.remember(len(MIXED))
    documents = encoder.encode(TEXTS, "document")
    found = encoder.encode(TEXTS, "query")
    assert np.array_equal(found, fresh) and not np.allclose(found, documents, atol=1e-3)


def test_no_more_is_remembered_than_was_asked_for(plain: Path):
    encoder = open_encoder(str(plain), device="cpu")
    encoder.remember(2)
    encoder.encode(TEXTS, "text")
    encoder.encode(TEXTS[::-1], "text")
    assert len(encoder.remembered) == 2


def test_empty_texts_are_zero_vectors_and_counted(plain: Path):
    encoder = open_encoder(str(plain), device="cpu")
    found = encoder.encode(MIXED, "document")
    norms = np.linalg.norm(found, axis=1)
    assert np.allclose(norms[[8, 10]], 0) and np.allclose(np.delete(norms, [8, 10]), 1, atol=1e-5)
    assert (encoder.counts.texts, encoder.counts.empty) == (len(MIXED), 2)
    assert encoder.encode([], "text").shape == (0, 32)
    assert encoder.encode(["", " "], "text").shape == (2, 32)


def test_texts_over_the_context_length_are_counted_with_the_tokens_that_they_lose(plain: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(plain)
    lengths = [len(tokenizer(text)["input_ids"]) for text in MIXED if text.strip()]
    over = [length - POSITIONS for length in lengths if length > POSITIONS]
    assert len(over) >= 2
    encoder = open_encoder(str(plain), device="cpu")
    assert encoder.facts.max_seq_length == POSITIONS
    encoder.encode(MIXED, "text")
    assert (encoder.counts.truncated, encoder.counts.tokens_cut) == (len(over), sum(over))


@pytest.mark.parametrize(("role", "prompt"), [("query", "soru: "), ("document", "metin: ")])
def test_a_length_of_the_models_own_for_a_role_counts(sentence_transformer: Path, tmp_path: Path, role: Role, prompt: str):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(sentence_transformer), device="cpu")
    setattr(model[0], f"{role}_length", 8)
    model.save_pretrained(str(tmp_path / "short"))
    encoder = open_encoder(str(tmp_path / "short"), device="cpu")
    lengths = encoder.lengths(TEXTS, role)
    assert min(lengths) > 8 and f"32 tokens (8 of a {role})" in encoder.facts.sentence()
    encoder.encode(TEXTS, role)
    assert (encoder.counts.truncated, encoder.counts.tokens_cut) == (len(TEXTS), sum(lengths) - 8 * len(TEXTS))
    short = [encoder.model.tokenizer.decode(encoder.model.tokenizer(f"{prompt}{TEXTS[0]}")["input_ids"][1:7])]
    assert np.allclose(encoder.encode(TEXTS[:1], role), encoder.model.encode(short, normalize_embeddings=True), atol=1e-5)


def test_a_role_is_never_read_longer_than_the_model_reads(sentence_transformer: Path, tmp_path: Path):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(sentence_transformer), device="cpu")
    model[0].document_length = 24
    model.save_pretrained(str(tmp_path / "model"))
    encoder = open_encoder(str(tmp_path / "model"), settings=EncoderSettings(max_seq_length=8), device="cpu")
    assert encoder.facts.limit("document") == 8
    wanted = open_encoder(str(sentence_transformer), settings=EncoderSettings(max_seq_length=8), device="cpu")
    assert np.allclose(encoder.encode(TEXTS, "document"), wanted.encode(TEXTS, "document"), atol=1e-6)
    assert encoder.counts == wanted.counts and encoder.counts.truncated


def test_counts_since_an_earlier_moment(plain: Path):
    encoder = open_encoder(str(plain), device="cpu")
    encoder.encode(["", TEXTS[0]], "text")
    before = encoder.counts.copy()
    encoder.encode([TEXTS[1], "", ""], "text")
    assert (before.texts, before.empty) == (2, 1)
    assert (encoder.counts.since(before).texts, encoder.counts.since(before).empty) == (3, 2)


def test_own_modules_and_prompts_of_a_sentence_transformers_folder(sentence_transformer: Path):
    from sentence_transformers import SentenceTransformer

    encoder = open_encoder(str(sentence_transformer), device="cpu")
    facts = encoder.facts
    assert (facts.kind, facts.pooling, facts.pooling_assumed) == ("sentence-transformers", "cls", False)
    assert (facts.query_prompt, facts.document_prompt, facts.text_prompt) == ("soru: ", "metin: ", "")
    assert facts.max_seq_length == 32
    model = SentenceTransformer(str(sentence_transformer), device="cpu")
    for role, prompt in (("query", "soru: "), ("document", "metin: "), ("text", "")):
        wanted = model.encode(TEXTS, prompt=prompt, normalize_embeddings=True)
        assert np.allclose(encoder.encode(TEXTS, role), wanted, atol=1e-5)


def test_prompts_can_be_set_and_the_models_default_prompt_stands_before_texts(sentence_transformer: Path, tmp_path: Path):
    given_ = EncoderSettings(query_prompt="", document_prompt="belge: ", text_prompt="yazı: ")
    facts = open_encoder(str(sentence_transformer), device="cpu", settings=given_).facts
    assert (facts.query_prompt, facts.document_prompt, facts.text_prompt) == ("", "belge: ", "yazı: ")
    assert "query" not in facts.sentence() and "'belge: '" in facts.sentence()
    copy = shutil.copytree(sentence_transformer, tmp_path / "copy")
    edit_json(copy / "config_sentence_transformers.json", default_prompt_name="query")
    assert open_encoder(str(copy), device="cpu").facts.text_prompt == "soru: "


def test_prompt_takes_part_in_the_length(sentence_transformer: Path):
    long = TEXTS[1]
    bare = open_encoder(str(sentence_transformer), device="cpu", settings=EncoderSettings(query_prompt=""))
    prompted = open_encoder(str(sentence_transformer), device="cpu", settings=EncoderSettings(query_prompt="soru " * 30))
    bare.encode([long], "query")
    prompted.encode([long], "query")
    assert prompted.counts.tokens_cut > bare.counts.tokens_cut


def test_pooling_of_a_plain_folder_can_be_named_by_a_flag_or_a_file(plain: Path, tmp_path: Path):
    by_flag = open_encoder(str(plain), device="cpu", settings=EncoderSettings(pooling="cls"))
    copy = shutil.copytree(plain, tmp_path / "copy")
    (copy / "1_Pooling").mkdir()
    (copy / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    )
    by_file = open_encoder(str(copy), device="cpu")
    assert (by_flag.facts.pooling, by_flag.facts.pooling_assumed) == ("cls", False)
    assert (by_file.facts.pooling, by_file.facts.pooling_assumed) == ("cls", False)
    vectors = by_flag.encode(TEXTS, "text")
    assert np.allclose(vectors, by_file.encode(TEXTS, "text"), atol=1e-6)
    assert not np.allclose(vectors, open_encoder(str(plain), device="cpu").encode(TEXTS, "text"), atol=1e-2)
    assert by_flag.facts.sha256 != by_file.facts.sha256


def test_bf16_stays_near_fp32(plain: Path):
    exact = open_encoder(str(plain), device="cpu").encode(TEXTS, "text")
    near = open_encoder(str(plain), device="cpu", settings=EncoderSettings(dtype="bf16"))
    found = near.encode(TEXTS, "text")
    assert near.facts.dtype == "bf16" and found.dtype == np.float32
    assert (exact * found).sum(axis=1).min() > 0.99 and not np.array_equal(exact, found)


def test_facts_count_parameters(plain: Path):
    import math

    from safetensors import safe_open

    facts = open_encoder(str(plain), device="cpu").facts
    with safe_open(plain / "model.safetensors", framework="np") as weights:
        body = [math.prod(weights.get_slice(name).get_shape()) for name in weights.keys() if name.startswith("model.")]  # noqa: SIM118
    assert (facts.parameters, facts.embedding_parameters, facts.dimensions) == (sum(body), 400 * 32, 32)


def test_max_seq_length_cuts_and_may_not_exceed_the_positions(plain: Path):
    encoder = open_encoder(str(plain), device="cpu", settings=EncoderSettings(max_seq_length=8))
    one, other = encoder.encode([TEXTS[0], TEXTS[0] + " başka bir son"], "text")
    assert encoder.counts.truncated == 2 and np.allclose(one, other, atol=1e-5)
    with pytest.raises(UserError, match=f"--max-seq-length 65 is more than the {POSITIONS} positions"):
        open_encoder(str(plain), device="cpu", settings=EncoderSettings(max_seq_length=65))
    with pytest.raises(UserError, match="--max-seq-length 2 must be at least 3"):
        EncoderSettings(max_seq_length=2)


def test_nan_names_the_model_and_the_text(plain: Path, tmp_path: Path):
    copy = shutil.copytree(plain, tmp_path / "spoilt")
    spoil(copy)
    encoder = open_encoder(str(copy), device="cpu")
    with pytest.raises(UserError, match=r"spoilt gives a vector with NaN or infinity for .*Anayasa Mahkemesi"):
        encoder.encode([TEXTS[0]], "text")


def test_model2vec_vectors_are_the_librarys_own_and_its_limit_counts(tmp_path: Path):
    from model2vec import StaticModel

    folder = write_model2vec(tmp_path / "static")
    encoder = open_encoder(str(folder))
    assert (encoder.facts.kind, encoder.facts.max_seq_length, encoder.facts.parameters) == ("model2vec", 20, 400 * 16)
    own = StaticModel.from_pretrained(str(folder)).encode(TEXTS)
    assert np.allclose(encoder.encode(TEXTS, "text"), own / np.linalg.norm(own, axis=1, keepdims=True), atol=1e-5)
    assert encoder.counts.truncated > 0


@pytest.mark.parametrize(("word", "dimensions"), [("use", 512), ("akana", 256)])
def test_models_of_packages(word: str, dimensions: int):
    encoder = open_encoder(word)
    found = encoder.encode(["kira sözleşmesi", "kira kontratı", "güneş tutulması", ""], "text")
    assert found.shape == (4, dimensions) and not found[3].any()
    assert found[0] @ found[1] > found[0] @ found[2]


def test_parameters_of_use_are_counted_in_its_own_file():
    facts = open_encoder("use").facts
    assert facts.embedding_parameters == 17 * 7530 * 512  # 128,010 pieces of 512 dimensions
    assert facts.parameters is not None and facts.embedding_parameters < facts.parameters < 1.2 * facts.embedding_parameters


def test_text_without_known_tokens_is_a_zero_vector_and_counted(monkeypatch: pytest.MonkeyPatch):
    encoder = open_encoder("akana")
    monkeypatch.setattr(encoder, "vectors", lambda texts, role: np.zeros((len(texts), 256)))
    assert not encoder.encode(["bilinmeyen"], "text").any()
    assert (encoder.counts.without_vector, encoder.counts.empty) == (1, 0)
