"""lm-evaluation-harness runs on our folders, from a task of our own files, and finds the same bits per byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evaluation.perplexity.measure import measure_models
from evaluation.perplexity.settings import PerplexitySettings

WINDOW = 64


def write_task(folder: Path, texts: Path) -> Path:
    """A rolling-perplexity task and a multiple-choice one, on local files: what README shows for one's own texts."""
    folder.mkdir()
    lines = [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()]
    documents = [line for line in lines if line["text"].strip()][:10]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": line["text"]}) + "\n" for line in documents))
    questions = [
        {"question": line["text"][:80], "choices": [line["text"][80:110], line["text"][80:110][::-1]], "answer": 0}
        for line in documents
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in questions))
    shared = {"dataset_path": "json", "test_split": "test", "metadata": {"version": 1}}
    tasks = {
        "own_texts": {
            "dataset_kwargs": {"data_files": {"test": str(folder / "texts.jsonl")}},
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "bits_per_byte"}],
        },
        "own_questions": {
            "dataset_kwargs": {"data_files": {"test": str(folder / "questions.jsonl")}},
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{answer}}",
            "metric_list": [{"metric": "acc"}],
        },
    }
    for name, task in tasks.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name, **shared, **task}), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_bits_per_byte_are_ours(qwen3: Path, texts: Path, tmp_path: Path):
    tasks = write_task(tmp_path / "tasks", texts)
    command = [
        *(sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu", "--batch_size", "4"),
        *("--model_args", f"pretrained={qwen3},dtype=float32,max_length={WINDOW}"),
        *("--tasks", "own_texts,own_questions", "--include_path", str(tasks), "--output_path", str(tmp_path / "found")),
    ]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1", **offline}
    )
    assert done.returncode == 0, done.stderr
    (record,) = (tmp_path / "found").rglob("results_*.json")
    results = json.loads(record.read_text())["results"]
    settings = PerplexitySettings(window=WINDOW, stride=WINDOW)
    ours = measure_models(
        [qwen3], [tasks / "texts.jsonl"], tmp_path / "ours.json", tmp_path / "ours_cache", settings, "cpu"
    ).models[0]
    assert ours.long_documents > 0  # rolling windows took part
    assert results["own_texts"]["bits_per_byte,none"] == pytest.approx(ours.all.bits_per_byte, rel=1e-4)
    assert 0 <= results["own_questions"]["acc,none"] <= 1
