"""`corpus.yaml`: what is read, what is done with it, and where the result goes."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mecellem.errors import UserError
from mecellem.yaml_file import Place, finding_at, line_of, named, parse_yaml, read_text, refusal
from preprocessing.jsonl import UNKNOWN_LICENCE
from preprocessing.pipeline.layout import OWN_TO_STAGE
from preprocessing.pipeline.registry import STAGES
from preprocessing.sources.text import UTF_8

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]i?B|)", re.IGNORECASE | re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_OCR = re.compile(r"tesseract|none|[\w.]+:\w+")
_OF_STAGES = ("language", "contaminated_by", *OWN_TO_STAGE)  # what stages say of a document


def _bytes(value: Any) -> int:
    """64_000, "256MB" or "1.5GiB" as a number of bytes."""
    match = _SIZE.fullmatch(str(value).strip()) if isinstance(value, (int, str)) and not isinstance(value, bool) else None
    if not match:
        raise ValueError(f"{str(value)[:40]!r} is not a size: write 256MB, 1.5GB or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{value!r} becomes the name of files: take letters from A to Z, digits, _ . and -, such as laws_2024, and begin "
            "with a letter or digit"
        )
    return value


def _ocr(value: str) -> str:
    if not _OCR.fullmatch(value):
        raise ValueError(f"{value!r} is no OCR: give tesseract, none, or a function of your own as package.module:function")
    return value


def _encoding(value: str) -> str:
    """The codec's own name, so that another spelling is no change."""
    try:
        "".encode(value)  # refuses also Python's codecs that are not of text
        return codecs.lookup(value).name
    except (LookupError, ValueError):
        raise ValueError(
            f"{value!r} is no encoding that Python has: write its name, such as windows-1254, iso-8859-9 or utf-16"
        ) from None


Size = Annotated[int, BeforeValidator(_bytes), Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Limits(_Strict):
    """How much may be wrong with the input before the run stops.

    `share` and `count` are of one source's records, `missing_files` is a number of files that vanished or could not be
    opened, `damaged_files` one of places where a compressed or structured file is cut or broken: one such place may be any
    number of records, so a share of them says nothing. A record longer than `record_size` is not read, so that memory
    stays bounded.
    """

    share: float = Field(default=0.01, ge=0, le=1)
    count: int = Field(default=100_000, ge=0)
    missing_files: int = Field(default=0, ge=0)
    damaged_files: int = Field(default=0, ge=0)
    record_size: Size = 32 * 2**20


class TextOptions(_Strict):
    """Plain text: a document a file, or several in a file with blank lines between them; `encoding` is Python's name of it."""

    documents: Literal["file", "blank_line"] = "file"
    encoding: Annotated[str, AfterValidator(_encoding)] = UTF_8


class HubOptions(_Strict):
    """A Hugging Face data set: `path` in the source is its hub id or folder."""

    config: str | None = None
    split: str = "train"
    revision: str | None = None


class PdfOptions(_Strict):
    """PDFs. A page with fewer than `min_characters` of text is taken for a scan and given to `ocr`.

    `ocr` is `tesseract` (the program, with `languages`), `none`, or `module:function`, which is called with a PIL image
    of the page, the page's number from 1 and the file's path, and returns the page's text.
    """

    ocr: Annotated[str, AfterValidator(_ocr)] = "tesseract"
    languages: str = "tur"
    min_characters: int = Field(default=16, ge=0)
    dpi: int = Field(default=300, ge=72, le=1200)


class Source(_Strict):
    """One source: files of one kind, with one licence. Each shard holds documents of one source only."""

    name: Annotated[str, AfterValidator(_name)]
    kind: Literal["jsonl", "parquet", "text", "warc", "hub", "pdf"]
    paths: list[str] = Field(min_length=1)
    text_field: str = "text"
    id_field: str | None = None
    keep_fields: list[str] = []
    licence: str = UNKNOWN_LICENCE
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    limits: Limits | None = None
    text: TextOptions = TextOptions()
    hub: HubOptions = HubOptions()
    pdf: PdfOptions = PdfOptions()

    @model_validator(mode="after")
    def _check(self) -> Source:
        for options in ("text", "hub", "pdf"):
            if options in self.model_fields_set and options != self.kind:
                raise finding_at(options, f"these are options of kind: {options}, this source is of kind: {self.kind}")
        for field in self.keep_fields:
            if field in ("id", "text", "source", "licence", "origin"):
                raise finding_at("keep_fields", f"{field!r} is written for every document: leave it out")
            if field in _OF_STAGES:
                raise finding_at(
                    "keep_fields", f"a stage writes {field!r}: give the records' own another name, or leave it out"
                )
        if self.kind == "hub" and len(self.paths) != 1:
            raise finding_at("paths", "one data set a source: give one hub id or folder")
        return self

    @property
    def reading(self) -> dict[str, Any]:
        """What its documents depend on; weight and limits may change later."""
        return self.model_dump(mode="json", exclude={"weight", "limits"})


class Tokenize(_Strict):
    """The last step: `tokens/corpus.bin/.idx`, or with `per_source` one corpus a source and a `mixture.yaml` of weights."""

    tokenizer: str
    eod: str | None = None
    per_source: bool = False


class CorpusFile(_Strict):
    """The YAML file.

    `keep_shards: last` frees the shards of a stage as soon as the stage after it is complete, so that a run needs room for
    two stages' documents and not for those of all. The default keeps them: then other settings of a stage redo that stage
    and those after it, and not everything from the sources on. Either may be set at any time, also between two runs: what
    is no longer needed under `last` is freed when the next run starts. Stopped runs go on under both.
    """

    out: str
    sources: list[Source] = Field(min_length=1)
    stages: list[dict[str, Any]] = []
    shard_size: Size = 256 * 10**6
    keep_shards: Literal["all", "last"] = "all"
    limits: Limits = Limits()
    tokenize: Tokenize | None = None

    @model_validator(mode="after")
    def _check(self) -> CorpusFile:
        names = [source.name for source in self.sources]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise finding_at(("sources", number, "name"), f"two sources are named {name!r}")
        return self


class Stage(BaseModel):
    """One item of `stages:`: its name and its settings, defaults filled in."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    settings: Any


class Corpus(BaseModel):
    """A checked YAML file."""

    model_config = ConfigDict(frozen=True)

    path: Path
    file: CorpusFile
    stages: list[Stage]

    @property
    def out(self) -> Path:
        """The folder of the run."""
        return Path(self.file.out)

    def limits_of(self, source: str) -> Limits:
        """The limits of one source: those of the file, but for what it sets itself."""
        own = next((item.limits for item in self.file.sources if item.name == source), None)
        set_here = {name: getattr(own, name) for name in own.model_fields_set} if own else {}
        return self.file.limits.model_copy(update=set_here)


def place_of(corpus: Corpus, *place: str | int) -> str:
    """Where the YAML file says something, for sentences: "`tokenize.eod` in corpus.yaml, line 9"."""
    content, lines = parse_yaml(read_text(corpus.path, of="a corpus"), corpus.path, needs="`out:` and `sources:`")
    return f"`{named(place, content)}` in {corpus.path}, line {line_of(place, lines)}"


def _keys(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


_KEYS = {
    "": _keys(CorpusFile),
    "limits": _keys(Limits),
    "sources": _keys(Source),
    "tokenize": _keys(Tokenize),
    "text": _keys(TextOptions),
    "hub": _keys(HubOptions),
    "pdf": _keys(PdfOptions),
}


def read_corpus(path: Path) -> Corpus:
    """Read and check a YAML file. Raises `UserError`: one sentence with file, line, key and what to do."""
    content, lines = parse_yaml(read_text(path, of="a corpus"), path, needs="`out:` and `sources:` with at least one source")
    try:
        file = CorpusFile.model_validate(content)
    except ValidationError as error:
        raise refusal(path, error, content, lines, _KEYS) from None
    _check_weights(path, file, content, lines)
    stages = [_stage(path, number, item, content, lines) for number, item in enumerate(file.stages)]
    seen: set[str] = set()
    for number, stage in enumerate(stages):
        if stage.name in seen:
            raise UserError(
                f"{path}, line {line_of(('stages', number), lines)}: {stage.name} stands twice in `stages`: remove one"
            )
        seen.add(stage.name)
    return Corpus(path=path, file=file, stages=stages)


def _check_weights(path: Path, file: CorpusFile, content: Any, lines: Mapping[Place, int]) -> None:
    """Raise `UserError` for a weight beside a `tokenize:` that makes one corpus of all sources, where it would do nothing."""
    if file.tokenize is None or file.tokenize.per_source:
        return
    for number, source in enumerate(file.sources):
        if "weight" in source.model_fields_set:
            place = ("sources", number, "weight")
            raise UserError(
                f"{path}, line {line_of(place, lines)}: `{named(place, content)}` goes into tokens/mixture.yaml, which is "
                "written with `per_source: true` below `tokenize` alone: set that, or take the weight out"
            )


def _stage(path: Path, number: int, item: dict[str, Any], content: Any, lines: Mapping[Place, int]) -> Stage:
    where = f"{path}, line {line_of(('stages', number), lines)}"
    if len(item) != 1:
        raise UserError(
            f"{where}: each item of `stages` is one stage, like `- exact_dedup: {{}}`: this one has {len(item)} keys"
        )
    [(name, settings)] = item.items()
    kind = STAGES.get(name)
    if kind is None:
        import difflib

        close = difflib.get_close_matches(name, STAGES, 1)
        advice = f"did you mean `{close[0]}`?" if close else f"the stages are {', '.join(STAGES)}"
        raise UserError(f"{where}: unknown stage `{name}`: {advice}")
    try:
        return Stage(name=name, settings=kind.settings_type.model_validate({} if settings is None else settings))
    except ValidationError as error:
        known = {name: _keys(kind.settings_type)}
        raise refusal(path, _inside(error, ("stages", number, name)), content, lines, known) from None


def _inside(error: ValidationError, place: Place) -> ValidationError:
    """The same finding, at its place in the whole file."""
    details: list[Any] = []
    for finding in error.errors():
        kind: Any = finding["type"]
        context = finding.get("ctx", {})
        if kind == "value_error":
            kind = finding_at((), str(context.get("error", finding["msg"])))
        elif kind == "path_type":  # pydantic cannot make this one again
            kind = "string_type"
        details.append({"type": kind, "loc": (*place, *finding["loc"]), "input": finding["input"], "ctx": context})
    return ValidationError.from_exception_data(error.title, details)
