"""Continual pre-training through the command line: layouts, stages, resuming, starting weights, changed curricula."""

import json
import shutil
from pathlib import Path

import pytest
from training_runs import LAST_STAGE, Runner, checkpoint_names, losses, metrics, validation_losses

from evaluation.report import main as report
from megatron_recipes.run_folder import read_run
from megatron_recipes.train import summarise
from preprocessing.tokens.tokenize import tokenize_corpus

LAYOUTS = {
    "TP2 + SP": {"parallel.tensor": 2, "parallel.sequence": True},
    "PP2": {"parallel.pipeline": 2},
    "CP2": {"parallel.context": 2},
    "DP2": {"nproc": 2},
    "TP2 x CP2 + SP": {"parallel.tensor": 2, "parallel.context": 2, "parallel.sequence": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_losses_of_both_stages_equal_the_single_process(
    name: str, decoder_runner: Runner, decoder_reference: Path, tmp_path: Path
):
    decoder_runner(tmp_path / "run", **LAYOUTS[name])
    expected, found = losses(decoder_reference), losses(tmp_path / "run")
    assert len(expected) == 6 and found.keys() == expected.keys()
    assert found == pytest.approx(expected, rel=1e-5)
    assert validation_losses(tmp_path / "run") == pytest.approx(validation_losses(decoder_reference), rel=1e-5)
    assert expected[6] < expected[1]  # and it learns


@pytest.mark.slow
def test_rates_tokens_and_the_model_of_each_stage(decoder_reference: Path):
    lines = [line for line in metrics(decoder_reference) if "loss" in line]
    assert [line["tokens"] for line in lines] == [1024 * step for step in range(1, 7)]
    rates = [1.5e-3, 3e-3, 3e-3, 3e-3 - 2.7e-3 / 3, 3e-3 - 2 * 2.7e-3 / 3, 3e-4]
    assert [line["lr"] for line in lines] == pytest.approx(rates)
    assert checkpoint_names(decoder_reference) == [f"step_000000{step}" for step in (2, 4, 6)]
    meta = {
        step: json.loads((decoder_reference / "checkpoints" / f"step_000000{step}" / "mecellem.json").read_text())
        for step in (2, 4)
    }
    assert meta[2]["model"]["rope_theta"] == 1e6 and meta[2]["model"]["rope_scaling"]["rope_type"] == "none"
    assert meta[4]["model"]["rope_theta"] == 2e6 and meta[4]["model"]["rope_scaling"]["factor"] == 2.0


def stopped_at(reference: Path, run: Path, step: int) -> Path:
    """A copy of the reference run as it was when checkpoint `step` had just been written."""
    shutil.copytree(reference, run)
    for name in checkpoint_names(run):
        if int(name.removeprefix("step_")) > step:
            shutil.rmtree(run / "checkpoints" / name)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 4])
def test_resumed_in_either_stage_it_ends_bit_for_bit(
    step: int, decoder_runner: Runner, decoder_reference: Path, tmp_path: Path
):
    run = stopped_at(decoder_reference, tmp_path / "run", step)
    decoder_runner(run)
    assert losses(run) == losses(decoder_reference)
    assert validation_losses(run) == validation_losses(decoder_reference)


@pytest.mark.slow
def test_resumed_with_another_world_size_no_sample_is_lost(decoder_runner: Runner, decoder_reference: Path, tmp_path: Path):
    run = stopped_at(decoder_reference, tmp_path / "run", 2)
    decoder_runner(run, nproc=2, **{"parallel.context": 2, "micro-batch-tokens": 512})
    assert losses(run) == pytest.approx(losses(decoder_reference), rel=1e-5)


@pytest.mark.slow
def test_a_changed_curriculum_is_asked_about(
    decoder_runner: Runner, decoder_reference: Path, decoder_data: Path, tmp_path: Path
):
    run, changed = stopped_at(decoder_reference, tmp_path / "run", 4), tmp_path / "changed.yaml"
    text = (decoder_data / "curriculum").read_text()
    changed.write_text(text.replace("weight: 0.6", "weight: 0.9").replace("weight: 0.4", "weight: 0.1"))
    output = decoder_runner(run, code=2, curriculum=changed)
    assert "has changed since it began" in output and "--accept-changed-curriculum" in output
    output = decoder_runner(run, curriculum=changed, **{"accept-changed-curriculum": True})
    assert "resumed at step 4 of 6" in output
    assert losses(run).keys() == losses(decoder_reference).keys()
    assert losses(run)[4] == losses(decoder_reference)[4] and losses(run)[5] != losses(decoder_reference)[5]
    record = read_run(run)
    assert record["curriculum"] == changed.read_text()
    assert record["earlier_curricula"] == [{"replaced_after_step": 4, "curriculum": text}]
    output = decoder_runner(run, curriculum=changed)
    assert "resumed at step 6 of 6: nothing is left to train" in output and read_run(run) == record
    assert report([str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "Until step 4 (4.1k tokens) another curriculum held" in page and page.count("data:image/png") == 6
    past = tmp_path / "past.yaml"
    past.write_text(text.replace("weight: 0.75", "weight: 0.5").replace("weight: 0.25", "weight: 0.5"))
    other = stopped_at(decoder_reference, tmp_path / "other", 4)
    recorded = (other / "run.yaml").read_text()
    output = decoder_runner(other, code=2, curriculum=past, **{"accept-changed-curriculum": True})
    assert "finished" in output and (other / "run.yaml").read_text() == recorded


@pytest.mark.slow
def test_starting_from_a_checkpoint(decoder_runner: Runner, decoder_reference: Path, tmp_path: Path):
    last = decoder_reference / "checkpoints" / "step_0000006"
    model = {**LAST_STAGE, "init-from": last}
    decoder_runner(tmp_path / "run", nproc=2, precision="bf16", **model)
    found, before = losses(tmp_path / "run"), losses(decoder_reference)
    # it knows what the other run has learned, also after the optimizer has copied its FP32 weights into the BF16 ones
    assert all(found[step] < before[3] for step in range(1, 7)), found
    output = decoder_runner(tmp_path / "run", code=2, nproc=2, precision="bf16", **LAST_STAGE)
    assert "was started with --init-from" in output
    output = decoder_runner(tmp_path / "refused", code=2, **model | {"model.num-query-groups": 4})
    assert "num_query_groups 2 (the run: 4)" in output and not (tmp_path / "refused").exists()


@pytest.mark.slow
def test_a_source_with_fewer_tokens_than_asked(decoder_runner: Runner, decoder_data: Path, tmp_path: Path):
    greedy = tmp_path / "greedy.yaml"
    greedy.write_text((decoder_data / "curriculum").read_text().replace("tokens: 3_072", "tokens: 30M"))
    output = decoder_runner(tmp_path / "run", code=2, curriculum=greedy)
    assert "greedy.yaml" in output and "max_epochs" in output and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_validation_corpus_whose_documents_end_otherwise(decoder_runner: Runner, decoder_data: Path, tmp_path: Path):
    tokenize_corpus([decoder_data / "validation.jsonl"], decoder_data / "tokenizer", tmp_path / "validation", eod="[PAD]")
    output = decoder_runner(tmp_path / "run", code=2, **{"data.validation": tmp_path / "validation"})
    assert "ends documents with id" in output and "the same --eod" in output and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_latest_is_not_a_checkpoint(decoder_runner: Runner, decoder_reference: Path, tmp_path: Path):
    latest = decoder_reference / "checkpoints" / "latest"
    output = decoder_runner(tmp_path / "run", code=2, **{"init-from": latest})
    assert "names the newest checkpoint: give that folder" in output


def test_a_run_that_was_stopped_before_its_first_step_saved_nothing(tmp_path: Path):
    said: list[str] = []
    summarise(tmp_path, 32, said.append)
    assert said == ["stopped before the first of 32 steps: nothing to save; the same command starts it"]
