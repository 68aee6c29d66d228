"""Read Megatron-Core's `.bin/.idx` by memory map, and refuse what its manifest or its tokenizer contradicts.

The format is `megatron.core.datasets.indexed_dataset`'s, version 1: a header of 34 bytes (magic, version, type code,
number of sequences, number of document indices), int32 sequence lengths in tokens, int64 offsets in bytes, int64
document indices. This reader needs numpy only, so that a plan or a benchmark starts without torch.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mecellem.errors import UserError
from mecellem.manifest import CorpusManifest, manifest_path, read_manifest, verify_files
from mecellem.tokenizer_files import read_json, read_vocabulary

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
DTYPES: dict[int, np.dtype[Any]] = {8: np.dtype(np.uint16), 4: np.dtype(np.int32)}  # Megatron-Core's type codes
HEADER = struct.Struct("<9sQBQQ")
AGAIN = "write the corpus again with `mecellem prepare tokenize`"

Int64Array = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """What masking and packing need to know of a tokenizer. `vocab_size` is the highest id + 1."""

    cls: int  # opens a document
    sep: int  # closes a document; the corpus stores it as end of document
    mask: int
    pad: int
    ids: frozenset[int]  # every special token's id: none is ever masked or drawn as a replacement
    vocab_size: int

    @classmethod
    def read(cls, folder: Path) -> SpecialTokens:
        """Read a Hugging Face fast-tokenizer folder. Raises `UserError` for a missing file or role.

        A tokenizer without [CLS] or [SEP] is served by its `bos_token` and `eos_token`.
        """
        path, config_path = folder / "tokenizer.json", folder / "tokenizer_config.json"
        vocabulary, config = read_vocabulary(folder), read_json(config_path, "tokenizer")

        def role(*names: str) -> int:
            for name in names:
                token = config.get(name)
                text = token.get("content") if isinstance(token, dict) else token
                if text is None:
                    continue
                if text not in vocabulary.ids:
                    raise UserError(f"{config_path}: {name} {text!r} is not in {path}: save the tokenizer again")
                return vocabulary.ids[text]
            raise UserError(f"{config_path} names no {names[0]}, which MLM training needs: add it to the tokenizer")

        roles = {
            "cls": role("cls_token", "bos_token"),
            "sep": role("sep_token", "eos_token"),
            "mask": role("mask_token"),
            "pad": role("pad_token"),
        }
        return cls(**roles, ids=vocabulary.special | set(roles.values()), vocab_size=vocabulary.size)


@dataclass(frozen=True, slots=True)
class Index:
    """The content of one `.idx`: the ids' type and where each document starts, in tokens."""

    dtype: np.dtype[Any]
    document_starts: Int64Array  # [documents + 1]; the last entry is the number of tokens


def read_index(path: Path) -> Index:
    """Read a `.idx` file. Raises `UserError` for another format or version, a truncated file or gaps in it."""
    try:
        content = np.memmap(path, mode="r", dtype=np.uint8)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {AGAIN}") from None
    except ValueError:  # numpy cannot map an empty file
        raise UserError(f"{path} is empty: {AGAIN}") from None
    if content.size < HEADER.size or content[: len(MAGIC)].tobytes() != MAGIC:
        raise UserError(f"{path} is not a Megatron index (its first bytes are not {MAGIC!r}): {AGAIN}")
    _, version, code, sequences, indices = HEADER.unpack(content[: HEADER.size].tobytes())
    if version != VERSION:
        raise UserError(f"{path} is an index of version {version}, this version of mecellem reads {VERSION}: {AGAIN}")
    if code not in DTYPES:
        raise UserError(f"{path} has token type {code}; mecellem reads 8 (uint16) and 4 (int32): {AGAIN}")
    expected = HEADER.size + 12 * sequences + 8 * indices
    if content.size != expected:
        raise UserError(
            f"{path} has {content.size:,} bytes where {sequences:,} sequences and {indices:,} document indices take "
            f"{expected:,}: the file is truncated or was changed; {AGAIN}"
        )

    def array(start: int, dtype: str, count: int) -> np.ndarray[Any, Any]:
        return content[start : start + np.dtype(dtype).itemsize * count].view(dtype)

    lengths = array(HEADER.size, "<i4", sequences)
    pointers = array(HEADER.size + 4 * sequences, "<i8", sequences)
    documents = array(HEADER.size + 12 * sequences, "<i8", indices)
    starts = np.zeros(sequences + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    dtype = DTYPES[code]
    whole = indices >= 1 and documents[0] == 0 and documents[-1] == sequences and bool(np.all(np.diff(documents) >= 0))
    if not whole or np.any(lengths < 0) or not np.array_equal(pointers, starts[:-1] * dtype.itemsize):
        raise UserError(f"{path}: its sequences do not follow each other without gaps: {AGAIN}")
    return Index(dtype, starts[documents])


def _check_tokenizer(prefix: Path, manifest: CorpusManifest, folder: Path, flag: str) -> None:
    path = folder / "tokenizer.json"
    vocabulary = read_vocabulary(folder)
    if vocabulary.size != manifest.tokenizer.vocab_size:
        raise UserError(
            f"{folder} has {vocabulary.size:,} entries, {manifest_path(prefix)} was written with "
            f"{manifest.tokenizer.vocab_size:,}: set {flag} to the tokenizer that made the corpus, or tokenize the corpus again"
        )
    if vocabulary.sha256 != manifest.tokenizer.sha256:
        raise UserError(
            f"{path}: SHA-256 differs from the tokenizer's in {manifest_path(prefix)}: "
            f"set {flag} to the tokenizer that made the corpus, or tokenize the corpus again"
        )


@dataclass(frozen=True, slots=True)
class TokenCorpus:
    """A tokenized corpus, memory-mapped: document d is `tokens[document_starts[d] : document_starts[d + 1]]`.

    Each document ends with the manifest's `eod_id`.
    """

    prefix: Path
    tokens: np.ndarray[Any, Any]  # [tokens], uint16 or int32
    document_starts: Int64Array  # [documents + 1]
    manifest: CorpusManifest

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.document_starts) - 1

    @classmethod
    def open(cls, prefix: Path, tokenizer: Path, verify_hashes: bool, flag: str = "--data.tokenizer") -> TokenCorpus:
        """Open `<prefix>.bin/.idx` after checking them against `<prefix>.manifest.json` and the tokenizer's folder.

        Sizes are always compared; SHA-256 of the corpus's files only with `verify_hashes` (one rank of a job is enough:
        it reads every byte). Raises `UserError` for whatever is missing, truncated, changed or of another tokenizer, which
        `flag` sets.
        """
        prefix = Path(prefix)
        manifest = read_manifest(prefix)
        bin_path, idx_path = Path(f"{prefix}.bin"), Path(f"{prefix}.idx")
        for path in (bin_path, idx_path):
            if path.name not in manifest.files:
                raise UserError(f"{manifest_path(prefix)} does not list {path.name}: it belongs to another corpus; {AGAIN}")
        verify_files(prefix, manifest, hashes=verify_hashes)
        _check_tokenizer(prefix, manifest, Path(tokenizer), flag)
        index = read_index(idx_path)
        total = int(index.document_starts[-1])
        found = {"tokens": total, "documents": len(index.document_starts) - 1, "dtype": index.dtype.name}
        for name, value in found.items():
            if value != getattr(manifest, name):
                raise UserError(
                    f"{idx_path} says {name} {value}, {manifest_path(prefix)} says {getattr(manifest, name)}: {AGAIN}"
                )
        if bin_path.stat().st_size != total * index.dtype.itemsize:
            raise UserError(
                f"{bin_path} has {bin_path.stat().st_size:,} bytes where {idx_path.name} needs "
                f"{total * index.dtype.itemsize:,}: the file is truncated or was changed; {AGAIN}"
            )
        if total == 0:
            raise UserError(f"{bin_path} holds no tokens: {AGAIN} from text that is not empty")
        tokens = np.memmap(bin_path, mode="r", dtype=index.dtype)
        return cls(prefix, tokens, index.document_starts, manifest)
