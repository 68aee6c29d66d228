"""The demo's command lines and what it takes for finished; the demo itself is tried as a whole elsewhere."""

import json
from pathlib import Path

import pytest

from mecellem import demo
from mecellem.cli import find_command
from mecellem.errors import UserError
from megatron_recipes.recipes import find_recipe
from megatron_recipes.train import parse


@pytest.mark.parametrize("tokens", [40_000, 400_000, 3_000_000, 12_000_000])
def test_a_short_run_keeps_the_proportions(tokens: int):
    recipe = find_recipe("mursit_tiny")()
    config = parse(["mursit_tiny", *demo.short_run(tokens)])[0].config
    config.check(2)
    assert config.schedule.train_tokens == tokens
    assert config.schedule.warmup_tokens / tokens == pytest.approx(recipe.schedule.warmup_tokens / recipe.schedule.train_tokens)
    assert config.schedule.decay_tokens / tokens == pytest.approx(recipe.schedule.decay_tokens / recipe.schedule.train_tokens)
    assert config.steps // config.checkpoint_interval >= 2
    assert config.steps // config.validation_interval >= 4
    assert (config.model, config.optimizer) == (recipe.model, recipe.optimizer)


def test_the_recipe_itself_is_a_run_of_its_own_length():
    recipe = find_recipe("mursit_tiny")()
    config = parse(["mursit_tiny", *demo.short_run(recipe.schedule.train_tokens)])[0].config
    assert (config.schedule, config.checkpoint_interval) == (recipe.schedule, recipe.checkpoint_interval)


def test_every_step_is_a_command_and_each_reads_what_an_earlier_one_wrote(tmp_path: Path):
    lines = [*demo.preparation(tmp_path, tmp_path / "cache", "no"), demo.training(tmp_path, 2, [])]
    words = [" ".join(find_command(line)[0]) for line in lines]
    assert words == ["corpus fetch", "tokenizer train", "prepare tokenize", "prepare tokenize", "train"]
    written = {line[line.index("--out") + 1] for line in lines}
    for line in lines:
        for flag in ("--corpus", "--held-out", "--input", "--tokenizer", "--data.tokenizer", "--data.train"):
            if flag in line:
                path = Path(line[line.index(flag) + 1])
                assert {str(path), str(path.parent)} & written, (flag, path)


@pytest.mark.parametrize("embedding", ["cache/embedding-1", None])
def test_what_was_selected_is_measured_by_commands_that_read_it(tmp_path: Path, embedding: str | None):
    found = {"best_embedding": embedding, "settings": {"max_seq_length": 128}, "test": {"tasks": [{}] if embedding else []}}
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "selection.json").write_text(json.dumps(found))
    lines = demo.measurement(tmp_path)
    words = [" ".join(find_command(line)[0]) for line in lines]
    assert words == (["evaluate"] if embedding else []) + ["evaluate fill-mask"]
    assert all(str(tmp_path / "corpus") in line for line in lines) and str(tmp_path / "export") in lines[-1]
    if embedding:
        assert {f"export={tmp_path / 'export'}", f"post_trained={embedding}"} < set(lines[0])
        assert lines[0][lines[0].index("--max-seq-length") + 1] == "128", "select's scores are found again"


def test_the_training_fits_its_tokenizer_and_ranks(tmp_path: Path):
    flags, _ = parse(demo.training(tmp_path, 2, demo.short_run(400_000))[1:])
    assert flags.out == tmp_path / "run"
    assert flags.nproc == flags.config.parallel.tensor == 2
    assert flags.config.model.vocab_size == demo.VOCABULARY
    assert flags.config.model.max_sequence_length == demo.POSITIONS
    flags.config.check(2)


def run_folder(folder: Path, steps: int, done: int) -> Path:
    folder.mkdir()
    (folder / "run.yaml").write_text(f"steps: {steps}\nconfig: {{}}\norigins: {{}}\ntokenizer_sha256: ''\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"step": step + 1, "loss": 1.0}) + "\n" for step in range(done)))
    return folder


def test_unfinished(tmp_path: Path):
    assert demo.unfinished(run_folder(tmp_path / "done", 5, 5)) is None
    assert demo.unfinished(run_folder(tmp_path / "half", 5, 3)) == "training stopped at step 3 of 5"
    assert demo.unfinished(run_folder(tmp_path / "none", 5, 0)) == "training stopped at step 0 of 5"
    # a signal while the ranks start leaves no run.yaml: the demo was stopped, nothing is wrong with its input
    assert demo.unfinished(tmp_path) == "training stopped before its first step"


def test_a_step_that_fails_stops_the_demo(capsys):
    with pytest.raises(UserError, match="is not a recipe"):
        demo.run_step(["train", "mursit_huge"], 0.0)
    assert "$ mecellem train mursit_huge" in capsys.readouterr().out


def test_a_step_that_ends_with_a_code_stops_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mecellem.doctor.main", lambda argv: 3)
    with pytest.raises(UserError, match="ended with code 3: mend what it says and run `mecellem demo` again"):
        demo.run_step(["doctor"], 0.0)
