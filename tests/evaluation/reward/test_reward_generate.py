"""Continuations: batches do not change them, seeds do, and what was written is not written again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evaluation.cache import Cache
from evaluation.perplexity.models import check_model
from evaluation.reward.generate import Writer
from evaluation.reward.prompts import Prompt, read_continuations, read_prompts
from evaluation.reward.settings import GenerationSettings
from mecellem.errors import UserError


def writer(folder: Path, cache: Path, **settings) -> Writer:
    return Writer(check_model(folder), GenerationSettings(**{"max_new_tokens": 12} | settings), "cpu", Cache(cache))


def texts(folder: Path, cache: Path, prompts: Path, **settings) -> list[str]:
    return [found.text for found in writer(folder, cache, **settings).write(read_prompts(prompts))]


def greedy_by_hand(folder: Path, prompt: str, count: int) -> str:
    """Token by token without a cache."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    for _ in range(count):
        with torch.no_grad():
            best = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if best == tokenizer.eos_token_id:
            break
        ids.append(best)
    return tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_greedy_in_batches_is_greedy_alone(writers, prompts, tmp_path):
    expected = [greedy_by_hand(writers[0], prompt.text, 12) for prompt in read_prompts(prompts)]
    for size in (1, 4):
        assert texts(writers[0], tmp_path / str(size), prompts, generation_batch=size) == expected
    assert texts(writers[1], tmp_path / "other", prompts) != expected


def test_sampling_is_decided_by_the_seed(writers, prompts, tmp_path):
    first = texts(writers[0], tmp_path / "a", prompts, temperature=1.0)
    torch.manual_seed(77)  # whatever was drawn before
    assert texts(writers[0], tmp_path / "b", prompts, temperature=1.0) == first
    assert texts(writers[0], tmp_path / "b", prompts, temperature=1.0, seed=1) != first
    assert texts(writers[0], tmp_path / "b", prompts) != first


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_was_interrupted_is_continued(writers, prompts, tmp_path, temperature, monkeypatch):
    settings = {"generation_batch": 2, "temperature": temperature}
    whole = texts(writers[0], tmp_path / "whole", prompts, **settings)
    original, calls = Writer.continue_batch, []

    def interrupted(self, rows):
        calls.append(rows)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, rows)

    monkeypatch.setattr(Writer, "continue_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        texts(writers[0], tmp_path / "cache", prompts, **settings)
    assert texts(writers[0], tmp_path / "cache", prompts, **settings) == whole
    assert len(calls) == 4 and calls[1] == calls[2]  # three batches, the second one twice
    monkeypatch.setattr(Writer, "load", lambda self: pytest.fail("the model was loaded for what is in the cache"))
    assert texts(writers[0], tmp_path / "cache", prompts, **settings) == whole


def test_a_continuation_ends_at_its_end(writers, tmp_path):
    """The folder's own generation settings do not count, but what they name as an end does."""
    folder = tmp_path / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(writers[0]), AutoTokenizer.from_pretrained(writers[0])
    prompt = Prompt("1", "Kira sözleşmesi nasıl feshedilir?")
    free = writer(writers[0], tmp_path / "free").write([prompt])[0]
    ids = tokenizer(prompt.text)["input_ids"]
    with torch.no_grad():
        made = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :].tolist()
    end = next(token for number, token in enumerate(made) if number >= 3 and token not in made[:number])
    model.generation_config.eos_token_id = [2, end]
    model.generation_config.max_new_tokens = 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    found = writer(folder, tmp_path / "cache").write([prompt])[0]
    assert found.finished and found.tokens == made.index(end) and free.text.startswith(found.text)
    assert not free.finished and free.tokens == 12


def test_chat_wraps_the_prompt(writers, tmp_path):
    asked = writer(writers[0], tmp_path, chat=True).inputs([Prompt("1", "Soru?")])[0]
    tokenizer = AutoTokenizer.from_pretrained(writers[0])
    assert tokenizer.decode(asked) == "<|begin|><|start|>user<|end|>\n\nSoru?<|eot|><|start|>assistant<|end|>\n\n"


def test_prompts_without_room_are_refused_before_the_model_is_loaded(writers, tmp_path, monkeypatch):
    monkeypatch.setattr(Writer, "load", lambda self: pytest.fail("loaded"))
    with pytest.raises(UserError, match=r"has 251 tokens, and .*base has 256 positions"):
        writer(writers[0], tmp_path).write([Prompt("1", "a" * 250)])
    tokenizer = json.loads((writers[0] / "tokenizer_config.json").read_text())
    assert tokenizer["eos_token"] == "<|eot|>"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "--max-new-tokens 0"),
        ({"temperature": -1.0}, "--temperature -1.0"),
        ({"temperature": 1.0, "top_p": 0.0}, "--top-p 0.0"),
        ({"top_p": 0.9}, "--top-p 0.9 has no effect without sampling"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(UserError, match=message):
        GenerationSettings(**settings)


BAD_PROMPTS = {
    "": r"has no prompt: write one",
    "\n\n": r"has no prompt: write one",
    '{"prompt": "  "}': "line 1: the prompt is empty",
    '{"text": "soru"}': 'line 1: the record has no "prompt", it has text',
    '{"prompt": 3}': 'line 1: "prompt" must be a string, not a number',
    '["soru"]': "line 1: a JSON object is needed, not an array",
    '{"prompt": "a"}\n{"prompt"': "line 2: not JSON",
    '{"prompt": "a"}\n\n{"prompt": "a"}': "line 3: line 1 has the same prompt",
    '{"id": 1, "prompt": "a"}\n{"id": "1", "prompt": "b"}': "line 2: line 1 has the same id",
    '{"id": [1], "prompt": "a"}': 'line 1: "id" must be a string or a whole number, not an array',
}


@pytest.mark.parametrize("content", BAD_PROMPTS)
def test_bad_prompts(tmp_path, content):
    path = tmp_path / "prompts.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=BAD_PROMPTS[content]):
        read_prompts(path)


def test_continuations_from_a_file(tmp_path):
    asked = [Prompt("1", "bir"), Prompt("iki", "iki")]
    path = tmp_path / "texts.jsonl"

    def read(*records: dict) -> list[str]:
        path.write_text("\n".join(json.dumps(record) for record in records))
        return [found.text for found in read_continuations(path, asked, "prompt", "--base")]

    one, two = {"id": 1, "prompt": "bir", "continuation": "a"}, {"prompt": "iki", "continuation": "b"}
    assert read(two, {"prompt": "üç", "continuation": "c"}, one) == ["a", "b"]
    for records, message in (
        ((one,), r"\(--base\) has no continuation of 'iki'"),
        ((one, two, two), "line 3: line 2 continues the same prompt"),
        ((one | {"prompt": "on"}, two), "line 1: this is not the prompt that --prompts has under id 1"),
        (({"id": 1}, two), 'line 1: the record has no "continuation"'),
    ):
        with pytest.raises(UserError, match=message):
            read(*records)
