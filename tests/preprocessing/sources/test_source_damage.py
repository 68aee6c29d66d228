"""Damaged files: what stands around the damage is read, and what is lost is located."""

import gzip
import json
import random
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from datatrove.data import Document
from hypothesis import given, settings
from hypothesis import strategies as st
from source_items import items

from preprocessing.sources.found import Problem, Skipped

PACKERS = [(".gz", gzip.compress), (".zst", zstandard.ZstdCompressor(write_checksum=True).compress)]


def lines(start, stop):
    return "".join(json.dumps({"text": f"Madde {n}: " + "hüküm " * (n % 7)}) + "\n" for n in range(start, stop)).encode()


def numbers(found):
    return [int(item.text.split(":")[0].removeprefix("Madde ")) for item in found if isinstance(item, Document)]


def damages(found):
    return [item.detail for item in found if isinstance(item, Problem) and item.reason == "damaged_file"]


def warc_records(count, packed):
    """So many pages of a WARC, each as it stands in the file."""
    import io

    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    records = []
    for number in range(count):
        paragraphs = "".join(f"<p>{number}. sayfanın {n}. paragrafında mahkeme kararı yer almaktadır.</p>" for n in range(8))
        page = f"<html><body><article>{paragraphs}</article></body></html>".encode()
        headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1")
        writer = WARCWriter(handle := io.BytesIO(), gzip=packed)
        writer.write_record(writer.create_warc_record("https://a.org/", "response", io.BytesIO(page), http_headers=headers))
        records.append(handle.getvalue())
    return records


def pages(found):
    return [int(item.text.split(".")[0]) for item in found if isinstance(item, Document)]


@pytest.mark.parametrize("broken", [0, 3, 7])
@pytest.mark.parametrize("how", ["zeros", "head", "cut", "checksum"])
def test_one_broken_member_of_a_warc_costs_its_own_page(tmp_path, how, broken):
    members = warc_records(8, packed=True)
    begin, whole = sum(map(len, members[:broken])), members[broken]
    members[broken] = {
        "zeros": whole[:60] + bytes(40) + whole[100:],
        "head": b"\x01\x1b[2J" + whole[6:],
        "cut": whole[: len(whole) // 2],
        "checksum": whole[:-8] + bytes(4) + whole[-4:],
    }[how]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(members))
    found = items(path, "warc")
    assert pages(found) == [number for number in range(8) if number != broken]
    [problem] = [item for item in found if isinstance(item, Problem)]
    assert problem.reason == "damaged_file" and problem.detail.isprintable()
    end = begin + len(members[broken])
    where = f"between bytes {begin:,} and {end:,} of the file" if broken < 7 else "the file was read up to here"
    assert where in problem.detail
    # of so short a member nothing is given before it is whole, or the file ends
    assert ("checksum confirms" in problem.detail) == (how == "cut" and broken == 7)


@pytest.mark.parametrize("packed", [True, False])
def test_what_is_no_record_of_a_warc_is_passed_over(tmp_path, packed):
    records = warc_records(5, packed=False)
    content = [*records[:2], b"\x1b[31mno record\r\n" * 3000, *records[2:4], records[4].replace(b"WARC/1.0", b"XARC/1.0")]
    path = tmp_path / ("a.warc.gz" if packed else "a.warc")
    path.write_bytes(gzip.compress(b"".join(content)) if packed else b"".join(content))
    found = items(path, "warc")
    assert pages(found) == [0, 1, 2, 3]
    first, last = damages(found)
    begin = len(b"".join(content[:2]))
    assert re.search(rf"bytes ([\d,]+) and {begin + len(content[2]):,} of its content is no record", first)
    assert begin <= int(re.search(r"bytes ([\d,]+)", first)[1].replace(",", "")) <= begin + 100
    assert "nor later; the file was read up to here" in last and all(detail.isprintable() for detail in (first, last))


def test_names_of_warcs_may_lie(tmp_path):
    records = warc_records(3, packed=True), warc_records(3, packed=False)
    for name, content in zip(("a.warc", "b.warc.gz"), records, strict=True):
        (tmp_path / name).write_bytes(b"".join(content))
        found = items(tmp_path / name, "warc")
        assert pages(found) == [0, 1, 2] and damages(found) == []


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), broken=st.sets(st.integers(0, 5), min_size=1, max_size=3), packed=st.booleans())
def test_wherever_a_warc_is_broken_the_pages_of_whole_members_are_read(tmp_path_factory, seed, broken, packed):
    rng = random.Random(seed)
    records = [bytearray(record) for record in warc_records(6, packed)]
    for record in (records[n] for n in sorted(broken)):
        at = rng.randrange(len(record))
        record[at : at + rng.randrange(1, 30)] = rng.randbytes(rng.randrange(0, 30))
    path = tmp_path_factory.mktemp("broken") / ("a.warc.gz" if packed else "a.warc")
    path.write_bytes(b"".join(records))
    found = items(path, "warc")
    assert all(isinstance(item, Document | Problem | Skipped) for item in found)
    if packed:  # else a length that is another one may reach over the next records, and nothing tells
        assert {n for n in range(6) if n not in broken} <= set(pages(found))


def test_a_detail_shows_no_control_characters():
    assert Problem(1, "damaged_file", "\x1b[2J\x00 ışık").detail == r"\x1b[2J\x00 ışık"


@pytest.mark.parametrize(("ending", "pack"), PACKERS)
@pytest.mark.parametrize("broken", [0, 3, 7])
def test_one_broken_member_costs_its_own_lines(tmp_path, ending, pack, broken):
    members = [pack(lines(100 * n, 100 * n + 100)) for n in range(8)]
    begin = sum(map(len, members[:broken]))
    members[broken] = members[broken][:20] + bytes(40) + members[broken][60:]
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(b"".join(members))
    found = items(path, "jsonl")
    whole = [n for n in range(800) if n // 100 != broken]
    assert set(whole) <= set(numbers(found)) and len(numbers(found)) == len(set(numbers(found)))
    [detail] = damages(found)
    if broken < 7:
        end = begin + len(members[broken])
        assert f"between bytes {begin:,} and {end:,} of the file, reading went on behind it" in detail
    else:
        assert "the file was read up to here" in detail
    assert [item for item in found if isinstance(item, Problem) and item.reason != "damaged_file"] == []


@pytest.mark.parametrize(("ending", "pack"), PACKERS)
def test_what_no_checksum_confirms_is_kept_and_said_to_be_so(tmp_path, ending, pack):
    rng = random.Random(1)
    content = "".join(json.dumps({"text": f"Madde {n}: {rng.randbytes(40).hex()}"}) + "\n" for n in range(4000)).encode()
    packed = bytearray(pack(content))
    packed[-4] ^= 255  # of the length in a gzip file, of the checksum in a zstd one
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(packed)
    found = items(path, "jsonl")
    assert numbers(found)[:50] == list(range(50))
    [detail] = damages(found)
    assert detail.endswith("what was decoded from the damaged part before is kept, though no checksum confirms it")


@pytest.mark.parametrize(("ending", "pack"), PACKERS)
def test_members_that_cut_lines_lose_only_the_cut_ones(tmp_path, ending, pack):
    content = lines(0, 300)
    third = len(content) // 3
    parts = [content[:third], content[third : 2 * third], content[2 * third :]]
    packed = [pack(part) for part in parts]
    packed[1] = packed[1][: len(packed[1]) // 2]  # a torn write, and the next writer appended
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(b"".join(packed))
    found = items(path, "jsonl")
    before, after = parts[0].count(b"\n"), parts[2].count(b"\n")
    assert numbers(found)[:before] == list(range(before)) and numbers(found)[-after + 1 :] == list(range(301 - after, 300))
    assert len(damages(found)) == 1


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(PACKERS), broken=st.sets(st.integers(0, 5), min_size=1, max_size=3))
def test_whatever_is_broken_every_record_of_the_whole_members_is_read(tmp_path_factory, seed, kind, broken):
    ending, pack = kind
    rng = random.Random(seed)
    members = [bytearray(pack(lines(30 * n, 30 * n + 30))) for n in range(6)]
    for member in (members[n] for n in sorted(broken)):
        at = rng.randrange(len(member))
        member[at : at + rng.randrange(1, 30)] = rng.randbytes(rng.randrange(0, 30))
    path = tmp_path_factory.mktemp("broken") / f"a.jsonl{ending}"
    path.write_bytes(b"".join(members))
    found = items(path, "jsonl")
    assert all(isinstance(item, Document | Problem) for item in found)
    texts = {item.text for item in found if isinstance(item, Document)}
    whole = {json.loads(line)["text"] for n in range(6) if n not in broken for line in lines(30 * n, 30 * n + 30).splitlines()}
    assert whole <= texts


@pytest.mark.parametrize(("ending", "pack"), PACKERS)
def test_text_between_blank_lines_goes_on_with_the_next_document(tmp_path, ending, pack):
    members = [pack("".join(f"belge {n}\nsatır\n\n" for n in range(10 * m, 10 * m + 10)).encode()) for m in range(3)]
    members[1] = members[1][:15] + bytes(20) + members[1][35:]
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(b"".join(members))
    found = items(path, "text", options={"documents": "blank_line"})
    texts = [item.text for item in found if isinstance(item, Document)]
    assert texts[:10] == [f"belge {n}\nsatır" for n in range(10)]
    assert texts[-9:] == [f"belge {n}\nsatır" for n in range(21, 30)]  # the first may be the rest of a lost one
    assert len(damages(found)) == 1


def test_row_groups_around_a_broken_one_are_read(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"Madde {n}: " + "x" * 50 for n in range(1000)]})
    pq.write_table(table, path, row_group_size=100, compression="gzip", use_dictionary=False, data_page_size=1 << 20)
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(4).column(0)
        begin, size = column.data_page_offset, column.total_compressed_size
    data = bytearray(path.read_bytes())
    data[begin + size // 2 : begin + size // 2 + 40] = bytes(40)
    path.write_bytes(bytes(data))
    found = items(path, "parquet")
    assert numbers(found) == [*range(400), *range(500, 1000)]
    [problem] = [item for item in found if isinstance(item, Problem)]
    assert (problem.number, problem.reason) == (401, "damaged_file")
    assert "rows 401 to 500 (row group 4) are lost" in problem.detail
    assert [item.metadata["origin"] for item in found if isinstance(item, Document)][400] == f"{path}#501"


def test_a_date_outside_the_calendar_is_one_record_set_aside(tmp_path):
    path = tmp_path / "a.parquet"
    dates = pa.array([0, 2**45, 1], pa.int64()).cast(pa.timestamp("s"))
    pq.write_table(pa.table({"text": ["Madde 0:", "Madde 1:", "Madde 2:"], "date": dates}), path)
    found = items(path, "parquet", keep_fields=("date",))
    assert numbers(found) == [0, 2]
    [problem] = [item for item in found if isinstance(item, Problem)]
    assert (problem.number, problem.reason) == (2, "broken_field") and "field 'date'" in problem.detail


@pytest.mark.parametrize(("value", "said"), [(None, "field 'text' is null"), (b"bytes", "field 'text' holds bytes")])
def test_what_a_field_holds_is_told_as_it_is(tmp_path, value, said):
    path = tmp_path / "a.parquet"
    kind = pa.string() if value is None else pa.binary()
    pq.write_table(pa.table({"text": pa.array([value], kind)}), path)
    [problem] = items(path, "parquet")
    assert problem.detail == said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('no GPU')", "raised RuntimeError: no GPU"),
        ("return None", "returned NoneType, not the page's text"),
    ],
)
def test_a_plug_in_that_fails_sets_the_document_aside(tmp_path, monkeypatch, body, said):
    from PIL import Image

    Image.new("RGB", (60, 40), (200, 10, 10)).save(tmp_path / "scan.pdf")
    name = f"ocr_{'raises' if 'raise' in body else 'returns'}"
    (tmp_path / f"{name}.py").write_text(f"def read_page(image, page, path):\n    {body}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    [problem] = items(tmp_path / "scan.pdf", "pdf", options={"ocr": f"{name}:read_page"})
    assert (problem.number, problem.reason) == (1, "ocr_failed") and said in problem.detail


def test_blank_pages_are_not_counted_as_lost(tmp_path):
    import pypdfium2

    document = pypdfium2.PdfDocument.new()
    document.new_page(200, 200)
    document.save(tmp_path / "blank.pdf")
    found = items(tmp_path / "blank.pdf", "pdf")
    assert [item for item in found if isinstance(item, Skipped)] == []
    assert [item.reason for item in found] == ["empty_text"]


def test_pages_of_errors_are_no_documents(tmp_path):
    import io

    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    page = (
        "<html><body><article>"
        + "<p>Aradığınız sayfa bulunamadı, lütfen yeniden deneyiniz efendim.</p>" * 8
        + "</article></body></html>"
    )
    with open(tmp_path / "a.warc.gz", "wb") as handle:
        writer = WARCWriter(handle, gzip=True)
        for status in ("200 OK", "404 Not Found", "503 Service Unavailable"):
            headers = StatusAndHeaders(status, [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1")
            writer.write_record(
                writer.create_warc_record("https://example.org/", "response", io.BytesIO(page.encode()), http_headers=headers)
            )
    found = items(tmp_path / "a.warc.gz", "warc")
    assert [item.reason for item in found if isinstance(item, Skipped)] == ["http_status", "http_status"]
    assert len(found) == 3
