"""Reading the corpus folder: `train.jsonl.zst`, `validation.jsonl.zst`, `test.jsonl.zst`, one document a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import zstandard

from mecellem.errors import UserError
from mecellem.files import sha256_of
from preprocessing.corpus.document import Document

MAKE_IT = "make the corpus with `mecellem corpus fetch`"


def split_path(corpus: Path, split: str) -> Path:
    """The file of one split (`train`, `validation`, `test`). Raises `UserError` when it, or the folder, is missing."""
    assert split in ("train", "validation", "test"), split
    if not corpus.is_dir():
        raise UserError(f"{corpus} is not a corpus folder (--corpus): {MAKE_IT}")
    path = corpus / f"{split}.jsonl.zst"
    if not path.is_file():
        raise UserError(f"{path} is missing: {MAKE_IT}")
    return path


def split_sha256(corpus: Path, split: str) -> str:
    """SHA-256 of a split's file: what cached results are keyed by."""
    return sha256_of(split_path(corpus, split))


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(line number, line) of a zstd-compressed text, blank lines left out. Raises `UserError` on damaged or cut data."""
    data, blocks = path.read_bytes(), []
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            blocks.append(frame.decompress(data))
        except zstandard.ZstdError as error:
            raise UserError(f"{path} is damaged ({error}): {MAKE_IT}") from None
        if not frame.eof:
            raise UserError(f"{path} is cut short inside a zstd frame: {MAKE_IT}")
        data = frame.unused_data
    for number, line in enumerate(b"".join(blocks).split(b"\n"), start=1):
        if line.strip():
            yield number, line


def parse_document(path: Path, number: int, line: bytes) -> Document:
    """One line as a `Document`. Raises `UserError` that names the line when it is not JSON or lacks a key."""
    try:
        row: dict[str, Any] = orjson.loads(line)
        return Document(
            id=row["id"],
            source=row["source"],
            licence=row["licence"],
            title=row["title"],
            text=row["text"],
            definitions=tuple(row.get("definitions") or ()),
            examples=tuple(row.get("examples") or ()),
        )
    except orjson.JSONDecodeError as error:
        raise UserError(f"{path}, line {number} is not JSON ({error.msg}): {MAKE_IT}") from None
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}, line {number} is not a document ({error!r}): {MAKE_IT}") from None


def read_split(corpus: Path, split: str) -> list[Document]:
    """All documents of a split, in file order. Raises `UserError` when there is none."""
    path = split_path(corpus, split)
    documents = [parse_document(path, number, line) for number, line in read_lines(path)]
    if not documents:
        raise UserError(f"{path} has no documents: a {split} split is needed here; {MAKE_IT} and a larger sample")
    return documents
