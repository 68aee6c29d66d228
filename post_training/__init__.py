"""Embedding models out of pre-trained ones: contrastive training, mining of hard negatives, distillation of a teacher."""
