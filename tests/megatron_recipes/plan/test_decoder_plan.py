import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mecellem.errors import UserError
from mecellem.manifest import CorpusManifest, FileEntry, TokenizerEntry, write_manifest
from megatron_recipes.config import DecoderConfig, Fp8Config, ParallelConfig
from megatron_recipes.plan import count_parameters, plan, print_plan
from megatron_recipes.plan.decoder import DecoderPlan, decoder_flops_per_token, decoder_memory
from megatron_recipes.recipes import RECIPES, find_recipe

PUBLISHED = {  # numbers of parameters of the released models
    "qwen3_0p6b_cpt": 596_049_920,
    "qwen3_1p7b_cpt": 1_720_574_976,
    "qwen3_4b_cpt": 4_022_468_096,
    "qwen3_8b_cpt": 8_190_735_360,
    "smollm2_135m_cpt": 134_515_008,
}
NON_EMBEDDING = {"qwen3_0p6b_cpt": 0.44, "qwen3_1p7b_cpt": 1.4, "qwen3_4b_cpt": 3.6, "qwen3_8b_cpt": 6.95}  # model cards, 10^9
TINY = DecoderConfig(
    family="qwen3",
    num_layers=2,
    hidden_size=32,
    ffn_hidden_size=48,
    num_attention_heads=4,
    num_query_groups=2,
    head_dim=16,
    vocab_size=200,
    max_sequence_length=320,
    rope_theta=1e4,
)
FOUR_LAYERS = replace(TINY, num_layers=4)  # of which FP8 leaves two in BF16
CURRICULUM = """
stages:
  - name: first
    tokens: 64_000
    seq_len: 64
    global_batch_tokens: 1280
    lr: {peak: 1.0e-3, warmup_tokens: 6400}
    sources:
      - {name: law, path: LAW, weight: 0.75, max_epochs: 4}
      - {name: english, path: ENGLISH, weight: 0.25, replay: true}
  - name: second
    tokens: 12_800
    seq_len: 320
    global_batch_tokens: 1280
    lr: {peak: 1.0e-3, final: 1.0e-4, decay: linear}
    sources:
      - {name: law, path: LAW, weight: 1.0, max_epochs: 4}
"""


def transformers_model(model: DecoderConfig):
    """The same shape in transformers, without memory for its weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    configs, classes = {"qwen3": Qwen3Config, "llama": LlamaConfig}, {"qwen3": Qwen3ForCausalLM, "llama": LlamaForCausalLM}
    config = configs[model.family](
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        intermediate_size=model.ffn_hidden_size,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_attention_heads,
        num_key_value_heads=model.num_query_groups,
        head_dim=model.head_dim,
        max_position_embeddings=model.max_sequence_length,
        tie_word_embeddings=model.tie_embeddings,
    )
    with torch.device("meta"):
        return classes[model.family](config)


def tiny_run(folder: Path, **changes):
    """A run of TINY through CURRICULUM whose corpora would stand in `folder`."""
    path = folder / "curriculum.yaml"
    path.write_text(CURRICULUM.replace("LAW", str(folder / "law")).replace("ENGLISH", str(folder / "english")))
    base = find_recipe("smollm2_135m_cpt")()
    return replace(base, model=TINY, curriculum=path, micro_batch_tokens=640, **changes)


def write_corpora(folder: Path, law: int = 30_000) -> None:
    tokenizer = TokenizerEntry(sha256="", vocab_size=200, eod_id=0)
    for name, tokens in {"law": law, "english": 40_000}.items():
        files = {f"{name}.bin": FileEntry(bytes=2 * tokens, sha256=name)}
        manifest = CorpusManifest(
            documents=10, tokens=tokens, dtype="uint16", tokenizer=tokenizer, files=files, sources=[], versions={}
        )
        write_manifest(folder / name, manifest)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name):
    model = find_recipe(name)().model
    counts = count_parameters(model)
    assert counts.total == PUBLISHED[name] == transformers_model(model).num_parameters()
    if name in NON_EMBEDDING:
        assert counts.non_embedding / 1e9 == pytest.approx(NON_EMBEDDING[name], rel=0.01)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("_cpt")])
def test_every_decoder_recipe_has_a_plan_and_fits(name, capsys):
    config = find_recipe(name)()
    for gpus in (1, 2) if name == "smollm2_135m_cpt" else (8, 64):
        p = plan(config, gpus=gpus)
        assert p.fits
        print_plan(p)
        assert f"{PUBLISHED[name]:,}" in capsys.readouterr().out


def test_the_papers_runs():
    small, large = plan(find_recipe("qwen3_1p7b_cpt")(), gpus=256), plan(find_recipe("qwen3_4b_cpt")(), gpus=256)
    assert small.tokens == pytest.approx(3.7e9 + 57e9 + 165e9 + 24.9e9, rel=1e-4)
    assert large.tokens == pytest.approx(270_791_712_595, rel=1e-4)
    assert large.flops == pytest.approx(7.5e21, rel=0.02)  # 6 x 4.0e9 x 2.7e11 = 6.5e21, and attention over 4,096 tokens
    assert [stage.steps for stage in small.curriculum.stages] == [883, 13_590, 39_340, 5_937]


def test_flops_are_those_that_torch_counts():
    """torch's own counter, which counts scores above the diagonal as well: twice the plan's attention, but one token."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    reference = transformers_model(TINY).to_empty(device="cpu")
    reference.set_attn_implementation("eager")  # torch does not count inside the CPU's fused attention
    tokens = torch.randint(0, 200, (2, 24))
    with FlopCounterMode(display=False) as counter:
        reference(tokens, labels=tokens).loss.backward()
    matrices, attention = decoder_flops_per_token(TINY, 24)
    assert (matrices + attention * 2 * 24 / 25) * tokens.numel() == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_memory_of_layouts(tmp_path):
    config = tiny_run(tmp_path, precision="bf16", layer_spec="local")
    stage = plan(config, gpus=1).curriculum.stages[0]

    def at(data_parallel: int = 1, **parallel):
        return decoder_memory(replace(config, parallel=ParallelConfig(**parallel)), stage, data_parallel)

    single, cp, tp, pp = at(), at(context=2), at(tensor=2, sequence=True), at(pipeline=2)
    counts = count_parameters(TINY)
    weights = counts.total + (256 - 200) * TINY.hidden_size  # vocabulary padding
    assert single.weights == 2 * weights and single.gradients == 4 * weights and single.optimizer == 12 * weights
    # 640 tokens x 2 layers x 2 bytes x (4h + Q, K, V, context + Q and K before their norms + gate, up, SiLU, product)
    assert single.activations == 640 * 2 * 2 * (4 * 32 + 2 * 64 + 2 * 32 + 64 + 32 + 4 * 48)
    assert single.logits == 640 * 256 * 10
    assert cp.activations == single.activations / 2 and cp.logits == single.logits / 2 and cp.weights == single.weights
    assert cp.optimizer == single.optimizer / 2 == at(data_parallel=2).optimizer
    assert tp.activations == single.activations / 2 and tp.logits == single.logits / 2
    assert pp.weights < single.weights and pp.total < single.total
    untied = replace(config, model=replace(TINY, tie_embeddings=False))
    assert decoder_memory(untied, stage, 1).weights == 2 * (weights + 256 * 32)
    fp32 = decoder_memory(replace(config, precision="fp32"), stage, 1)
    assert fp32.activations == 2 * single.activations and fp32.optimizer == 8 * weights


def test_epochs_and_rates_by_stage(tmp_path, capsys):
    config = tiny_run(tmp_path)
    print_plan(plan(config, gpus=1))
    out = capsys.readouterr().out
    assert f"no corpus at {tmp_path / 'law'} yet" in " ".join(out.split())
    write_corpora(tmp_path)
    p = plan(config, gpus=1)
    assert isinstance(p, DecoderPlan)
    assert [use.epochs for use in p.uses] == pytest.approx([48_000 / 30_000, 16_000 / 40_000, 60_800 / 30_000])
    assert p.steps == 60 and p.tokens == 60 * 1280
    print_plan(p)
    out = " ".join(capsys.readouterr().out.split())
    for text in (
        "stage first 50 steps",
        "rate 0.0002 to 0.001",
        "1.60 epochs",
        "2.03 epochs",
        "replay",
        "rate 0.00091 to 0.0001",
    ):
        assert text in out, text


def test_epochs_of_a_corpus_that_moved_between_stages(tmp_path, capsys):
    """Two paths with the same tokens are one corpus, for the run and for its plan."""
    write_corpora(tmp_path)
    config = tiny_run(tmp_path)
    moved = tmp_path / "moved" / "law"
    moved.parent.mkdir()
    (moved.parent / "law.manifest.json").write_bytes((tmp_path / "law.manifest.json").read_bytes())
    first, second = config.curriculum.read_text().split("  - name: second")
    config.curriculum.write_text(f"{first}  - name: second{second.replace(str(tmp_path / 'law'), str(moved))}")
    print_plan(plan(config, gpus=1))
    out = " ".join(capsys.readouterr().out.split())
    assert f"2.03 epochs 100.0%, 12.8k tokens; with earlier stages, of 30.0k at {moved}" in out
    (moved.parent / "law.manifest.json").unlink()
    print_plan(plan(config, gpus=1))
    out = " ".join(capsys.readouterr().out.split())
    assert f"no corpus at {moved} yet" in out
    assert f"law unknown epochs 75.0%, 48.0k tokens; with earlier stages, of 30.0k at {tmp_path / 'law'}; counted when" in out


def test_emulated_fp8_is_never_reported_as_speed(tmp_path, capsys):
    config = replace(tiny_run(tmp_path), model=FOUR_LAYERS, precision="fp8_current")
    print_plan(plan(config, gpus=1))
    out = " ".join(capsys.readouterr().out.split())
    assert "tokens/s per GPU" in out and "GPU hours" in out and "at most 0.001; 0.0 s" in out
    print_plan(plan(replace(config, fp8=Fp8Config(emulate=True)), gpus=1))
    out = " ".join(capsys.readouterr().out.split())
    assert "time not estimated FP8 is emulated in torch, slower than BF16: leave --fp8.emulate out" in out
    assert not any(text in out for text in ("tokens/s", "GPU hours", "TFLOP/s", "0.0 s", "MFU", "Time is arithmetic"))


@pytest.mark.parametrize(
    ("changes", "law", "sentence"),
    [
        ({}, 14_000, "60,800 tokens are asked of"),
        ({"micro_batch_tokens": 64}, 30_000, "seq_len 320 exceeds --micro-batch-tokens 64"),
        ({"micro_batch_tokens": 3 * 320}, 30_000, "do not divide by"),
        ({"parallel": ParallelConfig(context=3)}, 30_000, "does not divide by 2 x --parallel.context 3"),
        ({"precision": "fp8_current"}, 30_000, "--precision fp8_current"),
        ({"precision": "fp8_current", "model": FOUR_LAYERS, "layer_spec": "local"}, 30_000, "silently compute without them"),
        (
            {
                "precision": "fp8_current",
                "model": FOUR_LAYERS,
                "parallel": ParallelConfig(context=32),
                "micro_batch_tokens": 320,
            },
            30_000,
            "gives each rank 10 tokens in a forward pass",
        ),
        ({"model": replace(TINY, max_sequence_length=63)}, 30_000, "seq_len 64 exceeds the 63 of --model.max-sequence-length"),
        ({}, 30_000, None),
        ({"parallel": ParallelConfig(tensor=4)}, 30_000, None),  # beyond the query groups: Megatron-Core shares them
        (
            {"model": replace(TINY, num_query_groups=3, num_attention_heads=12), "parallel": ParallelConfig(tensor=2)},
            30_000,
            "3 ",
        ),
    ],
)
def test_refuses_what_the_run_would_refuse(tmp_path, changes, law, sentence):
    write_corpora(tmp_path, law)
    config = replace(tiny_run(tmp_path), **changes)
    gpus = config.parallel.model_ranks
    if sentence is None:
        plan(config, gpus=gpus)
        return
    with pytest.raises(UserError, match=sentence):
        plan(config, gpus=gpus)


def test_dry_run_on_a_laptop(tmp_path):
    """The command itself, in a folder without data: without torch, with the numbers that users look for."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mecellem", "train", "qwen3_1p7b_cpt", "--dry-run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert " torch\n" not in done.stderr
    for text in ("1,720,574,976", "59,750", "stage long_context", "GPU hours", "MFU 30%"):
        assert text in done.stdout
    assert list(tmp_path.iterdir()) == []
