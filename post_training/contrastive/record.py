"""What lies beside a trained model: its card, `post_training.json`, and the curve of the loss with its numbers."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from post_training.contrastive.settings import ContrastiveSettings
from post_training.pairs import PairSet
from post_training.start import StartingPoint
from post_training.training.record import HELD_OUT, QUIET, RECALL, plot_loss, png, versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from post_training.contrastive.model import Shape

TRAINING_RECORD = "post_training.json"  # settings, losses, data hashes, versions
CURVE, CURVE_DATA = "loss.png", "loss.csv"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a training did. `tokens`: real ones of all columns and ranks; `padding`: share of the places in batches."""

    main: bool  # whether this rank writes the model
    losses: tuple[float, ...]
    scores: tuple[dict[str, float], ...]
    seconds: float
    tokens: int
    padding: float
    pairs: int
    ranks: int
    device: str


def write_notes(
    folder: Path,
    outcome: Outcome,
    start: StartingPoint,
    guide: StartingPoint | None,
    pairs: PairSet,
    shape: Shape,
    settings: ContrastiveSettings,
) -> None:
    """Write card, record and curve into the folder of the trained model."""
    record = make_record(outcome, start, guide, pairs, shape, settings)
    (folder / TRAINING_RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card(record, settings), encoding="utf-8")
    (folder / CURVE).write_bytes(png(lambda: curve_figure(outcome)))
    (folder / CURVE_DATA).write_text(curve_csv(outcome), encoding="utf-8")


def make_record(
    outcome: Outcome,
    start: StartingPoint,
    guide: StartingPoint | None,
    pairs: PairSet,
    shape: Shape,
    settings: ContrastiveSettings,
) -> dict[str, Any]:
    """Everything that the result depends on, and what it was."""
    return {
        "settings": asdict(settings),
        "result": {"losses": list(outcome.losses), "pairs": outcome.pairs, "seconds": outcome.seconds},
        "validation": list(outcome.scores),
        "model": {
            "source": start.source,
            "sha256": start.sha256,
            "dimensions": shape.width,
            "pooling": shape.pooling,
            "max_seq_length": settings.saved_seq_length or shape.own_length,
            "query_length": shape.query_length,
            "query_prompt": shape.query_prompt,
            "document_prompt": shape.document_prompt,
        },
        "guide": None if guide is None else {"source": guide.source, "sha256": guide.sha256},
        "data": {
            "origins": list(pairs.origins),
            "columns": list(pairs.columns),
            "rows": len(pairs),
            "dropped": pairs.dropped,
            "sha256": pairs.sha256,
        },
        "speed": {
            "tokens": outcome.tokens,
            "tokens_per_second": outcome.tokens / outcome.seconds,
            "padding_share": outcome.padding,
            "ranks": outcome.ranks,
            "device": outcome.device,
        },
        "versions": versions(),
    }


def model_card(record: dict[str, Any], settings: ContrastiveSettings) -> str:
    """The folder's README.md. It says nothing that differs between two equal trainings."""
    model, data, losses = record["model"], record["data"], record["result"]["losses"]
    values = "\n".join(f"| {name} | {value} |" for name, value in asdict(settings).items())
    made_with = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    origins = ", ".join(Path(name).name for name in data["origins"])
    prompted = any((model["query_prompt"], model["document_prompt"]))
    guided = f" A guide model (SHA-256 {record['guide']['sha256'][:12]}) left out false negatives." if record["guide"] else ""
    cut = (
        f" Vectors may be cut to {', '.join(map(str, sorted(settings.matryoshka_dims)))} numbers."
        if settings.matryoshka_dims
        else ""
    )
    prompts = (
        f"`encode_query` puts `{model['query_prompt']}` before a query, `encode_document` puts `{model['document_prompt']}` "
        "before a document.\n"
        if prompted
        else ""
    )
    held_out = "".join(
        f"Held-out pairs, step {score['step']}: loss {score['loss']:.3f}, recall@10 {score['recall_10']:.3f}, nDCG@10 "
        f"{score['ndcg_10']:.3f}.\n"
        for score in (record["validation"][:1] + record["validation"][-1:] if record["validation"] else [])
    )
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
language: tr
---
# {Path(model["source"]).name}, contrastively trained

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/of/this/folder")
query = model.encode_query(["Anayasa Mahkemesi kaç üyeden kurulur?"])  # {model["dimensions"]} numbers
documents = model.encode_document(["Anayasa Mahkemesi onbeş üyeden kurulur."])
print(model.similarity(query, documents))
```

{model["pooling"].capitalize()} pooling; texts are cut to {model["max_seq_length"]:,} tokens.{cut}
{prompts}Trained by Mecellem on {record["result"]["pairs"]:,} pairs from {origins} with the loss {settings.loss}; it went from \
{losses[0]:.3f} to {losses[-1]:.3f}.{guided}
{held_out}
![loss]({CURVE})

| setting | value |
| --- | --- |
{values}

The data's SHA-256 is {data["sha256"]}. Made with {made_with}.
"""


def curve_csv(outcome: Outcome) -> str:
    """The numbers of the picture."""
    scores = {int(score["step"]): score for score in outcome.scores}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", "loss", "held_out_loss", "held_out_recall_10", "held_out_ndcg_10", "held_out_mrr_10"])
    for step in sorted({*range(1, len(outcome.losses) + 1), *scores}):
        score = scores.get(step, {})
        loss = outcome.losses[step - 1] if step else ""
        writer.writerow([step, loss, *(score.get(name, "") for name in ("loss", "recall_10", "ndcg_10", "mrr_10"))])
    return text.getvalue()


def curve_figure(outcome: Outcome) -> Figure:
    """Loss over steps, its running mean, and what was measured on held-out pairs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    plot_loss(axes, outcome.losses)
    axes.set_xlabel("step", color=QUIET)
    if outcome.scores:
        steps = [score["step"] for score in outcome.scores]
        axes.plot(steps, [score["loss"] for score in outcome.scores], "o-", color=HELD_OUT, label="loss on held-out pairs")
        right = axes.twinx()
        right.plot(steps, [score["recall_10"] for score in outcome.scores], "s--", color=RECALL, label="recall@10")
        right.set_ylim(0, 1)
        right.set_ylabel("held-out recall@10", color=QUIET)
        right.spines["right"].set_visible(True)
        right.legend(loc="upper right")
    axes.legend(loc="upper center")
    return figure
