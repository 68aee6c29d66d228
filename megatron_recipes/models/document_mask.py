"""Which token may see which: documents packed into rows, padding, and local windows, in one object per micro-batch."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from megatron.core.packed_seq_params import PackedSeqParams


@dataclass
class DocumentMask(PackedSeqParams):
    """Travels through Megatron-Core's layers as `packed_seq_params`; the attention core asks it for masks.

    `segments` is `[b, s]`: tokens see each other where their segments are equal, in the same row. None means that every
    row is one document. Padding is a segment of its own: its contents never reach a real token, and its own attention has
    something to attend to (a row of only masked keys would be NaN and would spread).

    With `qkv_format="sbhd"` rows stay rows and masks are dense (torch SDPA); with "thd" all rows are one stream of
    `cu_seqlens` documents (FlashAttention, cuDNN through Transformer Engine), and no mask is ever built.
    """

    segments: torch.Tensor | None = None
    positions: torch.Tensor | None = None  # `[b, s]`, from 0 in each packed document; None: as they stand in the row
    sequence_length: int = 0
    _masks: dict[int | None, torch.Tensor | None] = field(default_factory=dict, repr=False)

    def allowed(self, window: int | None, device: torch.device) -> torch.Tensor | None:
        """Boolean mask, True where attention is allowed: `[b, 1, s, s]`, `[s, s]`, or None where all of it is.

        `window`: tokens seen on each side, None for the whole document. Built once per window and micro-batch.
        """
        if window is not None and window >= self.sequence_length - 1:
            window = None
        if window not in self._masks:
            mask = None
            if self.segments is not None:
                mask = (self.segments[:, :, None] == self.segments[:, None, :])[:, None]
            if window is not None:
                position = torch.arange(self.sequence_length, device=device)
                near = (position[:, None] - position[None, :]).abs() <= window
                mask = near if mask is None else mask & near
            self._masks[window] = mask
        return self._masks[window]


def segments_from_cu_seqlens(cu_seqlens: torch.Tensor, rows: int, length: int) -> torch.Tensor:
    """`[b, s]` segment numbers from document boundaries `[n + 1]` over the flattened `b * s` tokens."""
    positions = torch.arange(rows * length, device=cu_seqlens.device, dtype=cu_seqlens.dtype)
    return torch.searchsorted(cu_seqlens[1:].contiguous(), positions, right=True).view(rows, length)


def cu_seqlens_from_segments(segments: torch.Tensor) -> torch.Tensor:
    """Document boundaries `[n + 1]`, int32, over the flattened `b * s` tokens; every row starts a document."""
    rows, length = segments.shape
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    boundaries = starts.flatten().nonzero().flatten()
    end = torch.tensor([rows * length], device=segments.device)
    return torch.cat([boundaries, end]).to(torch.int32)


def dense_mask(
    rows: int, length: int, cu_seqlens: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None
) -> DocumentMask:
    """The mask for rows of `[b, s]` tokens, packed (`cu_seqlens` `[n + 1]`) or padded (`attention_mask` `[b, s]`).

    Positions start anew in each packed document, as if it were alone; padding does not move them (as in transformers).
    """
    assert cu_seqlens is None or attention_mask is None, "rows are packed or padded, not both"
    segments = positions = None
    if cu_seqlens is not None:
        segments = segments_from_cu_seqlens(cu_seqlens, rows, length)
        positions = torch.arange(rows * length, device=cu_seqlens.device).view(rows, length) - cu_seqlens[segments]
    elif attention_mask is not None and not bool(attention_mask.all()):
        segments = attention_mask.to(torch.int32)
    return DocumentMask(
        qkv_format="sbhd",
        segments=segments,
        positions=positions,
        sequence_length=length,
        max_seqlen_q=length,
        max_seqlen_kv=length,
    )


def stream_mask(
    rows: int,
    length: int,
    device: torch.device,
    cu_seqlens: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
) -> DocumentMask:
    """The same as one stream of documents, `[b * s]` tokens, for variable-length attention kernels on `device`."""
    assert cu_seqlens is None or attention_mask is None, "rows are packed or padded, not both"
    if cu_seqlens is None:
        segments = torch.zeros(rows, length, device=device) if attention_mask is None else attention_mask
        cu_seqlens = cu_seqlens_from_segments(segments)
    longest = int((cu_seqlens[1:] - cu_seqlens[:-1]).max())
    return DocumentMask(
        qkv_format="thd",
        cu_seqlens_q=cu_seqlens,
        cu_seqlens_kv=cu_seqlens,
        max_seqlen_q=longest,
        max_seqlen_kv=longest,
        sequence_length=length,
    )
