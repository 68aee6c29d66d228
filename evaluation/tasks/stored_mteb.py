"""Stored tasks as tasks of mteb: its evaluation, on rows from the cache folder instead of the data hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.clustering import AbsTaskClustering
from mteb.abstasks.pair_classification import AbsTaskPairClassification
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining

from evaluation.tasks.facts import TaskFacts
from evaluation.tasks.store import judgements, read_manifest, read_table
from mecellem.errors import UserError


class _Stored:
    """What every stored task does alike; in front of a class of mteb."""

    facts: TaskFacts
    folder: Path
    data_loaded: bool
    dataset: Any
    type_of_mteb: str  # TaskMetadata.type

    def __init__(self, folder: Path) -> None:
        stored = read_manifest(folder)
        if stored is None:
            raise UserError(f"{folder} is no stored task, or one of its files was changed: remove the folder and run again")
        self.folder, self.facts = folder, stored.facts
        self.metadata = TaskMetadata(
            name=self.facts.name,
            description=self.facts.description,
            dataset={"path": str(folder), "revision": self.facts.revision},
            type=self.type_of_mteb,  # type: ignore[arg-type]
            category="t2c" if self.facts.category in ("classification", "clustering") else "t2t",
            modalities=["text"],
            eval_splits=list(self.facts.splits),
            eval_langs=list(self.facts.languages),
            main_score=self.facts.main_metric,
        )
        super().__init__()

    def table(self, name: str) -> Dataset:
        """One of the task's tables as a data set."""
        return Dataset.from_list(read_table(self.folder, name))

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        """Read the task's rows, once; `num_proc` and the timer are mteb's and not needed."""
        if not self.data_loaded:
            self.dataset = self.read()
            self.data_loaded = True

    def read(self) -> Any:
        """`dataset` in the form that the class of mteb takes."""
        return DatasetDict({name: self.table(name) for name in self.facts.splits})


class StoredRetrieval(_Stored, AbsTaskRetrieval):
    """`dataset["default"]["test"]` holds `corpus`, `queries` and `relevant_docs`."""

    type_of_mteb = "Retrieval"

    def read(self) -> dict[str, dict[str, RetrievalSplitData]]:
        """All three tables."""
        data = RetrievalSplitData(
            corpus=self.table("corpus"),
            queries=self.table("queries"),
            relevant_docs=judgements(read_table(self.folder, "qrels")),
            top_ranked=None,
        )
        return {"default": dict.fromkeys(self.facts.splits, data)}


class StoredBitext(_Stored, AbsTaskBitextMining):
    """Each `sentence1` has its translation among all `sentence2`."""

    type_of_mteb = "BitextMining"


class StoredClassification(_Stored, AbsTaskClassification):
    """mteb's protocol: a logistic regression on 8 texts a class, ten times."""

    type_of_mteb = "Classification"

    def read(self) -> DatasetDict:
        """The texts to learn from are a split of their own."""
        return DatasetDict({name: self.table(name) for name in ("train", *self.facts.splits)})


class StoredClustering(_Stored, AbsTaskClustering):
    """mteb's protocol: k-means ten times, each on as many texts as there are, drawn with replacement."""

    type_of_mteb = "Clustering"
    max_fraction_of_documents_to_embed = None

    def read(self) -> DatasetDict:
        """Also sets how many texts are drawn."""
        data = DatasetDict({name: self.table(name) for name in self.facts.splits})
        self.max_documents_per_cluster = max(map(len, data.values()))
        return data


class StoredPairs(_Stored, AbsTaskPairClassification):
    """Average precision of similarities for label 1 against label 0."""

    type_of_mteb = "PairClassification"


CLASSES: dict[str, type[Any]] = {
    "retrieval": StoredRetrieval,
    "bitext": StoredBitext,
    "classification": StoredClassification,
    "clustering": StoredClustering,
    "pair": StoredPairs,
}


def open_stored(folder: Path, facts: TaskFacts) -> AbsTask:
    """The mteb task of a stored one, its rows still unread."""
    task = CLASSES[facts.category](folder)
    assert isinstance(task, AbsTask) and task.facts == facts  # type: ignore[attr-defined]
    return task
