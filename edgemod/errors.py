"""Every error edgemod raises on purpose.

    EdgemodError            exit 1: what went wrong, where, and what to do
    |-- InputError          a record file, column or folder that cannot be read
    |-- PolicyError         a policy with mistakes; carries all of them
    |-- ModelError          a filter, encoder or guard that is missing, unknown or damaged
    |-- CalibrationError    a calibration that does not fit the filter, model or policy
    |-- OutputError         a folder or file that cannot be written
    `-- RunError            a run that another run, or a changed plan, stands in the way of

Messages never quote the text of a record.
"""

from __future__ import annotations

import copyreg
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from edgemod.words import counted


class EdgemodError(Exception):
    """What went wrong (``what``), at which file, row or line (``where``), what to do (``fix``)."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what, where, fix)

    def __reduce__(self) -> tuple[Any, ...]:
        # The usual way would call __init__ with what __init__ gave to Exception.
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        fix = f"\n  {self.fix}" if self.fix else ""
        # The lines of a message are indented: one that is not is of a name with a line feed in it.
        return re.sub(r"\n(?!  )", r"\\n", f"{where}{self.what}{fix}")


class InputError(EdgemodError):
    """A record file, column or folder that cannot be read."""


class PolicyError(EdgemodError):
    """A policy with mistakes, all of them in ``problems``: (line, message), 1-based lines.

    One that cannot be read has none, but as other errors ``what`` and ``fix``.
    """

    def __init__(
        self, where: str, problems: Sequence[tuple[int, str]] = (), *, what: str = "", fix: str = ""
    ) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = "\n".join(f"  line {line}: {message}" for line, message in self.problems)
        told = f"{counted(count, 'problem')}\n{lines}"
        super().__init__(what or told, where=where, fix=fix)


class ModelError(EdgemodError):
    """A filter, encoder or guard that is missing, unknown or damaged."""


class CalibrationError(EdgemodError):
    """A calibration that does not fit the filter, model or policy."""


class OutputError(EdgemodError):
    """A folder or file that cannot be written."""


class RunError(EdgemodError):
    """A run that another run, or a changed plan, stands in the way of."""


def to_json(error: EdgemodError) -> dict[str, Any]:
    """An error as a JSON object, to travel from a worker process; ``from_json`` undoes it."""
    return {"kind": type(error).__name__, "state": vars(error)}


def from_json(document: dict[str, Any]) -> EdgemodError:
    """The error that ``to_json`` described."""
    kinds: tuple[type[EdgemodError], ...] = (EdgemodError, *EdgemodError.__subclasses__())
    kind = next(k for k in kinds if k.__name__ == document["kind"])
    error = kind.__new__(kind)
    error.__dict__.update(document["state"])
    return error
