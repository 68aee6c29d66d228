"""Nodes that are fit and nodes that are not: facts of real ranks, on a real Slurm and changed by hand."""

import os
import stat
import sys
import tempfile
from pathlib import Path

import pytest
from slurm_cluster import cluster
from training_runs import ROOT

from slurm.preflight.command import preflight
from slurm.preflight.facts import Facts, Gpu, list_gpus, measure_alone
from slurm.preflight.judge import judge

H100 = Gpu(name="NVIDIA H100", driver="570.1", memory="81559 MiB", ecc="0")
SITE = f"""\
PARTITION=cpu
TIME=00:05:00
RUNTIME=venv
VENV={Path(sys.executable).parents[1]}
OFFLINE=1
NETWORK_INTERFACE=lo
MASTER_ADDR=127.0.0.1
"""


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """Facts of three nodes with two GPUs and two ranks each: this machine's own, with what a cluster would add."""
    here = measure_alone(0, 0, tmp_path_factory.mktemp("facts"))
    assert here.matmul > 0 and here.write > 0 and here.free_gb > 0 and here.versions["torch"]
    known = {"gpus": [H100, H100], "wanted_gpus": 2, "device": "cuda", "offset": 0.0, "all_reduce": 1.0, "all_reduce_node": 2.0}
    ranks = [(rank, f"n{rank // 2 + 1}") for rank in range(6)]
    later = {"write": None, "free_gb": None}
    return [
        here.model_copy(update={**known, "rank": rank, "node": node, "xid": [], **(later if rank % 2 else {})})
        for rank, node in ranks
    ]


NODES = ["n1", "n2", "n3"]


def changed(facts: list[Facts], rank: int, **update) -> list[Facts]:
    return [item.model_copy(update=update) if item.rank == rank else item for item in facts]


def test_healthy_nodes_have_no_faults(healthy):
    assert judge(healthy, NODES, 2, need_gb=0.001) == {}


@pytest.mark.parametrize(
    ("update", "fault"),
    [
        ({"gpus": [H100]}, "1 GPUs answer, 2 were given out"),
        ({"gpus": [H100, H100.model_copy(update={"ecc": "3"})]}, "GPU 1 has 3 uncorrected memory errors"),
        ({"xid": ["[1] NVRM: Xid (PCI:0000:19:00): 79"]}, "the kernel reports [1] NVRM: Xid (PCI:0000:19:00): 79"),
        ({"device": "cpu"}, "torch sees no GPU"),
        ({"matmul": 1e-6}, "matrix products of 1e-06 TFLOP/s, the median"),
        ({"write": 0.01}, "writes of 0 MB/s, the median"),
        ({"free_gb": 0.0}, "0 GB are free, 0 are needed"),
        ({"offset": -4.0}, "its clock is 4.0 s behind rank 0's"),
        ({"versions": {"torch": "2.6.0"}}, "torch 2.6.0 (elsewhere"),
        ({"all_reduce_node": 0.5}, "all-reduce within the node of 0.50 GB/s"),
        ({"all_reduce": None, "all_reduce_node": None}, "rank 2 did not reach the others"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_node_that_falls_out_is_named_with_the_reason(healthy, update, fault):
    found = judge(changed(healthy, 2, **update), NODES, 2, need_gb=0.001)
    assert list(found) == ["n2"] and any(fault in text for text in found["n2"]), found


def test_nodes_and_ranks_that_do_not_answer(healthy):
    assert list(judge([item for item in healthy if item.node != "n3"], NODES, 2, 0.001)) == ["n3"]
    assert judge(healthy[:-1], NODES, 2, 0.001) == {"n3": ["1 of 2 ranks answered"]}


def test_what_nvidia_smi_prints_is_read(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    line = "NVIDIA H100 80GB HBM3, 570.86.15, 81559 MiB"
    program.write_text(f"#!/bin/sh\necho '{line}, 0'\necho '{line}, 2'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert [gpu.ecc for gpu in list_gpus()] == ["0", "2"] and list_gpus()[0].driver == "570.86.15"


@pytest.mark.slow
def test_a_job_looks_at_its_nodes(tmp_path, monkeypatch, capsys):
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, cluster(Path(folder), 2):
        site = tmp_path / "cluster.env"
        site.write_text(SITE)
        monkeypatch.chdir(ROOT)
        monkeypatch.setenv("FOLDER", str(tmp_path))
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        size = ("ntasks-per-node=2", "cpus-per-task=1", "time=00:05:00")
        # the cluster gives out GPUs that are none: the job must find that
        code = preflight(nodes=2, options=(*size, "gpus-per-node=2"), site=site, need_gb=0.001)
        said = capsys.readouterr().out
        assert code == 1 and "n1: 0 GPUs answer, 2 were given out" in said and "not fit: sbatch --exclude=n1,n2" in said
        code = preflight(nodes=2, options=(*size, "gpus-per-node=0"), site=site, need_gb=0.001)
        said = capsys.readouterr().out
        assert "not all ranks came to the end" not in said and "n2" in said
        assert "GPUs answer" not in said and (code == 0) == ("all nodes are fit" in said)
        for output in ROOT.glob(f"preflight-{os.getpid()}.out"):
            output.unlink()
