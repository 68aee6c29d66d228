"""Files that are either whole or absent: write to a temporary name beside the target, fsync, rename."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import socket
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mecellem.errors import UserError

# No space, quota exceeded, file size limit: the three ways in which a file system says "full".
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# torch.save's and numpy's own words for a write that the file system cut short; no OSError with a number is behind them
SHORT_WRITE = re.compile(
    r"inline_container\.cc.*(unexpected pos \d+ vs \d+|failed writing file)|\d+ requested and \d+ written", re.DOTALL
)


def disk_full_error(path: Path | str, error: OSError) -> UserError:
    """The sentence for a full disk. `path` is what was being written when `error` came."""
    return UserError(
        f"{path}: the disk is full ({error.strerror}); nothing half-written was left: "
        "free some space and run the same command again"
    )


def disk_full_cause(error: BaseException | None) -> OSError | None:
    """The "disk is full" behind an error that torch, Megatron-Core or safetensors wrapped, if that is what it was."""
    seen: set[int] = set()
    pending = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, OSError) and current.errno in DISK_FULL:
            return current
        for number in DISK_FULL:  # errors that crossed a process boundary, or Rust's, keep only their text
            if os.strerror(number) in str(current) or f"Errno {number}]" in str(current):
                return OSError(number, os.strerror(number))
        if SHORT_WRITE.search(str(current)):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        pending += [current.__cause__, current.__context__]
        failures = getattr(current, "failures", None)  # torch's CheckpointException
        if isinstance(failures, dict):
            pending += [value[0] if isinstance(value, tuple) else value for value in failures.values()]
    return None


@contextmanager
def disk_full_is_user_error(path: Path | str) -> Iterator[None]:
    """Turn a full disk, in whatever words a library tells of it, into a `UserError` that names `path`; else pass on."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        full = disk_full_cause(error)
        if full is None:
            raise
        raise disk_full_error(path, full) from error


def check_output_folder(folder: Path, flag: str) -> None:
    """Raise `UserError` unless `folder` is one that can be written to or made. `flag` names the flag in the message."""
    for part in (folder.absolute(), *folder.absolute().parents):
        if part.is_symlink() and not part.exists():
            raise UserError(
                f"{flag}: {part} is a link to {part.readlink()}, which is not there: make that, or choose another place"
            )
        if part.exists():
            if not part.is_dir():
                raise UserError(f"{flag}: {part} is a file where a folder is needed: choose another place")
            if not os.access(part, os.W_OK | os.X_OK):
                raise UserError(f"{flag}: {part} may not be written to: check its permissions or choose another place")
            return


def temporary_beside(path: Path) -> Path:
    """A name in the same folder (so that a rename is atomic) which no other writer uses."""
    return path.with_name(f".{path.name}.tmp-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the right to make `path`: other processes that ask for it wait until the block ends, or this one does.

    The lock is a hidden empty file beside `path`, there while somebody holds it. On a file system without locks (some of
    clusters') nobody waits: what is made must be atomic in any case.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    handle = _take(lock)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)  # before it is let go: who waits for it sees that it is gone, and takes a new one
        os.close(handle)


def _take(lock: Path) -> int:
    """The descriptor of the lock file, held."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                return handle
            os.close(handle)
            raise
        try:
            if os.path.samestat(os.fstat(handle), lock.stat()):
                return handle
        except FileNotFoundError:
            pass  # its last holder has removed it
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove_leftovers(path: Path) -> None:
    """Delete what writers of `path` on this machine left behind when they were killed (SIGKILL, power cut)."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.tmp-{re.escape(socket.gethostname())}-(\d+)-[0-9a-f]{{8}}")
    for item in path.parent.iterdir():
        match = pattern.fullmatch(item.name)
        if match and not _is_running(int(match[1])):
            _remove(item)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable (a rename is only on disk once its folder is)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_write(path: Path | str, mode: str = "w", look_for_leftovers: bool = True) -> Iterator[IO[Any]]:
    """Open a temporary file that becomes `path` when the block ends well and vanishes when it does not.

    `mode` is "w" (UTF-8 text) or "wb". What a killed writer of the same `path` left is removed first; that reads the folder,
    so who writes thousands of files into one does it once for all. Raises `UserError` when the disk is full, and where
    `path` is a folder.
    """
    assert mode in ("w", "wb"), mode
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder and a file is to be written: name the file")
    with disk_full_is_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if look_for_leftovers:
            remove_leftovers(path)
        temporary = temporary_beside(path)
        try:
            with open(temporary, mode, encoding="utf-8" if mode == "w" else None) as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
            fsync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def commit_folder(temporary: Path, path: Path, replace: bool = False) -> None:
    """Sync all of `temporary` to disk and rename the folder to `path`; with `replace` an older `path` goes away.

    Its files can be read by whom the folder, made under the user's umask, lets in: safetensors writes files that only
    their owner can read, which on a cluster shuts out a whole group.
    """
    readable = temporary.stat().st_mode & 0o666
    for item in sorted(temporary.rglob("*")):
        if item.is_file():
            with open(item, "rb") as handle:
                mode = os.fstat(handle.fileno()).st_mode
                if readable & ~mode and not item.is_symlink():
                    os.fchmod(handle.fileno(), stat.S_IMODE(mode | readable))
                os.fsync(handle.fileno())
        elif item.is_dir():
            fsync_folder(item)
    fsync_folder(temporary)
    if path.exists() and replace:
        old = temporary_beside(path)
        os.replace(path, old)
        try:
            os.replace(temporary, path)
        except BaseException:
            os.replace(old, path)
            raise
        _remove(old)
    else:
        os.rename(temporary, path)  # noqa: PTH104 - beside os.replace, which this is not
    fsync_folder(path.parent)


@contextmanager
def atomic_folder(path: Path | str, replace: bool = False, remedy: str = "remove it first") -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends well and vanishes when it does not.

    An existing `path` that is not empty is refused unless `replace`; `remedy` is what its sentence advises.
    Raises `UserError` when the disk is full.
    """
    path = Path(path)
    if path.exists() and not replace and (path.is_file() or any(path.iterdir())):
        raise UserError(f"{path} exists already: choose another folder or {remedy}")
    with disk_full_is_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        temporary = temporary_beside(path)
        temporary.mkdir()
        try:
            yield temporary
            commit_folder(temporary, path, replace=replace)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def sha256_of(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
