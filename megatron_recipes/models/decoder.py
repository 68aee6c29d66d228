"""Qwen3 (Yang et al. 2025, arXiv 2505.09388) and Llama on Megatron-Core's unmodified `GPTModel`.

Every tensor, pipeline, sequence, context or data-parallel layout computes what one process computes. The tokens of a
micro batch travel through the layers as one stream `[rows * length, 1, h]`, so that documents need neither padding nor a
mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from megatron.core import parallel_state, tensor_parallel
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.gpt import GPTModel
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import (
    TransformerLayer,
    TransformerLayerSubmodules,
    get_transformer_layer_offset,
)

from megatron_recipes.config import DecoderConfig, ParallelConfig, RopeScaling, padded_vocab_size
from megatron_recipes.models.causal_attention import (
    CausalSDPACoreAttention,
    ScaledRopeSelfAttention,
    causal_documents,
    document_lengths,
    document_positions,
)
from megatron_recipes.models.document_mask import stream_mask
from megatron_recipes.models.norms import RMSNorm
from megatron_recipes.models.rope import rope_angles, rope_frequencies

Linears = Literal["plain", "fp8_emulated"]


@dataclass
class DecoderTransformerConfig(TransformerConfig):
    """Megatron-Core's `TransformerConfig` with what these families add."""

    init_std: float = 0.02
    rope_attention_factor: float = 1.0  # YaRN's; `DecoderModel.set_rope` changes it between the stages of a curriculum


def decoder_transformer_config(
    model: DecoderConfig,
    parallel: ParallelConfig,
    dtype: torch.dtype,
    fp8: Mapping[str, Any] | None = None,
    layer_spec: str = "local",
) -> DecoderTransformerConfig:
    """Megatron-Core's view of a model in a layout. Fusions that need CUDA are left to Transformer Engine's layers.

    `fp8`: Megatron-Core's settings (`models.fp8_settings`), None without FP8.
    """
    fused = layer_spec == "transformer_engine"
    return DecoderTransformerConfig(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        ffn_hidden_size=model.ffn_hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_query_groups=model.num_query_groups,
        kv_channels=model.head_dim,
        qk_layernorm=model.family == "qwen3",
        normalization="RMSNorm",
        layernorm_epsilon=model.norm_epsilon,
        gated_linear_unit=True,
        activation_func=F.silu,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        init_std=model.init_std,
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        context_parallel_size=parallel.context,
        sequence_parallel=parallel.sequence,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        calculate_per_token_loss=True,  # the loss is divided by the labelled tokens of the global batch
        use_cpu_initialization=not torch.cuda.is_available(),
        perform_initialization=True,  # marks what is split over TP; models/init.py then sets the values
        attention_softmax_in_fp32=True,
        bias_dropout_fusion=False,
        bias_activation_fusion=fused,
        apply_rope_fusion=fused,
        masked_softmax_fusion=False,
        gradient_accumulation_fusion=False,
        persist_layer_norm=False,
        variable_seq_lengths=False,
        **(fp8 or {}),
    )


def block_spec(config: DecoderTransformerConfig, layer_spec: str, linears: Linears) -> TransformerBlockSubmodules:
    """The layers of this pipeline stage. `layer_spec`: `local` (torch) or `transformer_engine`."""
    column: Any = ColumnParallelLinear
    row: Any = RowParallelLinear
    core: Any = CausalSDPACoreAttention
    norm: Any = RMSNorm
    if layer_spec == "transformer_engine":
        from megatron.core.extensions.transformer_engine import (
            TEColumnParallelLinear,
            TEDotProductAttention,
            TENorm,
            TERowParallelLinear,
        )

        column, row, norm = TEColumnParallelLinear, TERowParallelLinear, TENorm
        if config.context_parallel_size == 1:  # TE's context parallelism shares out every document, ours whole rows
            core = TEDotProductAttention

    def layer(number: int) -> ModuleSpec:
        columns, rows = column, row
        if linears == "fp8_emulated":
            assert layer_spec == "local", "Transformer Engine's own linears compute in FP8"
            from megatron_recipes.models.fp8_emulation import emulated_linears

            columns, rows = emulated_linears(config, number)
        head_norm = norm if config.qk_layernorm else IdentityOp
        attention = ModuleSpec(
            module=ScaledRopeSelfAttention,
            params={"attn_mask_type": AttnMaskType.causal},
            submodules=SelfAttentionSubmodules(
                linear_qkv=columns, core_attention=core, linear_proj=rows, q_layernorm=head_norm, k_layernorm=head_norm
            ),
        )
        return ModuleSpec(
            module=TransformerLayer,
            submodules=TransformerLayerSubmodules(
                input_layernorm=norm,
                self_attention=attention,
                self_attn_bda=get_bias_dropout_add,
                pre_mlp_layernorm=norm,
                mlp=ModuleSpec(module=MLP, submodules=MLPSubmodules(linear_fc1=columns, linear_fc2=rows)),
                mlp_bda=get_bias_dropout_add,
            ),
        )

    first, count = get_transformer_layer_offset(config), get_num_layers_to_build(config)
    return TransformerBlockSubmodules(layer_specs=[layer(first + i) for i in range(count)], layer_norm=norm)


class DecoderModel(GPTModel):
    """The pipeline stage of a causal language model that this rank holds.

    `linears="fp8_emulated"` computes the layers' matrices as FP8 would, on any machine (`models.fp8_emulation`).
    """

    streamed = True  # between pipeline stages, too, activations are one stream `[rows * length, 1, h]`

    def __init__(
        self,
        config: DecoderTransformerConfig,
        model: DecoderConfig,
        layer_spec: str = "local",
        linears: Linears = "plain",
    ) -> None:
        super().__init__(
            config,
            block_spec(config, layer_spec, linears),
            vocab_size=padded_vocab_size(model.vocab_size, config.tensor_model_parallel_size),
            max_sequence_length=model.max_sequence_length,
            pre_process=parallel_state.is_pipeline_first_stage(),
            post_process=parallel_state.is_pipeline_last_stage(),
            share_embeddings_and_output_weights=model.tie_embeddings,
            position_embedding_type="none",  # `rope_angles`, given to the layers in `forward`
        )
        self.model = model
        self.vocab_size = model.vocab_size  # GPTModel's is with padding; it only needs it to build
        self.layer_spec = layer_spec
        self.set_rope(model.rope_theta, model.rope_scaling)

    def set_rope(self, theta: float, scaling: RopeScaling) -> None:
        """Use another rotary embedding from the next micro batch on (a curriculum's long-context stages)."""
        # no buffer: a model in BF16 would round it, and angles with it
        self.rope_frequencies, self.config.rope_attention_factor = rope_frequencies(self.model.head_dim, theta, scaling)

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor | None = None,
        cu_seqlens: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One stage of the forward pass.

        `input_ids`, `labels` (-100: none) and `positions` are `[b, s / CP]`, this rank's zig-zag share of whole rows, of
        which `cu_seqlens` `[n + 1]` describes the documents over the flattened `b * s` tokens; without it every row is one
        document. Positions default to those in the document, which with Transformer Engine's attention they always are; under
        context parallelism they must be given.
        Returns activations `[b * s / CP, 1, h]` (split over TP under sequence parallelism) on all stages but the last;
        there, without `labels`, this rank's logits `[b, s / CP, padded vocabulary / TP]`, padding -inf; with `labels` the
        losses `[b, s / CP]`, fp32, 0 without label.
        """
        rows, share = input_ids.shape
        packing, angles = self._packing(rows, share, input_ids.device, cu_seqlens, positions)
        hidden = self.embedding(input_ids=input_ids.reshape(1, -1), position_ids=None) if self.pre_process else None
        hidden = self.decoder(hidden_states=hidden, attention_mask=None, rotary_pos_emb=angles, packed_seq_params=packing)
        if not self.post_process:
            return hidden
        weight = self.shared_embedding_or_output_weight() if self.share_embeddings_and_output_weights else None
        logits, _ = self.output_layer(hidden, weight=weight)  # [b * s / CP, 1, padded vocabulary / TP]
        logits = self._without_padding(logits)
        if labels is None:
            return logits.view(rows, share, -1)
        targets = labels.reshape(-1, 1)
        losses = tensor_parallel.vocab_parallel_cross_entropy(logits, targets.clamp(min=0))
        return losses.masked_fill(targets < 0, 0.0).view(rows, share)

    def _packing(
        self, rows: int, share: int, device: torch.device, cu_seqlens: torch.Tensor | None, positions: torch.Tensor | None
    ) -> tuple[PackedSeqParams, torch.Tensor]:
        """What attends to what, and the angles of the rotary embedding `[b * s / CP or longest document, 1, 1, d]`."""
        size, rank = self.config.context_parallel_size, parallel_state.get_context_parallel_rank()
        length = share * size
        if self.layer_spec == "transformer_engine" and size == 1:
            ends = torch.tensor(document_lengths(rows, length, cu_seqlens)).cumsum(0)
            stream = stream_mask(rows, length, device, F.pad(ends, (1, 0)).to(device, torch.int32))
            return stream, rope_angles(self.rope_frequencies, torch.arange(stream.max_seqlen_q, device=device))
        documents = causal_documents(rows, length, cu_seqlens, rank, size)
        if positions is None:
            assert size == 1, "under context parallelism positions come with the tokens, split as they are"
            positions = document_positions(documents.lengths, device)
        return documents, rope_angles(self.rope_frequencies, positions.flatten())

    def _without_padding(self, logits: torch.Tensor) -> torch.Tensor:
        """-inf for entries that only pad the vocabulary: else they would take part in the softmax, more at higher TP."""
        real = self.vocab_size - parallel_state.get_tensor_model_parallel_rank() * logits.size(-1)
        return MinusInfinityFrom.apply(logits, max(real, 0)) if real < logits.size(-1) else logits


class MinusInfinityFrom(torch.autograd.Function):
    """Sets `x[..., first:]` to -inf in place; their gradient is zero. (`masked_fill` would copy all logits, twice.)"""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, first: int) -> torch.Tensor:
        """`x` itself, changed."""
        ctx.first = first
        ctx.mark_dirty(x)
        x[..., first:] = float("-inf")
        return x

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The gradient but for the padding's."""
        gradient[..., ctx.first :] = 0.0
        return gradient, None
