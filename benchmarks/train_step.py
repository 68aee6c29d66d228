"""One training step on the CPU: ModernBERT in Megatron-Core beside transformers' ModernBERT, in one process.

    python benchmarks/train_step.py

Both have the same shape, read the same rows of real text (30% masked, every row one document, since transformers does not
pack), compute logits of masked tokens only and update with AdamW. They take turns. Counted are tokens per second of CPU time.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from common import ROOT, Contender, header, measure, sample

from conversion.hf_config import to_hf_config, tokenizer_ids
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from megatron_recipes.config import EncoderRun, Precision
from megatron_recipes.data.batches import MlmDataset, training_batches
from megatron_recipes.data.corpus import SpecialTokens, TokenCorpus
from megatron_recipes.engine.parallel import single_process
from megatron_recipes.recipes import find_recipe

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
LENGTHS = (128, 512)
ROWS_TOKENS = 4096  # tokens of a step at every length


def batches(config: EncoderRun, prefix: Path, folder: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Eight batches of rows of real text as `input_ids` and `labels` `[b, s]`."""
    special = SpecialTokens.read(folder)
    corpus = TokenCorpus.open(prefix, folder, verify_hashes=False)
    length, size = config.data.sequence_length, config.schedule.global_batch_size
    data = MlmDataset(corpus, special, length, config.data.mask_probability, config.seed, shuffle=True)
    made = [next(training_batches(data, step, size, size, 0, 1)) for step in range(8)]
    return [(torch.from_numpy(batch.input_ids), torch.from_numpy(batch.labels)) for batch in made]


def ours(config: EncoderRun, rows: list[tuple[torch.Tensor, torch.Tensor]]) -> Contender:
    """Megatron-Core: DDP, distributed optimizer with FP32 main weights, gradient clipping."""
    from megatron_recipes.engine.setup import build_training
    from megatron_recipes.engine.tasks.masked import build_encoder

    training = build_training(config, build_encoder(config))
    source = itertools.cycle(rows)

    def step() -> int:
        ids, labels = next(source)
        training.wrapped.zero_grad_buffer()
        training.optimizer.zero_grad()
        training.wrapped(ids, labels=labels).float().mean().backward()
        training.wrapped.finish_grad_sync()
        training.optimizer.step()
        return ids.numel()

    return step


def theirs(config: EncoderRun, rows: list[tuple[torch.Tensor, torch.Tensor]], folder: Path) -> Contender:
    """Transformers with sparse prediction, SDPA attention, torch's fused AdamW, gradient clipping; autocast for BF16."""
    from transformers import ModernBertForMaskedLM

    shape: Any = to_hf_config(config.model, tokenizer_ids(folder), "float32")
    shape.sparse_prediction = True
    model = ModernBertForMaskedLM(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    source = itertools.cycle(rows)

    def step() -> int:
        ids, labels = next(source)
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.precision == "bf16"):
            loss: Any = model(ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return ids.numel()

    return step


def benchmark(
    out: Path = ROOT / "benchmarks" / "results" / "train_step.md", rounds: int = 3, seconds: float = 5.0, threads: int = 1
) -> None:
    """Time training steps of mursit_tiny's shape beside transformers, print the table and write it to a file.

    Args:
        out: Markdown file for the results.
        rounds: how often each contender has its turn.
        seconds: CPU time of one turn.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    prefix, folder = sample()
    recipe = find_recipe("mursit_tiny")()
    assert isinstance(recipe, EncoderRun)
    lines = ["# A training step on the CPU", "", header(), ""]
    lines += [
        f"Shape of mursit_tiny, {ROWS_TOKENS:,} tokens a step, {threads} thread(s).",
        "Thousand tokens per second of CPU time: median of the rounds.",
    ]
    lines += ["", "| precision | length | Megatron-Core | transformers | ratio |", "|---|---|---|---|---|"]
    for precision, length in itertools.product(PRECISIONS, LENGTHS):
        config = dataclasses.replace(
            recipe,
            precision=precision,
            data=dataclasses.replace(recipe.data, sequence_length=length),
            schedule=dataclasses.replace(
                recipe.schedule, global_batch_size=ROWS_TOKENS // length, micro_batch_size=ROWS_TOKENS // length
            ),
        )
        with single_process():
            torch.set_num_threads(threads)
            rows = batches(config, prefix, folder)
            found = measure({"ours": ours(config, rows), "theirs": theirs(config, rows, folder)}, rounds, seconds)
        mine, peer = statistics.median(found["ours"]), statistics.median(found["theirs"])
        lines.append(f"| {precision} | {length} | {mine / 1e3:.2f} | {peer / 1e3:.2f} | {mine / peer:.2f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    with atomic_write(out) as handle:
        handle.write(text)
    print(f"wrote {out}")


if __name__ == "__main__":
    parse_and_call(benchmark, sys.argv[1:], "benchmarks/train_step.py")
