"""Reads one file as a source of a kind would."""

from preprocessing.pipeline.config import PdfOptions, TextOptions
from preprocessing.sources.documents import read_part
from preprocessing.sources.found import Part, Reading
from preprocessing.sources.planning import find_files, plan_tasks

OPTIONS = {"text": TextOptions().model_dump(), "pdf": PdfOptions(ocr="none").model_dump()}


def reading(kind, record_size=1 << 20, options=None, **settings):
    wanted = {"text_field": "text", "id_field": None, "keep_fields": (), "licence": "CC0-1.0"} | settings
    return Reading(
        source="laws", kind=kind, record_size=record_size, options={**OPTIONS.get(kind, {}), **(options or {})}, **wanted
    )


def items(path, kind, **settings):
    """The documents and problems of a whole file."""
    return list(read_part(Part(str(path), 0), reading(kind, **settings)))


def planned(path, kind, shard_size, **settings):
    """The parts of a file, in the tasks that they were put in."""
    wanted = reading(kind, **settings)
    return plan_tasks(find_files("laws", kind, [str(path)]), wanted, shard_size), wanted


def read_tasks(path, kind, shard_size, **settings):
    """The documents and problems of a file that was cut into tasks."""
    tasks, wanted = planned(path, kind, shard_size, **settings)
    return [list(read_part(part, wanted)) for task in tasks for part in task]
