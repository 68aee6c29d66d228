"""The last step: the documents that stayed, as Megatron `.bin/.idx`. All the pipeline knows about tokenizing is here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecellem.console import console
from mecellem.errors import UserError
from mecellem.files import atomic_write
from mecellem.manifest import CorpusManifest, manifest_path, read_manifest
from preprocessing.pipeline.config import Corpus, Tokenize
from preprocessing.pipeline.layout import RunFolders, StageFolders, shard_path, shard_paths
from preprocessing.pipeline.ledger import TaskLedger, read_ledger
from preprocessing.tokens.indexed import open_index
from preprocessing.tokens.provenance_file import attach
from preprocessing.tokens.tokenize import tokenize_corpus

if TYPE_CHECKING:
    from preprocessing.pipeline.plan import Plan
    from preprocessing.pipeline.steps import Step

MADE_OF = "made_of.json"  # in OUT/tokens: the corpora that runs wrote there, and of what they are made, and what made them
MIXTURE = "mixture.yaml"


@dataclass(frozen=True, slots=True)
class Group:
    """The shards that become one corpus: their numbers, and how many documents each has."""

    tasks: list[int]
    documents: list[int]


def tokenize_shards(corpus: Corpus, plan: Plan, steps: Sequence[Step]) -> tuple[dict[str, CorpusManifest], list[str]]:
    """Tokenize the shards of the last stage: all as `corpus`, or each source's as its own.

    Returns the manifests and the sources of which nothing is left, which have none. Token files of older settings that are
    not made again are removed. Raises `UserError` where no document is left at all.
    """
    settings, folders = corpus.file.tokenize, steps[-1].folders
    assert settings is not None
    tokens, shards = RunFolders(corpus.out).tokens, shard_paths(folders)
    groups = _groups(plan, folders, settings.per_source)
    empty = [name for name, group in groups.items() if not sum(group.documents)]
    _remove_others(tokens, [name for name in groups if name not in empty])
    if len(empty) == len(groups):
        raise UserError(
            f"no document of {corpus.path} is left after the stages, so there is nothing to tokenize: "
            f"`mecellem prepare status {corpus.path} --examples` shows which stage dropped them and why"
        )
    manifests = {}
    for name, group in groups.items():
        if name not in empty:
            paths = [shards[task] for task in group.tasks]
            manifest = tokenize_corpus(paths, Path(settings.tokenizer), tokens / name, settings.eod, replace=True)
            manifests[name] = attach(tokens / name, manifest, _provenance(plan, steps, group))
    if settings.per_source:
        _write_mixture(corpus, tokens, list(manifests))
    _write_made_of(tokens, {"names": list(manifests), **_made_of(settings, steps[-1].digest)})
    return manifests, empty if settings.per_source else []


def are_current(corpus: Corpus, digest: str | None) -> bool:
    """Whether all tokens are written, as the YAML file says now, of the stage that has this digest (None: is not done)."""
    if digest is None or corpus.file.tokenize is None:
        return False
    there = _read_made_of(RunFolders(corpus.out).tokens)
    return all(there.get(key) == value for key, value in _made_of(corpus.file.tokenize, digest).items())


def _made_of(settings: Tokenize, digest: str) -> dict[str, Any]:
    return {"digest": digest, "tokenize": settings.model_dump()}


def tokens_by_source(tokens: Path, manifests: dict[str, CorpusManifest]) -> dict[str, int]:
    """Exact tokens of each source, ends of documents included, from the lengths in the `.idx` files."""
    import numpy as np

    counts: dict[str, int] = {}
    for name, manifest in manifests.items():
        ends = np.array([part.last for part in manifest.sources], np.int64)
        sums = np.zeros(len(ends), np.int64)
        first = 0
        for lengths in open_index(tokens / f"{name}.idx").lengths():
            owners = np.searchsorted(ends, np.arange(first, first + lengths.size), side="right")
            sums += np.bincount(owners, weights=lengths, minlength=len(ends)).astype(np.int64)
            first += lengths.size
        for part, count in zip(manifest.sources, sums.tolist(), strict=True):
            counts[part.source] = counts.get(part.source, 0) + count
    return counts


def _groups(plan: Plan, folders: StageFolders, per_source: bool) -> dict[str, Group]:
    groups: dict[str, Group] = {}
    for number, task in enumerate(plan.tasks):
        ledger: TaskLedger = read_ledger(folders.ledgers / f"{number:05d}.json")
        group = groups.setdefault(task.reading.source if per_source else "corpus", Group([], []))
        group.tasks.append(number)
        group.documents.append(ledger.total().kept.documents)
    return groups


def _read_made_of(tokens: Path) -> dict[str, Any]:
    try:
        there: dict[str, Any] = json.loads((tokens / MADE_OF).read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return there


def _write_made_of(tokens: Path, content: dict[str, Any]) -> None:
    with atomic_write(tokens / MADE_OF) as handle:
        json.dump(content, handle)


def _remove_others(tokens: Path, names: Sequence[str]) -> None:
    """Remove the corpora that an earlier run wrote here and this one does not: they would pass for its own.

    Only those that `made_of.json` names: what somebody else put beside them, a merged corpus say, is not ours.
    """
    ours = list(dict.fromkeys([*_read_made_of(tokens).get("names", []), *names]))
    _write_made_of(tokens, {"names": ours})  # from here on nothing is current until all is written
    for name in ours:
        if name not in names:
            for ending in (".manifest.json", ".bin", ".idx", ".provenance.jsonl.zst"):  # the manifest first: no corpus without
                Path(f"{tokens / name}{ending}").unlink(missing_ok=True)
            console().print(f"note    removed {tokens / name}.bin and .idx: the run of now does not make them", markup=False)
    (tokens / MIXTURE).unlink(missing_ok=True)
    if not names:
        (tokens / MADE_OF).unlink()


def _provenance(plan: Plan, steps: Sequence[Step], group: Group) -> Iterator[dict[str, Any]]:
    """The lines of a corpus's provenance, which outlives the stages' folders."""
    yield {"stages": [{"name": step.name, "settings": step.settings} for step in steps]}
    first = 0
    for number, documents in zip(group.tasks, group.documents, strict=True):
        task = plan.tasks[number]
        yield {
            "first": first,
            "last": first + documents,
            "source": task.reading.source,
            "licence": task.reading.licence,
            "shard": shard_path(Path(), number).name,
            "parts": [asdict(part) for part in task.parts],
        }
        first += documents


def _write_mixture(corpus: Corpus, tokens: Path, names: Sequence[str]) -> None:
    """Write what stands below `sources:` of a curriculum's stage: each source's path and its share."""
    weights = {source.name: source.weight for source in corpus.file.sources if source.name in names}
    whole = sum(weights.values())
    lines = [f"- {{path: {tokens / name}, weight: {weight / whole:.6g}}}" for name, weight in weights.items()]
    with atomic_write(tokens / MIXTURE) as handle:
        handle.write("\n".join(["sources:", *(f"  {line}" for line in lines)]) + "\n")


def written_tokens(corpus: Corpus) -> dict[str, CorpusManifest]:
    """The manifests of the token files that are there and that the YAML file asks for, by their names."""
    return _manifests(corpus, _wanted_names(corpus))


def older_tokens(corpus: Corpus) -> dict[str, CorpusManifest]:
    """Those that earlier runs wrote here and that the YAML file does not ask for now: other sources, or no `tokenize:`."""
    there, wanted = _read_made_of(RunFolders(corpus.out).tokens).get("names", []), _wanted_names(corpus)
    return _manifests(corpus, [name for name in there if name not in wanted])


def _wanted_names(corpus: Corpus) -> list[str]:
    settings = corpus.file.tokenize
    if settings is None:
        return []
    return [source.name for source in corpus.file.sources] if settings.per_source else ["corpus"]


def _manifests(corpus: Corpus, names: Sequence[str]) -> dict[str, CorpusManifest]:
    prefixes = {name: RunFolders(corpus.out).tokens / name for name in names}
    return {name: read_manifest(prefix) for name, prefix in prefixes.items() if manifest_path(prefix).exists()}
