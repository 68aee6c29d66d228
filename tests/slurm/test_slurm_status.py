"""What `mecellem slurm status` says of runs: without Slurm, and where jobs have left something."""

import json
import time

import pytest
import yaml
from command_line import mecellem

from mecellem.errors import UserError
from slurm.status import find_runs, job_state, last_trouble, run_state, status, trouble_in


def write_run(folder, done=30, steps=100, finished=False):
    folder.mkdir(parents=True)
    record = {"config": {}, "origins": {}, "tokenizer_sha256": "0", "steps": steps}
    (folder / "run.yaml").write_text(yaml.safe_dump(record))
    lines = [{"step": n, "tokens": n * 10, "loss": 1.0, "seconds": 2.0, "tokens_per_second": 5.0} for n in range(1, done + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "checkpoints" / f"step_{done:07d}").mkdir(parents=True)
    if finished:
        (folder / "finished.json").write_text("{}")
    return folder


def test_progress_speed_and_time_left(tmp_path):
    state = run_state(write_run(tmp_path / "run"))
    assert (state.step, state.steps, state.tokens_per_second, state.left) == (30, 100, 5.0, 140.0)
    assert (state.checkpoint, state.job, state.state, state.finished) == ("step_0000030", None, "no job", False)


def test_the_newest_job_its_ranks_and_its_last_trouble(tmp_path):
    run = write_run(tmp_path / "run")
    for name in ("9_0", "10_0", "10_2", "old_stuff"):
        (run / "jobs" / name).mkdir(parents=True)
    output = tmp_path / "my jobs.out"
    output.write_text(
        "step 1\nsrun: error: n2: task 3: Killed\nmecellem: turn 1 of job 10 ended with code 137\n"
        "slurmstepd-n1: error: *** STEP 10.0 ON n1 CANCELLED AT 2026-11-23T08:45:40 ***\n"
        "slurmstepd-n1: error: *** JOB 10 ON n1 CANCELLED AT 2026-11-23T08:45:48 DUE TO JOB REQUEUE ***\nstep 2\n"
    )
    (run / "jobs" / "10_2" / "job.txt").write_text(f"JobId=10\n   StdIn=/dev/null\n   StdOut={output}\n   Power=\n")
    (run / "heartbeat").mkdir()
    for rank in range(2):
        (run / "heartbeat" / f"rank_{rank:05d}").write_text(f"31 {time.time():.0f} n1 {rank}\n")
    state = run_state(run)
    assert (state.job, state.restarts, state.ranks) == ("10", 2, 2)
    assert state.trouble == "srun: error: n2: task 3: Killed"
    assert state.state.startswith("UNKNOWN") and state.ranks_silent < 60


def test_a_job_that_slurm_has_forgotten_has_its_state_from_the_accounting_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name, text in {"squeue": "exit 1", "sacct": "echo '7|OUT_OF_MEMORY'"}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    assert job_state("7") == "OUT_OF_MEMORY"
    (tmp_path / "sacct").write_text("#!/bin/bash\nexit 1\n")
    assert job_state("7") == "UNKNOWN (Slurm has forgotten it)"


@pytest.mark.parametrize("why", ["TIME LIMIT", "PREEMPTION", "NODE FAILURE"])
def test_what_slurm_ended_a_job_for_is_its_trouble(tmp_path, why):
    output = tmp_path / "job.out"
    output.write_text(f"step 1\nslurmstepd: error: *** JOB 10 ON n1 CANCELLED AT 2026-11-23T08:45:48 DUE TO {why} ***\n")
    assert why in (trouble_in(output) or "")
    output.write_text("slurmstepd: error: *** JOB 10 ON n1 CANCELLED AT 2026-11-23T08:45:48 DUE TO JOB REQUEUE ***\n")
    assert trouble_in(output) is None


def test_an_output_that_is_gone_tells_of_no_trouble(tmp_path):
    (tmp_path / "job.txt").write_text("JobId=1\n   StdOut=/nowhere/job.out\n")
    assert last_trouble(tmp_path) is None


def test_runs_are_found_below_a_folder(tmp_path):
    runs = [write_run(tmp_path / name) for name in ("a", "b")]
    (tmp_path / "other").mkdir()
    assert find_runs([tmp_path]) == runs
    with pytest.raises(UserError, match="is no run and holds none"):
        find_runs([tmp_path / "other"])


def test_before_the_first_job_starts_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no run has begun, as there is no folder runs: `mecellem slurm status"):
        status()


def test_the_command_shows_a_line_a_run(tmp_path):
    write_run(tmp_path / "short", finished=True)
    write_run(tmp_path / "long", done=7)
    done = mecellem("slurm", "status", tmp_path, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "7 of 100" in done.stdout and "finished" in done.stdout
