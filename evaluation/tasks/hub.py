"""Data sets of the Hugging Face hub as folders below the cache, so that a machine without internet reads what another fetched.

`CACHE/hub/OWNER--NAME/COMMIT/` holds the files as the hub has them, `CACHE/hub/OWNER--NAME/REVISION.json` says that all of
them arrived (both with `@PART` behind the name where only parts were asked for). What is there is never asked for again:
`main` stays the commit that it was when it was fetched.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from evaluation.results import Record, write_record
from mecellem.errors import UserError
from mecellem.files import atomic_write, disk_full_cause, disk_full_error

TIMEOUT_S = 30
ABOUT = ("README.md", ".gitattributes")
OVERRIDE = ".huggingface.yaml"  # the file in which `datasets` looks for configs before README.md


class Snapshot(Record):
    """A data set that arrived whole. `configs` are the parts that were asked for, none: all; `files`: path -> bytes."""

    repo: str
    revision: str
    commit: str
    configs: tuple[str, ...]
    files: dict[str, int]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(self.files.values())


def repo_folder(cache: Path, repo: str) -> Path:
    """Where all commits of a data set lie."""
    return cache / "hub" / repo.replace("/", "--")


def find_snapshot(cache: Path, repo: str, revision: str, configs: Sequence[str] = ()) -> tuple[Snapshot, Path] | None:
    """The snapshot and its folder, or None where a file is missing or has another size. Asks no network."""
    try:
        snapshot = Snapshot.model_validate_json(_manifest(cache, repo, revision, configs).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    folder = _folder(cache, repo, snapshot.commit, configs)
    paths = ((folder / name, size) for name, size in snapshot.files.items())
    return (snapshot, folder) if all(path.is_file() and path.stat().st_size == size for path, size in paths) else None


def _manifest(cache: Path, repo: str, revision: str, configs: Sequence[str]) -> Path:
    return repo_folder(cache, repo) / f"{'@'.join([revision.replace('/', '-'), *configs])}.json"


def _folder(cache: Path, repo: str, commit: str, configs: Sequence[str]) -> Path:
    return repo_folder(cache, repo) / "@".join([commit, *configs])


def fetch_snapshot(cache: Path, repo: str, revision: str, configs: Sequence[str] = ()) -> tuple[Snapshot, Path]:
    """The snapshot and its folder, downloaded where the cache has it not; an interrupted download is continued.

    With `configs` only their files are fetched, where README.md says which those are. Raises `UserError` when the hub
    cannot be reached or does not give the data set away.
    """
    if found := find_snapshot(cache, repo, revision, configs):
        return found
    try:
        snapshot = _download(cache, repo, revision, tuple(configs))
    except Exception as error:  # of whichever HTTP library the hub's client uses
        if full := disk_full_cause(error):
            raise disk_full_error(repo_folder(cache, repo), full) from error
        raise UserError(f"the data set {repo} cannot be downloaded ({_first_line(error)})") from error
    write_record(_manifest(cache, repo, revision, configs), snapshot)
    found = find_snapshot(cache, repo, revision, configs)
    assert found is not None, repo
    return found


def _download(cache: Path, repo: str, revision: str, configs: tuple[str, ...]) -> Snapshot:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    # also for a commit: where there is no network this fails at once, while snapshot_download tries for long
    commit = HfApi().dataset_info(repo, revision=revision, timeout=TIMEOUT_S).sha
    assert commit is not None, repo
    folder = _folder(cache, repo, commit, configs)
    common: dict[str, Any] = {"repo_type": "dataset", "revision": commit, "local_dir": folder, "etag_timeout": TIMEOUT_S}
    patterns = None
    if configs:
        snapshot_download(repo, allow_patterns=list(ABOUT), **common)
        patterns = _files_of(folder, configs)
    snapshot_download(repo, allow_patterns=patterns and [*ABOUT, *patterns], **common)
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != ".cache"
    }
    return Snapshot(repo=repo, revision=revision, commit=commit, configs=configs, files=files)


def _files_of(folder: Path, configs: tuple[str, ...]) -> list[str] | None:
    """Patterns of the configs' files by README.md, or None where it does not tell.

    `datasets` wants the files of the first config that it knows of; so it is told of these only.
    """
    readme = folder / "README.md"
    found = re.match(r"---\n(.*?\n)---", readme.read_text(encoding="utf-8"), re.DOTALL) if readme.is_file() else None
    known = (yaml.safe_load(found[1]) or {}).get("configs", []) if found else []
    chosen = [config for config in known if config.get("config_name") in configs]
    if len(chosen) < len(configs) or not all("data_files" in config for config in chosen):
        return None
    with atomic_write(folder / OVERRIDE) as handle:
        yaml.safe_dump({"configs": chosen}, handle, allow_unicode=True)
    return [pattern for config in chosen for pattern in _patterns(config["data_files"])]


def _patterns(data_files: Any) -> list[str]:
    """A `data_files` entry of README.md: a pattern, several, or several by split."""
    if isinstance(data_files, str):
        return [data_files]
    return [pattern for item in data_files for pattern in _patterns(item["path"] if isinstance(item, dict) else item)]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}".rstrip(": ")
