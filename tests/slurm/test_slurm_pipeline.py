"""The sample corpus through a whole pipeline on a real Slurm: arrays, training on two nodes of two ranks, and what follows."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import orjson
import pytest
import yaml
import zstandard
from slurm_cluster import cluster
from training_runs import ROOT, Runner, steps_done

from slurm.submit import submit

SITE = f"""\
PARTITION=cpu
TIME=00:05:00
RUNTIME=venv
VENV={Path(sys.executable).parents[1]}
OFFLINE=1
NETWORK_INTERFACE=lo
MASTER_ADDR=127.0.0.1
MAX_RESTARTS=2
MAX_IDLE_RESTARTS=1
HANG_SECONDS=600
"""
CORPUS = """\
out: {folder}/prepared
sources: [{{name: laws, kind: jsonl, paths: ["{folder}/text_*.jsonl"], licence: mixed, id_field: null}}]
stages: [{{exact_dedup: {{}}}}]
tokenize: {{tokenizer: {tokenizer}}}
"""
TWO_BY_TWO = {"nodes": 2, "ntasks-per-node": 2, "time": "00:20:00", "signal": "B:USR1@60"}


def stage(name, job, *arguments, folder, after, options=None, **more):
    asked = {"cpus-per-task": 1, "time": "00:09:00", "output": f"{folder}/{name}-%A_%a.out"}
    if "--gpus-per-node" in (ROOT / "slurm" / f"{job}.sbatch").read_text():
        asked["gpus-per-node"] = 0
    words = [str(item) for item in arguments]
    return {
        "name": name,
        "job": f"slurm/{job}.sbatch",
        "arguments": words,
        "options": asked | (options or {}),
        "after": after,
    } | more


def write_shards(corpus: Path, folder: Path) -> list[Path]:
    """The validation split's documents in three files."""
    text = zstandard.ZstdDecompressor().stream_reader((corpus / "validation.jsonl.zst").open("rb")).read()
    lines = [line for line in text.splitlines() if orjson.loads(line)["text"]]
    paths = [folder / f"text_{number}.jsonl" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(b"\n".join(lines[number::3]) + b"\n")
    return paths


@pytest.mark.slow
def test_from_text_to_a_report(runner: Runner, decoder_runner: Runner, small_data, sample_corpus, tmp_path, monkeypatch):
    run, export, out = tmp_path / "run", tmp_path / "export", {"folder": tmp_path}
    shards, tokens, tokenizer = write_shards(sample_corpus, tmp_path), tmp_path / "tokens", small_data / "tokenizer"
    (tmp_path / "corpus.yaml").write_text(CORPUS.format(folder=tmp_path, tokenizer=tokenizer))
    (tmp_path / "cluster.env").write_text(SITE)
    decoder_runner(tmp_path / "start")

    def flags(of: Runner, **changes: object) -> list[str]:
        words = of.command(tmp_path / "run", **changes)
        return words[words.index(str(run)) + 1 :]

    pieces = [f"{tokens}_{number:05d}.idx" for number in range(3)]
    select = ["select", run, "--corpus", sample_corpus, "--budget", 0, "--mask-documents", 20, "--max-queries", 40]
    select += ["--max-documents", 60]
    masks = ["fill-mask", export, "--texts", sample_corpus, "--mask-documents", 10, "--pll-sentences", 4, "--cloze-items", 4]
    contrastive = [export, tmp_path / "embedding", "--corpus", sample_corpus, "--steps", 2, "--batch-size", 8]
    vectors = ["--teacher", tmp_path / "embedding", "--corpus", tmp_path / "speeches.jsonl", "--out", tmp_path / "vectors"]
    distilled = ["--student", tmp_path / "embedding", "--vectors", tmp_path / "vectors", "--out", tmp_path / "student"]
    distilled += ["--steps", 2, "--batch-size", 8]
    (tmp_path / "speeches.jsonl").write_bytes(b"".join(shards[0].read_bytes().splitlines(keepends=True)[:200]))
    step = tmp_path / "start" / "checkpoints" / "step_0000002"  # before the second stage changes the model
    decoder = ["qwen3_0p6b_cpt", decoder_runner.data / "curriculum", step]
    continued = [*flags(decoder_runner), "--micro-batch-tokens", 128]
    for name in ("--curriculum", "--init-from"):  # cpt.sbatch names them
        at = continued.index(name)
        del continued[at : at + 2]
    stages = [
        stage("all", "prepare", "run", tmp_path / "corpus.yaml", after=[], **out),
        stage(
            "shards",
            "prepare",
            "tokenize",
            "--shards",
            "--input",
            *shards,
            "--tokenizer",
            tokenizer,
            "--out",
            tokens,
            after=[],
            array=3,
            **out,
        ),
        stage("merge", "prepare", "merge", "--input", *pieces, "--out", tmp_path / "train", after=["shards"], **out),
        stage(
            "train",
            "pretrain",
            "mursit_tiny",
            *flags(runner, data__train=tmp_path / "train"),
            after=["merge"],
            options=TWO_BY_TWO,
            environment={"RUN": str(run)},
            **out,
        ),
        stage("measure", *select, after=["train"], array=2, **out),
        stage("choose", *select, after=["measure"], **out),
        stage("report", "report", run, after=["choose"], **out),
        stage("export", "convert", "export", run, export, "--chosen", after=["choose"], **out),
        stage("masks", "evaluate", *masks, "--out", tmp_path / "masks.json", after=["export"], **out),
        stage("embed", "post_train", *contrastive, after=["export"], **out),
        stage("vectors", "distill", "vectors", *vectors, "--shards", 2, after=["embed"], array=2, **out),
        stage("distil", "distill", "train", *distilled, after=["vectors"], **out),
        stage(
            "continue",
            "cpt",
            *decoder,
            *continued,
            after=[],
            options=TWO_BY_TWO,
            environment={"RUN": str(tmp_path / "cpt")},
            **out,
        ),
    ]
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump({"stages": stages}))
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, cluster(Path(folder), 2) as slurm:
        submit(tmp_path / "pipeline.yaml", tmp_path / "cluster.env")
        slurm.wait_for_jobs(500)
    said = "\n".join(f"{path.name}: {path.read_text()[-800:]}" for path in sorted(tmp_path.glob("*.out")))
    made = ["prepared/tokens/corpus.bin", "train.bin", "run/finished.json", "export/model.safetensors", "run/report.html"]
    made += [
        "run/evaluation/selection.json",
        "run/checkpoints/keep.json",
        "masks.json",
        "embedding/modules.json",
        "vectors/manifest.json",
    ]
    made += ["student/modules.json", "cpt/finished.json"]
    assert [name for name in made if not (tmp_path / name).is_file()] == [], said
    assert steps_done(run) == 6 and steps_done(tmp_path / "cpt") == 6
    assert (tmp_path / "train.bin").read_bytes() == b"".join(Path(f"{tokens}_{n:05d}.bin").read_bytes() for n in range(3))
    done = sorted(path.name for path in (tmp_path / "pipeline.jobs" / "done").iterdir())
    assert len(done) == len(stages) + 2 + 1 + 1, said  # a mark for each task
