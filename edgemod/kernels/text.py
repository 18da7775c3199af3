"""What every kernel asks of bytes: decoding, ASCII classes, links.

All functions check bounds before they read, so invalid UTF-8 is safe: a byte that begins no
character counts as one unknown character.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from numba import njit, types

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
F = TypeVar("F", bound=Callable[..., Any])

DATA = types.Array(types.uint8, 1, "C", readonly=True)
OFFSETS = types.Array(types.int64, 1, "C", readonly=True)
PAGE_TABLE = types.Array(types.uint16, 1, "C", readonly=True)
"""Numba types of the kernels' read-only arguments."""


UNCOUNTED: Final[dict[str, Any]] = {"cache": True, "nogil": True, "_nrt": False}
"""How a kernel that allocates nothing is compiled: numba counts no references in it.

It would for each array in each call, with locked instructions: a third of normalising and of
looking for terms, and half of looking for personal data, in texts of 100 characters. The arrays
are the caller's, who holds them.
"""


def inner(function: F) -> F:
    """Decorator of a kernel that other kernels call and that allocates nothing."""
    return njit(**UNCOUNTED)(function)


@inner
def decode(data: Bytes, i: int, end: int) -> tuple[int, int]:
    """The code point at ``i`` and its bytes; (0xFFFD, 1) where no character begins."""
    lead = np.int64(data[i])
    if lead < 0x80:
        return lead, 1
    size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if lead < 0xC2 or lead > 0xF4 or i + size > end:
        return 0xFFFD, 1
    code = lead & (0x7F >> size)
    for k in range(i + 1, i + size):
        if data[k] & 0xC0 != 0x80:
            return 0xFFFD, 1
        code = code << 6 | np.int64(data[k] & 0x3F)
    return (code, size) if code < 0x110000 else (0xFFFD, 1)


@inner
def longest(offsets: Ints) -> int:
    """Bytes of the longest text: what scratch needs that one text fills."""
    most = 0
    for row in range(len(offsets) - 1):
        most = max(most, offsets[row + 1] - offsets[row])
    return most


@inner
def char_before(data: Bytes, start: int, i: int) -> int:
    """Where the code point that ends at ``i`` begins; ``i > start``."""
    low = i - 1
    while low > start and low > i - 4 and data[low] & 0xC0 == 0x80:
        low -= 1
    return low


@inner
def lookup(code: int, pages: Bytes, entries: Ints) -> int:
    """The entry of a code point; see tables.py."""
    return entries[np.int64(pages[code >> 8]) << 8 | code & 255]


@inner
def is_digit(byte: int) -> bool:
    """ASCII 0 to 9."""
    return 48 <= byte <= 57


@inner
def is_letter(byte: int) -> bool:
    """ASCII a to z, either case."""
    return 97 <= byte | 32 <= 122


@inner
def is_alnum(byte: int) -> bool:
    """ASCII letter or digit."""
    return is_letter(byte) or is_digit(byte)


@inner
def among(byte: int, some: bytes) -> bool:
    """Whether ``byte`` is one of ``some`` (numba has no ``in`` for bytes)."""
    for k in range(len(some)):  # noqa: SIM110 - numba has no any() either
        if some[k] == byte:
            return True
    return False


@inner
def starts(data: Bytes, i: int, end: int, word: bytes) -> bool:
    """Whether the ASCII lower-case ``word`` stands at ``i``, in either case."""
    if i + len(word) > end:
        return False
    for k in range(len(word)):
        byte = data[i + k]
        if 65 <= byte <= 90:
            byte |= 32
        if byte != word[k]:
            return False
    return True


@inner
def _scheme(data: Bytes, i: int, end: int) -> int:
    """Length of the scheme (http, https, ftp, and hxxp as people defuse it) at ``i``, or 0."""
    if starts(data, i, end, b"ftp://"):
        return 6
    if starts(data, i, end, b"http") or starts(data, i, end, b"hxxp"):
        if starts(data, i + 4, end, b"://"):
            return 7
        if starts(data, i + 4, end, b"s://"):
            return 8
    return 0


@inner
def link_end(data: Bytes, start: int, i: int, end: int) -> int:
    """End of the web address that begins at ``i``, or ``i`` if none does.

    It begins with a scheme or ``www.`` that no ASCII letter or digit precedes, goes on with a
    letter or digit, and ends before white space, brackets, quotes, non-ASCII, and the
    punctuation that closes a sentence.
    """
    if i > start and is_alnum(data[i - 1]):
        return i
    head = 4 if starts(data, i, end, b"www.") else _scheme(data, i, end)
    j = i + head
    if head == 0 or j >= end or not is_alnum(data[j]):
        return i
    while j < end and 33 <= data[j] <= 126 and not among(data[j], b'"()<>[\\]^`{|}'):
        j += 1
    while among(data[j - 1], b".,;:!?'*_~"):
        j -= 1
    return j


@inner
def link_host(data: Bytes, i: int, end: int) -> tuple[int, int]:
    """Start and end of the host in the link ``data[i:end]``, without ``www.``."""
    low = i + _scheme(data, i, end)
    if starts(data, low, end, b"www.") and low + 4 < end and is_alnum(data[low + 4]):
        low += 4
    high = low
    while high < end and not among(data[high], b"/?#:"):
        high += 1
    return low, high
