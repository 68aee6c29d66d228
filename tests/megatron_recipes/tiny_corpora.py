"""Small corpora for the tests of megatron_recipes/data: on disk (written by struct and numpy alone) and in memory."""

import json
import struct
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel

from mecellem.files import sha256_of
from mecellem.manifest import CorpusManifest, FileEntry, SourceRange, TokenizerEntry, write_manifest
from megatron_recipes.data.corpus import SpecialTokens, TokenCorpus

PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL_TEXTS = {"[PAD]": PAD, "<unk>": UNK, "[CLS]": CLS, "[SEP]": SEP, "[MASK]": MASK}


def special_tokens(vocab_size):
    return SpecialTokens(CLS, SEP, MASK, PAD, frozenset(SPECIAL_TEXTS.values()), vocab_size)


def write_tokenizer(folder: Path, vocab_size: int = 100, **changes) -> Path:
    """A Hugging Face tokenizer folder with `vocab_size` entries; `changes` to its config, None removes a key."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = SPECIAL_TEXTS | {f"w{i}": i for i in range(5, vocab_size)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL_TEXTS])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "[PAD]",
        "unk_token": "<unk>",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": {"__type": "AddedToken", "content": "[MASK]", "special": True},
    } | changes
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(kept))
    return folder


def manifest_of(documents, dtype, vocab_size, tokenizer_hash="0" * 64, files=None):
    return CorpusManifest(
        documents=len(documents),
        tokens=sum(len(document) for document in documents),
        dtype=np.dtype(dtype).name,
        tokenizer=TokenizerEntry(sha256=tokenizer_hash, vocab_size=vocab_size, eod_id=SEP),
        files=files or {},
        sources=[SourceRange(first=0, last=len(documents), source="test", licence="none")],
        versions={},
    )


def index_bytes(lengths, dtype, version=1, magic=b"MMIDIDX\x00\x00"):
    code, size = {"uint16": (8, 2), "int32": (4, 4)}[np.dtype(dtype).name]
    lengths = np.asarray(lengths, dtype=np.int64)
    pointers = (np.cumsum(lengths) - lengths) * size
    header = magic + struct.pack("<QBQQ", version, code, len(lengths), len(lengths) + 1)
    arrays = lengths.astype("<i4"), pointers.astype("<i8"), np.arange(len(lengths) + 1, dtype="<i8")
    return header + b"".join(array.tobytes() for array in arrays)


def describe(prefix: Path, documents, dtype, tokenizer: Path, vocab_size: int = 100) -> None:
    """Write the manifest of what lies at `prefix` now."""
    paths = [Path(f"{prefix}.bin"), Path(f"{prefix}.idx")]
    files = {path.name: FileEntry(bytes=path.stat().st_size, sha256=sha256_of(path)) for path in paths}
    digest = sha256_of(tokenizer / "tokenizer.json")
    write_manifest(prefix, manifest_of(documents, dtype, vocab_size, digest, files))


def write_corpus(folder: Path, documents, dtype="uint16", vocab_size: int = 100) -> tuple[Path, Path]:
    """`folder/train.bin/.idx/.manifest.json` and `folder/tokenizer`; returns the prefix and the tokenizer's folder."""
    tokenizer = write_tokenizer(folder / "tokenizer", vocab_size)
    prefix = folder / "train"
    flat = np.concatenate([np.asarray(document, dtype=dtype) for document in documents])
    Path(f"{prefix}.bin").write_bytes(flat.tobytes())
    Path(f"{prefix}.idx").write_bytes(index_bytes([len(document) for document in documents], dtype))
    describe(prefix, documents, dtype, tokenizer, vocab_size)
    return prefix, tokenizer


def corpus_in_memory(documents, vocab_size):
    """The same without files; every document ends with [SEP]."""
    starts = np.concatenate([[0], np.cumsum([len(document) for document in documents])]).astype(np.int64)
    flat = np.concatenate([np.asarray(document, dtype=np.int32) for document in documents])
    return TokenCorpus(Path("memory"), flat, starts, manifest_of(documents, "int32", vocab_size))


def telling_documents(lengths):
    """Documents of `lengths` ordinary tokens, each token id used once in the whole corpus, plus [SEP]."""
    first, documents = 5, []
    for length in lengths:
        documents.append([*range(first, first + length), SEP])
        first += length
    return documents, first
