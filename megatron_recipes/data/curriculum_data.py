"""The data of a causal run, step after step through its curriculum, with a cursor that any layout resumes from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from pydantic import ValidationError

from mecellem.errors import UserError
from megatron_recipes.data.causal import CausalBatch, Row, causal_batch
from megatron_recipes.data.corpus import TokenCorpus
from megatron_recipes.data.curriculum import Curriculum
from megatron_recipes.data.curriculum_stage import Stage
from megatron_recipes.data.cursor import FORMAT, Cursor, FinishedStage, SourceStream, StreamState
from megatron_recipes.data.supply import Mixture, check_supply, hash_of, planned_use


class CurriculumData:
    """The global batches of a curriculum, one a step; each rank walks all of a batch and reads its own share of it."""

    def __init__(self, curriculum: Curriculum, corpora: Mapping[Path, TokenCorpus], seed: int) -> None:
        """`corpora`: every source's corpus by its path (`supply.open_sources`). Begins at step 0; `restore` goes elsewhere."""
        self.curriculum, self.seed = curriculum, seed
        self._manifests = {path: corpus.manifest for path, corpus in corpora.items()}
        sources = [source for stage in curriculum.stages for source in stage.sources]
        self._corpora = {hash_of(source, self._manifests): corpora[source.path] for source in sources}
        self._eod = next(iter(self._corpora.values())).manifest.tokenizer.eod_id
        self._streams: dict[str, SourceStream] = {name: SourceStream(corpus, seed) for name, corpus in self._corpora.items()}
        self._unused: dict[str, StreamState] = {}  # corpora of the cursor that this curriculum does not name
        self._stage, self._steps = 0, 0
        self._mixture = Mixture(curriculum.stages[0], self._manifests)
        self._supply_checked = False

    def check_supply(self) -> None:
        """Raise `UserError` where a source is asked for more than its `max_epochs`, from the cursor on.

        For a new run to call before any work; `restore` does it for a resumed one, whose past may have been another.
        """
        check_supply(self.curriculum, planned_use(self.curriculum, self._manifests, self._cursor()))
        self._supply_checked = True

    @property
    def step(self) -> int:
        """Optimizer steps done, over all stages."""
        return sum(stage.steps for stage in self.curriculum.stages[: self._stage]) + self._steps

    def next_step(self, data_parallel_rank: int, data_parallel_size: int, rows_per_micro_batch: int) -> Iterator[CausalBatch]:
        """This rank's micro batches of the next optimizer step; the cursor moves past the whole step at once.

        The step's sequences are the same on any layout; over ranks and micro batches they are dealt in turns of
        `rows_per_micro_batch`, as `batches.training_batches` does. Tokens are read as the iterator goes on.
        """
        if not self._supply_checked:
            self.check_supply()
        if self._steps == self.curriculum.stages[self._stage].steps:
            self._enter(self._stage + 1)
        stage = self.curriculum.stages[self._stage]
        count = stage.sequences_per_step
        assert count % (rows_per_micro_batch * data_parallel_size) == 0, "see Curriculum.check_layout"
        dealt = np.arange(count).reshape(-1, data_parallel_size, rows_per_micro_batch)[:, data_parallel_rank]
        rows = self._take(stage, dealt)
        self._steps += 1
        return (
            causal_batch([rows[number] for number in numbers], stage.seq_len, stage.attention, self._eod)
            for numbers in dealt.tolist()
        )

    def _take(self, stage: Stage, mine: np.ndarray) -> dict[int, Row]:
        """Take a step's sequences from all streams; returns the rows of the sequences `mine`, by their number in the step."""
        drawn = self._mixture.blend.sources(self._steps * stage.sequences_per_step, stage.sequences_per_step)
        streams = [self._streams[name] for name in self._mixture.identities]
        counts = np.bincount(drawn, minlength=len(streams))
        nth = np.empty_like(drawn)  # how many sequences of the same source come before in the step
        nth[np.argsort(drawn, kind="stable")] = np.arange(len(drawn)) - np.repeat(np.cumsum(counts) - counts, counts)
        numbers = mine.ravel()
        rows = {
            number: streams[source].row(before * stage.seq_len, stage.seq_len)
            for number, source, before in zip(numbers.tolist(), drawn[numbers].tolist(), nth[numbers].tolist(), strict=True)
        }
        for stream, count in zip(streams, counts.tolist(), strict=True):
            stream.advance(count * stage.seq_len)
        return rows

    def _enter(self, stage: int, steps: int = 0) -> None:
        assert stage < len(self.curriculum.stages), "the curriculum is over"
        self._stage, self._steps = stage, steps
        self._mixture = Mixture(self.curriculum.stages[stage], self._manifests)

    def _digest(self, stage: Stage) -> str:
        """A hash of what a stage consists of: its settings, and its corpora by their tokens, wherever they lie."""
        settings = stage.model_dump(mode="json", exclude={"sources"})
        content = [settings, Mixture(stage, self._manifests).weights]
        return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def cursor(self) -> dict[str, Any]:
        """The state after the last step, for JSON."""
        return self._cursor().model_dump(mode="json")

    def _cursor(self) -> Cursor:
        stage = self.curriculum.stages[self._stage]
        return Cursor(
            seed=self.seed,
            finished=tuple(
                FinishedStage(name=done.name, digest=self._digest(done)) for done in self.curriculum.stages[: self._stage]
            ),
            stage=stage.name,
            global_batch_tokens=stage.global_batch_tokens,
            steps=self._steps,
            streams=self._unused | {name: stream.state() for name, stream in self._streams.items()},
        )

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a cursor, with the same curriculum bit for bit, or with one whose future was changed.

        The stage under way may have other weights, sources, sequence length, learning rate or attention from here on
        and may end sooner or later; later stages are free. Corpora may have moved. Raises
        `UserError` for a finished stage that was changed, for another seed or batch in mid-stage, for a corpus that was
        overwritten and for `max_epochs` that what is left would exceed.
        """
        cursor = _read(state)
        self._check_past(cursor)
        self._check_corpora(cursor)
        check_supply(self.curriculum, planned_use(self.curriculum, self._manifests, cursor))
        self._supply_checked = True
        self._unused = {name: state for name, state in cursor.streams.items() if name not in self._corpora}
        self._streams = {
            name: SourceStream(corpus, self.seed, cursor.streams.get(name)) for name, corpus in self._corpora.items()
        }
        self._enter(len(cursor.finished), cursor.steps)

    def _check_past(self, cursor: Cursor) -> None:
        if cursor.seed != self.seed:
            raise UserError(
                f"the checkpoint's data are in the order of seed {cursor.seed}, this run has seed {self.seed}: documents would "
                f"come again or never; set --seed {cursor.seed}"
            )
        path, stages = self.curriculum.path, self.curriculum.stages
        names = [stage.name for stage in cursor.finished] + [cursor.stage]
        if [stage.name for stage in stages[: len(names)]] != names:
            raise UserError(
                f"{path}: its stages must begin with {', '.join(names)}, which the checkpoint has finished or is in: only what "
                "comes after may be changed"
            )
        for number, done in enumerate(cursor.finished):
            if self._digest(stages[number]) != done.digest:
                raise UserError(
                    f"{self.curriculum.where(number)}: this stage is finished in the checkpoint and was changed since: "
                    "restore it and change later stages instead"
                )
        number = len(cursor.finished)
        stage, where = stages[number], self.curriculum.where(number, key="global_batch_tokens")
        if cursor.steps and stage.global_batch_tokens != cursor.global_batch_tokens:
            done_tokens = cursor.steps * cursor.global_batch_tokens
            raise UserError(
                f"{where}: the checkpoint is in this stage with global_batch_tokens {cursor.global_batch_tokens:,}, steps "
                f"would no longer count tokens: end it with tokens: {done_tokens} and go on in a new stage"
            )
        if stage.steps < cursor.steps:
            raise UserError(
                f"{where}: the checkpoint has {cursor.steps:,} steps of this stage, it now ends after {stage.steps:,}: "
                f"set tokens to {cursor.steps * cursor.global_batch_tokens} or more"
            )

    def _check_corpora(self, cursor: Cursor) -> None:
        paths = {state.path: name for name, state in cursor.streams.items()}
        for name, corpus in self._corpora.items():
            if paths.get(str(corpus.prefix), name) != name and name not in cursor.streams:
                raise UserError(
                    f"{corpus.prefix} holds other tokens than when the checkpoint was written, its documents might be seen "
                    "again: put the old corpus back, or give the new one a path of its own"
                )


def _read(state: Mapping[str, Any]) -> Cursor:
    try:
        cursor = Cursor.model_validate(dict(state))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"the checkpoint's data cursor is broken ({where}: {first['msg']}): resume from another checkpoint"
        ) from None
    if cursor.format != FORMAT:
        raise UserError(f"the checkpoint's data cursor has format {cursor.format!r}, this version reads {FORMAT!r}")
    return cursor
