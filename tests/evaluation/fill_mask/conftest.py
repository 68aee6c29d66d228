"""One model a kind of tokenizer, and their texts, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from masked_models import KINDS, write_model, write_texts


@pytest.fixture(scope="session")
def masked_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("masked")
    return {kind: write_model(place / kind, kind, seed) for seed, kind in enumerate(KINDS)}


@pytest.fixture(params=KINDS)
def masked_folder(request: pytest.FixtureRequest, masked_folders: dict[str, Path]) -> Path:
    return masked_folders[request.param]


@pytest.fixture(scope="session")
def branch_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("texts") / "hukuk.jsonl")
