"""Which nodes are not fit to train, and why. A node is compared with the others; thresholds are ours."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from slurm.preflight.facts import Facts

SLOW = 0.7  # of the median over nodes: slower than this is a fault, not noise
CLOCK_SECONDS = 1.0  # logs and file times of nodes that differ by more cannot be compared
Faults = dict[str, list[str]]  # node -> what is wrong with it


def judge(facts: Sequence[Facts], nodes: Sequence[str], tasks_per_node: int, need_gb: float) -> Faults:
    """The faults of every node that has any. `nodes`: all of the job, also those that no rank answered from."""
    by_node = {node: [item for item in facts if item.node == node] for node in nodes}
    faults: Faults = {node: [] for node in nodes}
    for node, ranks in by_node.items():
        if not ranks:
            faults[node].append("no rank answered: it does not start, or does not see the shared folder")
            continue
        faults[node] += _alone(ranks, tasks_per_node, need_gb)
    for node, found in _stopped(facts, nodes).items():
        faults[node] += found
    there = {node: ranks for node, ranks in by_node.items() if ranks}
    for node, odd in _odd_versions(there).items():
        faults[node].append(odd)
    speeds: dict[str, Callable[[Facts], float | None]] = {
        "matrix products of {value:.3g} TFLOP/s": lambda item: item.matmul,
        "writes of {value:.0f} MB/s": lambda item: item.write,
        "all-reduce within the node of {value:.2f} GB/s": lambda item: item.all_reduce_node,
    }
    for what, speed in speeds.items():
        for node, (value, median) in _slow(there, speed).items():
            faults[node].append(f"{what.format(value=value)}, the median of the nodes is {median:.3g}")
    return {node: found for node, found in faults.items() if found}


def _alone(ranks: Sequence[Facts], tasks_per_node: int, need_gb: float) -> list[str]:
    faults, first = [], ranks[0]
    if len(ranks) < tasks_per_node:
        faults.append(f"{len(ranks)} of {tasks_per_node} ranks answered")
    if first.wanted_gpus and len(first.gpus) < first.wanted_gpus:
        faults.append(f"{len(first.gpus)} GPUs answer, {first.wanted_gpus} were given out")
    if any(item.device == "cpu" for item in ranks) and first.gpus:
        faults.append("torch sees no GPU: is it built for the driver that is there?")
    for number, gpu in enumerate(first.gpus):
        if gpu.ecc.isdigit() and int(gpu.ecc):
            faults.append(f"GPU {number} has {gpu.ecc} uncorrected memory errors")
    faults += [f"the kernel reports {line}" for line in first.xid or []]
    free = next((item.free_gb for item in ranks if item.free_gb is not None), None)
    if free is not None and free < need_gb:
        faults.append(f"{free:.0f} GB are free, {need_gb:.0f} are needed")
    offset = max((item.offset for item in ranks if item.offset is not None), key=abs, default=0.0)
    if abs(offset) > CLOCK_SECONDS:
        faults.append(f"its clock is {abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'} rank 0's")
    return faults


def _stopped(facts: Sequence[Facts], nodes: Sequence[str]) -> Faults:
    """Nodes whose ranks stopped where others went on. Those that only waited for a broken node are not at fault."""
    faults: Faults = {node: [] for node in nodes}
    master = next((item for item in facts if item.rank == 0), None)
    lost = [item for item in facts if item.stage == "alone"]  # did not meet the others, whom rank 0 waits for
    unreached = {item.node for item in lost}
    if master is None or (master.stage == "started" and not any(item.after("met") for item in facts)):
        lost = []  # nobody was there to be met
    elif master in lost or 2 * len(unreached) > len(nodes):
        lost = [master]
    reached = {item.node for item in facts if item.after("node")}
    for item in facts:
        why = f": {item.error}" if item.error else ""
        if item.stage == "started":
            faults[item.node].append(f"rank {item.rank} could not measure its node{why or ' in time'}")
        elif item in lost and item.after("met"):
            faults[item.node].append(f"{len(unreached)} of {len(nodes)} nodes did not reach rank 0, which is here")
        elif item in lost:
            faults[item.node].append(f"rank {item.rank} did not meet the others{why}")
        elif item.stage == "met" and reached - {item.node}:
            faults[item.node].append(f"rank {item.rank} did not finish an all-reduce within its node{why}")
    return faults


def between_nodes(facts: Sequence[Facts], nodes: Sequence[str], tasks_per_node: int) -> str | None:
    """What is wrong where ranks did not finish together and no node is to blame for it."""
    waiting = [item for item in facts if not item.after("all")]
    missing = any(sum(item.node == node for item in facts) < tasks_per_node for node in nodes)
    if not waiting or missing or any(_stopped(facts, nodes).values()):
        return None
    why = next((f": {item.error}" for item in waiting if item.error), "")
    return (
        f"{len(waiting)} of {len(facts)} ranks did not finish an all-reduce over all nodes, and no node is to blame alone{why}"
    )


def unread(facts: Sequence[Facts]) -> list[str]:
    """Nodes with GPUs whose kernel messages users may not read."""
    return sorted({item.node for item in facts if item.xid is None and (item.gpus or item.wanted_gpus)})


def _odd_versions(nodes: Mapping[str, Sequence[Facts]]) -> dict[str, str]:
    """Nodes that have other versions than most."""
    kinds = {node: tuple(sorted({**ranks[0].versions, "driver": _driver(ranks[0])}.items())) for node, ranks in nodes.items()}
    if len(set(kinds.values())) < 2:
        return {}
    usual = dict(Counter(kinds.values()).most_common(1)[0][0])
    found = {}
    for node, kind in kinds.items():
        own = dict(kind)
        names = [name for name in sorted(own.keys() | usual.keys()) if own.get(name) != usual.get(name)]
        if names:
            parts = [f"{name} {own.get(name, 'missing')} (elsewhere {usual.get(name, 'missing')})" for name in names]
            found[node] = f"other versions: {', '.join(parts)}"
    return found


def _driver(facts: Facts) -> str:
    return facts.gpus[0].driver if facts.gpus else "none"


def _slow(nodes: Mapping[str, Sequence[Facts]], speed: Callable[[Facts], float | None]) -> dict[str, tuple[float, float]]:
    """Nodes whose slowest rank is slow, with that speed and the median over nodes."""
    values = {
        node: min(found) for node, ranks in nodes.items() if (found := [value for item in ranks if (value := speed(item))])
    }
    if len(values) < 2:
        return {}
    median = statistics.median(values.values())
    return {node: (value, median) for node, value in values.items() if value < SLOW * median}
