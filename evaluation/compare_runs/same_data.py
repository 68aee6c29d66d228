"""Whether two runs trained on the same batches, as far as `run.yaml` and the corpora's manifests tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.compare_runs.curricula import curriculum_changes
from evaluation.compare_runs.results import Difference
from mecellem.errors import UserError
from mecellem.manifest import manifest_path, read_manifest

# How a run is computed or written down, not what it learns from.
EXPECTED = (
    *("name", "precision", "fp8", "layer_spec", "parallel", "world_size"),
    *("schedule.micro_batch_size", "micro_batch_tokens", "optimizer.distributed"),
    *("log_interval", "checkpoint_interval", "validation_interval"),
    "data.tokenizer",  # a path; what it holds is compared by tokenizer_sha256
)
CORPORA = ("data.train", "data.validation")  # prefixes of a corpus's files
RECORDED = ("tokenizer_sha256", "steps", "tokens", "tokens_per_step", "curriculum", "earlier_curricula", "corpora")

LISTED = 5  # changes of a curriculum


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` -> `{"a.b": 1}`."""
    leaves: dict[str, Any] = {}
    for name, value in values.items():
        leaves |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return leaves


def within(name: str, names: Sequence[str]) -> bool:
    """Whether a dotted name is one of `names` or below one."""
    return any(name == other or name.startswith(f"{other}.") for other in names)


def same_corpus(a: Any, b: Any) -> bool:
    """Whether two corpora on this machine hold the same tokens, by the hashes in their manifests."""
    if not all(isinstance(path, str) and manifest_path(Path(path)).is_file() for path in (a, b)):
        return False
    files = [sorted(entry.sha256 for entry in read_manifest(Path(path)).files.values()) for path in (a, b)]
    return files[0] == files[1]


def differences(a: dict[str, Any], b: dict[str, Any], allow: Sequence[str] = ()) -> list[Difference]:
    """Every setting in which two `run.yaml` differ. `allow`: dotted names, or their beginnings, that may differ too."""
    found = []
    settings = [flat(run["config"]) for run in (a, b)]
    for name in sorted(settings[0].keys() | settings[1].keys()):
        one, other = (values.get(name) for values in settings)
        if one == other:
            continue
        expected = within(name, (*EXPECTED, *allow))
        if name in CORPORA:
            expected = expected or bool(a.get("corpora")) or same_corpus(one, other)
        if name == "curriculum":
            expected = expected or bool(a.get("curriculum"))  # the text, compared below
        found.append(Difference(name=name, a=one, b=other, expected=expected))
    for name in RECORDED:
        one, other = a.get(name), b.get(name)
        if one != other:
            expected = within(name, allow) or (name == "curriculum" and curriculum_changes(one, other) == [])
            found.append(Difference(name=name, a=one, b=other, expected=expected))
    return found


def require_same_data(a: Path, b: Path, found: Sequence[Difference]) -> None:
    """Raise `UserError` that lists the differences that are not expected."""
    unexpected = [item for item in found if not item.expected]
    if unexpected:
        listed = "; ".join(map(described, unexpected))
        raise UserError(
            f"{a} and {b} did not train on the same data in the same way ({listed}): compare runs that differ in precision or "
            f"layout only, or add --allow {' '.join(item.name for item in unexpected)} if that is what you want to compare"
        )


def described(difference: Difference) -> str:
    """A difference on one line: of curricula the first few changes, of other settings both values."""
    name, a, b = difference.name, difference.a, difference.b
    changes = curriculum_changes(a, b) if name == "curriculum" else None
    if changes is None:
        return f"{name}: {shown(a)} and {shown(b)}"
    more = f"; and {len(changes) - LISTED} more" if len(changes) > LISTED else ""
    return f"{name}: {'; '.join(changes[:LISTED]) or 'comments or layout only'}{more}"


def shown(value: Any) -> str:
    """A setting on one line; long texts by their length."""
    text = str(value)
    return text if len(text) <= 60 and "\n" not in text else f"a text of {len(text)} characters"
