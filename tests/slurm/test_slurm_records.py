"""What `slurm/common.sh` keeps of a job, where a cluster has accounting and where it has none."""

import os
import subprocess

import pytest
from training_runs import ROOT

SITE = 'PARTITION=cpu\nTIME=00:05:00\nRUNTIME=modules\nMODULES=""\nVENV=/nowhere\nOFFLINE=1\n'
TOLD = "JobID|ConsumedEnergyRaw\n7.0|81234\n"


@pytest.mark.parametrize("accounting", [True, False])
def test_the_end_of_a_job_is_recorded_with_its_energy(tmp_path, accounting):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {
        "scontrol": "echo n1",
        "sacct": f"printf '{TOLD}'" if accounting else "echo 'accounting storage is disabled' >&2; exit 1",
    }.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "cluster.env").write_text(SITE)
    env = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "MECELLEM_SITE": str(tmp_path / "cluster.env"),
        "MECELLEM_DONE": str(tmp_path / "done"),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n1",
    }
    script = f'. slurm/common.sh; record_job "{tmp_path}/run" mecellem train "a b"'
    done = subprocess.run(["bash", "-c", script], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    record = tmp_path / "run" / "jobs" / "7_0"
    assert "mecellem train a\\ b" in (record / "command.txt").read_text()
    assert (record / "nodes.txt").read_text() == "n1\n"
    assert (record / "accounting.txt").exists() == accounting
    if accounting:
        assert (record / "accounting.txt").read_text() == TOLD
    assert (tmp_path / "done.0").exists()
