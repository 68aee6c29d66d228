"""What the same command does again after a change, and what it leaves as it is."""

import json
from pathlib import Path

import pytest
from pipeline_runs import documents, jsonl_source, outputs, sentences, set_aside, write_corpus, write_jsonl

from mecellem.errors import UserError
from preprocessing.pipeline import steps
from preprocessing.pipeline.run import run


def change(corpus, old, new):
    text = corpus.read_text()
    assert old in text
    corpus.write_text(text.replace(old, new))


def said(corpus, capsys):
    capsys.readouterr()
    run(corpus, workers=1)
    return capsys.readouterr().out


def test_the_cache_of_morphology_is_no_reason_to_do_it_again(tmp_path, capsys):
    """Neither what the stage writes there, nor another folder, nor none."""
    path = write_jsonl(tmp_path / "laws.jsonl", [sentences(n, 60) for n in range(4)])
    cache = tmp_path / "cache"
    stages = [{"morphology": {"analyser": "zeyrek", "cache": str(cache)}}]
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], stages)
    run(corpus, workers=1)
    assert [item for item in cache.rglob("*") if item.is_file()]
    for _ in range(2):
        again = said(corpus, capsys)
        assert "morphology       done already" in again and "removed" not in again
        if "other" not in corpus.read_text():
            change(corpus, f"cache: {cache}", f"cache: {tmp_path / 'other'}")
    change(corpus, "analyser: zeyrek", "analyser: akana")
    assert "the settings of morphology changed (analyser): removed 01_morphology" in said(corpus, capsys)


def test_two_sources_may_have_the_same_ids(tmp_path):
    paths = []
    for name in ("first", "second"):
        paths.append(tmp_path / f"{name}.jsonl")
        records = [{"key": n, "text": f"{name} {sentences(n)}"} for n in [*range(20), 3]]
        paths[-1].write_text("".join(json.dumps(record) + "\n" for record in records))
    names = ("first", "second")
    sources = [
        jsonl_source(path, name=name, id_field="key", limits={"share": 0.1}) for path, name in zip(paths, names, strict=True)
    ]
    corpus = write_corpus(tmp_path / "corpus.yaml", sources, shard_size="1KB")
    run(corpus, workers=1)
    folder = tmp_path / "out" / "stages" / "00_read"
    assert [(item["source"], item["id"]) for item in documents(folder)] == [(name, str(n)) for name in names for n in range(20)]
    assert [(item["source"], item["line"], item["reason"]) for item in set_aside(folder)] == [
        (name, 21, "duplicate_id") for name in names
    ]


@pytest.mark.parametrize("where", ["limits", "source"])
def test_another_record_size_is_named_as_what_changed(tmp_path, capsys, where):
    path = write_jsonl(tmp_path / "laws.jsonl", map(sentences, range(5)))
    limits = {"share": 1.0, "record_size": 4000}
    source = jsonl_source(path, **({"limits": limits} if where == "source" else {}))
    settings = {"limits": limits} if where == "limits" else {}
    corpus = write_corpus(tmp_path / "corpus.yaml", [source], **settings)
    run(corpus, workers=1)
    change(corpus, "record_size: 4000", "record_size: 100")
    assert "the settings of read changed (record_size): removed 00_read" in said(corpus, capsys)
    assert not documents(tmp_path / "out" / "stages" / "00_read")


@pytest.mark.parametrize("installed", [True, False])
def test_a_missing_tesseract_is_told_of_at_the_start(tmp_path, capsys, monkeypatch, installed):
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    from preprocessing.sources import pdf

    page = Figure(figsize=(5, 2))
    page.text(0.1, 0.5, "Mahkeme davanın kabulüne karar verdi.")
    with PdfPages(tmp_path / "a.pdf") as pages:
        pages.savefig(page)
    monkeypatch.setattr(pdf.shutil, "which", lambda _: "/usr/bin/tesseract" if installed else None)
    monkeypatch.setattr(pdf, "ocr_function", lambda *_: None)  # the page has text: none is asked
    source = {"name": "scans", "kind": "pdf", "paths": [str(tmp_path / "a.pdf")]}
    corpus = write_corpus(tmp_path / "corpus.yaml", [source])
    out = said(corpus, capsys)
    assert ("note    source scans: tesseract is not installed" in out) is not installed
    if not installed:
        assert out.index("tesseract is not installed") < out.index("plan    1 tasks")
    change(corpus, "kind: pdf", "kind: pdf\n  pdf: {ocr: none}")
    assert "tesseract is not" not in said(corpus, capsys)


class KilledError(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_a_complete_stage_is_tidied_the_next_run_goes_on(tmp_path, monkeypatch, when):
    path = tmp_path / "laws.jsonl"
    path.write_text("".join(json.dumps({"key": n % 18, "text": sentences(n)}) + "\n" for n in range(20)))
    source = jsonl_source(path, id_field="key", limits={"share": 0.5})
    corpus = write_corpus(tmp_path / "corpus.yaml", [source], [{"exact_dedup": {}}], shard_size="1KB")
    run(corpus, workers=1)
    undisturbed = outputs(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "undisturbed")
    remove = steps.shutil.rmtree

    def killed(folder, **settings):
        if Path(folder).name != "work" or when == "after":
            remove(folder, **settings)
        if Path(folder).name == "work":
            raise KilledError

    monkeypatch.setattr(steps.shutil, "rmtree", killed)
    with pytest.raises(KilledError):
        run(corpus, workers=1)
    monkeypatch.undo()
    run(corpus, workers=1)
    assert outputs(tmp_path / "out") == undisturbed


@pytest.mark.parametrize("place", ["00_read", "99_mine"])
def test_files_that_no_run_has_written_are_not_removed(tmp_path, place):
    path = write_jsonl(tmp_path / "laws.jsonl", map(sentences, range(5)))
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], [])
    mine = corpus.parent / "out" / "stages" / place / "thesis.tex"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex was not written by .* set another out"):
        run(corpus, workers=1)
    assert mine.read_text() == "years of work"
    mine.unlink()
    run(corpus, workers=1)
    assert len(documents(corpus.parent / "out" / "stages" / "00_read")) == 5
