"""Settings of single models: what the file gives, and every refusal with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.encoders import EncoderSettings
from evaluation.encoders.own_settings import KEYS, read_own_settings
from evaluation.encoders.source import SystemSource
from mecellem.errors import UserError

SETTINGS = EncoderSettings(max_seq_length=64, batch_tokens=7)


def sources() -> list[SystemSource]:
    kinds = {"e5": "hugging-face", "words": "model2vec", "bm25": "bm25"}
    return [SystemSource(name=name, spec=name, kind=kind, folder=None, sha256=name) for name, kind in kinds.items()]


def read(folder: Path, text: str) -> dict[str, EncoderSettings]:
    (folder / "encoders.yaml").write_text(text, encoding="utf-8")
    return read_own_settings(folder / "encoders.yaml", SETTINGS, sources())


def test_what_the_file_does_not_give_is_as_the_flags_say(tmp_path: Path):
    found = read(tmp_path, 'e5: {query_prompt: "query: ", pooling: cls}\nwords: {max_seq_length: 16}\n')
    assert found == {
        "e5": EncoderSettings(max_seq_length=64, batch_tokens=7, query_prompt="query: ", pooling="cls"),
        "words": EncoderSettings(max_seq_length=16, batch_tokens=7),
    }
    assert read_own_settings(None, SETTINGS, sources()) == {}
    assert "query_prompt" in KEYS and "batch_tokens" not in KEYS


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("e6: {pooling: cls}", r"line 1: no model is called 'e6', but e5, words, bm25: correct it, or give NAME=MODEL"),
        ("e5:\n  query_promt: x", r"line 2: unknown key `e5\.query_promt`: did you mean `query_prompt`\?"),
        ("e5: {batch_tokens: 9}", r"line 1: unknown key `e5\.batch_tokens`"),
        ("e5: {pooling: best}", r"line 1: `e5\.pooling` is 'best': it must be 'auto'"),
        ("e5: {max_seq_length: 2}", r"line 1: e5: --max-seq-length 2 must be at least 3"),
        ("bm25: {pooling: cls}", r"line 1: bm25 is bm25, which has no use for `pooling`: remove it"),
        ("words: {query_prompt: x}", r"line 1: words is model2vec, which has no use for `query_prompt`"),
        ("- e5", r"must be a mapping"),
        ("", r"is empty: it needs `NAME:"),
    ],
)
def test_refusals_name_file_and_line(tmp_path: Path, text: str, sentence: str):
    with pytest.raises(UserError, match=rf"encoders\.yaml.*{sentence}"):
        read(tmp_path, text)
