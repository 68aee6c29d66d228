"""Text that was made to be slow: four times as much of it takes a stage about four times as long, not sixteen times."""

import gc
import json
import time

import pytest
from datatrove.data import Document

from preprocessing.stages.decontaminate import DecontaminateFilter, DecontaminateSettings
from preprocessing.stages.language import LanguageFilter, LanguageSettings
from preprocessing.stages.morphology import MorphologyFilter, MorphologySettings
from preprocessing.stages.pii import PiiMask, PiiSettings
from preprocessing.stages.quality import QualityFilter, QualitySettings
from preprocessing.stages.repair import Repair, RepairSettings
from preprocessing.stages.unwrap import unwrap

SMALL, TIMES = 20_000, 4  # characters
SLOWER, AT_ONCE = 2.5, 0.2  # times what linear would be, and seconds of CPU that are nothing to talk of
# A unit that is repeated, and what stands once before and behind it.
TEXTS = {
    "lines that end in hyphens": ("evet-\n", "", ""),
    "the same with a word at the end": ("evet-\n", "", "evet"),
    "the same and no word": ("evet-\n", "", "x1"),
    "hyphens, tabs and one letter": ("a-\n\t", "", ""),
    "hyphens and apostrophes": ("ev-\nev'e", "", ""),
    "hyphens and full stops": ("ab-\nc.,", "", ""),
    "a long word before a cut one": ("a", "", " b-\nc"),
    "a hyphen and spaces": (" ", "a-", "b"),
    "soft hyphens and line ends": ("\u00ad\n", "", "x"),
    "soft hyphens": ("\u00ad", "", "\nx"),
    "capitals, then a small letter": ("İ", "I ", "a"),
    "capitals of both kinds": ("Iİ", "", "a"),
    "capitals without dots": ("BELEDIYESI ILGILI ", "", ""),
    "different words": ("{} BELEDIYE{}I ", "", ""),
    "marks in the wrong order": ("\u0301\u0323", "a", ""),
    "marks that fall apart": ("\u0f73", "😀", ""),
    "dots over dots": ("\u0307", "i", ""),
    "mojibake": ("Ä±", "", ""),
    "half of it": ("Ã", "", ""),
    "broken quotation marks": ("â€œ", "", ""),
    "letters of another code page": ("þ", "", ""),
    "a paragraph of wrapped lines": (
        "bu satır burada biter mi bilinmez ama gider de gelir, evet. Sonra ne olur acaba\n"
        "devam eden bir satırdır bu da ve onun ardından gelen satır da öyle. Bir şey kalsa\n",
        "",
        "",
    ),
    "spaces": (" ", "a.", "a"),
    "empty lines": ("\n", "a.", "a"),
    "lines of spaces": ("   \n", "", ""),
    "apostrophes": ("a'", "", ""),
    "full stops": (".", "", ""),
    "full stops and spaces": (". ", "", ""),
    "quotation marks": ('"', "a.", " A"),
    "speakers": ("AB ", "", ""),
    "items": ("- a\n", "", ""),
    "digits": ("1", "", ""),
    "groups of digits": ("532 123 ", "+", ""),
    "beginnings of addresses": ("a.b", "", ""),
    "at signs": ("a@a.", "", ""),
    "country codes": ("TR33 0006 ", "", ""),
    "capitals and digits": ("AB12 ", "", ""),
    "words that announce a telephone": ("tel: ", "", "1"),
    "one word": ("karar ", "", ""),
    "what an evaluation set has": ("mahkeme davanın kabulüne karar vermiş ve hüküm temyiz edilmiştir bu da son söz ", "", ""),
    "emoji": ("😀", "", ""),
    "letters of another script": ("漢", "", ""),
}


def make(name, size):
    unit, before, behind = TEXTS[name]
    count = size // len(unit)
    many = "".join(unit.replace("{}", _letters(number)) for number in range(count)) if "{}" in unit else unit * count
    return f"{before}{many}{behind}"


def _letters(number):
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    path = tmp_path_factory.mktemp("sets") / "set.jsonl"
    path.write_text(json.dumps({"text": TEXTS["what an evaluation set has"][0] * 3}) + "\n", encoding="utf-8")
    return path


STAGES = ("c4", "decontaminate", "language", "morphology", "pii", "quality", "repair")


def stage_of(name, held_out):
    """What a stage does with one text."""
    if name == "repair":
        return Repair(RepairSettings()).repair
    if name == "pii":
        return PiiMask(PiiSettings()).mask
    filters = {
        "c4": lambda: QualityFilter(
            QualitySettings(c4=True, min_words=0, min_stop_words=0, max_words=0, min_alphabetic_words=0)
        ),
        "quality": lambda: QualityFilter(QualitySettings(min_words=0, min_stop_words=0, max_words=0, max_mean_word_length=0)),
        "language": lambda: LanguageFilter(LanguageSettings()),
        "morphology": lambda: MorphologyFilter(MorphologySettings()),
        "decontaminate": lambda: DecontaminateFilter(DecontaminateSettings(sets={"set": [held_out]}, action="cut")),
    }
    block = filters[name]()
    return lambda text: block.filter(Document(text, "1"))


@pytest.mark.parametrize("name", STAGES)
def test_the_time_of_a_stage_grows_with_the_text_alone(name, held_out):
    stage = stage_of(name, held_out)
    stage("Mahkeme kararı ILGILI kişiye bildirdi.")  # loads what it needs
    assert [text for text in TEXTS if not _is_linear(stage, make(text, SMALL), make(text, TIMES * SMALL), AT_ONCE)] == []


def _is_linear(stage, small, large, at_once, slower=SLOWER):
    """Asked again where it is not, for other work on the machine costs time as well."""
    most = slower * len(large) / len(small)
    return any(_cpu_seconds(stage, large) <= most * _cpu_seconds(stage, small) + at_once for _ in range(3))


def _cpu_seconds(stage, text):
    started = time.process_time()
    stage(text)
    return time.process_time() - started


@pytest.fixture(autouse=True)
def no_garbage_collection():
    """What it takes grows with all that other tests left in memory."""
    gc.disable()
    yield
    gc.enable()


def test_a_wrapped_paragraph_of_megabytes_is_not_copied_for_each_of_its_lines():
    texts = (make("a paragraph of wrapped lines", size) for size in (10**6, 4 * 10**6))
    assert _is_linear(lambda text: unwrap(text, lambda word: None), *texts, 0, slower=1.6)
