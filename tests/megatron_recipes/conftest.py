"""Real training runs of a small model on real text."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_runs import Runner


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
