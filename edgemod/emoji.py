"""Emoji in words, for a model whose vocabulary has none.

An encoder reads every emoji as one and the same unknown token: a flag, a cake and an insult
look alike. Their Unicode names say what they show.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Final

from edgemod.kernels.tables import EMOJI

_REGIONAL: Final = "\U0001f1e6-\U0001f1ff"
_SKIN: Final = {
    "\U0001f3fb": "light skin",
    "\U0001f3fc": "light skin",
    "\U0001f3fd": "brown skin",
    "\U0001f3fe": "dark skin",
    "\U0001f3ff": "black skin",
}
_FOUND: Final = re.compile(
    f"[{_REGIONAL}]{{2}}|[{''.join(f'{chr(low)}-{chr(high)}' for low, high in EMOJI)}"
    f"{''.join(_SKIN)}]"
)
# What names say besides what is shown.
_NOISE: Final = re.compile(r"\b(?:sign|symbol|emoji|white|heavy|black|with|of|and|the)\b")


def in_words(text: str) -> str:
    """The text with the name of each emoji in its place; of the same one in a row only one.

    A pair of regional letters is a "flag". Names are those of the Unicode version of the Python
    in use; an emoji without one is left out. ``text`` is in normal form, where nothing but the
    emoji themselves is left of a sequence.
    """
    if text.isascii():
        return text
    out: list[str] = []
    last, end = "", 0
    for found in _FOUND.finditer(text):
        between = text[end : found.start()]
        name = _name(found[0])
        out.append(between)
        if name != last or between.strip():
            out.append(f" {name} ")
        last, end = name, found.end()
    return "".join((*out, text[end:]))


@cache
def _name(emoji: str) -> str:
    if len(emoji) == 2:
        return "flag"
    if emoji in _SKIN:
        return _SKIN[emoji]
    return " ".join(_NOISE.sub(" ", unicodedata.name(emoji, "").lower()).split())
