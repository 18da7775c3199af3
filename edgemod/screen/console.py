"""What every screen is made of: the console, tables, and text that cannot drive a terminal."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

import rich.console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from edgemod.metrics import Estimate


_LOG_WIDTH: Final = 200
COLOURS: Final = {"clear": "green", "flag": "red", "review": "yellow"}
"""Of verdicts."""
MOST_SHOWN: Final = 20
"""Rows of a table that grows with what it is about."""


class Console(rich.console.Console):
    """A console that leaves it to the command line what a reader that has gone means."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, emoji=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = _LOG_WIDTH  # what goes to a log is not cut into lines for nobody

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, where rich would end the process."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def area(found: Estimate | None) -> str:
    """An area under a curve with its interval."""
    return f"{found.value:.3f} ({found.low:.2f}-{found.high:.2f})" if found else "-"


def share(found: Estimate | None) -> str:
    """A share with its interval, in percent."""
    if not found:
        return "-"
    return f"{found.value:.1%} ({100 * found.low:.0f}-{100 * found.high:.0f})"


def table_of(*columns: str) -> Table:
    """An empty table; columns whose names stand for numbers are set to the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        numeric = name in {
            "records",
            "share",
            "texts seen",
            "texts/s a core",
            "probability",
            "texts",
            "terms",
            "allowed",
            "severity",
            "violating",
            "AUPRC",
            "AUROC",
            "clear",
            "flag",
            "review",
            "measured",
            "ratio",
        }
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    return table


def safe(text: str, *, lines: bool = False) -> str:
    """Text as it is, for rich: nothing in it is markup, and nothing drives the terminal."""
    return escape(printable(text, lines=lines))


def printable(text: str, *, lines: bool = False) -> str:
    """Text with all that has no ink escaped: controls, ANSI escapes, bidirectional overrides.

    So a name can neither drive the terminal nor read as another; nor, unless ``lines``, can it
    write a line of its own.
    """
    return "".join(
        c if c.isprintable() or (lines and c == "\n") else c.encode("unicode_escape").decode()
        for c in text
    )


def percent(count: int, total: int) -> str:
    """A share in percent, nothing of nothing."""
    return f"{count / total:.1%}" if total else ""
