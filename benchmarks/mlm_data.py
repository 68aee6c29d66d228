"""Masked-language-modelling batches: our data set beside megatron.core's masked data set and transformers' collator.

    python benchmarks/mlm_data.py

Each reads the same real Turkish text with the same tokenizer from a memory-mapped .bin and yields masked training input,
in one process with one thread, in turns so that a busy machine slows all of them alike. Counted are real tokens (no
padding) per second of CPU time, which is wall time where nothing else runs. The sample corpus is fetched on the first run.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, Contender, header, measure, sample

from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from megatron_recipes.data.batches import MlmDataset
from megatron_recipes.data.corpus import SpecialTokens, TokenCorpus

LENGTHS = (128, 1024)
BATCH_TOKENS = 16_384  # a batch is this many tokens at every length
MASK_PROBABILITY = 0.30
SAMPLES = 50_000  # megatron.core lays out its samples beforehand; more than a run draws
LONGEST_SENTENCE = 256  # megatron.core skips documents with a sentence of more than 512 tokens


def ours(corpus: TokenCorpus, special: SpecialTokens, length: int, rows: int) -> Contender:
    """`MlmDataset.micro_batch`: packing over document boundaries, masking, `cu_seqlens`."""
    dataset = MlmDataset(corpus, special, length, MASK_PROBABILITY, seed=1, shuffle=True)
    first = 0

    def batch() -> int:
        nonlocal first
        made = dataset.micro_batch(first + np.arange(rows))
        first += rows
        return made.input_ids.size

    return batch


def transformers_collator(corpus: TokenCorpus, folder: Path, length: int, rows: int, given_mask: bool) -> Contender:
    """`DataCollatorForLanguageModeling` on rows cut from the same .bin, as lists, which is how data sets yield them.

    With `given_mask` each row brings its `special_tokens_mask`, which spares the collator from working it out.
    """
    import torch
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASK_PROBABILITY)
    special = np.isin(corpus.tokens, sorted(set(tokenizer.all_special_ids))).astype(np.int8)
    first, rows_in_corpus = 0, len(corpus.tokens) // length

    def row(index: int) -> dict[str, list[int]]:
        start = index % rows_in_corpus * length
        tokens = corpus.tokens[start : start + length]
        mask = {"special_tokens_mask": special[start : start + length].tolist()} if given_mask else {}
        return {"input_ids": tokens.tolist(), **mask}

    def batch() -> int:
        nonlocal first
        made = collator([row(index) for index in range(first, first + rows)])
        first += rows
        return int(made["input_ids"].numel())

    return batch


class WordPieceView:
    """Our tokenizer as megatron.core's masked data set wants one: pieces that continue a word begin with `##`."""

    def __init__(self, folder: Path, special: SpecialTokens) -> None:
        from tokenizers import Tokenizer

        self.cls, self.sep, self.mask, self.pad = special.cls, special.sep, special.mask, special.pad
        self.unique_identifiers = {"folder": str(folder)}
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        entries = {index: text for text, index in tokenizer.get_vocab().items()}
        self.texts = {index: tokenizer.decode([index]) for index in entries}
        continues = {index for index, text in entries.items() if not text.startswith("Ġ") and text[:1].isalpha()}
        self.inv_vocab = {index: "##" + text if index in continues else text for index, text in entries.items()}


def sentences(document: np.ndarray[Any, Any], view: WordPieceView) -> Iterator[np.ndarray[Any, Any]]:
    """The document's tokens without [SEP], cut after full stops: megatron.core's format stores sentences."""
    tokens = document[document != view.sep]
    ends = [i + 1 for i, token in enumerate(tokens.tolist()) if view.texts[token].rstrip().endswith((".", "!", "?"))]
    for sentence in np.split(tokens, ends):
        for start in range(0, len(sentence), LONGEST_SENTENCE):
            yield sentence[start : start + LONGEST_SENTENCE]


def write_sentences(corpus: TokenCorpus, view: WordPieceView, prefix: Path) -> None:
    """The corpus once more as .bin/.idx, a sequence a sentence, by megatron.core's own builder."""
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=corpus.tokens.dtype.type)
    starts = corpus.document_starts
    for start, end in itertools.pairwise(starts):
        parts = list(sentences(np.asarray(corpus.tokens[start:end]), view))
        if parts:
            builder.add_document(np.concatenate(parts), [len(part) for part in parts])
    builder.finalize(f"{prefix}.idx")


def megatron_core(prefix: Path, view: WordPieceView, length: int, rows: int) -> Contender:
    """`BERTMaskedWordPieceDataset` with single tokens masked and without next-sentence prediction."""
    from megatron.core.datasets.bert_dataset import BERTMaskedWordPieceDataset, BERTMaskedWordPieceDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split

    config = BERTMaskedWordPieceDatasetConfig(
        random_seed=1,
        sequence_length=length,
        blend=([str(prefix)], None),
        split="1,0,0",
        path_to_cache=str(prefix.parent / "cache"),
        tokenizer=view,
        masking_probability=MASK_PROBABILITY,
        short_sequence_probability=0.0,
        masking_max_ngram=1,
        masking_do_full_word=False,
        masking_do_permutation=False,
        masking_use_longer_ngrams=False,
        masking_use_geometric_distribution=False,
        classification_head=False,
    )
    indexed = IndexedDataset(str(prefix))
    documents = np.arange(len(indexed.document_indices) - 1)
    dataset = BERTMaskedWordPieceDataset(indexed, str(prefix), documents, SAMPLES, Split.train, config)
    first = 0

    def batch() -> int:
        nonlocal first
        made = [dataset[index % len(dataset)] for index in range(first, first + rows)]
        first += rows
        return sum(int(item["padding_mask"].sum()) for item in made)

    return batch


def one_process_group(folder: Path) -> None:
    """megatron.core's data sets ask torch.distributed for their rank."""
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=0, world_size=1)


def contenders(corpus: TokenCorpus, tokenizer: Path, folder: Path, length: int) -> dict[str, Contender]:
    """What is compared at one length, by name; ours first."""
    special, rows = SpecialTokens.read(tokenizer), BATCH_TOKENS // length
    view = WordPieceView(tokenizer, special)
    prefix = folder / "sentences"
    if not Path(f"{prefix}.idx").exists():
        write_sentences(corpus, view, prefix)
    return {
        "ours": ours(corpus, special, length, rows),
        "ours, one sequence a batch": ours(corpus, special, length, 1),
        "transformers collator": transformers_collator(corpus, tokenizer, length, rows, given_mask=False),
        "transformers collator, special mask given": transformers_collator(corpus, tokenizer, length, rows, True),
        "megatron.core masked data set": megatron_core(prefix, view, length, rows),
    }


def report(results: dict[int, dict[str, list[float]]], corpus: TokenCorpus) -> str:
    """The results as Markdown."""
    lines = [
        "# Masked-language-modelling batches",
        "",
        header(),
        "",
        f"Real Turkish text, {len(corpus.tokens):,} tokens in {corpus.documents:,} documents, "
        f"{MASK_PROBABILITY:.0%} masked, batches of {BATCH_TOKENS:,} tokens unless said otherwise, one process, one thread.",
        "Million real tokens per second of CPU time: median (lowest to highest round). Ratio: ours to theirs.",
        "",
        "Not the same work: ours also reads through document boundaries in shuffled order and returns `cu_seqlens`; "
        "megatron.core's",
        "keeps to one document a sample, so that its short ones are mostly padding (not counted); the collator gets rows "
        "already cut.",
    ]
    for length, rates in results.items():
        best = statistics.median(rates["ours"])
        lines += ["", f"## Sequence length {length:,}", "", "| | M tokens/s | ratio |", "|---|---|---|"]
        for name, values in rates.items():
            middle = statistics.median(values)
            spread = f"{middle / 1e6:.2f} ({min(values) / 1e6:.2f} to {max(values) / 1e6:.2f})"
            lines.append(f"| {name} | {spread} | {best / middle:,.1f} |")
    return "\n".join(lines) + "\n"


def benchmark(
    corpus: Path | None = None,
    tokenizer: Path | None = None,
    out: Path = ROOT / "benchmarks" / "results" / "mlm_data.md",
    rounds: int = 5,
    seconds: float = 1.0,
) -> None:
    """Time masked batches of real text beside megatron.core and transformers, print the table and write it to a file.

    Args:
        corpus: Prefix of .bin/.idx; without it the sample corpus is fetched and prepared.
        tokenizer: The folder of the tokenizer that made it.
        out: Markdown file for the results.
        rounds: How often each contender has its turn.
        seconds: CPU time of one turn.
    """
    if (corpus is None) != (tokenizer is None):
        raise SystemExit("--corpus and --tokenizer belong together: give both or neither")
    prefix, folder = (corpus, tokenizer) if corpus and tokenizer else sample()
    opened = TokenCorpus.open(prefix, folder, verify_hashes=True)
    results = {}
    with tempfile.TemporaryDirectory() as name:
        one_process_group(Path(name))
        for length in LENGTHS:
            results[length] = measure(contenders(opened, folder, Path(name), length), rounds, seconds)
    text = report(results, opened)
    print(text)
    with atomic_write(out) as handle:
        handle.write(text)
    print(f"wrote {out}")


if __name__ == "__main__":
    parse_and_call(benchmark, sys.argv[1:], "benchmarks/mlm_data.py")
