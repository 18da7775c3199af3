"""Numba kernels over byte and offset buffers, and the tables they read.

Numba compiles them when they are first called and keeps what it made, so that this is once on a
machine, but it takes most of a minute. The logger ``edgemod`` tells of it when it begins: Python
shows that on stderr, unless a program has set up logging otherwise.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from numba.core.caching import Cache
from numba.core.event import Event, Listener, register


class _First(Listener):
    """Waits for the first kernel that is compiled; one that is read from the cache is no event."""

    def __init__(self) -> None:
        self._told = False

    def on_start(self, event: Event) -> None:
        """Tell, once, if the kernel is one of edgemod's."""
        module = event.data["dispatcher"].py_func.__module__
        if not self._told and module.partition(".")[0] == "edgemod":
            self._told = True
            logging.getLogger("edgemod").warning(
                "compiling kernels for this machine, once: this takes up to a minute"
            )

    def on_end(self, event: Event) -> None:
        """Nothing."""


register("numba:compile", _First())  # type: ignore[no-untyped-call]


_save: Any = Cache.save_overload


def _save_if_there_is_room(self: Cache, sig: Any, data: Any) -> None:
    with contextlib.suppress(OSError):
        _save(self, sig, data)


# A disk that is full when the kernels are first compiled must not end what needs them: without a
# copy on disk the next process compiles them again.
Cache.save_overload = _save_if_there_is_room
