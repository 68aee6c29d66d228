"""`mecellem prepare merge`: shards of a corpus -> one `.bin/.idx`, equal to what one run over all inputs writes.

The `.bin` files are copied by the kernel; every shard's hash is checked on what was copied, in the pass that hashes the
whole. The `.idx` is written anew from the shards' document lengths, the provenance from theirs. Time grows with the bytes,
not with the shards.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from mecellem.console import progress_bar, step
from mecellem.errors import UserError
from mecellem.files import check_output_folder
from mecellem.flags import parse_and_call
from mecellem.manifest import (
    CorpusManifest,
    EngineEntry,
    FileEntry,
    manifest_path,
    provenance_path,
    read_manifest,
    verify_files,
)
from preprocessing.jsonl import joint_fingerprint
from preprocessing.outputs import is_whole, refuse_other_corpus
from preprocessing.tokens.background import Background
from preprocessing.tokens.commit import open_pair, settle
from preprocessing.tokens.indexed import IndexFile, open_index, write_index
from preprocessing.tokens.provenance import Provenance
from preprocessing.tokens.provenance_file import attach, merged_lines

_SUFFIXES = (".idx", ".bin", ".manifest.json")
_NAMED = 5  # corpora in a sentence
_HASHED_AT_ONCE = 16 << 20
_NO_KERNEL_COPY = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF)


@dataclass(frozen=True, slots=True)
class Shard:
    """One corpus to be merged: its prefix, its manifest and its index."""

    prefix: Path
    manifest: CorpusManifest
    index: IndexFile

    @property
    def bin_path(self) -> Path:
        """The shard's `.bin`."""
        return Path(f"{self.prefix}.bin")

    @property
    def bin_entry(self) -> FileEntry:
        """What the manifest says of the `.bin`."""
        return self.manifest.files[self.bin_path.name]


def merge_corpora(
    prefixes: Sequence[Path], out: Path, replace: bool = False, partial: bool = False
) -> tuple[CorpusManifest, bool]:
    """Write `<out>.bin`, `<out>.idx` and, last, the manifest, from the corpora at `prefixes`, in that order.

    Equal, byte for byte, to what `mecellem prepare tokenize` writes from all their inputs in that order; the provenance of
    corpora that have any becomes that of the whole. What is complete already is left as it is; another corpus at `out` is
    only overwritten with `replace`. Shards of a series are merged all together, or `partial`. Returns the manifest, and
    whether anything had to be written for it. Raises `UserError` for corpora that are missing, were changed, stand twice or
    do not fit together, and on a full disk; nothing half-written is left.
    """
    check_output_folder(out.parent, "--out")
    prefixes = [_prefix_of(path) for path in prefixes]
    if not prefixes:
        raise UserError("--input names no corpus: give the prefixes of one or more .bin/.idx, or their .idx files")
    if out.absolute() in {prefix.absolute() for prefix in prefixes}:
        raise UserError(f"--out {out} is one of --input as well: choose another prefix")
    shards = [_open(prefix) for prefix in prefixes]
    for shard in shards[1:]:
        _check_fit(shards[0], shard)
    _check_all_there(shards, partial)
    planned = merged_manifest([shard.manifest for shard in shards])
    if planned.tokens == 0:
        raise UserError(f"{', '.join(map(str, prefixes))}: no token in any of them, there is nothing to merge")
    unfinished = settle(out)
    made = _made_already(out, planned)
    if made and is_whole(out, made):
        named = _with_provenance(out, made, shards)
        return named, named != made
    if not made and not replace and not (unfinished and _without_files(unfinished) == planned):
        refuse_other_corpus(out)
    for shard in shards:  # the .idx first: its lengths are needed before the .bin is copied
        name = f"{shard.prefix.name}.idx"
        verify_files(shard.prefix, shard.manifest.model_copy(update={"files": {name: shard.manifest.files[name]}}))
    with open_pair(out) as pair:
        bin_entry = _copy_all(shards, pair.bin)
        idx_entry = write_index(
            pair.idx,
            shards[0].index.dtype,
            sum(shard.index.sequences for shard in shards),
            planned.documents,
            lambda: _all_lengths([shard.index for shard in shards]),
        )
        files = {f"{out.name}.bin": bin_entry, f"{out.name}.idx": idx_entry}
        pair.manifest = planned.model_copy(update={"files": files})
    return _with_provenance(out, pair.manifest, shards), True


def _with_provenance(out: Path, manifest: CorpusManifest, shards: Sequence[Shard]) -> CorpusManifest:
    """Write the provenance of the whole, where any of its shards has one."""
    if all(shard.manifest.provenance is None for shard in shards):
        return manifest
    return attach(out, manifest, merged_lines((shard.prefix, shard.manifest) for shard in shards))


def _prefix_of(path: Path) -> Path:
    """The prefix, where one of its files is named: `shards/*.idx` is what a shell expands."""
    for suffix in _SUFFIXES:
        if path.name.endswith(suffix):
            return path.with_name(path.name.removesuffix(suffix))
    return path


def _open(prefix: Path) -> Shard:
    manifest = read_manifest(prefix)
    if not manifest.inputs:
        raise UserError(f"{manifest_path(prefix)} does not list the files it was made from: write the corpus again")
    if {f"{prefix.name}.bin", f"{prefix.name}.idx"} != set(manifest.files):
        raise UserError(f"{manifest_path(prefix)} is not of {prefix.name}.bin and .idx: the files were renamed; undo that")
    verify_files(prefix, manifest, hashes=False)
    index = open_index(Path(f"{prefix}.idx"))
    if (index.documents, index.dtype.name) != (manifest.documents, manifest.dtype):
        raise UserError(f"{index.path} holds other documents than its manifest says: write the corpus again")
    if manifest.files[f"{prefix.name}.bin"].bytes != manifest.tokens * index.dtype.itemsize:
        raise UserError(f"{prefix}.bin has not the size of the tokens that its manifest names: write the corpus again")
    return Shard(prefix, manifest, index)


def _check_fit(one: Shard, other: Shard) -> None:
    first, second = one.manifest, other.manifest
    names = f"{manifest_path(one.prefix)} and {manifest_path(other.prefix)}"
    if first.tokenizer != second.tokenizer:
        raise UserError(
            f"{names} were written with different tokenizers or ends of documents "
            f"({_words(first)}; {_words(second)}): write one of them again"
        )
    if first.dtype != second.dtype:
        raise UserError(f"{names} hold ids of different types ({first.dtype}, {second.dtype}): write one of them again")
    for name in ("mecellem", "tokenizers"):
        if first.versions.get(name) != second.versions.get(name):
            raise UserError(
                f"{names} were written with different versions of {name} ({first.versions.get(name)}, "
                f"{second.versions.get(name)}): write the older one again with --replace"
            )


def _check_all_there(shards: Sequence[Shard], partial: bool) -> None:
    """Refuse what stands twice, and a series of shards (`--shards`) of which some are missing, as those of a failed task."""
    seen: dict[Path, Shard] = {}
    series: dict[tuple[str, int], set[int]] = {}
    for shard in shards:
        if shard.prefix.resolve() in seen:
            raise UserError(f"{shard.prefix} stands twice in --input: its documents would, too; name it once")
        seen[shard.prefix.resolve()] = shard
        if entry := shard.manifest.shard:
            stem = str(shard.prefix.resolve()).removesuffix(f"_{entry.number:05d}")
            series.setdefault((stem, entry.of), set()).add(entry.number)
    for (stem, of), numbers in series.items():
        missing = sorted(set(range(of)) - numbers)
        if missing and not partial:
            names = ", ".join(f"{Path(stem).name}_{number:05d}" for number in missing[:_NAMED])
            more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
            raise UserError(
                f"{len(missing):,} of the {of:,} shards of {stem} are not in --input ({names}{more}): let their tasks run, "
                "name them, or add --partial to leave them out"
            )


def _words(manifest: CorpusManifest) -> str:
    tokenizer = manifest.tokenizer
    return f"SHA-256 {tokenizer.sha256[:12]}..., {tokenizer.vocab_size:,} entries, end {tokenizer.eod_id}"


def merged_manifest(manifests: Sequence[CorpusManifest]) -> CorpusManifest:
    """What the manifest of the whole says, but for its files. Linear in the number of ranges, inputs and shards."""
    first = manifests[0]
    sources = Provenance()
    for manifest in manifests:
        sources.add_ranges(manifest.sources)
    inputs = [entry for manifest in manifests for entry in manifest.inputs]
    fingerprint = joint_fingerprint(entry.sha256 for entry in inputs)
    return first.model_copy(
        update={
            "documents": sum(manifest.documents for manifest in manifests),
            "tokens": sum(manifest.tokens for manifest in manifests),
            "files": {},
            "provenance": None,
            "shard": None,
            "sources": sources.ranges,
            "versions": first.versions | {"input": f"sha256:{fingerprint}"},
            "inputs": inputs,
            "engines": _merge_engines(engine for manifest in manifests for engine in manifest.engines),
        }
    )


def _merge_engines(engines: Iterable[EngineEntry]) -> list[EngineEntry]:
    """One entry for each engine, version and reason."""
    merged: dict[tuple[str, str, str | None], EngineEntry] = {}
    for engine in engines:
        key = (engine.name, engine.version, engine.reason)
        before = merged.get(key)
        if before is not None:
            engine = engine.model_copy(
                update={
                    "documents": before.documents + engine.documents,
                    "compared": before.compared + engine.compared,
                    "adversarial": min(before.adversarial, engine.adversarial),
                }
            )
        merged[key] = engine
    return list(merged.values())


def _made_already(out: Path, planned: CorpusManifest) -> CorpusManifest | None:
    """The manifest at `out` if it is the planned one."""
    try:
        manifest = read_manifest(out)
    except UserError:
        return None
    return manifest if _without_files(manifest) == planned else None


def _without_files(manifest: CorpusManifest) -> CorpusManifest:
    return manifest.model_copy(update={"files": {}, "provenance": None})


def _all_lengths(indexes: Sequence[IndexFile]) -> Iterator[NDArray[np.int32]]:
    for index in indexes:
        yield from index.lengths()


def _copy_all(shards: Sequence[Shard], out: IO[bytes]) -> FileEntry:
    """Copy all `.bin` files to `out`; what was copied is hashed in two threads, by shard and as a whole."""
    whole = hashlib.sha256()
    with progress_bar(transient=True) as progress, open(out.name, "rb", buffering=0) as copied, Background() as hashing:
        task = progress.add_task("merging (bytes)", total=sum(shard.bin_entry.bytes for shard in shards))
        for shard in shards:
            size = shard.bin_entry.bytes
            _copy(shard.bin_path, size, out)
            digest = hashlib.sha256()
            for piece in _pieces(copied, size):
                hashing.submit(whole.update, piece)
                digest.update(piece)
                progress.advance(task, len(piece))
            if digest.hexdigest() != shard.bin_entry.sha256:
                raise UserError(
                    f"{shard.bin_path}: SHA-256 differs from {manifest_path(shard.prefix)}: the file was changed after it "
                    "was written; write the corpus again with `mecellem prepare tokenize`"
                )
        hashing.finish()
    return FileEntry(bytes=sum(shard.bin_entry.bytes for shard in shards), sha256=whole.hexdigest())


def _copy(source: Path, size: int, out: IO[bytes]) -> None:
    """Append `size` bytes, which the kernel copies (or shares, where the file system can) if it knows how."""
    with open(source, "rb") as handle:
        left = size
        try:
            while left and (copied := os.copy_file_range(handle.fileno(), out.fileno(), left)):
                left -= copied
        except (OSError, AttributeError) as error:  # other file systems, older kernels; systems that are not Linux
            if isinstance(error, OSError) and error.errno not in _NO_KERNEL_COPY:
                raise
            handle.seek(size - left)
            shutil.copyfileobj(handle, out, 1 << 20)
            out.flush()
        if os.fstat(handle.fileno()).st_size != size or os.fstat(out.fileno()).st_size != out.seek(0, os.SEEK_END):
            raise UserError(f"{source} changed while it was read: write the corpus again")


def _pieces(handle: IO[bytes], size: int) -> Iterator[bytes]:
    """The next `size` bytes of a file, a piece at a time."""
    while size and (piece := handle.read(min(_HASHED_AT_ONCE, size))):
        size -= len(piece)
        yield piece


def merge(input: list[Path], out: Path, replace: bool = False, partial: bool = False) -> None:
    """Make one corpus of several .bin/.idx, as if all their text had been tokenized in one run; nothing is tokenized.

    Args:
        input: prefixes of corpora that `mecellem prepare tokenize` wrote, or their .idx files, in order.
        out: prefix of the files to write: PREFIX.bin, PREFIX.idx, PREFIX.manifest.json.
        replace: put the new corpus in the place of an older one.
        partial: merge what is given though other shards of the same `prepare tokenize --shards` are not.
    """
    wrote: list[Path] = []
    with step("Merge", reads=input, writes=wrote) as console:
        manifest, written = merge_corpora(input, out, replace, partial)
        console.print(
            f"{len(input):,} corpora, {manifest.documents:,} documents, {manifest.tokens:,} tokens as {manifest.dtype}",
            markup=False,
        )
        if written:
            wrote += [Path(f"{out}.bin"), Path(f"{out}.idx"), manifest_path(out)]
            wrote += [provenance_path(out)] if manifest.provenance else []
        else:
            console.print(f"{manifest_path(out)} is complete and from the same text, nothing to do", markup=False)
        if sentence := without_provenance(input):
            console.print(f"note    {sentence}", markup=False)


def without_provenance(paths: Sequence[Path]) -> str:
    """A sentence about corpora whose manifests name no provenance; "" where all do."""
    prefixes = [_prefix_of(path) for path in paths]
    lacking = [prefix for prefix in prefixes if read_manifest(prefix).provenance is None]
    if not lacking:
        return ""
    if len(lacking) == len(prefixes):
        return "none of the corpora has provenance (raw files and stages, as `mecellem prepare run` writes), nor has the whole"
    names = ", ".join(prefix.name for prefix in lacking[:_NAMED])
    more = f" and {len(lacking) - _NAMED:,} more" if len(lacking) > _NAMED else ""
    return f"{names}{more} came without provenance: of their documents the whole knows source and licence only"


def main(argv: Sequence[str]) -> int:
    """Parse the flags of `mecellem prepare merge` and run it."""
    parse_and_call(merge, argv, prog="mecellem prepare merge")
    return 0
