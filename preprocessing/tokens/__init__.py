"""Documents to token ids in Megatron's `.bin/.idx`: gigatoken with tokenizers as its oracle, shards and their merging."""
