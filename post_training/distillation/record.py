"""What lies beside a distilled model: `distillation.json`, its card, a line a step, and the curves with their numbers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from post_training.distillation.settings import DistillationSettings
from post_training.training.record import HELD_OUT, QUIET, RECALL, plot_loss, png, versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from post_training.distillation.data import Batches
    from post_training.distillation.store import VectorStore
    from post_training.distillation.student import Student
    from post_training.start import StartingPoint

RECORD, METRICS, CURVES = "distillation.json", "metrics.jsonl", "distillation.png"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training did. `best`: step and score of the weights that are kept, None where nothing was held out."""

    main: bool  # whether this rank writes the model
    lines: tuple[dict[str, float], ...]
    best: dict[str, float] | None
    metric: str
    stopped_early: bool
    compute: str
    part: int
    seconds: float
    tokens: int
    padding: float
    ranks: int
    device: str

    @property
    def losses(self) -> tuple[float, ...]:
        """At every step."""
        return tuple(line["loss"] for line in self.lines if "loss" in line)

    @property
    def held_out(self) -> tuple[dict[str, float], ...]:
        """Every look at the held-out texts."""
        return tuple(line for line in self.lines if "loss" not in line)


def write_notes(
    folder: Path,
    outcome: Outcome,
    start: StartingPoint,
    store: VectorStore,
    student: Student,
    batches: Batches,
    settings: DistillationSettings,
) -> None:
    """Write record, card, metrics and curves into the folder of the trained model."""
    record = make_record(outcome, start, store, student, batches, settings)
    (folder / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(record), encoding="utf-8")
    lines = "".join(f"{json.dumps(line)}\n" for line in outcome.lines)
    (folder / METRICS).write_text(lines, encoding="utf-8")
    (folder / CURVES).write_bytes(png(lambda: figure(outcome)))


def make_record(
    outcome: Outcome,
    start: StartingPoint,
    store: VectorStore,
    student: Student,
    batches: Batches,
    settings: DistillationSettings,
) -> dict[str, Any]:
    """Everything that the result depends on, and what it was."""
    manifest = store.manifest
    return {
        "settings": asdict(settings) | {"compute": outcome.compute, "mini_batch_size": outcome.part},
        "result": {
            "steps": len(outcome.losses),
            "first_loss": outcome.losses[0],
            "last_loss": outcome.losses[-1],
            "kept_step": int(outcome.best["step"]) if outcome.best else len(outcome.losses),
            "chosen_by": f"held-out {outcome.metric}" if outcome.best else "being the last",
            "held_out": list(outcome.held_out),
            "stopped_early": outcome.stopped_early,
            "seconds": outcome.seconds,
        },
        "student": {
            "source": start.source,
            "sha256": start.sha256,
            "parameters": sum(item.numel() for item in student.whole.parameters()),
            "trained_parameters": sum(item.numel() for item in student.part.parameters() if item.requires_grad),
            "width": student.width,
            "prompt": student.prompt,
            "max_length": student.length,
            "saved_length": student.saved_length,
        },
        "teacher": {"source": manifest["teacher_name"], **manifest["teacher"]},
        "vectors": {
            "sha256": store.sha256,
            **{name: manifest[name] for name in ("target", "prompt", "dtype", "max_length", "count", "text_hashes", "origins")},
            "languages": store.counts("lang"),
            "sources": store.counts("source"),
        },
        "data": {
            "train": batches.train,
            "held_out": len(batches.held_out),
            "seen": batches.plan.shape[1] * len(outcome.losses),
            "truncated": batches.truncated,
            "tokens_cut": batches.tokens_cut,
        },
        "speed": {
            "tokens": outcome.tokens,
            "tokens_per_second": outcome.tokens / outcome.seconds,
            "texts_per_second": batches.plan.shape[1] * len(outcome.losses) / outcome.seconds,
            "padding_share": outcome.padding,
            "ranks": outcome.ranks,
            "device": outcome.device,
        },
        "versions": versions(),
    }


def model_card(record: dict[str, Any]) -> str:
    """The folder's README.md. It says nothing that differs between two equal trainings."""
    result, student, data = record["result"], record["student"], record["data"]
    values = "\n".join(f"| {name} | {value} |" for name, value in record["settings"].items())
    made_with = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    looks = "".join(
        f"Held out, step {look['step']}: "
        + ", ".join(f"{name.removeprefix('held_out_')} {value:.4f}" for name, value in look.items() if name != "step")
        + ".\n"
        for look in result["held_out"]
    )
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
---
# {Path(student["source"]).name}, distilled from {Path(record["teacher"]["source"]).name}

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/of/this/folder")
vectors = model.encode(["Anayasa Mahkemesi onbeş üyeden kurulur."], prompt={student["prompt"]!r})
```

Trained by Mecellem to give the teacher's vectors ({record["vectors"]["target"]}) on {data["train"]:,} texts of at most \
{student["max_length"]:,} tokens; it takes {student["saved_length"]:,}. The loss went from {result["first_loss"]:.4f} to \
{result["last_loss"]:.4f} in {result["steps"]:,} steps. The weights are those of step {result["kept_step"]:,}, chosen by \
{result["chosen_by"]}.
{looks}
![curves]({CURVES})

| setting | value |
| --- | --- |
{values}

SHA-256 of the vectors {record["vectors"]["sha256"]}, of the teacher {record["teacher"]["sha256"]}. Made with {made_with}.
"""


def figure(outcome: Outcome) -> Figure:
    """The loss over steps with its running mean, and under it the held-out scores."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7.2, 5.2 if outcome.held_out else 3.2), layout="constrained")
    panels = drawn.subplots(2 if outcome.held_out else 1, 1, sharex=True, squeeze=False)[:, 0]
    plot_loss(panels[0], outcome.losses)
    panels[0].legend(loc="upper right")
    for name, colour, mark in (("cosine", HELD_OUT, "o-"), ("relation", RECALL, "s--")):
        looks = [(look["step"], look[f"held_out_{name}"]) for look in outcome.held_out if f"held_out_{name}" in look]
        if looks:
            panels[-1].plot(*zip(*looks, strict=True), mark, color=colour, label=f"{name} with the teacher, held-out texts")
    if outcome.held_out:
        panels[-1].set_ylabel("held-out score", color=QUIET)
        panels[-1].legend(loc="lower right")
        if outcome.best:
            panels[-1].axvline(outcome.best["step"], color=QUIET, linewidth=0.8, linestyle=":")
    panels[-1].set_xlabel("step", color=QUIET)
    return drawn
