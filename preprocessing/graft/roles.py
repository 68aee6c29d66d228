"""Special tokens by what they do, not by how they are spelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ROLES = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")
_SPELLED = {  # what tokens without a role in any file are called, for tokenizer.json files that stand alone
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|endoftext|>"),
    "mask": ("<mask>", "[MASK]", "<|mask|>"),
}


@dataclass(frozen=True, slots=True)
class Roles:
    """`named`: role -> token. `needed`: every token that a role, the post-processor or the model's settings name."""

    named: dict[str, str]
    needed: frozenset[str]


def find_roles(settings: Mapping[str, Any], config: Mapping[str, Any], special_tokens_map: Mapping[str, Any]) -> Roles:
    """Roles of a tokenizer.json, as its tokenizer_config.json and special_tokens_map.json name them.

    What these do not name is read from the post-processor (the first token before a text is cls and bos, the last behind it
    sep and eos), the model's unknown entry and, for pad and mask alone, well-known spellings.
    """
    known = {token["content"] for token in settings["added_tokens"]} | _vocabulary(settings["model"])
    named: dict[str, str] = {}
    for role in ROLES:
        for source in (config, special_tokens_map):
            if role not in named and (token := _content(source.get(f"{role}_token"))) in known:
                named[role] = str(token)
    processed = _processor_tokens(settings["post_processor"])
    before, behind = _around(settings["post_processor"])
    if not config and not special_tokens_map:
        guesses = {"cls": before, "bos": before, "sep": behind, "eos": behind, "unk": _unknown(settings["model"])}
        named |= {role: token for role, token in guesses.items() if token in known and role not in named and token is not None}
        added = {token["content"] for token in settings["added_tokens"]}
        for role, spellings in _SPELLED.items():
            found = [spelling for spelling in spellings if spelling in added]
            named |= {role: found[0]} if found and role not in named else {}
    extra = [_content(token) for key in ("additional_special_tokens", "extra_special_tokens") for token in _listed(config, key)]
    needed = {*named.values(), *processed, *(token for token in extra if token in known)}
    if (unknown := _unknown(settings["model"])) is not None:
        needed.add(unknown)
    return Roles({role: named[role] for role in ROLES if role in named}, frozenset(str(token) for token in needed))


def _listed(config: Mapping[str, Any], key: str) -> list[Any]:
    value = config.get(key) or []
    return list(value.values()) if isinstance(value, dict) else list(value)


def _content(token: Any) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _vocabulary(model: Mapping[str, Any]) -> set[str]:
    vocab = model["vocab"]
    return set(vocab) if isinstance(vocab, dict) else {entry[0] for entry in vocab}


def _unknown(model: Mapping[str, Any]) -> str | None:
    if model["type"] == "Unigram":
        return None if model.get("unk_id") is None else str(model["vocab"][model["unk_id"]][0])
    return model.get("unk_token")


def _steps(processor: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if processor is None:
        return []
    return [step for inner in processor["processors"] for step in _steps(inner)] if "processors" in processor else [processor]


def _processor_tokens(processor: Mapping[str, Any] | None) -> set[str]:
    tokens: set[str] = set()
    for step in _steps(processor):
        for special in step.get("special_tokens", {}).values():
            tokens.update(special["tokens"])
        tokens.update(step[key][0] for key in ("cls", "sep") if key in step)
    return tokens


def _around(processor: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """The token before a single text, and the one behind it."""
    before = behind = None
    for step in _steps(processor):
        if "cls" in step:
            before, behind = step["cls"][0], step["sep"][0]
        seen = False
        for item in step.get("single", []):
            if "Sequence" in item:
                seen = True
            elif seen:
                behind = item["SpecialToken"]["id"]
            else:
                before = before or item["SpecialToken"]["id"]
    return before, behind


def renumbered(processor: Any, numbers: Mapping[str, int]) -> Any:
    """A post-processor with the ids of a new vocabulary; `numbers` has the id of every token that it names."""
    if processor is None:
        return None
    changed = dict(processor)
    if "processors" in changed:
        changed["processors"] = [renumbered(inner, numbers) for inner in changed["processors"]]
    if "special_tokens" in changed:
        changed["special_tokens"] = {
            name: special | {"ids": [numbers[token] for token in special["tokens"]]}
            for name, special in changed["special_tokens"].items()
        }
    for key in ("cls", "sep"):
        if key in changed:
            changed[key] = [changed[key][0], numbers[changed[key][0]]]
    return changed
