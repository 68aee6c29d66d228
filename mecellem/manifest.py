"""`manifest.json`: what stands beside every `.bin/.idx`, written by `preprocessing`, checked by every reader.

A reader that finds a file whose hash, or a tokenizer whose vocabulary, is not the manifest's refuses the corpus.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mecellem.errors import UserError
from mecellem.files import atomic_write, sha256_of

FORMAT = "mecellem.corpus/1"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Strict):
    """One file of the corpus: its size in bytes and the SHA-256 of its contents."""

    bytes: int
    sha256: str


class TokenizerEntry(_Strict):
    """The tokenizer that made the ids: SHA-256 of its `tokenizer.json`, number of entries, end-of-document id."""

    sha256: str
    vocab_size: int
    eod_id: int


class InputEntry(_Strict):
    """One file of text that the corpus was made from: its name, its size in bytes as it lies there, and its SHA-256."""

    name: str
    bytes: int
    sha256: str


class EngineEntry(_Strict):
    """What turned text into ids, for so many `documents`.

    Of these `compared` were encoded by Hugging Face tokenizers as well and had the same ids, and so had `adversarial`
    texts of a fixed list. `reason` says why tokenizers itself was used: what the faster engine cannot do, or the first
    difference that was found.
    """

    name: str
    version: str
    documents: int
    compared: int
    adversarial: int
    reason: str | None


class SourceRange(_Strict):
    """Documents `first` (inclusive) to `last` (exclusive) come from `source`, under `licence`."""

    first: int
    last: int
    source: str
    licence: str


class ProvenanceEntry(_Strict):
    """The file beside the corpus that has the stages and raw files behind its documents, of which it tells all."""

    file: str
    bytes: int
    sha256: str
    documents: int


class ShardEntry(_Strict):
    """Which shard of how many a corpus is, counted from 0."""

    number: int
    of: int


class CorpusManifest(_Strict):
    """Provenance of one `.bin/.idx` pair. `dtype` is numpy's name of the ids' type (`uint16` or `int32`).

    `inputs` and `engines` are empty in manifests of mecellem 0.2. `provenance` is None where a corpus was written without,
    as `mecellem prepare tokenize` does, and in manifests from before there was such a field. `shard` is None for a whole.
    """

    format: str = FORMAT
    documents: int
    tokens: int
    dtype: str
    tokenizer: TokenizerEntry
    files: dict[str, FileEntry]
    sources: list[SourceRange]
    versions: dict[str, str]
    inputs: list[InputEntry] = []
    engines: list[EngineEntry] = []
    provenance: ProvenanceEntry | None = None
    shard: ShardEntry | None = None

    @property
    def all_files(self) -> dict[str, FileEntry]:
        """Every file of the corpus but the manifest, by its name."""
        named = self.provenance
        return self.files | ({named.file: FileEntry(bytes=named.bytes, sha256=named.sha256)} if named else {})


def manifest_path(prefix: Path | str) -> Path:
    """Where the manifest of `<prefix>.bin` and `<prefix>.idx` stands: `<prefix>.manifest.json`."""
    return Path(f"{prefix}.manifest.json")


def provenance_path(prefix: Path | str) -> Path:
    """Where the provenance of a corpus stands, if it has any: `<prefix>.provenance.jsonl.zst`."""
    return Path(f"{prefix}.provenance.jsonl.zst")


def write_manifest(prefix: Path | str, manifest: CorpusManifest) -> Path:
    """Write the manifest atomically; it is the last file of a corpus to appear, so its presence means "complete"."""
    path = manifest_path(prefix)
    with atomic_write(path) as handle:
        handle.write(manifest.model_dump_json(indent=2) + "\n")
    return path


class _AnyFormat(BaseModel):
    format: str


def _check_format(path: Path, text: str) -> None:
    """Name another format as such, before the fields that it has or lacks are complained about."""
    found = _AnyFormat.model_validate_json(text).format
    if found != FORMAT:
        raise UserError(f"{path} has format {found!r}, this version reads {FORMAT!r}: write the corpus again")


def read_manifest(prefix: Path | str) -> CorpusManifest:
    """Read and validate the manifest of a corpus. Raises `UserError` when missing, broken or of another format."""
    path = manifest_path(prefix)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: write the corpus with `mecellem prepare tokenize`") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): write the corpus again") from None
    try:
        _check_format(path, text)
        return CorpusManifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path}: {where}: {first['msg']}; write the corpus again") from None


def verify_files(prefix: Path | str, manifest: CorpusManifest, hashes: bool = True) -> None:
    """Compare sizes, and with `hashes` the SHA-256, of a corpus's files with its manifest; else `UserError`."""
    for name, entry in manifest.all_files.items():
        path = manifest_path(prefix).parent / name
        if not path.exists():
            raise UserError(f"{path} is missing though {manifest_path(prefix)} lists it: write the corpus again")
        size = path.stat().st_size
        if size != entry.bytes:
            raise UserError(
                f"{path} has {size:,} bytes, its manifest says {entry.bytes:,}: the file is truncated or was changed; "
                "write the corpus again with `mecellem prepare tokenize`"
            )
        if hashes and sha256_of(path) != entry.sha256:
            raise UserError(
                f"{path}: SHA-256 differs from {manifest_path(prefix)}: the file was changed after it was written; "
                "write the corpus again with `mecellem prepare tokenize`"
            )
