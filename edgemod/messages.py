"""Messages of conversations: what their fields are called; those of JSON brought to one type."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import pyarrow as pa

ROLES: Final = ("role", "from", "speaker", "author")
CONTENTS: Final = ("content", "value", "text", "message")
"""Names of the fields of a message, best first, as ``plain_name`` writes them."""

PARTS: Final = ("text", "content", "value", "parts")
"""Names of the fields that hold the text of a content that is an object, and of its parts."""

MESSAGES: Final = pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(pa.string()))]))
"""A conversation of JSONL as rows have it. A content that is there but has no text is an empty
list, so that it can be told from none."""

_SILENT: Final = {*CONTENTS, "tool_calls", "function_call"}


@functools.lru_cache(4096)
def plain_name(name: str) -> str:
    """Write createdAt, "Created At" and CREATED_AT alike: created_at."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


def is_talk(value: Any) -> bool:
    """Whether a JSON value is a list with a message in it: an object that may have a text."""
    return isinstance(value, list) and any(
        plain_name(name) in CONTENTS and (content is None or isinstance(content, str | list | dict))
        for item in value
        if isinstance(item, dict)
        for name, content in item.items()
    )


def talk(value: Any) -> Any:
    """Bring a conversation to the type ``MESSAGES``; what is not a list is left to fail there."""
    return [_message(item) for item in value] if isinstance(value, list) else value


def _message(item: Any) -> dict[str, Any] | None:
    """Reduce a message to its role and the strings of its content; a bare one has no role."""
    if item is None:
        return None
    if not isinstance(item, dict):
        return {"role": None, "content": _strings(item)}
    pairs = sorted(item.items(), key=lambda pair: pair[1] is not None)  # of two names the said one
    named = {plain_name(name): value for name, value in pairs}
    role = next((named[name] for name in ROLES if isinstance(named.get(name), str)), None)
    contents = [named[name] for name in CONTENTS if named.get(name) is not None]
    # Silent only if it says so: its text may have a name that is not known here.
    if not contents and (named.keys() & _SILENT or named.keys() <= {*ROLES}):
        return {"role": role, "content": None}
    return {"role": role, "content": max(map(_strings, contents), key=any, default=[])}


def _strings(content: Any) -> list[str]:
    """Collect the strings of a content and of its parts, however deep; numbers as text."""
    if isinstance(content, str):
        return [content]
    if isinstance(content, int | float) and not isinstance(content, bool):
        return [str(content)]
    if isinstance(content, dict):
        content = [part for name, part in content.items() if plain_name(name) in PARTS]
    return [s for part in content for s in _strings(part)] if isinstance(content, list) else []
