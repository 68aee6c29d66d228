"""`mecellem prepare tokenize`: JSONL -> Megatron `.bin/.idx` and a manifest.

Equal, byte for byte, to `preprocess_data.py --append-eod --tokenizer-type HuggingFaceTokenizer
--tokenizer-hf-no-include-special-tokens` of Megatron-LM, with one exception. There a document that merely writes
"[SEP]" gets the id of the end of a document, which cuts it in two; a "[MASK]" becomes a mask that no one set. Here such
words are text like any other (what transformers calls `split_special_tokens`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mecellem import __version__
from mecellem.console import progress_bar, step
from mecellem.errors import UserError
from mecellem.flags import parse_and_call
from mecellem.manifest import (
    CorpusManifest,
    SourceRange,
    TokenizerEntry,
    manifest_path,
    read_manifest,
    verify_files,
    write_manifest,
)
from preprocessing.indexed import IndexedWriter, WrittenFile, open_writer, token_dtype
from preprocessing.jsonl import Record, check_inputs, fingerprint, read_records
from preprocessing.outputs import check_output_folder
from preprocessing.tokenizer import LoadedTokenizer, load_tokenizer

if TYPE_CHECKING:
    from rich.progress import Progress

_BATCH_CHARACTERS = 4 << 20
_BATCH_DOCUMENTS = 4096
_MAX_RANGES = 100_000


@dataclass(slots=True)
class _Sources:
    """The ranges of documents of one source, as they come."""

    ranges: list[SourceRange] = field(default_factory=list)

    def add(self, records: Sequence[Record], first: int) -> None:
        for number, record in enumerate(records, start=first):
            last = self.ranges[-1] if self.ranges else None
            if last and (last.source, last.licence) == (record.source, record.licence):
                self.ranges[-1] = last.model_copy(update={"last": number + 1})
                continue
            if len(self.ranges) == _MAX_RANGES:
                raise UserError(
                    f'the documents change their "source" or "licence" more than {_MAX_RANGES:,} times: '
                    "sort the lines by source, or give one file for each"
                )
            self.ranges.append(SourceRange(first=number, last=number + 1, source=record.source, licence=record.licence))


def tokenize_corpus(
    inputs: Sequence[Path], tokenizer: Path, prefix: Path, eod: str | None = None, replace: bool = False
) -> CorpusManifest:
    """Write `<prefix>.bin`, `<prefix>.idx` and, last, `<prefix>.manifest.json`; returns the manifest.

    `inputs` are .jsonl, .jsonl.gz or .jsonl.zst files, `tokenizer` is a Hugging Face tokenizer folder, `eod` the entry
    that ends a document (None: its `eos_token`). Every document is its tokens and the end-of-document id, without other
    special tokens; an empty one has no tokens at all. What is complete already and was made from the same text with the
    same tokenizer is left as it is; another corpus at `prefix` is only overwritten with `replace`. Raises `UserError` where
    that is not set, on bad input, on a corpus without a token and on a full disk; nothing half-written is left.
    """
    return _tokenize(inputs, tokenizer, prefix, eod, replace)[0]


def _tokenize(
    inputs: Sequence[Path], tokenizer: Path, prefix: Path, eod: str | None, replace: bool
) -> tuple[CorpusManifest, int | None]:
    """The manifest, and how many bytes of text were tokenized: None when all was there already."""
    check_inputs(inputs, "--input")
    check_output_folder(prefix.parent, "--out")
    loaded = load_tokenizer(tokenizer, eod)
    entry = TokenizerEntry(sha256=loaded.sha256, vocab_size=loaded.vocab_size, eod_id=loaded.eod_id)
    versions = {
        "mecellem": __version__,
        "tokenizers": version("tokenizers"),
        "input": f"sha256:{fingerprint(inputs)}",
    }
    made = _made_already(prefix, entry, versions)
    if made and _whole(prefix, made):
        return made, None
    if not made and not replace:
        _check_new(prefix)

    sources = _Sources()
    finished: list[WrittenFile] = []
    text_bytes = 0
    with (
        open_writer(prefix, token_dtype(loaded.vocab_size), finished) as writer,
        progress_bar(transient=True) as progress,
    ):
        for batch in _batches(inputs, progress):
            sources.add(batch, first=writer.documents)
            text_bytes += sum(len(record.text.encode()) for record in batch)
            _write_batch(batch, loaded, writer)
        if writer.tokens == 0:
            raise UserError(f"{', '.join(map(str, inputs))}: no text in any document, there is nothing to tokenize")
    manifest = CorpusManifest(
        documents=writer.documents,
        tokens=writer.tokens,
        dtype=writer.dtype.name,
        tokenizer=entry,
        files={file.name: file.entry for file in finished},
        sources=sources.ranges,
        versions=versions,
    )
    write_manifest(prefix, manifest)
    return manifest, text_bytes


def _made_already(prefix: Path, tokenizer: TokenizerEntry, versions: dict[str, str]) -> CorpusManifest | None:
    """The manifest at `prefix` if it says that the corpus was made from the same text in the same way."""
    try:
        manifest = read_manifest(prefix)
    except UserError:
        return None
    return manifest if (manifest.tokenizer, manifest.versions) == (tokenizer, versions) else None


def _whole(prefix: Path, manifest: CorpusManifest) -> bool:
    try:
        verify_files(prefix, manifest)
    except UserError:
        return False
    return True


def _check_new(prefix: Path) -> None:
    """Raise `UserError` where a corpus stands that a run may need: it would refuse to go on over other tokens."""
    for path in (manifest_path(prefix), Path(f"{prefix}.bin"), Path(f"{prefix}.idx")):
        if path.exists():
            raise UserError(
                f"{path} exists already and is not known to be of the same text, tokenizer and versions: choose another --out, "
                "or add --replace if no run needs the older corpus"
            )


def _batches(inputs: Sequence[Path], progress: Progress) -> Iterator[list[Record]]:
    """Documents in batches of bounded size, so that memory does not grow with the corpus."""
    task = progress.add_task("tokenizing (bytes)", total=sum(path.stat().st_size for path in inputs))
    batch: list[Record] = []
    characters = 0
    for path in inputs:
        for record in read_records(path, progress=lambda count: progress.advance(task, count)):
            batch.append(record)
            characters += len(record.text)
            if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch


def _write_batch(batch: Sequence[Record], loaded: LoadedTokenizer, writer: IndexedWriter) -> None:
    loaded.tokenizer.encode_special_tokens = True  # "[SEP]" in a text is text; see the top of this module
    encodings = loaded.tokenizer.encode_batch_fast([record.text for record in batch], add_special_tokens=False)
    documents = [[*encoding.ids, loaded.eod_id] if encoding.ids else [] for encoding in encodings]
    lengths = np.array([len(ids) for ids in documents], np.int32)
    flat = np.fromiter((token for ids in documents for token in ids), writer.dtype, count=int(lengths.sum()))
    writer.add(flat, lengths)


def tokenize(input: list[Path], tokenizer: Path, out: Path, eod: str | None = None, replace: bool = False) -> None:
    """Write a corpus as Megatron .bin/.idx with a manifest: each document's tokens and the end-of-document token.

    A corpus that was made from the same text with the same tokenizer is left as it is.

    Args:
        input: .jsonl, .jsonl.gz or .jsonl.zst files, one {"text": ...} a line; "source" and "licence" are kept.
        tokenizer: Hugging Face tokenizer folder.
        out: prefix of the files to write: PREFIX.bin, PREFIX.idx, PREFIX.manifest.json.
        eod: the tokenizer's entry that ends a document (default: its eos_token; chat models often need another one,
            such as Qwen3's <|endoftext|>).
        replace: put the new corpus in the place of an older one.
    """
    wrote: list[Path] = []
    with step("Tokenize", reads=[*input, tokenizer], writes=wrote) as console:
        started = time.perf_counter()
        manifest, text_bytes = _tokenize(input, tokenizer, out, eod, replace)
        seconds = time.perf_counter() - started
        console.print(f"{manifest.documents:,} documents, {manifest.tokens:,} tokens as {manifest.dtype}", markup=False)
        if text_bytes is None:
            console.print(f"{manifest_path(out)} is complete and from the same text, nothing to do", markup=False)
            return
        console.print(
            f"{manifest.tokens / seconds:,.0f} tokens/s, {text_bytes / manifest.tokens:.2f} bytes per token",
            markup=False,
        )
        wrote += [Path(f"{out}.bin"), Path(f"{out}.idx"), manifest_path(out)]


def main(argv: Sequence[str]) -> int:
    """Parse the flags of `mecellem prepare tokenize` and run it."""
    parse_and_call(tokenize, argv, prog="mecellem prepare tokenize")
    return 0
