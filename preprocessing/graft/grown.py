"""What every rule gives: a vocabulary of exactly so many entries, each of them reachable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mecellem.errors import UserError
from preprocessing.graft.reach import unreachable
from preprocessing.graft.teacher import Teacher
from preprocessing.graft.write import assemble

Rule = Literal["joint", "target-first", "used"]


@dataclass(frozen=True, slots=True)
class Grown:
    """A new tokenizer.json and what became of the pieces; `replaced` were chosen but unreachable."""

    settings: dict[str, Any]
    kept: tuple[str, ...]
    learned: tuple[str, ...]
    replaced: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """A candidate vocabulary: pieces in the order of their worth, and Unigram scores or BPE merges for them."""

    pieces: Sequence[str]
    scores: dict[str, float] | None = None
    merges: Sequence[tuple[str, str]] | None = None


def reserved(teacher: Teacher) -> list[str]:
    """Entries that are no pieces: the added tokens that stay, and tokens of the model that have a role."""
    contents = [str(token["content"]) for token in teacher.added]
    return contents + sorted(token for token in teacher.roles.needed - set(contents) if token in teacher.in_model)


def room(teacher: Teacher, size: int, fixed: int) -> int:
    """How many pieces there is room for; `fixed` of them stay whatever happens. Raises `UserError` for too small a size."""
    special = len(reserved(teacher))
    if size < special + fixed:
        characters = fixed - len(teacher.bytes)
        parts = f"{special} special tokens and {len(teacher.bytes)} single bytes"
        parts += f", besides {characters} for characters that the texts use" if characters else ""
        raise UserError(f"--size {size}: at least {special + fixed} entries are needed, {parts}: ask for more")
    return size - special


def grow(teacher: Teacher, size: int, choose: Callable[[frozenset[str]], Model], told: Callable[[str], None]) -> Grown:
    """Ask `choose` for a vocabulary until all of it is reachable; it is given the pieces that it must not choose again.

    Raises `UserError` where the texts and the teacher do not have so many pieces.
    """
    banned: frozenset[str] = frozenset()
    wanted = size - len(reserved(teacher))
    while True:
        model = choose(banned)
        if len(model.pieces) < wanted:
            most = size - (wanted - len(model.pieces))
            raise UserError(
                f"--size {size}: texts and teacher give about {most:,} entries only: ask for fewer, or give more text"
            )
        assert len(model.pieces) == len(set(model.pieces)) == wanted, (len(model.pieces), wanted)
        settings = assemble(teacher, model.pieces, model.scores, model.merges)
        lost = unreachable(teacher, settings, model.pieces)
        if not lost:
            kept = tuple(piece for piece in model.pieces if piece in teacher.ids)
            learned = tuple(piece for piece in model.pieces if piece not in teacher.ids)
            return Grown(settings, kept, learned, tuple(sorted(banned)))
        told(f"{len(lost):,} entries could not be reached and are replaced by the next ones")
        assert not banned.issuperset(lost), lost
        banned |= set(lost)


def first(wanted: int, fixed: Sequence[str], *further: Iterable[str]) -> list[str]:
    """`fixed` and then the first new ones of `further`, `wanted` in all where there are so many."""
    chosen = dict.fromkeys(fixed)
    for piece in _chained(further):
        if len(chosen) >= wanted:
            break
        chosen.setdefault(piece)
    return list(chosen)


def _chained(parts: Iterable[Iterable[str]]) -> Iterator[str]:
    for part in parts:
        yield from part
