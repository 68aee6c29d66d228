"""Nodes that are fit and nodes that are not: facts of real ranks, on a real Slurm and changed by hand."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from slurm_cluster import cluster, free_ports
from training_runs import ROOT

import slurm.preflight.command
import slurm.preflight.facts
from mecellem.errors import UserError
from megatron_recipes.engine.launch import Rank
from slurm.preflight.command import preflight, report, run_rank
from slurm.preflight.facts import HARDWARE_XIDS, Facts, Gpu, list_gpus, list_xid, look_around, measure_alone, read_facts
from slurm.preflight.judge import between_nodes, judge, unread
from slurm.preflight.together import meeting

H100 = Gpu(name="NVIDIA H100", driver="570.1", memory="81559 MiB", ecc="0")
VENV = Path(sys.executable).parents[1]
SITE = """\
PARTITION=cpu
TIME=00:05:00
RUNTIME=venv
VENV={venv}
OFFLINE=1
NETWORK_INTERFACE=lo
MASTER_ADDR=127.0.0.1
"""
# a file system's copy of an environment that one node sees broken
BROKEN_ON_N2 = """\
#!/bin/bash
[ "$SLURMD_NODENAME" != n2 ] || { echo "ImportError: libpython3.11.so: file too short" >&2; exit 1; }
exec "$REAL_VENV/bin/mecellem" "$@"
"""
SMI = "NVIDIA H100 80GB HBM3, 570.86.15, 81559 MiB"


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """Facts of three nodes with two GPUs and two ranks each: this machine's own, with what a cluster would add."""
    here = measure_alone(look_around(0), 0, tmp_path_factory.mktemp("facts"))
    assert here.matmul > 0 and here.write > 0 and here.free_gb > 0 and here.versions["torch"]
    known = {"gpus": [H100, H100], "wanted_gpus": 2, "device": "cuda", "offset": 0.0, "all_reduce": 1.0, "all_reduce_node": 2.0}
    known |= {"stage": "all", "xid": []}
    ranks = [(rank, f"n{rank // 2 + 1}") for rank in range(6)]
    later = {"write": None, "free_gb": None}
    return [
        here.model_copy(update={**known, "rank": rank, "node": node, **(later if rank % 2 else {})}) for rank, node in ranks
    ]


NODES = ["n1", "n2", "n3"]


def changed(facts: list[Facts], *ranks: int, **update) -> list[Facts]:
    return [item.model_copy(update=update) if item.rank in ranks else item for item in facts]


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Writes programs that are found before the machine's own."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(**scripts: str) -> None:
        for name, text in scripts.items():
            path = folder / name.replace("_", "-")
            path.write_text(f"#!/bin/bash\n{text}\n")
            path.chmod(0o755)

    return write


def test_healthy_nodes_have_no_faults(healthy):
    assert judge(healthy, NODES, 2, need_gb=0.001) == {}
    assert between_nodes(healthy, NODES, 2) is None


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
        (
            {"stage": "alone", "error": "DistNetworkError: timed out"},
            "rank 2 did not meet the others: DistNetworkError: timed out",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_node_that_falls_out_is_named_with_the_reason(healthy, update, fault):
    found = judge(changed(healthy, 2, **update), NODES, 2, need_gb=0.001)
    assert list(found) == ["n2"] and any(fault in text for text in found["n2"]), found


def test_nodes_and_ranks_that_do_not_answer(healthy):
    assert list(judge([item for item in healthy if item.node != "n3"], NODES, 2, 0.001)) == ["n3"]
    assert judge(healthy[:-1], NODES, 2, 0.001) == {"n3": ["1 of 2 ranks answered"]}


LOST = {"stage": "alone", "error": "DistNetworkError: n1 does not answer", "all_reduce": None, "all_reduce_node": None}
IN_NODE = {"stage": "node", "error": "RuntimeError: timed out", "all_reduce": None}


def test_nodes_that_only_waited_for_a_broken_one_are_not_named(healthy):
    without_first = changed([item for item in healthy if item.node != "n1"], 2, 3, 4, 5, **LOST)
    assert list(judge(without_first, NODES, 2, 0.001)) == ["n1"]  # where rank 0 would have been
    found = judge(changed(healthy, 2, 3, 4, 5, **LOST), NODES, 2, 0.001)
    assert found == {"n1": ["2 of 3 nodes did not reach rank 0, which is here"]}
    no_port = changed(healthy, *range(6), **LOST | {"error": "DistNetworkError: address in use"})
    assert judge(no_port, NODES, 2, 0.001) == {"n1": ["rank 0 did not meet the others: DistNetworkError: address in use"]}
    frozen = changed(changed(healthy, 2, 3, 4, 5, **LOST), 0, 1, stage="started", matmul=None)
    assert list(judge(frozen, NODES, 2, 0.001)) == ["n1"]
    no_torch = changed(frozen[:4], 0, 1, error="ImportError: libcudart.so.12")
    assert list(judge(no_torch, NODES[:2], 2, 0.001)) == ["n1"]
    broken_link = changed(changed(healthy, 0, 1, 4, 5, **IN_NODE), 2, 3, **IN_NODE | {"stage": "met", "all_reduce_node": None})
    found = judge(broken_link, NODES, 2, 0.001)
    assert list(found) == ["n2"] and "did not finish an all-reduce within its node: RuntimeError: timed out" in found["n2"][0]
    for facts in (without_first, frozen, broken_link):
        assert between_nodes(facts, NODES, 2) is None


def test_what_no_node_alone_is_to_blame_for_is_said_without_naming_any(healthy, tmp_path, capsys, monkeypatch):
    facts = changed(healthy, *range(6), **IN_NODE)
    assert judge(facts, NODES, 2, 0.001) == {}
    monkeypatch.setenv("PREFLIGHT_NODES", " ".join(NODES))
    monkeypatch.setenv("PREFLIGHT_TASKS", "2")
    for item in facts:
        slurm.preflight.facts.write_facts(tmp_path, item)
    assert report(tmp_path, 0.001) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "not fit: 6 of 6 ranks did not finish an all-reduce over all nodes" in said and "RuntimeError: timed out" in said
    assert "--exclude" not in said


def test_what_nvidia_smi_prints_is_read(programs):
    programs(nvidia_smi=f"echo '{SMI}, 0'; echo '{SMI}, 2'")
    assert [gpu.ecc for gpu in list_gpus()] == ["0", "2"] and list_gpus()[0].driver == "570.86.15"


def test_only_new_hardware_faults_count_among_xids(programs, monkeypatch, healthy):
    monkeypatch.setattr(slurm.preflight.facts, "seconds_since_boot", lambda: 10 * 86_400.0)
    lines = [
        "[ 1000.000001] NVRM: Xid (PCI:0000:19:00): 79, pid=1, GPU has fallen off the bus.",  # ten days ago
        "[863000.000001] NVRM: Xid (PCI:0000:19:00): 31, pid=2, name=python, MMU Fault",  # an application's
        "[863900.500000] NVRM: Xid (PCI:0000:3b:00): 94, pid=3, name=python, Contained: CE User Channel",
        "[863901.500000] NVRM: Xid (PCI:0000:3b:00): 43, pid=3, name=python, channel 0x00000008",
    ]
    programs(dmesg="cat <<'EOF'\n" + "\n".join(lines) + "\nEOF")
    assert list_xid() == [f"{lines[2]} (contained memory error)"]
    assert {13, 31, 43, 45}.isdisjoint(HARDWARE_XIDS)  # applications'
    programs(dmesg="echo 'dmesg: read kernel buffer failed: Operation not permitted' >&2; exit 1")
    assert list_xid() is None
    assert unread(healthy) == [] and unread(changed(healthy, 4, 5, xid=None)) == ["n3"]
    assert judge(changed(healthy, 4, 5, xid=None), NODES, 2, 0.001) == {}


def test_a_gpu_that_raises_leaves_the_facts_that_need_none_and_the_reason(programs, tmp_path, monkeypatch, capsys):
    programs(nvidia_smi=f"echo '{SMI}, 2'")

    def matmul(device):
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered")

    monkeypatch.setattr(slurm.preflight.facts, "matmul_speed", matmul)
    assert run_rank(tmp_path, 5) == 1
    [facts] = read_facts(tmp_path)
    assert facts.gpus[0].ecc == "2" and facts.stage == "started"
    assert facts.error == "RuntimeError: CUDA error: uncorrectable ECC error encountered"
    assert facts.error in capsys.readouterr().err
    found = judge([facts], [facts.node], 1, 0.001)[facts.node]
    assert f"rank 0 could not measure its node: {facts.error}" in found


def job(tmp_path: Path, site: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`slurm/preflight.sbatch` with whatever stands for srun in PATH."""
    (tmp_path / "cluster.env").write_text(site)
    env = {"MECELLEM_SITE": str(tmp_path / "cluster.env"), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"}
    env |= {"FOLDER": str(tmp_path), "SLURM_NTASKS_PER_NODE": "1", **environment}
    return subprocess.run(
        ["bash", "slurm/preflight.sbatch", "--need-gb", "0.001"],
        env=os.environ | env, cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


# the step of all ranks does nothing; a step on one node runs what it is given, as that node
ONE_NODE = """\
while [[ $1 == -* ]]; do [[ $1 != --nodelist=* ]] || export SLURMD_NODENAME=${1#*=}; shift; done
[ -z "$SLURMD_NODENAME" ] || exec "$@"
"""


def test_a_broken_first_node_does_not_take_the_verdict_with_it(programs, tmp_path):
    programs(
        srun=ONE_NODE,
        scontrol="printf 'n1\\nn2\\n'",
        mecellem=f'[ "$SLURMD_NODENAME" != n1 ] || {{ echo "no Python" >&2; exit 1; }}; exec "{VENV}/bin/mecellem" "$@"',
    )
    done = job(tmp_path, "RUNTIME=modules\nVENV=/nowhere\nMASTER_ADDR=127.0.0.1\n")
    assert done.returncode == 1 and "no Python" in done.stderr
    assert "n1: no rank answered" in done.stdout and "not fit: sbatch --exclude=n1,n2" in done.stdout, done.stdout


def test_a_folder_that_cannot_be_made_is_no_fault_of_nodes(programs, tmp_path):
    programs(srun=ONE_NODE, scontrol="printf 'n1\\nn2\\n'", mecellem=f'exec "{VENV}/bin/mecellem" "$@"')
    (tmp_path / "file").touch()
    site = "RUNTIME=modules\nVENV=/nowhere\nMASTER_ADDR=127.0.0.1\n"
    done = job(tmp_path, site, FOLDER=str(tmp_path / "file"))
    assert done.returncode == 1 and "not fit" not in done.stdout and "Traceback" not in done.stderr, done.stdout
    assert "cannot be made (Not a directory): set FOLDER= to a folder" in done.stderr


def test_in_containers_nothing_runs_on_the_bare_node(programs, tmp_path):
    programs(
        srun=f'echo "$*" >>"{tmp_path}/steps"; mkdir -p "{tmp_path}/preflight-7_0"; touch "{tmp_path}/preflight-7_0/judged"',
        scontrol="printf 'n1\\nn2\\n'",
        mecellem=f'touch "{tmp_path}/bare"',
    )
    done = job(tmp_path, "RUNTIME=pyxis\nIMAGE=nvcr.io#nvidia/pytorch:25.09-py3\nMASTER_ADDR=127.0.0.1\n")
    assert done.returncode == 0, done.stderr
    measure, verdict = (tmp_path / "steps").read_text().splitlines()
    assert "--container-image=nvcr.io#nvidia/pytorch:25.09-py3" in measure and "--measure" in measure
    assert "--container-image=nvcr.io#nvidia/pytorch:25.09-py3" in verdict and "--judge-facts" in verdict
    assert not (tmp_path / "bare").exists()


def test_a_job_that_ends_without_a_verdict_says_so(programs, tmp_path, monkeypatch):
    (tmp_path / "cluster.env").write_text(SITE.format(venv=VENV))
    programs(
        sbatch=f'echo "$*" >"{tmp_path}/call"; echo 7',
        squeue=f'[ -e "{tmp_path}/asked" ] || echo 7; touch "{tmp_path}/asked"',
        scontrol="echo 'JobId=7 JobName=preflight JobState=CANCELLED Reason=None'",
    )
    waits = []
    monkeypatch.setattr(slurm.preflight.command, "time", SimpleNamespace(sleep=waits.append))
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=r"job 7 ended without a verdict \(CANCELLED\)"):
        preflight(nodes=2, site=tmp_path / "cluster.env")
    assert waits == [slurm.preflight.command.POLL_SECONDS] and waits[0] >= 10
    assert "--export=ALL" in (tmp_path / "call").read_text()  # or SBATCH_EXPORT=NONE takes MECELLEM_SITE away


def test_a_job_that_can_never_begin_is_cancelled_and_says_why(programs, tmp_path, monkeypatch, capsys):
    (tmp_path / "cluster.env").write_text(SITE.format(venv=VENV))
    states = tmp_path / "states"
    states.write_text("7 PENDING Priority\n7 PENDING Priority\n7 PENDING PartitionConfig\n")
    programs(
        sbatch="echo 7",
        squeue=f'case $* in *%T*) head -n 1 "{states}"; sed -i 1d "{states}" ;; *) echo 7 ;; esac',
        scancel=f'echo "$*" >>"{tmp_path}/cancelled"',
    )
    monkeypatch.setattr(slurm.preflight.command, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=r"job 7 can never begin, PENDING \(PartitionConfig\).*--options cpus-per-task=8"):
        preflight(nodes=2, site=tmp_path / "cluster.env")
    assert (tmp_path / "cancelled").read_text().split() == ["7"]
    said = capsys.readouterr().out
    assert said.count("job 7: PENDING (Priority)") == 1 and "job 7 was cancelled" in said


def test_ctrl_c_takes_the_job_back(programs, tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    (tmp_path / "cluster.env").write_text(SITE.format(venv=VENV))
    programs(sbatch="echo 7", squeue="echo 7", scancel=f'echo "$*" >"{tmp_path}/cancelled"')
    monkeypatch.setattr(slurm.preflight.command, "time", SimpleNamespace(sleep=interrupt))
    monkeypatch.chdir(ROOT)
    with pytest.raises(KeyboardInterrupt):
        preflight(nodes=2, site=tmp_path / "cluster.env")
    assert (tmp_path / "cancelled").read_text().split() == ["7"]


def test_a_rank_that_comes_late_or_is_broken_does_not_keep_the_others(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    errors = []

    def rank_1(ready):
        try:
            with meeting(Rank(1, 2, 0, None), ready, 1):
                pass
        except TimeoutError as error:
            errors.append(str(error))

    for ready, wait in ((True, 1), (False, 60)):
        monkeypatch.setenv("MASTER_PORT", str(free_ports(1)))
        other = Thread(target=rank_1, args=(ready,), daemon=True)
        if not ready:
            other.start()  # it says that it is broken: nobody waits for it
        begun = time.monotonic()
        with meeting(Rank(0, 2, 0, None), True, wait) as members:
            assert members == [0] and time.monotonic() - begun < 30
            if ready:
                other.start()  # too late
            other.join(20)
            assert not other.is_alive()
    assert errors == ["it came when rank 0 had waited 1 s for it"]


@pytest.mark.slow
def test_a_job_looks_at_its_nodes(tmp_path, monkeypatch, capsys):
    (tmp_path / "cluster.env").write_text(SITE.format(venv=VENV))
    broken = tmp_path / "venv" / "bin"
    broken.mkdir(parents=True)
    (broken / "activate").write_text(f'export REAL_VENV={VENV}; PATH="{broken}:$REAL_VENV/bin:$PATH"\n')
    (broken / "mecellem").write_text(BROKEN_ON_N2)
    (broken / "mecellem").chmod(0o755)
    (tmp_path / "broken.env").write_text(SITE.format(venv=broken.parent))
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(slurm.preflight.command, "POLL_SECONDS", 1.0)
    try:
        with tempfile.TemporaryDirectory(prefix="slurm") as folder, cluster(Path(folder), 3):
            # the cluster gives out GPUs that are none: the job must find that
            size = ("ntasks-per-node=2", "cpus-per-task=1", "time=00:05:00", "gpus-per-node=2")
            code = preflight(nodes=2, options=size, site=tmp_path / "cluster.env", need_gb=0.001)
            said = capsys.readouterr().out
            assert code == 1 and "n1: 0 GPUs answer, 2 were given out" in said and "not fit: sbatch --exclude=n1,n2" in said
            assert "not all ranks came to the end" not in said and "did not" not in said, said
            size = ("ntasks-per-node=1", "cpus-per-task=1", "time=00:05:00", "gpus-per-node=0")
            code = preflight(nodes=3, options=size, site=tmp_path / "broken.env", need_gb=0.001, wait_seconds=15)
            said = capsys.readouterr().out
    finally:
        (ROOT / f"preflight-{os.getpid()}.out").unlink(missing_ok=True)
    assert code == 1 and "n2: no rank answered" in said, said
    faults = re.findall(r"^(n\d): (.*)$", said, re.MULTILINE)  # three ranks share two cores: one may look slow
    assert {node for node, fault in faults if "the median" not in fault} == {"n2"}, said
    [second] = [path for path in tmp_path.glob("preflight-*") if len(read_facts(path)) == 2]
    assert all(item.stage == "all" and item.all_reduce for item in read_facts(second))  # n1 and n3 went on without n2
