"""Reward model folders, checked without loading weights: which layout, how many axes, and what these are called.

Two layouts are read, neither with code from the folder. ArmoRM's (Wang et al. 2024, arXiv 2406.12845, as
RLHFlow/ArmoRM-Llama3-8B-v0.1 has it): a backbone under `model.`, `regression_layer.weight` [axes, hidden],
`reward_transform_matrix` [axes, axes], and a gate of linear layers under `gating.layers.` with `gating.logit_scale`. And
transformers' own sequence classifiers, one label an axis.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evaluation.reward.results import OVERALL
from mecellem.errors import UserError
from mecellem.files import sha256_of
from mecellem.tokenizer_files import read_json

if TYPE_CHECKING:
    from conversion.safetensors_folder import SafetensorsReader

REGRESSION = "regression_layer.weight"
TRANSFORM = "reward_transform_matrix"
GATE = re.compile(r"gating\.layers\.(\d+)\.(weight|bias)")
LOGIT_SCALE = "gating.logit_scale"
TEMPERATURE = 10.0  # the published code's default for `gating_temperature`
UNNAMED = re.compile(r"LABEL_\d+")
HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
# The 19 axes of ArmoRM-Llama3-8B-v0.1 as its authors list them; its config.json names none.
ARMORM_AXES = (
    *(f"helpsteer-{name}" for name in HELPSTEER),
    *(f"ultrafeedback-{name}" for name in ("overall_score", "instruction_following", "truthfulness", "honesty", "helpfulness")),
    *("beavertails-is_safe", "prometheus-score", "argilla-overall_quality", "argilla-judge_lm"),
    *(f"code-{name}" for name in ("complexity", "style", "explanation", "instruction-following", "readability")),
)


@dataclass(frozen=True, slots=True)
class JudgeSource:
    """A judge whose files were checked. `gate` holds the numbers of the gate's layers, empty where it has none."""

    folder: Path
    layout: Literal["armorm", "classifier"]
    axes: tuple[str, ...]
    gate: tuple[int, ...]
    transform: bool
    temperature: float
    positions: int
    digest: str

    @property
    def overall(self) -> bool:
        """Whether it gives one score over all axes."""
        return bool(self.gate)


def check_judges(folders: Sequence[Path], axes: Sequence[str] = ()) -> list[JudgeSource]:
    """All judges, checked. Raises `UserError` where two are the same folder or do not have the same axes."""
    if not folders:
        raise UserError("--judge names no folder: give one or more reward models")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("--judge names the same folder twice: name each one once")
    judges = [check_judge(folder, axes) for folder in folders]
    for judge in judges[1:]:
        if judge.axes != judges[0].axes:
            raise UserError(
                f"{judge.folder} judges {', '.join(judge.axes)} but {judges[0].folder} {', '.join(judges[0].axes)}: judges "
                "that stand side by side need the same axes in the same order; run them one by one, or name axes with --axes"
            )
    return judges


def check_judge(folder: Path, axes: Sequence[str] = ()) -> JudgeSource:
    """What `folder` is. Raises `UserError` when it is no reward model of a layout that is known, or files are missing."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from conversion.safetensors_folder import SafetensorsReader

    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give a reward model's folder with --judge")
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing: copy the whole reward model")
    config = read_json(folder / "config.json")
    if config.get("model_type") not in CONFIG_MAPPING:
        raise UserError(
            f"{folder / 'config.json'}: model_type {config.get('model_type')!r} is not one of transformers' own, and code from "
            "a model's folder is never run: give a judge with a backbone that transformers knows"
        )
    reader = SafetensorsReader(folder)
    if REGRESSION in reader.shapes:
        return _armorm(folder, config, reader, axes)
    architecture = str((config.get("architectures") or ["none"])[0])
    if not architecture.endswith("ForSequenceClassification"):
        raise UserError(
            f"{folder} has no head that scores: its weights lack {REGRESSION} and config.json is of {architecture}, not of a "
            "...ForSequenceClassification; give a reward model"
        )
    labels = config.get("id2label") or {}
    count = len(labels) or config.get("num_labels") or 2  # transformers' own default
    return JudgeSource(
        folder=folder,
        layout="classifier",
        axes=axis_names(folder, config, count, axes),
        gate=(),
        transform=False,
        temperature=1.0,
        positions=positions_of(folder, config),
        digest=digest_of(folder, reader),
    )


def _armorm(folder: Path, config: dict[str, Any], reader: SafetensorsReader, axes: Sequence[str]) -> JudgeSource:
    count, hidden = _matrix(folder, reader, REGRESSION)
    told = config.get("num_objectives", count)
    if told != count or hidden != config.get("hidden_size"):
        raise UserError(
            f"{folder}: {REGRESSION} is [{count}, {hidden}] but config.json tells of {told} axes and a hidden size of "
            f"{config.get('hidden_size')}: this layout (quantiles, say) is not known here"
        )
    if TRANSFORM in reader.shapes and reader.shapes[TRANSFORM] != (count, count):
        raise UserError(
            f"{folder}: {TRANSFORM} is {list(reader.shapes[TRANSFORM])}, not [{count}, {count}]: get the folder again"
        )
    return JudgeSource(
        folder=folder,
        layout="armorm",
        axes=axis_names(folder, config, count, axes),
        gate=_gate(folder, reader, hidden, count),
        transform=TRANSFORM in reader.shapes,
        temperature=float(config.get("gating_temperature", TEMPERATURE)),
        positions=positions_of(folder, config),
        digest=digest_of(folder, reader),
    )


def _matrix(folder: Path, reader: SafetensorsReader, name: str) -> tuple[int, int]:
    shape = reader.shapes[name]
    if len(shape) != 2:
        raise UserError(f"{folder}: {name} is {list(shape)}, not a matrix: get the folder again")
    return shape[0], shape[1]


def _gate(folder: Path, reader: SafetensorsReader, hidden: int, count: int) -> tuple[int, ...]:
    """The layers of the gate in order, from `hidden` to `count` numbers; none where the folder has no gate."""
    names = [name for name in reader.shapes if name.startswith("gating.")]
    layers = sorted({int(match[1]) for name in names if (match := GATE.fullmatch(name))})
    strange = [name for name in names if not GATE.fullmatch(name) and name != LOGIT_SCALE]
    if strange or (names and not layers):
        raise UserError(
            f"{folder}: {(strange or names)[0]} belongs to a gate of a kind that is not known here: use another judge"
        )
    width = hidden
    for layer in layers:
        name = f"gating.layers.{layer}.weight"
        if name not in reader.shapes or _matrix(folder, reader, name)[1] != width:
            raise UserError(f"{folder}: {name} is missing or does not take {width} numbers: get the folder again")
        width = reader.shapes[name][0]
    if layers and width != count:
        raise UserError(f"{folder}: the gate gives {width} weights for {count} axes: get the folder again")
    return tuple(layers)


def axis_names(folder: Path, config: dict[str, Any], count: int, given: Sequence[str]) -> tuple[str, ...]:
    """`given` names, else those of config.json, else ArmoRM's where it has as many, else `axis_0`, ..."""
    if OVERALL in given:
        raise UserError(f"--axes names {OVERALL!r}, which is the word for the judge's score over all axes: choose another name")
    if given:
        if len(given) != count:
            raise UserError(f"--axes names {len(given)} axes but {folder} has {count}: name each, in the order of its head")
        return tuple(given)
    labels = config.get("id2label") or {}
    names = [str(labels.get(str(number), "")) for number in range(count)]
    if len(labels) == count and all(names) and not any(UNNAMED.fullmatch(name) for name in names):
        double = [name for name, times in Counter((*names, OVERALL)).items() if times > 1]
        if double:
            raise UserError(f"{folder / 'config.json'}: two axes may not be called {double[0]!r}: give names with --axes")
        return tuple(names)
    if count == 1:
        return ("reward",)
    if count == len(ARMORM_AXES):
        return ARMORM_AXES
    return tuple(f"axis_{number}" for number in range(count))


def positions_of(folder: Path, config: dict[str, Any]) -> int:
    """Tokens that the judge can read."""
    found = config.get("max_position_embeddings")
    if not isinstance(found, int):
        raise UserError(f"{folder / 'config.json'} has no max_position_embeddings: copy the whole reward model")
    return found


def digest_of(folder: Path, reader: SafetensorsReader) -> str:
    """Changes with weights, config, tokenizer or chat template."""
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    extra = [folder / name for name in names if (folder / name).is_file()]
    digest = hashlib.sha256()
    for path in (*extra, *sorted(set(reader.files.values()))):
        digest.update(f"{path.name}:{sha256_of(path)}\n".encode())
    return digest.hexdigest()
