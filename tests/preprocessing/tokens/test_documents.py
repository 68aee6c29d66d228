import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mecellem.errors import UserError
from preprocessing.jsonl import LineBlock
from preprocessing.tokens.documents import Run, _parse_columns, _parse_lines, documents_of, parse_block

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUE = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), TEXT, st.lists(st.integers(), max_size=2))
RECORD = st.fixed_dictionaries(
    {"text": TEXT},
    optional={"source": st.sampled_from(["a", "b", "İ", None]), "licence": st.sampled_from(["x", None]), "more": VALUE},
)
# What JSON, UTF-8 and lines are made of, and what breaks them.
PIECES = [
    *'{}[]",:\\\n\r \tu1-.',
    "\0",
    "NaN",
    "Infinity",
    "null",
    "\\ud83d",
    "\\udc00",
    '"text":',
    '{"text":"a"}',
    "\ufeff",
    "ş",
]
BREAKING = [*(piece.encode() for piece in PIECES), b"\xff", b"\xc5", b"\xed\xa0\x80"]


def block_of(data):
    return LineBlock(Path("x.jsonl"), 1, data)


def outcome(parse, block):
    try:
        parsed = parse(block)
    except UserError as error:
        return str(error)
    return parsed and (parsed.texts(), list(parsed.runs))


@st.composite
def blocks(draw):
    escaped, end = draw(st.booleans()), draw(st.sampled_from(["\n", "\r\n"]))
    records = draw(st.lists(RECORD, min_size=1, max_size=5))
    data = end.join(json.dumps(record, ensure_ascii=escaped) for record in records) + draw(st.sampled_from(["", end]))
    return data.encode()


@given(data=blocks())
def test_pyarrow_reads_what_python_reads(data):
    block = block_of(data)
    assert outcome(_parse_columns, block) == outcome(_parse_lines, block)


@given(data=blocks(), damage=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.sampled_from(BREAKING)), max_size=3))
@example(data=b'{"text":"a"}{"text":"b"}\n{"text":\n"c"}', damage=[])
@example(data=b'{"text":"a","x":{}\n{"text":"b"}}{"text":"c"}', damage=[])
@example(data=b'{"text":"a","x":NaN}', damage=[])
@example(data=b'{"text":"a","x":[-Infinity ]}', damage=[])
@example(data=b'{"text":"a","x":"\xff"}', damage=[])
@example(data=b'{"text":"a","text":"b"}', damage=[])
@example(data=b'{"text":"a"}\0{"text":', damage=[])
@example(data=b'\xef\xbb\xbf{"text":"a"}', damage=[])
@example(data=b'{"source":"a"}', damage=[])
@example(data=b'{"text":"\\ud800"}', damage=[])
def test_whatever_is_in_a_block_pyarrow_is_believed_only_where_python_agrees(data, damage):
    for place, removed, added in damage:
        start = int(place * len(data))
        data = data[:start] + added + data[start + removed :]
    block = block_of(data)
    fast, slow = outcome(_parse_columns, block), outcome(_parse_lines, block)
    assert fast is None or fast == slow
    assert outcome(parse_block, block) == slow


@pytest.mark.parametrize("text", ["NaN'dan, Infinity'ye, Informatik", "\\ud83d yazısı", "{", "}\u2028", "\x00", "😀"])
def test_ordinary_text_takes_the_fast_way(text):
    for escaped in (True, False):
        data = json.dumps({"text": text}, ensure_ascii=escaped).encode()
        assert _parse_columns(block_of(data)).texts() == [text]


def test_runs_name_sources_and_licences_in_order():
    owners = [("a", "x"), ("a", "x"), (None, None), ("b", None), ("x.jsonl", "unknown"), ("a", "x")]
    records = [{"text": "t", "source": source, "licence": licence} for source, licence in owners]
    data = "\n".join(json.dumps(record) for record in records).encode()
    expected = [
        Run(2, "a", "x"),
        Run(1, "x.jsonl", "unknown"),
        Run(1, "b", "unknown"),
        Run(1, "x.jsonl", "unknown"),
        Run(1, "a", "x"),
    ]
    assert list(_parse_columns(block_of(data)).runs) == list(_parse_lines(block_of(data)).runs) == expected


@given(texts=st.lists(TEXT, max_size=6))
def test_texts_come_back(texts):
    documents = documents_of(texts)
    assert documents.texts() == texts
    assert len(documents) == len(texts)
    assert documents.text_bytes == sum(len(text.encode()) for text in texts) == documents.data.size
    assert documents.offsets.dtype == np.int64


@pytest.mark.parametrize("place", range(12))
@pytest.mark.parametrize("word", ["NaN", "Infinity"])
def test_words_that_are_no_numbers_are_seen_wherever_a_piece_ends(monkeypatch, place, word):
    monkeypatch.setattr("preprocessing.tokens.documents._PIECE", 7)
    data = f'{{"text":"a{"N" * place}","x":{word}}}'.encode()
    assert _parse_columns(block_of(data)) is None
    assert _parse_columns(block_of(data.replace(word.encode(), f'"{word}"'.encode()))) is not None
