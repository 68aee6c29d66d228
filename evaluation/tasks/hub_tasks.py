"""Turkish tasks whose data are on the hub, as their authors define them; what a look-up needs, without mteb.

`tr-mteb`: the 26 tasks of the benchmark `MTEB(Turkish)` in the authors' fork of mteb (github.com/selmanbaysan/mteb_tr), with
the hub ids, splits and metrics written there. Four of them are mteb's own; the other data sets lie under `trmteb/` and have
not been read from here: their columns are those that the fork's code asks for.

`mecellem-legal`: the Mursit models' three legal tasks. The hub ids, the names and that all is in the split `train` are from a
published evaluation script; columns and sizes of contracts (272 documents) and of rulings (23,587 documents) from their data
set cards. The card of the case law could not be read.

`mizan`: the 14 tasks of mteb that the same script averages, each on its test split where it has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evaluation.tasks.facts import Category

# mteb: the class that mteb has. plain: the data as mteb expects them. sampled: retrieval on 2,048 judgements. halves: learned
# and tested on parts of the split `test`. rows: clustering of the texts of a row. sent: pairs in the columns sent1 and sent2.
Form = Literal["mteb", "plain", "sampled", "halves", "rows", "sent"]

_TURKISH = ("tur-Latn",)


@dataclass(frozen=True, slots=True)
class HubTask:
    """One task. `configs`: the parts of the data set that are fetched, none: all of it; `mteb_name`: where mteb's differs."""

    name: str
    category: Category
    form: Form
    repo: str
    main_metric: str
    revision: str = "main"
    splits: tuple[str, ...] = ("test",)
    subset: str = "default"
    configs: tuple[str, ...] = ()
    mteb_name: str = ""
    ignore_identical_ids: bool = False
    licence: str = "not specified"
    description: str = ""

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages of the texts."""
        return ("eng-Latn", "tur-Latn") if self.category == "bitext" else _TURKISH


def _retrieval(name: str, data: str, form: Form = "sampled", identical: bool = False) -> HubTask:
    return HubTask(name, "retrieval", form, f"trmteb/{data}", "ndcg_at_10", ignore_identical_ids=identical)


def _classification(name: str, data: str, form: Form = "plain") -> HubTask:
    return HubTask(name, "classification", form, f"trmteb/{data}", "accuracy")


def _own(
    name: str,
    category: Category,
    metric: str,
    repo: str,
    revision: str,
    splits: tuple[str, ...] = ("test",),
    subset: str = "default",
    mteb_name: str = "",
) -> HubTask:
    """A task of mteb; of a multilingual one only the Turkish part is fetched."""
    parts = (f"{subset}-corpus", f"{subset}-queries", f"{subset}-qrels") if category == "retrieval" else (subset,)
    return HubTask(
        name, category, "mteb", repo, metric, revision, splits, subset, () if subset == "default" else parts, mteb_name
    )  # fmt: skip


_MOVIE = _own(
    "TurkishMovieSentimentClassification",
    "classification",
    "accuracy",
    "asparius/Turkish-Movie-Review",
    "409a4415cce5f6bcfca6d5f3ca3c408211ca00b3",
)
_PRODUCT = _own(
    "TurkishProductSentimentClassification",
    "classification",
    "accuracy",
    "asparius/Turkish-Product-Review",
    "ad861e463abda351ff65ca5ac0cc5985afe9eb99",
)
_XNLI = ("mteb/xnli", "09698e0180d87dc247ca447d3a1248b931ac0cdb")
_XQUAD = _own(
    "XQuADRetrieval",
    "retrieval",
    "ndcg_at_10",
    "mteb/XQuADRetrieval",
    "194842d6a49baddf6cd3f4d5130ab3c7756268d2",
    ("validation",),
    "tr",
)
_SIB200 = ("mteb/sib200", "a74d7350ea12af010cfb1c21e34f1f81fd2e615b")

TR_MTEB = (
    HubTask("WMT16BitextMining", "bitext", "plain", "trmteb/wmt16_en_tr", "f1"),
    _MOVIE,
    _classification("TurkishOffensiveLanguageClassification", "offenseval"),
    _PRODUCT,
    _classification("TurkishNewsCategoryClassification", "news-cat"),
    _classification("Turkish75NewsClassification", "75haber", "halves"),
    _classification("TSTimelineNewsCategoryClassification", "ts_timeline_news_category"),
    _classification("THYSentimentClassification", "thy_sa", "halves"),
    _classification("TurkishIronyClassification", "irony-tr", "halves"),
    HubTask("TurkishAbstractCorpusClustering", "clustering", "rows", "trmteb/ts_abstract_corpus_p2p", "v_measure"),
    HubTask("TurkishColumnWritingClustering", "clustering", "rows", "trmteb/630koseyazisi_p2p", "v_measure"),
    HubTask("MnliTr", "pair", "sent", "trmteb/multinli_tr", "max_ap", splits=("test_matched", "test_mismatched")),
    HubTask("SnliTr", "pair", "sent", "trmteb/snli_tr", "max_ap"),
    _own("XNLI", "pair", "max_ap", *_XNLI, ("test", "validation"), "tr"),
    HubTask("STSbTR", "sts", "plain", "trmteb/stsb-tr", "cosine_spearman"),
    _retrieval("SquadTRRetrieval", "squad-tr", "plain"),
    _retrieval("TQuadRetrieval", "tquad", "plain"),
    _XQUAD,
    _retrieval("MSMarcoTRRetrieval", "msmarco-tr"),
    _retrieval("NFCorpusTR", "nfcorpus-tr"),
    _retrieval("ArguAnaTR", "arguana-tr", "plain", identical=True),
    _retrieval("CQADupstackGamingRetrievalTR", "cqadupstack-gaming-tr"),
    _retrieval("FiQA2018TR", "fiqa-tr", identical=True),
    _retrieval("QuoraRetrievalTR", "quora-tr", identical=True),
    _retrieval("SCIDOCSTR", "scidocs-tr"),
    _retrieval("SciFactTR", "scifact-tr"),
)


def _legal(name: str, data: str, description: str, licence: str) -> HubTask:
    return HubTask(
        name,
        "retrieval",
        "plain",
        f"newmindai/{data}",
        "ndcg_at_10",
        splits=("train",),
        licence=licence,
        description=description,
    )


MECELLEM_LEGAL = (
    _legal("TurkishLegalQA", "contract-retrieval", "contracts: question to clause", "apache-2.0"),
    _legal("TurkishTaxRulings", "regulation-retrieval", "regulation: question to tax ruling", "cc-by-4.0"),
    _legal("TurkishCourtOfCassation", "caselaw-retrieval", "case law: question to decision", "not specified"),
)

MIZAN = (
    _own(
        "MassiveIntentClassification",
        "classification",
        "accuracy",
        "mteb/amazon_massive_intent",
        "4672e20407010da34463acc759c162ca9734bca6",
        subset="tr",
    ),
    _own(
        "MassiveScenarioClassification",
        "classification",
        "accuracy",
        "mteb/amazon_massive_scenario",
        "fad2c6e8459f9e1c45d9315f4953d921437d70f8",
        subset="tr",
    ),
    _own(
        "MultilingualSentimentClassification",
        "classification",
        "accuracy",
        "mteb/multilingual-sentiment-classification",
        "2b9b4d10fc589af67794141fe8cbd3739de1eb33",
        subset="tur",
    ),
    _own("SIB200Classification", "classification", "accuracy", *_SIB200, subset="tur_Latn"),
    _MOVIE,
    _PRODUCT,
    _own("SIB200ClusteringS2S", "clustering", "v_measure", *_SIB200, subset="tur_Latn"),
    _own("XNLI.test", "pair", "max_ap", *_XNLI, subset="tr", mteb_name="XNLI"),
    _own("XNLIV2", "pair", "max_ap", "mteb/XNLIV2", "06108371a8bceee5024a527c4330baa29eb5a013", subset="turkish"),
    _own(
        "TurHistQuadRetrieval",
        "retrieval",
        "ndcg_at_10",
        "asparius/TurHistQuAD",
        "2a2b8ddecf1189f530676244d0751e1d0a569e03",
    ),
    _own(
        "WebFAQRetrieval",
        "retrieval",
        "ndcg_at_10",
        "mteb/WebFAQRetrieval",
        "f64f483ad0f31d2e78209d524c14a4a867965959",
        subset="tur",
    ),
    _XQUAD,
    _own(
        "MKQARetrieval",
        "retrieval",
        "ndcg_at_10",
        "mteb/MKQARetrieval",
        "3e069e7a30079d214a859741f5a0de75cf878867",
        ("train",),
        "tr",
    ),
    _own(
        "STS22.v2",
        "sts",
        "cosine_spearman",
        "mteb/sts22-crosslingual-sts",
        "d31f33a128469b20e357535c39b82fb3c3f6f2bd",
        subset="tr",
    ),
)

HUB_GROUPS = {"tr-mteb": TR_MTEB, "mecellem-legal": MECELLEM_LEGAL, "mizan": MIZAN}
HUB = {task.name: task for group in HUB_GROUPS.values() for task in group}
