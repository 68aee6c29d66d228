"""Batches by tokens: every text once, little padding."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mecellem.token_batches import token_batches, tokens_a_batch


def test_a_batch_grows_with_the_threads_of_a_cpu():
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert tokens_a_batch("cpu") == 1024
    finally:
        torch.set_num_threads(before)
    assert tokens_a_batch("cuda:1") == tokens_a_batch("cuda") == 32_768


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 500))
def test_batches_hold_every_text_once_and_at_most_the_tokens_that_were_asked_for(lengths: list[int], tokens: int):
    found = list(token_batches(lengths, tokens))
    assert sorted(number for batch in found for number in batch) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[number] for number in batch)
        assert len(batch) == 1 or longest * len(batch) <= tokens
    firsts = [lengths[batch[0]] for batch in found]
    assert firsts == sorted(firsts, reverse=True)
