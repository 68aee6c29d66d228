"""What the benchmarks share: real text, turns, and the line that says where and with what a figure was measured."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from mecellem.doctor import cpu_name

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "benchmarks"
PACKAGES = ROOT / ".cache" / "packages"

Contender = Callable[[], int]  # makes one batch; returns its real tokens


def mecellem(*words: str | Path, timeout: float = 900, cwd: Path = ROOT, threads: int | None = None) -> None:
    """Run a command as users do, with so many threads a process. Raises `CalledProcessError` when it fails."""
    env = os.environ if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, "-m", "mecellem", *map(str, words)], check=True, timeout=timeout, cwd=cwd, env=env)


def sample_text() -> Path:
    """Folder of the sample corpus's three splits; found again on the next run."""
    corpus = CACHE / "corpus"
    if not corpus.exists():
        mecellem("corpus", "fetch", "--sample", "--libreoffice", "no", "--out", corpus, "--cache", PACKAGES)
    return corpus


def sample() -> tuple[Path, Path]:
    """Prefix of the sample corpus and its tokenizer, made by the commands that users run; found again on the next run."""
    text, tokenizer, prefix = sample_text() / "train.jsonl.zst", CACHE / "tokenizer", CACHE / "train"
    if not tokenizer.exists():
        mecellem("tokenizer", "train", "--corpus", text, "--vocab-size", "8192", "--out", tokenizer)
    if not Path(f"{prefix}.manifest.json").exists():
        mecellem("prepare", "tokenize", "--input", text, "--tokenizer", tokenizer, "--out", prefix, "--replace")
    return prefix, tokenizer


def measure(
    runners: dict[str, Contender], rounds: int, seconds: float, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """Tokens per second (of CPU time, unless `clock` is another) of each contender in each round, taking turns in it."""
    rates: dict[str, list[float]] = {name: [] for name in runners}
    for runner in runners.values():
        runner()  # opens files, lays out the epoch
    for _ in range(rounds):
        for name, runner in runners.items():
            tokens, started = 0, clock()
            while (took := clock() - started) < seconds:
                tokens += runner()
            rates[name].append(tokens / took)
    return rates


def shown_arguments(arguments: Sequence[str]) -> list[str]:
    """A command's arguments without this machine's paths: for an absolute path its flag's name, in capitals."""
    shown, name = [], "PATH"
    for argument in arguments:
        head, separator, value = argument.partition("=")
        if argument.startswith("-"):
            name = head.lstrip("-").replace("-", "_").upper()
        if Path(argument).is_absolute():
            argument = name
        elif separator and Path(value).is_absolute():
            argument = f"{head}={name}"
        shown.append(argument)
    return shown


def header(names: Sequence[str] = ("numpy", "torch", "megatron-core", "transformers")) -> str:
    """The command as it was given, date, machine and versions of the packages of these names, for the top of a result."""
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *shown_arguments(sys.argv[1:])])
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    machine = f"{cpu_name()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
    return f"`{command}`, {datetime.date.today().isoformat()}, {machine}, {versions}"
