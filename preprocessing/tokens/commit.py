"""How a finished `.bin`, `.idx` and manifest come to their names together, and how a kill in the midst of it is mended.

Three files cannot be renamed at once. So what is to happen is noted first, in `.<name>.commit.json`: the new manifest,
and which files stand at the two names now and will stand there then, each by its inode, size and time. The note goes
away when the manifest is there. Where it was left by a kill, the corpus is finished if both files are the new ones;
else they are remains that the same command may overwrite, as long as no other files have come to their names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ValidationError

from mecellem.files import atomic_write, disk_full_is_user_error
from mecellem.manifest import CorpusManifest, manifest_path, provenance_path, write_manifest

_Identity = tuple[int, int, int]  # inode, bytes, time of the last change of the contents in nanoseconds


class _Note(BaseModel):
    """A commit that has begun: what stood at the names of `.bin` and `.idx` (None: nothing) and what is to stand there."""

    manifest: CorpusManifest
    before: tuple[_Identity | None, _Identity | None]
    after: tuple[_Identity, _Identity]


@dataclass(slots=True)
class Pair:
    """The streams of a `.bin` and an `.idx` that have no names yet, and the manifest that whoever fills them sets."""

    bin: IO[bytes]
    idx: IO[bytes]
    manifest: CorpusManifest | None = None


@contextmanager
def open_pair(prefix: Path) -> Iterator[Pair]:
    """Yield the streams of `<prefix>.bin` and `<prefix>.idx`; when the block ends well they and `manifest` appear.

    Else nothing changes. An older manifest goes away just before the first of the new files is renamed, so that it never
    stands beside files that are not its own. Raises `UserError` on a full disk.
    """
    bin_path, idx_path = _paths(prefix)
    with disk_full_is_user_error(bin_path):
        prefix.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(idx_path, "wb") as index, atomic_write(bin_path, "wb") as stream:
            pair = Pair(stream, index)
            yield pair
            assert pair.manifest is not None
            for handle in (stream, index):  # a full disk shows here, while the older corpus is still whole
                handle.flush()
                os.fsync(handle.fileno())
            before, after = (_identity(bin_path), _identity(idx_path)), (_identity(stream.name), _identity(index.name))
            assert after[0] and after[1]
            with atomic_write(_note_path(prefix)) as handle:
                handle.write(_Note(manifest=pair.manifest, before=before, after=(after[0], after[1])).model_dump_json())
            manifest_path(prefix).unlink(missing_ok=True)
            provenance_path(prefix).unlink(missing_ok=True)  # the older corpus's
        write_manifest(prefix, pair.manifest)
    _note_path(prefix).unlink()


def settle(prefix: Path) -> CorpusManifest | None:
    """Finish a commit at `prefix` that was killed, if its files are all there.

    Else returns its manifest, if what stands at `prefix` is of it and of what it was to replace, and may be overwritten.
    """
    path, names = _note_path(prefix), _paths(prefix)
    try:
        note = _Note.model_validate_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        return None
    if manifest_path(prefix).exists():  # killed before the older one went away, or when the new one was there
        path.unlink()
        return None
    now = tuple(map(_identity, names))
    if now == note.after:
        write_manifest(prefix, note.manifest)
        path.unlink()
        return None
    known = all(found in (old, new) for found, old, new in zip(now, note.before, note.after, strict=True))
    return note.manifest if known else None


def _paths(prefix: Path) -> tuple[Path, Path]:
    return Path(f"{prefix}.bin"), Path(f"{prefix}.idx")


def _note_path(prefix: Path) -> Path:
    return prefix.with_name(f".{prefix.name}.commit.json")


def _identity(path: Path | str) -> _Identity | None:
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
