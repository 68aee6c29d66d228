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
from slurm.status import stage_lines, status
from slurm.submit import jobs_folder, mark_of, output_record, ranges, submit

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
    assert (
        "sbatch --parsable --export=ALL --job-name=shards --partition=cpu --array=0-5%4" in first
        and "MECELLEM_ARRAY_SIZE=6" in first
    )
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
        ({"prtition": "x"}, r"unknown key `stages\[1\] \(join\)\.prtition`: the keys are name, job, arguments, options"),
        ({"after": ["train"]}, "'join' waits for 'train', which is no stage above it"),
        (
            {"options": {"dependency": "afterany:1"}},
            r"line 19: `stages\[1\] \(join\).options.dependency`: this is set by the pipeline",
        ),
        ({"job": "nowhere.sbatch"}, "nowhere.sbatch is missing"),
        ({"array": 0}, "greater than or equal to 1"),
        ({"at_once": 2}, "add `array`"),
        ({"name": "shards"}, "stands twice"),
        ({"name": "a b"}, "letters, digits"),
        (
            {"environment": {"X": False}},
            r"line \d+: `stages\[1\] \(join\).environment.X`: .* as booleans: put the word in quotes",
        ),
        ({"arguments": ["--x", True]}, "as booleans: put the word in quotes"),
        ({"options": {"exclusive": False}}, "is left out"),
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


def calls(folder, capsys, site, *stages):
    """What a dry run prints of stages that wait for nothing."""
    path = write(folder, *({**stage, "after": []} for stage in stages))
    (folder / "cluster.env").write_text(SITE.replace("PARTITION=cpu\n", site))
    submit(path, folder / "cluster.env", dry_run=True)
    return capsys.readouterr().out.splitlines()


GPU_SITE = "ACCOUNT=us\nPARTITION=gpu\nQOS=long\n"


def test_options_of_a_stage_stand_in_place_of_the_sites(tmp_path, capsys):
    one, two = stages(tmp_path)
    own = {"partition": "big", "qos": "short", "exclusive": True, "nodes": 1}
    first, second = calls(tmp_path, capsys, GPU_SITE, one | {"options": own}, two | {"options": {"account": "them"}})
    assert "--account=us --array" in first and " --exclusive --nodes=1 --partition=big --qos=short " in first
    assert "gpu" not in first and "long" not in first
    assert "--partition=gpu --qos=long --account=them" in second and "=us" not in second


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ("", "--partition=gpu --qos=long"),
        ("CPU_PARTITION=gpp\n", "--partition=gpp --qos=long"),
        ("CPU_PARTITION=gpp\nCPU_QOS=gp\n", "--partition=gpp --qos=gp"),
    ],
)
def test_a_stage_without_gpus_goes_where_the_site_has_such_jobs(tmp_path, capsys, more, shown):
    one, two = stages(tmp_path)
    first, second = calls(tmp_path, capsys, GPU_SITE + more, one | {"cpu": True}, two)
    assert f"--account=us {shown} --array" in first and "--partition=gpu --qos=long" in second


# Stands for sbatch: the number of a job is that of the call, which is kept
SBATCH = """\
#!/bin/bash
echo "$*" >>"$KEEPS"
wc -l <"$KEEPS"
"""


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """A file of what squeue shows; sbatch and squeue stand for Slurm's."""
    programs, shown = tmp_path / "bin", tmp_path / "queue"
    programs.mkdir()
    shown.touch()
    for name, text in (("sbatch", SBATCH), ("squeue", f"#!/bin/bash\ncat {shown}\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("KEEPS", str(tmp_path / "calls"))
    return shown


def test_a_dry_run_shows_jobs_that_the_real_call_would_find_under_way(tmp_path, capsys, queue):
    pipeline, site = write(tmp_path, *stages(tmp_path)), tmp_path / "cluster.env"
    submit(pipeline, site)
    queue.write_text("1\n")
    capsys.readouterr()
    submit(pipeline, site, dry_run=True)
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("under way: job 1") and "--dependency=afterok:1" in second
    assert len((tmp_path / "calls").read_text().splitlines()) == 2
    with pytest.raises(UserError, match="with older settings: let it end, or scancel 1"):
        submit(write(tmp_path, *stages(tmp_path, tasks=4)), site, dry_run=True)


def test_a_job_that_waits_for_one_that_failed_is_told_before_anything_is_submitted(tmp_path, queue):
    pipeline, site = write(tmp_path, *stages(tmp_path)), tmp_path / "cluster.env"
    submit(pipeline, site)
    queue.write_text("2\n")  # Slurm has not removed it yet
    with pytest.raises(UserError, match=r"job 2 \(join\) waits for an earlier job of shards that has ended without success"):
        submit(pipeline, site)
    assert len((tmp_path / "calls").read_text().splitlines()) == 2
    queue.write_text("")
    submit(pipeline, site)
    assert "--dependency=afterok:3" in (tmp_path / "calls").read_text().splitlines()[3]


def test_nothing_is_submitted_where_a_later_stage_is_under_way_with_older_settings(tmp_path, queue):
    pipeline, site = write(tmp_path, *stages(tmp_path)), tmp_path / "cluster.env"
    submit(pipeline, site)
    queue.write_text("2\n")
    with pytest.raises(UserError, match="job 2 does 'join' with older settings"):
        submit(write(tmp_path, *stages(tmp_path, tasks=4)), site)
    assert len((tmp_path / "calls").read_text().splitlines()) == 2


def test_status_shows_stages_with_their_jobs_and_tasks(tmp_path, capsys, queue):
    pipeline, site = write(tmp_path, *stages(tmp_path)), tmp_path / "cluster.env"
    assert [line[1:] for line in stage_lines(pipeline)] == [
        ("-", "not submitted", "0 of 6 done"),
        ("-", "not submitted", "0 of 1 done"),
    ]
    submit(pipeline, site)
    for task in range(2):
        mark_of(jobs_folder(pipeline), read_pipeline(pipeline)[0]).with_suffix(f".{task}").touch()
    queue.write_text("1 RUNNING None\n1 RUNNING None\n1 PENDING Resources\n2 PENDING Dependency\n7 RUNNING None\n")
    assert stage_lines(pipeline) == [
        ("shards", "1", "2 RUNNING, 1 PENDING (Resources)", "2 of 6 done"),
        ("join", "2", "PENDING (Dependency)", "0 of 1 done"),
    ]
    capsys.readouterr()
    status((pipeline,))
    assert "2 of 6 done" in capsys.readouterr().out
    queue.write_text("")
    assert {line[2] for line in stage_lines(pipeline)} == {"ended: submit goes on with what is left"}
    write(tmp_path, *stages(tmp_path, word="again"))
    assert stage_lines(pipeline)[1][2].endswith("with older settings")
    (tmp_path / "bin" / "squeue").write_text("#!/bin/bash\necho no controller >&2\nexit 1\n")
    assert stage_lines(pipeline)[0][1:] == (
        "1",
        "UNKNOWN (squeue --me --array --noheader --states=all '--format=%F %T %r': no controller)",
        "2 of 6 done",
    )


def test_status_shows_the_last_error_of_a_stage_that_failed(tmp_path, capsys, queue):
    pipeline = write(tmp_path, *stages(tmp_path))
    submit(pipeline, tmp_path / "cluster.env")
    for number, task in enumerate((2, 4)):  # of the others nothing is known
        output = tmp_path / f"my shards-{task}.out"
        output.write_text(f"step 1\nValueError: shard {task} is broken\nsrun: error: n1: task 0: Exited with exit code 1\n")
        os.utime(output, (1000 + number, 1000 + number))
        output_record(jobs_folder(pipeline), "1", task).write_text(f"{output}\n")
    queue.write_text("1 RUNNING None\n2 PENDING Dependency\n")
    capsys.readouterr()
    status((pipeline,))
    assert "broken" not in capsys.readouterr().out
    queue.write_text("1 RUNNING None\n1 FAILED NonZeroExitCode\n2 PENDING Dependency\n")
    status((pipeline,))
    told = f"shards ({tmp_path}/my shards-2.out): ValueError: shard 2 is broken"
    assert capsys.readouterr().out.splitlines()[-1] == told
    queue.write_text("")  # all is forgotten, but by Slurm's accounting
    sacct = tmp_path / "bin" / "sacct"
    sacct.write_text("#!/bin/bash\nprintf '1_0|COMPLETED\\n1_2|FAILED\\n2|CANCELLED by 0\\n'\n")
    sacct.chmod(0o755)
    assert [line[2] for line in stage_lines(pipeline)] == ["1 COMPLETED, 1 FAILED", "CANCELLED"]
    status((pipeline,))
    assert capsys.readouterr().out.splitlines()[-1] == told


@pytest.mark.slow
def test_a_task_that_fails_stops_what_follows_and_is_done_again_alone(tmp_path, capsys, monkeypatch):
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, cluster(Path(folder)) as slurm:
        monkeypatch.chdir(ROOT)
        pipeline, site = write(tmp_path, *stages(tmp_path)), tmp_path / "cluster.env"
        (tmp_path / "log.break_shards_3").touch()
        submit(pipeline, site)
        slurm.wait_for_jobs(90)
        number = stage_lines(pipeline)[0][1]
        assert output_record(jobs_folder(pipeline), number, 3).read_text() == f"{tmp_path}/shards-{number}_3.out\n"
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
        one, two = stages(tmp_path)
        own = {"options": two["options"] | {"exclusive": True}, "cpu": True}
        pipeline, site = write(tmp_path, one, two | own), tmp_path / "cluster.env"
        site.write_text(SITE + "CPU_PARTITION=low\n")
        submit(pipeline, site)
        (_, first, waiting, none), (_, second, *_) = stage_lines(pipeline)
        assert waiting.startswith("6 PENDING (") and none == "0 of 6 done"
        assert [slurm.job(number)["Partition"] for number in (first, second)] == ["cpu", "low"]
        assert slurm.job(second)["OverSubscribe"] == "NO" and slurm.job(first)["OverSubscribe"] == "OK"  # exclusive
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
    assert len(shown.splitlines()) == 7 and "--account=my_project --partition=gpu" in shown and "--array=0-7" in shown
    assert "'--dependency=afterok:<choose>' --kill-on-invalid-dep=yes slurm/convert.sbatch export runs/mursit_base" in shown
