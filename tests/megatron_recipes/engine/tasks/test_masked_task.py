from dataclasses import replace

import numpy as np
import pytest
from tiny_corpora import SEP, write_corpus

from mecellem.errors import UserError
from megatron_recipes.engine.tasks.masked import MaskedTask
from megatron_recipes.recipes import find_recipe

DOCUMENTS = [[*range(5 + i % 50, 15 + i % 50), SEP] for i in range(40)]


@pytest.fixture
def config(tmp_path):
    recipe = find_recipe("mursit_tiny")()
    train, tokenizer = write_corpus(tmp_path / "a", DOCUMENTS)
    validation, _ = write_corpus(tmp_path / "b", DOCUMENTS[:7])
    data = replace(recipe.data, train=train, validation=validation, tokenizer=tokenizer, sequence_length=64)
    return replace(recipe, data=data, model=replace(recipe.model, vocab_size=100))


def test_opens_both_splits_as_the_configuration_says(config):
    task = MaskedTask(config, verify=True)
    train, validation = task.training, task.validation
    assert (train.windows, train.shuffle) == (40 * 12 // 64, True)
    assert (validation.windows, validation.shuffle) == (-(-7 * 12 // 64), False)
    shares = [
        np.mean([(data.micro_batch(np.arange(i, i + 6)).labels >= 0).mean() for i in range(0, 600, 6)])
        for data in (train, replace_probability(config, 0.15))
    ]
    assert shares[0] == pytest.approx(0.30 * 10 / 12, abs=0.02)  # two of a document's twelve tokens are special
    assert shares[1] == pytest.approx(0.15 * 10 / 12, abs=0.02)


def replace_probability(config, probability):
    return MaskedTask(replace(config, data=replace(config.data, mask_probability=probability)), verify=False).training


def test_another_vocabulary_than_the_models(config):
    with pytest.raises(UserError, match=r"has 100 entries, the model 8,192: set --model\.vocab-size 100"):
        MaskedTask(replace(config, model=replace(config.model, vocab_size=8192)), verify=False)


def test_a_corpus_shorter_than_a_sequence(config):
    shorter = replace(config, data=replace(config.data, train=config.data.validation, sequence_length=128))
    with pytest.raises(UserError, match=r"84 tokens, fewer than a sequence of 128.*--data\.sequence-length"):
        MaskedTask(shorter, verify=False)


def test_changed_bytes_are_found_where_asked(config):
    path = config.data.validation.with_suffix(".bin")
    path.write_bytes(b"\x07" + path.read_bytes()[1:])
    MaskedTask(config, verify=False)
    with pytest.raises(UserError, match="SHA-256 differs"):
        MaskedTask(config, verify=True)
