"""Judges at work: batches of conversations in, one score an axis out, and the gated sum where the judge has a gate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from evaluation.reward.conversation import Conversation
from evaluation.reward.judge_folder import LOGIT_SCALE, REGRESSION, TRANSFORM, JudgeSource
from mecellem.errors import UserError
from post_training.model_folder import check_whole, quiet_transformers

if TYPE_CHECKING:
    import torch

Array = np.ndarray


class Judge(Protocol):
    """A loaded reward model."""

    def score(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor | None, gates: torch.Tensor) -> torch.Tensor:
        """Scores `[b, columns]` of rows `[b, s]` padded on the right: raw axes, debiased axes, and the overall score.

        `gates` `[b]`: positions of the prompts' ends. A classifier has its axes alone.
        """
        ...

    @property
    def padding(self) -> int | None:
        """The token behind shorter rows of a batch; None where only rows of one length may share one."""
        ...


class ArmoJudge:
    """ArmoRM's layout: axes by a linear layer on the last token, weighed by a gate that reads the prompt's end."""

    padding = 0  # any token: the last one of a row is found by the mask

    def __init__(self, source: JudgeSource, dtype: torch.dtype, device: str) -> None:
        import torch
        from transformers import AutoModel

        from conversion.safetensors_folder import SafetensorsReader

        self.backbone = load_whole(AutoModel, source, dtype).to(device).eval()
        reader = SafetensorsReader(source.folder)

        def head(name: str) -> torch.Tensor:
            return reader.tensor(name).float().to(device)

        count = len(source.axes)
        self.regression = head(REGRESSION)  # [axes, hidden]
        self.transform = head(TRANSFORM) if source.transform else torch.eye(count, device=device)
        names = [f"gating.layers.{number}" for number in source.gate]
        biases = [f"{name}.bias" in reader.shapes for name in names]
        self.gate = [
            (head(f"{name}.weight"), head(f"{name}.bias") if bias else None) for name, bias in zip(names, biases, strict=True)
        ]
        self.scale = head(LOGIT_SCALE).reshape(()) if LOGIT_SCALE in reader.shapes else torch.ones((), device=device)
        self.temperature = source.temperature

    def score(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor | None, gates: torch.Tensor) -> torch.Tensor:
        """As `Judge.score`: `[b, 2 axes]`, and one more with a gate."""
        import torch

        hidden = self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state.float()  # [b, s, h]
        rows = torch.arange(len(ids), device=ids.device)
        raw = hidden[rows, mask.sum(dim=1) - 1] @ self.regression.T
        debiased = raw @ self.transform
        columns = [raw, debiased]
        if self.gate:
            columns.append((self.weights(hidden[rows, gates]) * debiased).sum(dim=1, keepdim=True))
        return torch.cat(columns, dim=1)

    def weights(self, prompts: torch.Tensor) -> torch.Tensor:
        """The gate: `[b, hidden]` -> `[b, axes]`, which sum to the gate's scale."""
        import torch.nn.functional as F

        for number, (weight, bias) in enumerate(self.gate):
            prompts = F.linear(prompts if number == 0 else F.relu(prompts), weight, bias)
        return F.softmax(prompts / self.temperature, dim=-1) * self.scale


class ClassifierJudge:
    """A sequence classifier of transformers, which finds the last token by itself: its logits are the axes."""

    def __init__(self, source: JudgeSource, dtype: torch.dtype, device: str) -> None:
        from transformers import AutoModelForSequenceClassification

        self.model = load_whole(AutoModelForSequenceClassification, source, dtype).to(device).eval()

    @property
    def padding(self) -> int | None:
        """The config's own: by it decoders find the last token; those without one take the last position of every row."""
        found: int | None = self.model.config.get_text_config().pad_token_id
        return found

    def score(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor | None, gates: torch.Tensor) -> torch.Tensor:
        """As `Judge.score`: `[b, axes]`."""
        extra = {} if types is None else {"token_type_ids": types}
        found: torch.Tensor = self.model(input_ids=ids, attention_mask=mask, **extra).logits.float()
        return found


def load_whole(kind: Any, source: JudgeSource, dtype: torch.dtype) -> Any:
    """A model by an Auto class, without code from the folder. Raises `UserError` where the folder lacks weights of it."""
    with quiet_transformers():
        model = kind.from_pretrained(
            source.folder, local_files_only=True, trust_remote_code=False, dtype=dtype, use_safetensors=True
        )
    check_whole(model)
    return model


def open_judge(source: JudgeSource, dtype: str, device: str) -> Judge:
    """The judge on `device`, its backbone in `dtype` ("fp32", "bf16")."""
    import torch

    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    return ArmoJudge(source, kind, device) if source.layout == "armorm" else ClassifierJudge(source, kind, device)


def batches(conversations: Sequence[Conversation], tokens: int, padded: bool) -> Iterator[list[int]]:
    """Positions, longest first, at most `tokens` with padding a batch; without `padded` of one length only."""
    batch: list[int] = []
    for position in sorted(range(len(conversations)), key=lambda number: (-len(conversations[number].ids), number)):
        length = len(conversations[position].ids)
        longest = len(conversations[batch[0]].ids) if batch else length
        if batch and ((len(batch) + 1) * longest > tokens or (not padded and length < longest)):
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def score_conversations(judge: Judge, conversations: Sequence[Conversation], tokens: int, device: str) -> Array:
    """`[conversations, columns]`, fp64, in their order. Raises `UserError` for a score that is not a number."""
    import torch

    found: Array | None = None
    for batch in batches(conversations, tokens, judge.padding is not None):
        rows = [conversations[number] for number in batch]
        longest = len(rows[0].ids)
        ids = torch.full((len(rows), longest), judge.padding or 0)
        mask = torch.zeros_like(ids)
        types = torch.zeros_like(ids) if rows[0].types is not None else None
        for row, conversation in enumerate(rows):
            ids[row, : len(conversation.ids)] = torch.tensor(conversation.ids)
            mask[row, : len(conversation.ids)] = 1
            if types is not None:
                types[row, : len(conversation.ids)] = torch.tensor(conversation.types)
        gates = torch.tensor([conversation.gate for conversation in rows])
        moved = [None if tensor is None else tensor.to(device) for tensor in (ids, mask, types, gates)]
        with torch.inference_mode():
            scores = judge.score(*moved).double().cpu().numpy()  # type: ignore[arg-type]
        if found is None:
            found = np.zeros((len(conversations), scores.shape[1]))
        found[batch] = scores
    assert found is not None, "there are conversations"
    if not np.isfinite(found).all():
        raise UserError("the judge gave a score that is not a number: its weights are damaged, or use --judge-dtype fp32")
    return found
