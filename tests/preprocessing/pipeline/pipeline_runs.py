"""Small corpora for the tests of the pipeline, and what a finished run is compared by."""

import base64
import csv
import io
import json
import os
import random
import re
import signal
from pathlib import Path

import orjson
import yaml
import zstandard
from datatrove.pipeline.base import PipelineStep

WORDS = [
    *("mahkeme", "karar", "dava", "kanun", "madde", "hüküm", "taraf", "yargıtay"),
    *("istinaf", "temyiz", "borçlu", "alacaklı", "sözleşme", "tazminat", "ışık", "ağır"),
]


def sentences(number: int, count: int = 40) -> str:
    """A text that no other number has."""
    picked = random.Random(number).choices(WORDS, k=count)
    return f"Belge {number}: {' '.join(picked)} sayısı {number * number}."


def write_jsonl(path: Path, texts, **fields) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text, **fields}, ensure_ascii=False) for text in texts]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def write_corpus(path: Path, sources, stages=(), **settings) -> Path:
    """The YAML file of a corpus whose run is in `out` beside it."""
    content = {"out": str(path.parent / "out"), "sources": list(sources), "stages": list(stages), **settings}
    path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def jsonl_source(*paths, name="laws", **settings):
    return {"name": name, "kind": "jsonl", "paths": [str(path) for path in paths], "licence": "CC0-1.0", **settings}


def lines_of(path: Path) -> list[dict]:
    with zstandard.open(path, "rb") as handle:
        return [orjson.loads(line) for line in handle.read().splitlines()]


def documents(stage: Path) -> list[dict]:
    """The documents that a stage kept, in order."""
    return [document for shard in sorted((stage / "shards").glob("*.jsonl.zst")) for document in lines_of(shard)]


def set_aside(stage: Path) -> list[dict]:
    """The records that a stage put into quarantine, in order."""
    return [record for path in sorted((stage / "quarantine").glob("*.jsonl.zst")) for record in lines_of(path)]


def outputs(out: Path) -> dict[str, bytes]:
    """Every file of a run that must not depend on how the run went: not logs, jobs, how long it took, nor the page."""
    kept = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_file() and "/logs/" not in name and path.name not in (".lock", "jobs.json", "report.html"):
            kept[name] = path.read_bytes()
        if path.name == "done.json":
            kept[name] = orjson.dumps({key: value for key, value in orjson.loads(kept[name]).items() if key != "seconds"})
    return kept


def figure(page: Path, name: str) -> list[dict[str, str]]:
    """The rows of a figure's data, as the page gives them."""
    encoded = re.search(rf'download="{name}\.csv" href="data:text/csv;charset=utf-8;base64,([^"]+)"', page.read_text())
    return list(csv.DictReader(io.StringIO(base64.b64decode(encoded[1]).decode())))


class Killed(PipelineStep):
    """A task whose process the kernel kills."""

    def run(self, data=None, rank=0, world_size=1):
        os.kill(os.getpid(), signal.SIGKILL)
        yield from ()
