from __future__ import annotations

import subprocess
import sys

import pytest

from mecellem.errors import UserError
from post_training.contrastive.settings import FULL, ContrastiveSettings, check_widths


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"steps": 0}, "--steps must be at least 1"),
        ({"batch_size": 1}, "--batch-size must be at least 2"),
        ({"lr": 0.0}, "--lr"),
        ({"epochs": 0, "steps": None}, "--epochs"),
        ({"epochs": 2.0}, "--epochs has no effect beside --steps"),
        ({"crop_largest_share": 2}, "share"),
        ({"query_seq_length": 17}, "--query-seq-length 17 is above --train-seq-length 16"),
        ({"saved_seq_length": 0}, "--saved-seq-length"),
        ({"mini_batch_size": 8}, "--mini-batch-size is for cached losses and --loss is mnrl"),
        ({"guide_margin": 0.1, "loss": "cached-mnrl"}, "--guide-margin is for guided losses"),
        ({"guide_margin_strategy": "relative"}, "--guide-margin-strategy is for guided losses"),
        ({"guide_margin": -0.1, "loss": "gist"}, "--guide-margin must be at least 0"),
        ({"matryoshka_dims": (64, 64)}, "different widths"),
        ({"matryoshka_dims": (64, 0)}, "different widths of at least 1"),
        ({"weight_decay": -1.0}, "--weight-decay"),
    ],
)
def test_bad_and_idle_settings_name_the_flag(values, sentence):
    with pytest.raises(UserError, match=sentence):
        ContrastiveSettings(**values)


def test_what_depends_on_the_data():
    with pytest.raises(UserError, match=r"--window-words is for crops of a corpus"):
        ContrastiveSettings(window_words=8).check_source(crops=False)
    with pytest.raises(UserError, match=r"--steps is needed for crops"):
        FULL.check_source(crops=True)
    with pytest.raises(UserError, match=r"--loss gist takes one hard negative a pair and the data has 2"):
        ContrastiveSettings(loss="gist").check_negatives(2)
    ContrastiveSettings(loss="cached-gist").check_negatives(2)
    with pytest.raises(UserError, match=r"--loss gist needs --guide"):
        ContrastiveSettings(loss="gist").check_guide(None)
    with pytest.raises(UserError, match=r"--guide has no effect with --loss mnrl"):
        ContrastiveSettings().check_guide("guide")


def test_widths():
    check_widths((), 64)
    check_widths((64, 32), 64)
    with pytest.raises(UserError, match=r"--matryoshka-dims 128 is above the width of the model's vectors, which is 64"):
        check_widths((128, 64), 64)
    with pytest.raises(UserError, match=r"lacks 64, the model's full width"):
        check_widths((32,), 64)


@pytest.mark.parametrize(("room", "flag"), [("contrastive", "--train-seq-length"), ("mining", "--relative-margin")])
def test_help_imports_nothing_heavy(room, flag):
    program = (
        f"import sys\nfrom post_training.{room} import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pydantic', 'pyarrow', 'datasets', 'megatron_recipes'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and flag in done.stdout, done.stderr
