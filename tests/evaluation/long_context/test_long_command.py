"""The command: an encoder and a masked language model, lengths beyond the context, files, cache, refusals."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from browser_pages import check_page
from long_documents import long_documents, write_documents, write_masked_lm
from rich.console import Console

from evaluation.encoders import EncoderSettings
from evaluation.long_context import main
from evaluation.long_context.measure import measure_models
from evaluation.long_context.results import LongContextResults
from evaluation.long_context.settings import LongContextSettings
from evaluation.long_context.tables import print_results
from evaluation.report import main as report
from mecellem.errors import UserError

SETTINGS = LongContextSettings(lengths=(160, 320, 480, 1024), depths=(0, 100), candidates=4, documents=3, pieces=4)
FLAGS = [
    *("--lengths", "160", "320", "480", "1024", "--depths", "0", "100", "--candidates", "4", "--documents", "3"),
    *("--pieces", "4", "--device", "cpu"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 512 positions, and documents that have enough for the shorter lengths."""
    folder = tmp_path_factory.mktemp("long")
    write_masked_lm(folder / "lm")
    write_documents(folder / "t.jsonl", long_documents(4, 80))
    needles = [{"text": f"Anahtar {word}.", "query": f"{word}?"} for word in ("mavi", "kızıl", "ılık", "demir", "cam")]
    (folder / "n.jsonl").write_text("".join(json.dumps(needle) + "\n" for needle in needles), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def measured(place: Path) -> Path:
    """As a masked language model and, under another name, as an encoder; both through the command line."""
    common = [
        "--texts",
        str(place / "t.jsonl"),
        "--device",
        "cpu",
        *FLAGS,
        "--pieces",
        "4",
        "--needles",
        str(place / "n.jsonl"),
    ]
    assert main([str(place / "lm"), *common, "--out", str(place / "lm.json")]) == 0
    assert main([f"mean={place / 'lm'}", *common, "--role", "encoder", "--out", str(place / "enc.json")]) == 0
    return place


def read(path: Path) -> LongContextResults:
    return LongContextResults.model_validate_json(path.read_bytes())


def test_an_encoders_figures(measured: Path):
    results = read(measured / "enc.json")
    (model,) = results.models
    assert (model.name, model.role, model.context, model.masking) == ("mean", "encoder", 512, [])
    assert [(cell.length, cell.depth) for cell in model.needle] == [(n, d) for n in (160, 320, 480) for d in (0, 100)]
    assert {cell.candidates for cell in model.needle} == {4} and all(0 <= cell.accuracy.value <= 1 for cell in model.needle)
    assert [curve.length for curve in model.positions] == [160, 320, 480]
    assert all(len(curve.relative) == 4 and 2 <= curve.documents <= 3 for curve in model.positions)
    assert [(item.length, "beyond the model's context of 512" in item.reason) for item in model.skipped] == [(1024, True)]
    assert "mean" in model.reads and results.documents == 4


def test_a_masked_language_models_figures(measured: Path):
    (model,) = read(measured / "lm.json").models
    assert (model.name, model.role, model.context, model.needle) == ("lm", "masked-lm", 512, [])
    assert [curve.length for curve in model.masking] == [160, 320, 480] and [item.length for item in model.skipped] == [1024]
    assert len({curve.tokens for curve in model.masking}) == 1  # the same tokens at every length
    assert model.masking[0].against_short is None
    for curve in model.masking[1:]:
        assert curve.against_short.value == pytest.approx(curve.nll.value - model.masking[0].nll.value)
        assert sum(bucket.tokens for bucket in curve.buckets) == curve.tokens


def test_pictures_with_their_data(measured: Path):
    for out, names in (("enc", ("needle", "places")), ("lm", ("masks",))):
        assert sorted(path.name for path in measured.glob(f"{out}.*.png")) == [f"{out}.{name}.png" for name in names]
        for name in names:
            assert (measured / f"{out}.{name}.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((measured / "enc.needle.csv").read_text(encoding="utf-8").splitlines()))
    found = {(row["x"], row["y"]): row["value"] for row in rows}
    for cell in read(measured / "enc.json").models[0].needle:
        assert float(found[f"{cell.length:,}", f"{cell.depth:g}%"]) == pytest.approx(100 * cell.accuracy.value)
    assert found["1,024", "0%"] == ""  # not measured
    rows = list(csv.DictReader((measured / "enc.places.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["series"] for row in rows} == {"160 tokens", "320 tokens", "480 tokens"} and all(row["low"] for row in rows)


@pytest.mark.parametrize(("name", "words"), [("lm", "hidden tokens"), ("enc", "needle found")])
def test_the_page_has_the_tables_of_a_role(measured: Path, tmp_path: Path, name: str, words: str):
    assert report([str(measured / f"{name}.json"), "--out", str(tmp_path / "page.html")]) == 0
    check_page(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert words in page and "tokens not measured" in page and "<figure>" in page


def test_tables_are_whole_in_80_columns(measured: Path):
    for name in ("enc", "lm"):
        stream = io.StringIO()
        print_results(Console(file=stream, width=80), read(measured / f"{name}.json"))
        text = stream.getvalue()
        assert "…" not in text and max(map(len, text.splitlines())) <= 80
        assert "1,024 tokens not measured, beyond the model's context of 512 tokens" in " ".join(text.split())


def measure(place: Path, tmp_path: Path, *specs: str, settings: LongContextSettings = SETTINGS, **keywords):
    work = (tmp_path / "o.json", tmp_path / "cache", settings)
    keywords = {"needles": [place / "n.jsonl"]} | keywords
    return measure_models(specs or (str(place / "lm"),), [place / "t.jsonl"], *work, device="cpu", **keywords)


def test_no_length_is_measured_twice(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = measure(place, tmp_path)
    kept = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert len(kept) == 3
    import evaluation.long_context.measure as room

    monkeypatch.setattr(room, "load_model", lambda *_: pytest.fail("the model was loaded again"))
    assert measure(place, tmp_path) == first
    encoder = replace(SETTINGS, role="encoder")
    second = measure(place, tmp_path, settings=encoder)
    monkeypatch.setattr(room.needle, "measure_length", lambda *_: pytest.fail("measured again"))
    next((tmp_path / "cache").glob("places-*")).unlink()  # as an interruption leaves it
    again = measure(place, tmp_path, settings=encoder)
    assert again.models[0].needle == second.models[0].needle
    assert [curve.similarity for curve in again.models[0].positions] == [
        curve.similarity for curve in second.models[0].positions
    ]


def test_too_little_text_is_marked_and_nothing_at_all_is_refused(place: Path, tmp_path: Path):
    few = write_documents(tmp_path / "few.jsonl", long_documents(2, 5))
    settings = replace(SETTINGS, lengths=(160, 500), pieces=2)
    work = (tmp_path / "o.json", tmp_path / "cache")
    keywords = {"device": "cpu", "needles": [place / "n.jsonl"]}
    for role in ("masked-lm", "encoder"):
        given = replace(settings, role=role)
        results = measure_models([str(place / "lm")], [few], *work, given, **keywords)
        assert [(item.length, "too few documents" in item.reason) for item in results.models[0].skipped] == [(500, True)]
        work[0].unlink()
        for lengths, message in (((500,), "too few documents"), ((1024,), "beyond the model's context")):
            with pytest.raises(UserError, match=f"nothing can be measured.*{message}"):
                measure_models([str(place / "lm")], [few], *work, replace(given, lengths=lengths), **keywords)
            assert not work[0].exists()


def test_a_length_too_short_for_the_pieces_is_marked(place: Path, tmp_path: Path):
    settings = replace(SETTINGS, role="encoder", lengths=(160, 480), pieces=10)
    (model,) = measure(place, tmp_path, settings=settings).models
    assert {cell.length for cell in model.needle} == {160, 480} and [curve.length for curve in model.positions] == [480]
    assert [(item.length, item.reason) for item in model.skipped] == [(160, "by place: too short for 10 pieces")]


def test_the_encoders_limit_is_a_context(place: Path, tmp_path: Path):
    settings = replace(SETTINGS, role="encoder", lengths=(160, 320))
    (model,) = measure(place, tmp_path, settings=settings, encoder=EncoderSettings(max_seq_length=200)).models
    assert model.context == 200 and {cell.length for cell in model.needle} == {160} and model.skipped[0].length == 320


def test_bad_input_is_refused_before_any_work(place: Path, tmp_path: Path):
    def refused(message: str, *specs: str, **keywords) -> None:
        with pytest.raises(UserError, match=message):
            measure(place, tmp_path, *specs, **keywords)
        assert not (tmp_path / "o.json").exists() and not (tmp_path / "cache").exists()

    refused("neither a folder nor", str(tmp_path / "none"))
    refused("bm25 has no context length", "bm25")
    refused("no folder of a masked language model", "akana", settings=replace(SETTINGS, role="masked-lm"))
    refused("need 40 needles, there are 24", settings=replace(SETTINGS, role="encoder", candidates=20, rounds=2), needles=[])
    refused("--needles", needles=[tmp_path / "no.jsonl"])
    shutil.copytree(place / "lm", tmp_path / "cut")
    (tmp_path / "cut" / "tokenizer.json").unlink()
    refused("tokenizer", str(tmp_path / "cut"))
    with pytest.raises(UserError, match="no model was given"):
        measure_models([], [place / "t.jsonl"], tmp_path / "o.json", tmp_path / "cache", SETTINGS)
    with pytest.raises(UserError, match="not a file"):
        measure_models([str(place / "lm")], [tmp_path / "no.jsonl"], tmp_path / "o.json", tmp_path / "cache", SETTINGS)


def test_a_checkpoint_is_exported_and_has_its_origins_curves(place: Path, tmp_path: Path):
    from conversion.hf_import import import_folder

    import_folder(place / "lm", tmp_path / "run" / "checkpoints" / "step_0000000")
    settings = replace(SETTINGS, lengths=(160, 320))
    both = (str(place / "lm"), str(tmp_path / "run" / "checkpoints" / "step_0000000"))
    ours, theirs = measure(place, tmp_path, *both, settings=settings).models
    assert theirs.role == "masked-lm" and len(list((tmp_path / "cache").glob("export-*"))) == 1
    assert theirs.masking[1].nll.value == pytest.approx(ours.masking[1].nll.value, rel=1e-4)
