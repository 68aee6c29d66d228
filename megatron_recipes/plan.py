"""`mecellem train RECIPE --dry-run`: what a run would take, from its configuration alone, without torch or a GPU.

Parameters and steps are exact; memory, time and checkpoint size are estimates whose formulas stand beside the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from mecellem.console import console, human_time
from mecellem.errors import UserError
from mecellem.manifest import manifest_path, read_manifest
from megatron_recipes.config import ModelConfig, RunConfig, padded_vocab_size

H100_PEAK_TFLOPS = 989.0  # dense BF16, NVIDIA H100 SXM data sheet
GPU_MEMORY_GB = 64.0  # MareNostrum 5's H100, on which the Mecellem models were trained; the usual H100 has 80
BYTES_PER_LOGIT = 10  # BF16 logits, FP32 softmax and its FP32 gradient


@dataclass(frozen=True, slots=True)
class Parameters:
    """Trainable weights, as `ModernBertForMaskedLM` of the transformers library counts them."""

    embedding: int  # tied with the output layer
    layers: int  # matrices of attention and GeGLU
    norms: int  # of the encoder
    head: int  # dense, norm and output bias of masked language modelling

    @property
    def encoder(self) -> int:
        """Without the head: the size that papers quote."""
        return self.embedding + self.layers + self.norms

    @property
    def total(self) -> int:
        """With the head: what is trained and exported."""
        return self.encoder + self.head


def count_parameters(model: ModelConfig) -> Parameters:
    """Count the weights of a ModernBERT: no biases but the output layer's, no norm before the first attention."""
    h, f, layers = model.hidden_size, model.ffn_hidden_size, model.num_layers
    return Parameters(
        embedding=model.vocab_size * h,
        layers=layers * (4 * h * h + 3 * h * f),
        norms=(2 * layers + 1) * h,
        head=h * h + h + model.vocab_size,
    )


def training_flops_per_token(config: RunConfig) -> tuple[float, float]:
    """FLOPs of forward and backward for one token: in matrices (6 x weights), in attention scores and values.

    The head's weights count for masked tokens only, which are all that it computes. Attention takes 12 h FLOPs for each
    token attended to: the whole sequence in global layers (an upper bound, packed documents end sooner), the window in
    local ones.
    """
    model, length = config.model, config.data.sequence_length
    h = model.hidden_size
    head = h * h + model.vocab_size * h
    matrices = 6.0 * (count_parameters(model).layers + config.data.mask_probability * head)
    window = min(length, model.local_attention + 1)
    attended = sum(length if model.is_global(layer) else window for layer in range(model.num_layers))
    return matrices, 12.0 * h * attended


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the GPU that holds most: the first pipeline stage, which keeps the embedding and most micro batches."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All of it, without CUDA's own and the allocator's share."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def memory_per_gpu(config: RunConfig, data_parallel: int) -> Memory:
    """Memory of one GPU in bytes, without recomputation and with attention that stores no scores (FlashAttention).

    Activations follow Korthikanti et al. 2022 (arXiv 2205.05198): what each operation keeps for its backward pass. With
    w bytes an element, a layer keeps for each token w x 4h outside the tensor-parallel region (inputs and outputs of
    the two norms) and w x (4h + 4f) / TP in it (Q, K, V, the context; gate, up, GELU(gate) and their product). Sequence
    parallelism divides the first part by TP as well. A stage of PP keeps up to PP micro batches of its share of layers.
    """
    model, parallel, schedule = config.model, config.parallel, config.schedule
    width = 4 if config.precision == "fp32" else 2
    h, f, tp, pp = model.hidden_size, model.ffn_hidden_size, parallel.tensor, parallel.pipeline
    vocabulary = padded_vocab_size(model.vocab_size, tp)
    counts = count_parameters(model)
    weights = (counts.layers / pp + vocabulary * h) / tp + counts.norms / pp + (h * h + h if pp == 1 else 0)

    tokens = schedule.micro_batch_size * config.data.sequence_length
    outside = width * 4 * h / (tp if parallel.sequence else 1)
    inside = width * (4 * h + 4 * f) / tp
    in_flight = min(pp, schedule.global_batch_size // (schedule.micro_batch_size * data_parallel))
    logits = tokens * config.data.mask_probability * vocabulary / tp * BYTES_PER_LOGIT
    states = 12 if width == 2 else 8  # FP32 master weights and AdamW's two moments; FP32 weights are their own master
    return Memory(
        weights=width * weights,
        gradients=4 * weights,
        optimizer=states * weights / (data_parallel if config.optimizer.distributed else 1),
        activations=tokens * model.num_layers / pp * in_flight * (outside + inside),
        logits=logits,
    )


def checkpoint_bytes_per_weight(config: RunConfig) -> int:
    """What a checkpoint holds of each weight: itself, AdamW's two moments and the FP32 master copy, whole on any layout.

    Only FP32 training without the distributed optimizer has no master copy beside the weights. The tokenizer and the
    format's own files come on top, some MB.
    """
    fp32 = config.precision == "fp32"
    return (4 if fp32 else 2) + 8 + (4 if config.optimizer.distributed or not fp32 else 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would take on `gpus` GPUs."""

    config: RunConfig
    gpus: int
    mfu: float
    peak_tflops: float
    gpu_memory_gb: float
    parameters: Parameters
    data_parallel: int
    corpus_tokens: int | None  # with a [CLS] for each document; None where no corpus stands at --data.train
    flops: float  # of the whole run
    memory: Memory
    seconds: float
    checkpoint_bytes: float

    @property
    def tokens(self) -> int:
        """Tokens that the run reads: whole steps."""
        return self.config.steps * self.config.tokens_per_step

    @property
    def epochs(self) -> float | None:
        """Passes over the corpus, where it is known."""
        return None if self.corpus_tokens is None else self.tokens / self.corpus_tokens

    @property
    def fits(self) -> bool:
        """Whether 90% of a GPU's memory holds the estimate; the rest is CUDA's and the allocator's."""
        return self.memory.total <= 0.9 * self.gpu_memory_gb * 1e9


def _corpus_tokens(config: RunConfig) -> int | None:
    if not manifest_path(config.data.train).exists():
        return None
    manifest = read_manifest(config.data.train)
    return manifest.tokens + manifest.documents


def plan(
    config: RunConfig,
    gpus: int,
    mfu: float = 0.30,
    peak_tflops: float = H100_PEAK_TFLOPS,
    gpu_memory_gb: float = GPU_MEMORY_GB,
) -> Plan:
    """Work out what `config` takes on `gpus` GPUs of `peak_tflops` TFLOP/s, of which it reaches the share `mfu`.

    Raises `UserError` for whatever the run itself would refuse on that many GPUs.
    """
    if gpus < 1:
        raise UserError("--gpus must be at least 1")
    if peak_tflops <= 0:
        raise UserError(f"--peak-tflops {peak_tflops} must be positive")
    if gpu_memory_gb <= 0:
        raise UserError(f"--gpu-memory-gb {gpu_memory_gb} must be positive")
    if not 0 < mfu <= 1:
        raise UserError(f"--mfu {mfu} must be above 0 and at most 1: the share of the GPUs' peak that training reaches")
    config.check(gpus)
    parameters = count_parameters(config.model)
    data_parallel = config.parallel.data_parallel(gpus)
    flops = sum(training_flops_per_token(config)) * config.steps * config.tokens_per_step
    return Plan(
        config=config,
        gpus=gpus,
        mfu=mfu,
        peak_tflops=peak_tflops,
        gpu_memory_gb=gpu_memory_gb,
        parameters=parameters,
        data_parallel=data_parallel,
        corpus_tokens=_corpus_tokens(config),
        flops=flops,
        memory=memory_per_gpu(config, data_parallel),
        seconds=flops / (gpus * peak_tflops * 1e12 * mfu),
        checkpoint_bytes=checkpoint_bytes_per_weight(config) * parameters.total,
    )


def human_count(value: float) -> str:
    """`155.6M`, `112.7B`, `3.2k`: four digits at most."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{letter}"
    return f"{value:.0f}"


def _gigabytes(value: float) -> str:
    return f"{value / 1e9:.1f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"


def plan_rows(p: Plan) -> list[tuple[str, str, str]]:
    """(what, how much, where from): the lines of the printed table."""
    config, memory = p.config, p.memory
    matrices, attention = training_flops_per_token(config)
    epochs = ("unknown", f"no corpus at {config.data.train} yet")
    if p.epochs is not None:
        epochs = (f"{p.epochs:.2f}", f"over {p.corpus_tokens:,} tokens at {config.data.train}")
    parallel = f"TP {config.parallel.tensor} x PP {config.parallel.pipeline} x DP {p.data_parallel}"
    share = f"/ DP {p.data_parallel}" if config.optimizer.distributed else "on every rank"
    verdict = "fits" if p.fits else "DOES NOT FIT: lower --schedule.micro-batch-size or raise --parallel.tensor"
    checkpoints = -(-config.steps // config.checkpoint_interval)
    rate = p.tokens / p.seconds / p.gpus
    fp32 = config.precision == "fp32"
    return [
        ("encoder parameters", f"{p.parameters.encoder:,}", human_count(p.parameters.encoder)),
        ("with the MLM head", f"{p.parameters.total:,}", "as transformers counts ModernBertForMaskedLM, tied"),
        ("tokens per step", f"{config.tokens_per_step:,}", f"{config.schedule.global_batch_size:,} sequences"),
        ("steps", f"{config.steps:,}", f"for {human_count(config.schedule.train_tokens)} tokens"),
        ("epochs", *epochs),
        (
            "training FLOPs",
            f"{p.flops:.3g}",
            f"a token: 6 x weights = {matrices:.3g} (head on masked tokens), attention {attention:.3g}",
        ),
        ("layout", parallel, f"{p.gpus} GPUs, micro batch {config.schedule.micro_batch_size}"),
        ("memory per GPU", _gigabytes(memory.total), f"{verdict} (90% of {p.gpu_memory_gb:.0f} GB)"),
        ("  weights, gradients", _gigabytes(memory.weights + memory.gradients), f"{4 if fp32 else 2} + 4 bytes each"),
        ("  optimizer", _gigabytes(memory.optimizer), f"{8 if fp32 else 12} bytes a weight {share}"),
        ("  activations", _gigabytes(memory.activations), "estimate after Korthikanti et al. 2022, no recomputation"),
        ("  logits", _gigabytes(memory.logits), f"masked tokens only, {BYTES_PER_LOGIT} bytes a logit"),
        (
            "time",
            human_time(p.seconds),
            f"{p.gpus} x {p.peak_tflops:.0f} TFLOP/s at MFU {p.mfu:.0%}: {human_count(rate)} tokens/s per GPU, "
            f"{p.seconds * p.gpus / 3600:,.0f} GPU hours",
        ),
        (
            "checkpoint",
            f"about {_gigabytes(p.checkpoint_bytes)}",
            f"{checkpoint_bytes_per_weight(config)} bytes a weight: itself, optimizer states in FP32; {checkpoints} of them: "
            f"{_gigabytes(checkpoints * p.checkpoint_bytes)}",
        ),
    ]


def print_plan(p: Plan) -> None:
    """Print the plan as a table on standard output."""
    out = console()
    out.rule(f"[bold]plan of {p.config.name}", align="left")
    for what, amount, note in plan_rows(p):
        out.print(f"{what:<20} {amount:>20}  {note}", markup=False)
    out.print(
        "\nEttin reached an MFU of 0.25 (150M) to 0.34 (400M) on H100s (worked out from its published hours); --gpus, "
        "--mfu, --peak-tflops and --gpu-memory-gb set other machines.\nTime is arithmetic only: no "
        "validation, no checkpoints, no waiting in a queue."
    )
