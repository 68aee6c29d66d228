"""The corpus by language: what is learned from, and what is held out to measure on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mecellem.console import console
from mecellem.errors import UserError
from preprocessing.corpus.read_split import split_path
from preprocessing.graft.settings import Language, read_languages, with_shares
from preprocessing.jsonl import SUFFIXES, Record, check_inputs, read_records
from preprocessing.tokenizers.sample import plan_sample, read_sample

_HELD_OUT = 20  # every so manieth document of a source, where the corpus has no test split
_EXCERPT = 1000  # characters that are identified at once: single short texts are uncertain
_EXCERPTS = 20  # of a source
_MEASURED = 20_000_000  # bytes of held-out text of a language: they are held in memory


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files of a run: to learn from, and to measure on (none: a part of the former is held out)."""

    train: tuple[Path, ...]
    test: tuple[Path, ...]

    @property
    def all(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return self.train + self.test


@dataclass(slots=True)
class HeldOut:
    """Texts of one language to measure on, by source."""

    language: str
    texts: dict[str, list[str]] = field(default_factory=dict)
    size: int = 0

    def add(self, source: str, text: str) -> None:
        """Keep a text while there is room and it has a word."""
        if text.strip() and self.size < _MEASURED:
            self.texts.setdefault(source, []).append(text)
            self.size += len(text.encode())


class Identifier:
    """py3langid, as the language stage uses it; loaded when the first text comes."""

    @cached_property
    def _identify(self) -> Callable[[str], tuple[str, float]]:
        from preprocessing.stages.language import LanguageFilter, LanguageSettings

        return LanguageFilter(LanguageSettings()).identify

    def check(self, name: str) -> None:
        """Raise `UserError` for a code of no language that it knows."""
        from preprocessing.stages.language import LanguageFilter, LanguageSettings

        LanguageFilter(LanguageSettings(languages=(name,)))

    def majority(self, excerpts: Iterable[str]) -> str | None:
        """The language of most of the excerpts; None where none has a letter."""
        votes: Counter[str] = Counter()
        for text in excerpts:
            flat = " ".join(text.split())
            if any(map(str.isalpha, flat)):
                votes[self._identify(flat)[0]] += 1
        return min(votes, key=lambda label: (-votes[label], label)) if votes else None


def find_inputs(corpus: Path, test: Sequence[Path]) -> Inputs:
    """The files of --corpus, a folder of `corpus fetch` or a file of texts, and of --test. Raises `UserError`."""
    if corpus.is_dir():
        train = split_path(corpus, "train")
        found = list(test) or [path for suffix in SUFFIXES if (path := corpus / f"test{suffix}").is_file()]
    else:
        train, found = corpus, list(test)
    for path, flag in ((train, "--corpus"), *((path, "--test") for path in found)):
        check_file(path, flag)
    return Inputs((train,), tuple(found))


def check_file(path: Path, flag: str) -> None:
    """Raise `UserError` unless `path` is a .jsonl, .jsonl.gz, .jsonl.zst or .txt file that can be read."""
    if path.suffix == ".txt" and path.is_file():
        return
    check_inputs([path], flag)


def read(path: Path, sample_bytes: int | None = None) -> Iterator[Record]:
    """The documents of a file, at most about `sample_bytes` of text; a .txt file has one a line, whose source is its name."""
    if path.suffix == ".txt":
        yield from _lines(path, sample_bytes)
    elif sample_bytes is None:
        yield from read_records(path)
    else:
        yield from read_sample([path], plan_sample([path], sample_bytes))


def _lines(path: Path, sample_bytes: int | None) -> Iterator[Record]:
    size = path.stat().st_size
    share = 1.0 if sample_bytes is None or not size else min(1.0, sample_bytes / size)
    with open(path, encoding="utf-8") as handle:
        try:
            for number, line in enumerate(handle):
                if line.strip() and int((number + 1) * share) > int(number * share):
                    yield Record(line.rstrip("\n"), path.name, "unknown")
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 text ({error.reason}): convert the file to UTF-8") from None


def excerpts_of(records: Iterable[Record]) -> dict[str, list[str]]:
    """By source, up to 20 excerpts of about 1,000 characters, from places further and further apart."""
    found: dict[str, list[str]] = {}
    gathered: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for record in records:
        excerpts = found.setdefault(record.source, [])
        number = seen[record.source] = seen[record.source] + 1
        if len(excerpts) < _EXCERPTS and (number < 200 or number % 50 == 0):
            gathered[record.source] = f"{gathered.get(record.source, '')} {record.text[:_EXCERPT]}".strip()
            if len(gathered[record.source]) >= _EXCERPT:
                excerpts.append(gathered.pop(record.source))
    for source, rest in gathered.items():
        if not found[source]:
            found[source].append(rest)
    return found


def find_languages(inputs: Inputs, settings: Path | None, target: str, identifier: Identifier) -> list[Language]:
    """The languages of a run, by the YAML file, or by what the corpus's sources are in; shares are given to all.

    Raises `UserError` where a language has no text, or text in another language, or the target is not there.
    """
    excerpts = excerpts_of(record for path in inputs.train for record in read(path))
    if not any(text.strip() for texts in excerpts.values() for text in texts):
        raise UserError(f"--corpus: {inputs.train[0]} has no text, nothing to graft by: give texts in {target}")
    if settings is not None:
        languages = read_languages(settings, sorted(excerpts), identifier.check)
        for language in languages:
            _check_language(language, excerpts, identifier)
        if left := sorted(excerpts.keys() - {source for language in languages for source in language.sources}):
            console().print(f"note    left out, as {settings} gives them no language: {', '.join(left)}", markup=False)
        return languages
    try:
        identifier.check(target)
    except UserError as error:
        raise UserError(f"--target {target}: {error}") from None
    labels = {source: identifier.majority(texts) for source, texts in sorted(excerpts.items())}
    names = sorted({label for label in labels.values() if label}, key=lambda name: (name != target, name))
    if target not in names:
        found = ", ".join(f"{source} is in {label or 'no language'}" for source, label in labels.items())
        raise UserError(f"--target {target}: no source of the corpus is in that language ({found}): add texts, or name another")
    own = {name: tuple(source for source, label in labels.items() if label == name) for name in names}
    return with_shares([Language(name, name == target, 0.0, own[name]) for name in names], "--corpus")


def _check_language(language: Language, excerpts: Mapping[str, Sequence[str]], identifier: Identifier) -> None:
    for source in language.sources:
        _check_texts(language, f"the source {source}", excerpts[source], identifier)
    for path in language.files:
        check_file(path, f"--languages ({language.name})")
        mixed = [text for texts in excerpts_of(read(path)).values() for text in texts]
        _check_texts(language, str(path), mixed, identifier)


def _check_texts(language: Language, where: str, excerpts: Sequence[str], identifier: Identifier) -> None:
    if not any(text.strip() for text in excerpts):
        raise UserError(f"--languages: {where} of {language.name} has no text: remove it or give texts")
    if not language.identify:
        return
    found = identifier.majority(excerpts)
    if found != language.name:
        raise UserError(
            f"--languages: {where} is in {found or 'no language'}, not in {language.name}: correct the file of languages, or "
            f"add `identify: false` to {language.name} if you are sure"
        )


def learned_and_held_out(
    inputs: Inputs, languages: Sequence[Language], sample_bytes: int
) -> Iterator[tuple[int, Record, bool]]:
    """Every document of the languages as (language's number, record, whether it is held out).

    Sources of a file have equal parts of `sample_bytes`. Documents of sources that no language has are left out.
    """
    of = {source: number for number, language in enumerate(languages) for source in language.sources}
    parts: list[tuple[Path, int | None]] = [(path, None) for path in inputs.train]
    parts += [(path, number) for number, language in enumerate(languages) for path in language.files]
    seen: Counter[str] = Counter()
    for path, number in parts:
        for record in read(path, sample_bytes):
            language = of.get(record.source) if number is None else number
            if language is None:
                continue
            source = record.source if number is None else path.name
            seen[source] += 1
            test_is_given = bool(inputs.test) and number is None
            yield language, Record(record.text, source, record.licence), not test_is_given and seen[source] % _HELD_OUT == 0


def read_test(inputs: Inputs, languages: Sequence[Language], identifier: Identifier) -> list[HeldOut]:
    """The texts of --test or of the test split, by language; a source that no language has is told by its text."""
    of = {source: language.name for language in languages for source in language.sources}
    names = [language.name for language in languages]
    found = {name: HeldOut(name) for name in names}
    for path in inputs.test:
        unknown = {source: texts for source, texts in excerpts_of(read(path)).items() if source not in of}
        labels = {source: identifier.majority(texts) for source, texts in unknown.items()}
        for record in read(path):
            name = of.get(record.source) or labels[record.source]
            if name is not None:
                found.setdefault(name, HeldOut(name)).add(record.source, record.text)
    return list(found.values())
