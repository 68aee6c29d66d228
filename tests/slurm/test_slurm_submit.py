"""`mecellem slurm submit`: what a pipeline.yaml becomes, and pipelines that break and go on, on a real Slurm."""

import os
import tempfile
from pathlib import Path

import pytest
import yaml
from slurm_cluster import cluster
from training_runs import ROOT

from mecellem.errors import UserError
from slurm.pipeline import read_pipeline
from slurm.submit import ranges, submit

SITE = """\
PARTITION=cpu
TIME=00:05:00
RUNTIME=modules
MODULES=""
VENV=/nowhere
OFFLINE=1
MASTER_ADDR=127.0.0.1
"""
JOB = """\
#!/bin/bash
#SBATCH --ntasks=1
. {root}/slurm/common.sh
task=${{SLURM_ARRAY_TASK_ID:-0}}
echo "$1 $task" >>"$LOG"
[ ! -f "$LOG.break_$1_$task" ]
"""


def write(folder, *stages):
    for name in ("shards", "join"):
        (folder / f"{name}.sbatch").write_text(JOB.format(root=ROOT))
    (folder / "cluster.env").write_text(SITE)
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump({"stages": list(stages)}))
    return path


def stages(folder, tasks=6, word="join"):
    options = {"output": f"{folder}/%x-%A_%a.out", "time": "00:02:00"}
    env = {"LOG": str(folder / "log")}
    one = {"name": "shards", "job": str(folder / "shards.sbatch"), "arguments": ["shards"], "array": tasks, "at_once": 4}
    two = {"name": "join", "job": str(folder / "join.sbatch"), "arguments": [word]}
    return [{**stage, "options": options, "environment": env} for stage in (one, two)]


def test_the_numbers_of_tasks():
    assert [ranges(numbers) for numbers in ([0], [0, 1, 2, 5], [3, 4, 9])] == ["0", "0-2,5", "3-4,9"]


def test_a_dry_run_prints_the_very_calls(tmp_path, capsys):
    submit(write(tmp_path, *stages(tmp_path)), tmp_path / "cluster.env", dry_run=True)
    first, second = capsys.readouterr().out.splitlines()
    assert "sbatch --parsable --job-name=shards --partition=cpu --array=0-5%4" in first and "MECELLEM_ARRAY_SIZE=6" in first
    assert "'--dependency=afterok:<shards>' --kill-on-invalid-dep=yes" in second and second.endswith("join.sbatch join")
    assert not (tmp_path / "pipeline.jobs").exists()


def test_an_array_longer_than_the_site_takes_is_refused_before_anything_is_submitted(tmp_path):
    pipeline = write(tmp_path, *stages(tmp_path, tasks=1001))
    site = tmp_path / "cluster.env"
    with pytest.raises(UserError, match=r"the stage shards: 1,001 jobs in one array, and the site takes 1,000 \(ARRAY_JOBS\)"):
        submit(pipeline, site)
    assert not (tmp_path / "pipeline.jobs").exists()
    site.write_text(f"{SITE}ARRAY_JOBS=2000\n")
    submit(pipeline, site, dry_run=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jobs": "x"}, r"line \d+: unknown key `stages\[1\] \(join\)\.jobs`: did you mean `job`"),
        ({"after": ["train"]}, "'join' waits for 'train', which is no stage above it"),
        ({"options": {"dependency": "afterany:1"}}, "the option dependency is set by the pipeline"),
        ({"job": "nowhere.sbatch"}, "nowhere.sbatch is missing"),
        ({"array": 0}, "greater than or equal to 1"),
        ({"at_once": 2}, "add `array`"),
        ({"name": "shards"}, "stands twice"),
        ({"name": "a b"}, "letters, digits"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_wrong_file_is_told_with_its_line(tmp_path, change, message):
    one, two = stages(tmp_path)
    with pytest.raises(UserError, match=message):
        read_pipeline(write(tmp_path, one, two | change))


def test_what_a_stage_does_is_what_decides_whether_it_is_done(tmp_path):
    first = read_pipeline(write(tmp_path, *stages(tmp_path)))
    hours = [stage | {"options": {"time": "09:00:00"}} for stage in stages(tmp_path)]
    assert read_pipeline(write(tmp_path, *hours)) != first
    assert [step.digest for step in read_pipeline(write(tmp_path, *hours))] == [step.digest for step in first]
    other = stages(tmp_path)
    other[0]["arguments"] = ["other"]
    assert not {step.digest for step in read_pipeline(write(tmp_path, *other))} & {step.digest for step in first}


@pytest.mark.slow
def test_a_task_that_fails_stops_what_follows_and_is_done_again_alone(tmp_path, capsys, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, cluster(Path(folder)) as slurm:
        monkeypatch.chdir(ROOT)
        pipeline, site = write(tmp_path, *stages(tmp_path)), tmp_path / "cluster.env"
        (tmp_path / "log.break_shards_3").touch()
        submit(pipeline, site)
        slurm.wait_for_jobs(90)
        assert sorted((tmp_path / "log").read_text().split("\n")[:-1]) == [f"shards {n}" for n in range(6)]  # and no join
        (tmp_path / "log.break_shards_3").unlink()
        (tmp_path / "log").unlink()
        capsys.readouterr()
        submit(pipeline, site)
        assert "tasks 3" in capsys.readouterr().out
        slurm.wait_for_jobs(90)
        assert (tmp_path / "log").read_text().splitlines() == ["shards 3", "join 0"]
        submit(pipeline, site)
        assert capsys.readouterr().out.count("done already") == 2
        submit(write(tmp_path, *stages(tmp_path, word="again")), site)  # the last stage changed
        slurm.wait_for_jobs(90)
        assert (tmp_path / "log").read_text().splitlines() == ["shards 3", "join 0", "again 0"]


@pytest.mark.slow
def test_jobs_under_way_are_not_submitted_twice(tmp_path, capsys, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, cluster(Path(folder), 1) as slurm:
        monkeypatch.chdir(ROOT)
        monkeypatch.setenv("SBATCH_BEGIN", "now+1hour")
        pipeline, site = write(tmp_path, *stages(tmp_path)), tmp_path / "cluster.env"
        submit(pipeline, site)
        submit(pipeline, site)
        assert capsys.readouterr().out.count("under way") == 2
        with pytest.raises(UserError, match="with older settings: let it end, or scancel"):
            submit(write(tmp_path, *stages(tmp_path, tasks=4)), site)
        slurm.ask("scancel", f"--user={os.getuid()}")


def test_without_slurm_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no program sbatch: run this on a login node"):
        submit(write(tmp_path, *stages(tmp_path)), tmp_path / "cluster.env")


def test_the_example_reads(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    submit(Path("slurm/pipelines/encoder.yaml"), Path("slurm/sites/generic_h100.env"), dry_run=True)
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 4 and "--account=my_project --partition=gpu" in shown and "--array=0-7" in shown
