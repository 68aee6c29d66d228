"""`mecellem curriculum check` on real corpora: the sample's three splits as three sources."""

import json
import re
import shutil

import pytest

from mecellem.errors import UserError
from mecellem.manifest import read_manifest
from megatron_recipes.curriculum_check import main

STAGE = """\
stages:
  - name: general
    tokens: {tokens}
    seq_len: 128
    global_batch_tokens: 2048
    lr: {{peak: 1.0e-3, final: 1.0e-4, warmup_tokens: 20_480, decay: linear}}
    sources:
      - {{path: {bins}/train, weight: 0.75, name: turkish}}
      - {{path: {bins}/validation, weight: 0.25, replay: true, max_epochs: {epochs}}}
  - name: late
    tokens: 20_480
    seq_len: 256
    global_batch_tokens: 2048
    lr: 1.0e-3
    sources:
      - {{path: {bins}/{last}, weight: 1}}
"""


@pytest.fixture
def write(tmp_path):
    def write(bins, tokens="400_000", epochs=1, last="test"):
        path = tmp_path / "plan.yaml"
        path.write_text(STAGE.format(bins=bins, tokens=tokens, epochs=epochs, last=last), encoding="utf-8")
        return path

    return write


def check(*arguments):
    return main([str(argument) for argument in arguments])


def test_tables_totals_and_notes(sample_bins, sample_tokenizer, write, capsys):
    assert check(write(sample_bins), "--tokenizer", sample_tokenizer, "--verify") == 0
    text = capsys.readouterr().out
    assert "1 of 2, general: 401,408 tokens, 196 steps of 16 x 128" in text
    available = read_manifest(sample_bins / "train").tokens
    tokens = 0.75 * 401_408
    row = re.search(r"turkish.*", text)[0]
    assert "75.00%" in row and f"{tokens / available:.3f}" in row
    assert "validation (replay)" in text
    assert "421,888 tokens in 206 steps from 3 corpora, all of one tokenizer (8,192 entries" in text
    assert "note    stage late: the learning rate jumps from 0.0001 to 0.001 at its first step" in text
    assert "note    stage general: 1% of it is 31 sequences, too few for a mixture within 0.1%" in text


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plots_are_the_same_every_time(sample_bins, write, tmp_path, suffix):
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    for path in (first, second):
        assert check(write(sample_bins), "--plot", path) == 0
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    if suffix == "png":
        from matplotlib.image import imread

        colours = {tuple(pixel) for pixel in imread(first)[::4, ::4].reshape(-1, 4).round(2).tolist()}
        assert len(colours) > 10  # areas, lines and text, not an empty page


def refusal(*arguments):
    with pytest.raises(UserError) as caught:
        check(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_more_tokens_than_the_corpus_has(sample_bins, write):
    available = read_manifest(sample_bins / "validation").tokens
    message = refusal(write(sample_bins, tokens=str(8 * available)))
    assert "line 9, stage 'general', source 'validation'" in message
    assert f"epochs of its {available:,}; max_epochs allows 1" in message and "max_epochs: 2.0" in message


def test_max_epochs_allow_them(sample_bins, write, capsys):
    available = read_manifest(sample_bins / "validation").tokens
    assert check(write(sample_bins, tokens=str(8 * available), epochs=2.1)) == 0
    assert re.search(r"validation \(replay\).* 2\.00\d .* 2\.1 ", capsys.readouterr().out)


def test_a_missing_corpus(sample_bins, write):
    message = refusal(write(sample_bins, last="nowhere"))
    assert "line 16, stage 'late', source 'nowhere'" in message and "nowhere.manifest.json is missing" in message


def test_a_corpus_of_another_tokenizer(sample_bins, write, tmp_path):
    for split in ("train", "validation"):
        (tmp_path / f"{split}.manifest.json").write_bytes((sample_bins / f"{split}.manifest.json").read_bytes())
    text = (sample_bins / "test.manifest.json").read_text(encoding="utf-8")
    digest = read_manifest(sample_bins / "test").tokenizer.sha256
    (tmp_path / "test.manifest.json").write_text(text.replace(digest, "0" * 64), encoding="utf-8")
    message = refusal(write(tmp_path))
    assert "line 16" in message and "another tokenizer than" in message and "train.manifest.json" in message


def test_the_same_tokens_under_two_paths(sample_bins, tmp_path, write):
    for suffix in (".bin", ".idx", ".manifest.json"):
        shutil.copy(sample_bins / f"test{suffix}", tmp_path / f"test{suffix}")
    path = write(sample_bins)
    twin = f"weight: 0.5}}\n      - {{path: {tmp_path}/test, weight: 0.5, name: twin}}"
    path.write_text(path.read_text(encoding="utf-8").replace("weight: 1}", twin), encoding="utf-8")
    assert "holds the same tokens as" in refusal(path)


def test_another_tokenizer_folder_and_flags(sample_bins, sample_tokenizer, write, tmp_path):
    assert "--tokenizer FOLDER" in refusal(write(sample_bins), "--verify")
    assert "must end in .png or .svg" in refusal(write(sample_bins), "--plot", tmp_path / "a.txt")
    other = tmp_path / "tokenizer"
    shutil.copytree(sample_tokenizer, other)
    path = other / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    message = refusal(write(sample_bins), "--tokenizer", other)
    assert "SHA-256 differs" in message and "set --tokenizer to the tokenizer that made the corpus" in message
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"].append(content["added_tokens"][-1] | {"id": 8192, "content": "[MORE]"})
    path.write_text(json.dumps(content), encoding="utf-8")
    message = refusal(write(sample_bins), "--tokenizer", other)
    assert "has 8,193 entries" in message and "set --tokenizer to the tokenizer that made the corpus" in message
