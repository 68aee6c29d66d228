"""The stages that a YAML file may name, and where each of them lives."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from preprocessing.pipeline.layout import StageFolders
from preprocessing.pipeline.phases import Phase, keeping


@dataclass(frozen=True, slots=True)
class StageKind:
    """One kind of stage.

    `settings` is a frozen pydantic model in `module`. `step` is a datatrove block in it, made from the settings, which
    each shard is sent through; None: the module's `phases(settings, folders)` says what is to be run. `version` changes
    whenever the same settings give other documents than before, or its phases leave other files for each other: work of
    another version is done again.
    """

    name: str
    settings: str
    step: str | None = None
    version: int = 1

    @property
    def module(self) -> Any:
        """The stage's own file."""
        return importlib.import_module(f"preprocessing.stages.{self.name}")

    @property
    def settings_type(self) -> type[BaseModel]:
        """What may stand below the stage's name in the YAML file."""
        return getattr(self.module, self.settings)

    @property
    def reasons(self) -> dict[str, str]:
        """Why this stage drops documents: keys of ledgers with a sentence each; empty for a stage that drops none."""
        return self._said("REASONS")

    @property
    def advice(self) -> dict[str, str]:
        """What to do where a reason drops most of a source, for reasons that have a setting to look at."""
        return self._said("ADVICE")

    def _said(self, name: str) -> dict[str, str]:
        found: dict[str, str] = dict(getattr(self.module, name, {}))
        for value in vars(self.module).values():
            if isinstance(value, type) and value.__module__ == self.module.__name__:
                found |= getattr(value, name, {})
        return found

    def phases(self, settings: BaseModel, folders: StageFolders) -> list[Phase]:
        """What is to be run for this stage."""
        if self.step is None:
            return self.module.phases(settings, folders)
        return [keeping(folders, getattr(self.module, self.step)(settings))]


# in the order of the paper's pipeline, which is the order to be recommended
STAGES = {
    kind.name: kind
    for kind in (
        StageKind("repair", "RepairSettings", "Repair", version=4),
        StageKind("exact_dedup", "ExactDedupSettings", version=2),
        StageKind("minhash", "MinhashSettings", version=3),
        StageKind("semantic_dedup", "SemanticDedupSettings", version=3),
        StageKind("quality", "QualitySettings", "QualityFilter", version=2),
        StageKind("language", "LanguageSettings", "LanguageFilter"),
        StageKind("morphology", "MorphologySettings", "MorphologyFilter", version=3),
        StageKind("pii", "PiiSettings", "PiiMask", version=4),
        StageKind("decontaminate", "DecontaminateSettings", "DecontaminateFilter"),
    )
}
