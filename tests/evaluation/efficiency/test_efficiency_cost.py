"""Measured costs: of encoders that sleep and hold known amounts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from measured_encoders import HELD, SECONDS, open_holder, open_killed, open_sleeper

from evaluation.cache import Cache
from evaluation.efficiency.cost import cached_costs, check_sources, measure_alone
from evaluation.efficiency.results import Costs
from evaluation.efficiency.settings import EfficiencySettings
from evaluation.efficiency.workload import Workload, read_workload
from evaluation.encoders.settings import EncoderSettings
from evaluation.encoders.source import SystemSource
from mecellem.errors import UserError

SOURCE = SystemSource(name="sleeper", spec="models/sleeper", kind="model2vec", folder=None, sha256="0" * 64)
SETTINGS = EfficiencySettings(documents=20, queries=8, warm_up=2, passes=3, max_characters=400)
ENCODING = EncoderSettings()
WORKLOAD = Workload(
    queries=tuple(f"soru {number}" for number in range(8)),
    documents=tuple("kısa" if number % 4 else "bu metin otuz harften daha uzundur" for number in range(20)),
)
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def light(store) -> Costs:
    return cached_costs(SOURCE, WORKLOAD, SETTINGS, ENCODING, "cpu", store, open_sleeper)


def test_times_are_those_of_the_encoder(light):
    assert SECONDS <= light.query_p50 <= light.query_p95 and light.query_p50 < 3 * SECONDS
    assert 0.5 / SECONDS < light.documents_per_second <= 1 / SECONDS
    assert 0.3 + SECONDS <= light.load < 30
    assert light.queries == 8 and light.documents == 20 and len(light.pass_seconds) == 3
    assert light.truncated == 5  # once, however many passes
    assert light.parameters == 1000 and light.dimensions == 8


def test_memory_is_that_of_the_system(light):
    heavy = measure_alone(SOURCE, WORKLOAD, SETTINGS, ENCODING, "cpu", open_holder)
    assert heavy.memory - light.memory > 0.9 * HELD and light.memory < 0.3 * HELD
    assert light.libraries_memory > 50_000_000


def test_a_process_that_is_ended_is_told():
    with pytest.raises(UserError, match=r"measured models/sleeper was ended.*memory"):
        measure_alone(SOURCE, WORKLOAD, SETTINGS, ENCODING, "cpu", open_killed)


def test_what_was_measured_is_not_measured_again(light, store):
    assert cached_costs(SOURCE, WORKLOAD, SETTINGS, ENCODING, "cpu", store, open_killed) == light
    for settings, encoding in (
        (EfficiencySettings(documents=21, queries=8), ENCODING),
        (SETTINGS, EncoderSettings(max_seq_length=16)),
    ):
        with pytest.raises(UserError, match="was ended"):
            cached_costs(SOURCE, WORKLOAD, settings, encoding, "cpu", store, open_killed)
    same = EfficiencySettings(**SETTINGS.measuring(), index_precision="int8", pareto_quality="legal")
    assert cached_costs(SOURCE, WORKLOAD, same, ENCODING, "cpu", store, open_killed) == light


def test_bm25_has_nothing_to_measure():
    with pytest.raises(UserError, match="bm25 makes no vectors"):
        check_sources(["bm25"])


def write_texts(path: Path, records: list[dict]) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


def test_workload(tmp_path):
    records = [{"text": f"{number} " + "kelime " * 40, "title": "Başlık" if number % 2 else None} for number in range(12)]
    path = write_texts(tmp_path / "a.jsonl", [*records, {"text": "  "}])
    settings = EfficiencySettings(documents=10, queries=4, query_words=3, max_characters=50)
    found = read_workload([path], settings)
    assert len(found.documents) == 10 and len(found.queries) == 4 and max(map(len, found.documents)) == 50
    assert set(found.queries) <= {"Başlık", *(f"{number} kelime kelime" for number in range(0, 12, 2))}
    write_texts(path, list(reversed(records)))
    assert read_workload([path], settings) == found  # the order of the file does not matter
    with pytest.raises(UserError, match=r"12 documents with text, but 100 are needed"):
        read_workload([path], EfficiencySettings(documents=10))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"documents": 0}, "--documents 0"), ({"warm_up": -1}, "--warm-up -1"), ({"query_words": 0}, "--query-words 0")],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(UserError, match=message):
        EfficiencySettings(**settings)
