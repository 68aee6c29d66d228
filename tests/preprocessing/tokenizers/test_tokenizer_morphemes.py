import pytest

from preprocessing.tokenizers.morphemes import Kind, Morphemes


@pytest.fixture(scope="module")
def morphemes():
    return Morphemes()


@pytest.mark.parametrize("word", ["kitap", "karar", "gel", "yaz", "ve", "IŞIK", "ışık", "o"])
def test_a_word_that_is_its_own_lemma_is_a_root(morphemes, word):
    assert morphemes.kind(word, starts_word=True) is Kind.ROOT


@pytest.mark.parametrize("word", ["kitaplar", "kararının", "geldiler", "KİTAPTAN", "evlerimizden"])
def test_an_inflected_word_is_a_word(morphemes, word):
    kind = morphemes.kind(word, starts_word=True)
    assert kind is Kind.WORD and kind.turkish and not kind.pure


@pytest.mark.parametrize("text", ["lar", "ler", "ın", "nin", "mış", "acak", "'de", "’nin", "'ten", "n"])
def test_one_suffix_is_pure_in_any_harmony(morphemes, text):
    kind = morphemes.kind(text, starts_word=False)
    assert kind is Kind.SUFFIX and kind.turkish and kind.pure


@pytest.mark.parametrize("text", ["larımız", "ından", "lerinden", "'sında"])
def test_several_suffixes_are_a_chain(morphemes, text):
    kind = morphemes.kind(text, starts_word=False)
    assert kind is Kind.CHAIN and kind.turkish and not kind.pure


@pytest.mark.parametrize(
    "text", ["hello", "the", "tions", "b", "ş", "xq", "12", ".", "", "'", "a b", "日本", "'kitap", "lar" * 9]
)
def test_what_is_no_turkish(morphemes, text):
    assert morphemes.kind(text, starts_word=False) is Kind.OTHER


def test_a_suffix_cannot_begin_a_word(morphemes):
    assert morphemes.kind("lar", starts_word=True) is Kind.OTHER
