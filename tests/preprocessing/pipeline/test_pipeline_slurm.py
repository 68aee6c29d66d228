import os
import re
import stat

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
NODES_OF_TRAINING=4
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
        assert ("--dependency=afterok" in script) == (number > 0)
        if number:
            assert f"--dependency=afterok:{99 + number}" in script
    assert "watch them with `mecellem prepare status" in capsys.readouterr().out


@pytest.mark.parametrize(("line", "jobs", "tasks"), [("", 834, 3), ("ARRAY_JOBS=40\n", 40, 63)])
def test_a_phase_of_many_tasks_is_one_array_of_as_many_jobs_as_the_site_takes(line, jobs, tasks, tmp_path, site, slurm):
    site.write_text(SITE + line)
    executor = SlurmExecutor(Phase("keep", 2500, []), tmp_path / "logs", "x", read_site(site), None, -1)
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
    with pytest.raises(UserError, match="needs the program sbatch: run this on a login node"):
        run(corpus, executor="slurm", site=site)
