"""A Turkish student out of multilingual-e5-small: graft, clone, distil; each step and alternative scored beside the teacher.

    python benchmarks/distill_e5.py

Learned from: the sample's train split with the English of the same help pages and of WordNet (`distill_texts.py`), without
labels. Of every text 64 tokens are read in training. In the tasks all models read as many words as the main student does in
64 tokens (the teacher about 89 tokens): half of the texts are longer, and who has fewer tokens a word would read more of them.
Measured: tokens a word on the test split, encoding speed on the same whole texts in turns, and real tasks: retrieval of
LibreOffice's help in Turkish, in English and from English to Turkish, of Atatürk's speeches, English-Turkish bitext of a
contract and of the declaration of human rights. Only queries whose page or speech is in the test split count, among all
documents as candidates; a text of the test split that stands in another document, too, is not learned from. Pruning the
teacher to the pieces in use is a row of the table, for it costs nothing.
What is done is kept: a call that was stopped goes on, and one with other settings makes its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from common import CACHE, PACKAGES, ROOT, mecellem
from distill_e5_scores import Models, measure, report
from distill_texts import ENCODED, WORDS, english_pages, learn_and_test, write_texts
from real_models import e5_small_folder

from mecellem.files import atomic_write
from mecellem.flags import parse_and_call

FOLDER = CACHE / "distill_e5"
QUARTER = 0.25  # of the texts: on these the alternatives are compared
LENGTH = 64  # tokens of a text that are read, everywhere
LANGUAGES = """\
languages:
  tr: {texts: [kenet, ataturk, treebank, libreoffice], target: true}
  en: {texts: [libreoffice_en, wordnet_en]}
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the main student is made with."""

    size: int
    texts: int
    epochs: float
    batch: int
    lr: float


@dataclass(frozen=True, slots=True)
class Student:
    """A row: a vocabulary, how its rows are made, and the passes over the texts that it is distilled for (0: none)."""

    title: str
    size: int
    rule: str = "joint"
    method: str = "mean"
    epochs: float = 0.0

    @property
    def tokenizer(self) -> str:
        """Name of its tokenizer's folder."""
        return f"tokenizer_{self.rule}_{self.size}"

    @property
    def clone(self) -> str:
        """Name of the clone's folder."""
        return f"clone_{self.rule}_{self.size}_{self.method}"


def students(recipe: Recipe) -> list[Student]:
    """The table's rows, the main student first."""
    size, twice = recipe.size, 2 * recipe.size
    return [
        Student("orthogonal matching pursuit, distilled", size, method="omp", epochs=recipe.epochs),
        Student("pruned to the pieces in use, nothing trained", size, rule="used"),
        Student("mean composition", size),
        Student("orthogonal matching pursuit", size, method="omp"),
        Student("regression", size, method="regression"),
        Student("random rows, distilled on a quarter", size, method="random", epochs=QUARTER),
        Student("mean composition, distilled on a quarter", size, epochs=QUARTER),
        Student("orthogonal matching pursuit, distilled on a quarter", size, method="omp", epochs=QUARTER),
        Student(f"mean composition, {twice:,} entries, distilled on a quarter", twice, epochs=QUARTER),
    ]


class Workshop:
    """A folder in which every part is made once, and how long each took."""

    def __init__(self, recipe: Recipe) -> None:
        """Its name says what all parts depend on: another number of texts makes another one."""
        told = json.dumps([recipe.texts, WORDS, ENCODED, LENGTH, LANGUAGES, "none of the test split's texts"])
        self.folder = FOLDER / hashlib.sha256(told.encode()).hexdigest()[:8]
        self.recipe = recipe
        self.folder.mkdir(parents=True, exist_ok=True)

    def make(self, name: str, work: Callable[[Path], object], resumes: bool = False) -> Path:
        """The part `name`; `work` makes it where no call has finished it, and with `resumes` goes on from what is there."""
        target = self.folder / name
        if name not in self.seconds() or not target.exists():
            if target.exists() and not resumes:
                shutil.rmtree(target)
            started = time.perf_counter()
            work(target)
            took = self.seconds() | {name: time.perf_counter() - started}
            with atomic_write(self.folder / "seconds.json") as handle:
                json.dump(took, handle, indent=1)
        return target

    def seconds(self) -> dict[str, float]:
        """Of every part that was made, in whatever call."""
        path = self.folder / "seconds.json"
        found: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return found


def make_corpus() -> Path:
    """The sample with LibreOffice's help, split by document."""
    corpus = FOLDER / "corpus"
    if not (corpus / "corpus.json").exists():
        mecellem("corpus", "fetch", "--sample", "--libreoffice", "yes", "--out", corpus, "--cache", PACKAGES)
    return corpus


def make_vectors(shop: Workshop, teacher: Path, rows: list[dict[str, str]]) -> Path:
    """The teacher's vectors of the texts."""

    def encode(out: Path) -> None:
        texts = out.with_suffix(".jsonl")
        with atomic_write(texts) as handle:
            handle.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        flags = ("--corpus", texts, "--out", out, "--prompt", "", "--max-length", str(LENGTH))
        mecellem("distill", "vectors", "--teacher", teacher, *flags, timeout=3600)

    return shop.make("vectors", encode, resumes=True)


def make_student(shop: Workshop, student: Student, teacher: Path, learn: Path, test: Path, vectors: Path) -> Path:
    """Tokenizer, clone and distillation of one row."""

    def graft(out: Path) -> None:
        languages = shop.folder / "languages.yaml"
        languages.write_text(LANGUAGES, encoding="utf-8")
        flags = ("--languages", languages, "--test", test, "--rule", student.rule, "--size", str(student.size))
        mecellem("tokenizer", "graft", "--teacher", teacher, "--corpus", learn, "--out", out, *flags, timeout=1800)

    def clone(out: Path) -> None:
        flags = ("--tokenizer", tokenizer, "--method", student.method, "--out", out)
        mecellem("convert", "clone", "--teacher", teacher, *flags, timeout=1800)

    def distil(out: Path) -> None:
        flags: list[str | Path] = ["--vectors", vectors, "--out", out, "--prompt", ""]
        flags += ["--epochs", f"{student.epochs:g}", "--batch-size", str(shop.recipe.batch)]
        flags += ["--lr", f"{shop.recipe.lr:g}", "--embedding-lr", f"{10 * shop.recipe.lr:g}"]
        mecellem("distill", "train", "--student", cloned, *flags, timeout=7200)

    tokenizer = shop.make(student.tokenizer, graft)
    cloned = shop.make(student.clone, clone)
    if not student.epochs:
        return cloned
    told = f"{student.epochs:g}_{shop.recipe.batch}_{shop.recipe.lr:g}"
    return shop.make(f"{student.clone}_{told}", distil, resumes=True)


def distill_e5(
    size: int = 65_536,
    texts: int = 10_000,
    epochs: float = 1.0,
    batch: int = 64,
    lr: float = 1e-4,
    rounds: int = 3,
    again: bool = False,
    out: Path = ROOT / "benchmarks" / "results" / "distill_e5.md",
) -> None:
    """Make every student, score all beside the teacher, and write the table.

    Args:
        size: entries of the main student's vocabulary; another student has twice as many
        texts: that the teacher encodes
        epochs: passes of the main student
        batch: texts in a batch
        lr: peak learning rate; that of the embeddings is ten times as high
        rounds: of the encoding speeds
        again: throw away what earlier calls have made
        out: Markdown file for the results
    """
    recipe = Recipe(size, texts, epochs, batch, lr)
    if again:
        shutil.rmtree(FOLDER, ignore_errors=True)
    teacher, corpus = e5_small_folder(ROOT / ".cache" / "models"), make_corpus()
    shop = Workshop(recipe)
    pieces = shop.make("texts", lambda target: write_texts(corpus, PACKAGES, target))
    learn, test, rows = learn_and_test(pieces, shop.folder, texts)
    vectors = make_vectors(shop, teacher, rows)
    rows_of = {f"student_{number}": student for number, student in enumerate(students(recipe))}
    folders = {name: make_student(shop, student, teacher, learn, test, vectors) for name, student in rows_of.items()}
    english = shop.make("english", lambda target: english_pages(corpus, PACKAGES, target))
    titles = {name: student.title for name, student in rows_of.items()}
    tokenizers = {name: shop.folder / student.tokenizer for name, student in rows_of.items()}
    models = Models({"teacher": teacher, **folders}, {"teacher": "multilingual-e5-small, the teacher", **titles}, tokenizers)
    measured = measure(models, corpus, english, test, shop.folder / "scores", rounds, LENGTH)
    text = report(__doc__ or "", models, measured, sum(shop.seconds().values()), json.dumps(asdict(recipe)))
    with atomic_write(out) as handle:
        handle.write(text)
    print(text)


if __name__ == "__main__":
    parse_and_call(distill_e5, sys.argv[1:], "python benchmarks/distill_e5.py")
