"""Keys for what is computed once and kept: by the content that it depends on, and by the code that computed it."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def content_key(parts: Any) -> str:
    """Twenty hexadecimal digits that change with anything in `parts` (JSON values)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:20]


@cache
def source_sha256(*rooms: str) -> str:
    """SHA-256 over the Python sources of packages (`a/b`) and files (`a/b.py`): what other code computed is not this code's."""
    digest = hashlib.sha256()
    places = [ROOT / room for room in rooms]
    for path in sorted(path for place in places for path in ([place] if place.is_file() else place.rglob("*.py"))):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()
