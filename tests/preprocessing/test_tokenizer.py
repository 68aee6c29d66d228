import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import mecellem, refusal
from hypothesis import example, given
from hypothesis import strategies as st

from mecellem.errors import UserError
from mecellem.files import sha256_of
from preprocessing.tokenizer import SPECIAL_TOKENS, load_tokenizer, train_tokenizer, write_tokenizer

SENTENCES = [
    "Türkiye Büyük Millet Meclisi'nin açılışında yaptığı konuşma.",
    "Yargıtay'ın kararına göre davanın reddine, 2023/1453 sayılı dosyada karar verildi.",
    "IĞDIR, İSTANBUL ve ışık; kitaplarımızdan ikişer üçer...",
]
TEXT = [f"{sentence} {number}" for number in range(60) for sentence in SENTENCES]
WITHOUT_SPECIAL = st.text(st.characters(exclude_categories=["Cs"])).filter(
    lambda text: not any(token in text for token in SPECIAL_TOKENS)
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXT, 400)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(tokenizer, path, model_max_length=1024)
    return path


@given(text=WITHOUT_SPECIAL)
@example("İ i̇ I ı \x00 \u200b \U0001f9ff \r\n\t  'LI ʼ ﷽ e\u0301")
def test_decoding_gives_the_text_back(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert not set(ids) & set(range(5))
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_every_byte_is_an_entry_and_the_size_is_exact(tokenizer):
    from tokenizers.pre_tokenizers import ByteLevel

    vocabulary = tokenizer.get_vocab()
    assert set(ByteLevel.alphabet()) <= set(vocabulary)
    assert sorted(vocabulary.values()) == list(range(400))


def test_special_tokens_have_the_first_ids_and_frame_a_text(tokenizer):
    assert [tokenizer.token_to_id(token) for token in ("[PAD]", "<unk>", "[CLS]", "[SEP]", "[MASK]")] == [0, 1, 2, 3, 4]
    assert tokenizer.encode("a").tokens == ["[CLS]", "a", "[SEP]"]
    assert tokenizer.encode("a", "b").tokens == ["[CLS]", "a", "[SEP]", "b", "[SEP]"]


def test_a_mask_takes_the_space_before_it_and_not_the_one_after(tokenizer):
    ids = tokenizer.encode("a [MASK] b").ids
    assert [tokenizer.id_to_token(token) for token in ids] == ["[CLS]", "a", "[MASK]", "Ġ", "b", "[SEP]"]


def test_merges_do_not_cross_the_pattern(tokenizer):
    for entry in tokenizer.get_vocab():
        assert "Ġ" not in entry[1:] or entry.strip("Ġ") == ""
        assert sum(letter.isdigit() and letter in "0123456789" for letter in entry) <= 3


def test_too_little_text_for_the_size_says_how_many_entries_it_supports():
    with pytest.raises(UserError, match=r"this text supports (\d+) entries") as caught:
        train_tokenizer(["kısa metin kısa metin"], 5000)
    supported = int(str(caught.value).split("supports ")[1].split()[0])
    assert train_tokenizer(["kısa metin kısa metin"], supported).get_vocab_size() == supported


@pytest.mark.parametrize("size", [-1, 0, 260])
def test_a_size_below_the_bytes_is_refused(size):
    with pytest.raises(UserError, match="at least 261"):
        train_tokenizer(TEXT, size)


def test_another_process_trains_the_same_file(folder, tmp_path):
    program = (
        "import sys, pathlib; from preprocessing.tokenizer import *\n"
        "write_tokenizer(train_tokenizer(eval(sys.argv[1]), 400), pathlib.Path(sys.argv[2]), 1024)"
    )
    subprocess.run([sys.executable, "-c", program, repr(TEXT), str(tmp_path)], check=True, timeout=120)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()


def test_transformers_loads_it_with_every_role(folder, tokenizer):
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded.is_fast
    assert len(loaded) == 400
    roles = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")
    ids = dict(zip(roles, (0, 1, 2, 3, 4, 2, 3), strict=True))
    assert {role: getattr(loaded, f"{role}_token_id") for role in roles} == ids
    assert loaded.model_input_names == ["input_ids", "attention_mask"]
    assert loaded.model_max_length == 1024
    assert not loaded.clean_up_tokenization_spaces
    for text in (*SENTENCES, "boşluk , virgül .", "a [MASK] b"):
        assert list(loaded(text)) == ["input_ids", "attention_mask"]
        assert loaded(text).input_ids == tokenizer.encode(text).ids
    assert loaded.decode(loaded("boşluk , virgül .").input_ids, skip_special_tokens=True) == "boşluk , virgül ."


def test_loading_gives_hash_size_and_end_of_document(folder):
    loaded = load_tokenizer(folder)
    assert (loaded.vocab_size, loaded.eod_id) == (400, 3)
    assert loaded.sha256 == sha256_of(folder / "tokenizer.json")


def test_truncation_and_padding_in_the_file_are_switched_off(tokenizer, tmp_path):
    from tokenizers import Tokenizer

    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.enable_truncation(8)
    copy.enable_padding(length=8)
    write_tokenizer(copy, tmp_path, model_max_length=8)
    for text in ("a", SENTENCES[0]):
        ids = load_tokenizer(tmp_path).tokenizer.encode(text).ids
        assert ids == tokenizer.encode(text).ids


def test_a_folder_that_is_no_tokenizer_is_refused(folder, tmp_path):
    def copy(name, **contents):
        target = tmp_path / name
        target.mkdir()
        for file in ("tokenizer.json", "tokenizer_config.json"):
            text = contents.get(file.split(".")[0], (folder / file).read_text(encoding="utf-8"))
            if text is not None:
                (target / file).write_text(text, encoding="utf-8")
        return target

    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    for path, message in [
        (tmp_path / "none", "is not a folder"),
        (copy("empty", tokenizer=None), "tokenizer.json is missing"),
        (copy("no_config", tokenizer_config=None), "tokenizer_config.json is missing"),
        (copy("cut", tokenizer='{"version": "1.0", "mod'), "tokenizer.json is broken"),
        (copy("cut_config", tokenizer_config="{"), "tokenizer_config.json is broken"),
        (copy("list_config", tokenizer_config="[]"), "tokenizer_config.json is broken"),
        (copy("no_eos", tokenizer_config="{}"), "eos_token None"),
        (copy("other_eos", tokenizer_config=json.dumps(config | {"eos_token": "</s>"})), "eos_token '</s>'"),
    ]:
        with pytest.raises(UserError, match=message):
            load_tokenizer(path)
    for eos in ("[CLS]", {"content": "[CLS]", "special": True}):
        path = copy(f"eos{len(str(eos))}", tokenizer_config=json.dumps(config | {"eos_token": eos}))
        assert load_tokenizer(path).eod_id == 2


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXT), encoding="utf-8")
    return path


def train(corpus, out, *flags, size=400, **options):
    return mecellem(
        "tokenizer", "train", "--corpus", corpus, "--vocab-size", size, "--out", out, *flags, cwd=corpus.parent, **options
    )


def test_the_command_trains_measures_and_does_not_train_twice(corpus, tmp_path):
    out = tmp_path / "out"
    first = train(corpus, out, "--held-out", corpus)
    assert first.returncode == 0, first.stderr
    assert "bytes per token" in first.stdout and f"wrote   {out}\n" in first.stdout
    assert load_tokenizer(out).vocab_size == 400
    stamp = (out / "tokenizer.json").stat().st_mtime_ns
    again = train(corpus, out)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout and "wrote" not in again.stdout
    assert (out / "tokenizer.json").stat().st_mtime_ns == stamp

    assert "exists already: choose another folder or add --replace" in refusal(train(corpus, out, size=350))
    assert load_tokenizer(out).vocab_size == 400
    assert train(corpus, out, "--replace", size=350).returncode == 0
    assert load_tokenizer(out).vocab_size == 350


def test_a_length_that_no_model_has_is_refused(corpus, tmp_path):
    for length in ("-5", "0"):
        said = refusal(train(corpus, tmp_path / "out", "--model-max-length", length))
        assert f"--model-max-length {length}: at least 1 token is needed" in said
    assert not (tmp_path / "out").exists()


def test_replace_never_removes_what_is_not_a_tokenizer(corpus, tmp_path):
    out = tmp_path / "home"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    assert "holds no tokenizer.json" in refusal(train(corpus, out, "--replace"))
    assert (out / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no text in it"),
        (b'{"text": ""}\n', "no text in it"),
        (b'{"text": "a"}\n{"text": "\xff"}\n', "line 2: not UTF-8"),
        (b'{"text": "a"}\n', "supports"),
    ],
)
def test_the_command_refuses_bad_text_and_leaves_nothing(corpus, tmp_path, content, message):
    corpus.write_bytes(content)
    assert message in refusal(train(corpus, tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_a_full_disk_leaves_nothing(corpus, tmp_path):
    assert "the disk is full" in refusal(train(corpus, tmp_path / "out", file_size_limit=4096))
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_another_entry_may_end_documents(sample_tokenizer: Path):
    loaded = load_tokenizer(sample_tokenizer)
    other = load_tokenizer(sample_tokenizer, eod="[CLS]")
    assert other.eod_id == loaded.tokenizer.token_to_id("[CLS]") != loaded.eod_id
    with pytest.raises(UserError, match=r"--eod: '<\|nothing\|>' is not an entry"):
        load_tokenizer(sample_tokenizer, eod="<|nothing|>")
