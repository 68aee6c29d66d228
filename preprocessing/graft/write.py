"""The new tokenizer.json and the folder around it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from preprocessing.graft.roles import renumbered

if TYPE_CHECKING:
    from preprocessing.graft.teacher import Teacher

_FLAGS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
# Of a tokenizer_config.json: what describes the teacher's own files, or would make the library build the parts anew
_OF_OTHER_FILES = (
    "add_bos_token", "add_eos_token", "add_prefix_space", "added_tokens_decoder", "auto_map", "backend", "from_slow",
    "is_local", "legacy", "local_files_only", "name_or_path", "sp_model_kwargs", "special_tokens_map_file", "tokenizer_file",
    "tokenizer_type", "vocab_file", "vocab_size", "vocab_type",
)  # fmt: skip


def assemble(
    teacher: Teacher,
    pieces: Sequence[str],
    scores: Mapping[str, float] | None,
    merges: Sequence[tuple[str, str]] | None,
) -> dict[str, Any]:
    """A tokenizer.json of `pieces` with the teacher's normalizer, pre-tokenizer, decoder and special tokens.

    The teacher's entries come in the order of its ids, then new pieces in the given order, then special tokens that stand
    behind all ordinary entries in the teacher too; so special tokens at the beginning keep their ids. `scores` are of a
    Unigram model, `merges` of BPE, which may name entries that are not there: these are left out.
    """
    order = _order(teacher, pieces)
    numbers = {piece: number for number, piece in enumerate(order)}
    added = []
    for token in teacher.added:
        number = numbers.setdefault(token["content"], len(numbers))
        added.append({**token, "id": number})
    model = dict(teacher.settings["model"])
    if teacher.unigram:
        assert scores is not None
        old = {entry[0]: float(entry[1]) for entry in teacher.settings["model"]["vocab"]}
        model["vocab"] = [[piece, scores[piece] if piece in scores else old[piece]] for piece in order]
        if model.get("unk_id") is not None:
            model["unk_id"] = numbers[teacher.settings["model"]["vocab"][model["unk_id"]][0]]
    else:
        assert merges is not None
        inside = set(order)
        model["vocab"] = {piece: number for number, piece in enumerate(order)}
        model["merges"] = [
            [left, right]
            for left, right in dict.fromkeys(merges)
            if left in inside and right in inside and left + right in inside
        ]
        model["dropout"] = None
    return {
        **teacher.settings,
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(added, key=lambda token: int(token["id"])),
        "post_processor": renumbered(teacher.settings["post_processor"], numbers),
        "model": model,
    }


def _order(teacher: Teacher, pieces: Sequence[str]) -> list[str]:
    """Everything in the model's own vocabulary, in the order of the new ids."""
    vocab = teacher.settings["model"]["vocab"]
    number_of = {entry[0]: number for number, entry in enumerate(vocab)} if teacher.unigram else vocab
    last_piece = max(teacher.pieces, default=-1)
    special = {token["content"] for token in teacher.added} | teacher.roles.needed
    old = sorted({*(piece for piece in pieces if piece in number_of), *(special & teacher.in_model)}, key=number_of.__getitem__)
    front = [piece for piece in old if number_of[piece] <= last_piece]
    back = [piece for piece in old if number_of[piece] > last_piece]
    return front + [piece for piece in pieces if piece not in number_of] + back


def write_folder(teacher: Teacher, settings: Mapping[str, Any], folder: Path) -> None:
    """Write what `AutoTokenizer.from_pretrained` reads; `folder` exists.

    The class is the plain one that takes tokenizer.json as it is: the teacher's own class might put its parts together anew.
    """
    from tokenizers import Tokenizer

    text = orjson.dumps(settings).decode()
    tokenizer = Tokenizer.from_str(text)
    numbers = sorted(tokenizer.get_vocab(with_added_tokens=True).values())
    assert numbers == list(range(len(numbers))), "the ids have holes"
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    flags = {str(token["id"]): {flag: token[flag] for flag in _FLAGS} for token in settings["added_tokens"]}
    config = {key: value for key, value in teacher.config.items() if key not in _OF_OTHER_FILES}
    roles = {f"{role}_token": token for role, token in teacher.roles.named.items()}
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": flags, **roles}
    write_json(folder / "tokenizer_config.json", config)
    if (teacher.path.parent / "special_tokens_map.json").is_file():
        write_json(folder / "special_tokens_map.json", roles)
    for path in teacher.extra_files:
        (folder / path.name).write_bytes(path.read_bytes())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write sorted, indented JSON."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")
