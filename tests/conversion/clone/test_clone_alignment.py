"""What the entries of a new vocabulary are made of: text and word boundaries, never the spelling of another family."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_vocabularies import byte_level, ids_of, unigram, wordpiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from conversion.clone.alignment import Kind, align
from conversion.clone.splitting import Splitter
from conversion.clone.vocabulary import Spelled, read_tokenizer
from mecellem.errors import UserError

MAKERS = {"byte_level": byte_level, "unigram": unigram, "wordpiece": wordpiece}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("vocabularies")
    return {name: make(root / name) for name, make in MAKERS.items()}


def pieces(teacher: Path, target: Path) -> dict[str, list[str]]:
    """Strings of the new entries -> those of the teacher's that they are made of."""
    old, new = read_tokenizer(teacher), read_tokenizer(target)
    found, strings = align(old, new), {number: piece for piece, number in old.ids.items()}
    at = found.offsets
    return {
        piece: [strings[int(row)] for row in found.pieces[at[number] : at[number + 1]]] for piece, number in new.ids.items()
    }


def text_of(family: str, piece: str) -> str:
    """The text that an entry stands for, by the library's own decoder."""
    if family == "byte_level":
        return decoders.ByteLevel().decode([piece])
    if family == "unigram":
        return piece.replace("▁", " ")
    alone = len(piece) == 1 and not piece.isalnum()
    return piece[2:] if piece.startswith("##") else piece if alone else f" {piece}"


@pytest.mark.parametrize("teacher", sorted(MAKERS))
@pytest.mark.parametrize("target", sorted(MAKERS))
def test_pieces_spell_the_same_text_with_the_same_boundary(teacher: str, target: str, folders: dict[str, Path]):
    special, ids, checked = read_tokenizer(folders[target]).special, ids_of(folders[target]), 0
    for piece, found in pieces(folders[teacher], folders[target]).items():
        wanted = text_of(target, piece)
        if ids[piece] in special or not found or "�" in wanted:
            continue
        whole = (
            decoders.ByteLevel().decode(found) if teacher == "byte_level" else "".join(text_of(teacher, part) for part in found)
        )
        if "".join(whole.split()) != "".join(wanted.split()):
            assert teacher != "byte_level"  # which spells everything; others change characters or have none for them
        elif "wordpiece" not in (teacher, target) or wanted.strip().isalnum():  # which has no spaces around punctuation
            assert whole == wanted, (piece, found)
            checked += 1
    assert checked > len(ids) / 3


def test_the_conventions_by_name(folders: dict[str, Path]):
    unigram_entries, byte_entries, words = (ids_of(folders[name]) for name in ("unigram", "byte_level", "wordpiece"))
    shared = sorted(piece[1:] for piece in unigram_entries if piece[0] == "▁" and f"Ġ{piece[1:]}" in byte_entries and piece[1:])
    assert len(shared) > 10
    of_bytes, of_words = pieces(folders["unigram"], folders["byte_level"]), pieces(folders["unigram"], folders["wordpiece"])
    for word in shared:
        assert of_bytes[f"Ġ{word}"] == [f"▁{word}"]
    inner = sorted(piece for piece in words if piece.startswith("##") and piece[2:] in unigram_entries and len(piece) > 3)
    assert len(inner) > 5
    for piece in inner:
        assert of_words[piece] == [piece[2:]]
    outer = sorted(piece for piece in words if piece.isalpha() and f"▁{piece}" in unigram_entries)
    assert len(outer) > 5
    for piece in outer:
        assert of_words[piece] == [f"▁{piece}"]
    back = pieces(folders["wordpiece"], folders["unigram"])
    for piece in inner:
        assert back[piece[2:]] == [piece]


def test_nothing_is_added_at_the_ends_and_no_text_becomes_a_special_token(folders: dict[str, Path], tmp_path: Path):
    for name in sorted(MAKERS):
        old = read_tokenizer(folders[name])
        special = set(old.special)
        found, _ = Splitter(old).split([Spelled(0, b" mahkeme"), Spelled(1, b"mahkeme"), Spelled(2, b"<s>"), Spelled(3, b"")])
        assert found[0] and found[1] and not found[3]
        assert not special.intersection(number for ids in found for number in ids)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=6))
def test_any_text_splits_without_special_tokens(texts: list[str]):
    for folder in _cached().values():
        old = read_tokenizer(folder)
        found, _ = Splitter(old).split([Spelled(number, text.encode()) for number, text in enumerate(texts)])
        assert len(found) == len(texts)
        assert all(old.special.isdisjoint(ids) for ids in found)
        if old.family == "byte-level":
            strings = {number: piece for piece, number in old.ids.items()}
            assert ["".join(strings[number] for number in ids) for ids in found] == [
                "".join(piece for piece, _ in pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text))
                for text in texts
            ]


_FOLDERS: dict[str, Path] = {}


def _cached() -> dict[str, Path]:
    return _FOLDERS


@pytest.fixture(autouse=True, scope="module")
def _fill(folders: dict[str, Path]) -> None:
    _FOLDERS.update(folders)


def test_parts_of_characters(folders: dict[str, Path], tmp_path: Path):
    """Bytes of a character: spelled by a teacher of bytes, entries for bytes where the teacher has them, else unmapped."""
    target = tmp_path / "parts"
    byte_level(target, 300, texts=["日本語テキスト"] * 5)
    entries = ids_of(target)
    cut = sorted(piece for piece in entries if "�" in text_of("byte_level", piece) and len(piece) > 1)
    assert cut
    spelled = pieces(folders["byte_level"], target)
    for piece in cut:
        assert "".join(spelled[piece]) == piece
    none = pieces(folders["unigram"], target)
    for piece in cut:
        assert none[piece] == []
    fallback = tmp_path / "fallback"
    fallback.mkdir()
    vocabulary = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}, "▁": 257}
    with_bytes = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    with_bytes.pre_tokenizer = pre_tokenizers.Metaspace()
    with_bytes.save(str(fallback / "tokenizer.json"))
    found = pieces(fallback, target)
    for piece in cut:
        raw = bytes(_byte(character) for character in piece)
        assert found[piece] == [f"<0x{byte:02X}>" for byte in raw]
    assert found[_character(0xE6)] == ["<0xE6>"]
    assert pieces(folders["byte_level"], fallback)["<0xE6>"] == [_character(0xE6)]


def test_entries_of_which_the_teacher_spells_a_part_are_counted(folders: dict[str, Path], tmp_path: Path):
    """Characters and bytes that it has no entry for are left out, and said to be."""
    target = tmp_path / "mixed"
    byte_level(target, 300, texts=["ay日"] * 5 + ["日", "ay"] * 5)
    result = align(read_tokenizer(folders["unigram"]), read_tokenizer(target))
    own = [piece for piece in ids_of(target) if not piece.startswith("<|")]
    entries = {bytes(_byte(character) for character in piece): piece for piece in own}
    whole, cut = entries["ay日".encode()], entries["日".encode()[:-1]]
    assert whole in result.partly and cut in result.unmapped
    assert entries[b"ay"] not in result.partly and entries["日".encode()] not in result.partly
    assert entries["日".encode()] in result.unmapped
    assert not align(read_tokenizer(folders["byte_level"]), read_tokenizer(target)).partly


def _byte(character: str) -> int:
    from conversion.clone.vocabulary import byte_characters

    return byte_characters()[ord(character)]


def _character(byte: int) -> str:
    from conversion.clone.vocabulary import byte_characters

    return next(chr(code) for code, found in byte_characters().items() if found == byte)


def test_special_tokens_go_by_role_not_by_string(folders: dict[str, Path], tmp_path: Path):
    target = byte_level(tmp_path / "roles", 300, {"cls": "</s>", "eos": "<mask>", "pad": "<s>", "mask": "<pad>", "unk": "?!"})
    found = pieces(folders["unigram"], target)
    assert found["</s>"] == ["<s>"] and found["<mask>"] == ["</s>"] and found["<s>"] == ["<pad>"]
    assert found["<pad>"] == ["<mask>"] and found["?!"] == ["<unk>"]


def test_a_role_that_the_teacher_has_not_and_a_graft_that_names_roles(folders: dict[str, Path], tmp_path: Path):
    target = wordpiece(tmp_path / "words")
    old, new = read_tokenizer(folders["byte_level"]), read_tokenizer(target)
    result = align(old, new)
    kinds = {piece: Kind(result.kinds[number]) for piece, number in new.ids.items()}
    assert kinds["[SEP]"] == kinds["[PAD]"] == Kind.SPECIAL  # sep is what the decoder calls eos
    assert kinds["[MASK]"] == kinds["[CLS]"] == kinds["[UNK]"] == Kind.UNMAPPED
    assert set(result.unmapped) == {"[MASK]", "[CLS]", "[UNK]"}
    roles = {"pad": "[MASK]", "mask": "[PAD]"}
    (target / "graft.json").write_text(json.dumps({"roles": roles}))
    grafted = read_tokenizer(target)
    assert grafted.roles["pad"] == grafted.ids["[MASK]"] and grafted.roles["cls"] == grafted.ids["[CLS]"]


def test_holes_in_the_ids(folders: dict[str, Path], tmp_path: Path):
    vocabulary = {"Ġmahkeme": 0, "a": 3, "Ġthe": 9}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    new = read_tokenizer(tmp_path)
    result = align(read_tokenizer(folders["byte_level"]), new)
    assert new.size == 10 and result.counts()["hole"] == 7
    assert result.lengths[[1, 2, 4]].tolist() == [0, 0, 0]


def test_a_vocabulary_with_ends_of_words_is_refused(tmp_path: Path):
    Tokenizer(models.BPE({"a": 0, "a</w>": 1}, [], end_of_word_suffix="</w>")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="marks the ends of words"):
        read_tokenizer(tmp_path)


def test_a_tokenizer_without_a_model_is_refused(tmp_path: Path):
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "added_tokens": []}')
    with pytest.raises(UserError, match="is not a tokenizer that the tokenizers library reads"):
        read_tokenizer(tmp_path)
