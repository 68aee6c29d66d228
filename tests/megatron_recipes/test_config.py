from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st

from mecellem.errors import UserError
from megatron_recipes.config import EncoderRun, RopeScaling, flatten, named_in, origins
from megatron_recipes.recipes import find_recipe


@pytest.fixture
def config():
    return find_recipe("mursit_tiny")()


def changed(config, **leaves):
    """`changed(config, model__num_layers=5)`: the configuration with other leaves."""
    for name, value in leaves.items():
        part, _, leaf = name.partition("__")
        config = replace(config, **{part: replace(getattr(config, part), **{leaf: value}) if leaf else value})
    return config


def test_parts_are_frozen(config):
    for part in (config, config.model, config.data, config.parallel, config.optimizer, config.schedule):
        with pytest.raises((FrozenInstanceError, TypeError)):
            part.anything = 1


BAD = [
    ({"model__num_layers": 0}, "--model.num-layers must be positive"),
    ({"model__num_attention_heads": 3}, "--model.hidden-size 256 does not divide"),
    ({"model__num_attention_heads": 256}, "RoPE needs an even head width, not 1"),
    ({"model__local_attention": 127}, "--model.local-attention must be an even number"),
    ({"model__global_attention_every": 0}, "--model.global-attention-every"),
    ({"model__hidden_dropout": 1.0}, "--model.hidden-dropout"),
    ({"model__norm_epsilon": 0.0}, "--model.norm-epsilon must be positive"),
    ({"model__init_std": -0.1}, "--model.init-std must be positive"),
    ({"model__global_rope_theta": 0.0}, "--model.global-rope-theta must be positive"),
    ({"data__sequence_length": 4}, "--data.sequence-length must be at least 8"),
    ({"data__sequence_length": 1024}, "--data.sequence-length 1024 exceeds --model.max-sequence-length 512"),
    ({"data__mask_probability": 0.0}, "--data.mask-probability must be between"),
    ({"data__validation_mask_probability": 1.0}, "--data.validation-mask-probability"),
    ({"data__validation_sequences": 0}, "--data.validation-sequences"),
    ({"optimizer__lr": 0.0}, "--optimizer.lr"),
    ({"optimizer__lr": float("nan")}, "--optimizer.lr"),
    ({"optimizer__beta2": 1.0}, "--optimizer.beta2"),
    ({"optimizer__weight_decay": -1.0}, "--optimizer.weight-decay"),
    ({"optimizer__clip_grad": -1.0}, "--optimizer.clip-grad"),
    ({"schedule__train_tokens": 0}, "--schedule.train-tokens"),
    ({"schedule__warmup_tokens": -1}, "--schedule.warmup-tokens"),
    ({"schedule__decay_tokens": 3_000_000}, "exceed --schedule.train-tokens 3,000,000"),
    (
        {"schedule__warmup_tokens": 4096 * 733, "schedule__decay_tokens": 0, "schedule__train_tokens": 4096 * 733},
        "--schedule.warmup-tokens 3,002,368 must be fewer than the 3,002,368 tokens of the run's 733 steps",
    ),
    ({"schedule__micro_batch_size": 5}, "--schedule.global-batch-size 32 does not divide"),
    ({"schedule__min_lr_ratio": 2.0}, "--schedule.min-lr-ratio"),
    ({"parallel__sequence": True}, "--parallel.sequence splits"),
    ({"checkpoint_interval": 0}, "--checkpoint-interval"),
]


@pytest.mark.parametrize(("leaves", "sentence"), BAD)
def test_bad_values_name_their_flag(config, leaves, sentence):
    config.check(1)
    with pytest.raises(UserError) as caught:
        changed(config, **leaves).check(1)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("leaves", "ranks", "sentence"),
    [
        ({"parallel__tensor": 2}, 3, "3 ranks do not divide by --parallel.tensor 2"),
        ({"parallel__tensor": 2}, 1, "start a multiple of 2"),
        ({"parallel__tensor": 0}, 1, "must be at least 1"),
        ({"parallel__tensor": 8}, 8, "4 attention heads do not divide by --parallel.tensor 8"),
        ({"parallel__tensor": 4, "model__ffn_hidden_size": 386}, 4, "--model.ffn-hidden-size 386 does not divide"),
        ({"parallel__pipeline": 4}, 4, "6 layers do not divide by --parallel.pipeline 4"),
        ({}, 3, "x 3 data-parallel ranks"),
        (
            {"parallel__tensor": 4, "parallel__sequence": True, "data__sequence_length": 126},
            4,
            "--data.sequence-length 126 does not divide",
        ),
    ],
)
def test_layouts_that_cannot_work(config, leaves, ranks, sentence):
    with pytest.raises(UserError) as caught:
        changed(config, **leaves).check(ranks)
    assert sentence in str(caught.value)


@given(train=st.integers(1, 10**9), batch=st.integers(1, 5000), length=st.integers(8, 4096))
def test_steps_cover_the_budget_with_less_than_a_batch_to_spare(train, batch, length):
    base = find_recipe("mursit_tiny")()
    config = changed(base, schedule__train_tokens=train, schedule__global_batch_size=batch, data__sequence_length=length)
    assert 0 <= config.steps * config.tokens_per_step - train < config.tokens_per_step


def test_global_layers(config):
    assert [config.model.is_global(layer) for layer in range(6)] == [True, False, False, True, False, False]


def test_origins(config):
    given = changed(config, optimizer__lr=1e-4, data__train=Path("elsewhere"))
    found = origins(given, "mursit_tiny", {"optimizer.lr", "data.train", "schedule.decay_tokens"})
    assert set(found) == set(flatten(config))
    assert found["optimizer.lr"] == found["data.train"] == "command line"
    assert found["schedule.decay_tokens"] == "command line"  # with the value that the recipe has
    assert found["model.num_layers"] == found["name"] == "recipe mursit_tiny"
    assert found["optimizer.beta2"] == found["seed"] == found["parallel.tensor"] == "default"


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        ([], set()),
        (["--optimizer.lr", "5e-4", "--seed=3"], {"optimizer.lr", "seed"}),
        (["--schedule.global-batch-size=8", "--schedule.micro_batch_size", "4"],
         {"schedule.global_batch_size", "schedule.micro_batch_size"}),
        (["--parallel.sequence", "--optimizer.no-distributed"], {"parallel.sequence", "optimizer.distributed"}),
        (["--out", "runs/seed", "--nproc", "2", "--data.train", "seed"], {"data.train"}),
    ],
)  # fmt: skip
def test_names_on_the_command_line(config, argv, names):
    assert named_in(argv, config) == names


def test_any_field_can_be_overridden_and_unknown_names_are_errors(config, capsys):
    argv = ["--optimizer.lr", "5e-4", "--parallel.tensor", "2", "--data.train", "x/y", "--precision", "fp32"]
    given = tyro.cli(EncoderRun, args=argv, default=config)
    assert given == changed(config, optimizer__lr=5e-4, parallel__tensor=2, data__train=Path("x/y"), precision="fp32")
    with pytest.raises(SystemExit) as caught:
        tyro.cli(EncoderRun, args=["--optimizer.learning-rate", "1"], default=config)
    assert caught.value.code == 2
    assert "--optimizer.learning-rate" in capsys.readouterr().err


def scaled(**values):
    return RopeScaling(**{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, **values})


@pytest.mark.parametrize("kind", ["yarn", "llama3"])
def test_scalings_that_can_be_computed(kind):
    scaled(rope_type=kind).check()
    scaled(rope_type=kind, factor=2).check()  # as a file has it
    own = {"beta_fast": 16.0, "beta_slow": 2.0} if kind == "yarn" else {"low_freq_factor": 2.0, "high_freq_factor": 8.0}
    scaled(rope_type=kind, **own).check()


@pytest.mark.parametrize(
    ("scaling", "sentence"),
    [
        *((scaled(rope_type=kind), f"--model.rope-scaling.rope-type is {kind!r}: set yarn, llama3 or none")
          for kind in ("Yarn", "foo", [1], "dynamic", "default", "", None, True)),
        (scaled(rope_type="none"), "--model.rope-scaling.rope-type none uses no other setting"),
        (RopeScaling(factor=True), "--model.rope-scaling.factor is True: it must be a finite number"),
        *((scaled(**{name: value}), f"--model.rope-scaling.{name.replace('_', '-')} is {value!r}: it must be a finite number")
          for name in ("factor", "beta_fast", "beta_slow", "low_freq_factor", "high_freq_factor")
          for value in (True, "a", None, [1], 2j, float("inf"), float("-inf"), float("nan"), 10**400)),
        *((scaled(original_max_position_embeddings=value), f"-embeddings is {value!r}: it must be a whole number")
          for value in (64.0, True, "64", None, float("inf"), 10**400)),
        *((scaled(rope_type=kind, original_max_position_embeddings=value), f"original-max-position-embeddings is {words}")
          for kind in ("yarn", "llama3") for value, words in ((0, "missing: set it"), (-1, "-1: it must be positive"))),
        *((scaled(rope_type=kind, factor=value), f"factor is {value:g}: it must be above 1")
          for kind in ("yarn", "llama3") for value in (1.0, 0.5, 0.0, -4.0)),
        *((scaled(rope_type=kind, **{name: 2.0}),
           f"{name.replace('_', '-')} is a setting of {other} and does nothing with rope_type {kind}: remove it")
          for kind, other, names in (("yarn", "llama3", ("low_freq_factor", "high_freq_factor")),
                                     ("llama3", "yarn", ("beta_fast", "beta_slow"))) for name in names),
        (scaled(beta_slow=32.0), "beta-slow is 32: it must be positive and below beta_fast, 32"),
        (scaled(rope_type="llama3", low_freq_factor=0.0),
         "low-freq-factor is 0: it must be positive and below high_freq_factor, 4"),
    ],
)  # fmt: skip
def test_scalings_that_cannot(scaling, sentence):
    with pytest.raises(UserError) as caught:
        scaling.check()
    assert str(caught.value).startswith("--model.rope-scaling.") and sentence in str(caught.value)


@pytest.mark.parametrize("theta", [1.0, 0.5, 0.0, -1e6, True, float("inf"), float("nan"), "1e6"])
def test_the_rope_base_of_a_decoder(theta):
    model = find_recipe("smollm2_135m_cpt")().model
    model.check()
    with pytest.raises(UserError, match=r"--model\.rope-theta must be a finite number above 1"):
        replace(model, rope_theta=theta).check()
    with pytest.raises(UserError, match=r"--model\.rope-scaling\.factor"):
        replace(model, rope_scaling=scaled(factor=1.0)).check()
