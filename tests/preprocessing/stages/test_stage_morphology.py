import numpy as np
import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.bad_text import bare_words, make_bad
from preprocessing.jsonl import read_records
from preprocessing.stages.morphology import WINDOW, MorphologyFilter, MorphologySettings, _distinct, _entropy, _windows

WINDOWS = st.integers(1, 6).flatmap(
    lambda size: st.lists(st.lists(st.integers(0, 3), min_size=size, max_size=size), min_size=1, max_size=5)
)


@given(WINDOWS)
def test_entropy_and_diversity_are_the_textbook_ones(rows):
    windows = np.array(rows, np.int64)
    for row, entropy, distinct in zip(rows, _entropy(windows), _distinct(windows), strict=True):
        shares = np.array([row.count(value) / len(row) for value in set(row)])
        assert entropy == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-9)
        assert distinct == len(set(row))


@given(st.integers(1, 60), st.integers(1, 20))
def test_windows_cover_every_word_and_only_the_last_overlaps(count, window):
    if count < window:
        return
    values = np.arange(count)
    windows = _windows(values, window)
    assert windows.shape == (-(-count // window), window)
    assert set(windows.ravel()) == set(values)
    assert (windows[: count // window].ravel() == values[: count // window * window]).all()


@pytest.fixture(scope="module")
def speeches(sample_corpus):
    """Real text: the sample's speeches, in pieces of 150 words."""
    texts = [record.text for record in read_records(sample_corpus / "test.jsonl.zst") if record.source == "ataturk"]
    words = " ".join(texts).split()
    return [" ".join(words[start : start + 150]) for start in range(0, 60 * 150, 150)]


@pytest.fixture(scope="module")
def stage():
    return MorphologyFilter(MorphologySettings())


def kept(stage, texts):
    return sum(stage.filter(Document(text, "0")) is True for text in texts) / len(texts)


def test_real_turkish_is_kept(stage, speeches):
    assert kept(stage, speeches) >= 0.95


@pytest.mark.parametrize("kind", ["repeated phrase", "keyword list", "English"])
def test_text_that_is_not_inflected_or_repeats_itself_is_dropped(stage, speeches, kind):
    vocabulary = bare_words(speeches, lambda word: (found := stage.lexicon.analyse(word)) is not None and not found.suffixes)
    assert kept(stage, make_bad(kind, speeches, vocabulary)) <= 0.05


def test_each_rule_has_its_reason_and_the_measures_are_left(stage, speeches):
    doc = Document("kalem defter kitap masa " * 40, "0")
    assert MorphologyFilter(MorphologySettings(min_lemma_diversity=0)).filter(doc) == (False, "low_suffix_entropy")
    assert MorphologyFilter(MorphologySettings(min_suffix_entropy=0)).filter(doc) == (False, "low_lemma_diversity")
    assert doc.metadata["measures"] == {
        "suffix_entropy": 0.0,
        "lemma_diversity": pytest.approx(0.08),
        "known_words": 1.0,
        "turkish_letters": 0.0,
    }
    assert stage.filter(Document("xqzw wqxz " * 60, "0")) == (False, "unknown_words")
    off = {"min_lemma_diversity": 0, "min_suffix_entropy": 0, "min_known_words": 0}
    assert MorphologyFilter(MorphologySettings(**off)).filter(doc) == (False, "few_turkish_letters")
    assert MorphologyFilter(MorphologySettings(**off, min_turkish_letters=0)).filter(doc) is True
    assert set(MorphologyFilter.REASONS) == {
        "unknown_words",
        "low_suffix_entropy",
        "low_lemma_diversity",
        "few_turkish_letters",
    }


def test_words_that_are_not_known_say_nothing_about_suffixes(stage, speeches):
    inflected = " ".join(speeches[0].split()[:100])
    terms = "xqzw wqxzq qxw zqxwq wxq " * 10
    alone, among_terms = stage.measure(inflected), stage.measure(f"{inflected} {terms}")
    assert among_terms.suffix_entropy == pytest.approx(alone.suffix_entropy, abs=0.02)
    assert among_terms.known_words < alone.known_words - 0.2


# Each has about 50 words and nothing wrong but terms that no lexicon knows; made up for this test in the manner of abstracts.
SCIENCE = (
    "Hastada diyabetes mellitus, hipertansiyon, kronik obstrüktif akciğer hastalığı, atriyal fibrilasyon ve hiperlipidemi "
    "öyküsü mevcuttu. Ekokardiyografide ejeksiyon fraksiyonu yüzde otuz beş, sol ventrikül diyastolik disfonksiyonu, orta "
    "derecede mitral yetmezlik saptandı. Metformin, ramipril, metoprolol, furosemid ve atorvastatin tedavisi başlandı. "
    "Laboratuvarda kreatinin, üre, troponin ve NT-proBNP değerleri yüksekti. Elektrokardiyografide sinüs taşikardisi izlendi.",
    "Bu çalışmada derin öğrenme tabanlı transformer modellerinin embedding katmanlarında backpropagation algoritmasının "
    "optimizasyonu için stochastic gradient descent ve Adam optimizer kullanılmıştır. Benchmark veri setlerinde accuracy, "
    "precision, recall ve F1-score metrikleri raporlanmıştır. Python, TensorFlow ve PyTorch framework'leri ile implementasyon "
    "yapılmıştır. GPU üzerinde CUDA kernel'ları profile edilmiştir. Hyperparameter tuning için grid search uygulanmıştır.",
)


@pytest.mark.parametrize("paragraph", SCIENCE)
def test_a_paragraph_of_science_is_kept_and_a_long_text_of_its_kind_is_judged_without_allowance(stage, paragraph):
    assert stage.filter(Document(paragraph, "0")) is True
    strict = MorphologyFilter(MorphologySettings(short_text_allowance=0, min_known_words=0.73))
    assert strict.filter(Document(paragraph, "0")) == (False, "unknown_words")


def test_the_allowance_shrinks_with_the_length(stage, speeches):
    diversity = stage.measure(speeches[0]).lemma_diversity  # 150 words: three windows
    settings = {"min_suffix_entropy": 0, "min_known_words": 0, "min_lemma_diversity": diversity + 0.02}
    for allowance, verdict in ((0.03, (False, "low_lemma_diversity")), (0.05, True)):
        measured = MorphologyFilter(MorphologySettings(**settings, short_text_allowance=allowance))
        assert measured.filter(Document(speeches[0], "0")) == verdict


@pytest.mark.parametrize("words", [60, 150])
def test_turkish_without_its_letters_is_dropped_whatever_its_length(stage, speeches, words):
    short = [" ".join(text.split()[:words]) for text in speeches]
    assert kept(stage, make_bad("ASCII letters only", short, [])) == 0


@pytest.mark.parametrize("name", ["min_suffix_entropy", "min_lemma_diversity", "min_known_words", "min_turkish_letters"])
def test_a_percentage_is_refused_where_a_share_is_meant(name):
    with pytest.raises(ValueError, match="75 is more than all of it: this is a share"):
        MorphologySettings(**{name: 75})


def test_short_documents_are_kept_without_a_verdict(stage):
    doc = Document("kalem " * (WINDOW - 1) + "1 2 3", "0")
    assert stage.filter(doc) is True
    assert "measures" not in doc.metadata


def test_measures_do_not_depend_on_length(stage, speeches):
    short = np.array([stage.measure(text) for text in speeches])
    long = np.array(stage.measure(" ".join(speeches)))
    assert long == pytest.approx(short.mean(axis=0), abs=0.02)


def test_a_run_leaves_its_words_in_the_cache(tmp_path, speeches):
    settings = MorphologySettings(cache=tmp_path / "words")
    documents = [Document(text, str(number)) for number, text in enumerate(speeches[:3])]
    first = [doc.id for doc in MorphologyFilter(settings).run(iter(documents))]
    again = MorphologyFilter(settings)
    again.lexicon._analyser = None  # every answer must come from the folder
    assert [doc.id for doc in again.run(iter(documents))] == first == ["0", "1", "2"]
