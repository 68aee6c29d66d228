"""The three searches for duplicates, through whole runs of several shards."""

import re
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pipeline"))
from pipeline_runs import documents, jsonl_source, lines_of, sentences, write_corpus, write_jsonl

from mecellem.errors import UserError
from preprocessing.jsonl import read_records
from preprocessing.pipeline.ledger import read_ledger
from preprocessing.pipeline.run import run
from preprocessing.stages.minhash import MinhashConfig, TurkishSignature
from preprocessing.stages.semantic_dedup import SemanticDedupSettings, encoder
from preprocessing.turkish import fold, upper


def kept(tmp_path, texts, stage, shard_size="4KB"):
    """The texts that a run with only this stage keeps, and its ledger."""
    path = write_jsonl(tmp_path / "laws.jsonl", texts)
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], [stage], shard_size=shard_size)
    run(corpus, workers=1)
    [name] = stage
    folder = tmp_path / "out" / "stages" / f"01_{name}"
    return [document["text"] for document in documents(folder)], read_ledger(folder / "ledger.json").total()


def test_exact_duplicates_differ_at_most_in_white_space_and_turkish_case(tmp_path):
    texts = ["IŞIK ılık\n\niş", "ışık  ılık iş", "İŞ", "iş", "IŞ", "ışık ilik iş", *map(sentences, range(40)), "ışık ılık iş"]
    stays, ledger = kept(tmp_path, texts, {"exact_dedup": {}}, shard_size="1KB")
    assert stays == ["IŞIK ılık\n\niş", "İŞ", "IŞ", "ışık ilik iş", *map(sentences, range(40))]
    assert ledger.dropped["exact_duplicate"].documents == 3


def test_the_first_of_the_input_stays_in_whatever_place_of_its_shard_it_is(tmp_path):
    # the later copy is the first of its own shard, the earlier one the last: datatrove alone would keep the later
    texts = [*map(sentences, range(20)), "aynı belge", *map(sentences, range(20, 60))]
    path, other = write_jsonl(tmp_path / "a.jsonl", texts[:21]), write_jsonl(tmp_path / "b.jsonl", ["aynı belge", *texts[21:]])
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path, other)], [{"exact_dedup": {}}], shard_size="10KB")
    run(corpus, workers=1)
    found = documents(tmp_path / "out" / "stages" / "01_exact_dedup")
    assert [document["text"] for document in found] == texts
    assert [document["origin"] for document in found if document["text"] == "aynı belge"] == [f"{path}:21"]


def test_near_duplicates_of_other_shards_and_other_case_go(tmp_path):
    texts = [sentences(n, 150) for n in range(20)]
    near = upper(texts[3]) + " SON CÜMLE EKLENDİ"
    stays, ledger = kept(tmp_path, [*texts, near, texts[7].replace("Belge", "Karar", 1)], {"minhash": {"n_grams": 3}})
    assert len(stays) == 20
    assert ledger.dropped["near_duplicate"].documents == 2
    assert sum(sentences(n, 150)[10:] in "".join(stays) for n in range(20) if n not in (3, 7)) == 18


def test_shingles_fold_turkish_case_and_are_hashed_once(tmp_path):
    signature = TurkishSignature(str(tmp_path), MinhashConfig(n_grams=2))
    assert set(signature.get_shingles("IŞIK İLE").ravel()) == set(signature.get_shingles("ışık ile").ravel())
    assert len(signature.get_shingles("a b a b a b")) == 2
    assert signature.get_shingles("tek").shape == (0, 1)


def test_semantic_duplicates_go_wherever_in_the_corpus_they_are(tmp_path):
    legal = "Mahkeme davanın kabulüne ve tazminatın davalıdan tahsiline karar verdi."
    again = "Davanın kabulüne, tazminatın davalıdan tahsiline mahkeme karar verdi."
    cooking = "Soğanlar pembeleşince kıyma eklenir ve kısık ateşte on dakika kavrulur."
    texts = [legal, *[cooking] * 12, again, "1"]
    stays, ledger = kept(tmp_path, texts, {"semantic_dedup": {}}, shard_size=10)
    assert stays == [legal, cooking, "1"]
    assert ledger.dropped["semantic_duplicate"].documents == 12
    [examples] = read_ledger(tmp_path / "out" / "stages" / "01_semantic_dedup" / "ledger.json").examples.values()
    assert all(0.75 <= example.measures["similarity"] <= 1 for example in examples)


HEADING = (
    "T.C. YARGITAY 3. HUKUK DAİRESİ. Esas No: {n} Karar No: {n}. MAHKEMESİ: ASLİYE HUKUK MAHKEMESİ. Taraflar "
    "arasındaki alacak davasının mahkemece yapılan yargılaması sonucunda, davanın kısmen kabulüne kısmen reddine "
    "yönelik verilen hüküm, süresi içinde davalı vekili tarafından temyiz edilmekle; temyiz dilekçesinin süresinde "
    "olduğu anlaşıldıktan sonra, dosya içindeki bütün kâğıtlar okunup gereği görüşülüp düşünüldü. Davacı vekili "
    "dilekçesinde özetle; davacının davalı ile yapmış olduğu sözleşme uyarınca edimlerini eksiksiz yerine "
    "getirdiğini, ancak davalının borcunu ödemediğini, başlatılan icra takibine haksız olarak itiraz ettiğini ileri "
    "sürerek itirazın iptali ile takibin devamına ve icra inkâr tazminatına karar verilmesini talep etmiştir."
)


@pytest.fixture(scope="module")
def decisions(sample_corpus):
    """57 decisions behind one heading: speeches that have nothing in common."""
    records = [*read_records(sample_corpus / "train.jsonl.zst"), *read_records(sample_corpus / "test.jsonl.zst")]
    longest = sorted({record.text for record in records if record.source == "ataturk"}, key=len)[-160:]
    bodies, seen = [], set()
    for body in longest:  # the collection has some speeches in two spellings
        runs = set(pairwise(fold(body).split()))
        if len(runs & seen) < 0.3 * len(runs):
            bodies.append(body)
        seen |= runs
    texts = [HEADING.format(n=2000 + number) + "\n" + body[:6000] for number, body in enumerate(bodies[-57:])]
    assert len(texts) == 57
    return texts


def lists(folder):
    """What a stage wrote of its drops, in order."""
    return [line for path in sorted((folder / "dropped").glob("*.jsonl.zst")) for line in lines_of(path)]


def test_decisions_behind_one_heading_stay_and_vectors_alone_would_drop_them(tmp_path, decisions):
    stays, _ = kept(tmp_path / "a", decisions, {"semantic_dedup": {}}, shard_size="100KB")
    assert stays == decisions
    stays, _ = kept(tmp_path / "b", decisions, {"semantic_dedup": {"min_overlap": 0}}, shard_size="100KB")
    assert stays == decisions[:1]


def test_near_copies_go_and_name_the_one_that_stays(tmp_path, decisions):
    inserted = [text.replace(". ", ". Bu cümle sonradan eklenmiştir. ", 2) for text in decisions[:20]]
    unpunctuated = [re.sub(r"[.,;:]", "", text) for text in decisions[20:40]]
    capitals = [upper(text) for text in decisions[40:]]
    copies = [*inserted, *unpunctuated, *capitals]
    stays, ledger = kept(tmp_path, [*decisions, *copies], {"semantic_dedup": {}}, shard_size="100KB")
    assert stays[:57] == decisions and len(stays) <= 58
    folder = tmp_path / "out" / "stages" / "01_semantic_dedup"
    ids = {document["text"]: document["id"] for document in documents(folder)}
    drops = lists(folder)
    assert len(drops) == ledger.dropped["semantic_duplicate"].documents >= 56
    partners = {line["duplicate_of"] for line in drops}
    assert partners <= {ids[text] for text in decisions} and len(partners) == len(drops)
    assert all(0.75 <= float(line["drop_detail"].removeprefix("cosine ")) <= 1 for line in drops)


def test_copies_of_short_texts_are_counted_with_the_one_that_stays(tmp_path):
    text, other = "Mahkeme davanın kabulüne karar verdi.", "Soğanlar pembeleşince kıyma eklenir ve kavrulur."
    kept(tmp_path, [text, other, *[f"{text}{' ' * number}" for number in range(1, 5)]], {"semantic_dedup": {}}, shard_size=60)
    folder = tmp_path / "out" / "stages" / "01_semantic_dedup"
    [first, _] = documents(folder)
    ledger = read_ledger(folder / "ledger.json")
    assert ledger.alike == {5: 1}
    assert [(group.documents, group.id) for group in ledger.largest] == [(5, first["id"])]
    assert {example.duplicate_of for example in ledger.examples["semantic_duplicate"]} == {first["id"]}
    assert [line["duplicate_of"] for line in lists(folder)] == [first["id"]] * 4


def test_what_goes_hangs_neither_on_workers_nor_on_shards(tmp_path, decisions):
    texts = [*decisions[:20], *map(sentences, range(6)), *[f"Son cümle. {text}" for text in decisions[:10]], sentences(3)]
    path = write_jsonl(tmp_path / "laws.jsonl", texts)
    found = []
    for name, workers, shard_size in (("one", 1, "50KB"), ("two", 2, "50KB"), ("whole", 1, "10MB")):
        (tmp_path / name).mkdir()
        corpus = tmp_path / name / "corpus.yaml"
        run(write_corpus(corpus, [jsonl_source(path)], [{"semantic_dedup": {}}], shard_size=shard_size), workers=workers)
        folder = tmp_path / name / "out" / "stages" / "01_semantic_dedup"
        found.append([document["text"] for document in documents(folder)])
        found.append([(line["origin"], line["drop_detail"]) for line in lists(folder)])
    assert found[:2] == found[2:4] == found[4:]
    assert found[0][:20] == decisions[:20]
    assert len(found[1]) >= 11


@pytest.mark.parametrize("wrong", [{"min_overlap": 40}, {"short_words": -1}, {"run_words": 0}])
def test_wrong_settings_are_told_of_with_their_line(tmp_path, wrong):
    path = write_jsonl(tmp_path / "laws.jsonl", ["bir"])
    corpus = write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], [{"semantic_dedup": wrong}])
    with pytest.raises(UserError, match=rf"corpus.yaml, line \d+: .*{next(iter(wrong))}"):
        run(corpus, workers=1)


def test_a_sentence_transformers_folder_is_a_model(tmp_path, bert_folder):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    words = Transformer(str(bert_folder))
    SentenceTransformer(modules=[words, Pooling(words.get_word_embedding_dimension())]).save(str(tmp_path / "model"))
    texts = [*map(sentences, range(8)), sentences(3)]
    stays, ledger = kept(tmp_path, texts, {"semantic_dedup": {"model": str(tmp_path / "model"), "threshold": 1 - 1e-6}}, 10)
    assert stays == texts[:8]
    assert ledger.dropped["semantic_duplicate"].documents == 1
    encoder.cache_clear()
    vectors = encoder(str(tmp_path / "model"))(texts)
    assert vectors.shape == (9, 32)
    assert vectors == pytest.approx(SentenceTransformer(str(tmp_path / "model")).encode(texts), abs=1e-6)
    encoder.cache_clear()


@pytest.fixture
def bert_folder(tmp_path):
    """A BERT of random weights with a vocabulary of its own, as `save_pretrained` leaves it."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    found = sorted({word for number in range(8) for word in re.findall(r"\w+|[^\w\s]", sentences(number))})
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *found]
    tokenizer = Tokenizer(WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(names), max_position_embeddings=128, **sizes)
    BertModel(config).save_pretrained(tmp_path / "bert")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def test_a_model2vec_folder_is_a_model_and_another_folder_is_not(tmp_path):
    from model2vec import StaticModel
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "karar": 1, "dava": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    StaticModel(np.eye(3, dtype=np.float32), tokenizer).save_pretrained(str(tmp_path / "static"))
    vectors = encoder(str(tmp_path / "static"))(["karar karar", "dava"])
    assert vectors.shape == (2, 3) and vectors[0].argmax() == 1
    encoder.cache_clear()
    with pytest.raises(UserError, match="is no folder of a model"):
        encoder(str(tmp_path))
    (tmp_path / "static" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"static cannot be loaded \(.*\): get the folder again"):
        encoder(str(tmp_path / "static"))
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"unknown cannot be loaded"):
        encoder(str(tmp_path / "unknown"))
    assert SemanticDedupSettings().threshold == 0.75
