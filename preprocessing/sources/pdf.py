"""PDF: a file is a document; the text layer by PDFium, scanned pages by OCR.

A plug-in for OCR, as for the vision language model of the paper, is any function

    def read_page(image: PIL.Image.Image, page: int, path: str) -> str

named in the YAML file as `pdf: {ocr: "package.module:read_page"}`. `image` is the page in colour at `pdf: dpi`, which
`image.info["dpi"]` says as well; `page` counts from 1. It is called only for pages that have next to no text of their own,
once a page, in the order of the pages, by one process a task; for equal images it must return equal texts, or a resumed run
differs from an undisturbed one. The function's module may lie beside the YAML file or in the folder that the command is run
in. It is imported in each process once: load a model there, and run `--workers` no more than the GPUs hold.

Tesseract runs on one thread, as there is a process a task, and turns pages that lie on their side where its data `osd` is
installed. A page of five lines takes it a second.
"""

from __future__ import annotations

import importlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from mecellem.errors import UserError
from preprocessing.sources.found import Found, Item, Part, Problem, Reading, Skipped

ReadPage = Callable[[Any, int, str], str]
_OCR_SECONDS = 300  # one page


def read(part: Part, reading: Reading) -> Iterator[Item]:
    """Yield one document, or why there is none; pages are separated by blank lines."""
    import pypdfium2

    with open(part.path, "rb") as handle:  # a file that is gone is told of by the caller
        try:
            document = pypdfium2.PdfDocument(handle)
        except pypdfium2.PdfiumError as error:
            reason = "needs_password" if "password" in str(error).casefold() else "broken_pdf"
            yield Problem(0, reason, str(error))
            return
        with document:
            missed: list[int] = []
            found = _document(document, part, reading, missed)
            if isinstance(found, Found):
                yield from (Skipped("page_without_text") for _ in missed)
            yield found


def _document(document: Any, part: Part, reading: Reading, missed: list[int]) -> Item:
    """The document, or why there is none; `missed` gets the pages that show something and gave no text."""
    import pypdfium2

    pages: list[str] = []
    size = 0
    for number in range(len(document)):
        try:
            page = document[number]
            text = page.get_textpage().get_text_bounded().replace("\r\n", "\n").replace("\ufffe", "-").strip()
        except pypdfium2.PdfiumError as error:
            return Problem(number + 1, "broken_pdf", f"page {number + 1}: {error}")
        if len(text) < reading.options["min_characters"]:
            try:
                scanned = _scanned(page, number + 1, part.path, reading.options)
            except OcrError as error:
                return Problem(number + 1, "ocr_failed", f"page {number + 1}: {error}")
            text = scanned or text
            if not text and scanned is not None:
                missed.append(number + 1)
        pages.append(text)
        size += len(text)
        if size > reading.record_size:
            return Problem(number + 1, "too_long", f"the text up to this page has more than {reading.record_size:,} characters")
        page.close()
    if not any(pages) and missed:
        return Problem(0, "needs_ocr", f"none of its {len(missed):,} pages has text; pdf: ocr is {reading.options['ocr']}")
    return Found(1, {reading.text_field: "\n\n".join(page for page in pages if page), "pages_without_text": missed})


class OcrError(Exception):
    """A plug-in for OCR did not read a page."""


def _scanned(page: Any, number: int, path: str, options: dict[str, Any]) -> str | None:
    """What OCR reads on a page: "" where none is set up or it finds nothing, None where the page shows nothing.

    Raises `OcrError` for whatever a plug-in raises, and where it returns no string.
    """
    if not any(True for _ in page.get_objects(max_depth=2)):
        return None
    read_page = ocr_function(options["ocr"], options["languages"], options.get("folder", "."))
    if read_page is None:
        return ""
    image = page.render(scale=options["dpi"] / 72).to_pil()
    image.info["dpi"] = (options["dpi"], options["dpi"])
    try:
        text = read_page(image, number, path)
    except UserError:
        raise
    except Exception as error:
        raise OcrError(f"{options['ocr']} raised {type(error).__name__}: {error}") from error
    if not isinstance(text, str):
        raise OcrError(f"{options['ocr']} returned {type(text).__name__}, not the page's text")
    return text.strip()


def advice(options: dict[str, Any]) -> str | None:
    """What to know before PDFs are read: None, or that scanned pages will be without text."""
    if options["ocr"] == "tesseract" and shutil.which("tesseract") is None:
        return (
            "tesseract is not installed, so scanned pages give no text (they are counted): apt-get install tesseract-ocr "
            "tesseract-ocr-tur, or say pdf: {ocr: none}"
        )
    return None


@lru_cache(maxsize=4)
def ocr_function(name: str, languages: str, folder: str = ".") -> ReadPage | None:
    """The function behind `pdf: ocr`; None for `none`, and for `tesseract` where the program is not installed.

    A plug-in's module is looked for among what is installed, then in `folder`, that of the YAML file, and the current one.
    Raises `UserError` for a plug-in that cannot be imported and for a language that Tesseract has no data of.
    """
    if name == "none":
        return None
    if name == "tesseract":
        program = shutil.which("tesseract")
        return _tesseract(program, languages) if program else None
    module, _, function = name.partition(":")
    folders = list(dict.fromkeys((str(Path(folder).resolve()), str(Path.cwd()))))
    # behind the others, so that no file there hides a module of ours; they stay, for what the plug-in imports later
    sys.path += [item for item in folders if item not in sys.path]
    try:
        return getattr(importlib.import_module(module), function)
    except Exception as error:  # the plug-in's own module may raise anything
        raise UserError(
            f"pdf: ocr: {name} cannot be imported ({type(error).__name__}: {error}): looked among the installed packages and "
            f"in {' and '.join(folders)}; write module:function, and put the module into one of them"
        ) from None


def _tesseract(program: str, languages: str) -> ReadPage:
    known = _installed(program)
    lacking = [language for language in languages.split("+") if language not in known]
    if lacking:
        raise UserError(
            f"pdf: languages: {program} has no data of {', '.join(lacking)} (it has {', '.join(known) or 'none'}): "
            f"install it, such as by apt-get install tesseract-ocr-{lacking[0]}, or choose another"
        )
    turning = ["--psm", "1"] if "osd" in known else []  # finds out which way is up
    command = [program, "stdin", "stdout", "-l", languages, *turning]
    # its own threads make a page several times as slow where every core has a task
    environment = os.environ | {"OMP_THREAD_LIMIT": "1"}

    def read_page(image: Any, page: int, path: str) -> str:
        data = io.BytesIO()
        image.save(data, format="PNG", dpi=image.info["dpi"])
        try:
            done = subprocess.run(
                command, input=data.getvalue(), capture_output=True, timeout=_OCR_SECONDS, check=False, env=environment
            )
        except subprocess.TimeoutExpired:
            return ""
        if done.returncode:
            complaint = done.stderr.decode(errors="replace").strip().splitlines()
            raise UserError(f"tesseract cannot read page {page} of {path}: {'; '.join(complaint) or 'it gives no reason'}")
        return done.stdout.decode(errors="replace")

    return read_page


def _installed(program: str) -> list[str]:
    """The names of Tesseract's data files."""
    listed = subprocess.run([program, "--list-langs"], capture_output=True, text=True, timeout=_OCR_SECONDS, check=False)
    return [line.strip() for line in listed.stdout.splitlines()[1:] if line.strip()]
