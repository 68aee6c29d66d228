"""Readers of raw text: one file a kind of source; what cannot be read is located and set aside."""
