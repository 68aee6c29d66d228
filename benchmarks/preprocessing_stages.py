"""Speed of the stages that look at one document at a time, and of what they stand in for, on the real Turkish sample.

    python benchmarks/preprocessing_stages.py

One process, one thread, CPU time; contenders take turns, and a figure is the median of the rounds. The texts are the
sample's, joined to documents of 300 words and more. The sample corpus is fetched on the first run. datatrove's own words
for Turkish need spaCy (`pip install spacy`); without it they are left out, and the page says so.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from common import ROOT, header, sample_text
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from preprocessing.calibrate import read_good
from preprocessing.stages.decontaminate import DecontaminateFilter, DecontaminateSettings
from preprocessing.stages.language import LanguageFilter, LanguageSettings
from preprocessing.stages.lexicon import AnalyserName, load_analyser
from preprocessing.stages.morphology import MorphologyFilter, MorphologySettings
from preprocessing.stages.pii import PiiMask, PiiSettings
from preprocessing.stages.quality import QualityFilter, QualitySettings
from preprocessing.stages.repair import Repair, RepairSettings
from preprocessing.turkish import fold, tokens, words

RESULT = ROOT / "benchmarks" / "results" / "preprocessing_stages.md"


@dataclass(frozen=True, slots=True)
class Speed:
    """Median over the rounds."""

    seconds: float
    megabytes: float
    words: int

    def row(self, name: str) -> str:
        """A line of the table."""
        return f"| {name} | {self.megabytes / self.seconds:.2f} | {self.words / self.seconds:,.0f} |"


def step_runner(make: Callable[[], PipelineStep]) -> Callable[[Sequence[str]], None]:
    """Runs a stage as a task does: made anew, over all documents."""

    def run(texts: Sequence[str]) -> None:
        documents = (Document(text, str(number)) for number, text in enumerate(texts))
        for _ in make().run(documents):
            pass

    return run


def each(function: Callable[[str], object]) -> Callable[[Sequence[str]], None]:
    """Calls a function on every text."""

    def run(texts: Sequence[str]) -> None:
        for text in texts:
            function(text)

    return run


def every_word(name: AnalyserName) -> Callable[[Sequence[str]], None]:
    """An analyser asked for every word of the text, which is what the lexicon spares."""
    analyse = load_analyser(name)

    def run(texts: Sequence[str]) -> None:
        for text in texts:
            for word in words(fold(text)):
                analyse(word)

    return run


def measure(runners: dict[str, Callable[[Sequence[str]], None]], texts: Sequence[str], rounds: int) -> dict[str, Speed]:
    """The contenders in turns, `rounds` times each after one that is not counted."""
    size, count = sum(len(text.encode()) for text in texts) / 1e6, sum(len(words(text)) for text in texts)
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(rounds + 1):
        for name, run in runners.items():
            started = time.process_time()
            run(texts)
            if turn:
                seconds[name].append(time.process_time() - started)
    return {name: Speed(statistics.median(values), size, count) for name, values in seconds.items()}


def spacy_words() -> Callable[[str], object]:
    """Datatrove's own tokenizer for Turkish."""
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    return load_word_tokenizer("tur_Latn").word_tokenize


def benchmark(rounds: int = 3, documents: int = 1500, slow_documents: int = 30) -> None:
    """Measure all stages and write benchmarks/results/preprocessing_stages.md.

    Args:
        rounds: counted rounds.
        documents: documents of each source; there are three.
        slow_documents: documents for what is too slow for all of them.
    """
    path = sample_text() / "train.jsonl.zst"
    texts = [text for source in read_good([path], documents, 300, 0).values() for text in source]
    held_out = (sample_text() / "test.jsonl.zst",)
    stages = {
        "repair": step_runner(lambda: Repair(RepairSettings())),
        "quality": step_runner(lambda: QualityFilter(QualitySettings())),
        "language": step_runner(lambda: LanguageFilter(LanguageSettings())),
        "morphology (akana)": step_runner(lambda: MorphologyFilter(MorphologySettings())),
        "pii": step_runner(lambda: PiiMask(PiiSettings())),
        "decontaminate (sample's test split)": step_runner(
            lambda: DecontaminateFilter(DecontaminateSettings(sets={"test": held_out}))
        ),
        "words and signs by one regular expression": each(tokens),
    }
    few = texts[:: max(1, len(texts) // slow_documents)]
    spacy = {"datatrove's spaCy words": each(spacy_words())} if find_spec("spacy") else {}
    slow = spacy | {
        "words and signs by one regular expression": each(tokens),
        "akana, every word": every_word("akana"),
        "zeyrek, every word": every_word("zeyrek"),
    }
    lines = [
        "# Speed of the stages",
        "",
        header(("datatrove", "akana", "zeyrek")),
        "",
        f"One thread, {len(texts):,} documents, median of {rounds} rounds.",
        "",
        *table(measure(stages, texts, rounds)),
        "",
        f"What the stages do without, on {len(few)} of the documents{'' if spacy else ' (spaCy is not installed)'}:",
        "",
        *table(measure(slow, few, 1)),
    ]
    with atomic_write(RESULT) as handle:
        handle.write("\n".join(lines) + "\n")
    print("\n".join(lines))


def table(speeds: dict[str, Speed]) -> Iterable[str]:
    """The lines of a Markdown table."""
    yield "| stage | MB per CPU second | words per CPU second |"
    yield "| --- | --- | --- |"
    yield from (speed.row(name) for name, speed in speeds.items())


def main() -> None:
    """Parse the flags and run."""
    parse_and_call(benchmark, sys.argv[1:], prog="benchmarks/preprocessing_stages.py")


if __name__ == "__main__":
    main()
