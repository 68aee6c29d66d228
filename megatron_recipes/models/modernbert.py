"""ModernBERT (Warner et al. 2024, arXiv 2412.13663) on unmodified Megatron-Core blocks.

Every tensor, pipeline, sequence or data-parallel layout computes what one process computes. What Megatron-Core lacks is
here: two RoPE bases, an embedding norm, no norm before the first attention, LayerNorm without bias, the prediction head,
and a loss on masked tokens only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import parallel_state, tensor_parallel
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.common.embeddings.language_model_embedding import LanguageModelEmbedding
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from megatron.core.models.common.language_module.language_module import LanguageModule
from megatron.core.tensor_parallel.layers import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType, ModelType
from megatron.core.transformer.identity_op import IdentityOp
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import (
    TransformerBlock,
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import (
    TransformerLayer,
    TransformerLayerSubmodules,
    get_transformer_layer_offset,
)

from megatron_recipes.config import EncoderConfig, ParallelConfig, padded_vocab_size
from megatron_recipes.models.attention import LocalGlobalSelfAttention, SDPACoreAttention
from megatron_recipes.models.document_mask import DocumentMask, dense_mask, stream_mask


@dataclass
class EncoderTransformerConfig(TransformerConfig):
    """Megatron-Core's `TransformerConfig` with what ModernBERT adds."""

    local_rope_theta: float = 10_000.0
    global_rope_theta: float = 10_000.0
    init_std: float = 0.02


def encoder_config(
    model: EncoderConfig,
    parallel: ParallelConfig,
    dtype: torch.dtype,
    fp8: Mapping[str, Any] | None = None,
    layer_spec: str = "local",
) -> EncoderTransformerConfig:
    """Megatron-Core's view of a model in a layout. Fusions that need CUDA are left to Transformer Engine's layers.

    `fp8`: Megatron-Core's settings (`models.fp8_settings`), None without FP8.
    """
    sides = model.local_attention // 2
    return EncoderTransformerConfig(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        num_attention_heads=model.num_attention_heads,
        ffn_hidden_size=model.ffn_hidden_size,
        normalization="LayerNorm",
        layernorm_epsilon=model.norm_epsilon,
        gated_linear_unit=True,
        activation_func=F.gelu,
        add_bias_linear=False,
        hidden_dropout=model.hidden_dropout,
        attention_dropout=model.attention_dropout,
        window_size=(sides, sides),
        # a list, because Megatron-Core's integer form counts layers from 1 and would move the global ones
        window_attn_skip_freq=[int(not model.is_global(layer)) for layer in range(model.num_layers)],
        local_rope_theta=model.local_rope_theta,
        global_rope_theta=model.global_rope_theta,
        init_std=model.init_std,
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        sequence_parallel=parallel.sequence,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype == torch.bfloat16,
        calculate_per_token_loss=True,  # the loss is divided by the masked tokens of the global batch
        hetereogenous_dist_checkpoint=True,  # Megatron-Core's spelling; the first layer has no norm
        use_cpu_initialization=not torch.cuda.is_available(),
        perform_initialization=True,  # marks what is split over TP; models/init.py then sets the values
        attention_softmax_in_fp32=True,
        bias_dropout_fusion=False,
        bias_activation_fusion=False,
        masked_softmax_fusion=False,
        # Megatron-Core's own RoPE over a stream of documents is a loop over them, with a copy to the CPU in each layer
        apply_rope_fusion=layer_spec == "transformer_engine",
        gradient_accumulation_fusion=False,
        persist_layer_norm=False,
        variable_seq_lengths=False,
        **(fp8 or {}),
    )


class BiaslessLayerNorm(torch.nn.LayerNorm):
    """LayerNorm without bias; under sequence parallelism its gradient is summed over tensor-parallel ranks.

    (Megatron-Core's torch norm refuses sequence parallelism, Transformer Engine's always has a bias.)
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **unused: object) -> None:
        super().__init__(hidden_size, eps=eps, bias=False, dtype=config.params_dtype)
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]


def block_spec(config: EncoderTransformerConfig, layer_spec: str) -> TransformerBlockSubmodules:
    """The layers of this pipeline stage. `layer_spec`: `local` (torch) or `transformer_engine`."""
    column, row, core = ColumnParallelLinear, RowParallelLinear, SDPACoreAttention
    if layer_spec == "transformer_engine":
        from megatron.core.extensions.transformer_engine import (
            TEColumnParallelLinear,
            TEDotProductAttention,
            TERowParallelLinear,
        )

        column, row, core = TEColumnParallelLinear, TERowParallelLinear, TEDotProductAttention
    attention = ModuleSpec(
        module=LocalGlobalSelfAttention,
        params={"attn_mask_type": AttnMaskType.padding},
        submodules=SelfAttentionSubmodules(
            linear_qkv=column, core_attention=core, linear_proj=row, q_layernorm=IdentityOp, k_layernorm=IdentityOp
        ),
    )
    mlp = ModuleSpec(module=MLP, submodules=MLPSubmodules(linear_fc1=column, linear_fc2=row))

    def layer(number: int) -> ModuleSpec:
        return ModuleSpec(
            module=TransformerLayer,
            submodules=TransformerLayerSubmodules(
                input_layernorm=IdentityOp if number == 0 else BiaslessLayerNorm,
                self_attention=attention,
                self_attn_bda=get_bias_dropout_add,
                pre_mlp_layernorm=BiaslessLayerNorm,
                mlp=mlp,
                mlp_bda=get_bias_dropout_add,
            ),
        )

    first, count = get_transformer_layer_offset(config), get_num_layers_to_build(config)
    return TransformerBlockSubmodules(layer_specs=[layer(first + i) for i in range(count)], layer_norm=BiaslessLayerNorm)


class PredictionHead(torch.nn.Module):
    """dense -> GELU -> norm, on every tensor-parallel rank alike. `[n, h]` -> `[n, h]`."""

    def __init__(self, config: EncoderTransformerConfig) -> None:
        super().__init__()
        h, dtype = config.hidden_size, config.params_dtype
        self.dense = torch.nn.Linear(h, h, bias=False, dtype=dtype)
        self.norm = torch.nn.LayerNorm(h, eps=config.layernorm_epsilon, bias=False, dtype=dtype)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[n, h]` -> `[n, h]`."""
        return self.norm(F.gelu(self.dense(hidden)))


class ModernBertModel(LanguageModule):
    """The pipeline stage of a ModernBERT masked language model that this rank holds."""

    def __init__(
        self, config: EncoderTransformerConfig, vocab_size: int, max_sequence_length: int, layer_spec: str = "local"
    ) -> None:
        super().__init__(config=config)
        self.pre_process = parallel_state.is_pipeline_first_stage()
        self.post_process = parallel_state.is_pipeline_last_stage()
        self.vp_stage = None
        self.model_type = ModelType.encoder_or_decoder
        self.share_embeddings_and_output_weights = True
        self.layer_spec = layer_spec
        self.streamed = layer_spec == "transformer_engine"  # activations are one stream `[b * s, 1, h]`, not rows
        self.vocab_size = vocab_size
        padded = padded_vocab_size(vocab_size, config.tensor_model_parallel_size)
        if self.pre_process:
            self.embedding = LanguageModelEmbedding(config, padded, max_sequence_length, position_embedding_type="rope")
            self.embedding_norm = BiaslessLayerNorm(config, config.hidden_size, config.layernorm_epsilon)
        rope = {
            "kv_channels": config.kv_channels,
            "rotary_percent": 1.0,
            "use_cpu_initialization": config.use_cpu_initialization,
        }
        self.rope_local = RotaryEmbedding(rotary_base=config.local_rope_theta, **rope)
        self.rope_global = RotaryEmbedding(rotary_base=config.global_rope_theta, **rope)
        self.encoder = TransformerBlock(
            config=config,
            spec=block_spec(config, layer_spec),
            pre_process=self.pre_process,
            post_process=self.post_process,
        )
        if self.post_process:
            self.lm_head = PredictionHead(config)
            self.output_layer = ColumnParallelLinear(
                config.hidden_size,
                padded,
                # the head sees whole rows, gathered in `_predict`, so that it can pick the masked tokens
                config=_without_sequence_parallel(config),
                init_method=torch.nn.init.zeros_,
                bias=True,
                gather_output=False,
                skip_weight_param_allocation=self.pre_process,
            )
        self.setup_embeddings_and_output_layer()

    def set_input_tensor(self, input_tensor: torch.Tensor | list[torch.Tensor]) -> None:
        """Called by Megatron-Core's pipeline schedule with the previous stage's activations `[s, b, h]`."""
        self.encoder.set_input_tensor(input_tensor[0] if isinstance(input_tensor, list) else input_tensor)

    def forward(
        self,
        input_ids: torch.Tensor,
        cu_seqlens: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One stage of the forward pass.

        `input_ids` `[b, s]`; rows are packed (`cu_seqlens` `[n + 1]` over the flattened tokens), padded
        (`attention_mask` `[b, s]`, 1 = token) or whole documents. Returns activations `[s, b, h]` on all stages but the
        last; there, without `labels`, this rank's logits `[b, s, padded vocabulary / TP]`; with `labels` `[b, s]`
        (-100 = not masked) the losses `[masked tokens]` in training and `[2, masked tokens]`, loss and whether the top-1
        prediction is right, in evaluation.
        """
        rows, length = input_ids.shape
        if self.layer_spec == "transformer_engine":
            mask = stream_mask(rows, length, input_ids.device, cu_seqlens, attention_mask)
            stage_input = input_ids.view(1, -1)
        else:
            mask = dense_mask(rows, length, cu_seqlens, attention_mask)
            stage_input = input_ids
        hidden = None
        if self.pre_process:
            hidden = self.embedding_norm(self.embedding(input_ids=stage_input, position_ids=None))
        hidden = self.encoder(
            hidden_states=hidden,
            attention_mask=None,
            rotary_pos_emb=self._rotary_embeddings(mask),
            packed_seq_params=mask,
        )
        if not self.post_process:
            return hidden
        if self.config.sequence_parallel:
            hidden = tensor_parallel.gather_from_sequence_parallel_region(hidden, tensor_parallel_output_grad=False)
        hidden = hidden.transpose(0, 1).reshape(rows * length, -1)  # [b * s, h], in the order of input_ids
        if labels is None:
            return self._logits(hidden).view(rows, length, -1)
        return self._masked_losses(hidden, labels.flatten())

    def _rotary_embeddings(self, mask: DocumentMask) -> torch.Tensor:
        """Angles of the local and of the global layers: `[2, s, 1, 1, d]`, or `[2, s, b, 1, d]` for packed rows."""
        length = mask.max_seqlen_q
        streamed = mask.qkv_format == "thd"
        angles = torch.stack([self.rope_local(length, packed_seq=streamed), self.rope_global(length, packed_seq=streamed)])
        return angles if mask.positions is None else angles[:, mask.positions.t(), 0]

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[n, h]` -> this rank's logits `[n, padded vocabulary / TP]`; entries that are only padding are -inf."""
        logits, _ = self.output_layer(self.lm_head(hidden)[:, None], weight=self.shared_embedding_or_output_weight())
        logits = logits[:, 0]
        first = parallel_state.get_tensor_model_parallel_rank() * logits.size(-1)
        real = self.vocab_size - first
        if real < logits.size(-1):  # else the padding would take part in the softmax, more of it at higher TP
            padding = torch.arange(logits.size(-1), device=logits.device) >= real
            logits = logits.masked_fill(padding, float("-inf"))
        return logits

    def _masked_losses(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy `[n]` of the masked tokens only: the head never computes the other 70% of the logits."""
        masked = (labels >= 0).nonzero().flatten()
        labels = labels[masked]
        logits = self._logits(hidden[masked])
        losses = tensor_parallel.vocab_parallel_cross_entropy(logits.float()[:, None], labels[:, None]).flatten()
        if self.training:
            return losses
        return torch.stack([losses, (vocab_parallel_argmax(logits) == labels).float()])


def vocab_parallel_argmax(logits: torch.Tensor) -> torch.Tensor:
    """Index of the largest logit over all tensor-parallel ranks. `[n, V / TP]` -> `[n]`, the same on every rank."""
    best, index = logits.float().max(dim=-1)
    size = parallel_state.get_tensor_model_parallel_world_size()
    if size == 1:
        return index
    index = index + parallel_state.get_tensor_model_parallel_rank() * logits.size(-1)
    group = parallel_state.get_tensor_model_parallel_group()
    all_best, all_index = [torch.empty_like(best) for _ in range(size)], [torch.empty_like(index) for _ in range(size)]
    torch.distributed.all_gather(all_best, best, group=group)
    torch.distributed.all_gather(all_index, index, group=group)
    winner = torch.stack(all_best).argmax(dim=0, keepdim=True)
    return torch.stack(all_index).gather(0, winner)[0]


def _without_sequence_parallel(config: EncoderTransformerConfig) -> EncoderTransformerConfig:
    import copy

    head = copy.copy(config)
    head.sequence_parallel = False
    return head
