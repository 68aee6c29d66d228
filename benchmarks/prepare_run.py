"""`mecellem prepare run` with every stage and tokens, as a whole: speed, CPU time and memory of each stage.

    python benchmarks/prepare_run.py

The command is run as users run it; what it prints says when a stage ends, and its processes are looked at every 0.1 s. The
text is made of the sentences of the sample corpus, which is fetched on the first run: documents of 10 to 60 of them drawn
at random, a word in fifty replaced by one that was not there before; one document in twenty is an earlier one, one in
twenty nearly one, one in twenty has its words shuffled, and a line in a thousand is broken.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psutil
import yaml
from common import ROOT, header, sample, sample_text

from mecellem.errors import UserError
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call
from preprocessing.bad_text import shuffled
from preprocessing.jsonl import read_records
from preprocessing.pipeline.config import read_corpus
from preprocessing.pipeline.executors import quiet
from preprocessing.pipeline.ledger import SourceLedger
from preprocessing.pipeline.plan import make_plan
from preprocessing.pipeline.status import stage_states
from preprocessing.pipeline.steps import Step, steps_of

RESULT = ROOT / "benchmarks" / "results" / "prepare_run.md"
PACKAGES = ("datatrove", "akana", "semhash", "gigatoken", "numpy")
NEW_WORDS = 0.02
SAME, NEAR, SHUFFLED, BROKEN = 0.05, 0.05, 0.05, 0.001  # shares of the documents
REMEMBERED = 20_000  # documents that a later one may repeat
EVERY = 0.1  # seconds between two looks at the processes
DEDUP = ("exact_dedup", "minhash", "semantic_dedup")
MANY = 10_000_000  # documents, of which the memory is foretold
FUNCTIONS = 8  # of a profile


@dataclass(frozen=True, slots=True)
class Look:
    """The processes at one time: CPU seconds so far, MB of the largest and of all together (shared pages once)."""

    time: float
    cpu: float
    largest: float
    together: float


@dataclass(frozen=True, slots=True)
class Part:
    """One stage of a run, or writing its tokens: wall and CPU seconds, peaks in MB."""

    name: str
    wall: float
    cpu: float
    largest: float
    together: float


def make_documents(sentences: Sequence[str], seed: int) -> Iterator[bytes]:
    """JSON lines without end."""
    draw = random.Random(seed)
    words = sorted({word for sentence in sentences for word in sentence.split()})
    earlier: list[list[str]] = []
    while True:
        kind = draw.random()
        if earlier and kind < SAME + NEAR:
            chosen = list(draw.choice(earlier))
            if kind < NEAR:
                chosen[draw.randrange(len(chosen))] = draw.choice(sentences)
        else:
            chosen = [_with_new_words(sentence, words, draw) for sentence in draw.choices(sentences, k=draw.randrange(10, 61))]
            if len(earlier) < REMEMBERED:
                earlier.append(chosen)
        text = " ".join(chosen)
        if 0 <= kind - SAME - NEAR < SHUFFLED:
            text = shuffled(text, draw, words)
        line = orjson.dumps({"text": text}, option=orjson.OPT_APPEND_NEWLINE)
        yield line[: len(line) // 2] + b"\n" if draw.random() < BROKEN else line


def _with_new_words(text: str, words: Sequence[str], draw: random.Random) -> str:
    parts = text.split(" ")
    for at in draw.sample(range(len(parts)), int(NEW_WORDS * len(parts) + draw.random())):
        one, other = draw.choice(words), draw.choice(words)
        parts[at] = one[: len(one) // 2 + 1] + other[len(other) // 2 :]
    return " ".join(parts)


def write_text(path: Path, megabytes: int) -> Path:
    """A JSONL file of so many megabytes."""
    sentences = [record.text for record in read_records(sample_text() / "train.jsonl.zst") if 40 <= len(record.text) <= 300]
    size = 0
    with open(path, "wb") as out:
        for line in make_documents(sentences, seed=1):
            size += out.write(line)
            if size >= megabytes * 1_000_000:
                return path
    raise AssertionError("the lines have no end")


def bytes_a_character() -> float:
    """Of the sample's Turkish, as UTF-8."""
    text = "".join(record.text for record in read_records(sample_text() / "train.jsonl.zst"))
    return len(text.encode()) / len(text)


def write_dedup_corpus(text: Path, out: Path, shard_size: str) -> Path:
    """The YAML file of a run of the stages alone that compare documents with one another."""
    content = {
        "out": str(out),
        "shard_size": shard_size,
        "sources": [{"name": "sample", "kind": "jsonl", "paths": [str(text)]}],
        "stages": [{name: {}} for name in DEDUP],
    }
    return _write_yaml(content, out)


def write_corpus(text: Path, out: Path, shard_size: str) -> Path:
    """The YAML file: every stage, in the paper's order, and tokens."""
    held_out = sample_text() / "test.jsonl.zst"
    names = ("repair", "exact_dedup", "minhash", "semantic_dedup", "quality", "language", "morphology", "pii")
    stages = [*({name: {}} for name in names), {"decontaminate": {"sets": {"test": [str(held_out)]}}}]
    content = {
        "out": str(out),
        "shard_size": shard_size,
        "sources": [{"name": "sample", "kind": "jsonl", "paths": [str(text)]}],
        "stages": stages,
        "tokenize": {"tokenizer": str(sample()[1])},
    }
    return _write_yaml(content, out)


def _write_yaml(content: dict[str, Any], out: Path) -> Path:
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


class Watch(threading.Thread):
    """Looks at a process and all below it until it ends."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.process = process
        self.looks: list[Look] = []

    def run(self) -> None:
        """Look until the process is gone."""
        while self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE:
            self.looks.append(self._look())
            time.sleep(EVERY)

    def _look(self) -> Look:
        cpu, largest, together = 0.0, 0.0, 0.0
        for process in [self.process, *self.process.children(recursive=True)]:
            try:
                times, memory = process.cpu_times(), process.memory_full_info()
            except psutil.Error:  # it ended: its parent has its time
                continue
            cpu += times.user + times.system + times.children_user + times.children_system
            largest, together = max(largest, memory.rss / 1e6), together + memory.pss / 1e6
        return Look(time.perf_counter(), cpu, largest, together)


def prepare(corpus: Path, workers: int) -> list[Part]:
    """Run the command; the parts of it in order, from the end of the part before to its own."""
    command = [sys.executable, "-m", "mecellem", "prepare", "run", str(corpus), "--workers", str(workers)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    started, printed, ends = time.perf_counter(), [], []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        watch = Watch(psutil.Process(process.pid))
        watch.start()
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            if len(line) > 17 and line[16] == " " and line[:16].strip() and " documents, " in line:
                ends.append((line.split()[0], time.perf_counter()))
    watch.join()
    if process.returncode:
        raise UserError(f"{' '.join(command)} failed:\n{''.join(printed)[-2000:]}")
    ends.append(("report page", time.perf_counter()))
    return list(_parts(started, ends, watch.looks))


def _parts(started: float, ends: Sequence[tuple[str, float]], looks: Sequence[Look]) -> Iterator[Part]:
    cpu = 0.0
    for name, end in ends:
        during = [look for look in looks if started <= look.time <= end] or looks[-1:]
        used = max([cpu, *(look.cpu for look in during)])  # of a process that just ended nothing is seen for a moment
        largest, together = max(look.largest for look in during), max(look.together for look in during)
        yield Part(name, end - started, used - cpu, largest, together)
        started, cpu = end, used


def table(parts: Sequence[Part], ledgers: dict[str, SourceLedger], tokens: int, width: float) -> Iterator[str]:
    """A line for each part; MB are of the texts of the documents that come in, with `width` bytes a character."""
    whole = sum(part.wall for part in parts)
    yield "| stage | documents in | out | MB/s | wall, s | share | CPU, s | largest process, MB | all together, MB |"
    yield "|---|---|---|---|---|---|---|---|---|"
    last = SourceLedger()
    for part in parts:
        ledger = ledgers.get(part.name)
        entered, out, rate = "", "", ""
        if ledger or part.name == "tokenize":
            tally = ledger.entered if ledger else last.kept
            entered, rate = f"{tally.documents:,}", f"{tally.characters * width / part.wall / 1e6:.1f}"
            out = f"{ledger.kept.documents:,}" if ledger else f"{tokens:,} tokens"
            last = ledger or last
        yield (
            f"| {part.name} | {entered} | {out} | {rate} | {part.wall:.1f} | {part.wall / whole:.0%} | {part.cpu:.1f} "
            f"| {part.largest:,.0f} | {part.together:,.0f} |"
        )
    read = ledgers["read"].kept
    peaks = f"{max(part.largest for part in parts):,.0f} | {max(part.together for part in parts):,.0f}"
    yield (
        f"| **all** | {read.documents:,} | | {read.characters * width / whole / 1e6:.1f} | {whole:.1f} | 100% "
        f"| {sum(part.cpu for part in parts):.1f} | {peaks} |"
    )


def dedup_table(parts: Sequence[Part], ledgers: dict[str, SourceLedger], width: float) -> Iterator[str]:
    """A line for each stage that compares documents: its peak, what a document has of it, and what `MANY` would take.

    A document's share is of what the peak is above that of `read`, which remembers no document.
    """
    base = next(part.together for part in parts if part.name == "read")
    yield "Peak memory of all processes together; a document's bytes are those above the peak of `read`."
    yield ""
    yield f"| stage | documents in | out | MB/s | wall, s | peak, MB | bytes a document | {MANY / 1e6:.0f}M documents, GB |"
    yield "|---|---|---|---|---|---|---|---|"
    for part in parts:
        if part.name in DEDUP:
            entered, kept = ledgers[part.name].entered, ledgers[part.name].kept
            share = max(0.0, part.together - base) * 1e6 / entered.documents
            foretold = base / 1e3 + share * MANY / 1e9
            rate = entered.characters * width / part.wall / 1e6
            yield (
                f"| {part.name} | {entered.documents:,} | {kept.documents:,} | {rate:.1f} | {part.wall:.1f} "
                f"| {part.together:,.0f} | {share:,.0f} | {foretold:.1f} |"
            )


def dedup_run(megabytes: int, workers: int, shard_size: str, width: float) -> list[str]:
    """One run of the stages that compare documents, of a text of its own."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "out"
        corpus = write_dedup_corpus(write_text(Path(folder) / "text.jsonl", megabytes), place, shard_size)
        parts = prepare(corpus, workers)
        ledgers = {state.name: state.ledger.total() for state in stage_states(read_corpus(corpus))}
    heading = f"## Duplicates alone: {megabytes:,} MB, {workers} workers, shards of {shard_size}"
    return ["", heading, "", *dedup_table(parts, ledgers, width)]


def profile(step: Step) -> list[str]:
    """The functions that the first task of a stage's last phase spends its time in, by their own time."""
    [block] = step.phases()[-1].pipeline
    recorded = cProfile.Profile()
    recorded.runcall(lambda: list(block.run(None, 0, step.folders.tasks)))
    stats = pstats.Stats(recorded)
    total = stats.total_tt  # type: ignore[attr-defined]
    rows = sorted(stats.stats.items(), key=lambda item: -item[1][2])[:FUNCTIONS]  # type: ignore[attr-defined]
    lines = ["| function | calls | own time |", "|---|---|---|"]
    for (file, _, name), (_, calls, own, _, _) in rows:
        place = name if file == "~" else f"{'/'.join(Path(file).parts[-2:])}: {name}"
        lines.append(f"| `{place.replace('|', ' ')}` | {calls:,} | {own / total:.0%} |")
    return lines


def benchmark(
    megabytes: int = 200, small: int = 50, large: int = 0, shard_size: str = "16MB", slowest: int = 3, out: Path = RESULT
) -> None:
    """Measure whole runs and write benchmarks/results/prepare_run.md.

    Args:
        megabytes: size of the text that is run with one worker and with two.
        small: size of a smaller one, run with two workers: does memory grow with the text? 0: no such run.
        large: size of a text in which duplicates alone are searched, with two workers; 0: no such run.
        shard_size: of the runs; a shard is a task.
        slowest: so many stages are profiled, of those that look at one document at a time.
        out: the page.
    """
    from mecellem.manifest import read_manifest

    lines = [
        "# `mecellem prepare run`, every stage",
        "",
        header(PACKAGES),
        "",
        *(__doc__ or "").strip().split("\n\n")[2].split("\n"),
    ]
    peaks: list[tuple[int, float, float]] = []
    width = bytes_a_character()
    with tempfile.TemporaryDirectory() as folder:
        for size, workers in ((megabytes, 1), (megabytes, 2), *([(small, 2)] if small else [])):
            text, place = Path(folder) / f"{size}.jsonl", Path(folder) / f"out_{size}_{workers}"
            corpus = write_corpus(text if text.exists() else write_text(text, size), place, shard_size)
            parts = prepare(corpus, workers)
            peaks.append((size, max(part.largest for part in parts), max(part.together for part in parts)))
            ledgers = {state.name: state.ledger.total() for state in stage_states(read_corpus(corpus))}
            tokens = read_manifest(place / "tokens" / "corpus").tokens
            heading = f"{size} MB, {workers} worker{'s' * (workers > 1)}"
            lines += ["", f"## {heading}", "", *table(parts, ledgers, tokens, width)]
            print("\n".join(lines[-len(parts) - 3 :]), flush=True)
            if workers == 1:
                single = {part.name: part.cpu for part in parts}
        lines += [
            "",
            "## Peak memory",
            "",
            "| MB of text | workers | largest process, MB | all together, MB |",
            "|---|---|---|---|",
        ]
        lines += [f"| {size} | 2 | {largest:,.0f} | {together:,.0f} |" for size, largest, together in peaks[1:]]
        if large:
            lines += dedup_run(large, 2, shard_size, width)
            print("\n".join(lines[-len(DEDUP) - 5 :]), flush=True)
        lines += profiles(Path(folder) / f"out_{megabytes}_2.yaml", single, slowest)
    with atomic_write(out) as handle:
        handle.write("\n".join(lines) + "\n")
    print(f"wrote {out}")


def profiles(corpus: Path, seconds: dict[str, float], number: int) -> list[str]:
    """Profiles of the slowest stages with one phase; what they write is what is there."""
    quiet()
    settings = read_corpus(corpus)
    single = [step for step in steps_of(settings, make_plan(settings)) if step.name in seconds and len(step.phases()) == 1]
    lines = [
        "",
        "## Where the slowest stages spend their time",
        "",
        "One task of each under cProfile, which makes small functions slower.",
    ]
    for step in sorted(single, key=lambda step: -seconds[step.name])[:number]:
        lines += ["", f"### {step.name}", "", *profile(step)]
    return lines


def main() -> None:
    """Parse the flags and run."""
    parse_and_call(benchmark, sys.argv[1:], prog="benchmarks/prepare_run.py")


if __name__ == "__main__":
    main()
