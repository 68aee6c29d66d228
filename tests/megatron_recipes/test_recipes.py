import subprocess
import sys
from pathlib import Path

import pytest

from mecellem.errors import UserError
from megatron_recipes import recipes
from megatron_recipes.plan import plan
from megatron_recipes.recipes import RECIPES, find_recipe

PAPER = {  # model cards: layers, hidden, GeGLU half-width, heads, sequence length, global RoPE theta
    "mursit_base": (22, 768, 1_152, 12, 1_024, 10_000.0),
    "mursit_large": (28, 1_024, 2_624, 16, 2_048, 20_000.0),
}

DECODERS = {  # config.json of the released models: layers, hidden, SwiGLU half-width, heads, key/value heads, head width, tied
    "qwen3_0p6b_cpt": (28, 1_024, 3_072, 16, 8, 128, True),
    "qwen3_1p7b_cpt": (28, 2_048, 6_144, 16, 8, 128, True),
    "qwen3_4b_cpt": (36, 2_560, 9_728, 32, 8, 128, True),
    "qwen3_8b_cpt": (36, 4_096, 12_288, 32, 8, 128, False),
    "smollm2_135m_cpt": (30, 576, 1_536, 9, 3, 64, True),
}


def test_every_file_is_a_recipe():
    files = {path.stem for path in Path(recipes.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(RECIPES) == files == {"mursit_tiny", *PAPER, *DECODERS}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_valid_and_named_after_its_file(name):
    config = find_recipe(name)()
    assert config.name == name
    replicas = config.parallel.model_ranks
    config.check(world_size=replicas)
    config.check(world_size=2 * replicas)
    assert plan(config, gpus=replicas).steps // config.checkpoint_interval >= 4


@pytest.mark.parametrize("name", DECODERS)
def test_decoder_shapes_are_those_of_the_released_config_files(name):
    config = find_recipe(name)()
    model = config.model
    shape = (model.num_layers, model.hidden_size, model.ffn_hidden_size, model.num_attention_heads, model.num_query_groups)
    assert (*shape, model.head_dim, model.tie_embeddings) == DECODERS[name]
    llama = model.family == "llama"
    assert (model.vocab_size, model.max_sequence_length) == ((49_152, 8_192) if llama else (151_936, 40_960))
    assert (model.rope_theta, model.norm_epsilon) == ((1e5, 1e-5) if llama else (1e6, 1e-6))
    assert config.init_from is not None  # nothing here is meant to start from random weights


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
