"""Data sets of Hugging Face's `datasets`, from folders: the hub itself is not asked for in tests."""

import json

import datasets
import pytest
from source_items import reading

from mecellem.errors import UserError
from preprocessing.sources.documents import read_part
from preprocessing.sources.found import Problem
from preprocessing.sources.hub import parts

OPTIONS = {"config": None, "split": "train", "revision": None}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def documents(path, planned, **options):
    wanted = reading("hub", options=OPTIONS | options)
    return [item for part in planned for item in read_part(part, wanted)]


def test_a_saved_data_set_is_read_in_ranges_of_rows(tmp_path):
    texts = [f"Madde {n}" for n in range(20)]
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": texts})}).save_to_disk(tmp_path / "saved")
    planned = parts(str(tmp_path / "saved"), OPTIONS, 60)
    assert len(planned) > 3
    found = documents(tmp_path / "saved", planned)
    assert [item.text for item in found] == texts
    assert [item.metadata["origin"] for item in found] == [f"{tmp_path / 'saved'}#{n + 1}" for n in range(20)]
    assert len({item.id for item in found}) == 20


def test_a_folder_of_files_is_streamed_in_the_shards_it_is_stored_in(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for shard in range(3):
        lines = [json.dumps({"text": f"Madde {shard}.{n}"}) + "\n" for n in range(4)]
        (folder / f"train-{shard}.jsonl").write_text("".join(lines))
    planned = parts(str(folder), OPTIONS, 10**6)
    assert len(planned) == 3
    found = documents(folder, planned)
    assert sorted(item.text for item in found) == sorted(f"Madde {shard}.{n}" for shard in range(3) for n in range(4))
    assert len({item.id for item in found}) == 12


def test_a_data_set_that_cannot_be_opened_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"nowhere cannot be opened .*check its id or folder, config and split"):
        parts(str(tmp_path / "nowhere"), OPTIONS, 1000)
    datasets.DatasetDict({"test": datasets.Dataset.from_dict({"text": ["a"]})}).save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match="saved cannot be opened"):
        parts(str(tmp_path / "saved"), OPTIONS, 1000)


@pytest.mark.parametrize("line", ["{broken\n", '{"text": "\udcff"}\n'])
def test_a_broken_shard_gives_what_stands_before_and_is_told_of(tmp_path, line):
    folder = tmp_path / "folder"
    folder.mkdir()
    good = [json.dumps({"text": f"Madde {n}"}) + "\n" for n in range(4)]
    (folder / "train-0.jsonl").write_text("".join(good))
    (folder / "train-1.jsonl").write_bytes(("".join(good) + line).encode("utf-8", "surrogateescape"))
    found = documents(folder, parts(str(folder), OPTIONS, 10**6))
    problems = [item for item in found if isinstance(item, Problem)]
    assert [item.reason for item in problems] == ["damaged_file"] and "the shard was read up to here" in problems[0].detail
    assert [item.text for item in found if not isinstance(item, Problem)][:4] == [f"Madde {n}" for n in range(4)]
