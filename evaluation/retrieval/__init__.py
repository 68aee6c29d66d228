"""Retrieval on real Turkish tasks built from held-out text: tasks, BM25, dense vectors, metrics."""
