"""The gate of every conversion: the folder that was written, loaded by plain transformers, against the Megatron model.

Compared in fp32 on real text: short and long, padded and unpadded, and masked. A folder that differs does not get its name.
"""

from __future__ import annotations

import dataclasses
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mecellem.errors import UserError

TOLERANCE = 1e-5  # of the largest logit (at least 1): fp32 rounding of two orders of summation

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
    tied: bool
    embedding_std: float
    checkpoint_step: int
    checkpoint_tokens: int
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def verification_batches(tokenizer: Any, max_length: int, texts: tuple[str, ...] = TEXTS) -> list[dict[str, torch.Tensor]]:
    """Padded, unpadded, long and masked inputs from real text; `input_ids` and `attention_mask` `[b, s]`."""
    padded = tokenizer(list(texts), padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    alone = [tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt") for text in texts[:2]]
    repeat = -(-max_length // max(1, padded["attention_mask"].sum().item()))
    long = tokenizer(" ".join(texts * int(repeat + 1)), truncation=True, max_length=max_length, return_tensors="pt")
    masked = {name: value.clone() for name, value in padded.items()}
    places = torch.arange(masked["input_ids"].numel()).view_as(masked["input_ids"]) % 7 == 3
    places &= masked["attention_mask"].bool()
    masked["input_ids"][places] = tokenizer.mask_token_id
    return [
        {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]} for batch in (padded, *alone, long, masked)
    ]


@torch.no_grad()
def compare(megatron: torch.nn.Module, hf: torch.nn.Module, batches: list[dict[str, torch.Tensor]], vocab: int) -> dict:
    """Largest logit difference and top-1 agreement over real tokens of all batches. Both models in fp32, eval mode.

    A disagreement in the top-1 counts unless the two best logits are closer than the allowed difference (a tie).
    """
    worst, largest, agreed, tokens, sequences, longest = 0.0, 0.0, 0, 0, 0, 0
    device = next(megatron.parameters()).device
    hf = hf.to(device)
    for batch in batches:
        batch = {name: value.to(device) for name, value in batch.items()}
        keep = batch["attention_mask"].bool()
        ours = megatron(batch["input_ids"], attention_mask=batch["attention_mask"])[..., :vocab][keep]
        theirs = hf(**batch).logits[keep]
        difference = (ours - theirs).abs().max()
        worst = max(worst, float(difference.nan_to_num(float("inf"))))
        largest = max(largest, float(theirs.abs().max()))
        best = ours.topk(2, dim=-1).values
        tie = best[:, 0] - best[:, 1] <= 2 * TOLERANCE * max(1.0, float(theirs.abs().max()))
        agreed += int(((ours.argmax(-1) == theirs.argmax(-1)) | tie).sum())
        tokens += int(keep.sum())
        sequences += len(keep)
        longest = max(longest, keep.size(1))
    return {
        "max_logit_difference": worst,
        "largest_logit": largest,
        "top1_agreement": agreed / tokens,
        "tokens_compared": tokens,
        "sequences_compared": sequences,
        "longest_sequence": longest,
    }


def verify_folder(megatron: torch.nn.Module, folder: Path, step: int, tokens: int) -> Verification:
    """Load `folder` with plain transformers and compare it with a whole Megatron model (which becomes fp32 here)."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    hf = AutoModelForMaskedLM.from_pretrained(str(folder), dtype=torch.float32).eval()
    megatron = megatron.float().eval()
    vocab = hf.config.vocab_size
    batches = verification_batches(tokenizer, min(hf.config.max_position_embeddings, 1024))
    figures = compare(megatron, hf, batches, vocab)
    embedding = hf.get_input_embeddings().weight
    tied = embedding.data_ptr() == hf.get_output_embeddings().weight.data_ptr()
    std = float(embedding.detach().std())
    limit = TOLERANCE * max(1.0, figures["largest_logit"])
    passed = figures["max_logit_difference"] <= limit and figures["top1_agreement"] == 1.0 and tied and std > 0.0
    return Verification(
        passed=passed,
        tolerance=limit,
        tied=tied,
        embedding_std=std,
        checkpoint_step=step,
        checkpoint_tokens=tokens,
        versions={name: version(name) for name in ("mecellem", "torch", "transformers", "megatron-core")},
        **figures,
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
