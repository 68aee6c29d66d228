"""Training on a real Slurm, two nodes: warned, killed, hanging, preempted, and back in the queue until done."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_cluster import Cluster, cluster
from training_runs import ROOT, Runner, losses, steps_done, validation_losses

from slurm.status import run_state

pytestmark = pytest.mark.slow
NODES, TASKS = 2, 1  # test_slurm_pipeline.py has two ranks a node
SPARE = 1  # a third node
STEPS = 60
LONGER = {"schedule.train-tokens": STEPS * 1024, "checkpoint-interval": 20, "validation-interval": 30}
SITE = """\
RUNTIME=venv
VENV={venv}
OFFLINE=1
NETWORK_INTERFACE=lo
MAX_RESTARTS=5
MAX_IDLE_RESTARTS={idle}
HANG_SECONDS={hang}
WATCH_SECONDS=2
CLIENT_SECONDS=5
MASTER_ADDR=127.0.0.1
"""


@pytest.fixture(scope="module")
def slurm():
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, cluster(Path(folder), NODES + SPARE) as running:
        yield running


@pytest.fixture(scope="module")
def whole(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without Slurm, undisturbed, on the same number of ranks."""
    run = tmp_path_factory.mktemp("whole") / "run"
    runner(run, nproc=NODES * TASKS, **LONGER)
    return run


class Job:
    """A submitted `pretrain.sbatch`."""

    def __init__(
        self, slurm: Cluster, runner: Runner, folder: Path, hang: int = 600, idle: int = 2, shell: str = "", **options: str
    ) -> None:
        """`shell`: lines that the site file has besides."""
        self.slurm, self.run, self.output = slurm, folder / "run", folder / "job.out"
        site = folder / "cluster.env"
        site.write_text(SITE.format(venv=Path(sys.executable).parents[1], hang=hang, idle=idle) + shell)
        flags = runner.command(self.run, **LONGER)
        flags = flags[flags.index(str(self.run)) + 1 :]
        size = [f"--nodes={NODES}", f"--ntasks-per-node={TASKS}", f"--gpus-per-node={TASKS}", "--cpus-per-task=1"]
        size += ["--time=20", "--signal=B:USR1@60"]
        size += [f"--{name}={value}" for name, value in options.items()]
        self.number = slurm.submit(
            *(*size, f"--output={self.output}", "slurm/pretrain.sbatch", "mursit_tiny", *flags),
            cwd=ROOT,
            env={"MECELLEM_SITE": str(site), "RUN": str(self.run), "OMP_NUM_THREADS": "1"},
        )

    def said(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def wait(self, condition: Callable[[], object], seconds: float = 200) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert (time.monotonic() < end and not self.ended()) or condition(), f"{self.state()}\n{self.said()}"
            time.sleep(0.2)

    def state(self) -> str:
        return self.slurm.job(self.number)["JobState"]

    def ended(self) -> bool:
        return self.state() in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

    def ranks(self) -> list[int]:
        """Process numbers of the ranks that run now, in their order."""
        return [int(path.read_text().split()[3]) for path in sorted((self.run / "heartbeat").glob("rank_*"))]


def check_same(job: Job, whole: Path) -> None:
    """The job ended well, and its run is the undisturbed one, to the last bit."""
    assert job.state() == "COMPLETED", job.said()
    assert losses(job.run) == losses(whole) and len(losses(whole)) == STEPS
    assert validation_losses(job.run) == validation_losses(whole)
    assert (job.run / "finished.json").is_file()


def test_a_rank_that_freezes_is_found_and_its_node_left_out(slurm, runner, whole, tmp_path):
    job = Job(slurm, runner, tmp_path, hang=30)
    job.wait(lambda: steps_done(job.run) >= 25 and len(job.ranks()) == NODES * TASKS)
    os.kill(job.ranks()[1], signal.SIGSTOP)  # on the second node
    job.wait(lambda: "the run hangs" in job.said(), 120)
    job.wait(job.ended)
    assert "Thread 0x" in job.said()  # stacks
    assert "suspected: n2" in job.said() and slurm.job(job.number)["ExcNodeList"] == "n2"
    assert slurm.job(job.number)["NodeList"] == "n[1,3]"
    check_same(job, whole)


def test_a_node_that_dies_is_replaced(slurm, runner, whole, tmp_path):
    job = Job(slurm, runner, tmp_path, idle=4)
    job.wait(lambda: steps_done(job.run) >= 25)
    slurm.lose_node("n2")
    try:
        job.wait(job.ended, 300)
    finally:
        slurm.start_node("n2")
    assert slurm.job(job.number)["NodeList"] == "n[1,3]" and "resumed at step 20 of 60" in job.said()
    check_same(job, whole)


def test_a_preempted_job_saves_and_comes_back(slurm, runner, whole, tmp_path):
    job = Job(slurm, runner, tmp_path, partition="low")
    job.wait(lambda: steps_done(job.run) >= 3)
    words = ["--nodes=3", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 1"]
    urgent = slurm.submit("--partition=cpu", *words, cwd=tmp_path, env={})
    job.wait(job.ended)
    assert slurm.job(urgent)["JobState"] == "COMPLETED" and slurm.job(job.number)["Restarts"] != "0"
    assert "turn 0 of job" in job.said() and "resumed at step" in job.said()  # within the grace time: nothing was lost
    check_same(job, whole)


def test_a_time_limit_is_warned_of_and_costs_nothing(slurm, runner, whole, tmp_path):
    job = Job(slurm, runner, tmp_path)
    job.wait(lambda: steps_done(job.run) >= 3 and len(job.ranks()) == NODES * TASKS)
    slow = job.ranks()[1]
    os.kill(slow, signal.SIGSTOP)  # Slurm looks at time limits every half minute, by when the run would be done
    slurm.ask("scontrol", "update", f"JobId={job.number}", "TimeLimit=1")  # within the 60 s of --signal
    job.wait(lambda: "signal USR1" in job.said(), 100)
    slurm.ask("scontrol", "update", f"JobId={job.number}", "TimeLimit=20")
    os.kill(slow, signal.SIGCONT)
    job.wait(job.ended)
    assert slurm.job(job.number)["Restarts"] == "1"
    assert "signal USR1: the run saves and leaves" in job.said() and "resumed at step" in job.said()
    check_same(job, whole)
    records = sorted(path.name for path in (job.run / "jobs").iterdir() if path.is_dir())
    assert records == [f"{job.number}_0", f"{job.number}_1"]
    state = run_state(job.run)
    assert (state.step, state.finished, state.job, state.restarts) == (STEPS, True, job.number, 1)
    assert state.state == "COMPLETED"
    assert (job.run / "jobs" / records[0] / "nodes.txt").read_text().split() == ["n1", "n2"]


def test_a_rank_that_dies_costs_the_steps_since_the_last_checkpoint_though_the_controller_is_away(
    slurm, runner, whole, tmp_path
):
    job = Job(slurm, runner, tmp_path)
    job.wait(lambda: steps_done(job.run) >= 25 and len(job.ranks()) == NODES * TASKS)
    slurm.lose_controller()
    os.kill(job.ranks()[1], signal.SIGKILL)
    end = time.monotonic() + 150
    while "scontrol requeue failed" not in job.said():
        assert time.monotonic() < end, job.said()
        time.sleep(0.5)
    slurm.start_controller()
    job.wait(job.ended, 300)
    assert "resumed at step 20 of 60" in job.said()
    check_same(job, whole)


def test_a_full_disk_is_told_once_and_the_same_command_goes_on(slurm, runner, whole, tmp_path):
    job = Job(slurm, runner, tmp_path, shell="ulimit -f 700  # 700 kB a file, which Slurm hands on to the ranks\n")
    job.wait(job.ended)
    assert job.state() == "FAILED" and slurm.job(job.number)["Restarts"] == "0", job.said()
    assert "the job is not put back into the queue" in job.said() and "Traceback" not in job.said()
    assert not list((job.run / "checkpoints").glob("step_*"))
    again = Job(slurm, runner, tmp_path)
    again.wait(again.ended)
    check_same(again, whole)


def test_bad_input_is_not_tried_again(slurm, runner, tmp_path):
    broken = Runner(tmp_path / "nowhere")
    job = Job(slurm, broken, tmp_path)
    job.wait(job.ended, 90)
    assert job.state() == "FAILED" and slurm.job(job.number)["Restarts"] == "0"
    assert "the job is not put back into the queue" in job.said() and "Traceback" not in job.said()
    assert job.said().count("tokenizer.json is missing") == 2  # by the rank that found it first, and by the job
