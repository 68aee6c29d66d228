"""What a sweep.yaml becomes: points, their flags, and sentences for what is wrong."""

import json
import os
from pathlib import Path

import pytest
import yaml

from mecellem.errors import UserError
from slurm.bench.command import SUBMITTED, bench
from slurm.bench.sweep import read_sweep

SWEEP = {
    "recipe": "mursit_base",
    "nodes": [2, 4],
    "predict_nodes": [8],
    "ranks_per_node": 4,
    "axes": {
        "layout": {"dp": [], "tp2": ["--parallel.tensor", 2, "--parallel.sequence"]},
        "batch": {"b12": ["--schedule.micro-batch-size", 12], "b24": []},
    },
    "skip": [{"layout": "tp2", "nodes": 4}],
}
SITE = "PARTITION=gpu\nTIME=01:00:00\nACCOUNT=me\n"


def write(folder, **changes):
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**SWEEP, **changes}, sort_keys=False))
    return path


def test_points_are_the_product_of_nodes_and_axes(tmp_path):
    points = read_sweep(write(tmp_path)).points()
    assert len(points) == 3 * 2 * 2 and len({point.folder for point in points}) == 12
    assert [point.name for point in points if point.measured] == [
        *("n2-dp-b12", "n2-dp-b24", "n2-tp2-b12", "n2-tp2-b24"),
        *("n4-dp-b12", "n4-dp-b24"),
    ]
    wide = next(point for point in points if point.name == "n8-tp2-b12")
    assert wide.ranks == 32 and wide.plan.data_parallel == 16 and wide.plan.config.schedule.micro_batch_size == 12


def test_weak_scaling_grows_the_batch_with_the_nodes(tmp_path):
    strong, weak = (
        {point.nodes: point.plan.config.schedule.global_batch_size for point in read_sweep(write(tmp_path, **more)).points()}
        for more in ({}, {"scaling": "weak"})
    )
    assert strong == {2: 4608, 4: 4608, 8: 4608} and weak == {2: 4608, 4: 9216, 8: 18432}


def test_a_changed_point_is_another_one(tmp_path):
    before = {point.name: point.folder for point in read_sweep(write(tmp_path)).points()}
    after = {point.name: point.folder for point in read_sweep(write(tmp_path, steps=30)).points()}
    assert before.keys() == after.keys() and not set(before.values()) & set(after.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"node": [1]}, r"line \d+: unknown key `node`: did you mean `nodes`"),
        ({"skip": [{"layout": "tp4"}]}, r"line 2[0-9]: `skip\[0\].layout`: no point has tp4"),
        ({"axes": {"layout": {"a b": []}}}, "letters, digits"),
        ({"axes": {"nodes": {"one": []}}}, "another name than nodes"),
        ({"axes": {"a": {"x": []}, "b": {"x-": []}}}, "letters, digits"),
        ({"options": {"nodes": 3}}, r"line 2[0-9]: `options.nodes`: this is set by the sweep"),
        ({"nodes": []}, "nodes"),
        ({"peak_tflops": 0}, "peak_tflops"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_wrong_file_is_told_with_its_line(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        read_sweep(write(tmp_path, **change))


def test_weak_scaling_is_refused_for_decoders(tmp_path):
    path = write(tmp_path, recipe="qwen3_1p7b_cpt", scaling="weak", axes={}, skip=[])
    with pytest.raises(UserError, match="is for encoders"):
        [point.flags for point in read_sweep(path).points()]


def test_a_dry_run_prints_an_array_for_each_number_of_nodes(tmp_path, capsys, monkeypatch):
    (tmp_path / "site.env").write_text(SITE)
    monkeypatch.chdir(tmp_path)
    bench(write(tmp_path, options={"partition": "big", "exclusive": True}), Path("site.env"), dry_run=True)
    said = capsys.readouterr().out
    calls = [line for line in said.splitlines() if "sbatch --parsable" in line]
    assert ["--account=me" in call and "--gpus-per-node=4" in call for call in calls] == [True, True]
    assert calls[0].startswith(f"MECELLEM_SITE={tmp_path.resolve()}/site.env ")  # as the job is given it
    assert "--nodes=2 --ntasks-per-node=4" in calls[0] and "--array=0-3" in calls[0]
    assert "--nodes=4 --ntasks-per-node=4" in calls[1] and "--array=0-1" in calls[1]
    assert all("--export=ALL" in call and "--partition=big" in call and "=gpu" not in call for call in calls)
    assert all(" --exclusive slurm/bench.sbatch" in call for call in calls)
    assert "--measure 20 --measure-warmup 5" in said and not (tmp_path / "sweep.bench").exists()


def test_a_point_that_training_refuses_is_not_submitted(tmp_path, capsys):
    (tmp_path / "site.env").write_text(SITE)
    axes = {"layout": {"dp": [], "tp5": ["--parallel.tensor", 5]}}
    bench(write(tmp_path, axes=axes, skip=[]), tmp_path / "site.env", dry_run=True)
    said = capsys.readouterr().out
    assert "n2-dp-" in said and "tp5" not in said


def test_a_dry_run_does_not_show_points_that_are_under_way(tmp_path, capsys, monkeypatch):
    (tmp_path / "site.env").write_text(SITE)
    (tmp_path / "squeue").write_text("#!/bin/bash\necho 1_0\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = write(tmp_path)
    names = [point.folder for point in read_sweep(path).points() if point.measured]
    (tmp_path / "sweep.bench").mkdir()
    (tmp_path / "sweep.bench" / SUBMITTED).write_text(json.dumps({name: f"1_{task}" for task, name in enumerate(names)}))
    bench(path, tmp_path / "site.env", dry_run=True, again=True)
    said = capsys.readouterr().out
    assert [name for name in names if name not in said] == names[:1]
