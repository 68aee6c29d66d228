"""What a curriculum asks of its corpora, worked out ahead from their manifests: to the token, before any work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from mecellem.errors import UserError
from mecellem.manifest import CorpusManifest, manifest_path, read_manifest
from mecellem.tokenizer_files import read_vocabulary
from megatron_recipes.data.blend import Blend
from megatron_recipes.data.corpus import TokenCorpus
from megatron_recipes.data.curriculum import Curriculum
from megatron_recipes.data.curriculum_stage import Source, Stage
from megatron_recipes.data.cursor import Cursor, identity

Manifests = Mapping[Path, CorpusManifest]  # by the sources' paths


class Mixture:
    """A stage's blend over corpora in the order of their hashes, so that the order of lines in the YAML says nothing.

    Sequences are numbered from the stage's beginning, so that a mixture under way is known by the step alone.
    """

    def __init__(self, stage: Stage, manifests: Manifests) -> None:
        self.weights = dict(sorted(zip((hash_of(source, manifests) for source in stage.sources), stage.weights, strict=True)))
        self.identities = tuple(self.weights)
        self.blend = Blend(tuple(self.weights.values()))


@dataclass(frozen=True, slots=True)
class Use:
    """What one source gives in one stage, or in the rest of it."""

    stage: int
    source: int
    sequences: int
    tokens: int
    before: int  # tokens taken from its corpus before, in the whole curriculum
    available: int  # tokens of the corpus

    @property
    def epochs(self) -> float:
        """How often the corpus has been read when the stage ends."""
        return (self.before + self.tokens) / self.available


def hash_of(source: Source, manifests: Manifests) -> str:
    """The hash that a source's corpus is known by."""
    return identity(source.path, manifests[source.path])


def read_manifests(curriculum: Curriculum) -> dict[Path, CorpusManifest]:
    """The manifest of every source. Raises `UserError` with file and line for a corpus that is missing or does not fit in.

    All must have been written with one tokenizer; no stage may have the same tokens twice, under two paths.
    """
    manifests: dict[Path, CorpusManifest] = {}
    for number, stage in enumerate(curriculum.stages):
        hashes: dict[str, Source] = {}
        for index, source in enumerate(stage.sources):
            where = curriculum.where(number, index, "path")
            if source.path not in manifests:
                try:
                    manifest = read_manifest(source.path)
                except UserError as error:
                    raise UserError(f"{where}: {error}") from None
                if f"{source.path.name}.bin" not in manifest.files:
                    raise UserError(f"{where}: {manifest_path(source.path)} belongs to another corpus: tokenize this one again")
                if manifest.tokens == 0:
                    raise UserError(f"{where}: {source.path} has no tokens: remove the source")
                manifests[source.path] = manifest
            first_path, first = next(iter(manifests.items()))
            check_same_tokenizer(f"{where}: ", (source.path, manifests[source.path]), (first_path, first))
            other = hashes.setdefault(hash_of(source, manifests), source)
            if other is not source:
                raise UserError(f"{where}: {source.path} holds the same tokens as {other.path}: join the two sources")
    return manifests


def check_same_tokenizer(where: str, one: tuple[Path, CorpusManifest], other: tuple[Path, CorpusManifest]) -> None:
    """Raise `UserError` for two corpora whose tokens, or whose ends of documents, mean different things."""
    (path, manifest), (other_path, other_manifest) = one, other
    if manifest.tokenizer.sha256 != other_manifest.tokenizer.sha256:
        raise UserError(
            f"{where}{manifest_path(path)} was written with another tokenizer than {manifest_path(other_path)}: tokenize all "
            "corpora with the same one"
        )
    ends, other_ends = manifest.tokenizer.eod_id, other_manifest.tokenizer.eod_id
    if ends != other_ends:
        raise UserError(
            f"{where}{manifest_path(path)} ends documents with id {ends}, {manifest_path(other_path)} with id {other_ends}: "
            "tokenize all corpora with the same --eod"
        )


def planned_use(curriculum: Curriculum, manifests: Manifests, cursor: Cursor | None = None) -> list[Use]:
    """What each source gives in each stage, exactly; with a cursor in what is left of the stages from it on."""
    taken = {name: state.tokens for name, state in cursor.streams.items()} if cursor else {}
    first = len(cursor.finished) if cursor else 0
    uses = []
    for number, stage in enumerate(curriculum.stages[first:], first):
        mixture = Mixture(stage, manifests)
        done = cursor.steps * stage.sequences_per_step if cursor and number == first else 0
        counts = mixture.blend.counts(stage.sequences) - mixture.blend.counts(done)
        given = dict(zip(mixture.identities, counts.tolist(), strict=True))
        for index, source in enumerate(stage.sources):
            name = hash_of(source, manifests)
            tokens, before = given[name] * stage.seq_len, taken.get(name, 0)
            uses.append(Use(number, index, given[name], tokens, before, manifests[source.path].tokens))
            taken[name] = before + tokens
    return uses


def check_supply(curriculum: Curriculum, uses: list[Use]) -> None:
    """Raise `UserError` for the first source of which more is asked than its `max_epochs` allow."""
    for use in uses:
        source = curriculum.stages[use.stage].sources[use.source]
        asked = use.before + use.tokens
        if asked > int(Decimal(str(source.max_epochs)) * use.available):
            enough = math.ceil(100 * use.epochs) / 100
            raise UserError(
                f"{curriculum.where(use.stage, use.source)}: {asked:,} tokens are asked of {source.path} by the end of this "
                f"stage, {use.epochs:.4g} epochs of its {use.available:,}; max_epochs allows {source.max_epochs:g}: add text, "
                f"lower its weight or set max_epochs: {enough:g}"
            )


def open_causal_corpus(prefix: Path, tokenizer: Path, model_rows: int, verify: bool) -> TokenCorpus:
    """`TokenCorpus.open` for a decoder: its tokenizer may have fewer entries than the embedding has rows, never more."""
    entries = read_vocabulary(tokenizer).size
    if entries > model_rows:
        raise UserError(
            f"the tokenizer in {tokenizer} has {entries:,} entries, the model's embedding {model_rows:,} rows: "
            "set --data.tokenizer to the model's own"
        )
    return TokenCorpus.open(prefix, tokenizer, verify)


def open_sources(curriculum: Curriculum, tokenizer: Path, model_rows: int, verify: bool) -> dict[Path, TokenCorpus]:
    """Every source's corpus by its path, checked as `read_manifests` and `open_causal_corpus` do."""
    return {path: open_causal_corpus(path, tokenizer, model_rows, verify) for path in read_manifests(curriculum)}
