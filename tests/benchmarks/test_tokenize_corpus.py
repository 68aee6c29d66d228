import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "tokenize_corpus.py"


def run(*flags, cwd):
    command = [sys.executable, str(SCRIPT), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd, check=False)


@pytest.mark.slow
def test_ours_is_measured_alone_where_there_is_no_megatron(sample_tokenizer, tmp_path):
    out = tmp_path / "result.md"
    flags = [
        "--tokenizer",
        sample_tokenizer,
        "--rounds",
        "1",
        "--megabytes",
        "1",
        "--large",
        "3",
        "2",
        "--memory-megabytes",
        "2",
        "--out",
        out,
    ]
    done = run(*flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    assert re.search(
        r"^\| ours \| [\d.]+ \([\d.]+ to [\d.]+\) \| 1\.0 \| [\d.]+M \| \d+ \| .bin and .idx: the same \|$", text, re.MULTILINE
    )
    assert re.search(r"^\| gigatoken alone \| .* \| .bin: the same \|$", text, re.MULTILINE)
    assert re.search(r"^Sustained, from 1 to 3 MB: -?[\d.]+M tokens/s\.$", text, re.MULTILINE)
    assert re.search(r"^\| 2 \| [\d.]+ \| \d+ \|$", text, re.MULTILINE)
    assert "Engine gigatoken" in text
    assert re.findall(r"^\| (\d) \| [\d,]+ \| [\d,]+ \| [\d.]+ \| [\d.]+M \| \d+ \|$", text, re.MULTILINE) == ["2", "3"]


@pytest.mark.slow
def test_a_folder_without_megatrons_tool_is_refused(tmp_path):
    done = run("--megatron", tmp_path, cwd=tmp_path)
    assert done.returncode != 0
    assert "clone Megatron-LM's main branch" in done.stderr


TOOL = """
import subprocess, sys
given = dict(zip(sys.argv[1:], sys.argv[2:]))
prefix = given["--output-prefix"] + "_text_document"
flags = ["--input", given["--input"], "--tokenizer", given["--tokenizer-model"], "--out", prefix]
subprocess.run([sys.executable, "-m", "mecellem", "prepare", "tokenize", *flags], check=True)
"""


def git(*words, cwd):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.run(["git", *identity, *words], cwd=cwd, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.slow
def test_the_commit_of_megatron_stands_in_the_heading(sample_tokenizer, tmp_path):
    megatron, out = tmp_path / "Megatron-LM", tmp_path / "result.md"
    (megatron / "tools").mkdir(parents=True)
    for name in ("preprocess_data_fast.py", "preprocess_data.py"):
        (megatron / "tools" / name).write_text(TOOL.replace("sys.executable", f"{sys.executable!r}"))
    flags = ["--megatron", megatron, "--tokenizer", sample_tokenizer, "--rounds", "1", "--megabytes", "1", "--large", "2"]
    flags += ["--memory-megabytes", "1", "--out", out]
    assert "is no git checkout" in run(*flags, cwd=tmp_path).stderr
    git("init", "-q", cwd=megatron)
    git("add", ".", cwd=megatron)
    git("commit", "-q", "-m", "tools", cwd=megatron)
    done = run(*flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    assert f", Megatron-LM {git('rev-parse', 'HEAD', cwd=megatron).strip()}\n" in text
    assert len(re.findall(r"^\| preprocess_data\S* .*\| .bin and .idx: the same \|$", text, re.MULTILINE)) == 2
