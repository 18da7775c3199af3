"""A policy: what each category means, and which rules, word lists and limits apply.

`load_policy` reads a TOML file and the word lists beside it into frozen values. It either
returns a policy without a mistake or raises one `PolicyError` that names every mistake, its line
and the nearest valid name. A policy is only data: nothing in it is ever run.
"""

from __future__ import annotations

import difflib
import hashlib
import html
import json
import math
import re
import stat
import tomllib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

from edgemod.errors import PolicyError
from edgemod.toml_lines import Place, deepest_line, locate, syntax_mistake
from edgemod.words import CATEGORIES, FEATURES, OPERATORS, Verdict

DEFAULT_POLICY: Final = Path(__file__).with_name("policies") / "default.toml"
"""The policy that ships with edgemod."""

STAGES: Final = ("rule", "filter", "model")
"""Stages a policy may run, in the only order they can run in."""

MAX_POLICY_BYTES: Final = 1 << 20
MAX_LEXICON_BYTES: Final = 64 << 20
MAX_TERM_CHARS: Final = 200
MAX_TEXT_BYTES: Final = 16 << 20
MAX_COMPARED: Final = 1e9  # far above any feature and well inside float32

_LANGUAGES = (
    "aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy "
    "da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht "
    "hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky "
    "la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny "
    "oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss "
    "st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo "
    "za zh zu"
)
LANGUAGES: Final = tuple(_LANGUAGES.split())
"""The two-letter language codes of ISO 639-1."""


@dataclass(frozen=True)
class Thresholds:
    """Calibrated probabilities, 0 to 1: clear if p < clear_below, flag if p >= flag_above.

    An infinite ``flag_above`` never flags. 1 may: a float32 probability can round up to it.
    """

    clear_below: float
    flag_above: float


@dataclass(frozen=True)
class Category:
    """A kind of harm the policy looks for; severity 1 (least) to 5; None: the calibration's."""

    name: str
    severity: int
    definition: str
    filter: Thresholds | None
    model: Thresholds | None


@dataclass(frozen=True)
class Lexicon:
    """Terms to count, and longer phrases (`allow`) inside which a term does not count.

    Both are as written, stripped and without repeats. `match` is "word" or "substring".
    """

    name: str
    category: str
    terms: tuple[str, ...]
    allow: tuple[str, ...]
    match: str


@dataclass(frozen=True)
class Comparison:
    """One condition: a key of `words.FEATURES`, or "lexicon.<name>", against a number."""

    feature: str
    op: str
    value: float


@dataclass(frozen=True)
class Rule:
    """If every comparison of `when` holds, the record gets `verdict`, for `reason`.

    on="any" settles the record before the models see it. on="flag" and on="clear" turn a flag or
    clear of the models into review, and nothing else.
    """

    name: str
    category: str
    verdict: str
    on: str
    when: tuple[Comparison, ...]
    reason: str


@dataclass(frozen=True)
class Policy:
    """A policy without mistakes. No languages means all of them.

    `categories` holds the enabled ones in the order of `words.CATEGORIES`; `fingerprint` is the
    SHA-256 (hex) of everything else, word lists included, however and wherever it was written.
    """

    name: str
    version: str
    languages: tuple[str, ...]
    unsupported_language: str
    empty_text: str
    max_text_bytes: int
    stages: tuple[str, ...]
    categories: tuple[Category, ...]
    lexicons: tuple[Lexicon, ...]
    rules: tuple[Rule, ...]
    fingerprint: str


def load_policy(path: Path | None = None) -> Policy:
    """Read a policy and its word lists; None means the one that ships.

    Raises `PolicyError` with every mistake in it, in line order, or why it cannot be read, and
    nothing else.
    """
    path = DEFAULT_POLICY if path is None else path
    try:
        text = _read(path, MAX_POLICY_BYTES)
        document = tomllib.loads(text)
    except _UnreadableError as error:
        if not error.line:
            fix = "Check the path, and that it is a policy that you may read."
            raise PolicyError(str(path), what=f"the policy {error}", fix=fix) from None
        raise PolicyError(str(path), [(error.line, f"the policy {error}")]) from None
    except RecursionError:
        raise PolicyError(str(path), [(deepest_line(text), "nested too deeply")]) from None
    except ValueError as error:
        line, mistake = syntax_mistake(error, text)
        raise PolicyError(str(path), [(line, f"not valid TOML: {mistake}")]) from None
    notes = _Notes(text)
    policy = _policy(_Table(notes, (), "", document, _POLICY_KEYS), path.parent)
    if notes.problems:
        raise PolicyError(str(path), sorted(notes.problems))
    return replace(policy, fingerprint=_fingerprint(policy))


def to_json(policy: Policy) -> dict[str, Any]:
    """A policy as a JSON object; a ``flag_above`` of null never flags, JSON having no infinity."""
    document = asdict(policy)
    for category in document["categories"]:
        for limits in (category["filter"], category["model"]):
            if limits and limits["flag_above"] == math.inf:
                limits["flag_above"] = None
    return document


def _fingerprint(policy: Policy) -> str:
    # Lists of words are sets; the order of rules matters, for the first that holds wins.
    lexicons = (
        replace(lexicon, terms=tuple(sorted(lexicon.terms)), allow=tuple(sorted(lexicon.allow)))
        for lexicon in policy.lexicons
    )
    languages = tuple(sorted(policy.languages))
    content = replace(policy, fingerprint="", languages=languages, lexicons=tuple(lexicons))
    canonical = json.dumps(to_json(content), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


# --- the keys of each table ---------------------------------------------------------------------

_SETTING_KEYS = ("languages", "unsupported_language", "empty_text", "max_text_bytes", "stages")
_POLICY_KEYS = ("name", "version", *_SETTING_KEYS, "category", "lexicon", "rule")
_CATEGORY_KEYS = ("severity", "definition", "filter", "model")
_THRESHOLD_KEYS = ("clear_below", "flag_above")
_LEXICON_KEYS = ("name", "category", "match", "terms", "file", "allow", "allow_file")
_RULE_KEYS = ("name", "category", "verdict", "on", "when", "reason")

_COMPARISON = re.compile(r"\s*([\w.]+)\s*([^\w\s.+-]{1,3})\s*(\S+)\s*", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Letters and symbols in name only: the Hangul fillers and the empty braille pattern.
_NO_INK = "\u115f\u1160\u2800\u3164\uffa0"
_EMOJI = frozenset(map(chr, range(0x1F000, 0x20000)))  # newer ones have no category here yet
_COMMENT = re.compile(r"(^|\s)#.*")


def _policy(top: _Table, folder: Path) -> Policy:
    enabled = _categories(top)
    lexicon_tables = top.tables("lexicon", _LEXICON_KEYS)
    lexicons = tuple(_lexicon(table, enabled, folder) for table in lexicon_tables)
    features = (*FEATURES, *(f"lexicon.{lexicon.name}" for lexicon in lexicons))
    rules = tuple(_rule(table, enabled, features) for table in top.tables("rule", _RULE_KEYS))
    stages = top.choices("stages", STAGES, default=STAGES)
    if top.data.get("stages") == []:
        top.note("stages must name at least one of rule, filter, model", "stages")
    if stages != tuple(stage for stage in STAGES if stage in stages):
        top.note("stages must be in the order rule, filter, model", "stages")
    return Policy(
        name=top.text("name"),
        version=top.text("version"),
        languages=top.choices("languages", LANGUAGES, default=()),
        unsupported_language=top.choice("unsupported_language", ("review", "score"), "review"),
        empty_text=top.choice("empty_text", ("review", "clear"), "review"),
        max_text_bytes=top.whole("max_text_bytes", 1, MAX_TEXT_BYTES, 65536),
        stages=stages,
        categories=tuple(enabled[name] for name in CATEGORIES if name in enabled),
        lexicons=lexicons,
        rules=rules,
        fingerprint="",
    )


def _categories(top: _Table) -> dict[str, Category]:
    group = top.table("category", CATEGORIES, "")
    if not top.data.get("category"):
        top.note("no category is enabled: add a table such as [category.hate]")
    if group is None:
        return {}
    enabled = {}
    for name in CATEGORIES:
        if table := group.table(name, _CATEGORY_KEYS, f"category.{name}"):
            enabled[name] = Category(
                name,
                table.whole("severity", 1, 5),
                table.text("definition"),
                _thresholds(table, "filter"),
                _thresholds(table, "model"),
            )
    return enabled


def _thresholds(category: _Table, stage: str) -> Thresholds | None:
    table = category.table(stage, _THRESHOLD_KEYS, f"{category.label}.{stage}")
    if table is None:
        return None
    clear_below, flag_above = table.share("clear_below"), table.share("flag_above", or_never=True)
    if clear_below > flag_above:
        table.note(f"clear_below ({clear_below}) is above flag_above ({flag_above})", "clear_below")
    return Thresholds(clear_below, flag_above)


def _lexicon(table: _Table, enabled: Iterable[str], folder: Path) -> Lexicon:
    name = table.name()
    lexicon = Lexicon(
        name,
        table.category(enabled),
        _terms(table, "terms", "file", folder),
        _terms(table, "allow", "allow_file", folder),
        table.choice("match", ("word", "substring"), "word"),
    )
    if "terms" not in table.data and "file" not in table.data:
        table.note("terms or file is missing")
    elif not lexicon.terms and not table.noted("terms", "file"):
        table.note("no terms: an empty lexicon never fires")
    for term in sorted(set(lexicon.terms) & set(lexicon.allow)):
        table.note(f"{_show(term)} is both a term and allowed, so it never fires")
    return lexicon


def _terms(table: _Table, key: str, file_key: str, folder: Path) -> tuple[str, ...]:
    terms: dict[str, None] = {}
    for index, term in table.texts(key):
        if mistake := _term_mistake(term):
            table.note(f"{key}: {_show(term)} {mistake}", key, index)
        terms[term.strip()] = None
    file = table.text(file_key, "")
    if not file:
        return tuple(terms)
    try:
        lines = _read_beside(folder, file).split("\n")
    except _UnreadableError as error:
        table.note(f"{file_key} {_show(file)} {error}", file_key)
        return tuple(terms)
    for number, line in enumerate(lines, 1):
        term = _COMMENT.sub("", line).strip()
        if term and (mistake := _term_mistake(term)):
            table.note(f"{file_key} {_show(file)}, its line {number}: the term {mistake}", file_key)
            break  # a wrong file would give a mistake a line
        if term:
            terms[term] = None
    return tuple(terms)


def _is_written(term: str) -> bool:
    """Whether a letter, digit or symbol is left of a term once it is folded, roughly.

    Never true where `features.Lexicons.compile` finds nothing left: it must not surprise a run.
    """
    plain = html.unescape(html.unescape(term))  # twice: scrapers leave &amp;nbsp; too
    return any(
        c.isalnum() if c.isascii() else unicodedata.category(c)[0] in "LNSP" or c in _EMOJI
        for c in unicodedata.normalize("NFKC", plain)
        if c not in _NO_INK
    )


def _term_mistake(term: str) -> str:
    if not _is_written(term):
        return "has no letter, digit or symbol to look for"
    if len(term) > MAX_TERM_CHARS:
        return f"is longer than {MAX_TERM_CHARS} characters"
    return "holds a control character" if _CONTROL.search(term.strip()) else ""


def _rule(table: _Table, enabled: Iterable[str], features: Sequence[str]) -> Rule:
    rule = Rule(
        table.name(),
        table.category(enabled),
        table.choice("verdict", tuple(verdict.name for verdict in Verdict)),
        table.choice("on", ("any", "flag", "clear"), "any"),
        tuple(
            comparison
            for index, text in table.texts("when", required=True)
            if (comparison := _comparison(table, text, index, features))
        ),
        table.text("reason"),
    )
    if table.data.get("when") == []:
        table.note("when has no condition", "when")
    if rule.on in ("flag", "clear") and rule.verdict in ("flag", "clear"):
        table.note(f'verdict must be "review" where on = "{rule.on}"', "verdict")
    return rule


def _comparison(table: _Table, text: str, index: int, features: Sequence[str]) -> Comparison | None:
    found = _COMPARISON.fullmatch(text)
    if not found:
        table.note(f'{_show(text)} is not a condition such as "links >= 3"', "when", index)
        return None
    feature, op, number = found.groups()
    if feature not in features:
        table.note(f"unknown feature {_show(feature)}{_nearest(feature, features)}", "when", index)
    if op not in OPERATORS:
        table.note(f"unknown operator {_show(op)}; one of {' '.join(OPERATORS)}", "when", index)
    if not _NUMBER.fullmatch(number) or not abs(value := float(number)) <= MAX_COMPARED:
        wanted = f"{feature} is compared to a number of at most {MAX_COMPARED:.0f}"
        table.note(f"{wanted}, not {_show(number)}", "when", index)
        return None
    if ", 0 to 1" in FEATURES.get(feature, "") and not 0 <= value <= 1:
        table.note(f"{feature} is a share from 0 to 1, not {number}", "when", index)
    return Comparison(feature, op, value)


# --- reading a table, noting mistakes -----------------------------------------------------------


class _Notes:
    """Mistakes found so far, each at the line of its value or of what should hold it."""

    def __init__(self, text: str) -> None:
        self.lines = locate(text)
        self.problems: list[tuple[int, str]] = []
        self.places: list[Place] = []

    def add(self, place: Place, message: str) -> None:
        self.places.append(place)
        while place not in self.lines:
            place = place[:-1]
        self.problems.append((self.lines[place], message))


class _Table:
    """One TOML table. Each getter notes what is wrong and then returns a harmless stand-in."""

    def __init__(
        self, notes: _Notes, place: Place, label: str, data: dict[str, Any], known: Sequence[str]
    ) -> None:
        self.notes, self.place, self.label, self.data = notes, place, label, data
        for key in data:
            if key not in known:
                what = "category" if place == ("category",) else "key"
                self.note(f"unknown {what} {_show(key)}{_nearest(key, known)}", key)

    def note(self, message: str, *below: str | int) -> None:
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
            self.note(f"{key} must be {wanted}, not {_kind(value)}", key)
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
        elif _CONTROL.search(line):
            self.note(f"{key} holds a control character", key)
        return line

    def choice(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        value = self._get(key, (str,), "a text", required=default is None)
        if value is not None and value not in choices:
            self.note(f"unknown {key} {_show(value)}{_nearest(value, choices)}", key)
        return value if value in choices else default or ""

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        wanted = f"a whole number from {low} to {high}"
        value = self._get(key, (int,), wanted, required=default is None)
        if value is not None and not low <= value <= high:
            self.note(f"{key} must be {wanted}, not {_show(value)}", key)
        if value is None:
            return low if default is None else default
        return int(value)

    def share(self, key: str, or_never: bool = False) -> float:
        wanted = "a number from 0 to 1" + (", or inf for never" if or_never else "")
        value = self._get(key, (int, float), wanted, required=True)
        if value is None:
            return float("nan")  # compares false with everything: no second mistake follows
        if not (0 <= value <= 1 or (or_never and value == math.inf)):
            self.note(f"{key} must be {wanted}, not {_show(value)}", key)
            return float("nan")
        return float(value)

    def texts(self, key: str, required: bool = False) -> list[tuple[int, str]]:
        """Texts of a list, each with its position in it."""
        found = []
        for index, value in enumerate(self._get(key, (list,), "a list of texts", required) or ()):
            if type(value) is str:
                found.append((index, value))
            else:
                self.note(f"{key} must hold texts, not {_kind(value)}", key, index)
        return found

    def choices(
        self, key: str, choices: Sequence[str], default: tuple[str, ...]
    ) -> tuple[str, ...]:
        if key not in self.data:
            return default
        found = self.texts(key)
        for index, value in found:
            if value not in choices:
                self.note(f"{key}: unknown {_show(value)}{_nearest(value, choices)}", key, index)
        return tuple(dict.fromkeys(value for _, value in found if value in choices))

    def name(self) -> str:
        """The name of a lexicon or rule, in the form that conditions can refer to."""
        name = self.text("name")
        if name and not _NAME.fullmatch(name):
            self.note("name must be lower-case letters, digits and _, a letter first", "name")
        return name

    def category(self, enabled: Iterable[str]) -> str:
        name = self.choice("category", CATEGORIES)
        if name and name not in enabled:
            self.note(f"category {name} is not enabled: there is no [category.{name}]", "category")
        return name

    def table(self, key: str, known: Sequence[str], label: str) -> _Table | None:
        data = self._get(key, (dict,), "a table", required=False)
        return None if data is None else _Table(self.notes, (*self.place, key), label, data, known)

    def tables(self, key: str, known: Sequence[str]) -> list[_Table]:
        """Tables of a list, labelled by their names, which must differ."""
        found: list[_Table] = []
        first: dict[str, int] = {}
        for index, data in enumerate(self._get(key, (list,), f"written as [[{key}]]", False) or ()):
            if type(data) is not dict:
                self.note(f"{key} must hold tables, not {_kind(data)}", key, index)
                continue
            place, name = (*self.place, key, index), data.get("name")
            label = f"{key} {_show(name)}" if type(name) is str else f"{key} {index + 1}"
            found.append(_Table(self.notes, place, label, data, known))
            if type(name) is str and (earlier := first.setdefault(name, index)) != index:
                line = self.notes.lines[(*self.place, key, earlier)]
                found[-1].note(f"line {line} already has a {key} of this name", "name")
        return found


def _nearest(name: str, choices: Sequence[str]) -> str:
    if close := difflib.get_close_matches(name.lower(), choices):
        likely = min(close, key=lambda choice: choice[0] != name[0].lower())
        return f'; did you mean "{likely}"?'
    return f"; one of {', '.join(choices)}" if len(choices) <= 10 else ""


def _kind(value: object) -> str:
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return {**kinds, list: "a list", dict: "a table"}.get(type(value), "a date or time")


def _show(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return "a very large number"  # Python refuses to print one of thousands of digits
    if not isinstance(value, str):
        return str(value)
    shown = value if len(value) <= 60 else value[:57] + "..."
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return f'"{"".join(escaped)}"'


# --- reading files ------------------------------------------------------------------------------


class _UnreadableError(Exception):
    """A file that gives no text: why, and the 1-based line of it to blame, 0 for none."""

    def __init__(self, why: str, line: int = 0) -> None:
        super().__init__(why)
        self.line = line


def _read(path: Path, most: int) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = getattr(error, "strerror", None) or str(error)
        raise _UnreadableError(f"cannot be read: {why}") from None
    if len(data) > most:
        raise _UnreadableError(f"is over the limit of {most >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _UnreadableError(f"is not UTF-8 (its line {line})", line) from None
    return text.replace("\r\n", "\n")


def _read_beside(folder: Path, name: str) -> str:
    """Read a file that must lie in `folder` or below, whichever system wrote the name."""
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    if windows.drive or windows.root or posix.root or ".." in windows.parts:
        raise _UnreadableError("leads out of the policy's folder; use a path inside it")
    path = folder / name
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
        regular = not path.exists() or stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise _UnreadableError(f"cannot be read: {error}") from None
    if not inside:
        raise _UnreadableError("links out of the policy's folder; put the file itself inside it")
    if not regular:  # opening a pipe would wait for ever
        raise _UnreadableError("is not a file")
    return _read(path, MAX_LEXICON_BYTES)
