"""What contrastive training and distillation share: the library's trainer, its run, checkpoints and pictures."""
