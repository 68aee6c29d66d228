import subprocess
import sys

PROGRAM = """
import pkgutil, sys, preprocessing
names = {module.name for module in pkgutil.walk_packages(preprocessing.__path__, "preprocessing.")}
stages = {name for name in names if name.startswith("preprocessing.stages.")}  # imported when a YAML file names them
for name in names - stages:
    __import__(name)
heavy = {"torch", "megatron", "transformers", "lxml", "scipy", "datasets", "tokenizers", "pyarrow", "gigatoken", "awkward"}
heavy &= set(sys.modules)
assert not heavy, heavy
for name in stages:
    __import__(name)
heavy = {"torch", "megatron", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""


def test_preprocessing_starts_without_torch_megatron_or_transformers():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_tokenizing_needs_neither_torch_nor_transformers(sample_corpus, sample_tokenizer, tmp_path):
    program = """
import sys, pathlib
from preprocessing.tokens.tokenize import tokenize_corpus
source, tokenizer, out = map(pathlib.Path, sys.argv[1:])
assert tokenize_corpus([source], tokenizer, out).tokens > 0
heavy = {"torch", "megatron", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""
    arguments = [str(sample_corpus / "validation.jsonl.zst"), str(sample_tokenizer), str(tmp_path / "x")]
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
