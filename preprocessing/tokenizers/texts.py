"""The texts that tokenizers are measured on: JSONL, by source, all of it or a stratified sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mecellem.errors import UserError
from preprocessing.jsonl import check_inputs
from preprocessing.tokenizers.measure import Domain, domain_of
from preprocessing.tokenizers.sample import plan_sample, read_sample

SAMPLE_BYTES = 20_000_000  # the texts are held in memory


def check_texts(paths: Sequence[Path], sample_bytes: int) -> None:
    """Raise `UserError` for files that cannot be read and for a sample without size: before any work."""
    check_inputs(paths, "--texts")
    if sample_bytes <= 0:
        raise UserError(f"--sample-bytes {sample_bytes}: a number above 0 is needed")


def read_domains(paths: Sequence[Path], sample_bytes: int) -> list[Domain]:
    """One domain a source, in the order of names; texts without a word are left out.

    Raises `UserError` where no text is left.
    """
    plan = plan_sample(paths, sample_bytes)
    texts: dict[str, list[str]] = {name: [] for name in plan}
    for record in read_sample(paths, plan):
        if record.text.strip():
            texts[record.source].append(record.text)
    domains = [domain_of(name, found) for name, found in texts.items() if found]
    if not domains:
        raise UserError(f"{', '.join(map(str, paths))}: no text in it, nothing to measure tokenizers on")
    return domains
