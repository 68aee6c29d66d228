"""`run.yaml`: what a run is, where each value came from, and what may change when it is resumed."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Collection
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from mecellem.errors import UserError
from mecellem.files import atomic_write
from megatron_recipes.config import RunConfig, flatten, origins

FILE = "run.yaml"
METRICS = "metrics.jsonl"
FINISHED = "finished.json"  # there once the last step was done and saved: what a job looks for before it asks for another turn
CHECKPOINT = "mecellem.json"  # in every checkpoint's folder, and in no other
TOKENIZER = "tokenizer"  # sub-folder of a checkpoint: it can be exported when the data is long gone

# Values that change how a run is computed, not what it computes. (A curriculum is compared by its content.)
MAY_CHANGE = {
    *("parallel.tensor", "parallel.pipeline", "parallel.sequence", "parallel.context", "layer_spec"),
    *("schedule.micro_batch_size", "micro_batch_tokens", "curriculum"),
    *("log_interval", "checkpoint_interval", "validation_interval", "keep_checkpoints"),
    *("data.train", "data.validation", "data.tokenizer"),  # paths; what they hold is compared by hash
}


@dataclass(frozen=True, slots=True)
class Extent:
    """How long a run is, and over what."""

    steps: int
    tokens: int
    tokens_per_step: int | None  # None where it changes from stage to stage
    corpora: dict[str, str]  # SHA-256 of each corpus's .bin, by its setting or, in a curriculum, its path
    curriculum: str | None = None  # the text of its curriculum's file


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def nested(leaves: dict[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` -> `{"a": {"b": 1}}`."""
    tree: dict[str, Any] = {}
    for name, value in leaves.items():
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = _plain(value)
    return tree


def _git_sha() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, cwd=Path(__file__).parent
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None


def record(
    run: Path,
    config: RunConfig,
    extent: Extent,
    recipe: str,
    world_size: int,
    tokenizer_sha256: str,
    command_line: Collection[str],
    done: int = 0,
) -> None:
    """Write `run.yaml`, with earlier curricula of the run where it has been changed, each with the last step that it had.

    `recipe`: the name of the file that `config` started from; `command_line`: the dotted names that were set there;
    `done`: the steps of the checkpoint that the run goes on from.
    """
    import yaml

    earlier: list[dict[str, Any]] = []
    if (run / FILE).exists():
        before = read_run(run)
        earlier = before.get("earlier_curricula", [])
        if before.get("curriculum") != extent.curriculum:
            earlier = [*earlier, {"replaced_after_step": done, "curriculum": before["curriculum"]}]
    values = {
        "config": nested(flatten(config)),
        "origins": origins(config, recipe, command_line),
        "tokenizer_sha256": tokenizer_sha256,
        "world_size": world_size,
        **asdict(extent),
        "earlier_curricula": earlier,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("mecellem", "torch", "megatron-core", "transformers", "numpy")},
        },
        "git": _git_sha(),
        "machine": {"host": platform.node(), "cpus": len(os.sched_getaffinity(0)), "platform": platform.platform()},
    }
    with atomic_write(run / FILE) as handle:
        yaml.safe_dump(values, handle, sort_keys=False, allow_unicode=True)


def finish(run: Path, step: int, tokens: int) -> None:
    """Mark the run as done: after its last step, saved."""
    with atomic_write(run / FINISHED) as handle:
        handle.write(orjson.dumps({"step": step, "tokens": tokens}).decode() + "\n")


def unfinish(run: Path) -> None:
    """Take the mark away while the run is being trained: it may have got longer."""
    (run / FINISHED).unlink(missing_ok=True)


def read_run(run: Path) -> dict[str, Any]:
    """The contents of `run.yaml`. Raises `UserError` when there is none, or one that `record` did not write."""
    import yaml

    path = Path(run) / FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{run} is not a run: it has no {FILE}; give the --out folder of `mecellem train`") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML ({str(error).splitlines()[0]})") from None
    missing = {"config", "origins", "tokenizer_sha256", "steps"} - set(content if isinstance(content, dict) else ())
    if missing:
        raise UserError(f"{path} has no {', '.join(sorted(missing))}: it was changed by hand; choose another --out")
    return content


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` in order, none for a run that has not written any; a torn last line is left out.

    Raises `UserError` that names the line when another one is not an object with an integer `step`.
    """
    path = Path(run) / METRICS
    if not path.exists():
        return []
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):  # what no newline ends was never finished
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            row = None
        if not isinstance(row, dict) or not isinstance(row.get("step"), int):
            raise UserError(
                f"{path}, line {number} is broken (an object with an integer step is needed): remove that line, or resume "
                "the run from its last checkpoint"
            )
        rows.append(row)
    return rows


def check_same(
    run: Path, config: RunConfig, extent: Extent, tokenizer_sha256: str, accept_changed_curriculum: bool = False
) -> None:
    """Raise `UserError` when the run in this folder was started with other values than it would be resumed with.

    With `accept_changed_curriculum` the curriculum may differ: what may change in it is checked against the data's cursor
    when a checkpoint is loaded.
    """
    if not (run / FILE).exists():
        return
    before = read_run(run)
    if before["tokenizer_sha256"] != tokenizer_sha256:
        raise UserError(
            f"{run} was started with another tokenizer than {config.data.tokenizer}: resume with the old one, or "
            "choose another --out"
        )
    for name, sha256 in extent.corpora.items():
        if before.get("corpora", {}).get(name, sha256) != sha256:
            raise UserError(
                f"{run} was started with other tokens in {name} than are there now (SHA-256 of the .bin differs): put the old "
                "corpus back, or choose another --out"
            )
    if before.get("curriculum") != extent.curriculum and not accept_changed_curriculum:
        raise UserError(
            f"the curriculum of {run} has changed since it began: give the old one with --curriculum (run.yaml has its text), "
            "or --accept-changed-curriculum to go on with the new one"
        )
    for name, value in flatten(config).items():
        if name in MAY_CHANGE:
            continue
        node: Any = before["config"]
        for part in name.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if node != _plain(value):
            flag = "--" + name.replace("_", "-")
            raise UserError(
                f"{run} was started with {flag} {node}, not {_plain(value)}: resume it with the value it has, or "
                "choose another --out"
            )
