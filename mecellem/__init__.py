"""Mecellem: train language models for one language and one domain with Megatron-Core, on a laptop or on a cluster."""

__version__ = "0.2.0"
