"""The model that is trained: opened, checked against the vectors, given a projection where asked for, frozen in part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecellem.errors import UserError
from post_training.distillation.encode import own_prompts, resolve_prompt, up_to_target
from post_training.distillation.settings import DistillationSettings
from post_training.model_folder import PoolingName
from post_training.start import StartingPoint, open_start

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from post_training.distillation.store import VectorStore


@dataclass(frozen=True, slots=True)
class Student:
    """`whole` is what is saved, `part` what gives the target: the same modules up to there. `saved_length` in tokens."""

    whole: SentenceTransformer
    part: SentenceTransformer
    prompt: str
    length: int
    saved_length: int
    width: int


def open_student(
    start: StartingPoint, store: VectorStore, settings: DistillationSettings, pooling: PoolingName | None, device: str
) -> Student:
    """Load and prepare it. Raises `UserError` where it has no pooling, or does not fit vectors or settings."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling

    from post_training.contrastive.model import learned_positions, own_length

    if start.kind == "hugging_face" and pooling is None:
        raise UserError(f"{start.source} names no pooling (--student): give --pooling mean, cls or lasttoken")
    whole = open_start(start, pooling, device)
    if not any(isinstance(module, Pooling) for module in whole):
        raise UserError(f"{start.source} has no pooling module, so no vector a text (--student): save it with one")
    own = own_length(whole)
    if settings.max_length is not None and not 3 <= settings.max_length <= own:
        raise UserError(f"--max-length {settings.max_length} must be between 3 and {own}, the tokens that the student takes")
    saved, learned = settings.saved_length or whole.max_seq_length, learned_positions(whole)
    assert saved is not None
    if settings.saved_length is not None and learned is not None and settings.saved_length > learned:
        raise UserError(f"--saved-length {settings.saved_length} is above the {learned} positions that the student has learned")
    whole.max_seq_length = length = settings.max_length or min(own, int(store.manifest["max_length"]))
    torch.manual_seed(settings.seed)
    part = up_to_target(whole, store.manifest["target"])
    width = part.get_embedding_dimension()
    assert width is not None
    if width != store.width and settings.loss != "relational":
        if not settings.project or part is not whole:
            remedy = "add --project, choose --loss relational" if part is whole else "choose --loss relational"
            raise UserError(
                f"{start.source} gives {width} numbers and the vectors of {store.folder} have {store.width}: {remedy}, or "
                "take another student"
            )
        whole = part = with_projection(whole, width, store.width)
        width = store.width
    elif settings.project:
        raise UserError(f"--project: {start.source} gives {width} numbers as the teacher does: leave the flag out")
    freeze(whole, part, settings)
    if settings.dropout is not None:
        set_dropout(whole, settings.dropout)
    prompt = store.manifest["prompt"] if settings.prompt is None else resolve_prompt(whole, settings.prompt)
    return Student(whole, part, prompt, length, int(saved), width)


def with_projection(model: SentenceTransformer, width: int, wanted: int) -> SentenceTransformer:
    """The same modules with a linear Dense before a closing Normalize, or at the end."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize

    modules = list(model)
    dense: Any = Dense(width, wanted, bias=False, activation_function=torch.nn.Identity())
    modules.insert(len(modules) - isinstance(modules[-1], Normalize), dense)
    device = str(model.device)
    return SentenceTransformer(
        modules=modules,
        prompts=own_prompts(model),
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
        device=device,
    )


def set_dropout(model: SentenceTransformer, share: float) -> None:
    """Let every module drop this share; attention keeps it as a plain number. The config stays as it is."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, share)


def freeze(whole: SentenceTransformer, part: SentenceTransformer, settings: DistillationSettings) -> None:
    """Let only what `settings.train` names learn. Raises `UserError` for Dense modules that the target does not reach."""
    from sentence_transformers.base.modules import Dense

    if settings.train == "all":
        return
    whole.requires_grad_(False)
    embeddings(whole).requires_grad_(True)
    if settings.train == "embeddings+dense":
        dense = [module for module in part if isinstance(module, Dense)]
        if not dense:
            raise UserError("--train embeddings+dense: no Dense module comes before the target: choose --train embeddings")
        for module in dense:
            module.requires_grad_(True)


def embeddings(model: SentenceTransformer) -> Any:
    """The matrix of token embeddings."""
    backbone: Any = model.transformers_model
    return backbone.get_input_embeddings().weight


def save_student(student: Student, folder: Path) -> None:
    """Write all modules as a sentence-transformers folder that takes `saved_length` tokens."""
    student.whole.max_seq_length = student.saved_length
    backbone: Any = student.whole.transformers_model
    config = backbone.config.get_text_config()
    if getattr(config, "max_position_embeddings", student.saved_length) < student.saved_length:
        config.max_position_embeddings = student.saved_length  # nothing but a name for it where positions are computed
    student.whole.save(str(folder), create_model_card=False)
