"""The jobs beside training, each run once on a real Slurm: a finished run is converted, measured, chosen from and reported."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from slurm_cluster import cluster
from training_runs import ROOT, Runner

from slurm.submit import submit

SITE = f"""\
PARTITION=cpu
TIME=00:05:00
RUNTIME=venv
VENV={Path(sys.executable).parents[1]}
OFFLINE=1
NETWORK_INTERFACE=lo
"""
CORPUS = """\
out: {folder}/prepared
sources: [{{name: laws, kind: jsonl, paths: [{text}], licence: mixed}}]
stages: [{{exact_dedup: {{}}}}]
tokenize: {{tokenizer: {tokenizer}}}
"""


def stage(name, job, *arguments, folder, after=None, **more):
    options = {"cpus-per-task": 1, "time": "00:09:00", "output": f"{folder}/{name}-%A_%a.out"}
    if "--gpus-per-node" in (ROOT / "slurm" / f"{job}.sbatch").read_text():
        options["gpus-per-node"] = 0
    found = {"name": name, "job": f"slurm/{job}.sbatch", "arguments": [str(item) for item in arguments], "options": options}
    return found | more | ({} if after is None else {"after": after})


@pytest.mark.slow
def test_every_job_does_its_command(runner: Runner, small_data: Path, sample_corpus: Path, tmp_path: Path, monkeypatch):
    run, export = tmp_path / "run", tmp_path / "export"
    runner(run)
    text = sample_corpus / "validation.jsonl.zst"
    (tmp_path / "corpus.yaml").write_text(CORPUS.format(folder=tmp_path, text=text, tokenizer=small_data / "tokenizer"))
    (tmp_path / "cluster.env").write_text(SITE)
    select = ["select", run, "--corpus", sample_corpus, "--budget", 0, "--mask-documents", 20, "--max-queries", 40]
    select += ["--max-documents", 60]
    masks = ["fill-mask", export, "--texts", sample_corpus, "--mask-documents", 10, "--pll-sentences", 4, "--cloze-items", 4]
    contrastive = [export, tmp_path / "embedding", "--corpus", sample_corpus, "--steps", 2, "--batch-size", 8]
    stages = [
        stage("prepare", "prepare", tmp_path / "corpus.yaml", folder=tmp_path, after=[]),
        stage("export", "convert", "export", run / "checkpoints" / "step_0000006", export, folder=tmp_path, after=[]),
        stage("measure", *select, folder=tmp_path, after=[], array=2),
        stage("choose", *select, folder=tmp_path, after=["measure"]),
        stage("report", "report", run, folder=tmp_path, after=["choose"]),
        stage("masks", "evaluate", *masks, "--out", tmp_path / "masks.json", folder=tmp_path, after=["export"]),
        stage("embed", "post_train", *contrastive, folder=tmp_path, after=["export"]),
    ]
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump({"stages": stages}))
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, cluster(Path(folder), 1) as slurm:
        submit(tmp_path / "pipeline.yaml", tmp_path / "cluster.env")
        slurm.wait_for_jobs(400)
    said = "\n".join(f"{path.name}: {path.read_text()[-800:]}" for path in sorted(tmp_path.glob("*.out")))
    made = ["prepared/tokens/corpus.bin", "export/model.safetensors", "run/evaluation/selection.json", "run/report.html"]
    made += ["masks.json", "embedding/modules.json"]
    assert [name for name in made if not (tmp_path / name).is_file()] == [], said
    done = sorted(path.name for path in (tmp_path / "pipeline.jobs" / "done").iterdir())
    assert len(done) == len(stages) + 1, said  # a mark for each task
