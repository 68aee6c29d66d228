"""The rules of `mecellem tokenizer graft` beside one another: a teacher of each kind, same texts, same sizes.

    python benchmarks/graft_rules.py

Learns from the sample corpus's training split (Turkish) and four fifths of the pages of LibreOffice's help (Turkish and
English), and measures tokens a word on these and on texts that nothing was learned from: the test split, the other pages, and
IBM's contract in both languages. Writes benchmarks/results/graft_rules.md.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import orjson
from common import CACHE, PACKAGES, ROOT, header, sample_text
from real_models import e5_small_folder, smollm2_folder

from evaluation.tasks.sources import Sources
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from preprocessing.graft.command import graft
from preprocessing.graft.grown import Rule
from preprocessing.graft.teacher import load_teacher
from preprocessing.jsonl import read_records

RESULTS = ROOT / "benchmarks" / "results" / "graft_rules.md"
_MODELS = ROOT / ".cache" / "models"
_LEARNED = " (learned from)"
_EVERY = 10  # one text in so many of what is learned from is measured too
Row = tuple[str, str]  # source, text
Record = tuple[str, int, str, float, dict[str, Any]]  # teacher, size, rule, seconds, graft.json


def _drawn(text: str) -> bool:
    """By hash: texts stand in an order (Turkish, English, Turkish, ...) that a stride could keep in step with."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % _EVERY == 0


def run(sizes: tuple[int, ...] = (32_768, 65_536), out: Path = RESULTS) -> None:
    """Graft, measure and write the results.

    Args:
        sizes: entries of the tokenizers.
        out: the file of the results.
    """
    teachers = {"XLM-R (Unigram)": e5_small_folder(_MODELS), "SmolLM2 (byte-level BPE)": smollm2_folder(_MODELS)}
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        learned, held_out = list(learned_texts()), list(held_out_texts())
        measured = [*held_out, *((source + _LEARNED, text) for source, text in learned if _drawn(text))]
        train = write(folder / "train.jsonl", learned)
        test = write(folder / "test.jsonl", measured)
        records: list[Record] = []
        for teacher, path in teachers.items():
            for size in sizes:
                for rule in get_args(Rule):
                    if rule == "used" and size > len(load_teacher(str(path)).pieces):
                        continue  # pruning alone does not add entries
                    target, started = folder / f"{path.name}-{size}-{rule}", time.process_time()
                    graft(str(path), train, target, size=size, test=[test], rule=rule)
                    seconds = time.process_time() - started
                    records.append((teacher, size, rule, seconds, orjson.loads((target / "graft.json").read_bytes())))
    with atomic_write(out) as handle:
        handle.write(page(records))


def learned_texts() -> Iterator[Row]:
    """The training split and the pages of the help that are learned from."""
    yield from ((record.source, record.text) for record in read_records(sample_text() / "train.jsonl.zst"))
    yield from _help(held_out=False)


def held_out_texts() -> Iterator[Row]:
    """The test split, the other pages, and the contract, of which nothing was learned."""
    sources = Sources(PACKAGES)
    yield from ((record.source, record.text) for record in read_records(sample_text() / "test.jsonl.zst"))
    yield from _help(held_out=True)
    yield "contract-en", "\n".join(english for english, _ in sources.contract)
    yield "contract-tr", "\n".join(turkish for _, turkish in sources.contract)


def _help(held_out: bool) -> Iterator[Row]:
    for page in Sources(PACKAGES).help:
        if (int(hashlib.sha256(page.id.encode()).hexdigest(), 16) % 5 == 0) != held_out:
            continue
        yield "help-tr", page.text
        yield "help-en", "\n".join(english for english, _ in page.pairs)


def write(path: Path, rows: Sequence[Row]) -> Path:
    """Write JSONL, texts without a word left out."""
    lines = [orjson.dumps({"text": text, "source": source}) for source, text in rows if text.strip()]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def page(records: Sequence[Record]) -> str:
    """The results in Markdown."""
    parts = ["# Rules of tokenizer surgery\n", f"{header(('tokenizers', 'numpy', 'py3langid'))}\n"]
    parts.append(
        "Tokens a word (words are what white space separates). `learned from`: one in ten texts of what was learned from, "
        "by hash; everything else is held out. Shares: Turkish 0.75, English 0.25, the default. Pruning alone (`used`) is "
        "left out where the teacher has fewer entries.\n"
    )
    for teacher in dict.fromkeys(record[0] for record in records):
        parts.append(f"## {teacher}\n")
        parts.append(_table([record for record in records if record[0] == teacher]))
    return "\n".join(parts)


def _table(records: Sequence[Record]) -> str:
    lines = ["| text | teacher | " + " | ".join(f"{size:,} {rule}" for _, size, rule, _, _ in records) + " |"]
    lines.append("|---" * (len(records) + 2) + "|")
    for language, found in records[0][4]["languages"].items():
        for source, figures in found["sources"].items():
            afters = [record[4]["languages"][language]["sources"][source]["after"] for record in records]
            cells = [f"{after['tokens_per_word']:.3f}" for after in afters]
            lines.append(f"| {source} | {figures['before']['tokens_per_word']:.3f} | {' | '.join(cells)} |")
        for heading, held_out in (("all held out", True), ("all learned from", False)):
            before = _total(records[0], language, "before", held_out)
            changes = [f"{_total(record, language, 'after', held_out) / before - 1:+.1%}" for record in records]
            lines.append(f"| **{language}, {heading}** | | {' | '.join(changes)} |")
    for key in ("kept", "learned", "replaced_as_unreachable"):
        numbers = [f"{record[4]['counts'][key]:,}" for record in records]
        lines.append(f"| entries {key.replace('_', ' ')} | | {' | '.join(numbers)} |")
    lines.append(f"| CPU seconds | | {' | '.join(f'{record[3]:.0f}' for record in records)} |")
    return "\n".join(lines) + "\n"


def _total(record: Record, language: str, when: str, held_out: bool) -> int:
    sources = record[4]["languages"][language]["sources"]
    return sum(int(found[when]["tokens"]) for source, found in sources.items() if source.endswith(_LEARNED) != held_out)


def main(argv: Sequence[str]) -> int:
    """Parse the flags and run."""
    parse_and_call(run, argv, prog="python benchmarks/graft_rules.py")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
