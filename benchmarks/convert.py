"""Conversion of a model's weights both ways beside what safetensors alone needs to read and write the same bytes.

    python benchmarks/convert.py

The model has Qwen3-0.6B's shape and random weights in BF16 (1.2 GB). Contenders take turns; each writes to a new folder on the
same disk and waits until it is on the disk (fsync). Verification is timed apart: it computes with the model.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import CACHE, ROOT, header, sample
from safetensors.torch import load_file, save_file

from conversion.export import write_folder
from conversion.hf_config import to_hf_config
from conversion.hf_import import read_source, write_checkpoint
from conversion.verify import verify_folder
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from megatron_recipes.config import DecoderConfig
from megatron_recipes.engine.checkpoint import read_meta
from megatron_recipes.engine.parallel import single_process

SHAPE = DecoderConfig(
    family="qwen3",
    num_layers=28,
    hidden_size=1024,
    ffn_hidden_size=3072,
    num_attention_heads=16,
    num_query_groups=8,
    head_dim=128,
    vocab_size=151_936,
    max_sequence_length=40_960,
    rope_theta=1_000_000.0,
)
TINY = dataclasses.replace(SHAPE, num_layers=2, hidden_size=64, ffn_hidden_size=96, vocab_size=10_000)


def random_folder(folder: Path, tokenizer: Path, shape: DecoderConfig) -> None:
    """A Hugging Face folder of a shape."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = to_hf_config(shape, {}, "bfloat16")
    assert isinstance(config, Qwen3Config)
    model = Qwen3ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(str(tokenizer)).save_pretrained(str(folder))


def synced(folder: Path) -> None:
    """Wait until every file of a folder is on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as handle:
                os.fsync(handle.fileno())


def seconds(work: Callable[[Path], object], folder: Path) -> float:
    """Of one turn, which writes into `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    started = time.perf_counter()
    work(folder)
    synced(folder)
    return time.perf_counter() - started


def contenders(source: Path, checkpoint: Path) -> dict[str, Callable[[Path], object]]:
    """What is timed, by name; each writes into the folder it is given."""

    def safetensors(folder: Path) -> None:
        save_file(load_file(source / "model.safetensors"), folder / "model.safetensors", metadata={"format": "pt"})

    def imported(folder: Path) -> None:
        model, reader = read_source(source)
        write_checkpoint(folder, model, reader, "benchmark")

    def exported(folder: Path) -> None:
        write_folder(checkpoint, read_meta(checkpoint), checkpoint / "tokenizer", folder, "stored", None)

    return {"safetensors: read and write": safetensors, "import": imported, "export": exported}


def benchmark(
    tokenizer: Path | None = None,
    out: Path = ROOT / "benchmarks" / "results" / "convert.md",
    rounds: int = 15,
    threads: int = 2,
    tiny: bool = False,
) -> None:
    """Time import and export beside safetensors, print the table and write it to a file.

    Args:
        tokenizer: folder of the model's tokenizer; without it the sample's is made.
        out: Markdown file for the results.
        rounds: how often each contender has its turn.
        threads: of torch.
        tiny: two layers of width 64, which show that the benchmark runs and measure nothing.
    """
    tokenizer = tokenizer or sample()[1]
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="convert-", dir=CACHE) as name, single_process():
        torch.set_num_threads(threads)
        folder = Path(name)
        source, checkpoint = folder / "hf", folder / "checkpoint"
        random_folder(source, tokenizer, TINY if tiny else SHAPE)
        size = (source / "model.safetensors").stat().st_size
        runners = contenders(source, checkpoint)
        took: dict[str, list[float]] = {runner: [] for runner in runners}
        for turn in range(rounds + 1):
            for runner, work in runners.items():
                found = seconds(work, checkpoint if runner == "import" else folder / "out")
                if turn > 0:  # the first fills the page cache
                    took[runner].append(found)
        model, reader = read_source(source)
        chunks = write_checkpoint(checkpoint, model, reader, "benchmark")
        started = time.perf_counter()
        result = verify_folder(checkpoint, source, model, chunks, reader.dtype())
        verified = time.perf_counter() - started
    assert result.passed
    base = min(took["safetensors: read and write"])
    lines = ["# Conversion beside safetensors", "", header(), ""]
    size_text = f"{size / 1e9:.2f} GB"
    shape = "A tiny shape" if tiny else "Qwen3-0.6B's shape"
    lines += [f"{shape}, random weights in BF16, {size_text}, {threads} threads. Seconds: fastest of {rounds}"]
    lines += ["rounds (median, slowest): what is slower is the machine's other work. Ratio: of the fastest, to safetensors'"]
    lines += ["read and write of the same bytes.", "", "| | seconds | ratio |", "|---|---|---|"]
    for runner, values in took.items():
        spread = f"{min(values):.2f} ({statistics.median(values):.2f}, {max(values):.2f})"
        lines.append(f"| {runner} | {spread} | {min(values) / base:.2f} |")
    lines += ["", f"Verification, which both commands add: {verified:.0f} s for {result.tokens_compared:,} tokens in fp32."]
    text = "\n".join(lines) + "\n"
    print(text)
    with atomic_write(out) as handle:
        handle.write(text)
    print(f"wrote {out}")


if __name__ == "__main__":
    parse_and_call(benchmark, sys.argv[1:], "benchmarks/convert.py")
