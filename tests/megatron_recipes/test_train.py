"""`mecellem train`: what it prints, what it starts, and that its validation loss is the exported model's."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from training_runs import Runner, losses, metrics, validation_losses

from mecellem.cli import main
from mecellem.errors import UserError
from megatron_recipes import train
from megatron_recipes.config import flatten
from megatron_recipes.recipes import RECIPES, find_recipe


@pytest.mark.parametrize(
    ("recipe", "parameters"), [("mursit_tiny", "5."), ("mursit_base", "155.6M"), ("mursit_large", "403.6M")]
)
def test_dry_run(recipe: str, parameters: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train.main([recipe, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert parameters in printed
    for word in ("steps", "FLOPs", "memory", "hours", "checkpoint"):
        assert word.lower() in printed.lower(), word
    assert not list(tmp_path.iterdir())


def test_dry_run_follows_the_flags(capsys):
    train.main(["mursit_base", "--dry-run", "--model.num-layers", "44", "--gpus", "16"])
    assert "155.6M" not in capsys.readouterr().out


def test_usage_lists_the_recipes(capsys):
    with pytest.raises(SystemExit) as caught:
        train.main(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in RECIPES)
    with pytest.raises(SystemExit) as caught:
        train.main([])
    assert caught.value.code == 2


@pytest.mark.parametrize("recipe_name", ["mursit_tiny", "qwen3_1p7b_cpt"])
def test_every_value_can_be_set(recipe_name: str):
    recipe = find_recipe(recipe_name)()
    for name, value in flatten(recipe).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            *parts, leaf = flag.removeprefix("--").split(".")
            line, expected = [flag if not value else "--" + ".".join([*parts, f"no-{leaf}"])], not value
        elif isinstance(value, int | float):
            line, expected = [flag, str(value + 1)], value + 1
        else:
            words = {
                "precision": "fp32",
                "layer_spec": "local",
                "model.family": "llama",
                "model.rope_scaling.rope_type": "yarn",
            }
            other = "True" if value is None else words.get(name, f"other/{name}")
            line, expected = [flag, other], True if value is None else type(value)(other)
        flags, unchanged = train.parse([recipe_name, *line])
        assert unchanged == recipe
        assert flatten(flags.config) == flatten(recipe) | {name: expected}


def test_nproc_contradicts_the_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="--nproc 4 but a launcher has started 2 ranks"):
        train.main(["mursit_tiny", "--out", str(tmp_path / "run"), "--nproc", "4"])


@pytest.mark.slow
def test_what_a_run_leaves_and_says(runner: Runner, tmp_path: Path):
    run = tmp_path / "run"
    output = runner(run, log_interval=2, validation_interval=4, checkpoint_interval=4)
    assert sorted(losses(run)) == [2, 4, 6] and sorted(validation_losses(run)) == [4, 6]
    last = metrics(run)[-1]
    assert f"validation at step 6: loss {last['validation_loss']:.4f}" in output
    assert "checkpoints: step_0000004, step_0000006 in" in output
    assert {path.name for path in run.iterdir()} == {"run.yaml", "metrics.jsonl", "tensorboard", "checkpoints"}
    line = next(item for item in metrics(run) if "loss" in item)
    assert line.keys() == {"step", "tokens", "loss", "lr", "grad_norm", "masked_tokens", "seconds", "tokens_per_second"}
    assert line["tokens"] == 2 * 1024 and 0.2 < line["masked_tokens"] / 1024 < 0.4


@pytest.mark.slow
def test_the_exported_model_has_the_validation_loss_that_the_run_recorded(runner: Runner, reference: Path, tmp_path: Path):
    """The same masked sequences, document by document, through transformers alone."""
    from transformers import AutoModelForMaskedLM

    from megatron_recipes.data.batches import MlmDataset, validation_batches
    from megatron_recipes.data.corpus import SpecialTokens, TokenCorpus

    assert main(["convert", "export", str(reference / "checkpoints" / "step_0000006"), str(tmp_path / "export")]) == 0
    hf = AutoModelForMaskedLM.from_pretrained(tmp_path / "export").eval()
    special = SpecialTokens.read(tmp_path / "export")
    corpus = TokenCorpus.open(runner.data / "validation", tmp_path / "export", verify_hashes=False)
    dataset = MlmDataset(corpus, special, 64, 0.15, seed=find_recipe("mursit_tiny")().seed, shuffle=False)
    total, count, right = 0.0, 0, 0
    with torch.no_grad():
        for batch in validation_batches(dataset, 20, 20, 0, 1):
            ids, labels = torch.from_numpy(batch.input_ids).flatten(), torch.from_numpy(batch.labels).flatten()
            for start, end in itertools.pairwise(batch.cu_seqlens.tolist()):
                masked = labels[start:end] >= 0
                if not masked.any():
                    continue
                logits, gold = hf(ids[None, start:end]).logits[0, masked], labels[start:end][masked]
                total += float(torch.nn.functional.cross_entropy(logits.double(), gold, reduction="sum"))
                right += int((logits.argmax(-1) == gold).sum())
                count += len(gold)
    recorded = metrics(reference)[-1]
    assert count == recorded["validation_tokens"]
    assert total / count == pytest.approx(recorded["validation_loss"], rel=1e-4)
    assert right / count == pytest.approx(recorded["validation_accuracy"], abs=2 / count)
    assert json.loads((tmp_path / "export" / "verification.json").read_text())["checkpoint_step"] == 6
