"""PDF: a file is a document; the text layer by PDFium, scanned pages by OCR.

A plug-in for OCR, as for the vision language model of the paper, is any function

    def read_page(image: PIL.Image.Image, page: int, path: str) -> str

named in the YAML file as `pdf: {ocr: "package.module:read_page"}`. `image` is the page in colour at `pdf: dpi`, `page`
counts from 1. It is called only for pages that have next to no text of their own, once a page, in the order of the pages,
by one process a task; for equal images it must return equal texts, or a resumed run differs from an undisturbed one. The
function's module is imported in each task once: load a model there, and run `--workers` no more than the GPUs hold.
"""

from __future__ import annotations

import importlib
import io
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from mecellem.errors import UserError
from preprocessing.sources.found import Found, Item, Part, Problem, Reading

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
            yield _document(document, part, reading)


def _document(document: Any, part: Part, reading: Reading) -> Item:
    import pypdfium2

    pages: list[str] = []
    missed: list[int] = []
    size = 0
    for number in range(len(document)):
        try:
            page = document[number]
            text = page.get_textpage().get_text_bounded().replace("\r\n", "\n").replace("\ufffe", "-").strip()
        except pypdfium2.PdfiumError as error:
            return Problem(number + 1, "broken_pdf", f"page {number + 1}: {error}")
        if len(text) < reading.options["min_characters"]:
            text = _scanned(page, number + 1, part.path, reading.options) or text
            if not text:
                missed.append(number + 1)
        pages.append(text)
        size += len(text)
        if size > reading.record_size:
            return Problem(number + 1, "too_long", f"the text up to this page has more than {reading.record_size:,} characters")
        page.close()
    if not any(pages) and missed:
        return Problem(0, "needs_ocr", f"none of its {len(missed):,} pages has text; pdf: ocr is {reading.options['ocr']}")
    return Found(1, {reading.text_field: "\n\n".join(page for page in pages if page), "pages_without_text": missed})


def _scanned(page: Any, number: int, path: str, options: dict[str, Any]) -> str:
    """What OCR reads on a page; nothing where the page shows nothing, or no OCR is set up."""
    read_page = ocr_function(options["ocr"], options["languages"])
    if read_page is None or not any(True for _ in page.get_objects(max_depth=2)):
        return ""
    image = page.render(scale=options["dpi"] / 72).to_pil()
    return read_page(image, number, path).strip()


@lru_cache(maxsize=4)
def ocr_function(name: str, languages: str) -> ReadPage | None:
    """The function behind `pdf: ocr`; None for `none`, and for `tesseract` where the program is not installed.

    Raises `UserError` for a plug-in that cannot be imported.
    """
    if name == "none":
        return None
    if name == "tesseract":
        program = shutil.which("tesseract")
        return _tesseract(program, languages) if program else None
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"pdf: ocr: {name} cannot be imported ({error}): write package.module:function") from None


def _tesseract(program: str, languages: str) -> ReadPage:
    def read_page(image: Any, page: int, path: str) -> str:
        data = io.BytesIO()
        image.save(data, format="PNG")
        command = [program, "stdin", "stdout", "-l", languages]
        try:
            done = subprocess.run(command, input=data.getvalue(), capture_output=True, timeout=_OCR_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return ""
        if done.returncode:
            complaint = done.stderr.decode(errors="replace").strip().splitlines()
            raise UserError(
                f"tesseract cannot read page {page} of {path} ({complaint[-1] if complaint else 'no message'}): "
                f"install its language {languages!r} or set pdf: languages"
            )
        return done.stdout.decode(errors="replace")

    return read_page
