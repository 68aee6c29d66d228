"""`mecellem demo`: the whole road on real Turkish text, each step a command that a user could type."""

from __future__ import annotations

import importlib
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mecellem.console import console, human_time
from mecellem.doctor import emulates_bf16, gpus, torch_cuda
from mecellem.errors import UserError
from mecellem.files import sha256_of
from mecellem.flags import parse_and_call

VOCABULARY = 8_192  # mursit_tiny's
POSITIONS = 512  # mursit_tiny's --model.max-sequence-length
INTERRUPTED = 130  # what a shell reports for Ctrl-C


def preparation(out: Path, cache: Path, libreoffice: str) -> list[list[str]]:
    """Text -> tokenizer -> .bin/.idx, as command lines."""
    corpus, tokenizer = out / "corpus", out / "tokenizer"
    train, validation = corpus / "train.jsonl.zst", corpus / "validation.jsonl.zst"
    fetch = ["corpus", "fetch", "--sample", "--out", str(corpus), "--cache", str(cache), "--libreoffice", libreoffice]
    learn = ["tokenizer", "train", "--corpus", str(train), "--held-out", str(validation), "--out", str(tokenizer)]
    learn += ["--vocab-size", str(VOCABULARY), "--model-max-length", str(POSITIONS), "--replace"]
    tokens = out / "tokens"
    write = [
        ["prepare", "tokenize", "--input", str(path), "--tokenizer", str(tokenizer), "--out", str(tokens / name), "--replace"]
        for name, path in (("train", train), ("validation", validation))
    ]
    return [fetch, learn, *write]


def training_gpus() -> int:
    """GPUs that training would use: those that are there, if torch was built for them."""
    return len(gpus()) if torch_cuda() else 0


def training(out: Path, tensor: int | None, flags: Sequence[str]) -> list[str]:
    """The pre-training command; tensor-parallel over two ranks, or over what GPUs there are."""
    cards = training_gpus()
    tensor = tensor or min(2, cards or 2)
    tokens = out / "tokens"
    line = ["train", "mursit_tiny", "--out", str(out / "run"), "--data.tokenizer", str(out / "tokenizer")]
    line += ["--data.train", str(tokens / "train"), "--data.validation", str(tokens / "validation")]
    if emulates_bf16():
        line += ["--precision", "fp32"]
    return [*line, "--parallel.tensor", str(tensor), "--nproc", str(tensor), *flags]


def run_step(line: Sequence[str], started: float) -> None:
    """Show a command line and run it in this process. Raises `UserError` when it fails."""
    from mecellem.cli import COMMANDS, find_command

    out = console()
    out.print(f"\n[{human_time(time.monotonic() - started)}] $ mecellem {shlex.join(line)}", style="bold cyan", markup=False)
    words, flags = find_command(list(line))
    module, function = COMMANDS[words][0].split(":")
    try:
        code = getattr(importlib.import_module(module), function)(flags)
    except SystemExit as left:
        if left.code:
            raise
        raise KeyboardInterrupt from left  # a signal before there was anything to save: the step left, so does the demo
    if code:
        raise UserError(f"the step above ended with code {code}: mend what it says and run `mecellem demo` again")


def unfinished(run: Path) -> str | None:
    """What is left of the training, or None when all of it is done."""
    from megatron_recipes.run_folder import FILE, read_metrics, read_run

    if not (run / FILE).exists():  # stopped while the ranks were starting
        return "training stopped before its first step"
    steps = read_run(run)["steps"]
    done = max((line["step"] for line in read_metrics(run)), default=0)
    return None if done >= steps else f"training stopped at step {done} of {steps}"


def selected(out: Path) -> dict[str, Any]:
    """What `select` wrote."""
    found: dict[str, Any] = json.loads((out / "evaluation" / "selection.json").read_text(encoding="utf-8"))
    return found


def export_best(out: Path, started: float) -> None:
    """Export the checkpoint that was selected to `OUT/export`, unless it is there already."""
    selection = selected(out)
    weights = out / "export" / "model.safetensors"
    if weights.exists() and sha256_of(weights) == selection["best_sha256"]:
        return
    run_step(["convert", "export", selection["best_checkpoint"], str(out / "export"), "--replace"], started)


def measurement(out: Path) -> list[list[str]]:
    """The export, and the same model post-trained, on the test split; what `select` has scored there is found in its cache."""
    corpus, evaluation, selection = out / "corpus", out / "evaluation", selected(out)
    models = [f"export={out / 'export'}"]
    if selection["best_embedding"]:
        models.append(f"post_trained={selection['best_embedding']}")
    length = str(selection["settings"]["max_seq_length"])
    retrieval = ["evaluate", *models, "--corpus", str(corpus), "--max-seq-length", length]
    retrieval += ["--out", str(evaluation / "export"), "--cache", str(evaluation / "cache")]
    masks = ["evaluate", "fill-mask", str(out / "export"), "--texts", str(corpus)]
    masks += ["--out", str(evaluation / "fill_mask.json"), "--cache", str(evaluation / "cache" / "evaluation")]
    masks += ["--mask-documents", "150", "--pll-sentences", "30", "--cloze-items", "50"]  # enough to see, in seconds
    return [*([retrieval] if selection["test"]["tasks"] else []), masks]


def demo(
    out: Path = Path("runs/demo"),
    cache: Path = Path(".cache/packages"),
    libreoffice: str = "auto",
    tensor: int | None = None,
    train_tokens: int | None = None,
    budget: int | None = None,
) -> int:
    """Real Turkish text to an exported, evaluated ModernBERT and a report. A second call goes on where one was stopped.

    Args:
        out: everything is written below this folder; report.html, summary.json and export/ are what to look at.
        cache: folder of downloaded packages.
        libreoffice: auto, yes or no: use LibreOffice's Turkish help as well (needs apt-get).
        tensor: tensor-parallel ranks of the training: 2, or 1 on a machine with one GPU.
        train_tokens: length of the training, if not the recipe's.
        budget: steps of post-training of each checkpoint before it is compared, if not those of `mecellem select`.
    """
    started = time.monotonic()
    flags = [] if train_tokens is None else short_run(train_tokens)
    for line in preparation(out, cache, libreoffice):
        run_step(line, started)
    run_step(training(out, tensor, flags), started)
    if left := unfinished(out / "run"):
        console().print(f"\n{left}: run `mecellem demo --out {out}` again to go on", style="bold", markup=False)
        return INTERRUPTED
    corpus, evaluation = str(out / "corpus"), out / "evaluation"
    select = ["select", str(out / "run"), "--corpus", corpus, "--out", str(evaluation)]
    run_step([*select, *([] if budget is None else ["--budget", str(budget)])], started)
    export_best(out, started)
    for line in measurement(out):
        run_step(line, started)
    report = ["report", str(out / "run"), "--evaluation", str(evaluation), "--corpus", corpus]
    run_step([*report, "--out", str(out / "report.html")], started)
    say = console()
    say.print(f"\nthe demo took {human_time(time.monotonic() - started)}", markup=False)
    say.print(f"report       {(out / 'report.html').resolve().as_uri()}", markup=False)
    say.print(f"best model   {out / 'export'}   (a Hugging Face folder, verified)", markup=False)
    say.print(f"all figures  {out / 'summary.json'}", markup=False)
    return 0


def short_run(train_tokens: int) -> list[str]:
    """mursit_tiny's schedule in the same proportions for another number of tokens, with at least two checkpoints."""
    from megatron_recipes.config import EncoderRun
    from megatron_recipes.recipes import find_recipe

    recipe = find_recipe("mursit_tiny")()
    assert isinstance(recipe, EncoderRun)
    share = train_tokens / recipe.schedule.train_tokens
    steps = -(-train_tokens // recipe.tokens_per_step)
    values = {
        "schedule.train-tokens": train_tokens,
        "schedule.warmup-tokens": int(recipe.schedule.warmup_tokens * share),
        "schedule.decay-tokens": int(recipe.schedule.decay_tokens * share),
        "checkpoint-interval": max(1, min(recipe.checkpoint_interval, steps // 2)),
        "validation-interval": max(1, min(recipe.validation_interval, steps // 4)),
    }
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def main(argv: Sequence[str]) -> int:
    """The command."""
    return int(parse_and_call(demo, argv, "mecellem demo"))
