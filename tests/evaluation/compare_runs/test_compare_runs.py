"""The gate passes runs that differ by noise and fails each kind of trouble, by the criterion that names it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from written_runs import STEPS, TOKENS, curves, settings, write_run

from evaluation.compare_runs import main
from evaluation.compare_runs.criteria import spikes, trend
from evaluation.compare_runs.curricula import curriculum_changes
from evaluation.compare_runs.same_data import described, differences
from mecellem.errors import UserError


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return write_run(tmp_path / "bf16", *curves(), validation=2.7)


def failed(run: Path) -> list[str]:
    record = json.loads((run / "compare_runs.json").read_text())
    assert record["passed"] is (not [item for item in record["criteria"] if not item["passed"]])
    return [item["name"] for item in record["criteria"] if not item["passed"]]


def fp8_run(tmp_path: Path, losses: np.ndarray, norms: np.ndarray, **keywords) -> Path:
    return write_run(tmp_path / "fp8", losses, norms, config__precision="fp8_current", **keywords)


def test_a_run_passes_beside_itself_and_beside_one_that_differs_by_noise(a: Path, tmp_path: Path):
    shutil.copytree(a, tmp_path / "copy")
    assert main([str(a), str(tmp_path / "copy")]) == 0
    losses, norms = curves(seed=8)
    b = fp8_run(tmp_path, losses + 0.003, norms * 1.03, validation=2.706, config__parallel={"tensor": 2, "pipeline": 1})
    assert main([str(a), str(b)]) == 0
    record = json.loads((b / "compare_runs.json").read_text())
    values = {item["name"]: item["value"] for item in record["criteria"]}
    assert values["loss gap"] == pytest.approx(0.003, abs=0.003)
    assert values["gradient norms"] == pytest.approx(1.03, abs=0.01)
    assert values["validation loss gap"] == pytest.approx(0.006)
    assert (record["first_step"], record["last_step"], record["warmup_tokens"]) == (41, STEPS, 40 * TOKENS)
    assert {item["name"] for item in record["differences"]} == {"precision", "parallel.tensor"}
    assert (b / "compare_runs.png").read_bytes().startswith(b"\x89PNG")


def test_what_happens_before_warm_up_ends_does_not_count(a: Path, tmp_path: Path):
    losses, norms = curves(seed=8)
    losses[:40] += 0.5
    b = fp8_run(tmp_path, losses, norms)
    assert main([str(a), str(b)]) == 0
    assert main([str(a), str(b), "--warmup-tokens", "0"]) == 1
    assert failed(b) == ["loss gap"]


TIME = np.linspace(0, 1, STEPS)
TROUBLE = {
    "a higher loss": (lambda losses, norms: (losses + 0.02, norms), ["loss gap"]),
    "a lower loss": (lambda losses, norms: (losses - 0.02, norms), ["loss gap"]),
    "rising away": (lambda losses, norms: (losses + 0.2 * TIME**4, norms), ["loss gap", "divergence"]),
    "about to rise away": (lambda losses, norms: (losses - 0.008 + 0.016 * TIME**6, norms), ["divergence"]),
    "larger gradients": (lambda losses, norms: (losses, norms * 1.6), ["gradient norms"]),
    "vanishing gradients": (lambda losses, norms: (losses, norms / 1.6), ["gradient norms"]),
    "spikes": (lambda losses, norms: (losses, norms * np.where(np.arange(STEPS) % 80 == 79, 20, 1)), ["gradient spikes"]),
}


@pytest.mark.parametrize("kind", TROUBLE)
def test_trouble_is_named(a: Path, tmp_path: Path, kind: str):
    change, expected = TROUBLE[kind]
    b = fp8_run(tmp_path, *change(*curves(seed=8, own=0.001)))
    assert main([str(a), str(b)]) == 1
    assert failed(b) == expected


def test_a_lower_loss_is_explained(a: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    losses, norms = curves(seed=8)
    main([str(a), str(fp8_run(tmp_path, losses - 0.05, norms))])
    assert "B's loss is lower than A's" in capsys.readouterr().out


def test_a_run_that_stopped_early_fails(a: Path, tmp_path: Path):
    losses, norms = curves(seed=8)
    assert main([str(a), str(fp8_run(tmp_path, losses[:300], norms[:300]))]) == 1
    assert failed(tmp_path / "fp8") == ["steps"]


def test_missing_numbers_fail_without_hiding_behind_the_average(a: Path, tmp_path: Path):
    b = fp8_run(tmp_path, *curves(seed=8))
    lines = (b / "metrics.jsonl").read_text().splitlines()
    row = json.loads(lines[200])
    lines[200] = json.dumps({**row, "loss": None})
    (b / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert main([str(a), str(b)]) == 1
    assert "not finite" in failed(b) and "loss gap" in failed(b)
    assert (b / "compare_runs.png").read_bytes().startswith(b"\x89PNG")


def test_a_validation_loss_apart_fails(a: Path, tmp_path: Path):
    assert main([str(a), str(fp8_run(tmp_path, *curves(seed=8), validation=2.72))]) == 1
    assert failed(tmp_path / "fp8") == ["validation loss gap"]


def test_limits_are_flags(a: Path, tmp_path: Path):
    losses, norms = curves(seed=8)
    b = fp8_run(tmp_path, losses + 0.03, norms * 1.4)
    out = [str(tmp_path / name) for name in ("figures.json", "picture.png")]
    flags = ["--max-gap", "0.05", "--max-grad-norm-ratio", "1.5", "--json", out[0], "--plot", out[1]]
    assert main([str(a), str(b), *flags]) == 0
    assert Path(out[0]).exists() and Path(out[1]).exists() and not (b / "compare_runs.json").exists()
    for flag, value in (("--max-gap", "0"), ("--max-grad-norm-ratio", "1"), ("--smooth-steps", "-1")):
        with pytest.raises(UserError, match=flag):
            main([str(a), str(b), flag, value])


# ---- the same data


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"config__seed": 4321}, "seed: 1234 and 4321"),
        ({"config__optimizer__lr": 1e-3}, "optimizer.lr"),
        ({"config__data__train": "corpus/other"}, "data.train"),
        ({"tokenizer_sha256": "cd" * 32}, "tokenizer_sha256"),
        ({"steps": 500}, "steps: 400 and 500"),
        ({"curriculum": "stages: []\n"}, "curriculum"),
    ],
)
def test_other_data_is_refused_unless_allowed(a: Path, tmp_path: Path, change: dict, named: str):
    b = fp8_run(tmp_path, *curves(seed=8), **change)
    with pytest.raises(UserError, match=named):
        main([str(a), str(b)])
    assert not list(b.glob("compare_runs.*"))
    assert main([str(a), str(b), "--allow", named.split(":")[0]]) == 0


def test_a_curriculum_is_its_text_wherever_it_lies():
    a = settings(curriculum="stages: [one]", config__curriculum="here.yaml")
    b = settings(curriculum="stages: [one]", config__curriculum="there.yaml")
    assert [(item.name, item.expected) for item in differences(a, b)] == [("curriculum", True)]
    found = differences(a, {**b, "curriculum": "stages: [two]"})
    assert [item.expected for item in found] == [True, False]


CURRICULUM = """\
stages:
  - name: general
    tokens: 3.7B
    seq_len: 512
    global_batch_tokens: 4096
    lr: {peak: 1.0e-4, final: 1.0e-5, decay: cosine}
    sources:
      - {name: web, path: data/web, weight: 0.8}
      - {path: data/laws, weight: 0.2}
  - {name: long, tokens: 1B, seq_len: 512, global_batch_tokens: 4096, lr: 1.0e-5, sources: [{path: data/laws, weight: 1.0}]}
"""
CHANGED = CURRICULUM.replace("weight: 0.8}", "weight: 0.7, replay: true}").replace("1.0e-5, decay", "2.0e-5, decay")
CHANGED = CHANGED.replace("data/laws, weight: 0.2", "data/english, weight: 0.3").replace(
    "name: long, tokens: 1B", "name: end, tokens: 2B"
)
EVERY_CHANGE = [
    "stage 'long' only in A",
    "stage 'end' only in B",
    "stage 'general', source 'web', weight: 0.8 and 0.7",
    "stage 'general', source 'web', replay: nothing and True",
    "stage 'general', source 'laws' only in A",
    "stage 'general', source 'english' only in B",
    "stage 'general', lr, final: 1e-05 and 2e-05",
]


def test_changes_of_a_curriculum_are_named(a: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert curriculum_changes(CURRICULUM, CHANGED) == EVERY_CHANGE
    one = write_run(tmp_path / "one", *curves(), curriculum=CURRICULUM)
    other = write_run(tmp_path / "other", *curves(seed=8), curriculum=CHANGED)
    listed = f"curriculum: {'; '.join(EVERY_CHANGE[:5])}; and 2 more"
    with pytest.raises(UserError) as caught:
        main([str(one), str(other)])
    assert f"({listed})" in str(caught.value) and "characters" not in str(caught.value)
    assert main([str(one), str(other), "--allow", "curriculum"]) == 0
    assert f"differs {listed}" in " ".join(capsys.readouterr().out.split())


def test_an_order_of_stages_and_what_is_no_curriculum():
    first, rest = CURRICULUM.split("  - {name: long")
    swapped = f"stages:\n  - {{name: long{rest}{first.removeprefix('stages:')}".replace("\n\n", "\n")
    assert curriculum_changes(CURRICULUM, swapped) == ["the order of the stages"]
    for text in (None, "stages: [one]", "- 1", "stages: {", ""):
        assert curriculum_changes(CURRICULUM, text) is None
    (found,) = differences(settings(curriculum="stages: [one]"), settings(curriculum="x" * 80))
    assert described(found) == "curriculum: stages: [one] and a text of 80 characters"


def test_comments_and_layout_of_a_curriculum_do_not_count(a: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one = write_run(tmp_path / "one", *curves(), curriculum=CURRICULUM)
    other = write_run(
        tmp_path / "other", *curves(seed=8), curriculum="# the first\n" + CURRICULUM.replace("data/web, ", "data/web,  ")
    )
    assert main([str(one), str(other)]) == 0
    assert "differs curriculum: comments or layout only" in capsys.readouterr().out


def test_a_corpus_is_its_hashes_wherever_it_lies(tmp_path: Path):
    from mecellem.manifest import CorpusManifest, FileEntry, TokenizerEntry, write_manifest

    def corpus(name: str, contents: str) -> str:
        manifest = CorpusManifest(
            documents=1, tokens=1, dtype="uint16", tokenizer=TokenizerEntry(sha256="0", vocab_size=1, eod_id=0),
            files={f"{name}.bin": FileEntry(bytes=2, sha256=contents)}, sources=[], versions={},
        )  # fmt: skip
        write_manifest(tmp_path / name, manifest)
        return str(tmp_path / name)

    one, copy, other = corpus("one", "aa"), corpus("copy", "aa"), corpus("other", "bb")
    for second, expected in ((copy, True), (other, False), (str(tmp_path / "gone"), False)):
        found = differences(settings(config__data__train=one), settings(config__data__train=second))
        assert [(item.name, item.expected) for item in found] == [("data.train", expected)]


def test_other_batches_of_the_same_settings_are_refused(a: Path, tmp_path: Path):
    b = fp8_run(tmp_path, *curves(seed=8))
    text = (b / "metrics.jsonl").read_text().replace(f'"tokens": {5 * TOKENS},', f'"tokens": {5 * TOKENS + 1},')
    (b / "metrics.jsonl").write_text(text)
    with pytest.raises(UserError, match="step 5 is after"):
        main([str(a), str(b)])


def test_too_short_a_run_is_refused(a: Path, tmp_path: Path):
    b = fp8_run(tmp_path, *curves(steps=50, seed=8))
    with pytest.raises(UserError, match=r"10 steps in common after --warmup-tokens 163,840.*at least 20"):
        main([str(a), str(b)])


# ---- the parts


def test_a_trend_is_the_rise_of_a_line():
    assert trend(np.linspace(0, 2, 101)) == pytest.approx(1.0)
    assert trend(np.full(100, 3.0)) == pytest.approx(0.0, abs=1e-12)


def test_spikes_are_against_their_surroundings():
    norms = np.geomspace(10, 0.1, 300)  # falls a hundredfold without a spike
    assert not spikes(norms).any()
    norms[150] *= 6
    assert spikes(norms).nonzero()[0].tolist() == [150]


def test_the_command_shows_each_criterion_and_the_verdict(a: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    losses, norms = curves(seed=8)
    assert main([str(a), str(fp8_run(tmp_path, losses + 0.05, norms))]) == 1
    shown = capsys.readouterr().out
    assert "differs precision: bf16 and fp8_current" in shown and "FAIL: B does not train like A" in shown
    for name in ("steps", "not finite", "loss gap", "divergence", "gradient norms", "gradient spikes"):
        assert name in shown


def test_a_decoder_warms_up_as_its_first_stage_says(tmp_path: Path):
    """Its rates are its curriculum's: `run.yaml` has no schedule."""
    run = tmp_path / "run"
    stages = [
        {"name": "one", "tokens": 300 * TOKENS, "lr": {"peak": 1e-4, "warmup_tokens": 60 * TOKENS}},
        {"name": "two", "tokens": 100 * TOKENS, "lr": {"peak": 1e-4, "warmup_tokens": 10 * TOKENS}},
    ]
    rest = {"seq_len": 512, "global_batch_tokens": TOKENS, "sources": [{"path": "corpus/train", "weight": 1.0}]}
    text = yaml.safe_dump({"stages": [{**stage, **rest} for stage in stages]})
    decoder = settings(config__name="qwen3_1p7b_cpt", curriculum=text)
    del decoder["config"]["schedule"]
    for folder in (run, tmp_path / "copy"):
        write_run(folder, *curves())
        (folder / "run.yaml").write_text(yaml.safe_dump(decoder), encoding="utf-8")
    assert main([str(run), str(tmp_path / "copy")]) == 0
    record = json.loads((tmp_path / "copy" / "compare_runs.json").read_text())
    assert (record["first_step"], record["warmup_tokens"]) == (61, 60 * TOKENS)
