"""Numba kernels over byte and offset buffers, and the tables they read.

Numba compiles them when they are first called and keeps what it made, so that this is once on a
machine, but it takes most of a minute. The logger ``edgemod`` tells of it when it begins: Python
shows that on stderr, unless a program has set up logging otherwise.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from typing import Any

from numba.core.event import Event, Listener, register


class _Compiling(Listener):
    """Is told of each kernel that is compiled; one that is read from the cache is no event."""

    def __init__(self) -> None:
        self._told = False

    def on_start(self, event: Event) -> None:
        """Of edgemod's own: tell of the first, and let each be kept only if that can be."""
        dispatcher = event.data["dispatcher"]
        if dispatcher.py_func.__module__.partition(".")[0] != "edgemod":
            return
        cache = dispatcher._cache
        cache.save_overload = functools.partial(_save_if_there_is_room, cache)
        if not self._told:
            self._told = True
            logging.getLogger("edgemod").warning(
                "compiling kernels for this machine, once: this takes up to a minute"
            )

    def on_end(self, event: Event) -> None:
        """Nothing."""


def _save_if_there_is_room(cache: Any, signature: Any, data: Any) -> None:
    """Keep what was compiled, unless the disk is full: then the next process compiles it again."""
    with contextlib.suppress(OSError):
        type(cache).save_overload(cache, signature, data)


register("numba:compile", _Compiling())  # type: ignore[no-untyped-call]
