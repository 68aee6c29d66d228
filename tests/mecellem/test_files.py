import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mecellem import files
from mecellem.errors import UserError
from mecellem.files import atomic_folder, atomic_write, check_output_folder, remove_leftovers, sha256_of


def names(folder):
    return sorted(item.name for item in folder.iterdir())


def test_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for text in ("bir", "ığüşöç"):
        with atomic_write(path) as handle:
            handle.write(text)
        assert path.read_text(encoding="utf-8") == text
    assert names(path.parent) == ["a.txt"]


def test_a_folder_is_no_file_to_write(tmp_path):
    with pytest.raises(UserError, match=r"is a folder and a file is to be written: name the file"), atomic_write(tmp_path):
        pass


def test_write_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_write(path, "wb") as handle:
        handle.write(b"new")
        assert path.read_bytes() == b"old"
        raise RuntimeError
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]


def test_folder_appears_whole(tmp_path):
    path = tmp_path / "model"
    with atomic_folder(path) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "w").write_text("1")
        assert not path.exists()
    assert (path / "sub" / "w").read_text() == "1" and names(tmp_path) == ["model"]


def test_folder_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "model") as temporary:
        (temporary / "w").write_text("1")
        raise RuntimeError
    assert names(tmp_path) == []


def test_existing_folder_is_refused_before_any_work(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "mine").write_text("1")
    with pytest.raises(UserError, match="exists already"), atomic_folder(path):
        raise AssertionError("the block must not run")
    assert names(path) == ["mine"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_can_be_read_by_whom_the_folder_lets_in(tmp_path, mask, mode):
    # safetensors' save_file writes for its owner alone; a program in the folder stays one
    before = os.umask(mask)
    try:
        with atomic_folder(tmp_path / "model") as temporary:
            (temporary / "pooling").mkdir()
            for name in ("model.safetensors", "pooling/weights.bin"):
                (temporary / name).write_bytes(b"1")
                (temporary / name).chmod(0o600)
            (temporary / "run.sh").write_text("true")
            (temporary / "run.sh").chmod(0o700)
    finally:
        os.umask(before)
    modes = {item.name: item.stat().st_mode & 0o777 for item in (tmp_path / "model").rglob("*") if item.is_file()}
    assert modes == {"model.safetensors": mode, "weights.bin": mode, "run.sh": mode | 0o100}


def test_empty_folder_is_taken(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    with atomic_folder(path) as temporary:
        (temporary / "w").write_text("1")
    assert names(path) == ["w"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_replace(tmp_path, kind):
    path = tmp_path / "model"
    if kind == "folder":
        path.mkdir()
        (path / "old").write_text("1")
    elif kind == "file":
        path.write_text("old")
    else:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "old").write_text("1")
        path.symlink_to("elsewhere")
    with atomic_folder(path, replace=True) as temporary:
        (temporary / "new").write_text("2")
    assert names(path) == ["new"]
    if kind == "link":
        assert names(tmp_path / "elsewhere") == ["old"]
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_replace_that_fails_at_the_rename_brings_the_old_folder_back(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").write_text("1")
    real, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        real(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    with pytest.raises(OSError, match="Input/output"), atomic_folder(path, replace=True) as temporary:
        (temporary / "new").write_text("2")
    assert names(path) == ["old"] and names(tmp_path) == ["model"]


def run_with_file_size_limit(code, folder, limit=100_000):
    """Run `code` where no file may grow past `limit` bytes: the kernel answers EFBIG, as a full disk ENOSPC."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        timeout=60,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


FULL = {
    "file": "with atomic_write('out/a.bin', 'wb') as handle: handle.write(bytes(300_000))",
    "many small writes": "with atomic_write('out/a.txt') as handle:\n  for i in range(100_000): handle.write('satır')",
    "folder": "with atomic_folder('out/model') as folder: (folder / 'w').write_bytes(bytes(300_000))",
}


@pytest.mark.parametrize("kind", FULL)
def test_full_disk_is_a_sentence_and_leaves_nothing(tmp_path, kind):
    code = f"""
from mecellem.errors import UserError
from mecellem.files import atomic_folder, atomic_write
try:
    {FULL[kind].replace(chr(10), chr(10) + "    ")}
except UserError as error:
    print(error)
"""
    done = run_with_file_size_limit(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "out/" in done.stdout and "the disk is full" in done.stdout
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize(
    "words", ["I/O error: No space left on device (os error 28)", "I/O error: File too large (os error 27)"]
)
def test_a_full_disk_in_a_librarys_own_words(tmp_path, words):
    with pytest.raises(UserError, match=r"out: the disk is full"), atomic_folder(tmp_path / "out"):
        try:
            raise RuntimeError(f"Error while serializing: {words}")
        except RuntimeError as error:
            raise KeyError("wrapped") from error
    with pytest.raises(KeyError, match="other"), atomic_folder(tmp_path / "out"):
        raise KeyError("other")
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_every_kind_of_full(tmp_path, number):
    with pytest.raises(UserError, match=r"a\.txt: the disk is full"), atomic_write(tmp_path / "a.txt"):
        raise OSError(number, os.strerror(number))
    assert names(tmp_path) == []


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(PermissionError), atomic_write(tmp_path / "a.txt"):
        raise PermissionError(errno.EACCES, "no")


WRITER = """
import itertools, sys
from mecellem.files import atomic_write, atomic_folder
for i in itertools.count():
    with atomic_write('a.bin', 'wb') as handle:
        for _ in range(64):
            handle.write(bytes([i % 256]) * 16384)
    with atomic_folder('model', replace=True) as folder:
        for name in 'xyz':
            (folder / name).write_bytes(bytes([i % 256]) * 16384)
    print(i, flush=True)
"""


def killed_writer(folder, delay, number):
    writer = subprocess.Popen([sys.executable, "-c", WRITER], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "0\n"
    time.sleep(delay)
    writer.send_signal(number)
    writer.wait(timeout=30)
    writer.stdout.close()


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.011, 0.027, 0.05])
def test_killed_at_any_moment(tmp_path, delay):
    """SIGKILL: what stands is whole, and the next writer clears away what the killed one left."""
    killed_writer(tmp_path, delay, signal.SIGKILL)
    content = (tmp_path / "a.bin").read_bytes()
    assert len(content) == 64 * 16384 and len(set(content)) == 1
    model = tmp_path / "model"
    if model.exists():  # it is absent for the moment between two renames
        parts = [(model / name).read_bytes() for name in "xyz"]
        assert all(len(part) == 16384 for part in parts) and len(set(b"".join(parts))) == 1
    with atomic_write(tmp_path / "a.bin", "wb") as handle:
        handle.write(b"next")
    with atomic_folder(model, replace=True):
        pass
    assert names(tmp_path) == ["a.bin", "model"]


def test_leftovers_of_living_processes_and_other_machines_stay(tmp_path):
    mine = files.temporary_beside(tmp_path / "a")
    foreign = tmp_path / f".a.tmp-not-{socket.gethostname()}-1-0123abcd"
    other_target = tmp_path / f".b.tmp-{socket.gethostname()}-999999999-0123abcd"
    dead = tmp_path / f".a.tmp-{socket.gethostname()}-999999999-0123abcd"
    for item in (mine, foreign, other_target, dead):
        item.write_text("x")
    remove_leftovers(tmp_path / "a")
    assert names(tmp_path) == sorted([mine.name, foreign.name, other_target.name])


def test_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc" * 1_000_000)
    known = subprocess.run(["sha256sum", path], capture_output=True, text=True, timeout=60, check=True).stdout
    assert sha256_of(Path(path)) == known.split()[0]


LOCKED = """
import sys, time
from pathlib import Path
from mecellem.files import locked
folder = Path(sys.argv[1])
for number in range(40):
    with locked(folder / "made"):
        (folder / "inside").touch(exist_ok=False)
        time.sleep(0.001)
        (folder / "inside").unlink()
"""


def test_one_process_at_a_time_holds_a_lock_and_none_stays(tmp_path):
    together = [subprocess.Popen([sys.executable, "-c", LOCKED, str(tmp_path)], stderr=subprocess.PIPE) for _ in range(4)]
    ended = [process.communicate(timeout=120)[1] for process in together]
    assert [process.returncode for process in together] == [0] * 4, ended
    assert names(tmp_path) == []


def test_a_killed_holder_leaves_the_lock_to_the_next(tmp_path):
    program = LOCKED.replace("time.sleep(0.001)", "print('in', flush=True); time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    process.kill()
    process.wait(60)
    (tmp_path / "inside").unlink()
    assert names(tmp_path) == [".made.lock"]
    with files.locked(tmp_path / "made"):
        pass
    assert names(tmp_path) == []


def test_a_file_system_without_locks_makes_nobody_wait(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with files.locked(tmp_path / "made"), files.locked(tmp_path / "made"):
        pass
    assert names(tmp_path) == []


def test_a_cut_write_of_numpy_is_a_full_disk(tmp_path):
    """numpy says "N requested and M written", without the number of the error."""
    script = (
        "import resource, signal, sys; import numpy as np; from mecellem.files import atomic_write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "with atomic_write(sys.argv[1], 'wb') as handle: np.save(handle, np.zeros(1_000_000))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "values.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr.splitlines()[-1].startswith("mecellem.errors.UserError: ") and "values.npy" in done.stderr, done.stderr
    assert "requested and" in done.stderr and list(tmp_path.iterdir()) == []


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
