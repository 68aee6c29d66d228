"""`mecellem prepare calibrate`: what each filter keeps of your good text and of bad text made from it, and how its numbers lie.

Thresholds are only as good as the text that they were set on. This command takes text that you trust, makes bad text of
known kinds from it (`bad_text.py`), runs the quality, language and morphology stages on both, and writes tables and a figure.
The good text is measured a second time in lines of 80 letters, as old text files have it, after the repair stage. A last table
shows for semantic_dedup how many close pairs of the good text share wording, by length (`close_pairs.py`).
"""

from __future__ import annotations

import random
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mecellem.console import progress_bar, step
from mecellem.errors import UserError
from mecellem.files import atomic_folder, check_output_folder
from mecellem.flags import parse_and_call
from preprocessing.bad_text import BAD_KINDS, bare_words, make_bad
from preprocessing.close_pairs import MOST, PAIR_COLUMNS, LengthClass, measure_pairs, pair_rows
from preprocessing.jsonl import check_inputs, read_records
from preprocessing.stages.lexicon import AnalyserName

if TYPE_CHECKING:
    from datatrove.pipeline.filters.base_filter import BaseFilter

    from preprocessing.stages.morphology import MorphologyFilter
    from preprocessing.stages.quality import QualitySettings
    from preprocessing.stages.repair import Repair
    from preprocessing.stages.semantic_dedup import SemanticDedupSettings

STAGES = ("quality", "language", "morphology")
MORPHOLOGY = ("suffix_entropy", "lemma_diversity", "known_words", "turkish_letters")
WRAPPED = "wrapped: the good texts in lines of 80 letters"
_COLUMNS = 80
_PERCENTILES = (1, 5, 50, 95, 99)


@dataclass
class Group:
    """Texts of one good source or one bad kind, and what was found about them."""

    texts: list[str]
    kept: dict[str, int] = field(default_factory=dict)  # by stage, and by "all" for those that every stage keeps
    reasons: Counter[str] = field(default_factory=Counter)  # "stage: reason"
    measures: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Stages:
    """What is measured: the filters by name, the repair before them, if there is one, and settings of semantic_dedup."""

    filters: dict[str, BaseFilter]
    repair: Repair | None
    semantic: SemanticDedupSettings

    @property
    def morphology(self) -> MorphologyFilter:
        """The filter whose measures have curves."""
        stage: Any = self.filters["morphology"]
        return stage

    @property
    def quality(self) -> QualitySettings:
        """Thresholds of the quality rules."""
        stage: Any = self.filters["quality"]
        return stage.settings


def calibrate(
    input: tuple[Path, ...],
    out: Path = Path("calibration"),
    documents: int = 400,
    min_words: int = 100,
    seed: int = 0,
    corpus_yaml: Path | None = None,
    analyser: AnalyserName | None = None,
) -> None:
    """Measure the quality, language and morphology filters on text that you trust and on bad text made from it.

    Also counts its close pairs by length, and how many of them share wording, as semantic_dedup asks.

    Writes calibration.md (tables), calibration.json (the same, with every percentile) and morphology.png (ROC curves).

    Args:
        input: .jsonl, .jsonl.gz or .jsonl.zst files of good text, with the fields text and source.
        out: folder to write to.
        documents: documents to take of each source.
        min_words: shorter documents of a source are joined until they have so many words.
        seed: of the choice of documents and of the bad text.
        corpus_yaml: the YAML file of a run: its stages' settings are measured, and the defaults of those that it lacks.
        analyser: of the morphology stage, akana, zeyrek or zemberek; none: the YAML file's, else akana.
    """
    check_inputs(input, "--input")
    check_output_folder(out, "--out")
    if documents < 1 or min_words < 1:
        raise UserError("--documents and --min-words must be at least 1")
    missing = [name for name in ("datatrove", "akana", "matplotlib") if find_spec(name) is None]
    if missing:
        raise UserError(f"{', '.join(missing)} must be installed for this: `pip install -e .[preprocess]`")
    stages = make_stages(corpus_yaml, analyser)
    with step("Calibration of the filters", reads=input, writes=[out]) as console, atomic_folder(out) as folder:
        good = read_good(input, documents, min_words, seed)
        if not good:
            raise UserError(f"no source of --input has {min_words} words: give more text")
        groups = {f"good: {name}": Group(texts) for name, texts in good.items()}
        groups[WRAPPED] = Group([wrapped(text, stages.repair) for texts in good.values() for text in texts])
        groups |= {title: Group(texts) for title, texts in make_all_bad(good, stages.morphology, seed).items()}
        with progress_bar(transient=True) as bar:
            task = bar.add_task("measuring", total=len(groups))
            for group in groups.values():
                measure(group, stages)
                bar.advance(task)
        pairs = measure_pairs(input, stages.semantic, seed)
        report = _report(groups, min_words, stages) + "\n\n" + _pairs(pairs, stages.semantic)
        (folder / "calibration.md").write_text(report, "utf-8")
        _write_json(folder / "calibration.json", groups, pairs)
        _draw(folder / "morphology.png", groups, stages.morphology)
        console.print(report, markup=False)


def make_stages(corpus_yaml: Path | None = None, analyser: AnalyserName | None = None) -> Stages:
    """The stages with the settings of a YAML file and defaults for those that it lacks; it may leave out the repair.

    Raises `UserError` for a file that is not a corpus.
    """
    from preprocessing.pipeline.config import read_corpus
    from preprocessing.stages.language import LanguageFilter, LanguageSettings
    from preprocessing.stages.morphology import MorphologyFilter, MorphologySettings
    from preprocessing.stages.quality import QualityFilter, QualitySettings
    from preprocessing.stages.repair import Repair, RepairSettings
    from preprocessing.stages.semantic_dedup import SemanticDedupSettings

    given = {stage.name: stage.settings for stage in read_corpus(corpus_yaml).stages} if corpus_yaml else {}
    repair = given.get("repair", None if corpus_yaml else RepairSettings())
    # the cache is the run's: a calibration neither needs nor changes it
    morphology = given.get("morphology", MorphologySettings()).model_copy(update={"cache": None})
    if analyser:
        morphology = morphology.model_copy(update={"analyser": analyser})
    return Stages(
        filters={
            "quality": QualityFilter(given.get("quality", QualitySettings())),
            "language": LanguageFilter(given.get("language", LanguageSettings())),
            "morphology": MorphologyFilter(morphology),
        },
        repair=Repair(repair) if repair else None,
        semantic=given.get("semantic_dedup", SemanticDedupSettings()),
    )


def wrapped(text: str, repair: Repair | None) -> str:
    """A text in lines of 80 letters, then repaired: what a run's filters see of a text file with such lines."""
    lines = "\n".join("\n".join(textwrap.wrap(line, _COLUMNS)) for line in text.split("\n"))
    return repair.repair(lines)[0] if repair else lines


def read_good(paths: Iterable[Path], documents: int, min_words: int, seed: int) -> dict[str, list[str]]:
    """Source -> its chosen texts of at least `min_words` words, in a random order."""
    joined: dict[str, list[str]] = {}
    waiting: dict[str, list[str]] = {}
    for path in paths:
        for record in read_records(path):
            parts = waiting.setdefault(record.source, [])
            parts.append(record.text)
            if sum(len(part.split()) for part in parts) >= min_words:
                joined.setdefault(record.source, []).append("\n".join(parts))
                parts.clear()
    choose = random.Random(seed)
    return {source: choose.sample(texts, min(documents, len(texts))) for source, texts in sorted(joined.items())}


def make_all_bad(good: dict[str, list[str]], morphology: MorphologyFilter, seed: int) -> dict[str, list[str]]:
    """Bad kind -> one text for each good one."""
    texts = [text for source in good.values() for text in source]
    lexicon = morphology.lexicon
    vocabulary = bare_words(texts, lambda word: (found := lexicon.analyse(word)) is not None and not found.suffixes)
    return {f"bad: {kind}": make_bad(kind, texts, vocabulary, seed) for kind in BAD_KINDS}


def measure(group: Group, stages: Stages) -> None:
    """Run every stage on every text by itself, whatever the others said, and collect verdicts and measures."""
    from datatrove.data import Document

    group.kept = dict.fromkeys((*stages.filters, "all"), 0)
    for number, text in enumerate(group.texts):
        kept = True
        doc = Document(text, str(number))
        for name, stage in stages.filters.items():
            verdict = stage.filter(doc)
            passed, reason = verdict if isinstance(verdict, tuple) else (verdict, "")
            group.kept[name] += bool(passed)
            kept = kept and bool(passed)
            if not passed:
                group.reasons[f"{name}: {reason}"] += 1
        group.kept["all"] += kept
        for name, value in {**doc.metadata.get("measures", {}), **repetition_measures(text, stages.quality)}.items():
            group.measures.setdefault(name, []).append(float(value))


def repetition_measures(text: str, settings: QualitySettings) -> dict[str, float]:
    """What the rules on repetition compare with their thresholds; the filters leave their other measures themselves."""
    from datatrove.pipeline.filters import gopher_repetition_filter as gopher

    from preprocessing.turkish import tokens

    all_tokens = tokens(text)
    lines = [line for line in text.split("\n") if line.strip()]
    measures = {"duplicate line characters": gopher.find_duplicates(lines)[1] / len(text)}
    for n, _ in settings.top_ngrams:
        measures[f"top {n}-gram"] = gopher.find_top_duplicate(gopher.get_n_grams(all_tokens, n)) / len(text)
    for n, _ in settings.duplicate_ngrams:
        measures[f"duplicate {n}-grams"] = gopher.find_all_duplicate(all_tokens, n) / len(text)
    return measures


def area_under_roc(good: Sequence[float], bad: Sequence[float]) -> float:
    """Probability that a good text has the larger value; ties count half. 0.5: the measure does not tell them apart."""
    if not len(good) or not len(bad):
        return float("nan")
    values = np.concatenate([good, bad])
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[: len(good)].sum() - len(good) * (len(good) + 1) / 2) / (len(good) * len(bad)))


def _all_good(groups: dict[str, Group], name: str) -> list[float]:
    return [value for title, group in groups.items() if title.startswith("good: ") for value in group.measures.get(name, [])]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _report(groups: dict[str, Group], min_words: int, stages: Stages) -> str:
    bad = {title: group for title, group in groups.items() if title.startswith("bad: ")}
    kept = [
        (
            title,
            len(group.texts),
            *(f"{100 * group.kept[stage] / len(group.texts):.1f}%" for stage in (*STAGES, "all")),
            ", ".join(f"{reason} {count}" for reason, count in group.reasons.most_common(3)),
        )
        for title, group in groups.items()
    ]
    names = list(dict.fromkeys(name for group in groups.values() for name in group.measures))
    percentiles = [(name, *_quantiles(_all_good(groups, name)), *_medians(bad, name)) for name in names]
    areas = [
        (title, *(f"{area_under_roc(_all_good(groups, name), group.measures.get(name, [np.nan])):.3f}" for name in MORPHOLOGY))
        for title, group in bad.items()
    ]
    return "\n\n".join(
        [
            f"Good documents of less than {min_words} words were joined. Each stage saw every document.",
            "Kept, and the most frequent reasons:",
            _table(("text", "documents", *STAGES, "all three", "dropped because"), kept),
            "Percentiles over good text, and medians of bad text:",
            _table(("measure", *(f"{p}%" for p in _PERCENTILES), *(title.removeprefix("bad: ") for title in bad)), percentiles),
            "Area under the ROC curve of good against bad text (0.5: not told apart; below: bad text has more of it):",
            _table(("text", *MORPHOLOGY), areas),
            _bits(groups, stages.morphology),
        ]
    )


def _bits(groups: dict[str, Group], stage: MorphologyFilter) -> str:
    """The suffix entropy of good text in bits, which is what `reference_entropy` is set from."""
    reference = stage.settings.reference_entropy
    medians = {
        title.removeprefix("good: "): reference * float(np.median(group.measures["suffix_entropy"]))
        for title, group in groups.items()
        if title.startswith("good: ") and "suffix_entropy" in group.measures
    }
    if not medians:
        return "No good text was long enough for the suffix entropy."
    rows = [(name, f"{bits:.2f}") for name, bits in medians.items()]
    return (
        f"Suffix entropy of good text in bits, with {stage.settings.analyser} (medians). `reference_entropy` is {reference:g}; "
        f"the median of these sources is {np.median(list(medians.values())):.2f}:\n\n" + _table(("text", "bits"), rows)
    )


def _pairs(classes: list[LengthClass], settings: SemanticDedupSettings) -> str:
    """The table of close pairs, and what it is of."""
    return (
        f"Close pairs of documents as they are, at most {MOST:,} of each length, and how many of these share wording (their "
        f"runs of {settings.run_words} words are as alike as min_overlap); documents that go at {settings.threshold:g}:\n\n"
        + _table(PAIR_COLUMNS, pair_rows(classes))
    )


def _quantiles(values: Sequence[float]) -> list[str]:
    if not len(values):
        return ["-"] * len(_PERCENTILES)  # no good text was long enough to be measured so
    return [f"{value:.3g}" for value in np.percentile(values, _PERCENTILES)]


def _medians(bad: dict[str, Group], name: str) -> list[str]:
    return [f"{np.median(group.measures[name]):.3g}" if name in group.measures else "-" for group in bad.values()]


def _write_json(path: Path, groups: dict[str, Group], pairs: list[LengthClass]) -> None:
    import orjson

    content: dict[str, Any] = {
        title: {
            "documents": len(group.texts),
            "kept": group.kept,
            "reasons": group.reasons,
            "percentiles": {name: np.percentile(values, range(101)).tolist() for name, values in group.measures.items()},
        }
        for title, group in groups.items()
    }
    content["close pairs"] = [asdict(each) for each in pairs]
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def _curve(good: NDArray[np.float64], bad: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(share of bad text kept, share of good text kept) at every threshold."""
    thresholds = np.concatenate([[-np.inf], np.unique(np.concatenate([good, bad])), [np.inf]])

    def share(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1 - np.searchsorted(np.sort(values), thresholds, side="left") / len(values)

    return share(bad), share(good)


def _draw(path: Path, groups: dict[str, Group], stage: MorphologyFilter) -> None:
    """ROC curves of the morphological measures, one line a bad kind, with the points of the settings' thresholds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 4.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(MORPHOLOGY), sharey=True), MORPHOLOGY, strict=True):
        good = np.array(_all_good(groups, name))
        threshold = getattr(stage.settings, f"min_{name}")
        for title, group in groups.items():
            if title.startswith("bad: ") and name in group.measures:
                bad = np.array(group.measures[name])
                (line,) = axes.plot(*_curve(good, bad), label=title.removeprefix("bad: "))
                axes.plot((bad >= threshold).mean(), (good >= threshold).mean(), "o", color=line.get_color())
        axes.set_title(f"{name.replace('_', ' ')} (points: at least {threshold})")
        axes.set_xlabel("bad text kept")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("good text kept")
    figure.axes[-1].legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str]) -> int:
    """Parse the flags of `mecellem prepare calibrate` and run it."""
    parse_and_call(calibrate, argv, prog="mecellem prepare calibrate")
    return 0
