"""docs/corpus_yaml.md says of every setting what the models say: name, default, range and, of stages, what it means."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from preprocessing.pipeline import config
from preprocessing.pipeline.registry import STAGES
from preprocessing.stages.settings import Share

PAGE = Path(__file__).resolve().parents[3] / "docs" / "corpus_yaml.md"
MODELS: dict[str, type[BaseModel]] = {
    "The file": config.CorpusFile,
    "limits": config.Limits,
    "tokenize": config.Tokenize,
    "sources": config.Source,
    "text": config.TextOptions,
    "hub": config.HubOptions,
    "pdf": config.PdfOptions,
}
SETTINGS = {name: kind.settings_type for name, kind in STAGES.items()}
_SIZES = {item for item in get_args(config.Size) if not isinstance(item, type)}
_SHARES = {item for item in get_args(Share) if not isinstance(item, type)}


def default_of(field: FieldInfo) -> str:
    """As YAML says it."""
    value: Any = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "needed"
    if isinstance(value, BaseModel):
        return "see below"
    if _SIZES & set(field.metadata):
        unit, name = (2**20, "MiB") if value % 2**20 == 0 else (10**6, "MB")
        return f"`{value // unit}{name}`"
    return "none" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def range_of(field: FieldInfo) -> str:
    """The values that may be given."""
    if get_origin(field.annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(field.annotation))
    if field.annotation is bool:
        return "`true` or `false`"
    limits = {name: getattr(item, name) for item in field.metadata for name in ("ge", "gt", "le", "lt") if hasattr(item, name)}
    if _SHARES & set(field.metadata):
        limits.setdefault("le", 1)
    words = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}"}
    return " ".join(words[name].format(f"{limits[name]:,}") for name in words if name in limits)


def rows_of(section: str) -> dict[str, list[str]]:
    """key -> default, range, meaning of the first table below a heading of the page."""
    text = re.split(rf"^#+ `?{section}`?$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    lines = [line for line in re.split(r"^#+ ", text, flags=re.MULTILINE)[0].splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells}


@pytest.mark.parametrize("section", [*MODELS, *SETTINGS])
def test_every_setting_is_on_the_page_with_its_default_and_range(section):
    fields = (MODELS | SETTINGS)[section].model_fields
    rows = rows_of(section)
    assert list(rows) == list(fields)
    for name, field in fields.items():
        default, values, meaning = rows[name]
        assert (name, default, values) == (name, default_of(field), range_of(field))
        assert len(meaning) > 8
        if section in SETTINGS:
            assert meaning == field.description


def test_the_examples_of_the_page_are_a_corpus_that_can_be_read(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 1
    path = tmp_path / "corpus.yaml"
    path.write_text(blocks[0])
    corpus = config.read_corpus(path)
    assert [stage.name for stage in corpus.stages] == list(STAGES)
    assert next(iter(corpus.stages[-1].settings.sets)) == "legal_mcq"
    assert {source.kind for source in corpus.file.sources} == {"jsonl", "parquet", "text", "warc", "hub", "pdf"}


def test_the_example_of_the_readme_has_every_stage_and_can_be_read(tmp_path):
    blocks = re.findall(r"```\n(out: .*?)```", (PAGE.parents[1] / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 1
    path = tmp_path / "corpus.yaml"
    path.write_text(blocks[0])
    assert [stage.name for stage in config.read_corpus(path).stages] == list(STAGES)


def test_the_plug_in_of_the_page_reads_a_scanned_page(tmp_path, monkeypatch):
    from PIL import Image

    from preprocessing.sources.found import Part, Reading
    from preprocessing.sources.pdf import read

    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 1
    (tmp_path / "my_ocr.py").write_text(blocks[0])
    monkeypatch.syspath_prepend(tmp_path)
    asked = []

    def read_text(image):
        asked.append(image)
        return "Karar verildi."

    monkeypatch.setitem(sys.modules, "my_model", SimpleNamespace(load=lambda: read_text))
    scan = tmp_path / "scan.pdf"
    Image.new("RGB", (200, 100), "white").save(scan)
    options = config.PdfOptions(ocr="my_ocr:read_page", dpi=144).model_dump()
    [found] = read(Part(str(scan), 0), Reading("books", "pdf", "", "text", None, (), 10**6, options))
    assert found.fields["text"] == "Karar verildi."
    assert [(image.mode, image.info["dpi"]) for image in asked] == [("RGB", (144, 144))]
