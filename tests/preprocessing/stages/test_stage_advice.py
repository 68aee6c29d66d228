"""What a user is told when a stage drops most of a source: a setting to change, for every reason there is."""

import re

import pytest

from preprocessing.pipeline.hints import hints
from preprocessing.pipeline.ledger import SourceLedger, Tally, TaskLedger
from preprocessing.pipeline.registry import STAGES

# no setting keeps empty text, and one of its own leaves the stage out
WITHOUT_SETTING = {"empty", "no_language"}


@pytest.mark.parametrize("name", ["language", "morphology", "quality", "semantic_dedup"])
def test_every_reason_has_advice_that_names_a_setting(name, tmp_path):
    kind = STAGES[name]
    assert set(kind.advice) == set(kind.reasons)
    settings = set(kind.settings_type.model_fields)
    for reason in sorted(kind.reasons):
        words = set(re.findall(r"[a-z]\w+", kind.advice[reason]))
        assert words & settings or reason in WITHOUT_SETTING, reason
        source = SourceLedger(entered=Tally(documents=100), dropped={reason: Tally(documents=95)})
        [said] = hints(name, TaskLedger(sources={"laws": source}), tmp_path / "corpus.yaml")
        assert said.endswith(kind.advice[reason]) and kind.reasons[reason] in said
