"""Hugging Face -> Megatron on any layout -> Hugging Face gives back every bit, and what differs gets no folder."""

import contextlib
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mecellem.cli import main
from mecellem.errors import UserError
from megatron_recipes.config import ModelConfig

SHAPE = ModelConfig(4, 64, 96, 4, 8192 + 40, 256, local_attention=16, global_attention_every=2, global_rope_theta=80_000.0)


def command(*arguments: object, code: int = 0, limit_kb: int | None = None) -> str:
    """The real command line in this process (an import still starts real ranks), or under a limit in a process of its own."""
    if limit_kb is None:
        printed, handler = io.StringIO(), signal.getsignal(signal.SIGTERM)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            found = main([str(argument) for argument in arguments])
        signal.signal(signal.SIGTERM, handler)
        assert found == code, printed.getvalue()
        return printed.getvalue()
    # files larger than this cannot be written: a full disk, file by file
    line = ["bash", "-c", f'ulimit -f {limit_kb}; exec "$@"', "bash", sys.executable, "-m", "mecellem", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def write_folder(folder: Path, tokenizer: Path, dtype: torch.dtype, **config: object) -> Path:
    """A ModernBERT with random weights, norms and biases and the sample's tokenizer, saved by transformers alone."""
    from transformers import AutoTokenizer, ModernBertConfig, ModernBertForMaskedLM

    torch.manual_seed(3)
    values = {
        "vocab_size": SHAPE.vocab_size,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "local_attention": 16,
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 80_000.0,
        "pad_token_id": 0,
        "cls_token_id": 2,
        "sep_token_id": 3,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    model = ModernBertForMaskedLM(ModernBertConfig(**{**values, **config}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.uniform_(0.5, 1.5) if "norm" in name else parameter.normal_(std=0.05)
    model.to(dtype).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_round_trip_is_bit_exact(tp: int, pp: int, sample_tokenizer: Path, tmp_path: Path):
    dtype = torch.bfloat16 if (tp, pp) == (1, 2) else torch.float32
    source = write_folder(tmp_path / "hf", sample_tokenizer, dtype)
    command("convert", "import", source, tmp_path / "checkpoint", "--tp", tp, "--pp", pp)
    output = command("convert", "export", tmp_path / "checkpoint", tmp_path / "back")
    assert "top-1 agreement 100.0%" in output
    before, after = load_file(source / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, weight in before.items():
        assert weight.dtype == after[name].dtype == dtype
        assert torch.equal(weight, after[name]), name
    proof = json.loads((tmp_path / "back" / "verification.json").read_text())
    assert proof["passed"] and proof["tied"] and proof["max_logit_difference"] <= proof["tolerance"]


@pytest.mark.slow
def test_the_folder_needs_none_of_our_code(sample_tokenizer: Path, tmp_path: Path):
    source = write_folder(tmp_path / "hf", sample_tokenizer, torch.float32)
    command("convert", "import", source, tmp_path / "checkpoint")
    command("convert", "export", tmp_path / "checkpoint", tmp_path / "back", "--dtype", "bfloat16")
    script = (
        "import sys; from transformers import AutoModelForMaskedLM, AutoTokenizer, AutoModel; f = sys.argv[1]; "
        "t = AutoTokenizer.from_pretrained(f); m = AutoModelForMaskedLM.from_pretrained(f); AutoModel.from_pretrained(f); "
        "x = t('Anayasa Mahkemesi [MASK] verdi.', return_tensors='pt'); print(m.dtype, m(**x).logits.shape[-1]); "
        "assert m.get_output_embeddings().weight.data_ptr() == m.get_input_embeddings().weight.data_ptr(); "
        "assert not any(n.startswith(('conversion', 'megatron')) for n in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "back")], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["torch.bfloat16", str(SHAPE.vocab_size)]


@pytest.fixture(scope="module")
def checkpoint(sample_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    source = write_folder(folder / "hf", sample_tokenizer, torch.float32)
    command("convert", "import", source, folder / "checkpoint")
    return folder / "checkpoint"


def nothing_left(folder: Path) -> bool:
    return not folder.exists() and not list(folder.parent.glob(f".{folder.name}*"))


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["heads in the wrong order", "a zero head", "two layers swapped"])
def test_a_wrong_conversion_leaves_no_folder(fault: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from conversion import mapping
    from conversion.export import export_checkpoint

    real = mapping.to_hf

    def wrong(state, model):
        result = real(state, model)
        if fault == "heads in the wrong order":
            result["model.layers.2.attn.Wqkv.weight"] = state["encoder.layers.2.self_attention.linear_qkv.weight"]
        elif fault == "a zero head":
            result["model.embeddings.tok_embeddings.weight"].zero_()
        else:
            first, second = "model.layers.1.mlp.Wo.weight", "model.layers.3.mlp.Wo.weight"
            result[first], result[second] = result[second], result[first]
        return result

    monkeypatch.setattr(mapping, "to_hf", wrong)
    with pytest.raises(UserError, match="was not written: the converted model differs"):
        export_checkpoint(checkpoint, tmp_path / "out")
    assert nothing_left(tmp_path / "out")


def test_a_tokenizer_with_more_entries_than_the_embedding(small_tokenizer: Path):
    from conversion.export import check_tokenizer
    from mecellem.files import sha256_of

    sha256 = sha256_of(small_tokenizer / "tokenizer.json")
    assert check_tokenizer(small_tokenizer, 700, sha256) == small_tokenizer
    with pytest.raises(UserError, match=r"has 700 entries, the checkpoint's embedding 699: .*\(--tokenizer\)"):
        check_tokenizer(small_tokenizer, 699, sha256)


def copy_checkpoint(checkpoint: Path, target: Path) -> Path:
    import shutil

    shutil.copytree(checkpoint, target)
    return target


@pytest.mark.slow
def test_bad_input_of_export(checkpoint: Path, small_tokenizer: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert "is not a checkpoint" in command("convert", "export", tmp_path, out, code=2)
    assert "is not the tokenizer that the checkpoint was trained with" in command(
        "convert", "export", checkpoint, out, "--tokenizer", small_tokenizer, code=2
    )
    damaged = copy_checkpoint(checkpoint, tmp_path / "damaged")
    largest = max(damaged.glob("*.distcp"), key=lambda path: path.stat().st_size)
    with largest.open("r+b") as handle:
        handle.truncate(largest.stat().st_size // 2)
    assert "cannot be loaded" in command("convert", "export", damaged, out, code=2)
    other = copy_checkpoint(checkpoint, tmp_path / "other")
    meta = json.loads((other / "mecellem.json").read_text())
    (other / "mecellem.json").write_text(json.dumps({**meta, "format": "mecellem.checkpoint/99"}))
    assert "has format 'mecellem.checkpoint/99'" in command("convert", "export", other, out, code=2)
    assert "the disk is full" in command("convert", "export", checkpoint, out, code=2, limit_kb=300)
    assert nothing_left(out)
    (out / "mine").mkdir(parents=True)
    assert "exists already" in command("convert", "export", checkpoint, out, code=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"norm_bias": True}, "norm_bias = True"),
        ({"hidden_activation": "silu"}, "hidden_activation = 'silu'"),
        ({"decoder_bias": False}, "decoder_bias = False"),
        ({"model_type": "bert"}, "model_type 'bert'"),
        ({"layer_types": ["sliding_attention", "full_attention"] * 2}, "layer_types that are not periodic"),
        ({"num_attention_heads": 5}, "does not divide by"),
    ],
)
def test_folders_that_would_convert_into_another_function_are_refused(change, sentence, tmp_path: Path, sample_tokenizer: Path):
    from conversion.hf_import import import_folder

    source = write_folder(tmp_path / "hf", sample_tokenizer, torch.float32)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError) as error:
        import_folder(source, tmp_path / "checkpoint")
    assert sentence in str(error.value)
    assert nothing_left(tmp_path / "checkpoint")


@pytest.mark.slow
def test_bad_input_of_import(sample_tokenizer: Path, tmp_path: Path):
    out = tmp_path / "checkpoint"
    assert "not a Hugging Face model folder" in command("convert", "import", tmp_path, out, code=2)
    source = write_folder(tmp_path / "hf", sample_tokenizer, torch.float32)
    assert "4 attention heads do not divide by" in command("convert", "import", source, out, "--tp", 3, code=2)
    assert "4 layers do not divide by" in command("convert", "import", source, out, "--pp", 3, code=2)
    small = write_folder(tmp_path / "small", sample_tokenizer, torch.float32, vocab_size=500)
    assert "the embedding only 500" in command("convert", "import", small, out, code=2)
    assert nothing_left(out)
