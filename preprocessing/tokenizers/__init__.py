"""Tokenizers beside one another: patterns, samples to train on, measures, the comparison and the report of one."""
