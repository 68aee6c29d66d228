"""The whole way of README by its commands: a tokenizer regrown, the model cloned onto it, distilled, set beside its teacher."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from post_train import environment
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from evaluation.leaderboard.results import Leaderboard
from evaluation.results import read_record

SIZE = 4000
LANGUAGES = "languages:\n  tr: {texts: [ataturk, kenet], target: true}\n"


def mecellem(*words):
    done = subprocess.run(
        [sys.executable, "-m", "mecellem", *map(str, words)], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_graft_clone_vectors_train_evaluate(teacher, text_file, sample_corpus, tmp_path):
    (tmp_path / "languages.yaml").write_text(LANGUAGES)
    tokenizer, clone, vectors, model = (tmp_path / name for name in ("tokenizer", "clone", "vectors", "model"))
    graft = ["--size", SIZE, "--languages", tmp_path / "languages.yaml", "--out", tokenizer]
    mecellem("tokenizer", "graft", "--teacher", teacher, "--corpus", text_file, *graft)
    mecellem("convert", "clone", "--teacher", teacher, "--tokenizer", tokenizer, "--out", clone)
    mecellem("distill", "vectors", "--teacher", teacher, "--corpus", text_file, "--out", vectors, "--device", "cpu")
    recipe = ["--steps", 20, "--batch-size", 32, "--lr", 1e-3, "--held-out", 0.1, "--device", "cpu"]
    mecellem("distill", "train", "--student", clone, "--vectors", vectors, "--out", model, *recipe)
    looks = json.loads((model / "distillation.json").read_text())["result"]["held_out"]
    assert looks[-1]["held_out_cosine"] > looks[0]["held_out_cosine"]

    student = SentenceTransformer(str(model), device="cpu")
    assert len(student.tokenizer) == len(student[0].auto_model.get_input_embeddings().weight) == SIZE
    assert student.tokenizer.get_vocab() == AutoTokenizer.from_pretrained(tokenizer).get_vocab()

    systems = [f"student={model}", f"teacher={teacher}", "bm25"]
    tasks = ["--tasks", "corpus", "--corpus", sample_corpus, "--split", "validation", "--device", "cpu"]
    mecellem("evaluate", "retrieval", *systems, *tasks, "--out", tmp_path / "board")
    board = read_record(tmp_path / "board" / "results.json", Leaderboard, "")
    assert {system.name for system in board.systems} == {"student", "teacher", "bm25"}
    assert all(result.main_score >= 0 for system in board.systems for result in system.tasks.values())
