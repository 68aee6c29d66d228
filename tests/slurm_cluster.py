"""A real Slurm of one machine for the tests: Debian's slurmctld, slurmd and munge, several nodes on one host.

Started by root without systemd, cgroups or a database, in a folder of its own; two clusters do not meet, as each has its
own ports, its own munge key and its own configuration.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "munged")
PACKAGES = "slurmctld slurmd slurm-client munge"
NODE_CPUS = 4
NODE_GPUS = 2  # character devices that are none: Slurm gives them out, torch finds no CUDA behind them
NODE = "MECELLEM_TEST_NODE"  # in the environment of a node's daemon and of what that starts
CONFIGURATION = """\
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
SlurmdTimeout=10
MinJobAge=3600
KillWait=2
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=n[1-{nodes}] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cpus} RealMemory=8000 \\
    Gres=gpu:{gpus} State=UNKNOWN
PartitionName=cpu Nodes=n[1-{nodes}] Default=YES PriorityTier=10 DefaultTime=00:10:00 MaxTime=1-00:00:00 State=UP
PartitionName=low Nodes=n[1-{nodes}] PriorityTier=1 GraceTime=20 DefaultTime=00:10:00 MaxTime=1-00:00:00 State=UP
PartitionName=cheap Nodes=n[1-{nodes}] PriorityTier=1 PreemptMode=CANCEL DefaultTime=00:10:00 MaxTime=1-00:00:00 State=UP
"""


def require_slurm() -> None:
    """Skip where there is no Slurm to start, but not where MECELLEM_REQUIRE names it, as in CI."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if not missing and os.getuid() == 0:
        return
    sentence = f"no Slurm to start: {', '.join(missing) or 'root'} is missing (`apt-get install {PACKAGES}`, as root)"
    if "slurm" in os.environ.get("MECELLEM_REQUIRE", ""):
        pytest.fail(sentence)
    pytest.skip(sentence)


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nothing listens on."""
    for _ in range(100):
        first = 20_000 + secrets.randbelow(10_000)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError(f"no {count} free ports in a row")


class Cluster:
    """A running cluster: `ask` runs a client command; `SLURM_CONF` of the process leads to it while it runs."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self.folder, self.nodes = folder, nodes
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def ask(self, *words: str, timeout: float = 20) -> str:
        """What a client command prints. Raises `CalledProcessError`, and `TimeoutExpired` when the controller is away."""
        return subprocess.run(words, check=True, capture_output=True, text=True, timeout=timeout).stdout

    def submit(self, *words: str | Path, cwd: Path, env: Mapping[str, str]) -> str:
        """`sbatch WORDS`; the job's number."""
        command = ["sbatch", "--parsable", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=cwd, env={**os.environ, **env})
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().partition(";")[0]

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol show job` says: JobState, Restarts, NodeList, ..."""
        words = self.ask("scontrol", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_for_jobs(self, timeout: float) -> None:
        """Until the queue is empty. A job that can never start, as one before it failed, counts as waiting."""
        end = time.monotonic() + timeout
        while queue := self.ask("squeue", "--noheader", "--format=%i %j %T %r"):
            assert time.monotonic() < end, queue
            time.sleep(0.5)

    def start(self) -> None:
        """Start munged, the controller and the nodes, and wait until all nodes are idle."""
        port = free_ports(self.nodes + 1)
        text = CONFIGURATION.format(
            port=port,
            folder=self.folder,
            nodes=self.nodes,
            first=port + 1,
            last=port + self.nodes,
            cpus=NODE_CPUS,
            gpus=NODE_GPUS,
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "state").mkdir()
        for number in range(NODE_GPUS):
            device = self.folder / f"gpu{number}"
            try:
                os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            except PermissionError:  # in a container; Slurm then counts GPUs, but names none in CUDA_VISIBLE_DEVICES
                device.touch()
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-{NODE_GPUS - 1}]\n")
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        munge = [f"--{name}={self.folder}/munge.{end}" for name, end in MUNGE_FILES]
        self._daemon("munge", "munged", "--force", "--foreground", *munge)
        self._until(lambda: (self.folder / "munge.sock").exists())
        self.start_controller()
        for number in range(1, self.nodes + 1):
            self.start_node(f"n{number}")
        self._until(self._all_idle)

    def return_drained_nodes(self, ended: threading.Event) -> None:
        """As an administrator does: on a busy machine a step may take Slurm more than 60 s to end, which drains the node."""
        while not ended.wait(5):
            with suppress(OSError, subprocess.SubprocessError):  # a test has taken the controller away
                for line in set(self.ask("sinfo", "--noheader", "--Node", "--states=drain", "--format=%N|%E").splitlines()):
                    node, _, reason = line.partition("|")
                    if reason.strip() == "Kill task failed":
                        self.ask("scontrol", "update", f"NodeName={node}", "State=RESUME")

    def start_controller(self) -> None:
        """Start the controller, the first time or after `lose_controller`, with what it knows on disk."""
        self._daemon("controller", "slurmctld", "-D")

    def lose_controller(self) -> None:
        """The controller dies without a word; nodes and jobs go on without it."""
        self.processes["controller"].kill()
        self.processes["controller"].wait(10)

    def start_node(self, name: str) -> None:
        """Start a node's daemon, the first time or after `lose_node`."""
        self._daemon(name, "slurmd", "-D", "-N", name)

    def lose_node(self, name: str) -> None:
        """All processes of a node die at once, as when its power goes: the daemon, the steps and their tasks."""
        daemon = {f"{NODE}={self.mark(name)}".encode()}
        task = {f"SLURMD_NODENAME={name}".encode(), f"SLURM_CONF={self.folder / 'slurm.conf'}".encode()}  # of this cluster only
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                found = set((process / "environ").read_bytes().split(b"\0"))
                if daemon <= found or task <= found:
                    os.kill(int(process.name), signal.SIGKILL)
        self.processes[name].wait(10)

    def _all_idle(self) -> bool:
        found = subprocess.run(["sinfo", "-h", "-N", "-t", "idle", "-o", "%N"], capture_output=True, text=True, timeout=20)
        return len(set(found.stdout.split())) == self.nodes

    def mark(self, name: str) -> str:
        """What tells the processes of a node from those of other clusters, which tests beside this one may have."""
        return f"{self.folder}:{name}"

    def _daemon(self, name: str, *command: str) -> None:
        env = {**os.environ, NODE: self.mark(name)}
        with open(self.folder / f"{name}.out", "ab") as log:
            self.processes[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)

    def _until(self, there) -> None:
        end = time.monotonic() + 60
        while not there():
            if time.monotonic() > end:
                logs = [f"{path.name}: {path.read_text(errors='replace')[-500:]}" for path in sorted(self.folder.glob("*.log"))]
                raise AssertionError("Slurm did not start:\n" + "\n".join(logs))
            time.sleep(0.1)

    def stop(self) -> None:
        """End all jobs, then the daemons."""
        subprocess.run(["scancel", "--user=root"], timeout=20, check=False, capture_output=True)
        end = time.monotonic() + 10
        while time.monotonic() < end and self.ask("squeue", "--noheader"):
            time.sleep(0.2)
        for process in reversed(self.processes.values()):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes.values()):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


MUNGE_FILES = (("key-file", "key"), ("socket", "sock"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed"))


@contextmanager
def cluster(folder: Path, nodes: int = 2) -> Iterator[Cluster]:
    """A cluster in `folder`, which is to be short and empty; environment variables of an allocation are hidden meanwhile."""
    require_slurm()
    folder.chmod(0o755)
    hidden = {name: value for name, value in os.environ.items() if name.startswith(("SLURM_", "SBATCH_"))}
    for name in hidden:
        del os.environ[name]
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    running, ended = Cluster(folder, nodes), threading.Event()
    administrator = threading.Thread(target=running.return_drained_nodes, args=(ended,))
    try:
        running.start()
        administrator.start()
        yield running
    finally:
        ended.set()
        if administrator.ident is not None:
            administrator.join()
        running.stop()
        del os.environ["SLURM_CONF"]
        os.environ.update(hidden)
