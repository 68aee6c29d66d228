from __future__ import annotations

from evaluation.choice import choose_documents
from preprocessing.corpus.document import Document


def test_sources_take_turns_in_an_order_that_is_the_same_everywhere():
    documents = [Document(f"{source}{n}", source, "x", "", "") for source, count in (("a", 50), ("b", 3)) for n in range(count)]
    chosen = choose_documents(documents, 10, 0)
    assert [document.source for document in chosen].count("b") == 3 and len(chosen) == 10
    assert choose_documents(documents[::-1], 10, 0) == chosen != choose_documents(documents, 10, 1)
    assert len(choose_documents(documents, 100, 0)) == 53
