"""Whole folders: what is of the vocabulary is new, the rest has the teacher's bits, and the libraries load it as it is."""

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_vocabularies import SENTENCES, byte_level, ids_of, model_folder, rows_of, sentence_folder, unigram, wordpiece

from conversion.clone import main
from conversion.clone.cloning import clone_each, clone_folder
from conversion.clone.combination import METHODS
from mecellem.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def unigrams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unigram(tmp_path_factory.mktemp("teacher") / "unigram")


@pytest.fixture(scope="module")
def bytewise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    roles = {"cls": "[C]", "sep": "[S]", "eos": "[S]", "bos": "[C]", "pad": "[P]", "mask": "[M]", "unk": "[U]"}
    return byte_level(tmp_path_factory.mktemp("target") / "bytes", 420, roles, SENTENCES[:12])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def nothing_left(folder: Path) -> bool:
    return not folder.exists() and not list(folder.parent.glob(f".{folder.name}*"))


# class of transformers, its further settings, tensors with a row an entry, the head's weight tied
ARCHITECTURES = {
    "bert": ("BertModel", {}, 1, None),
    "bert mlm": ("BertForMaskedLM", {}, 2, True),
    "modernbert": ("ModernBertModel", {}, 1, None),
    "modernbert mlm": ("ModernBertForMaskedLM", {}, 2, True),
    "qwen3 tied": ("Qwen3ForCausalLM", {"tie_word_embeddings": True}, 1, True),
    "qwen3 untied": ("Qwen3ForCausalLM", {"tie_word_embeddings": False}, 2, False),
    "llama untied": ("LlamaForCausalLM", {"tie_word_embeddings": False}, 2, False),
}


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_only_the_vocabulary_changes(name: str, unigrams: Path, bytewise: Path, tmp_path: Path):
    import transformers

    kind, values, tensors, tied = ARCHITECTURES[name]
    teacher = model_folder(tmp_path / "teacher", unigrams, kind, padding=13, **values)
    record = clone_folder(teacher, bytewise, tmp_path / "clone")
    before, after, rows = weights(teacher), weights(tmp_path / "clone"), rows_of(bytewise)
    changed = record["vocabulary_tensors"]
    assert len(changed) == tensors and before.keys() == after.keys()
    for tensor in before:
        if tensor in changed:
            assert after[tensor].shape == (rows, *before[tensor].shape[1:])
        else:
            assert torch.equal(before[tensor], after[tensor]), tensor
    old, new = ids_of(unigrams), ids_of(bytewise)
    shared = sorted(piece for piece in old if piece[0] == "▁" and len(piece) > 1 and f"Ġ{piece[1:]}" in new)
    assert shared
    for tensor in changed:
        for piece in shared:
            assert torch.equal(after[tensor][new[f"Ġ{piece[1:]}"]], before[tensor][old[piece]])
        for role, token in (("<pad>", "[P]"), ("<s>", "[C]"), ("</s>", "[S]"), ("<mask>", "[M]"), ("<unk>", "[U]")):
            assert torch.equal(after[tensor][new[token]], before[tensor][old[role]])
    loaded = getattr(transformers, kind).from_pretrained(tmp_path / "clone")
    assert loaded.config.vocab_size == rows == loaded.get_input_embeddings().weight.shape[0]
    assert loaded.config.pad_token_id == new["[P]"] and loaded.config.get_text_config().hidden_size == 32
    if tied is not None:
        same = loaded.get_output_embeddings().weight.data_ptr() == loaded.get_input_embeddings().weight.data_ptr()
        assert same is tied
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "clone")
    assert words.model_max_length == 64
    loaded(**words("Mahkeme davanın kabulüne karar verdi.", return_tensors="pt", return_token_type_ids=False))
    assert record["backbone"]["same_bits_as_the_teacher"] and record["backbone"]["tensors"] == len(before) - tensors
    assert json.loads((tmp_path / "clone" / "clone.json").read_text()) == record
    assert len({path.stat().st_mode for path in (tmp_path / "clone").iterdir()}) == 1  # whoever reads one file reads all


@pytest.mark.parametrize("name", ["bert mlm", "qwen3 untied"])
def test_the_teachers_own_tokenizer_gives_the_teacher(name: str, unigrams: Path, tmp_path: Path):
    kind, values, _, _ = ARCHITECTURES[name]
    teacher = model_folder(tmp_path / "teacher", unigrams, kind, dtype=torch.bfloat16, **values)
    record = clone_folder(teacher, teacher, tmp_path / "clone")
    assert record["entries"]["copied"] + record["entries"]["special"] == rows_of(unigrams)
    before, after = weights(teacher), weights(tmp_path / "clone")
    assert before.keys() == after.keys()
    for tensor, values_ in before.items():
        assert torch.equal(values_.view(torch.uint8), after[tensor].view(torch.uint8)), tensor
    for file in ("config.json", "generation_config.json"):
        if (teacher / file).exists():
            assert json.loads((teacher / file).read_text()) == json.loads((tmp_path / "clone" / file).read_text())


def test_a_head_and_its_bias_are_composed_as_the_embedding_is(unigrams: Path, bytewise: Path, tmp_path: Path):
    from conversion.clone.alignment import align
    from conversion.clone.vocabulary import read_tokenizer

    for kind, values in (("BertForMaskedLM", {}), ("Qwen3ForCausalLM", {"tie_word_embeddings": False})):
        teacher = model_folder(tmp_path / kind, unigrams, kind, **values)
        record = clone_folder(teacher, bytewise, tmp_path / f"{kind} clone", "weighted")
        found, before, after = (
            align(*map(read_tokenizer, (unigrams, bytewise))),
            weights(teacher),
            weights(tmp_path / f"{kind} clone"),
        )
        entry = int(found.lengths.argmax())
        pieces = found.pieces[found.offsets[entry] : found.offsets[entry + 1]]
        shares = torch.arange(len(pieces), 0, -1).float()
        for tensor in record["vocabulary_tensors"]:
            rows = before[tensor][torch.from_numpy(pieces)]
            wanted = (rows * (shares / shares.sum()).view(-1, *[1] * (rows.dim() - 1))).sum(dim=0)
            torch.testing.assert_close(after[tensor][entry], wanted)


def test_a_sentence_transformers_folder_keeps_its_modules(unigrams: Path, bytewise: Path, tmp_path: Path):
    from sentence_transformers import SentenceTransformer

    teacher = sentence_folder(tmp_path / "teacher", unigrams)
    main(["--teacher", str(teacher), "--tokenizer", str(bytewise), "--out", str(tmp_path / "clone")])
    for path in teacher.rglob("*"):
        name = path.relative_to(teacher)
        if (path.is_file() and len(name.parts) > 1) or name.name in ("modules.json", "config_sentence_transformers.json"):
            assert (tmp_path / "clone" / name).read_bytes() == path.read_bytes(), name
    before, after = (SentenceTransformer(str(folder), device="cpu") for folder in (teacher, tmp_path / "clone"))
    assert [type(module) for module in before] == [type(module) for module in after] and len(after) == 5
    assert (
        after.prompts == {"query": "query: ", "document": "passage: "} and after.max_seq_length == before.max_seq_length == 64
    )
    vectors = after.encode(["Mahkeme karar verdi. " * 60, "The house"])  # the first is longer than the model
    assert vectors.shape == (2, 16)
    assert list(after.tokenizer("a b")) == list(before.tokenizer("a b"))  # the names of the model's inputs


def test_a_pruned_vocabulary_gives_the_same_vectors(tmp_path: Path):
    """Entries that no text uses go; what is left is numbered anew, and nothing else may change."""
    from sentence_transformers import SentenceTransformer
    from tokenizers import Tokenizer

    whole = unigram(tmp_path / "whole", 350)
    teacher = sentence_folder(tmp_path / "teacher", whole)
    tokenizer = Tokenizer.from_file(str(whole / "tokenizer.json"))
    texts = SENTENCES[::3][:6]
    used = {number for found in tokenizer.encode_batch(texts) for number in found.ids}
    settings = json.loads((whole / "tokenizer.json").read_text())
    special = {token["content"] for token in settings["added_tokens"]}
    kept = [entry for number, entry in enumerate(settings["model"]["vocab"]) if number in used or entry[0] in special]
    settings["model"]["vocab"] = kept[::-1]  # other ids for all
    numbers = {entry[0]: number for number, entry in enumerate(kept[::-1])}
    settings["model"]["unk_id"] = numbers["<unk>"]
    for token in settings["added_tokens"]:
        token["id"] = numbers[token["content"]]
    for token in settings["post_processor"]["special_tokens"].values():
        token["ids"] = [numbers[name] for name in token["tokens"]]
    pruned = tmp_path / "pruned"
    shutil.copytree(whole, pruned)
    (pruned / "tokenizer.json").write_text(json.dumps(settings))
    record = clone_folder(teacher, pruned, tmp_path / "clone")
    assert record["entries"]["composed"] == record["entries"]["unmapped"] == 0 and len(kept) < rows_of(whole)
    before, after = (SentenceTransformer(str(folder), device="cpu").encode(texts) for folder in (teacher, tmp_path / "clone"))
    assert (before == after).all()


def test_every_method_differs_in_composed_rows_alone(sample_tokenizer: Path, bytewise: Path, tmp_path: Path):
    teacher = sentence_folder(tmp_path / "teacher", sample_tokenizer)
    outs = {method: tmp_path / "clones" / method for method in METHODS}
    records = clone_each(teacher, bytewise, outs)
    first = weights(outs["mean"])
    embedding = records["mean"]["vocabulary_tensors"][0]
    assert records["regression"]["learned"][embedding]["examples"] >= 100
    for method in METHODS:
        found = weights(outs[method])
        changed = (found[embedding] != first[embedding]).any(dim=1).sum()
        assert bool(changed) is (method != "mean") and changed <= records[method]["entries"]["composed"]
        assert all(torch.equal(found[name], first[name]) for name in first if name != embedding)
        assert records[method]["entries"] == records["mean"]["entries"] and records[method]["method"] == method
    again = clone_folder(teacher, bytewise, tmp_path / "again", "omp")
    assert again["method"] == "omp" and torch.equal(weights(tmp_path / "again")[embedding], weights(outs["omp"])[embedding])


WORDS = [
    "kira kiracı kiralayan kiralık kiraya kirayı kiranın sözleşme sözleşmesi sözleşmenin sözleşmeler mahkeme mahkemesi",
    "mahkemenin mahkemeler davacı davalı davası davanın davalar temyiz temyizen karar kararı kararın kararlar hukuk hukuki",
    "yargı yargıç yargıtay yargılama yargılaması taşınmaz taşınmazın taşınmazı tahliye tahliyesi feshi fesih feshedilen",
    "format formats formatted formatting cell cells spread sheet spreadsheet spreadsheets number numbers contract contracts",
    "house houses housing tenant tenants court courts appeal appeals security secure person persons personal liberty life",
] * 4


def test_ids_in_the_configs_go_by_role_and_by_entry(unigrams: Path, bytewise: Path, tmp_path: Path):
    teacher = model_folder(tmp_path / "teacher", unigrams, "Qwen3ForCausalLM")
    old, new = ids_of(unigrams), ids_of(bytewise)
    shared = next(piece for piece in sorted(old) if len(piece) > 2 and piece[0] == "▁" and f"Ġ{piece[1:]}" in new)
    lost = next(piece for piece in sorted(old) if len(piece) > 2 and piece[0] == "▁" and f"Ġ{piece[1:]}" not in new)
    values = {"eos_token_id": [old["</s>"], old[shared]], "pad_token_id": old["<pad>"], "image_token_id": old[lost]}
    (teacher / "generation_config.json").write_text(json.dumps({**values, "temperature": 0.6}))
    record = clone_folder(teacher, bytewise, tmp_path / "clone")
    found = json.loads((tmp_path / "clone" / "generation_config.json").read_text())
    wanted = {"eos_token_id": [new["[S]"], new[f"Ġ{shared[1:]}"]], "pad_token_id": new["[P]"], "image_token_id": None}
    assert found == {**wanted, "temperature": 0.6}
    assert any(f"image_token_id {old[lost]}" in note for note in record["notes"])


def test_shards_copies_and_another_type(unigrams: Path, bytewise: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    teacher = model_folder(tmp_path / "teacher", unigrams, "Qwen3ForCausalLM", tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_pretrained(teacher)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    for path in teacher.glob("tokenizer*"):
        shutil.copy(path, tmp_path / "shards")
    clone_folder(tmp_path / "shards", bytewise, tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 2
    tensors = load_file(teacher / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()  # tied, and stored all the same
    save_file(tensors, teacher / "model.safetensors", {"format": "pt"})
    clone_folder(teacher, bytewise, tmp_path / "plain")
    assert "lm_head.weight" not in weights(tmp_path / "plain")
    one, other = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("sharded", "plain"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    record = clone_folder(teacher, bytewise, tmp_path / "half", dtype=torch.bfloat16)
    half = weights(tmp_path / "half")
    assert {tensor.dtype for tensor in half.values()} == {torch.bfloat16} and record["dtype"] == "bfloat16"
    assert all(torch.equal(half[name], tensor.bfloat16()) for name, tensor in weights(tmp_path / "plain").items())
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "half").dtype == torch.bfloat16
    tensors["lm_head.weight"][3] += 1
    save_file(tensors, teacher / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        clone_folder(teacher, bytewise, tmp_path / "none")


def test_mixed_types_and_integer_buffers_stay_as_they_are(unigrams: Path, bytewise: Path, tmp_path: Path):
    teacher = model_folder(tmp_path / "teacher", unigrams, "BertModel", dtype=torch.float16)
    tensors = load_file(teacher / "model.safetensors")
    tensors["embeddings.position_ids"] = torch.arange(64).unsqueeze(0)
    tensors["embeddings.LayerNorm.weight"] = tensors["embeddings.LayerNorm.weight"].float()
    save_file(tensors, teacher / "model.safetensors", {"format": "pt"})
    clone_folder(teacher, bytewise, tmp_path / "clone")
    after = weights(tmp_path / "clone")
    assert {name: tensor.dtype for name, tensor in after.items()} == {name: tensor.dtype for name, tensor in tensors.items()}
    assert torch.equal(after["embeddings.position_ids"], tensors["embeddings.position_ids"])


def test_positions_that_count_from_padding(tmp_path: Path, unigrams: Path):
    """XLM-R adds the id of padding to positions: another id would read every text at other positions."""
    teacher = model_folder(tmp_path / "teacher", unigrams, "XLMRobertaModel")
    with pytest.raises(UserError, match="numbers positions from the id of its padding, 1,"):
        clone_folder(teacher, wordpiece(tmp_path / "words"), tmp_path / "clone")
    assert nothing_left(tmp_path / "clone")
    other = unigram(tmp_path / "other", 250)  # padding at 1 as well
    assert clone_folder(teacher, other, tmp_path / "clone")["roles"]["pad"] == {"new": "<pad>", "teacher": "<pad>"}


def test_wordpiece_both_ways(tmp_path: Path, unigrams: Path):
    words = wordpiece(tmp_path / "words")
    for number, (teacher, target) in enumerate(((words, unigrams), (unigrams, words))):
        model = model_folder(tmp_path / f"teacher {number}", teacher, "BertModel")
        record = clone_folder(model, target, tmp_path / f"clone {number}")
        entries = record["entries"]
        assert entries["unmapped"] < 40 and entries["copied"] > 50 and entries["special"] == 5


def damaged_teachers(folder: Path, unigrams: Path) -> dict[str, tuple[Path, str]]:
    """Teachers that cannot be cloned, and what is said about them."""
    good = model_folder(folder / "good", unigrams, "BertModel")
    found = {}

    def copy(name: str, sentence: str) -> Path:
        found[name] = (shutil.copytree(good, folder / name), sentence)
        return folder / name

    small = copy("a larger tokenizer", r"token ids up to \d+ but the model's embedding has \d+ rows")
    unigram(small, rows_of(unigrams) + 60, [*SENTENCES, *WORDS])
    broken = copy("not a number", r"word_embeddings\.weight: row 7 has values that are not finite")
    tensors = load_file(broken / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][7, 3] = float("nan")
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    for name, tensor in (("a NaN", "encoder.layer.0.output.dense.weight"), ("a NaN in a bias", "embeddings.LayerNorm.bias")):
        spoiled = load_file(good / "model.safetensors")
        spoiled[tensor].view(-1)[5] = float("nan")
        save_file(spoiled, copy(name, f"{tensor} has NaN: the teacher's weights") / "model.safetensors", {"format": "pt"})
    unused = model_folder(folder / "unused", unigrams, "BertModel", padding=1500)
    found["a smaller tokenizer"] = (unused, r"has \d+ token ids and the model's embedding [\d,]+ rows: the tokenizer belongs")
    (copy("no tokenizer", "tokenizer.json is missing") / "tokenizer.json").unlink()
    (copy("no weights", "has neither model.safetensors nor") / "model.safetensors").unlink()
    config = json.loads((good / "config.json").read_text())
    for name, values, sentence in (
        ("unknown architecture", {"model_type": "nothing"}, "is of no architecture that transformers has"),
        ("another size", {"vocab_size": 1000}, r"config\.json says vocab_size 1,000"),
        ("quantized", {"quantization_config": {"bits": 4}}, "has a quantization_config"),
    ):
        (copy(name, sentence) / "config.json").write_text(json.dumps({**config, **values}))
    t5 = {"model_type": "t5", "architectures": ["T5EncoderModel"], "d_model": 32, "num_layers": 1, "d_ff": 16, "num_heads": 2}
    text = json.dumps({**t5, "vocab_size": config["vocab_size"]})
    (copy("another architecture", "the weights are those of another architecture") / "config.json").write_text(text)
    (copy("static", "begins with StaticEmbedding") / "modules.json").write_text('[{"type": "a.StaticEmbedding", "path": ""}]')
    (copy("a module", "1_Pooling is missing") / "modules.json").write_text(
        '[{"type": "a.Transformer", "path": ""}, {"type": "a.Pooling", "path": "1_Pooling"}]'
    )
    (copy("outside", "outside of the folder") / "modules.json").write_text('[{"type": "a.Transformer", "path": "../x"}]')
    return found


def test_bad_teachers(unigrams: Path, tmp_path: Path):
    for name, (teacher, sentence) in damaged_teachers(tmp_path, unigrams).items():
        with pytest.raises(UserError, match=sentence):
            clone_folder(teacher, unigrams, tmp_path / "out")
        assert nothing_left(tmp_path / "out"), name
    with pytest.raises(UserError, match="is neither a folder nor the id of a model"):
        clone_folder(tmp_path / "nowhere", unigrams, tmp_path / "out")


def test_numbers_beyond_the_type_are_refused_and_infinite_masks_are_not(unigrams: Path, bytewise: Path, tmp_path: Path):
    teacher = model_folder(tmp_path / "teacher", unigrams, "BertModel")
    tensors = load_file(teacher / "model.safetensors")
    tensors["mask"] = torch.full((4, 4), float("-inf")).triu(1)
    save_file(tensors, teacher / "model.safetensors", {"format": "pt"})
    clone_folder(teacher, bytewise, tmp_path / "clone", dtype=torch.float16)
    tensors["embeddings.LayerNorm.bias"][0] = 1e6
    save_file(tensors, teacher / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"LayerNorm\.bias has numbers beyond float16: choose another --dtype"):
        clone_folder(teacher, bytewise, tmp_path / "none", dtype=torch.float16)
    assert nothing_left(tmp_path / "none")


def test_a_tokenizer_that_names_other_special_tokens_than_the_model_is_told_of(unigrams: Path, bytewise: Path, tmp_path: Path):
    teacher = model_folder(tmp_path / "teacher", unigrams, "BertModel")
    assert not [note for note in clone_folder(teacher, bytewise, tmp_path / "fine")["notes"] if "name other tokens" in note]
    config = json.loads((teacher / "config.json").read_text())
    ids = ids_of(unigrams)
    swapped = {"pad_token_id": ids["</s>"], "eos_token_id": ids["<pad>"]}
    (teacher / "config.json").write_text(json.dumps(config | swapped))
    notes = clone_folder(teacher, bytewise, tmp_path / "clone")["notes"]
    assert [note for note in notes if "name other tokens for eos (1, 2), pad (2, 1): is the tokenizer the one" in note], notes


def test_out_is_left_alone_and_a_full_disk_leaves_nothing(unigrams: Path, bytewise: Path, tmp_path: Path):
    teacher = model_folder(tmp_path / "teacher", unigrams, "BertModel")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("")
    with pytest.raises(UserError, match="mine exists already"):
        clone_folder(teacher, bytewise, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]
    script = (
        "import sys; from mecellem.errors import UserError; from conversion.clone import main\n"
        "try: main(sys.argv[1:])\nexcept UserError as error: sys.exit(str(error))"
    )
    flags = ["--teacher", str(teacher), "--tokenizer", str(bytewise), "--out", str(tmp_path / "full")]
    line = ["bash", "-c", 'ulimit -f 60; exec "$@"', "bash", sys.executable, "-c", script, *flags]  # blocks of 1 KiB, a file
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 1 and "the disk is full" in done.stderr, done.stderr
    assert nothing_left(tmp_path / "full")


def test_a_copy_that_differs_gets_no_name(unigrams: Path, bytewise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import safetensors.torch

    teacher, real = model_folder(tmp_path / "teacher", unigrams, "BertModel"), safetensors.torch.save_file

    def faulty(tensors, path, metadata, wanted):
        name = next(name for name in tensors if wanted in name)
        tensors = {**tensors, name: tensors[name] + 1}
        real(tensors, path, metadata=metadata)

    for wanted, sentence in (
        ("layer.1.output.dense", "a tensor beside the vocabulary"),
        ("word_embeddings", "is not as it was"),
    ):
        monkeypatch.setattr(safetensors.torch, "save_file", functools.partial(faulty, wanted=wanted))
        with pytest.raises(UserError, match=sentence):
            clone_folder(teacher, bytewise, tmp_path / "out")
        assert nothing_left(tmp_path / "out")


def with_a_token_behind_the_rows(folder: Path, special: bool = True) -> Path:
    """As Gemma 3's <image_soft_token>, which its models of text alone have no row for."""
    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text())
    token = {"content": "<image>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    settings["added_tokens"].append({**token, "id": rows_of(folder), "special": special})
    path.write_text(json.dumps(settings))
    return folder


def test_a_special_token_behind_the_rows_has_no_row(unigrams: Path, bytewise: Path, tmp_path: Path):
    plain = model_folder(tmp_path / "plain", unigrams, "BertModel")
    teacher = with_a_token_behind_the_rows(shutil.copytree(plain, tmp_path / "teacher"))
    records = [clone_folder(folder, bytewise, tmp_path / f"{folder.name} clone") for folder in (plain, teacher)]
    assert records[0]["entries"] == records[1]["entries"]
    one, other = (weights(tmp_path / f"{folder.name} clone") for folder in (plain, teacher))
    assert all(torch.equal(one[name], other[name]) for name in one)
    kept = clone_folder(plain, with_a_token_behind_the_rows(shutil.copytree(bytewise, tmp_path / "new")), tmp_path / "kept")
    assert kept["unmapped"].keys() - records[0]["unmapped"].keys() == {"<image>"}
    ordinary = with_a_token_behind_the_rows(shutil.copytree(plain, tmp_path / "ordinary"), special=False)
    with pytest.raises(UserError, match=r"token ids up to \d+ but the model's embedding has \d+ rows"):
        clone_folder(ordinary, bytewise, tmp_path / "none")
