import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield __import__("common")
    sys.modules.pop("common", None)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["--megatron", "/x/y", "--rounds", "3"], ["--megatron", "MEGATRON", "--rounds", "3"]),
        (["--megatron-python=/usr/bin/python"], ["--megatron-python=MEGATRON_PYTHON"]),
        (["--input", "/a", "/b c", "d/e"], ["--input", "INPUT", "INPUT", "d/e"]),
        (["--corpora", "law=/a/b", "web=c"], ["--corpora", "law=CORPORA", "web=c"]),
        (["/a/b", "-o", "/c"], ["PATH", "-o", "O"]),
        (["--out", "results/x.md", "--ratio", "1/2"], ["--out", "results/x.md", "--ratio", "1/2"]),
    ],
)
def test_paths_of_this_machine_are_not_shown(common, given, shown):
    assert common.shown_arguments(given) == shown


def test_a_header_names_the_command_without_this_machines_paths(common, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", [f"{tmp_path}/tokenize_corpus.py", "--tokenizer", str(tmp_path / "a b"), "--rounds", "1"])
    text = common.header(("numpy",))
    assert text.startswith("`python benchmarks/tokenize_corpus.py --tokenizer TOKENIZER --rounds 1`, ")
    assert str(tmp_path) not in text
