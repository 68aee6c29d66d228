"""Encoding texts of mixed lengths: in the order they come, as sentence-transformers orders them, and by tokens.

    python benchmarks/encode_order.py

The same model (a ModernBERT of 10 million parameters, random weights, mean pooling) makes the same vectors of the same texts
three times: 32 rows after 32 rows in the order of the file; `SentenceTransformer.encode`, which sorts by characters and takes
32 rows; and `evaluation.encoders`, which sorts by tokens and takes as many rows as fit into a number of tokens. All three cut
at the same length. The texts are the sample corpus's test split in an order by hash, so that long and short ones alternate.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import CACHE, ROOT, header, sample, sample_text

from evaluation.choice import hash_order
from evaluation.encoders import EncoderSettings, open_encoder
from evaluation.encoders.transformer import TransformerEncoder
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from preprocessing.corpus.read_split import read_split

ROWS = 32


def write_model(folder: Path, tokenizer: Path, tiny: bool) -> None:
    """A plain Hugging Face folder with random weights."""
    from transformers import AutoTokenizer, ModernBertConfig, ModernBertModel

    words = AutoTokenizer.from_pretrained(str(tokenizer))
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=len(words),
        hidden_size=64 if tiny else 256,
        intermediate_size=96 if tiny else 768,
        num_hidden_layers=2 if tiny else 9,
        num_attention_heads=4,
        max_position_embeddings=2048,
        pad_token_id=words.pad_token_id,
        cls_token_id=words.cls_token_id,
        sep_token_id=words.sep_token_id,
    )
    ModernBertModel(config).save_pretrained(str(folder))
    words.save_pretrained(str(folder))


def chosen_texts(count: int) -> list[str]:
    """Texts of the sample's test split: all speeches and articles, then dictionary entries, mixed by hash."""
    documents = sorted(read_split(sample_text(), "test"), key=lambda item: (item.source == "kenet", hash_order(0, item.id)))
    return [item.text for item in sorted(documents[:count], key=lambda item: hash_order(1, item.id))]


def contenders(encoder: TransformerEncoder, texts: list[str]) -> dict[str, Callable[[], np.ndarray]]:
    """What is timed, by name; each makes the vectors of all texts."""
    model = encoder.model

    def naive() -> np.ndarray:
        parts = [model.encode(texts[start : start + ROWS], batch_size=ROWS) for start in range(0, len(texts), ROWS)]
        return np.concatenate(parts)

    return {
        f"order of the file, {ROWS} rows": naive,
        f"sentence-transformers, {ROWS} rows": lambda: model.encode(texts, batch_size=ROWS),
        f"by tokens, {encoder.batch_tokens:,} a batch": lambda: encoder.encode(texts, "text"),
    }


def benchmark(
    out: Path = ROOT / "benchmarks" / "results" / "encode_order.md",
    texts: int = 400,
    max_seq_length: int = 512,
    batch_tokens: int = EncoderSettings().batch_tokens,
    rounds: int = 3,
    threads: int = 1,
    tiny: bool = False,
) -> None:
    """Time all three, print the table and write it to a file.

    Args:
        out: Markdown file for the results.
        texts: how many.
        max_seq_length: tokens that a text is cut to.
        batch_tokens: tokens in a batch of `evaluation.encoders`.
        rounds: how often each contender has its turn.
        threads: of torch.
        tiny: a model of two layers, which shows that the benchmark runs and measures nothing.
    """
    torch.set_num_threads(threads)
    documents = chosen_texts(texts)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="encode-order-", dir=CACHE) as folder:
        write_model(Path(folder), sample()[1], tiny)
        settings = EncoderSettings(max_seq_length=max_seq_length, batch_tokens=batch_tokens)
        encoder = open_encoder(folder, device="cpu", settings=settings)
        assert isinstance(encoder, TransformerEncoder)
        lengths = np.array(encoder.count_cut(encoder.lengths(documents, "text"), "text"))
        runners = contenders(encoder, documents)
        took: dict[str, list[float]] = {name: [] for name in runners}
        vectors: dict[str, np.ndarray] = {}
        for _ in range(rounds):
            for name, runner in runners.items():
                started = time.process_time()
                found = runner()
                took[name].append(time.process_time() - started)
                vectors[name] = found / np.linalg.norm(found, axis=1, keepdims=True)
    text = report(took, vectors, lengths, encoder.facts.parameters or 0, threads)
    print(text)
    with atomic_write(out) as handle:
        handle.write(text)
    print(f"wrote {out}")


def report(
    took: dict[str, list[float]], vectors: dict[str, np.ndarray], lengths: np.ndarray, parameters: int, threads: int
) -> str:
    """The table as Markdown."""
    names = list(took)
    least, middle, most = (int(np.quantile(lengths, part)) for part in (0.1, 0.5, 0.9))
    apart = max(float(np.abs(vectors[name] - vectors[names[0]]).max()) for name in names)
    lines = ["# Encoding texts of mixed lengths", "", header(("numpy", "torch", "transformers", "sentence-transformers")), ""]
    lines += [
        f"{parameters / 1e6:.1f}M parameters, {threads} threads, fp32; {len(lengths)} texts of {least}, {middle} and {most} "
        f"tokens (10%, 50%, 90%), {int(lengths.sum()):,} together. Seconds of CPU time: fastest of {len(took[names[0]])} "
        f"rounds (median). The vectors differ by {apart:.0e} at most.",
        "",
        "| | seconds | tokens/s | faster than the order of the file |",
        "|---|---|---|---|",
    ]
    for name, values in took.items():
        ratio, rate = min(took[names[0]]) / min(values), lengths.sum() / min(values)
        lines.append(f"| {name} | {min(values):.1f} ({statistics.median(values):.1f}) | {rate:,.0f} | {ratio:.2f}x |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parse_and_call(benchmark, sys.argv[1:], "benchmarks/encode_order.py")
