"""What is encoded to measure costs: real documents and the queries made of them, the same for every system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.choice import hash_order
from evaluation.efficiency.settings import EfficiencySettings
from evaluation.perplexity.documents import text_files
from mecellem.content import content_key
from mecellem.errors import UserError
from preprocessing.jsonl import optional_string, read_fields


@dataclass(frozen=True, slots=True)
class Workload:
    """Texts without empty ones."""

    queries: tuple[str, ...]
    documents: tuple[str, ...]

    @property
    def key(self) -> str:
        """Changes with every text."""
        return content_key([self.queries, self.documents])


def read_workload(paths: Sequence[Path], settings: EfficiencySettings) -> Workload:
    """Documents chosen by hash, and queries: the first `queries` of their titles or first words.

    Raises `UserError` for bad files and where there are fewer documents than either number.
    """
    found: list[tuple[str, str]] = []
    for path in text_files(paths):
        for number, fields in read_fields(path):
            text = fields["text"].strip()[: settings.max_characters]
            title = optional_string(path, number, fields, "title", "").strip()
            if text:
                found.append((title or " ".join(text.split()[: settings.query_words]), text))
    wanted = max(settings.documents, settings.queries)
    if len(found) < wanted:
        raise UserError(
            f"{', '.join(map(str, paths))} (--texts): {len(found):,} documents with text, but {wanted:,} are needed: give "
            "more, or lower --documents and --queries"
        )
    chosen = sorted(found, key=lambda pair: hash_order(settings.seed, pair[1]))[:wanted]
    return Workload(
        queries=tuple(query for query, _ in chosen[: settings.queries]),
        documents=tuple(text for _, text in chosen[: settings.documents]),
    )
