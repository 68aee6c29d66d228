"""`langs.yaml`: which texts are in which language, which languages are targets, and their shares of the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mecellem.errors import UserError
from mecellem.yaml_file import line_of, parse_yaml, read_text, refusal

TARGET_SHARE = 0.75  # of the entries that are free to choose, where no language has a share
_SUM_TOLERANCE = 1e-6


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Language(_Strict):
    texts: tuple[str, ...] = Field(min_length=1)
    target: bool = False
    share: float | None = Field(default=None, gt=0, le=1)
    identify: bool = True


class _File(_Strict):
    languages: dict[str, _Language] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Language:
    """One language of the new vocabulary.

    `share` is its part, above 0, of the entries that are free to choose and of the mixture that scores are estimated on;
    shares add up to 1. `sources` are sources of the corpus, `files` further files of texts. `identify`: its texts must be
    recognised as this language.
    """

    name: str
    target: bool
    share: float
    sources: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    identify: bool = True


def read_languages(path: Path, sources: Sequence[str], known: Callable[[str], None]) -> list[Language]:
    """The languages of a YAML file, in its order. `sources` are those of the corpus.

    `known` raises `UserError` for a code that is not a language's. An item of `texts` is a source of the corpus or else a
    path, relative to the file's folder. Raises `UserError` with file, line and key for everything that is wrong.
    """
    text = read_text(path, "languages (--languages)")
    content, lines = parse_yaml(text, path, "`languages`, a mapping of a language to its texts")
    try:
        found = _File.model_validate(content)
    except ValidationError as error:
        keys = list(_Language.model_fields)
        names = [str(name) for name in content["languages"]] if isinstance(content, dict) and _is_mapping(content) else []
        raise refusal(path, error, content, lines, {"": ["languages"], **dict.fromkeys(names, keys)}) from None
    taken: dict[str, str] = {}
    result = []
    for name, language in found.languages.items():
        where = f"{path}, line {line_of(('languages', name), lines)}"
        if language.identify:
            try:
                known(name)
            except UserError as error:
                raise UserError(f"{where}: {error}; `identify: false` takes a language that cannot be recognised") from None
        for item in language.texts:
            if item in taken:
                raise UserError(f"{where}: {item!r} belongs to {taken[item]} already: give each text to one language")
            taken[item] = name
        own = tuple(item for item in language.texts if item in sources)
        files = tuple(_file(path, where, item, sources) for item in language.texts if item not in sources)
        result.append(Language(name, language.target, language.share or 0.0, own, files, language.identify))
    if not any(language.target for language in result):
        raise UserError(f"{path}: no language has `target: true`: say which one the vocabulary is to be grafted for")
    return with_shares(result, f"{path}")


def _is_mapping(content: Mapping[str, object]) -> bool:
    return isinstance(content.get("languages"), dict)


def _file(settings: Path, where: str, item: str, sources: Sequence[str]) -> Path:
    path = settings.parent / item
    if not path.is_file():
        raise UserError(
            f"{where}: {item!r} is neither a source of the corpus ({', '.join(sources) or 'which has none'}) nor a file: "
            "name one of these or correct the path"
        )
    return path


def with_shares(languages: Sequence[Language], where: str) -> list[Language]:
    """Give every language that has no share (0) its part: what the others leave, in equal parts.

    Where none has one, the targets divide 0.75 among them and the others 0.25. Raises `UserError` for shares that leave
    nothing or do not add up to 1.
    """
    given = sum(language.share for language in languages)
    without = [language for language in languages if not language.share]
    if not without and abs(given - 1) > _SUM_TOLERANCE:
        raise UserError(f"{where}: the shares add up to {given:g}: make them 1, or leave one language without a share")
    if without and given >= 1:
        raise UserError(f"{where}: the shares add up to {given:g} and leave nothing to {without[0].name}: make them smaller")
    targets = [language for language in without if language.target]
    others = len(without) - len(targets)
    weighted = not given and targets and others
    result = []
    for language in languages:
        share = language.share or (1 - given) / len(without)
        if weighted:
            share = TARGET_SHARE / len(targets) if language.target else (1 - TARGET_SHARE) / others
        result.append(replace(language, share=share))
    return result
