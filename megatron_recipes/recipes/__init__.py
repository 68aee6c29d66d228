"""One runnable file per run: constants on top, then `recipe() -> RunConfig`. A new file here is a new recipe.

Data lie where `mecellem tokenizer train` and `mecellem prepare tokenize` are told to put them, by default `data/`;
`--data.train` and its neighbours name other places. Decoders read where their corpora are from a curriculum, by default one
of `megatron_recipes/curricula/`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

from mecellem.errors import UserError
from megatron_recipes.config import RunConfig

CURRICULA = Path(__file__).resolve().parents[1] / "curricula"  # found from any folder in which the command is run
RECIPES: tuple[str, ...] = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def find_recipe(name: str) -> Callable[[], RunConfig]:
    """The `recipe` function of the file `name`.py in this folder. Raises `UserError` that lists the known ones."""
    if name not in RECIPES:
        raise UserError(f"`{name}` is not a recipe: choose one of {', '.join(RECIPES)}")
    recipe: Callable[[], RunConfig] = importlib.import_module(f"{__name__}.{name}").recipe
    return recipe
