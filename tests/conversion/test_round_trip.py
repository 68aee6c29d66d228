"""Hugging Face -> Megatron -> Hugging Face gives back every bit, and what differs gets no folder."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hf_folders import ENCODER, SHAPES, Bomb, command, decoder, nothing_left, write_folder
from safetensors.torch import load_file, save_file

from mecellem.errors import UserError
from megatron_recipes.config import RopeScaling


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def there_and_back(source: Path, folder: Path) -> Path:
    """The folder that comes back, after a comparison of every bit and of what transformers makes of both."""
    from transformers import AutoConfig, AutoTokenizer

    assert "top-1 agreement 100.0%" in command("convert", "import", source, folder / "checkpoint")
    assert "top-1 agreement 100.0%" in command("convert", "export", folder / "checkpoint", folder / "back")
    back = folder / "back"
    before, after = weights(source), weights(back)
    assert before.keys() == after.keys()
    for name, weight in before.items():
        assert weight.dtype == after[name].dtype
        assert torch.equal(weight, after[name]), name
    configs = [AutoConfig.from_pretrained(place).to_dict() for place in (source, back)]
    for config in configs:
        del config["_name_or_path"]
    assert configs[0] == configs[1]
    for path in source.iterdir():
        if path.suffix != ".safetensors" and path.name not in ("config.json", "model.safetensors.index.json"):
            assert (back / path.name).read_bytes() == path.read_bytes(), path.name
    ours = {"README.md", "verification.json", "generation_config.json", "model.safetensors"}  # and nothing of the checkpoint's
    assert {path.name for path in back.iterdir()} - {path.name for path in source.iterdir()} <= ours
    chats = [AutoTokenizer.from_pretrained(place).chat_template for place in (source, back)]
    assert chats[0] == chats[1] is not None
    proof = json.loads((back / "verification.json").read_text())
    assert proof["passed"] and proof["max_logit_difference"] <= proof["tolerance"]
    return back


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, torch.float32) for name in SHAPES), ("modernbert", torch.bfloat16), ("qwen3 untied", torch.bfloat16)],
)
def test_round_trip_is_bit_exact(name: str, dtype: torch.dtype, sample_tokenizer: Path, tmp_path: Path):
    shard = "300KB" if name == "qwen3 untied" else "5GB"
    source = write_folder(tmp_path / "hf", SHAPES[name], sample_tokenizer, dtype, shard)
    back = there_and_back(source, tmp_path)
    proof = json.loads((back / "verification.json").read_text())
    assert proof["tied"] is ("untied" not in name)
    assert (proof["continuation"] is None) is (name == "modernbert")


@pytest.mark.slow
def test_shards_out(sample_tokenizer: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    source = write_folder(tmp_path / "hf", decoder(), sample_tokenizer)
    command("convert", "import", source, tmp_path / "checkpoint")
    meta = json.loads((tmp_path / "checkpoint" / "mecellem.json").read_text())
    assert meta["name"] == "hf" and "recipe" not in meta
    for size in ("0GB", "-1MB", "nanGB", "infGB", "5", "big"):
        refusal = command("convert", "export", tmp_path / "checkpoint", tmp_path / "none", f"--shard-size={size}", code=2)
        assert f"--shard-size {size} is no size of a file" in refusal and nothing_left(tmp_path / "none")
    command("convert", "export", tmp_path / "checkpoint", tmp_path / "back", "--shard-size", "500KB")
    card = (tmp_path / "back" / "README.md").read_text()
    assert "the weights of `hf` as they were imported" in card and "recipe" not in card
    assert len(list((tmp_path / "back").glob("model-*.safetensors"))) > 2
    models = [AutoModelForCausalLM.from_pretrained(place) for place in (source, tmp_path / "back")]
    for (name, before), (_, after) in zip(models[0].named_parameters(), models[1].named_parameters(), strict=True):
        assert torch.equal(before, after), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["modernbert", "qwen3 tied"])
def test_the_folder_needs_none_of_our_code(name: str, sample_tokenizer: Path, tmp_path: Path):
    source = write_folder(tmp_path / "hf", SHAPES[name], sample_tokenizer)
    command("convert", "import", source, tmp_path / "checkpoint")
    command("convert", "export", tmp_path / "checkpoint", tmp_path / "back", "--dtype", "bfloat16")
    auto = "AutoModelForMaskedLM" if name == "modernbert" else "AutoModelForCausalLM"
    script = (
        f"import sys; from transformers import {auto} as A, AutoTokenizer, AutoModel; f = sys.argv[1]; "
        "t = AutoTokenizer.from_pretrained(f); m = A.from_pretrained(f); AutoModel.from_pretrained(f); "
        "x = t('Anayasa Mahkemesi karar verdi.', return_tensors='pt'); print(m.dtype, m(**x).logits.shape[-1]); "
        "assert m.get_output_embeddings().weight.data_ptr() == m.get_input_embeddings().weight.data_ptr(); "
        "assert not any(n.startswith(('conversion', 'megatron')) for n in sys.modules)"
    )
    line = [sys.executable, "-c", script, str(tmp_path / "back")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["torch.bfloat16", str(SHAPES[name].vocab_size)]


@pytest.fixture(scope="module")
def checkpoints(sample_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("imported")
    for name in ("modernbert", "qwen3 untied"):
        source = write_folder(folder / f"hf {name}", SHAPES[name], sample_tokenizer)
        command("convert", "import", source, folder / name)
    return {"modernbert": folder / "modernbert", "qwen3 untied": folder / "qwen3 untied"}


HEAD = {"modernbert": "model.embeddings.tok_embeddings.weight", "qwen3 untied": "lm_head.weight"}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAD)
@pytest.mark.parametrize("fault", ["heads in the wrong order", "a zero head", "two layers swapped", "not a number"])
def test_a_wrong_conversion_leaves_no_folder(name: str, fault: str, checkpoints, tmp_path: Path, monkeypatch):
    from conversion import mapping
    from conversion.export import export_checkpoint
    from conversion.safetensors_folder import SafetensorsWriter

    real = SafetensorsWriter.put
    encoder = name == "modernbert"

    def put(self, tensor: str, blocks):
        if fault == "two layers swapped":
            layers = {"layers.1": "layers.2", "layers.2": "layers.1"}
            for old, new in layers.items():
                if old in tensor and tensor.endswith(("mlp.Wo.weight", "mlp.down_proj.weight")):
                    tensor = tensor.replace(old, new)
                    break
        if tensor == HEAD[name] and fault in ("a zero head", "not a number"):
            blocks = [
                block * 0.0 if fault == "a zero head" else block.index_fill(0, torch.tensor([5]), float("nan"))
                for block in blocks
            ]
        real(self, tensor, blocks)

    def ungrouped(weight, model, parts):
        sizes = [len(weight)] if encoder else [len(weight) // 2, len(weight) // 4, len(weight) // 4]
        return list(weight.split(sizes))

    if fault == "heads in the wrong order":
        monkeypatch.setattr(mapping, "grouped_views", ungrouped)
    else:
        monkeypatch.setattr(SafetensorsWriter, "put", put)
    sentences = {"a zero head": f"{HEAD[name]} is all zero", "not a number": f"{HEAD[name]} has values that are not finite"}
    with pytest.raises(UserError, match=sentences.get(fault, "was not written: the converted model differs")):
        export_checkpoint(checkpoints[name], tmp_path / "out")
    assert nothing_left(tmp_path / "out")


@pytest.mark.slow
def test_an_import_that_computes_something_else_leaves_no_checkpoint(sample_tokenizer: Path, tmp_path: Path, monkeypatch):
    from conversion import mapping
    from conversion.hf_import import import_folder

    source = write_folder(tmp_path / "hf", decoder(), sample_tokenizer)
    monkeypatch.setattr(mapping, "group", lambda parts, model: torch.cat(parts))
    with pytest.raises(UserError, match="was not written: the converted model differs"):
        import_folder(source, tmp_path / "checkpoint")
    assert nothing_left(tmp_path / "checkpoint")


def test_a_tokenizer_with_more_entries_than_the_embedding(small_tokenizer: Path):
    from conversion.folder_files import check_tokenizer
    from mecellem.files import sha256_of

    sha256 = sha256_of(small_tokenizer / "tokenizer.json")
    assert check_tokenizer(small_tokenizer, 700, sha256) == small_tokenizer
    with pytest.raises(UserError, match=r"has 700 entries, the model's embedding only 699"):
        check_tokenizer(small_tokenizer, 699, sha256)


@pytest.mark.slow
def test_bad_input_of_export(checkpoints: dict[str, Path], small_tokenizer: Path, tmp_path: Path):
    out, checkpoint = tmp_path / "out", checkpoints["modernbert"]
    assert "is not a checkpoint" in command("convert", "export", tmp_path, out, code=2)
    assert "is not the tokenizer that the checkpoint was trained with" in command(
        "convert", "export", checkpoint, out, "--tokenizer", small_tokenizer, code=2
    )
    damaged = tmp_path / "damaged"
    shutil.copytree(checkpoint, damaged)
    largest = max(damaged.glob("*.distcp"), key=lambda path: path.stat().st_size)
    with largest.open("r+b") as handle:
        handle.truncate(largest.stat().st_size // 2)
    assert "cannot be loaded" in command("convert", "export", damaged, out, code=2)
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    meta = json.loads((other / "mecellem.json").read_text())
    (other / "mecellem.json").write_text(json.dumps({**meta, "format": "mecellem.checkpoint/99"}))
    assert "has format 'mecellem.checkpoint/99'" in command("convert", "export", other, out, code=2)
    assert "the disk is full" in command("convert", "export", checkpoint, out, code=2, limit_kb=300)
    assert nothing_left(out)
    (out / "mine").mkdir(parents=True)
    refusal = command("convert", "export", checkpoint, out, code=2)
    assert "exists already: choose another folder or overwrite it with --replace" in " ".join(refusal.split())


@pytest.mark.slow
def test_export_runs_nothing_of_a_checkpoint(checkpoints: dict[str, Path], tmp_path: Path):
    from megatron_recipes.engine.checkpoint import COMMON, file_sizes

    checkpoint, ran = tmp_path / "checkpoint", tmp_path / "ran"
    shutil.copytree(checkpoints["modernbert"], checkpoint)
    for name, code in ((COMMON, 0), (".metadata", 2)):
        torch.save(Bomb(ran), checkpoint / COMMON) if name == COMMON else (checkpoint / name).write_bytes(
            pickle.dumps(Bomb(ran))
        )
        meta = json.loads((checkpoint / "mecellem.json").read_text())
        (checkpoint / "mecellem.json").write_text(json.dumps({**meta, "files": file_sizes(checkpoint)}))
        printed = command("convert", "export", checkpoint, tmp_path / f"out {code}", code=code)
        assert ("asks for builtins.exec" in printed) is (name == ".metadata")
        assert not ran.exists()
    assert nothing_left(tmp_path / "out 2")


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

    source = write_folder(tmp_path / "hf", ENCODER, sample_tokenizer)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(UserError) as error:
        import_folder(source, tmp_path / "checkpoint")
    assert sentence in str(error.value)
    assert nothing_left(tmp_path / "checkpoint")


@pytest.mark.slow
def test_bad_input_of_import(sample_tokenizer: Path, tmp_path: Path):
    out = tmp_path / "checkpoint"
    assert "config.json is missing" in command("convert", "import", tmp_path, out, code=2)
    source = write_folder(tmp_path / "hf", decoder(), sample_tokenizer)
    file = source / "model.safetensors"
    content = file.read_bytes()
    assert "the disk is full" in command("convert", "import", source, out, code=2, limit_kb=300)
    file.write_bytes(content[:-1000])
    assert "model.safetensors cannot be read" in command("convert", "import", source, out, code=2)
    tensors = weights_of(content, tmp_path)
    for change, sentence in (
        ({"model.norm.weight": None}, "1 tensor(s) are missing, the first is model.norm.weight"),
        ({"model.layers.0.mlp.bias": torch.ones(1)}, "do not belong to the architecture"),
        ({"model.norm.weight": torch.ones(65)}, "model.norm.weight has shape [65], its config.json makes it [64]"),
        ({"model.norm.weight": torch.ones(64).half()}, "model.norm.weight is F16"),
        ({"model.norm.weight": torch.ones(64).bfloat16()}, "mixes types"),
        ({"model.norm.weight": torch.full((64,), float("nan"))}, "model.norm.weight has values that are not finite"),
        ({"lm_head.weight": torch.zeros(8232, 64)}, "lm_head.weight differs from model.embed_tokens.weight"),
    ):
        save_file({name: value for name, value in {**tensors, **change}.items() if value is not None}, file)
        assert sentence in command("convert", "import", source, out, code=2)
    file.rename(source / "pytorch_model.bin")
    assert "pickle files can run any code and are never loaded" in command("convert", "import", source, out, code=2)
    (source / "pytorch_model.bin").rename(file)
    file.write_bytes(content)
    (source / "tokenizer.json").rename(source / "kept.json")
    assert "tokenizer.json is missing" in command("convert", "import", source, out, code=2)
    (source / "kept.json").rename(source / "tokenizer.json")
    small = write_folder(tmp_path / "small", decoder(vocab_size=500), sample_tokenizer)
    assert "embedding only 500" in command("convert", "import", small, out, code=2)
    assert "no model of the kind that recipe mursit_tiny trains" in command(
        "convert", "import", source, out, "--recipe", "mursit_tiny", code=2
    )
    assert nothing_left(out)


def weights_of(content: bytes, folder: Path) -> dict[str, torch.Tensor]:
    (folder / "copy.safetensors").write_bytes(content)
    return load_file(folder / "copy.safetensors")


@pytest.mark.slow
def test_a_copy_of_a_tied_head_is_no_fault(sample_tokenizer: Path, tmp_path: Path):
    source = write_folder(tmp_path / "hf", decoder(), sample_tokenizer)
    tensors = load_file(source / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, source / "model.safetensors")
    command("convert", "import", source, tmp_path / "checkpoint")


@pytest.mark.parametrize("source", ["no/such/folder", "nobody-here", "README.md"])
def test_a_source_that_is_nothing(source: str):
    from conversion.source import find_folder

    with pytest.raises(UserError, match=f"{source} is neither a folder nor the id of a model"):
        find_folder(source)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("LocalEntryNotFoundError", "could not be downloaded .* on a machine without internet"),
        ("OfflineModeIsEnabled", "could not be downloaded"),
        ("RepositoryNotFoundError", "no public model on the Hugging Face Hub: check the spelling"),
    ],
)
def test_a_model_of_the_hub(error: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub
    from huggingface_hub import errors

    from conversion.source import find_folder

    asked = {}

    def download(name, **values):
        asked.update(values, name=name)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_folder("Qwen/Qwen3-1.7B") == tmp_path
    assert asked["name"] == "Qwen/Qwen3-1.7B" and not any(
        "bin" in pattern or "pt" in pattern for pattern in asked["allow_patterns"]
    )

    def fail(name, **values):
        kind = getattr(errors, error)
        raise kind.__new__(kind)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=sentence):
        find_folder("Qwen/Qwen3-1.7B")


def test_a_recipe_names_every_field_that_differs(monkeypatch: pytest.MonkeyPatch):
    import dataclasses
    from types import SimpleNamespace

    from conversion.hf_import import check_recipe
    from megatron_recipes import recipes

    monkeypatch.setattr(recipes, "find_recipe", lambda name: lambda: SimpleNamespace(model=decoder()))
    check_recipe("qwen3", decoder(), Path("folder"))
    other = dataclasses.replace(decoder(), num_layers=5, rope_theta=1.0)
    with pytest.raises(UserError, match=r"num_layers 5 instead of 4, rope_theta 1\.0 instead of 1000000\.0"):
        check_recipe("qwen3", other, Path("folder"))
    with pytest.raises(UserError, match="no model of the kind"):
        check_recipe("qwen3", ENCODER, Path("folder"))


@pytest.mark.parametrize(
    "changes",
    [
        {"max_sequence_length": 32_768},
        {"max_sequence_length": 131_072, "rope_theta": 5e6, "norm_epsilon": 1e-5}
        | {"rope_scaling": RopeScaling(rope_type="yarn", factor=4.0, original_max_position_embeddings=32_768)},
    ],
)
def test_an_import_tells_what_a_run_from_it_needs(changes: dict):
    import dataclasses

    from conversion.hf_import import flags_to_start
    from megatron_recipes.recipes import find_recipe
    from megatron_recipes.train import parse

    recipe = find_recipe("qwen3_1p7b_cpt")().model
    model = dataclasses.replace(recipe, **changes)
    flags = flags_to_start(model)
    assert list(flags) == ["qwen3_1p7b_cpt"] and flags == flags_to_start(model, "qwen3_1p7b_cpt")
    assert f"--model.max-sequence-length {changes['max_sequence_length']}" in flags["qwen3_1p7b_cpt"]
    assert parse(["qwen3_1p7b_cpt", *flags["qwen3_1p7b_cpt"].split()])[0].config.model == model
    assert flags_to_start(recipe) == flags_to_start(dataclasses.replace(recipe, init_std=0.01)) == {}
    assert flags_to_start(dataclasses.replace(model, num_layers=5)) == flags_to_start(ENCODER) == {}


@pytest.mark.slow
def test_an_import_prints_what_a_run_from_it_needs(sample_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from types import SimpleNamespace

    from megatron_recipes import recipes

    source = write_folder(tmp_path / "hf", decoder(), sample_tokenizer)
    longer = SimpleNamespace(model=decoder(max_sequence_length=512))
    monkeypatch.setattr(recipes, "find_recipe", lambda name: lambda: longer)
    printed = command("convert", "import", source, tmp_path / "out", "--recipe", "qwen3_small")
    wanted = f"a run of qwen3_small with --init-from {tmp_path / 'out'} needs --model.max-sequence-length 256"
    assert wanted in printed
