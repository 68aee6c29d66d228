"""Which tensors of a Hugging Face folder have a row for every entry of the vocabulary: asked of the architecture itself.

The model is built twice without memory, the second time for one entry more; what grew is of the vocabulary. No list of names.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conversion.safetensors_folder import SafetensorsReader
from mecellem.errors import UserError
from mecellem.tokenizer_files import read_json


@dataclass(frozen=True, slots=True)
class VocabularyTensors:
    """`embedding`: the stored name of the input embedding. `others`: of further tensors with a row an entry (heads, biases).

    `copies`: stored tensors that are tied to one of these, by name; a model loads without them. `rows`: of the embedding, which
    may be more than the tokenizer has entries. `nested`: key of config.json below which the text model's values are, if any.
    `counts_from_padding`: the id of padding, where positions are counted from it (RoBERTa's way).
    """

    embedding: str
    others: tuple[str, ...]
    copies: dict[str, str]
    rows: int
    nested: str | None
    counts_from_padding: int | None

    @property
    def all(self) -> tuple[str, ...]:
        """The tensors to make."""
        return (self.embedding, *self.others)


def find_vocabulary_tensors(reader: SafetensorsReader) -> VocabularyTensors:
    """Look at a folder's config and the headers of its weights. Raises `UserError` for what is no model of transformers."""
    config = _read_config(reader.folder)
    text = config.get_text_config()
    nested = None if text is config else next((key for key in config.to_dict() if getattr(config, key, None) is text), None)
    size = getattr(text, "vocab_size", None)
    if not isinstance(size, int) or (text is not config and nested is None):
        raise UserError(
            f"{reader.folder / 'config.json'} has no vocab_size: cloning needs a model with a vocabulary of its own"
        )
    model, larger = outline(config, size, reader.folder), outline(config, size + 1, reader.folder)
    grown = _grown(model, larger, reader.folder)
    table = model.get_input_embeddings()
    groups = _tied(model)
    embedding = next((names for names in groups if any(_parameter(model, name) is table.weight for name in names)), [])
    if not grown.intersection(embedding):
        raise UserError(
            f"{reader.folder}: the input embedding of {type(model).__name__} does not follow vocab_size: cloning needs a model "
            "with a vocabulary of its own"
        )
    found: list[str] = []
    copies: dict[str, str] = {}
    ordered = [embedding, *(names for names in groups if names is not embedding and grown.intersection(names))]
    for names in ordered:
        stored = [name for name in (_stored(name, model, reader) for name in names) if name is not None]
        if not stored and names is embedding:
            raise UserError(
                f"{reader.folder} has no tensor {names[0]}, the input embedding of {type(model).__name__}: the weights are "
                "those of another architecture than config.json names"
            )
        found += stored[:1]
        copies |= dict.fromkeys(dict.fromkeys(stored[1:]), stored[0]) if stored else {}
    rows = reader.shapes[found[0]][0]
    known = {_stored(name, model, reader) for names in groups for name in names}
    found += [name for name, shape in reader.shapes.items() if shape[:1] == (rows,) and name not in known]
    for name in found:
        if reader.shapes[name][0] != rows or rows != size:
            raise UserError(
                f"{reader.files[name]}: {name} has {reader.shapes[name][0]:,} rows, config.json says vocab_size {size:,}: the "
                "folder mixes two models"
            )
    return VocabularyTensors(found[0], tuple(found[1:]), copies, rows, nested, _position_padding(model, table))


def _read_config(folder: Path) -> Any:
    from transformers import AutoConfig

    if read_json(folder / "config.json").get("quantization_config"):
        raise UserError(f"{folder / 'config.json'} has a quantization_config: convert the weights to float32 or bfloat16 first")
    try:
        return AutoConfig.from_pretrained(str(folder))
    except Exception as error:  # its own validators raise their own types
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"{folder / 'config.json'} is of no architecture that transformers has ({cause})") from None


def outline(config: Any, size: int, folder: Path) -> Any:
    """The model of a config for `size` entries, with shapes but without memory, its tied weights tied."""
    import transformers

    config = copy.deepcopy(config)
    config.get_text_config().vocab_size = size
    name = (config.architectures or [None])[0]
    architecture: Any = getattr(transformers, name or "", None)
    try:
        with torch.device("meta"):
            model = architecture(config) if architecture is not None else transformers.AutoModel.from_config(config)
    except Exception as error:  # of any architecture
        cause = " ".join(str(error).split())[:200]
        raise UserError(f"{folder / 'config.json'}: {name or 'the model'} cannot be built by transformers ({cause})") from None
    model.tie_weights()
    return model


def _parameter(model: Any, name: str) -> Any:
    path, _, leaf = name.rpartition(".")
    return getattr(model.get_submodule(path), leaf)


def _tied(model: Any) -> list[list[str]]:
    """Names of parameters, those of one parameter together."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return list(groups.values())


def _grown(model: Any, larger: Any, folder: Path) -> set[str]:
    """Names of the parameters that have one row more in `larger`."""
    shapes = {name: value.shape for name, value in larger.named_parameters(remove_duplicate=False)}
    grown = set()
    for name, value in model.named_parameters(remove_duplicate=False):
        if value.shape != shapes[name]:
            if value.shape[1:] != shapes[name][1:] or value.shape[0] + 1 != shapes[name][0]:
                raise UserError(
                    f"{folder}: {name} is {list(value.shape)} and does not have one row an entry of the vocabulary: cloning "
                    f"does not know {type(model).__name__}"
                )
            grown.add(name)
    return grown


def _stored(name: str, model: Any, reader: SafetensorsReader) -> str | None:
    """The name under which a parameter is stored, with or without the prefix of a base model; None where it is not."""
    prefix = f"{model.base_model_prefix}."
    for candidate in (name, prefix + name, name.removeprefix(prefix)):
        if candidate in reader.shapes:
            return candidate
    return None


def _position_padding(model: Any, table: Any) -> int | None:
    """The id of padding if another embedding reserves its row, too: RoBERTa and its kin number positions from there."""
    found: Iterator[int] = (
        module.padding_idx
        for module in model.modules()
        if isinstance(module, torch.nn.Embedding) and module is not table and module.padding_idx is not None
        if module.weight is not table.weight and module.num_embeddings != table.num_embeddings
    )
    return next(found, None)
