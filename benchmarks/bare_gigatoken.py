"""What gigatoken alone needs for a `.bin`, on all cores: nothing checked, hashed, indexed or bounded in memory.

    python benchmarks/bare_gigatoken.py INPUT TOKENIZER END OUT

The floor that `tokenize_corpus.py` holds `mecellem prepare tokenize` against: how fast the machine is today.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from gigatoken import JsonlFileSource, Tokenizer


def write(source: str, tokenizer: str, end: str, out: str) -> None:
    """All documents of a JSON lines file, each with the id `end`, as uint16: for fewer than 65,500 entries."""
    engine = Tokenizer.from_json(Path(tokenizer, "tokenizer.json").read_text(encoding="utf-8"))
    layout = engine.encode_files(JsonlFileSource([source])).layout
    ids, offsets = np.asarray(layout.content.data), np.asarray(layout.offsets.data)
    np.insert(ids.astype(np.uint16), offsets[1:], int(end)).tofile(out)


if __name__ == "__main__":
    write(*sys.argv[1:])
