"""Hugging Face <-> Megatron, both ways, verified."""
