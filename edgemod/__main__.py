"""Where the process starts: ``edgemod`` and ``python -m edgemod``."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit the process with the documented code."""
    try:
        from edgemod import exits, offline
        from edgemod.cli import cli

        offline.guard()  # of every command; a program that calls the library is left alone
    except KeyboardInterrupt:  # in the tenths of a second before exits.py looks after it
        sys.stderr.write("edgemod: interrupted\n")
        sys.exit(130)
    exits.run(cli)


if __name__ == "__main__":
    main()
