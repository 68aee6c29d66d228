"""`mecellem train`: what it prints, what it starts, and that its validation loss is the exported model's."""

import dataclasses
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
from megatron_recipes.engine.checkpoint import CheckpointMeta
from megatron_recipes.recipes import RECIPES, find_recipe
from megatron_recipes.run_folder import CHECKPOINT


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
            if name == "init_from":  # which the encoder's recipe leaves out
                expected = Path(other)
        flags, unchanged = train.parse([recipe_name, *line])
        assert unchanged == recipe
        assert flatten(flags.config) == flatten(recipe) | {name: expected}


@pytest.mark.parametrize("flag", [["--curriculum", "x.yaml"], ["--micro_batch_tokens", "8"], ["--accept-changed-curriculum"]])
def test_a_decoders_flag_on_an_encoders_recipe_names_the_decoders(flag: list[str]):
    with pytest.raises(UserError) as caught:
        train.main(["mursit_tiny", "--dry-run", *flag])
    message = str(caught.value)
    assert message.startswith(f"{flag[0].partition('=')[0]} is for decoder recipes, which train through a curriculum")
    named = message.rpartition("choose one of ")[2].split(", ")
    assert set(named) == {name for name in RECIPES if name.endswith("_cpt")}


def test_an_encoders_folder_may_be_called_curriculum():
    assert train.parse(["mursit_tiny", "--out", "curriculum"])[0].out == Path("curriculum")


def test_the_spread_of_random_weights_with_weights_to_start_from(capsys):
    with pytest.raises(UserError, match=r"--model\.init-std draws random weights, .*: remove it, or set --init-from None"):
        train.main(["qwen3_0p6b_cpt", "--dry-run", "--model.init-std", "0.02"])
    flags, _ = train.parse(["qwen3_0p6b_cpt", "--model.init-std", "0.03", "--init-from", "None"])
    train.refuse_idle_flags({"model.init_std", "init_from"}, flags.config, flags)


@pytest.mark.parametrize("flag", ["--gpus", "--mfu", "--peak-tflops", "--gpu-memory-gb"])
def test_what_only_a_plan_needs_is_refused_without_one(flag: str, tmp_path: Path):
    with pytest.raises(UserError, match=f"{flag} is for the plan that --dry-run shows"):
        train.main(["mursit_tiny", "--out", str(tmp_path / "run"), flag, "1"])
    assert not (tmp_path / "run").exists()


def test_a_plan_starts_no_ranks():
    with pytest.raises(UserError, match=r"--nproc starts ranks and --dry-run starts none: .* --gpus"):
        train.main(["mursit_tiny", "--dry-run", "--nproc", "16"])


QWEN = "qwen3_0p6b_cpt"


def start_of(folder: Path, **changes: object) -> list[str]:
    """The flag for a checkpoint (as far as it is looked at before its tensors) of that recipe's model with other values."""
    values = {"step": 7, "tokens": 5_000, "precision": "bf16", "tokenizer_sha256": "0" * 64, "name": "Qwen3-0.6B-Base"}
    model = dataclasses.replace(find_recipe(QWEN)().model, **changes)
    folder.mkdir()
    (folder / CHECKPOINT).write_text(CheckpointMeta(**values, model=model, layout={}, versions={}).to_json({}))
    return ["--init-from", str(folder)]


def test_dry_run_says_where_the_weights_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    last = tmp_path / "run" / "checkpoints" / "step_0000007"
    last.parent.mkdir(parents=True)
    start_of(last)
    for flags, words in (
        (start_of(tmp_path / "start"), f"Weights: {tmp_path / 'start'} (Qwen3-0.6B-Base after 5,000 tokens)."),
        (["--init-from", "None"], "Weights: random."),
        ([], "Weights: ckpt/qwen3_0p6b, which is not there yet: `mecellem convert import` makes it"),
        (["--out", str(tmp_path / "new")], "Weights: ckpt/qwen3_0p6b, which is not there yet"),
        (["--out", str(tmp_path / "run")], f"Weights: the run goes on from {last}."),
    ):
        assert train.main([QWEN, "--dry-run", *flags]) == 0
        assert words in capsys.readouterr().out
    train.main(["mursit_tiny", "--dry-run"])
    assert "Weights" not in capsys.readouterr().out


def test_dry_run_refuses_what_the_run_would_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--init-from: nowhere is not a checkpoint"):
        train.main([QWEN, "--dry-run", "--init-from", "nowhere"])
    (tmp_path / "ckpt").mkdir()
    start_of(tmp_path / "ckpt" / "qwen3_0p6b", num_layers=5)  # the recipe's own
    with pytest.raises(UserError, match="num_layers 5"):
        train.main([QWEN, "--dry-run"])
    flags = start_of(tmp_path / "start")
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"made with another tokenizer than --data\.tokenizer"):
        train.main([QWEN, "--dry-run", *flags, "--data.tokenizer", "tokenizer"])


def test_a_start_from_another_model_names_every_difference_and_the_flags_that_mend_it(tmp_path: Path):
    changes = {"max_sequence_length": 32_768, "tie_embeddings": False, "init_std": 0.5}
    flags = start_of(tmp_path / "start", **changes)
    with pytest.raises(UserError) as caught:
        train.main([QWEN, "--dry-run", *flags])
    sentence, _, mend = str(caught.value).partition(" or set ")
    assert "max_sequence_length 32768 (the run: 40960), tie_embeddings False (the run: True): choose" in sentence
    assert mend == "--model.max-sequence-length 32768 --model.no-tie-embeddings"  # and not a word of RoPE
    assert train.main([QWEN, "--dry-run", *flags, *mend.split()]) == 0
    flags = start_of(tmp_path / "other", rope_theta=2e6, family="llama")
    with pytest.raises(UserError, match=r"or set --model\.family llama --model\.rope-theta 2000000\.0 \(a stage of the curr"):
        train.main([QWEN, "--dry-run", *flags])


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
    assert {path.name for path in run.iterdir()} == {
        *("run.yaml", "metrics.jsonl", "tensorboard", "checkpoints", "finished.json")
    }
    line = next(item for item in metrics(run) if "loss" in item)
    assert line.keys() == {"step", "tokens", "loss", "lr", "grad_norm", "masked_tokens", "seconds", "tokens_per_second"}
    assert line["tokens"] == 2 * 1024 and 0.2 < line["masked_tokens"] / 1024 < 0.4


@pytest.mark.slow
def test_a_run_keeps_the_newest_checkpoints_and_resumes_from_them(runner: Runner, tmp_path: Path):
    run = tmp_path / "run"
    runner(run, checkpoint_interval=2, keep_checkpoints=2)
    assert sorted(path.name for path in (run / "checkpoints").glob("step_*")) == ["step_0000004", "step_0000006"]
    assert "nothing is left to train" in runner(run, checkpoint_interval=2, keep_checkpoints=1)


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
