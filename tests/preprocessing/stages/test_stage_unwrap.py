import inspect
import re
import textwrap
import threading

import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.jsonl import read_records
from preprocessing.stages.lexicon import Lexicon
from preprocessing.stages.quality import QualityFilter, QualitySettings
from preprocessing.stages.repair import Repair, RepairSettings
from preprocessing.stages.unwrap import unwrap

LEXICON = Lexicon("akana")
PARAGRAPH = (
    "Davacı vekili, müvekkilinin taşınmazının bir bölümünün davalı tarafından haksız olarak kullanıldığını ileri sürmüş, "
    "mahkemece toplanan deliller ve alınan bilirkişi raporu ile birlikte değerlendirilerek davanın kabulüne karar verilmiştir. "
    "Hüküm, süresi içinde davalı vekilince temyiz edilmiş; dosya incelendikten sonra gereği görüşülüp düşünülmüştür."
)
VERSE = """Korkma, sönmez bu şafaklarda yüzen al sancak;
Sönmeden yurdumun üstünde tüten en son ocak.
O benim milletimin yıldızıdır, parlayacak;
O benimdir, o benim milletimindir ancak.

Çatma, kurban olayım, çehreni ey nazlı hilal!
Kahraman ırkıma bir gül! Ne bu şiddet, bu celal?
Sana olmaz dökülen kanlarımız sonra helal...
Hakkıdır, Hakk'a tapan, milletimin istiklal!"""
FOLK_VERSE = """aşkın aldı benden beni
bana seni gerek seni
ben yanarım dünü günü
bana seni gerek seni

ne varlığa sevinirim
ne yokluğa yerinirim
aşkın ile avunurum
bana seni gerek seni"""
ITEMS = """Başvuruya eklenecek belgeler şunlardır:
a) başvuru sahibinin nüfus cüzdanının onaylı örneği
b) taşınmazın bulunduğu yeri gösteren ve onaylanmış olan harita örneği
c) harcın yatırıldığını gösteren makbuz
d) vekâletname
e) noterlikçe düzenlenmiş taahhütname ile buna ilişkin bilgi ve belgeler"""
TABLE = """ankara ili çankaya ilçesi    1.250,00    1.300,00    1.410,00
bursa ili osmangazi ilçesi   1.150,00    1.200,00    1.310,00
izmir ili karşıyaka ilçesi   1.350,00    1.400,00    1.510,00
konya ili selçuklu ilçesi    1.050,00    1.100,00    1.210,00
mersin ili yenişehir ilçesi  1.250,00    1.300,00    1.410,00"""
HEADINGS = """BİRİNCİ BÖLÜM
Amaç ve Kapsam
Amaç
MADDE 1 Bu Kanunun amacı, taraflar arasındaki ilişkileri düzenlemektir.
Kapsam
MADDE 2 Bu Kanun, bütün gerçek ve tüzel kişiler hakkında uygulanır.
Tanımlar
MADDE 3 Bu Kanunda geçen deyimler aşağıda gösterilmiştir."""
NAMES = "\n".join(
    f"{word} ile ilgili olarak yapılan çalışmaların sonucu" for word in ("elma", "armut", "karpuz", "kavun", "üzüm")
)


def unwrap_by_lexicon(text):
    return unwrap(text, LEXICON.analyse)


def wrapped(text, width):
    return "\n".join("\n".join(textwrap.wrap(line, width, break_on_hyphens=False)) for line in text.split("\n"))


def cut(text, width):
    """Lines of just the width: the word that does not fit is cut by a hyphen."""
    lines = [""]
    for word in text.split():
        room = width - len(lines[-1]) - 1
        if len(word) <= room:
            lines[-1] = f"{lines[-1]} {word}".strip()
        elif room > 4 and word[:room].isalpha() and word[room - 1 :].rstrip(".,;").isalpha():
            lines[-1] += f" {word[: room - 1]}-"
            lines.append(word[room - 1 :])
        else:
            lines.append(word)
    return "\n".join(lines)


def printed(text, width):
    """Lines of one breadth in a font whose letters differ in breadth, as a PDF has them."""
    breadths = {**dict.fromkeys("iıjlft.,;:'’ ", 0.5), **dict.fromkeys("mwMWOÖÇGĞ", 1.5)}
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if sum(breadths.get(letter, 1) for letter in longer) > width and line:
            lines.append(line)
            longer = word
        line = longer
    return "\n".join([*lines, line])


@pytest.fixture(scope="module")
def speeches(sample_corpus):
    texts = [record.text for record in read_records(sample_corpus / "test.jsonl.zst") if record.source == "ataturk"]
    return ["\n".join(" ".join(line.split()) for line in text.split("\n")) for text in texts if len(text.split()) > 100]


def letters(text):
    """Without hyphens: the speeches are from a scanned book, in which lines cut words."""
    return re.sub(r"[\s-]", "", text)


def line_ends(text):
    """Where lines end, in letters from the beginning."""
    ends, at = set(), 0
    for line in text.split("\n"):
        at += len(letters(line))
        ends.add(at)
    return ends


@pytest.mark.parametrize("width", [50, 60, 80, 100, 120])
def test_paragraphs_of_real_text_are_whole_again(speeches, width):
    broken = left = joined_too_far = 0
    for text in speeches:
        unwrapped = unwrap_by_lexicon(wrapped(text, width))
        assert letters(unwrapped) == letters(text)
        broken += len(line_ends(wrapped(text, width)) - line_ends(text))
        left += len(line_ends(unwrapped) - line_ends(text))
        joined_too_far += len(line_ends(text) - line_ends(unwrapped))
    assert left <= 0.02 * broken
    assert joined_too_far <= 0.25 * sum(len(text.split("\n")) for text in speeches)


@pytest.mark.parametrize("layout", [wrapped, printed])
def test_quality_keeps_wrapped_speeches_as_it_keeps_others(speeches, layout):
    quality, repair = QualityFilter(QualitySettings()), Repair(RepairSettings())

    def kept(texts):
        return sum(quality.filter(Document(repair.repair(text)[0], "0")) is True for text in texts)

    assert kept([layout(text, 80) for text in speeches]) >= 0.95 * kept(speeches) > 0.8 * len(speeches)


@pytest.mark.parametrize("text", [VERSE, FOLK_VERSE, ITEMS, TABLE, HEADINGS, NAMES, inspect.getsource(threading)])
def test_lines_that_are_meant_stay(text):
    assert unwrap_by_lexicon(text) == text
    assert "wrapped_lines" not in Repair(RepairSettings()).repair(text)[1]


def test_real_text_that_is_not_wrapped_stays(sample_corpus):
    texts = [record.text for record in read_records(sample_corpus / "test.jsonl.zst")]
    assert [text for text in texts if unwrap_by_lexicon(text) != text] == []
    joined = ["\n".join(texts[start : start + 20]) for start in range(0, len(texts), 20)]
    assert [text for text in joined if unwrap_by_lexicon(text) != text] == []


def test_items_and_headings_of_a_wrapped_text_stay_apart():
    heading, items = "SONUÇ VE DEĞERLENDİRME", [f"{letter}) {PARAGRAPH}" for letter in "abc"]
    text = "\n".join([PARAGRAPH, heading, PARAGRAPH, *items])
    assert unwrap_by_lexicon(wrapped(text, 70)) == text


def test_a_sentence_goes_over_the_end_of_a_page_and_a_paragraph_does_not():
    lines = wrapped(PARAGRAPH, 70).split("\n")
    pages = "\n".join([*lines[:3], "", *lines[3:]])
    assert unwrap_by_lexicon(pages) == PARAGRAPH
    assert unwrap_by_lexicon(f"{wrapped(PARAGRAPH, 70)}\n\n{pages}") == f"{PARAGRAPH}\n\n{PARAGRAPH}"


@pytest.mark.parametrize("hyphen", "-\u2010\u00ac")
def test_cut_words_of_a_wrapped_text_are_joined_also_where_no_lexicon_knows_them(hyphen):
    text = PARAGRAPH.replace("davalı", "Yılmazoğlugilin")
    broken = cut(text, 62).replace("-\n", f"{hyphen}\n")
    assert f"Yılmaz{hyphen}\noğlugilin" in broken
    assert unwrap_by_lexicon(broken) == text


LINES = st.lists(st.sampled_from([PARAGRAPH, PARAGRAPH[:90], "Kısa satır", "- madde", "", "ve sonra", "12,5 13,5"]), max_size=8)


@given(LINES, st.integers(35, 130))
def test_no_letter_is_lost_and_what_was_unwrapped_is_not_unwrapped_again(lines, width):
    text = wrapped("\n".join(lines), width)
    once = unwrap_by_lexicon(text)
    assert once.split() == text.split()
    assert unwrap_by_lexicon(once) == once


@pytest.mark.parametrize(
    ("cut_at", "whole"),
    [
        ("e-\nposta", "e-posta"),
        ("E-\nposta", "E-posta"),
        ("TBMM-\nde", "TBMM-de"),
        ("AKP-\nli", "AKP-li"),
        ("Türk-\niş", "Türk-iş"),
        ("Türk-\nİş", "Türk-İş"),
        ("eğitim-\nöğretim", "eğitim-öğretim"),
        ("İskenderun-\nAntakya", "İskenderun-Antakya"),
        ("MAHKE-\nMESİ", "MAHKEMESİ"),
        ("karar-\nlaştırılmıştır", "kararlaştırılmıştır"),
        ("Denizli-\ndeki", "Denizlideki"),
        ("ilk-\nokul", "ilkokul"),
        ("Yılmaz-\noğlugilin", "Yılmazoğlugilin"),
        ("söyledi-\nVe", "söyledi- Ve"),
    ],
)
def test_hyphens_of_a_word_stay_at_the_ends_of_lines_and_others_go(cut_at, whole):
    first, second = cut_at.split("\n")
    lines = [*wrapped(PARAGRAPH, 70).split("\n")[:3], f"{'ve ' * 21}{first}", f"{second} ile birlikte olmak üzere görüşüldü."]
    unwrapped = unwrap_by_lexicon("\n".join(lines))
    assert f" {whole} ile" in unwrapped
    assert "\n" not in unwrapped


TURNS = [
    "BAŞKAN - Sayın milletvekilleri, gündemimizin ikinci maddesine geçiyoruz; söz sırası sayın üyemizdedir, buyurunuz efendim.",
    "MEHMET BEY (Ankara) - Efendim, bu mesele hakkında komisyonun raporunu okudum ve bazı noktalarına itiraz etmek istiyorum.",
    "ADALET BAKANI AHMET DEMİR (Konya) – Değerli arkadaşlarım, tasarının gerekçesi herkesin önünde bulunmaktadır ve açıktır.",
    "BAŞKAN: Teşekkür ederim; başka söz isteyen üye var mıdır, yoksa maddenin oylanmasına geçilecektir; bilginize sunarım.",
    "Fatma Kaya (İzmir) - Ben de aynı konuda birkaç söz söylemek istiyorum, çünkü bu konu bütün vatandaşlarımızı ilgilendirir.",
    "- Oylamaya geçilmeden önce toplantı yeter sayısının aranmasını istiyoruz ve bu isteğimizin tutanağa geçmesini diliyoruz.",
    "— Kabul edenler ve etmeyenler sayılmış, maddenin kabul edildiği anlaşılmıştır; sonraki maddenin okunmasını rica ederim.",
    "MADDE 5 Bu kanunun uygulanmasında doğacak uyuşmazlıklar, tarafların isteği üzerine yetkili mahkemelerde çözülür.",
]


@pytest.mark.parametrize("width", range(50, 121, 10))
def test_the_turns_of_a_transcript_stay_apart(width):
    text = "\n".join(TURNS * 2)
    assert unwrap_by_lexicon(wrapped(text, width)) == text


def test_a_name_inside_a_sentence_begins_no_paragraph():
    text = (
        "Bu sırada toplantıya katılan ve konuyu yakından bilen üyelerden, yani Ankara hattının sorumlusu olan ve\n"
        "Mehmet Demir - Ali Kaya ikilisinin hazırladığı raporu okuyan TBMM üyeleri, görüşlerini kurula uzun uzun\n"
        "anlatmışlardır. Bunun üzerine kurul raporun bastırılmasına ve üyelere dağıtılmasına oy birliği ile karar\n"
        "vermiştir. Karar ertesi gün bütün birimlere yazılı olarak duyurulmuş, itirazların en geç bir hafta içinde\n"
        "yapılması istenmiştir."
    )
    assert unwrap_by_lexicon(text) == text.replace("\n", " ")
