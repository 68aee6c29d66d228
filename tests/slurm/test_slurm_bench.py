"""`mecellem slurm bench` on a real Slurm: points are measured, shown, predicted, and not measured twice."""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from slurm_cluster import cluster
from training_runs import ROOT, SMALL, Runner

from slurm.bench.command import bench

SITE = f"""\
PARTITION=cpu
TIME=00:05:00
RUNTIME=venv
VENV={Path(sys.executable).parents[1]}
OFFLINE=1
NETWORK_INTERFACE=lo
MASTER_ADDR=127.0.0.1
"""


def sweep(folder: Path, data: Path, **more):
    flags = {
        **SMALL,
        "data.tokenizer": data / "tokenizer",
        "data.train": data / "train",
        "data.validation": data / "validation",
    }
    return {
        "recipe": "mursit_tiny",
        "arguments": [word for name, value in flags.items() for word in (f"--{name}", str(value))],
        "steps": 3,
        "warmup": 1,
        "nodes": [1, 2],
        "predict_nodes": [4],
        "ranks_per_node": 1,
        "gpus_per_node": 0,
        "peak_tflops": 0.05,
        "axes": {
            "batch": {"m2": ["--schedule.micro-batch-size", 2], "m4": ["--schedule.micro-batch-size", 4]},
            "layout": {"dp": [], "pp2": ["--parallel.pipeline", 2]},
        },
        "options": {"time": "00:03:00", "cpus-per-task": 1, "output": f"{folder}/bench-%A_%a.out"},
    } | more


@pytest.mark.slow
def test_points_are_measured_once_and_the_rest_predicted(runner: Runner, small_data: Path, tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "cluster.env").write_text(SITE)
    path, site = tmp_path / "sweep.yaml", tmp_path / "cluster.env"
    path.write_text(yaml.safe_dump(sweep(tmp_path, small_data)))
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, cluster(Path(folder), 2) as slurm:
        bench(path, site)
        assert "2 points on 1 nodes" in capsys.readouterr().out
        slurm.wait_for_jobs(240)
        bench(path, site)
        said = capsys.readouterr().out
        rows = list(csv.DictReader((tmp_path / "sweep.bench" / "results.csv").open()))
        assert not slurm.ask("squeue", "--noheader"), "what is measured is not submitted again"
        path.write_text(yaml.safe_dump(sweep(tmp_path, tmp_path / "nowhere", predict_nodes=[])))
        bench(path, site)
        slurm.wait_for_jobs(240)
        capsys.readouterr()
        bench(path, site)
        failed = capsys.readouterr().out
    outputs = "\n".join(item.read_text()[-600:] for item in sorted(tmp_path.glob("bench-*.out")))
    assert said.count("measured") >= 6, said + outputs
    assert "n1-m2-pp2: refused" in said and "fastest a rank" in said
    assert (tmp_path / "sweep.bench" / "report.html").stat().st_size > 10_000
    assert [row["state"] for row in rows].count("measured") == 6 and len(rows) == 12
    assert all(row["predicted_step_seconds"] for row in rows if row["state"] == "predicted")
    assert failed.count(": failed: ") == 6 and "nowhere" in failed, failed
    assert "fastest a rank" not in failed, "points with other inputs are other points"
