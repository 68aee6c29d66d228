"""`mecellem distill vectors`: a teacher's vectors of a corpus, once, in shards that a training maps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from conversion.clone.vocabulary import refuse_rows
from mecellem.console import console, progress_bar, step
from mecellem.errors import UserError
from mecellem.files import sha256_of
from mecellem.flags import parse_and_call
from mecellem.module_folders import MODULES, transformer_folder
from mecellem.token_batches import tokens_a_batch
from mecellem.tokenizer_files import rowless
from post_training.distillation.encode import (
    Target,
    check_target,
    count_tokens,
    encode,
    not_finite,
    quote,
    resolve_prompt,
    up_to_target,
)
from post_training.distillation.manifest import write_manifest
from post_training.distillation.store import (
    FORMAT,
    MANIFEST,
    SHARDS,
    Dtype,
    agree_on_plan,
    is_complete,
    made_with,
    missing_shards,
    read_json,
    torch_dtype,
    write_shard,
)
from post_training.distillation.student import embeddings
from post_training.distillation.texts import Catalogue, Text, catalogue, find_files, read_shards, shard_bounds
from post_training.model_folder import pick_device
from post_training.start import StartingPoint, from_hub, open_start
from preprocessing.tokens.tokenize import shards_of_task

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TEXTS_A_SHARD = 8192  # enough that batches of alike length hold little padding, and few enough to lose with a killed process
LOG_SECONDS = 30.0  # between two lines of a job's log, where there is no terminal for a progress bar


def vectors(
    teacher: str,
    corpus: tuple[Path, ...],
    out: Path,
    split: str = "train",
    target: Target = "final",
    prompt: str | None = None,
    max_length: int | None = None,
    dtype: Dtype = "fp16",
    compute: Literal["fp32", "bf16"] = "fp32",
    shards: int = 0,
    task: str = "0/1",
    batch_tokens: int = 0,
    device: str = "auto",
) -> None:
    """Encode a corpus with a teacher, once, for `mecellem distill train`.

    A text that stands twice is encoded once, an empty one not at all. A call that was stopped goes on: a shard is whole or
    absent. As a Slurm array give --shards and `--task $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT`; whichever call finds
    all shards there encodes some texts a second time, each alone, compares, and writes OUT/manifest.json.

    Args:
        teacher: a sentence-transformers folder, or the id of one on the Hugging Face Hub
        corpus: a corpus folder (its --split), .jsonl (.gz, .zst) files with "text" and perhaps "lang" and "source", .txt files
            with a text a line, or folders of such files
        out: the folder to write
        split: of a corpus folder: train, validation or test
        target: final: the model's vectors; pre_dense: what its first Dense module is given
        prompt: stands before every text: the name of one of the teacher's prompts, or the words themselves; the teacher's
            default prompt unless given ("" for none)
        max_length: tokens of a text that are read, the prompt's included; all that the teacher takes unless given
        dtype: of the stored numbers; unit vectors lose least in fp16
        compute: bf16: the teacher's weights and sums in bfloat16, for GPUs
        shards: how many; 0: one for every 8,192 texts
        task: i/n makes the shards i, i + n, ..., for n tasks that share the work (a Slurm array)
        batch_tokens: tokens in a batch, padding included: memory and speed, not results; 0: 512 a thread on CPUs, whose
            caches that fits (1.5 x the speed of 4,096 with e5-small), 32,768 on GPUs
        device: auto, cpu, cuda or cuda:N
    """
    with step("teacher vectors", reads=[teacher, *corpus], writes=[out]) as screen:
        manifest = make_vectors(
            teacher,
            corpus,
            out,
            split=split,
            target=target,
            prompt=prompt,
            max_length=max_length,
            dtype=dtype,
            compute=compute,
            shards=shards,
            task=task,
            batch_tokens=batch_tokens,
            device=device,
        )
        if manifest is None:
            screen.print("this task is done; the call that finds all shards there writes the manifest", markup=False)
            return
        seen = manifest["verified"]
        screen.print(
            f"texts   {manifest['count']:,} of {manifest['width']} numbers in {manifest['dtype']}; {manifest['duplicates']:,} "
            f"copies and {manifest['empty']:,} empty ones left out\n"
            f"cut     {manifest['truncated']:,} texts are longer than {manifest['max_length']:,} tokens and lost "
            f"{manifest['tokens_cut']:,} of {manifest['tokens']:,}\n"
            f"speed   {manifest['texts_per_second']:,.0f} texts/s\n"
            f"checked {seen['texts']} texts encoded again alone: cosine {seen['lowest_cosine']:.6f} and above",
            markup=False,
        )


def make_vectors(
    teacher: str | Path,
    corpus: Sequence[Path],
    out: Path,
    *,
    split: str = "train",
    target: Target = "final",
    prompt: str | None = None,
    max_length: int | None = None,
    dtype: Dtype = "fp16",
    compute: Literal["fp32", "bf16"] = "fp32",
    shards: int = 0,
    task: str = "0/1",
    batch_tokens: int = 0,
    device: str = "auto",
) -> dict[str, Any] | None:
    """The command's work; returns the manifest, or None while shards of other tasks are missing. Raises `UserError`."""
    if shards < 0 or batch_tokens < 0:
        raise UserError("--shards and --batch-tokens must be at least 0")
    shards_of_task(task, 1)
    files = find_files(corpus, split)
    start = find_teacher(teacher)
    found = _read(files)
    device = pick_device(device)
    batch_tokens = batch_tokens or tokens_a_batch(device)
    model = open_teacher(start, max_length, compute, device)
    check_target(model, target, teacher)
    count = shards or -(-len(found) // TEXTS_A_SHARD)
    if count > len(found):
        raise UserError(f"--shards {shards} is above the number of texts, {len(found):,}: lower it")
    plan = make_plan(start, model, found, count, target=target, prompt=prompt, dtype=dtype, compute=compute)
    agree_on_plan(out, plan)
    if is_complete(out, count):
        console().print("all vectors are there: nothing to do", markup=False)
        return read_json(out / MANIFEST)
    part = up_to_target(model, target)
    mine = sorted(set(shards_of_task(task, count)) & set(missing_shards(out, count)))
    if mine:
        (out / MANIFEST).unlink(missing_ok=True)  # of shards that were there before: a killed call must not look finished
    make_shards(out, found, plan, mine, part, batch_tokens)
    left = missing_shards(out, count)
    if left:
        console().print(f"missing {len(left)} of {count} shards, of other tasks", markup=False)
        return None
    return write_manifest(out, plan, found, part)


def find_teacher(teacher: str | Path) -> StartingPoint:
    """The teacher's folder. Raises `UserError` for one that is no sentence-transformers model."""
    folder = Path(teacher)
    if not folder.exists():
        folder = from_hub(str(teacher)) or folder
    if not (folder / MODULES).is_file():
        raise UserError(f"--teacher {teacher} is no sentence-transformers folder (no {MODULES}): save the model as one")
    return StartingPoint(str(teacher), folder, "sentence_transformers")


def open_teacher(start: StartingPoint, max_length: int | None, compute: str, device: str) -> SentenceTransformer:
    """The model, cut at its length. Raises `UserError` for a length that it does not have."""
    from post_training.contrastive.model import own_length

    model = open_start(start, None, device).eval()
    tokenizer: Any = model.tokenizer
    ids, rows = tokenizer.get_vocab(), len(embeddings(model))
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    behind = rowless(ids, special - {*tokenizer("")["input_ids"], tokenizer.pad_token_id}, rows)
    refuse_rows(start.folder, max(number for number in ids.values() if number not in behind) + 1, rows)
    own = own_length(model)
    if max_length is not None and not 3 <= max_length <= own:
        raise UserError(f"--max-length {max_length} must be between 3 and {own}, the tokens that {start.source} takes")
    model.max_seq_length = max_length or own
    return model.to(torch_dtype(compute))


def _read(files: Sequence[Path]) -> Catalogue:
    """All texts' hashes, with a bar over the files' bytes."""
    with progress_bar(transient=True) as bar:
        task = bar.add_task("reading (bytes)", total=sum(path.stat().st_size for path in files))
        return catalogue(files, lambda read: bar.advance(task, read))


def make_plan(
    start: StartingPoint,
    model: SentenceTransformer,
    found: Catalogue,
    shards: int,
    *,
    target: Target,
    prompt: str | None,
    dtype: Dtype,
    compute: str,
) -> dict[str, Any]:
    """What the vectors depend on, and where the texts came from."""
    from post_training.training.record import versions

    return {
        "format": FORMAT,
        "teacher": {"sha256": start.sha256, **transformer_hashes(start)},
        "teacher_name": start.source,
        "prompt": resolve_prompt(model, prompt),
        "target": target,
        "dtype": dtype,
        "compute": compute,
        "max_length": model.max_seq_length,
        "count": len(found),
        "text_hashes": found.sha256,
        "shards": shards,
        "origins": [str(path) for path in found.files],
        "empty": found.empty,
        "duplicates": found.duplicates,
        "versions": versions(),
    }


def transformer_hashes(start: StartingPoint) -> dict[str, Any]:
    """SHA-256 of the transformer's tokenizer and files of weights, as `clone.json` has its teacher's."""
    transformer = transformer_folder(start.folder)
    tokenizer = transformer / "tokenizer.json"
    return {
        "tokenizer_sha256": sha256_of(tokenizer) if tokenizer.is_file() else None,
        "weights_sha256": {path.name: sha256_of(path) for path in sorted(transformer.glob("*.safetensors"))},
    }


def make_shards(
    out: Path, found: Catalogue, plan: dict[str, Any], mine: Sequence[int], model: SentenceTransformer, batch_tokens: int
) -> None:
    """Encode and write the shards `mine`, one after another. Raises `UserError`."""
    bounds = shard_bounds(len(found), plan["shards"])
    total = sum(bounds[number + 1] - bounds[number] for number in mine)
    (out / SHARDS).mkdir(parents=True, exist_ok=True)
    started = logged = time.perf_counter()
    done = 0
    with progress_bar(transient=True) as bar:
        task = bar.add_task("encoding", total=total)

        def show(count: int) -> None:
            nonlocal done, logged
            done += count
            rate = done / (time.perf_counter() - started)
            bar.update(task, completed=done, description=f"encoding: {rate:,.0f} texts/s")
            if not console().is_terminal and time.perf_counter() - logged > LOG_SECONDS:
                logged = time.perf_counter()
                console().print(f"encoded {done:,} of {total:,} texts, {rate:,.0f} texts/s", markup=False)

        for number, texts in read_shards(found, bounds, mine):
            make_shard(out, number, texts, plan, model, batch_tokens, show)


def make_shard(
    out: Path,
    number: int,
    texts: Sequence[Text],
    plan: dict[str, Any],
    model: SentenceTransformer,
    batch_tokens: int,
    show: Callable[[int], None],
) -> None:
    """One shard. Raises `UserError` for a text whose vector is no number."""
    import numpy as np

    started = time.perf_counter()
    words = [text.text for text in texts]
    lengths, limit = count_tokens(model, words, plan["prompt"]), plan["max_length"]
    found = encode(model, words, np.minimum(lengths, limit), plan["prompt"], batch_tokens, show)
    stored = found.to(torch_dtype(plan["dtype"]))
    for vectors, why in (
        (found, "the teacher gives NaN or infinity: its weights are damaged, or --compute bf16 is too narrow"),
        (stored, f"its vector has numbers beyond {plan['dtype']}: give another --dtype"),
    ):
        if bad := not_finite(vectors):
            text = texts[bad[0]]
            raise UserError(f"{text.path}, line {text.line} ({quote(text.text)}), one of {len(bad)} such texts: {why}")
    over = np.maximum(lengths - limit, 0)
    facts = {
        "tokens": lengths,
        "truncated": int((over > 0).sum()),
        "tokens_cut": int(over.sum()),
        "seconds": time.perf_counter() - started,
        "made_with": made_with(plan),
    }
    write_shard(out, number, texts, stored, facts)


def main(argv: Sequence[str]) -> int:
    """Entry point of `mecellem distill vectors`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # lengths are counted by all cores; nothing here forks
    parse_and_call(vectors, argv, prog="mecellem distill vectors")
    return 0
