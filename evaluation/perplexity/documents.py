"""The fixed documents: records of .jsonl files (also .gz, .zst), each with a text and a sub-domain."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.choice import hash_order
from evaluation.perplexity.settings import DOMAIN_FIELD, PerplexitySettings
from mecellem.errors import UserError
from preprocessing.corpus.read_split import split_path
from preprocessing.jsonl import SUFFIXES, check_inputs, optional_string, read_fields


@dataclass(frozen=True, slots=True)
class Text:
    """One document to score. `key` (file and line) is its identity, `text` never empty."""

    key: str
    domain: str
    text: str

    @property
    def size(self) -> int:
        """Bytes of its UTF-8."""
        return len(self.text.encode("utf-8"))


@dataclass(frozen=True, slots=True)
class TextSet:
    """Documents in a fixed order, and how many were empty, cut, or left out by --max-documents.

    `unnamed` had no --domain-field and belong to the sub-domain that their file names.
    """

    texts: tuple[Text, ...]
    empty: int
    cut: int
    left_out: int
    unnamed: int

    @property
    def sha256(self) -> str:
        """Changes with every text and sub-domain, not with where the files lie."""
        digest = hashlib.sha256()
        for text in self.texts:
            for part in (text.domain, text.text):
                data = part.encode("utf-8")
                digest.update(f"{len(data)}:".encode() + data)
        return digest.hexdigest()

    def domains(self) -> dict[str, list[int]]:
        """Sub-domain -> positions of its documents, in alphabetical order."""
        found: dict[str, list[int]] = defaultdict(list)
        for position, text in enumerate(self.texts):
            found[text.domain].append(position)
        return dict(sorted(found.items()))


def text_files(paths: Sequence[Path]) -> list[Path]:
    """The files that --texts names: a file itself, of a corpus folder its test split. Raises `UserError`."""
    if not paths:
        raise UserError("--texts names nothing: give .jsonl, .jsonl.gz or .jsonl.zst files, or a corpus folder")
    files = [split_path(path, "test") if path.is_dir() else path for path in paths]
    check_inputs(files, "--texts")
    if len({file.resolve() for file in files}) < len(files):
        raise UserError("--texts names the same file twice: its documents would count twice")
    return files


def domain_of_file(path: Path) -> str:
    """`law.jsonl.zst` -> `law`."""
    return next(path.name.removesuffix(suffix) for suffix in reversed(SUFFIXES) if path.name.endswith(suffix))


def read_texts(paths: Sequence[Path], settings: PerplexitySettings) -> TextSet:
    """All documents of `paths`, in order.

    Raises `UserError` for bad files, where no text is left, and where no document has the field that was asked for.
    """
    found: list[Text] = []
    seen: dict[str, None] = {}  # the records' fields, in order
    empty = cut = unnamed = 0
    for path in text_files(paths):
        for number, fields in read_fields(path):
            text = fields["text"]
            if not text.strip():
                empty += 1
                continue
            if 0 < settings.max_characters < len(text):
                text, cut = text[: settings.max_characters], cut + 1
            seen |= dict.fromkeys(fields)
            unnamed += fields.get(settings.domain_field) is None
            domain = optional_string(path, number, fields, settings.domain_field, domain_of_file(path))
            found.append(Text(f"{path.name}:{number}", domain, text))
    if not found:
        raise UserError(f"{', '.join(map(str, paths))} (--texts) has no document with text: nothing can be scored")
    if unnamed == len(found) and settings.domain_field != DOMAIN_FIELD:
        raise UserError(
            f"{', '.join(map(str, paths))} (--texts): no document has the field {settings.domain_field!r} of --domain-field, "
            f"their fields are {', '.join(seen)}: name one of those, or leave the flag out"
        )
    kept = choose(found, settings)
    return TextSet(tuple(kept), empty, cut, len(found) - len(kept), unnamed)


def choose(texts: Sequence[Text], settings: PerplexitySettings) -> list[Text]:
    """At most `max_documents` of each sub-domain, by hash of key and text, in the order they had."""
    if settings.max_documents == 0:
        return list(texts)
    order = sorted(range(len(texts)), key=lambda i: hash_order(settings.seed, f"{texts[i].key}:{texts[i].text}"))
    taken: dict[str, int] = defaultdict(int)
    kept = []
    for position in order:
        domain = texts[position].domain
        if taken[domain] < settings.max_documents:
            taken[domain] += 1
            kept.append(position)
    return [texts[position] for position in sorted(kept)]
