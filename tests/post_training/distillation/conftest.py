"""A small teacher, a student, and vectors of real Turkish texts that the teacher made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import write_jsonl, write_model

from post_training.distillation.vectors import make_vectors


@pytest.fixture(scope="session")
def teacher(sample_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("distil") / "teacher", sample_tokenizer, seed=1)


@pytest.fixture(scope="session")
def student(sample_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("distil") / "student", sample_tokenizer, seed=2, layers=1)


@pytest.fixture(scope="session")
def dense_teacher(sample_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("distil") / "dense", sample_tokenizer, seed=3, dense=48)


@pytest.fixture(scope="session")
def text_file(train_documents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 texts of three sources, speeches of thousands of words among them; each line names language and source."""
    chosen = train_documents[:40] + train_documents[-560:]
    rows = [{"text": item.text, "lang": "tr", "source": item.source} for item in chosen]
    return write_jsonl(tmp_path_factory.mktemp("texts") / "texts.jsonl", rows)


@pytest.fixture(scope="session")
def vectors(teacher: Path, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vectors") / "vectors"
    assert make_vectors(teacher, [text_file], out, shards=4, device="cpu")
    return out
