"""Where tokens lie: every character that is not white space is in a token, every such token in one group."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from masked_models import TEXTS

from evaluation.fill_mask.tokens import altered_texts, encode, piece_groups, unknown_tokens, word_spans
from post_training.model_folder import load_tokenizer

LETTERS = st.text(alphabet="aıiİIğüşöçÂâ \n\t.,;('’)-1790“”…x", max_size=60)


@given(text=st.one_of(LETTERS, st.text(max_size=40)))
@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_groups_are_a_partition_that_respects_words(kind: str, text: str, masked_folders: dict[str, Path]):
    (encoded,) = encode(_tokenizer(masked_folders[kind]), [text])
    groups = piece_groups(encoded)
    grouped = [int(position) for group in groups for position in group]
    assert grouped == np.flatnonzero(encoded.with_text).tolist()
    for first, second in pairwise(groups):
        assert encoded.spans[first, 1].max() <= encoded.spans[second, 0].min() or not _share_a_word(encoded, first, second)
    for span in word_spans(text):
        touching = set(encoded.touching(span).tolist())
        assert sum(bool(touching & set(group.tolist())) for group in groups) <= 1, "a word in two groups"


_TOKENIZERS: dict[Path, object] = {}


def _tokenizer(folder: Path):
    return _TOKENIZERS.setdefault(folder, load_tokenizer(folder))


def _share_a_word(encoded, first, second) -> bool:
    return any(
        set(encoded.touching(span)) & set(first.tolist()) and set(encoded.touching(span)) & set(second.tolist())
        for span in word_spans(encoded.text)
    )


def test_words_touch_exactly_their_own_pieces(masked_folder: Path):
    tokenizer = load_tokenizer(masked_folder)
    for encoded in encode(tokenizer, TEXTS):
        for start, end in word_spans(encoded.text):
            pieces = encoded.touching((start, end))
            assert len(pieces) and (np.diff(pieces) == 1).all()
            decoded = tokenizer.decode(encoded.ids[pieces], clean_up_tokenization_spaces=False)
            if tokenizer.unk_token_id not in encoded.ids[pieces]:
                assert encoded.text[start:end] in decoded.replace(" ' ", "'")


def test_texts_are_never_cut_and_special_tokens_have_no_text(masked_folder: Path):
    tokenizer = load_tokenizer(masked_folder)
    tokenizer.backend_tokenizer.enable_truncation(8)  # as some tokenizer.json say
    (encoded,) = encode(tokenizer, [" ".join(TEXTS)])
    assert len(encoded.ids) > 100
    assert not encoded.with_text[[0, -1]].any() and encoded.ids[0] == tokenizer.cls_token_id


def test_what_a_tokenizer_lacks_is_counted(masked_folders: dict[str, Path]):
    texts = ["Bir 漢字 metni.", "Bir metin."]
    for kind, expected in (("bpe", False), ("wordpiece", True)):
        tokenizer = load_tokenizer(masked_folders[kind])
        encoded = encode(tokenizer, texts)
        assert bool(unknown_tokens(tokenizer, encoded)) == expected
        assert altered_texts(tokenizer, encoded) == int(expected)
