"""The command: models of three tokenizers on one set of questions, files, tables, cache, baselines, refusals."""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from browser_pages import check_page
from masked_models import KINDS, LAW, NATURE, TEXTS, UNSEEN, write_model, write_texts

from evaluation.cache import Cache
from evaluation.fill_mask import main
from evaluation.fill_mask.inputs import open_baseline
from evaluation.fill_mask.measure import measure_models, score_documents
from evaluation.fill_mask.measures import tokens_of_model, words_of_model
from evaluation.fill_mask.passages import Passage
from evaluation.fill_mask.questions import TokenMasker, chosen_words
from evaluation.fill_mask.results import FillMaskResults, Rate
from evaluation.fill_mask.samples import samples
from evaluation.fill_mask.settings import FillMaskSettings
from evaluation.fill_mask.summary import difference, rate
from evaluation.fill_mask.tokens import encode
from evaluation.report import main as report
from mecellem.errors import UserError
from post_training.model_folder import load_masked_lm, load_tokenizer
from preprocessing.corpus.document import Document

SETTINGS = FillMaskSettings(mask_probability=0.3, mask_words=20, pll_sentences=6, domain_field="branch")
PASSAGES = [Passage(str(number), "law", text) for number, text in enumerate(TEXTS)]


def test_masked_tokens_equal_plain_transformers(masked_folder: Path):
    tokenizer, model = load_tokenizer(masked_folder), load_masked_lm(masked_folder, "cpu")
    columns = tokens_of_model(model, tokenizer, PASSAGES, SETTINGS).values
    masker = TokenMasker(tokenizer, 0.3, 0)
    for number, text in enumerate(encode(tokenizer, TEXTS)):
        row, shown = masker.row(str(number), text.ids)
        with torch.inference_mode():
            logits = model(input_ids=torch.from_numpy(row.ids[None])).logits[0, row.positions]
        labels = torch.from_numpy(row.labels)
        right = (logits.argmax(-1) == labels).numpy()
        five = (logits.topk(5).indices == labels[:, None]).any(-1).numpy()
        nll = torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        expected = (len(labels), right.sum(), five.sum(), shown.sum(), right[shown].sum(), five[shown].sum())
        assert tuple(columns[name][number] for name in list(columns)[:-1]) == expected
        assert columns["nll"][number] == pytest.approx(nll, rel=1e-4)


class Knowing(torch.nn.Module):
    """A model that says what the text really has: its hidden states are the true ids."""

    def __init__(self, vocabulary: int, truth: dict[bytes, np.ndarray]):
        super().__init__()
        self.device, self.truth = torch.device("cpu"), truth
        self.config = type("Config", (), {"vocab_size": vocabulary})
        self.base_model = torch.nn.Identity()

    def forward(self, input_ids, attention_mask):
        lengths = [input_ids.shape[1]] * len(input_ids) if attention_mask is None else attention_mask.sum(1).tolist()
        hidden = torch.zeros(*input_ids.shape, self.config.vocab_size)
        for number, (row, length) in enumerate(zip(input_ids, lengths, strict=True)):
            true = torch.from_numpy(self.truth[row[:length].numpy().tobytes()])
            hidden[number, :length] = torch.nn.functional.one_hot(true, self.config.vocab_size) * 50.0
        (logits, *_) = self.base_model((hidden,))
        return type("Output", (), {"logits": logits})


def test_a_model_that_knows_scores_one(masked_folders: dict[str, Path]):
    tokenizer = load_tokenizer(masked_folders["bpe"])
    encoded = encode(tokenizer, TEXTS)
    masker = TokenMasker(tokenizer, 0.3, 0)
    truth = {masker.row(str(number), text.ids)[0].ids.tobytes(): text.ids for number, text in enumerate(encoded)}
    values = tokens_of_model(Knowing(len(tokenizer), truth), tokenizer, PASSAGES, SETTINGS).values
    assert values["asked"] == values["top1"] == values["top5"] and values["shown"] == values["shown_top1"]
    assert sum(values["nll"]) == pytest.approx(0, abs=1e-6)
    truth = {}
    for number, text in enumerate(encoded):
        ids = text.ids.copy()
        for span in chosen_words(str(number), text.text, 0.3, 0):
            ids[text.touching(span)] = tokenizer.mask_token_id
        truth[ids.tobytes()] = text.ids
    values = words_of_model(Knowing(len(tokenizer), truth), tokenizer, PASSAGES, SETTINGS).values
    assert values["words"] == values["top1"] == values["top5"] and sum(values["words"]) > 20


@pytest.fixture(scope="module")
def measured(masked_folders: dict[str, Path], branch_texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All models through the command line, with the cloze ranked."""
    out = tmp_path_factory.mktemp("measured") / "out" / "results.json"
    folders = [str(folder) for folder in masked_folders.values()]
    flags = ["--texts", str(branch_texts), "--domain-field", "branch", "--pll-sentences", "6", "--cloze-items", "5"]
    assert main([*folders, *flags, "--cloze-ranking", "--device", "cpu", "--out", str(out)]) == 0
    return out


def test_the_command_writes_what_it_measured(measured: Path, masked_folders: dict[str, Path]):
    results = FillMaskResults.model_validate_json(measured.read_bytes())
    assert [model.name for model in results.models] == list(masked_folders)
    assert (results.texts.documents, results.texts.passages, results.texts.empty) == (14, 13, 1)
    assert results.models[0].change is None
    for model in results.models:
        assert list(model.model.by_domain) == ["law", "nature"]
        for predictor in (model.model, model.unigram):
            for scores in (predictor.all, *predictor.by_domain.values()):
                assert scores.words and scores.pseudo and 0 <= scores.words.top1.value <= scores.words.top5.value <= 1
                assert scores.tokens.top1.interval and scores.tokens.top1.interval[0] <= scores.tokens.top1.value
            assert predictor.cloze and predictor.cloze.items == 5 and predictor.cloze.ranked_top5
        # the same questions for all, whatever the tokenizer
        first = results.models[0].model.all
        assert (model.model.all.words.words, model.model.all.pseudo.bytes) == (first.words.words, first.pseudo.bytes)
        assert model.unigram.all.words == results.models[0].unigram.all.words
        low, high = model.model.all.pseudo.bits_per_byte.interval
        assert low < model.model.all.pseudo.bits_per_byte.value < high
    assert len({model.model.all.tokens.asked for model in results.models}) == 3
    wordpiece = results.models[1]
    assert wordpiece.change and wordpiece.change.bits_per_byte
    bits = wordpiece.model.all.pseudo.bits_per_byte.value - results.models[0].model.all.pseudo.bits_per_byte.value
    assert wordpiece.change.bits_per_byte.value == pytest.approx(bits)


def test_the_picture_has_its_data_beside_it(measured: Path):
    assert measured.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader(measured.with_suffix(".csv").read_text(encoding="utf-8").splitlines()))
    results = FillMaskResults.model_validate_json(measured.read_bytes())
    found = {(row["panel"], row["series"], row["y"]): float(row["x"]) for row in rows}
    law = results.models[1].model.by_domain["law"]
    assert found["Masked words right (share)", "wordpiece", "law"] == pytest.approx(law.words.top1.value)
    assert found["Bits per byte (pseudo-likelihood)", "wordpiece", "law"] == pytest.approx(law.pseudo.bits_per_byte.value)
    assert {row["y"] for row in rows} == {"law", "nature", "all"}
    assert {row["series"] for row in rows} == {name for kind in KINDS for name in (kind, f"unigram {kind}")}


def test_the_page_has_every_domain_and_model(measured: Path, tmp_path: Path):
    assert report([str(measured), "--out", str(tmp_path / "page.html")]) == 0
    check_page(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    results = FillMaskResults.model_validate_json(measured.read_bytes())
    for model in results.models:
        for part in (*model.model.by_domain.values(), model.model.all):
            assert f"<td>{part.pseudo.bits_per_byte.value:.3f}</td>" in page
    assert page.count('<td class="text">law</td>') > 3, "a sorted row must say what it is of"
    assert "wordpiece minus bpe" in page and "80/10/10: of the tokens" in page


def test_figures_are_whole_in_80_columns(measured: Path):
    import io

    from rich.console import Console

    from evaluation.fill_mask.tables import print_results

    stream = io.StringIO()
    results = FillMaskResults.model_validate_json(measured.read_bytes())
    print_results(Console(file=stream, width=80), results)
    text = stream.getvalue()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    for model in results.models:
        assert f"{model.model.all.pseudo.bits_per_byte.value:.3f}" in text
        assert f"{100 * model.model.all.words.top5.value:.1f}" in text
    for words in (
        "legal cloze, 5 items",
        "candidates",
        "unigram",
        "wordpiece minus bpe",
        "1 empty documents",
        "has no token in",
    ):
        assert words in " ".join(text.split()), words


def test_nothing_is_scored_twice(masked_folders: dict[str, Path], branch_texts: Path, tmp_path: Path, monkeypatch):
    folder, out, cache = masked_folders["bpe"], tmp_path / "out.json", tmp_path / "cache"
    first = measure_models([folder], [branch_texts], out, cache, SETTINGS, device="cpu")
    kept = sorted(path.name for path in cache.iterdir())
    assert sorted({name.rsplit("-", 1)[0] for name in kept}) == [
        f"{kind}-{name}" for kind in ("masked", "unigram") for name in ("cloze", "pseudo", "tokens", "words")
    ]
    import evaluation.fill_mask.measure as measure

    monkeypatch.setattr(measure, "load_model", lambda *_: pytest.fail("the model was loaded again"))
    assert measure_models([folder], [branch_texts], out, cache, SETTINGS, device="cpu") == first
    # a part that an interruption left out is the only one made again
    monkeypatch.undo()
    next(cache.glob("masked-words-*")).unlink()
    times = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    again = measure_models([folder], [branch_texts], out, cache, SETTINGS, device="cpu")
    assert again.models[0].model == first.models[0].model and sorted(path.name for path in cache.iterdir()) == kept
    assert {name: (cache / name).stat().st_mtime_ns for name in times} == times
    # other questions are other entries
    measure_models([folder], [branch_texts], out, cache, replace(SETTINGS, mask_seed=1), device="cpu")
    assert len(list(cache.iterdir())) > len(kept)


def test_unigrams_answer_with_the_commonest(masked_folders: dict[str, Path], branch_texts: Path, tmp_path: Path):
    train = tmp_path / "train.jsonl"
    train.write_text(json.dumps({"text": "ve karar ve karar ve bir"}) + "\n", encoding="utf-8")
    settings = replace(SETTINGS, mask_probability=1, mask_words=1000)
    folder, cache = masked_folders["bpe"], tmp_path / "cache"
    results = measure_models([folder], [branch_texts], tmp_path / "o.json", cache, settings, train=[train], device="cpu")
    from preprocessing.turkish import words

    asked_texts = [*TEXTS, UNSEEN]

    every = Counter(word for text in asked_texts for word in words(text) if not word.isdigit())
    scores = results.models[0].unigram.all.words
    assert scores.words == every.total()
    assert scores.top1.value == pytest.approx(every["ve"] / every.total())
    assert scores.top5.value == pytest.approx((every["ve"] + every["karar"] + every["bir"]) / every.total())
    tokenizer = load_tokenizer(folder)
    ids = tokenizer("ve karar ve karar ve bir", add_special_tokens=False)["input_ids"]
    counts = Counter(ids)
    asked = [token for text in encode(tokenizer, asked_texts) for token in text.ids[1:-1].tolist()]
    total = len(ids) + len(tokenizer)
    tokens = results.models[0].unigram.all.tokens
    assert tokens.nll.value == pytest.approx(sum(-math.log((counts[token] + 1) / total) for token in asked) / len(asked))
    assert "themselves" not in results.texts.baseline
    alone = measure_models([folder], [branch_texts], tmp_path / "o.json", cache, settings, device="cpu")
    assert "flatters it" in alone.texts.baseline


def test_a_corpus_folder_gives_its_test_split_and_counts_its_train_split(masked_folders: dict[str, Path], tmp_path: Path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split, texts in (("train", NATURE), ("test", LAW)):
        records = [json.dumps({"text": text, "source": "hukuk"}) for text in texts]
        (corpus / f"{split}.jsonl").write_text("\n".join(records) + "\n", encoding="utf-8")
    settings = replace(SETTINGS, domain_field="source", cloze_items=0, pll_sentences=0)
    folder = masked_folders["bpe"]
    results = measure_models([folder], [corpus], tmp_path / "o.json", tmp_path / "cache", settings, device="cpu")
    assert results.texts.baseline.endswith("train.jsonl") and list(results.models[0].model.by_domain) == ["hukuk"]
    assert results.models[0].model.cloze is None and results.models[0].model.all.pseudo is None
    print_all(results)
    # the same figures as stand beside a checkpoint
    documents = [Document(f"test.jsonl:{number}", "hukuk", "", "", text) for number, text in enumerate(LAW, start=1)]
    common = open_baseline([corpus / "train.jsonl"], [], [], settings)
    scores, baseline = score_documents(folder, documents, common, settings, Cache(tmp_path / "cache"), "cpu")
    tokens = results.models[0].model.all.tokens
    assert scores.all.top1 == pytest.approx(tokens.top1.value) and scores.all.nll == pytest.approx(tokens.nll.value)
    assert scores.all.top1_mask_only == pytest.approx(tokens.top1_mask_only.value) and scores.all.masked == tokens.asked
    assert scores.by_source["hukuk"] == scores.all and scores.probability == 0.3
    assert baseline.all.nll == pytest.approx(results.models[0].unigram.all.tokens.nll.value)


def print_all(results: FillMaskResults) -> None:
    from evaluation.fill_mask.plot import draw
    from evaluation.fill_mask.tables import print_results
    from mecellem.console import console

    print_results(console(), results)
    assert draw(results)[0].startswith(b"\x89PNG")


def test_samples_hide_one_word_of_a_real_sentence(masked_folders: dict[str, Path]):
    folder = masked_folders["bpe"]
    tokenizer, model = load_tokenizer(folder), load_masked_lm(folder, "cpu")
    documents = [Document(str(number), "ab"[number % 2], "", "", text) for number, text in enumerate(TEXTS)]
    found = samples(model, tokenizer, documents, count=4)
    assert len(found) == 4 and {item.source for item in found} == {"a", "b"}
    for item in found:
        sentence = item.before + item.truth + item.after
        assert sentence in TEXTS[int(item.id)] and len(item.guesses) == 5
        ids = torch.tensor([tokenizer(sentence)["input_ids"]])
        ids[ids == tokenizer(f" {item.truth}", add_special_tokens=False)["input_ids"][0]] = tokenizer.mask_token_id
        chances = [guess.probability for guess in item.guesses]
        assert chances == sorted(chances, reverse=True) and item.truth_probability <= chances[0]
    assert samples(model, tokenizer, documents, count=4) == found


# ---- intervals


def test_rates_by_hand():
    hits, asked = np.array([1.0, 0.0, 3.0, 0.0]), np.array([2.0, 2.0, 4.0, 0.0])
    assert rate(hits, asked, 0) == Rate(value=0.5, interval=rate(hits[:3], asked[:3], 0).interval)
    assert rate(hits[:1], asked[:1], 0) == Rate(value=0.5, interval=None)
    assert rate(hits[3:], asked[3:], 0) is None
    same = np.full(40, 10.0)
    found = difference((same / 2, same), (same / 2 + 1, same), 0)
    assert found.value == pytest.approx(0.1) and found.real
    assert not difference((same, same), (same, same), 0).real


# ---- refusals and formats


def refused(tmp_path: Path, texts: Path, message: str, *models: Path, **keywords) -> None:
    with pytest.raises(UserError, match=message):
        measure_models(models, [texts], tmp_path / "o.json", tmp_path / "cache", SETTINGS, device="cpu", **keywords)
    assert not (tmp_path / "o.json").exists() and not (tmp_path / "cache").exists()


def test_bad_models_and_files_are_refused_before_any_work(masked_folders: dict[str, Path], branch_texts: Path, tmp_path: Path):
    good = masked_folders["bpe"]
    refused(tmp_path, branch_texts, "no model was given")
    refused(tmp_path, branch_texts, "is not a folder", tmp_path / "none")
    refused(tmp_path, branch_texts, "named twice", good, good)
    for name, damage, message in (
        ("pickle", lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "never loaded"),
        ("cut", lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:999]), "truncated"),
        ("silent", lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        ("headless", lambda f: change_json(f / "config.json", architectures=["ModernBertModel"]), "no head that fills masks"),
        ("causal", lambda f: change_json(f / "config.json", architectures=["LlamaForCausalLM"]), "evaluate perplexity"),
        ("small", lambda f: change_json(f / "config.json", vocab_size=50), "embedding has 50 rows"),
        ("maskless", lambda f: change_json(f / "tokenizer_config.json", mask_token=None), "no mask token"),
    ):
        shutil.copytree(good, tmp_path / name)
        damage(tmp_path / name)
        refused(tmp_path, branch_texts, message, good, tmp_path / name)
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.yaml").write_text("")
    refused(tmp_path, branch_texts, "is a run, not a model", run)
    refused(tmp_path, tmp_path / "no.jsonl", "not a file", good)
    refused(tmp_path, branch_texts, "--train", good, train=[tmp_path / "no.jsonl"])
    refused(tmp_path, branch_texts, "--cloze", good, cloze=[tmp_path / "no.jsonl"])
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"text": " "}\n')
    refused(tmp_path, empty, "no document with text", good)
    cloze = tmp_path / "long.jsonl"
    cloze.write_text(json.dumps({"text": "uzun " * 300 + "[MASK]", "answer": "son"}) + "\n")
    refused(tmp_path, branch_texts, "long.jsonl, line 1.*bpe sees 256", good, cloze=[cloze])


def change_json(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_importing_loads_nothing_heavy():
    heavy = "{'torch', 'transformers', 'megatron', 'matplotlib'}"
    code = f"import sys, evaluation.fill_mask, evaluation.fill_mask.measure; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


def test_a_checkpoint_is_exported_once_and_scores_like_its_origin(branch_texts: Path, tmp_path: Path):
    from conversion.hf_import import import_folder

    folder = write_model(tmp_path / "hf", "bpe", seed=5)
    import_folder(folder, tmp_path / "step_0000000")
    settings = replace(SETTINGS, cloze_items=0, pll_sentences=2)
    work = (tmp_path / "o.json", tmp_path / "cache", settings)
    both = [folder, tmp_path / "step_0000000"]
    ours, theirs = measure_models(both, [branch_texts], *work, device="cpu").models
    assert (ours.kind, theirs.kind) == ("hugging_face", "megatron")
    assert theirs.model.all.tokens.nll.value == pytest.approx(ours.model.all.tokens.nll.value, rel=1e-4)
    assert theirs.parameters == ours.parameters
    assert len(list((tmp_path / "cache").glob("export-*"))) == 1


def test_a_short_context_cuts_the_texts_of_all_models(tmp_path: Path):
    texts = write_texts(tmp_path / "t.jsonl")
    short, long = write_model(tmp_path / "short", "bpe", positions=24), write_model(tmp_path / "long", "unigram")
    results = measure_models([long, short], [texts], tmp_path / "o.json", tmp_path / "cache", SETTINGS, device="cpu")
    assert results.texts.cut > 0
    words = {model.model.all.words.words for model in results.models}
    assert len(words) == 1
