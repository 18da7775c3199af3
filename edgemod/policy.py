"""A policy: what each category means, and which rules, word lists and limits apply.

`load_policy` reads a TOML file and the word lists beside it into frozen values. It either
returns a policy without a mistake or raises one `PolicyError` that names every mistake, its line
and the nearest valid name. A policy is only data: nothing in it is ever run.
"""

from __future__ import annotations

import hashlib
import html
import json
import math
import re
import stat
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

from edgemod.errors import InputError, PolicyError
from edgemod.toml_lines import DEEPEST, Place, locate, syntax_mistake, too_deep
from edgemod.toml_tables import CONTROL, NAME, Notes, Table, nearest, show
from edgemod.words import CATEGORIES, FEATURES, OPERATORS, Verdict

DEFAULT_POLICY: Final = Path(__file__).with_name("policies") / "default.toml"
"""The policy that ships with edgemod."""

STAGES: Final = ("rule", "filter", "model")
"""Stages a policy may run, in the only order they can run in."""

MAX_POLICY_BYTES: Final = 1 << 18  # some 20 times the shipped one; tomllib reads 1 MiB in 2 s
MAX_LEXICON_BYTES: Final = 64 << 20
MAX_OVERLAYS: Final = 32  # each is checked with the whole policy
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
class Case:
    """A text, and what the policy's author says must become of it, and why.

    `category` is "" where any will do.
    """

    name: str
    text: str
    verdict: str
    category: str
    why: str


@dataclass(frozen=True)
class Policy:
    """A policy without mistakes. No languages means all of them.

    `categories` holds the enabled ones in the order of `words.CATEGORIES`; `overlays` the names of
    those that the file holds, `overlay` the one that is in force, "" for none. `fingerprint` is the
    SHA-256 (hex) of everything that decides, word lists included, however and wherever it was
    written: tests, and overlays that are not in force, decide nothing.
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
    tests: tuple[Case, ...]
    overlays: tuple[str, ...]
    overlay: str
    fingerprint: str


def load_policy(path: Path | None = None, overlay: str | None = None) -> Policy:
    """Read a policy and its word lists; None means the one that ships.

    With ``overlay`` that overlay of the policy is in force. Overlays are checked in any case.
    Raises `PolicyError` with every mistake in it, in line order, or why it cannot be read, and
    nothing else.
    """
    path = DEFAULT_POLICY if path is None else path
    try:
        text = _read(path, MAX_POLICY_BYTES)
        if line := too_deep(text):
            mistake = f"nested too deeply: more than {DEEPEST} brackets, or parts of one key"
            raise PolicyError(str(path), [(line, mistake)])
        document = tomllib.loads(text)
    except _UnreadableError as error:
        if not error.line:
            fix = "Check the path, and that it is a policy that you may read."
            raise PolicyError(str(path), what=f"the policy {error}", fix=fix) from None
        raise PolicyError(str(path), [(error.line, f"the policy {error}")]) from None
    except ValueError as error:
        line, mistake = syntax_mistake(error, text)
        raise PolicyError(str(path), [(line, f"not valid TOML: {mistake}")]) from None
    notes = Notes(locate(text))
    policy = _policy(Table(notes, (), "", document, _POLICY_KEYS), path.parent)
    problems = {*notes.problems}
    for name in policy.overlays if not problems else ():
        layered, lines = _overlaid(document, notes.lines, name)
        over = Notes(lines)
        found = _policy(Table(over, (), "", layered, _POLICY_KEYS), path.parent)
        problems |= {*over.problems}
        if name == overlay:
            policy = replace(found, overlays=policy.overlays, overlay=name)
    if problems:
        raise PolicyError(str(path), sorted(problems))
    if overlay is not None and overlay not in policy.overlays:
        known = ", ".join(policy.overlays) or "none"
        fix = f"Its overlays: {known}."
        raise PolicyError(str(path), what=f"the policy has no overlay {show(overlay)}", fix=fix)
    return replace(policy, fingerprint=_fingerprint(policy))


def policy_of_run(path: str | Path | None, state: dict[str, Any]) -> Policy:
    """The policy of a run by what run.json says of it; ``path``: where it is, if not where it was.

    Raises PolicyError or InputError if it is gone, has changed, or the one named is another.
    """
    plan, told = state["plan"], state.get("made_with", {}).get("policy")
    named = told if path is None else path
    try:
        found = load_policy(None if named is None else Path(named), plan["overlay"])
    except PolicyError as error:
        if path is not None:
            raise
        raise InputError(
            "is the policy of the run, and cannot be read any more",
            where=told or "the shipped policy",
            fix="Put it back as it was, or name it with --policy.",
        ) from error
    if found.fingerprint == plan["policy"]:
        return found
    if path is not None:
        raise InputError(
            "is another policy than that of the run",
            where="--policy",
            fix="Name the one that the run was made with.",
        )
    raise InputError(
        "is the policy of the run, and has changed since",
        where=told or "the shipped policy",
        fix="Put it back as it was, or name one that is as it was with --policy.",
    )


def policy_if_there(path: str | Path | None, state: dict[str, Any]) -> Policy | None:
    """As ``policy_of_run``, but None if none is named and the run's is gone or has changed."""
    try:
        return policy_of_run(path, state)
    except InputError:
        if path is not None:
            raise
        return None


def _overlaid(
    document: dict[str, Any], lines: Mapping[Place, int], name: str
) -> tuple[dict[str, Any], dict[Place, int]]:
    """The document with one overlay in force and none left, and the line of each place in it.

    Categories take the overlay's keys in place of their own; its lexicons, rules and tests come
    before the policy's.
    """
    over, at = document["overlay"][name], ("overlay", name)
    layered = {key: value for key, value in document.items() if key != "overlay"}
    placed = {place: line for place, line in lines.items() if place[:1] != ("overlay",)}
    categories = dict(document["category"])
    for category, changes in over.get("category", {}).items():
        categories[category] = {**categories.get(category, {}), **changes}
    layered["category"] = categories
    placed |= {p[2:]: n for p, n in lines.items() if p[:3] == (*at, "category")}
    for key in ("lexicon", "rule", "test"):
        own, more = document.get(key, []), over.get(key, [])
        layered[key] = [*more, *own]
        for place, line in lines.items():
            if place[:1] == (key,) and len(place) > 1:
                placed[(key, int(place[1]) + len(more), *place[2:])] = line
        for place, line in lines.items():
            if place[:3] == (*at, key):
                placed[place[2:]] = line
        placed.setdefault((key,), lines.get((key,), 1))
    return layered, placed


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
    content = to_json(replace(policy, languages=languages, lexicons=tuple(lexicons)))
    for key in ("tests", "overlays", "overlay", "fingerprint"):
        del content[key]
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


# --- the keys of each table ---------------------------------------------------------------------

_SETTING_KEYS = ("languages", "unsupported_language", "empty_text", "max_text_bytes", "stages")
_LAYERED_KEYS = ("category", "lexicon", "rule", "test")
_POLICY_KEYS = ("name", "version", *_SETTING_KEYS, *_LAYERED_KEYS, "overlay")
_OVERLAY_KEYS = ("description", *_LAYERED_KEYS)
_TEST_KEYS = ("name", "text", "verdict", "category", "why")
_CATEGORY_KEYS = ("severity", "definition", "filter", "model")
_THRESHOLD_KEYS = ("clear_below", "flag_above")
_LEXICON_KEYS = ("name", "category", "match", "terms", "file", "allow", "allow_file")
_RULE_KEYS = ("name", "category", "verdict", "on", "when", "reason")

_COMPARISON = re.compile(r"\s*([\w.]+)\s*([^\w\s.+-]{1,3})\s*(\S+)\s*", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# Letters and symbols in name only: the Hangul fillers and the empty braille pattern.
_NO_INK = "\u115f\u1160\u2800\u3164\uffa0"
_EMOJI = frozenset(map(chr, range(0x1F000, 0x20000)))  # newer ones have no category here yet
_COMMENT = re.compile(r"(^|\s)#.*")


def _policy(top: Table, folder: Path) -> Policy:
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
        tests=tuple(_case(table, enabled) for table in top.tables("test", _TEST_KEYS)),
        overlays=_overlays(top),
        overlay="",
        fingerprint="",
    )


def _case(table: Table, enabled: Iterable[str]) -> Case:
    return Case(
        table.text("name"),
        table.raw("text"),
        table.choice("verdict", tuple(verdict.name for verdict in Verdict)),
        table.category(enabled) if "category" in table.data else "",
        table.text("why"),
    )


def _overlays(top: Table) -> tuple[str, ...]:
    """The names of the overlays, each of them a table of tables that a policy has, too."""
    names = top.data.get("overlay", {})
    group = top.table("overlay", tuple(names) if isinstance(names, dict) else (), "")
    found: list[str] = []
    if group and len(group.data) > MAX_OVERLAYS:
        group.note(f"there are more than {MAX_OVERLAYS} overlays")
        return ()
    for name in group.data if group else ():
        assert group is not None
        if not NAME.fullmatch(name):
            group.note(f"overlay {show(name)}: a name is lower-case letters, digits and _", name)
            continue
        if table := group.table(name, _OVERLAY_KEYS, f"overlay.{name}"):
            table.text("description")
            for key in ("lexicon", "rule", "test"):
                of = table.data.get(key, [])
                if not isinstance(of, list) or not all(isinstance(one, dict) for one in of):
                    table.note(f"{key} must be written as [[overlay.{name}.{key}]]", key)
            of = table.data.get("category", {})
            if not isinstance(of, dict) or not all(isinstance(one, dict) for one in of.values()):
                table.note(
                    f"category must be written as [overlay.{name}.category.NAME]", "category"
                )
            found.append(name)
    return tuple(found)


def _categories(top: Table) -> dict[str, Category]:
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


def _thresholds(category: Table, stage: str) -> Thresholds | None:
    table = category.table(stage, _THRESHOLD_KEYS, f"{category.label}.{stage}")
    if table is None:
        return None
    clear_below, flag_above = table.share("clear_below"), table.share("flag_above", or_never=True)
    if clear_below > flag_above:
        table.note(f"clear_below ({clear_below}) is above flag_above ({flag_above})", "clear_below")
    return Thresholds(clear_below, flag_above)


def _lexicon(table: Table, enabled: Iterable[str], folder: Path) -> Lexicon:
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
        table.note(f"{show(term)} is both a term and allowed, so it never fires")
    return lexicon


def _terms(table: Table, key: str, file_key: str, folder: Path) -> tuple[str, ...]:
    terms: dict[str, None] = {}
    for index, term in table.texts(key):
        if mistake := _term_mistake(term):
            table.note(f"{key}: {show(term)} {mistake}", key, index)
        terms[term.strip()] = None
    file = table.text(file_key, "")
    if not file:
        return tuple(terms)
    try:
        lines = _read_beside(folder, file).split("\n")
    except _UnreadableError as error:
        table.note(f"{file_key} {show(file)} {error}", file_key)
        return tuple(terms)
    for number, line in enumerate(lines, 1):
        term = _COMMENT.sub("", line).strip()
        if term and (mistake := _term_mistake(term)):
            table.note(f"{file_key} {show(file)}, its line {number}: the term {mistake}", file_key)
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
    return "holds a control character" if CONTROL.search(term.strip()) else ""


def _rule(table: Table, enabled: Iterable[str], features: Sequence[str]) -> Rule:
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


def _comparison(table: Table, text: str, index: int, features: Sequence[str]) -> Comparison | None:
    found = _COMPARISON.fullmatch(text)
    if not found:
        table.note(f'{show(text)} is not a condition such as "links >= 3"', "when", index)
        return None
    feature, op, number = found.groups()
    if feature not in features:
        table.note(f"unknown feature {show(feature)}{nearest(feature, features)}", "when", index)
    if op not in OPERATORS:
        table.note(f"unknown operator {show(op)}; one of {' '.join(OPERATORS)}", "when", index)
    if not _NUMBER.fullmatch(number) or not abs(value := float(number)) <= MAX_COMPARED:
        wanted = f"{feature} is compared to a number of at most {MAX_COMPARED:.0f}"
        table.note(f"{wanted}, not {show(number)}", "when", index)
        return None
    if ", 0 to 1" in FEATURES.get(feature, "") and not 0 <= value <= 1:
        table.note(f"{feature} is a share from 0 to 1, not {number}", "when", index)
    return Comparison(feature, op, value)


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
        limit = f"{most >> 20} MiB" if most >> 20 else f"{most >> 10} KiB"
        raise _UnreadableError(f"is over the limit of {limit}")
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
