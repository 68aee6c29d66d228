import base64

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mecellem.errors import UserError
from preprocessing.tokenizer import train_tokenizer, write_tokenizer
from preprocessing.tokenizers.load import load_tokenizers

TEXT = ["Yargıtay'ın kararına göre davanın reddine karar verildi ışık ışıklar kitap kitaplar"] * 50


@pytest.fixture(scope="module")
def trained():
    return train_tokenizer(TEXT, 300)


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("named") / "mine"
    path.mkdir()
    write_tokenizer(trained, path, model_max_length=64)
    return path


def tiktoken_file(trained, path):
    """The same entries without the special ones as tiktoken's ranks; ids move by the five special tokens."""
    from preprocessing.tokenizers.load import _bytes_of

    pieces = sorted((number, piece) for piece, number in trained.get_vocab(with_added_tokens=False).items() if number >= 5)
    lines = (base64.b64encode(_bytes_of(piece)) + b" %d\n" % (number - 5) for number, piece in pieces)
    path.write_bytes(b"".join(lines))
    return path


def test_a_folder_a_file_and_a_name_of_ones_own(folder, trained):
    mine, file, other = load_tokenizers([str(folder), f"file={folder / 'tokenizer.json'}", f"other={folder}"])
    assert (mine.name, file.name, other.name) == ("mine", "file", "other")
    assert mine.sha256 == file.sha256
    assert [mine.tokenizer.encode(text).ids for text in TEXT[:1]] == [trained.encode(TEXT[0]).ids]
    assert mine.notes == ()


def test_entries_tell_text_word_starts_and_bytes(folder):
    [loaded] = load_tokenizers([str(folder)])
    by_piece = {entry.piece: entry for entry in loaded.entries.values()}
    assert (by_piece["Ġkarar"].text, by_piece["Ġkarar"].starts_word) == ("karar", True)
    assert by_piece["[MASK]"].added
    assert by_piece["Ä"].single_byte and by_piece["Ä"].text is None
    assert not by_piece["a"].single_byte
    assert loaded.shown(by_piece["Ä"].id) == "c4"
    assert loaded.shown(by_piece["Ġkarar"].id) == "_karar"


def test_tiktokens_ranks_give_the_same_tokens(trained, tmp_path):
    [loaded] = load_tokenizers([str(tiktoken_file(trained, tmp_path / "llama3.tiktoken"))])
    for text in (*TEXT[:1], "IĞDIR'da 1234 日本 \r\n\t x", "görevlendirilenlerin"):
        ids = [number - 5 for number in trained.encode(text, add_special_tokens=False).ids]
        assert loaded.tokenizer.encode(text, add_special_tokens=False).ids == ids
        assert loaded.tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", ["qwen3_6.tiktoken", "Qwen.tiktoken", "cl100k.tiktoken", "llama3.1.tiktoken"])
def test_ranks_of_a_name_that_is_only_like_a_known_one_are_refused(trained, tmp_path, name):
    """Another model of the family may split text in another way, which nothing in the file would show."""
    path = tiktoken_file(trained, tmp_path / name)
    with pytest.raises(UserError, match="ranks do not tell how text is split"):
        load_tokenizers([str(path)])
    load_tokenizers([str(path.rename(tmp_path / "qwen.tiktoken"))])


def test_truncation_and_padding_are_switched_off_and_told(folder, tmp_path):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    [loaded] = load_tokenizers([f"cut={tmp_path}"])
    assert len(loaded.tokenizer.encode(TEXT[0]).ids) > 9
    assert len(loaded.tokenizer.encode("a", add_special_tokens=False).ids) == 1
    assert "cuts every text at 4 tokens" in loaded.notes[0] and "pads every text" in loaded.notes[1]


def test_special_tokens_in_a_text_are_text(folder):
    [loaded] = load_tokenizers([str(folder)])
    assert len(loaded.tokenizer.encode("[MASK]", add_special_tokens=False).ids) > 1


def test_wordpiece_and_sentencepiece_are_spelled_as_text(tmp_path):
    wordpiece = Tokenizer(models.WordPiece({"[UNK]": 0, "kitap": 1, "##lar": 2}, unk_token="[UNK]"))
    wordpiece.pre_tokenizer, wordpiece.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁kitap", -1.0), ("lar", -1.5), ("<0x41>", -9.0)], unk_id=0))
    unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    wordpiece.save(str(tmp_path / "wordpiece.json"))
    unigram.save(str(tmp_path / "unigram.json"))
    first, second = load_tokenizers([str(tmp_path / "wordpiece.json"), str(tmp_path / "unigram.json")])
    assert [(entry.text, entry.starts_word) for entry in first.entries.values()][1:] == [("kitap", True), ("lar", False)]
    assert [(entry.text, entry.starts_word) for entry in second.entries.values()][1:3] == [("kitap", True), ("lar", False)]
    assert second.entries[3].single_byte
    assert (first.unknown_id, second.unknown_id) == (0, 0)


def test_what_is_no_tokenizer_is_refused(folder, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "vocab.txt").write_text("a")
    (tmp_path / "other.tiktoken").write_text("YQ== 0\n")
    (tmp_path / "qwen.tiktoken").write_text("YQ== 0\n")
    (tmp_path / "cl100k_base.tiktoken").write_text("YQ== 0\nno rank here\n")
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        ([tmp_path / "none"], "is not a file: a tokenizer is"),
        ([tmp_path / "empty"], "is not a file"),
        ([tmp_path / "vocab.txt"], r"save other kinds"),
        ([tmp_path / "broken.json"], "is broken or of another kind"),
        ([tmp_path / "other.tiktoken"], r"the files qwen\.tiktoken, cl100k_base\.tiktoken, llama3\.tiktoken alone"),
        ([tmp_path / "qwen.tiktoken"], "255 of the 256 bytes have no rank"),
        ([tmp_path / "cl100k_base.tiktoken"], "line 2: base64"),
        ([folder, folder / "tokenizer.json"], "are both called 'mine': tell them apart with NAME=PATH"),
    ]:
        with pytest.raises(UserError, match=message):
            load_tokenizers([str(argument) for argument in arguments])
