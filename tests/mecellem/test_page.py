from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from browser_pages import DESK, check_page, column, opened

from mecellem.files import atomic_write
from mecellem.page import csv_uri, render
from mecellem.page.figure_data import COLUMNS, figure_csv

TEMPLATE = """{% extends "base.html.j2" %}
{% from "parts.html.j2" import drawing, pairs %}
{% block main %}
{{ drawing("shares", figure) }}
<div class="scroll"><table id="plain"><thead><tr><th>name</th><th>tokens</th><th>share</th></tr></thead><tbody>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
<tr class="last"><td>all</td><td>9</td><td>100%</td></tr>
</tbody></table></div>
<div class="scroll"><table id="grouped"><thead><tr><th>system</th><th>score</th></tr></thead><tbody>
<tr class="group"><th colspan="2">first</th></tr><tr><td>a</td><td>.5</td></tr><tr><td>b</td><td>.7</td></tr>
<tr class="group"><th colspan="2">second</th></tr><tr><td>c</td><td>.1</td></tr><tr><td>d</td><td>.9</td></tr>
</tbody></table></div>
{{ pairs("Settings", {"<b>": "a & b"}) }}
{% endblock %}
"""
ROWS = [["ılık", "2.5M", "7%"], ["çay", "950", "–"], ["zor", "1,200", "12.5%"], ["iri", "12k", "-3%"]]


def figure():
    from matplotlib.figure import Figure

    drawn = Figure()
    axes = drawn.subplots()
    axes.set_title("Loss", loc="left")
    axes.plot([1, 2], [0.5, 0.25], label="training")
    axes.axvline(1.5)
    return drawn


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "own.html.j2").write_text(TEMPLATE)
    drawn = figure()
    svg = io.StringIO()
    drawn.savefig(svg, format="svg")
    values = {"title": "T", "over": "over", "heading": "İçtihat", "headline": "h", "tiles": []}
    shown = {"svg": svg.getvalue()[svg.getvalue().index("<svg") :], "csv": csv_uri(figure_csv(drawn))}
    with atomic_write(folder / "page.html") as handle:
        handle.write(render(folder / "own.html.j2", rows=ROWS, figure=shown, **values))
    return folder / "page.html"


def test_what_every_page_is_held_to(page: Path):
    check_page(page)


def test_tables_sort_numbers_as_numbers_and_keep_groups_and_sums(page: Path):
    with opened(page, DESK) as tab:
        tab.click("#plain th:nth-child(2)")
        assert column(tab, "#plain", 2) == ["2.5M", "12k", "1,200", "950", "9"]  # the sum stays last
        assert tab.get_attribute("#plain th:nth-child(2)", "aria-sort") == "descending"
        tab.press("#plain th:nth-child(2)", "Enter")
        assert column(tab, "#plain", 2) == ["950", "1,200", "12k", "2.5M", "9"]
        for _ in range(2):
            tab.click("#plain th:nth-child(3)")
            assert column(tab, "#plain", 3)[-2:] == ["–", "100%"]  # what has no figure comes after what has
        assert column(tab, "#plain", 3)[:3] == ["-3%", "7%", "12.5%"]
        tab.click("#plain th:nth-child(1)")
        tab.click("#plain th:nth-child(1)")
        assert column(tab, "#plain", 1) == ["çay", "ılık", "iri", "zor", "all"]  # the Turkish alphabet
        tab.click("#grouped th:nth-child(2)")
        assert column(tab, "#grouped", 1) == ["first", "b", "a", "second", "d", "c"]


def test_text_is_escaped_and_a_missing_name_is_an_error(page: Path, tmp_path: Path):
    import jinja2

    assert "&lt;b&gt;" in page.read_text() and "a &amp; b" in page.read_text()
    (tmp_path / "p.html.j2").write_text("{{ absent }}")
    with pytest.raises(jinja2.UndefinedError):
        render(tmp_path / "p.html.j2")


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_lines_without_the_marks_on_one_axis():
    rows = read(figure_csv(figure()))
    assert [tuple(row.values())[:4] for row in rows] == [("Loss", "training", "1", "0.5"), ("Loss", "training", "2", "0.25")]
    assert tuple(rows[0]) == COLUMNS


def test_bars_intervals_steps_points_and_heat_maps():
    import numpy as np
    from matplotlib.figure import Figure

    drawn = Figure()
    bars, errors, steps, heat = drawn.subplots(1, 4)
    bars.barh([-0.2, 0.8], [3, 4], height=0.4, label="ours")
    bars.set_yticks([0, 1], ["hukuk", "genel"])
    errors.errorbar([10, 20], [1.0, 2.0], yerr=[[0.5, 0.1], [0.25, 0.2]], label="nDCG", fmt="o")
    errors.scatter([1], [7])
    steps.stairs([0.25, 0.75], [0, 1, 3], label="kept")
    heat.imshow(np.array([[0.1, 0.2], [0.3, np.nan]]))
    heat.set_xticks([0, 1], ["512", "1,024"])
    rows = read(figure_csv(drawn))
    by = {panel: [tuple(row.values())[1:] for row in rows if row["panel"] == panel] for panel in "1234"}
    assert by["1"] == [("ours", "3", "hukuk", "", "", ""), ("ours", "4", "genel", "", "", "")]
    assert ("nDCG", "10", "1", "0.5", "1.25", "") in by["2"] and ("nDCG", "20", "2", "1.9", "2.2", "") in by["2"]
    assert len(by["2"]) == 3  # two intervals once each, one point
    assert by["3"] == [("kept", "0.5", "0.25", "0", "1", ""), ("kept", "2", "0.75", "1", "3", "")]
    assert ("", "512", "0", "", "", "0.1") in by["4"] and ("", "1,024", "1", "", "", "") in by["4"]
