"""One text for all models: cut by words, then by the shortest context; sentences of readable length."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from masked_models import TEXTS

from evaluation.fill_mask.passages import Reader, choose_passages, cut_to_fit, first_words
from evaluation.fill_mask.settings import FillMaskSettings
from evaluation.fill_mask.tokens import encode
from mecellem.errors import UserError
from post_training.model_folder import load_tokenizer
from preprocessing.corpus.document import Document

DOCUMENTS = [Document(str(number), "law" if number < 6 else "nature", "", "", text) for number, text in enumerate(TEXTS)]


@given(st.text(alphabet="ab \n", max_size=40), st.integers(1, 8))
def test_first_words_is_a_prefix_with_so_many_words(text, most):
    found = first_words(text, most)
    assert text.startswith(found) and found.split() == text.split()[:most]


def readers(folders: dict[str, Path], positions: int) -> list[Reader]:
    return [Reader(kind, load_tokenizer(folder), positions) for kind, folder in folders.items()]


@pytest.mark.parametrize("positions", [3, 9, 20, 1000])
def test_texts_are_cut_for_the_shortest_context(masked_folders: dict[str, Path], positions: int):
    found = readers(masked_folders, positions)
    texts = [*TEXTS, "x" * 400, "", "kısa"]
    cut = cut_to_fit(texts, found)
    for text, whole in zip(cut, texts, strict=True):
        assert whole.startswith(text)
        assert text == whole or whole[len(text) :][0].isspace() or len(text.split()) <= 1, "cut inside a later word"
    for reader in found:
        assert all(len(item.ids) <= positions for item in encode(reader.tokenizer, cut))
    if positions == 1000:
        assert cut == texts
    if positions == 20:  # no more than is needed: with one word more some reader would not fit
        for text, whole in zip(cut, texts[: len(TEXTS)], strict=False):
            longer = first_words(whole, len(text.split()) + 1)
            assert any(len(encode(reader.tokenizer, [longer])[0].ids) > positions for reader in found)


def test_passages_and_sentences(masked_folders: dict[str, Path]):
    settings = FillMaskSettings(mask_documents=8, mask_words=7, pll_sentences=5)
    found = choose_passages([*DOCUMENTS, Document("e", "law", "", "", " \n ")], readers(masked_folders, 200), settings)
    assert [passage.domain for passage in found.passages].count("law") == 4
    assert all(len(passage.text.split()) == 7 for passage in found.passages) and found.cut == 0
    by_id = {document.id: document.text for document in DOCUMENTS}
    assert len(found.sentences) == 5 == len({sentence.id for sentence in found.sentences})
    for sentence in found.sentences:
        assert sentence.text in by_id[sentence.id] and sentence.text[-1] in ".!?" and 5 <= len(sentence.text.split()) <= 40
    short = choose_passages(DOCUMENTS, readers(masked_folders, 12), settings)
    assert short.cut and short.long_sentences == 5 and not short.sentences


def test_nothing_to_ask_is_told(masked_folders: dict[str, Path]):
    with pytest.raises(UserError, match="no token of the texts can be masked"):
        choose_passages([Document("e", "law", "", "", "\n")], readers(masked_folders, 200), FillMaskSettings())
