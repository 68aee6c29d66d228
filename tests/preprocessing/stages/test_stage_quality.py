import pytest
from datatrove.data import Document

from preprocessing.stages.quality import QualityFilter, QualitySettings, TurkishTokens
from preprocessing.turkish import upper

GOOD = """Davacı vekili, müvekkilinin taşınmazının bir bölümünün davalı tarafından haksız olarak kullanıldığını ileri sürmüştür.
Mahkemece, toplanan deliller ve alınan bilirkişi raporu ile birlikte değerlendirilerek davanın kabulüne karar verilmiştir.
Hüküm, süresi içinde davalı vekilince temyiz edilmiş; dosya incelendikten sonra gereği görüşülüp düşünülmüştür.
Temyiz olunan kararda yazılı gerekçelere göre yerinde olmayan itirazların reddi için yeterli neden bulunmaktadır."""
WORDS = GOOD.replace(",", "").replace(".", "").replace(";", "").split()
THREE_A_LINE = "\n".join(" ".join(WORDS[at : at + 3]) + "." * (at % 9 == 0) for at in range(0, 54, 3))
ANY_LINES = {"max_duplicate_line_characters": 0}
CODE = "function topla(a, b) { return a + b; }"


def verdict(text, **settings):
    return QualityFilter(QualitySettings(**settings)).filter(Document(text, "0"))


def test_running_turkish_is_kept_also_in_capitals():
    assert verdict(GOOD) is True
    assert verdict(upper(GOOD)) is True


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n\t\u2028", "empty"),
        ("Kısa bir metin.", "short_document"),
        (". " * 60, "short_document"),
        (f"{GOOD}\n" * 6, "duplicate_line_characters"),
        (" ".join(["a b c"] * 30) + ".", "short_words"),
        (" ".join(["muvaffakiyetsizleştiricileştiriveremeyebileceklerimiz"] * 60) + ".", "long_words"),
        (GOOD.replace(" ", " # "), "hash_signs"),
        (GOOD.replace(" ", "… "), "ellipses"),
        ("\n".join(f"- {line}" for line in GOOD.split("\n")), "bullet_lines"),
        (GOOD.replace(".\n", "...\n"), "ellipsis_lines"),
        (" ".join(f"{number} kalem" for number in range(200)) + ", 3 , 4 , 5 ." * 20, "few_alphabetic_words"),
        ("kalem defter kitap masa sandalye pencere kapı duvar halı perde " * 6 + ".", "few_stop_words"),
        (GOOD.replace(".\n", "\n").removesuffix("."), "unpunctuated_lines"),
        (THREE_A_LINE, "list_lines"),
        (GOOD + " Bu karar kesin olarak verilmiştir" * 30 + ".", "top_ngrams"),
        (
            " ".join(GOOD.split()[:30]) + " " + GOOD.replace("\n", " ") + " " + " ".join(GOOD.split()[8:40]) + ".",
            "duplicate_ngrams",
        ),
    ],
)
def test_each_rule_gives_its_own_reason(text, reason):
    assert verdict(text) == (False, reason)
    assert reason in QualityFilter.REASONS


@pytest.mark.parametrize(
    ("text", "settings", "reason"),
    [
        (GOOD, {"max_words": 20}, "long_document"),
        (f"{GOOD}\n{CODE}.", {"c4": True}, "curly_bracket"),
        (f"{GOOD}\nLorem ipsum dolor sit amet.", {"c4": True}, "lorem_ipsum"),
        (GOOD, {"c4": True, "c4_min_sentences": 9}, "few_sentences"),
        ("\n\n".join([GOOD, GOOD]), {"max_duplicate_paragraphs": 0.3, **ANY_LINES}, "duplicate_paragraphs"),
        ("\n".join([GOOD, GOOD]), ANY_LINES, "duplicate_lines"),
        (f"{GOOD}\nKısa.\nSatır.\nBir.\nİki.\nÜç.", {"max_short_lines": 0.5}, "short_lines"),
    ],
)
def test_rules_that_are_off_by_default_can_be_set(text, settings, reason):
    assert verdict(text, **settings) == (False, reason)
    assert reason in QualityFilter.REASONS


def test_c4_cuts_lines_and_keeps_the_rest():
    doc = Document(f"{GOOD}\nLütfen JavaScript özelliğini açın.\nTamam.", "0")
    assert QualityFilter(QualitySettings(c4=True, c4_min_sentences=3)).filter(doc) is True
    assert doc.text == GOOD


def test_a_rule_that_is_off_drops_nothing():
    assert verdict("Kısa bir metin ve bu.", min_words=0, top_ngrams=()) is True
    assert verdict(GOOD.replace(".\n", "\n").removesuffix("."), min_punctuated_lines=0) is True


ONE_LINE = GOOD.replace("\n", " ")
OF_FEW_LINES = {
    "a speech with a signature below it": f"{ONE_LINE} Saygılarımla,\n\nMustafa Kemal",
    "a decision in one line that ends in names": f"{ONE_LINE} Başkan Üye Üye Kâtip",
    "an interview in one line": f"- {ONE_LINE}",
    "a speech that breaks off": ONE_LINE.removesuffix(".") + "...",
}


@pytest.mark.parametrize("text", OF_FEW_LINES.values(), ids=OF_FEW_LINES)
def test_shares_of_lines_are_not_asked_of_one_or_two(text):
    """Empty lines do not count."""
    assert verdict(text) is True


@pytest.mark.parametrize(
    ("sign", "end", "settings", "reason"),
    [
        ("", "", {}, "unpunctuated_lines"),
        ("- ", ".", {}, "bullet_lines"),
        ("", "...", {}, "ellipsis_lines"),
        ("", ".", {"max_short_lines": 0.5, "short_line": 1000}, "short_lines"),
    ],
)
def test_shares_of_lines_are_asked_from_min_lines_on(sign, end, settings, reason):
    lines = [f"{sign}{line.rstrip('.')}{end}" for line in GOOD.split("\n")]
    for count, kept in ((2, True), (3, False)):
        text = "\n".join([" ".join(lines[: 5 - count]), *lines[5 - count :]])
        assert verdict(text, **settings) == (True if kept else (False, reason))
    assert verdict("\n".join(lines), min_lines=5, **settings) is True
    assert verdict(" ".join(lines), min_lines=1, **settings) == (False, reason)


def test_what_repeats_or_is_no_running_text_goes_in_one_line_too():
    assert verdict("\n".join([ONE_LINE, ONE_LINE]), **ANY_LINES) == (False, "duplicate_lines")
    assert verdict("Ana Sayfa Hakkımızda İletişim Haberler Duyurular Galeri " * 12)[1] == "few_stop_words"
    assert verdict(" ".join(["Bu sitede çerezler kullanılmaktadır ve tüm hakları saklıdır"] * 12))[1] == "top_ngrams"


def test_every_reason_of_datatrove_has_a_key_and_every_key_a_sentence():
    assert set(QualityFilter._KEYS.values()) <= set(QualityFilter.REASONS)
    assert all(sentence for sentence in QualityFilter.REASONS.values())
    assert all(field.description for field in QualitySettings.model_fields.values())


def test_the_tokenizer_gives_words_signs_and_sentences():
    tokens = TurkishTokens()
    assert tokens.word_tokenize("Yargıtay'ın kararı, 3. kez.") == ["Yargıtay'ın", "kararı", ",", "3", ".", "kez", "."]
    assert tokens.sent_tokenize("Bir oldu. İki oldu.") == ["Bir oldu.", "İki oldu."]
