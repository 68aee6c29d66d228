"""Small teachers of each kind, trained by the library itself, and texts in two languages to graft by."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from preprocessing.graft.settings import Language, with_shares
from preprocessing.graft.teacher import Teacher, load_teacher
from preprocessing.graft.words import Words, count_words, table
from preprocessing.tokenizer import train_tokenizer, write_tokenizer

ENGLISH = [
    "The court decided that the agreement between the parties was not valid, and that the owner had to pay the costs.",
    "You can change the settings of the document in the dialog, or choose another language from the list of languages.",
    "The parliament discussed the new law for three days; most of the members agreed with the government in the end.",
    "Nobody knew where the children had gone after the meeting, because the teachers were talking about something else.",
    "Select the cells of the table and press the key to insert a formula into the first column of the spreadsheet.",
]
TURKISH = [
    "Mahkeme taraflar arasındaki sözleşmenin geçerli olmadığına ve giderlerin davalıdan alınmasına karar verdi.",
    "İletişim penceresinde belgenin ayarlarını değiştirebilir, ya da listeden başka bir dil seçebilirsiniz.",
    "Meclis yeni yasayı üç gün boyunca görüştü; üyelerin çoğu sonunda hükümetin görüşüne katıldıklarını söyledi.",
    "Öğretmenler başka şeyler konuştukları için çocukların toplantıdan sonra nereye gittiklerini kimse bilmiyordu.",
    "Tablonun hücrelerini seçin ve hesap tablosunun ilk sütununa bir formül eklemek için tuşa basın.",
    "Çalışanların haklarının korunması, işverenlerin yükümlülüklerinin yerine getirilmesine bağlıdır.",
    "Iğdır'dan İzmir'e giden yolcuların ışıklandırılmış istasyonlarda beklemeleri gerektiği bildirilmiştir.",
]
LATE = AddedToken("<mask>", special=True, lstrip=True, normalized=False)
KINDS = ("unigram", "byte-level", "byte-fallback")


def unigram(folder: Path) -> Path:
    """As XLM-R's: <s> <pad> </s> <unk> in front, <mask> behind everything, a normalizer, Metaspace."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([*ENGLISH * 8, *TURKISH[:2]], trainer)
    tokenizer.add_special_tokens([LATE])
    numbers = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=numbers
    )
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>")
    roles = {"cls": "<s>", "bos": "<s>", "sep": "</s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
    return _write(tokenizer.to_str(), folder, roles)


def byte_level(folder: Path) -> Path:
    """Ours: five special tokens with other spellings, then 256 bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(train_tokenizer([*ENGLISH * 8, *TURKISH[:2]], 420), folder, 512)
    return folder


def byte_fallback(folder: Path) -> Path:
    """As Llama 2's: <unk> <s> </s>, 256 entries of bytes, "▁" put before every text, no pre-tokenizer."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁[^▁]*"), "isolated")
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)], show_progress=False
    )
    tokenizer.train_from_iterator([*ENGLISH * 8, *TURKISH[:2]], trainer)
    settings = json.loads(tokenizer.to_str())
    settings["model"] |= {"byte_fallback": True, "fuse_unk": True}
    settings["pre_tokenizer"] = None
    settings["added_tokens"] = [token for token in settings["added_tokens"] if token["content"] in special]
    parts = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    parts.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    settings["decoder"] = {"type": "Sequence", "decoders": parts}
    return _write(json.dumps(settings), folder, {"bos": "<s>", "eos": "</s>", "unk": "<unk>"})


def _write(text: str, folder: Path, roles: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    config = {f"{role}_token": token for role, token in roles.items()} | {"model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


MAKERS = dict(zip(KINDS, (unigram, byte_level, byte_fallback), strict=True))


def languages() -> list[Language]:
    """Turkish as the target, English beside it."""
    return with_shares([Language("tr", True, 0.0), Language("en", False, 0.0)], "--languages")


def words_of(teacher: Teacher, turkish: list[str], english: list[str]) -> Words:
    """The words of texts, as the command counts them."""
    counters: list[Counter[str]] = [Counter(), Counter()]
    count_words(teacher, turkish, counters[0])
    count_words(teacher, english, counters[1])
    return table(counters, [language.share for language in languages()])


def load(kind: str, folder: Path) -> Teacher:
    """A small teacher of a kind."""
    return load_teacher(str(MAKERS[kind](folder / kind)))
