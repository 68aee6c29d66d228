"""lm-evaluation-harness runs on a folder that we exported, with README's task, and finds what our own scores say."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluation.perplexity.measure import measure_models
from evaluation.perplexity.settings import PerplexitySettings

ROOT = Path(__file__).resolve().parents[3]
WINDOW = 64


def readme_task(texts: Path) -> str:
    """The task that README prints, on a file of ours."""
    (block,) = re.findall(r"```yaml\n( *task: own_texts\n.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block.count("texts.jsonl") == 1
    return textwrap.dedent(block).replace("texts.jsonl", json.dumps(str(texts)))


def write_tasks(folder: Path, texts: Path) -> list[dict[str, Any]]:
    """README's rolling-perplexity task and a multiple-choice one, on local files; returns the questions."""
    folder.mkdir()
    lines = [json.loads(line)["text"].strip() for line in texts.read_text(encoding="utf-8").splitlines()]
    documents = [text for text in lines if len(text) > 120][:10]
    assert len(documents) == 10
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    ends = [text[80:110].strip() for text in documents]
    questions = [
        {"question": text[:80].strip(), "choices": [own, other], "answer": 0}
        for text, own, other in zip(documents, ends, [*ends[1:], ends[0]], strict=True)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    (folder / "own_texts.yaml").write_text(readme_task(folder / "texts.jsonl"), encoding="utf-8")
    task = {
        "task": "own_questions",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "questions.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}],
    }
    (folder / "own_questions.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    return questions


def own_accuracy(folder: Path, questions: list[dict[str, Any]]) -> float:
    """The share of questions whose first choice is the likelier one after the question and a space."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)

    def log_likelihood(question: str, choice: str) -> float:
        begin = len(tokenizer(question)["input_ids"])
        ids = torch.tensor(tokenizer(f"{question} {choice}")["input_ids"])
        assert len(ids) <= WINDOW
        with torch.no_grad():
            found = model(ids[None, :-1]).logits[0].log_softmax(-1).gather(1, ids[1:, None])
        return float(found[begin - 1 :].sum())

    right = [log_likelihood(item["question"], item["choices"][0]) > log_likelihood(item["question"], item["choices"][1])
             for item in questions]  # fmt: skip
    return sum(right) / len(right)


@pytest.mark.slow
def test_scores_of_an_exported_folder_are_ours(qwen3: Path, texts: Path, tmp_path: Path):
    from mecellem.cli import main

    tasks, exported = tmp_path / "tasks", tmp_path / "exported"
    questions = write_tasks(tasks, texts)
    assert main(["convert", "import", str(qwen3), str(tmp_path / "checkpoint")]) == 0
    assert main(["convert", "export", str(tmp_path / "checkpoint"), str(exported)]) == 0
    command = [
        *(sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu", "--batch_size", "4"),
        *("--model_args", f"pretrained={exported},dtype=float32,max_length={WINDOW}"),
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
        [exported], [tasks / "texts.jsonl"], tmp_path / "ours.json", tmp_path / "ours_cache", settings, "cpu"
    ).models[0]
    assert ours.long_documents > 0  # rolling windows took part
    assert results["own_texts"]["bits_per_byte,none"] == pytest.approx(ours.all.bits_per_byte, rel=1e-4)
    accuracy = own_accuracy(exported, questions)
    assert 0 < accuracy < 1  # neither is what a model that always takes one of the two would get
    assert results["own_questions"]["acc,none"] == pytest.approx(accuracy)
