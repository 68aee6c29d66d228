"""What a stage that drops most of a source deserves: a sentence that names the setting to look at."""

from __future__ import annotations

from pathlib import Path

from preprocessing.pipeline.ledger import TaskLedger, most_common
from preprocessing.pipeline.registry import STAGES

MOST = 0.8  # of a source's documents: more than that is rarely what was meant
_DUPLICATES = 0.2  # of a source's documents: semantic duplicates are judged by a threshold, and texts of one form look alike
_FEWEST = 20  # documents; of fewer any share is chance


def hints(stage: str, ledger: TaskLedger, corpus: Path) -> list[str]:
    """A sentence for every source of which the stage dropped more than is likely to be meant. `corpus`: the YAML file."""
    said = []
    for name, source in sorted(ledger.sources.items()):
        entered, dropped = source.entered.documents, sum(tally.documents for tally in source.dropped.values())
        if entered < _FEWEST or dropped <= (_DUPLICATES if stage == "semantic_dedup" else MOST) * entered:
            continue
        reason, count = most_common({reason: tally.documents for reason, tally in source.dropped.items()})[0]
        kind = STAGES[stage]
        advice = kind.advice.get(reason, f"see them with `mecellem prepare status {corpus} --examples`")
        said.append(
            f"{stage} dropped {dropped / entered:.0%} of source {name} ({dropped:,} of {entered:,} documents), {count:,} "
            f"because {kind.reasons[reason]}; if that is not what you want, {advice}"
        )
    return said
