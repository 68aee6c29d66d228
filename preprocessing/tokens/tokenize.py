"""`mecellem prepare tokenize`: JSONL -> Megatron `.bin/.idx` and a manifest.

Equal, byte for byte, to `preprocess_data.py --append-eod --tokenizer-type HuggingFaceTokenizer
--tokenizer-hf-no-include-special-tokens` of Megatron-LM, with one exception. There a document that merely writes
"[SEP]" gets the id of the end of a document, which cuts it in two; a "[MASK]" becomes a mask that no one set. Here such
words are text like any other (what transformers calls `split_special_tokens`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mecellem.console import step
from mecellem.errors import UserError
from mecellem.files import check_output_folder
from mecellem.flags import parse_and_call
from mecellem.manifest import CorpusManifest, ShardEntry, manifest_path, write_manifest
from preprocessing.jsonl import check_inputs
from preprocessing.tokens.write import Encoder, EngineChoice, Written, write_corpus

if TYPE_CHECKING:
    from rich.console import Console


def tokenize_corpus(
    inputs: Sequence[Path],
    tokenizer: Path,
    prefix: Path,
    eod: str | None = None,
    engine: EngineChoice = "auto",
    replace: bool = False,
) -> CorpusManifest:
    """Write `<prefix>.bin`, `<prefix>.idx` and, last, `<prefix>.manifest.json`; returns the manifest.

    `inputs` are .jsonl, .jsonl.gz or .jsonl.zst files, `tokenizer` is a Hugging Face tokenizer folder, `eod` the entry
    that ends a document (None: its `eos_token`). Every document is its tokens and the end-of-document id, without other
    special tokens; an empty one has no tokens at all. What is complete already and was made from the same text with the
    same tokenizer is left as it is, unless other versions of mecellem, tokenizers or gigatoken made it and `replace` is
    set; another corpus at `prefix` is only overwritten with `replace`. Raises `UserError` where that is not set, on bad
    input, on a corpus without a token and on a full disk; nothing half-written is left.
    """
    check_inputs(inputs, "--input")
    check_output_folder(prefix.parent, "--out")
    return write_corpus(inputs, Encoder(tokenizer, eod, engine), prefix, replace=replace).manifest


def shard_prefix(prefix: Path, number: int) -> Path:
    """Prefix of the shard that the input file of that number, from 0, becomes."""
    return Path(f"{prefix}_{number:05d}")


def shards_of_task(task: str, shards: int) -> list[int]:
    """The numbers of the shards that `task` "i/n" makes: i, i + n, ... Raises `UserError` for another form."""
    match = re.fullmatch(r"(\d+)/(\d+)", task)
    if not match or int(match[1]) >= int(match[2]):
        raise UserError(
            f"--task {task}: two numbers like 3/16 are needed, the first from 0 and below the second: in a Slurm array "
            "that starts at 0 write --task $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
        )
    return list(range(int(match[1]), shards, int(match[2])))


def tokenize(
    input: list[Path],
    tokenizer: Path,
    out: Path,
    eod: str | None = None,
    engine: EngineChoice = "auto",
    shards: bool = False,
    task: str = "0/1",
    replace: bool = False,
) -> None:
    """Write a corpus as Megatron .bin/.idx with a manifest: each document's tokens and the end-of-document token.

    A corpus that was made from the same text with the same tokenizer is left as it is.

    Args:
        input: .jsonl, .jsonl.gz or .jsonl.zst files, one {"text": ...} a line; "source" and "licence" are kept.
        tokenizer: Hugging Face tokenizer folder.
        out: prefix of the files to write: PREFIX.bin, PREFIX.idx, PREFIX.manifest.json.
        eod: the tokenizer's entry that ends a document (default: its eos_token; chat models often need another one,
            such as Qwen3's <|endoftext|>).
        engine: auto is gigatoken as long as tokenizers agrees with it; tokenizers is slower and needs no second opinion.
        shards: write PREFIX_00000, PREFIX_00001, ..., one for each input file; `mecellem prepare merge` makes them one.
        task: with --shards: i/n makes the shards i, i + n, ..., for n tasks that share the work (a Slurm array).
        replace: put the new corpus in the place of another one, or of one that other versions wrote.
    """
    check_inputs(input, "--input")
    check_output_folder(out.parent, "--out")
    if not shards and task != "0/1":
        raise UserError(f"--task {task} divides shards among tasks: give --shards as well")
    jobs = [([path], shard_prefix(out, number)) for number, path in enumerate(input)] if shards else [(input, out)]
    mine = shards_of_task(task, len(jobs))
    wrote: list[Path] = []
    with step("Tokenize", reads=[*(path for number in mine for path in jobs[number][0]), tokenizer], writes=wrote) as console:
        if not mine:
            console.print(f"no shard is left for --task {task}: there are {len(jobs):,} inputs", markup=False)
            return
        encoder = Encoder(tokenizer, eod, engine)
        for number in mine:
            inputs, prefix = jobs[number]
            started = time.perf_counter()
            written = write_corpus(inputs, encoder, prefix, may_be_empty=shards, replace=replace)
            if shards:
                number_shard(prefix, written.manifest, ShardEntry(number=number, of=len(jobs)))
            _report(console, prefix, written, time.perf_counter() - started)
            if written.text_bytes is not None:
                wrote += [Path(f"{prefix}.bin"), Path(f"{prefix}.idx"), manifest_path(prefix)]


def number_shard(prefix: Path, manifest: CorpusManifest, shard: ShardEntry) -> None:
    """Let the manifest say which shard of how many it is, so that `mecellem prepare merge` misses the others."""
    if manifest.shard != shard:
        write_manifest(prefix, manifest.model_copy(update={"shard": shard}))


def _report(console: Console, prefix: Path, written: Written, seconds: float) -> None:
    manifest, text_bytes = written.manifest, written.text_bytes
    console.print(f"{manifest.documents:,} documents, {manifest.tokens:,} tokens as {manifest.dtype}", markup=False)
    if text_bytes is None:
        words = " and ".join(f"{name} {found}" for name, found in written.others.items())
        by = f"written by {words}: --replace writes it again" if words else "nothing to do"
        console.print(f"{manifest_path(prefix)} is complete and from the same text, {by}", markup=False)
        return
    rate = f"{manifest.tokens / seconds:,.0f} tokens/s"
    if manifest.tokens:
        rate += f", {text_bytes / manifest.tokens:.2f} bytes per token"
    console.print(rate, markup=False)
    for engine in manifest.engines:
        words = f"engine {engine.name} {engine.version}"
        if engine.reason is None:
            words += f": {engine.compared:,} documents and {engine.adversarial:,} hard texts have the ids that tokenizers gives"
        console.print(words if engine.reason is None else f"{words}: {engine.reason}", markup=False)


def main(argv: Sequence[str]) -> int:
    """Parse the flags of `mecellem prepare tokenize` and run it."""
    parse_and_call(tokenize, argv, prog="mecellem prepare tokenize")
    return 0
