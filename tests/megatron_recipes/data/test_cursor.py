import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_curricula import corpus

from megatron_recipes.data.cursor import BLOCK, SourceStream, StreamState
from megatron_recipes.data.document_order import DocumentOrder

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any)


def stream_of(source, seed, tokens):
    """The first `tokens` tokens of the stream, the plain way: whole epochs as lists, with each token's document."""
    result, epoch = [], 0
    starts = source.document_starts
    digest = source.manifest.files[f"{source.prefix.name}.bin"].sha256
    while len(result) < tokens:
        for number in DocumentOrder(seed, digest, epoch, source.documents).documents(0, source.documents):
            result += [(int(token), (epoch, int(number))) for token in source.tokens[starts[number] : starts[number + 1]]]
        epoch += 1
    return result[:tokens]


def read(row):
    return [int(t) for a, b in zip(row.begins, row.ends, strict=True) for t in row.tokens[a:b]]


@settings(max_examples=150)
@given(lengths=LENGTHS, taken=st.lists(st.integers(1, 60), max_size=6), ahead=st.integers(0, 40), length=st.integers(1, 40))
def test_rows_are_the_stream(lengths, taken, ahead, length):
    source = corpus("web", lengths)
    stream = SourceStream(source, seed=3)
    for tokens in taken:
        stream.advance(tokens)
    expected = stream_of(source, 3, sum(taken) + ahead + length + 1)
    begin = sum(taken) + ahead
    row = stream.row(ahead, length)
    assert read(row) == [token for token, _ in expected[begin:-1]]
    assert int(row.tokens[row.following]) == expected[-1][0]
    assert row.continues == (expected[-1][1] == expected[-2][1])
    assert stream.place == sum(taken)


@settings(max_examples=150)
@given(lengths=LENGTHS, taken=st.lists(st.integers(1, 60), max_size=5), later=st.integers(1, 80))
def test_a_stream_goes_on_from_its_state(lengths, taken, later):
    source = corpus("web", lengths)
    whole = SourceStream(source, seed=3)
    for tokens in taken:
        whole.advance(tokens)
    state = StreamState.model_validate_json(whole.state().model_dump_json())
    other = SourceStream(source, 3, state)
    assert other.state() == state
    assert read(other.row(0, later)) == read(whole.row(0, later))
    other.advance(later)
    whole.advance(later)
    assert other.state() == whole.state()


@settings(max_examples=60)
@given(lengths=LENGTHS, epochs=st.integers(1, 4))
def test_no_document_comes_again_before_the_epoch_ends(lengths, epochs):
    source = corpus("web", lengths)
    stream = SourceStream(source, seed=8)
    total = sum(lengths)
    for _ in range(epochs):
        assert sorted(read(stream.row(0, total))) == list(range(total))
        stream.advance(total)
        state = stream.state()
        rest = sum(
            lengths[int(n)] for n in DocumentOrder(8, stream.identity, state.epoch, len(lengths)).documents(0, state.document)
        )
        assert state.offset == 0 and rest in (0, total)  # at an epoch's border


def test_state_names_the_document_under_way():
    source = corpus("web", [5, 5, 5])
    stream = SourceStream(source, seed=1)
    stream.advance(15 + 5 + 2)
    assert stream.state() == StreamState(path="web", epoch=1, document=1, offset=2, tokens=22)


def test_what_lies_behind_is_forgotten():
    source = corpus("web", [3] * (3 * BLOCK))
    stream = SourceStream(source, seed=1)
    for _ in range(50):
        stream.advance(1000)
    assert len(stream._layout.documents) <= 2 * BLOCK
    assert np.asarray(stream._layout.begins)[0] <= stream.place
