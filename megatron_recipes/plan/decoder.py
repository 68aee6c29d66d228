"""The plan of a decoder's run through a curriculum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mecellem.console import human_time
from mecellem.manifest import manifest_path, read_manifest
from megatron_recipes.config import DecoderConfig, DecoderRun, padded_vocab_size
from megatron_recipes.data.curriculum import Curriculum
from megatron_recipes.data.curriculum_stage import Source, Stage
from megatron_recipes.data.supply import Use, check_supply, planned_use, read_manifests
from megatron_recipes.engine.refusals import refuse_stages
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


def decoder_parameters(model: DecoderConfig) -> Parameters:
    """The weights of a Qwen3 or Llama: no biases; Qwen3 has two more norms in a layer, of the width of a head."""
    h, layers = model.hidden_size, model.num_layers
    queries, groups = model.num_attention_heads * model.head_dim, model.num_query_groups * model.head_dim
    norms = 2 * h + (2 * model.head_dim if model.family == "qwen3" else 0)
    return Parameters(
        embedding=model.vocab_size * h,
        layers=layers * (h * (2 * queries + 2 * groups) + 3 * h * model.ffn_hidden_size),
        norms=layers * norms + h,
        head=0 if model.tie_embeddings else model.vocab_size * h,
    )


def decoder_flops_per_token(model: DecoderConfig, seq_len: int) -> tuple[float, float]:
    """FLOPs of forward and backward for one token: in matrices (6 x weights), in attention scores and values.

    Attention takes 12 x heads x width FLOPs for each token attended to, which are (seq_len + 1) / 2 on average in a row that
    is one document: an upper bound, packed documents end sooner.
    """
    matrices = 6.0 * (decoder_parameters(model).layers + model.vocab_size * model.hidden_size)
    return matrices, 6.0 * model.num_layers * model.num_attention_heads * model.head_dim * (seq_len + 1)


def decoder_memory(config: DecoderRun, stage: Stage, data_parallel: int) -> Memory:
    """Memory in bytes of the GPU that holds most during a stage: of the first pipeline stage or of the last.

    The first keeps most micro batches, the last the logits. Activations are counted as for encoders, with w bytes an element:
    w x 4h for each token outside the tensor-parallel region; in it w / TP times queries, keys, values and the context (with
    Qwen3 queries and keys before their norms, too) and 3f (gate, up and product; SiLU is computed again), 4f without
    Transformer Engine. Context parallelism divides the tokens, and the optimizer's states as data parallelism does.
    """
    model, parallel = config.model, config.parallel
    tp, pp, cp = parallel.tensor, parallel.pipeline, parallel.context
    h, width = model.hidden_size, element_bytes(config)
    queries, groups = model.num_attention_heads * model.head_dim, model.num_query_groups * model.head_dim
    vocabulary = padded_vocab_size(model.vocab_size, tp)
    rows = config.micro_batch_tokens // stage.seq_len
    tokens = rows * stage.seq_len / cp
    attention = 2 * queries + 2 * groups + (queries + groups if model.family == "qwen3" else 0)
    local = config.precision == "fp32" or config.layer_spec == "local"
    outside = width * 4 * h / (tp if parallel.sequence else 1)
    inside = width * (attention + (4 if local else 3) * model.ffn_hidden_size) / tp
    counts = decoder_parameters(model)
    in_flight = min(pp, stage.sequences_per_step // (rows * data_parallel))

    def stage_memory(first: bool, last: bool) -> Memory:
        vocabularies = int(first) + int(last and not (first and model.tie_embeddings))
        weights = (counts.layers / pp + vocabularies * vocabulary * h) / tp + counts.norms / pp
        shards = data_parallel * cp if config.optimizer.distributed else 1
        return Memory(
            weights=width * weights,
            gradients=4 * weights,
            optimizer=optimizer_bytes(config) * weights / shards,
            activations=tokens * model.num_layers / pp * (in_flight if first else 1) * (outside + inside),
            logits=tokens * vocabulary / tp * BYTES_PER_LOGIT if last else 0.0,
        )

    return max((stage_memory(first, last) for first, last in _pipeline_ends(pp)), key=lambda memory: memory.total)


def _pipeline_ends(pipeline: int) -> tuple[tuple[bool, bool], ...]:
    """(is first, is last) of the pipeline stages that can hold most."""
    return ((True, True),) if pipeline == 1 else ((True, False), (False, True))


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderPlan(Plan):
    """What a decoder's run would take."""

    config: DecoderRun
    curriculum: Curriculum
    corpora: Mapping[Path, int]  # tokens by the sources' paths, of those that are there
    uses: Sequence[Use]  # by stage and source; none where a corpus is missing

    def stage_flops(self, stage: Stage) -> float:
        """FLOPs of all steps of a stage."""
        return sum(decoder_flops_per_token(self.config.model, stage.seq_len)) * stage.trained_tokens

    def rows(self) -> list[Row]:
        """The lines of the printed table."""
        config, parallel = self.config, self.config.parallel
        family = {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}[config.model.family]
        tied = "tied" if config.model.tie_embeddings else "untied"
        context = f" x CP {parallel.context}" if parallel.context > 1 else ""
        layout = f"TP {parallel.tensor} x PP {parallel.pipeline}{context} x DP {self.data_parallel}"
        stages = self.curriculum.stages
        matrices, _ = decoder_flops_per_token(config.model, stages[0].seq_len)
        attention = " / ".join(
            f"{decoder_flops_per_token(config.model, n)[1]:.3g}" for n in sorted({s.seq_len for s in stages})
        )
        micro = f"micro batch {config.micro_batch_tokens:,} tokens"
        return [
            ("parameters", f"{self.parameters.total:,}", f"as transformers counts {family}, {tied}"),
            ("  non-embedding", f"{self.parameters.non_embedding:,}", human_count(self.parameters.non_embedding)),
            (
                "tokens",
                human_count(self.tokens),
                f"{len(stages)} stage{'s' if len(stages) > 1 else ''} of {self.curriculum.path}",
            ),
            ("steps", f"{self.steps:,}", "whole steps in each stage"),
            *self._stage_rows(),
            ("training FLOPs", f"{self.flops:.3g}", f"a token: 6 x weights = {matrices:.3g}, causal attention {attention}"),
            ("layout", layout, f"{self.machine.gpus} GPUs, {micro}"),
            *memory_rows(config, self, "--micro-batch-tokens", "of every token"),
            time_row(self),
            checkpoint_row(config, self),
        ]

    def _stage_rows(self) -> list[Row]:
        found: list[Row] = []
        first = 0
        uses = iter(self.uses)  # in the same order
        for stage in self.curriculum.stages:
            rates = (self.curriculum.learning_rate(step) for step in (first, first + stage.steps - 1))
            begin, end = (f"{rate:.2g}" for rate in rates)
            first += stage.steps
            note = (
                f"{human_count(stage.trained_tokens)} tokens, sequences of {stage.seq_len:,}, {stage.global_batch_tokens:,} a "
                f"step; rate {begin} to {end}, at most {stage.lr.peak:.2g}"
            )
            time = "" if self.config.fp8.emulate else f"; {human_time(self._seconds(stage))}"
            found.append((f"stage {stage.name}", f"{stage.steps:,} steps", note + time))
            for source, weight in zip(stage.sources, stage.weights, strict=True):
                found.append(self._source_row(stage, source, weight, next(uses, None)))
        return found

    def _source_row(self, stage: Stage, source: Source, weight: float, use: Use | None) -> Row:
        tokens = weight * stage.trained_tokens if use is None else use.tokens
        share = f"{weight:.1%}, {human_count(tokens)} tokens{', replay' if source.replay else ''}"
        if source.path not in self.corpora:
            return f"  {source.name}", "unknown epochs", f"{share}; no corpus at {source.path} yet"
        share += f"; with earlier stages, of {human_count(self.corpora[source.path])} at {source.path}"
        if use is None:
            return f"  {source.name}", "unknown epochs", f"{share}; counted when every corpus is there"
        return f"  {source.name}", f"{use.epochs:.2f} epochs", share

    def _seconds(self, stage: Stage) -> float:
        return self.machine.seconds(self.stage_flops(stage))


def _corpora(curriculum: Curriculum) -> tuple[dict[Path, int], list[Use]]:
    """Tokens of the sources that are there; when all are, also what the stages take of them, which is checked."""
    paths = {source.path for stage in curriculum.stages for source in stage.sources}
    present = sorted(path for path in paths if manifest_path(path).exists())
    uses: list[Use] = []
    if len(present) == len(paths):
        uses = planned_use(curriculum, read_manifests(curriculum))
        check_supply(curriculum, uses)
    return {path: read_manifest(path).tokens for path in present}, uses


def plan_decoder(config: DecoderRun, machine: Machine) -> DecoderPlan:
    """Work out what `config`, which was checked, takes on `machine`. Raises `UserError` for stages that do not fit it."""
    curriculum = Curriculum.read(config.curriculum)
    data_parallel = config.parallel.data_parallel(machine.gpus)
    refuse_stages(config, curriculum, data_parallel)
    corpora, uses = _corpora(curriculum)
    parameters = decoder_parameters(config.model)
    memories = [decoder_memory(config, stage, data_parallel) for stage in curriculum.stages]
    flops = [sum(decoder_flops_per_token(config.model, s.seq_len)) * s.trained_tokens for s in curriculum.stages]
    return DecoderPlan(
        config=config,
        machine=machine,
        data_parallel=data_parallel,
        parameters=parameters,
        curriculum=curriculum,
        corpora=corpora,
        uses=uses,
        steps=curriculum.steps,
        tokens=curriculum.tokens,
        flops=sum(flops),
        memory=max(memories, key=lambda memory: memory.total),
        checkpoint_bytes=checkpoint_bytes_per_weight(config) * parameters.total,
    )
