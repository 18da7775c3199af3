"""Write the table of dependencies and licences in docs/security.md; a test fails if it is old.

python scripts/licences.py     reads what is installed: no network, a moment
"""

from __future__ import annotations

import re
import tomllib
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "security.md"
BEGIN: Final = "<!-- scripts/licences.py writes this -->"
END: Final = "<!-- to here -->"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def declared() -> list[str]:
    """The names that pyproject.toml declares, extras left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return sorted(map(_name, project["dependencies"]))


def licence(name: str) -> str:
    """What a package's metadata says: the SPDX expression, else the classifiers, else the text."""
    about: Message = metadata.metadata(name)  # type: ignore[assignment]
    if expression := about.get("License-Expression"):
        return str(expression)
    marked = [str(one) for one in about.get_all("Classifier", ()) if str(one).startswith("License")]
    if marked:
        return ", ".join(one.split(" :: ")[-1] for one in marked)
    return str(about.get("License", "")).strip().split("\n")[0] or "not stated"


def table() -> str:
    """Every package that edgemod needs to run, in Markdown: those declared, then what they need."""
    direct = declared()
    needed_by: dict[str, list[str]] = {}
    queue = [*direct]
    for name in queue:
        for requirement in metadata.requires(name) or ():
            needed = _name(requirement)
            if "extra ==" in requirement or not _installed(needed):
                continue
            if needed not in direct:
                needed_by.setdefault(needed, []).append(name)
            if needed not in queue:
                queue.append(needed)
    rows = [(name, "edgemod", licence(name)) for name in direct]
    rows += [(name, ", ".join(by), licence(name)) for name, by in sorted(needed_by.items())]
    lines = ["| package | needed by | licence, as its metadata says |", "|---|---|---|"]
    lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with the table of now."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def _name(requirement: str) -> str:
    found = _NAME.match(requirement)
    assert found is not None
    return found.group().lower().replace("_", "-")


def _installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
