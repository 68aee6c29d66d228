"""What a teacher makes of the texts of a vocabulary's entries: one vector each, of all its layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from conversion.clone.alignment import Alignment
from conversion.clone.vocabulary import TokenizerFolder

BATCH_TOKENS = 4096


def ends(tokenizer: TokenizerFolder) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer puts before a text and behind it."""
    found = tokenizer.tokenizer.encode("a")
    ordinary = [place for place, special in enumerate(found.special_tokens_mask) if not special]
    if not ordinary:
        return [], []
    return found.ids[: ordinary[0]], found.ids[ordinary[-1] + 1 :]


@torch.inference_mode()
def entry_vectors(folder: Path, tokenizer: TokenizerFolder, alignment: Alignment) -> torch.Tensor:
    """Mean of the last layer over an entry's pieces and the tokens around them, fp32 `[n, d]`; zeros where it has no pieces.

    Entries with as many pieces go through the model together, so nothing is padded.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(str(folder), local_files_only=True, dtype=torch.float32).eval()
    if bars:
        logging.enable_progress_bar()
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    before, behind = (torch.tensor(ids, dtype=torch.long) for ids in ends(tokenizer))
    result = torch.zeros(len(alignment.kinds), model.config.get_text_config().hidden_size)
    for length in np.unique(alignment.lengths[alignment.lengths > 0]):
        entries = torch.from_numpy(np.flatnonzero(alignment.lengths == length))
        for some in entries.split(max(1, BATCH_TOKENS // (int(length) + len(before) + len(behind)))):
            places = alignment.offsets[some.numpy()][:, None] + np.arange(length)
            ids = torch.from_numpy(alignment.pieces[places])
            ids = torch.cat([before.expand(len(some), -1), ids, behind.expand(len(some), -1)], dim=1)
            hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            result[some] = hidden.mean(dim=1)
    return result
