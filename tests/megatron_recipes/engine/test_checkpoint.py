"""Checkpoints are whole or absent: on a full disk, under SIGKILL, and when somebody damages one afterwards."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from training_runs import Runner, checkpoint_names, losses, metrics, rank_pid, steps_done, wait_for

from mecellem.errors import UserError
from megatron_recipes.config import EncoderConfig
from megatron_recipes.engine import checkpoint
from megatron_recipes.engine.checkpoint import CheckpointMeta, newest_whole, read_meta

META = CheckpointMeta(
    step=3,
    tokens=3072,
    model=EncoderConfig(4, 64, 96, 4, 1000, 256),
    precision="fp32",
    tokenizer_sha256="0" * 64,
    layout={"tensor": 1, "pipeline": 1, "data": 1},
    versions={"torch": "2"},
    name="mursit_tiny",
)


def small_checkpoint(run: Path, step: int) -> Path:
    folder = checkpoint.step_folder(run, step)
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "__0_0.distcp").write_bytes(bytes(100))
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    (folder / "mecellem.json").write_text(META.to_json(checkpoint.file_sizes(folder)))
    return folder


def test_meta_comes_back(tmp_path: Path):
    assert read_meta(small_checkpoint(tmp_path, 3)) == META


def test_newest_whole_of_nothing(tmp_path: Path):
    assert newest_whole(tmp_path) == (None, [])


def test_newest_counts_steps_and_not_letters(tmp_path: Path):
    small_checkpoint(tmp_path, 3)
    newest = small_checkpoint(tmp_path, 10_000_000)
    small_checkpoint(tmp_path, 9_999_999)
    assert newest_whole(tmp_path) == (newest, [])


def cut(folder: Path):
    (folder / "__0_0.distcp").write_bytes(bytes(99))


def lose(folder: Path):
    (folder / "tokenizer" / "tokenizer.json").unlink()


def lose_meta(folder: Path):
    (folder / "mecellem.json").unlink()


def break_meta(folder: Path):
    (folder / "mecellem.json").write_text("{")


def strip_meta(folder: Path):
    values = json.loads((folder / "mecellem.json").read_text())
    del values["model"]
    (folder / "mecellem.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (cut, "__0_0.distcp has 99 bytes instead of 100"),
        (lose, "tokenizer/tokenizer.json is missing"),
        (lose_meta, "has no mecellem.json"),
        (break_meta, "cannot be read"),
        (strip_meta, "(model): the checkpoint is damaged"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_named(harm, sentence: str, tmp_path: Path):
    older, newer = small_checkpoint(tmp_path, 3), small_checkpoint(tmp_path, 6)
    harm(newer)
    found, faults = newest_whole(tmp_path)
    assert found == older
    assert len(faults) == 1 and sentence in faults[0] and str(newer) in faults[0]
    harm(older)
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
        newest_whole(tmp_path)


@pytest.mark.slow
def test_a_run_goes_on_from_the_newest_whole_checkpoint(runner: Runner, reference: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(reference, run)
    for step in (6, 3):
        file = max((run / "checkpoints" / f"step_{step:07d}").glob("*.distcp"), key=lambda path: path.stat().st_size)
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        if step == 6:
            output = runner(run)
            assert "skipped a damaged checkpoint" in output and file.name in output
            assert losses(run) == losses(reference)
            assert newest_whole(run) == (file.parent, [])  # written anew
            file.write_bytes(content[:-1])
    output = runner(run, code=2)
    assert f"every checkpoint in {run / 'checkpoints'} is damaged" in output
    assert losses(run) == losses(reference)  # nothing was started from scratch over it


def full_disk(output: str, run: Path) -> None:
    sentences = [line for line in output.splitlines() if line.startswith("mecellem: ")]
    assert len(sentences) == 1 and "the disk is full" in sentences[0] and "nothing half-written was left" in sentences[0]
    assert str(run) in sentences[0]


LIMIT = 200 << 10  # bytes: less than any of a checkpoint's large files


@pytest.mark.slow
def test_full_disk_leaves_older_checkpoints_and_nothing_else(runner: Runner, reference: Path, tmp_path: Path):
    run, layout = tmp_path / "run", {"parallel.tensor": 2}
    shutil.copytree(reference, run)
    shutil.rmtree(run / "checkpoints" / "step_0000006")  # as if it had been stopped at step 3
    full_disk(runner(run, code=2, prefix=["bash", "-c", f'ulimit -f {LIMIT >> 10}; exec "$@"', "bash"], **layout), run)
    assert checkpoint_names(run) == ["step_0000003"]
    runner(run, **layout)
    assert losses(run) == pytest.approx(losses(reference), rel=1e-5)
    assert checkpoint_names(run) == ["step_0000003", "step_0000006"]


@pytest.mark.slow
def test_full_disk_of_another_rank_than_0(runner: Runner, tmp_path: Path):
    run = tmp_path / "run"
    process = runner.start(run, **{"parallel.tensor": 2})
    wait_for(lambda: steps_done(run) >= 1, process)
    resource.prlimit(rank_pid(process.pid, 1), resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    full_disk(runner.finish(process, 2), run)
    assert checkpoint_names(run) == []


SMALL_DISK = """
mount -t tmpfs -o size=$1 none $2 || exit 77
shift; shift
exec "$@"
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a mount namespace")
def test_a_disk_that_is_really_full(runner: Runner, tmp_path: Path):
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, timeout=30).returncode != 0:
        pytest.skip("needs the right to make a mount namespace")
    disk = tmp_path / "disk"
    disk.mkdir()
    run = disk / "run"
    # one checkpoint is about 3.8 MB: the second does not fit, and what the first left is listed from inside
    line = f'"$@"; code=$?; echo CODE $code; ls -A {run}/checkpoints; cat {run}/checkpoints/latest; exit $code'
    prefix = ["unshare", "-m", "bash", "-c", SMALL_DISK, "bash", "6m", str(disk), "bash", "-c", line, "bash"]
    output = runner(run, code=2, prefix=prefix, nproc=2)
    report = output.split("CODE 2\n")
    full_disk(report[0], run)
    assert report[1].split() == ["latest", "step_0000003", "step_0000003"]


@pytest.mark.slow
def test_kill_9_while_checkpoints_are_written(runner: Runner, reference: Path, tmp_path: Path):
    run, seed = tmp_path / "run", 3
    process = runner.start(run, **{"checkpoint-interval": 1, "parallel.tensor": 2})
    wait_for(lambda: steps_done(run) >= seed, process)
    time.sleep(random.Random(seed).uniform(0.0, 0.6))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    newest, faults = newest_whole(run)
    assert not faults  # a folder with a checkpoint's name is always whole
    output = runner(run, **{"checkpoint-interval": 1, "parallel.tensor": 2})
    assert losses(run) == pytest.approx(losses(reference), rel=1e-5)
    assert [line["step"] for line in metrics(run) if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert checkpoint_names(run)[-1] == "step_0000006" and not list((run / "checkpoints").glob(".*")), output
    if newest is not None:
        assert newest.name in checkpoint_names(run)


@pytest.mark.slow
def test_saving_starts_no_process_that_outlives_it(runner: Runner, tmp_path: Path):
    """A helper process of the first save would be ended by Slurm's SIGTERM to all, and break the last save."""
    run = tmp_path / "run"
    process = runner.start(run, **{"schedule.train-tokens": 200 * 1024, "validation-interval": 1000})
    wait_for(lambda: steps_done(run) >= 5, process)  # past the save of step 3
    rank = rank_pid(process.pid, 0)
    commands = [
        Path(f"/proc/{child}/cmdline").read_bytes()
        for child in Path(f"/proc/{rank}/task/{rank}/children").read_text().split()
        if Path(f"/proc/{child}/cmdline").exists()
    ]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    assert not [line for line in commands if b"spawn" in line]
