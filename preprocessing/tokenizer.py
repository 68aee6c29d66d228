"""Byte-level BPE, saved as a Hugging Face tokenizer folder; and reading such a folder.

Imports `tokenizers` only, never `transformers`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mecellem.console import step
from mecellem.errors import UserError
from mecellem.files import atomic_folder, check_output_folder, sha256_of
from mecellem.flags import parse_and_call
from preprocessing.jsonl import check_inputs, fingerprint, read_records
from preprocessing.tokenizers.patterns import PATTERNS, PreTokenizerName
from preprocessing.tokenizers.sample import SourceShare, plan_sample, read_sample

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# In the order of their ids, 0 to 4. `<unk>` is part of the vocabulary by convention; bytes leave nothing unknown.
PAD, UNK, CLS, SEP, MASK = "[PAD]", "<unk>", "[CLS]", "[SEP]", "[MASK]"
SPECIAL_TOKENS = (PAD, UNK, CLS, SEP, MASK)
_SMALLEST = 256 + len(SPECIAL_TOKENS)
_TRAINING_JSON = "training.json"


@dataclass(frozen=True, slots=True)
class LoadedTokenizer:
    """A tokenizer folder: the tokenizer, SHA-256 of its `tokenizer.json`, its size, and the end-of-document id."""

    tokenizer: Tokenizer
    sha256: str
    vocab_size: int
    eod_id: int


def train_tokenizer(texts: Iterable[str], vocab_size: int, pre_tokenizer: PreTokenizerName = "llama") -> Tokenizer:
    """Train on `texts` until the vocabulary has exactly `vocab_size` entries, special tokens and 256 bytes included.

    The same texts give the same tokenizer, byte for byte. Raises `UserError` when the texts do not support that many
    entries (a pair of tokens must occur twice to become an entry).
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    if vocab_size < _SMALLEST:
        raise UserError(f"--vocab-size {vocab_size}: at least {_SMALLEST} is needed (256 bytes and the special tokens)")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[pre_tokenizer]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # In training a mask replaces a whole entry, its leading space included ("Ġsöz"). With lstrip the mask in
    # "son [MASK]" takes the space before it, so that a model sees at inference what it saw in training.
    special = [AddedToken(token, special=True, normalized=False, lstrip=token == MASK) for token in SPECIAL_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    reached = tokenizer.get_vocab_size()
    if reached != vocab_size:
        raise UserError(
            f"--vocab-size {vocab_size}: this text supports {reached:,} entries only: "
            f"ask for at most {reached} or train on more text"
        )
    cls, sep = (tokenizer.token_to_id(token) for token in (CLS, SEP))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", pair=f"{CLS} $A {SEP} $B:1 {SEP}:1", special_tokens=[(CLS, cls), (SEP, sep)]
    )
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path, model_max_length: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json for `AutoTokenizer.from_pretrained`.

    `model_max_length` is in tokens; `folder` exists.
    """
    roles = {
        "pad_token": PAD,
        "unk_token": UNK,
        "cls_token": CLS,
        "sep_token": SEP,
        "mask_token": MASK,
        "bos_token": CLS,
        "eos_token": SEP,
    }
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    added = {
        str(identity): {flag: getattr(token, flag) for flag in flags}
        for identity, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    mask = added[str(tokenizer.token_to_id(MASK))]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model_max_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": added,
        **roles,
    }
    # Not tokenizer.save(): on a full disk it raises a bare Exception without an errno.
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", roles | {"mask_token": mask})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_tokenizer(
    folder: Path, eod: str | None = None, folder_from: str = "--tokenizer", eod_from: str = "--eod"
) -> LoadedTokenizer:
    """Read any Hugging Face tokenizer folder that has a `tokenizer.json`.

    `eod`: the entry that ends a document, by default its `eos_token`. Truncation and padding that the file may switch on
    are switched off. Raises `UserError` for a folder that is missing, incomplete or broken; `folder_from` and `eod_from`
    say in it where the user gave the two.
    """
    from tokenizers import Tokenizer

    advice = "name a folder that `mecellem tokenizer train` or save_pretrained wrote"
    if not folder.is_dir():
        raise UserError(f"{folder_from}: {folder} is not a folder: {advice}")
    path, config_path = folder / "tokenizer.json", folder / "tokenizer_config.json"
    for needed in (path, config_path):
        if not needed.is_file():
            raise UserError(f"{folder_from}: {needed} is missing: {advice}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for every kind of broken file
        raise UserError(f"{path} is broken ({error}): {advice}") from None
    try:
        eos = json.loads(config_path.read_text(encoding="utf-8")).get("eos_token")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{config_path} is broken ({error}): {advice}") from None
    content = eos.get("content") if isinstance(eos, dict) else eos
    if eod is not None:
        content = eod
    eod_id = tokenizer.token_to_id(content) if isinstance(content, str) else None
    if eod_id is None:
        where = f"{config_path}: eos_token" if eod is None else f"{eod_from}:"
        raise UserError(
            f"{where} {content!r} is not an entry of the vocabulary in {path}, and it has to end each document: "
            f"name an entry with {eod_from}"
        )
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return LoadedTokenizer(tokenizer, sha256_of(path), tokenizer.get_vocab_size(), eod_id)


def train(
    corpus: list[Path],
    out: Path,
    vocab_size: int = 59_008,
    model_max_length: int = 8192,
    pre_tokenizer: PreTokenizerName = "llama",
    sample_bytes: int | None = None,
    sample_weights: dict[str, float] | None = None,
    held_out: Path | None = None,
    replace: bool = False,
) -> None:
    """Train a byte-level BPE tokenizer and save it as a Hugging Face tokenizer folder.

    A folder that was made from the same text with the same flags is left as it is.

    Args:
        corpus: .jsonl, .jsonl.gz or .jsonl.zst files, one {"text": ...} a line.
        out: folder to write to, new or empty.
        vocab_size: entries, special tokens included.
        model_max_length: longest input of the model, in tokens; written into tokenizer_config.json.
        pre_tokenizer: llama is Llama 3's pattern; apostrophe keeps a suffix behind an apostrophe together ('de, 'ten, 'si),
            which Llama's English contractions tear, but gigatoken does not know it: writing a corpus is slower.
        sample_bytes: train on about so many bytes of text instead of all of it, taken from each source evenly.
        sample_weights: parts of the sample by source, such as `laws 3 web 1`; 1 for a source that is not named.
        held_out: a file of the same kinds to measure bytes per token and tokens per word on.
        replace: put the new tokenizer in the place of an older one.
    """
    check_inputs(corpus, "--corpus")
    if held_out:
        check_inputs([held_out], "--held-out")
    check_output_folder(out, "--out")
    if model_max_length < 1:
        raise UserError(f"--model-max-length {model_max_length}: at least 1 token is needed")
    if sample_weights and sample_bytes is None:
        raise UserError("--sample-weights divides a sample: give --sample-bytes as well")
    plan = plan_sample(corpus, sample_bytes, sample_weights) if sample_bytes is not None else None
    made_from = {
        "corpus_sha256": fingerprint(corpus),
        "vocab_size": vocab_size,
        "model_max_length": model_max_length,
        "pre_tokenizer": pre_tokenizer,
        "sample": None if plan is None else {name: share.wanted for name, share in plan.items()},
        "tokenizers": version("tokenizers"),
    }
    made = _made_already(out, made_from)
    reads = [*corpus, *([held_out] if held_out else [])]
    with step("Tokenizer: byte-level BPE", reads=reads, writes=[] if made else [out]) as console:
        if made:
            console.print(f"{out} was made from the same text already, nothing to do", markup=False)
        else:
            with atomic_folder(out, _may_replace(out, replace), remedy="add --replace") as temporary:
                started = time.perf_counter()
                if plan is not None:
                    console.print(_describe(plan), markup=False)
                tokenizer = train_tokenizer(_texts(corpus, plan), vocab_size, pre_tokenizer)
                console.print(f"trained {vocab_size:,} entries in {time.perf_counter() - started:.1f} s")
                write_tokenizer(tokenizer, temporary, model_max_length)
                hashes = {"tokenizer_sha256": sha256_of(temporary / "tokenizer.json")}
                _write_json(temporary / _TRAINING_JSON, made_from | hashes)
        if held_out:
            console.print(_measure(load_tokenizer(out).tokenizer, held_out), markup=False)


def _made_already(out: Path, made_from: dict[str, Any]) -> bool:
    try:
        record = json.loads((out / _TRAINING_JSON).read_text(encoding="utf-8"))
        return bool(record == made_from | {"tokenizer_sha256": sha256_of(out / "tokenizer.json")})
    except (OSError, ValueError):
        return False


def _may_replace(out: Path, replace: bool) -> bool:
    """Whether --replace holds for `out`: never for a folder that is not a tokenizer, lest something else be removed."""
    if not replace or not out.exists():
        return False
    if not (out / "tokenizer.json").is_file():
        raise UserError(f"--replace: {out} holds no tokenizer.json, so it is not removed: choose another --out")
    return True


def _describe(plan: Mapping[str, SourceShare]) -> str:
    parts = (f"{name} {share.wanted / 1e6:.1f} of {share.available / 1e6:.1f} MB" for name, share in plan.items())
    return f"sample: {', '.join(parts)}"


def _texts(paths: Sequence[Path], plan: Mapping[str, SourceShare] | None = None) -> Iterator[str]:
    empty = True
    records = (record for path in paths for record in read_records(path)) if plan is None else read_sample(paths, plan)
    for record in records:
        empty = empty and not record.text
        yield record.text
    if empty:
        raise UserError(f"{', '.join(map(str, paths))}: no text in it, nothing to train a tokenizer on")


def _measure(tokenizer: Tokenizer, held_out: Path) -> str:
    texts = list(_texts([held_out]))
    tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    words = sum(len(text.split()) for text in texts)
    size = sum(len(text.encode()) for text in texts)
    return f"on {held_out}: {size / tokens:.2f} bytes per token, {tokens / words:.2f} tokens per word"


def main(argv: Sequence[str]) -> int:
    """Parse the flags of `mecellem tokenizer train` and run it."""
    parse_and_call(train, argv, prog="mecellem tokenizer train")
    return 0
