"""Progress on stderr: a bar, or lines for programs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from edgemod.screen.console import Console

if TYPE_CHECKING:
    from edgemod import pipeline


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} records/s" if task.speed else "")


@contextlib.contextmanager
def progress(kind: str) -> Iterator[Callable[[pipeline.Progress], None]]:
    """Progress on stderr as a "bar", as "json", a line a chunk, or not at all; what to call."""
    if kind == "bar":
        with bar() as update:
            yield update
        return

    def tell(event: pipeline.Progress) -> None:
        rounded = dataclasses.replace(event, seconds=round(event.seconds, 1))
        sys.stderr.write(json.dumps(dataclasses.asdict(rounded)) + "\n")
        sys.stderr.flush()

    yield tell if kind == "json" else lambda event: None


@contextlib.contextmanager
def reading(shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr for records that are read; yields what to call with how many of how many."""
    if not shown:
        yield lambda done, total: None
        return
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(SpinnerColumn(), *columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def bar() -> Iterator[Callable[[pipeline.Progress], None]]:
    """A progress bar on stderr with rate and time left; yields what to call after a chunk."""
    shown = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with shown:
        task = shown.add_task("loading models", total=None)

        def update(event: pipeline.Progress) -> None:
            shown.update(
                task,
                completed=event.records,
                total=event.total,
                description=f"triage, {event.review:,} for review",
            )

        yield update
