"""Special tokens by role: other spellings, other processors, reserved ones that nobody needs."""

import json

import pytest
from graft_teachers import ENGLISH, TURKISH, byte_level, languages, unigram, words_of
from tokenizers import Tokenizer, models, processors

from mecellem.errors import UserError
from preprocessing.graft.command import grow_by_rule
from preprocessing.graft.roles import find_roles, renumbered
from preprocessing.graft.teacher import load_teacher


def grafted(path, size=200):
    teacher = load_teacher(str(path))
    return teacher, grow_by_rule(teacher, languages(), words_of(teacher, TURKISH * 4, ENGLISH), size, "joint", print)


def test_special_tokens_keep_their_places_and_the_post_processor_its_ids(tmp_path):
    _, grown = grafted(unigram(tmp_path / "t"))
    made = Tokenizer.from_str(json.dumps(grown.settings))
    assert [made.id_to_token(number) for number in range(4)] == ["<s>", "<pad>", "</s>", "<unk>"]
    assert made.id_to_token(199) == "<mask>"
    ids = made.encode("Mahkeme karar verdi", "Meclis").ids
    assert (ids[0], ids[-1]) == (0, 2) and made.encode("a <mask>").ids[-2] == 199
    assert made.id_to_token(grown.settings["model"]["unk_id"]) == "<unk>"
    assert grown.settings["truncation"] is None and grown.settings["padding"] is None


def test_other_spellings_have_the_same_roles(tmp_path):
    path = unigram(tmp_path / "t")
    strange = {"<s>": "«anfang»", "</s>": "«ende»", "<pad>": "«leer»", "<unk>": "«?»", "<mask>": "«maske»"}
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (path / name).read_text(encoding="utf-8")
        for old, new in strange.items():
            text = text.replace(json.dumps(old), json.dumps(new, ensure_ascii=False))
        (path / name).write_text(text, encoding="utf-8")
    teacher, grown = grafted(path)
    assert teacher.roles.named == {
        "cls": "«anfang»", "bos": "«anfang»", "sep": "«ende»", "eos": "«ende»",
        "unk": "«?»", "pad": "«leer»", "mask": "«maske»",
    }  # fmt: skip
    made = Tokenizer.from_str(json.dumps(grown.settings))
    assert made.token_to_id("«maske»") == 199 and made.encode("a").ids[0] == made.token_to_id("«anfang»") == 0


def test_a_file_alone_tells_roles_by_its_post_processor(tmp_path):
    path = unigram(tmp_path / "t")
    settings = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    found = find_roles(settings, {}, {})
    assert found.named == {
        "cls": "<s>", "bos": "<s>", "sep": "</s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>",
    }  # fmt: skip


def test_reserved_tokens_go_and_those_of_a_template_stay(tmp_path):
    path = byte_level(tmp_path / "t")
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|user|>", *(f"<|reserved_{number}|>" for number in range(30))])
    (path / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    (path / "chat_template.jinja").write_text("<|user|>{{ messages[0].content }}", encoding="utf-8")
    teacher, grown = grafted(path, 420)
    made = Tokenizer.from_str(json.dumps(grown.settings))
    assert made.token_to_id("<|user|>") == 419 and teacher.dropped_added == 30
    assert made.get_vocab_size() == 420 and made.token_to_id("<|reserved_3|>") is None
    assert load_teacher(str(path), keep_added=True).dropped_added == 0


@pytest.mark.parametrize("kind", [processors.BertProcessing, processors.RobertaProcessing])
def test_processors_that_name_cls_and_sep(kind):
    tokenizer = Tokenizer(models.WordLevel({"x": 0, "<a>": 7, "<b>": 9}, unk_token="x"))
    tokenizer.post_processor = processors.Sequence([kind(("<b>", 9), ("<a>", 7)), processors.ByteLevel()])
    processor = json.loads(tokenizer.to_str())["post_processor"]
    changed = renumbered(processor, {"<a>": 1, "<b>": 2})["processors"][0]
    assert (changed["cls"], changed["sep"]) == (["<a>", 1], ["<b>", 2])


def test_word_piece_and_marked_pieces_are_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    Tokenizer(models.WordPiece({"a": 0, "##b": 1, "[UNK]": 2}, unk_token="[UNK]")).save(str(path))
    with pytest.raises(UserError, match=r"tokenizer.json is a WordPiece model, and only Unigram and BPE can be grafted"):
        load_teacher(str(path))
    Tokenizer(models.BPE({"a": 0, "b</w>": 1}, [], end_of_word_suffix="</w>")).save(str(path))
    with pytest.raises(UserError, match="marks pieces inside or at the end of words"):
        load_teacher(str(path))


def test_a_broken_teacher_is_named(tmp_path):
    path = tmp_path / "tokenizer.json"
    for content in ("", "{", '{"model": {"type": "BPE"}}', "[]"):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"--teacher: .*tokenizer.json is broken or of another kind"):
            load_teacher(str(path))
    with pytest.raises(UserError, match=r"--teacher: .*tokenizer.json is missing"):
        load_teacher(str(_made(tmp_path / "empty")))
    with pytest.raises(UserError, match=r"--teacher: .*/nowhere is not there"):
        load_teacher(str(tmp_path / "nowhere"))


def _made(folder):
    folder.mkdir()
    return folder
