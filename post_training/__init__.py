"""Embedding models out of pre-trained ones: today contrastive training on crops of plain documents."""
