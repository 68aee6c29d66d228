"""The plan of an encoder's run over one corpus."""

from __future__ import annotations

from dataclasses import dataclass

from mecellem.manifest import manifest_path, read_manifest
from megatron_recipes.config import EncoderConfig, EncoderRun, padded_vocab_size
from megatron_recipes.models.fp8_settings import refuse_fp8_micro_batch
from megatron_recipes.plan.parts import (
    BYTES_PER_LOGIT,
    Machine,
    Memory,
    Parameters,
    Plan,
    Row,
    checkpoint_bytes_per_weight,
    checkpoint_row,
    element_bytes,
    human_count,
    memory_rows,
    optimizer_bytes,
    time_row,
)


def encoder_parameters(model: EncoderConfig) -> Parameters:
    """The weights of a ModernBERT: no biases but the output layer's, no norm before the first attention."""
    h, f, layers = model.hidden_size, model.ffn_hidden_size, model.num_layers
    return Parameters(
        embedding=model.vocab_size * h,
        layers=layers * (4 * h * h + 3 * h * f),
        norms=(2 * layers + 1) * h,
        head=h * h + h + model.vocab_size,  # dense, norm and output bias of masked language modelling
    )


def encoder_flops_per_token(config: EncoderRun) -> tuple[float, float]:
    """FLOPs of forward and backward for one token: in matrices (6 x weights), in attention scores and values.

    The head's weights count for masked tokens only, which are all that it computes. Attention takes 12 h FLOPs for each
    token attended to: the whole sequence in global layers (an upper bound, packed documents end sooner), the window in
    local ones.
    """
    model, length = config.model, config.data.sequence_length
    h = model.hidden_size
    head = h * h + model.vocab_size * h
    matrices = 6.0 * (encoder_parameters(model).layers + config.data.mask_probability * head)
    window = min(length, model.local_attention + 1)
    attended = sum(length if model.is_global(layer) else window for layer in range(model.num_layers))
    return matrices, 12.0 * h * attended


def encoder_memory(config: EncoderRun, data_parallel: int) -> Memory:
    """Memory of one GPU in bytes, without recomputation and with attention that stores no scores (FlashAttention).

    It is the first pipeline stage's, which keeps the embedding and most micro batches. Activations follow Korthikanti et al.
    2022 (arXiv 2205.05198): what each operation keeps for its backward pass. With w bytes an element, a layer keeps for each
    token w x 4h outside the tensor-parallel region (inputs and outputs of the two norms) and w x (4h + 4f) / TP in it (Q, K,
    V, the context; gate, up, GELU(gate) and their product). Sequence parallelism divides the first part by TP as well. A
    stage of PP keeps up to PP micro batches of its share of layers.
    """
    model, parallel, schedule = config.model, config.parallel, config.schedule
    width = element_bytes(config)
    h, f, tp, pp = model.hidden_size, model.ffn_hidden_size, parallel.tensor, parallel.pipeline
    vocabulary = padded_vocab_size(model.vocab_size, tp)
    counts = encoder_parameters(model)
    weights = (counts.layers / pp + vocabulary * h) / tp + counts.norms / pp + (h * h + h if pp == 1 else 0)

    tokens = schedule.micro_batch_size * config.data.sequence_length
    outside = width * 4 * h / (tp if parallel.sequence else 1)
    inside = width * (4 * h + 4 * f) / tp
    in_flight = min(pp, schedule.global_batch_size // (schedule.micro_batch_size * data_parallel))
    return Memory(
        weights=width * weights,
        gradients=4 * weights,
        optimizer=optimizer_bytes(config) * weights / (data_parallel if config.optimizer.distributed else 1),
        activations=tokens * model.num_layers / pp * in_flight * (outside + inside),
        logits=tokens * config.data.mask_probability * vocabulary / tp * BYTES_PER_LOGIT,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderPlan(Plan):
    """What an encoder's run would take."""

    config: EncoderRun
    corpus_tokens: int | None  # with a [CLS] for each document; None where no corpus stands at --data.train

    @property
    def epochs(self) -> float | None:
        """Passes over the corpus, where it is known."""
        return None if self.corpus_tokens is None else self.tokens / self.corpus_tokens

    def rows(self) -> list[Row]:
        """The lines of the printed table."""
        config = self.config
        matrices, attention = encoder_flops_per_token(config)
        epochs = ("unknown", f"no corpus at {config.data.train} yet")
        if self.epochs is not None:
            epochs = (f"{self.epochs:.2f}", f"over {self.corpus_tokens:,} tokens at {config.data.train}")
        parallel = f"TP {config.parallel.tensor} x PP {config.parallel.pipeline} x DP {self.data_parallel}"
        return [
            ("encoder parameters", f"{self.parameters.backbone:,}", human_count(self.parameters.backbone)),
            ("with the MLM head", f"{self.parameters.total:,}", "as transformers counts ModernBertForMaskedLM, tied"),
            ("tokens per step", f"{config.tokens_per_step:,}", f"{config.schedule.global_batch_size:,} sequences"),
            ("steps", f"{config.steps:,}", f"for {human_count(config.schedule.train_tokens)} tokens"),
            ("epochs", *epochs),
            (
                "training FLOPs",
                f"{self.flops:.3g}",
                f"a token: 6 x weights = {matrices:.3g} (head on masked tokens), attention {attention:.3g}",
            ),
            ("layout", parallel, f"{self.machine.gpus} GPUs, micro batch {config.schedule.micro_batch_size}"),
            *memory_rows(config, self, "--schedule.micro-batch-size", "masked tokens only"),
            time_row(self),
            checkpoint_row(config, self),
        ]


def _corpus_tokens(config: EncoderRun) -> int | None:
    if not manifest_path(config.data.train).exists():
        return None
    manifest = read_manifest(config.data.train)
    return manifest.tokens + manifest.documents


def plan_encoder(config: EncoderRun, machine: Machine) -> EncoderPlan:
    """Work out what `config`, which was checked, takes on `machine`. Raises `UserError` for a micro batch that FP8 refuses."""
    refuse_fp8_micro_batch(config)
    parameters = encoder_parameters(config.model)
    data_parallel = config.parallel.data_parallel(machine.gpus)
    tokens = config.steps * config.tokens_per_step
    return EncoderPlan(
        config=config,
        machine=machine,
        data_parallel=data_parallel,
        parameters=parameters,
        corpus_tokens=_corpus_tokens(config),
        steps=config.steps,
        tokens=tokens,
        flops=sum(encoder_flops_per_token(config)) * tokens,
        memory=encoder_memory(config, data_parallel),
        checkpoint_bytes=checkpoint_bytes_per_weight(config) * parameters.total,
    )
