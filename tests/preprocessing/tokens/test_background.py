import threading
import time

import pytest

from preprocessing.tokens.background import Background, ahead


def test_items_come_in_order_and_are_made_no_further_ahead_than_asked():
    made = []

    def items():
        for number in range(20):
            made.append(number)
            yield number

    for number in ahead(items(), depth=2):
        time.sleep(0.002)
        assert made[number] == number
        assert len(made) <= number + 4  # this one, two ahead, one being made
    assert made == list(range(20))


def test_an_exception_of_the_items_comes_out_after_the_items_before_it():
    def items():
        yield 1
        raise ValueError("broken")

    seen = []
    with pytest.raises(ValueError, match="broken"):
        for item in ahead(items()):
            seen.append(item)
    assert seen == [1]


def test_a_caller_that_stops_leaves_no_thread():
    before = threading.active_count()
    stream = ahead(iter(range(1000)))
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_calls_are_made_in_order_and_the_caller_waits_for_them():
    made = []
    release = threading.Event()
    with Background(depth=1) as background:
        background.submit(release.wait, 30)
        background.submit(made.append, 1)
        threading.Timer(0.05, release.set).start()
        background.submit(made.append, 2)  # waits: one call runs, one waits already
        assert release.is_set()
        background.submit(made.append, 3)
        background.finish()
    assert made == [1, 2, 3]


def test_an_exception_of_a_call_comes_out_and_later_calls_are_dropped():
    def fail():
        raise OSError("full")

    made = []
    with pytest.raises(OSError, match="full"), Background() as background:
        background.submit(fail)
        background.submit(made.append, 1)
        background.finish()
