import json
import os
import re
import stat
import subprocess

import pytest
from pipeline_runs import documents, jsonl_source, outputs, sentences, write_corpus, write_jsonl

from mecellem.errors import UserError
from mecellem.site_file import read_site
from preprocessing.pipeline.executors import SlurmExecutor
from preprocessing.pipeline.phases import Phase
from preprocessing.pipeline.run import run

SITE = """\
# our site
PARTITION=cpu
TIME=08:00:00
ACCOUNT="law_project"
MEM_PER_CPU_GB=3
MAX_RESTARTS=4
"""

# Keeps what it is given; with RUN_JOBS it also does what Slurm would: runs the array, one job after another.
SBATCH = """\
#!/bin/bash
number=$(ls "$SBATCH_KEEPS" | wc -l)
script="${@: -1}"
{ echo "arguments: $*"; cat "$script"; } > "$SBATCH_KEEPS/$(printf %03d $number)"
if [ -n "$RUN_JOBS" ]; then
  last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
  for job in $(seq 0 "$last"); do
    SLURM_ARRAY_TASK_ID=$job SLURM_NODELIST=here RUN_OFFSET=0 bash "$script" > "$SBATCH_LOG" 2>&1 || exit 1
  done
fi
echo "Submitted batch job $((100 + number))"
"""
COMMANDS = {
    "sbatch": SBATCH,
    "srun": '#!/bin/bash\nwhile [[ "$1" == -* ]]; do if [ "$1" = -n ]; then shift; fi; shift; done\nexec "$@"\n',
    "scontrol": "#!/bin/bash\necho here\n",
    "squeue": '#!/bin/bash\n[ ! -f "$SBATCH_QUEUE" ] || cat "$SBATCH_QUEUE"\n',
}


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder of commands that stand for Slurm's, and what sbatch was given."""
    programs, keeps = tmp_path / "bin", tmp_path / "submitted"
    programs.mkdir()
    keeps.mkdir()
    for name, text in COMMANDS.items():
        (programs / name).write_text(text)
        (programs / name).chmod((programs / name).stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SBATCH_KEEPS", str(keeps))
    monkeypatch.setenv("SBATCH_QUEUE", str(tmp_path / "queue"))
    monkeypatch.setenv("SBATCH_LOG", str(tmp_path / "jobs.log"))
    return keeps


@pytest.fixture
def site(tmp_path):
    path = tmp_path / "cluster.env"
    path.write_text(SITE)
    return path


@pytest.fixture
def corpus(tmp_path):
    path = write_jsonl(tmp_path / "laws.jsonl", [*map(sentences, range(30)), *map(sentences, range(5))])
    return write_corpus(tmp_path / "corpus.yaml", [jsonl_source(path)], [{"exact_dedup": {}}], shard_size="3KB")


def test_every_phase_is_an_array_that_waits_for_the_one_before(corpus, site, slurm, capsys):
    run(corpus, executor="slurm", site=site, workers=7)
    scripts = [path.read_text() for path in sorted(slurm.iterdir())]
    names = [re.search(r"--job-name=(\S+)", script)[1] for script in scripts]
    assert names == [
        *(f"corpus_read_{phase}" for phase in ("lines", "numbers", "read", "finish")),
        *(f"corpus_exact_dedup_{phase}" for phase in ("hash", "find", "partners", "keep", "finish")),
    ]
    for number, script in enumerate(scripts):
        assert "#SBATCH --partition=cpu\n" in script
        assert "#SBATCH --time=08:00:00\n" in script
        assert "#SBATCH --account=law_project\n" in script
        assert "#SBATCH --mem-per-cpu=3G\n" in script
        assert re.search(r"#SBATCH --array=0-\d+%7\n", script)
        assert "launch_pickled_pipeline" in script
        assert "\nulimit -n $(ulimit -Hn); export PATH=" in script
        assert "#SBATCH --kill-on-invalid-dep=yes\n" in script
        assert "--partition=cpu" in script.splitlines()[0], "SBATCH_PARTITION of a login shell wins over the script's lines"
        assert ("--dependency=afterok" in script) == (number > 0)
        if number:
            assert f"--dependency=afterok:{99 + number}" in script
    assert "watch them with `mecellem prepare status" in capsys.readouterr().out


@pytest.mark.parametrize(("line", "jobs", "tasks"), [("", 834, 3), ("ARRAY_JOBS=40\n", 40, 63)])
def test_a_phase_of_many_tasks_is_one_array_of_as_many_jobs_as_the_site_takes(line, jobs, tasks, tmp_path, site, slurm):
    site.write_text(SITE + line)
    executor = SlurmExecutor(Phase("keep", 2500, []), tmp_path / "logs", "x", read_site(site), "true", None, -1)
    executor.run()
    [script] = [path.read_text() for path in slurm.iterdir()]
    assert re.search(r"--array=0-(\d+)\n", script)[1] == str(jobs - 1)
    assert executor.tasks_per_job == tasks


@pytest.mark.slow
def test_what_the_submitted_scripts_do_is_what_a_local_run_does(corpus, site, slurm, monkeypatch):
    """With the shards of the last stage alone; those of all are written by the real Slurm in test_pipeline_real_slurm.py."""
    monkeypatch.setenv("RUN_JOBS", "1")
    corpus.write_text(corpus.read_text() + "keep_shards: last\n")
    run(corpus, executor="slurm", site=site)
    stages = corpus.parent / "out" / "stages"
    assert len(documents(stages / "01_exact_dedup")) == 30
    assert not (stages / "00_read" / "shards").exists()
    by_slurm = outputs(stages)
    (corpus.parent / "out").rename(corpus.parent / "by_slurm")
    run(corpus, workers=1)
    assert outputs(stages) == by_slurm


def test_jobs_under_way_are_told_of_and_nothing_is_submitted_or_removed(corpus, site, slurm, tmp_path):
    run(corpus, executor="slurm", site=site)
    folder, queue = corpus.parent / "out", tmp_path / "queue"
    jobs = json.loads((folder / "jobs.json").read_bytes())
    assert [item["job"] for item in jobs] == [str(100 + number) for number in range(9)]
    assert (jobs[-1]["stage"], jobs[-1]["phase"]) == ("01_exact_dedup", "finish")
    queue.write_text("104\n100\n7\n")
    leftover = folder / "stages" / "00_read" / ".begun.json.tmp-1"  # of a task that runs, which a new run would sweep away
    leftover.touch()
    for executor in ("slurm", "local"):
        with pytest.raises(UserError, match=r"Slurm jobs 100, 104 work in .*: wait for them, or .* `scancel 100 104`"):
            run(corpus, executor=executor, site=site)
    assert len(list(slurm.iterdir())) == 9 and leftover.exists()
    queue.write_text("7\n")  # they failed, or were cancelled
    run(corpus, executor="slurm", site=site)
    assert len(list(slurm.iterdir())) == 18 and not leftover.exists()


def test_what_was_submitted_is_kept_though_the_controller_goes_away_meanwhile(corpus, site, slurm, tmp_path):
    (tmp_path / "bin" / "sbatch").write_text(SBATCH.replace("script=", '[ "$number" -lt 2 ] || exit 1\nscript=', 1))
    with pytest.raises(UserError, match=r"^sbatch --"):
        run(corpus, executor="slurm", site=site)
    assert [item["job"] for item in json.loads((corpus.parent / "out" / "jobs.json").read_bytes())] == ["100", "101"]


@pytest.mark.parametrize("program", ["sbatch", "squeue"])
def test_a_controller_that_does_not_answer_is_told_of(corpus, site, slurm, tmp_path, monkeypatch, program):
    run(corpus, executor="slurm", site=site)
    (tmp_path / "bin" / program).write_text("#!/bin/bash\nexec sleep 60\n")
    monkeypatch.setattr("mecellem.slurm_client.CLIENT_SECONDS", 0.5)
    with pytest.raises(UserError, match=f"{program} got no answer in 0.5 s: is Slurm's controller running"):
        run(corpus, executor="slurm", site=site)


def test_a_machine_without_slurm_goes_on_where_all_jobs_are_over(corpus, site, slurm, monkeypatch, tmp_path):
    run(corpus, executor="slurm", site=site)
    jobs = corpus.parent / "out" / "jobs.json"
    kept = jobs.read_bytes()
    (tmp_path / "bin" / "squeue").write_text("#!/bin/bash\n")
    run(corpus, workers=1)
    jobs.write_bytes(kept)
    monkeypatch.setenv("PATH", "/nowhere")
    run(corpus, workers=1)
    assert not jobs.exists()
    jobs.write_bytes(kept.replace(b'"digest": "', b'"digest": "x'))
    with pytest.raises(UserError, match=r"is not known: there is no program squeue.* remove .*/jobs\.json$"):
        run(corpus, workers=1)


def submitted(corpus, site, slurm, text):
    """The first script that a site file leads to."""
    site.write_text("PARTITION=gpu\nTIME=1:00:00\nQOS=long\n" + text)
    run(corpus, executor="slurm", site=site)
    return sorted(slurm.iterdir())[0].read_text()


def test_jobs_go_where_the_site_has_nodes_without_gpus_and_ask_for_no_memory_that_it_does_not_name(corpus, site, slurm):
    script = submitted(corpus, site, slurm, "CPU_PARTITION=gpp\nCPU_QOS=gp\nMEM_PER_CPU_GB=\n")
    assert "#SBATCH --partition=gpp\n" in script and "#SBATCH --qos=gp\n" in script and "--mem" not in script


def test_jobs_load_the_modules_and_the_environment_of_the_site(corpus, site, slurm, tmp_path):
    """The environment is used: a stand-in of module and an environment without mecellem say what was done."""
    (tmp_path / "my env" / "bin").mkdir(parents=True)
    (tmp_path / "my env" / "bin" / "activate").write_text("echo activated\n")
    script = submitted(corpus, site, slurm, f"RUNTIME=modules\nMODULES='gcc/13 python/3.12'\nVENV='{tmp_path}/my env'\n")
    line = next(line for line in script.splitlines() if line.startswith("ulimit"))
    module = 'module() { echo "$@"; [ "$1" != purge ] || PATH=/nowhere; [ "$2" != "$MISSING" ]; }'
    command = ["bash", "-c", f"{module}; {line}; command -v srun"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    said = ["purge", "load gcc/13", "load python/3.12", "activated", str(tmp_path / "bin" / "srun")]
    assert done.stdout.splitlines() == said, done.stderr
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=os.environ | {"MISSING": "gcc/13"})
    assert done.returncode == 1 and "activated" not in done.stdout


def test_an_own_command_stands_in_place_of_modules_and_containers(corpus, site, slurm):
    script = submitted(corpus, site, slurm, "RUNTIME=apptainer\nIMAGE=a.sif\nMODULES=x\nENV_COMMAND='conda activate law'\n")
    assert "\nulimit -n $(ulimit -Hn); conda activate law\n" in script


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "RUNTIME=apptainer\nIMAGE=a.sif\n",
            "RUNTIME=apptainer: arrays of `prepare run` start without a container: give ENV_COMMAND=",
        ),
        ("RUNTIME=pyxis\nIMAGE=a.sif\n", "RUNTIME=pyxis: arrays"),
        ("RUNTIME=venv\nVENV=/nowhere\n", "VENV=/nowhere: /nowhere/bin/activate is missing"),
    ],
    ids=["apptainer", "pyxis", "venv"],
)
def test_an_environment_that_jobs_cannot_have_is_refused(corpus, site, slurm, text, sentence):
    with pytest.raises(UserError, match=sentence):
        submitted(corpus, site, slurm, text)
    assert not (corpus.parent / "out").exists() and not list(slurm.iterdir())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("PARTITION=cpu\n", "TIME= is missing"),
        ("TIME=1:00:00\n", "PARTITION= is missing"),
        ("PARTITION='cpu\n", "line 1: No closing quotation"),
        ("PARTITION=cpu\nTIME=1\nCPUS_PER_TASK=many\n", "CPUS_PER_TASK=many: a whole number above 0 is needed"),
        ("PARTITION=cpu\nTIME=1\nARRAY_JOBS=0\n", "ARRAY_JOBS=0: a whole number above 0 is needed"),
    ],
)
def test_a_site_file_that_lacks_something_is_told_of(tmp_path, text, sentence):
    (tmp_path / "site.env").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_site(tmp_path / "site.env")


def test_without_slurm_or_site_there_is_one_sentence(corpus, site, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"--site .*nowhere\.env cannot be read"):
        run(corpus, executor="slurm", site=tmp_path / "nowhere.env")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no program sbatch: run this on a login node"):
        run(corpus, executor="slurm", site=site)
