"""The shell files of slurm/: clean, and short enough to be edited by hand."""

import os
import re
import shutil
import subprocess

import pytest
from training_runs import ROOT

FILES = sorted([*ROOT.glob("slurm/*.sbatch"), *ROOT.glob("slurm/*.sh"), *ROOT.glob("slurm/sites/*.env")])
JOBS = [path for path in FILES if path.suffix == ".sbatch"]


def test_shellcheck_finds_nothing():
    if not shutil.which("shellcheck"):
        assert "shellcheck" not in os.environ.get("MECELLEM_REQUIRE", ""), "apt-get install shellcheck"
        pytest.skip("no shellcheck: `apt-get install shellcheck`")
    done = subprocess.run(["shellcheck", "-x", *map(str, FILES)], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_a_job_can_be_edited_by_hand(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 80 and lines[0] == "#!/bin/bash" and lines[1].startswith("# sbatch ")
    options = [line for line in lines if line.startswith("#SBATCH")]
    assert any("--time=" in line for line in options) and any("--output=" in line for line in options)
    assert not any(re.search("--(account|partition|qos)", line) for line in options)  # those are the site's


def test_every_site_sets_what_jobs_use():
    used = set(re.findall(r"\$\{?([A-Z_]{3,})", "".join(path.read_text() for path in FILES if path.suffix != ".env")))
    for site in ROOT.glob("slurm/sites/*.env"):
        keys = set(re.findall(r"^([A-Z_]+)=", site.read_text(), re.MULTILINE))
        ours = {"RUNTIME", "VENV", "MODULES", "IMAGE", "MOUNTS", "OFFLINE", "NETWORK_INTERFACE", "HANG_SECONDS"}
        assert ours | {"MAX_RESTARTS", "MAX_IDLE_RESTARTS"} <= keys & used
        assert {"PARTITION", "TIME"} <= keys  # `mecellem prepare run --executor slurm` reads the same file
