import os

import pytest

from mecellem.errors import UserError
from preprocessing.outputs import check_output_folder


def test_a_place_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    check_output_folder(tmp_path / "new" / "er", "--out")
    for path in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(UserError, match=r"--out: .*file is a file where a folder is needed"):
            check_output_folder(path, "--out")
    (tmp_path / "link").symlink_to("purged")
    for path in (tmp_path / "link", tmp_path / "link" / "below"):
        with pytest.raises(UserError, match=r"--out: .*link is a link to purged, which is not there: make that"):
            check_output_folder(path, "--out")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(UserError, match="may not be written to"):
        check_output_folder(tmp_path / "new", "--out")
