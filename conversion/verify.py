"""The gate of every conversion: the Hugging Face folder in plain transformers against the checkpoint in Megatron-Core.

Both models compute in fp32, on real text: short and long, padded, and masked for encoders; decoders also read a text whose
positions are spread over a long context, and continue one.
Weights are read from disk module by module, again for every pass, so that a model of any size is compared on its whole depth
and vocabulary in the memory of its largest module. A folder or checkpoint that differs does not get its name.
"""

from __future__ import annotations

import dataclasses
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from conversion.safetensors_folder import BLOCK_BYTES, SafetensorsReader
from conversion.streamed import CheckpointSource, FolderSource, StreamedEmbedding, StreamedHead, best_entry, stream_weights
from conversion.torch_dist import Chunk
from mecellem.errors import UserError
from megatron_recipes.config import EncoderConfig, ModelConfig

TOLERANCE = 1e-5  # of the largest logit (at least 1): fp32 rounding of two orders of summation
CONTINUATION = 16  # tokens that a decoder generates
LONG_ENCODER = 1024  # tokens of the long text: many local windows
LONG_DECODER = 256  # tokens of the long text, whose positions are spread ...
FARTHEST = 8192  # ... over so many: farther out, fp32 rounds angles by about the tolerance

# Written for this check: formal Turkish with its casing, suffixes behind apostrophes, numbers and citations.
TEXTS = (
    "Yargıtay'ın bozma ilamına uyan mahkeme, davanın kısmen kabulüne karar vermiştir.",
    "Madde 5 - (1) Kişisel veriler, ilgili kişinin açık rızası olmaksızın işlenemez.",
    "İstanbul Bölge Adliye Mahkemesi 14. Hukuk Dairesi'nin 2019/1234 E., 2020/567 K. sayılı kararı temyiz edilmiştir.",
    "Işıklı ığdır çiğdemleri, dağın gölgesinde ağır ağır açıyordu.",
    "Kira sözleşmesinin feshi hâlinde, kiracı taşınmazı on beş gün içinde tahliye etmekle yükümlüdür. "
    "Aksi takdirde kiraya veren, sözleşmede kararlaştırılan cezai şartın ödenmesini talep edebilir.",
    "Evet.",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Verification:
    """What `verification.json` records. Differences are between logits in fp32, over every token that is not padding."""

    passed: bool
    max_logit_difference: float
    largest_logit: float
    tolerance: float
    top1_agreement: float
    tokens_compared: int
    sequences_compared: int
    longest_sequence: int
    tied: bool  # as the config says: decided by `passed`
    embedding_std: float
    checkpoint_step: int
    checkpoint_tokens: int
    versions: dict[str, str]
    continuation: str | None  # what both models generate from a Turkish sentence, greedily; None for encoders
    tensors: int  # in the folder, each with finite numbers that are not all zero
    smallest_std: float  # of a matrix, the one named next
    smallest_std_of: str
    method: str = "whole depth and vocabulary in fp32, weights streamed from disk module by module"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    def sentence(self) -> str:
        """What was compared and how far apart it was, as the commands print it."""
        said = "" if self.continuation is None else f", the same continuation ({self.continuation!r})"
        return (
            f"verified against the Megatron model on {self.tokens_compared:,} tokens: largest logit difference "
            f"{self.max_logit_difference:.1e} (allowed {self.tolerance:.1e}), top-1 agreement {self.top1_agreement:.1%}{said}"
        )


@dataclasses.dataclass(slots=True)
class Comparison:
    """Running totals over batches."""

    max_logit_difference: float = 0.0
    largest_logit: float = 0.0
    agreed: int = 0
    tokens_compared: int = 0
    sequences_compared: int = 0
    longest_sequence: int = 0

    def add(self, ours: StreamedHead, theirs: StreamedHead, keep: torch.Tensor) -> torch.Tensor:
        """Compare the logits of the tokens that both heads have just seen where `keep` `[b, s]` is True.

        A disagreement in the top-1 counts unless the two best logits are closer than the allowed difference (a tie). Returns
        for each of those tokens whether the top-1 agreed.
        """
        rows = keep.flatten()
        mine, peer = ours.hidden[rows], theirs.hidden[rows]
        my_bias, peer_bias = ours.biases(), theirs.biases()
        assert isinstance(theirs.source, FolderSource)
        none = torch.full((len(mine), 1), -float("inf"), device=mine.device)
        best, best_index = none.repeat(1, 2), torch.zeros(len(mine), 2, dtype=torch.long, device=mine.device)
        peer_best, peer_index = none[:, 0], best_index[:, 0]
        worst, largest = 0.0, 0.0
        for first, weight in ours.pieces():
            last = first + len(weight)
            a = F.linear(mine, weight, None if my_bias is None else my_bias[first:last])
            other = theirs.source.rows(theirs.name, first, last).to(weight)
            b = F.linear(peer, other, None if peer_bias is None else peer_bias[first:last])
            largest = max(largest, float(b.abs().max()))
            worst = max(worst, float((a - b).abs().max().nan_to_num(float("inf"))))
            values, index = torch.cat([best, a], dim=1).topk(2)
            best, best_index = values, torch.where(index < 2, best_index.gather(1, index.clamp(max=1)), index - 2 + first)
            value, place = b.max(dim=1)
            peer_index = torch.where(value > peer_best, place + first, peer_index)
            peer_best = torch.maximum(value, peer_best)
        tie = best[:, 0] - best[:, 1] <= 2 * TOLERANCE * max(1.0, largest)
        agreed = (best_index[:, 0] == peer_index) | tie
        self.max_logit_difference = max(self.max_logit_difference, worst)
        self.largest_logit = max(self.largest_logit, largest)
        self.agreed += int(agreed.sum())
        self.tokens_compared += len(mine)
        self.sequences_compared += len(keep)
        self.longest_sequence = max(self.longest_sequence, keep.size(1))
        return agreed


def verification_batches(tokenizer: Any, max_length: int, texts: tuple[str, ...] = TEXTS) -> list[dict[str, torch.Tensor]]:
    """Padded, unpadded and long inputs from real text, and masked ones where the tokenizer has a mask; `[b, s]` each.

    `input_ids` and `attention_mask`. Padding is on the right, where it changes nothing for a decoder either.
    """
    rows = [tokenizer(text, truncation=True, max_length=max_length)["input_ids"] for text in texts]
    pad = tokenizer.pad_token_id or 0
    length = max(len(row) for row in rows)
    ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows])
    real = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    repeat = -(-max_length // max(1, int(real.sum())))
    long = tokenizer(" ".join(texts * (repeat + 1)), truncation=True, max_length=max_length, return_tensors="pt")["input_ids"]
    batches = [{"input_ids": ids, "attention_mask": real}]
    batches += [{"input_ids": item, "attention_mask": torch.ones_like(item)} for item in (torch.tensor(rows[:1]), long)]
    if tokenizer.mask_token_id is not None:
        places = (torch.arange(ids.numel()).view_as(ids) % 7 == 3) & real.bool()
        batches.append({"input_ids": ids.masked_fill(places, tokenizer.mask_token_id), "attention_mask": real})
    return batches


class Pair:
    """A checkpoint in Megatron-Core and a Hugging Face folder in transformers, both streamed from disk."""

    def __init__(
        self, checkpoint: Path, folder: Path, model: ModelConfig, chunks: dict[str, list[Chunk]], dtype: torch.dtype
    ) -> None:
        from conversion.megatron_model import outline
        from megatron_recipes.engine import runtime

        self.device = runtime.device()
        self.encoder = isinstance(model, EncoderConfig)
        self.folder = FolderSource(folder)
        stored = CheckpointSource(checkpoint, chunks, dtype)
        self.megatron = outline(model, torch.float32)
        tied = "output_layer.weight" not in chunks
        embedding = "embedding.word_embeddings.weight"
        bias = "output_layer.bias" if "output_layer.bias" in chunks else None
        self.ours = StreamedHead(stored, embedding if tied else "output_layer.weight", bias, returns_bias=True)
        replaced = {"embedding.word_embeddings": StreamedEmbedding(stored, embedding), "output_layer": self.ours}
        stream_weights(self.megatron, stored, replaced, self.device)
        self.hf = hf_outline(folder).to(torch.float32).eval()
        self.tied = self.hf.get_output_embeddings().weight is self.hf.get_input_embeddings().weight
        names = {id(part): name for name, part in self.hf.named_modules()}
        head, table = names[id(self.hf.get_output_embeddings())], names[id(self.hf.get_input_embeddings())]
        self.embedding = f"{table}.weight"
        bias = f"{head}.bias" if self.hf.get_output_embeddings().bias is not None else None
        self.theirs = StreamedHead(self.folder, self.embedding if self.tied else f"{head}.weight", bias, returns_bias=False)
        replaced = {table: StreamedEmbedding(self.folder, self.embedding), head: self.theirs}
        stream_weights(self.hf, self.folder, replaced, self.device)

    def run(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor | None = None) -> None:
        """One forward pass of both; the heads keep what they see. `positions` `[b, s]` are a decoder's."""
        ids, mask = ids.to(self.device), mask.to(self.device)
        if self.encoder:
            self.megatron(ids, attention_mask=mask)
            self.hf(input_ids=ids, attention_mask=mask)
        else:
            positions = None if positions is None else positions.to(self.device)
            self.megatron(ids, positions=positions)
            self.hf(input_ids=ids, attention_mask=mask, position_ids=positions)

    def generate(self, ids: torch.Tensor, count: int) -> torch.Tensor:
        """What transformers continues `ids` `[1, s]` with, greedily and with its cache: `[1, s + count]`."""
        ids, cache = ids.to(self.device), None
        last = ids
        for _ in range(count):
            cache = self.hf(input_ids=last, past_key_values=cache, use_cache=True).past_key_values
            last = torch.tensor([[best_entry(self.theirs)]], device=self.device)
            ids = torch.cat([ids, last], dim=1)
        return ids


def hf_outline(folder: Path) -> Any:
    """The transformers model of a folder's config, with shapes but without memory for its parameters."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

    config = AutoConfig.from_pretrained(str(folder))
    auto: Any = AutoModelForMaskedLM if config.model_type == "modernbert" else AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config)
    for name, part in list(model.named_modules()):
        if any(buffer.is_meta for buffer in part._buffers.values() if buffer is not None):  # angles of the rotary embedding
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, type(part)(config))
    return model


def statistics(folder: Path) -> dict[str, tuple[float, float]]:
    """Standard deviation and largest absolute value of every tensor of a folder; a value that is not finite gives NaN."""
    reader = SafetensorsReader(folder)
    found = {}
    for name in reader.shapes:
        total, squares, largest, count = 0.0, 0.0, 0.0, 0
        for piece in reader.tensor(name).flatten().split(BLOCK_BYTES // 4):
            piece = piece.float()
            low, high = (float(value) for value in piece.aminmax())
            total, squares, count = total + float(piece.sum()), squares + float(piece.square().sum()), count + piece.numel()
            largest = max(largest, abs(low), abs(high)) if math.isfinite(low) and math.isfinite(high) else math.nan
            if math.isnan(largest):
                break
        variance = squares / max(count, 1) - (total / max(count, 1)) ** 2
        found[name] = (math.sqrt(max(variance, 0.0)), largest)
    return found


def check_statistics(folder: Path) -> dict[str, tuple[float, float]]:
    """`statistics`, or a `UserError` that names a tensor with NaN or infinity, or a matrix that is all zero."""
    shapes = SafetensorsReader(folder).shapes
    found = statistics(folder)
    for name, (_, largest) in found.items():
        if math.isnan(largest):
            raise UserError(f"the weights are damaged: {name} has values that are not finite (NaN or infinity)")
        if largest == 0.0 and len(shapes[name]) > 1:
            raise UserError(f"the weights are damaged: {name} is all zero")
    return found


@torch.no_grad()
def verify_folder(
    checkpoint: Path,
    folder: Path,
    model: ModelConfig,
    chunks: dict[str, list[Chunk]],
    dtype: torch.dtype,
    progress: tuple[int, int] = (0, 0),
) -> Verification:
    """Compare a checkpoint, rounded to `dtype`, with a Hugging Face folder. Inside `single_process`.

    `chunks`: `torch_dist.parameter_chunks` without vocabulary padding. `progress`: step and tokens, for the record. Raises
    `UserError` for weights that are no numbers or all zero.
    """
    from transformers import AutoTokenizer

    found = check_statistics(folder)
    pair = Pair(checkpoint, folder, model, chunks, dtype)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    total = Comparison()
    long = min(model.max_sequence_length, LONG_ENCODER if pair.encoder else LONG_DECODER)
    for batch in verification_batches(tokenizer, long):
        ids, mask = batch["input_ids"], batch["attention_mask"]
        spread = torch.linspace(0, min(model.max_sequence_length, FARTHEST) - 1, ids.size(1)).long()
        pair.run(ids, mask, spread[None].expand_as(ids) if ids.shape == (1, long) else None)
        total.add(pair.ours, pair.theirs, mask.bool().to(pair.device))
    continuation = None
    if not pair.encoder:
        prompt = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"][:, : model.max_sequence_length // 2]
        count = min(CONTINUATION, model.max_sequence_length - prompt.size(1))
        ids = pair.generate(prompt, count)
        # Megatron generates the same tokens exactly when each is its top-1 after those before it: one pass shows it
        pair.run(ids[:, :-1], torch.ones_like(ids[:, :-1]))
        total.add(pair.ours, pair.theirs, torch.ones_like(ids[:, :-1], dtype=torch.bool))
        continuation = str(tokenizer.decode(ids[0, prompt.size(1) :]))
    limit = TOLERANCE * max(1.0, total.largest_logit)
    agreement = total.agreed / total.tokens_compared
    tied = pair.tied == (isinstance(model, EncoderConfig) or model.tie_embeddings)
    matrices = {name: found[name][0] for name, shape in pair.folder.reader.shapes.items() if len(shape) > 1}
    flattest = min(matrices, key=lambda name: matrices[name])
    return Verification(
        passed=total.max_logit_difference <= limit and agreement == 1.0 and tied,
        max_logit_difference=total.max_logit_difference,
        largest_logit=total.largest_logit,
        tolerance=limit,
        top1_agreement=agreement,
        tokens_compared=total.tokens_compared,
        sequences_compared=total.sequences_compared,
        longest_sequence=total.longest_sequence,
        tied=pair.tied,
        embedding_std=found[pair.embedding][0],
        checkpoint_step=progress[0],
        checkpoint_tokens=progress[1],
        versions={name: version(name) for name in ("mecellem", "torch", "transformers", "megatron-core")},
        continuation=continuation,
        tensors=len(found),
        smallest_std=matrices[flattest],
        smallest_std_of=flattest,
    )


def require_passed(result: Verification, folder: Path) -> None:
    """Raise `UserError` with the figures when a verification failed."""
    if not result.passed:
        raise UserError(
            f"{folder} was not written: the converted model differs from the Megatron model (largest logit difference "
            f"{result.max_logit_difference:.2e}, allowed {result.tolerance:.2e}; top-1 agreement {result.top1_agreement:.4f}; "
            f"head {'tied' if result.tied else 'NOT tied'}; embedding std {result.embedding_std:.2e}): versions "
            f"{result.versions}; report this with the checkpoint's mecellem.json"
        )
