"""Attention for encoders on Megatron-Core's own `SelfAttention`: torch SDPA as its core, two RoPE bases by layer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import tensor_parallel
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import is_layer_window_attention

from megatron_recipes.models.document_mask import DocumentMask


class SDPACoreAttention(MegatronModule):
    """`core_attention` on `torch.nn.functional.scaled_dot_product_attention`, bidirectional.

    Megatron-Core's stock core replaces the padding mask by the window mask (Megatron-LM #7039), so that the contents of
    padding change real tokens; here every mask comes from one `DocumentMask`.
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
        assert attention_type == "self", "encoders only attend to themselves"
        assert config.context_parallel_size == 1, "masked language models have no context parallelism here"
        self.scale = softmax_scale
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        local = is_layer_window_attention(config.window_size, config.window_attn_skip_freq, layer_number)
        self.window = config.window_size[0] if local else None

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: torch.Tensor | None = None,
        packed_seq_params: DocumentMask | None = None,
    ) -> torch.Tensor:
        """`[s, b, heads / TP, d]` three times -> `[s, b, heads / TP * d]`. `packed_seq_params` carries the mask."""
        assert attention_mask is None and attention_bias is None, "masks travel in the DocumentMask"
        assert isinstance(packed_seq_params, DocumentMask) and packed_seq_params.qkv_format == "sbhd"
        q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))  # [b, heads / TP, s, d]
        mask = packed_seq_params.allowed(self.window, q.device)
        dropout = self.dropout if self.training else 0.0
        if dropout and not self.config.sequence_parallel:
            # heads are split over TP ranks: each needs its own random numbers
            with tensor_parallel.get_cuda_rng_tracker().fork():
                out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=self.scale)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=self.scale)
        return out.permute(2, 0, 1, 3).flatten(2)

    def sharded_state_dict(self, prefix: str = "", sharded_offsets: tuple = (), metadata: Any = None) -> dict:
        """Nothing to save."""
        return {}


class LocalGlobalSelfAttention(SelfAttention):
    """Megatron-Core's `SelfAttention` whose layers pick one of two rotary embeddings.

    `rotary_pos_emb` arrives stacked `[2, s, 1 or b, 1, d]`: local layers take the first, global ones the second.
    (Megatron-Core knows one RoPE base per model.)
    """

    def __init__(self, config: TransformerConfig, submodules: Any, layer_number: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, submodules, layer_number, *args, **kwargs)
        local = is_layer_window_attention(config.window_size, config.window_attn_skip_freq, layer_number)
        self.rope_index = 0 if local else 1

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *args: Any,
        rotary_pos_emb: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `SelfAttention.forward`, with `rotary_pos_emb` `[2, s, 1 or b, 1, d]`."""
        assert rotary_pos_emb is not None and rotary_pos_emb.size(0) == 2
        return super().forward(hidden_states, attention_mask, *args, rotary_pos_emb=rotary_pos_emb[self.rope_index], **kwargs)
