"""Small masked language models with random weights and three kinds of tokenizers, and Turkish texts of two domains."""

from __future__ import annotations

import json
from pathlib import Path

LAW = [
    "Davacı vekili, mahkemenin kararını süresi içinde temyiz etmiştir. Duruşma günü taraflara bildirildi.",
    "Kanun'un üçüncü maddesi uyarınca verilen hüküm kesindir. İtiraz yolu açıktır, başvuru yapılabilir.",
    "Sanığın beraatine karar verilmiş, tutukluluk hâli kaldırılmıştır. Savcı bu sonuca itiraz etti.",
    "Kira sözleşmesinin feshi için üç ay önceden yazılı bildirim yapılması gerekir. Aksi hâlde süre uzar.",
    "Bilirkişi raporuna göre borçlunun kusuru yoktur (ek: tutanak). Tazminat istemi bu nedenle reddedildi.",
    "Meclis komisyonu tasarıyı görüştü ve genel kurula gönderdi. Teklif ertesi gün yasalaştı.",
]
NATURE = [
    "Dağların eteğinde uzanan göl, kışın bütünüyle donar. Balıkçılar buzda delik açarak avlanır.",
    "Leylekler her yıl aynı yuvaya döner; yavrularını orada büyütürler. Köylüler onları sevgiyle karşılar.",
    "Işık ormanın içine ılık bir sabahla süzüldü. Iğdır ovasında pamuk erken açtı bu yıl.",
    "Rüzgâr gece boyunca esti, dalgalar iskeleyi dövdü. Sabah olunca deniz dümdüz olmuştu.",
    "Bahar gelince kırlarda gelincikler açar. Arılar çiçekten çiçeğe konup bal toplar.",
    "Nehir yatağını değiştirince eski köprü karada kaldı. Şimdi altından yalnızca koyunlar geçiyor.",
]
TEXTS = LAW + NATURE
UNSEEN = "Müzede 漢字 yazılı bir taş duruyordu, kimse onu okuyamadı."  # no tokenizer was trained on it
KINDS = ("bpe", "wordpiece", "unigram")
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]


def write_tokenizer(folder: Path, kind: str) -> Path:
    """`bpe`: byte-level, `wordpiece`: with unknown tokens, `unigram`: pieces carry their space as a sign of their own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    elif kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {name: f"[{name[:-6].upper()}]" for name in ("pad_token", "cls_token", "sep_token", "mask_token", "unk_token")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return folder


def write_model(folder: Path, kind: str, seed: int = 0, positions: int = 256) -> Path:
    """A masked language model far from uniform predictions: BERT with WordPiece, else ModernBERT."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, ModernBertConfig, ModernBertForMaskedLM

    write_tokenizer(folder, kind)
    rows = len(AutoTokenizer.from_pretrained(folder))
    shape = {
        "vocab_size": rows, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2,
        "max_position_embeddings": positions, "initializer_range": 0.5, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(seed)
    if kind == "wordpiece":
        BertForMaskedLM(BertConfig(**shape)).save_pretrained(folder)
        return folder
    config = ModernBertConfig(
        **shape,
        global_attn_every_n_layers=3,
        local_attention=16,
        cls_token_id=1,
        bos_token_id=1,
        sep_token_id=2,
        eos_token_id=2,
    )
    ModernBertForMaskedLM(config).save_pretrained(folder)
    return folder


def write_texts(path: Path) -> Path:
    """A record a text, with its domain as `branch`, and an empty one."""
    records = [{"text": text, "branch": "law"} for text in LAW] + [{"text": text, "branch": "nature"} for text in NATURE]
    records += [{"text": UNSEEN, "branch": "nature"}, {"text": " \n", "branch": "law"}]
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path
