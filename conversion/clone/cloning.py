"""A teacher onto a new vocabulary: Hugging Face and sentence-transformers folders, with one method or several at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conversion.clone.alignment import Alignment, Kind, align
from conversion.clone.combination import Combination, Composer, Maker, Method, RandomRows, combine
from conversion.clone.teacher import NewIds, TeacherFolder, copy_modules, find_teacher, write_configs, write_tokenizer
from conversion.clone.vocabulary import GRAFT, TokenizerFolder, contradicted_roles, read_tokenizer, refuse_rows, with_rows
from conversion.clone.vocabulary_tensors import VocabularyTensors, find_vocabulary_tensors
from conversion.clone.weights import Cast, check_tensors, verify_weights, write_weights
from conversion.safetensors_folder import SafetensorsReader
from mecellem.errors import UserError
from mecellem.files import atomic_folder, sha256_of
from mecellem.tokenizer_files import read_json

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "mecellem.clone/1"
RECORD = "clone.json"
LISTED = 1000  # unmapped and partly spelled entries in the record by name; all are counted


@dataclass(frozen=True, slots=True)
class Plan:
    """Teacher and new vocabulary, read and compared; what every method shares."""

    source: str
    teacher: TeacherFolder
    old: TokenizerFolder
    new: TokenizerFolder
    reader: SafetensorsReader
    vocabulary: VocabularyTensors
    alignment: Alignment
    ids: NewIds
    hashes: dict[str, str]  # SHA-256 of the teacher's files of weights
    notes: tuple[str, ...]

    @property
    def unknown(self) -> int | None:
        """The teacher's row for what nothing stands for, if it has one."""
        return self.old.roles.get("unk")


def make_plan(source: str | Path, tokenizer: Path, another_teacher: bool = False) -> Plan:
    """Read and compare. Raises `UserError` for whatever stands in the way, before anything is written.

    `another_teacher`: the tokenizer may be grafted from another teacher's than this one.
    """
    teacher = find_teacher(source)
    reader = SafetensorsReader(teacher.transformer)
    with ThreadPoolExecutor(2) as pool:  # hashing leaves the interpreter to the others
        hashes = {path.name: pool.submit(sha256_of, path) for path in dict.fromkeys(reader.files.values())}
        new, old = read_tokenizer(tokenizer), read_tokenizer(teacher.transformer)
        stranger = _grafted_from_another(old, new)
        if stranger and not another_teacher:
            raise UserError(f"{stranger}: give the teacher that it was grafted from, or add --another-teacher")
        vocabulary = find_vocabulary_tensors(reader)
        old = with_rows(old, vocabulary.rows)
        refuse_rows(old.folder / "tokenizer.json", old.size, vocabulary.rows)
        check_tensors(reader, vocabulary)
        alignment = align(old, new)
        ids = NewIds(old, new, _copied(alignment))
        padding = vocabulary.counts_from_padding
        if padding is not None and ids.new_id(padding, "pad") != padding:
            raise UserError(
                f"{teacher.transformer} numbers positions from the id of its padding, {padding}, as RoBERTa does, and in "
                f"{tokenizer} padding has the id {ids.new_id(padding, 'pad')}: every text would be read at other positions; "
                f"make the tokenizer with padding at {padding}"
            )
        notes = (*_notes(old, new), *filter(None, [stranger]))
        return Plan(
            str(source), teacher, old, new, reader, vocabulary, alignment, ids,
            {name: found.result() for name, found in hashes.items()}, notes,
        )  # fmt: skip


def _copied(alignment: Alignment) -> dict[int, int]:
    taken = (alignment.kinds == Kind.COPIED) | (alignment.kinds == Kind.SPECIAL)
    places = taken.nonzero()[0]
    return dict(zip(alignment.pieces[alignment.offsets[places]].tolist(), places.tolist(), strict=True))


def _notes(old: TokenizerFolder, new: TokenizerFolder) -> tuple[str, ...]:
    """What a user should know, though nothing is wrong with it."""
    found = []
    before, after = (" ".join(one.around_a_text()) or "nothing" for one in (old, new))
    if before != after:
        found.append(f"around a text the teacher's tokenizer puts {before}, the new one {after}: vectors differ for that alone")
    if contradicted := contradicted_roles(old):
        found.append(
            f"{old.folder / 'config.json'} and the tokenizer beside it name other tokens for {', '.join(contradicted)}: is the "
            "tokenizer the one that the teacher was trained with?"
        )
    return tuple(found)


def _grafted_from_another(old: TokenizerFolder, new: TokenizerFolder) -> str | None:
    """The sentence that says so, if `mecellem tokenizer graft` made `new` from another tokenizer.json than the teacher's."""
    if not (new.folder / GRAFT).exists():
        return None
    grafted = read_json(new.folder / GRAFT, "tokenizer").get("teacher")
    sha256 = grafted.get("tokenizer_sha256") if isinstance(grafted, dict) else None
    if sha256 in (None, old.sha256):
        return None
    return f"{new.folder / GRAFT} names another teacher's tokenizer.json than the one of {old.folder}"


def write_clone(plan: Plan, method: Method, out: Path, dtype: Cast = None, seed: int = 0) -> dict[str, Any]:
    """Write and verify a clone in the folder `out`; returns its record, `clone.json`.

    Raises `UserError`, and leaves no folder, for an `out` that exists, a full disk, and rows that are no numbers.
    """
    with atomic_folder(out) as temporary:
        copy_modules(plan.teacher, temporary)
        folder = temporary / plan.teacher.transformer.relative_to(plan.teacher.folder)
        write_tokenizer(plan.new, plan.teacher, folder)
        name = None if dtype is None else str(dtype).removeprefix("torch.")
        lost = write_configs(plan.teacher, folder, plan.vocabulary.nested, plan.ids, name)
        rows, maker = make_rows(plan, method, seed)
        makers: dict[str, Maker | None] = {}

        def composer(tensor: str) -> Composer:
            table = plan.reader.tensor(tensor)
            makers[tensor] = maker(table)
            return Composer(f"{plan.reader.files[tensor]}: {tensor}", table, plan.old.size, plan.unknown, makers[tensor])

        write_weights(plan.reader, plan.vocabulary, rows, composer, folder, dtype)
        facts = verify_weights(plan.reader, folder, plan.vocabulary, plan.alignment, dtype)
        notes = [*plan.notes, *(f"the new vocabulary has nothing in the place of {item}" for item in lost)]
        learned = {tensor: found.facts() for tensor, found in makers.items() if found is not None}
        record = _record(plan, method, seed, name) | facts | {"learned": learned, "notes": notes}
        (temporary / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return record


def make_rows(plan: Plan, method: Method, seed: int) -> tuple[Combination, Callable[[Tensor], Maker | None]]:
    """Which rows a method takes with what weights, and what makes the others of a tensor."""
    if method == "omp":
        from conversion.clone.pursuit import combine_by_pursuit
        from conversion.clone.teacher_vectors import entry_vectors

        vectors = entry_vectors(plan.teacher.transformer, plan.old, plan.alignment)
        return combine_by_pursuit(plan.alignment, vectors), lambda table: None
    rows = combine(plan.alignment, method)
    if method == "regression" and rows.made.any():
        from conversion.clone.regression import Regression, make_examples

        examples = make_examples(plan.old, seed)
        return rows, lambda table: Regression(table, examples)
    return rows, lambda table: RandomRows(table, plan.old.size, seed) if method == "random" else None


def _record(plan: Plan, method: Method, seed: int, dtype: str | None) -> dict[str, Any]:
    alignment, old, new = plan.alignment, plan.old, plan.new
    strings, before = ({number: piece for piece, number in one.ids.items()} for one in (new, old))
    roles = {
        role: {"new": strings[number], "teacher": before.get(found) if (found := old.role(role)) is not None else None}
        for role, number in new.roles.items()
    }
    return {
        "format": FORMAT,
        "method": method,
        "seed": seed if method in ("random", "regression") else None,
        "dtype": dtype or "as the teacher",
        "teacher": {
            "name": plan.source if not Path(plan.source).exists() else Path(plan.source).resolve().name,
            "weights_sha256": plan.hashes,
            "tokenizer_sha256": old.sha256,
            "rows": plan.vocabulary.rows,
            "entries": len(old.ids),
        },
        "tokenizer": {"sha256": new.sha256, "rows": new.size, "entries": len(new.ids)},
        "entries": alignment.counts(),
        "pieces_per_composed_entry": {str(pieces): count for pieces, count in alignment.histogram().items()},
        "roles": roles,
        "unmapped": dict(list(alignment.unmapped.items())[:LISTED]),
        "partly_spelled": {"count": len(alignment.partly), "entries": list(alignment.partly[:LISTED])},
        "unmapped_rows_are": "the mean of all entries" if plan.unknown is None else f"those of {before[plan.unknown]}",
        "vocabulary_tensors": list(plan.vocabulary.all),
        "versions": {name: version(name) for name in ("mecellem", "torch", "transformers", "tokenizers", "safetensors")},
    }


def clone_folder(
    source: str | Path,
    tokenizer: Path,
    out: Path,
    method: Method = "mean",
    dtype: Cast = None,
    seed: int = 0,
    another_teacher: bool = False,
) -> dict[str, Any]:
    """Clone a Hugging Face or sentence-transformers model onto the vocabulary of `tokenizer`; returns the record.

    `dtype`: of the weights, None for the teacher's. `seed`: of what is drawn by `random`, and of what `regression` learns from.
    `another_teacher`: the tokenizer may be grafted from another teacher's.
    """
    return clone_each(source, tokenizer, {method: out}, dtype, seed, another_teacher)[method]


def clone_each(
    source: str | Path,
    tokenizer: Path,
    outs: Mapping[Method, Path],
    dtype: Cast = None,
    seed: int = 0,
    another_teacher: bool = False,
) -> dict[Method, dict[str, Any]]:
    """Clones by several methods, each in its folder, from one comparison of the vocabularies; returns their records.

    They differ in the rows of composed entries and in nothing else.
    """
    for out in outs.values():
        refuse_existing(out)
    plan = make_plan(source, tokenizer, another_teacher)
    return {method: write_clone(plan, method, out, dtype, seed) for method, out in outs.items()}


def refuse_existing(out: Path) -> None:
    """Raise `UserError` for a folder that holds something, before the work and not behind it."""
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise UserError(f"{out} exists already: choose another folder or remove it first")
