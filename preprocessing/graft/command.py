"""`mecellem tokenizer graft`: the run, from the files to the folder and its table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from mecellem.console import progress_bar, step
from mecellem.errors import UserError
from mecellem.files import atomic_folder, check_output_folder, sha256_of
from preprocessing.graft.bpe import graft_bpe
from preprocessing.graft.grown import Grown, Rule, reserved, room
from preprocessing.graft.measure import Fertility, fertility
from preprocessing.graft.settings import Language
from preprocessing.graft.teacher import Teacher, load_teacher
from preprocessing.graft.texts import HeldOut, Identifier, Inputs, find_inputs, find_languages, learned_and_held_out, read_test
from preprocessing.graft.unigram import graft_unigram
from preprocessing.graft.words import LONGEST, Words, count_words, table
from preprocessing.graft.write import write_folder, write_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from tokenizers import Tokenizer

FORMAT = "mecellem.graft/1"
_SAMPLE_BYTES = 200_000_000
_PART = 256  # documents that are counted at once


@dataclass(frozen=True, slots=True)
class Measured:
    """One language's held-out texts under both tokenizers, by source; `unchanged` decode as with the teacher."""

    language: str
    before: dict[str, Fertility]
    after: dict[str, Fertility]
    texts: int
    unchanged: int

    def total(self, after: bool) -> Fertility:
        """All sources together."""
        whole = Fertility()
        for part in (self.after if after else self.before).values():
            whole.add(part)
        return whole


def graft(
    teacher: str,
    corpus: Path,
    out: Path,
    size: int = 131_072,
    languages: Path | None = None,
    target: str = "tr",
    test: list[Path] | None = None,
    rule: Rule = "joint",
    sample_bytes: int = _SAMPLE_BYTES,
    keep_added: bool = False,
) -> None:
    """Regrow a teacher's tokenizer towards target languages: exactly so many entries, each of them reachable.

    Frequent pieces of the target languages are learned, pieces of the teacher that the texts do not need are pruned, special
    tokens stay by role, normalizer, pre-tokenizer and decoder as they are. OUT is a tokenizer folder that AutoTokenizer loads,
    with graft.json: what it was made from, the roles, counts, and tokens a word before and after.

    Args:
        teacher: a folder with a tokenizer.json, such a file, or a model's name on the Hugging Face hub; Unigram or BPE.
        corpus: folder of `corpus fetch` (its test split is measured on), or a .jsonl, .jsonl.gz, .jsonl.zst or .txt file.
        out: folder to write to, new or empty.
        size: entries, special tokens included.
        languages: YAML file: texts, share and `target: true` of each language; without it each source of the corpus belongs to
            the language that it is recognised as.
        target: the target language where there is no --languages.
        test: files to measure on; without it the corpus's test split, or every 20th document, which is then not learned from.
        rule: joint weighs learned and the teacher's pieces together; target-first takes the target's own vocabulary, then the
            teacher's pieces by use; used prunes only, by use.
        sample_bytes: of each file look at about so many bytes of text, as equal parts of each source as there is text for.
        keep_added: keep added tokens that have no role and stand in no chat template too (reserved and unused ones).
    """
    if sample_bytes <= 0:
        raise UserError(f"--sample-bytes {sample_bytes}: a number above 0 is needed")
    if size < 1:
        raise UserError(f"--size {size}: a number of entries is needed, such as 131072")
    check_output_folder(out, "--out")
    inputs = find_inputs(corpus, test or [])
    with step("Tokenizer graft", reads=[teacher, *inputs.all, *([languages] if languages else [])], writes=[out]) as console:
        with atomic_folder(out, remedy="remove it first") as folder:
            loaded = load_teacher(teacher, keep_added)
            room(loaded, size, len(loaded.bytes))  # before texts are read, which takes a while
            identifier = Identifier()
            found = find_languages(inputs, languages, target, identifier)
            words, held_out = _read(loaded, inputs, found, sample_bytes, identifier)
            console.print(_described(found, words), markup=False)
            with console.status("learning and pruning"):
                grown = grow_by_rule(loaded, found, words, size, rule, lambda line: console.print(line, markup=False))
            write_folder(loaded, grown.settings, folder)
            measured = measure(loaded, grown.settings, held_out)
            write_json(folder / "graft.json", _record(loaded, found, grown, measured, size, rule, folder))
        _show(console, loaded, grown, measured, size)


def _read(
    teacher: Teacher, inputs: Inputs, languages: Sequence[Language], sample_bytes: int, identifier: Identifier
) -> tuple[Words, list[HeldOut]]:
    """Count the words of all languages, and hold the texts to measure on."""
    counters: list[Counter[str]] = [Counter() for _ in languages]
    held_out = [HeldOut(language.name) for language in languages]
    with progress_bar(transient=True) as bar:
        task = bar.add_task("documents", total=None)
        waiting: list[list[str]] = [[] for _ in languages]
        for number, record, held in learned_and_held_out(inputs, languages, sample_bytes):
            if held:
                held_out[number].add(record.source, record.text)
                continue
            waiting[number].append(record.text)
            if len(waiting[number]) == _PART:
                count_words(teacher, waiting[number], counters[number])
                waiting[number].clear()
                bar.advance(task, _PART)
        for texts, counter in zip(waiting, counters, strict=True):
            count_words(teacher, texts, counter)
    for language, counter in zip(languages, counters, strict=True):
        if not counter:
            raise UserError(f"{language.name}: its texts have no words left to learn from: give more texts, or --test")
    given = {one.language: one for one in read_test(inputs, languages, identifier)}
    for own in held_out:
        for source, texts in own.texts.items():
            for text in texts:
                given[own.language].add(source, text)
    words = table(counters, [language.share for language in languages])
    for language, count in zip(languages, words.counts.sum(axis=1).tolist(), strict=True):
        if not count:
            raise UserError(f"{language.name}: its texts have no words of at most {LONGEST} characters: give other texts")
    return words, list(given.values())


def grow_by_rule(
    teacher: Teacher, languages: Sequence[Language], words: Words, size: int, rule: Rule, told: Callable[[str], None]
) -> Grown:
    """The new tokenizer of any teacher that can be grafted; `told` is given sentences about what is going on."""
    make = graft_unigram if teacher.unigram else graft_bpe
    return make(teacher, languages, words, size, rule, told)


def measure(teacher: Teacher, settings: dict[str, Any], held_out: Sequence[HeldOut]) -> list[Measured]:
    """Both tokenizers on the held-out texts of each language that has any."""
    before, after = _ready(teacher.settings), _ready(settings)
    result = []
    for language in held_out:
        parts: tuple[dict[str, Fertility], dict[str, Fertility]] = ({}, {})
        number = unchanged = 0
        for source, texts in sorted(language.texts.items()):
            parts[0][source], old = fertility(before, texts, _unknown(teacher.settings, before))
            parts[1][source], new = fertility(after, texts, _unknown(settings, after))
            number += len(texts)
            unchanged += sum(one == other for one, other in zip(old, new, strict=True))
        if number:
            result.append(Measured(language.language, *parts, number, unchanged))
    return result


def _ready(settings: dict[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(orjson.dumps(settings).decode())
    tokenizer.encode_special_tokens = True  # "</s>" in a text is text
    return tokenizer


def _unknown(settings: dict[str, Any], tokenizer: Tokenizer) -> int | None:
    model = settings["model"]
    if model["type"] == "Unigram":
        return None if model.get("unk_id") is None else int(model["unk_id"])
    return None if model.get("unk_token") is None else tokenizer.token_to_id(model["unk_token"])


def _described(languages: Sequence[Language], words: Words) -> str:
    parts = (
        f"{language.name}{' (target)' if language.target else ''} {int(count):,} words, share {language.share:.3g}"
        for language, count in zip(languages, words.counts.sum(axis=1), strict=True)
    )
    return f"texts: {'; '.join(parts)}; {len(words.words):,} different words"


def _record(
    teacher: Teacher,
    languages: Sequence[Language],
    grown: Grown,
    measured: Sequence[Measured],
    size: int,
    rule: Rule,
    folder: Path,
) -> dict[str, Any]:
    """graft.json: neither times nor paths, so that the same input gives the same bytes."""
    of = {language.name: language for language in languages}
    by_language = {
        one.language: {
            "target": one.language in of and of[one.language].target,
            "share": round(of[one.language].share, 6) if one.language in of else 0.0,
            "held_out_texts": one.texts,
            "decode_as_with_the_teacher": one.unchanged,
            "before": one.total(after=False).figures(),
            "after": one.total(after=True).figures(),
            "sources": {
                source: {"before": one.before[source].figures(), "after": one.after[source].figures()} for source in one.before
            },
        }
        for one in measured
    }
    return {
        "format": FORMAT,
        "teacher": {"name": teacher.name, "tokenizer_sha256": teacher.sha256},
        "tokenizer_sha256": sha256_of(folder / "tokenizer.json"),
        "rule": rule,
        "size": size,
        "counts": counts(teacher, grown),
        "roles": teacher.roles.named,
        "languages": by_language,
        "tokenizers": version("tokenizers"),
    }


def counts(teacher: Teacher, grown: Grown) -> dict[str, int]:
    """Entries of the new tokenizer by where they come from, and what was left out of the teacher's."""
    return {
        "special": len(reserved(teacher)),
        "kept": len(grown.kept),
        "learned": len(grown.learned),
        "dropped": len(teacher.pieces) - len(grown.kept),
        "dropped_added_tokens": teacher.dropped_added,
        "replaced_as_unreachable": len(grown.replaced),
    }


def _show(console: Console, teacher: Teacher, grown: Grown, measured: Sequence[Measured], size: int) -> None:
    for one in measured:
        console.print(_table(one))
    found = counts(teacher, grown)
    console.print(
        f"{size:,} entries: {found['kept']:,} kept of {teacher.name}, {found['learned']:,} learned, {found['special']} special "
        f"tokens; {found['dropped']:,} dropped; every entry can be reached",
        markup=False,
    )
    texts, unchanged = sum(one.texts for one in measured), sum(one.unchanged for one in measured)
    console.print(f"{unchanged:,} of {texts:,} held-out texts decode to what they do with the teacher", markup=False)


def _table(measured: Measured) -> Table:
    from rich.table import Table

    shown = Table(title=f"{measured.language}, held-out texts", title_justify="left")
    shown.add_column("source")
    for heading in ("words", "tokens a word", "now", "change", "bytes a token", "now"):
        shown.add_column(heading, justify="right")
    rows = [(source, measured.before[source], measured.after[source]) for source in measured.before]
    if len(rows) > 1:
        rows.append(("all", measured.total(after=False), measured.total(after=True)))
    for name, before, after in rows:
        old, new = before.figures(), after.figures()
        change = f"{after.tokens / before.tokens - 1:+.1%}" if before.tokens else "-"
        cells = (_cell(old["tokens_per_word"]), _cell(new["tokens_per_word"]), change)
        shown.add_row(name, f"{before.words:,}", *cells, _cell(old["bytes_per_token"]), _cell(new["bytes_per_token"]))
    return shown


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
