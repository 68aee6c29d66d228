from __future__ import annotations

import pytest

from evaluation import cache as cache_module
from evaluation.cache import Cache, content_key, source_sha256
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


def test_the_sources_digest_follows_every_file(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "ROOT", tmp_path)
    (tmp_path / "room" / "inner").mkdir(parents=True)
    (tmp_path / "room" / "a.py").write_text("a = 1")
    (tmp_path / "room" / "inner" / "b.py").write_text("b = 1")
    found = [source_sha256.__wrapped__("room")]
    (tmp_path / "room" / "note.txt").write_text("no code")
    assert source_sha256.__wrapped__("room") == found[0]
    (tmp_path / "room" / "inner" / "b.py").write_text("b = 2")
    found.append(source_sha256.__wrapped__("room"))
    (tmp_path / "room" / "inner" / "b.py").rename(tmp_path / "room" / "b.py")
    found.append(source_sha256.__wrapped__("room"))
    assert len(set(found)) == 3


def test_key_ignores_order_only():
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    assert content_key([1, 2]) != content_key([2, 1])
