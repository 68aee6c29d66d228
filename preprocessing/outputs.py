"""Whether a corpus stands already where a command was told to write one."""

from __future__ import annotations

from pathlib import Path

from mecellem.errors import UserError
from mecellem.manifest import CorpusManifest, manifest_path, verify_files


def is_whole(prefix: Path, manifest: CorpusManifest) -> bool:
    """Whether the files of the corpus at `prefix` are those of its manifest, hashes included."""
    try:
        verify_files(prefix, manifest)
    except UserError:
        return False
    return True


def refuse_other_corpus(prefix: Path) -> None:
    """Raise `UserError` where a corpus stands that a run may need: it would refuse to go on over other tokens."""
    for path in (manifest_path(prefix), Path(f"{prefix}.bin"), Path(f"{prefix}.idx")):
        if path.exists():
            raise UserError(
                f"{path} exists already and is not known to be of the same text, tokenizer and engine: choose another --out, "
                "or add --replace if no run needs the older corpus"
            )
