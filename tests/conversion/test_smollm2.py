"""Real weights: SmolLM2-135M from Hugging Face's form to Megatron's and back, and what it says at either end."""

import json
import sys
from pathlib import Path

import pytest
import torch
from hf_folders import command
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def smollm2() -> Path:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from real_models import smollm2_folder
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return smollm2_folder(ROOT / ".cache" / "models")


def continued(folder: Path, text: str) -> str:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text, return_tensors="pt")
    return tokenizer.decode(model.generate(**ids, max_new_tokens=16, do_sample=False)[0])


@pytest.mark.slow
def test_there_and_back(smollm2: Path, tmp_path: Path):
    command("convert", "import", smollm2, tmp_path / "checkpoint")
    command("convert", "export", tmp_path / "checkpoint", tmp_path / "back")
    before, after = (load_file(folder / "model.safetensors") for folder in (smollm2, tmp_path / "back"))
    assert before.keys() == after.keys() and sum(weight.numel() for weight in after.values()) == 134_515_008
    for name, weight in before.items():
        assert torch.equal(weight, after[name]), name
    proof = json.loads((tmp_path / "back" / "verification.json").read_text())
    assert proof["passed"] and proof["tied"] and proof["longest_sequence"] >= 256
    text = "The capital of France is"
    assert continued(tmp_path / "back", text) == continued(smollm2, text)
    assert continued(smollm2, text).startswith("The capital of France is Paris.")


@pytest.mark.slow  # its fixture downloads the model
def test_digits_are_tokens_of_their_own(smollm2: Path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer.tokenize("a  1 2024") == ["a", "ĠĠ", "1", "Ġ", "2", "0", "2", "4"]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.model_max_length) == (1, 2, 8192)
    assert "assistant" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}], add_generation_prompt=True, tokenize=False
    )
