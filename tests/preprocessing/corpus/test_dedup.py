import random
from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.corpus import dedup
from preprocessing.corpus.clean import words_of
from preprocessing.corpus.dedup import DUPLICATE, RELATED_SHORT, find_clusters
from preprocessing.corpus.document import Document


def document(name, text, **fields):
    return Document(id=f"kenet/{name}", source="kenet", licence="l", title="", text=text, **fields)


def jaccard(one, two):
    pairs = []
    for text in (one.text, two.text):
        words = words_of(text)
        pairs.append({tuple(words[i : i + 2]) for i in range(max(1, len(words) - 1))})
    return len(pairs[0] & pairs[1]) / len(pairs[0] | pairs[1])


WORDS = st.lists(st.sampled_from("abcde"), max_size=9).map(" ".join)


@given(texts=st.lists(WORDS, min_size=1, max_size=12), rows=st.integers(1, 5))
def test_it_is_the_exact_answer(texts, rows):
    documents = [document(f"{i:02d}", text) for i, text in enumerate(texts)]
    found = dedup._ROWS_AT_ONCE
    dedup._ROWS_AT_ONCE = rows
    try:
        clusters = find_clusters(documents)
    finally:
        dedup._ROWS_AT_ONCE = found
    group = list(range(len(texts)))  # by hand: the same group whenever a chain of related pairs leads there
    for i, j in combinations(range(len(texts)), 2):
        if jaccard(documents[i], documents[j]) >= RELATED_SHORT:
            group = [group[i] if other == group[j] else other for other in group]
    for i, j in combinations(range(len(texts)), 2):
        assert (clusters.cluster[i] == clusters.cluster[j]) == (group[i] == group[j])
    kept = [one for one, keep in zip(documents, clusters.keep, strict=True) if keep]
    assert all(jaccard(one, two) < DUPLICATE for one, two in combinations(kept, 2))
    for one, keep in zip(documents, clusters.keep, strict=True):  # what went has a twin that stays and is not shorter
        assert keep or any(jaccard(one, two) >= DUPLICATE and len(two.text) >= len(one.text) for two in kept)
    assert clusters.near_duplicates == len(documents) - len(kept)


def test_long_documents_are_tied_at_a_lower_similarity_than_short_ones():
    words = [f"kelime{i}" for i in range(200)]
    other = [word if i % 7 else f"başka{i}" for i, word in enumerate(words)]  # two of seven pairs differ
    half = [word if i % 4 else f"başka{i}" for i, word in enumerate(words)]
    documents = [document(name, " ".join(text)) for name, text in zip("abc", (words, other, half), strict=True)]
    clusters = find_clusters(documents)
    assert clusters.cluster == ["kenet/a"] * 3
    assert clusters.keep.all()
    short = [document(name, " ".join(text[:20])) for name, text in zip("ac", (words, half), strict=True)]
    assert find_clusters(short).cluster == ["kenet/a", "kenet/c"]


def test_entries_that_share_an_example_are_tied_and_both_stay():
    example = "Yıllarca süren bir ezikliği vardı."
    one = document("a", f"alfa: birinci anlam burada yazılı durur. {example}", examples=(example,))
    two = document("b", f"beta: bambaşka sözlerle anlatılan ikinci şey. {example}", examples=(example,))
    three = document("c", "gama: kısa. Aba terlik.", examples=("Aba terlik.",))
    four = document("d", "delta: uzun. Aba terlik.", examples=("Aba terlik.",))
    clusters = find_clusters([one, two, three, four])
    assert clusters.cluster == ["kenet/a", "kenet/a", "kenet/c", "kenet/d"]
    assert clusters.keep.all()
    assert (clusters.clusters_of_several, clusters.largest_cluster) == (1, 2)


def test_the_order_of_the_documents_changes_nothing():
    generator = random.Random(7)
    documents = [document(f"{i:03d}", " ".join(generator.choices("abc", k=5))) for i in range(150)]
    expected = find_clusters(documents)
    by_id = dict(zip((one.id for one in documents), zip(expected.cluster, expected.keep, strict=True), strict=True))
    generator.shuffle(documents)
    again = find_clusters(documents)
    assert [by_id[one.id] for one in documents] == list(zip(again.cluster, again.keep, strict=True))
    assert 0 < np.count_nonzero(~expected.keep) < 150
