"""Offline distillation: a teacher's vectors once, then a student that is trained to give the same ones."""
