"""Real training runs of a small model on real text."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import zstandard
from training_runs import CURRICULUM, SMALL_DECODER, Runner

from preprocessing.tokens.tokenize import tokenize_corpus


@pytest.fixture(scope="session")
def decoder_data(small_data: Path, sample_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources and a validation corpus in the small tokenizer, and the curriculum over them."""
    folder = tmp_path_factory.mktemp("decoder")
    lines = zstandard.ZstdDecompressor().stream_reader((sample_corpus / "validation.jsonl.zst").open("rb")).read().splitlines()
    formal = [line for line in lines if orjson.loads(line)["source"] == "ataturk"]
    general = [line for line in lines if orjson.loads(line)["source"] != "ataturk"]
    (folder / "tokenizer").symlink_to(small_data / "tokenizer")
    for name, documents in {"general": general, "formal": formal[2:], "validation": formal[:2] + general[:50]}.items():
        (folder / f"{name}.jsonl").write_bytes(b"\n".join(documents) + b"\n")
        tokenize_corpus([folder / f"{name}.jsonl"], folder / "tokenizer", folder / name)
    text = CURRICULUM.replace("GENERAL", str(folder / "general")).replace("FORMAL", str(folder / "formal"))
    (folder / "curriculum").write_text(text)
    return folder


@pytest.fixture(scope="session")
def decoder_runner(decoder_data: Path) -> Runner:
    return Runner(decoder_data, "qwen3_0p6b_cpt", SMALL_DECODER, ("data.tokenizer", "data.validation", "curriculum"))


@pytest.fixture(scope="session")
def decoder_reference(decoder_runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted single-process run of the small decoder, from random weights."""
    run = tmp_path_factory.mktemp("decoder_reference") / "run"
    decoder_runner(run)
    return run


@pytest.fixture(scope="session")
def reference(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted single-process run that every other layout and every resumed run is compared with."""
    run = tmp_path_factory.mktemp("reference") / "run"
    runner(run)
    return run
