"""The loss that the settings name, of sentence-transformers' own, over all ranks' pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from post_training.contrastive.settings import GUIDED, MINI_BATCH, ContrastiveSettings, check_widths

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn


def make_loss(
    model: SentenceTransformer, guide: SentenceTransformer | None, settings: ContrastiveSettings, ranks: int
) -> nn.Module:
    """The loss. `guide`: of a guided loss, never trained. Vectors are gathered from all ranks, with their gradients.

    Raises `UserError` where the widths of Matryoshka do not fit the model.
    """
    from sentence_transformers.sentence_transformer import losses

    width = model.get_embedding_dimension()
    assert width is not None
    check_widths(settings.matryoshka_dims, width)
    assert (settings.loss in GUIDED) == (guide is not None)
    gather, mini_batch = ranks > 1, settings.mini_batch_size or MINI_BATCH
    scale = 1 / settings.temperature
    loss: nn.Module
    if settings.loss == "mnrl":
        loss = losses.MultipleNegativesRankingLoss(model, scale=scale, gather_across_devices=gather)
    elif settings.loss == "cached-mnrl":
        loss = losses.CachedMultipleNegativesRankingLoss(
            model, scale=scale, mini_batch_size=mini_batch, gather_across_devices=gather
        )
    else:
        assert guide is not None
        guide.eval().requires_grad_(False)
        if settings.loss == "gist":
            loss = losses.GISTEmbedLoss(
                model,
                guide,
                temperature=settings.temperature,
                gather_across_devices=gather,
                margin_strategy=settings.guide_margin_strategy,
                margin=settings.guide_margin,
            )
        else:
            loss = losses.CachedGISTEmbedLoss(
                model,
                guide,
                temperature=settings.temperature,
                mini_batch_size=mini_batch,
                gather_across_devices=gather,
                margin_strategy=settings.guide_margin_strategy,
                margin=settings.guide_margin,
            )
    if settings.matryoshka_dims:
        loss = losses.MatryoshkaLoss(model, loss, list(settings.matryoshka_dims))
    return loss
