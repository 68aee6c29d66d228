import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_corpora import CLS, MASK, PAD, SEP, UNK, describe, index_bytes, write_corpus, write_tokenizer

from mecellem.errors import UserError
from mecellem.manifest import manifest_path
from megatron_recipes.data.corpus import SpecialTokens, TokenCorpus, read_index
from megatron_recipes.data.supply import open_causal_corpus

DOCUMENTS = [[10, 11, 12, SEP], [SEP], [20, 21, SEP]]


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path, DOCUMENTS)


def refusal(prefix, tokenizer, verify_hashes=False):
    with pytest.raises(UserError) as caught:
        TokenCorpus.open(prefix, tokenizer, verify_hashes)
    return str(caught.value)


def change_manifest(prefix, **changes):
    path = manifest_path(prefix)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_reads_what_was_written(tmp_path, dtype):
    prefix, tokenizer = write_corpus(tmp_path, DOCUMENTS, dtype)
    corpus = TokenCorpus.open(prefix, tokenizer, verify_hashes=True)
    assert corpus.documents == 3
    assert corpus.tokens.dtype == dtype
    assert corpus.document_starts.tolist() == [0, 4, 5, 8]
    assert corpus.tokens.tolist() == [token for document in DOCUMENTS for token in document]


@settings(max_examples=20, deadline=None)
@given(documents=st.lists(st.lists(st.integers(0, 60_000), max_size=20), min_size=1, max_size=8), wide=st.booleans())
def test_reads_what_megatron_core_writes(tmp_path_factory, documents, wide):
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    documents = [[*document, SEP] for document in documents]
    prefix = tmp_path_factory.mktemp("megatron") / "train"
    dtype = np.int32 if wide else np.uint16
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for document in documents:
        builder.add_document(np.asarray(document, dtype=dtype), [len(document)])
    builder.finalize(f"{prefix}.idx")
    tokenizer = write_tokenizer(prefix.parent / "tokenizer")
    describe(prefix, documents, dtype, tokenizer)
    corpus = TokenCorpus.open(prefix, tokenizer, verify_hashes=True)
    starts = corpus.document_starts
    found = [corpus.tokens[starts[i] : starts[i + 1]].tolist() for i in range(corpus.documents)]
    assert found == documents


def test_documents_of_several_sequences(tmp_path):
    """Megatron-LM can store a document as several sequences: document indices say which belong together."""
    path = tmp_path / "t.idx"
    lengths, pointers, documents = np.array([2, 3, 4], "<i4"), np.array([0, 4, 10], "<i8"), np.array([0, 2, 3], "<i8")
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, 3, 3)
    path.write_bytes(header + lengths.tobytes() + pointers.tobytes() + documents.tobytes())
    assert read_index(path).document_starts.tolist() == [0, 5, 9]


def test_truncated_bin_is_refused_without_hashing(corpus):
    prefix, tokenizer = corpus
    path = Path(f"{prefix}.bin")
    path.write_bytes(path.read_bytes()[:-2])
    message = refusal(prefix, tokenizer)
    assert "train.bin" in message and "truncated" in message


def test_bin_that_index_and_manifest_disagree_on(corpus):
    prefix, tokenizer = corpus
    path = Path(f"{prefix}.bin")
    path.write_bytes(path.read_bytes()[:-2])
    describe(prefix, DOCUMENTS, "uint16", tokenizer)
    message = refusal(prefix, tokenizer)
    assert "train.bin has 14 bytes where train.idx needs 16" in message


def test_changed_byte_is_found_by_hash_only(corpus):
    prefix, tokenizer = corpus
    path = Path(f"{prefix}.bin")
    path.write_bytes(b"\x07" + path.read_bytes()[1:])
    TokenCorpus.open(prefix, tokenizer, verify_hashes=False)
    assert "SHA-256 differs" in refusal(prefix, tokenizer, verify_hashes=True)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (index_bytes([4, 1, 3], "uint16", version=2), "index of version 2"),
        (index_bytes([4, 1, 3], "uint16", magic=b"TNTIDX\x00\x00\x00"), "not a Megatron index"),
        (index_bytes([4, 1, 3], "uint16")[:-3], "truncated"),
        (index_bytes([4, 1, 3], "uint16") + b"\x00", "truncated or was changed"),
        (b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 6, 0, 1) + bytes(8), "token type 6"),
        (b"MMIDIDX", "not a Megatron index"),
        (b"", "empty"),
        (index_bytes([4, -1, 5], "uint16"), "without gaps"),
        (b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, 0, 0), "without gaps"),
    ],
)
def test_bad_index_is_refused(corpus, content, sentence):
    prefix, tokenizer = corpus
    Path(f"{prefix}.idx").write_bytes(content)
    describe(prefix, DOCUMENTS, "uint16", tokenizer)
    message = refusal(prefix, tokenizer)
    assert "train.idx" in message and sentence in message


@pytest.mark.parametrize("suffix", [".bin", ".idx", ".manifest.json"])
def test_missing_file(corpus, suffix):
    prefix, tokenizer = corpus
    Path(f"{prefix}{suffix}").unlink()
    message = refusal(prefix, tokenizer)
    assert f"train{suffix} is missing" in message


@pytest.mark.parametrize(("key", "value"), [("tokens", 9), ("documents", 2), ("dtype", "int32")])
def test_counts_that_differ_from_the_manifest(corpus, key, value):
    prefix, tokenizer = corpus
    change_manifest(prefix, **{key: value})
    assert f"train.manifest.json says {value}" in refusal(prefix, tokenizer)


def test_manifest_of_another_corpus(corpus):
    prefix, tokenizer = corpus
    other = prefix.with_name("other")
    for suffix in (".bin", ".idx", ".manifest.json"):
        Path(f"{other}{suffix}").write_bytes(Path(f"{prefix}{suffix}").read_bytes())
    assert "does not list other.bin" in refusal(other, tokenizer)


def test_empty_corpus(tmp_path):
    prefix, tokenizer = write_corpus(tmp_path, [[]])
    assert "holds no tokens" in refusal(prefix, tokenizer)


def test_tokenizer_with_another_vocabulary(corpus, tmp_path):
    prefix, _ = corpus
    message = refusal(prefix, write_tokenizer(tmp_path / "larger", 101))
    assert "101 entries" in message and "--data.tokenizer" in message


def test_tokenizer_of_the_same_size_but_other_entries(corpus):
    prefix, tokenizer = corpus
    path = tokenizer / "tokenizer.json"
    path.write_text(path.read_text().replace('"w50"', '"elma"'))
    message = refusal(prefix, tokenizer)
    assert "tokenizer.json: SHA-256 differs" in message and "--data.tokenizer" in message


def test_missing_tokenizer(corpus, tmp_path):
    assert "not a Hugging Face tokenizer folder" in refusal(corpus[0], tmp_path / "nowhere")


def test_special_tokens_agree_with_transformers(tmp_path):
    from transformers import AutoTokenizer

    folder = write_tokenizer(tmp_path / "tokenizer")
    special, reference = SpecialTokens.read(folder), AutoTokenizer.from_pretrained(folder)
    roles = (special.cls, special.sep, special.mask, special.pad)
    assert roles == (CLS, SEP, MASK, PAD)
    assert roles == tuple(getattr(reference, f"{role}_token_id") for role in ("cls", "sep", "mask", "pad"))
    assert special.ids == set(reference.all_special_ids) == {PAD, UNK, CLS, SEP, MASK}
    assert special.vocab_size == len(reference) == 100


def test_bos_and_eos_serve_where_cls_and_sep_are_missing(tmp_path):
    folder = write_tokenizer(tmp_path, cls_token=None, sep_token=None, bos_token="[CLS]", eos_token="[SEP]")
    special = SpecialTokens.read(folder)
    assert (special.cls, special.sep) == (CLS, SEP)


def test_unigram_vocabulary_and_added_tokens(tmp_path):
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import Unigram

    folder = write_tokenizer(tmp_path)
    tokenizer = Tokenizer(Unigram([("<s>", 0.0), ("</s>", 0.0), ("<pad>", 0.0), ("a", -1.0)], unk_id=3))
    tokenizer.add_special_tokens([AddedToken("<mask>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert SpecialTokens.read(folder) == SpecialTokens(0, 1, 4, 2, frozenset({0, 1, 2, 4}), 5)


@pytest.mark.parametrize("role", ["cls_token", "sep_token", "mask_token", "pad_token"])
def test_missing_role(tmp_path, role):
    folder = write_tokenizer(tmp_path, **{role: None})
    with pytest.raises(UserError, match=f"names no {role}"):
        SpecialTokens.read(folder)


def test_role_that_is_not_in_the_vocabulary(tmp_path):
    folder = write_tokenizer(tmp_path, mask_token="<mask>")
    with pytest.raises(UserError, match="mask_token '<mask>' is not in"):
        SpecialTokens.read(folder)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("tokenizer.json", "{}", r"tokenizer\.json is not a tokenizer that the tokenizers library reads"),
        ("tokenizer_config.json", "{", r"tokenizer_config\.json is not JSON .* save the tokenizer again"),
        ("tokenizer_config.json", None, r"tokenizer_config\.json is missing: .* is not a Hugging Face tokenizer folder"),
    ],
)
def test_broken_tokenizer_folder(tmp_path, name, content, sentence):
    path = write_tokenizer(tmp_path) / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=sentence):
        SpecialTokens.read(path.parent)


def test_data_imports_no_torch():
    code = "import sys, megatron_recipes.data.batches; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def causal_tokenizer(folder, entries):
    """As Qwen3's or SmolLM2's: an end of text, neither [MASK] nor [CLS]."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel

    folder.mkdir(parents=True)
    tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(entries - 1)} | {"<|endoftext|>": entries - 1}, unk_token="w0"))
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folder


def test_a_corpus_of_a_tokenizer_without_mask_opens(tmp_path):
    prefix, _ = write_corpus(tmp_path, DOCUMENTS)
    tokenizer = causal_tokenizer(tmp_path / "causal", 100)
    describe(prefix, DOCUMENTS, "uint16", tokenizer)
    assert open_causal_corpus(prefix, tokenizer, model_rows=128, verify=True).documents == 3
    assert open_causal_corpus(prefix, tokenizer, model_rows=100, verify=True).documents == 3
    with pytest.raises(UserError, match="names no cls_token"):
        SpecialTokens.read(tokenizer)


def test_more_entries_than_the_model_has_rows(tmp_path):
    prefix, tokenizer = write_corpus(tmp_path, DOCUMENTS)
    with pytest.raises(UserError, match=r"has 100 entries, the model's embedding 99 rows: set --data\.tokenizer"):
        open_causal_corpus(prefix, tokenizer, model_rows=99, verify=False)


def test_a_tokenizer_that_is_saved_again_is_read_again(corpus):
    prefix, tokenizer = corpus
    TokenCorpus.open(prefix, tokenizer, verify_hashes=False)
    path = tokenizer / "tokenizer.json"
    path.write_text(path.read_text().replace('"w50"', '"elma"'))
    assert "SHA-256 differs" in refusal(prefix, tokenizer)
