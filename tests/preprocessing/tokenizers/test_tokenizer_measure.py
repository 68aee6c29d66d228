import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from preprocessing.tokenizers.load import load_named
from preprocessing.tokenizers.measure import casing_probes, domain_of, measure, ratios, total, vocabulary_figures
from preprocessing.tokenizers.morphemes import Kind, Morphemes


def saved(tokenizer, path):
    tokenizer.save(str(path))
    return load_named(path.stem, path)


@pytest.fixture(scope="module")
def morphemes():
    return Morphemes()


@pytest.fixture
def words(tmp_path):
    """Whole words and one suffix; everything else is unknown, which makes every count plain."""
    pieces = ["<unk>", "▁kitap", "lar", "▁Yargıtay", "'ın", "▁evlerden", "▁hello", "▁ev", "'", "de", "▁Ankara'da", "n"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(len(pieces) - len(piece))) for piece in pieces], unk_id=0))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return saved(tokenizer, tmp_path / "words.json")


@pytest.fixture
def characters(tmp_path):
    """Byte-level without merges: a token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return saved(tokenizer, tmp_path / "characters.json")


def test_ratios_of_a_text_that_one_can_count(words, morphemes):
    domain = domain_of("a", ["kitaplar Yargıtay'ın", "hello evlerden qq"])
    figures = ratios(words, measure(words, domain), morphemes)
    # ▁kitap lar ▁Yargıtay 'ın | ▁hello ▁evlerden <unk> (the "▁" of "qq" is unknown too and goes with it)
    assert (figures["words"], figures["tokens"], figures["unique_tokens"]) == (5, 7, 7)
    assert figures["tokens_per_word"] == 7 / 5
    assert figures["vocabulary_used"] == pytest.approx(7 / 12, abs=1e-6)
    assert figures["unknown_share"] == pytest.approx(1 / 7, abs=1e-6)
    # Turkish: kitap, lar, 'ın, evlerden; pure: kitap, lar, 'ın. Yargıtay is a name, hello no Turkish.
    assert figures["turkish_share_of_unique"] == pytest.approx(4 / 7, abs=1e-6)
    assert figures["pure_share_of_unique"] == pytest.approx(3 / 7, abs=1e-6)
    assert figures["exact_documents"] == 0.5
    assert (figures["apostrophe_words"], figures["apostrophe_whole"]) == (1, 1.0)


def test_the_vocabulary_is_counted_as_well(words, morphemes):
    figures = vocabulary_figures(words, morphemes)
    assert figures["entries"] == 12
    assert sum(figures["kinds"].values()) == 12
    assert figures["kinds"][Kind.WORD.value] == 1  # evlerden
    assert figures["turkish_tokens"] == figures["pure_tokens"] + 1


def test_suffixes_whole_crossing_and_cut(words, characters):
    domain = domain_of("a", ["Yargıtay'ın Yargıtay'ın ev'de Ankara'da"])
    found = measure(words, domain).suffixes
    # 'ın whole twice; ' and de are two tokens with all letters of the suffix in one; ▁Ankara'da crosses.
    assert (found.words, found.whole, found.crossing, found.tokens) == (4, 3, 1, 4)
    assert found.examples == {"Ankara'da": ["_Ankara'da"]}
    cut = measure(characters, domain_of("a", ["TBMM’nin"])).suffixes
    assert (cut.whole, cut.crossing, cut.tokens) == (0, 0, 3)


@pytest.mark.parametrize(
    ("text", "count"),
    [("Yargıtay'ın TBMM’nin 2011'de", 3), ("'Merhaba' dedi", 0), ("a'b'c", 0), ("Ankara'ya2 x'", 0), ("", 0)],
)
def test_which_words_have_a_suffix_behind_an_apostrophe(text, count):
    assert domain_of("a", [text]).suffixed.total() == count


def test_bytes_of_characters_are_counted_as_single_bytes(characters, morphemes):
    figures = ratios(characters, measure(characters, domain_of("a", ["aş"])), morphemes)
    assert figures["single_byte_share"] == pytest.approx(2 / 3, abs=1e-6)
    assert (figures["bytes_per_token"], figures["characters_per_token"]) == (1.0, pytest.approx(2 / 3, abs=1e-6))
    assert figures["exact_documents"] == 1.0


def test_capitals_cost_what_their_letters_cost(characters):
    found = measure(characters, domain_of("a", ["iki iki ışık kalem"]))
    # iki -> İKİ: 3 -> 5 bytes; ışık -> IŞIK: 7 -> 5; kalem: 5 -> 5; and a space before each
    assert (found.small, found.capital) == (3 + 7 + 5 + 3, 5 + 5 + 5 + 3)


def test_all_is_the_sum_of_its_parts(characters):
    one, two = domain_of("a", ["Ankara'da bir", "iki"]), domain_of("b", ["üç TBMM’nin"])
    both = total([measure(characters, domain) for domain in (one, two)])
    assert both.tokens == both.bytes == one.bytes + two.bytes
    assert (both.documents, both.words, both.exact, both.suffixes.words) == (3, 5, 3, 2)


def test_casing_probes_tell_what_is_lost(characters, tmp_path):
    assert all(probe["exact"] for probe in casing_probes(characters).values())
    tokenizer = Tokenizer.from_file(str(tmp_path / "characters.json"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex("I"), "ı"), normalizers.Replace("İ", "i")])
    probes = casing_probes(saved(tokenizer, tmp_path / "folding.json"))
    assert not probes["ISTANBUL"]["exact"] and probes["istanbul"]["exact"]
    tokenizer.normalizer = normalizers.Sequence([tokenizer.normalizer, normalizers.Lowercase()])
    probes = casing_probes(saved(tokenizer, tmp_path / "lower.json"))
    assert probes["IŞIK"]["lower_cases"] and not probes["IŞIK"]["exact"]


def test_the_same_text_gives_the_same_figures(words, characters, morphemes):
    texts = ["kitaplar Yargıtay'ın ev'de", "hello evlerden iki ışık"]
    for tokenizer in (words, characters):
        first, second = (ratios(tokenizer, measure(tokenizer, domain_of("a", texts)), morphemes) for _ in range(2))
        assert first == second
