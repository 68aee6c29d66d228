"""The parts of a selection, each cached: a checkpoint's figures, the baselines', the kept one's on the test split."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.encoders import SystemSource, find_source
from evaluation.fill_mask.results import FillMaskScores, Sample
from evaluation.random_model import write_random_model
from evaluation.results import Record
from evaluation.selection.results import CheckpointScores, PostTraining, SystemScores, TestFigures
from evaluation.selection.work import TaskSet, Work
from mecellem.console import console
from mecellem.content import content_key
from mecellem.files import sha256_of
from mecellem.tokenizer_files import read_json
from post_training.contrastive import TRAINING_RECORD, train_contrastive
from post_training.exports import exported
from preprocessing.corpus.read_split import read_split, split_path

MASK_ROOMS = ("evaluation/fill_mask", "preprocessing")


class Masks(Record):
    """Fill-mask of one model and of the unigram baseline on the same tokens."""

    model: FillMaskScores
    unigram: FillMaskScores


class SampleList(Record):
    """The filled masks of one model."""

    samples: list[Sample]


def base_source(work: Work, step: int) -> SystemSource:
    """A checkpoint as the run left it: its export, made once."""
    folder = exported(work.checkpoints[step], work.store.folder)
    return work.source(f"step {step}, mean-pooled", folder, "hugging-face")


def checkpoint_scores(work: Work, step: int) -> tuple[CheckpointScores, Masks]:
    """All of one checkpoint's figures on the validation split, with the unigrams'."""
    console().print(f"checkpoint {work.checkpoints[step].name}", markup=False)
    base = base_source(work, step)
    assert base.folder is not None
    masks = mask_scores(work, base, "validation")
    pooled = trained = training = None
    if work.selection.facts:
        pooled = work.scores(base, work.selection)
        if work.budget:
            embedding, training = post_trained(work, base, f"step {step}")
            trained = work.scores(embedding, work.selection)
    row = CheckpointScores(
        step=step,
        tokens=step * work.tokens_per_step if work.tokens_per_step else None,
        checkpoint=str(work.checkpoints[step]),
        folder=str(base.folder),
        sha256=base.sha256,
        fill_mask=masks.model,
        mean_pooled=pooled,
        post_trained=trained,
        training=training,
    )
    return row, masks


def baseline_sources(work: Work) -> list[tuple[str, SystemSource]]:
    """BM25 and random weights of the run's shape, treated as checkpoints are."""
    shape = base_source(work, next(iter(work.checkpoints))).folder
    assert shape is not None
    seed = work.settings.random_seed
    key = work.key("evaluation/selection", shape=shape_key(shape), seed=seed)
    folder = work.made("random", key, lambda path: write_random_model(shape, path, seed))
    random = work.source("random weights, mean-pooled", folder, "hugging-face")
    found = [("bm25", find_source("bm25")), ("random_mean_pooled", random)]
    if work.budget:
        found.append(("random_post_trained", post_trained(work, random, "random weights")[0]))
    return found


def baseline_scores(work: Work) -> dict[str, SystemScores]:
    """The baselines on the validation split, by the names of `SYSTEMS`; none without tasks."""
    if not work.selection.facts:
        return {}
    console().print("baselines", markup=False)
    return {name: work.scores(source, work.selection) for name, source in baseline_sources(work)}


def shape_key(folder: Path) -> str:
    """Equal for folders whose random-weights twins are equal: same config apart from notes, same tokenizer."""
    config = {key: value for key, value in read_json(folder / "config.json").items() if not key.startswith("_")}
    config.pop("transformers_version", None)
    return content_key([config, sha256_of(folder / "tokenizer.json")])


def mask_scores(work: Work, source: SystemSource, split: str) -> Masks:
    """Fill-mask on one split."""
    masking = work.settings.masking
    asked: dict[str, Any] = {name: value for name, value in asdict(masking).items() if name != "mask_batch_tokens"}
    parts = work.key(*MASK_ROOMS, model=source.sha256, documents=work.splits[split], train=work.splits["train"], masking=asked)

    def make() -> Masks:
        from evaluation.fill_mask.inputs import open_baseline
        from evaluation.fill_mask.measure import score_documents

        assert source.folder is not None
        documents = read_split(work.corpus, split)
        baseline = open_baseline([split_path(work.corpus, "train")], [], [], masking)
        model, unigram = score_documents(source.folder, documents, baseline, masking, work.store, work.device)
        return Masks(model=model, unigram=unigram)

    return work.store.record("fill-mask", parts, Masks, make)


def samples(work: Work, source: SystemSource, split: str) -> list[Sample]:
    """Filled masks to read."""
    count = work.settings.sample_sentences
    parts = work.key(*MASK_ROOMS, model=source.sha256, documents=work.splits[split], count=count)

    def make() -> SampleList:
        from evaluation.fill_mask.samples import samples
        from post_training.model_folder import load_masked_lm, load_tokenizer

        assert source.folder is not None
        model, tokenizer = load_masked_lm(source.folder, work.device), load_tokenizer(source.folder)
        return SampleList(samples=samples(model, tokenizer, read_split(work.corpus, split), count))

    return work.store.record("samples", parts, SampleList, make).samples


def post_trained(work: Work, base: SystemSource, name: str) -> tuple[SystemSource, PostTraining]:
    """A model after the selection's post-training, trained once; a training that was cut off goes on."""
    data = work.data.sha256 if work.data else work.splits["train"]
    parts = work.key("post_training", weights=base.sha256, data=data, crops=work.data is None, recipe=asdict(work.recipe))

    def make(target: Path) -> None:
        assert base.folder is not None
        texts = work.data or work.train_documents()
        train_contrastive(base.folder, target, texts, work.recipe, device=work.device, title=f"post-training ({name})")

    folder = work.made("embedding", parts, make)
    result = json.loads((folder / TRAINING_RECORD).read_text(encoding="utf-8"))["result"]
    source = work.source(f"{name}, post-trained", folder, "sentence-transformers")
    return source, PostTraining(**result, folder=str(folder))


def test_figures(work: Work, step: int, tasks: TaskSet) -> TestFigures:
    """The kept checkpoint, the baselines and the unigrams on the test split."""
    console().print(f"the test split, which did not choose: {work.checkpoints[step].name} and baselines", markup=False)
    base = base_source(work, step)
    masks = mask_scores(work, base, "test")
    systems: dict[str, SystemSource] = {}
    if tasks.facts:
        systems = dict(baseline_sources(work)) | {"model_mean_pooled": base}
        if work.budget:
            systems["model_post_trained"] = post_trained(work, base, f"step {step}")[0]
    return TestFigures(
        tasks=tasks.facts,
        left_out=tasks.left_out,
        systems={name: work.scores(source, tasks) for name, source in systems.items()},
        fill_mask=masks.model,
        unigram=masks.unigram,
        samples=samples(work, base, "test"),
    )
