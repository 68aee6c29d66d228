"""Two models under one or more judges: everything checked first, every batch written and scored once, then set side by side."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from evaluation.cache import Cache
from evaluation.machine import hardware_line, versions
from evaluation.perplexity.measure import names_of
from evaluation.perplexity.models import check_model
from evaluation.perplexity.statistics import interval
from evaluation.results import Record, write_record
from evaluation.reward.conversation import Conversation, encode
from evaluation.reward.generate import Writer
from evaluation.reward.judge_folder import JudgeSource, check_judges
from evaluation.reward.judges import Judge, open_judge, score_conversations
from evaluation.reward.prompts import Continuation, Prompt, read_continuations, read_prompts
from evaluation.reward.results import OVERALL, Author, JudgeFacts, JudgeScores, RewardResults
from evaluation.reward.settings import GenerationSettings, JudgeSettings
from evaluation.reward.statistics import compare, mean
from mecellem.console import console, progress_bar
from mecellem.content import source_sha256
from mecellem.files import atomic_write, sha256_of
from post_training.model_folder import load_tokenizer, pick_device
from preprocessing.jsonl import SUFFIXES

NOTHING = Continuation(text="", tokens=None, finished=None)
CHUNK = 64  # conversations that are scored, and cached, together


class ScoreChunk(Record):
    """Scores `[conversations][columns]` of one chunk."""

    scores: list[list[float]]


def measure_reward(
    judges: Sequence[Path],
    base: Path,
    continued: Path,
    prompts: Path,
    out: Path,
    cache: Path,
    generation: GenerationSettings,
    judging: JudgeSettings,
    prompt_field: str = "prompt",
    device: str = "auto",
) -> RewardResults:
    """Let both models continue the prompts, score all continuations, and write `out` (JSON) with the continuations beside it.

    `base`, `continued`: a model's folder, or a .jsonl of continuations. Raises `UserError` for bad input before any work.
    """
    place, store = pick_device(device), Cache(cache)
    asked = read_prompts(prompts, prompt_field)
    sources = check_judges(judges, judging.axes)
    writers = [open_author(path, flag, asked, prompt_field, generation, place, store)
               for path, flag in ((base, "--base"), (continued, "--continued"))]  # fmt: skip
    readers = [Reader(source, judging, place, store) for source in sources]
    for reader in readers:
        reader.read(asked, [NOTHING] * len(asked))  # a prompt that is too long for a judge is told before models write
    written = []
    for writer in writers:
        written.append(writer.write(asked) if isinstance(writer, Writer) else writer)
        if isinstance(writer, Writer):
            writer.model = None
            free_memory()
    names = author_names(base, continued)
    for name, texts in zip(names, written, strict=True):
        write_continuations(out.parent / f"{out.stem}_{name.replace('/', '_')}.jsonl", asked, texts)
    ratios = np.log1p([len(text.text) for text in written[1]]) - np.log1p([len(text.text) for text in written[0]])
    scored = []
    for reader, name in zip(readers, names_of([source.folder for source in sources]), strict=True):
        console().print(f"judge {name}: {', '.join(reader.source.axes)}", markup=False)
        scored.append(judge_all(reader, name, asked, written, ratios, generation.seed))
        reader.judge = None
        free_memory()
    lengths = [np.array([len(text.text) for text in texts], dtype=np.float64) for texts in written]
    authors = [author(name, path, writer, texts)
               for name, path, writer, texts in zip(names, (base, continued), writers, written, strict=True)]  # fmt: skip
    results = RewardResults(
        prompts=str(prompts),
        prompt_count=len(asked),
        base=authors[0],
        continued=authors[1],
        length_difference=float((lengths[1] - lengths[0]).mean()),
        length_interval=interval(mean, [(lengths[1] - lengths[0]).tolist()], generation.seed),
        judges=scored,
        settings=asdict(generation) | asdict(judging),
        versions=versions(),
        hardware=hardware_line(place),
    )
    write_record(out, results)
    return results


def open_author(
    path: Path, flag: str, prompts: Sequence[Prompt], field: str, settings: GenerationSettings, device: str, store: Cache
) -> Writer | list[Continuation]:
    """Who continues the prompts, checked: a model's folder, or a file with continuations."""
    if path.name.endswith(SUFFIXES):
        return read_continuations(path, prompts, field, flag)
    writer = Writer(check_model(path), settings, device, store)
    writer.inputs(prompts)
    return writer


def author_names(base: Path, continued: Path) -> list[str]:
    """A name each, different ones also where one model is set against itself."""
    if base.resolve() == continued.resolve():
        return ["base", "continued"]
    return names_of([base, continued])


def author(name: str, path: Path, writer: Writer | list[Continuation], texts: Sequence[Continuation]) -> Author:
    """Facts of one side."""
    lengths = [len(text.text) for text in texts]
    unfinished = [not text.finished for text in texts if text.finished is not None]
    return Author(
        name=name,
        source=str(path),
        digest=writer.source.digest if isinstance(writer, Writer) else sha256_of(path),
        mean_length=float(np.mean(lengths)),
        median_length=float(np.median(lengths)),
        empty=sum(not text.text.strip() for text in texts),
        unfinished=sum(unfinished) if unfinished else None,
    )


def write_continuations(path: Path, prompts: Sequence[Prompt], texts: Sequence[Continuation]) -> None:
    """The continuations as a file that --base and --continued read."""
    import orjson

    with atomic_write(path, "wb") as handle:
        for prompt, text in zip(prompts, texts, strict=True):
            record = {"id": prompt.key, "continuation": text.text, "tokens": text.tokens, "finished": text.finished}
            handle.write(orjson.dumps(record) + b"\n")


def judge_all(
    reader: Reader,
    name: str,
    prompts: Sequence[Prompt],
    written: Sequence[Sequence[Continuation]],
    log_ratios: np.ndarray,
    seed: int,
) -> JudgeScores:
    """One judge on both sides, axis by axis and overall."""
    source = reader.source
    conversations = [reader.read(prompts, texts) for texts in written]
    tables = [reader.columns(reader.score(rows)) for rows in conversations]
    base, continued = ({axis: values.tolist() for axis, values in table.items()} for table in tables)
    return JudgeScores(
        judge=JudgeFacts(
            name=name,
            folder=str(source.folder),
            digest=source.digest,
            layout=source.layout,
            axes=list(source.axes),
            overall=source.overall,
            chat_template=bool(reader.tokenizer.chat_template),
            cut=sum(row.cut for rows in conversations for row in rows),
        ),
        base=base,
        continued=continued,
        comparisons=compare(base, continued, log_ratios, seed),
    )


class Reader:
    """A judge that scores conversations, loaded when the first chunk is not in the cache."""

    def __init__(self, source: JudgeSource, settings: JudgeSettings, device: str, store: Cache) -> None:
        self.source = source
        self.settings = settings
        self.device = device
        self.store = store
        self.tokenizer = load_tokenizer(source.folder)
        self.judge: Judge | None = None

    def read(self, prompts: Sequence[Prompt], texts: Sequence[Continuation]) -> list[Conversation]:
        """All conversations as the judge's tokens."""
        limit = min(self.settings.judge_length, self.source.positions, self.tokenizer.model_max_length)
        return [encode(self.tokenizer, prompt.text, text.text, limit) for prompt, text in zip(prompts, texts, strict=True)]

    def score(self, conversations: Sequence[Conversation]) -> np.ndarray:
        """`[conversations, columns]`, chunk by chunk, finished ones from the cache."""
        parts = []
        with progress_bar(transient=True) as bar:
            task = bar.add_task(f"{self.source.folder.name} reads", total=len(conversations))
            for start in range(0, len(conversations), CHUNK):
                chunk = conversations[start : start + CHUNK]
                parts.append(self.cached(chunk).scores)
                bar.update(task, advance=len(chunk))
        return np.array([row for part in parts for row in part], dtype=np.float64)

    def cached(self, chunk: Sequence[Conversation]) -> ScoreChunk:
        """One chunk, scored once for the same judge, tokens, type, code and kind of device."""
        tokens = hashlib.sha256(repr([(row.ids, row.gate, row.types) for row in chunk]).encode()).hexdigest()
        parts = {
            "judge": self.source.digest,
            "conversations": tokens,
            "dtype": self.settings.judge_dtype,
            "device": self.device.split(":")[0],
            "versions": versions(),
            "code": source_sha256("evaluation/reward"),
        }
        return self.store.record("rewards", parts, ScoreChunk, lambda: self.score_chunk(chunk))

    def score_chunk(self, chunk: Sequence[Conversation]) -> ScoreChunk:
        """Score a chunk with the judge itself."""
        if self.judge is None:
            self.judge = open_judge(self.source, self.settings.judge_dtype, self.device)
        scores = score_conversations(self.judge, chunk, self.settings.judge_tokens, self.device)
        return ScoreChunk(scores=scores.tolist())

    def columns(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        """Axis -> scores, as --axis-scores asks, and the overall one where the judge has a gate."""
        count = len(self.source.axes)
        start = count if self.source.layout == "armorm" and self.settings.axis_scores == "debiased" else 0
        found = {axis: scores[:, start + number] for number, axis in enumerate(self.source.axes)}
        return found | ({OVERALL: scores[:, -1]} if self.source.overall else {})


def free_memory() -> None:
    """Give back what the last model held, before the next one is loaded."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
