from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from evaluation.cache import Cache
from evaluation.results import LeftOut


def test_computes_once_per_content(tmp_path):
    cache, calls = Cache(tmp_path / "cache"), []

    def make() -> LeftOut:
        calls.append(1)
        return LeftOut(name="ğ", reason=str(len(calls)))

    first = cache.record("a", {"x": 1}, LeftOut, make)
    assert cache.record("a", {"x": 1}, LeftOut, make) == first and len(calls) == 1
    assert cache.record("a", {"x": 2}, LeftOut, make) != first
    assert cache.record("b", {"x": 1}, LeftOut, make) != first
    assert Cache(tmp_path / "cache").record("a", {"x": 1}, LeftOut, make) == first and len(calls) == 3


def test_a_damaged_entry_is_made_again(tmp_path):
    cache = Cache(tmp_path)
    cache.record("a", 1, LeftOut, lambda: LeftOut(name="n", reason="old"))
    entry = next(tmp_path.iterdir())
    entry.write_text(entry.read_text()[:10])
    assert cache.record("a", 1, LeftOut, lambda: LeftOut(name="n", reason="new")).reason == "new"


def test_a_failed_part_leaves_nothing(tmp_path):
    def fail() -> LeftOut:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        Cache(tmp_path).record("a", 1, LeftOut, fail)
    assert list(tmp_path.iterdir()) == []


def test_two_that_make_a_folder_at_once_make_it_once(tmp_path):
    made: list[int] = []

    def make(number: int, path) -> None:
        time.sleep(0.05)
        made.append(number)
        path.mkdir()

    def ask(number: int) -> None:
        Cache(tmp_path).make_folder("a", 1, partial(make, number))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 1


def test_a_look_up_finds_what_was_kept_and_nothing_else(tmp_path):
    cache = Cache(tmp_path)
    assert cache.find("a", 1, LeftOut) is None
    cache.keep("a", 1, LeftOut(name="n", reason="r"))
    assert cache.find("a", 1, LeftOut) == LeftOut(name="n", reason="r") and cache.find("a", 2, LeftOut) is None
