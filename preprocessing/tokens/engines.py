"""Two ways from text to token ids: gigatoken, and Hugging Face tokenizers, which says what is right."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from preprocessing.tokens.documents import Documents

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_BATCH_BYTES = 1 << 20  # of text: an encoding of tokenizers takes some hundred bytes a token
# gigatoken keeps every word that it has seen: 3 GB of ever new words took 3.2 GB of memory. So it starts anew after so
# many bytes of text, if memory has grown by so much meanwhile: a table of words twice as large would come next. Text whose
# words come back grows little, and to start costs as much time as 10 MB of it.
_FORGET_AFTER = 24 << 20
_MAY_GROW = 64 << 20
_SETTLED_AFTER = 8 << 20  # bytes of text, once: by then the buffers of all threads are there
_RETURNED_FROM = 4 << 20
_M_MMAP_THRESHOLD = -3  # malloc.h


class Engine(Protocol):
    """Encodes documents without special tokens; special tokens that a text merely writes are text."""

    name: str
    version: str

    def encode(self, documents: Documents) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
        """The ids of all documents end to end, (tokens,), and the number of tokens of each, (documents,)."""


class UnsupportedError(Exception):
    """gigatoken cannot take this tokenizer; the message says why."""


class HuggingFaceEngine:
    """Hugging Face tokenizers: any tokenizer, on all cores."""

    name = "tokenizers"

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.encode_special_tokens = True  # "[SEP]" in a text is text, also where it stands in `added_tokens`
        self.version = version("tokenizers")
        self._tokenizer = tokenizer

    def encode(self, documents: Documents) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """See `Engine`."""
        parts: list[NDArray[np.uint32]] = [np.empty(0, np.uint32)]
        lengths: list[int] = []
        for batch in _batches(documents):
            encodings = self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            ids = [encoding.ids for encoding in encodings]
            lengths += map(len, ids)
            parts += (np.array(part, np.uint32) for part in ids)
        return np.concatenate(parts), np.array(lengths, np.int64)


def _batches(documents: Documents) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for number, length in enumerate(np.diff(documents.offsets).tolist()):
        batch.append(documents.text(number))
        size += length
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


class GigatokenEngine:
    """gigatoken: byte-level BPE and SentencePiece BPE, some fifty times faster.

    In one thread: in several each would have a table of words of its own, of the same words, which takes a quarter more
    CPU time and twice the memory. The threads that read, parse, compare and write need the other cores.
    """

    name = "gigatoken"

    def __init__(self, tokenizer_json: Path) -> None:
        """Raises `UnsupportedError` where gigatoken is missing or cannot take the tokenizer."""
        try:
            import awkward  # noqa: F401 - gigatoken imports it when it first encodes, and stops the work if it is missing
            from gigatoken import Tokenizer
        except ImportError as error:
            raise UnsupportedError(f"gigatoken cannot be imported ({error})") from None
        try:
            self._json = _without_special_tokens(tokenizer_json)
            self._tokenizer = Tokenizer.from_json(self._json)
        except Exception as error:  # one kind or another for each thing that it does not know
            why = str(error).strip().partition("\n")[0]
            raise UnsupportedError(f"gigatoken cannot take this tokenizer ({why})") from None
        self.version = version("gigatoken")
        self._since_start = 0
        self._resident_at_start: int | None = None
        _return_large_blocks()
        self._lock = Lock()  # the oracle's thread asks too

    def encode(self, documents: Documents) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """See `Engine`."""
        import awkward
        from awkward.contents import ListOffsetArray, NumpyArray
        from awkward.index import Index64

        characters = NumpyArray(documents.data, parameters={"__array__": "char"})
        strings = ListOffsetArray(Index64(documents.offsets), characters, parameters={"__array__": "string"})
        with self._lock:
            encoded = self._tokenizer.encode_batch(awkward.Array(strings), parallel=False).layout
            self._since_start += documents.text_bytes
            if self._since_start >= _FORGET_AFTER and self._has_grown():
                self._start_anew()
            elif self._since_start >= _SETTLED_AFTER and self._resident_at_start is None:
                self._resident_at_start = _resident()
        offsets = np.asarray(encoded.offsets)
        ids = np.asarray(encoded.content.data)
        return ids[offsets[0] : offsets[-1]], np.diff(offsets)

    def _has_grown(self) -> bool:
        """Whether memory is needed for words; always, where the system does not tell."""
        now = _resident()
        return now is None or self._resident_at_start is None or now - self._resident_at_start > _MAY_GROW

    def _start_anew(self) -> None:
        self._tokenizer = type(self._tokenizer).from_json(self._json)
        self._since_start = 0
        _give_memory_back()
        self._resident_at_start = _resident()


def _resident() -> int | None:
    """Bytes of memory that the process has now, where the system tells (Linux)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
    except OSError:
        return None


def _return_large_blocks() -> None:
    """Have glibc return large blocks as soon as they are freed.

    By itself it does not, after the first of them, so that tables of words leave holes behind that nothing else fits.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _RETURNED_FROM)


def _give_memory_back() -> None:
    """Have glibc return what was freed in small pieces: many words leave holes that it keeps."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _without_special_tokens(tokenizer_json: Path) -> bytes:
    """The file without the added tokens that are special, which tokenizers is told not to look for in a text either.

    Added tokens that are not special (Qwen3's "<think>") are looked for by both.
    """
    content = orjson.loads(tokenizer_json.read_bytes())
    content["added_tokens"] = [token for token in content.get("added_tokens") or [] if not token.get("special")]
    content["truncation"] = content["padding"] = None
    return orjson.dumps(content)
