"""Mask personal numbers and addresses of Turkish documents by a tag: identity numbers, IBANs, telephones, e-mail.

Digits are masked only where a checksum, the form of a number or the word before it leaves little doubt: court documents are
full of case numbers, law numbers, amounts and dates. Names are not touched.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec

from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from pydantic import BaseModel, ConfigDict, Field

from mecellem.errors import UserError
from preprocessing.stages.telephones import TAG, mask_telephones

TAGS = {"email": "[E-POSTA]", "iban": "[IBAN]", "tckn": "[TCKN]", "phone": TAG}

# Bounded, so that a run of a million letters costs a million steps; datatrove's pattern for addresses is quadratic there.
# Letters of every alphabet: çağrı@örnek.com.tr is an address.
_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_EMAIL = re.compile(rf"(?<![\w%+])[^\W_][\w.%+-]{{0,63}}@(?:{_LABEL}\.){{1,8}}[^\W\d_]{{2,24}}\b")
# The groups of an IBAN may be parted by spaces of any kind, dashes or the end of a line.
# What stands before it is looked at behind its first two letters: patterns that begin with a set of signs are found faster.
_IBAN = re.compile(
    r"[A-Zt][A-Zr](?=[\s-]{0,3}\d\d)(?:(?<![A-Za-z0-9]..)|(?<=IBAN..)|(?<=iban..))"
    r"(?:(?:(?<=T[Rr])|(?<=tr))\s{0,2}-?\d\d(?:[\s.-]{0,3}\d){22}(?!\d)"
    r"|(?<=[A-Z]{2})\d\d(?:[\s-]{0,2}[A-Z0-9]{4}){2,7}(?:[\s-]{0,2}[A-Z0-9]{1,3})?(?![A-Za-z0-9]))"
)
_LAST_GROUP = re.compile(r"[\s-]+[A-Z0-9]+$")
# Neither inside a longer number or a code, nor behind or before the digits of a case number (2019/12345), an amount or a
# code with a dash; those digits may be another identity number. What else stands around it is left to the checksum, which
# one number of a hundred passes. Forms write the digits in groups (3 3 3 2 or 4 4 3) or one to a box.
_GAP = r"[ \u00a0\u202f]"
_TCKN = re.compile(
    rf"[1-9](?:\d\d(?:{_GAP}?\d{{3}}){{2}}{_GAP}?\d\d|\d{{3}}{_GAP}\d{{4}}{_GAP}\d{{3}}|(?:{_GAP}\d){{10}})"
    r"(?!\d|[.,]\d|[/-]\d(?!\d{10}(?!\d)))"
)
_BEFORE_TCKN = re.compile(r"(?:(?<![^\W_])|(?<=tc)|(?<=kn)|(?<=no))(?:(?<!\d[.,/-])|(?<=(?<!\d)\d{11}[/-]))\Z", re.IGNORECASE)
_MOST_PASSES = 5


class PiiSettings(BaseModel):
    """What is masked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tckn: bool = Field(default=True, description="Turkish identity numbers (11 digits with a valid checksum)")
    iban: bool = Field(default=True, description="IBANs of any country (valid mod 97), also in groups of four")
    phone: bool = Field(
        default=True,
        description="telephone numbers: +90, 0, grouped mobile ones, 444 0 123, other countries' with +; 312 417 10 00 behind "
        "a word like tel, faks or iletişim. Known area codes only; what is followed by TL, adet and the like is none",
    )
    email: bool = Field(default=True, description="e-mail addresses")


class PiiMask(PipelineStep):
    """Mask every document; `changed_<kind>` counts what was masked, `changed` the documents that held any of it."""

    type = "mask"
    name = "pii"

    def __init__(self, settings: PiiSettings) -> None:
        super().__init__()
        if (settings.tckn or settings.iban) and find_spec("akana") is None:
            raise UserError("the package akana, which checks identity numbers and IBANs, is not installed: `pip install akana`")
        # IBANs before identity numbers: the digits of one could hold the other
        self._kinds = [kind for kind in TAGS if getattr(settings, kind)]

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator:
        """Yield every document, masked."""
        for doc in data or ():
            with self.track_time():
                doc.text, masked = self.mask(doc.text)
            self.stat_update("total")
            for kind, count in sorted(masked.items()):
                self.stat_update(f"changed_{kind}", value=count)
            if masked:
                self.stat_update("changed")
            yield doc

    def mask(self, text: str) -> tuple[str, Counter[str]]:
        """The text with tags in place of what was found, and how much of each kind was."""
        masked: Counter[str] = Counter()
        for _ in range(_MOST_PASSES):  # where numbers touch, a masked one may show what the one beside it is
            before = masked.total()
            for kind in self._kinds:
                text = _MASKS[kind](text, masked)
            if masked.total() == before:
                break
        return text, masked


def _mask_email(text: str, masked: Counter[str]) -> str:
    if "@" not in text:
        return text
    text, count = _EMAIL.subn(TAGS["email"], text)
    return _counted(text, masked, "email", count)


def _mask_phone(text: str, masked: Counter[str]) -> str:
    text, count = mask_telephones(text)
    return _counted(text, masked, "phone", count)


def _mask_tckn(text: str, masked: Counter[str]) -> str:
    from akana import validate_tckn

    def tag(match: re.Match[str]) -> str:
        start = match.start()
        if not _BEFORE_TCKN.search(match.string, max(0, start - 13), start) or not validate_tckn(re.sub(_GAP, "", match[0])):
            return match[0]
        masked["tckn"] += 1
        return TAGS["tckn"]

    return _TCKN.sub(tag, text)


def _mask_iban(text: str, masked: Counter[str]) -> str:
    from akana import validate_iban

    def tag(match: re.Match[str]) -> str:
        candidate = match[0]
        while True:
            if validate_iban(re.sub(r"[\s.-]", "", candidate).upper()):
                masked["iban"] += 1
                return TAGS["iban"] + match[0][len(candidate) :]
            # a word in capitals may stand behind the number: give its group back
            shorter = _LAST_GROUP.sub("", candidate)
            if shorter == candidate:
                return match[0]
            candidate = shorter

    return _IBAN.sub(tag, text)


def _counted(text: str, masked: Counter[str], kind: str, count: int) -> str:
    if count:
        masked[kind] += count
    return text


_MASKS: dict[str, Callable[[str, Counter[str]], str]] = {
    "email": _mask_email,
    "iban": _mask_iban,
    "tckn": _mask_tckn,
    "phone": _mask_phone,
}
