"""Settings and inputs that cannot work: exit code 2, one sentence, before any work starts, and nothing left behind."""

import importlib.machinery
import json
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from training_runs import TIMEOUT, Runner

from mecellem.cli import main
from mecellem.errors import UserError
from mecellem.files import sha256_of
from mecellem.manifest import manifest_path
from megatron_recipes import train
from megatron_recipes.config import EncoderConfig
from megatron_recipes.engine import environment
from megatron_recipes.engine.environment import foreign_apex
from megatron_recipes.engine.refusals import resolve_layer_spec
from megatron_recipes.recipes import find_recipe


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """The command line sets SIGTERM's handler; the tests' process keeps its own."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def refused(runner: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The sentence with which the real command line refuses the small run with other values."""

    def run(**overrides: object) -> str:
        out = tmp_path / "run"
        code = main(runner.command(out, **overrides)[3:])
        printed = capsys.readouterr()
        assert code == 2 and printed.err.count("\n") == 1 and printed.err.startswith("mecellem: "), printed.err
        assert "train mursit_tiny" not in printed.out  # the heading of a run that has started
        assert not out.exists() and not list(tmp_path.glob(".run*"))
        return printed.err

    return run


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"parallel.tensor": 3, "model.ffn-hidden-size": 96}, "4 attention heads do not divide by --parallel.tensor 3"),
        ({"parallel.pipeline": 3}, "4 layers do not divide by --parallel.pipeline 3"),
        ({"parallel.tensor": 4, "model.ffn-hidden-size": 98}, "--model.ffn-hidden-size 98 does not divide by"),
        ({"parallel.tensor": 2, "nproc": 3}, "3 ranks do not divide by --parallel.tensor 2 x --parallel.pipeline 1"),
        ({"nproc": 0}, "--nproc must be at least 1"),
        ({"parallel.sequence": True}, "--parallel.sequence splits activations over tensor-parallel ranks"),
        ({"schedule.decay-tokens": 6000}, "exceed --schedule.train-tokens 6,144"),
        ({"schedule.global-batch-size": 18}, "--schedule.global-batch-size 18 does not divide by"),
        ({"nproc": 3}, "x 3 data-parallel ranks"),
        ({"model.vocab-size": 999}, "1,100 entries, the model 999: set --model.vocab-size 1100"),
        ({"data.train": "nowhere/train"}, "nowhere/train.manifest.json is missing"),
        ({"data.tokenizer": "nowhere"}, "nowhere is not a Hugging Face tokenizer folder"),
    ],
)
def test_values(overrides: dict, sentence: str, refused):
    assert sentence in refused(**overrides)


def test_unknown_recipe(capsys):
    assert main(["train", "mursit_huge", "--out", "nowhere"]) == 2
    assert "`mursit_huge` is not a recipe: choose one of" in capsys.readouterr().err


def test_no_out(runner: Runner, capsys):
    arguments = [part for part in runner.command(Path("run"))[3:] if part not in ("--out", "run")]
    assert main(arguments) == 2
    assert "--out is missing" in capsys.readouterr().err


def test_unknown_flag(runner: Runner, tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*runner.command(tmp_path / "run")[3:], "--optimizer.learning-rate", "1"])
    assert caught.value.code == 2
    assert "--optimizer.learning-rate" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def corpus(small_data: Path, tmp_path: Path) -> Path:
    """A copy of the small corpus that a test may damage; returns the prefix."""
    (tmp_path / "data").mkdir()
    for suffix in (".bin", ".idx", ".manifest.json"):
        shutil.copyfile(f"{small_data}/train{suffix}", tmp_path / "data" / f"train{suffix}")
    return tmp_path / "data" / "train"


def rewrite_manifest(prefix: Path) -> None:
    """Let the manifest agree with the files again, so that only the reader of the format can object."""
    path = manifest_path(prefix)
    content = json.loads(path.read_text())
    for name in content["files"]:
        file = prefix.with_name(name)
        content["files"][name] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    path.write_text(json.dumps(content))


def test_one_flipped_byte(corpus: Path, refused):
    path = Path(f"{corpus}.bin")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    sentence = refused(**{"data.train": corpus})
    assert f"{path}: SHA-256 differs from" in sentence and "mecellem prepare tokenize" in sentence


@pytest.mark.parametrize("described", [False, True])
def test_truncated_bin(described: bool, corpus: Path, refused):
    path = Path(f"{corpus}.bin")
    path.write_bytes(path.read_bytes()[:-4])
    if described:
        rewrite_manifest(corpus)
    sentence = refused(**{"data.train": corpus})
    assert str(path) in sentence and "the file is truncated or was changed" in sentence


def test_index_of_another_version(corpus: Path, refused):
    path = Path(f"{corpus}.idx")
    content = path.read_bytes()
    path.write_bytes(content[:9] + struct.pack("<Q", 2) + content[17:])
    rewrite_manifest(corpus)
    assert f"{path} is an index of version 2" in refused(**{"data.train": corpus})


def other_tokenizer(small_data: Path, target: Path) -> Path:
    """The same number of entries, two of them exchanged."""
    shutil.copytree(small_data / "tokenizer", target)
    path = target / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    first, second = [name for name, index in vocabulary.items() if index in (400, 401)]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(content))
    return target


def test_another_tokenizer_than_the_corpus_was_made_with(small_data: Path, tmp_path: Path, refused):
    other = other_tokenizer(small_data, tmp_path / "tokenizer")
    sentence = refused(**{"data.tokenizer": other})
    assert f"{other}/tokenizer.json: SHA-256 differs from the tokenizer's in" in sentence


@pytest.mark.slow
def test_resume_with_another_tokenizer(small_data: Path, runner: Runner, reference: Path, tmp_path: Path, capsys):
    other = other_tokenizer(small_data, tmp_path / "tokenizer")
    prefixes = {}
    for name in ("train", "validation"):  # a corpus that agrees with the other tokenizer
        for suffix in (".bin", ".idx", ".manifest.json"):
            shutil.copyfile(f"{small_data}/{name}{suffix}", tmp_path / f"{name}{suffix}")
        path = manifest_path(tmp_path / name)
        content = json.loads(path.read_text())
        content["tokenizer"]["sha256"] = sha256_of(other / "tokenizer.json")
        path.write_text(json.dumps(content))
        prefixes[f"data.{name}"] = tmp_path / name
    before = {path: path.stat().st_mtime_ns for path in reference.rglob("*")}
    assert main(runner.command(reference, **prefixes, **{"data.tokenizer": other})[3:]) == 2
    assert "was started with another tokenizer than" in capsys.readouterr().err
    assert main(runner.command(reference, **{"optimizer.lr": 1e-4})[3:]) == 2
    assert "was started with --optimizer.lr 0.003, not 0.0001" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in reference.rglob("*")} == before


def in_a_child(runner: Runner, out: Path, env: dict[str, str], **overrides: object) -> str:
    done = subprocess.run(
        runner.command(out, **overrides), capture_output=True, text=True, timeout=TIMEOUT, env={**os.environ, **env}
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and not out.exists()
    sentences = [line for line in done.stderr.splitlines() if line.startswith("mecellem: ")]
    assert len(sentences) == 1, done.stderr
    return sentences[0]


def test_a_foreign_apex(runner: Runner, tmp_path: Path):
    (tmp_path / "packages" / "apex" / "amp").mkdir(parents=True)  # PyPI's has such a folder too
    (tmp_path / "packages" / "apex" / "__init__.py").write_text("")
    sentence = in_a_child(runner, tmp_path / "run", {"PYTHONPATH": str(tmp_path / "packages")})
    assert f"the package `apex` in {tmp_path}/packages/apex is not NVIDIA's Apex" in sentence
    assert "pip uninstall apex" in sentence


def test_missing_psutil(runner: Runner, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['psutil'] = None\n")
    sentence = in_a_child(runner, tmp_path / "run", {"PYTHONPATH": str(tmp_path)})
    assert "psutil is missing" in sentence and "pip install psutil" in sentence


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"precision": "fp8_current", "layer-spec": "local"}, "accept FP8 settings and silently compute without them"),
        ({"precision": "fp8_current", "parallel.tensor": 2}, "needs CUDA and Transformer Engine"),
        ({"layer-spec": "transformer_engine"}, "needs CUDA and Transformer Engine"),
    ],
)
def test_fp8_without_transformer_engine(overrides: dict, sentence: str, runner: Runner, tmp_path: Path):
    assert sentence in in_a_child(runner, tmp_path / "run", {"CUDA_VISIBLE_DEVICES": ""}, **overrides)


def test_nvidias_apex_is_not_foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for part in ("optimizers", "multi_tensor_apply"):
        (tmp_path / "apex" / part).mkdir(parents=True)
    (tmp_path / "apex" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert foreign_apex() is None


@pytest.mark.parametrize("layers", ["stock core", "own core"])
def test_a_window_on_the_stock_attention_core(layers: str, monkeypatch: pytest.MonkeyPatch):
    from dataclasses import replace

    from megatron_recipes.engine.parallel import single_process

    recipe = find_recipe("mursit_tiny")()
    config = replace(recipe, model=EncoderConfig(2, 32, 32, 2, 200, 64, local_attention=8), precision="fp32")
    with single_process():
        from megatron.core.transformer.dot_product_attention import DotProductAttention

        from conversion.megatron_model import build
        from megatron_recipes.engine.tasks.masked import build_encoder
        from megatron_recipes.models import modernbert

        if layers == "own core":
            build_encoder(config)
            return
        monkeypatch.setattr(modernbert, "SDPACoreAttention", DotProductAttention)
        for make in (lambda: build_encoder(config), lambda: build(config.model, config.parallel, torch.float32)):
            with pytest.raises(UserError, match=r"core_attention is Megatron-Core's .* with the window \(4, 4\)"):
                make()


@pytest.mark.parametrize("count", [1, 3])
def test_more_ranks_than_gpus(count: int, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setenv("RANK", "0")  # also the ranks that have a GPU refuse, before they write anything
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("MECELLEM_STORE", str(tmp_path / "store"))
    command = runner.command(tmp_path / "run", **{"parallel.tensor": 2})
    with pytest.raises(UserError, match=rf"4 ranks on this machine but {count} GPUs? .*--nproc, --parallel.tensor or"):
        train.main(command[command.index("mursit_tiny") :])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("precision", "layer_spec", "cuda", "engine", "expected"),
    [
        ("bf16", "auto", True, True, "transformer_engine"),
        ("bf16", "auto", True, False, "local"),
        ("bf16", "auto", False, True, "local"),  # TE is installed, but on a login node without GPU
        ("bf16", "local", True, True, "local"),
        ("fp8_hybrid", "auto", True, True, "transformer_engine"),
        ("fp8_hybrid", "auto", True, False, None),
        ("fp8_hybrid", "local", True, True, None),
        ("fp32", "transformer_engine", False, True, None),
    ],
)
def test_layer_spec(precision, layer_spec, cuda, engine, expected, monkeypatch: pytest.MonkeyPatch):
    from dataclasses import replace

    spec = importlib.machinery.ModuleSpec("transformer_engine", None) if engine else None
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: spec)
    config = replace(find_recipe("mursit_tiny")(), precision=precision, layer_spec=layer_spec)
    if expected is None:
        with pytest.raises(UserError):
            resolve_layer_spec(config, cuda)
    else:
        assert resolve_layer_spec(config, cuda) == expected
