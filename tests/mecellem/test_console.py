import pytest

from mecellem.console import step
from mecellem.errors import UserError


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("purged")
    cases = {
        tmp_path / "file" / "below": "is a file where a folder is needed",
        tmp_path / "link" / "results.json": "is a link to purged, which is not there",
    }
    for path, reason in cases.items():
        with pytest.raises(UserError, match=reason) as refusal, step("work", writes=[tmp_path / "fine", path]):
            pytest.fail("the work began")
        assert str(refusal.value).startswith(f"cannot write {path}: ")
    assert capsys.readouterr().out == ""


def test_files_that_are_there_and_new_ones_may_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    writes = [tmp_path / "file", tmp_path, tmp_path / "new" / "er"]
    with step("work", writes=writes):
        writes.append(tmp_path / "later")
    assert f"{tmp_path / 'new' / 'er'}, {tmp_path / 'later'}" in capsys.readouterr().out
