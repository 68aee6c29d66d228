"""Tokenizing and writing: `mecellem prepare tokenize` beside Megatron-LM's own two tools, whole processes, in one run.

    git clone --depth 1 https://github.com/NVIDIA/Megatron-LM ../Megatron-LM
    python benchmarks/tokenize_corpus.py --megatron ../Megatron-LM --megatron-python PYTHON

PYTHON is an interpreter that has what those tools import: torch, transformers and gigatoken (by default the one that
runs this). Without --megatron ours is measured alone. Wall time of each command from start to end, start-up and, for
ours, the comparison with its oracle and all hashes included; the files that come out are compared byte for byte. Beside
them stands gigatoken alone, on all cores (`bare_gigatoken.py`): what the machine could do if nothing were checked, so that
a figure of one machine can be held against another's. The
text is the sample corpus, repeated, with some of its words replaced by words that were not there before, as in a corpus
that is not repeated. The sample corpus is fetched on the first run.
"""

from __future__ import annotations

import filecmp
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import orjson
from common import CACHE, ROOT, header, sample, sample_text

from mecellem.errors import UserError
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from mecellem.manifest import read_manifest
from preprocessing.jsonl import read_records
from preprocessing.tokenizer import load_tokenizer

NEW_WORDS = 0.02  # of the words after the first pass over the sample
MANY_NEW_WORDS = 0.2  # where memory is measured: what an engine remembers grows with its words
SLOWEST_UP_TO = 50  # megabytes; preprocess_data.py needs minutes for more


@dataclass(frozen=True, slots=True)
class Contender:
    """A command, what is added to its environment, and the prefix and the kinds of the files that it writes."""

    name: str
    command: list[str]
    environment: dict[str, str]
    prefix: Path
    kinds: tuple[str, ...] = (".bin", ".idx")


def lines(texts: Sequence[str], new_words: float) -> Iterator[bytes]:
    """JSON lines without end; from the second pass on, so many words are made of the halves of two others."""
    draw = random.Random(1).random
    words = sorted({word for text in texts for word in text.split()})
    share = 0.0
    while True:
        for text in texts:
            parts = text.split(" ")
            for _ in range(round(share * len(parts) + draw() - 0.5) if share else 0):
                one, other = words[int(draw() * len(words))], words[int(draw() * len(words))]
                parts[int(draw() * len(parts))] = one[: len(one) // 2 + 1] + other[len(other) // 2 :]
            yield orjson.dumps({"text": " ".join(parts)}, option=orjson.OPT_APPEND_NEWLINE)
        share = new_words


def write_text(path: Path, megabytes: Sequence[int], new_words: float) -> dict[int, int]:
    """A file of the largest of those numbers of megabytes; returns the bytes at which a document ends for each of them."""
    texts = [record.text for record in read_records(sample_text() / "train.jsonl.zst") if record.text]
    ends: dict[int, int] = {}
    size, left = 0, sorted(set(megabytes), reverse=True)
    with open(path, "wb") as out:
        for line in lines(texts, new_words):
            size += out.write(line)
            while left and size >= left[-1] * 1_000_000:
                ends[left.pop()] = size
            if not left:
                return ends
    raise AssertionError("the lines have no end")


def commit_of(megatron: Path) -> str:
    """The commit of a checkout. Raises `UserError` for what is none, or has not the tools of the main branch."""
    if not (megatron / "tools" / "preprocess_data_fast.py").is_file():
        raise UserError(f"--megatron {megatron} has no tools/preprocess_data_fast.py: clone Megatron-LM's main branch")
    command = ["git", "-C", str(megatron), "rev-parse", "--show-prefix", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    prefix, _, commit = done.stdout.partition("\n")
    if done.returncode or prefix:  # a folder inside another checkout would give that one's commit
        raise UserError(
            f"--megatron {megatron} is no git checkout, so its commit cannot be told: clone Megatron-LM's main branch"
        )
    return commit.strip()


def import_from(folder: Path) -> dict[str, str]:
    """The environment in which Python looks into `folder` first."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))}


def contenders(source: Path, tokenizer: Path, out: Path, megatron: Path | None, python: Path, slow: bool) -> list[Contender]:
    """Ours and, where there is a checkout, Megatron-LM's, with the same input and the same meaning of a document."""
    flags = ["--input", str(source), "--tokenizer", str(tokenizer), "--out", str(out / "ours")]
    ours = [sys.executable, "-m", "mecellem", "prepare", "tokenize", *flags]
    found = [Contender("ours", ours, import_from(ROOT), out / "ours"), bare(source, tokenizer, out / "bare")]
    if megatron is None:
        return found
    tools = {"preprocess_data_fast.py": ["--use-gigatoken"]}
    if slow:
        tools["preprocess_data.py"] = ["--workers", str(len(os.sched_getaffinity(0)))]
    for tool, more in tools.items():
        prefix = out / tool.removesuffix(".py")
        command = [str(python), str(megatron / "tools" / tool), "--input", str(source), "--output-prefix", str(prefix)]
        command += ["--append-eod", "--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", str(tokenizer)]
        command += ["--tokenizer-hf-no-include-special-tokens", *more]
        found.append(Contender(tool, command, import_from(megatron), Path(f"{prefix}_text_document")))
    return found


def bare(source: Path, tokenizer: Path, prefix: Path) -> Contender:
    """What gigatoken alone writes, as `bare_gigatoken.py` has it."""
    script = ROOT / "benchmarks" / "bare_gigatoken.py"
    end = str(load_tokenizer(tokenizer, None).eod_id)
    command = [sys.executable, str(script), str(source), str(tokenizer), end, f"{prefix}.bin"]
    return Contender("gigatoken alone", command, {}, prefix, (".bin",))


def run(contender: Contender) -> tuple[float, float]:
    """Seconds of wall time and peak memory in MB of one run (of its largest process), its files removed before."""
    for suffix in (".bin", ".idx", ".manifest.json"):
        Path(f"{contender.prefix}{suffix}").unlink(missing_ok=True)
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        child = subprocess.Popen(
            contender.command, env=os.environ | contender.environment, stdout=log, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            log.seek(0)
            raise UserError(f"{contender.name} failed:\n{log.read().decode(errors='replace')[-2000:]}")
    return seconds, usage.ru_maxrss * 1024 / 1e6


@dataclass(frozen=True, slots=True)
class Measured:
    """Lines for the page, and what ours wrote in how many seconds."""

    lines: list[str]
    tokens: int
    seconds: float


def compare(everyone: Sequence[Contender], rounds: int, megabytes: int) -> Measured:
    """A table of all contenders, which take turns."""
    measured: dict[str, list[tuple[float, float]]] = {contender.name: [] for contender in everyone}
    for _ in range(rounds):
        for contender in everyone:
            measured[contender.name].append(run(contender))
    ours = everyone[0].prefix
    manifest = read_manifest(ours)
    best = statistics.median(seconds for seconds, _ in measured["ours"])
    engine = manifest.engines[0]
    table = [
        f"## {megabytes:,} MB, {manifest.documents:,} documents, {manifest.tokens:,} tokens",
        "",
        f"Engine {engine.name} {engine.version}; {engine.compared:,} documents of it compared with tokenizers in each run.",
        "",
        "| | seconds (lowest to highest) | times ours | tokens/s | peak memory, MB | files |",
        "|---|---|---|---|---|---|",
    ]
    for contender in everyone:
        seconds = [second for second, _ in measured[contender.name]]
        memory = max(peak for _, peak in measured[contender.name])
        middle = statistics.median(seconds)
        same = all(filecmp.cmp(f"{ours}{kind}", f"{contender.prefix}{kind}", shallow=False) for kind in contender.kinds)
        files = f"{' and '.join(contender.kinds)}: {'the same' if same else 'DIFFERENT'}"
        table.append(
            f"| {contender.name} | {middle:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {middle / best:.1f} | "
            f"{manifest.tokens / middle / 1e6:.1f}M | {memory:,.0f} | {files} |"
        )
    return Measured([*table, ""], manifest.tokens, best)


def alone(contender: Contender, megabytes: int) -> Measured:
    """A line of the table of large files."""
    seconds, peak = run(contender)
    manifest = read_manifest(contender.prefix)
    rate = f"{manifest.tokens / seconds / 1e6:.1f}M"
    line = f"| {megabytes:,} | {manifest.documents:,} | {manifest.tokens:,} | {seconds:.1f} | {rate} | {peak:,.0f} |"
    return Measured([line], manifest.tokens, seconds)


def sustained(few: dict[int, Measured], small: int, big: int) -> str:
    """The rate between files of two sizes, in which the start of the process, half a second, cancels out."""
    first, last = few[small], few[big]
    rate = (last.tokens - first.tokens) / (last.seconds - first.seconds) / 1e6
    return f"Sustained, from {small:,} to {big:,} MB: {rate:.1f}M tokens/s."


def benchmark(
    megatron: Path | None = None,
    megatron_python: Path = Path(sys.executable),
    megabytes: list[int] = [30, 300],  # noqa: B006 - tyro shows it as the default; nothing changes it
    large: list[int] = [1000, 3000],  # noqa: B006
    memory_megabytes: list[int] = [30, 300, 3000],  # noqa: B006
    tokenizer: Path | None = None,
    rounds: int = 3,
    out: Path = ROOT / "benchmarks" / "results" / "tokenize_corpus.md",
) -> None:
    """Time whole commands, compare their files, print the tables and write them to a file.

    Args:
        megatron: a checkout of Megatron-LM's main branch; without it ours is measured alone.
        megatron_python: interpreter that runs its tools.
        megabytes: sizes of the files whose time is measured, in turns.
        large: sizes of the files that ours writes alone, once.
        memory_megabytes: sizes of the files, with new words all the time, for which the peak memory of ours is measured.
        tokenizer: Hugging Face tokenizer folder (default: one trained on the sample).
        rounds: how often each contender has its turn.
        out: Markdown file for the results.
    """
    commit = f", Megatron-LM {commit_of(megatron)}" if megatron else ""
    folder = tokenizer or sample()[1]
    heading = header(("numpy", "tokenizers", "gigatoken", "pyarrow")) + commit
    few: dict[int, Measured] = {}
    many: dict[int, str] = {}
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        place = Path(name)
        sources = place / "few.jsonl", place / "many.jsonl"
        sizes = [*megabytes, *large], memory_megabytes
        with ProcessPoolExecutor(2) as pool:  # before anything is timed
            few_ends, many_ends = pool.map(write_text, sources, sizes, (NEW_WORDS, MANY_NEW_WORDS))
        # each file is cut to the next smaller size
        for size in sorted(set(sizes[0]), reverse=True):
            os.truncate(sources[0], few_ends[size])
            everyone = contenders(sources[0], folder, place, megatron, megatron_python, slow=size <= SLOWEST_UP_TO)
            few[size] = alone(everyone[0], size) if size in large else compare(everyone, rounds, size)
        for size in sorted(set(sizes[1]), reverse=True):
            os.truncate(sources[1], many_ends[size])
            seconds, peak = run(contenders(sources[1], folder, place, None, megatron_python, slow=False)[0])
            many[size] = f"| {size:,} | {seconds:.1f} | {peak:,.0f} |"
    text = ["# Tokenizing and writing", "", heading, ""]
    text += [f"Whole commands, median of {rounds} rounds in turns; {NEW_WORDS:.0%} of the words are new all the time.", ""]
    text += [line for size in sorted(set(megabytes) - set(large)) for line in few[size].lines]
    text += [f"## Ours alone, {NEW_WORDS:.0%} new words, one round", ""]
    text += ["| MB | documents | tokens | seconds | tokens/s | peak memory, MB |", "|---|---|---|---|---|---|"]
    text += [*(line for size in sorted(set(large)) for line in few[size].lines), ""]
    if megabytes and large and max(large) > max(megabytes):
        text += [sustained(few, max(megabytes), max(large)), ""]
    text += [f"## Peak memory of ours, {MANY_NEW_WORDS:.0%} new words", "", "| MB | seconds | peak, MB |", "|---|---|---|"]
    text += [many[size] for size in sorted(many)]
    report = "\n".join(text) + "\n"
    print(report)
    with atomic_write(out) as handle:
        handle.write(report)
    print(f"wrote {out}")


if __name__ == "__main__":
    parse_and_call(benchmark, sys.argv[1:], "benchmarks/tokenize_corpus.py")
