"""Data sets in the form of the hub's files, and in the cache as `mecellem evaluate prefetch` leaves them."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from evaluation.tasks.hub import Snapshot
from evaluation.tasks.hub_tasks import HubTask

Parts = dict[str, dict[str, list[dict]]]  # config -> split -> rows


def write_data_set(folder: Path, parts: Parts) -> None:
    """Parquet files and README.md, as `push_to_hub` leaves them in a repository."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    configs = []
    for config, splits in parts.items():
        data = "data" if config == "default" else config
        for split, rows in splits.items():
            (folder / data).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), folder / data / f"{split}-00000-of-00001.parquet")
        files = [{"split": split, "path": f"{data}/{split}-*"} for split in splits]
        configs.append({"config_name": config, "data_files": files})
    card = yaml.safe_dump({"language": ["tr"], "configs": configs}, allow_unicode=True)
    (folder / "README.md").write_text(f"---\n{card}---\n# A data set\n", encoding="utf-8")


def fill_cache(cache: Path, task: HubTask, parts: Parts, commit: str = "c" * 40) -> Path:
    """A data set in the cache as `fetch_snapshot` leaves it; returns its folder."""
    home = cache / "hub" / task.repo.replace("/", "--")
    folder = home / "@".join([commit, *task.configs])
    folder.mkdir(parents=True)
    write_data_set(folder, parts)
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    snapshot = Snapshot(repo=task.repo, revision=task.revision, commit=commit, configs=task.configs, files=files)
    name = "@".join([task.revision, *task.configs])
    (home / f"{name}.json").write_text(json.dumps(snapshot.model_dump()))
    return folder
