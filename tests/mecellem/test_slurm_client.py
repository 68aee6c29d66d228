"""What Slurm's commands say, and sentences for those that say nothing."""

import os

import pytest

from mecellem.errors import UserError
from mecellem.slurm_client import accounted_states, ask, jobs_under_way, of_cpus, task_states, under_way


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Lets a program that stands for squeue, or another one, do what is given."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def does(shell, name="squeue"):
        (tmp_path / name).write_text(f"#!/bin/bash\n{shell}\n")
        (tmp_path / name).chmod(0o755)

    return does


def test_jobs_and_the_states_of_their_tasks(squeue):
    squeue("printf '7 RUNNING None\n7 PENDING Nodes are DOWN\n8 COMPLETED\n'")
    assert task_states() == {"7": ["RUNNING", "PENDING (Nodes are DOWN)"], "8": ["COMPLETED"]}
    squeue("printf '7\n7\n9\n'")
    assert jobs_under_way() == {"7", "9"} and under_way("9") and not under_way("8")
    squeue("")
    assert jobs_under_way() == set() and task_states() == {}


def test_states_of_jobs_that_the_queue_has_forgotten(squeue, monkeypatch):
    squeue("printf '7_0|COMPLETED\n7_1|FAILED\n8|CANCELLED by 0\n'; echo $* >&2", "sacct")
    assert accounted_states(["7", "8"]) == {"7": ["COMPLETED", "FAILED"], "8": ["CANCELLED"]}
    squeue("echo Slurm accounting storage is disabled >&2; exit 1", "sacct")
    assert accounted_states(["7"]) == {}
    monkeypatch.setattr("mecellem.slurm_client.ACCOUNTING_SECONDS", 0.2)
    squeue("exec sleep 30", "sacct")
    assert accounted_states(["7"]) == {}


def test_what_does_not_answer_is_told_in_a_sentence(squeue, monkeypatch):
    squeue("echo slurm_load_jobs error >&2; exit 1")
    with pytest.raises(UserError, match=r"^squeue --me: slurm_load_jobs error$"):
        ask("squeue", "--me")
    monkeypatch.setattr("mecellem.slurm_client.CLIENT_SECONDS", 0.2)
    squeue("exec sleep 30")
    with pytest.raises(UserError, match=r"squeue got no answer in 0\.2 s"):
        jobs_under_way()


@pytest.mark.parametrize(
    ("site", "found"),
    [
        ({"PARTITION": "gpu", "QOS": "a"}, ("gpu", "a")),
        ({"PARTITION": "gpu", "QOS": "a", "CPU_PARTITION": "cpu", "CPU_QOS": ""}, ("cpu", "a")),
        ({"PARTITION": "gpu", "CPU_QOS": "b"}, ("gpu", "b")),
    ],
    ids=["one of each", "partition", "qos"],
)
def test_what_a_site_says_of_jobs_without_gpus_stands_first(site, found):
    assert (of_cpus(site)["PARTITION"], of_cpus(site)["QOS"]) == found
