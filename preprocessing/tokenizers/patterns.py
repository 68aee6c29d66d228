"""How text is split before byte-level BPE; a merge never reaches across a split."""

from __future__ import annotations

from typing import Literal

PreTokenizerName = Literal["llama", "apostrophe"]

_REST = r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Llama 3's: English contractions, words with one leading other character, numbers of up to three digits, punctuation,
# line ends, spaces. The contractions tear Turkish suffixes: 'de -> 'd|e, 'ten -> 't|en, 'si -> 's|i.
LLAMA3_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+" + _REST
# The same without contractions. An apostrophe behind a letter or a digit opens a suffix, which it stays with; any other
# apostrophe is a quotation mark and never sticks to a word, so an entry that begins with one is a suffix.
APOSTROPHE_PATTERN = r"(?<=[\p{L}\p{N}])['’]\p{L}+|[^\r\n\p{L}\p{N}'’]?\p{L}+" + _REST
PATTERNS: dict[PreTokenizerName, str] = {"llama": LLAMA3_PATTERN, "apostrophe": APOSTROPHE_PATTERN}

# tiktoken's files hold ranks only: the pattern and the normalizer belong to the model, and another model of the same
# family may have others. So only by the exact names under which files were published, or (Llama 3) are passed on.
TIKTOKEN_PATTERNS: dict[str, tuple[str, bool]] = {  # -> the pattern, whether text becomes NFC first
    "qwen.tiktoken": (LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}"), True),
    "cl100k_base.tiktoken": (LLAMA3_PATTERN, False),
    "llama3.tiktoken": (LLAMA3_PATTERN, False),
}
