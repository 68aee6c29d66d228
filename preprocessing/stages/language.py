"""Which language a document is in: GlotLID (or another fastText model) where its file is given, else py3langid, offline.

py3langid is the fallback because its 140 languages include Turkish's neighbours in Latin letters (Azerbaijani, Uzbek,
Turkmen, Crimean Tatar, Kurdish); lingua has neither Uzbek nor Turkmen. docs/decisions/0016 has the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from pydantic import BaseModel, ConfigDict, Field

from mecellem.errors import UserError
from preprocessing.stages.settings import Share
from preprocessing.turkish import lower

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# How the identifiers write "Turkish": py3langid and lid.176, GlotLID
TURKISH = ("tr", "tur_Latn")
_LABEL = "__label__"
_MAGIC = 793_712_314

Identify = Callable[[str], tuple[str, float]]  # text without line breaks -> (label, probability)


class LanguageSettings(BaseModel):
    """Which languages are kept, and how they are told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path | None = Field(
        default=None,
        description="a fastText model such as GlotLID's model_v3.bin; none: py3langid's own",
    )
    languages: tuple[str, ...] = Field(
        default=TURKISH, min_length=1, description="labels to keep, as the identifier writes them: tr, or tur_Latn with GlotLID"
    )
    threshold: Share = Field(
        default=0.875,
        ge=0,
        description="least probability: FineWeb-2's for tur_Latn with GlotLID; py3langid gives 20 Turkish words 0.97 and more",
    )
    characters: int = Field(
        default=3000,
        ge=0,
        description="py3langid looks at so many characters, from the beginning, the middle and the end, 0: at all; of 50 words "
        "(400 characters) it recognises every one. A fastText model always reads the whole document",
    )


class LanguageFilter(BaseFilter):
    """Drop documents in other languages; `language_<label>` counts every document by what it is in."""

    name = "language"
    REASONS: ClassVar[dict[str, str]] = {
        "other_language": "it is in a language that is not kept",
        "uncertain_language": "its language is kept, but the identifier is not sure enough of it",
        "no_language": "it has no letters",
    }
    ADVICE: ClassVar[dict[str, str]] = {
        "other_language": "add its label to languages below `language:`; the report's figure of languages names those found",
        "uncertain_language": "lower the threshold below `language:`; short and mixed texts are the least certain",
        "no_language": "leave `language` out for a source of numbers or signs",
    }

    def __init__(self, settings: LanguageSettings) -> None:
        super().__init__()
        self.settings = settings
        package = "py3langid" if settings.model is None else "fasttext"
        if find_spec(package) is None:
            name = {"fasttext": "fasttext-predict"}.get(package, package)
            raise UserError(f"stage language: the package {name} is not installed: `pip install {name}`")
        if settings.model is not None and not settings.model.is_file():
            raise UserError(f"stage language: {settings.model} is not a file: give GlotLID's model_v3.bin, or no model")
        if settings.model is not None and not _begins_as_fasttext(settings.model):
            raise UserError(f"stage language: {settings.model} is not a fastText model: give GlotLID's model_v3.bin")
        if settings.model is None and settings.languages != TURKISH:
            labels = _langid().labels
            if unknown := sorted(set(settings.languages) - set(labels)):
                raise UserError(
                    f"stage language: py3langid has no {', '.join(unknown)}; it has {' '.join(sorted(labels))}: choose of these"
                )

    @cached_property
    def identify(self) -> Identify:
        """Loaded when the first document comes, in the process that meets it."""
        if self.settings.model is None:
            return _offline(self.settings.characters)
        status = self.settings.model.stat()
        return _fasttext(self.settings.model, status.st_size, status.st_mtime_ns)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Keep the document (True) or drop it with a key of `REASONS`; label and probability go to its metadata."""
        text = " ".join(doc.text.split())
        if not any(map(str.isalpha, text)):
            return False, "no_language"
        label, probability = self.identify(text)
        doc.metadata["language"] = label
        doc.metadata.setdefault("measures", {})["language_probability"] = probability
        self.stat_update(f"language_{label}")
        if label not in self.settings.languages:
            return False, "other_language"
        return True if probability >= self.settings.threshold else (False, "uncertain_language")


@lru_cache(maxsize=1)  # a process works on many tasks, and unpacking the model takes longer than a small shard's documents
def _langid() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _offline(characters: int) -> Identify:
    classify = _langid().classify

    def identify(text: str) -> tuple[str, float]:
        label, probability = classify(_excerpt(text, characters))
        return label, float(probability)

    return identify


def _begins_as_fasttext(path: Path) -> bool:
    """Whether the first four bytes are fastText's (`FASTTEXT_FILEFORMAT_MAGIC_INT32` in its fasttext.cc), little-endian."""
    with open(path, "rb") as handle:
        return handle.read(4) == _MAGIC.to_bytes(4, "little")


@lru_cache(maxsize=1)
def _fasttext(path: Path, size: int, changed: int) -> Identify:
    """`size` and `changed` tell another file of the same name."""
    import fasttext

    try:
        predict = fasttext.load_model(str(path)).predict
    except (ValueError, RuntimeError, MemoryError) as error:
        raise UserError(f"stage language: {path} is not a fastText model ({error}): give GlotLID's model_v3.bin") from None

    def identify(text: str) -> tuple[str, float]:
        labels, probabilities = predict(text)
        # fastText's probabilities may pass 1 by rounding
        return labels[0].removeprefix(_LABEL), min(1.0, float(probabilities[0]))

    return identify


def _excerpt(text: str, characters: int) -> str:
    """The beginning, the middle and the end of a text, of about `characters` together."""
    if text.isupper():
        text = lower(text)  # the identifier would make "i" of Turkish "I"
    if not characters or len(text) <= characters:
        return text
    third = max(1, characters // 3)
    middle = (len(text) - third) // 2
    return " ".join((text[:third], text[middle : middle + third], text[-third:]))
