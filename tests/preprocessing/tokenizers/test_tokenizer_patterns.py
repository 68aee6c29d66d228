import pytest
from tokenizers import Regex, pre_tokenizers

from preprocessing.tokenizer import load_tokenizer, train_tokenizer, write_tokenizer
from preprocessing.tokenizers.patterns import PATTERNS

TEXT = [f"İzmir'den Denizli'den Mersin'den 2011'de TBMM’nin {word} kararı" for word in ("dava", "hukuk", "ceza")] * 40


def split(pattern, text):
    pieces = pre_tokenizers.Split(Regex(PATTERNS[pattern]), behavior="isolated").pre_tokenize_str(text)
    return [piece for piece, _ in pieces]


@pytest.mark.parametrize(
    ("word", "llama", "apostrophe"),
    [
        ("Yargıtay'ın", ["Yargıtay", "'ın"], ["Yargıtay", "'ın"]),
        ("İzmir'den", ["İzmir", "'d", "en"], ["İzmir", "'den"]),
        ("2011'de", ["201", "1", "'d", "e"], ["201", "1", "'de"]),
        ("TBMM’si", ["TBMM", "’si"], ["TBMM", "’si"]),
        ("BAKIRKÖY'DE", ["BAKIRKÖY", "'D", "E"], ["BAKIRKÖY", "'DE"]),
        ("'Merhaba'", ["'M", "erhaba", "'"], ["'", "Merhaba", "'"]),
        ("‘söz’", ["‘söz", "’"], ["‘söz", "’"]),
        ("don't", ["don", "'t"], ["don", "'t"]),
        (" 'a' dedi", [" '", "a", "'", " dedi"], [" '", "a", "'", " dedi"]),
    ],
)
def test_what_each_pattern_makes_of_an_apostrophe(word, llama, apostrophe):
    assert (split("llama", word), split("apostrophe", word)) == (llama, apostrophe)


def test_the_apostrophe_pattern_survives_being_saved_and_loaded_by_transformers(tmp_path):
    from transformers import AutoTokenizer

    trained = train_tokenizer(TEXT, 300, "apostrophe")
    write_tokenizer(trained, tmp_path, model_max_length=128)
    text = "İzmir'den 'geldi' TBMM’nin Ankara'daki"
    ids = trained.encode(text, add_special_tokens=False).ids
    assert "'den" in trained.encode(text).tokens
    assert load_tokenizer(tmp_path).tokenizer.encode(text, add_special_tokens=False).ids == ids
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(text, add_special_tokens=False).input_ids == ids
    assert loaded.decode(ids) == text


def test_llama_tears_what_the_apostrophe_pattern_keeps():
    tokens = train_tokenizer(TEXT, 300, "llama").encode("İzmir'den").tokens
    assert "'d" in tokens and "'den" not in tokens
