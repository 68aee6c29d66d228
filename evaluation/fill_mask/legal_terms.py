"""Turkish legal terms, in every form, and which of them a word is.

The list is ours: terms of procedure, of private, criminal and public law that statutes and judgments are full of. Left out
are those whose forms are everyday words, too (hak: hakkında, taraf: tarafından, kurul: kurulu).
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache

from evaluation.fill_mask.inflection import SLOTS, Form, Noun, Slot, inflect
from preprocessing.turkish import capitalize, fold, upper

REGULAR = (
    "madde kanun fıkra mahkeme temyiz davacı davalı dava karar yasa anayasa hukuk hâkim savcı avukat vekil bilirkişi "
    "şikâyet itiraz istinaf tazminat ceza suç tahliye tutuklama soruşturma kovuşturma iddianame dilekçe duruşma delil "
    "tebligat icra iflas faiz sözleşme mülkiyet tapu miras vasiyet velayet vesayet nafaka boşanma nikâh genelge kararname "
    "mevzuat meclis komisyon gerekçe ilam tasarı teklif vergi kira kefalet ehliyet yetki kusur tescil müvekkil müdahil "
    "tebliğ ihtarname"
)
SOFTENED = {
    **{"hüküm": "hükm", "sanık": "sanığ", "tanık": "tanığ", "hapis": "haps", "haciz": "hacz", "alacak": "alacağ"},
    **{"borç": "borc", "yükümlülük": "yükümlülüğ", "sorumluluk": "sorumluluğ", "yönetmelik": "yönetmeliğ"},
    **{"tüzük": "tüzüğ", "bakanlık": "bakanlığ", "senet": "sened", "ipotek": "ipoteğ", "fesih": "fesh", "tutanak": "tutanağ"},
}
HARMONY = {"iptal": "e", "ihlal": "e", "beraat": "e", "usul": "ü"}  # a soft l or t behind a back vowel
TERMS = (
    *(Noun(word) for word in REGULAR.split()),
    *(Noun(word, before_vowel=soft) for word, soft in SOFTENED.items()),
    *(Noun(word, vowel=vowel) for word, vowel in HARMONY.items()),
)


@cache
def forms() -> dict[str, list[tuple[Noun, Slot, Form]]]:
    """Folded form -> what it can be; one form can stand for several slots (kanunu: accusative, or possessive)."""
    found: dict[str, list[tuple[Noun, Slot, Form]]] = defaultdict(list)
    for noun in TERMS:
        for slot in SLOTS:
            form = inflect(noun, slot)
            found[fold("".join(form))].append((noun, slot, form))
    return dict(found)


def readings(word: str) -> list[tuple[Noun, Slot, Form]]:
    """What a word as written can be; an apostrophe must stand in front of the case ending. Empty for any other word."""
    base, apostrophe, ending = fold(word).partition("'")
    found = forms().get(base + ending, [])
    return [reading for reading in found if not apostrophe or (reading[2].ending and fold(reading[2].base) == base)]


def candidates(word: str) -> tuple[str, ...]:
    """Every term in the form(s) that `word` has, written as `word` is: case, apostrophe. `word` itself is the first."""
    slots = {slot for _, slot, _ in readings(word)}
    apostrophe = next((sign for sign in "'’" if sign in word), "")
    found = {word: None}
    for noun in TERMS:
        for slot in SLOTS:
            if slot in slots:
                found[_as_written(word, apostrophe.join(inflect(noun, slot)))] = None
    return tuple(found)


def _as_written(model: str, word: str) -> str:
    letters = [letter for letter in model if letter.isalpha()]
    if len(letters) > 1 and all(letter == upper(letter) for letter in letters):
        return upper(word)
    return capitalize(word) if letters[0] == upper(letters[0]) else word
