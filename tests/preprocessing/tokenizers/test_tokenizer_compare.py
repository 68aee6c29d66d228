import json
import sys
from pathlib import Path

import pytest
from browser_pages import DESK, check_page, opened
from command_line import mecellem, refusal

from preprocessing.jsonl import read_records
from preprocessing.tokenizer import train_tokenizer, write_tokenizer
from preprocessing.tokenizers.load import load_named
from preprocessing.tokenizers.report import parts, scripts, unreachable

TEXT = [
    "Yargıtay'ın kararına göre davanın İzmir'den Denizli'den Mersin'den gelen dosyası",
    "ışık ve IŞIK, kitap ile kitaplar; İzmir'den Denizli'den Mersin'den Ankara'daki dava",
] * 30


@pytest.fixture
def folder(tmp_path):
    for name, pattern in (("llama", "llama"), ("apostrophe", "apostrophe")):
        (tmp_path / name).mkdir()
        write_tokenizer(train_tokenizer(TEXT, 300, pattern), tmp_path / name, model_max_length=64)
    records = ({"text": text, "source": f"s{number % 2}"} for number, text in enumerate(TEXT))
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return tmp_path


def compare(folder, *flags, tokenizers=("llama", "apostrophe"), out="out"):
    return mecellem(
        "tokenizer", "compare", "--tokenizers", *tokenizers, "--texts", "texts.jsonl", "--out", out, *flags, cwd=folder
    )


def test_the_command_writes_a_table_two_plots_and_the_same_json_again(folder):
    done = compare(folder)
    assert done.returncode == 0, done.stderr
    for words in ("llama", "apostrophe", "tokens a word", "suffix whole", "s0", "s1"):
        assert words in done.stdout
    assert "wrote   out\n" in done.stdout
    assert "exists already: choose another folder or add --replace" in refusal(compare(folder))
    files = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    assert sorted(files) == ["compare.json", "compare.png", "compare.svg"]
    assert files["compare.png"].startswith(b"\x89PNG")
    assert b"tokens a word" in files["compare.svg"]
    llama, apostrophe = json.loads(files["compare.json"])["tokenizers"]
    assert llama["all"]["apostrophe_whole"] < apostrophe["all"]["apostrophe_whole"]
    assert llama["domains"].keys() == {"s0", "s1"}
    assert compare(folder, out="again").returncode == 0
    assert {path.name: path.read_bytes() for path in (folder / "again").iterdir()} == files


def test_the_report_stands_alone(folder):
    done = mecellem("tokenizer", "report", "--tokenizer", "llama", "--texts", "texts.jsonl", "--out", "page.html", cwd=folder)
    assert done.returncode == 0, done.stderr
    page = (folder / "page.html").read_text(encoding="utf-8")
    for words in ("Longest entries", "Never used", "Unreachable", "Several scripts", "<svg", "IŞIK", "[MASK]", "Split("):
        assert words in page
    check_page(folder / "page.html")


def test_no_column_of_the_report_is_cut_off_on_a_desk(folder):
    """With large counts and long names of sources too."""
    page = folder / "page.html"
    names = ("supreme_court_decisions.2024-1", "supreme_court_decisions.2024-2")
    records = [{"text": text * 3000, "source": name} for name, text in zip(names, TEXT[:2], strict=True)]
    (folder / "large.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    done = mecellem("tokenizer", "report", "--tokenizer", "llama", "--texts", "large.jsonl", "--out", page.name, cwd=folder)
    assert done.returncode == 0, done.stderr
    with opened(page, DESK) as tab:
        wide = "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth).length"
        assert tab.evaluate(wide) == 0


def test_bad_input_is_one_sentence_and_leaves_nothing(folder):
    (folder / "empty.jsonl").write_text('{"text": "  "}\n')
    before = sorted(path.name for path in folder.iterdir())
    assert "are both called 'llama'" in refusal(compare(folder, tokenizers=("llama", "llama/tokenizer.json")))
    assert "is not a file: a tokenizer is" in refusal(compare(folder, tokenizers=("llama", "nothing")))
    assert "a number above 0" in refusal(compare(folder, "--sample-bytes", "0"))
    done = mecellem("tokenizer", "compare", "--tokenizers", "llama", "--texts", "empty.jsonl", "--out", "out", cwd=folder)
    assert "no text in it, nothing to measure" in refusal(done)
    (folder / "home").mkdir()
    (folder / "home" / "thesis.txt").write_text("mine")
    assert "holds no compare.json" in refusal(compare(folder, "--replace", out="home"))
    assert sorted(path.name for path in folder.iterdir()) == sorted([*before, "home"])


def test_training_on_a_sample_says_so_and_is_remembered(folder):
    flags = ["--corpus", "texts.jsonl", "--vocab-size", "300", "--pre-tokenizer", "apostrophe", "--out", "trained"]
    sample = ["--sample-bytes", "2000", "--sample-weights", "s0", "3"]
    first = mecellem("tokenizer", "train", *flags, *sample, cwd=folder)
    assert first.returncode == 0, first.stderr
    assert "sample: s0" in first.stdout
    record = json.loads((folder / "trained" / "training.json").read_text())
    assert (record["pre_tokenizer"], record["sample"]) == ("apostrophe", {"s0": 1500, "s1": 500})
    assert "nothing to do" in mecellem("tokenizer", "train", *flags, *sample, cwd=folder).stdout
    assert "exists already" in refusal(mecellem("tokenizer", "train", *flags, cwd=folder))
    assert "give --sample-bytes as well" in refusal(mecellem("tokenizer", "train", *flags, *sample[2:], cwd=folder))


def test_unreachable_entries_are_found(folder):
    path = folder / "llama" / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"]["vocab"] |= {"kitapzzz": 300, "ĠaĠb": 301}
    path.write_text(json.dumps(content), encoding="utf-8")
    loaded = load_named("llama", path)
    assert [entry.piece for entry in unreachable(loaded)] == ["kitapzzz", "ĠaĠb"]
    assert parts(loaded.settings)["model"][0].startswith("BPE, 302 entries")


@pytest.mark.parametrize(
    ("text", "found"),
    [("kitap", {"LATIN"}), ("kитап", {"LATIN", "CYRILLIC"}), ("日本カナ", {"CJK"}), ("12 .,", set()), ("şğİ", {"LATIN"})],
)
def test_scripts_of_a_text(text, found):
    assert scripts(text) == found


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The files of the four tokenizers that benchmarks/tokenizer_patterns.py measures, by name."""
    folder = tmp_path_factory.mktemp("published")
    sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))
    try:
        from published_tokenizers import PUBLISHED, fetch_tokenizer
    finally:
        sys.path.pop(0)
    return {name: fetch_tokenizer(name, folder) for name in PUBLISHED}


# All 389 cleaned speeches of the sample: entries, tokens a word (words split at white space), the share of suffixes behind
# an apostrophe that are one token, as docs/decisions/0017 has it.
ON_SPEECHES = {
    "Qwen3": (151_643, 2.719, 0.59),
    "Llama 3": (128_256, 2.332, 0.85),
    "Gemma 3": (262_145, 2.294, 0.93),
    "XLM-R": (250_002, 2.072, 0.98),
}


@pytest.mark.slow
def test_published_tokenizers_on_real_speeches(published, sample_corpus, tmp_path):
    with open(tmp_path / "speeches.jsonl", "w", encoding="utf-8") as handle:
        for split in ("train", "validation", "test"):
            for record in read_records(sample_corpus / f"{split}.jsonl.zst"):
                if record.source == "ataturk":
                    handle.write(json.dumps({"text": record.text, "source": record.source}) + "\n")
    named = [f"{name}={path}" for name, path in published.items()]
    arguments = ["--tokenizers", *named, "--texts", "speeches.jsonl", "--out", "out"]
    done = mecellem("tokenizer", "compare", *arguments, cwd=tmp_path, timeout=580)
    assert done.returncode == 0, done.stderr
    compared = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))["tokenizers"]
    assert [item["name"] for item in compared] == list(ON_SPEECHES)
    for item, (entries, tokens_per_word, suffix_whole) in zip(compared, ON_SPEECHES.values(), strict=True):
        assert item["vocabulary"]["entries"] == entries
        assert item["all"]["tokens_per_word"] == pytest.approx(tokens_per_word, abs=0.005), item["name"]
        assert item["all"]["apostrophe_whole"] == pytest.approx(suffix_whole, abs=0.006), item["name"]
    qwen, *_, xlm_r = compared
    assert qwen["all"]["exact_documents"] == 1.0  # byte-level loses nothing; XLM-R folds white space and characters
    assert xlm_r["all"]["exact_documents"] < 0.9
    assert xlm_r["all"]["turkish_share_of_unique"] > qwen["all"]["turkish_share_of_unique"]
