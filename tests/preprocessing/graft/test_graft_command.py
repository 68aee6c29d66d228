"""The command as users run it: the folder, its figures, the same bytes again, and every refusal."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from graft_teachers import ENGLISH, MAKERS, TURKISH
from transformers import AutoTokenizer

from mecellem.errors import UserError
from preprocessing.graft import main

ROOT = Path(__file__).resolve().parents[3]


def write(path, rows):
    path.write_text("".join(json.dumps({"text": text, "source": source}) + "\n" for source, text in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    rows = [("help", text) for text in ENGLISH * 6] + [("laws", text) for text in TURKISH * 8]
    made = {kind: make(folder / kind) for kind, make in MAKERS.items()}
    made["corpus"] = write(folder / "corpus.jsonl", rows)
    made["test"] = write(folder / "test.jsonl", [("laws", TURKISH[3]), ("other", " ".join(ENGLISH))])
    return made


def graft(*arguments):
    return main(list(map(str, arguments)))


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_a_folder_that_transformers_loads(files, tmp_path, kind, capsys):
    size = {"unigram": 230, "byte-level": 450, "byte-fallback": 540}[kind]
    out = tmp_path / "out"
    graft("--teacher", files[kind], "--corpus", files["corpus"], "--test", files["test"], "--size", size, "--out", out)
    loaded, teacher = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(files[kind])
    assert len(loaded) == size and sorted(loaded.get_vocab().values()) == list(range(size))
    record = json.loads((out / "graft.json").read_text(encoding="utf-8"))
    for role, token in record["roles"].items():
        assert getattr(loaded, f"{role}_token") == token == getattr(teacher, f"{role}_token")
        assert getattr(loaded, f"{role}_token_id") == loaded.convert_tokens_to_ids(token) < size
    assert loaded.model_max_length == 512
    text = TURKISH[3]
    expected = teacher.convert_ids_to_tokens(teacher(text)["input_ids"])[0]
    assert loaded.convert_ids_to_tokens(loaded(text)["input_ids"])[0].startswith(expected[:1])
    assert loaded.decode(loaded(text)["input_ids"], skip_special_tokens=True).strip() == text
    counts, turkish = record["counts"], record["languages"]["tr"]
    assert counts["special"] + counts["kept"] + counts["learned"] == record["size"] == size
    assert record["teacher"]["tokenizer_sha256"] == sha256(files[kind] / "tokenizer.json")
    assert record["tokenizer_sha256"] == sha256(out / "tokenizer.json")
    assert turkish["target"] and turkish["share"] == 0.75 and not record["languages"]["en"]["target"]
    assert turkish["sources"]["laws"]["after"]["tokens"] == len(loaded(text, add_special_tokens=False)["input_ids"])
    assert turkish["after"]["tokens_per_word"] < turkish["before"]["tokens_per_word"]
    assert list(record["languages"]["en"]["sources"]) == ["other"]  # told by its text
    printed = capsys.readouterr().out
    assert "every entry can be reached" in printed and f"{counts['learned']:,} learned" in printed


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["unigram", "byte-level"])
def test_the_same_bytes_for_any_number_of_threads(files, tmp_path, kind):
    hashes = []
    for threads in ("1", "3"):
        out = tmp_path / threads
        words = [
            "--teacher",
            files[kind],
            "--corpus",
            files["corpus"],
            "--size",
            430 if kind == "byte-level" else 220,
            "--out",
            out,
        ]
        program = "import sys; from preprocessing.graft import main; main(sys.argv[1:])"
        env = {**os.environ, "RAYON_NUM_THREADS": threads, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        command = [sys.executable, "-c", program, *map(str, words)]
        subprocess.run(command, check=True, capture_output=True, timeout=120, cwd=ROOT, env=env)
        hashes.append([sha256(path) for path in sorted(out.iterdir())])
    assert hashes[0] == hashes[1]


def test_a_corpus_folder_a_text_file_and_a_file_of_languages(files, tmp_path, capsys):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write(corpus / "train.jsonl", [("laws", text) for text in TURKISH * 5] + [("left out", "x y z")])
    write(corpus / "test.jsonl", [("laws", text) for text in TURKISH])
    (tmp_path / "english.txt").write_text("\n".join(ENGLISH * 5), encoding="utf-8")
    settings = tmp_path / "langs.yaml"
    settings.write_text(
        "languages:\n  tr: {target: true, texts: [laws], share: 0.6}\n  en: {texts: [english.txt]}\n", encoding="utf-8"
    )
    out = tmp_path / "out"
    graft("--teacher", files["unigram"], "--corpus", corpus, "--size", 220, "--languages", settings, "--out", out)
    assert f"note    left out, as {settings} gives them no language: left out" in " ".join(capsys.readouterr().out.split("\n"))
    found = json.loads((out / "graft.json").read_text(encoding="utf-8"))["languages"]
    assert found["tr"]["held_out_texts"] == len(TURKISH) and found["tr"]["share"] == 0.6
    assert found["en"]["held_out_texts"] == 1 and found["en"]["share"] == 0.4  # every 20th of 25 lines


REFUSALS = {
    "a corpus without the target": (
        ["--target", "fi"],
        r"--target fi: no source of the corpus is in that language \(help is in en",
    ),
    "an unknown target": (["--target", "klingon"], r"--target klingon: .*py3langid has no klingon"),
    "too small": (["--size", "30"], r"--size 30: at least \d+ entries are needed"),
    "no size": (["--size", "0"], "--size 0: a number of entries is needed"),
    "no sample": (["--sample-bytes", "0"], "--sample-bytes 0: a number above 0"),
    "no corpus": (["--corpus", "nowhere.jsonl"], r"nowhere.jsonl, given by --corpus, is not a file"),
    "no test": (["--test", "nowhere.jsonl"], r"nowhere.jsonl, given by --test, is not a file"),
    "a teacher that is not there": (["--teacher", "./nowhere"], "--teacher: ./nowhere is not there"),
}


@pytest.mark.parametrize("what", sorted(REFUSALS))
def test_refusals(files, tmp_path, what):
    extra, sentence = REFUSALS[what]
    given = {"--teacher": files["unigram"], "--corpus": files["corpus"], "--size": 220, "--out": tmp_path / "out"}
    given |= dict(zip(extra[::2], extra[1::2], strict=True))
    with pytest.raises(UserError, match=sentence):
        graft(*(word for pair in given.items() for word in pair))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["byte-level", "byte-fallback"])
def test_a_size_below_the_bytes_is_refused_before_any_text_is_read(files, tmp_path, kind):
    corpus = tmp_path / "damaged.jsonl"
    corpus.write_text("no JSON\n", encoding="utf-8")
    with pytest.raises(
        UserError, match=r"--size 100: at least \d+ entries are needed, \d special tokens and 256 single bytes: ask"
    ):
        graft("--teacher", files[kind], "--corpus", corpus, "--size", 100, "--out", tmp_path / "out")
    assert list(tmp_path.iterdir()) == [corpus]


def test_a_folder_that_is_there_and_an_empty_text_are_refused(files, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").touch()
    empty = write(tmp_path / "empty.jsonl", [("laws", " "), ("laws", "")])
    with pytest.raises(UserError, match="out exists already: choose another folder"):
        graft("--teacher", files["unigram"], "--corpus", files["corpus"], "--out", out)
    with pytest.raises(UserError, match=r"--corpus: .*empty.jsonl has no text"):
        graft("--teacher", files["unigram"], "--corpus", empty, "--out", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.jsonl", "out"]


YAML = {
    "languages:\n  tr: {texts: [laws], targets: true}\n": r"line 2: unknown key `languages.tr.targets`: did you mean",
    "languages:\n  tr: {texts: [laws]}\n": "no language has `target: true`",
    "languages:\n  tr: {texts: [lawz], target: true}\n": r"'lawz' is neither a source of the corpus \(help, laws\) nor a file",
    "languages:\n  tr: {texts: [help], target: true}\n": "the source help is in en, not in tr",
    "languages:\n  xx: {texts: [laws], target: true}\n": "line 2: .*py3langid has no xx",
    "languages:\n  tr: {texts: [laws], target: true, share: 0.5}\n": "the shares add up to 0.5: make them 1",
    "languages:\n  tr: {texts: [laws], target: true, share: 1.5}\n": "share` is 1.5: it must be less than or equal to 1",
    "languages:\n  tr: {texts: [laws], target: true, share: 1}\n  en: {texts: [help]}\n": "leave nothing to en",
    "languages:\n  tr: {texts: [laws], target: true}\n  az: {texts: [laws]}\n": "'laws' belongs to tr already",
    "languages:\n  tr: {texts: [empty.jsonl], target: true}\n": "empty.jsonl of tr has no text",
    "languages: [tr]\n": "`languages` is .* it must be a mapping",
    "": "langs.yaml is empty",
}


@pytest.mark.parametrize("text", sorted(YAML))
def test_a_wrong_file_of_languages_is_told_by_line(files, tmp_path, text):
    settings = tmp_path / "langs.yaml"
    settings.write_text(text, encoding="utf-8")
    write(tmp_path / "empty.jsonl", [("laws", "")])
    with pytest.raises(UserError, match=YAML[text]):
        graft(
            *("--teacher", files["unigram"], "--corpus", files["corpus"], "--size", 220),
            *("--languages", settings, "--out", tmp_path / "out"),
        )
    assert not (tmp_path / "out").exists()


def test_texts_in_an_unknown_language_are_taken_where_the_user_says_so(files, tmp_path):
    settings = tmp_path / "langs.yaml"
    settings.write_text("languages:\n  old-turkish: {texts: [laws], target: true, identify: false}\n", encoding="utf-8")
    out = tmp_path / "out"
    graft("--teacher", files["unigram"], "--corpus", files["corpus"], "--size", 220, "--languages", settings, "--out", out)
    assert list(json.loads((out / "graft.json").read_text(encoding="utf-8"))["languages"]) == ["old-turkish"]


def test_texts_without_any_word_are_refused(files, tmp_path):
    """Of more than 128 characters each: nothing would be learned, and the size filled with the teacher's entries."""
    settings = tmp_path / "langs.yaml"
    settings.write_text(
        "languages:\n  tr: {target: true, texts: [long.jsonl], identify: false}\n  en: {texts: [help]}\n", encoding="utf-8"
    )
    write(tmp_path / "long.jsonl", [("long", "a" * 200)] * 40)
    with pytest.raises(UserError, match="tr: its texts have no words of at most 128 characters"):
        graft(
            *("--teacher", files["unigram"], "--corpus", files["corpus"], "--size", 220),
            *("--languages", settings, "--out", tmp_path / "out"),
        )
    assert not (tmp_path / "out").exists()
