"""Write docs/commands.md from the commands' own help. A test fails if the page is out of date.

python scripts/make_docs.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from edgemod.cli import cli

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"


def page() -> str:
    """The whole page in Markdown."""
    lines = [
        "# Commands",
        "",
        "Written by `make docs` from `--help`; edit the commands, not this page.",
        "",
        "Exit codes: 0 done, 1 an edgemod error, 2 wrong usage, 3 what `verify` found differs, "
        "130 interrupted.",
        "",
    ]
    for name, command in _commands("edgemod", cli):
        context = click.Context(
            command,
            info_name=name,
            terminal_width=100,
            help_option_names=["-h", "--help"],
        )
        lines += [f"## {name}", "", "```text", command.get_help(context).rstrip(), "```", ""]
    return "\n".join(lines)


def _commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for child in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), child)
            if found is not None:
                yield from _commands(f"{name} {child}", found)


if __name__ == "__main__":
    PAGE.write_text(page())
