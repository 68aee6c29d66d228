"""What README and the other pages promise to be there is there."""

import re
from pathlib import Path

import pytest

from mecellem.cli import COMMANDS, find_command

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")] + sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_gap_was_left_and_local_links_lead_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"@[A-Z_]+@", text)
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert (page.parent / target).exists(), target


def test_every_command_of_the_readme_exists_and_every_command_is_in_it():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = [line.split("`")[1].split()[1:] for line in text.splitlines() if line.startswith("| `mecellem ")]
    assert {find_command(words)[0] for words in table} == set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_stands_twice(page: Path):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in text.splitlines() if len(line) > 60]
    assert [line for line in lines if lines.count(line) > 1] == []
