"""How a process ends: errors to messages on stderr and exit codes.

Exit codes: 0 done, 1 an edgemod error, 2 wrong usage, 3 files of a run are not those that it wrote
(``verify``), 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from edgemod.errors import EdgemodError

DIFFERENT = 3
INTERRUPTED = 130

_UNWRITABLE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What a write to an open file fails with, where it is for no mistake of edgemod."""


def run(command: click.Command) -> NoReturn:
    """Run a command line and exit the process with the documented code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what an old locale cannot show is escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        code = command.main(prog_name="edgemod", standalone_mode=False)
    except EdgemodError as error:
        _tell(f"edgemod: {error}\n")
        sys.exit(error.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("edgemod: interrupted", err=True)
        # At once: an interrupt that native code met would turn an ordinary exit into a signal.
        sys.stdout.flush()
        os._exit(INTERRUPTED)
    except click.ClickException as error:
        from edgemod.screen.console import printable

        told = io.StringIO()
        # It quotes arguments: names of files, at times. Click declares it final.
        vars(error)["message"] = printable(error.message)
        error.show(told)
        _tell(told.getvalue())
        sys.exit(error.exit_code)
    except _NoOutputError as error:
        # What is still in the buffers must not fail once more at exit.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        if error.errno == errno.EPIPE:  # the reader (head, less) has gone, and wants no more
            sys.exit(0)
        _tell(f"edgemod: the output cannot be written: {error}\n")
        sys.exit(1)
    except Exception:  # a mistake of edgemod; its message may quote what it choked on
        _tell(traceback.format_exc())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _tell(message: str) -> None:
    from edgemod.screen.console import printable

    with contextlib.suppress(OSError):
        click.echo(printable(message, lines=True), err=True, nl=False)


class _NoOutputError(Exception):
    """Standard output or error cannot be written to."""

    def __init__(self, error: OSError) -> None:
        self.errno = error.errno
        super().__init__(error.strerror)


@contextlib.contextmanager
def _output() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _UNWRITABLE and error.filename is None:
            raise _NoOutputError(error) from error
        raise


class Group(click.Group):
    """Commands whose output may fail: click itself makes an exit 1 of a reader that has gone."""

    def make_context(self, *given: Any, **named: Any) -> click.Context:
        """Parse the arguments."""
        with _output():  # of --help and --version
            return super().make_context(*given, **named)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _output():
            return super().invoke(ctx)
