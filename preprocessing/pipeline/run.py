"""`mecellem prepare run`: sources, stages and tokens, each resumable, on this machine or as Slurm arrays."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from mecellem.console import human_time, progress_bar, step
from mecellem.errors import UserError
from mecellem.files import check_output_folder
from mecellem.flags import parse_and_call

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from preprocessing.pipeline.config import Corpus
    from preprocessing.pipeline.ledger import TaskLedger
    from preprocessing.pipeline.phases import Phase
    from preprocessing.pipeline.plan import Plan
    from preprocessing.pipeline.steps import Step

_LOCK = ".lock"
_WHY = 3  # reasons named in a stage's line


def run(
    corpus: tyro.conf.Positional[Path],
    executor: Literal["local", "slurm"] = "local",
    workers: int | None = None,
    site: Path = Path("slurm/cluster.env"),
) -> None:
    """Prepare a corpus: read sources, clean, remove duplicates, filter, tokenize. The same command goes on after a stop.

    Args:
        corpus: YAML file: out, sources, stages, tokenize.
        executor: local runs tasks in processes of this machine; slurm submits an array a phase and returns.
        workers: tasks at a time (default: the cores of this machine; under slurm: as many as the cluster starts). The
            result is the same for any number.
        site: under slurm: file with PARTITION=, TIME= and, where needed, ACCOUNT=, QOS=, CPU_PARTITION=, CPU_QOS=,
            MEM_PER_CPU_GB=, MODULES=, VENV= or ENV_COMMAND=.
    """
    from preprocessing.pipeline.config import read_corpus
    from preprocessing.pipeline.jobs import refuse_beside_jobs

    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: at least one is needed")
    settings = read_corpus(corpus)
    check_output_folder(settings.out, f"out in {corpus}")
    _check_tokenizer(settings)
    with step("Prepare", reads=[corpus], writes=[settings.out]) as console, _lock(settings.out):
        refuse_beside_jobs(settings.out)
        if executor == "slurm":
            _submit(settings, site, workers, console)
        else:
            _run_here(settings, workers or len(os.sched_getaffinity(0)), console)


def _check_tokenizer(corpus: Corpus) -> None:
    """A wrong tokenizer is told of before hours of work."""
    if corpus.file.tokenize:
        from preprocessing.pipeline.config import place_of
        from preprocessing.tokenizer import load_tokenizer

        settings = corpus.file.tokenize
        folder_from, eod_from = (place_of(corpus, "tokenize", key) for key in ("tokenizer", "eod"))
        load_tokenizer(Path(settings.tokenizer), settings.eod, folder_from, eod_from)


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """One run at a time in a folder; the lock goes with the process, however it ends."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    descriptor = _locked(out)
    try:
        yield
    finally:
        if [path.name for path in out.iterdir()] == [_LOCK]:  # the run was refused before it began
            (out / _LOCK).unlink()
            with suppress(OSError):
                for folder in made:
                    folder.rmdir()
        os.close(descriptor)


def _locked(out: Path) -> int:
    """The open lock file of a folder."""
    while True:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(f"another run works in {out}: wait for it, or stop it first") from None
        except OSError:  # a file system without locks
            return descriptor
        with suppress(FileNotFoundError):
            if (out / _LOCK).stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # a refused run removed it in this moment


def _planned(corpus: Corpus, console: Console) -> tuple[Plan, list[Step], dict[str, list[Phase]]]:
    """The tasks, the stages, and the phases of those that are not done; all is checked before older work is removed."""
    from preprocessing.pipeline.executors import quiet
    from preprocessing.pipeline.limits import check_first_records
    from preprocessing.pipeline.plan import make_plan
    from preprocessing.pipeline.steps import begin, free_what_was_read, steps_of, steps_to_do
    from preprocessing.sources import pdf

    quiet()

    plan = make_plan(corpus)
    if not plan.tasks:
        raise UserError(f"{corpus.path}: the sources hold nothing to read: check `paths`")
    steps = steps_of(corpus, plan)
    waiting = {step.name: step.phases() for step in steps_to_do(steps)}  # their settings are checked here
    if steps[0].name in waiting and not steps[0].is_begun and steps[0].folders.root.exists():
        check_first_records(plan, steps[0].folders.root.parent)
    for sentence in begin(steps, plan):
        console.print(f"again   {sentence}", markup=False)
    if corpus.file.keep_shards == "last":
        free_what_was_read(steps)
    for source in corpus.file.sources:
        if source.kind == "pdf" and (advice := pdf.advice(source.pdf.model_dump())):
            console.print(f"note    source {source.name}: {advice}", markup=False)
    console.print(f"plan    {len(plan.tasks):,} tasks of {len(corpus.file.sources)} sources", markup=False)
    return plan, steps, waiting


def _limits(corpus: Corpus) -> dict[str, Any]:
    return {source.name: corpus.limits_of(source.name) for source in corpus.file.sources}


def _run_here(corpus: Corpus, workers: int, console: Console) -> None:
    from preprocessing.pipeline.hints import hints
    from preprocessing.pipeline.limits import field_notes
    from preprocessing.pipeline.steps import free_what_was_read

    plan, steps, waiting = _planned(corpus, console)
    for stage in steps:
        if stage.name not in waiting:
            console.print(f"{stage.name:<16} done already", markup=False)
            continue
        try:
            ledger, seconds = _run_stage(stage, waiting[stage.name], workers, plan, _limits(corpus))
        except (KeyboardInterrupt, SystemExit):
            from preprocessing.pipeline.steps import completed

            ready = completed(stage.folders)
            console.print(
                f"stopped in {stage.name}, {ready:,} of {len(plan.tasks):,} tasks done; the same command goes on there",
                markup=False,
            )
            raise
        except UserError:
            _page_so_far(corpus)
            raise
        console.print(f"{stage.name:<16} {_sentence(ledger)}, {human_time(seconds)}", markup=False)
        for sentence in field_notes(ledger):
            console.print(f"note    {sentence}", markup=False)
        for sentence in hints(stage.name, ledger, corpus.path):
            console.print(f"hint    {sentence}", markup=False)
        if corpus.file.keep_shards == "last":
            free_what_was_read(steps)
    _finish(corpus, plan, steps, console)


def _run_stage(stage: Step, phases: list[Phase], workers: int, plan: Plan, limits: dict[str, Any]) -> tuple[TaskLedger, float]:
    """Run the phases of a stage that are not complete; returns its summed ledger and the seconds it took."""
    import time

    from preprocessing.pipeline.executors import LocalExecutor
    from preprocessing.pipeline.steps import finish

    started = time.perf_counter()
    with progress_bar(transient=True) as bar:
        for phase in phases:
            what = stage.name if len(phases) == 1 else f"{stage.name}: {phase.name}"
            executor = LocalExecutor(phase, stage.folders.logs(phase.name), workers)
            ready = sorted(set(range(phase.tasks)) - set(executor.get_incomplete_ranks()))
            task, check = bar.add_task(what, total=phase.tasks, completed=len(ready)), _early_check(phase, plan, limits)
            for rank in ready:
                check(rank)

            def done(rank: int, task: TaskID = task, check: Callable[[int], None] = check) -> None:
                bar.advance(task)
                check(rank)

            executor.run_tasks(done)
            bar.remove_task(task)
    return finish(stage.folders, stage.digest, limits), time.perf_counter() - started


def _early_check(phase: Phase, plan: Plan, limits: dict[str, Any]) -> Callable[[int], None]:
    """What looks at each finished task of a phase: whether too much of its source is broken for the run to go on."""
    from preprocessing.pipeline.limits import EarlyLimits
    from preprocessing.pipeline.read import ledgers_of

    ledgers = ledgers_of(phase)
    return EarlyLimits(plan, limits, ledgers).add if ledgers else lambda _: None


def _sentence(ledger: TaskLedger) -> str:
    """What a stage did, in one line."""
    from preprocessing.pipeline.status import counts_of

    whole = ledger.total()
    parts = [f"{whole.kept.documents:,} documents, {whole.kept.words:,} words"]
    dropped = {reason: tally.documents for reason, tally in whole.dropped.items()}
    if dropped:
        parts.append(f"{sum(dropped.values()):,} dropped ({counts_of(dropped, _WHY)})")
    if whole.quarantined:
        parts.append(f"{sum(whole.quarantined.values()):,} set aside ({counts_of(whole.quarantined, _WHY)})")
    if ledger.changed:
        parts.append(f"changed {counts_of(ledger.changed, _WHY)}")
    return ", ".join(parts)


def _page_so_far(corpus: Corpus) -> None:
    """The report of a run that stops for its input: what was read, and what is wrong with it."""
    from preprocessing.pipeline.report import write_report

    with suppress(UserError):  # of the two the first is to be told
        write_report(corpus, corpus.out / "report.html")


def _finish(corpus: Corpus, plan: Plan, steps: list[Step], console: Console) -> None:
    """Tokens and the report page, which is there also when no tokens could be written."""
    from preprocessing.pipeline.report import write_report

    page = corpus.out / "report.html"
    write_report(corpus, page)
    if corpus.file.tokenize:
        from preprocessing.pipeline.tokenize import tokenize_shards

        manifests, empty = tokenize_shards(corpus, plan, steps)
        for name, manifest in manifests.items():
            counts = f"{manifest.documents:,} documents, {manifest.tokens:,} tokens"
            console.print(f"{'tokenize':<16} {name}: {counts}", markup=False)
        for name in empty:
            console.print(
                f"note    nothing of source {name} is left: it has no tokens and no place in mixture.yaml", markup=False
            )
        write_report(corpus, page)
    else:
        from preprocessing.pipeline.status import older_token_lines

        for sentence in older_token_lines(corpus):
            console.print(f"note    tokens of {sentence}", markup=False)


def _submit(corpus: Corpus, site: Path, workers: int | None, console: Console) -> None:
    """Submit every phase that is not complete, each waiting for the one before."""
    from mecellem.site_file import read_site
    from mecellem.slurm_client import of_cpus
    from preprocessing.pipeline.executors import SlurmExecutor
    from preprocessing.pipeline.jobs import Job, write_jobs
    from preprocessing.pipeline.slurm import environment_of, last_phases

    settings = of_cpus(read_site(site))
    environment = environment_of(settings, site)
    _, steps, waiting = _planned(corpus, console)
    before: SlurmExecutor | None = None
    submitted: list[Job] = []
    read_by = dict(zip([stage.name for stage in steps[1:]], steps, strict=False)) if corpus.file.keep_shards == "last" else {}
    for stage in steps:
        if stage.name not in waiting:
            console.print(f"{stage.name:<16} done already", markup=False)
            continue
        frees = read_by[stage.name].folders if stage.name in read_by else None
        for phase in [*waiting[stage.name], *last_phases(stage, _limits(corpus), frees)]:
            name = f"{corpus.path.stem}_{stage.name}_{phase.name}"
            logs = stage.folders.logs(phase.name)
            executor = SlurmExecutor(phase, logs, name, settings, environment, before, workers or -1)
            executor.run()
            if executor.job_id == -1:  # all of its tasks are complete
                continue
            submitted.append(Job(job=executor.job_id, stage=stage.folders.root.name, phase=phase.name, digest=stage.digest))
            write_jobs(corpus.out, submitted)
            before = executor
            job = f"{phase.name}: {phase.tasks:,} tasks, Slurm job {executor.job_id}"
            console.print(f"{stage.name:<16} {job}", markup=False)
    console.print(
        f"wait for the jobs, watch them with `mecellem prepare status {corpus.path}`, then run the same command with",
        markup=False,
    )
    console.print("--executor local: it finds the stages done and writes tokens and the report", markup=False)


def main(argv: Sequence[str]) -> None:
    """Parse flags and run."""
    parse_and_call(run, argv, "mecellem prepare run")
