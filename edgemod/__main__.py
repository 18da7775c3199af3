"""Where the process starts: ``edgemod`` and ``python -m edgemod``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit the process with the documented code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, as some schedulers start their jobs
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115
    try:
        from edgemod import exits, offline
        from edgemod.cli import cli

        # `review serve` makes its listening socket, then calls it.
        if sys.argv[1:3] != ["review", "serve"] and not asks_for_ray(sys.argv[1:]):
            offline.guard()  # of every command; a program that calls the library is left alone
    except KeyboardInterrupt:  # in the tenths of a second before exits.py looks after it
        sys.stderr.write("edgemod: interrupted\n")
        sys.exit(130)
    exits.run(cli)


def asks_for_ray(arguments: list[str]) -> bool:
    """Whether the command is ``triage --engine ray``, which must reach the cluster.

    As click itself reads the options of ``triage``, so that it is nothing else that looks like it.
    """
    import click

    from edgemod.cli import cli

    if arguments[:1] != ["triage"]:
        return False
    parent = click.Context(cli, **cli.context_settings)
    context = cli.commands["triage"].make_context(
        "triage", arguments[1:], parent, resilient_parsing=True
    )
    return context.params.get("engine") == "ray"


if __name__ == "__main__":
    main()
