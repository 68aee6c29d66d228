"""The benchmark of sequence lengths: its measure by hand, and a run on a small model with the real speeches."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from sequence_length import ndcg, report, training_pairs  # noqa: E402


def test_ndcg_of_one_right_document():
    found = [f"d{number}" for number in range(20)]
    scores = ndcg({"d0": found, "d2": found, "d9": found, "d10": found, "x": found})
    assert scores == pytest.approx({"d0": 1.0, "d2": 0.5, "d9": 1 / np.log2(11), "d10": 0.0, "x": 0.0})


def test_the_report_compares_on_the_same_queries():
    queries = {str(number): "başlık" for number in range(10)}
    documents = {key: "söz " * (400 if int(key) < 4 else 10) for key in queries}
    good, bad = dict.fromkeys(queries, 1.0), dict.fromkeys(queries, 0.25)
    results = {(name, reads): bad for name in ("nothing more", "8") for reads in (8, 32)}
    results |= {("32", 8): bad, ("32", 32): good}
    lines = report(results, bad, queries, documents, (8, 32), [])
    assert "The 4 whose speech has more than 300 words:" in lines
    assert "- trained on 8, reads 8: +0.750 (+0.750 to +0.750)" in lines


@pytest.mark.slow
def test_a_run_on_the_real_speeches(sample_corpus, sample_tokenizer, tmp_path):
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    tokenizer = AutoTokenizer.from_pretrained(sample_tokenizer)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    assert len(training_pairs(sample_corpus)) > 150
    words = ["--lengths", "8", "32", "--steps", "2", "--batch", "8", "--model", tmp_path / "model", "--corpus", sample_corpus]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "sequence_length.py"), *map(str, words), "--out", str(tmp_path / "out.md")],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out.md").read_text(encoding="utf-8")
    assert "| trained on | reads 8 | reads 32 |" in text and "| BM25, whole texts | 0." in text
    assert "- trained on 8, reads 32:" in text
