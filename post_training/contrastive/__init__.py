"""Contrastive training of embedding models with sentence-transformers."""

from post_training.contrastive.command import main
from post_training.contrastive.record import TRAINING_RECORD
from post_training.contrastive.settings import FULL, ContrastiveSettings
from post_training.contrastive.train import ContrastiveResult, train_contrastive

__all__ = [
    "FULL",
    "TRAINING_RECORD",
    "ContrastiveResult",
    "ContrastiveSettings",
    "main",
    "train_contrastive",
]
