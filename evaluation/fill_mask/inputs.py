"""What the flags of `mecellem evaluate fill-mask` name: documents, cloze items, and the text that unigrams are counted in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.fill_mask.cloze import ClozeItem, make_items, read_items, too_long
from evaluation.fill_mask.passages import Passage, Reader
from evaluation.fill_mask.settings import FillMaskSettings
from evaluation.perplexity.documents import read_texts
from evaluation.perplexity.settings import PerplexitySettings
from mecellem.errors import UserError
from preprocessing.corpus.document import Document
from preprocessing.corpus.read_split import split_path
from preprocessing.jsonl import check_inputs, fingerprint, read_fields


@dataclass(frozen=True, slots=True)
class Baseline:
    """The text whose words and tokens the unigrams count. `sha256` and `note` say which, `read` gives it."""

    sha256: str
    note: str
    read: Callable[[], list[str]]


def read_documents(texts: Sequence[Path], settings: FillMaskSettings) -> tuple[list[Document], int]:
    """The documents of --texts (files, or corpus folders' test splits), their domain as source; how many were empty."""
    found = read_texts(texts, PerplexitySettings(domain_field=settings.domain_field))
    return [Document(text.key, text.domain, "", "", text.text) for text in found.texts], found.empty


def cloze_items(
    documents: Sequence[Document], readers: Sequence[Reader], cloze: Sequence[Path], settings: FillMaskSettings
) -> list[ClozeItem]:
    """The user's items, else those made of the texts. Raises `UserError` for an item that a model cannot see whole."""
    if not cloze:
        return make_items(documents, readers, settings.cloze_items, settings.mask_seed)
    items = read_items(cloze)
    fault = too_long(items, readers)
    if fault:
        raise UserError(fault)
    return items


def open_baseline(
    train: Sequence[Path], texts: Sequence[Path], passages: Sequence[Passage], settings: FillMaskSettings
) -> Baseline:
    """The training text: --train, else the train splits of the corpus folders in --texts, else the passages themselves."""
    named = train or [path for path in texts if path.is_dir()]
    files = [split_path(path, "train") if path.is_dir() else path for path in named]
    if not files:
        joined = hashlib.sha256("\0".join(passage.text for passage in passages).encode()).hexdigest()
        note = "the passages themselves, which flatters it (--train names other text)"
        return Baseline(joined, note, lambda: [passage.text for passage in passages])

    check_inputs(files, "--train")

    def read() -> list[str]:
        found: list[str] = []
        left = settings.baseline_characters
        for path in files:
            for _, fields in read_fields(path):
                if left <= 0:
                    return found
                found.append(fields["text"][:left])
                left -= len(found[-1])
        return found

    return Baseline(fingerprint(files), ", ".join(map(str, files)), read)
