from dataclasses import replace
from pathlib import Path

import pytest
from tiny_corpora import SEP, write_corpus

from megatron_recipes.data.curriculum import Curriculum
from megatron_recipes.engine.tasks.causal import CausalTask
from megatron_recipes.recipes import find_recipe

CURRICULUM = """
stages:
  - name: only
    tokens: 128
    seq_len: 16
    global_batch_tokens: 64
    lr: 1.0e-3
    sources:
      - {path: LAW, weight: 1.0}
"""


def test_a_curriculum_that_is_edited_as_the_run_starts_is_recorded_as_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    law, tokenizer = write_corpus(tmp_path / "law", [[*range(5, 25), SEP] for _ in range(40)])
    validation, _ = write_corpus(tmp_path / "validation", [[*range(30, 60), SEP] for _ in range(5)])
    path = tmp_path / "curriculum.yaml"
    path.write_text(CURRICULUM.replace("LAW", str(law)))
    read_text = Path.read_text

    def read_then_edited(self: Path, *arguments: str, **keywords: str) -> str:
        text = read_text(self, *arguments, **keywords)
        if self == path:
            path.write_text(text.replace("tokens: 128", "tokens: 192"))
        return text

    monkeypatch.setattr(Path, "read_text", read_then_edited)
    recipe = find_recipe("smollm2_135m_cpt")()
    data = replace(recipe.data, tokenizer=tokenizer, validation=validation)
    task = CausalTask(replace(recipe, data=data, curriculum=path), verify=False)
    recorded = task.extent().curriculum
    assert recorded is not None and task.steps == 2
    assert Curriculum.parse(recorded, path) == task.curriculum
