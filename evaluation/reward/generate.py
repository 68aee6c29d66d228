"""Continuations of prompts by a causal language model, greedy or sampled, in batches that depend on nothing but the prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from evaluation.cache import Cache
from evaluation.machine import versions
from evaluation.model_files import hugging_face_folder
from evaluation.perplexity.models import ModelSource
from evaluation.results import Record
from evaluation.reward.prompts import Continuation, Prompt
from evaluation.reward.settings import GenerationSettings
from mecellem.console import progress_bar
from mecellem.content import content_key, source_sha256
from mecellem.errors import UserError
from post_training.model_folder import check_whole, load_tokenizer, quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEED_DIGITS = 15  # of a batch's key, in hexadecimal: 60 bits


class ContinuationBatch(Record):
    """The continuations of one batch, in its order."""

    continuations: list[Continuation]


class Writer:
    """A model that continues prompts, loaded when the first batch is not in the cache."""

    def __init__(self, source: ModelSource, settings: GenerationSettings, device: str, store: Cache) -> None:
        self.source = source
        self.settings = settings
        self.device = device
        self.store = store
        self.tokenizer = load_tokenizer(source.tokenizer)
        if settings.chat and not self.tokenizer.chat_template:
            raise UserError(f"{source.folder} has no chat template: leave out --chat")
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.convert_ids_to_tokens(0)
        self.model: Any = None
        self.own_ends: Any = None

    def inputs(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Token ids of the prompts, as the model sees them. Raises `UserError` where one leaves no room to go on."""
        limit = self.source.positions - self.settings.max_new_tokens
        found = [prompt_ids(self.tokenizer, prompt.text, self.settings.chat) for prompt in prompts]
        for prompt, ids in zip(prompts, found, strict=True):
            if not ids:
                raise UserError(
                    f"the tokenizer of {self.source.folder} makes no token of the prompt {prompt.text[:60]!r}: remove it"
                )
            if len(ids) > limit:
                raise UserError(
                    f"the prompt {prompt.text[:60]!r} has {len(ids)} tokens, and {self.source.folder} has "
                    f"{self.source.positions} positions for it and --max-new-tokens {self.settings.max_new_tokens}: lower "
                    "that, or shorten the prompt"
                )
        return found

    def write(self, prompts: Sequence[Prompt]) -> list[Continuation]:
        """The continuations of all prompts, in their order; batches that are in the cache are taken from there."""
        ids = self.inputs(prompts)
        order = sorted(range(len(ids)), key=lambda number: (-len(ids[number]), ids[number]))
        size = self.settings.generation_batch
        found: dict[int, Continuation] = {}
        with progress_bar(transient=True) as bar:
            task = bar.add_task(f"{self.source.folder.name} writes", total=len(ids))
            for start in range(0, len(order), size):
                numbers = order[start : start + size]
                batch = self.cached([ids[number] for number in numbers])
                found |= dict(zip(numbers, batch.continuations, strict=True))
                bar.update(task, advance=len(numbers))
        return [found[number] for number in range(len(ids))]

    def cached(self, rows: list[list[int]]) -> ContinuationBatch:
        """One batch, written once for the same model, prompts, settings, code and kind of device."""
        parts = {
            "model": self.source.digest,
            "prompts": rows,
            "settings": asdict(self.settings) | ({"seed": None} if self.settings.temperature == 0 else {}),
            "device": self.device.split(":")[0],
            "versions": versions(),
            "code": source_sha256("evaluation/reward"),
        }
        return self.store.record("continuations", parts, ContinuationBatch, lambda: self.continue_batch(rows))

    def continue_batch(self, rows: list[list[int]]) -> ContinuationBatch:
        """Continue prompts, padded on the left. Sampling is seeded by the batch, so that a resumed run draws the same."""
        import torch

        if self.model is None:
            self.model = self.load()
        padded: Any = self.tokenizer.pad({"input_ids": rows}, padding=True, return_tensors="pt")
        ids, mask = padded["input_ids"].to(self.device), padded["attention_mask"].to(self.device)
        with torch.random.fork_rng(devices=[self.device] if self.device.startswith("cuda") else []), torch.inference_mode():
            torch.manual_seed(int(content_key([self.settings.seed, rows])[:SEED_DIGITS], 16))
            made = self.model.generate(input_ids=ids, attention_mask=mask, **self.arguments())[:, ids.shape[1] :]
        ends = self.end_tokens()
        return ContinuationBatch(continuations=[self.read(row, ends) for row in made.tolist()])

    def load(self) -> Any:
        """The model, without a folder's own generation settings: those of --help are the ones that count."""
        import torch
        from transformers import AutoModelForCausalLM, GenerationConfig

        folder = hugging_face_folder(self.source, self.store)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[self.settings.model_dtype]
        with quiet_transformers():
            model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=dtype, use_safetensors=True)
        check_whole(model)
        self.own_ends = model.generation_config.eos_token_id
        model.generation_config = GenerationConfig()
        return model.to(self.device).eval()

    def end_tokens(self) -> list[int]:
        """What ends a continuation: the tokenizer's EOS and those that the model's folder names (the end of a turn, say)."""
        named = self.own_ends if isinstance(self.own_ends, list) else [self.own_ends]
        return sorted({number for number in (self.tokenizer.eos_token_id, *named) if number is not None})

    def arguments(self) -> dict[str, Any]:
        """What `generate` is called with."""
        settings = self.settings
        common = {
            "max_new_tokens": settings.max_new_tokens,
            "eos_token_id": self.end_tokens() or None,
            "pad_token_id": self.tokenizer.pad_token_id,
        }
        if settings.temperature == 0:
            return common | {"do_sample": False}
        return common | {"do_sample": True, "temperature": settings.temperature, "top_p": settings.top_p, "top_k": 0}

    def read(self, row: list[int], ends: list[int]) -> Continuation:
        """The text of new tokens up to the first end, special tokens left out; `tokens` counts without the end."""
        stop = next((number for number, token in enumerate(row) if token in ends), len(row))
        text = self.tokenizer.decode(row[:stop], skip_special_tokens=True)
        return Continuation(text=str(text), tokens=stop, finished=stop < len(row))


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, chat: bool) -> list[int]:
    """A prompt as tokens: as the tokenizer encodes a text, or as the user's turn of its chat template."""
    anyone: Any = tokenizer
    if not chat:
        plain: list[int] = anyone(prompt, verbose=False)["input_ids"]
        return plain
    text = anyone.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
    turn: list[int] = anyone(text, add_special_tokens=False, verbose=False)["input_ids"]
    return turn
