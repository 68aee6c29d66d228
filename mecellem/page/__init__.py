"""Self-contained HTML pages: one look, tables that sort, figures with their data, nothing loaded from anywhere.

A page is a Jinja template that extends `base.html.j2` and takes its macros from `parts.html.j2`; both lie here.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from mecellem import __version__

HERE = Path(__file__).parent


def render(template: Path, **values: Any) -> str:
    """The page of a template file. `values` must hold `title`, `over`, `heading`, `headline` and `tiles`, and what it uses.

    A name that the template uses and `values` lacks is an error.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, HERE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(
        style=(HERE / "style.css").read_text(encoding="utf-8"),
        script=(HERE / "sort.js").read_text(encoding="utf-8"),
        version=__version__,
        **values,
    )


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as a `data:` address; `kind` is their media type, "image/png" say."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def csv_uri(text: str) -> str:
    """A CSV file as a `data:` address, for the link under a figure."""
    return data_uri(text.encode(), "text/csv;charset=utf-8")
