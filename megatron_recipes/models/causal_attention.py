"""Causal attention inside documents on torch SDPA: no mask is built, and no score between documents is computed.

The tokens of a micro batch are one stream. Each document in it is attended to by itself with SDPA's own causal mode, whose
kernels need no mask and skip what lies above the diagonal: the cost is that of the documents, not of the rows.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_recipes.data.causal import context_chunks


class Span(NamedTuple):
    """Consecutive queries of one document on this rank; the last of them sees `seen` keys from the document's start."""

    document: int
    queries: int
    seen: int


@dataclass
class CausalDocuments(PackedSeqParams):
    """Travels through Megatron-Core's layers as `packed_seq_params`; the attention core asks it what attends to what.

    `lengths` are those of the documents that make up the micro batch's rows, over all context-parallel ranks; `spans` are
    this rank's queries in their order, or None where this rank holds whole documents of one length.
    """

    rows: int = 0
    lengths: tuple[int, ...] = ()
    spans: tuple[Span, ...] | None = None
    _masks: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict, repr=False)

    def mask(self, span: Span, device: torch.device) -> torch.Tensor | None:
        """Boolean `[queries, seen]`, True where attention is allowed; None for a span that starts its document."""
        if span.queries == span.seen:
            return None
        key = (span.queries, span.seen)
        if key not in self._masks:
            every = torch.ones(key, dtype=torch.bool, device=device)
            self._masks[key] = every.tril(span.seen - span.queries)
        return self._masks[key]


def document_lengths(rows: int, length: int, cu_seqlens: torch.Tensor | None) -> list[int]:
    """Lengths of the documents in `rows x length` tokens; a row always starts one."""
    starts = set(range(0, rows * length + 1, length))
    if cu_seqlens is not None:
        starts |= set(cu_seqlens.tolist())
    ordered = sorted(starts)
    return [end - start for start, end in itertools.pairwise(ordered)]


def causal_documents(
    rows: int, length: int, cu_seqlens: torch.Tensor | None = None, context_rank: int = 0, context_size: int = 1
) -> CausalDocuments:
    """What attends to what in whole rows of `[rows, length]` tokens, of which this rank holds its zig-zag share.

    `cu_seqlens` `[n + 1]`: document boundaries over the flattened tokens; None: every row is one document.
    """
    lengths = document_lengths(rows, length, cu_seqlens)
    spans: list[Span] | None = None
    if context_size > 1:
        spans = _shared_spans(lengths, rows, length, context_rank, context_size)
    elif len(set(lengths)) > 1:
        spans = [Span(i, n, n) for i, n in enumerate(lengths)]
    return CausalDocuments(
        qkv_format="sbhd",
        max_seqlen_q=length,
        max_seqlen_kv=length,
        rows=rows,
        lengths=tuple(lengths),
        spans=None if spans is None else tuple(spans),
    )


def _shared_spans(lengths: Sequence[int], rows: int, length: int, rank: int, size: int) -> list[Span]:
    part = length // (2 * size)
    spans: list[Span] = []
    starts = list(itertools.accumulate(lengths, initial=0))
    for row in range(rows):
        for chunk in context_chunks(rank, size):
            begin = row * length + chunk * part
            end = begin + part
            for document in range(bisect_right(starts, begin) - 1, bisect_left(starts, end)):
                first, last = max(begin, starts[document]), min(end, starts[document + 1])
                spans.append(Span(document, last - first, last - starts[document]))
    return spans


def document_positions(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """Positions `[t]` that start anew in each document."""
    sizes = torch.tensor(lengths, device=device)
    starts = sizes.cumsum(0) - sizes
    return torch.arange(int(sizes.sum()), device=device) - torch.repeat_interleave(starts, sizes)


class CausalSDPACoreAttention(MegatronModule):
    """`core_attention` on `torch.nn.functional.scaled_dot_product_attention` over a stream of documents.

    Under context parallelism keys and values of all ranks are gathered, put into the documents' order, and each rank
    computes its own queries. Query groups are SDPA's: keys and values are not repeated here.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: Any = None,
    ) -> None:
        super().__init__(config=config)
        assert attention_type == "self" and attn_mask_type is AttnMaskType.causal
        assert not config.attention_dropout and not attention_dropout, "decoders train without dropout here"
        self.scale = softmax_scale

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: torch.Tensor | None = None,
        packed_seq_params: CausalDocuments | None = None,
    ) -> torch.Tensor:
        """`[t, 1, heads / TP, d]`, twice `[t, 1, groups / TP, d]` -> `[t, 1, heads / TP * d]`; t tokens of this rank."""
        assert attention_mask is None and attention_bias is None, "what attends to what travels in CausalDocuments"
        assert isinstance(packed_seq_params, CausalDocuments)
        documents = packed_seq_params
        query, key, value = query[:, 0], key[:, 0], value[:, 0]
        if documents.spans is None:
            count = len(documents.lengths)
            q, k, v = (x.unflatten(0, (count, -1)).transpose(1, 2) for x in (query, key, value))  # [n, heads, s, d]
            return self._attend(q, k, v, None).transpose(1, 2).flatten(0, 1).flatten(1)[:, None]
        if self.config.context_parallel_size > 1:
            key, value = self._whole_rows(key, value, documents.rows)
        keys, values = key.split(documents.lengths), value.split(documents.lengths)
        found = []
        for span, part in zip(documents.spans, query.split([span.queries for span in documents.spans]), strict=True):
            seen = (x[span.document][: span.seen] for x in (keys, values))
            q, k, v = (x.transpose(0, 1)[None] for x in (part, *seen))  # [1, heads, tokens, d]
            found.append(self._attend(q, k, v, documents.mask(span, q.device))[0].transpose(0, 1))
        return torch.cat(found).flatten(1)[:, None]

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=self.scale, enable_gqa=q.size(1) != k.size(1)
        )

    def _whole_rows(self, key: torch.Tensor, value: torch.Tensor, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values `[rows * s / CP, groups, d]` of this rank -> `[rows * s, groups, d]` of all, in order."""
        group = parallel_state.get_context_parallel_group()
        both = gather_from_sequence_parallel_region(torch.cat([key, value], dim=-1), group=group)
        parts = both.unflatten(0, (group.size(), rows, 2, -1))
        parts = torch.cat([parts[:, :, 0], parts[:, :, 1].flip(0)])  # [2 CP, rows, part, ...], first to last
        key, value = parts.transpose(0, 1).flatten(0, 2).chunk(2, dim=-1)
        return key, value

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: tuple = (), metadata: Any = None) -> dict:
        """Nothing to save."""
        return {}


class ScaledRopeSelfAttention(SelfAttention):
    """Megatron-Core's `SelfAttention` with YaRN's factor on cosines and sines.

    Queries and keys both carry the factor, so their products carry its square: it goes onto the queries. (Megatron-Core
    takes it from its configuration in the unfused rotation only.)
    """

    def get_query_key_value_tensors(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        """As `SelfAttention.get_query_key_value_tensors`: query `[t, 1, heads, d]`, key and value `[t, 1, groups, d]`."""
        query, *others = super().get_query_key_value_tensors(*args, **kwargs)
        factor = self.config.rope_attention_factor
        return (query if factor == 1.0 else query * factor**2, *others)
