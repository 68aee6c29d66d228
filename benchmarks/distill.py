"""Offline distillation beside distil-trainer 0.1.27 (the paper's own trainer) and a plain sentence-transformers MSE run.

    python benchmarks/distill.py

Training: multilingual-e5-small cut to some layers learns the vectors of the whole one, on the same texts of the sample
corpus, each seen once, in batches of the same size, cut at the same length, in fp32, with the student's own dropout. All
begin with loaded models and texts that are not tokenized yet, and end with the last optimiser step. distil-trainer fails with
the sentence-transformers of this repository, so it gets an environment of its own with sentence-transformers 4.1.0 and the
same torch.

Vectors: what `mecellem distill vectors` does with texts (counting tokens included) beside `SentenceTransformer.encode` of the
same model, at the batch size that is its best.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import CACHE, ROOT, header, sample_text
from real_models import e5_small_folder

from evaluation.choice import hash_order
from mecellem.files import atomic_folder, atomic_write
from mecellem.flags import parse_and_call
from mecellem.token_batches import tokens_a_batch
from post_training.distillation.encode import count_tokens, encode
from post_training.distillation.store import open_store
from post_training.distillation.vectors import make_vectors, open_teacher
from post_training.start import find_start
from preprocessing.corpus.read_split import read_split

PEER = (
    "distil-trainer==0.1.27",
    "sentence-transformers==4.1.0",
    "transformers==4.57.3",
    "huggingface_hub==0.36.0",
    "tokenizers==0.22.1",
    "datasets==3.6.0",
    "accelerate==1.10.1",
    "fsspec==2025.3.0",
    "dill==0.3.8",
    "multiprocess==0.70.16",
)
NAMES = {
    "distil-trainer": "distil-trainer 0.1.27",
    "plain": "sentence-transformers, MSELoss",
    "plain parts": "the same, in parts of 32 texts",
    "ours cosine": "mecellem distill train, 1 - cos",
    "ours mse": "mecellem distill train, MSE",
}
BATCH_SIZES = (4, 8, 16, 32, 64)


def peer_python() -> Path:
    """The interpreter of distil-trainer's environment: its pinned packages, and of ours what they do not name (torch)."""
    folder = CACHE / "distil-trainer-env"
    python = folder / "bin" / "python"
    if not python.exists():
        own = Path(np.__file__).parents[1]
        venv.create(folder, with_pip=True)
        place = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        (place / "zz_outer.pth").write_text(f"{own}\n", encoding="utf-8")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", *PEER], check=True, timeout=600)
    return python


def cut_student(teacher: Path, layers: int) -> Path:
    """The teacher's first layers as a model of their own."""
    from sentence_transformers import SentenceTransformer

    folder = CACHE / f"e5-small-{layers}-layers"
    if not folder.is_dir():
        model: Any = SentenceTransformer(str(teacher), device="cpu")
        bert = model[0].auto_model
        bert.encoder.layer = bert.encoder.layer[:layers]
        bert.config.num_hidden_layers = layers
        with atomic_folder(folder) as temporary:
            model.save(str(temporary), create_model_card=False)
            write_old_names(temporary)
    return folder


def write_old_names(folder: Path) -> None:
    """Name modules and settings as sentence-transformers 4 does, which its later versions read as well."""
    places = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
        for number, (name, path) in enumerate(places.items())
    ]
    width = json.loads((folder / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    words = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    for name, values in {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
        "tokenizer_config.json": {**words, "tokenizer_class": "PreTrainedTokenizerFast"},
    }.items():
        (folder / name).write_text(json.dumps(values), encoding="utf-8")


def chosen_texts(count: int) -> list[str]:
    """Different texts of the sample's train split, drawn by hash."""
    documents = sorted(read_split(sample_text(), "train"), key=lambda item: hash_order(0, item.id))
    return list(dict.fromkeys(item.text for item in documents))[:count]


def train_times(folder: Path, settings: dict[str, Any], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Times of each contender in each round, taking turns in it."""
    took: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    env = {**os.environ, "OMP_NUM_THREADS": str(settings["threads"]), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    for number in range(rounds):
        for name in NAMES:
            contender, _, variant = name.partition(" ")
            values = {**settings, "variant": variant}
            (folder / "settings.json").write_text(json.dumps(values), encoding="utf-8")
            with tempfile.TemporaryDirectory(dir=folder) as own:  # what it writes goes away with it
                for item in ("settings.json", "texts.json", "vectors.npy", "vectors"):
                    (Path(own) / item).symlink_to(folder / item)
                python = peer_python() if contender == "distil-trainer" else Path(sys.executable)
                words = [str(python), str(ROOT / "benchmarks" / "distill_worker.py"), contender, own]
                path = str(ROOT) if contender == "ours" else ""
                done = subprocess.run(
                    words, env={**env, "PYTHONPATH": path}, capture_output=True, text=True, timeout=3600, cwd=own
                )
            assert done.returncode == 0, done.stderr
            took[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(f"round {number + 1}, {name}: {took[name][-1]}", flush=True)
    return took


def encode_times(teacher: Path, texts: list[str], max_length: int, rounds: int) -> tuple[dict[str, list[float]], float]:
    """CPU seconds of each way to encode in each round, and how far the vectors are apart at most."""
    model = open_teacher(find_start(teacher, CACHE), max_length, "fp32", "cpu")

    def by_tokens() -> np.ndarray:
        lengths = np.minimum(count_tokens(model, texts, ""), max_length)
        return encode(model, texts, lengths, "", tokens_a_batch("cpu")).numpy()

    ways: dict[str, Any] = {
        f"sentence-transformers, {size} rows": lambda size=size: model.encode(texts, batch_size=size) for size in BATCH_SIZES
    }
    ways["mecellem distill vectors"] = by_tokens
    took: dict[str, list[float]] = {name: [] for name in ways}
    found: list[np.ndarray] = []
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            found.append(way())
            took[name].append(time.process_time() - started)
    return took, max(float(np.abs(vectors - found[0]).max()) for vectors in found)


def benchmark(
    out: Path = ROOT / "benchmarks" / "results" / "distill.md",
    steps: int = 3,
    batch_size: int = 256,
    max_length: int = 128,
    layers: int = 3,
    encoded: int = 256,
    rounds: int = 3,
    threads: int = 1,
) -> None:
    """Time all, print the tables and write them to a file.

    Args:
        out: Markdown file for the results.
        steps: optimiser steps of a training.
        batch_size: texts in a step.
        max_length: tokens that a text is cut to.
        layers: of the student; the teacher has 12.
        encoded: texts for the comparison of encoding.
        rounds: how often each contender has its turn.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    teacher = e5_small_folder(ROOT / ".cache" / "models")
    texts = chosen_texts(max(encoded, steps * batch_size))
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="distill-", dir=CACHE) as name:
        folder = Path(name)
        (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[: steps * batch_size]))
        made = make_vectors(
            teacher, [folder / "corpus.jsonl"], folder / "vectors", dtype="fp32", max_length=max_length, device="cpu"
        )
        assert made is not None
        store = open_store(folder / "vectors")
        rows = list(range(len(store)))
        (folder / "texts.json").write_text(json.dumps(store.texts(rows)), encoding="utf-8")
        np.save(folder / "vectors.npy", store.vectors(rows).numpy())
        settings = {
            "student": str(cut_student(teacher, layers)),
            "batch_size": batch_size,
            "max_length": max_length,
            "lr": 5e-5,
            "threads": threads,
        }
        trained = train_times(folder, settings, rounds)
        model = open_teacher(find_start(teacher, CACHE), max_length, "fp32", "cpu")
        lengths = np.minimum(count_tokens(model, store.texts(rows), ""), max_length)
    encodings, apart = encode_times(teacher, texts[:encoded], max_length, rounds)
    text = report(trained, encodings, apart, lengths, steps, batch_size, max_length, layers, encoded, threads)
    print(text)
    with atomic_write(out) as handle:
        handle.write(text)
    print(f"wrote {out}")


def report(
    trained: dict[str, list[dict[str, float]]],
    encodings: dict[str, list[float]],
    apart: float,
    lengths: np.ndarray,
    steps: int,
    batch_size: int,
    max_length: int,
    layers: int,
    encoded: int,
    threads: int,
) -> str:
    """Both tables as Markdown."""
    least, middle, most = (int(np.quantile(lengths, part)) for part in (0.1, 0.5, 0.9))
    samples = steps * batch_size
    lines = ["# Distillation", "", header(("torch", "transformers", "sentence-transformers")), ""]
    lines += [
        f"Student: {layers} of multilingual-e5-small's 12 layers, its whole vocabulary; {steps} steps of {batch_size} texts "
        f"of {least}, {middle} and {most} tokens (10%, 50%, 90%), cut at {max_length}; fp32, {threads} threads. Fastest "
        f"of {len(trained['plain'])} rounds (median). Ours takes about 32 texts of a batch at a time on CPUs, whose caches "
        "that fits; what is left of the difference to the same in parts of 32 are batches of alike length.",
        "",
        "| training | texts a CPU second | of distil-trainer | of sentence-transformers |",
        "|---|---|---|---|",
    ]
    best = {name: min(item["cpu"] for item in items) for name, items in trained.items()}
    for name, shown in NAMES.items():
        middle_rate = samples / statistics.median(item["cpu"] for item in trained[name])
        lines.append(
            f"| {shown} | {samples / best[name]:.2f} ({middle_rate:.2f}) | {best['distil-trainer'] / best[name]:.2f}x | "
            f"{best['plain'] / best[name]:.2f}x |"
        )
    fastest = min(min(took) for name, took in encodings.items() if name.startswith("sentence"))
    lines += [
        "",
        f"Encoding {encoded} texts with all 12 layers; the vectors are {apart:.0e} apart at most.",
        "",
        "| encoding | texts a CPU second | of sentence-transformers' best |",
        "|---|---|---|",
    ]
    for name, took in encodings.items():
        rate = encoded / min(took)
        lines.append(f"| {name} | {rate:.1f} ({encoded / statistics.median(took):.1f}) | {fastest / min(took):.2f}x |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parse_and_call(benchmark, sys.argv[1:], "benchmarks/distill.py")
