"""Transformers with a pooling, through sentence-transformers: plain Hugging Face folders and its own."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.encoders.base import BatchedEncoder, EncoderFacts, Role
from evaluation.encoders.settings import EncoderSettings
from evaluation.encoders.source import POOLING, SystemSource, check_vocabulary
from mecellem.errors import UserError
from mecellem.token_batches import tokens_a_batch
from post_training.model_folder import check_whole, pick_device, quiet_transformers

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# These number positions from the padding token's id + 1 on, so that many rows of their position embedding are no use.
OFFSET_FAMILIES = ("roberta", "camembert", "mpnet", "longformer", "xmod", "data2vec-text")
ROLE_LENGTHS = ("query_length", "document_length")
UNLIMITED = 1_000_000  # a tokenizer that knows no limit names a number far above this
CHUNK = 1024  # texts that are tokenized at a time to learn their lengths


class TransformerEncoder(BatchedEncoder):
    """A sentence-transformers model."""

    def __init__(self, source: SystemSource, settings: EncoderSettings, device: str) -> None:
        """Load it. Raises `UserError` for a folder that cannot be loaded, and for settings that do not fit the model."""
        assert source.folder is not None
        device = pick_device(device)
        self.model, assumed = load(source, settings, device)
        self.symmetric = is_symmetric(self.model)
        limit = set_limit(self.model, settings, source.spec)
        super().__init__(facts_of(self.model, source, settings, limit, assumed), settings, tokens_a_batch(device))

    def lengths(self, texts: Sequence[str], role: Role) -> list[int]:
        """As `BatchedEncoder.lengths`."""
        prompt = self.facts.prompt(role)
        tokenizer: Any = self.model.tokenizer
        found: list[int] = []
        for start in range(0, len(texts), CHUNK):
            part = [prompt + text for text in texts[start : start + CHUNK]]
            found += token_counts(tokenizer, part)
        return found

    def treatment(self, role: Role) -> str:
        """As `BatchedEncoder.treatment`: a model without parts or lengths of single roles tells them apart by their prompts."""
        return f"prompt {self.facts.prompt(role)}" if self.symmetric else role

    def vectors(self, texts: list[str], role: Role) -> NDArray[np.floating]:
        """As `BatchedEncoder.vectors`."""
        keywords: dict[str, Any] = {} if role == "text" else {"task": role}  # asymmetric models choose a part by it
        found: NDArray[np.floating] = self.model.encode(
            texts, prompt=self.facts.prompt(role), batch_size=len(texts), show_progress_bar=False, **keywords
        )
        return found


def token_counts(tokenizer: Any, texts: list[str]) -> list[int]:
    """Tokens of each text with special tokens, uncut; words where the model has a tokenizer of words."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

    if isinstance(tokenizer, PreTrainedTokenizerBase):
        ids = tokenizer(
            texts, truncation=False, padding=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )
        return [len(row) for row in ids["input_ids"]]
    if isinstance(tokenizer, Tokenizer):
        return [len(encoding.ids) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    return [len(text.split()) for text in texts]


def load(source: SystemSource, settings: EncoderSettings, device: str) -> tuple[SentenceTransformer, bool]:
    """The model on `device`, and whether its pooling had to be assumed."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import PreTrainedModel

    folder = source.folder
    assert folder is not None
    check_vocabulary(folder)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[settings.dtype]
    try:
        with quiet_transformers(), quiet_sentence_transformers():
            model = SentenceTransformer(
                str(folder), device=device, local_files_only=True, model_kwargs={"dtype": dtype}, backend="torch"
            )
    except Exception as error:  # the libraries that read configs, tokenizers and weights raise all kinds
        cause = " ".join(str(error).split())[:300]
        raise UserError(f"{folder} cannot be loaded ({cause}): copy the model again or save it with save_pretrained") from error
    if isinstance(model[0], Transformer) and isinstance(model[0].auto_model, PreTrainedModel):
        check_whole(model[0].auto_model)
    model.to(dtype).eval()
    places = [number for number, module in enumerate(model) if isinstance(module, Pooling)]
    if settings.pooling != "auto":
        if len(places) != 1:
            raise UserError(f"--pooling {settings.pooling}: {folder} pools no tokens of a transformer; leave the flag out")
        width = model[places[0]].embedding_dimension
        model[places[0]] = Pooling(width, settings.pooling)
        return model, False
    if source.kind == "hugging-face" and places:
        if not (folder / POOLING).is_file():
            return model, True
        model[places[0]] = Pooling.load(str(folder), subfolder=str(POOLING.parent))
    return model, False


@contextmanager
def quiet_sentence_transformers() -> Iterator[None]:
    """Silence the library's advice on folders without modules.json: `EncoderFacts.sentence` tells of the assumption."""
    logger = logging.getLogger("sentence_transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def is_symmetric(model: SentenceTransformer) -> bool:
    """Whether queries, documents and other texts go the same way but for their prompts; False where that is not known."""
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Normalize, Pooling, StaticEmbedding

    first, *rest = model
    if type(first) is Transformer:
        own = (first.query_length, first.document_length, first.query_expansion)
        if first.transformer_task != "feature-extraction" or any(value is not None for value in own):
            return False
    elif type(first) is not StaticEmbedding:
        return False
    return all(type(module) in (Pooling, Normalize, Dense, LayerNorm) for module in rest)


def positions(model: SentenceTransformer) -> int | None:
    """The longest input that the transformer's position embedding allows; None where the config names no limit."""
    config: Any = model.config
    rows = getattr(config, "max_position_embeddings", None)
    if not isinstance(rows, int) or rows < 1:
        return None
    if any(family in config.model_type for family in OFFSET_FAMILIES):
        return rows - (config.pad_token_id or 0) - 1
    return rows


def set_limit(model: SentenceTransformer, settings: EncoderSettings, spec: str) -> int | None:
    """Cut texts at what was asked for, else at what tokenizer and positions allow; tokens, or None without a limit."""
    stated = model.max_seq_length
    limits = [positions(model)]
    if stated is not None and not math.isinf(stated) and stated < UNLIMITED:
        limits.append(int(stated))
    most = min((limit for limit in limits if limit is not None), default=None)
    if settings.max_seq_length is None:
        wanted = most
    else:
        wanted, room = settings.max_seq_length, positions(model)
        if room is not None and wanted > room:
            raise UserError(f"--max-seq-length {wanted} is more than the {room:,} positions of {spec}: lower it")
        if stated is not None and math.isinf(stated):
            raise UserError(f"--max-seq-length {wanted}: {spec} reads texts of any length and cannot be cut; leave it out")
    if wanted is not None:
        model.max_seq_length = wanted
        for name in ROLE_LENGTHS:  # of single roles: sentence-transformers takes them also where they are longer
            if (length := getattr(model[0], name, None)) is not None:
                setattr(model[0], name, min(length, wanted))
    return wanted


def facts_of(
    model: SentenceTransformer, source: SystemSource, settings: EncoderSettings, limit: int | None, assumed: bool
) -> EncoderFacts:
    """What the loaded model says about itself, with the prompts that will be used."""
    from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding

    modes = [module.pooling_mode for module in model if isinstance(module, Pooling)]
    pooling = "+".join(mode if isinstance(mode, str) else "+".join(mode) for mode in modes)
    first: Any = model[0]
    embedding: Any = None
    if isinstance(first, StaticEmbedding):
        embedding, pooling = first.embedding.weight, "mean"
    elif model.transformers_model is not None:
        embedding = model.transformers_model.get_input_embeddings().weight
    dimensions = model.get_embedding_dimension()
    assert dimensions is not None
    query, document, text = prompts_of(model, settings)
    return EncoderFacts(
        name=source.name,
        spec=source.spec,
        kind=source.kind,
        sha256=source.sha256,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        embedding_parameters=None if embedding is None else embedding.numel(),
        dimensions=dimensions,
        max_seq_length=limit,
        query_length=getattr(first, "query_length", None),
        document_length=getattr(first, "document_length", None),
        pooling=pooling or "the model's own",
        pooling_assumed=assumed,
        query_prompt=query,
        document_prompt=document,
        text_prompt=text,
        dtype=settings.dtype,
    )


def prompts_of(model: SentenceTransformer, settings: EncoderSettings) -> tuple[str, str, str]:
    """Prompts for queries, documents and other texts: the settings', else the model's by sentence-transformers' own names.

    A model's default prompt stands in front of all that has none of its own.
    """
    own = {name: prompt for name, prompt in model.prompts.items() if prompt}
    default = own.get(model.default_prompt_name or "", "")
    document = next((own[name] for name in ("document", "passage", "corpus") if name in own), default)
    given = (settings.query_prompt, settings.document_prompt, settings.text_prompt)
    found = [
        value if value is not None else fallback
        for value, fallback in zip(given, (own.get("query", default), document, default), strict=True)
    ]
    return found[0], found[1], found[2]
