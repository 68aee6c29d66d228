import textwrap
import unicodedata

import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.jsonl import read_fields
from preprocessing.stages.lexicon import Analysis
from preprocessing.stages.repair import Repair, RepairSettings

GOOD = "Yargıtay'ın “Türk-İş” kararı, âdil ve açık: Iğdır’da şöyle denildi…\n\nİkinci bölüm; ÂŞIK VEYSEL, hükûmet, § 3 – 4."
GOOD_PARAGRAPH = (
    "Davacı vekili, müvekkilinin taşınmazının bir bölümünün davalı tarafından haksız olarak kullanıldığını ileri sürmüş, "
    "mahkemece toplanan deliller ve alınan bilirkişi raporu ile birlikte değerlendirilerek davanın kabulüne karar verilmiştir."
)


def wrapped(text):
    return "\n".join(textwrap.wrap(text, 60))


def ascii_only(text):
    return text.translate(str.maketrans("çğıöşüÇĞİÖŞÜ", "cgiosuCGIOSU"))


@pytest.fixture(scope="module")
def repair():
    return Repair(RepairSettings())


@pytest.mark.parametrize(
    ("text", "expected", "name"),
    [
        ("YargÄ±tay kararÄ± aÃ§Ä±klandÄ±", "Yargıtay kararı açıklandı", "mojibake"),
        ("ÅžiÅŸli’de gÃ¼zel\nTemiz satır ş", "Şişli’de güzel\nTemiz satır ş", "mojibake"),
        ("Mahkeme â€œkararâ€\u009d verdi", "Mahkeme “karar” verdi", "mojibake"),
        (
            "Yargýtay kararý açýkça þöyle: doðru deðil, ÝSTANBUL",
            "Yargıtay kararı açıkça şöyle: doğru değil, İSTANBUL",
            "code_page",
        ),
        ("Bu iș güç ve așk", "Bu iş güç ve aşk", "lookalikes"),
        ("i̇stanbul ve i̇lk", "istanbul ve ilk", "dotted_i"),
        (unicodedata.normalize("NFD", "Işığı görünce İzmir'de şaştı"), "Işığı görünce İzmir'de şaştı", "composed"),
        ("bir\x00 iki\u200b üç\ufeff", "bir iki üç", "invisible"),
        ("ka\u00adrar ver\u00ad\ndi ve gitti", "karar verdi\nve gitti", "invisible"),
        ("Asliye mahke-\nmesi, kararı", "Asliye mahkemesi,\nkararı", "hyphenation"),
        ("kararlaş-\ntırıl-\nmıştır.\nSon", "kararlaştırılmıştır.\nSon", "hyphenation"),
        ("anne-\nbaba geldi", "anne-baba\ngeldi", "hyphenation"),
        ("e-\nposta ve TBMM-\nde, Türk-\niş de", "e-posta\nve TBMM-de,\nTürk-iş\nde", "hyphenation"),
        ("MAHKE-\nMESİ ve mahke\u2010\nmesi, mahke\u00ac\nmesi", "MAHKEMESİ\nve mahkemesi,\nmahkemesi", "hyphenation"),
        ("BÜYÜKŞEHIR BELEDIYESI", "BÜYÜKŞEHİR BELEDİYESİ", "lost_dots"),
        ("İZMIR ASLIYE HUKUK MAHKEMESI KARARI", "İZMİR ASLİYE HUKUK MAHKEMESİ KARARI", "lost_dots"),
        ("isparta ilgaz karari", "ısparta ılgaz kararı", "lost_dots"),
        ("beledıyesı ıle mahkemesı", "belediyesi ile mahkemesi", "lost_dots"),
        (wrapped(GOOD_PARAGRAPH), GOOD_PARAGRAPH, "wrapped_lines"),
        ("bir  iki\t üç \r\n\r\n\n\n dört\u00a0beş ", "bir iki üç\n\ndört beş", "white_space"),
    ],
)
def test_what_is_broken_is_repaired_and_named(repair, text, expected, name):
    repaired, changed = repair.repair(text)
    assert repaired == expected
    assert name in changed


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "Türk-\nİş genel başkanı",
        "MICROSOFT WINDOWS ve RAID, XIII. yüzyıl",  # the lexicon would take Mİ, Rİ
        "DİYARBAKIR BELEDİYESİ, RAID VE PRECISE",  # its capitals are right
        "information into the integrated internal image",  # the lexicon knows "ınto"
        ascii_only(GOOD_PARAGRAPH),
        "söyledi -\nsonra gitti",
        "2019-\n2020 dönemi",
        "Það er hús við þjóðveginn og Ísland er það",  # Icelandic
        "Ştiinţa și viața în România, după ani",  # Romanian
        "Türkmen dilinde ýaş, ýurt, ýyl",  # Turkmen
        "ÂLÎ makam ve “Â” harfi, Ä harfi Almancadır",
        "می\u200cخواهم",
        "👩\u200d👧",
    ],
)
def test_what_is_right_stays(repair, text):
    assert repair.repair(text) == (text, set())


@pytest.mark.parametrize("name", sorted(RepairSettings.model_fields.keys() - {"analyser", "turkish_share"}))
def test_a_repair_that_is_off_does_nothing(name):
    broken = f"YargÄ±tay kararý  așk i̇lk o\u0308n bir\x00 mahke-\nmesi\nBELEDIYESI VE MAHKEMESI\n{wrapped(GOOD_PARAGRAPH)}"
    settings = RepairSettings(**{name: False})
    assert name not in Repair(settings).repair(broken)[1]
    assert name in Repair(RepairSettings()).repair(broken)[1]


@given(st.text("aıiİIşsğgþýðÝçÃÄÅ±¼Ÿ\u009f\u0307\u0308\u0327\u00ad\u200b\u200d\u00a0-'’. \t\r\n\x00ș1", max_size=40))
def test_a_repaired_text_is_not_changed_again(text):
    repair = Repair(RepairSettings())
    repair.__dict__["lexicon"] = _KnowsShortWords()
    once, _ = repair.repair(text)
    assert repair.repair(once) == (once, set())


class _KnowsShortWords:
    """Stands in for the lexicon: which words are known has no influence on whether repairs come to an end."""

    def known(self, word):
        return len(word) % 2 == 0

    def analyse(self, word):
        return Analysis(word, "Acc") if self.known(word) else None


def test_documents_are_counted_by_repair(repair):
    step = Repair(RepairSettings())
    documents = [Document(text, str(number)) for number, text in enumerate(["iyi", "i̇yi  gün", "a  b"])]
    assert [doc.text for doc in step.run(iter(documents))] == ["iyi", "iyi gün", "a b"]
    counts = {name: step.stats[name].total for name in ("total", "changed", "changed_dotted_i", "changed_white_space")}
    assert counts == {"total": 3, "changed": 2, "changed_dotted_i": 1, "changed_white_space": 2}


def letters(text):
    return "".join(text.replace("-", "").split())


def test_real_text_stays_but_for_the_words_that_a_line_cuts_and_lost_dots(repair, sample_corpus):
    changed = {}
    for _, record in read_fields(sample_corpus / "validation.jsonl.zst"):
        text, names = repair.repair(record["text"])
        if names == {"hyphenation"}:
            assert letters(text) == letters(record["text"])
        elif names:
            assert names == {"lost_dots"}
            assert text.translate(str.maketrans("ıİ", "iI")) == record["text"].translate(str.maketrans("ıİ", "iI"))
        for name in names:
            changed.setdefault(name, set()).add(record["source"])
    # speeches from a scanned book; sentences of the web
    assert changed == {"hyphenation": {"ataturk"}, "lost_dots": {"treebank"}}
