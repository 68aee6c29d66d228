"""Run a model whose weights stay on disk: each module gets its weights when it computes and gives them back afterwards.

The modules are those of Megatron-Core and of transformers, built without memory; only the two that are as large as the
vocabulary are replaced. The embedding reads the rows it needs. The head keeps its input, and logits are computed from it in
blocks of the vocabulary, so that neither a whole head nor a whole table of logits is ever in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from conversion.safetensors_folder import BLOCK_BYTES, SafetensorsReader
from conversion.torch_dist import Chunk, TorchDistReader

Tensor = torch.Tensor
READ_BYTES = 4 << 20  # of a checkpoint at a time: small beside a layer's matrix, large enough for a product of its own


class Source(Protocol):
    """Where a model's weights are, by the names of its parameters."""

    def blocks(self, name: str) -> Iterator[Tensor]:
        """A parameter as consecutive blocks of its rows."""
        ...


class FolderSource:
    """The weights of a Hugging Face folder."""

    def __init__(self, folder: Path) -> None:
        self.reader = SafetensorsReader(folder)

    def blocks(self, name: str) -> Iterator[Tensor]:
        """One block: a map of the file, which takes memory as it is read."""
        yield self.reader.tensor(name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows [start, stop), as such a map."""
        return self.reader.rows(name, start, stop)


class CheckpointSource:
    """The weights of a Megatron checkpoint, without vocabulary padding, rounded to `dtype`."""

    def __init__(self, folder: Path, chunks: Mapping[str, list[Chunk]], dtype: torch.dtype) -> None:
        self.reader, self.chunks, self.dtype = TorchDistReader(folder), chunks, dtype

    def blocks(self, name: str) -> Iterator[Tensor]:
        """Blocks of at most `READ_BYTES`."""
        for chunk in self.chunks[name]:
            for block in self.reader.blocks(chunk, READ_BYTES):
                yield block.to(self.dtype)


class StreamedEmbedding(torch.nn.Module):
    """`[b, s]` ids -> `[b, s, h]`, fp32, block by block of the table."""

    weight = None  # what Megatron-Core hands to a tied head; `StreamedHead` reads its own

    def __init__(self, source: Source, name: str) -> None:
        super().__init__()
        self.source, self.name = source, name

    def forward(self, input_ids: Tensor) -> Tensor:
        """The rows of `input_ids`."""
        result: Tensor | None = None
        first = 0
        for block in self.source.blocks(self.name):
            if result is None:
                result = torch.zeros(*input_ids.shape, block.size(1), device=input_ids.device)
            inside = (input_ids >= first) & (input_ids < first + len(block))
            result[inside] = block[(input_ids[inside] - first).cpu()].to(result)
            first += len(block)
        assert result is not None
        return result


class StreamedHead(torch.nn.Module):
    """Keeps its input `[..., h]` as `hidden` `[n, h]`; what it returns are no logits (those are for `pieces` to compute)."""

    def __init__(self, source: Source, name: str, bias: str | None, returns_bias: bool) -> None:
        super().__init__()
        self.source, self.name, self.bias, self.returns_bias = source, name, bias, returns_bias
        self.hidden = torch.empty(0)

    def forward(self, hidden: Tensor, **unused: Any) -> Any:
        """One number a token in place of logits."""
        self.hidden = hidden.detach().reshape(-1, hidden.size(-1))
        nothing = hidden[..., :1].clone()
        return (nothing, None) if self.returns_bias else nothing

    def pieces(self) -> Iterator[tuple[int, Tensor]]:
        """First entry and fp32 weights `[n, h]` of consecutive pieces of the head, small beside the tokens, too."""
        first = 0
        for block in self.source.blocks(self.name):
            for piece in block.split(max(1, BLOCK_BYTES // (4 * max(block.size(1), 4 * len(self.hidden))))):
                yield first, piece.to(self.hidden.device, torch.float32)
                first += len(piece)

    def biases(self) -> Tensor | None:
        """Biases `[vocabulary]` in fp32, if the head has them."""
        return None if self.bias is None else torch.cat(list(self.source.blocks(self.bias))).to(self.hidden)


def best_entry(head: StreamedHead) -> int:
    """The entry with the largest logit after the last token that the head has seen."""
    bias = head.biases()
    best, where = -float("inf"), 0
    for first, weight in head.pieces():
        logits = F.linear(head.hidden[-1], weight, None if bias is None else bias[first : first + len(weight)])
        value, index = logits.max(dim=0)
        if float(value) > best:
            best, where = float(value), first + int(index)
    return where


def stream_weights(module: Any, source: Source, replaced: Mapping[str, torch.nn.Module], device: torch.device) -> None:
    """Let every module that has parameters take them from `source` in fp32 for the time of its forward pass.

    `replaced`: modules to put in the place of others, by name.
    """
    for name, new in replaced.items():
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, new)
    for path, part in module.named_modules():
        own = {name: parameter for name, parameter in part._parameters.items() if parameter is not None}
        if own:
            load, drop = _hooks(path, own, source, device)
            part.register_forward_pre_hook(load)
            part.register_forward_hook(drop)


def _hooks(
    path: str, own: dict[str, torch.nn.Parameter], source: Source, device: torch.device
) -> tuple[Callable[..., None], Callable[..., None]]:
    def load(part: torch.nn.Module, inputs: Any) -> None:
        for name, outline in own.items():
            whole = _joined(source.blocks(f"{path}.{name}"), outline.shape, device)
            part._parameters[name] = torch.nn.Parameter(whole, requires_grad=False)

    def drop(part: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        part._parameters.update(own)

    return load, drop


def _joined(blocks: Iterator[Tensor], shape: torch.Size, device: torch.device) -> Tensor:
    """Blocks of rows as one tensor in fp32. A single one is not copied where it is in fp32 and in its place already."""
    first = next(blocks)
    if len(first) == shape[0]:
        return first.to(device, torch.float32)
    whole = torch.empty(shape, device=device)
    position = 0
    for block in itertools.chain([first], blocks):
        whole[position : position + len(block)] = block
        position += len(block)
    assert position == len(whole), f"{position} rows instead of {len(whole)}"
    return whole
