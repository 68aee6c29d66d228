import io
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st
from source_items import items, planned, read_tasks

from mecellem.errors import UserError
from preprocessing.sources.found import PROBLEMS, Problem, Skipped

PAGE = """<html><head><title>Karar</title></head><body><nav>Ana sayfa Giriş</nav><article><h1>Yargıtay kararı</h1>
<p>Davacı vekili, müvekkilinin işe iadesine karar verilmesini istemiştir; mahkeme davanın kabulüne hükmetmiştir.</p>
<p>Temyiz üzerine dosya incelendi, gereği görüşüldü ve hükmün onanmasına oybirliğiyle karar verildi.</p>
</article></body></html>"""


def texts(found):
    return [item.text for item in found if isinstance(item, Document)]


def problems(found):
    return [(item.number, item.reason) for item in found if isinstance(item, Problem)]


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40), max_size=30),
    st.integers(1, 200),
)
def test_jsonl_cut_anywhere_gives_every_record_once(tmp_path_factory, contents, shard_size):
    path = tmp_path_factory.mktemp("jsonl") / "laws.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in contents))
    parts = read_tasks(path, "jsonl", shard_size)
    assert [text for part in parts for text in texts(part)] == [text for text in contents if text.strip()]


def test_a_record_has_its_own_id_and_the_fields_that_were_asked_for(tmp_path):
    path = tmp_path / "laws.jsonl"
    path.write_text('{"body": "Madde 1", "no": 7, "court": {"a": [1]}, "x": 1}\n{"body": "Madde 2", "no": true}\n')
    first, second = items(path, "jsonl", text_field="body", id_field="no", keep_fields=("court",))
    assert (first.id, first.text) == ("7", "Madde 1")
    assert first.metadata == {"source": "laws", "licence": "CC0-1.0", "origin": f"{path}:1", "court": {"a": [1]}}
    assert (second.number, second.reason) == (2, "id_type")


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "laws.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "Madde"}\n')
    assert texts(items(path, "jsonl")) == ["Madde"]
    path = tmp_path / "laws.txt"
    path.write_bytes(b"\xef\xbb\xbfMadde\r\n")
    assert texts(items(path, "text")) == ["Madde"]


def test_text_is_a_document_a_file_or_between_blank_lines(tmp_path):
    path = tmp_path / "laws.txt"
    path.write_text("Madde 1\ndevam\n\n \t\nMadde 2\n\n\n\nMadde 3")
    assert texts(items(path, "text")) == [path.read_text()]
    for shard_size in (1, 9, 30, 1000):
        parts = read_tasks(path, "text", shard_size, options={"documents": "blank_line"})
        assert [text for part in parts for text in texts(part)] == ["Madde 1\ndevam", "Madde 2", "Madde 3"]
    found = items(path, "text", options={"documents": "blank_line"})
    assert [item.metadata["origin"] for item in found] == [f"{path}:1", f"{path}:5", f"{path}:9"]


def test_broken_text_is_located(tmp_path):
    path = tmp_path / "laws.txt"
    path.write_bytes(b"iyi\n\nk\xf6t\xfc\n\n" + b"a" * 50 + b"\n\nson")
    found = items(path, "text", options={"documents": "blank_line"}, record_size=20)
    assert texts(found) == ["iyi", "son"]
    assert problems(found) == [(3, "not_utf8"), (5, "too_long")]


def test_parquet_is_read_in_row_groups_and_rows_keep_their_numbers(tmp_path):
    path = tmp_path / "laws.parquet"
    rows = [f"Madde {n}" for n in range(10)]
    rows[3] = None
    table = pyarrow.table({"text": rows, "court": ["ceza"] * 10, "unused": [b"x" * 100] * 10})
    pyarrow.parquet.write_table(table, path, row_group_size=3)
    tasks, _ = planned(path, "parquet", 1)
    assert len(tasks) == 4
    found = [item for part in read_tasks(path, "parquet", 1, keep_fields=("court",)) for item in part]
    assert texts(found) == [row for row in rows if row]
    assert problems(found) == [(4, "no_text")]
    assert found[9].metadata["origin"] == f"{path}#10"
    assert found[9].metadata["court"] == "ceza"
    assert "unused" not in found[9].metadata


def test_parquet_that_is_broken_or_lacks_the_column_is_told_of(tmp_path):
    path = tmp_path / "laws.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"body": ["Madde"]}), path)
    with pytest.raises(UserError, match=r"laws\.parquet has no column 'text': set text_field to one of body"):
        planned(path, "parquet", 1000)
    path.write_bytes(path.read_bytes()[:-8])
    [[problem]] = read_tasks(path, "parquet", 1000)
    assert (problem.number, problem.reason) == (1, "damaged_file")


@pytest.fixture
def warc(tmp_path):
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    path = tmp_path / "crawl.warc.gz"
    with open(path, "wb") as handle:
        writer = WARCWriter(handle, gzip=True)
        for kind, content in (
            ("text/html; charset=utf-8", PAGE),
            ("image/png", "x"),
            ("text/html", "<html><body></body></html>"),
        ):
            headers = StatusAndHeaders("200 OK", [("Content-Type", kind)], protocol="HTTP/1.0")
            record = writer.create_warc_record(
                "https://example.org/karar", "response", payload=io.BytesIO(content.encode()), http_headers=headers
            )
            writer.write_record(record)
        latin = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=iso-8859-9")], protocol="HTTP/1.0")
        payload = io.BytesIO(PAGE.encode("iso-8859-9"))
        writer.write_record(writer.create_warc_record("https://example.org/2", "response", payload=payload, http_headers=latin))
    return path


def test_warc_gives_the_running_text_of_pages(warc):
    found = items(warc, "warc", keep_fields=("url",))
    documents = [item for item in found if isinstance(item, Document)]
    assert [document.metadata["origin"] for document in documents] == [f"{warc}#1", f"{warc}#4"]
    for document in documents:
        assert "işe iadesine karar verilmesini istemiştir" in document.text
        assert "Ana sayfa" not in document.text
        assert document.metadata["url"].startswith("https://example.org/")
    assert [item.reason for item in found if isinstance(item, Skipped)] == ["not_a_page", "no_main_text"]


def test_a_cut_warc_gives_the_pages_before_the_cut(warc):
    warc.write_bytes(warc.read_bytes()[:-200])
    found = items(warc, "warc")
    assert len(texts(found)) == 1
    assert problems(found) == [(4, "damaged_file")]


@pytest.fixture
def pdf(tmp_path):
    """Two pages: one with Turkish text, one that shows only a picture."""
    import matplotlib as mpl
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    path = tmp_path / "karar.pdf"
    with mpl.rc_context({"pdf.fonttype": 42}), PdfPages(path) as pages:
        for draw in (
            lambda f: f.text(0.1, 0.5, "İşçi alacağı davasında ödeme güçlüğü"),
            lambda f: f.figimage([[0, 1], [1, 0]]),
        ):
            figure = Figure(figsize=(4, 2))
            draw(figure)
            pages.savefig(figure)
    return path


def test_pdf_gives_the_text_layer_and_scanned_pages_to_the_plug_in(pdf, tmp_path, monkeypatch):
    skipped, document = items(pdf, "pdf", keep_fields=("pages_without_text",))
    assert skipped == Skipped("page_without_text")
    assert document.text == "İşçi alacağı davasında ödeme güçlüğü"
    assert document.metadata["pages_without_text"] == [2]
    assert document.metadata["origin"] == str(pdf)
    (tmp_path / "our_ocr.py").write_text(
        "def read_page(image, page, path):\n    return f'sayfa {page} {image.size[0]}x{image.size[1]} {image.mode}'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    [document] = items(pdf, "pdf", options={"ocr": "our_ocr:read_page", "dpi": 72})
    assert document.text == "İşçi alacağı davasında ödeme güçlüğü\n\nsayfa 2 288x144 RGB"
    with pytest.raises(UserError, match=r"our_ocr:nothing cannot be imported"):
        items(pdf, "pdf", options={"ocr": "our_ocr:nothing"})


@pytest.mark.parametrize("where", ["beside", "current"])
def test_a_plug_in_beside_the_yaml_file_or_in_the_current_folder_is_found(pdf, tmp_path, where):
    """By the installed command, whose own folder is the first that Python looks in, and by its workers."""
    corpus, current = tmp_path / "corpus", tmp_path / "current"
    for folder in (corpus, current):
        folder.mkdir()
    plug_in = (corpus if where == "beside" else current) / "page_reader.py"
    plug_in.write_text("def read_page(image, page, path):\n    return f'sayfa {page}'\n")
    source = {"name": "scans", "kind": "pdf", "paths": [str(pdf)], "pdf": {"ocr": "page_reader:read_page"}}
    path = corpus / "corpus.yaml"
    path.write_text(json.dumps({"out": str(tmp_path / "out"), "sources": [source]}))
    starter = "import sys; sys.path.remove(''); from mecellem.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", starter, "prepare", "run", path]
    done = subprocess.run(command, cwd=current, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    with zstandard.open(next((tmp_path / "out").rglob("shards/*.zst"))) as shard:
        assert b"sayfa 2" in shard.read()
    plug_in.write_text("import no_such_module\n")
    shutil.rmtree(tmp_path / "out")
    done = subprocess.run(command, cwd=current, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "page_reader:read_page cannot be imported (ModuleNotFoundError: No module named 'no_such_module')" in done.stderr
    assert f"in {corpus} and {current}; write module:function" in done.stderr


def test_tesseract_is_called_with_the_page_as_png(pdf, tmp_path, monkeypatch):
    from preprocessing.sources.pdf import ocr_function

    program = tmp_path / "tesseract"
    program.write_text(
        '#!/bin/sh\nif [ "$1" = --list-langs ]; then printf "List:\\ntur\\neng\\n"; exit; fi\n'
        'head -c 4 | tail -c 3\necho " $@ $OMP_THREAD_LIMIT"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ocr_function.cache_clear()
    [document] = items(pdf, "pdf", options={"ocr": "tesseract", "languages": "tur+eng"})
    assert document.text.endswith("PNG stdin stdout -l tur+eng 1")
    with pytest.raises(UserError, match=r"has no data of deu \(it has tur, eng\): install it, such as by apt-get install"):
        ocr_function("tesseract", "tur+deu")
    ocr_function.cache_clear()


SCANNED = """Davacı vekili, müvekkilinin taşınmazının bir bölümünün davalı
tarafından haksız olarak kullanıldığını ileri sürmüştür.
Mahkemece, toplanan deliller ve alınan bilirkişi raporu ile
birlikte değerlendirilerek davanın kabulüne karar verilmiştir."""


def has_turkish_tesseract():
    program = shutil.which("tesseract")
    if program is None:
        return False
    listed = subprocess.run([program, "--list-langs"], capture_output=True, text=True, timeout=60, check=False)
    return {"tur", "osd"} <= set(listed.stdout.split())


def test_tesseract_itself_reads_turkish_scans_also_on_their_side(tmp_path):
    if not has_turkish_tesseract():
        sentence = "Tesseract with tur and osd is not installed: `apt-get install tesseract-ocr tesseract-ocr-tur`"
        assert "tesseract" not in os.environ.get("MECELLEM_REQUIRE", ""), sentence
        pytest.skip(sentence)
    import matplotlib as mpl
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSerif.ttf"), 34)
    page = Image.new("L", (1400, 500), 255)
    ImageDraw.Draw(page).multiline_text((80, 80), SCANNED, font=font, fill=20, spacing=18)
    white, turned = Image.new("L", page.size, 255), page.rotate(90, expand=True, fillcolor=255)
    page.save(tmp_path / "scan.pdf", resolution=200, save_all=True, append_images=[white, turned])
    skipped, document = items(tmp_path / "scan.pdf", "pdf", options={"ocr": "tesseract"}, keep_fields=("pages_without_text",))
    assert skipped == Skipped("page_without_text")
    assert document.text == f"{SCANNED}\n\n{SCANNED}"
    assert document.metadata["pages_without_text"] == [2]


def test_small_files_of_any_kind_share_a_task(tmp_path):
    for number in range(9):
        for kind in ("pdf", "warc", "jsonl.gz"):
            (tmp_path / f"{number}.{kind}").write_bytes(b"x" * 100)
    for kind, ending in (("pdf", "pdf"), ("warc", "warc"), ("jsonl", "jsonl.gz")):
        tasks, _ = planned(tmp_path / f"*.{ending}", kind, 400)
        assert [len(task) for task in tasks] == [4, 4, 1]


def test_pdfs_without_text_or_that_are_none_are_told_of(pdf, tmp_path):
    import pypdfium2

    with pypdfium2.PdfDocument(pdf) as document:
        document.del_page(0)
        document.save(tmp_path / "scan.pdf")
    assert problems(items(tmp_path / "scan.pdf", "pdf")) == [(0, "needs_ocr")]
    (tmp_path / "none.pdf").write_bytes(b"no PDF at all")
    assert problems(items(tmp_path / "none.pdf", "pdf")) == [(0, "broken_pdf")]


def test_files_that_are_gone_or_empty_are_problems_of_any_kind(tmp_path):
    for kind in ("jsonl", "text", "parquet", "warc", "pdf"):
        assert problems(items(tmp_path / f"gone.{kind}", kind)) == [(0, "missing_file")]
        (tmp_path / f"empty.{kind}").touch()
        assert problems(items(tmp_path / f"empty.{kind}", kind)) == [(0, "empty_file")]


def test_every_reason_has_its_sentence():
    import re
    from pathlib import Path

    import preprocessing.sources

    used = set()
    for path in Path(preprocessing.sources.__path__[0]).glob("*.py"):
        used |= set(re.findall(r'Problem\([^")]*?"(\w+)"', path.read_text()))
    assert used <= set(PROBLEMS), used - set(PROBLEMS)
    assert {"damaged_file", "not_json", "too_long"} <= used
