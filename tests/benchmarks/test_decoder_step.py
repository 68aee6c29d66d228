"""The batches that are timed hold the same real tokens in every layout; and the benchmark runs."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import decoder_step  # noqa: E402
from decoder_step import IGNORE, LENGTH, ROWS, STEPS, TOKENS, full_rows, packed, padded  # noqa: E402


@pytest.fixture
def texts() -> list[np.ndarray]:
    """Documents of 1 to 512 tokens that fill one turn; every token is another one, none is the padding's 0."""
    draw, left, lengths = np.random.default_rng(0), STEPS * TOKENS, [LENGTH, 1]
    left -= sum(lengths)
    while left:
        lengths.append(min(left, int(draw.integers(1, LENGTH + 1))))
        left -= lengths[-1]
    return np.split(np.arange(1, STEPS * TOKENS + 1, dtype=np.int64), np.cumsum(lengths)[:-1])


def test_full_rows_hold_every_token_once(texts):
    batches, count = full_rows(texts)
    assert count == STEPS * TOKENS and len(batches) == STEPS
    assert all(batch["input_ids"].shape == (ROWS, LENGTH) for batch in batches)
    assert all(torch.equal(batch["labels"], batch["input_ids"]) for batch in batches)
    assert torch.cat([batch["input_ids"].flatten() for batch in batches]).tolist() == np.concatenate(texts).tolist()


def test_packed_rows_are_cut_where_documents_and_rows_end(texts):
    batches, count = packed(texts)
    assert count == STEPS * TOKENS
    ends = set(np.cumsum([len(text) for text in texts]).tolist())
    found = set()
    for step, batch in enumerate(batches):
        cuts = batch["cu_seqlens"]
        assert cuts.dtype == torch.int32 and (cuts[0], cuts[-1]) == (0, TOKENS)
        assert cuts.diff().min() > 0 and cuts.diff().max() <= LENGTH
        inside = {int(cut) + step * TOKENS for cut in cuts}
        assert inside >= {step * TOKENS + row * LENGTH for row in range(ROWS + 1)}
        assert all(cut in ends or cut % LENGTH == 0 for cut in inside)
        found |= inside
    assert found >= ends
    for batch, plain in zip(batches, full_rows(texts)[0], strict=True):
        assert torch.equal(batch["input_ids"], plain["input_ids"]) and torch.equal(batch["labels"], plain["labels"])


def test_padding_is_neither_read_nor_counted(texts):
    batches, count = padded(texts)
    assert count == STEPS * TOKENS
    rows = []
    for batch in batches:
        ids, labels, mask = batch["input_ids"], batch["labels"], batch["attention_mask"].bool()
        assert ids.numel() <= TOKENS and int(mask.sum(dim=1).max()) == ids.size(1)
        assert torch.equal(labels[mask], ids[mask]) and set(labels[~mask].tolist()) <= {IGNORE}
        assert (mask.long().diff(dim=1) <= 0).all()  # padding stands behind
        rows += [row[real].tolist() for row, real in zip(ids, mask, strict=True)]
    assert rows == [text.tolist() for text in texts]


def test_sorted_by_length_little_is_padding(texts):
    by_length = sorted(texts, key=len)
    size, smaller = (sum(batch["input_ids"].numel() for batch in padded(part)[0]) for part in (texts, by_length))
    assert STEPS * TOKENS <= smaller < size


def test_a_turn_takes_every_batch_once(texts):
    batches, count = padded(texts)
    seen = []
    assert decoder_step.turn(seen.append, batches, count)() == count
    assert seen == batches


@pytest.mark.slow
def test_runs_side_by_side_and_writes_the_table(sample_bins, sample_tokenizer, tmp_path):
    script, out = ROOT / "benchmarks" / "decoder_step.py", tmp_path / "result.md"
    flags = ["--tiny", "--layers", "2", "--rounds", "1", "--threads", "1", "--out", out]
    command = [sys.executable, script, "--corpus", sample_bins / "validation", "--tokenizer", sample_tokenizer, *flags]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    assert "A tiny shape, 2 layers" in text and "SmolLM2-135M's shape" not in text
    rows = re.findall(r"^\| (fp32|bf16) \| ([^|]+) \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    cases = ["full length", "real documents", "real documents, theirs sorted by length"]
    assert [(name, case) for name, case, *_ in rows] == [(name, case) for name in ("fp32", "bf16") for case in cases]
    assert all(float(value.replace(",", "")) > 0 for row in rows for value in row[2:])
