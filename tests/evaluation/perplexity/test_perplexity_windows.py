"""Every token is scored exactly once, with as much context as was promised, for any length, window and stride."""

from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.perplexity.windows import Window, windows

SIZES = st.integers(1, 60).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window)))


@given(st.integers(0, 400), SIZES)
@settings(max_examples=400, deadline=None)
def test_every_token_is_scored_once_and_in_order(targets: int, sizes: tuple[int, int]):
    window, stride = sizes
    scored = [t for part in windows(targets, window, stride) for t in range(part.end - part.scored + 1, part.end + 1)]
    assert scored == list(range(1, targets + 1))


@given(st.integers(1, 400), SIZES)
@settings(max_examples=400, deadline=None)
def test_windows_fit_and_keep_their_context(targets: int, sizes: tuple[int, int]):
    window, stride = sizes
    first, *further = windows(targets, window, stride)
    assert first == Window(0, min(window, targets), min(window, targets))
    for part in further:
        assert part.end - part.start == window and 1 <= part.scored <= stride
        assert part.start >= 1, "only the first window holds the start token"
        context = part.end - part.start - part.scored + 1  # of the first token that it scores
        assert context >= window - stride + 1


def test_by_hand():
    assert windows(10, 4, 2) == [Window(0, 4, 4), Window(2, 6, 2), Window(4, 8, 2), Window(6, 10, 2)]
    assert windows(9, 4, 4) == [Window(0, 4, 4), Window(4, 8, 4), Window(5, 9, 1)]
    assert windows(3, 4, 2) == [Window(0, 3, 3)]
    assert windows(0, 4, 2) == []


def test_lm_eval_cuts_alike_when_stride_is_window():
    from lm_eval.utils import get_rolling_token_windows

    for targets in (1, 5, 8, 9, 31):
        tokens = list(range(100, 100 + targets))
        sequence = [0, *tokens]
        ours = [(sequence[w.start : w.end], sequence[w.end - w.scored + 1 : w.end + 1]) for w in windows(targets, 8, 8)]
        assert ours == [(list(a), list(b)) for a, b in get_rolling_token_windows(tokens, 0, 8, 1)]
