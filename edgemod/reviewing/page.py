"""The review page: one HTML document with its styles and scripts inside, and nothing from outside.

Served, it asks its server for records; exported, it carries them. In both a Content-Security-Policy
names the only style and the only scripts that may run, by their SHA-256: so nothing that a record
holds can run, load or send anything, even if it found a way into the page.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final, Literal

_HERE: Final = Path(__file__).parent


def page(kind: Literal["served", "exported"], data: dict[str, Any]) -> tuple[str, str]:
    """The document and its Content-Security-Policy.

    ``data`` is what the scripts begin with; for ``exported`` it holds the records.
    """
    style = _file("page.css")
    scripts = [_file("served.js" if kind == "served" else "exported.js"), _file("page.js")]
    policy = "; ".join(
        [
            "default-src 'none'",
            "script-src " + " ".join(map(_hash, scripts)),
            f"style-src {_hash(style)}",
            "connect-src 'self'" if kind == "served" else "connect-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    parts = {
        "policy": policy,
        "style": style,
        "data": _inert(data),
        "scripts": "".join(f"<script>{script}</script>\n" for script in scripts),
    }
    # One pass: what is put in is not looked through again.
    document = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _file("page.html"))
    return document, policy


def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _inert(data: dict[str, Any]) -> str:
    """JSON that can stand inside a script element: nothing in it ends or begins a tag."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)  # ASCII
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
