"""How tests score a task."""


def score(task, encoder, split="test"):
    """A task's scores of its Turkish part."""
    scores = task.evaluate(encoder, split, encode_kwargs={"batch_size": 16})
    (subset,) = scores
    return scores[subset]
