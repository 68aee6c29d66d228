"""`mecellem train RECIPE --out RUN [--nproc N] [--any.field VALUE] [--dry-run]`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from mecellem.console import console, step
from mecellem.doctor import emulates_bf16
from mecellem.errors import UserError
from mecellem.files import sha256_of
from megatron_recipes.config import DecoderRun, EncoderRun, RunConfig, named_in
from megatron_recipes.engine.launch import Rank, python_command, rank_from_environment, start_ranks
from megatron_recipes.engine.stop import StopSignal, leaving_at_once, stop_signals
from megatron_recipes.engine.tasks import Task, open_task
from megatron_recipes.plan import plan, print_plan
from megatron_recipes.recipes import RECIPES, find_recipe
from megatron_recipes.run_folder import FILE as RUN_FILE
from megatron_recipes.run_folder import check_same

MEASURE_WARMUP = 5  # steps in which kernels are compiled and caches filled
ASSUMED = ("mfu", "peak_tflops", "gpu_memory_gb")  # what a plan takes for granted unless it is told


@dataclass(frozen=True, slots=True)
class TrainFlags:
    """Run a recipe with Megatron-Core. Every value of the recipe can be overridden by its dotted name."""

    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    out: Path | None = None
    """Folder of the run; the same command resumes what was stopped."""
    accept_changed_curriculum: bool = False
    """Resume with a curriculum that was changed on purpose since the run began (weights and later stages may differ)."""
    nproc: int | None = None
    """Ranks to start on this machine (default: one model replica); torchrun's or srun's are used where they exist."""
    measure: int | None = None
    """Train so many steps, time them and write OUT/measurement.json; nothing is saved."""
    measure_warmup: int | None = None
    """For --measure: steps before those that are timed (default: 5)."""
    dry_run: bool = False
    """Show the plan - parameters, steps, memory, hours, checkpoint size - and train nothing."""
    gpus: int | None = None
    """For --dry-run: GPUs that would train (default: 8, or as many as the recipe's batch can feed)."""
    mfu: float | None = None
    """For --dry-run: share of the GPUs' peak that training reaches (default: 0.30; Ettin reached 0.25 to 0.34 on H100s)."""
    peak_tflops: float | None = None
    """For --dry-run: TFLOP/s of one GPU in dense BF16, from its data sheet (default: 989, an H100 SXM)."""
    gpu_memory_gb: float | None = None
    """For --dry-run: memory of one GPU (default: 64, MareNostrum 5's H100; the usual one has 80)."""


def parse(argv: Sequence[str]) -> tuple[TrainFlags, RunConfig]:
    """Recipe name and flags -> the resolved flags and the recipe as it stands in its file."""
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: mecellem train RECIPE --out RUN [flags]\n\nrecipes: {', '.join(RECIPES)}")
        print("`mecellem train RECIPE --help` lists every value that can be set")
        raise SystemExit(0 if argv else 2)
    recipe = find_recipe(argv[0])()
    if not isinstance(recipe, DecoderRun):
        refuse_decoder_flags(argv)
    flags = tyro.cli(TrainFlags, args=list(argv[1:]), prog=f"mecellem train {argv[0]}", default=TrainFlags(config=recipe))
    return flags, recipe


def refuse_decoder_flags(argv: Sequence[str]) -> None:
    """Raise `UserError` for a flag of `argv` that only decoder runs have; the recipe named first in it is an encoder's."""
    names = {field.name for field in fields(DecoderRun)} - {field.name for field in fields(EncoderRun)}
    names |= {"accept_changed_curriculum"}
    for word in argv[1:]:
        flag = word.partition("=")[0]
        if flag.startswith("--") and flag.removeprefix("--").replace("-", "_") in names:
            decoders = [name for name in RECIPES if isinstance(find_recipe(name)(), DecoderRun)]
            raise UserError(
                f"{flag} is for decoder recipes, which train through a curriculum, and {argv[0]} is an encoder's: remove it, "
                f"or choose one of {', '.join(decoders)}"
            )


def refuse_idle_flags(named: Collection[str], config: RunConfig, flags: TrainFlags) -> None:
    """Raise `UserError` for a value that the command line sets (`named`, `flags`) and others leave without effect."""
    planned = [name for name in ("gpus", *ASSUMED) if getattr(flags, name) is not None]
    if planned and not flags.dry_run:
        raise UserError(f"--{planned[0].replace('_', '-')} is for the plan that --dry-run shows: add --dry-run or remove it")
    if flags.nproc is not None and flags.dry_run:
        raise UserError("--nproc starts ranks and --dry-run starts none: name the GPUs to plan for with --gpus")
    if flags.measure is None and flags.measure_warmup is not None:
        raise UserError("--measure-warmup is for --measure: add --measure STEPS or remove it")
    if flags.measure is not None:
        if flags.dry_run:
            raise UserError("--measure trains and --dry-run does not: choose one of them")
        if flags.measure < 1 or (flags.measure_warmup or 0) < 0:
            raise UserError("--measure must be at least 1 and --measure-warmup at least 0")
        if flags.out is not None and (flags.out / RUN_FILE).exists():
            raise UserError(f"--out {flags.out} holds a run: name another folder for the measurement")
    if "model.init_std" in named and config.init_from is not None:
        raise UserError(
            f"--model.init-std draws random weights, and the run starts from those of --init-from {config.init_from}: remove "
            "it, or set --init-from None"
        )


def main(argv: Sequence[str]) -> int:
    """Parse, check, then train: in this process when a launcher started it as a rank, else in ranks started here."""
    flags, recipe = parse(argv)
    config = flags.config
    refuse_idle_flags(named_in(argv, config), config, flags)
    if flags.dry_run:
        starts = isinstance(config, DecoderRun) or config.init_from is not None
        start = planned_start(config, flags.out, named_in(argv, config)) if starts else None
        gpus = default_gpus(config) if flags.gpus is None else flags.gpus
        given = {name: value for name in ASSUMED if (value := getattr(flags, name)) is not None}
        print_plan(plan(config, gpus, **given))
        if start is not None:
            console().print(f"Weights: {start}.", markup=False)
        return 0
    if flags.out is None:
        raise UserError("--out is missing: name the folder of the run, for example --out runs/mursit")
    place = rank_from_environment()
    asked = config.parallel.model_ranks if flags.nproc is None else flags.nproc
    ranks = place.world_size if place else asked
    if place and flags.nproc not in (None, ranks):
        raise UserError(f"--nproc {flags.nproc} but a launcher has started {ranks} ranks: leave --nproc out")
    if ranks < 1:
        raise UserError("--nproc must be at least 1")
    config.check(ranks)
    if place:
        with stop_signals() as stop:
            return run_rank(config, recipe.name, flags, flags.out, place, named_in(argv, config), stop)
    with leaving_at_once():  # until there are ranks, to which `start_ranks` passes signals on
        task, tokenizer_sha256 = check_inputs(config, flags.out, ranks, verify=True)
        check_same(flags.out, config, task.extent(), tokenizer_sha256, flags.accept_changed_curriculum)
        doing = "train" if flags.measure is None else "measure"
        with step(f"{doing} {config.name}", reads=task.reads(), writes=[flags.out]) as out:
            if config.precision != "fp32" and emulates_bf16():
                out.print("note    this CPU has no instructions for BF16: --precision fp32 is many times faster", markup=False)
            code = start_ranks(python_command("megatron_recipes.train", argv), ranks, hold_signals=True)
            if code == 0 and flags.measure is None:
                summarise(flags.out, task.steps, out.print)
            elif code == 0:
                summarise_measurement(flags.out, out.print)
    return code


def default_gpus(config: RunConfig, most: int = 8) -> int:
    """The largest number of GPUs up to `most` that the recipe's layout and batch divide over; `most` if there is none."""

    def fits(gpus: int) -> bool:
        try:
            plan(config, gpus)
        except UserError:
            return False
        return True

    return next((gpus for gpus in range(most, 0, -1) if fits(gpus)), most)


def check_inputs(config: RunConfig, run: Path, ranks: int, verify: bool) -> tuple[Task, str]:
    """Open tokenizer and corpora before any rank starts, and refuse what does not fit `ranks` ranks, `run` or each other.

    `verify` reads every byte of the corpora against their manifests. Returns the task and the tokenizer's SHA-256.
    """
    from megatron_recipes.engine.environment import refuse_environment
    from megatron_recipes.models.fp8_settings import refuse_fp8

    refuse_environment()
    refuse_fp8(config)
    task = open_task(config, verify)
    task.check(config.parallel.data_parallel(ranks))
    tokenizer_sha256 = sha256_of(config.data.tokenizer / "tokenizer.json")
    if isinstance(config, DecoderRun) or config.init_from is not None:  # an encoder's cursor is its step: nothing to look at
        check_start(config, task, run, tokenizer_sha256)
    return task, tokenizer_sha256


def check_start(config: RunConfig, task: Task, run: Path, tokenizer_sha256: str) -> None:
    """Refuse a start from weights that do not fit, or a curriculum that cannot go on where the run's data stand."""
    from megatron_recipes.engine.checkpoint import newest_whole, read_meta
    from megatron_recipes.engine.refusals import refuse_other_start

    newest, _ = newest_whole(run)
    if newest is not None:  # what it started from may be gone
        meta = read_meta(newest)
        task.restore(meta.cursor, meta.step)
        return
    task.check_new()
    if config.init_from is not None:
        refuse_other_start(config.init_from, config.model, tokenizer_sha256)


def planned_start(config: RunConfig, run: Path | None, named: Collection[str]) -> str:
    """For a dry run, where the weights would come from. Raises `UserError` for a checkpoint that the run would refuse.

    Only one that the command line names (`named`) must be there already, and the tokenizer is looked at where it is.
    """
    if run is not None and (run / "checkpoints").is_dir():
        from megatron_recipes.engine.checkpoint import newest_whole

        newest, _ = newest_whole(run)
        if newest is not None:
            return f"the run goes on from {newest}"
    folder = config.init_from
    if folder is None:
        return "random"
    if "init_from" not in named and not folder.exists():
        return f"{folder}, which is not there yet: `mecellem convert import` makes it of a Hugging Face model"
    from megatron_recipes.engine.refusals import refuse_other_start

    tokenizer = config.data.tokenizer / "tokenizer.json"
    meta = refuse_other_start(folder, config.model, sha256_of(tokenizer) if tokenizer.is_file() else None)
    trained = f" after {meta.tokens:,} tokens" if meta.step else ""
    return f"{folder} ({meta.name}{trained})"


def run_rank(
    config: RunConfig,
    recipe: str,
    flags: TrainFlags,
    run: Path,
    place: Rank,
    command_line: Collection[str],
    stop: StopSignal,
) -> int:
    """One rank of the run. `recipe` and `command_line` (dotted names) say in `run.yaml` where values came from."""
    import torch

    from megatron_recipes import run_folder
    from megatron_recipes.engine import runtime
    from megatron_recipes.engine.checkpoint import step_to_resume
    from megatron_recipes.engine.heartbeat import print_stacks_on_signal
    from megatron_recipes.engine.parallel import parallel_state
    from megatron_recipes.engine.refusals import refuse_ranks_without_gpu, resolve_layer_spec, this_fp8_machine
    from megatron_recipes.models.fp8_settings import refuse_fp8_machine

    print_stacks_on_signal()
    spec = resolve_layer_spec(config, runtime.has_cuda())
    if spec == "transformer_engine" and config.precision.startswith("fp8"):
        refuse_fp8_machine(config.precision, this_fp8_machine())
    under_own_launcher = place.store is not None  # which has verified the inputs already
    if runtime.has_cuda():
        here = place.world_size if under_own_launcher else place.local_rank + 1
        refuse_ranks_without_gpu(here, torch.cuda.device_count())
    verify = place.rank == 0 and not under_own_launcher
    task, tokenizer_sha256 = check_inputs(config, run, place.world_size, verify)
    if flags.measure is not None:
        warmup = MEASURE_WARMUP if flags.measure_warmup is None else flags.measure_warmup
        with parallel_state(place, config.parallel, config.seed):
            from megatron_recipes.engine.measure import measure

            measure(config, task, run, place, flags.measure, warmup, stop)
        return 0
    if place.rank == 0:
        run_folder.check_same(run, config, task.extent(), tokenizer_sha256, flags.accept_changed_curriculum)
        run.mkdir(parents=True, exist_ok=True)
        done = step_to_resume(run)
        run_folder.record(run, config, task.extent(), recipe, place.world_size, tokenizer_sha256, command_line, done)
    with parallel_state(place, config.parallel, config.seed):
        from megatron_recipes.engine.loop import train

        train(config, task, run, place, tokenizer_sha256, stop)
    return 0


def summarise(run: Path, steps: int, say: Callable[[str], None]) -> None:
    """The last lines of a run: how far it came, what it reached, where its checkpoints are."""
    from megatron_recipes.run_folder import read_metrics

    lines = read_metrics(run)
    done = max((line["step"] for line in lines), default=0)
    validations = [line for line in lines if "validation_loss" in line]
    if validations:
        last = validations[-1]
        right = f", {last['validation_accuracy']:.2%} of masked tokens right" if "validation_accuracy" in last else ""
        say(f"validation at step {last['step']}: loss {last['validation_loss']:.4f}{right}")
    folders = sorted((run / "checkpoints").glob("step_*"))
    if not folders:
        say(f"stopped before the first of {steps} steps: nothing to save; the same command starts it")
        return
    say(f"checkpoints: {', '.join(folder.name for folder in folders)} in {run / 'checkpoints'}")
    if done < steps:
        say(f"stopped at step {done} of {steps}; saved: the same command goes on from there")


def summarise_measurement(out: Path, say: Callable[[str], None]) -> None:
    """The last lines of a measurement."""
    from megatron_recipes.measurement import read_measurement

    found = read_measurement(out)
    assert found is not None
    speed = f"{found.tokens_per_second:,.0f} tokens/s, {found.tokens_per_second / found.ranks:,.0f} a rank"
    say(f"{found.step_seconds:.3f} s a step, {speed}; {found.peak_memory_bytes / 1e9:.1f} GB on the fullest rank")


if __name__ == "__main__":
    from mecellem.cli import main as cli

    sys.exit(cli(["train", *sys.argv[1:]]))
