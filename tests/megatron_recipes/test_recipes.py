import subprocess
import sys
from pathlib import Path

import pytest

from mecellem.errors import UserError
from megatron_recipes import recipes
from megatron_recipes.recipes import RECIPES, find_recipe

PAPER = {  # model cards: layers, hidden, GeGLU half-width, heads, sequence length, global RoPE theta
    "mursit_base": (22, 768, 1_152, 12, 1_024, 10_000.0),
    "mursit_large": (28, 1_024, 2_624, 16, 2_048, 20_000.0),
}


def test_every_file_is_a_recipe():
    files = {path.stem for path in Path(recipes.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(RECIPES) == files >= {"mursit_tiny", "mursit_base", "mursit_large"}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_valid_and_named_after_its_file(name):
    config = find_recipe(name)()
    assert config.name == name
    config.check(world_size=1)
    config.check(world_size=2)
    assert config.steps // config.checkpoint_interval >= 4


@pytest.mark.parametrize("name", PAPER)
def test_shapes_are_the_papers(name):
    config = find_recipe(name)()
    model = config.model
    shape = (model.num_layers, model.hidden_size, model.ffn_hidden_size, model.num_attention_heads)
    assert (*shape, config.data.sequence_length, model.global_rope_theta) == PAPER[name]
    assert model.vocab_size == 59_008 and model.head_dim == 64 and model.local_attention == 128
    assert config.schedule.train_tokens == 112_700_000_000
    assert config.data.mask_probability == 0.30 and config.data.validation_mask_probability == 0.15
    assert config.tokens_per_step == 4_718_592
    for gpus in (4, 8, 16, 64):
        config.check(world_size=gpus)


def test_unknown_recipe_lists_the_known():
    with pytest.raises(UserError, match=r"`mursit_huge` is not a recipe: choose one of .*mursit_base"):
        find_recipe("mursit_huge")


def test_recipes_import_no_torch():
    code = (
        "import sys; from megatron_recipes.recipes import RECIPES, find_recipe; [find_recipe(n)() for n in RECIPES]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
