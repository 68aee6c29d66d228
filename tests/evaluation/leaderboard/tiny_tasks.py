"""mteb tasks of a few texts, found and opened as `evaluation.tasks` does it."""

from __future__ import annotations

from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskBitextMining, AbsTaskClassification, AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from evaluation.tasks.facts import Found, TaskFacts

LAW = [
    ("kira sözleşmesi feshi", "Kira sözleşmesinin feshi için üç ay önce yazılı bildirim gerekir ve süre ayın sonunda biter."),
    ("bütçe oylaması", "Belediye meclisi yıllık bütçeyi oy çokluğuyla kabul etti ve karar ilan edildi."),
    ("yürürlükten kaldırma", "Yönetmeliğin on ikinci maddesi yürürlükten kaldırılmıştır, eski hükümler uygulanmaz."),
    ("iptal davası", "İptal davası açma süresi ilan tarihinden başlayarak altmış gündür."),
    ("ışık hızı", "Işık hızı saniyede yaklaşık üç yüz bin kilometredir ve hiçbir cisim onu aşamaz."),
    ("ılık çay", "Ilık çay içmek isteyenler demliği ocaktan biraz erken indirir."),
]


def metadata(name: str, kind: str, metric: str) -> TaskMetadata:
    return TaskMetadata(
        name=name, description=f"{name} of the tests.", reference=None, type=kind, category="t2t", modalities=["text"],
        eval_splits=["test"], eval_langs=["tur-Latn"], main_score=metric, date=("2020-01-01", "2020-12-31"),
        domains=["Legal"], task_subtypes=[], license="cc0-1.0", annotations_creators="derived", dialect=[],
        sample_creation="found", bibtex_citation="", dataset={"path": "tests/tiny", "revision": "1"},
    )  # fmt: skip


class TinyRetrieval(AbsTaskRetrieval):
    """Title -> text. `documents` and `judgements` may be replaced to break it."""

    metadata = metadata("TinyRetrieval", "Retrieval", "ndcg_at_10")
    loads = 0

    def __init__(self, documents: list[tuple[str, str]] | None = None, judgements: Any = None, queries: Any = None) -> None:
        super().__init__()
        self.documents = documents or [(f"d{number}", text) for number, (_, text) in enumerate(LAW)]
        self.judged = judgements or {f"q{number}": {f"d{number}": 1} for number in range(len(LAW))}
        self.asked = queries or [(f"q{number}", title) for number, (title, _) in enumerate(LAW)]

    def load_data(self, **_: Any) -> None:
        type(self).loads += 1
        rows = [[{"id": identity, "text": text} for identity, text in part] for part in (self.documents, self.asked)]
        data = RetrievalSplitData(
            corpus=Dataset.from_list(rows[0]), queries=Dataset.from_list(rows[1]), relevant_docs=self.judged, top_ranked=None
        )
        self.dataset = {"default": {"test": data}}
        self.data_loaded = True


class TinyBitext(AbsTaskBitextMining):
    """A text and the same text with another ending."""

    metadata = metadata("TinyBitext", "BitextMining", "accuracy")

    def load_data(self, **_: Any) -> None:
        rows = {"sentence1": [text for _, text in LAW], "sentence2": [f"{text} Böyle biter." for _, text in LAW]}
        self.dataset = DatasetDict({"test": Dataset.from_dict(rows)})
        self.data_loaded = True


class TinyClassification(AbsTaskClassification):
    """Law or not."""

    metadata = metadata("TinyClassification", "Classification", "accuracy")
    n_experiments = 2
    samples_per_label = 2

    def load_data(self, **_: Any) -> None:
        rows = Dataset.from_dict({"text": [text for _, text in LAW], "label": [1, 1, 1, 1, 0, 0]})
        self.dataset = DatasetDict({"train": rows, "test": rows})
        self.data_loaded = True


class TinySts(AbsTaskSTS):
    """Pairs of one and the same text: no system can rank them."""

    metadata = metadata("TinySts", "STS", "cosine_spearman")
    min_score, max_score = 0, 5

    def load_data(self, **_: Any) -> None:
        texts = [LAW[0][1]] * 4
        rows = Dataset.from_dict({"sentence1": texts, "sentence2": texts, "score": [0.0, 1.0, 3.0, 5.0]})
        self.dataset = DatasetDict({"test": rows})
        self.data_loaded = True


KINDS = {"retrieval": TinyRetrieval, "bitext": TinyBitext, "classification": TinyClassification, "sts": TinySts}


def facts_of(task: Any, category: str, revision: str = "1") -> TaskFacts:
    return TaskFacts(
        name=task.metadata.name, description="", category=category, main_metric=task.metadata.main_score, revision=revision,
        splits=("test",), subset="default", languages=("tur-Latn",), items=None, documents=None, source="tests",
        licence="cc0-1.0",
    )  # fmt: skip


class TinyTasks:
    """Called and used as `evaluation.tasks.Tasks`; `opened` counts tasks that something had to be scored on."""

    parts: dict[str, Any] = {}  # noqa: RUF012 (replaced by `broken`)
    revision = "1"
    opened = 0

    def __init__(self, names, *, corpus=None, cache=None, settings=None) -> None:
        self.names = {KINDS[name].metadata.name: name for name in names}
        self.found = Found(tuple(facts_of(KINDS[name], name, self.revision) for name in names), ())

    def open(self, facts: TaskFacts) -> Any:
        type(self).opened += 1
        name = self.names[facts.name]
        return KINDS[name](**(self.parts if name == "retrieval" else {}))


def broken(**parts: Any) -> type[TinyTasks]:
    """Tasks whose retrieval has other `documents`, `queries` or `judgements`."""
    return type("BrokenTasks", (TinyTasks,), {"parts": parts})
