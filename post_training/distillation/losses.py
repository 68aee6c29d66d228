"""How far a student's vectors are from the teacher's.

sentence-transformers' own EmbedDistillLoss casts targets to the student's numbers, which under bf16 autocast are of 8 bits,
and knows no relations between texts; so this is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from post_training.distillation.settings import LossName

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class DistillationLoss(nn.Module):
    """`model` gives the target; `ranks` that train together. All is computed in fp32."""

    def __init__(self, model: SentenceTransformer, kind: LossName, ranks: int) -> None:
        super().__init__()
        self.model = model  # under this name the trainer puts its wrapped one in
        self.kind = kind
        self.ranks = ranks

    def forward(self, features: list[dict[str, Any]], labels: torch.Tensor) -> torch.Tensor:
        """The mean over the batch. `features`: those of the one column; `labels` [texts, width]: the teacher's, fp32."""
        student = self.model(features[0])["sentence_embedding"]
        with torch.autocast(student.device.type, enabled=False):
            student = student.float()
            if self.kind == "mse":
                return F.mse_loss(student, labels)
            if self.kind == "cosine":
                return (1 - F.cosine_similarity(student, labels, dim=-1)).mean()
            return relational(F.normalize(student, dim=-1), F.normalize(labels, dim=-1), self.ranks)


def relational(student: torch.Tensor, teacher: torch.Tensor, ranks: int) -> torch.Tensor:
    """Mean squared difference of cosines between this rank's texts and all ranks' other ones. Both [texts, width], unit.

    The mean over ranks, which is what DDP makes of gradients, is the mean over all pairs of the whole batch.
    """
    from sentence_transformers.util.distributed import all_gather, all_gather_with_grad

    all_student = all_gather_with_grad(student) if ranks > 1 else student
    all_teacher = all_gather(teacher) if ranks > 1 else teacher
    own = torch.arange(len(student), device=student.device)
    first = torch.distributed.get_rank() * len(student) if ranks > 1 else 0
    differences = student @ all_student.T - teacher @ all_teacher.T
    others = torch.ones_like(differences)
    others[own, own + first] = 0
    return (differences.square() * others).sum() / others.sum()
