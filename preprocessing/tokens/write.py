"""From files of JSON lines to one `.bin/.idx` and its manifest, in bounded memory.

Reading, parsing, encoding, comparing with the oracle and writing each have a thread; what passes between them is a
block of lines at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mecellem import __version__
from mecellem.console import progress_bar
from mecellem.errors import UserError
from mecellem.manifest import (
    CorpusManifest,
    EngineEntry,
    InputEntry,
    TokenizerEntry,
    read_manifest,
)
from preprocessing.jsonl import LineBlock, fingerprint, joint_fingerprint, read_line_blocks
from preprocessing.outputs import is_whole, refuse_other_corpus
from preprocessing.tokenizer import load_tokenizer
from preprocessing.tokens.background import Background, ahead
from preprocessing.tokens.commit import open_pair, settle
from preprocessing.tokens.documents import Documents, parse_block
from preprocessing.tokens.engines import Engine, GigatokenEngine, HuggingFaceEngine, UnsupportedError
from preprocessing.tokens.indexed import IndexedWriter, token_dtype
from preprocessing.tokens.oracle import Oracle
from preprocessing.tokens.provenance import Provenance

if TYPE_CHECKING:
    from rich.progress import Progress

EngineChoice = Literal["auto", "tokenizers"]
_BLOCK = 2 << 20  # bytes of lines at a time: some dozens of MB in all threads together


class DifferenceError(Exception):
    """gigatoken gave other ids than tokenizers; the message says where."""


class Encoder:
    """A tokenizer folder and the engine that encodes with it; the engine is made when it is first needed.

    Raises `UserError` for a folder that is missing or broken.
    """

    def __init__(self, folder: Path, eod: str | None, choice: EngineChoice) -> None:
        self.loaded = load_tokenizer(folder, eod)
        self.choice = choice
        self.adversarial = 0
        self.reason: str | None = None
        self._folder = folder
        self._engine: Engine | None = None

    @property
    def entry(self) -> TokenizerEntry:
        """What the manifest says of the tokenizer."""
        return TokenizerEntry(sha256=self.loaded.sha256, vocab_size=self.loaded.vocab_size, eod_id=self.loaded.eod_id)

    @property
    def engine(self) -> Engine:
        """The fastest that may be used: gigatoken, if it can take the tokenizer and passes the fixed list of texts."""
        if self._engine is None:
            self._engine = self._fastest()
        return self._engine

    def fall_back(self, reason: str) -> Engine:
        """Encode with tokenizers from here on."""
        self.reason, self.adversarial = reason, 0
        self._engine = HuggingFaceEngine(self.loaded.tokenizer)
        return self._engine

    def _fastest(self) -> Engine:
        if self.choice == "tokenizers":
            return self.fall_back("--engine tokenizers")
        try:
            engine = GigatokenEngine(self._folder / "tokenizer.json")
        except UnsupportedError as error:
            return self.fall_back(str(error))
        oracle = Oracle(self.loaded.tokenizer)
        oracle.check_adversarial(engine)
        if oracle.difference:
            return self.fall_back(oracle.difference)
        self.adversarial = oracle.adversarial
        return engine


@dataclass(frozen=True, slots=True)
class Written:
    """A corpus that is there, and how many bytes of text were tokenized for it: None when it was there already.

    `others` are the packages that had another version when that was written, with that version.
    """

    manifest: CorpusManifest
    text_bytes: int | None
    others: dict[str, str] = field(default_factory=dict)


def write_corpus(
    inputs: Sequence[Path], encoder: Encoder, prefix: Path, may_be_empty: bool = False, replace: bool = False
) -> Written:
    """Write `<prefix>.bin`, `<prefix>.idx` and, last, the manifest; what is complete already is left as it is.

    With `replace` that is made again if it was written with other versions of mecellem, tokenizers or gigatoken, and so is
    any other corpus at `prefix`, which is refused without. What a killed run of the same left is overwritten, or finished.
    Where gigatoken and its oracle differ, all of the corpus is encoded again with tokenizers. Raises `UserError` on bad
    input, on a full disk and, unless it `may_be_empty`, on a corpus without a token; nothing half-written is left.
    """
    unfinished = settle(prefix)
    made = _made_already(inputs, encoder, prefix)
    if made and not (replace and _others(made)) and is_whole(prefix, made):
        return Written(made, None, _others(made))
    if not made and not replace and not (unfinished and _is_of(unfinished, inputs, encoder)):
        refuse_other_corpus(prefix)
    try:
        return _write(inputs, encoder, prefix, may_be_empty)
    except DifferenceError as error:
        difference = str(error)
    encoder.fall_back(difference)
    return _write(inputs, encoder, prefix, may_be_empty)


def _versions(inputs: Sequence[InputEntry]) -> dict[str, str]:
    return {
        "mecellem": __version__,
        "tokenizers": version("tokenizers"),
        "input": f"sha256:{joint_fingerprint(entry.sha256 for entry in inputs)}",
    }


def _made_already(inputs: Sequence[Path], encoder: Encoder, prefix: Path) -> CorpusManifest | None:
    """The manifest at `prefix` if it says that the corpus was made from the same text in the same way."""
    try:
        manifest = read_manifest(prefix)
    except UserError:
        return None
    return manifest if _is_of(manifest, inputs, encoder) else None


def _is_of(manifest: CorpusManifest, inputs: Sequence[Path], encoder: Encoder) -> bool:
    """Whether it was made from the same text, with the same tokenizer and an engine that was asked for, of any version."""
    engines = {"tokenizers"} if encoder.choice == "tokenizers" else {"tokenizers", "gigatoken"}
    return (
        manifest.tokenizer == encoder.entry
        and all(engine.name in engines for engine in manifest.engines)
        and (not manifest.inputs or [entry.name for entry in manifest.inputs] == [path.name for path in inputs])
        and manifest.versions.get("input") == f"sha256:{fingerprint(inputs)}"
    )


def _others(manifest: CorpusManifest) -> dict[str, str]:
    """The packages that wrote it and have another version now, with the version they had."""
    packages = {name: manifest.versions.get(name, "?") for name in ("mecellem", "tokenizers")}
    packages |= {engine.name: engine.version for engine in manifest.engines}
    older = {"mecellem"} if not manifest.inputs else set()  # before manifests named their inputs
    return {name: found for name, found in packages.items() if name in older or found != _installed(name)}


def _installed(package: str) -> str | None:
    if package == "mecellem":
        return __version__
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _write(inputs: Sequence[Path], encoder: Encoder, prefix: Path, may_be_empty: bool) -> Written:
    with open_pair(prefix) as pair, TemporaryFile(dir=prefix.parent) as spool, progress_bar(transient=True) as progress:
        writer = IndexedWriter(pair.bin, pair.idx, spool, token_dtype(encoder.loaded.vocab_size))
        run = _Run(encoder, writer)
        run.encode_all(_read(inputs, run.inputs, progress))
        if writer.tokens == 0 and not may_be_empty:
            raise UserError(f"{', '.join(map(str, inputs))}: no text in any document, there is nothing to tokenize")
        pair.manifest = run.manifest(prefix.name)
    return Written(pair.manifest, run.text_bytes)


def _read(inputs: Sequence[Path], entries: list[InputEntry], progress: Progress) -> Iterator[tuple[int, LineBlock]]:
    """(number of the file, lines) of all files; `entries` has each file that was read to its end."""
    task = progress.add_task("tokenizing (bytes)", total=sum(path.stat().st_size for path in inputs))
    for number, path in enumerate(inputs):
        digest, size = hashlib.sha256(), 0

        def seen(raw: bytes, update: Any = digest.update) -> None:
            nonlocal size
            size += len(raw)
            update(raw)
            progress.advance(task, len(raw))

        try:
            for block in read_line_blocks(path, _BLOCK, seen):
                yield number, block
        except FileNotFoundError:
            raise UserError(f"{path} vanished while the corpus was written: put it back and run again") from None
        entries.append(InputEntry(name=path.name, bytes=size, sha256=digest.hexdigest()))


class _Run:
    """What is gathered while blocks go by."""

    def __init__(self, encoder: Encoder, writer: IndexedWriter) -> None:
        self.inputs: list[InputEntry] = []
        self.sources = Provenance()
        self.oracle = Oracle(encoder.loaded.tokenizer)
        self.text_bytes = 0
        self._encoder = encoder
        self._writer = writer

    def encode_all(self, blocks: Iterator[tuple[int, LineBlock]]) -> None:
        """Encode and write all blocks. Raises `DifferenceError` where the oracle disagrees."""
        parsed = ((number, parse_block(block)) for number, block in ahead(blocks))
        file, first = 0, 0
        with Background() as writing, Background() as comparing, ThreadPoolExecutor(1) as starting:
            making = starting.submit(lambda: self._encoder.engine)  # while the first lines are read and parsed
            for number, documents in ahead(parsed, 3):
                file, first = number, first if number == file else 0
                engine = making.result()
                ids, lengths = engine.encode(documents)
                if engine.name != "tokenizers":
                    comparing.submit(self._compare, engine, documents, ids, lengths, first)
                writing.submit(self._add, ids, lengths)
                self.sources.add(documents.runs)
                self.text_bytes += documents.text_bytes
                first += len(documents)
            comparing.finish()
            writing.finish()

    def manifest(self, name: str) -> CorpusManifest:
        """Write the `.idx`; returns the manifest of `<name>.bin` and `<name>.idx`."""
        encoder, writer = self._encoder, self._writer
        bin_entry, idx_entry = writer.finish()
        engine = EngineEntry(
            name=encoder.engine.name,
            version=encoder.engine.version,
            documents=writer.documents,
            compared=self.oracle.compared,
            adversarial=encoder.adversarial,
            reason=encoder.reason,
        )
        return CorpusManifest(
            documents=writer.documents,
            tokens=writer.tokens,
            dtype=writer.dtype.name,
            tokenizer=encoder.entry,
            files={f"{name}.bin": bin_entry, f"{name}.idx": idx_entry},
            sources=self.sources.ranges,
            versions=_versions(self.inputs),
            inputs=self.inputs,
            engines=[engine],
        )

    def _compare(self, engine: Engine, documents: Documents, ids: NDArray[Any], lengths: NDArray[np.int64], first: int) -> None:
        self.oracle.check_sample(engine, documents, ids, lengths, first)
        if self.oracle.difference:
            raise DifferenceError(self.oracle.difference)

    def _add(self, ids: NDArray[Any], lengths: NDArray[np.int64]) -> None:
        """Every document is its tokens and the end of a document; an empty one has no tokens at all."""
        full = lengths > 0
        ends = np.cumsum(lengths)[full]
        with_ends = np.insert(ids.astype(self._writer.dtype), ends, self._encoder.loaded.eod_id)
        self._writer.add(with_ends, lengths + full)
