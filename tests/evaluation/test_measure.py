from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import zstandard

from evaluation.measure import SYSTEMS, evaluate_folder
from evaluation.results import EvaluationResults, read_record
from evaluation.select import main
from mecellem.errors import UserError
from post_training import contrastive
from preprocessing.corpus.read_split import read_split

FLAGS = [
    "--mask-documents", "60", "--mask-length", "96", "--max-queries", "60", "--max-documents", "150", "--steps", "6",
    "--batch-size", "16", "--max-seq-length", "48", "--sample-sentences", "4", "--device", "cpu",
]  # fmt: skip


def test_the_command_from_start_to_cache(small_model, small_corpus, tmp_path, capsys, monkeypatch):
    model = shutil.copytree(small_model, tmp_path / "hf")
    out = tmp_path / "results.json"
    arguments = [str(model), "--corpus", str(small_corpus), "--out", str(out), *FLAGS]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for text in ("unigram", "BM25", "random weights", "ataturk", "left out: libreoffice_title", "took"):
        assert text in printed
    results = read_record(out, EvaluationResults, "")
    assert set(results.systems) == set(SYSTEMS) and results.corpus["folder"] == str(small_corpus)
    for system in results.systems.values():
        for task in results.tasks:
            scores = system.tasks[task.name]
            assert 0 <= scores.interval[0] <= scores.ndcg_10 <= scores.interval[1] <= 1
            assert len(scores.per_query) == task.queries
    assert results.unigram.all.masked == results.fill_mask.all.masked
    assert results.systems["bm25"].mean_ndcg_10 > results.systems["random_mean_pooled"].mean_ndcg_10 > 0

    # again: nothing is computed; other weights: only what depends on them
    monkeypatch.setattr("evaluation.measure.fill_mask", forbidden)
    monkeypatch.setattr("evaluation.measure.train_contrastive", forbidden)
    monkeypatch.setattr("evaluation.measure.rank_bm25", forbidden)
    assert main(arguments) == 0
    assert json.loads(out.read_text())["systems"] == json.loads(results.model_dump_json())["systems"]
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (model / "model.safetensors").write_bytes(data)
    with pytest.raises(AssertionError, match="computed again"):
        main(arguments)


def forbidden(*_, **__):
    raise AssertionError("computed again")


def test_other_weights_reuse_the_baselines(evaluated_run):
    names = [path.name.rsplit("-", 1)[0] for path in (evaluated_run / "evaluation" / "cache").iterdir()]
    counts = {name: names.count(name) for name in set(names)}
    # two checkpoints: two sets of masks and samples, one of everything else; dense: two random, two times two model
    assert counts == {"unigram": 1, "bm25": 1, "random": 1, "embedding": 1, "fill-mask": 2, "samples": 2, "dense": 6}


def test_an_interrupted_evaluation_goes_on(small_model, small_corpus, settings, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("evaluation.measure.train_contrastive", stop)
        evaluate_folder(small_model, small_corpus, tmp_path / "r.json", tmp_path / "cache", settings, device="cpu")
    assert not (tmp_path / "r.json").exists()
    monkeypatch.setattr("evaluation.measure.fill_mask", forbidden)
    monkeypatch.setattr("evaluation.measure.unigram", forbidden)
    results = evaluate_folder(small_model, small_corpus, tmp_path / "r.json", tmp_path / "cache", settings, device="cpu")
    assert len(results.post_training["model"].losses) == settings.post_training.steps


def test_other_code_is_not_answered_from_the_cache(small_model, plain_corpus, settings, tmp_path, monkeypatch):
    arguments = (small_model, plain_corpus, tmp_path / "r.json", tmp_path / "cache", settings)
    evaluate_folder(*arguments, device="cpu")
    monkeypatch.setattr("evaluation.measure.fill_mask", forbidden)
    evaluate_folder(*arguments, device="cpu")
    monkeypatch.setattr("evaluation.measure.source_sha256", lambda *_: "other code")
    with pytest.raises(AssertionError, match="computed again"):
        evaluate_folder(*arguments, device="cpu")


def test_a_plain_corpus_is_measured_by_fill_mask(small_model, plain_corpus, tmp_path, capsys):
    arguments = [str(small_model), "--corpus", str(plain_corpus), "--out", str(tmp_path / "results.json"), *FLAGS]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert sum("retrieval was not measured" in line for line in printed.splitlines()) == 1
    results = read_record(tmp_path / "results.json", EvaluationResults, "")
    assert (results.tasks, results.systems, results.post_training) == ([], {}, {})
    assert set(results.fill_mask.by_source) == {"corpus"} and results.fill_mask.all.documents > 0


def test_titles_of_any_source_make_a_task(small_model, small_corpus, tmp_path, capsys):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split in ("train", "test"):
        speeches = [item for item in read_split(small_corpus, split) if item.source == "ataturk"]
        lines = [json.dumps({"title": item.title, "text": item.text, "source": "nutuklar"}) for item in speeches]
        (corpus / f"{split}.jsonl").write_text("\n".join(lines))
    assert main([str(small_model), "--corpus", str(corpus), "--out", str(tmp_path / "results.json"), *FLAGS]) == 0
    results = read_record(tmp_path / "results.json", EvaluationResults, "")
    assert [task.name for task in results.tasks] == ["nutuklar_title"] and results.left_out == []
    assert results.systems["bm25"].mean_ndcg_10 > 0.3 and "nutuklar" in capsys.readouterr().out


def test_help_imports_nothing_heavy():
    program = (
        "import sys\nfrom evaluation.select import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pydantic', 'yaml', 'megatron_recipes'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "--mask-documents" in done.stdout, done.stderr


def test_bad_input_is_told_before_any_work(small_model, small_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(contrastive, "train_contrastive", forbidden)
    out, cache = tmp_path / "out.json", tmp_path / "cache"
    with pytest.raises(UserError, match="not a model folder"):
        evaluate_folder(tmp_path / "none", small_corpus, out, cache)
    with pytest.raises(UserError, match="not a corpus folder"):
        evaluate_folder(small_model, tmp_path / "none", out, cache)
    empty = shutil.copytree(small_corpus, tmp_path / "empty")
    (empty / "test.jsonl.zst").write_bytes(zstandard.compress(b""))
    with pytest.raises(UserError, match=r"test\.jsonl\.zst has no documents"):
        evaluate_folder(small_model, empty, out, cache)
    bare = shutil.copytree(small_model, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"tokenizer\.json is missing"):
        evaluate_folder(bare, small_corpus, out, cache)
    assert not out.exists() and not cache.exists()
