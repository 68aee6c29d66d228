import hashlib
import tempfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_recipes.data.corpus import read_index
from preprocessing.tokens import indexed
from preprocessing.tokens.indexed import IndexedWriter, token_dtype

DOCUMENTS = st.lists(st.lists(st.integers(0, 65_000), max_size=6), min_size=1, max_size=30).filter(any)


def write(prefix, documents, vocab_size, batch=7):
    dtype = token_dtype(vocab_size)
    with open(f"{prefix}.bin", "wb") as stream, open(f"{prefix}.idx", "wb") as index, tempfile.TemporaryFile() as spool:
        writer = IndexedWriter(stream, index, spool, dtype)
        for start in range(0, len(documents), batch):
            part = documents[start : start + batch]
            lengths = np.array([len(document) for document in part])
            writer.add(np.array([token for document in part for token in document], dtype), lengths)
        return writer, writer.finish()


def write_with_megatron(prefix, documents, vocab_size):
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=DType.optimal_dtype(vocab_size))
    for document in documents:  # as preprocess_data.py does: a document without tokens has no sentence
        builder.add_document(document, [len(document)] if document else [])
    builder.finalize(f"{prefix}.idx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("indexed")


@given(documents=DOCUMENTS, vocab_size=st.sampled_from([300, 65_499, 65_500, 150_000]), chunk=st.integers(1, 40))
def test_the_files_are_megatrons_own_and_it_reads_them(folder, documents, vocab_size, chunk):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexed, "_CHUNK", chunk)
        writer, finished = write(folder / "ours", documents, vocab_size)
    write_with_megatron(folder / "theirs", documents, vocab_size)
    for kind, entry in zip((".bin", ".idx"), finished, strict=True):
        content = (folder / f"ours{kind}").read_bytes()
        assert content == (folder / f"theirs{kind}").read_bytes()
        assert entry.bytes == len(content)
        assert entry.sha256 == hashlib.sha256(content).hexdigest()

    dataset = IndexedDataset(str(folder / "ours"))
    assert [dataset[i].tolist() for i in range(len(dataset))] == [document for document in documents if document]
    assert len(dataset.document_indices) == len(documents) + 1
    index = read_index(folder / "ours.idx")
    assert index.dtype == dataset.index.dtype
    assert index.document_starts.tolist() == [0, *np.cumsum([len(document) for document in documents])]
    assert (writer.documents, writer.tokens) == (len(documents), sum(map(len, documents)))


@pytest.mark.parametrize("vocab_size", [1, 65_499, 65_500, 65_535, 65_536, 200_000])
def test_the_type_of_the_ids_follows_megatrons_rule(vocab_size):
    from megatron.core.datasets.indexed_dataset import DType

    assert token_dtype(vocab_size) == np.dtype(DType.optimal_dtype(vocab_size))
