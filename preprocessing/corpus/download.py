"""Bring pinned packages into a cache folder: through pip and apt-get, checked by hash, whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mecellem.errors import UserError
from mecellem.files import disk_full_is_user_error, remove_leftovers, sha256_of, temporary_beside
from preprocessing.corpus.packages import LIBREOFFICE, HelpRelease, Package, wrong_hash

_PIP_TIMEOUT_S = 600
_APT_TIMEOUT_S = 60
_PIP_MISMATCH = re.compile(r"Expected sha256 (\w+)\s+Got\s+(\w+)")


def cached(package: Package, cache: Path) -> Path | None:
    """The package's file in the cache if its bytes are the pinned ones; a file with other bytes is removed."""
    path = cache / package.filename
    if not path.is_file():
        return None
    if sha256_of(path) == package.sha256:
        return path
    path.unlink()
    return None


def fetch_pypi(package: Package, cache: Path) -> Path:
    """Download a PyPI package with pip, unless it is cached; returns its path.

    pip checks the hash before it does anything with the file. For a source archive pip then runs the archive's own
    `setup.py` to read its metadata: that is the one place where a package's code runs, and only if its bytes are the
    pinned ones. Raises `UserError` for a wrong hash or when the file cannot be downloaded.
    """
    if path := cached(package, cache):
        return path
    with disk_full_is_user_error(cache / package.filename):
        cache.mkdir(parents=True, exist_ok=True)
        with scratch_folder(cache) as folder:
            requirements = folder / "requirements.txt"
            requirements.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
            _run_pip(package, [*_pip_kind(package), "--no-deps", "-r", str(requirements), "-d", str(folder)], cache)
            return keep_download(package, folder, cache)


def _pip_kind(package: Package) -> list[str]:
    """Options of pip that make it choose the pinned file, also where it is a wheel for another Python or platform."""
    if not package.filename.endswith(".whl"):
        return ["--no-binary", package.name]
    python, abi, platform = package.filename.removesuffix(".whl").split("-")[-3:]
    if platform == "any":
        return ["--only-binary", package.name]
    version = ["--python-version", f"{python[2]}.{python[3:]}"] if python.startswith("cp") else []  # py3: any that runs this
    platforms = [part for tag in platform.split(".") for part in ("--platform", tag)]
    return ["--only-binary", ":all:", *version, "--abi", abi, *platforms]


@contextmanager
def scratch_folder(cache: Path) -> Iterator[Path]:
    """A folder inside the cache, on the same file system, that is gone afterwards; a killed call's goes as well."""
    target = cache / "download"
    remove_leftovers(target)
    folder = temporary_beside(target)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_pip(package: Package, arguments: list[str], cache: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "-q", *arguments]
    wanted = f"{package.name} {package.version}"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{wanted}: pip needed more than {_PIP_TIMEOUT_S} s for it: check the network and run the command again"
        ) from None
    if done.returncode == 0:
        return
    if mismatch := _PIP_MISMATCH.search(done.stderr):
        raise wrong_hash(package.filename, expected=mismatch[1], got=mismatch[2])
    complaints = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
    said = complaints[-1].removeprefix("ERROR: ").strip() if complaints else f"exit code {done.returncode}"
    raise UserError(
        f"{wanted} could not be downloaded: pip says {said!r}: check the network and pip's index settings, "
        f"then run the command again ({cache} keeps what was downloaded)"
    )


def keep_download(package: Package, folder: Path, cache: Path) -> Path:
    """Check a downloaded file and rename it into the cache, which is how it becomes believed."""
    downloaded = folder / package.filename
    if not downloaded.is_file():
        others = ", ".join(sorted(item.name for item in folder.iterdir() if item.suffix != ".txt")) or "nothing"
        raise UserError(f"{package.filename} was asked for, {others} came: check the index that pip or apt is set to")
    got = sha256_of(downloaded)
    if got != package.sha256:
        raise wrong_hash(package.filename, expected=package.sha256, got=got)
    with open(downloaded, "rb") as handle:
        os.fsync(handle.fileno())
    path = cache / package.filename
    os.replace(downloaded, path)
    return path


def fetch_libreoffice(cache: Path, required: bool) -> tuple[HelpRelease, Path, Path] | str:
    """(release, Turkish file, English file) of the first known release that the cache or apt-get has.

    Where there is none the reason is returned as a clause, or raised as a `UserError` if `required`. `apt-get update`
    is never run: it needs root and changes the machine's package lists, which is the user's decision.
    """
    if shutil.which("dpkg-deb") is None:
        return _without_help("this machine has no dpkg-deb (it is not a Debian or Ubuntu)", required)
    for release in LIBREOFFICE:
        turkish, english = cached(release.turkish, cache), cached(release.english, cache)
        if turkish and english:
            return release, turkish, english
    if shutil.which("apt-get") is None:
        return _without_help("this machine has no apt-get", required)
    for release in LIBREOFFICE:
        if paths := _apt_download(release, cache):
            return release, *paths
    known = ", ".join(release.turkish.version for release in LIBREOFFICE)
    return _without_help(
        f"apt-get offers none of the releases known here ({known}); if its lists are old, run `apt-get update`",
        required,
    )


def _without_help(reason: str, required: bool) -> str:
    if required:
        raise UserError(f"LibreOffice's help cannot be fetched: {reason}; or use --libreoffice auto or no")
    return reason


def _apt_download(release: HelpRelease, cache: Path) -> tuple[Path, Path] | None:
    """Both packages of a release, or None where apt-get does not give them in time; a wrong hash is a `UserError`."""
    packages = (release.turkish, release.english)
    with disk_full_is_user_error(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with scratch_folder(cache) as folder:
            wanted = [f"{package.name}={package.version}" for package in packages]
            try:
                done = subprocess.run(
                    ["apt-get", "download", "-q", *wanted],
                    cwd=folder,
                    capture_output=True,
                    timeout=_APT_TIMEOUT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return None
            if done.returncode != 0:
                return None
            turkish, english = (keep_download(package, folder, cache) for package in packages)
            return turkish, english
