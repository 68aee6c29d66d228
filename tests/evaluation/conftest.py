"""A real, small ModernBERT with random weights, a small real corpus, and a run with checkpoints of such models."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
import zstandard

from evaluation.selection.settings import SelectionMasks, SelectionSettings, SelectionTasks, SelectionTraining
from preprocessing.corpus.read_split import read_split

SETTINGS = SelectionSettings(
    masking=SelectionMasks(mask_documents=40, mask_words=40),
    retrieval=SelectionTasks(max_queries=40, max_documents=80, min_queries=20),
    post_training=SelectionTraining(batch_size=16),
    max_seq_length=48,
    sample_sentences=4,
)
BUDGET = 3
WORDS = re.compile(r"(\S*\s*){,120}")
STEPS = (20, 30, 40)


@pytest.fixture(scope="session")
def settings() -> SelectionSettings:
    """Everything real, everything short."""
    return SETTINGS


def make_model(folder: Path, tokenizer_folder: Path, seed: int) -> Path:
    import torch
    from transformers import AutoTokenizer, ModernBertConfig, ModernBertForMaskedLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    config = ModernBertConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, global_attn_every_n_layers=2, local_attention=64,
        pad_token_id=tokenizer.pad_token_id, cls_token_id=tokenizer.cls_token_id, bos_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id, eos_token_id=tokenizer.sep_token_id,
    )  # fmt: skip
    torch.manual_seed(seed)
    ModernBertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_model(sample_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "small", sample_tokenizer, 1)


@pytest.fixture(scope="session")
def small_corpus(sample_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's speeches and treebank sentences, and every fifteenth dictionary entry, of each 120 words at most."""
    folder = tmp_path_factory.mktemp("corpus")
    for split in ("train", "validation", "test"):
        documents = read_split(sample_corpus, split)
        entries = [document for document in documents if document.source == "kenet"]
        kept = [document for document in documents if document.source != "kenet"] + entries[::15]
        lines = b"".join(replace(document, text=WORDS.match(document.text)[0]).as_line() for document in kept)
        (folder / f"{split}.jsonl.zst").write_bytes(zstandard.compress(lines))
    shutil.copy(sample_corpus / "corpus.json", folder)
    return folder


@pytest.fixture(scope="session")
def test_documents(small_corpus: Path):
    return read_split(small_corpus, "test")


def write_run(folder: Path, steps: int = 40) -> Path:
    """`run.yaml` and `metrics.jsonl` of a plausible run, as training writes them; no checkpoints."""
    folder.mkdir(parents=True)
    rows = []
    for step in range(1, steps + 1):
        tokens, loss = step * 1000, 4 + 5 / step
        rows.append(
            {"step": step, "tokens": tokens, "loss": loss, "lr": 1e-3 * min(1, step / 5), "grad_norm": 1 + 1 / step,
             "tokens_per_second": 5000.0 + step, "seconds": 0.2}
        )  # fmt: skip
        if step % 10 == 0:
            rows.append(
                {"step": step, "tokens": tokens, "validation_loss": loss + 0.1, "validation_accuracy": 0.01 * step / 10}
            )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "config": {"name": "mursit_tiny", "model": {"num_layers": 2}, "optimizer": {"lr": 1e-3}, "seed": 4321},
        "origins": {"optimizer.lr": "recipe"},
        "tokenizer_sha256": "0" * 64,
        "steps": steps,
        "tokens_per_step": 1000,
        "versions": {"torch": "2"},
        "machine": {"cpus": 2, "platform": "Linux"},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


CURRICULUM = """\
stages:
  - name: general
    tokens: 16K
    seq_len: 100
    global_batch_tokens: 1_000
    lr: {peak: 3.0e-3, initial: 1.0e-3, warmup_tokens: 4K}
    sources:
      - {name: web, path: data/web, weight: 0.7}
      - {name: english, path: data/english, weight: 0.3, max_epochs: 2.5, replay: true}
  - name: law
    tokens: 30K
    seq_len: 250
    global_batch_tokens: 1_000
    lr: {peak: 3.0e-3, final: 3.0e-4, decay: cosine}
    attention: across
    rope_scaling: {rope_type: yarn, factor: 4, original_max_position_embeddings: 64}
    sources:
      - {name: statutes, path: data/law, weight: 1}
"""


@pytest.fixture
def decoder_run(run: Path) -> Path:
    """The same run as one of a decoder that has done 40 of the 46 steps of a curriculum."""
    values = yaml.safe_load((run / "run.yaml").read_text())
    values |= {"curriculum": CURRICULUM, "tokens_per_step": None, "steps": 46, "earlier_curricula": []}
    values["config"] |= {"name": "qwen3_tiny", "init_from": "ckpt/base"}
    (run / "run.yaml").write_text(yaml.safe_dump(values))
    return run


@pytest.fixture(scope="session")
def plain_corpus(test_documents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two columns, number and text, as anyone's own corpus may have them; real text without titles."""
    folder = tmp_path_factory.mktemp("plain")
    texts = [document.text for document in test_documents if document.source != "kenet"]
    for split, part in (("train", texts[:-120]), ("validation", texts[-120:-60]), ("test", texts[-60:])):
        lines = [json.dumps({"id": number, "text": text}, ensure_ascii=False) for number, text in enumerate(part)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def trained_run(sample_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three Megatron checkpoints of random weights; not yet evaluated."""
    from conversion.hf_import import import_folder

    run = write_run(tmp_path_factory.mktemp("runs") / "run")
    for step in STEPS:
        folder = make_model(tmp_path_factory.mktemp("models") / str(step), sample_tokenizer, step)
        import_folder(folder, run / "checkpoints" / f"step_{step:07d}")
    return run


@pytest.fixture(scope="session")
def evaluated_run(trained_run: Path, small_corpus: Path, settings: SelectionSettings) -> Path:
    """The run, its checkpoint selected for real."""
    from evaluation.selection.measure import select_checkpoint

    out = trained_run / "evaluation"
    select_checkpoint(trained_run, small_corpus, out, settings, budget=BUDGET, device="cpu")
    return trained_run
