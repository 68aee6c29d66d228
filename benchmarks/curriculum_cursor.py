"""The curriculum's blend and cursor at 100 sources, beside megatron.core's GPTDataset and BlendedDataset.

    python benchmarks/curriculum_cursor.py

Both read the same 100 corpora, each a random half of the real Turkish sample, from memory-mapped .bin files, in one process
with one thread, in turns. A step has 1,024 sequences of 4,096 tokens; a rank of 128 reads 8 of them. Ours walks the whole
step on every rank, which is what makes its cursor explicit; megatron.core looks up only its own samples, in an index that it
has built beforehand for the whole run. Both are measured on documents as they are and on documents joined in 16s, which have
about the length of web pages. The sample corpus is fetched on the first run.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, header, sample

from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from mecellem.manifest import CorpusManifest, TokenizerEntry
from megatron_recipes.data.corpus import TokenCorpus
from megatron_recipes.data.curriculum import Curriculum
from megatron_recipes.data.curriculum_data import CurriculumData
from megatron_recipes.data.supply import open_sources
from preprocessing.tokens.commit import open_pair
from preprocessing.tokens.indexed import IndexedWriter

SOURCES = 100
SEQUENCE_LENGTH = 4096
SEQUENCES = 1024  # of a step
RANKS = 128
ROWS = SEQUENCES // RANKS  # a rank's share of a step, as one micro batch
JOINED = 16  # sample documents that make one long document
# A step of the paper's 1.7B run on its 400 GPUs, at the 400 TFLOP/s per GPU that its cost is reckoned with: 6 N D
STEP_SECONDS = 6 * 1.7e9 * SEQUENCES * SEQUENCE_LENGTH / (400 * 400e12)


@dataclass(frozen=True, slots=True)
class Timing:
    """What was measured of one contender, in milliseconds per step of one rank, and how long it took to get ready."""

    preparing: float  # seconds
    choosing: list[float]  # finding out what to read
    reading: list[float]  # making the batches


def write_sources(corpus: TokenCorpus, folder: Path, joined: int) -> list[Path]:
    """The corpora: each a random half of the sample's documents, joined in groups."""
    generator = np.random.default_rng(0)
    starts = corpus.document_starts
    prefixes = []
    for number in range(SOURCES):
        chosen = generator.permutation(corpus.documents)[: corpus.documents // 2]
        chosen = chosen[: len(chosen) // joined * joined]
        lengths = (starts[chosen + 1] - starts[chosen]).reshape(-1, joined).sum(axis=1)
        tokens = np.concatenate([corpus.tokens[starts[d] : starts[d + 1]] for d in chosen.tolist()])
        prefix = folder / f"source_{number:03d}"
        with open_pair(prefix) as pair, tempfile.TemporaryFile(dir=folder) as spool:
            writer = IndexedWriter(pair.bin, pair.idx, spool, corpus.tokens.dtype)
            writer.add(tokens, lengths)
            of_bin, of_idx = writer.finish()
            pair.manifest = CorpusManifest(
                documents=len(lengths), tokens=len(tokens), dtype=corpus.tokens.dtype.name,
                tokenizer=corpus.manifest.tokenizer, files={f"{prefix.name}.bin": of_bin, f"{prefix.name}.idx": of_idx},
                sources=[], versions={},
            )  # fmt: skip
        prefixes.append(prefix)
    return prefixes


def weights() -> list[float]:
    """Uneven shares: the largest source has about 300 times the smallest's."""
    drawn = np.random.default_rng(1).lognormal(0.0, 1.2, SOURCES)
    return (drawn / drawn.sum()).tolist()


def our_data(prefixes: Sequence[Path], tokenizer: Path, folder: Path, steps: int) -> CurriculumData:
    """All of it as one stage."""
    path = folder / "curriculum.yaml"
    lines = [
        f"      - {{path: {prefix}, weight: {weight!r}, max_epochs: 100_000}}"
        for prefix, weight in zip(prefixes, weights(), strict=True)
    ]
    path.write_text(
        f"stages:\n  - name: all\n    tokens: {steps * SEQUENCES * SEQUENCE_LENGTH}\n    seq_len: {SEQUENCE_LENGTH}\n"
        f"    global_batch_tokens: {SEQUENCES * SEQUENCE_LENGTH}\n    lr: 1.0e-4\n    sources:\n" + "\n".join(lines),
        encoding="utf-8",
    )
    curriculum = Curriculum.read(path)
    return CurriculumData(curriculum, open_sources(curriculum, tokenizer, model_rows=10**6, verify=False), seed=1)


def ours(
    prefixes: Sequence[Path], tokenizer: Path, folder: Path, steps: int
) -> tuple[float, Callable[[], tuple[float, float]]]:
    """Seconds to open, and one step: seconds for `next_step` (blend, cursor, where rows lie), then for its batches."""
    started = time.process_time()
    data = our_data(prefixes, tokenizer, folder, steps)
    data.check_supply()
    ready = time.process_time() - started

    def step() -> tuple[float, float]:
        began = time.process_time()
        batches = data.next_step(3, RANKS, ROWS)
        chosen = time.process_time()
        for batch in batches:
            assert batch.input_ids.size == ROWS * SEQUENCE_LENGTH
        return chosen - began, time.process_time() - chosen

    return ready, step


class EodTokenizer:
    """What GPTDataset asks of a tokenizer."""

    def __init__(self, eod: int, vocab_size: int) -> None:
        self.eod, self.pad, self.vocab_size = eod, eod, vocab_size
        self.unique_identifiers = {"eod": str(eod)}


def megatron_core(
    prefixes: Sequence[Path], entry: TokenizerEntry, folder: Path, steps: int
) -> tuple[float, Callable[[], tuple[float, float]]]:
    """The same of `BlendedDataset` over `GPTDataset`s, in their cheapest setting: across documents, without masks."""
    from megatron.core.datasets.blended_dataset import BlendedDataset
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split

    started = time.process_time()
    samples = steps * SEQUENCES
    config = GPTDatasetConfig(
        random_seed=1, sequence_length=SEQUENCE_LENGTH, blend=([str(p) for p in prefixes], weights()), split="1,0,0",
        path_to_cache=str(folder / "cache"), tokenizer=EodTokenizer(entry.eod_id, entry.vocab_size), reset_position_ids=False,
        reset_attention_mask=False, eod_mask_loss=False, create_attention_mask=False,
    )  # fmt: skip
    parts = []
    for prefix, weight in zip(prefixes, weights(), strict=True):
        indexed = IndexedDataset(str(prefix))
        documents = np.arange(len(indexed.document_indices) - 1, dtype=np.int32)
        wanted = int(samples * weight * 1.005) + 2  # the margin that megatron.core's own builder adds
        parts.append(GPTDataset(indexed, str(prefix), documents, wanted, Split.train, config))
    blended = BlendedDataset(parts, weights(), samples, config)
    ready = time.process_time() - started
    position = 0

    def step() -> tuple[float, float]:
        nonlocal position
        import torch

        first = position * SEQUENCES + 3 * ROWS
        position += 1
        began = time.process_time()
        items = [blended[first + row] for row in range(ROWS)]
        batch = {name: torch.stack([item[name] for item in items]) for name in ("tokens", "labels", "position_ids")}
        assert batch["tokens"].numel() == ROWS * SEQUENCE_LENGTH
        return 0.0, time.process_time() - began

    return ready, step


def measure_steps(
    steps: dict[str, tuple[float, Callable[[], tuple[float, float]]]], rounds: int, each: int
) -> dict[str, Timing]:
    """Means over `each` steps in each round, in turns: means, since a stream lays out new documents only now and then."""
    timings = {name: Timing(ready, [], []) for name, (ready, _) in steps.items()}
    for _, step in steps.values():
        step()
    for _ in range(rounds):
        for name, (_, step) in steps.items():
            parts = np.array([step() for _ in range(each)]).mean(axis=0) * 1000
            timings[name].choosing.append(float(parts[0]))
            timings[name].reading.append(float(parts[1]))
    return timings


def resume_seconds(prefixes: Sequence[Path], tokenizer: Path, folder: Path) -> float:
    """Time to restore a cursor and make the first step, corpora open."""
    data = our_data(prefixes, tokenizer, folder, steps=8)
    for _ in range(3):
        data.next_step(0, RANKS, ROWS)
    cursor = data.cursor
    again = our_data(prefixes, tokenizer, folder, steps=8)
    started = time.process_time()
    again.restore(cursor)
    again.next_step(0, RANKS, ROWS)
    return time.process_time() - started


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def section(title: str, timings: dict[str, Timing], resume: float) -> list[str]:
    """One table."""
    lines = [
        "",
        f"## {title}",
        "",
        "| | blend and cursor, ms | batches, ms | M tokens/s | getting ready, s |",
        "|---|---|---|---|---|",
    ]
    for name, timing in timings.items():
        both = [a + b for a, b in zip(timing.choosing, timing.reading, strict=True)]
        rates = [ROWS * SEQUENCE_LENGTH / ms / 1000 for ms in both]
        choosing = spread(timing.choosing) if any(timing.choosing) else "in the next column"
        lines.append(f"| {name} | {choosing} | {spread(timing.reading)} | {spread(rates, 1)} | {timing.preparing:.2f} |")
    share = statistics.median(timings["ours"].choosing) / 1000 / STEP_SECONDS
    lines += [
        "",
        f"Blend and cursor are {share:.2%} of a step of the paper's 1.7B run ({STEP_SECONDS * 1000:.0f} ms at 400 GPUs and "
        f"400 TFLOP/s each). Restoring a cursor and the first step after it take {resume * 1000:.0f} ms.",
    ]
    return lines


def one_process_group(folder: Path) -> None:
    """megatron.core's data sets ask torch.distributed for their rank."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=0, world_size=1)


def benchmark(
    corpus: Path | None = None,
    tokenizer: Path | None = None,
    out: Path = ROOT / "benchmarks" / "results" / "curriculum_cursor.md",
    rounds: int = 5,
    steps: int = 20,
) -> None:
    """Time steps over 100 sources beside megatron.core, print the tables and write them to a file.

    Args:
        corpus: Prefix of .bin/.idx; without it the sample corpus is fetched and prepared.
        tokenizer: The folder of the tokenizer that made it.
        out: Markdown file for the results.
        rounds: How often each contender has its turn.
        steps: Steps of one turn.
    """
    if (corpus is None) != (tokenizer is None):
        raise SystemExit("--corpus and --tokenizer belong together: give both or neither")
    prefix, folder = (corpus, tokenizer) if corpus and tokenizer else sample()
    opened = TokenCorpus.open(prefix, folder, verify_hashes=False)
    text = [
        "# Blend and cursor at 100 sources",
        "",
        header(),
        "",
        f"One rank of {RANKS} in a step of {SEQUENCES:,} x {SEQUENCE_LENGTH:,} tokens: it reads {ROWS} sequences. Milliseconds "
        "of CPU time a step, one thread:",
        f"median of {rounds} rounds (lowest to highest), {steps} steps each.",
        "",
        "Not the same work: ours walks the whole step, cuts at documents and returns `cu_seqlens`; megatron.core's is in its",
        "cheapest setting, across documents and without masks, and has its order laid out before.",
    ]
    with tempfile.TemporaryDirectory() as name:
        one_process_group(Path(name))
        laid_out = rounds * steps + 1
        for joined in (1, JOINED):
            place = Path(name) / str(joined)
            place.mkdir()
            prefixes = write_sources(opened, place, joined)
            contenders: dict[str, Any] = {
                "ours": ours(prefixes, folder, place, laid_out),
                "megatron.core": megatron_core(prefixes, opened.manifest.tokenizer, place, laid_out),
            }
            timings = measure_steps(contenders, rounds, steps)
            mean = joined * len(opened.tokens) / opened.documents
            text += section(f"Documents of {mean:,.0f} tokens on average", timings, resume_seconds(prefixes, folder, place))
    report = "\n".join(text) + "\n"
    print(report)
    with atomic_write(out) as handle:
        handle.write(report)
    print(f"wrote {out}")


if __name__ == "__main__":
    parse_and_call(benchmark, sys.argv[1:], "benchmarks/curriculum_cursor.py")
