"""A real continual pre-training: SmolLM2-135M's weights, a curriculum with English replay, and back to Hugging Face.

    python benchmarks/cpt_smollm2.py

Every step is a command that users have: import, tokenize, train (DP 2), export, evaluate. Beside the curriculum, with the
same tokens, rates and seed: the curriculum without replay, and all of it as one mixture from start to end. Texts are in
`cpt_text.py`; the held-out documents are in no training corpus, and the contracts' kind of text is in none either.
"""

from __future__ import annotations

import json
import os
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

Stages = list[dict[str, Any]]


def with_replay(stages: Stages) -> Stages:
    """As the file says."""
    return stages


def without_replay(stages: Stages) -> Stages:
    """Turkish only, in the same proportions."""
    for stage in stages:
        kept = [source for source in stage["sources"] if not source.get("replay")]
        total = sum(source["weight"] for source in kept)
        stage["sources"] = [{**source, "weight": source["weight"] / total, "max_epochs": 2} for source in kept]
    return stages


def one_mixture(stages: Stages) -> Stages:
    """Every source at its share of the whole run, from start to end; the rate of first and last stage in one curve."""
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
    "curriculum without replay": without_replay,
    "one mixture with replay": one_mixture,
}


@contextmanager
def timed(folder: Path, name: str) -> Iterator[None]:
    """Remember how long something took the first time; what a later call finds done keeps that time."""
    path = folder / "seconds.json"
    started = time.perf_counter()
    yield
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known.setdefault(name, time.perf_counter() - started)
    with atomic_write(path) as handle:
        handle.write(json.dumps(known, indent=1) + "\n")


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
            mecellem("prepare", "tokenize", "--input", path, "--tokenizer", base / "tokenizer", "--out", out, "--eod", EOD)
    return base, held_out


def train(folder: Path, base: Path, variant: str, layout: list[str]) -> tuple[Path, float]:
    """One run: its last checkpoint and its minutes, those of an earlier call that was stopped included."""
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
    mecellem("train", "smollm2_135m_cpt", *flags, timeout=4 * 3600, cwd=folder)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = sum(line.get("seconds", 0.0) for line in lines)
    return max((run / "checkpoints").glob("step_*")), seconds / 60


def evaluate(folder: Path, models: list[Path], held_out: list[Path]) -> list[dict[str, Any]]:
    """Each model's scores on the held-out documents, compared with the first."""
    out = folder / "perplexity" / "results.json"
    flags: list[str | Path] = ["--texts", *held_out, "--out", out]
    flags += ["--window", str(WINDOW), "--stride", str(WINDOW)]
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
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if again:
        for name in (*(variant.replace(" ", "_") for variant in VARIANTS), "base", "data", "perplexity", "export"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "seconds.json").unlink(missing_ok=True)
    base, held_out = prepare(folder)
    models, minutes = [base], dict[str, float]()
    for number, variant in enumerate(variants):
        checkpoint, minutes[variant] = train(folder, base, variant, list(layout))
        if number == 0:
            with timed(folder, "export"):
                if not (folder / "export").exists():
                    mecellem("convert", "export", checkpoint, folder / "export")
            checkpoint = folder / "export"
            with timed(folder, "evaluate"):
                evaluate(folder, [base, checkpoint], held_out)
        models.append(checkpoint)
    scores = evaluate(folder, models, held_out)
    lines = ["# Continual pre-training of SmolLM2-135M on Turkish", "", header("python benchmarks/cpt_smollm2.py"), ""]
    lines += [f"Perplexity in windows of {WINDOW} tokens; in brackets the change from the model before.", ""]
    lines += table(["before", *variants], scores, minutes)
    spent = json.loads((folder / "seconds.json").read_text(encoding="utf-8"))
    parts = {"import": spent["import"], "tokenize": spent["tokenize"], "train": minutes[variants[0]] * 60}
    parts |= {"export": spent["export"], "evaluate": spent["evaluate"]}
    said = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in parts.items())
    lines += ["", f"The first run, {' '.join(layout)}, BF16: {sum(parts.values()) / 60:.1f} minutes ({said})."]
    text = "\n".join(lines) + "\n"
    print(text)
    with atomic_write(out) as handle:
        handle.write(text)
    print(f"wrote {out}")


if __name__ == "__main__":
    parse_and_call(benchmark, sys.argv[1:], "benchmarks/cpt_smollm2.py")
