"""Texts to vectors as a teacher has them: in batches of alike length, filled by tokens, each vector looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from mecellem.errors import UserError
from mecellem.token_batches import token_batches
from post_training.model_folder import quiet_transformers

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

Target = Literal["final", "pre_dense"]
CHUNK = 1024  # texts that are tokenized at a time to learn their lengths
QUOTED = 60  # letters of a text that a message shows


def up_to_target(model: SentenceTransformer, target: Target) -> SentenceTransformer:
    """The part of `model` whose output is the target, of the very same modules.

    final: all of it. pre_dense: what comes before the first Dense, or where there is none before a closing Normalize.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize

    if target == "final":
        return model
    modules = list(model)
    dense = [number for number, module in enumerate(modules) if isinstance(module, Dense)]
    end = dense[0] if dense else len(modules) - isinstance(modules[-1], Normalize)
    return SentenceTransformer(modules=modules[:end], prompts=own_prompts(model), device=str(model.device))


def own_prompts(model: SentenceTransformer) -> dict[str, str]:
    """The model's prompts by name."""
    return {name: prompt or "" for name, prompt in model.prompts.items()}


def resolve_prompt(model: SentenceTransformer, prompt: str | None) -> str:
    """What stands before every text: the prompt of that name, else the words themselves; None: the model's default."""
    own = own_prompts(model)
    if prompt is None:
        return own.get(model.default_prompt_name or "", "")
    return own.get(prompt, prompt)


def count_tokens(
    model: SentenceTransformer, texts: Sequence[str], prompt: str, progress: Callable[[int], None] = lambda _: None
) -> NDArray[np.int32]:
    """[texts]: tokens with prompt and special tokens, uncut."""
    import numpy as np

    tokenizer: Any = model.tokenizer
    lengths = np.empty(len(texts), dtype=np.int32)
    with quiet_transformers():  # texts longer than the model takes are meant
        for start in range(0, len(texts), CHUNK):
            part = [prompt + text for text in texts[start : start + CHUNK]]
            ids = tokenizer(
                part, truncation=False, padding=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
            )["input_ids"]
            lengths[start : start + len(part)] = [len(row) for row in ids]
            progress(len(part))
    return lengths


def encode(
    model: SentenceTransformer,
    texts: Sequence[str],
    lengths: NDArray[np.int32],
    prompt: str,
    batch_tokens: int,
    progress: Callable[[int], None] = lambda _: None,
) -> torch.Tensor:
    """[texts, width], fp32 on the CPU, in the order of `texts`. `lengths`: tokens of each, as the model cuts them."""
    import torch

    vectors: torch.Tensor | None = None
    for rows in token_batches(lengths.tolist(), batch_tokens):
        found = model.encode(
            [texts[row] for row in rows],
            prompt=prompt,
            batch_size=len(rows),
            show_progress_bar=False,
            convert_to_tensor=True,
        ).float()
        if vectors is None:
            vectors = torch.empty(len(texts), found.shape[1])
        vectors[rows] = found.cpu()
        progress(len(rows))
    assert vectors is not None
    return vectors


def not_finite(vectors: torch.Tensor) -> list[int]:
    """Rows with NaN or infinity."""
    import torch

    return torch.nonzero(~torch.isfinite(vectors).all(dim=1)).flatten().tolist()


def quote(text: str) -> str:
    """The beginning of a text for a message."""
    return repr(text[:QUOTED])


def check_target(model: SentenceTransformer, target: Target, name: object) -> None:
    """Raise `UserError` where a teacher has nothing that `pre_dense` could mean."""
    from sentence_transformers.base.modules import Dense

    if target == "pre_dense" and not any(isinstance(module, Dense) for module in model):
        raise UserError(f"--target pre_dense: {name} has no Dense module, so leave the flag out")
