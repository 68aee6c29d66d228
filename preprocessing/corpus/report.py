"""Write the splits and `corpus.json` (what is in the corpus, from where, under which licence), and read it back."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from mecellem.files import atomic_write, disk_full_is_user_error, sha256_of
from preprocessing.corpus.dedup import find_clusters
from preprocessing.corpus.document import Document, Extract
from preprocessing.corpus.packages import Package
from preprocessing.corpus.split import SPLITS, split_of

if TYPE_CHECKING:
    from rich.console import Console

CORPUS_JSON = "corpus.json"
_FORMAT = "mecellem.sample/1"
_LIBRARIES = ("lxml", "numpy", "scipy", "zstandard")
Report = dict[str, Any]


def _program_hash() -> str:
    """SHA-256 of this package's own source: a corpus that other code made is not taken for this code's."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def complete_corpus(out: Path, libreoffice: str) -> Report | None:
    """The report of a corpus that is complete, unchanged and made by this code, else None.

    With `--libreoffice auto` either kind will do, so that a second call never changes a corpus under a running job.
    """
    try:
        report: Report = orjson.loads((out / CORPUS_JSON).read_bytes())
        right = report["format"] == _FORMAT and report["program"] == _program_hash()
        if libreoffice != "auto":
            right = right and ("libreoffice" in report["sources"]) == (libreoffice == "yes")
        right = right and all(sha256_of(out / split["file"]) == split["sha256"] for split in report["splits"].values())
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    return report if right else None


def write_corpus(out: Path, packages: Iterable[Package], extracts: dict[str, Extract]) -> Report:
    """Deduplicate, split and write the documents; `corpus.json` comes last, so its presence means "complete"."""
    documents = sorted(
        (document for extract in extracts.values() for document in extract.documents), key=lambda document: document.id
    )
    clusters = find_clusters(documents)
    splits: dict[str, list[Document]] = {split: [] for split in SPLITS}
    duplicates: dict[str, int] = defaultdict(int)
    for document, cluster, keep in zip(documents, clusters.cluster, clusters.keep, strict=True):
        if keep:
            splits[split_of(cluster)].append(document)
        else:
            duplicates[document.source] += 1
    dropped = {source: dict(sorted(extract.dropped.items())) for source, extract in extracts.items()}
    for source, count in duplicates.items():
        dropped[source]["near duplicate of a longer document"] = count

    with disk_full_is_user_error(out):
        out.mkdir(parents=True, exist_ok=True)
    (out / CORPUS_JSON).unlink(missing_ok=True)
    report: Report = {
        "format": _FORMAT,
        "program": _program_hash(),
        "sources": {document.source: document.licence for document in documents},
        "splits": {split: _write_split(out, split, rows) for split, rows in splits.items()},
        "packages": [asdict(package) for package in packages],
        "dropped": dropped,
        "clusters": {
            "near_duplicates_dropped": clusters.near_duplicates,
            "kept_on_one_side": clusters.clusters_of_several,
            "largest": clusters.largest_cluster,
        },
        "versions": {library: version(library) for library in _LIBRARIES},
    }
    with atomic_write(out / CORPUS_JSON, "wb") as handle:
        handle.write(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return report


def _write_split(out: Path, split: str, documents: list[Document]) -> Report:
    """Write one split, ordered by document id; returns its counts and hashes."""
    import zstandard

    lines = b"".join(document.as_line() for document in documents)
    data = zstandard.ZstdCompressor(level=10, write_checksum=True).compress(lines)
    path = out / f"{split}.jsonl.zst"
    with atomic_write(path, "wb") as handle:
        handle.write(data)
    return {
        "file": path.name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        # Compressed bytes depend on the version of zstd; the lines do not.
        "sha256_of_lines": hashlib.sha256(lines).hexdigest(),
        "total": _counts(documents),
        "sources": {
            source: _counts([document for document in documents if document.source == source])
            for source in sorted({document.source for document in documents})
        },
    }


def _counts(documents: list[Document]) -> dict[str, int]:
    return {
        "documents": len(documents),
        "words": sum(len(document.text.split()) for document in documents),
        "bytes": sum(len(document.text.encode()) for document in documents),
    }


def print_tables(report: Report, console: Console) -> None:
    """Print the licence of each source, then what each split holds, then what was dropped and why."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    licences = Table("source", "package", "licence of the text", "note", title="Licences", box=SIMPLE_HEAD)
    for package in report["packages"]:
        name = f"{package['name']}\n{package['version']}"
        licences.add_row(package["source"], name, package["licence"], package["licence_note"])
    console.print(licences)

    sizes = Table("source", *SPLITS, title="Documents (words)", box=SIMPLE_HEAD)
    for source in (*sorted(report["sources"]), "total"):
        parts = (report["splits"][split] for split in SPLITS)
        counts = [part["total"] if source == "total" else part["sources"].get(source) for part in parts]
        sizes.add_row(source, *(f"{part['documents']:,} ({part['words']:,})" if part else "0" for part in counts))
    console.print(sizes)
    for source, reasons in sorted(report["dropped"].items()):
        for reason, count in reasons.items():
            console.print(f"dropped {count:,} x {source}: {reason}", markup=False)
    clusters = report["clusters"]
    console.print(
        f"{clusters['kept_on_one_side']:,} clusters of related documents were kept on one side of the split each "
        f"(the largest has {clusters['largest']:,})",
        markup=False,
    )
