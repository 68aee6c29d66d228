"""Hard negatives by sentence-transformers: near a query in a model's eyes, and not so near that they answer it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecellem.errors import UserError
from mecellem.files import atomic_write
from post_training.mining.settings import MiningSettings
from post_training.model_folder import pick_device, quiet_transformers
from post_training.pairs import ANCHOR, NEGATIVE, POSITIVE, PairSet
from post_training.start import find_start, open_start
from post_training.training.record import versions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

SCORES = ("positive_score", "negative_score")  # in the result's lines, beside the three texts


@dataclass(frozen=True, slots=True)
class Mined:
    """What was found: lines of the result, queries asked, queries without any hard negative, mean scores."""

    lines: int
    queries: int
    queries_without: int
    positive_score: float
    negative_score: float


class GuideScores:
    """A guide model as what `mine_hard_negatives` asks for scores: every text is encoded once."""

    def __init__(self, guide: SentenceTransformer, queries: Sequence[str], texts: Sequence[str], batch_size: int) -> None:
        """Encode all `queries` and `texts` (duplicates are dropped)."""
        options: Any = {"batch_size": batch_size, "normalize_embeddings": True, "show_progress_bar": False}
        queries, texts = list(dict.fromkeys(queries)), list(dict.fromkeys(texts))
        self.queries: NDArray[np.float32] = guide.encode_query(queries, **options)
        self.texts: NDArray[np.float32] = guide.encode_document(texts, **options)
        self.query_rows = {text: row for row, text in enumerate(queries)}
        self.text_rows = {text: row for row, text in enumerate(texts)}

    def predict(self, pairs: Sequence[tuple[str, str]], **_: Any) -> torch.Tensor:
        """Cosine of every (query, text)."""
        import torch

        queries = self.queries[[self.query_rows[query] for query, _ in pairs]]
        texts = self.texts[[self.text_rows[text] for _, text in pairs]]
        return torch.from_numpy((queries * texts).sum(axis=1))


def report_path(out: Path) -> Path:
    """Beside the lines: what they were made of."""
    return out.with_name(f"{out.name}.report.json")


def mine_negatives(
    pairs: PairSet,
    model: str | Path,
    out: Path,
    settings: MiningSettings | None = None,
    *,
    guide: str | Path | None = None,
    candidates: Sequence[str] = (),
    cache: Path | None = None,
    device: str = "auto",
) -> Mined:
    """Write `out`, JSON lines of anchor, positive, negative and their scores, and a report beside it.

    Candidates are the pairs' own positives and `candidates`. `model` finds those near a query; where there is a `guide`, its
    cosines say which come first and which are too near, else the model's own. Both as in `train_contrastive`. Hard negatives
    that the pairs have are left out. Raises `UserError` for bad input, and when nothing is left.
    """
    import numpy as np

    settings = settings or MiningSettings()
    check(out, settings, guide)
    cache = cache or out.parent / "exports"
    start, guided_by = find_start(model, cache), find_start(guide, cache) if guide is not None else None
    where = pick_device(device)
    anchors, positives = (pairs.table.column(name).to_pylist() for name in (ANCHOR, POSITIVE))
    scorer = None
    if guided_by is not None:
        scorer = GuideScores(open_start(guided_by, None, where), anchors, [*candidates, *positives], settings.batch_size)
    found = search(open_start(start, None, where), scorer, anchors, positives, candidates, settings)
    queries = len(set(anchors))
    if not len(found):
        raise UserError(
            f"no text is left as a hard negative of any of {queries:,} queries: lower --relative-margin or --absolute-margin, "
            "raise --range-max, or give more candidates with --corpus"
        )
    write_lines(out, found)
    scores = np.array(found["scores"], dtype=np.float64)
    result = Mined(len(found), queries, queries - len(set(found[ANCHOR])), *(float(mean) for mean in scores.mean(axis=0)))
    report = {
        "settings": asdict(settings),
        "result": asdict(result),
        "model": {"source": start.source, "sha256": start.sha256},
        "guide": None if guided_by is None else {"source": guided_by.source, "sha256": guided_by.sha256},
        "data": {"origins": list(pairs.origins), "rows": len(pairs), "sha256": pairs.sha256, "candidates": len(candidates)},
        "versions": versions(),
    }
    with atomic_write(report_path(out)) as handle:
        handle.write(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return result


def check(out: Path, settings: MiningSettings, guide: object) -> None:
    """Refuse what cannot work before anything is loaded. Raises `UserError`."""
    if out.suffix != ".jsonl":
        raise UserError(f"--out {out}: a name that ends in .jsonl is needed")
    if out.exists():
        raise UserError(f"{out} exists already: choose another name or remove it first")
    margins = (settings.relative_margin, settings.absolute_margin, settings.max_score)
    if guide is not None and all(margin is None for margin in margins):
        raise UserError("--guide judges by --relative-margin, --absolute-margin or --max-score: set one of them")


def search(
    model: SentenceTransformer,
    scorer: GuideScores | None,
    anchors: Sequence[str],
    positives: Sequence[str],
    candidates: Sequence[str],
    settings: MiningSettings,
) -> Any:
    """The library's search: a data set of anchor, positive, negative and scores, which are cosines."""
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar
    from sentence_transformers.util import mine_hard_negatives

    disable_progress_bar()
    random.seed(settings.mining_seed)  # the stream that the library draws from
    with quiet_transformers():
        return mine_hard_negatives(
            Dataset.from_dict({ANCHOR: list(anchors), POSITIVE: list(positives)}),
            model,
            corpus=list(candidates) or None,
            cross_encoder=scorer,  # type: ignore[arg-type]
            range_min=settings.range_min,
            range_max=settings.range_max,
            max_score=settings.max_score,
            absolute_margin=settings.absolute_margin,
            relative_margin=settings.relative_margin,
            num_negatives=settings.negatives,
            sampling_strategy=settings.sampling,
            output_format="triplet",
            output_scores=True,
            batch_size=settings.batch_size,
            verbose=False,
        )


def write_lines(out: Path, found: Any) -> None:
    """One triplet a line, with both scores, for eyes and for `post-train contrastive`."""
    with atomic_write(out) as handle:
        for row in found:
            scores = dict(zip(SCORES, (round(float(score), 4) for score in row["scores"]), strict=True))
            handle.write(
                json.dumps({name: row[name] for name in (ANCHOR, POSITIVE, NEGATIVE)} | scores, ensure_ascii=False) + "\n"
            )
