"""Bad text of known kinds, made from good text or from what pages are full of: what filters are calibrated against.

Every maker takes a good document and a random generator and gives a text of about the same number of words, so that no
measure can tell good from bad by length.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache

from preprocessing.turkish import lower, words

Maker = Callable[[str, random.Random, Sequence[str]], str]

# What stands in the menus of Turkish sites; sampled without order, three words a line at most.
_MENU = (
    *("Ana Sayfa", "Hakkımızda", "İletişim", "Haberler", "Duyurular", "Galeri", "Ürünler", "Hizmetler", "Kariyer", "Blog"),
    *("Üye Ol", "Giriş Yap", "Şifremi Unuttum", "Sepetim", "Kategoriler", "Kampanyalar", "Yardım", "Sıkça Sorulan Sorular"),
    *("Gündem", "Spor", "Ekonomi", "Magazin", "Dünya", "Teknoloji", "Sağlık", "Yazarlar", "Foto Galeri", "Video", "Arşiv"),
    *("Devamını Oku", "Yorum Yap", "Paylaş", "Facebook", "Twitter", "Instagram", "Önceki", "Sonraki", "Site Haritası"),
    *("Künye", "RSS", "Reklam", "Mobil", "Arama", "Etiketler", "Son Dakika", "Hava Durumu", "Namaz Vakitleri", "Yazdır"),
)
# The sentences that sites repeat on every page.
_BOILERPLATE = (
    "Bu web sitesinde size daha iyi hizmet verebilmek için çerezler kullanılmaktadır.",
    "Siteyi kullanmaya devam ederek çerez politikamızı kabul etmiş olursunuz.",
    "Tüm hakları saklıdır.",
    "Sitemizde yer alan içerikler izin alınmadan kopyalanamaz ve kullanılamaz.",
    "Daha fazla bilgi için gizlilik politikamızı okuyabilirsiniz.",
    "Yorum yapabilmek için üye girişi yapmanız gerekmektedir.",
    "Kampanyalarımızdan haberdar olmak için e-posta bültenimize abone olun.",
    "Bizi sosyal medya hesaplarımızdan takip edebilirsiniz.",
    "Siparişiniz aynı gün kargoya verilir.",
    "Bu içerik yalnızca bilgilendirme amaçlıdır.",
)


def shuffled(text: str, random_: random.Random, vocabulary: Sequence[str]) -> str:
    """The document's own words and line lengths in random order: every count is right, no sentence is."""
    parts = text.split()
    random_.shuffle(parts)
    return _in_lines_of(text, parts)


def repeated_phrase(text: str, random_: random.Random, vocabulary: Sequence[str]) -> str:
    """Ten of the document's words in a row, again and again."""
    parts = text.split()
    start = random_.randrange(max(1, len(parts) - 10))
    phrase = parts[start : start + 10]
    return " ".join(phrase * (len(parts) // len(phrase) + 1))


def keyword_list(text: str, random_: random.Random, vocabulary: Sequence[str]) -> str:
    """Bare words separated by commas, as search engines are fed: no suffixes, hardly a repetition."""
    return ", ".join(random_.choices(vocabulary, k=len(text.split())))


def menu(text: str, random_: random.Random, vocabulary: Sequence[str]) -> str:
    """The lines of a site's menus."""
    lines: list[str] = []
    while sum(len(line.split()) for line in lines) < len(text.split()):
        lines += random_.sample(_MENU, k=len(_MENU))
    return "\n".join(lines)


def boilerplate(text: str, random_: random.Random, vocabulary: Sequence[str]) -> str:
    """The sentences that stand on every page of a site."""
    lines: list[str] = []
    while sum(len(line.split()) for line in lines) < len(text.split()):
        lines += random_.sample(_BOILERPLATE, k=len(_BOILERPLATE))
    return "\n".join(lines)


def number_table(text: str, random_: random.Random, vocabulary: Sequence[str]) -> str:
    """Rows of a table: a word and five numbers."""
    rows = [
        " ".join([random_.choice(vocabulary), *(f"{random_.randrange(10**6) / 100:.2f}".replace(".", ",") for _ in range(5))])
        for _ in range(len(text.split()) // 6 + 1)
    ]
    return "\n".join(rows)


def noisy_letters(text: str, random_: random.Random, vocabulary: Sequence[str]) -> str:
    """A bad scan: every tenth letter is another one."""
    letters = "abcçdefgğhıijklmnoöprsştuüvyz"
    return "".join(random_.choice(letters) if sign.isalpha() and random_.random() < 0.1 else sign for sign in text)


def ascii_turkish(text: str, random_: random.Random, vocabulary: Sequence[str]) -> str:
    """Turkish typed without its letters: "yargitay karari"."""
    return text.translate(str.maketrans("çğıöşüâîûÇĞİÖŞÜÂÎÛ", "cgiosuaiuCGIOSUAIU"))


def english(text: str, random_: random.Random, vocabulary: Sequence[str]) -> str:
    """Running English: passages of the Python language reference."""
    source = _english_words()
    count = len(text.split())
    start = random_.randrange(max(1, len(source) - count))
    return _in_lines_of(text, source[start : start + count])


BAD_KINDS: dict[str, Maker] = {
    "shuffled words": shuffled,
    "repeated phrase": repeated_phrase,
    "keyword list": keyword_list,
    "menus": menu,
    "boilerplate": boilerplate,
    "number table": number_table,
    "10% wrong letters": noisy_letters,
    "ASCII letters only": ascii_turkish,
    "English": english,
}


def make_bad(kind: str, documents: Sequence[str], vocabulary: Sequence[str], seed: int = 0) -> list[str]:
    """One bad text of a kind for each document; `vocabulary`: bare words. The same arguments give the same texts."""
    random_ = random.Random(f"{seed} {kind}")
    return [BAD_KINDS[kind](document, random_, vocabulary) for document in documents]


def bare_words(documents: Sequence[str], is_bare: Callable[[str], bool]) -> list[str]:
    """The documents' different words of four letters or more which `is_bare`, in alphabetical order."""
    found = {lower(word) for document in documents for word in words(document) if len(word) > 3 and word.isalpha()}
    return sorted(word for word in found if is_bare(word))


def _in_lines_of(text: str, parts: list[str]) -> str:
    """The words in lines of as many words as the text's lines have."""
    lines, start = [], 0
    for line in text.split("\n"):
        end = start + len(line.split())
        lines.append(" ".join(parts[start:end]))
        start = end
    return "\n".join(lines)


@cache
def _english_words() -> list[str]:
    from pydoc_data.topics import topics  # Python's own documentation, installed with it

    prose = " ".join(topics[name] for name in sorted(topics))
    return [word for word in prose.split() if any(letter.isalpha() for letter in word)]
