"""A real run's checkpoints: measured, chosen, measured on the test split, found again, and killed on the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evaluation.results import read_record
from evaluation.selection import main
from evaluation.selection.measure import parse_part, select_checkpoint
from evaluation.selection.results import SYSTEMS, Selection
from mecellem.errors import UserError
from megatron_recipes.retention import kept

HELPER = Path(__file__).with_name("killed_selections.py")
FLAGS = [
    "--mask-documents", "40", "--mask-words", "40", "--max-queries", "40", "--max-documents", "80", "--min-queries", "20",
    "--batch-size", "16", "--max-seq-length", "48", "--sample-sentences", "4", "--budget", "3", "--device", "cpu",
]  # fmt: skip


def forbidden(*_, **__):
    raise AssertionError("computed again")


def selection_of(folder: Path) -> Selection:
    return read_record(folder / "selection.json", Selection, "")


def without_seconds(tree, folder: Path):
    """The figures of a selection.json, wherever it was made."""
    if isinstance(tree, dict):
        return {key: without_seconds(value, folder) for key, value in tree.items() if key != "seconds"}
    if isinstance(tree, list):
        return [without_seconds(value, folder) for value in tree]
    return tree.replace(str(folder), "OUT") if isinstance(tree, str) else tree


def figures(folder: Path):
    return without_seconds(json.loads((folder / "selection.json").read_text()), folder)


@pytest.fixture
def copy(trained_run, tmp_path):
    """The run as it was before anything was selected."""
    return shutil.copytree(trained_run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation", "keep.json"))


def with_exports(evaluated_run: Path, out: Path) -> Path:
    """A new folder for a selection whose cache has the exported checkpoints and the tasks, and nothing else."""
    cache = evaluated_run / "evaluation" / "cache"
    for export in (cache / "evaluation").glob("export-*"):
        shutil.copytree(export, out / "cache" / "evaluation" / export.name)
    shutil.copytree(cache / "tasks", out / "cache" / "tasks")
    return out


# ---- what one call writes


def test_the_whole_run(evaluated_run):
    folder = evaluated_run / "evaluation"
    found = selection_of(folder)
    assert [row.step for row in found.checkpoints] == [20, 30, 40]
    assert [row.tokens for row in found.checkpoints] == [20_000, 30_000, 40_000]
    means = {row.step: row.post_trained.mean for row in found.checkpoints}
    losses = {row.step: row.fill_mask.all.nll for row in found.checkpoints}
    assert found.peak_step == max(means, key=lambda step: means[step]) and found.peak_tokens == found.peak_step * 1000
    assert found.loss_step == min(losses, key=lambda step: losses[step]) and found.loss_tokens == found.loss_step * 1000
    assert found.best_step == (found.peak_step if found.chosen_by == "retrieval" else found.loss_step)
    assert found.score == found.best.post_trained.mean and found.rescored == pytest.approx(found.score, abs=1e-4)
    assert set(found.baselines) == {"bm25", "random_mean_pooled", "random_post_trained"}
    assert len(found.comparisons) == 2 and found.confidence == pytest.approx(0.975), "two comparisons share the 5%"
    assert [item.checkpoints for item in found.agreement] == [3, 3]
    assert all(len(row.training.losses) == found.budget == 3 for row in found.checkpoints)
    assert all(row.fill_mask.all.masked == found.unigram.all.masked for row in found.checkpoints)
    assert (Path(found.best_folder) / "config.json").is_file() and (Path(found.best_embedding) / "modules.json").is_file()


def test_the_test_split_reports_and_does_not_choose(evaluated_run):
    found = selection_of(evaluated_run / "evaluation")
    assert set(found.test.systems) == set(SYSTEMS)
    names = [task.name for task in found.tasks]
    assert names == [task.name for task in found.test.tasks] == ["ataturk_title", "kenet_example"]
    assert {task.revision for task in found.tasks}.isdisjoint(task.revision for task in found.test.tasks)
    assert [item.name for item in found.left_out] == ["libreoffice_title"] and "validation" in found.left_out[0].reason
    ours, chosen = found.test.systems["model_post_trained"], found.best.post_trained
    asked = [set(scores.tasks["kenet_example"].per_item["default"]) for scores in (ours, chosen)]
    assert asked[0] and asked[1] and asked[0].isdisjoint(asked[1]), "queries of one split are among the other's"
    assert found.test.fill_mask.all.masked == found.test.unigram.all.masked != found.unigram.all.masked
    assert len(found.test.samples) == 4


# ---- again, in parts, killed


def test_a_second_call_scores_nothing_and_is_quick(evaluated_run, small_corpus, settings, monkeypatch, capsys):
    before = figures(evaluated_run / "evaluation")
    for place in ("parts.train_contrastive", "parts.read_split", "measure.open_source", "parts.write_random_model"):
        monkeypatch.setattr(f"evaluation.selection.{place}", forbidden)
    monkeypatch.setattr("evaluation.leaderboard.measure.open_source", forbidden)
    monkeypatch.setattr("evaluation.leaderboard.measure.OpenedTasks.__missing__", forbidden)
    started = time.process_time()
    main([str(evaluated_run), "--corpus", str(small_corpus), *FLAGS])
    assert time.process_time() - started < 5
    assert figures(evaluated_run / "evaluation") == before
    printed = capsys.readouterr().out
    for words in (
        "unigram",
        "BM25",
        "random weights",
        "libreoffice_title is left out",
        "Kendall's tau",
        "test split, ",
        "took",
    ):
        assert words in printed, words


def run_helper(*words: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(HELPER), *words], env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_killed_at_any_moment_it_goes_on_to_the_same_figures(evaluated_run, copy, small_corpus, tmp_path):
    out = with_exports(evaluated_run, tmp_path / "out")
    flags = [str(copy), "--corpus", str(small_corpus), "--out", str(out), *FLAGS]
    printed = run_helper("kill", "3", "2.5", str(time.time_ns()), "--separator--", *flags)
    assert "killed" in printed
    found, whole = figures(out), figures(evaluated_run / "evaluation")
    assert {key: value for key, value in found.items() if key != "run"} == comparable(whole, found)
    [(name, reason)] = kept(copy).items()  # so that `train --keep-checkpoints` leaves it
    chosen = selection_of(out)
    assert name == f"step_{chosen.best_step:07d}" and reason.startswith(f"chosen by mecellem select by {chosen.chosen_by}")


def comparable(whole, found):
    """The same selection as of another folder of the run."""
    text = json.dumps(whole).replace(whole["run"], found["run"])
    return {key: value for key, value in json.loads(text).items() if key != "run"}


def test_parts_of_an_array_at_once_equal_one_call(evaluated_run, copy, small_corpus, tmp_path, monkeypatch):
    out = with_exports(evaluated_run, tmp_path / "out")
    flags = [str(copy), "--corpus", str(small_corpus), "--out", str(out), *FLAGS]
    # two parts and, at the same time, one of them a second time
    parts = [["--separator--", *flags, "--task", part] for part in ("0/2", "1/2", "1/2")]
    printed = run_helper("at-once", *(word for part in parts for word in part))
    assert printed.count("the same command without --task decides") == 3
    assert not (out / "selection.json").exists() and not kept(copy)
    monkeypatch.setattr("evaluation.selection.parts.train_contrastive", forbidden)
    main(flags)
    found, whole = figures(out), figures(evaluated_run / "evaluation")
    assert {key: value for key, value in found.items() if key != "run"} == comparable(whole, found)


# ---- other ways to choose


def test_without_a_budget_mean_pooled_retrieval_chooses(evaluated_run, small_corpus, settings, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.selection.parts.train_contrastive", forbidden)
    cache = evaluated_run / "evaluation" / "cache"
    found = select_checkpoint(evaluated_run, small_corpus, tmp_path, settings, budget=0, cache=cache, device="cpu")
    means = {row.step: row.mean_pooled.mean for row in found.checkpoints}
    assert found.metric == "mean_pooled" and found.peak_step == max(means, key=lambda step: means[step])
    assert all(row.post_trained is row.training is None for row in found.checkpoints)
    assert set(found.baselines) == {"bm25", "random_mean_pooled"} and found.best_embedding is None
    assert set(found.test.systems) == {"bm25", "random_mean_pooled", "model_mean_pooled"}
    assert [item.ranking for item in found.agreement] == ["fill-mask loss"]
    assert found.rescored == pytest.approx(found.score, abs=1e-4) and "mean-pooled" in found.rule


def test_two_checkpoints_are_too_few_for_a_tau(evaluated_run, small_corpus, settings, tmp_path):
    cache = evaluated_run / "evaluation" / "cache"
    options = {"budget": 0, "cache": cache, "device": "cpu", "steps": (40, 20)}
    found = select_checkpoint(evaluated_run, small_corpus, tmp_path, settings, **options)
    assert [row.step for row in found.checkpoints] == [20, 40] and found.confidence == 0.95
    (item,) = found.agreement
    assert item.tau is item.interval is None and "2 checkpoints cannot show" in item.sentence


def test_without_tasks_the_lowest_loss_chooses(evaluated_run, plain_corpus, settings, tmp_path, capsys):
    cache = evaluated_run / "evaluation" / "cache"
    found = select_checkpoint(evaluated_run, plain_corpus, tmp_path, settings, cache=cache, device="cpu")
    losses = {row.step: row.fill_mask.all.nll for row in found.checkpoints}
    assert found.chosen_by == "fill-mask" and found.best_step == min(losses, key=lambda step: losses[step])
    assert "No retrieval task can be had" in found.sentence and found.peak_step is found.score is None
    assert found.agreement == [] and found.baselines == {} and found.test.systems == {}
    assert 'no document of the validation split has a "title"' in capsys.readouterr().out
    assert selection_of(tmp_path).model_dump_json() == found.model_dump_json()


def test_other_pairs_are_another_post_training(evaluated_run, small_corpus, settings, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    lines = [json.dumps({"query": f"soru {number}", "answer": f"yanıt {number}"}) for number in range(40)]
    pairs.write_text("\n".join(lines))
    cache = evaluated_run / "evaluation" / "cache"
    options = {"budget": 1, "cache": cache, "device": "cpu", "steps": (20,), "data": (str(pairs),)}
    found = select_checkpoint(evaluated_run, small_corpus, tmp_path, settings, **options)
    assert found.data == [str(pairs)] and found.best.training.pairs == 16
    assert "only checkpoint" in found.sentence


# ---- what is refused


def test_a_kept_model_that_was_changed_is_refused(evaluated_run, small_corpus, settings, tmp_path):
    run = shutil.copytree(evaluated_run, tmp_path / "run")
    found = selection_of(evaluated_run / "evaluation")
    options = {"budget": found.budget, "device": "cpu"}
    for folder, silently in ((found.best_folder, True), (found.best_embedding, False)):
        weights = run / "evaluation" / Path(folder).relative_to(evaluated_run / "evaluation") / "model.safetensors"
        whole, times = weights.read_bytes(), weights.stat()
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        if silently:
            os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
        with pytest.raises(UserError, match=f"{weights.parent.name} was changed after it was made"):
            select_checkpoint(run, small_corpus, run / "evaluation", settings, **options)
        weights.write_bytes(whole)
        os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    select_checkpoint(run, small_corpus, run / "evaluation", settings, **options)


def test_a_score_that_does_not_come_back_is_refused(evaluated_run, small_corpus, settings, tmp_path, monkeypatch):
    from evaluation.selection import measure

    run = shutil.copytree(evaluated_run, tmp_path / "run")
    for path in (run / "evaluation" / "cache" / "evaluation").glob("again-*"):
        path.unlink()
    found = selection_of(evaluated_run / "evaluation")
    monkeypatch.setattr(measure, "score_anew", lambda *_: found.best.post_trained.model_copy(update={"mean": 0.9}))
    with pytest.raises(UserError, match=r"scores 0\.9000 after loading it again"):
        select_checkpoint(run, small_corpus, run / "evaluation", settings, budget=found.budget, device="cpu")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": (25,)}, r"--steps 25: .* its checkpoints are 20, 30, 40"),
        ({"steps": (20, 30, 20)}, "--steps names 20 twice"),
        ({"budget": -1}, "--budget -1 must be at least 0"),
        ({"columns": ("a", "b")}, "--columns is for --data"),
        ({"tasks": ("kenet_exampel",)}, "did you mean kenet_example"),
        ({"tasks": ("libreoffice_title",)}, "libreoffice_title cannot be built from"),
        ({"data": ("none.jsonl",)}, r"none\.jsonl is no file or folder here"),
    ],
)
def test_bad_flags_are_told_before_any_work(trained_run, small_corpus, settings, tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence):
        select_checkpoint(trained_run, small_corpus, tmp_path / "out", settings, **{"device": "cpu", **options})
    assert not (tmp_path / "out" / "cache" / "evaluation").exists()


def test_bad_folders_are_told_before_any_work(run, trained_run, small_model, small_corpus, decoder_run, settings, tmp_path):
    out = tmp_path / "out"
    for folder, sentence in (
        (tmp_path / "none", "is not a run"),
        (small_model, "is a model, not a run: `mecellem evaluate"),
        (decoder_run, "trained a decoder"),
    ):
        with pytest.raises(UserError, match=sentence):
            select_checkpoint(folder, small_corpus, out, settings, device="cpu")
    for split in ("train", "validation", "test"):
        corpus = shutil.copytree(small_corpus, tmp_path / split)
        (corpus / f"{split}.jsonl.zst").unlink()
        with pytest.raises(UserError, match=rf"{split}\.jsonl\.zst \(or \.jsonl, \.jsonl\.gz\) is missing: make the corpus"):
            select_checkpoint(trained_run, corpus, out, settings, device="cpu")
    assert not out.exists()


def test_a_run_without_checkpoints_is_told(run, small_corpus, settings, tmp_path):
    with pytest.raises(UserError, match="has no step_NNNNNNN"):
        select_checkpoint(run, small_corpus, tmp_path / "out", settings, device="cpu")


@pytest.mark.parametrize("text", ["2/2", "1", "a/b", "-1/2", "1/0", "1/2/3"])
def test_a_part_is_n_of_m(text):
    with pytest.raises(UserError, match=r"must be N/M with N from 0 to M-1"):
        parse_part(text)
    assert parse_part("0/1") == (0, 1) and parse_part("07/8") == (7, 8)


def test_a_guided_loss_is_refused(trained_run, small_corpus, capsys):
    with pytest.raises(SystemExit):
        main([str(trained_run), "--corpus", str(small_corpus), "--loss", "gist"])
    assert "--loss gist needs a guide model" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    program = (
        "import sys\nfrom evaluation.selection import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'mteb', 'megatron_recipes'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "--mask-documents" in done.stdout and "--budget" in done.stdout and "--epochs" not in done.stdout
