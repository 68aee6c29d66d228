"""Ranks start, are told to stop, fail and die together."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_runs import ROOT, TIMEOUT, Runner, checkpoint_names, losses, rank_pid, steps_done, validation_losses, wait_for

from mecellem.errors import UserError
from megatron_recipes.engine import launch
from megatron_recipes.engine.checkpoint import newest_whole
from megatron_recipes.engine.launch import Rank, rank_from_environment, start_ranks

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
SRUN = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "16", "SLURM_LOCALID": "1", "SLURM_NTASKS": "16"}


def test_nobody_started_us():
    assert rank_from_environment({"PATH": "/bin"}) is None
    assert rank_from_environment({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}) is None  # in sbatch, outside any srun


def test_torchrun():
    assert rank_from_environment(TORCHRUN) == Rank(3, 8, 1, None)
    one_task_per_node = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}
    assert rank_from_environment(TORCHRUN | one_task_per_node) == Rank(3, 8, 1, None)


def test_srun():
    address = {"MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
    assert rank_from_environment(SRUN | address) == Rank(5, 16, 1, None)
    assert rank_from_environment({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}) is None  # `srun -n 1 mecellem train`
    for name in address:
        with pytest.raises(UserError, match=f"{name} is not set: under srun export MASTER_ADDR"):
            rank_from_environment({key: value for key, value in (SRUN | address).items() if key != name})


def python(code: str) -> list[str]:
    return [sys.executable, "-c", f"import os, sys, time, signal\nrank = int(os.environ['RANK'])\n{code}"]


def test_every_rank_gets_its_place(tmp_path: Path):
    code = f"open(f'{tmp_path}/{{rank}}', 'w').write(' '.join(os.environ[k] for k in ('WORLD_SIZE', 'LOCAL_RANK')))"
    assert start_ranks(python(code), 3) == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"0": "3 0", "1": "3 1", "2": "3 2"}


def test_a_user_error_of_all_ranks_is_printed_once(capfd):
    assert start_ranks(python("sys.stderr.write('mecellem: no such thing\\n'); sys.exit(2)"), 3) == 2
    assert capfd.readouterr().err == "mecellem: no such thing\n"


@pytest.mark.timeout(120)  # far less than the other ranks' sleep
def test_the_rank_that_knows_the_cause_speaks(capfd, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launch, "GRACE_SECONDS", 1.0)
    code = "time.sleep(600 * (rank != 1)); sys.stderr.write('mecellem: the disk is full\\n'); sys.exit(2)"
    assert start_ranks(python(code), 3) == 2
    assert capfd.readouterr().err == "mecellem: the disk is full\n"


def test_a_rank_that_fails_ends_the_others_with_its_code(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.5)
    assert start_ranks(python("time.sleep(60 * (rank != 1)); sys.exit(7)"), 2) == 7


def test_a_killed_rank_is_named(capfd, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.5)
    assert start_ranks(python("time.sleep(60 * (rank != 1)); os.kill(os.getpid(), signal.SIGKILL)"), 2) == 137
    assert "mecellem: rank 1 was killed by signal 9 (Killed) and the others were ended" in capfd.readouterr().err


def launcher(tmp_path: Path, body: str) -> subprocess.Popen:
    """Two ranks under a launcher of their own; each writes its pid to `tmp_path` when it is ready for `body`."""
    ready = f"path = f'{tmp_path}/{{rank}}'; open(path + '.tmp', 'w').write(str(os.getpid())); os.rename(path + '.tmp', path)"
    code = (
        "import sys; from megatron_recipes.engine.launch import start_ranks; "
        f"sys.exit(start_ranks({python(body.replace('READY', ready))!r}, 2))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: all((tmp_path / name).exists() for name in "01"), process, 30)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_reach_the_ranks(number: signal.Signals, tmp_path: Path):
    process = launcher(tmp_path, f"signal.signal({int(number)}, lambda *_: sys.exit(0))\nREADY\ntime.sleep(60)\nsys.exit(1)")
    process.send_signal(number)
    assert process.wait(timeout=20) == 0, process.stdout.read()


def test_ranks_die_with_their_launcher(tmp_path: Path):
    body = "from megatron_recipes.engine.launch import end_with_launcher\nend_with_launcher()\nREADY\ntime.sleep(60)"
    process = launcher(tmp_path, body)
    process.kill()
    process.wait(timeout=10)
    deadline = time.monotonic() + 10
    for name in "01":
        status = Path(f"/proc/{(tmp_path / name).read_text()}/status")
        while status.exists() and "zombie" not in status.read_text():
            assert time.monotonic() < deadline, "an orphan goes on"
            time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_wait_for_a_rank_that_only_starts(number: signal.Signals):
    """A signal before the rank can take it, in the second in which Python and torch are imported, is not lost."""
    body = (
        f"os.kill(os.getpid(), {int(number)})\n"  # would end this process
        "from megatron_recipes.engine.stop import stop_signals\n"
        "with stop_signals() as stop:\n    time.sleep(0.01)\n"
        "sys.exit(40 + stop.received)"
    )
    assert start_ranks(python(body), 1, hold_signals=True) == 40 + number
    assert start_ranks(python(body), 1) != 40 + number


def test_before_there_are_ranks_a_signal_leaves_with_0():
    code = (
        "import os, signal\nfrom megatron_recipes.engine.stop import leaving_at_once\n"
        "with leaving_at_once():\n    os.kill(os.getpid(), signal.SIGUSR1)\n    signal.pause()"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.slow
def test_a_signal_before_the_first_step_changes_nothing(runner: Runner, reference: Path, tmp_path: Path):
    run, layout = tmp_path / "run", {"parallel.tensor": 2}
    process = runner.start(run, **layout)
    wait_for(lambda: rank_pid(process.pid, 0), process)
    process.send_signal(signal.SIGUSR1)
    output = runner.finish(process)
    assert "stopped before the first of 6 steps: nothing to save" in output
    assert not (run / "checkpoints").exists() and not (run / "metrics.jsonl").exists()
    runner(run, **layout)
    assert losses(run) == pytest.approx(losses(reference), rel=1e-5)


LONG = {"schedule.train-tokens": 2000 * 1024, "checkpoint-interval": 2000, "validation-interval": 1000}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "group", "layout"),
    [
        (signal.SIGUSR1, False, {"parallel.tensor": 2}),  # sbatch --signal=B:USR1 with `kill -USR1` in the batch script
        (signal.SIGINT, True, {}),  # Ctrl-C reaches every process of the terminal
        (signal.SIGTERM, True, {"nproc": 2}),  # scancel and Slurm's time limit signal every process of the step
    ],
    ids=["USR1 to the launcher", "Ctrl-C", "TERM to all"],
)
def test_a_stop_signal_saves_and_leaves_with_0(number, group, layout, runner: Runner, tmp_path: Path):
    run = tmp_path / "run"
    process = runner.start(run, **LONG | {"checkpoint-interval": 2}, **layout)
    wait_for(lambda: (run / "checkpoints" / "latest").exists(), process)
    os.killpg(process.pid, number) if group else process.send_signal(number)
    output = runner.finish(process)
    done = max(losses(run))
    assert done < 2000 and f"stopped at step {done} of 2000" in output
    assert checkpoint_names(run)[-1] == f"step_{done:07d}"
    assert newest_whole(run) == (run / "checkpoints" / f"step_{done:07d}", [])
    assert (run / "checkpoints" / "latest").read_text() == f"step_{done:07d}\n"


@pytest.mark.slow
def test_kill_9_of_one_rank_ends_the_run(runner: Runner, tmp_path: Path):
    run = tmp_path / "run"
    process = runner.start(run, **LONG, **{"parallel.tensor": 2})
    wait_for(lambda: steps_done(run) >= 2, process)
    other = rank_pid(process.pid, 0)
    os.kill(rank_pid(process.pid, 1), signal.SIGKILL)
    output = runner.finish(process, 137)  # and not when the other rank gives up waiting for it, after half an hour
    assert "rank 1 was killed by signal 9" in output
    assert not Path(f"/proc/{other}").exists()


@pytest.mark.slow
def test_torchrun_trains_the_same(runner: Runner, reference: Path, tmp_path: Path):
    run = tmp_path / "run"
    arguments = runner.command(run, **{"parallel.tensor": 2})[1:]  # -m mecellem train ...
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, *arguments], capture_output=True, text=True, timeout=TIMEOUT, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert losses(run) == pytest.approx(losses(reference), rel=1e-5)
    assert validation_losses(run) == pytest.approx(validation_losses(reference), rel=1e-5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_the_tasks_of_srun_train_the_same(runner: Runner, reference: Path, tmp_path: Path):
    """What srun gives its tasks is their environment; here two processes get it without Slurm."""
    run = tmp_path / "run"
    shared = {"SLURM_STEP_NUM_TASKS": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    tasks = [
        runner.start(
            run,
            env={**shared, "SLURM_PROCID": str(task), "SLURM_LOCALID": str(task), "GLOO_SOCKET_IFNAME": "lo"},
            **{"parallel.tensor": 2},
        )
        for task in range(2)
    ]
    for task in tasks:
        runner.finish(task)
    assert losses(run) == pytest.approx(losses(reference), rel=1e-5)
    assert validation_losses(run) == pytest.approx(validation_losses(reference), rel=1e-5)
