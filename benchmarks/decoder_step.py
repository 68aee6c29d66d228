"""Training steps on the CPU: a decoder in Megatron-Core beside transformers' own class, in one process.

    python benchmarks/decoder_step.py

Both have SmolLM2-135M's shape with random weights, read the same documents of real text, use SDPA attention and update with
AdamW. They take turns. Counted are real tokens, padding excluded, per second of wall time, in two cases:

- full length: every row is one document of the full length, so nothing is padded and nothing is packed.
- real documents: the corpus as it is, in random order, documents cut at the full length. transformers pads each document to
  the longest of its batch; a batch takes as many documents as then fit a step's tokens. Megatron-Core packs the same
  documents into rows, with attention inside documents. For comparison, transformers once more with documents sorted by
  length, which leaves little padding, but batches that are no random sample.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, Contender, header, measure, sample

from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from megatron_recipes.config import DecoderConfig, DecoderRun, Precision
from megatron_recipes.data.corpus import Int64Array, TokenCorpus
from megatron_recipes.engine.parallel import single_process
from megatron_recipes.recipes import find_recipe

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
LENGTH, ROWS = 512, 4
TOKENS = LENGTH * ROWS  # of a step, padding included
STEPS = 2  # of packed documents in one turn
IGNORE = -100

Batch = dict[str, torch.Tensor]


def documents(prefix: Path, folder: Path) -> list[Int64Array]:
    """Documents in random order, cut at the full length, as many as fill one turn."""
    corpus = TokenCorpus.open(prefix, folder, verify_hashes=False)
    starts = corpus.document_starts
    found: list[Int64Array] = []
    left = STEPS * TOKENS
    for number in np.random.default_rng(1).permutation(corpus.documents):
        document = np.asarray(corpus.tokens[starts[number] : starts[number + 1]], dtype=np.int64)
        for start in range(0, len(document), LENGTH):
            found.append(document[start : min(start + LENGTH, start + left)])
            left -= len(found[-1])
            if left == 0:
                return found
    raise ValueError(f"the sample has fewer than {STEPS * TOKENS} tokens")


def full_rows(texts: Sequence[Int64Array]) -> tuple[list[Batch], int]:
    """The same tokens as rows of the full length, each of them one document. With the number of real tokens."""
    tokens = torch.from_numpy(np.concatenate(texts)).view(STEPS, ROWS, LENGTH)
    return [{"input_ids": rows, "labels": rows.clone()} for rows in tokens], tokens.numel()


def packed(texts: Sequence[Int64Array]) -> tuple[list[Batch], int]:
    """Documents one after the other in rows, cut where a row ends."""
    batches, count = full_rows(texts)
    ends = {*np.cumsum([len(text) for text in texts]).tolist(), *range(0, count + 1, LENGTH)}
    for step, batch in enumerate(batches):
        inside = sorted(end - step * TOKENS for end in ends if step * TOKENS <= end <= (step + 1) * TOKENS)
        batch["cu_seqlens"] = torch.tensor(inside, dtype=torch.int32)
    return batches, count


def padded(texts: Sequence[Int64Array]) -> tuple[list[Batch], int]:
    """Documents in rows of their own, padded to the longest of the batch, as many as fit a step's tokens."""
    groups: list[list[Int64Array]] = [[]]
    for text in texts:
        longest = max(map(len, [*groups[-1], text]))
        if longest * (len(groups[-1]) + 1) > TOKENS:
            groups.append([])
        groups[-1].append(text)
    batches = []
    for group in groups:
        ids = torch.zeros(len(group), max(map(len, group)), dtype=torch.int64)
        labels = torch.full_like(ids, IGNORE)
        for row, text in enumerate(group):
            ids[row, : len(text)] = labels[row, : len(text)] = torch.from_numpy(text)
        batches.append({"input_ids": ids, "labels": labels, "attention_mask": (labels != IGNORE).long()})
    return batches, sum(map(len, texts))


def turn(step: Callable[[Batch], None], batches: Sequence[Batch], tokens: int) -> Contender:
    """One call takes every batch once."""

    def run() -> int:
        for batch in batches:
            step(batch)
        return tokens

    return run


def ours(config: DecoderRun) -> Callable[[Batch], None]:
    """Megatron-Core: DDP, distributed optimizer with FP32 main weights, gradient clipping."""
    from megatron_recipes.engine.setup import build_training, set_rates
    from megatron_recipes.engine.tasks.causal import build_decoder

    training = build_training(config, build_decoder(config))
    set_rates(training, 1e-4)

    def step(batch: Batch) -> None:
        training.wrapped.zero_grad_buffer()
        training.optimizer.zero_grad()
        labels = batch["labels"].roll(-1, dims=1)  # transformers shifts them itself
        losses = training.wrapped(batch["input_ids"], labels=labels, cu_seqlens=batch.get("cu_seqlens"))
        losses.float().mean().backward()
        training.wrapped.finish_grad_sync()
        training.optimizer.step()

    return step


def theirs(config: DecoderRun) -> Callable[[Batch], None]:
    """Transformers with SDPA attention, torch's fused AdamW and gradient clipping; autocast for BF16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = config.model
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocab_size,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.ffn_hidden_size,
            num_hidden_layers=shape.num_layers,
            num_attention_heads=shape.num_attention_heads,
            num_key_value_heads=shape.num_query_groups,
            head_dim=shape.head_dim,
            rms_norm_eps=shape.norm_epsilon,
            tie_word_embeddings=shape.tie_embeddings,
            rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        )
    )
    model.set_attn_implementation("sdpa")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.precision == "bf16"):
            loss: Any = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def tiny_shape(model: DecoderConfig) -> DecoderConfig:
    """The same family with layers of width 64 and a vocabulary as small as the sample's."""
    return dataclasses.replace(
        model,
        hidden_size=64,
        ffn_hidden_size=96,
        num_attention_heads=4,
        num_query_groups=2,
        head_dim=16,
        vocab_size=8192,
    )


def rows_of_table(config: DecoderRun, texts: Sequence[Int64Array], rounds: int, threads: int) -> list[str]:
    """The lines of one precision."""
    with single_process():
        torch.set_num_threads(threads)
        mine, peer = ours(config), theirs(config)
        cases = {"full length": full_rows(texts), "padded": padded(texts), "sorted": padded(sorted(texts, key=len))}
        runners = {f"theirs, {name}": turn(peer, *case) for name, case in cases.items()}
        runners |= {"full length": turn(mine, *cases["full length"]), "packed": turn(mine, *packed(texts))}
        rates = measure(runners, rounds, 1e-3, time.perf_counter)
    lines = []
    for case, own, other in (
        ("full length", "full length", "theirs, full length"),
        ("real documents", "packed", "theirs, padded"),
        ("real documents, theirs sorted by length", "packed", "theirs, sorted"),
    ):
        ratio = statistics.median(a / b for a, b in zip(rates[own], rates[other], strict=True))
        values = " | ".join(f"{statistics.median(rates[name]):,.0f}" for name in (own, other))
        lines.append(f"| {config.precision} | {case} | {values} | {ratio:.2f} |")
    return lines


def benchmark(
    corpus: Path | None = None,
    tokenizer: Path | None = None,
    out: Path = ROOT / "benchmarks" / "results" / "decoder_step.md",
    rounds: int = 3,
    threads: int = 2,
    layers: int = 30,
    tiny: bool = False,
) -> None:
    """Time training steps of a decoder beside transformers, print the table and write it to a file.

    Args:
        corpus: prefix of .bin/.idx; without it the sample corpus is fetched and prepared.
        tokenizer: the folder of the tokenizer that made it.
        out: Markdown file for the results.
        rounds: how often each contender has its turn.
        threads: of torch.
        layers: of the model; SmolLM2-135M has 30.
        tiny: layers of width 64, which show that the benchmark runs and measure nothing.
    """
    if (corpus is None) != (tokenizer is None):
        raise SystemExit("--corpus and --tokenizer belong together: give both or neither")
    torch.set_num_threads(threads)
    texts = documents(corpus, tokenizer) if corpus and tokenizer else documents(*sample())
    recipe = find_recipe("smollm2_135m_cpt")()
    assert isinstance(recipe, DecoderRun)
    lengths = [len(text) for text in texts]
    padding = sum(batch["input_ids"].numel() for batch in padded(texts)[0]) / sum(lengths) - 1
    shape = f"A tiny shape, {layers} layers" if tiny else f"SmolLM2-135M's shape, {layers} of its 30 layers"
    lines = ["# A decoder's training step on the CPU", "", header(), ""]
    lines += [
        f"{shape}, {TOKENS:,} tokens a step, full length {LENGTH}, {threads} threads.",
        f"{len(texts)} real documents of {statistics.median(lengths):.0f} tokens in the median, {statistics.mean(lengths):.0f} "
        f"on average, {max(lengths)} at most; padded to the longest of their batch they grow by {padding:.0%}.",
        "Real tokens per second of wall time and the ratio of each round: medians.",
    ]
    lines += ["", "| precision | case | Megatron-Core | transformers | ratio |", "|---|---|---|---|---|"]
    for precision in PRECISIONS:
        model = dataclasses.replace(tiny_shape(recipe.model) if tiny else recipe.model, num_layers=layers)
        lines += rows_of_table(dataclasses.replace(recipe, precision=precision, model=model), texts, rounds, threads)
    text = "\n".join(lines) + "\n"
    print(text)
    with atomic_write(out) as handle:
        handle.write(text)
    print(f"wrote {out}")


if __name__ == "__main__":
    parse_and_call(benchmark, sys.argv[1:], "benchmarks/decoder_step.py")
