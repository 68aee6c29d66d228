"""`slurm/common.sh` at the start of a job: keys of the site file, modules, and records without secrets. Needs no Slurm."""

import os
import stat
import subprocess

import pytest
from training_runs import ROOT

SITE = {"RUNTIME": "modules", "MODULES": '""', "VENV": "", "MAX_RESTARTS": "5", "MAX_IDLE_RESTARTS": "2", "HANG_SECONDS": "900"}
# on its `purge` this one takes srun along, as where Slurm itself is a module
PROFILE = """\
module() { if [ "$1" = purge ]; then PATH=$MODULESHOME/tools; else [ "$2" != absent ] && echo "loaded $2 $UNSET_HERE"; fi; }
"""


def bash(folder, script, site, **env):
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    job = "printf '   Command=/x/job.sbatch --api-key qwerty\\n   StdOut=/x/out\\n'"
    answers = {"scontrol": f'[ "$2" != hostnames ] || {{ echo n1; exit; }}; {job}', "srun": "true"}
    for name, text in answers.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    (folder / "cluster.env").write_text("".join(f"{key}={value}\n" for key, value in site.items()))
    known = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": os.environ["HOME"], "MECELLEM_SITE": str(folder / "cluster.env")}
    known |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "MODULESHOME": str(folder)}
    words = ["bash", "-c", f"set -e; . slurm/common.sh; {script}"]
    return subprocess.run(words, env=known | env, cwd=ROOT, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"MAX_RESTARTS": None}, "MAX_RESTARTS is not set"),
        ({"HANG_SECONDS": None}, "HANG_SECONDS is not set"),
        ({"HANG_SECONDS": "15m"}, "HANG_SECONDS=15m: a whole number is needed"),
        ({"RUNTIME": None}, "RUNTIME is not set"),
        ({"RUNTIME": "venv"}, "VENV is not set"),
        ({"RUNTIME": "apptainer"}, "IMAGE is not set"),
        ({"RUNTIME": "docker"}, "RUNTIME=docker: one of venv, modules, apptainer, pyxis is needed"),
    ],
    ids=lambda value: value.split(" ")[0] if isinstance(value, str) else "",
)
def test_a_key_that_is_missing_is_told_before_any_work(tmp_path, change, sentence):
    site = {key: value for key, value in (SITE | change).items() if value is not None}
    done = bash(tmp_path, ". slurm/restarts.sh; echo began", site)
    assert done.returncode == 2 and "began" not in done.stdout
    assert done.stderr.startswith(f"mecellem: {tmp_path}/cluster.env: {sentence}") and done.stderr.count("\n") == 1


def test_an_unknown_key_is_told_with_its_line_also_by_plain_sbatch(tmp_path):
    for number, line in enumerate(["NETWORK_INTERFCE=ib0", "cluster='mine'  # or ours", 'MY_DIR="$HOME/a b"'], 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = bash(folder, "echo began", {f"# comment\n\n{line}\nRUNTIME": "modules"})
        assert done.returncode == 2 and "began" not in done.stdout and done.stderr.count("\n") == 1
        key = line.partition("=")[0]
        assert done.stderr.startswith(f"mecellem: {folder}/cluster.env, line 3: unknown key `{key}`: slurm/sites/generic")


def test_a_line_that_is_the_shells_own_is_no_key(tmp_path):
    lines = [
        "export MINE=1",
        "LC_ALL=C date >/dev/null",
        "SUM=$(( 1 + 2 )) true",
        "[ -n x ] && y=2",
        "MAIL_USER=a  # b",
        "  z=3",
    ]
    done = bash(tmp_path, "echo $MINE $y", {"\n".join([*lines, "RUNTIME"]): "modules"})
    assert (done.returncode, done.stdout) == (0, "1 2\n"), done.stderr


def test_an_environment_without_our_command_is_told_before_any_work(tmp_path):
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").write_text(f"PATH={tmp_path}/venv/bin:$PATH\n")
    site = SITE | {"RUNTIME": "venv", "VENV": f"{tmp_path}/venv"}
    done = bash(tmp_path, "echo began", site)
    sentence = f"mecellem: {tmp_path}/cluster.env: VENV={tmp_path}/venv has no `mecellem`: install it there (pip install .)\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)
    (tmp_path / "venv" / "bin" / "mecellem").touch(0o755)
    assert bash(tmp_path, "echo began", site).stdout == "began\n"


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        ("apptainer", "singularity exec --nv --bind /scratch --pwd {root} my.sif"),  # no apptainer is there
        ("pyxis", "--container-image=my.sif --container-mounts={root},/scratch --container-workdir={root}"),
    ],
)
def test_a_container_stands_in_front_of_commands(tmp_path, runtime, words):
    site = SITE | {"RUNTIME": runtime, "IMAGE": "my.sif", "MOUNTS": "/scratch"}
    done = bash(tmp_path, 'echo "${ALL_TASKS[*]}"', site)
    assert done.stdout == f"srun --kill-on-bad-exit=1 {words.format(root=ROOT)}\n", done.stderr


@pytest.mark.parametrize("there", [True, False])
def test_select_leaves_the_records_of_training_alone_and_nothing_where_there_is_no_run(tmp_path, there):
    run = tmp_path / "run"
    if there:
        run.mkdir()
        (run / "run.yaml").touch()
    done = bash(tmp_path, f'set -- "{run}" --budget 0; . slurm/select.sbatch', SITE)
    if there:
        assert done.returncode == 0, done.stderr
        assert (run / "evaluation" / "jobs" / "7_0" / "command.txt").exists() and not (run / "jobs").exists()
    else:
        assert done.returncode == 2 and done.stderr.startswith(f"mecellem: {run} is no run: give") and not run.exists()


def test_numbers_with_leading_zeros_are_decimal(tmp_path):
    done = bash(
        tmp_path,
        ". slurm/restarts.sh; echo $((HANG_SECONDS / 2)) $MAX_RESTARTS",
        SITE | {"HANG_SECONDS": "0900", "MAX_RESTARTS": "010"},
    )
    assert (done.returncode, done.stdout) == (0, "450 10\n"), done.stderr


def test_modules_are_found_where_batch_shells_know_none_and_srun_stays(tmp_path):
    (tmp_path / "init").mkdir()
    (tmp_path / "init" / "bash").write_text(PROFILE)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "head").symlink_to("/usr/bin/head")
    done = bash(tmp_path, "command -v srun; set -o", SITE | {"MODULES": '"cuda/12.8"'})
    assert done.returncode == 0, done.stderr
    assert "loaded cuda/12.8" in done.stdout and f"{tmp_path}/bin/srun" in done.stdout
    assert all(f"{name:15}\ton" in done.stdout for name in ("errexit", "nounset", "pipefail"))


def test_a_module_that_does_not_load_ends_the_job(tmp_path):
    (tmp_path / "init").mkdir()
    (tmp_path / "init" / "bash").write_text(PROFILE)
    done = bash(tmp_path, "echo began", SITE | {"MODULES": '"absent"'})
    assert done.returncode == 2 and "`module load absent` failed" in done.stderr and "began" not in done.stdout


def test_a_job_of_a_pipeline_says_where_its_output_is_before_anything_can_fail(tmp_path):
    (tmp_path / "outputs").mkdir()
    script, output = f'exec 2>"{tmp_path}/my job.out"; SITE= MECELLEM_SITE=/nowhere; . slurm/common.sh', tmp_path / "my job.out"
    done = bash(tmp_path, script, SITE, MECELLEM_OUTPUTS=str(tmp_path / "outputs"))
    assert done.returncode == 2 and "/nowhere is missing" in output.read_text()
    assert (tmp_path / "outputs" / "7.0").read_text() == f"{output}\n"


def test_records_hold_no_secrets(tmp_path):
    secrets = {"HF_TOKEN": "qwerty", "WANDB_API_KEY": "qwerty", "pem_secret": "a\nqwerty", "PROXY": "http://me:qwerty@host:1"}
    words = "mecellem train r --hub-token qwerty --api.key=qwerty PASSWORD=qwerty --data.tokenizer T --schedule.train-tokens 9"
    done = bash(tmp_path, f'record_job "{tmp_path}/run" {words}', SITE, **secrets, PLAIN="kept")
    assert done.returncode == 0, done.stderr
    record = tmp_path / "run" / "jobs" / "7_0"
    assert not [path.name for path in record.iterdir() if "qwerty" in path.read_text()]
    assert "PLAIN=kept\n" in (record / "environment.txt").read_text()
    assert stat.S_IMODE((record / "environment.txt").stat().st_mode) == 0o600
    assert "--data.tokenizer T --schedule.train-tokens 9" in (record / "command.txt").read_text()
    assert (record / "job.txt").read_text().splitlines() == ["   Command=/x/job.sbatch", "   StdOut=/x/out"]
