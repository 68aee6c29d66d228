"""A process works on task after task, each with a copy of the stage: what a stage loads is loaded once, for documents only."""

import json
import pickle

import pytest
from datatrove.data import Document
from py3langid.langid import LanguageIdentifier

from preprocessing.stages import decontaminate, language, lexicon
from preprocessing.stages.decontaminate import DecontaminateFilter, DecontaminateSettings
from preprocessing.stages.language import LanguageFilter, LanguageSettings
from preprocessing.stages.morphology import MorphologyFilter, MorphologySettings
from preprocessing.stages.repair import Repair, RepairSettings

TEXT = "BÜYÜKŞEHIR BELEDIYESI ILE ILGILI DAVANIN KABULÜNE KARAR VERILMIŞTIR. " * 8


@pytest.fixture
def block_of(tmp_path):
    held_out = tmp_path / "set.jsonl"
    held_out.write_text(json.dumps({"text": "bu bir deneme metnidir ve sekiz sözden uzundur"}) + "\n", encoding="utf-8")
    sets = DecontaminateSettings(sets={"set": [held_out]})
    return {
        "decontaminate": lambda: DecontaminateFilter(sets),
        "language": lambda: LanguageFilter(LanguageSettings()),
        "morphology": lambda: MorphologyFilter(MorphologySettings()),
        "repair": lambda: Repair(RepairSettings()),
    }


LOADERS = {  # stage -> where what it loads is loaded, and the cache in which it is kept
    "decontaminate": (decontaminate, "NgramIndex", decontaminate._shared_index),
    "language": (LanguageIdentifier, "from_model_file", language._langid),
    "morphology": (lexicon, "load_analyser", lexicon.shared_lexicon),
    "repair": (lexicon, "load_analyser", lexicon.shared_lexicon),
}


@pytest.mark.parametrize("name", sorted(LOADERS))
def test_two_tasks_of_a_process_load_once_and_an_empty_shard_nothing(name, block_of, monkeypatch):
    where, function, cache = LOADERS[name]
    load, loads = getattr(where, function), []
    monkeypatch.setattr(where, function, lambda *given, **named: loads.append(1) or load(*given, **named))
    cache.cache_clear()
    block = pickle.dumps(block_of[name]())
    list(pickle.loads(block).run(iter([])))
    assert loads == []
    for _ in range(2):
        list(pickle.loads(block).run(iter([Document(TEXT, "1")])))
    assert loads == [1]


def test_another_file_of_the_same_name_is_read_anew(tmp_path):
    held_out, text = tmp_path / "set.jsonl", "bu bir deneme metnidir ve sekiz sözden de uzundur bence"
    settings = DecontaminateSettings(sets={"set": [held_out]})
    held_out.write_text(json.dumps({"text": "başka bir metin vardı burada ve o da sekiz sözden uzundu"}) + "\n")
    assert DecontaminateFilter(settings).filter(Document(text, "1")) is True
    held_out.write_text(json.dumps({"text": text}) + "\n")
    assert DecontaminateFilter(settings).filter(Document(text, "1")) == (False, "contaminated")
