"""The data layer on the real sample: what `mecellem prepare tokenize` writes is what training reads."""

import numpy as np
import pytest

from megatron_recipes.data.batches import MlmDataset, validation_batches
from megatron_recipes.data.corpus import SpecialTokens, TokenCorpus
from megatron_recipes.data.masking import IGNORE_INDEX

pytestmark = pytest.mark.slow


def test_one_epoch_of_real_text(sample_bins, sample_tokenizer):
    corpus = TokenCorpus.open(sample_bins / "train", sample_tokenizer, verify_hashes=True)
    special = SpecialTokens.read(sample_tokenizer)
    data = MlmDataset(corpus, special, 128, 0.30, seed=1, shuffle=True)
    counts = np.zeros(special.vocab_size, dtype=np.int64)
    masked = 0
    for start in range(0, data.windows, 256):
        batch = data.micro_batch(np.arange(start, min(start + 256, data.windows)))
        tokens = np.where(batch.labels != IGNORE_INDEX, batch.labels, batch.input_ids)
        counts += np.bincount(tokens.ravel(), minlength=special.vocab_size)
        masked += int((batch.labels != IGNORE_INDEX).sum())
    expected = np.bincount(corpus.tokens, minlength=special.vocab_size)
    expected[special.cls] = corpus.documents
    missing = expected - counts
    assert missing.min() >= 0 and missing.sum() < 128
    ordinary = counts.sum() - counts[list(special.ids)].sum()
    assert masked / ordinary == pytest.approx(0.30, abs=0.002)


def test_validation_of_real_text_reads_back_as_text(sample_bins, sample_tokenizer):
    from tokenizers import Tokenizer

    corpus = TokenCorpus.open(sample_bins / "validation", sample_tokenizer, verify_hashes=True)
    special = SpecialTokens.read(sample_tokenizer)
    data = MlmDataset(corpus, special, 128, 0.15, seed=1, shuffle=False)
    batches = list(validation_batches(data, 10**9, 32, 0, 1))
    tokens = np.concatenate([np.where(b.labels != IGNORE_INDEX, b.labels, b.input_ids).ravel() for b in batches])
    tokenizer = Tokenizer.from_file(str(sample_tokenizer / "tokenizer.json"))
    starts = corpus.document_starts
    first_documents = corpus.tokens[: starts[20]].tolist()
    assert tokenizer.decode(tokens[: starts[20] + 20].tolist()) == tokenizer.decode(first_documents)
    assert (tokens == special.cls).sum() == corpus.documents
