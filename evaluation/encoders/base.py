"""What every encoder does alike: order by length, batch by tokens, count what is cut, refuse vectors that are no numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.encoders.settings import EncoderSettings
from evaluation.results import Record
from mecellem.errors import UserError
from mecellem.token_batches import token_batches

Role = Literal["query", "document", "text"]
Vectors = NDArray[np.float32]

QUOTED = 60  # letters of a text that a message shows


class EncoderFacts(Record):
    """What an encoder is and how it was used.

    `sha256` covers every file that vectors depend on. `parameters` is None where the package does not tell;
    `embedding_parameters` are those of the input embedding. `max_seq_length` in tokens is None for a model that reads texts of
    any length; `query_length` and `document_length` where it reads fewer of those. `pooling_assumed`: the folder does not name
    a pooling.
    """

    name: str
    spec: str
    kind: str
    sha256: str
    parameters: int | None
    embedding_parameters: int | None
    dimensions: int
    max_seq_length: int | None
    query_length: int | None = None
    document_length: int | None = None
    pooling: str
    pooling_assumed: bool
    query_prompt: str
    document_prompt: str
    text_prompt: str
    dtype: str

    def limit(self, role: Role) -> int | None:
        """Tokens of a text of a role that are read; None: all."""
        limits = [self.max_seq_length, {"query": self.query_length, "document": self.document_length}.get(role)]
        return min((limit for limit in limits if limit is not None), default=None)

    def prompt(self, role: Role) -> str:
        """What stands in front of texts of a role."""
        return {"query": self.query_prompt, "document": self.document_prompt, "text": self.text_prompt}[role]

    def sentence(self) -> str:
        """Pooling, context length, precision and prompts on one line."""
        pooling = f"pooling {self.pooling}"
        if self.pooling_assumed:
            pooling += " (assumed: the folder names none; --pooling sets another)"
        length = f"{self.max_seq_length:,} tokens" if self.max_seq_length else "texts of any length"
        roles: tuple[Role, ...] = ("query", "document")
        fewer = [f"{self.limit(role):,} of a {role}" for role in roles if self.limit(role) != self.max_seq_length]
        if fewer:
            length += f" ({', '.join(fewer)})"
        prompts = ", ".join(
            f"{role} {text!r}"
            for role, text in (("query", self.query_prompt), ("document", self.document_prompt), ("text", self.text_prompt))
            if text
        )
        prompted = f"prompts: {prompts}" if prompts else "no prompts"
        return f"{pooling}, {length}, {self.dimensions} dimensions, {self.dtype}, {prompted}"


@dataclass(slots=True)
class Counts:
    """What an encoder has read since it was opened.

    `empty` texts have nothing but white space; `without_vector` are others of which the model knows no token. `truncated` texts
    were longer than the context, by `tokens_cut` tokens together.
    """

    texts: int = 0
    empty: int = 0
    without_vector: int = 0
    truncated: int = 0
    tokens_cut: int = 0

    def since(self, earlier: Counts) -> Counts:
        """What came after `earlier`."""
        return Counts(*(getattr(self, name) - getattr(earlier, name) for name in Counts.__slots__))

    def copy(self) -> Counts:
        """As it is now."""
        return Counts().since(Counts().since(self))


class Encoder(Protocol):
    """Texts to vectors."""

    name: str
    facts: EncoderFacts
    counts: Counts

    def lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        """Tokens of each text, uncut, with its prompt and special tokens."""
        ...

    def remember(self, most: int) -> None:
        """From now on keep vectors, of `most` texts at most, and give them again for a text that is read in the same way."""
        ...

    def encode(self, texts: Sequence[str], role: Role) -> Vectors:
        """`[n, dimensions]`, fp32, unit length, in the order of `texts`.

        A text without letters or any other sign, and one of which the model knows no token, has the zero vector: its cosine
        with everything is 0. Raises `UserError` for a vector with NaN or infinity, naming the model and the text.
        """
        ...


class BatchedEncoder(ABC):
    """The base of encoders: subclasses say how long texts are and make the vectors of one batch."""

    def __init__(self, facts: EncoderFacts, settings: EncoderSettings, batch_tokens: int = 4096) -> None:
        """`batch_tokens` is where the settings leave it open."""
        self.name = facts.name
        self.facts = facts
        self.counts = Counts()
        self.batch_tokens = settings.batch_tokens or batch_tokens
        self.most_remembered = 0
        self.remembered: dict[tuple[str, str], Vectors] = {}

    @abstractmethod
    def lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        """Tokens of each text, uncut, with its prompt and special tokens."""

    @abstractmethod
    def vectors(self, texts: list[str], role: Role) -> NDArray[np.floating]:
        """`[n, dimensions]` of one batch, not yet of unit length; cuts texts at the context length."""

    def treatment(self, role: Role) -> str:
        """What a text of this role is made into: texts of roles with the same treatment have the same vector."""
        return role

    def remember(self, most: int) -> None:
        """As `Encoder.remember`."""
        self.most_remembered = most

    def encode(self, texts: Sequence[str], role: Role) -> Vectors:
        """As `Encoder.encode`."""
        texts = list(texts)
        found = np.zeros((len(texts), self.facts.dimensions), dtype=np.float32)
        written = [number for number, text in enumerate(texts) if text.strip()]
        self.counts.texts += len(texts)
        self.counts.empty += len(texts) - len(written)
        lengths = self.count_cut(self.lengths([texts[number] for number in written], role), role)
        new, treatment = [], self.treatment(role)
        for place, row in enumerate(written):
            known = self.remembered.get((treatment, texts[row]))
            if known is None:
                new.append(place)
            else:
                found[row] = known
        for batch in token_batches([lengths[place] for place in new], self.batch_tokens):
            rows = [written[new[number]] for number in batch]
            found[rows] = self.unit([texts[row] for row in rows], role)
        self.counts.without_vector += int((~found[written].any(axis=1)).sum())
        for place in new[: max(0, self.most_remembered - len(self.remembered))]:
            row = written[place]
            self.remembered[treatment, texts[row]] = found[row].copy()
        return found

    def count_cut(self, lengths: list[int], role: Role) -> list[int]:
        """The lengths as the model reads them, after what they lose was counted."""
        limit = self.facts.limit(role)
        if limit is None:
            return lengths
        over = [length - limit for length in lengths if length > limit]
        self.counts.truncated += len(over)
        self.counts.tokens_cut += sum(over)
        return [min(length, limit) for length in lengths]

    def unit(self, texts: list[str], role: Role) -> Vectors:
        """The vectors of one batch at unit length, or zero."""
        rows = np.asarray(self.vectors(texts, role), dtype=np.float32)
        assert rows.shape == (len(texts), self.facts.dimensions), rows.shape
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(broken):
            text = texts[broken[0]]
            raise UserError(
                f"{self.facts.spec} gives a vector with NaN or infinity for {len(broken)} of {len(texts)} texts, the first "
                f"begins {text[:QUOTED]!r}: the weights are damaged or {self.facts.dtype} is too narrow for them; "
                "try --dtype fp32 or another checkpoint"
            )
        norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        unit: Vectors = (rows / np.where(norms == 0, 1, norms)).astype(np.float32)
        return unit
