"""Dots of i that programs without Turkish casing rules took or gave."""

from collections import Counter
from itertools import product

import pytest

from preprocessing.jsonl import read_records
from preprocessing.stages import frequent
from preprocessing.stages.dotting import redot
from preprocessing.stages.lexicon import Lexicon
from preprocessing.turkish import fold, lower, upper, words

JUDGMENT = (
    "Davanın reddine ilişkin hüküm temyiz edilmiştir. Bu konuda ilgili belgeler incelenmiştir. İlk derece mahkemesinin kararı "
    "istinaf incelemesi sonucunda kaldırılmıştır. İdari işlemin iptali istemi ile açılan davada davalı idare itiraz etmiştir."
)
CRIME = (
    "Sanık hakkında hırsızlık suçundan mahkumiyet kararı verilmiş, bilirkişi raporu alınmış, tanık dinlenmiştir. Şirket "
    "yönetim kurulu, yıllık izin hakkını kısıtlamıştır."
)


@pytest.fixture(scope="module")
def lexicon():
    return Lexicon()


def mended(text, lexicon):
    return redot(text, lambda: lexicon, 0.5)


@pytest.mark.parametrize("text", [JUDGMENT, CRIME])
def test_the_formulas_of_judgments_get_all_of_their_dots(lexicon, text):
    assert mended(upper(text).replace("İ", "I"), lexicon) == upper(text)
    assert mended(lower(text).replace("ı", "i"), lexicon) == lower(text)
    assert mended(lower(text).replace("i", "ı"), lexicon) == lower(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("İLE ILGILI", "İLE İLGİLİ"),
        ("ILGILI IDARE", "ILGILI IDARE"),  # nothing says that this is Turkish
        ("ILGILI IDARE BAŞKANLIĞI'NA ILIŞKIN", "İLGİLİ İDARE BAŞKANLIĞI'NA İLİŞKİN"),
        ("MILLI VE CIDDI MAHKEMESI", "MİLLİ VE CİDDİ MAHKEMESİ"),  # made of the letters of Roman numbers, and none
        ("XIII. LOUIS VE MIX", "XIII. LOUIS VE MIX"),
        ("DİYARBAKIR BELEDİYESİ VE ILGILI", "DİYARBAKIR BELEDİYESİ VE ILGILI"),  # its capitals are right
        ("kirmizi ve siradan bir karari", "kırmızı ve sıradan bir kararı"),
        ("Ilgili Iran", "Ilgili Iran"),
    ],
)
def test_of_two_ways_to_dot_a_word_that_of_the_frequent_one_is_taken(lexicon, text, expected):
    assert mended(text, lexicon) == expected


def test_the_frequent_words_are_those_of_the_sample(sample_corpus, lexicon):
    counts = Counter()
    for record in read_records(sample_corpus / "train.jsonl.zst"):
        counts.update(fold(word) for word in words(record.text) if word.isalpha() and not word.isupper())
    dotted = {}
    for word in counts:
        dotted.setdefault(word.replace("ı", "i"), []).append(word)
    found = set()
    for plain, spellings in dotted.items():
        best = max(spellings, key=counts.__getitem__)
        others = sum(counts[word] for word in spellings) - counts[best]
        if len(plain) < 3 or not 0 < plain.count("i") <= 6 or counts[best] < frequent.FEWEST:
            continue
        if frequent.OFTENER * others <= counts[best] and _known_ways(plain, lexicon) > 1:
            found.add(best)
    assert found == frequent.FREQUENT


def _known_ways(plain, lexicon):
    return sum(map(lexicon.known, map("".join, product(*("iı" if letter == "i" else letter for letter in plain)))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "truth", "least", "most_wrong"),
    [
        (lambda text: text.replace("İ", "I"), upper, 0.84, 0.0002),
        (lambda text: text.replace("ı", "i"), lower, 0.80, 0.0008),
        (lambda text: text.replace("i", "ı"), lower, 0.84, 0.0002),
    ],
)
def test_rates_on_text_that_the_frequent_words_are_not_from(sample_corpus, lexicon, damage, truth, least, most_wrong):
    """Of words that lost dots at least so many are mended, and at most so many of all words become another one."""
    lost = right = wrong = every = 0
    for split in ("validation", "test"):
        for record in read_records(sample_corpus / f"{split}.jsonl.zst"):
            if len(record.text.split()) < 8:
                continue
            true = truth(record.text)
            damaged = damage(true)
            for had, was, now in zip(words(true), words(damaged), words(mended(damaged, lexicon)), strict=True):
                every, lost = every + 1, lost + (had != was)
                right, wrong = right + (had == now != was), wrong + (now not in (had, was))
    print(f"{right / lost:.1%} of {lost:,} words mended, {wrong / every:.3%} of {every:,} wrong")
    assert right > least * lost
    assert wrong < most_wrong * every
