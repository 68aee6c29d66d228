from __future__ import annotations

from mecellem import content
from mecellem.content import content_key, source_sha256


def test_the_sources_digest_follows_every_file(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "ROOT", tmp_path)
    (tmp_path / "room" / "inner").mkdir(parents=True)
    (tmp_path / "room" / "a.py").write_text("a = 1")
    (tmp_path / "room" / "inner" / "b.py").write_text("b = 1")
    found = [source_sha256.__wrapped__("room")]
    assert source_sha256.__wrapped__("room/a.py") not in found
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
