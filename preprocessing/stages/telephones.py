"""Turkish telephone numbers: those whose form leaves no doubt, and those that need a word beside them that says so.

Area codes and prefixes are those of libphonenumber 9.0.43 (Google; region TR and its table of places), which follows the
numbering plan of the Turkish telecommunications authority (BTK); 392 is Northern Cyprus.
"""

from __future__ import annotations

import re
from collections.abc import Callable

TAG = "[TELEFON]"
_AREA = (
    r"(?:2[67][246]|2[28][2468]|2[13][26]|2[45][268]|3[78][02468]|392"
    r"|3[2456][2468]|3[13][28]|4[16][246]|4[23578][2468]|44[26])"
)
_MOBILE = r"5(?:[03-5]\d|1[026]|24|6[124]|7[245]|82|9[246])"
_CODE = rf"(?:{_AREA}|{_MOBILE}|8(?:00|11|50|88|98)|900)"
_GAP = r"[ \u00a0./()-]{0,3}"
_SEVEN = rf"(?:\d{{3}}{_GAP}\d\d{_GAP}\d\d|\d{{3}}{_GAP}\d{_GAP}\d{{3}}|\d\d{_GAP}\d\d{_GAP}\d{{3}})"
# What follows a number of things or of money, in groups of three as some telephone numbers are; on the same line, or the
# first word of the next would count.
_COUNTED = (
    r"₺|€|\$|£|(?:TL|TRY|USD|EUR|adet|tane|l[iİ]ra|kuruş|avro|euro|dolar|sterl[iİ]n|k[iİ]ş[iİ]|metre|dönüm|dekar|hektar|l[iİ]tre"
    r"|m[iİ]lyon|m[iİ]lyar|gram)|(?:m²|m2|kg|ton)\b"
)
_UNIT = rf"(?![ \u00a0]{{0,2}}(?i:{_COUNTED}))"
# what may also stand behind a telephone number by chance, as the beginning of an address
_ANY_UNIT = rf"(?![ \u00a0]{{0,2}}(?i:{_COUNTED}|parsel|h[iİ]sse|sayılı|(?:ada|pay|b[iİ]n)\b))"
_END = r"(?!\d)(?![.,]\d)(?:[/-]\d{1,4}(?![\d/]))?(?!/\d)"  # with its extension
# Neither inside a word or a longer number, nor behind the digits of a case number (2019/12345), an amount or a code.
_START = r"(?<![\w+])(?<!\d[/.,-])"
_CLEAR = re.compile(
    rf"{_START}(?:"
    rf"(?:\(?\+|00){_GAP}90{_GAP}(?:\(?0\)?)?{_GAP}\(?{_CODE}{_GAP}{_SEVEN}"  # +90 (312) 123 45 67
    rf"|90[ \u00a0]?{_CODE}[ \u00a0]?\d{{3}}[ \u00a0]?\d\d[ \u00a0]?\d\d{_ANY_UNIT}"  # 905321234567
    rf"|\(?0[ \u00a0-]{{0,2}}\(?{_CODE}\)?{_GAP}{_SEVEN}"  # 0(312) 123 45 67, 0850 222 0 123
    rf"|\({_CODE}\){_GAP}{_SEVEN}"  # (312) 123 45 67
    rf"|{_MOBILE}(?P<gap>[ \u00a0.-])\d{{3}}(?P=gap)?\d\d(?P=gap)?\d\d{_ANY_UNIT}"  # 532 123 45 67: by its grouping
    rf"|(?<!\d[ \u00a0])444[ \u00a0]\d[ \u00a0]\d{{3}}{_ANY_UNIT}"  # 444 0 123: of call centres
    rf"|\+(?!90)(?!\d{{1,3}}(?:[ .]\d{{3}})*[ .]000\b)[1-9]\d{{0,2}}(?:[ ()-]{{0,2}}\d){{7,12}}{_ANY_UNIT}"  # another country's
    rf"){_UNIT}{_END}"
)
_BARE = re.compile(rf"{_START}(?<!\d[ \u00a0])(?:{_CODE}{_GAP}{_SEVEN}|444(?:[ \u00a0.-]?\d){{4}}){_ANY_UNIT}{_END}")
# Words that announce a number, with up to two others between: "Tel:", "çağrı merkezi no", "telefon numaramız 312 ...".
_ANNOUNCED = re.compile(
    r"(?<![\w\[])(?:(?:tel|gsm|cep|fax)(?!\w)|telefon|faks|belgegeçer|santral|çağrı[ \u00a0]merkez|[iİ]let[iİ]ş[iİ]m|whatsapp"
    r"|[TFG](?=[ \u00a0]?:))\w*(?:[^\w\[\]]{1,4}[^\W\d]{1,14}){0,2}[^\w\[\]]{1,6}\Z",
    re.IGNORECASE,
)
_WINDOW = 64  # characters before a number in which it is announced
_NAMED_AFTER = re.compile(r"[ \u00a0]?(?:numaralı|no['’]?lu)[ \u00a0](?:telefon|faks|hat\b|gsm|cep|santral)", re.IGNORECASE)
_NEXT = re.compile(r"\[TELEFON\](?:[\s,;/&-]|ve|veya){1,6}\Z")  # one number more
_ISBN = re.compile(r"(?:ISBN(?:-?1[03])?|97[89])[\s:.-]{1,3}[\d\s-]{0,14}\Z", re.IGNORECASE)


def mask_telephones(text: str) -> tuple[str, int]:
    """The text with a tag in place of every telephone number, and how many there were."""
    text, clear = _masked(text, _CLEAR, lambda match, before: True)
    text, bare = _masked(text, _BARE, _is_announced)
    return text, clear + bare


def _is_announced(match: re.Match[str], before: str) -> bool:
    """Whether the words around a number say that it is one of a telephone, or it stands beside one that was found."""
    # a full window may begin inside a word
    return bool(
        _ANNOUNCED.search(before, len(before) == _WINDOW)
        or _NEXT.search(before)
        or _NAMED_AFTER.match(match.string, match.end(), match.end() + 40)
    )


def _masked(text: str, pattern: re.Pattern[str], accepts: Callable[[re.Match[str], str], bool]) -> tuple[str, int]:
    """The text with tags in place of accepted matches, which see the tags before them, and how many were accepted."""
    parts: list[str] = []
    done, count = 0, 0
    for match in pattern.finditer(text):
        gap = text[max(done, match.start() - _WINDOW) : match.start()]
        before = gap if len(gap) == _WINDOW or not count else f"{parts[-2][-_WINDOW:]}{TAG}{gap}"[-_WINDOW:]
        if not _ISBN.search(before) and accepts(match, before):
            parts += (text[done : match.start()], TAG)
            done, count = match.end(), count + 1
    return "".join((*parts, text[done:])), count
