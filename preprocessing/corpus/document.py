"""One document of the corpus: what the extractors make and the splits hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import orjson


@dataclass(frozen=True, slots=True)
class Document:
    """`text` reads as natural text; `title` is "" where there is none. `definitions` and `examples`: KeNet only."""

    id: str
    source: str
    licence: str
    title: str
    text: str
    definitions: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()

    def as_line(self) -> bytes:
        """The document as one line of JSON, keys in a fixed order; KeNet's two lists only where the source is KeNet."""
        record: dict[str, object] = {
            "id": self.id,
            "source": self.source,
            "licence": self.licence,
            "title": self.title,
            "text": self.text,
        }
        if self.source == "kenet":
            record |= {"definitions": list(self.definitions), "examples": list(self.examples)}
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


@dataclass(slots=True)
class Extract:
    """The documents of one source, in the order of their ids, and how much was dropped, counted by reason."""

    documents: list[Document] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
