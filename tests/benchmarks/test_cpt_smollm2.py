"""The baselines of the continual pre-training: what they share with the curriculum, and the table beside it."""

import math
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import cpt_smollm2  # noqa: E402

STAGES = yaml.safe_load(cpt_smollm2.CURRICULUM.read_text(encoding="utf-8"))["stages"]


def tokens_by_source(stages: cpt_smollm2.Stages) -> dict[str, float]:
    found: dict[str, float] = {}
    for stage in stages:
        for source in stage["sources"]:
            found[source["path"]] = found.get(source["path"], 0.0) + source["weight"] * stage["tokens"]
    return found


@pytest.mark.parametrize("name", cpt_smollm2.VARIANTS)
def test_variants_differ_in_their_sources_only(name: str):
    found = cpt_smollm2.VARIANTS[name](STAGES)
    for stage, asked in zip(found, STAGES, strict=True):
        assert {**stage, "sources": None} == {**asked, "sources": None}  # tokens, lengths, rates
        assert sum(source["weight"] for source in stage["sources"]) == pytest.approx(1.0)


def test_one_mixture_reads_as_much_of_each_source_as_the_curriculum():
    found = cpt_smollm2.one_mixture(STAGES)
    assert found[0]["sources"] == found[1]["sources"]
    assert tokens_by_source(found) == pytest.approx(tokens_by_source(STAGES))


def test_without_replay_turkish_keeps_its_proportions():
    with_replay, found = tokens_by_source(STAGES), tokens_by_source(cpt_smollm2.turkish_in_one_mixture(STAGES))
    assert list(found) == ["data/turkish_general", "data/turkish_formal"]
    assert sum(found.values()) == pytest.approx(sum(with_replay.values()))
    ratio = found["data/turkish_general"] / found["data/turkish_formal"]
    assert ratio == pytest.approx(with_replay["data/turkish_general"] / with_replay["data/turkish_formal"])


def test_the_table_has_changes_and_their_intervals():
    domains = (*cpt_smollm2.TURKISH, *cpt_smollm2.ENGLISH)
    before = {"by_domain": {name: {"nll": math.log(20.0), "tokens": 100, "documents": 2} for name in domains}}
    after = {
        "by_domain": {name: {"nll": math.log(15.0), "tokens": 100, "documents": 2} for name in domains},
        "change_by_domain": {name: {"perplexity_interval": [-0.30, -0.20]} for name in domains},
    }
    lines = cpt_smollm2.table(["before", "after"], [before, after], {"after": 12.4})
    assert "| turkish formal | 2 | 100 | 20.0 | 15.0 (-25.0%; -30.0% to -20.0%) |" in lines
    assert "| **English, all** | 6 | 300 | 20.0 | 15.0 (-25.0%) |" in lines
    assert lines[-1].endswith("| 12 |")
    assert len({line.count("|") for line in lines}) == 1
