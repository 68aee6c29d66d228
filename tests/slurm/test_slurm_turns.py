"""What `slurm/restarts.sh` does at the end of a turn that is not the last one. Needs no Slurm: other programs stand for it."""

import os
import subprocess

import pytest
from training_runs import ROOT

SITE = 'RUNTIME=modules\nMODULES=""\nMAX_RESTARTS=3\nMAX_IDLE_RESTARTS=9\nHANG_SECONDS=900\n'
# $FIELDS is what Slurm says of the job
SCONTROL = """\
case "$*" in
*hostnames*) echo n1 ;;
"--oneliner show job 7") echo "JobId=7 Restarts=$SLURM_RESTART_COUNT $FIELDS" ;;
requeue*) echo "$*" >>"$ASKED" ;;
esac
"""


def turn(folder, fields, restarts):
    """A turn of job 7 that trains nothing: exit code, what it said, and whether it asked to be put back."""
    (folder / "bin").mkdir()
    for name, text in {"scontrol": SCONTROL, "srun": "exit 1", "squeue": "exit 1"}.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "cluster.env").write_text(SITE)
    env = {"PATH": f"{folder}/bin:/usr/bin:/bin", "HOME": os.environ["HOME"], "MECELLEM_SITE": str(folder / "cluster.env")}
    env |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "SLURM_JOB_NUM_NODES": "1", "SLURM_RESTART_COUNT": str(restarts)}
    env |= {"FIELDS": fields, "ASKED": str(folder / "asked")}
    script = f'. slurm/common.sh; . slurm/restarts.sh; train_until_finished "{folder}/run" mecellem train'
    done = subprocess.run(["bash", "-c", script], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr, (folder / "asked").exists()


@pytest.mark.parametrize(("restarts", "put_back"), [(2, True), (3, False)])
def test_a_job_is_put_back_max_restarts_times(tmp_path, restarts, put_back):
    code, said, asked = turn(tmp_path, "JobState=RUNNING Reason=None", restarts)
    assert (code, asked) == ((0, True) if put_back else (1, False)), said
    assert ("3 restarts, MAX_RESTARTS=3: given up" in said) is not put_back


@pytest.mark.parametrize(
    ("fields", "put_back"),
    [
        ("JobState=COMPLETING Reason=TimeLimit", True),
        ("JobState=COMPLETING Reason=None", False),
        ("JobState=CANCELLED Reason=None", False),
        ("JobState=COMPLETING Reason=None PreemptTime=2026-01-01T09:00:00 StartTime=2026-01-01T08:00:00", True),
        ("JobState=COMPLETING Reason=None PreemptTime=2026-01-01T07:00:00 StartTime=2026-01-01T08:00:00", False),
    ],
)
def test_a_job_that_reaches_its_time_limit_comes_back_and_a_cancelled_one_does_not(tmp_path, fields, put_back):
    code, said, asked = turn(tmp_path, fields, 0)
    assert (code, asked) == ((0, True) if put_back else (1, False)), said
    assert ("the job was cancelled: it is not put back" in said) is not put_back


def test_a_run_that_is_warned_before_it_has_saved_anything_is_told_so(tmp_path):
    warned = tmp_path / "run" / "jobs" / "7_1" / "warned"
    warned.parent.mkdir(parents=True)
    warned.touch()
    (tmp_path / "run" / "jobs" / "last_start").write_text("none 9\n")
    code, said, asked = turn(tmp_path, "JobState=RUNNING Reason=None", 2)
    assert (code, asked) == (1, False) and "10 restarts in a row saved nothing new" in said
    assert "give --time more, or --signal=B:USR1@SECONDS less" in said
