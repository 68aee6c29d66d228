"""A Turkish student out of multilingual-e5-small: graft, clone, distil; each step and alternative scored beside the teacher.

    python benchmarks/distill_e5.py

Learned from: the sample's train split with the English of the same help pages (`distill_texts.py`), without labels. Measured:
tokens a word on the test split, encoding speed on the same texts in turns, and real tasks: retrieval of LibreOffice's help in
Turkish and from English, of Atatürk's speeches, English-Turkish bitext of a contract and of the declaration of human rights.
Documents of the test split are in no text that was learned from; of the tasks over all documents a part of the candidates is,
without any title said to belong to it. Pruning the teacher to the pieces in use is a row of the table: it costs nothing.
What is done is kept: a call that was stopped goes on.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from common import CACHE, PACKAGES, ROOT, header, mecellem
from distill_texts import write_texts
from real_models import e5_small_folder

from evaluation.leaderboard.results import Leaderboard
from evaluation.results import read_record
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call

FOLDER = CACHE / "distill_e5"
LENGTH = 128  # tokens of a text that are read, everywhere
TASKS = (
    "LibreOfficeHelpRetrieval",
    "LibreOfficeHelpCrosslingualRetrieval",
    "AtaturkSpeechRetrieval",
    "ContractBitextMining",
    "DeclarationBitextMining",
)
HELD_OUT = ("libreoffice_title", "ataturk_title")
LANGUAGES = """\
languages:
  tr: {texts: [kenet, ataturk, treebank, libreoffice], target: true}
  en: {texts: [libreoffice_en]}
"""


@dataclass(frozen=True, slots=True)
class Student:
    """A row: a vocabulary, how its rows are made, and the passes over the texts that it is distilled for (0: none)."""

    title: str
    size: int
    rule: str = "joint"
    method: str = "mean"
    epochs: float = 0.0
    small: bool = False  # on a quarter of the texts, as all alternatives are compared

    @property
    def tokenizer(self) -> str:
        """Name of its tokenizer's folder."""
        return f"tokenizer_{self.rule}_{self.size}"

    @property
    def clone(self) -> str:
        """Name of the clone's folder."""
        return f"clone_{self.rule}_{self.size}_{self.method}"

    @property
    def name(self) -> str:
        """Name of the folder that is scored."""
        return self.clone + (f"_{'few' if self.small else 'all'}_{self.epochs:g}" if self.epochs else "")


def students(size: int, epochs: float) -> list[Student]:
    """The table's rows, the main student first."""
    other = 2 * size
    return [
        Student("mean composition, distilled", size, epochs=epochs),
        Student("pruned to the pieces in use, nothing trained", size, rule="used"),
        Student("random rows", size, method="random"),
        Student("mean composition", size),
        Student("orthogonal matching pursuit", size, method="omp"),
        Student("regression", size, method="regression"),
        Student("random rows, distilled on a quarter", size, method="random", epochs=1, small=True),
        Student("mean composition, distilled on a quarter", size, epochs=1, small=True),
        Student("regression, distilled on a quarter", size, method="regression", epochs=1, small=True),
        Student(f"mean composition, {other:,} entries", other),
        Student(f"mean composition, {other:,} entries, distilled on a quarter", other, epochs=1, small=True),
    ]


def make_texts() -> Path:
    """Texts to learn from, with e5's prompts where vectors are made of them: titles and short texts ask, the rest answers."""
    corpus, texts = FOLDER / "corpus", FOLDER / "texts"
    if not (corpus / "corpus.json").exists():
        mecellem("corpus", "fetch", "--sample", "--libreoffice", "yes", "--out", corpus, "--cache", PACKAGES)
    if not texts.exists():
        write_texts(corpus, PACKAGES, texts)
    return texts


def sampled(texts: Path) -> list[dict[str, str]]:
    """What the teacher encodes: of KeNet's many short texts every fourth, so that they are not most of it; by hash."""
    from mecellem.content import content_key

    found = []
    for language in ("tr", "en"):
        for line in (texts / f"{language}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            key = int(content_key({"text": row["text"]})[:8], 16)
            if row["source"] != "kenet" or key % 4 == 0:
                asks = len(row["text"].split()) < 6 or key % 10 < 3
                found.append(row | {"text": ("query: " if asks else "passage: ") + row["text"], "key": str(key)})
    return sorted(found, key=lambda row: int(row["key"]))


def make_vectors(teacher: Path, texts: Path, count: int) -> dict[bool, Path]:
    """The teacher's vectors of `count` texts, and of the first quarter of them."""
    folders = {}
    rows = sampled(texts)[:count]
    for few in (True, False):
        part = FOLDER / f"{'few' if few else 'all'}.jsonl"
        folders[few] = FOLDER / f"vectors_{'few' if few else 'all'}"
        with atomic_write(part) as handle:
            for row in rows[: len(rows) // 4] if few else rows:
                handle.write(json.dumps({name: row[name] for name in ("text", "lang", "source")}, ensure_ascii=False) + "\n")
        flags = ("--corpus", part, "--out", folders[few], "--prompt", "", "--max-length", str(LENGTH))
        mecellem("distill", "vectors", "--teacher", teacher, *flags, timeout=3600)
    return folders


def make_student(student: Student, teacher: Path, texts: Path, vectors: dict[bool, Path], batch: int, lr: float) -> Path:
    """Tokenizer, clone and distillation of one row, each made once."""
    tokenizer, clone, out = (FOLDER / name for name in (student.tokenizer, student.clone, student.name))
    if not tokenizer.exists():
        whole, languages = FOLDER / "learn.jsonl", FOLDER / "languages.yaml"
        languages.write_text(LANGUAGES)
        for target, prefix in ((whole, ""), (FOLDER / "test.jsonl", "test_")):
            with atomic_write(target, "wb") as handle:
                for language in ("tr", "en"):
                    handle.write((texts / f"{prefix}{language}.jsonl").read_bytes())
        flags = ("--languages", languages, "--test", FOLDER / "test.jsonl", "--rule", student.rule, "--size", str(student.size))
        mecellem("tokenizer", "graft", "--teacher", teacher, "--corpus", whole, "--out", tokenizer, *flags, timeout=1800)
    if not clone.exists():
        mecellem(
            *("convert", "clone", "--teacher", teacher, "--tokenizer", tokenizer, "--method", student.method, "--out", clone),
            timeout=1800,
        )
    if student.epochs and not (out / "modules.json").exists():
        words = ["--epochs", f"{student.epochs:g}", "--batch-size", str(batch), "--lr", f"{lr:g}"]
        words += ["--embedding-lr", f"{10 * lr:g}", "--prompt", "", "--compute", "bf16"]
        mecellem(
            "distill", "train", "--student", clone, "--vectors", vectors[student.small], "--out", out, *words, timeout=7200
        )
    return out


def score(models: dict[str, Path]) -> Leaderboard:
    """All models on all tasks."""
    out = FOLDER / "scores"
    named: list[str | Path] = ["bm25", *(f"{name}={path}" for name, path in models.items())]
    corpus = ("--corpus", FOLDER / "corpus", "--max-documents", "2000")
    flags = ("--tasks", *TASKS, "corpus", *corpus, "--max-seq-length", str(LENGTH), "--text-prompt", "query: ")
    mecellem("evaluate", *named, *flags, "--out", out, "--cache", FOLDER / "scores" / "cache", timeout=7200)
    return read_record(out / "results.json", Leaderboard, "run the benchmark again")


def speeds(models: dict[str, Path], rounds: int, count: int = 1500) -> dict[str, float]:
    """Texts per second of every model on the same held-out texts, in turns; the best of the rounds.

    Each is told a batch of 32 and sorts by length itself, as a user of sentence-transformers has it.
    """
    from sentence_transformers import SentenceTransformer

    lines = (FOLDER / "test.jsonl").read_text(encoding="utf-8").splitlines()
    texts = ["passage: " + json.loads(line)["text"] for line in lines[:: max(1, len(lines) // count)]]
    loaded = {name: SentenceTransformer(str(path), device="cpu") for name, path in models.items()}
    best: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, model in loaded.items():
            model.max_seq_length = LENGTH
            started = time.perf_counter()
            model.encode(texts if number else texts[:64], show_progress_bar=False)
            if number:
                best[name] = max(best.get(name, 0.0), len(texts) / (time.perf_counter() - started))
    return best


def parameters(folder: Path) -> int:
    """Of the model in a folder."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="numpy") as handle:
        return sum(math.prod(handle.get_slice(name).get_shape()) for name in list(handle.keys()))


def fertility(student: Student | None) -> tuple[float, float]:
    """Tokens a word of held-out Turkish and English; of the teacher without a student."""
    folder = next(FOLDER.glob("tokenizer_*")) if student is None else FOLDER / student.tokenizer
    found = json.loads((folder / "graft.json").read_text(encoding="utf-8"))["languages"]
    when = "before" if student is None else "after"
    turkish, english = (found[language][when]["tokens_per_word"] for language in ("tr", "en"))
    return turkish, english


def report(
    rows: dict[str, Student], board: Leaderboard, rates: dict[str, float], folders: dict[str, Path], seconds: float
) -> str:
    """The Markdown file."""
    tasks = [task.name for task in board.tasks]
    scores = {system.name: {name: result.main_score for name, result in system.tasks.items()} for system in board.systems}
    main = [name for name in tasks if name in TASKS]

    def mean(name: str, of: list[str]) -> float:
        return sum(scores[name][task] for task in of) / len(of)

    lines = ["# Distilling multilingual-e5-small", "", header(("sentence-transformers", "mteb", "tokenizers", "torch")), ""]
    lines += [__doc__.split("\n\n")[2].replace("\n", " "), ""] if __doc__ else []
    heads = ["", "parameters", "tokens a word, tr", "en", "texts/s", "times the teacher's", "mean of five", "of the teacher's"]
    lines += ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for name, folder in folders.items():
        student = rows.get(name)
        turkish, english = fertility(student)
        title = student.title if student else "multilingual-e5-small, the teacher"
        lines.append(
            f"| {title} | {parameters(folder):,} | {turkish:.3f} | {english:.3f} | {rates[name]:,.0f} | "
            f"{rates[name] / rates['teacher']:.2f} | {mean(name, main):.4f} | {mean(name, main) / mean('teacher', main):.1%} |"
        )
    lines += ["", "By task (nDCG@10, F1 for bitext), with those whose documents are all of the test split:", ""]
    lines += ["| | " + " | ".join(tasks) + " |", "|---" + "|---:" * len(tasks) + "|"]
    for name in ["bm25", *folders]:
        title = "BM25" if name == "bm25" else rows[name].title if name in rows else "the teacher"
        cells = [f"{scores[name][task]:.4f}" if task in scores[name] else "–" for task in tasks]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines += ["", f"The whole took {seconds / 60:.0f} minutes, without the downloads.", ""]
    return "\n".join(lines)


def distill_e5(
    size: int = 32_768,
    texts: int = 24_000,
    epochs: float = 2.0,
    batch: int = 64,
    lr: float = 1e-4,
    rounds: int = 3,
    again: bool = False,
    out: Path = ROOT / "benchmarks" / "results" / "distill_e5.md",
) -> None:
    """Make every student, score all beside the teacher, and write the table.

    Args:
        size: entries of the main student's vocabulary; the other one has twice as many
        texts: that the teacher encodes
        epochs: passes of the main student
        batch: texts in a batch
        lr: peak learning rate; that of the embeddings is ten times as high
        rounds: of the encoding speeds
        again: throw away what earlier calls have made
        out: Markdown file for the results
    """
    teacher = e5_small_folder(CACHE)
    if again:
        shutil.rmtree(FOLDER, ignore_errors=True)
    found = make_texts()
    started = time.perf_counter()
    vectors = make_vectors(teacher, found, texts)
    rows = {f"student_{number}": student for number, student in enumerate(students(size, epochs))}
    folders = {"teacher": teacher} | {
        name: make_student(student, teacher, found, vectors, batch, lr) for name, student in rows.items()
    }
    board = score(folders)
    rates = speeds(folders, rounds)
    text = report(rows, board, rates, folders, time.perf_counter() - started)
    with atomic_write(out) as handle:
        handle.write(text)
    print(text)


if __name__ == "__main__":
    parse_and_call(distill_e5, sys.argv[1:], "python benchmarks/distill_e5.py")
