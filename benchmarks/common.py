"""What the benchmarks share: real text, turns, and the line that says where and with what a figure was measured."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from evaluation.machine import cpu_name

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "benchmarks"

Contender = Callable[[], int]  # makes one batch; returns its real tokens


def sample() -> tuple[Path, Path]:
    """Prefix of the sample corpus and its tokenizer, made by the commands that users run; found again on the next run."""
    corpus, tokenizer, prefix = CACHE / "corpus", CACHE / "tokenizer", CACHE / "train"
    text = corpus / "train.jsonl.zst"
    manifest, packages = Path(f"{prefix}.manifest.json"), ROOT / ".cache" / "packages"
    steps: list[tuple[Path, list[str | Path]]] = [
        (text, ["corpus", "fetch", "--sample", "--libreoffice", "no", "--out", corpus, "--cache", packages]),
        (tokenizer, ["tokenizer", "train", "--corpus", text, "--vocab-size", "8192", "--out", tokenizer]),
        (manifest, ["prepare", "tokenize", "--input", text, "--tokenizer", tokenizer, "--out", prefix]),
    ]
    for made, words in steps:
        if not made.exists():
            subprocess.run([sys.executable, "-m", "mecellem", *map(str, words)], check=True, timeout=900, cwd=ROOT)
    return prefix, tokenizer


def measure(runners: dict[str, Contender], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Tokens per CPU second of each contender in each round; within a round they take turns."""
    rates: dict[str, list[float]] = {name: [] for name in runners}
    for runner in runners.values():
        runner()  # opens files, lays out the epoch
    for _ in range(rounds):
        for name, runner in runners.items():
            tokens, started = 0, time.process_time()
            while (took := time.process_time() - started) < seconds:
                tokens += runner()
            rates[name].append(tokens / took)
    return rates


def header(command: str) -> str:
    """Command, date, machine and versions, for the top of a result."""
    names = ("numpy", "torch", "megatron-core", "transformers")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    machine = f"{cpu_name()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
    return f"`{command}`, {datetime.date.today().isoformat()}, {machine}, {versions}"
