"""Judges, writers and prompts, made once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_judges import write_armorm, write_bert, write_classifier, write_writer

PROMPTS = (
    "Kira sözleşmesi nasıl feshedilir?",
    "İşçi ihbar süresine uymadan ayrılırsa ne olur?",
    "Zamanaşımı",
    "Vergi incelemesinde mükellefin hakları nelerdir?",
    "Anayasa Mahkemesine bireysel başvurunun koşulları:",
    "Tüketici ayıplı malı ne zamana kadar bildirmelidir?",
)


@pytest.fixture(scope="session")
def armorm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_armorm(tmp_path_factory.mktemp("judges") / "armorm", seed=3)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("judges") / "classifier", seed=4)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("judges") / "bert", seed=5)


@pytest.fixture(scope="session")
def writers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Base and continued."""
    folder = tmp_path_factory.mktemp("writers")
    return write_writer(folder / "base", seed=1), write_writer(folder / "continued", seed=2)


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "sorular.jsonl"
    lines = [json.dumps({"id": number, "prompt": text}, ensure_ascii=False) for number, text in enumerate(PROMPTS)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
