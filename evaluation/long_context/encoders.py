"""What the two measures of encoders share: texts that are known to fit, and vectors of texts that were not cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evaluation.encoders import Encoder, Role, Vectors
from evaluation.long_context.windows import Unit
from mecellem.errors import UserError


def encode_whole(encoder: Encoder, texts: Sequence[str], role: Role) -> Vectors:
    """Unit vectors `[n, dimensions]` of texts that are read to their end. Raises `UserError` for longer questions."""
    before = encoder.counts.copy()
    vectors = encoder.encode(texts, role)
    cut = encoder.counts.since(before)
    if cut.truncated and role == "query":
        raise UserError(
            f"{encoder.name} reads {encoder.facts.limit(role)} tokens of a question and {cut.truncated} of {len(texts)} "
            "needles have a longer one: shorten them (--needles), or measure a model that reads more"
        )
    assert not cut.truncated, f"{encoder.name} cut {cut.truncated} texts by {cut.tokens_cut} tokens, they were to fit"
    return vectors


Write = Callable[[Sequence[Unit]], str]


def write_fitting(encoder: Encoder, windows: Sequence[Sequence[Unit]], write: Sequence[Write], most: int) -> list[str]:
    """Of each window the text that its `write` makes, without its last units where it has more than `most` tokens.

    The units' tokens add up to the whole's but for a few where they meet, so hardly any text has to be made again.
    """
    kept = [list(units) for units in windows]
    texts = [make(units) for make, units in zip(write, kept, strict=True)]
    pending = list(range(len(texts)))
    while pending:
        counts = encoder.lengths([texts[number] for number in pending], "document")
        pending = [number for number, count in zip(pending, counts, strict=True) if count > most]
        for number in pending:
            kept[number].pop()
            assert kept[number], "a window is far longer than what stands around it"
            texts[number] = write[number](kept[number])
    return texts
