import json

import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st

from mecellem.errors import UserError
from preprocessing.pipeline.run import run
from preprocessing.pipeline.status import status
from preprocessing.stages.decontaminate import DecontaminateFilter, DecontaminateSettings, NgramIndex
from preprocessing.turkish import upper

ITEM = (
    "Davacının ıslah dilekçesi ile artırdığı miktar yönünden zamanaşımı def'i süresinde ileri sürülmüş müdür, değerlendiriniz"
)
SHORT = "Türk Medeni Kanunu hangi tarihte yürürlüğe girmiştir acaba"
FILLER = "Burada hiçbir sınamada geçmeyen bir cümle duruyor"
OTHER = " ".join(f"sözcük{number}" for number in range(80))


@pytest.fixture
def sets(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps(record, ensure_ascii=False) for record in ({"query": ITEM}, {"choices": ["x", {"text": SHORT}]})),
        "utf-8",
    )
    (tmp_path / "b.jsonl").write_text(
        json.dumps({"id": OTHER, "text": "kısa olsa da sekiz sözcükten fazlasını bir arada tutan satır"}) + "\n\n", "utf-8"
    )
    return {"hukuk": (tmp_path / "a.jsonl",), "genel": (tmp_path / "b.jsonl",)}


def decontaminate(text, sets, **settings):
    doc = Document(text, "0")
    stage = DecontaminateFilter(DecontaminateSettings(sets=sets, **settings))
    return stage.filter(doc), doc, stage


def test_a_document_that_holds_an_item_is_dropped_and_the_set_is_named(sets):
    verdict, doc, stage = decontaminate(f"Önce başka şeyler. {ITEM}! Sonra.", sets)
    assert verdict == (False, "contaminated")
    assert doc.metadata["contaminated_by"] == ["hukuk"]
    assert stage.stats["contaminated_hukuk"].total == 1
    assert doc.metadata["drop_detail"].startswith('hukuk: "davacının ıslah dilekçesi ile artırdığı miktar')
    assert doc.metadata["drop_detail"].endswith('..."') and len(doc.metadata["drop_detail"]) < 100


def test_every_set_that_is_hit_is_named_with_a_run_of_it(sets):
    _, doc, _ = decontaminate(f"{OTHER} {SHORT}", sets)
    assert doc.metadata["drop_detail"] == (
        'genel: "sözcük0 sözcük1 sözcük2 sözcük3 sözcük4 sözcük5 sözcük6 sözcük7 sözcük8 sözcük9..."; '
        'hukuk: "türk medeni kanunu hangi tarihte yürürlüğe girmiştir acaba"'
    )


def test_documents_shorter_than_any_run_are_kept_and_counted(sets):
    for text, count in (("dört sözcük var burada", 1), (FILLER * 2, 0), ("", 1)):
        verdict, _, stage = decontaminate(text, sets)
        assert verdict is True and stage.stats["too_short_to_judge"].total == count


def test_status_and_page_tell_of_hits_and_of_what_is_too_short(tmp_path, sets, capsys):
    texts = [f"{FILLER} {ITEM}", f"{FILLER} {SHORT} {FILLER}", "kısa", f"{FILLER} ve bir başka cümle"]
    (tmp_path / "laws.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    source = {"name": "laws", "kind": "jsonl", "paths": [str(tmp_path / "laws.jsonl")]}
    named = {name: [str(path) for path in paths] for name, paths in sets.items()}
    content = {"out": str(tmp_path / "out"), "sources": [source], "stages": [{"decontaminate": {"sets": named}}]}
    corpus = tmp_path / "corpus.yaml"
    corpus.write_text(json.dumps(content))
    run(corpus, workers=1)
    capsys.readouterr()
    status(corpus, examples=True)
    shown = capsys.readouterr().out
    assert "noted contaminated_hukuk 2, too_short_to_judge 1" in shown
    assert '(hukuk: "türk medeni kanunu hangi tarihte yürürlüğe girmiştir acaba")' in shown
    page = (tmp_path / "out" / "report.html").read_text()
    row = '<td class="text">noted</td><td class="text">{}</td><td>{}</td>'
    assert row.format("too short to judge", 1) in page and row.format("contaminated hukuk", 2) in page


def test_casing_punctuation_and_line_breaks_hide_nothing(sets):
    hidden = upper(ITEM).replace(" ", " — ").replace("İLERİ", "İLERİ,\n\n").replace("'", "’")
    assert decontaminate(hidden, sets)[0] == (False, "contaminated")


@pytest.mark.parametrize(("length", "found"), [(12, False), (13, True)])
def test_runs_of_thirteen_words_count(sets, length, found):
    run = " ".join(ITEM.replace(",", "").split()[1 : 1 + length])
    assert (decontaminate(f"{OTHER[:40]} {run} bitti", sets)[0] is not True) == found


def test_a_short_item_counts_as_a_whole_from_shortest_words_on(sets):
    assert decontaminate(f"Soru: {SHORT}?", sets)[0] == (False, "contaminated")
    assert decontaminate(" ".join(SHORT.split()[1:]), sets)[0] is True
    assert decontaminate(f"Soru: {SHORT}?", sets, shortest=9)[0] is True


def test_only_the_named_fields_are_read(sets):
    assert decontaminate(OTHER, sets)[0] == (False, "contaminated")
    assert decontaminate(OTHER, sets, fields=("text", "query"))[0] is True


def test_cutting_takes_the_lines_that_hold_the_run_and_no_other(sets):
    text = f"{FILLER}\n{ITEM}\nSon satır burada duruyor"
    verdict, doc, _ = decontaminate(text, sets, action="cut", min_words=5)
    assert verdict is True
    assert doc.text == f"{FILLER}\nSon satır burada duruyor"
    assert decontaminate(text, sets, action="cut")[0] == (False, "contaminated_rest_too_short")
    assert decontaminate(ITEM, sets, action="cut", min_words=0)[0] == (False, "contaminated_rest_too_short")


VOCABULARY = [f"k{number}" for number in range(4)]
TEXTS = st.lists(st.sampled_from(VOCABULARY), max_size=30)


@given(st.lists(TEXTS, min_size=1, max_size=4), TEXTS, st.integers(2, 5), st.integers(1, 5))
def test_hits_are_those_of_a_search_word_by_word(tmp_path_factory, items, text, ngram, shortest):
    path = tmp_path_factory.mktemp("sets") / "a.jsonl"
    path.write_text("".join(json.dumps({"q": " ".join(item)}) + "\n" for item in items), "utf-8")
    runs = set()
    for item in items:
        if len(item) >= min(shortest, ngram):
            length = min(ngram, len(item))
            runs |= {tuple(item[start : start + length]) for start in range(len(item) - length + 1)}
    expected = {start for run in runs for start in range(len(text)) if run == tuple(text[start : start + len(run)])}
    settings = DecontaminateSettings(sets={"a": (path,)}, ngram=ngram, shortest=shortest)
    assert set(NgramIndex(settings).find(text)) == expected


def test_a_set_that_cannot_be_read_is_named_before_any_work(tmp_path, sets):
    with pytest.raises(UserError, match="set 'yok'"):
        DecontaminateFilter(DecontaminateSettings(sets={"yok": (tmp_path / "yok.jsonl",)}))
    (tmp_path / "bad.jsonl").write_text('{"a": "b"}\n[1]\n')
    with pytest.raises(UserError, match=r"bad.jsonl, line 2: an evaluation set has one JSON object a line, not an array"):
        decontaminate("x", {"bad": (tmp_path / "bad.jsonl",)})
    (tmp_path / "bad.jsonl").write_text('{"a": "b"}\n{\n')
    with pytest.raises(UserError, match=r"bad.jsonl, line 2: not JSON"):
        decontaminate("x", {"bad": (tmp_path / "bad.jsonl",)})


@pytest.mark.parametrize(
    ("content", "settings", "sentence"),
    [
        ('{"a": "iki sözcük"}\n', {}, "has no text of at least 8 words, so nothing could be found"),
        ("\n", {}, "is empty: it has no text"),
        (json.dumps({"soru": ITEM}), {"fields": ("question",)}, "has the field question; the fields are soru: set `fields`"),
    ],
)
def test_a_set_that_nothing_could_be_found_of_is_refused(tmp_path, content, settings, sentence):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(UserError, match=sentence):
        decontaminate("x", {"a": (tmp_path / "a.jsonl",)}, **settings)


def test_empty_documents(sets):
    assert decontaminate("", sets)[0] is True
