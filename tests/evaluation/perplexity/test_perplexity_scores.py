"""Losses equal a naive loop with transformers; a checkpoint and its export agree; intervals, changes, files, refusals."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from causal_models import write_model

from evaluation.perplexity import main
from evaluation.perplexity.measure import measure_models, names_of
from evaluation.perplexity.models import check_model, open_tokenizer
from evaluation.perplexity.results import PerplexityResults
from evaluation.perplexity.scoring import batches, score_documents
from evaluation.perplexity.settings import PerplexitySettings
from evaluation.perplexity.statistics import interval, ratio, ratio_difference
from evaluation.perplexity.windows import windows
from mecellem.errors import UserError

SETTINGS = PerplexitySettings(window=48, stride=20, domain_field="branch", batch_tokens=200)
SAMPLE = [
    "Anayasa Mahkemesi, kanunların Anayasaya uygunluğunu denetler. " * 6,
    "Yargı yetkisi",
    "ş",
    "İlk derece: ığüşöç.\n" * 9,
]


def naive(folder: Path, text: str, window: int, stride: int) -> tuple[float, int]:
    """Sum of losses and tokens, one forward pass a token, with the context that its window has."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = [start, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    total, place = 0.0, 1
    with torch.no_grad():
        while place < len(ids):
            if place == 1:
                end, first = min(window, len(ids) - 1), 0
            else:
                end = min(place - 1 + stride, len(ids) - 1)
                first = end - window
            while place <= end:
                logits = model(torch.tensor([ids[first:place]])).logits[0, -1]
                total -= float(logits.log_softmax(-1)[ids[place]])
                place += 1
    return total, len(ids) - 1


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize(("window", "stride"), [(16, 16), (16, 5), (256, 256)])
def test_losses_equal_a_naive_loop(family: str, window: int, stride: int, request: pytest.FixtureRequest):
    folder = request.getfixturevalue(family)
    settings = replace(SETTINGS, window=window, stride=stride)
    found = score_documents(check_model(folder), SAMPLE, settings, "cpu", "")
    for text, nll, tokens in zip(SAMPLE, found.nll, found.tokens, strict=True):
        expected, count = naive(folder, text, window, stride)
        assert tokens == count
        assert nll == pytest.approx(expected, rel=1e-5)
    assert [count > 1 for count in found.windows] == [tokens > window for tokens in found.tokens]


def test_batches_hold_every_window_once_and_change_no_result(llama: Path):
    work = [(document, part) for document, size in enumerate((3, 50, 17, 48, 49)) for part in windows(size, 16, 7)]
    made = list(batches(work, 40))
    assert sorted(item for batch in made for item in batch) == sorted(work)
    assert all(len(batch) * max(w.end - w.start for _, w in batch) <= 40 or len(batch) == 1 for batch in made)
    source = check_model(llama)
    one, many = (score_documents(source, SAMPLE, replace(SETTINGS, batch_tokens=n), "cpu", "").nll for n in (1, 4096))
    assert one == pytest.approx(many, rel=1e-6)


def test_the_start_token_is_bos_else_eos(llama: Path, qwen3: Path, tmp_path: Path):
    for folder, name in ((llama, "bos_token_id"), (qwen3, "eos_token_id")):
        tokenizer, start = open_tokenizer(check_model(folder))
        assert start == getattr(tokenizer, name)
    shutil.copytree(qwen3, tmp_path / "none")
    path = tmp_path / "none" / "tokenizer_config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in values.items() if name not in ("eos_token", "bos_token")}))
    with pytest.raises(UserError, match="neither a bos_token nor an eos_token"):
        open_tokenizer(check_model(tmp_path / "none"))


# ---- both formats


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_checkpoint_and_its_export_have_the_same_perplexity(
    family: str, dtype: torch.dtype, texts: Path, sample_tokenizer: Path, tmp_path: Path
):
    from conversion.hf_import import import_folder

    # as many rows as SmolLM2's embedding has, of which the tokenizer uses some
    folder = write_model(tmp_path / "hf", sample_tokenizer, family, seed=3, dtype=dtype, rows=49_000)
    import_folder(folder, tmp_path / "step_0000000")
    results = measure_models(
        [folder, tmp_path / "step_0000000"], [texts], tmp_path / "out.json", tmp_path / "cache", SETTINGS, "cpu"
    )
    ours, theirs = results.models
    assert (ours.kind, theirs.kind) == ("hugging_face", "megatron")
    assert theirs.all.perplexity == pytest.approx(ours.all.perplexity, rel=1e-5)
    for domain, score in ours.by_domain.items():
        assert theirs.by_domain[domain].nll == pytest.approx(score.nll, rel=1e-6)
    assert theirs.change is not None and abs(theirs.change.bits_per_byte) < 1e-5


# ---- figures


def test_figures_are_sums_over_tokens_and_bytes(llama: Path, qwen3: Path, texts: Path, tmp_path: Path):
    results = measure_models([llama, qwen3], [texts], tmp_path / "out.json", tmp_path / "cache", SETTINGS, "cpu")
    records = [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()]
    records = [record for record in records if record["text"].strip()]
    losses = score_documents(check_model(llama), [record["text"] for record in records], SETTINGS, "cpu", "")
    sizes = [len(record["text"].encode()) for record in records]
    first, second = results.models
    assert first.all.tokens == sum(losses.tokens) and first.all.bytes == sum(sizes) == results.texts.bytes
    assert first.all.perplexity == pytest.approx(math.exp(sum(losses.nll) / sum(losses.tokens)))
    assert first.all.bits_per_byte == pytest.approx(sum(losses.nll) / math.log(2) / sum(sizes))
    speech = [number for number, record in enumerate(records) if record.get("branch") == "speech"]
    expected = sum(losses.nll[n] for n in speech) / sum(losses.tokens[n] for n in speech)
    assert first.by_domain["speech"].nll == pytest.approx(expected)
    assert first.by_domain["hukuk"].perplexity_interval is None  # one document
    low, high = first.all.perplexity_interval
    assert low < first.all.perplexity < high
    assert first.long_documents == sum(tokens > 48 for tokens in losses.tokens) > 0
    change = second.change
    assert first.change is None and change is not None
    assert change.bits_per_byte == pytest.approx(second.all.bits_per_byte - first.all.bits_per_byte)
    assert change.perplexity == pytest.approx(second.all.perplexity / first.all.perplexity - 1)
    assert results.texts.empty == 1 and results.texts.documents == 33


def test_other_tokens_have_no_change_of_perplexity_but_one_of_bits_per_byte(llama: Path, texts: Path, tmp_path: Path):
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    letters = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    other = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", cls_token="<end>", sep_token="<end>", pad_token="<end>"
    )
    other.save_pretrained(tmp_path / "letters")
    model = write_model(tmp_path / "bytes", tmp_path / "letters", "llama")
    results = measure_models([llama, model], [texts], tmp_path / "out.json", tmp_path / "cache", SETTINGS, "cpu")
    change = results.models[1].change
    assert change is not None and change.perplexity is None and change.perplexity_interval is None
    assert results.models[1].all.tokens == results.models[1].all.bytes
    assert results.models[1].all.bits_per_byte == pytest.approx(results.models[1].all.nll / math.log(2))


def test_intervals_are_those_of_the_documents():
    generator = np.random.default_rng(0)
    tokens = generator.integers(50, 500, 200).astype(float)
    nll = tokens * generator.normal(2.0, 0.3, 200)
    low, high = interval(ratio, (nll, tokens), 0)
    # the delta method's standard error of a ratio of sums
    error = math.sqrt(np.var(nll - tokens * nll.sum() / tokens.sum()) * 200) / tokens.sum()
    assert low == pytest.approx(ratio((nll, tokens)) - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(ratio((nll, tokens)) + 1.96 * error, abs=0.25 * error)
    assert (low, high) == interval(ratio, (nll, tokens), 0) != interval(ratio, (nll, tokens), 1)
    assert interval(ratio, ([1.0], [2.0]), 0) is None


def test_a_paired_interval_sees_what_both_models_share():
    generator = np.random.default_rng(0)
    tokens = np.full(60, 100.0)
    first = tokens * generator.normal(2.0, 0.5, 60)
    second = first - tokens * generator.normal(0.02, 0.01, 60)
    low, high = interval(ratio_difference, (first, tokens, second, tokens), 0)
    assert -0.03 < low < high < -0.01  # though each model's own interval is ten times as wide
    assert interval(ratio_difference, (first, tokens, first, tokens), 0) == (0.0, 0.0)


# ---- the command


def test_the_command_writes_json_and_png_and_shows_a_table(
    llama: Path, qwen3: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = ["--window", "48", "--stride", "20", "--domain-field", "branch", "--device", "cpu"]
    arguments = [str(llama), str(qwen3), "--texts", str(texts), "--out", str(tmp_path / "out" / "p.json"), *flags]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for word in ("speech", "sentence", "all", "llama", "qwen3", "bits/byte", "documents longer than the window", "1 empty"):
        assert word in shown
    first = PerplexityResults.model_validate_json((tmp_path / "out" / "p.json").read_bytes())
    assert (tmp_path / "out" / "p.png").read_bytes().startswith(b"\x89PNG")
    cached = sorted((tmp_path / "out" / "cache").iterdir())
    assert len(cached) == 2
    assert main(arguments) == 0  # nothing is computed again
    assert sorted((tmp_path / "out" / "cache").iterdir()) == cached
    assert PerplexityResults.model_validate_json((tmp_path / "out" / "p.json").read_bytes()) == first
    assert main([*arguments, "--stride", "48"]) == 0
    assert len(list((tmp_path / "out" / "cache").iterdir())) == 4


def test_models_are_checked_without_torch():
    heavy = "{'torch', 'transformers', 'megatron'}"
    code = f"import sys, evaluation.perplexity.models; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


def test_names_are_as_short_as_they_can_be():
    assert names_of([Path("/a/base"), Path("/b/trained")]) == ["base", "trained"]
    assert names_of([Path("/a/hf"), Path("/b/hf")]) == ["a/hf", "b/hf"]


def refused(tmp_path: Path, message: str, *models: Path, **fields) -> None:
    texts = tmp_path / "one.jsonl"
    texts.write_text('{"text": "Bir metin."}\n', encoding="utf-8")
    with pytest.raises(UserError, match=message):
        measure_models(models, [texts], tmp_path / "out.json", tmp_path / "cache", replace(SETTINGS, **fields), "cpu")
    assert not (tmp_path / "out.json").exists() and not (tmp_path / "cache").exists()


def test_bad_models_are_refused_before_any_work(llama: Path, small_model: Path, tmp_path: Path):
    refused(tmp_path, "no model was given")
    refused(tmp_path, "is not a folder", tmp_path / "none")
    refused(tmp_path, "named twice", llama, llama)
    refused(tmp_path, "is of ModernBertForMaskedLM, which has no perplexity", llama, small_model)
    refused(tmp_path, "--window 512 is more than the 256 positions", llama, window=512)
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.yaml").write_text("")
    refused(tmp_path, r"is a run, not a model: give one of its checkpoints", run)
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(tmp_path, "neither config.json nor mecellem.json", empty)
    for name, damage, message in (
        ("pickle", lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "never loaded"),
        ("cut", lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:999]), "truncated"),
        ("silent", lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    ):
        shutil.copytree(llama, tmp_path / name)
        damage(tmp_path / name)
        refused(tmp_path, message, llama, tmp_path / name)
