from __future__ import annotations

from post_training.exports import checkpoint_fingerprint


def test_fingerprint_follows_content(tmp_path):
    (tmp_path / "weights").write_text("a")
    before = checkpoint_fingerprint(tmp_path)
    assert checkpoint_fingerprint(tmp_path) == before
    (tmp_path / "weights").write_text("ab")
    assert checkpoint_fingerprint(tmp_path) != before
