"""Mask personal numbers and addresses of Turkish documents by a tag: identity numbers, IBANs, telephones, e-mail.

Digits are masked only where a checksum or the form of a number leaves little doubt: court documents are full of case
numbers, law numbers, amounts and dates. Names are not touched.
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

TAGS = {"email": "[E-POSTA]", "iban": "[IBAN]", "tckn": "[TCKN]", "phone": "[TELEFON]"}

# Bounded, so that a run of a million letters costs a million steps; datatrove's pattern for addresses is quadratic there.
_DOMAIN = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}"
_EMAIL = re.compile(rf"(?<![\w.+-])[A-Za-z0-9][\w.%+-]{{0,63}}@{_DOMAIN}\b")
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])(?:[Tt][Rr][ -]?\d{2}(?:[ .-]?\d){22}(?!\d)"
    r"|[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?(?![A-Za-z0-9]))"
)
# Neither inside a longer number nor part of a case number (2019/12345), an amount (1.234,56) or a code with a dash.
_TCKN = re.compile(r"(?<![\w/-])(?<!\d[.,])[1-9]\d{10}(?![\w/-]|[.,]\d)")
_GAP = r"[ \u00a0./()-]{0,3}"
# Mobile 5xx, area codes (all even: 212 ... 488), 800 and 850.
_AREA = r"(?:5\d\d|[234]\d[02468]|8[05]0)"
_PHONE = re.compile(
    rf"(?<![\w+/.,-])(?:"
    rf"(?:\(?\+|00){_GAP}90{_GAP}(?:\(?0\)?)?{_GAP}\(?{_AREA}{_GAP}\d{{3}}{_GAP}\d{{2}}{_GAP}\d{{2}}"  # +90 (312) 123 45 67
    rf"|\(?0[ ]?\(?{_AREA}\)?{_GAP}\d{{3}}{_GAP}\d{{2}}{_GAP}\d{{2}}"  # 0(312) 123 45 67
    rf"|\(?5\d\d\)?[ .-]\d{{3}}[ .-]\d{{2}}[ .-]\d{{2}}"  # 532 123 45 67: mobile, by its grouping
    rf"|\+(?!90)[1-9]\d{{0,2}}(?:[ ()-]{{0,2}}\d){{7,12}}"  # another country's, with its +
    rf")(?![\d/])(?![.,]\d)"
)


class PiiSettings(BaseModel):
    """What is masked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tckn: bool = Field(default=True, description="Turkish identity numbers (11 digits with a valid checksum)")
    iban: bool = Field(default=True, description="IBANs of any country (valid mod 97), also in groups of four")
    phone: bool = Field(default=True, description="telephone numbers: +90, 0, grouped mobile ones, other countries' with +")
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
        for kind in self._kinds:
            text = _MASKS[kind](text, masked)
        return text, masked


def _mask_email(text: str, masked: Counter[str]) -> str:
    if "@" not in text:
        return text
    text, count = _EMAIL.subn(TAGS["email"], text)
    return _counted(text, masked, "email", count)


def _mask_phone(text: str, masked: Counter[str]) -> str:
    text, count = _PHONE.subn(TAGS["phone"], text)
    return _counted(text, masked, "phone", count)


def _mask_tckn(text: str, masked: Counter[str]) -> str:
    from akana import validate_tckn

    def tag(match: re.Match[str]) -> str:
        if not validate_tckn(match[0]):
            return match[0]
        masked["tckn"] += 1
        return TAGS["tckn"]

    return _TCKN.sub(tag, text)


def _mask_iban(text: str, masked: Counter[str]) -> str:
    from akana import validate_iban

    def tag(match: re.Match[str]) -> str:
        candidate, rest = match[0], ""
        while candidate:
            if validate_iban(re.sub(r"[ .-]", "", candidate).upper()):
                masked["iban"] += 1
                return TAGS["iban"] + rest
            # a word in capitals may stand behind the number: give its group back
            candidate, gap, group = candidate.rpartition(" ")
            rest = gap + group + rest
        return match[0]

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
