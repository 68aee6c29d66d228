"""Prompt and continuation as the judge reads them: its chat template where it has one, else its own encoding of a pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mecellem.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


HALF = "\N{REPLACEMENT CHARACTER}"  # what is left of a letter whose bytes were cut


@dataclass(frozen=True, slots=True)
class Conversation:
    """Token ids; `gate` is the position whose hidden state stands for the prompt; `cut`: the continuation lost its end.

    `types` are BERT's token types, where the tokenizer makes them.
    """

    ids: tuple[int, ...]
    gate: int
    cut: bool
    types: tuple[int, ...] | None = None


def encode(tokenizer: PreTrainedTokenizerBase, prompt: str, continuation: str, limit: int) -> Conversation:
    """At most `limit` tokens; a continuation that is too long loses its end. Raises `UserError` for too long a prompt."""
    if tokenizer.chat_template:
        return encode_chat(tokenizer, prompt, continuation, limit)
    return encode_pair(tokenizer, prompt, continuation, limit)


def encode_chat(tokenizer: Any, prompt: str, continuation: str, limit: int) -> Conversation:
    """A user's and an assistant's turn.

    ArmoRM's gate looks at the token that ends the user's turn (<|eot_id|> in Llama 3): the first special token after the
    prompt's text, or the last token before the assistant's turn in templates without one.
    """
    asked = render(tokenizer, prompt, None)
    ids = chat_ids(tokenizer, render(tokenizer, prompt, continuation))
    cut = len(ids) > limit
    if cut:
        words = tokenizer(continuation, add_special_tokens=False, verbose=False)["input_ids"]
        room = len(words) - (len(ids) - limit)
        while len(ids) > limit and room >= 0:  # tokens at a seam may merge differently: once more where they do
            ids = chat_ids(tokenizer, render(tokenizer, prompt, tokenizer.decode(words[:room]).rstrip(HALF)))
            room -= max(1, len(ids) - limit)
        if len(ids) > limit:
            raise too_long(prompt, limit)
    return Conversation(tuple(ids), gate_position(tokenizer, asked, prompt, ids), cut)


def render(tokenizer: Any, prompt: str, continuation: str | None) -> str:
    """The chat template's text."""
    turns = [{"role": "user", "content": prompt}]
    if continuation is not None:
        turns.append({"role": "assistant", "content": continuation})
    return str(tokenizer.apply_chat_template(turns, tokenize=False))


def chat_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a rendered conversation, which has its special tokens already."""
    found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return found


def gate_position(tokenizer: Any, asked: str, prompt: str, ids: list[int]) -> int:
    """The position in `ids` of the token that ends the user's turn. `asked`: the rendered user's turn alone."""
    encoded = tokenizer(asked, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    alone: list[int] = encoded["input_ids"]
    shared = next((number for number, (a, b) in enumerate(zip(alone, ids, strict=False)) if a != b), min(len(alone), len(ids)))
    begin = asked.rfind(prompt.strip())
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    for number, (start, _) in enumerate(encoded["offset_mapping"][:shared]):
        if 0 <= begin <= start - len(prompt.strip()) and alone[number] in special:
            return number
    return max(0, shared - 1)


def encode_pair(tokenizer: Any, prompt: str, continuation: str, limit: int) -> Conversation:
    """As the tokenizer encodes two texts; the gate looks at the prompt's last token."""
    full = tokenizer(prompt, continuation, verbose=False)
    ids, types = full["input_ids"], full.get("token_type_ids")
    cut = len(ids) > limit
    if cut:
        if len(tokenizer(prompt, "", verbose=False)["input_ids"]) > limit:
            raise too_long(prompt, limit)
        full = tokenizer(prompt, continuation, truncation="only_second", max_length=limit, verbose=False)
        ids, types = full["input_ids"], full.get("token_type_ids")
    of_prompt = [number for number, part in enumerate(full.sequence_ids(0)) if part == 0]
    return Conversation(tuple(ids), of_prompt[-1], cut, None if types is None else tuple(types))


def too_long(prompt: str, limit: int) -> UserError:
    """A prompt that leaves no room."""
    return UserError(
        f"the prompt {prompt[:60]!r} alone has more than the {limit} tokens that the judge may read: raise --judge-length up "
        "to the judge's own limit, or shorten the prompt"
    )
