"""What a results file must be to have a page, and how printed tables become ones of a page."""

from __future__ import annotations

import json

import pytest
from rich.table import Table

from evaluation.report import main
from evaluation.report.results_pages import table_parts
from mecellem.errors import UserError


def test_a_table_keeps_its_text_and_every_row_says_what_it_is_of():
    table = Table(title="a \\[b]")
    for name in ("domain", r"on \[MASK]"):
        table.add_column(name)
    for row in (("law", "[bold]1[/bold]"), ("", "2"), ("all", "3")):
        table.add_row(*row)
    assert table_parts(table) == ("a [b]", ["domain", "on [MASK]"], [["law", "1"], ["law", "2"], ["all", "3"]])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "results.json is not JSON"),
        ("[]", "has format None, which has no page"),
        ('{"format": "mecellem.selection/2"}', r"has format 'mecellem.selection/2', which has no page: give a run's folder"),
        (
            '{"format": "mecellem.fill_mask/1"}',
            "texts: Field required; remove it and write it again with `mecellem eval",
        ),
    ],
)
def test_other_files_are_refused_and_nothing_is_written(tmp_path, text, sentence):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=sentence):
        main([str(tmp_path / "results.json")])
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_flags_of_a_run_are_refused_beside_a_file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"format": "mecellem.fill_mask/1"}))
    with pytest.raises(UserError, match="--corpus is for the report on a run"):
        main([str(path), "--corpus", str(tmp_path)])
