import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from preprocessing.jsonl import read_records
from preprocessing.tokenizer import load_tokenizer
from preprocessing.tokens import engines, oracle
from preprocessing.tokens.documents import documents_of
from preprocessing.tokens.engines import GigatokenEngine, HuggingFaceEngine, UnsupportedError
from preprocessing.tokens.oracle import Oracle, adversarial_documents
from preprocessing.tokens.tokenize import tokenize_corpus

TEXTS = ["Yargıtay'ın kararı [SEP] bozuldu.", "", "kara kutu kara", "<think>düşün</think> <düşün>", "İstanbul ve ığdır"] * 6


def train_bpe(normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken("[SEP]", special=True, normalized=False)]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return tokenizer


def train_wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["[UNK]", "[SEP]"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def train_unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=80, special_tokens=["<unk>", "[SEP]"], unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def replacing(pattern, content):
    return normalizers.Replace(Regex(pattern), content)


MAKERS = {
    "byte-level BPE": train_bpe,
    "WordPiece": train_wordpiece,
    "Unigram": train_unigram,
    "lower case": lambda: train_bpe(normalizers.Lowercase()),
    "without accents": lambda: train_bpe(normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])),
    "composed": lambda: train_bpe(normalizers.NFC()),
    "replaced": lambda: train_bpe(replacing("ka+ra", "ak")),
}


def save(tokenizer, folder):
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "[SEP]"}))
    return folder


def write_jsonl(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.mark.parametrize("kind", MAKERS)
def test_whatever_the_tokenizer_the_ids_are_those_of_tokenizers(kind, tmp_path):
    folder = save(MAKERS[kind](), tmp_path / "tokenizer")
    source = write_jsonl(tmp_path / "x.jsonl", TEXTS)
    auto = tokenize_corpus([source], folder, tmp_path / "auto" / "x")
    asked = tokenize_corpus([source], folder, tmp_path / "asked" / "x", engine="tokenizers")
    assert auto.files == asked.files
    (engine,) = auto.engines
    assert engine.documents == len(TEXTS)
    if engine.name == "gigatoken":
        assert engine.compared >= 16
        assert engine.adversarial > 100
        assert engine.reason is None
    else:
        assert engine.reason
        assert "\n" not in engine.reason
    assert (asked.engines[0].name, asked.engines[0].reason) == ("tokenizers", "--engine tokenizers")
    if kind == "byte-level BPE":
        assert engine.name == "gigatoken", engine.reason
    if kind in ("WordPiece", "Unigram"):
        assert engine.name == "tokenizers", engine.reason


@pytest.fixture(scope="module")
def both(sample_tokenizer):
    return GigatokenEngine(sample_tokenizer / "tokenizer.json"), HuggingFaceEngine(load_tokenizer(sample_tokenizer).tokenizer)


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=20))
def test_any_text_has_the_same_ids_by_both(both, texts):
    documents = documents_of(texts)
    mine, right = (engine.encode(documents) for engine in both)
    assert [part.tolist() for part in mine] == [part.tolist() for part in right]


def test_a_real_corpus_has_the_same_ids_by_both_whatever_the_batches(sample_tokenizer, sample_corpus, monkeypatch):
    monkeypatch.setattr(engines, "_BATCH_BYTES", 1000)
    monkeypatch.setattr(engines, "_FORGET_AFTER", 1)
    monkeypatch.setattr(engines, "_resident", lambda: None)
    documents = documents_of([record.text for record in read_records(sample_corpus / "validation.jsonl.zst")])
    fast = GigatokenEngine(sample_tokenizer / "tokenizer.json")
    right = HuggingFaceEngine(load_tokenizer(sample_tokenizer).tokenizer).encode(documents)
    for _ in range(2):
        assert all(map(np.array_equal, fast.encode(documents), right))


def test_special_tokens_that_a_text_writes_are_text_and_other_added_tokens_are_found(tmp_path):
    folder = save(train_bpe(), tmp_path / "tokenizer")
    engine = GigatokenEngine(folder / "tokenizer.json")
    loaded = load_tokenizer(folder)
    think = loaded.tokenizer.token_to_id("<think>")
    ids, lengths = engine.encode(documents_of(["[SEP]", "<think>", "x<think>"]))
    assert loaded.eod_id not in ids
    assert lengths[1] == 1
    assert ids[lengths[0]] == ids[-1] == think


class Wrong:
    """gigatoken with an error: the last token of each document that has a word is another one."""

    def __init__(self, engine, word):
        self.engine, self.word = engine, word
        self.name, self.version = engine.name, engine.version

    def encode(self, documents):
        ids, lengths = self.engine.encode(documents)
        ids, ends = ids.copy(), np.cumsum(lengths)
        for number, text in enumerate(documents.texts()):
            if self.word in text:
                ids[ends[number] - 1] ^= 1
        return ids, lengths


def use_wrong_engine(monkeypatch, word):
    monkeypatch.setattr("preprocessing.tokens.write.GigatokenEngine", lambda path: Wrong(GigatokenEngine(path), word))


@pytest.mark.parametrize(
    ("word", "what"), [("karagöz", "document 'karag\\xf6z 5'"), ("muvaffak", "adversarial document 'muvaffakiyet")]
)
def test_a_difference_makes_the_whole_run_fall_back_and_is_recorded(sample_tokenizer, tmp_path, monkeypatch, word, what):
    texts = [f"{'karagöz' if number == 5 else 'hacivat'} {number}" for number in range(3000)]
    source = write_jsonl(tmp_path / "x.jsonl", texts)
    right = tokenize_corpus([source], sample_tokenizer, tmp_path / "right" / "x", engine="tokenizers")
    use_wrong_engine(monkeypatch, word)
    monkeypatch.setattr("preprocessing.tokens.write._BLOCK", 1000)
    fallen = tokenize_corpus([source], sample_tokenizer, tmp_path / "fallen" / "x")
    assert fallen.files == right.files
    (engine,) = fallen.engines
    assert (engine.name, engine.documents, engine.compared) == ("tokenizers", 3000, 0)
    assert what in engine.reason
    assert "by gigatoken" in engine.reason
    assert sorted(path.name for path in (tmp_path / "fallen").iterdir()) == ["x.bin", "x.idx", "x.manifest.json"]


def test_the_beginning_of_a_long_document_is_compared(sample_tokenizer, tmp_path, monkeypatch):
    use_wrong_engine(monkeypatch, "karagöz")
    monkeypatch.setattr(oracle, "_LONGEST", 1000)
    monkeypatch.setattr(oracle, "_WHOLE", 1000)
    source = write_jsonl(tmp_path / "x.jsonl", ["karagöz " + "ş" * 10_000])
    (engine,) = tokenize_corpus([source], sample_tokenizer, tmp_path / "x").engines
    assert engine.reason.startswith("the beginning of a long document, 'karag")


def test_which_documents_are_compared_depends_on_their_numbers_in_their_file_alone(sample_tokenizer, tmp_path, monkeypatch):
    """And so not on the blocks, nor on what stands before the file."""
    sources = [write_jsonl(tmp_path / f"{name}.jsonl", [f"{name} {n}" for n in range(5000)]) for name in "ab"]
    compared = []
    for size in (1 << 20, 3000):
        monkeypatch.setattr("preprocessing.tokens.write._BLOCK", size)
        manifest = tokenize_corpus(sources, sample_tokenizer, tmp_path / str(size))
        compared.append(manifest.engines[0].compared)
    one = tokenize_corpus(sources[1:], sample_tokenizer, tmp_path / "one").engines[0].compared
    assert compared == [2 * one, 2 * one]
    assert 16 + 5000 / 512 / 2 < one < 16 + 5000 / 512 * 2


def test_the_oracle_reads_ids_where_they_lie(sample_tokenizer):
    tokenizer = load_tokenizer(sample_tokenizer).tokenizer
    engine = HuggingFaceEngine(tokenizer)
    documents = documents_of([f"belge {number}" * (number % 3) for number in range(2000)])
    ids, lengths = engine.encode(documents)
    judge = Oracle(tokenizer)
    judge.check_sample(engine, documents, ids, lengths, 0)
    assert judge.difference is None
    chosen = judge.compared
    last = np.flatnonzero(oracle._in_sample(np.arange(2000, dtype=np.uint64)) & (lengths > 0))[-1]
    ids[np.cumsum(lengths)[last] - 1] += 1
    judge.check_sample(engine, documents, ids, lengths, 0)
    assert f"'{documents.text(int(last))}'" in judge.difference
    assert judge.compared == 2 * chosen


def test_the_fixed_list_has_what_it_names():
    texts = adversarial_documents(["[OZEL]"])
    joined = "".join(texts)
    for piece in ("\U0001f600", "u\u0308", "\u200b", "\x00", "[SEP]", "<|endoftext|>", "[OZEL]", "Кириллица", "\u3000"):
        assert piece in joined
    assert "" in texts
    assert max(max(map(len, text.split()), default=0) for text in texts) >= 3000


def test_gigatoken_that_is_missing_is_a_reason(sample_tokenizer, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gigatoken", None)
    with pytest.raises(UnsupportedError, match="gigatoken cannot be imported"):
        GigatokenEngine(sample_tokenizer / "tokenizer.json")


def test_the_first_long_documents_are_compared_from_end_to_end(sample_tokenizer, tmp_path, monkeypatch):
    """The wrong engine errs at a document's last token, which is far behind the beginning that is always compared."""
    use_wrong_engine(monkeypatch, "karagöz")
    monkeypatch.setattr(oracle, "_LONGEST", 1000)
    texts = ["ş" * 3000 + " karagöz", "x " * 5000]
    source = write_jsonl(tmp_path / "x.jsonl", texts)
    monkeypatch.setattr(oracle, "_WHOLE", len(texts[0].encode()))
    (engine,) = tokenize_corpus([source], sample_tokenizer, tmp_path / "x").engines
    assert engine.reason.startswith("document '\\u015f")
    monkeypatch.setattr(oracle, "_WHOLE", len(texts[0].encode()) - 1)
    (engine,) = tokenize_corpus([source], sample_tokenizer, tmp_path / "y").engines
    assert engine.name == "gigatoken"


def test_gigatoken_starts_anew_where_memory_has_grown_and_only_there(sample_tokenizer, monkeypatch):
    engine = GigatokenEngine(sample_tokenizer / "tokenizer.json")
    resident = [100]
    monkeypatch.setattr(engines, "_resident", lambda: resident[0])
    monkeypatch.setattr(engines, "_SETTLED_AFTER", 3)
    monkeypatch.setattr(engines, "_FORGET_AFTER", 6)
    monkeypatch.setattr(engines, "_MAY_GROW", 10)
    documents, first = documents_of(["abc"]), engine._tokenizer
    ids = engine.encode(documents)[0].tolist()
    for resident[0] in (110, 110, 110):
        assert engine.encode(documents)[0].tolist() == ids
        assert engine._tokenizer is first
    resident[0] = 111
    assert engine.encode(documents)[0].tolist() == ids
    second = engine._tokenizer
    assert second is not first
    resident[0] = 130  # grown enough, but not yet after enough text
    engine.encode(documents)
    assert engine._tokenizer is second
    engine.encode(documents)
    assert engine._tokenizer is not second
    resident[0] = None  # a system that does not tell
    for _ in range(2):
        third = engine._tokenizer
        engine.encode(documents)
    assert engine._tokenizer is not third
