"""What every rule owes for every kind of teacher: exact size, ids without holes, every entry reachable, nothing lost."""

from typing import get_args

import orjson
import pytest
from graft_teachers import ENGLISH, KINDS, TURKISH, languages, load, words_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from mecellem.errors import UserError
from preprocessing.graft.command import grow_by_rule, measure
from preprocessing.graft.grown import Rule, reserved
from preprocessing.graft.reach import inside_words, unreachable
from preprocessing.graft.texts import HeldOut

RULES = get_args(Rule)
SIZE = {"unigram": 220, "byte-level": 400, "byte-fallback": 420}
SMALLER = {"unigram": 120, "byte-level": 390, "byte-fallback": 400}  # than the teacher
LARGER = {"unigram": 260, "byte-level": 480, "byte-fallback": 520}
WORD = st.text(alphabet="abcçdeğhıiİlmnoöprsştuüvyz'-0123", min_size=1, max_size=9)
SENTENCE = st.lists(WORD, min_size=1, max_size=8).map(" ".join)


@pytest.fixture(scope="module", params=KINDS)
def teacher(request, tmp_path_factory):
    return request.param, load(request.param, tmp_path_factory.mktemp("teachers"))


def tokenizer_of(settings_):
    return Tokenizer.from_str(orjson.dumps(settings_).decode())


def owes_nothing(teacher, grown, size):
    """Size, ids, and reachability by a check of its own: the text of an entry, encoded, is that entry."""
    made = tokenizer_of(grown.settings)
    numbers = made.get_vocab(with_added_tokens=True)
    assert sorted(numbers.values()) == list(range(size))
    assert set(numbers) == {*grown.kept, *grown.learned, *reserved(teacher)}
    assert teacher.bytes <= set(numbers)
    plain = inside_words(grown.settings)
    for piece in (*grown.kept, *grown.learned):
        text = teacher.text_of(piece)
        if text is not None and piece not in teacher.bytes:
            assert plain.encode(text).ids == [numbers[piece]], piece
    return made


@pytest.mark.parametrize("rule", RULES)
def test_exact_size_and_every_entry_reachable(teacher, rule):
    kind, loaded = teacher
    size = (SMALLER if rule == "used" else SIZE)[kind]
    grown = grow_by_rule(loaded, languages(), words_of(loaded, TURKISH * 4, ENGLISH), size, rule, print)
    made = owes_nothing(loaded, grown, size)
    assert bool(grown.learned) == (rule != "used")
    before = tokenizer_of(loaded.settings)
    for text in (*TURKISH, *ENGLISH):
        same = before if rule == "used" else None  # which learns no characters that the teacher lacks
        assert made.decode(made.encode(text).ids) == (same.decode(same.encode(text).ids) if same else text)


@pytest.mark.parametrize("rule", ["joint", "target-first"])
def test_the_target_language_gets_shorter_and_merges_are_well_founded(teacher, rule):
    kind, loaded = teacher
    grown = grow_by_rule(loaded, languages(), words_of(loaded, TURKISH * 4, ENGLISH), LARGER[kind], rule, print)
    texts = [HeldOut("tr", {"all": TURKISH}), HeldOut("en", {"all": ENGLISH})]
    turkish, english = measure(loaded, grown.settings, texts)
    assert turkish.total(after=True).tokens < 0.8 * turkish.total(after=False).tokens
    assert english.unchanged == len(ENGLISH) and turkish.total(after=True).unknown == 0
    assert loaded.unigram or turkish.unchanged == len(TURKISH)  # the Unigram teacher lacks characters of theirs
    model = grown.settings["model"]
    if not loaded.unigram:
        for left, right in model["merges"]:
            assert {left, right, left + right} <= set(model["vocab"])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(texts=st.lists(SENTENCE, min_size=3, max_size=25), rule=st.sampled_from(RULES), more=st.integers(0, 60))
def test_any_corpus(kind, texts, rule, more, small_teachers):
    loaded = small_teachers[kind]
    words = words_of(loaded, texts, ENGLISH[:1])
    size = SIZE[kind] + more
    try:
        grown = grow_by_rule(loaded, languages(), words, size, rule, lambda _: None)
    except UserError as error:
        assert "ask for fewer" in str(error)  # so few texts do not give so many entries
        return
    made = owes_nothing(loaded, grown, size)
    known = set(made.get_vocab()) | {" "}
    for text in texts:  # a Unigram teacher without bytes lacks characters, and rare ones are not learned
        spelled = "".join(character for character in text if character in known) if loaded.unigram else text
        assert made.decode(made.encode(text).ids) == spelled


@pytest.fixture(scope="module")
def small_teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    return {kind: load(kind, folder) for kind in KINDS}


def test_the_check_finds_entries_that_nothing_gives(small_teachers):
    teacher = small_teachers["unigram"]
    changed = orjson.loads(orjson.dumps(teacher.settings))
    vocab = changed["model"]["vocab"]
    piece = next(entry for entry in vocab if len(entry[0]) > 4 and entry[0].startswith("▁"))
    piece[1] = -1000.0
    assert unreachable(teacher, changed, [piece[0]]) == [piece[0]]


def test_pruning_by_use_alone_leaves_the_teachers_tokens(small_teachers):
    """The free baseline: all that the texts use is there, so they are segmented as before."""
    for kind, teacher in small_teachers.items():
        words = words_of(teacher, TURKISH[:1], ENGLISH[:2])
        dead = unreachable(teacher, teacher.settings, list(teacher.pieces.values()))
        size = len(teacher.pieces) - len(dead) + len(reserved(teacher)) - 3
        grown = grow_by_rule(teacher, languages(), words, size, "used", print)
        [one] = measure(teacher, grown.settings, [HeldOut("en", {"all": [*ENGLISH[:2], *TURKISH[:1]]})])
        assert one.total(after=True).tokens == one.total(after=False).tokens, kind


def test_a_size_below_bytes_specials_and_characters_is_refused_with_the_least_one(small_teachers):
    for kind, teacher in small_teachers.items():
        words = words_of(teacher, TURKISH, ENGLISH)
        with pytest.raises(UserError, match=r"--size 20: at least (\d+) entries are needed") as refused:
            grow_by_rule(teacher, languages(), words, 20, "joint", print)
        least = int(str(refused.value).split("at least ")[1].split()[0])
        assert least > 256 or kind == "unigram"
        owes_nothing(teacher, grow_by_rule(teacher, languages(), words, least, "joint", print), least)


def test_more_entries_than_there_are_is_refused(small_teachers):
    for teacher in small_teachers.values():
        words = words_of(teacher, TURKISH[:1], ENGLISH[:1])
        with pytest.raises(UserError, match=r"give about \d+ entries only: ask for fewer"):
            grow_by_rule(teacher, languages(), words, 50_000, "joint", print)


GEORGIAN = [
    "სასამართლომ გადაწყვიტა რომ ხელშეკრულება მხარეებს შორის ბათილია",
    "სასამართლო განიხილავს ხელშეკრულებას და გადაწყვეტილებას",
]
JAPANESE = "裁判所は契約が無効であると判断した。東京都は日本の首都であり、人口が多い都市である。法律に基づいて手続きを行う。"


@pytest.mark.parametrize("rule", ["joint", "target-first"])
def test_a_script_that_the_teacher_spells_by_bytes_is_learned(small_teachers, rule):
    teacher = small_teachers["byte-fallback"]
    assert not set("".join(GEORGIAN).replace(" ", "")) & teacher.in_model
    grown = grow_by_rule(teacher, languages(), words_of(teacher, GEORGIAN * 4, ENGLISH), 460, rule, print)
    made = owes_nothing(teacher, grown, 460)
    assert any(len(piece) > 3 for piece in grown.learned)
    for text in GEORGIAN:
        assert made.decode(made.encode(text).ids) == text
        assert len(made.encode(text).ids) < len(text) / 2 < len(tokenizer_of(teacher.settings).encode(text).ids)


@pytest.mark.parametrize("kind", ["unigram", "byte-fallback"])
def test_paragraphs_without_spaces_are_learned_from(small_teachers, kind):
    """No part of such a paragraph is a word by its spaces, and it is longer than a word may be."""
    teacher = small_teachers[kind]
    words = words_of(teacher, [JAPANESE * 3] * 8, ENGLISH)
    assert words.counts[0].sum() > 0 and max(map(len, words.words)) <= 128
    counted = sum(len(word) * count for word, count in zip(words.words, words.counts[0], strict=True))
    assert counted >= 8 * len(JAPANESE * 3), "all characters are counted"
    size = {"unigram": 220, "byte-fallback": 460}[kind]
    grown = grow_by_rule(teacher, languages(), words, size, "joint", print)
    made = owes_nothing(teacher, grown, size)
    assert len(made.encode(JAPANESE).ids) < 0.8 * len(JAPANESE)
