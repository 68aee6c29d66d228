"""Restarts without training: ranks that only give signs of life, under the real common.sh and restarts.sh on a real Slurm.

All jobs are submitted at once, as most of their time is Slurm's pause before a job that was put back starts again.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from slurm_cluster import Cluster, cluster
from training_runs import ROOT

from megatron_recipes.engine.parallel import TIMEOUT

pytestmark = pytest.mark.slow
NODES = 4
WATCH_SECONDS = 30  # restarts.sh looks so often, where no test says otherwise
SITE = """\
RUNTIME=modules
MODULES=""
VENV=
MAX_RESTARTS=5
MAX_IDLE_RESTARTS=1
HANG_SECONDS={hang}
WATCH_SECONDS=1
CLIENT_SECONDS=5
MASTER_ADDR=127.0.0.1
"""
JOB = """\
#!/bin/bash
. slurm/common.sh
. slurm/restarts.sh
{override}
train_until_finished "$RUN" {python} -S {trainer}
"""
# what the ranks do in their first turn, second turn, ...: $PLAN
TRAINER = """\
import os, signal, sys, time
run, rank, node = os.environ["RUN"], int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NODEID"])
plan, turn = os.environ["PLAN"].split(), int(os.environ.get("SLURM_RESTART_COUNT", 0))
what, _, where = plan[min(turn, len(plan) - 1)].partition("@")
mine = not where or int(where) == node
stopped = []
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: stopped.append(number))
signal.signal(signal.SIGUSR2, lambda number, frame: print("stacks of rank", rank, file=sys.stderr, flush=True))

def beat():
    os.makedirs(run + "/heartbeat", exist_ok=True)
    with open(run + "/heartbeat/rank_%05d" % rank, "w") as handle:
        handle.write("3 %d %s %d\\n" % (begun, os.environ["SLURMD_NODENAME"], os.getpid()))

def save():
    os.makedirs(run + "/checkpoints/step_%07d" % (turn + 1), exist_ok=True)

begun = started = time.time()
if what == "finish":
    open(run + "/finished.json", "w").close()
elif what == "die":
    sys.exit(1)
elif what == "refuse":
    save()
    open(os.environ["MECELLEM_REFUSAL"], "w").write("torch sees no GPU")
    sys.exit(2)
elif what == "leave":  # its last step is done, and the end of the process takes a while
    while time.time() - started < 6:
        beat()
        time.sleep(0.2)
        begun = time.time()
    os.remove(run + "/heartbeat/rank_%05d" % rank)
    time.sleep(3)
    open(run + "/finished.json", "w").close()
elif what == "train":
    while not stopped:
        beat()
        time.sleep(0.2)
    save()
while what in ("stall", "absent"):  # whatever the signal: frozen ranks beat once, absent ones never, the others go on
    if not mine or (what == "stall" and time.time() - begun < 0.5):
        beat()
    time.sleep(0.2)
"""


class Job:
    """A job of two nodes of one rank each, in a folder of its own."""

    def __init__(
        self, slurm: Cluster, folder: Path, name: str, plan: str, hang: int = 600, override: str = "", *options: str
    ) -> None:
        """`plan`: what the ranks do in each turn; `override`: lines of shell behind those that the job sources."""
        self.slurm, self.run, self.output = slurm, folder / name.partition("-")[0], folder / f"{name}.out"
        (folder / "trainer.py").write_text(TRAINER)
        site, script = folder / f"{name}.env", folder / f"{name}.sbatch"
        site.write_text(SITE.format(hang=hang))
        script.write_text(JOB.format(override=override, python=sys.executable, trainer=folder / "trainer.py"))
        words = ["--nodes=2", "--ntasks-per-node=1", "--requeue", "--open-mode=append", "--time=10", f"--output={self.output}"]
        env = {"MECELLEM_SITE": str(site), "RUN": str(self.run), "PLAN": plan, "HF_TOKEN": "hf_hidden"}
        self.number = slurm.submit(*words, *options, script, cwd=ROOT, env=env)

    def said(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def fields(self) -> dict[str, str]:
        return self.slurm.job(self.number)

    def ended(self) -> bool:
        return self.fields()["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

    def beats(self) -> bool:
        return len(list((self.run / "heartbeat").glob("rank_*"))) == 2

    def wait(self, condition: Callable[[], object], seconds: float = 180) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert (time.monotonic() < end and not self.ended()) or condition(), f"{self.fields()}\n{self.said()}"
            time.sleep(0.2)

    def end(self) -> tuple[str, str]:
        """Its state and restarts, once it has ended."""
        self.wait(self.ended)
        fields = self.fields()
        return fields["JobState"], fields["Restarts"]

    def nodes(self, turn: int) -> list[str]:
        return (self.run / "jobs" / f"{self.number}_{turn}" / "nodes.txt").read_text().split()


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, cluster(Path(folder), NODES) as running:
        yield running


@pytest.fixture(scope="module")
def jobs(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    folder = tmp_path_factory.mktemp("restarts")
    # in the end time of the job a minute is the smallest unit: the real time left is printed, a shorter one is used
    soon = 'echo "left: $(seconds_left)"; limit=$(($(date +%s) + 12)); seconds_left() { echo $((limit - $(date +%s))); }'
    plain = {
        "cancelled": "train",
        "preempted": "train finish",
        "stalled": "stall finish",
        "nobody": "absent finish",
        "missing": "absent@1 finish",
        "refused": "refuse finish",
        "idle": "die",
        "first": "train",
    }
    hang = {name: 600 if "train" in plan else 4 for name, plan in plain.items()}
    found = {name: Job(slurm, folder, name, plan, hang[name]) for name, plan in plain.items()}
    found["excluded"] = Job(slurm, folder, "excluded", "stall@1 finish", 4, "", "--exclude=n4")
    found["cramped"] = Job(slurm, folder, "cramped", "stall@1 finish", 4, "", "--exclude=n3,n4")
    found["array"] = Job(slurm, folder, "array", "stall@1 finish", 4, "", "--array=3")
    found["unheard"] = Job(slurm, folder, "unheard", "die train finish", 600, "", "--output=/dev/full")
    found["leaving"] = Job(slurm, folder, "leaving", "leave", 4)
    found["cheap"] = Job(slurm, folder, "cheap", "train finish", 600, "", "--partition=cheap", "--gpus-per-node=2")
    found["limited"] = Job(slurm, folder, "limited", "train finish", 600, "", "--time=1")
    finds, waits = f"[ -f {found['refused'].run}/finished.json ] || exit 1", f"--dependency=afterok:{found['refused'].number}"
    found["follower"] = Job(slurm, folder, "follower", "finish", 600, finds, waits, "--kill-on-invalid-dep=yes")
    found["forbidden"] = Job(slurm, folder, "forbidden", "die", 4, "", "--no-requeue")
    found["warned"] = Job(slurm, folder, "warned", "stall@1 finish", 600, soon)
    return found


def test_a_cancelled_job_saves_and_does_not_come_back(jobs):
    job = jobs["cancelled"]
    job.wait(job.beats)
    job.slurm.ask("scancel", job.number)
    assert job.end() == ("CANCELLED", "0")
    assert "the job was cancelled: it is not put back" in job.said() and (job.run / "checkpoints" / "step_0000001").is_dir()


def test_a_job_that_slurm_puts_back_itself_comes_back_once(jobs):
    job = jobs["preempted"]
    job.wait(job.beats)
    job.slurm.ask("scontrol", "requeue", job.number)  # as preemption without a grace time does
    assert job.end() == ("COMPLETED", "1"), job.said()
    assert "is finished" in job.said() and "cancelled" not in job.said()


def test_what_waits_for_a_job_that_was_put_back_waits_for_its_last_turn(jobs):
    job, follower = jobs["refused"], jobs["follower"]
    assert job.end() == ("COMPLETED", "1"), job.said()
    assert follower.end() == ("COMPLETED", "0"), follower.said()


def test_a_job_that_reaches_its_time_limit_unwarned_comes_back(jobs):
    job = jobs["limited"]
    job.wait(job.ended, 240)
    assert job.end() == ("COMPLETED", "1"), job.said()
    assert "after signal TERM, newest checkpoint: step_0000001" in job.said()


def test_a_job_that_is_preempted_by_cancelling_comes_back(jobs, tmp_path):
    job = jobs["cheap"]
    job.wait(lambda: job.beats() or job.fields()["Restarts"] != "0")  # another test's job may have done it
    # only that job has GPUs, so nobody else is in the way
    words = ["--nodes=4", "--gpus-per-node=2", "--time=1", "--output=/dev/null", "--wrap=sleep 1"]
    job.slurm.submit("--partition=cpu", *words, cwd=tmp_path, env={})
    state, restarts = job.end()
    assert state == "COMPLETED" and int(restarts) >= 1, job.said()
    assert "after signal TERM, newest checkpoint: step_0000001" in job.said() and "cancelled:" not in job.said()


def test_an_output_on_a_full_disk_neither_ends_a_run_nor_keeps_signals_from_it(jobs):
    job = jobs["unheard"]
    job.wait(lambda: job.fields()["Restarts"] == "1" and job.beats())
    job.slurm.ask("scancel", "--batch", "--signal=USR1", job.number)
    assert job.end() == ("COMPLETED", "2")
    assert (job.run / "checkpoints" / "step_0000002").is_dir()


def test_ranks_that_are_about_to_leave_do_not_hang(jobs):
    job = jobs["leaving"]
    assert job.end() == ("COMPLETED", "0"), job.said()
    assert "hangs" not in job.said()


def test_no_more_nodes_are_left_out_than_the_job_can_do_without(jobs):
    job = jobs["cramped"]
    assert job.end() == ("COMPLETED", "1"), job.said()
    assert f"{job.nodes(0)[1]} is not excluded: the job needs 2 nodes, and the partition would have 1" in job.said()
    assert job.slurm.ask("scontrol", "show", "hostnames", job.fields()["ExcNodeList"]).split() == ["n3", "n4"]


def test_a_task_of_an_array_that_hangs_is_stopped_as_well(jobs):
    job = jobs["array"]
    assert job.end() == ("COMPLETED", "1"), job.said()
    assert job.fields()["ExcNodeList"] == job.nodes(0)[1]


def test_a_second_job_for_the_same_run_is_refused(jobs, slurm):
    first = jobs["first"]
    first.wait(first.beats)
    second = Job(slurm, first.output.parent, "first-again", "train")
    assert second.end() == ("FAILED", "0"), second.said()
    assert f"job {first.number} (RUNNING) trains {first.run} already, so job {second.number} ends here" in second.said()
    assert first.beats() and not (first.run / "jobs" / f"{second.number}_0").exists()
    slurm.ask("scancel", first.number)
    third = Job(slurm, first.output.parent, "first-later", "finish")  # the one that it finds leaves, or has left
    assert third.end() == ("COMPLETED", "0"), third.said()
    first.end()


def test_of_two_jobs_that_start_in_the_same_second_one_stays(slurm, tmp_path):
    both = [Job(slurm, tmp_path, f"twin-{number}", "train") for number in range(2)]
    end = time.monotonic() + 60
    while sum(job.ended() for job in both) < 1:
        assert time.monotonic() < end, "\n".join(job.said() for job in both)
        time.sleep(0.2)
    (stays,) = (job for job in both if not job.ended())
    stays.wait(stays.beats)
    slurm.ask("scancel", stays.number)
    assert "ends here" in next(job for job in both if job is not stays).said() and stays.end() == ("CANCELLED", "0")


def test_when_all_ranks_are_silent_no_node_is_left_out(jobs):
    job = jobs["stalled"]
    assert job.end() == ("COMPLETED", "1"), job.said()
    assert "the run hangs" in job.said() and "so none is excluded" in job.said() and job.said().count("stacks of rank") == 2
    assert job.fields()["ExcNodeList"] == "(null)"


def test_a_silent_node_is_left_out_beside_those_that_were_before(jobs):
    job = jobs["excluded"]
    assert job.end() == ("COMPLETED", "1"), job.said()
    bad = job.nodes(0)[1]
    assert f"suspected: {bad}\n" in job.said() and bad not in job.nodes(1) and "n4" not in job.nodes(1)
    left_out = job.slurm.ask("scontrol", "show", "hostnames", job.fields()["ExcNodeList"]).split()
    assert sorted(left_out) == sorted([bad, "n4"])


def test_a_node_whose_ranks_never_begin_is_left_out(jobs):
    job = jobs["missing"]
    assert job.end() == ("COMPLETED", "1"), job.said()
    assert job.fields()["ExcNodeList"] == job.nodes(0)[1]


def test_when_no_rank_begins_no_node_is_left_out(jobs):
    job = jobs["nobody"]
    assert job.end() == ("COMPLETED", "1"), job.said()
    assert "suspected: no node in particular, so none is excluded" in job.said() and job.fields()["ExcNodeList"] == "(null)"


def test_a_warned_run_that_does_not_leave_is_stopped_before_the_limit(jobs):
    job = jobs["warned"]
    job.wait(job.beats)
    job.slurm.ask("scancel", "--batch", "--signal=USR1", job.number)
    assert job.end() == ("COMPLETED", "1"), job.said()
    assert "the run was warned and has not left" in job.said() and "stacks of rank 0" in job.said()
    assert 500 < int(re.findall(r"left: (\d+)", job.said())[0]) <= 600


def test_a_job_that_may_not_be_put_back_ends_at_once(jobs):
    job = jobs["forbidden"]
    assert job.end() == ("FAILED", "0")
    assert job.said().count("scontrol requeue failed") == 1 and "submit the same command again" in job.said()
    assert "the controller does not answer" not in job.said()


def test_a_refusal_in_mid_run_is_tried_again(jobs):
    job = jobs["refused"]
    assert job.end() == ("COMPLETED", "1"), job.said()
    assert "tried again, as this run has trained before (MAX_IDLE_RESTARTS=1 times): torch sees no GPU" in job.said()


def test_a_run_that_saves_nothing_new_is_given_up(jobs):
    job = jobs["idle"]
    assert job.end() == ("FAILED", "2"), job.said()
    assert "2 restarts in a row saved nothing new" in job.said()


def test_the_watchdog_comes_before_the_process_groups_timeout():
    for site in sorted(ROOT.glob("slurm/sites/*.env")):
        hang = int(re.findall(r"^HANG_SECONDS=(\d+)", site.read_text(), re.MULTILINE)[0])
        # a rank may wait in a collective for HANG_SECONDS before the last one begins the step that hangs
        assert timedelta(seconds=2 * hang + WATCH_SECONDS) < TIMEOUT, site.name
    assert f"WATCH_SECONDS:-{WATCH_SECONDS}}}" in (ROOT / "slurm" / "restarts.sh").read_text()
