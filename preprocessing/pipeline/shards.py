"""Documents in files between stages: one JSON object a line with `id`, `text` and the metadata, zstandard-compressed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import zstandard
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from mecellem.errors import UserError
from preprocessing.jsonl import read_fields
from preprocessing.pipeline.layout import OWN_TO_STAGE, shard_path, whole_file

if TYPE_CHECKING:
    from datatrove.data import DocumentsPipeline

_LEVEL = 3  # one level for all: the bytes of a shard depend on it


def read_documents(path: Path) -> Iterator[Document]:
    """The documents of a shard. Raises `UserError` for one that is missing or was changed."""
    if not path.is_file():
        raise UserError(f"{path} is missing: remove the folder of its stage and run the same command again")
    for _, fields in read_fields(path):
        text, name = fields.pop("text"), fields.pop("id")
        yield Document(text=text, id=name, metadata=fields)


@contextmanager
def document_writer(path: Path) -> Iterator[Callable[[Document], None]]:
    """Yield what writes one document to the shard; the shard appears when the block ends well."""
    with whole_file(path) as handle, zstandard.ZstdCompressor(level=_LEVEL).stream_writer(handle, closefd=False) as writer:

        def write(document: Document) -> None:
            rest = {name: value for name, value in document.metadata.items() if name not in OWN_TO_STAGE}
            fields = {"id": document.id, "text": document.text, **rest}
            writer.write(orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY))

        yield write


class LinesOnDemand:
    """A zstandard-compressed file of lines that appears when the block ends well, if any were written; else there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = ExitStack()
        self._writer: Any = None

    def __enter__(self) -> LinesOnDemand:
        self._path.unlink(missing_ok=True)  # of an earlier attempt, when there was something to write
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, lines: bytes) -> None:
        """Write whole lines."""
        if self._writer is None:
            handle = self._stack.enter_context(whole_file(self._path))
            self._writer = self._stack.enter_context(
                zstandard.ZstdCompressor(level=_LEVEL).stream_writer(handle, closefd=False)
            )
        self._writer.write(lines)


class ReadShards(PipelineStep):
    """A pipeline's first block: the documents of the shard that has the task's number."""

    type = "📖 - READER"
    name = "shards"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield the documents of shard `rank`."""
        for document in read_documents(shard_path(self.folder, rank)):
            self.stat_update("documents")
            yield document
