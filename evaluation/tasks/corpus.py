"""The group `corpus`: retrieval from a split of a corpus folder, all of it built at once and kept by the split's content.

Queries and candidates are documents of that split only. Choices are by hash, so a corpus always gives the same tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import ValidationError

from evaluation.results import LeftOut, Record
from evaluation.tasks.content import Content, keep, retrieval_tables
from evaluation.tasks.pools import Pool, dictionary_examples, speeches, titled_texts
from evaluation.tasks.settings import CorpusTaskSettings
from evaluation.tasks.store import made_once, read_manifest, write_task
from mecellem.content import content_key, source_sha256
from preprocessing.corpus.document import Document
from preprocessing.corpus.read_split import read_split, split_sha256

INDEX = "index.json"
NOTHING = "corpus"  # the name under which a corpus without any title is left out
# How the queries and candidates of a source are found.
Find = Callable[[Sequence[Document]], Pool]

# The sample's sources: name of the task -> (source, description, how); of any other source: title -> text.
TASKS: dict[str, tuple[str, str, Find]] = {
    "ataturk_title": ("ataturk", "Atatürk: title to speech", speeches),
    "kenet_example": ("kenet", "KeNet: definition to example", dictionary_examples),
    "libreoffice_title": ("libreoffice", "LibreOffice help: title to page", titled_texts),
}
# The sample's treebank names the article that a passage was cut from, which says little about the passage.
WITHOUT_TASK = "treebank"


class Index(Record):
    """`index.json`: which tasks the split allowed, and which it did not."""

    tasks: list[str]
    left_out: list[LeftOut]


def tasks_of(documents: Sequence[Document]) -> dict[str, tuple[str, str, Find]]:
    """The tasks to try, by name: the sample's own if any of its sources is there, and one a source that has titles."""
    sources = {document.source for document in documents}
    own = {source for source, _, _ in TASKS.values()} | {WITHOUT_TASK}
    titled = sorted({document.source for document in documents if document.title.strip()} - own)
    general = {f"{source}_title": (source, f"{source}: title to text", titled_texts) for source in titled}
    return (TASKS if sources & own else {}) | general


def build_task(name: str, documents: Sequence[Document], settings: CorpusTaskSettings) -> Content | LeftOut:
    """One of the tasks `tasks_of` the split's documents, or the reason why it is left out."""
    source, description, find = tasks_of(documents)[name]
    own = [document for document in documents if document.source == source]
    if not own:
        return LeftOut(name=name, reason=f"the {settings.split} split has no documents of the source {source}")
    queries, candidates = find(own)
    if len(queries) < settings.min_queries:
        return LeftOut(
            name=name,
            reason=f"{len(queries)} queries in the {settings.split} split, at least {settings.min_queries} are asked for",
        )
    queries = keep(queries, settings.max_queries, settings.task_seed)
    others = {key: text for key, text in candidates.items() if key not in queries}
    distractors = keep(others, settings.max_documents - len(queries), settings.task_seed)
    chosen = {key: candidates[key] for key in sorted({*queries, *distractors})}
    return Content(
        name=name,
        description=description,
        category="retrieval",
        languages=("tur-Latn",),
        source=source,
        licence=", ".join(sorted({document.licence for document in own})),
        tables=retrieval_tables(queries, chosen, {key: key for key in queries}),
    )


def corpus_tasks(corpus: Path, cache: Path, settings: CorpusTaskSettings) -> tuple[dict[str, Path], list[LeftOut]]:
    """The folders of a corpus's stored tasks by the tasks' names, built where the cache has them not; and what is left out.

    Nothing but a reason is left out where no source of the split has titles or definitions to ask for.
    """
    parts = {
        "documents": split_sha256(corpus, settings.split),
        "settings": asdict(settings),
        "code": source_sha256("evaluation/tasks", "preprocessing/corpus"),
    }
    folder = cache / "tasks" / f"corpus-{content_key(parts)}"

    def make(temporary: Path) -> None:
        documents = read_split(corpus, settings.split)
        built = [build_task(name, documents, settings) for name in tasks_of(documents)]
        contents = [task for task in built if isinstance(task, Content)]
        left_out = [task for task in built if isinstance(task, LeftOut)]
        if not built:
            reason = f'no document of the {settings.split} split has a "title", so there is nothing to ask for'
            left_out.append(LeftOut(name=NOTHING, reason=reason))
        for number, content in enumerate(contents):
            (temporary / str(number)).mkdir()  # not its name: a source may be called "a/b"
            write_task(temporary / str(number), content)
        index = Index(tasks=[task.name for task in contents], left_out=left_out)
        (temporary / INDEX).write_text(index.model_dump_json(indent=1) + "\n", encoding="utf-8")

    made_once(folder, _read_index, make)
    index = _read_index(folder)
    assert index is not None, folder
    return {name: folder / str(number) for number, name in enumerate(index.tasks)}, index.left_out


def _read_index(folder: Path) -> Index | None:
    try:
        index = Index.model_validate_json((folder / INDEX).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return index if all(read_manifest(folder / str(number)) for number in range(len(index.tasks))) else None
