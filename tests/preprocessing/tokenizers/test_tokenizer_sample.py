import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mecellem.errors import UserError
from preprocessing.tokenizers.sample import _divide, plan_sample, read_sample


def write(path, *records):
    path.write_text("".join(json.dumps({"text": text, "source": source}) + "\n" for source, text in records))
    return path


@pytest.fixture
def corpus(tmp_path):
    big = [("big", f"{number:06d}" + "b" * (number % 90)) for number in range(4000)]
    small = [("small", "s" * 100)] * 100
    return [write(tmp_path / "one.jsonl", *big, *small), write(tmp_path / "two.jsonl", *big[:1000])]


def taken(paths, plan):
    sizes = dict.fromkeys(plan, 0)
    for record in read_sample(paths, plan):
        sizes[record.source] += len(record.text)
    return sizes


def test_sources_give_equal_parts_and_a_small_one_all_it_has(corpus):
    plan = plan_sample(corpus, 60_000)
    assert (plan["small"].available, plan["small"].wanted, plan["big"].wanted) == (10_000, 10_000, 50_000)
    sizes = taken(corpus, plan)
    assert sizes["small"] == 10_000
    assert sizes["big"] == pytest.approx(50_000, rel=0.02)


def test_weights_divide_the_sample(corpus):
    sizes = taken(corpus, plan_sample(corpus, 8_000, {"big": 3}))
    assert sizes == {"big": pytest.approx(6_000, rel=0.05), "small": pytest.approx(2_000, rel=0.05)}


def test_a_sample_larger_than_the_corpus_is_the_corpus(corpus):
    assert len(list(read_sample(corpus, plan_sample(corpus, 10**9)))) == 5100


def test_the_sample_is_spread_over_a_source_and_long_documents_have_the_same_chance(corpus):
    chosen = [record.text for record in read_sample(corpus, plan_sample(corpus, 40_000)) if record.source == "big"]
    numbers = [int(text[:6]) for text in chosen]
    assert min(numbers) < 50 and max(numbers) > 3950
    mean = sum(map(len, chosen)) / len(chosen)
    assert mean == pytest.approx(6 + 44.5, rel=0.05)
    assert [record.text for record in read_sample(corpus, plan_sample(corpus, 40_000)) if record.source == "big"] == chosen


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 10**9), min_size=1), st.integers(1, 10**9), st.data())
def test_parts_never_exceed_the_source_and_add_up(available, size, data):
    weights = {name: data.draw(st.floats(0.01, 100), label=name) for name in available}
    parts = _divide(available, weights, size)
    assert parts.keys() == available.keys()
    assert all(0 <= parts[name] <= available[name] for name in parts)
    assert min(size, sum(available.values())) - len(parts) <= sum(parts.values()) <= size


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    path = write(tmp_path / "long.jsonl", *((f"s{number % 3}", "x" * 2000) for number in range(10_000)))
    tracemalloc.start()
    assert sum(1 for _ in read_sample([path], plan_sample([path], 5_000_000))) > 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6  # the file has 20 MB; blocks of 1 MiB are read


@pytest.mark.parametrize(
    ("size", "weights", "message"),
    [
        (0, None, "a number above 0"),
        (10, {"big": 0}, "above 0 and finite"),
        (10, {"big": float("nan")}, "above 0 and finite"),
        (10, {"none": 1}, "names none, the files have the sources big, small"),
    ],
)
def test_bad_settings_are_refused(corpus, size, weights, message):
    with pytest.raises(UserError, match=message):
        plan_sample(corpus, size, weights)
