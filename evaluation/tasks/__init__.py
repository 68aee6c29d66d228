"""Tasks of evaluation, each one a task of mteb: local ones from packages, a corpus folder's, and Turkish ones of the hub."""

from evaluation.tasks.find import Tasks, find_tasks

__all__ = ["Tasks", "find_tasks"]
