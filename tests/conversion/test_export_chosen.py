"""`convert export RUN OUT --chosen`: the checkpoint that `mecellem select` marked (both run in test_slurm_pipeline.py)."""

from pathlib import Path

import pytest

from conversion.export import chosen_checkpoint
from mecellem.errors import UserError
from megatron_recipes.retention import CHOSEN, keep


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for step in (2, 4, 6):
        (tmp_path / "run" / "checkpoints" / f"step_{step:07d}").mkdir(parents=True)
    return tmp_path / "run"


def test_the_marked_checkpoint_is_found_beside_others_that_are_kept(run: Path):
    checkpoints = run / "checkpoints"
    keep(checkpoints / "step_0000002", "for a paper")
    for step in (6, 4):  # a later choice takes the place of an earlier one
        keep(checkpoints / f"step_{step:07d}", f"{CHOSEN} by retrieval, weights 0123", instead_of=CHOSEN)
    assert chosen_checkpoint(run) == checkpoints / "step_0000004"


def test_where_nothing_was_chosen_a_sentence_says_so(run: Path):
    keep(run / "checkpoints" / "step_0000002", "for a paper")
    with pytest.raises(UserError, match=r"no checkpoint of .*/run has been chosen: `mecellem select .*/run` does"):
        chosen_checkpoint(run)
    keep(run / "checkpoints" / "step_0000004", CHOSEN)
    (run / "checkpoints" / "step_0000004").rmdir()
    with pytest.raises(UserError, match=r"keep\.json: step_0000004 was chosen and is gone: `mecellem select"):
        chosen_checkpoint(run)
    (run / "checkpoints" / "step_0000006" / "mecellem.json").touch()
    with pytest.raises(UserError, match="is a checkpoint already: leave --chosen out, or give its run"):
        chosen_checkpoint(run / "checkpoints" / "step_0000006")
