"""From files of JSON lines to one `.bin/.idx` and its manifest, in bounded memory.

Reading, parsing, encoding, comparing with the oracle and writing each have a thread; what passes between them is a
block of lines at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
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
    write_manifest,
)
from preprocessing.jsonl import LineBlock, fingerprint, joint_fingerprint, read_line_blocks
from preprocessing.outputs import is_whole, refuse_other_corpus
from preprocessing.tokenizer import load_tokenizer
from preprocessing.tokens.background import Background, ahead
from preprocessing.tokens.documents import Documents, parse_block
from preprocessing.tokens.engines import Engine, GigatokenEngine, HuggingFaceEngine, UnsupportedError
from preprocessing.tokens.indexed import IndexedWriter, WrittenFile, open_writer, token_dtype
from preprocessing.tokens.oracle import Oracle
from preprocessing.tokens.provenance import Provenance

if TYPE_CHECKING:
    from rich.progress import Progress

EngineChoice = Literal["auto", "tokenizers"]
_BLOCK = 4 << 20  # bytes of lines at a time: enough for all cores, and some dozens of MB in all threads together


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
    """A corpus that is there, and how many bytes of text were tokenized for it: None when it was there already."""

    manifest: CorpusManifest
    text_bytes: int | None


def write_corpus(
    inputs: Sequence[Path], encoder: Encoder, prefix: Path, may_be_empty: bool = False, replace: bool = False
) -> Written:
    """Write `<prefix>.bin`, `<prefix>.idx` and, last, the manifest; what is complete already is left as it is.

    Another corpus at `prefix` is only overwritten with `replace`. Where gigatoken and its oracle differ, all of the corpus
    is encoded again with tokenizers. Raises `UserError` on bad input, on a full disk and, unless it `may_be_empty`, on a
    corpus without a token; nothing half-written is left.
    """
    made = _made_already(inputs, encoder, prefix)
    if made and is_whole(prefix, made):
        return Written(made, None)
    if not made and not replace:
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
        engines = {"tokenizers"} if encoder.choice == "tokenizers" else {"tokenizers", "gigatoken"}
        if (
            manifest.tokenizer != encoder.entry
            or manifest.versions != _versions(manifest.inputs)
            or any(engine.name not in engines or engine.version != _installed(engine.name) for engine in manifest.engines)
            or [entry.name for entry in manifest.inputs] != [path.name for path in inputs]
            or manifest.versions["input"] != f"sha256:{fingerprint(inputs)}"
        ):
            return None
    except UserError:
        return None
    return manifest


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _write(inputs: Sequence[Path], encoder: Encoder, prefix: Path, may_be_empty: bool) -> Written:
    finished: list[WrittenFile] = []
    with (
        open_writer(prefix, token_dtype(encoder.loaded.vocab_size), finished) as writer,
        progress_bar(transient=True) as progress,
    ):
        run = _Run(encoder, writer)
        run.encode_all(_read(inputs, run.inputs, progress))
        if writer.tokens == 0 and not may_be_empty:
            raise UserError(f"{', '.join(map(str, inputs))}: no text in any document, there is nothing to tokenize")
    manifest = CorpusManifest(
        documents=writer.documents,
        tokens=writer.tokens,
        dtype=writer.dtype.name,
        tokenizer=encoder.entry,
        files={file.name: file.entry for file in finished},
        sources=run.sources.ranges,
        versions=_versions(run.inputs),
        inputs=run.inputs,
        engines=[
            EngineEntry(
                name=encoder.engine.name,
                version=encoder.engine.version,
                documents=writer.documents,
                compared=run.oracle.compared,
                adversarial=encoder.adversarial,
                reason=encoder.reason,
            )
        ],
    )
    write_manifest(prefix, manifest)
    return Written(manifest, run.text_bytes)


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
        with Background() as writing, Background() as comparing:
            for number, documents in ahead(parsed):
                file, first = number, first if number == file else 0
                engine = self._encoder.engine  # made while the first blocks are read
                ids, lengths = engine.encode(documents)
                if engine.name != "tokenizers":
                    comparing.submit(self._compare, engine, documents, ids, lengths, first)
                writing.submit(self._add, ids, lengths)
                self.sources.add(documents.runs)
                self.text_bytes += documents.text_bytes
                first += len(documents)
            comparing.finish()
            writing.finish()

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
