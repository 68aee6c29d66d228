"""The two datasets of a run, opened and checked against its tokenizer and its model."""

from __future__ import annotations

from mecellem.errors import UserError
from megatron_recipes.config import RunConfig
from megatron_recipes.data.batches import MlmDataset
from megatron_recipes.data.corpus import SpecialTokens, TokenCorpus


def open_datasets(config: RunConfig, verify: bool) -> tuple[MlmDataset, MlmDataset]:
    """Training and validation data. `verify` reads every byte against the manifest's hashes (rank 0 does)."""
    special = SpecialTokens.read(config.data.tokenizer)
    if special.vocab_size != config.model.vocab_size:
        raise UserError(
            f"the tokenizer in {config.data.tokenizer} has {special.vocab_size:,} entries, the model "
            f"{config.model.vocab_size:,}: set --model.vocab-size {special.vocab_size} or give another --data.tokenizer"
        )
    train = TokenCorpus.open(config.data.train, config.data.tokenizer, verify)
    validation = TokenCorpus.open(config.data.validation, config.data.tokenizer, verify)
    length, seed = config.data.sequence_length, config.seed
    return (
        MlmDataset(train, special, length, config.data.mask_probability, seed, shuffle=True),
        MlmDataset(validation, special, length, config.data.validation_mask_probability, seed, shuffle=False),
    )
