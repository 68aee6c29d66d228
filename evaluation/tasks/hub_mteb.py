"""Tasks of the hub as tasks of mteb, their data read from a folder that has the files of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetsError
from mteb import get_task
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy
from mteb.abstasks.pair_classification import AbsTaskPairClassification
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.abstasks.text.bitext_mining import AbsTaskBitextMining

from evaluation.tasks.facts import TaskFacts
from evaluation.tasks.hub_tasks import HubTask
from mecellem.errors import UserError

JUDGEMENTS = 2048  # that the fork's sampled tasks keep
TEST_SHARE = 0.2
SHUFFLE_SEED = 42
COLUMNS = {
    "bitext": ("sentence1", "sentence2"),
    "classification": ("text", "label"),
    "clustering": ("sentences", "labels"),
    "sts": ("sentence1", "sentence2", "score"),
}
TYPES = {
    "bitext": "BitextMining",
    "classification": "Classification",
    "clustering": "Clustering",
    "pair": "PairClassification",
    "retrieval": "Retrieval",
    "sts": "STS",
}


class _Hub:
    """What every task that is defined here does alike; in front of a class of mteb."""

    task: HubTask
    data_loaded: bool
    dataset: Any
    columns: tuple[str, ...] = ()

    def __init__(self, task: HubTask, folder: Path, facts: TaskFacts) -> None:
        self.task, self.facts, self.folder = task, facts, folder
        self.metadata = TaskMetadata(
            name=task.name,
            description=facts.description,
            dataset={"path": str(folder), "revision": facts.revision},
            type=TYPES[task.category],  # type: ignore[arg-type]
            category="t2c" if task.category in ("classification", "clustering") else "t2t",
            modalities=["text"],
            eval_splits=list(task.splits),
            eval_langs=list(task.languages),
            main_score=task.main_metric,
        )
        self.columns = COLUMNS.get(task.category, ())
        super().__init__()

    def load_data(self, num_proc: int | None = None, **others: Any) -> None:
        """As mteb loads, once; data without the columns or splits that the task needs are a `UserError` that names them."""
        if self.data_loaded:
            return
        try:
            super().load_data(num_proc=num_proc, **others)  # type: ignore[misc]
        except (ValueError, KeyError, OSError, DatasetsError) as error:
            raise UserError(
                f"{self.task.name}: {self.task.repo} in {self.folder} cannot be read as this task: {error}"
            ) from error
        if self.columns:
            self.check()

    def check(self) -> None:
        """Splits and columns."""
        for split in self.task.splits:
            if split not in self.dataset:
                raise self.unlike(f"no split {split!r}, but {', '.join(map(repr, self.dataset))}")
            missing = set(self.columns) - set(self.dataset[split].column_names)
            if missing:
                raise self.unlike(f"no column {', '.join(sorted(missing))}, but {', '.join(self.dataset[split].column_names)}")

    def unlike(self, what: str) -> UserError:
        """The sentence for a data set that is not what the task's authors describe."""
        return UserError(
            f"{self.task.name}: {self.task.repo} has {what}: this commit ({self.facts.revision[:7]}) of the data set does not "
            "fit the task; remove its folder from the cache to fetch the newest one"
        )


class HubBitext(_Hub, AbsTaskBitextMining):
    """Each `sentence1` has its translation among all `sentence2`."""


class HubClassification(_Hub, AbsTaskClassification):
    """Learned on the split `train`."""


class HalvedClassification(_Hub, AbsTaskClassification):
    """Data with one split: four fifths of it are learned from, stratified by label as the authors' fork does."""

    def dataset_transform(self, num_proc: int | None = None, **_: Any) -> None:
        """Divide the split `test`."""
        rows = self.dataset["test"].class_encode_column("label")
        self.dataset = rows.train_test_split(test_size=TEST_SHARE, seed=self.seed, stratify_by_column="label")


class HubClustering(_Hub, AbsTaskClusteringLegacy):
    """Every row has texts and their labels, and is clustered by itself."""


class HubPairs(_Hub, AbsTaskPairClassification):
    """Premise and hypothesis: entailed (1) or not (0)."""

    input1_column_name = "sent1"
    input2_column_name = "sent2"

    def __init__(self, task: HubTask, folder: Path, facts: TaskFacts) -> None:
        super().__init__(task, folder, facts)
        self.columns = ("sent1", "sent2", "labels")


class HubSimilarity(_Hub, AbsTaskSTS):
    """Similarities from 0 to 5."""


class HubRetrieval(_Hub, AbsTaskRetrieval):
    """BEIR's three parts in the configs `corpus`, `queries` and `default`; a title stands in front of its text."""

    def __init__(self, task: HubTask, folder: Path, facts: TaskFacts) -> None:
        super().__init__(task, folder, facts)
        self.ignore_identical_ids = task.ignore_identical_ids


class SampledRetrieval(HubRetrieval):
    """Retrieval on a sample, exactly as the authors' fork makes it, so that scores can be laid beside theirs.

    2,048 judgements are drawn; their documents are all the candidates there are, without titles. Of several judgements of one
    query the last drawn counts, at whatever relevance it has: the other documents stay as distractors. Scores are therefore
    no figures for the original data sets (which is why NFCorpus and SCIDOCS are low for every model).
    """

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        """Read the three configs and draw."""
        if self.data_loaded:
            return
        path = str(self.folder)
        corpus, queries = (self._split(load_dataset(path, name, num_proc=num_proc), name) for name in ("corpus", "queries"))
        judged = load_dataset(path, "default", num_proc=num_proc)
        self.dataset = {"default": {}}
        for split in self.task.splits:
            if split not in judged:
                raise self.unlike(f"no split {split!r} of judgements, but {', '.join(map(repr, judged))}")
            rows = judged[split].shuffle(seed=SHUFFLE_SEED)
            rows = rows.select(range(min(JUDGEMENTS, len(rows))))
            relevant = {
                str(query): {str(document): 1} for query, document in zip(rows["query-id"], rows["corpus-id"], strict=True)
            }
            self.dataset["default"][split] = RetrievalSplitData(
                corpus=_texts(corpus, {str(key) for key in rows["corpus-id"]}),
                queries=_texts(queries, set(relevant)),
                relevant_docs=relevant,
                top_ranked=None,
            )
        self.data_loaded = True

    def _split(self, data: DatasetDict, name: str) -> Dataset:
        """The split of a config that is called like it, or its only one."""
        if name in data or len(data) == 1:
            return data.get(name) or next(iter(data.values()))
        raise self.unlike(f"in the config {name!r} the splits {', '.join(map(repr, data))}")


def _texts(rows: Dataset, ids: set[str]) -> Dataset:
    """Id and text of the rows that are asked for."""
    wanted = [(str(key), text) for key, text in zip(rows["_id"], rows["text"], strict=True) if str(key) in ids]
    return Dataset.from_dict({"id": [key for key, _ in wanted], "text": [text for _, text in wanted]})


CLASSES: dict[tuple[str, str], type[Any]] = {
    ("bitext", "plain"): HubBitext,
    ("classification", "plain"): HubClassification,
    ("classification", "halves"): HalvedClassification,
    ("clustering", "rows"): HubClustering,
    ("pair", "sent"): HubPairs,
    ("sts", "plain"): HubSimilarity,
    ("retrieval", "plain"): HubRetrieval,
    ("retrieval", "sampled"): SampledRetrieval,
}


def open_hub(task: HubTask, folder: Path, facts: TaskFacts) -> AbsTask:
    """The mteb task, its data still unread."""
    if task.form != "mteb":
        opened: AbsTask = CLASSES[task.category, task.form](task, folder, facts)
        return opened
    found = get_task(task.mteb_name or task.name, languages=["tur"])
    data = {**found.metadata.dataset, "path": str(folder), "revision": facts.revision}
    found.metadata = found.metadata.model_copy(update={"dataset": data, "name": task.name})
    found.filter_eval_splits(list(task.splits))
    found.facts = facts  # type: ignore[attr-defined]
    return found
