"""Where things stand in a TOML document: lines for what tomllib parsed or refused.

tomllib keeps no positions, and neither does tomlkit. These functions walk the tokens of the same
text, leave every judgement about TOML itself to tomllib, and only ever count lines.
"""

from __future__ import annotations

import re
import tomllib
from typing import Final

Place = tuple[str | int, ...]
"""Keys and list positions that lead from the top of a document to a value."""

DEEPEST: Final = 16
"""Most brackets in brackets, and most parts of a dotted key. A policy has six at most; tomllib
takes time and memory by the square of both, or gives up."""

_TOKEN: Final = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"{3,5}|\Z)'  # a multi-line string may end in two quotes of its own
    r"|'''.*?(?:'{3,5}|\Z)"
    r'|"(?:\\.|[^"\\\n])*+"?'  # one that does not end is a token, too: no place is read twice
    r"|'[^'\n]*+'?"
    r"|#[^\n]*"
    r"|[ \t]+"
    r"|[^\s\[\]{}=,.\"'#]+"
    r"|.",
    re.DOTALL,
)
_SYNTAX_LINE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def locate(text: str) -> dict[Place, int]:
    """Give the 1-based line of every key, table and list element of a valid TOML document.

    A value stands where its key stands, a list element where it starts, a table at its header
    or, without one, where it first appears.
    """
    return _Locator(text).lines


class _Locator:
    """One walk over the tokens of a document that tomllib has accepted."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Place, int] = {(): 1}
        self.tables: dict[Place, int] = {}  # how many [[tables]] a place holds so far
        self.tokens = _tokens(text)
        self.tokens.append(("\n", 0))
        self.tokens.reverse()  # the next token is the last
        table: Place = ()
        while self.tokens:
            if self.next == "[":
                table = self.header()
            elif self.next != "\n":
                self.value(self.key(table))
            else:
                self.take()

    @property
    def next(self) -> str:
        return self.tokens[-1][0]

    def take(self) -> tuple[str, int]:
        return self.tokens.pop()

    def key(self, table: Place) -> Place:
        """Take a dotted key and its equals sign."""
        place = table
        for part, line in self.dotted():
            place = (*place, part)
            self.lines.setdefault(place, line)
        self.take()
        return place

    def dotted(self) -> list[tuple[str, int]]:
        parts = []
        while True:
            token, line = self.take()
            quoted = token[0] in "\"'"
            parts.append((tomllib.loads(f"k={token}")["k"] if quoted else token, line))
            if self.next != ".":
                return parts
            self.take()

    def header(self) -> Place:
        """Take [a.b] or [[a.b]]; return the place it opens, counting lists of tables."""
        self.take()
        many = self.next == "["
        if many:
            self.take()
        parts = self.dotted()
        place: Place = ()
        for depth, (part, line) in enumerate(parts, 1):
            place = (*place, part)
            self.lines.setdefault(place, line)
            if many and depth == len(parts):
                self.tables[place] = self.tables.get(place, 0) + 1
            if place in self.tables:
                place = (*place, self.tables[place] - 1)
        self.lines[place] = line  # over an earlier [a.b.c] that only implied it
        while self.next == "]":
            self.take()
        return place

    def value(self, place: Place) -> None:
        if self.next == "[":
            self.take()
            index = 0
            while not self.closes("]"):
                self.lines[(*place, index)] = self.tokens[-1][1]
                self.value((*place, index))
                index += 1
        elif self.next == "{":
            self.take()
            while not self.closes("}"):
                self.value(self.key(place))
        else:
            while self.next not in ",]}\n":
                self.take()

    def closes(self, bracket: str) -> bool:
        """Skip what separates elements; take the closing bracket if it comes next."""
        while self.next in ",\n":
            self.take()
        return self.next == bracket and bool(self.take())


def syntax_mistake(error: ValueError, text: str) -> tuple[int, str]:
    """Give the 1-based line and the message of what tomllib raised for `text`."""
    if not isinstance(error, tomllib.TOMLDecodeError):  # Python reads at most 4300 digits
        number = re.search(r"\d[\d_]{4000}", text)
        line = text.count("\n", 0, number.start()) + 1 if number else 1
        return line, "a number has too many digits"
    message = str(error)
    found = _SYNTAX_LINE.search(message)
    # Not splitlines: TOML's lines end in line feeds alone.
    last = max(1, text.count("\n") + (not text.endswith("\n")))
    line = int(found[1]) if found and found[1] else last
    return line, _SYNTAX_LINE.sub("", message)


def too_deep(text: str) -> int:
    """Give the 1-based line that first goes deeper than ``DEEPEST``; 0 if none does.

    The document need not be valid, but what comes before its first mistake is read as tomllib does.
    """
    depth = dots = 0
    for token, line in _tokens(text):
        depth = max(depth + (token in "[{") - (token in "]}"), 0)
        dots = 0 if token in "=,[]{}\n" else dots + (token == ".")
        if depth > DEEPEST or dots >= DEEPEST:
            return line
    return 0


def _tokens(text: str) -> list[tuple[str, int]]:
    """Tokens with their 1-based lines, without blanks and comments."""
    found, line = [], 1
    for token in _TOKEN.findall(text):
        if token[0] not in " \t#":
            found.append((token, line))
        line += token.count("\n")
    return found
