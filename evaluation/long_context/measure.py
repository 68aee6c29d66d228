"""Models on long documents: checked first, each length measured once and cached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.cache import Cache
from evaluation.encoders import Bm25, Encoder, EncoderSettings, SystemSource, find_sources, open_source
from evaluation.fill_mask.models import MaskedModel, check_model, load_model, open_tokenizer
from evaluation.long_context import masking, needle, position
from evaluation.long_context.masking import TokenScores
from evaluation.long_context.needles import Needle, choose_needles, read_needles
from evaluation.long_context.results import LongContextResults, ModelCurves, NeedleCell, NeedleLength, PositionCurve, Skipped
from evaluation.long_context.settings import LongContextSettings
from evaluation.long_context.windows import Library, Window
from evaluation.machine import hardware_line, versions
from evaluation.perplexity.documents import read_texts, text_files
from evaluation.perplexity.settings import PerplexitySettings
from evaluation.results import write_record
from mecellem.console import console
from mecellem.content import source_sha256
from mecellem.errors import UserError
from mecellem.tokenizer_files import read_json
from post_training.model_folder import pick_device
from preprocessing.corpus.document import Document

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CODE = ("evaluation/long_context", "evaluation/fill_mask", "evaluation/encoders")
LEAST = 2  # windows of a length: fewer tell nothing of how they vary
NO_TEXT = "the texts have too few documents of this length"


@dataclass(frozen=True, slots=True)
class Work:
    """What all models of a call share."""

    documents: Sequence[Document]
    sha256: str
    needles: Sequence[Needle]
    settings: LongContextSettings
    encoder: EncoderSettings
    device: str
    store: Cache

    def key(self, source: SystemSource, length: int, **parts: Any) -> dict[str, Any]:
        """What the figures of one length depend on besides `parts`."""
        shared = {name: getattr(self.settings, name) for name in ("lengths", "seed", "documents")}
        return {
            **shared,
            **parts,
            "model": source.sha256,
            "texts": self.sha256,
            "length": length,
            "device": self.device.split(":")[0],
            "versions": versions(),
            "code": source_sha256(*CODE),
        }


def measure_models(
    specs: Sequence[str],
    texts: Sequence[Path],
    out: Path,
    cache: Path,
    settings: LongContextSettings,
    *,
    encoder: EncoderSettings = EncoderSettings(),  # noqa: B008 (frozen)
    needles: Sequence[Path] = (),
    device: str = "auto",
) -> LongContextResults:
    """Measure every model and write `out` (JSON). Raises `UserError` for bad input, and where no model has any length."""
    if not specs:
        raise UserError("no model was given: name one or more")
    facts = read_needles(needles)
    found = read_texts(texts, PerplexitySettings(domain_field=settings.domain_field))
    documents = [Document(text.key, text.domain, "", "", text.text) for text in found.texts]
    work = Work(documents, found.sha256, facts, settings, encoder, pick_device(device), Cache(cache))
    sources = find_sources(specs, cache)
    roles = [role_of(source, settings) for source in sources]
    if "encoder" in roles:
        choose_needles(facts, settings.candidates, settings.rounds, settings.seed)
    models = []
    for number, (source, role) in enumerate(zip(sources, roles, strict=True), start=1):
        console().print(f"model {number} of {len(sources)}: {source.name}, as {role}", markup=False)
        models.append(measure_encoder(work, source) if role == "encoder" else measure_masked_lm(work, source))
    if not any(model.needle or model.masking for model in models):
        reasons = "; ".join(f"{model.name}: {item.length:,} tokens {item.reason}" for model in models for item in model.skipped)
        raise UserError(
            f"--lengths and --texts: nothing can be measured ({reasons}): lower the lengths or give longer documents"
        )
    results = LongContextResults(
        files=[str(path) for path in text_files(texts)],
        sha256=found.sha256,
        documents=len(documents),
        models=models,
        settings=asdict(settings) | {"encoder": asdict(encoder)},
        versions=versions(),
        hardware=hardware_line(work.device),
    )
    write_record(out, results)
    return results


def role_of(source: SystemSource, settings: LongContextSettings) -> str:
    """How a model is measured. Raises `UserError` for one that cannot be measured so."""
    if source.kind == "bm25":
        raise UserError("bm25 has no context length: give models")
    masked = source.kind == "hugging-face" and is_masked_lm(source)
    if settings.role == "masked-lm" or (settings.role == "auto" and masked):
        if source.kind != "hugging-face":
            raise UserError(f"--role masked-lm: {source.spec} is no folder of a masked language model")
        masked_model(source)
        return "masked-lm"
    return "encoder"


def is_masked_lm(source: SystemSource) -> bool:
    """Whether a Hugging Face folder has a head that fills masks."""
    assert source.folder is not None
    names = read_json(source.folder / "config.json").get("architectures") or [""]
    return str(names[0]).endswith("ForMaskedLM")


def masked_model(source: SystemSource) -> MaskedModel:
    """The checked folder, of a Megatron checkpoint its export."""
    assert source.folder is not None
    return check_model(source.folder)


def fitting(context: int | None, settings: LongContextSettings) -> tuple[list[int], list[Skipped]]:
    """The lengths that a model sees whole, and those that it does not."""
    reason = f"beyond the model's context of {context or 0:,} tokens"
    able = [length for length in settings.lengths if context is None or length <= context]
    return able, [Skipped(length=length, reason=reason) for length in settings.lengths if length not in able]


@dataclass(frozen=True, slots=True)
class Room:
    """What the texts have for one encoder: by length at least two windows, with `reserve` tokens left free in each."""

    windows: dict[int, list[Window]]
    reserve: int


def find_room(work: Work, encoder: Encoder, lengths: Sequence[int]) -> Room:
    """Windows of every length; lengths that the texts have too few of are left out."""
    settings = work.settings
    library = Library(work.documents, lambda texts: encoder.lengths(texts, "document"), settings.seed)
    most = max(settings.candidates, settings.documents)
    reserve = max(encoder.lengths([needle.fact for needle in work.needles], "document")) - library.overhead
    found = {length: library.windows(length, most, reserve) for length in lengths}
    return Room({length: windows for length, windows in found.items() if len(windows) >= LEAST}, reserve)


def measure_encoder(work: Work, source: SystemSource) -> ModelCurves:
    """Needles and places. Lengths that are cached are not measured again."""
    settings = work.settings
    encoder = open_source(source, device=work.device, settings=work.encoder)
    assert not isinstance(encoder, Bm25), source
    context = encoder.facts.max_seq_length
    lengths, skipped = fitting(context, settings)
    room = find_room(work, encoder, lengths)
    skipped += [Skipped(length=length, reason=NO_TEXT) for length in lengths if length not in room.windows]
    count = min([settings.candidates, *map(len, room.windows.values())])  # the same chance at every length
    rounds = choose_needles(work.needles, count, settings.rounds, settings.seed)
    cells: list[NeedleCell] = []
    curves: list[PositionCurve] = []
    seconds = 0.0
    own = {name: value for name, value in asdict(work.encoder).items() if name != "batch_tokens"}
    shared = {"encoder": own, "reserve": room.reserve}
    for length, windows in room.windows.items():
        asked = {"depths": settings.depths, "needles": [list(map(repr, part)) for part in rounds]}
        parts = (encoder, windows[:count], rounds, length, settings.depths, settings.seed)
        key = work.key(source, length, **asked, **shared)
        found = work.store.record("needle", key, NeedleLength, partial(needle.measure_length, *parts))
        cells += found.cells
        seconds += found.seconds
        divisible = [window for window in windows if len(window.units) >= settings.pieces][: settings.documents]
        if len(divisible) < LEAST:
            skipped.append(Skipped(length=length, reason=f"by place: too short for {settings.pieces} pieces"))
            continue
        cut = (encoder, divisible, length, settings.pieces, settings.seed)
        key = work.key(source, length, pieces=settings.pieces, **shared)
        curves.append(work.store.record("places", key, PositionCurve, partial(position.measure_length, *cut)))
        seconds += curves[-1].seconds
    return ModelCurves(
        name=source.name,
        spec=source.spec,
        role="encoder",
        sha256=source.sha256,
        context=context,
        reads=encoder.facts.sentence(),
        needle=cells,
        positions=curves,
        masking=[],
        skipped=sorted(skipped, key=lambda item: item.length),
        seconds=seconds,
    )


def find_stretches(
    work: Work, tokenizer: PreTrainedTokenizerBase, lengths: Sequence[int]
) -> tuple[list[masking.Stretch], list[int]]:
    """The texts for the longest length that there are two windows of, and the lengths up to it."""
    usable, settings = list(lengths), work.settings
    while usable:
        room = usable[-1] - masking.frame_of(tokenizer).size
        found = masking.choose_stretches(
            tokenizer, work.documents, usable[-1], settings.documents, settings.mask_probability, settings.seed
        )
        if sum(len(stretch.content) for stretch in found) >= LEAST * room:
            return found, usable
        usable.pop()
    return [], []


def measure_masked_lm(work: Work, source: SystemSource) -> ModelCurves:
    """Hidden tokens by place. Lengths that are cached are not measured again."""
    settings, checked = work.settings, masked_model(source)
    tokenizer = open_tokenizer(checked)
    frame = masking.frame_of(tokenizer)
    lengths, skipped = fitting(checked.positions, settings)
    stretches, usable = find_stretches(work, tokenizer, lengths)
    skipped += [Skipped(length=length, reason=NO_TEXT) for length in lengths if length not in usable]
    load = once(lambda: load_model(checked, work.store, work.device))

    def score(length: int) -> TokenScores:
        return masking.score_length(load(), frame, stretches, length, settings.mask_batch_tokens)

    scores = {}
    for length in usable:
        key = work.key(source, length, longest=usable[-1], probability=settings.mask_probability)
        scores[length] = work.store.record("masks", key, TokenScores, partial(score, length))
    return ModelCurves(
        name=source.name,
        spec=source.spec,
        role="masked-lm",
        sha256=source.sha256,
        context=checked.positions,
        reads=f"{checked.positions:,} tokens, {settings.mask_probability:.0%} of them hidden",
        needle=[],
        positions=[],
        masking=[
            masking.curve(scores[length], scores[usable[0]] if number else None, length, settings.seed)
            for number, length in enumerate(usable)
        ],
        skipped=sorted(skipped, key=lambda item: item.length),
        seconds=sum(found.seconds for found in scores.values()),
    )
