"""run.yaml: every value of the run and where it came from; what a resumed run may change and what not."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from training_runs import SMALL

from mecellem.errors import UserError
from megatron_recipes import run_folder
from megatron_recipes.config import EncoderRun, flatten
from megatron_recipes.recipes import find_recipe
from megatron_recipes.run_folder import Extent, check_same, nested, read_metrics, read_run, record


@pytest.fixture
def config() -> EncoderRun:
    return find_recipe("mursit_tiny")()


def extent(config: EncoderRun, **corpora: str) -> Extent:
    return Extent(config.steps, config.steps * config.tokens_per_step, config.tokens_per_step, {"data.train": "c", **corpora})


def written(run: Path, config: EncoderRun, *command_line: str) -> dict:
    record(run, config, extent(config), "mursit_tiny", 2, "a" * 64, command_line)
    return read_run(run)


def leaves(tree: dict, prefix: str = "") -> dict:
    found = {}
    for name, value in tree.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def test_every_leaf_and_its_origin(config: EncoderRun, tmp_path: Path):
    given = replace(config, seed=7, optimizer=replace(config.optimizer, lr=1e-4))
    run = written(tmp_path, given, "seed", "optimizer.lr")
    values = leaves(run["config"])
    assert values == {name: str(value) if isinstance(value, Path) else value for name, value in flatten(given).items()}
    assert run["origins"].keys() == values.keys()
    assert set(run["origins"].values()) == {"command line", "recipe mursit_tiny", "default"}
    assert {name for name, origin in run["origins"].items() if origin == "command line"} == {"seed", "optimizer.lr"}
    assert run["origins"]["optimizer.beta2"] == "default" and run["origins"]["model.hidden_size"] == "recipe mursit_tiny"
    assert (run["steps"], run["tokens_per_step"], run["world_size"]) == (given.steps, given.tokens_per_step, 2)
    assert {"python", "torch", "megatron-core"} <= run["versions"].keys()


@pytest.mark.slow
def test_a_real_run_names_its_flags(reference: Path):
    run = read_run(reference)
    given = {name for name, origin in run["origins"].items() if origin == "command line"}
    defaults = leaves(run["config"])
    assert given == {name.replace("-", "_") for name in SMALL} | {"data.tokenizer", "data.train", "data.validation"}
    assert defaults["precision"] == "fp32" and defaults["optimizer.lr"] == 3e-3


def test_the_same_values_again(config: EncoderRun, tmp_path: Path):
    written(tmp_path, config)
    assert written(tmp_path, config)["config"]["seed"] == config.seed


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("parallel", {"tensor": 2, "pipeline": 3, "sequence": True}),
        ("schedule", {"micro_batch_size": 1}),
        ("data", {"train": Path("moved/train"), "tokenizer": Path("moved")}),
        (
            "",
            {
                "layer_spec": "local",
                "log_interval": 5,
                "checkpoint_interval": 5,
                "validation_interval": 5,
                "keep_checkpoints": 2,
            },
        ),
    ],
)
def test_what_may_change(part: str, values: dict, config: EncoderRun, tmp_path: Path):
    written(tmp_path, config)
    changed = replace(config, **{part: replace(getattr(config, part), **values)}) if part else replace(config, **values)
    check_same(tmp_path, changed, extent(changed), "a" * 64)


MAY_CHANGE = {
    *("parallel.tensor", "parallel.pipeline", "parallel.sequence", "parallel.context", "layer_spec"),
    "schedule.micro_batch_size",
    *("log_interval", "checkpoint_interval", "validation_interval", "keep_checkpoints"),
    *("data.train", "data.validation", "data.tokenizer"),
}


def other(value: object) -> object:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"other {value}"


@pytest.mark.parametrize("name", sorted(flatten(find_recipe("mursit_tiny")()).keys() - MAY_CHANGE))
def test_what_may_not_change_is_named(name: str, config: EncoderRun, tmp_path: Path):
    written(tmp_path, config)
    *parts, leaf = name.split(".")
    holder = getattr(config, parts[0]) if parts else config
    holder = replace(holder, **{leaf: other(getattr(holder, leaf))})
    changed = replace(config, **{parts[0]: holder}) if parts else holder
    with pytest.raises(UserError) as caught:
        check_same(tmp_path, changed, extent(changed), "a" * 64)
    assert f"was started with --{name.replace('_', '-')} " in str(caught.value) and "choose another --out" in str(caught.value)


def test_another_tokenizer(config: EncoderRun, tmp_path: Path):
    written(tmp_path, config)
    with pytest.raises(UserError, match="was started with another tokenizer than"):
        check_same(tmp_path, config, extent(config), "b" * 64)


def test_a_folder_without_a_run(config: EncoderRun, tmp_path: Path):
    check_same(tmp_path, config, extent(config), "a" * 64)
    with pytest.raises(UserError, match=r"is not a run: it has no run\.yaml"):
        read_run(tmp_path)


@pytest.mark.parametrize("text", ["a: [", "", "- 1\n", "config: {}\n"])
def test_a_broken_file(text: str, config: EncoderRun, tmp_path: Path):
    (tmp_path / run_folder.FILE).write_text(text)
    with pytest.raises(UserError, match=r"run\.yaml"):
        check_same(tmp_path, config, extent(config), "a" * 64)


def test_nested():
    assert nested({"a.b": 1, "a.c": Path("x/y"), "d": None}) == {"a": {"b": 1, "c": "x/y"}, "d": None}
    assert yaml.safe_load(yaml.safe_dump(nested({"a.b": 1e-3}))) == {"a": {"b": 1e-3}}


@pytest.mark.parametrize("broken", ["{", "[1]", '{"loss": 1}', '{"step": "7"}'])
def test_a_broken_line_of_the_metrics_is_named(broken: str, tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{broken}\n{{"step": 3}}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2 is broken"):
        read_metrics(tmp_path)


def test_other_tokens_than_the_run_was_started_with(config: EncoderRun, tmp_path: Path):
    written(tmp_path, config)
    with pytest.raises(UserError, match=r"other tokens in data\.train"):
        check_same(tmp_path, config, extent(config, **{"data.train": "d"}), "a" * 64)


def test_each_replaced_curriculum_is_kept_with_its_last_step(config: EncoderRun, tmp_path: Path):
    for text, done in (("first", 0), ("first", 3), ("second", 4), ("second", 5), ("third", 9)):
        changed = replace(extent(config), curriculum=text)
        record(tmp_path, config, changed, "mursit_tiny", 1, "a" * 64, (), done)
    assert read_run(tmp_path)["curriculum"] == "third"
    assert read_run(tmp_path)["earlier_curricula"] == [
        {"replaced_after_step": 4, "curriculum": "first"},
        {"replaced_after_step": 9, "curriculum": "second"},
    ]
