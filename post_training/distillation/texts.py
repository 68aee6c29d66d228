"""The texts that a teacher encodes: found, numbered in order, equal ones once, and read again a shard at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mecellem.errors import UserError
from preprocessing.corpus.read_split import split_path
from preprocessing.jsonl import SUFFIXES, check_inputs, optional_string, read_fields

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PLAIN = ".txt"


@dataclass(frozen=True, slots=True)
class Text:
    """One text, the language and source that its line names ("" where it names none), and where it stands."""

    text: str
    lang: str
    source: str
    path: Path
    line: int

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the text's UTF-8, 32 bytes."""
        return hashlib.sha256(self.text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All texts of some files. `first` [texts read]: neither empty nor a copy of an earlier one; `hashes` [texts kept, 32].

    `sha256` is that of the kept texts' hashes, in order: what the texts are, wherever they lie.
    """

    files: tuple[Path, ...]
    first: NDArray[np.bool_]
    hashes: NDArray[np.uint8]
    empty: int
    duplicates: int

    def __len__(self) -> int:
        """Texts that are kept."""
        return len(self.hashes)

    @property
    def sha256(self) -> str:
        """As above, in hexadecimal."""
        return hashlib.sha256(self.hashes.tobytes()).hexdigest()


def find_files(corpus: Sequence[Path], split: str) -> tuple[Path, ...]:
    """The files that `corpus` names: files as they are; of a corpus folder `split`; of another folder all that it holds.

    Raises `UserError` for what is missing, of another kind, or holds nothing.
    """
    from preprocessing.corpus.split import SPLITS

    if split not in SPLITS:
        raise UserError(f"--split {split}: a corpus has the splits {', '.join(SPLITS)}")
    found: list[Path] = []
    for path in corpus:
        if not path.is_dir():
            found.append(path)
        elif any((path / f"{name}{suffix}").is_file() for name in SPLITS for suffix in SUFFIXES):
            found.append(split_path(path, split))
        else:
            inside = sorted(file for suffix in (*SUFFIXES, PLAIN) for file in path.rglob(f"*{suffix}"))
            if not inside:
                raise UserError(f"{path} holds no .jsonl, .jsonl.gz, .jsonl.zst or .txt file: check the path (--corpus)")
            found += inside
    if not found:
        raise UserError("--corpus names nothing: give a corpus folder, or .jsonl or .txt files")
    lines = [path for path in found if path.suffix != PLAIN]
    if lines:
        check_inputs(lines, "--corpus")
    for path in found:
        if not path.is_file():
            raise UserError(f"{path}, given by --corpus, is not a file: check the path")
    return tuple(found)


def read_texts(path: Path, progress: Callable[[int], None] = lambda _: None) -> Iterator[Text]:
    """The texts of a file: a JSON object a line with `text`, perhaps `lang` and `source`; of .txt a text a line.

    `progress` is told how many bytes were read. Raises `UserError` that names the line.
    """
    if path.suffix == PLAIN:
        with open(path, "rb") as handle:
            for number, line in enumerate(handle, start=1):
                progress(len(line))
                try:
                    yield Text(line.decode().rstrip("\r\n"), "", path.name, path, number)
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"{path}, line {number}: not UTF-8 (byte {error.start} of the line): convert the file to UTF-8"
                    ) from None
        return
    for number, fields in read_fields(path, progress):
        lang = optional_string(path, number, fields, "lang", "")
        yield Text(fields["text"], lang, optional_string(path, number, fields, "source", path.name), path, number)


def catalogue(files: Sequence[Path], progress: Callable[[int], None] = lambda _: None) -> Catalogue:
    """Read all files once. Raises `UserError` where they hold no text that is not empty."""
    import numpy as np

    seen: set[bytes] = set()
    hashes, first = bytearray(), bytearray()
    empty = 0
    for path in files:
        for text in read_texts(path, progress):
            full = bool(text.text.strip())
            digest = text.sha256 if full else b""
            new = full and digest not in seen
            empty += not full
            if new:
                seen.add(digest)
                hashes += digest
            first.append(new)
    kept = np.frombuffer(bytes(hashes), dtype=np.uint8).reshape(-1, 32)
    if not len(kept):
        raise UserError(f"{files[0]} has no text that is not empty: give others (--corpus)")
    return Catalogue(tuple(files), np.frombuffer(bytes(first), dtype=np.bool_), kept, empty, len(first) - empty - len(kept))


def shard_bounds(count: int, shards: int) -> list[int]:
    """Where shards begin, and the end: shard i holds the texts bounds[i] to bounds[i + 1] - 1."""
    return [count * number // shards for number in range(shards + 1)]


def read_shards(found: Catalogue, bounds: Sequence[int], wanted: Sequence[int]) -> Iterator[tuple[int, list[Text]]]:
    """(number, texts) of the shards that are `wanted`, in ascending order; one shard's texts are in memory at a time.

    Raises `UserError` when a file is no longer what `found` saw.
    """
    kept = (text for text, first in zip(_all(found), found.first.tolist(), strict=True) if first)
    place = 0
    for number in sorted(wanted):
        texts = []
        for text in kept:
            if place >= bounds[number]:
                if text.sha256 != found.hashes[place].tobytes():
                    raise UserError(f"{text.path}, line {text.line}: the file changed while it was read: run the command again")
                texts.append(text)
            place += 1
            if place == bounds[number + 1]:
                break
        yield number, texts


def _all(found: Catalogue) -> Iterator[Text]:
    for path in found.files:
        yield from read_texts(path)
