import os
import subprocess
import sys
import time

import pytest

from mecellem.errors import UserError
from preprocessing.outputs import check_output_folder, remove_leftovers


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_what_a_killed_process_left_is_removed_once_it_is_old(tmp_path):
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait(timeout=60)
    dead, alive = finished.pid, os.getpid()
    hour_ago = time.time() - 3700
    names = [f".x.bin.tmp-{dead}-0123abcd", f".x.bin.tmp-{alive}-0123abcd", ".x.bin.tmp-mine", f".y.tmp-{dead}-0123abcd"]
    for name in (*names, f".x.bin.tmp-{dead}-fresh000", f".x.bin.tmp-{dead}-ffff0000"):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (hour_ago, hour_ago))
    (tmp_path / f".x.bin.tmp-{dead}-ffff0000").touch()
    before = names_in(tmp_path)
    remove_leftovers([tmp_path / "x.bin"])
    assert before - names_in(tmp_path) == {names[0]}


def test_a_folder_left_behind_is_old_only_when_all_in_it_is(tmp_path):
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait(timeout=60)
    folder = tmp_path / f".out.tmp-{finished.pid}-0123abcd"
    folder.mkdir()
    (folder / "file").write_text("")
    hour_ago = time.time() - 3700
    os.utime(folder, (hour_ago, hour_ago))
    remove_leftovers([tmp_path / "out"])
    assert folder.is_dir()
    os.utime(folder / "file", (hour_ago, hour_ago))
    remove_leftovers([tmp_path / "out"])
    assert names_in(tmp_path) == set()


def test_a_place_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    check_output_folder(tmp_path / "new" / "er", "--out")
    for path in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(UserError, match=r"--out: .*file is a file where a folder is needed"):
            check_output_folder(path, "--out")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(UserError, match="may not be written to"):
        check_output_folder(tmp_path / "new", "--out")
