"""What a model folder is worth: fill-mask and retrieval beside baselines, each part computed once and cached."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.cache import Cache, content_key, source_sha256
from evaluation.fill_mask import fill_mask, unigram
from evaluation.machine import hardware_line, versions
from evaluation.random_model import write_random_model
from evaluation.results import (
    EvaluationResults,
    FillMaskScores,
    ModelFacts,
    PostTraining,
    Sample,
    SampleList,
    SystemScores,
    write_record,
)
from evaluation.retrieval.bm25 import K1, B, Run, rank_bm25
from evaluation.retrieval.dense import rank_dense
from evaluation.retrieval.metrics import score_run
from evaluation.retrieval.tasks import RetrievalTask, build_tasks
from evaluation.samples import samples
from evaluation.settings import EvaluationSettings
from mecellem.files import sha256_of
from mecellem.tokenizer_files import read_json
from post_training.contrastive import TRAINING_RECORD, mean_pooled, train_contrastive
from post_training.model_folder import (
    check_model_folder,
    count_parameters,
    load_masked_lm,
    load_tokenizer,
    model_sha256,
    pick_device,
)
from preprocessing.corpus.document import Document
from preprocessing.corpus.read_split import read_split, split_path, split_sha256

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# The systems of every results.json, and what the tables call them.
SYSTEMS = {
    "bm25": "BM25",
    "random_mean_pooled": "random weights, mean-pooled",
    "model_mean_pooled": "model, mean-pooled",
    "random_post_trained": "random weights, post-trained",
    "model_post_trained": "model, post-trained",
}


@dataclass(slots=True)
class Evaluation:
    """One evaluation in progress: inputs that were checked, and the cache that finished parts go to."""

    folder: Path
    corpus: Path
    settings: EvaluationSettings
    cache: Cache
    device: str
    test: list[Document]
    identity: dict[str, str]
    train: list[Document] = field(default_factory=list)

    def train_documents(self) -> list[Document]:
        """The train split, read on first use: cached parts do not need it."""
        self.train = self.train or read_split(self.corpus, "train")
        return self.train

    def key(self, **parts: Any) -> dict[str, Any]:
        """A cache key: `parts`, the device and the library versions (either may move a last digit), and our own code."""
        code = source_sha256("evaluation", "post_training", "preprocessing")
        return {**parts, "device": self.device.split(":")[0], "versions": versions(), "code": code}


def open_evaluation(
    folder: Path, corpus: Path, cache: Path, settings: EvaluationSettings, device: str
) -> tuple[Evaluation, list[RetrievalTask], Any]:
    """Check all inputs before any work: the evaluation, its tasks, the tasks left out. Raises `UserError`."""
    check_model_folder(folder)
    split_path(corpus, "train")
    test = read_split(corpus, "test")
    tasks, left_out = build_tasks(test, settings.retrieval)
    identity = {
        "model": model_sha256(folder),
        "tokenizer": sha256_of(folder / "tokenizer.json"),
        "shape": architecture_key(folder),
        "train": split_sha256(corpus, "train"),
        "test": split_sha256(corpus, "test"),
    }
    return Evaluation(folder, corpus, settings, Cache(cache), pick_device(device), test, identity), tasks, left_out


def architecture_key(folder: Path) -> str:
    """Equal for folders whose random-weights twins are equal: same config apart from notes, same tokenizer."""
    config = {key: value for key, value in read_json(folder / "config.json").items() if not key.startswith("_")}
    config.pop("transformers_version", None)
    return content_key([config, sha256_of(folder / "tokenizer.json")])


def evaluate_masks(work: Evaluation) -> tuple[FillMaskScores, FillMaskScores, list[Sample]]:
    """Fill-mask of the model and of the unigram baseline, and sentences to read."""
    settings, identity = work.settings, work.identity
    questions = {"test": identity["test"], "tokenizer": identity["tokenizer"], "settings": asdict(settings.masking)}
    tokenizer = load_tokenizer(work.folder)
    baseline = work.cache.record(
        "unigram",
        work.key(**questions, train=identity["train"]),
        FillMaskScores,
        lambda: unigram(tokenizer, work.train_documents(), work.test, settings.masking),
    )
    scores = work.cache.record(
        "fill-mask",
        work.key(**questions, model=identity["model"]),
        FillMaskScores,
        lambda: fill_mask(load_masked_lm(work.folder, work.device), tokenizer, work.test, settings.masking),
    )
    shown = work.cache.record(
        "samples",
        work.key(test=identity["test"], model=identity["model"], count=settings.sample_sentences),
        SampleList,
        lambda: SampleList(
            samples=samples(load_masked_lm(work.folder, work.device), tokenizer, work.test, settings.sample_sentences)
        ),
    )
    return scores, baseline, shown.samples


def score_system(tasks: Sequence[RetrievalTask], rank: Callable[[RetrievalTask], Run]) -> SystemScores:
    """One system on all tasks, timed."""
    started = time.perf_counter()
    scores = {task.name: score_run(task, rank(task)) for task in tasks}
    mean = sum(score.ndcg_10 for score in scores.values()) / len(scores)
    return SystemScores(tasks=scores, mean_ndcg_10=mean, seconds=time.perf_counter() - started)


def load_embedding(folder: Path, max_seq_length: int, device: str) -> SentenceTransformer:
    """A saved sentence-transformers folder, from disk, cut to `max_seq_length` tokens."""
    from sentence_transformers import SentenceTransformer

    from post_training.model_folder import quiet_transformers

    with quiet_transformers():
        model = SentenceTransformer(str(folder), device=device, local_files_only=True)
    model.max_seq_length = max_seq_length
    return model


def score_dense(
    work: Evaluation, tasks: Sequence[RetrievalTask], weights: str, load: Callable[[], SentenceTransformer]
) -> SystemScores:
    """A dense system, cached by the SHA-256 of its files; the model is loaded only where it has to be."""

    def compute() -> SystemScores:
        model = load()
        return score_system(tasks, lambda task: rank_dense(model, task))

    parts = work.key(weights=weights, tasks=[task.facts().sha256 for task in tasks], length=work.settings.max_seq_length)
    return work.cache.record("dense", parts, SystemScores, compute)


def post_train(work: Evaluation, folder: Path, weights: str, target: Path | None, title: str) -> tuple[Path, PostTraining]:
    """The post-trained twin of `folder`: in the cache, or at `target` (made again when it came from other inputs)."""
    settings = work.settings.post_training
    parts = work.key(weights=weights, train=work.identity["train"], settings=asdict(settings))

    def make(path: Path) -> None:
        train_contrastive(folder, path, work.train_documents(), settings, device=work.device, title=title)

    if target is None:
        path = work.cache.make_folder("embedding", parts, make)
    else:
        path, stamp = target, target.with_name(f"{target.name}.key")
        if not (path.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == content_key(parts)):
            shutil.rmtree(path, ignore_errors=True)
            make(path)
            stamp.write_text(content_key(parts), encoding="utf-8")
    result = json.loads((path / TRAINING_RECORD).read_text(encoding="utf-8"))["result"]
    return path, PostTraining(**result, folder=str(path))


def evaluate_retrieval(
    work: Evaluation, tasks: Sequence[RetrievalTask], embedding: Path | None
) -> tuple[dict[str, SystemScores], dict[str, PostTraining]]:
    """All of `SYSTEMS` on all tasks, nothing without tasks. What the model's weights do not change checkpoints share."""
    if not tasks:
        return {}, {}
    settings, identity = work.settings, work.identity
    hashes = [task.facts().sha256 for task in tasks]
    systems = {
        "bm25": work.cache.record(
            "bm25", work.key(tasks=hashes, k1=K1, b=B), SystemScores, lambda: score_system(tasks, rank_bm25)
        )
    }
    trainings = {}
    seed = settings.random_seed
    random_folder = work.cache.make_folder(
        "random",
        work.key(shape=identity["shape"], seed=seed),
        lambda path: write_random_model(work.folder, path, seed),
    )
    for name, folder, weights, target in (
        ("random", random_folder, f"random:{identity['shape']}:{seed}", None),
        ("model", work.folder, identity["model"], embedding),
    ):
        load = partial(mean_pooled, folder, settings.max_seq_length, work.device)
        systems[f"{name}_mean_pooled"] = score_dense(work, tasks, weights, load)
        path, trainings[name] = post_train(work, folder, weights, target, f"post-training ({name})")
        load = partial(load_embedding, path, settings.max_seq_length, work.device)
        systems[f"{name}_post_trained"] = score_dense(work, tasks, sha256_of(path / "model.safetensors"), load)
    return {name: systems[name] for name in SYSTEMS}, trainings


def model_facts(work: Evaluation) -> ModelFacts:
    """What the model folder says about itself."""
    config = read_json(work.folder / "config.json")
    verification = work.folder / "verification.json"
    return ModelFacts(
        folder=str(work.folder),
        sha256=work.identity["model"],
        parameters=count_parameters(work.folder),
        vocabulary=config["vocab_size"],
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        verification=read_json(verification) if verification.exists() else None,
    )


def evaluate_folder(
    folder: Path,
    corpus: Path,
    out: Path,
    cache: Path,
    settings: EvaluationSettings | None = None,
    *,
    embedding: Path | None = None,
    device: str = "auto",
) -> EvaluationResults:
    """Evaluate a Hugging Face folder on a corpus's test split and write `out` (JSON).

    Every finished part is kept in `cache`, so a second call, or one after an interruption, goes on where it was.
    `embedding` is where the post-trained model goes (else the cache). Raises `UserError` for bad input, before work.
    """
    settings = settings or EvaluationSettings()
    started = time.perf_counter()
    work, tasks, left_out = open_evaluation(folder, corpus, cache, settings, device)
    masks, baseline, shown = evaluate_masks(work)
    systems, trainings = evaluate_retrieval(work, tasks, embedding)
    results = EvaluationResults(
        model=model_facts(work),
        corpus={"folder": str(corpus), "train": work.identity["train"], "test": work.identity["test"]},
        settings=asdict(settings),
        versions=versions(),
        hardware=hardware_line(work.device),
        fill_mask=masks,
        unigram=baseline,
        samples=shown,
        tasks=[task.facts() for task in tasks],
        left_out=left_out,
        systems=systems,
        post_training=trainings,
        seconds=time.perf_counter() - started,
    )
    write_record(out, results)
    return results
