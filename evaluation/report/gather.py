"""Everything that the report shows, read and checked before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from evaluation.perplexity.results import FORMAT, ModelScores, PerplexityResults
from evaluation.results import read_record
from evaluation.run_folder import metrics_of, training_lines, validation_lines
from evaluation.selection.results import CheckpointScores, Selection
from mecellem.errors import UserError
from megatron_recipes.data.curriculum import Curriculum
from megatron_recipes.run_folder import FILE, read_run

PERPLEXITY = "perplexity.json"  # in the folder of a run's evaluation
Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ReportData:
    """A run: its settings and curves and, where its checkpoints were evaluated, the selection.

    `curriculum` is None for an encoder; `perplexity` is there only where a decoder's was measured.
    """

    run: Path
    settings: dict[str, Any]
    training: Rows
    validation: Rows
    selection: Selection | None
    corpus: dict[str, Any] | None
    curriculum: Curriculum | None
    perplexity: PerplexityResults | None

    @property
    def name(self) -> str:
        """The recipe's name, or the folder's."""
        return str(self.settings.get("config", {}).get("name") or self.run.resolve().name)

    @property
    def causal(self) -> bool:
        """Whether the run trained a decoder through a curriculum."""
        return self.curriculum is not None

    @property
    def counted(self) -> str:
        """What the loss is a mean over."""
        return "token" if self.causal else "masked token"

    @property
    def emulated_fp8(self) -> str | None:
        """The precision of a run whose FP8 was emulated, which says nothing of FP8's speed; None for every other run."""
        config = self.settings.get("config", {})
        emulated = (config.get("fp8") or {}).get("emulate")
        return str(config["precision"]) if emulated and str(config.get("precision")).startswith("fp8") else None

    @property
    def before_and_after(self) -> tuple[ModelScores, ModelScores] | None:
        """The first model whose perplexity was measured and the run's: its checkpoint where one is there, or the last model."""
        if self.perplexity is None:
            return None
        models, own = self.perplexity.models, (self.run / "checkpoints").resolve()
        ours = [model for model in models if own in Path(model.folder).resolve().parents]
        return models[0], (ours or models)[-1]

    @property
    def checkpoints(self) -> list[CheckpointScores]:
        """The evaluated checkpoints in order of steps."""
        return sorted(self.selection.checkpoints, key=lambda row: row.step) if self.selection else []

    def tokens_at(self, step: int) -> int:
        """Tokens seen by `step`: from the run's settings, else from the nearest line of the metrics."""
        per_step = self.settings.get("tokens_per_step")
        if per_step:
            return step * int(per_step)
        if self.curriculum:
            return self.curriculum.tokens_after(step)
        nearest = min(self.training, key=lambda row: abs(row["step"] - step))
        return int(nearest["tokens"])

    def lowest_validation(self) -> dict[str, Any] | None:
        """The validation line with the lowest loss."""
        return min(self.validation, key=lambda row: float(row["validation_loss"]), default=None)

    def validation_at(self, step: int) -> dict[str, Any] | None:
        """The validation line nearest to `step`."""
        return min(self.validation, key=lambda row: abs(int(row["step"]) - step), default=None)


def read_corpus(folder: Path) -> dict[str, Any] | None:
    """`corpus.json` (sources, licences, sizes), or None where the corpus came from elsewhere."""
    path = folder / "corpus.json"
    if not path.is_file():
        return None
    try:
        found = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error.msg}): make the corpus again with `mecellem corpus fetch`") from None
    return found if isinstance(found, dict) else None


def read_curriculum(run: Path, settings: dict[str, Any]) -> Curriculum | None:
    """The curriculum that the run's record holds; None for an encoder."""
    text = settings.get("curriculum")
    return None if text is None else Curriculum.parse(str(text), run / FILE)


def read_perplexity(run: Path, evaluation: Path, given: Path | None, causal: bool) -> PerplexityResults | None:
    """What `mecellem evaluate perplexity` wrote: `given`, or where it is there `perplexity.json` in `evaluation`."""
    if not causal and given is not None:
        raise UserError(f"--perplexity {given}: {run} is an encoder's run, which has no perplexity: remove the flag")
    path = given or evaluation / PERPLEXITY
    if not causal or (given is None and not path.is_file()):
        return None
    found = read_record(path, PerplexityResults, f"measure with `mecellem evaluate perplexity ... --out {path}`")
    if found.format != FORMAT or not found.models:
        raise UserError(f"{path} has format {found.format!r} and {len(found.models)} models, not {FORMAT!r}: measure again")
    return found


def read_selection(run: Path, evaluation: Path) -> Selection | None:
    """What `mecellem select` wrote; None where it is not there. Raises `UserError` for a file of another version."""
    path = evaluation / "selection.json"
    if not path.is_file():
        return None
    return read_record(path, Selection, f"select again with `mecellem select {run} --out {evaluation}`")


def gather(run: Path, evaluation: Path, corpus: Path | None, perplexity: Path | None = None) -> ReportData:
    """Read a run, its evaluation (where `evaluation/selection.json` exists) and its corpus's description.

    `corpus` is the folder of the corpus; the one that the evaluation names, unless given. `perplexity` is a decoder's
    results; `evaluation/perplexity.json` where it is there, unless given. Raises `UserError` for a folder that is no run,
    broken metrics, or evaluation files of another version.
    """
    settings, rows = read_run(run), metrics_of(run)
    if not training_lines(rows):
        raise UserError(f"{run / 'metrics.jsonl'} has no training step yet: wait for the first, or resume the run")
    curriculum = read_curriculum(run, settings)
    selection = read_selection(run, evaluation)
    if selection is not None:
        corpus = corpus or Path(selection.corpus["folder"])
    return ReportData(
        run=run,
        settings=settings,
        training=training_lines(rows),
        validation=validation_lines(rows),
        selection=selection,
        corpus=read_corpus(corpus) if corpus else None,
        curriculum=curriculum,
        perplexity=read_perplexity(run, evaluation, perplexity, curriculum is not None),
    )
