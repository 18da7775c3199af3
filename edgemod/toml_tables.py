"""Reading the tables of a TOML file so that every mistake is noted, with its line, at once."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from edgemod.toml_lines import Place
from edgemod.words import CATEGORIES

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
NAME: Final = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


class Notes:
    """Mistakes found so far, each at the line of its value or of what should hold it."""

    def __init__(self, lines: Mapping[Place, int]) -> None:
        self.lines = lines
        self.problems: list[tuple[int, str]] = []
        self.places: list[Place] = []

    def add(self, place: Place, message: str) -> None:
        """Note a mistake at a place, or at what should hold it."""
        self.places.append(place)
        while place not in self.lines:
            place = place[:-1]
        self.problems.append((self.lines[place], message))


class Table:
    """One TOML table. Each getter notes what is wrong and then returns a harmless stand-in."""

    def __init__(
        self, notes: Notes, place: Place, label: str, data: dict[str, Any], known: Sequence[str]
    ) -> None:
        self.notes, self.place, self.label, self.data = notes, place, label, data
        for key in data:
            if key not in known:
                what = "category" if place == ("category",) else "key"
                self.note(f"unknown {what} {show(key)}{nearest(key, known)}", key)

    def note(self, message: str, *below: str | int) -> None:
        """Note a mistake in this table, or in what is below it."""
        label = f"{self.label}: " if self.label else ""
        self.notes.add((*self.place, *below), label + message)

    def noted(self, *keys: str) -> bool:
        """Whether a mistake was found in one of these keys."""
        places = [(*self.place, key) for key in keys]
        return any(at[: len(place)] == place for at in self.notes.places for place in places)

    def _get(self, key: str, kinds: tuple[type, ...], wanted: str, required: bool) -> Any:
        if key not in self.data:
            if required:
                self.note(f"{key} is missing")
            return None
        value = self.data[key]
        if type(value) not in kinds:  # exact types: True is no number
            self.note(f"{key} must be {wanted}, not {kind_of(value)}", key)
            return None
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """One line of text; white space in a multi-line string becomes single spaces."""
        value = self._get(key, (str,), "a text", required=default is None)
        if value is None:
            return default or ""
        line = " ".join(value.split())
        if not line:
            self.note(f"{key} is empty", key)
        elif CONTROL.search(line):
            self.note(f"{key} holds a control character", key)
        return line

    def raw(self, key: str) -> str:
        """A text as it stands, line breaks and all."""
        value = self._get(key, (str,), "a text", required=True)
        return value or ""

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        """One of some words."""
        value = self._get(key, (str,), "a text", required=default is None)
        if value is not None and value not in choices:
            self.note(f"unknown {key} {show(value)}{nearest(value, choices)}", key)
        return value if value in choices else default or ""

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number within limits, both included."""
        wanted = f"a whole number from {low} to {high}"
        value = self._get(key, (int,), wanted, required=default is None)
        if value is not None and not low <= value <= high:
            self.note(f"{key} must be {wanted}, not {show(value)}", key)
        if value is None:
            return low if default is None else default
        return int(value)

    def share(self, key: str, or_never: bool = False) -> float:
        """A number from 0 to 1."""
        wanted = "a number from 0 to 1" + (", or inf for never" if or_never else "")
        value = self._get(key, (int, float), wanted, required=True)
        if value is None:
            return float("nan")  # compares false with everything: no second mistake follows
        if not (0 <= value <= 1 or (or_never and value == math.inf)):
            self.note(f"{key} must be {wanted}, not {show(value)}", key)
            return float("nan")
        return float(value)

    def texts(self, key: str, required: bool = False) -> list[tuple[int, str]]:
        """Texts of a list, each with its position in it."""
        found = []
        for index, value in enumerate(self._get(key, (list,), "a list of texts", required) or ()):
            if type(value) is str:
                found.append((index, value))
            else:
                self.note(f"{key} must hold texts, not {kind_of(value)}", key, index)
        return found

    def choices(
        self, key: str, choices: Sequence[str], default: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Some of some words, each once."""
        if key not in self.data:
            return default
        found = self.texts(key)
        for index, value in found:
            if value not in choices:
                self.note(f"{key}: unknown {show(value)}{nearest(value, choices)}", key, index)
        return tuple(dict.fromkeys(value for _, value in found if value in choices))

    def name(self) -> str:
        """The name of a lexicon or rule, in the form that conditions can refer to."""
        name = self.text("name")
        if name and not NAME.fullmatch(name):
            self.note("name must be lower-case letters, digits and _, a letter first", "name")
        return name

    def category(self, enabled: Iterable[str]) -> str:
        """The name of a category that is enabled."""
        name = self.choice("category", CATEGORIES)
        if name and name not in enabled:
            self.note(f"category {name} is not enabled: there is no [category.{name}]", "category")
        return name

    def table(self, key: str, known: Sequence[str], label: str) -> Table | None:
        """A table in this one; None where there is none."""
        data = self._get(key, (dict,), "a table", required=False)
        return None if data is None else Table(self.notes, (*self.place, key), label, data, known)

    def tables(self, key: str, known: Sequence[str]) -> list[Table]:
        """Tables of a list, labelled by their names, which must differ."""
        found: list[Table] = []
        first: dict[str, int] = {}
        for index, data in enumerate(self._get(key, (list,), f"written as [[{key}]]", False) or ()):
            if type(data) is not dict:
                self.note(f"{key} must hold tables, not {kind_of(data)}", key, index)
                continue
            place, name = (*self.place, key, index), data.get("name")
            label = f"{key} {show(name)}" if type(name) is str else f"{key} {index + 1}"
            found.append(Table(self.notes, place, label, data, known))
            if type(name) is str and (earlier := first.setdefault(name, index)) != index:
                line = self.notes.lines[(*self.place, key, earlier)]
                found[-1].note(f"line {line} already has a {key} of this name", "name")
        return found


def nearest(name: str, choices: Sequence[str]) -> str:
    """What a name was meant to be, to end a message with; may be empty."""
    if close := difflib.get_close_matches(name.lower(), choices):
        likely = min(close, key=lambda choice: choice[0] != name[0].lower())
        return f'; did you mean "{likely}"?'
    return f"; one of {', '.join(choices)}" if len(choices) <= 10 else ""


def kind_of(value: object) -> str:
    """What a TOML value is, in words."""
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return {**kinds, list: "a list", dict: "a table"}.get(type(value), "a date or time")


def show(value: object) -> str:
    """A value as a message may show it: short and on one line."""
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return "a very large number"  # Python refuses to print one of thousands of digits
    if not isinstance(value, str):
        return str(value)
    shown = value if len(value) <= 60 else value[:57] + "..."
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return f'"{"".join(escaped)}"'
