"""A tokenizer that says whose it was grafted from: its own teacher is taken, another one only where that is meant."""

import json
from pathlib import Path

import pytest
from small_vocabularies import byte_level, model_folder, unigram, wordpiece

from conversion.clone import main
from mecellem.errors import UserError
from mecellem.files import sha256_of

SENTENCE = r"graft\.json names another teacher's tokenizer\.json than the one of .*words"


@pytest.fixture
def grafted(tmp_path: Path) -> tuple[Path, Path]:
    """A teacher, and a tokenizer whose graft.json names that teacher's."""
    teacher = model_folder(tmp_path / "teacher", unigram(tmp_path / "unigram"), "BertModel")
    tokenizer = byte_level(tmp_path / "new", 300)
    named = {"teacher": {"tokenizer_sha256": sha256_of(teacher / "tokenizer.json")}}
    (tokenizer / "graft.json").write_text(json.dumps(named), encoding="utf-8")
    return teacher, tokenizer


def clone(teacher: Path, tokenizer: Path, out: Path, *flags: str) -> list[str]:
    """The notes of the clone's record."""
    main(["--teacher", str(teacher), "--tokenizer", str(tokenizer), "--out", str(out), *flags])
    notes: list[str] = json.loads((out / "clone.json").read_text(encoding="utf-8"))["notes"]
    return notes


def test_its_own_teacher_is_taken(grafted: tuple[Path, Path], tmp_path: Path):
    assert not [note for note in clone(*grafted, tmp_path / "clone") if "another teacher" in note]


def test_another_teacher_is_refused_before_anything_is_written_unless_it_is_meant(grafted: tuple[Path, Path], tmp_path: Path):
    other = model_folder(tmp_path / "words", wordpiece(tmp_path / "wordpiece"), "BertModel")
    with pytest.raises(UserError, match=SENTENCE + ".*: give the teacher that it was grafted from, or add --another-teacher"):
        clone(other, grafted[1], tmp_path / "clone")
    assert not list(tmp_path.glob("*clone*"))
    notes = clone(other, grafted[1], tmp_path / "clone", "--another-teacher")
    assert [note for note in notes if "names another teacher's tokenizer.json" in note]
