"""The last step: the documents that stayed, as Megatron `.bin/.idx`. All the pipeline knows about tokenizing is here."""

from __future__ import annotations

from pathlib import Path

from mecellem.files import atomic_write
from mecellem.manifest import CorpusManifest
from preprocessing.pipeline.config import Corpus
from preprocessing.pipeline.layout import RunFolders, StageFolders, shard_paths
from preprocessing.pipeline.plan import Plan
from preprocessing.tokens.tokenize import tokenize_corpus


def tokenize_shards(corpus: Corpus, plan: Plan, folders: StageFolders) -> dict[str, CorpusManifest]:
    """Tokenize the shards of the last stage: all as `corpus`, or each source's as its own; returns the manifests."""
    settings = corpus.file.tokenize
    assert settings is not None
    tokens, shards = RunFolders(corpus.out).tokens, shard_paths(folders)
    groups: dict[str, list[Path]] = {}
    for shard, task in zip(shards, plan.tasks, strict=True):
        groups.setdefault(task.reading.source if settings.per_source else "corpus", []).append(shard)
    tokenizer, eod = Path(settings.tokenizer), settings.eod
    manifests = {name: tokenize_corpus(paths, tokenizer, tokens / name, eod, replace=True) for name, paths in groups.items()}
    if settings.per_source:
        _write_mixture(corpus, tokens)
    return manifests


def _write_mixture(corpus: Corpus, tokens: Path) -> None:
    """Write what stands below `sources:` of a curriculum's stage: each source's path and its share."""
    whole = sum(source.weight for source in corpus.file.sources)
    lines = [f"- {{path: {tokens / source.name}, weight: {source.weight / whole:.6g}}}" for source in corpus.file.sources]
    with atomic_write(tokens / "mixture.yaml") as handle:
        handle.write("\n".join(["sources:", *(f"  {line}" for line in lines)]) + "\n")
