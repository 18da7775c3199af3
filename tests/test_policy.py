"""Policies: the shipped one, every kind of mistake, the fingerprint, and where lines are."""

from __future__ import annotations

import json
import math
import os
import random
import re
import tomllib
from dataclasses import FrozenInstanceError, fields, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import edgemod
from edgemod import rehearsal
from edgemod.errors import PolicyError, RunError
from edgemod.features import Lexicons, buffers
from edgemod.kernels.normalise import normalise
from edgemod.policy import (
    DEFAULT_POLICY,
    LANGUAGES,
    MAX_LEXICON_BYTES,
    MAX_POLICY_BYTES,
    Category,
    Comparison,
    Lexicon,
    Policy,
    Rule,
    Thresholds,
    _term_mistake,
    load_policy,
    to_json,
)
from edgemod.toml_lines import Place, locate
from edgemod.triager import Triager
from edgemod.words import CATEGORIES, FEATURES, OPERATORS
from test_cli import run

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[1]

SMALL = """\
name = "small"
version = "1"
[category.hate]
severity = 4
definition = "Attacks on people for what they are."
[[lexicon]]
name = "bad"
category = "hate"
terms = ["grue"]
[[rule]]
name = "bad_words"
category = "hate"
verdict = "review"
when = ["lexicon.bad >= 1"]
reason = "It contains a bad word."
"""


def write(folder: Path, text: str | bytes, name: str = "policy.toml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems(folder: Path, text: str | bytes) -> tuple[tuple[int, str], ...]:
    with pytest.raises(PolicyError) as caught:
        load_policy(write(folder, text))
    return caught.value.problems


def changed(old: str, new: str) -> str:
    assert SMALL.count(old) == 1
    return SMALL.replace(old, new)


# --- the shipped policy -------------------------------------------------------------------------


def test_default_enables_every_category_and_stage() -> None:
    policy = load_policy()
    assert tuple(category.name for category in policy.categories) == CATEGORIES
    assert policy.stages == ("rule", "filter", "model")
    assert policy.languages == ("en",)
    assert re.fullmatch("[0-9a-f]{64}", policy.fingerprint)
    for category in policy.categories:
        assert "Not a violation:" in category.definition
        if category.name != "pii":
            assert category.filter is category.model is None


def test_default_leaves_flagging_of_personal_data_to_rules() -> None:
    policy = load_policy()
    pii = policy.categories[CATEGORIES.index("pii")]
    for stage, limits in (("filter", pii.filter), ("model", pii.model)):
        document = json.loads((ROOT / "quantized" / "calibration.json").read_text())
        fitted = document["thresholds"][stage]["pii"]["clear_below"]
        assert limits is not None
        assert limits.clear_below == pytest.approx(fitted, abs=1e-6)
        assert limits.flag_above == math.inf
    assert any((r.category, r.verdict, r.on) == ("pii", "flag", "any") for r in policy.rules)


def test_default_rules_read_as_sentences_and_send_models_answers_to_review_only() -> None:
    rules = load_policy().rules
    assert {rule.verdict for rule in rules if rule.on != "any"} == {"review"}
    assert {rule.category for rule in rules if rule.on == "any"} == {"pii"}
    for rule in rules:
        assert re.fullmatch(r"[A-Z].*[^.]\.", rule.reason)


def test_default_terms_all_survive() -> None:
    lexicons = {lexicon.name: lexicon for lexicon in load_policy().lexicons}
    document = tomllib.loads(DEFAULT_POLICY.read_text(encoding="utf-8"))
    assert [table["name"] for table in document["lexicon"]] == list(lexicons)
    for table in document["lexicon"]:
        for terms, inline, file in (
            (lexicons[table["name"]].terms, "terms", "file"),
            (lexicons[table["name"]].allow, "allow", "allow_file"),
        ):
            written = list(table.get(inline, []))
            if file in table:
                lines = (DEFAULT_POLICY.parent / table[file]).read_text("utf-8").splitlines()
                written += [line for line in lines if line and not line.startswith("#")]
            assert list(terms) == written  # nothing dropped, repeated or changed
            assert all(term == term.strip().lower() for term in terms)


def test_default_terms_survive_normalising() -> None:
    for lexicon in load_policy().lexicons:
        terms = (*lexicon.terms, *lexicon.allow)
        (data, offsets), _ = normalise(*buffers(pa.array(terms, pa.large_string())))
        normal = [bytes(data[a:b]).decode() for a, b in pairwise(offsets)]
        assert normal == list(terms)  # already in the form in which they are looked for


def naive_hits(lexicon: Lexicon, text: str) -> int:
    """What a lexicon is meant to find, slowly, in a text that needs no normalising."""
    edge = r"\b" if lexicon.match == "word" else ""
    for phrase in lexicon.allow:
        text = re.sub(f"{edge}{re.escape(phrase)}{edge}", " ", text, flags=re.IGNORECASE)
    terms = "|".join(map(re.escape, lexicon.terms))
    return len(re.findall(f"{edge}(?:{terms}){edge}", text, re.IGNORECASE))


@pytest.mark.parametrize(
    "text",
    [
        "Scunthorpe, Penistone, Lightwater and Clitheroe",
        "Charles Dickens, Alexander Cockburn, Alfred Hitchcock and Mr Dickinson",
        "Moby Dick, Dick Van Dyke and Philip K. Dick",
        "grapes, drapes, therapists, scrapes",
        "a niggardly landlord sniggered",
        "a chink in the armour, kept spick and span",
        "pakistan and pakistani food, spicy, with kaffir lime",
        "a Maine Coon, a raccoon and a tycoon",
        "peacock, cockpit, shuttlecock, cocktail",
        "assassin, class, bass, embarrass, assess, Sussex, Essex, Middlesex",
        "shitake and shishito, by Kinoshita and Matsushita",
        "title, titan, saltwater, swanky, analysis, cumulus, document",
        "bloody good match, the striker was on fire",
    ],
)
def test_default_lexicons_leave_innocent_words_alone(text: str) -> None:
    hits = {lexicon.name: naive_hits(lexicon, text) for lexicon in load_policy().lexicons}
    assert not any(hits.values()), hits


def test_default_allowed_phrases_all_hold_a_term() -> None:
    for lexicon in load_policy().lexicons:
        bare = Lexicon(lexicon.name, lexicon.category, lexicon.terms, (), lexicon.match)
        for phrase in lexicon.allow:
            assert naive_hits(bare, phrase), f"{lexicon.name}: allowing {phrase!r} changes nothing"


def test_policy_is_frozen() -> None:
    policy = load_policy()
    with pytest.raises(FrozenInstanceError):
        policy.name = "other"  # type: ignore[misc]


# --- what a policy says -------------------------------------------------------------------------


def test_small_policy_takes_the_defaults(tmp_path: Path) -> None:
    policy = load_policy(write(tmp_path, SMALL))
    assert (policy.languages, policy.unsupported_language, policy.empty_text) == (
        (),
        "review",
        "review",
    )
    assert (policy.max_text_bytes, policy.stages) == (65536, ("rule", "filter", "model"))
    assert policy.lexicons == (Lexicon("bad", "hate", ("grue",), (), "word"),)
    assert policy.rules[0].on == "any"
    assert policy.rules[0].when == (Comparison("lexicon.bad", ">=", 1.0),)


def test_terms_come_from_the_list_and_the_file(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    write(tmp_path / "lists", "\ufeff# note\r\n\r\n grue # note\r\nC# coder\r\nzork\r\n", "a.txt")
    write(tmp_path, "zork mid\n", "b.txt")
    text = changed(
        'terms = ["grue"]',
        'terms = ["xyzzy", " grue "]\nfile = "lists/a.txt"\nallow_file = "b.txt"',
    )
    lexicon = load_policy(write(tmp_path, text)).lexicons[0]
    assert lexicon.terms == ("xyzzy", "grue", "C# coder", "zork")
    assert lexicon.allow == ("zork mid",)


def test_a_threshold_that_is_never_reached(tmp_path: Path) -> None:
    text = changed("severity = 4", "severity = 4\nmodel = { clear_below = 0.1, flag_above = inf }")
    policy = load_policy(write(tmp_path, text))
    assert policy.categories[0].model == Thresholds(0.1, math.inf)
    shown = json.loads(json.dumps(to_json(policy), allow_nan=False))
    assert shown["categories"][0]["model"] == {"clear_below": 0.1, "flag_above": None}
    assert shown["categories"][0]["filter"] is None


def test_categories_keep_one_order_and_their_thresholds(tmp_path: Path) -> None:
    text = SMALL.replace(
        "[category.hate]",
        '[category.toxic]\nseverity = 1\ndefinition = "Rude."\n'
        "model = { clear_below = 0, flag_above = 1 }\n[category.hate]",
    )
    hate, toxic = load_policy(write(tmp_path, text)).categories
    assert (hate.name, toxic.name) == ("hate", "toxic")
    assert (toxic.filter, toxic.model) == (None, Thresholds(0.0, 1.0))


# --- mistakes -----------------------------------------------------------------------------------


def test_every_mistake_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    with pytest.raises(PolicyError) as caught:
        load_policy(Path("policy_mistakes.toml"))
    assert str(caught.value) + "\n" == (GOLDEN / "policy_mistakes.txt").read_text("utf-8")


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("severity = 4", "severity = 0", 4, "a whole number from 1 to 5, not 0"),
        ("severity = 4", "severity = true", 4, "not true or false"),
        ("severity = 4", "severity = 4.0", 4, "not a number"),
        ("severity = 4", "severity = 0x" + "f" * 5000, 4, "not a very large number"),
        ("severity = 4\n", "", 3, "category.hate: severity is missing"),
        ('definition = "Attacks on people for what they are."', "", 3, "definition is missing"),
        ('"Attacks on people for what they are."', '" "', 5, "definition is empty"),
        ('"Attacks on people for what they are."', '"\\u001b[2J"', 5, "a control character"),
        ("severity = 4", "severity = 4\nfilter.clear_below = nan", 5, "from 0 to 1, not nan"),
        ("severity = 4", "severity = 4\nmodel.clear_below = inf", 5, "from 0 to 1, not inf"),
        ("severity = 4", "severity = 4\nmodel.flag_above = -inf", 5, "inf for never, not -inf"),
        ("severity = 4", "severity = 4\nmodel.flag_above = 1", 5, "clear_below is missing"),
        ('version = "1"', 'version = "1"\nmax_text_bytes = 16777217', 3, "16777216"),
        ('version = "1"', 'version = "1"\nstages = []', 3, "at least one"),
        ('version = "1"', 'version = "1"\nstages = ["modle"]', 3, 'did you mean "model"?'),
        ('version = "1"', 'version = "1"\nlanguages = ["EN"]', 3, 'did you mean "en"?'),
        ('version = "1"', 'version = "1"\nempty_text = "flag"', 3, "one of review, clear"),
        ('version = "1"\n', "", 1, "version is missing"),
        ('version = "1"', "version = 2020-01-01", 2, "not a date or time"),
        ("[[lexicon]]", "[lexicon]", 6, "must be written as [[lexicon]]"),
        ('name = "bad"', 'name = "Bad one"', 7, "lower-case letters"),
        ('terms = ["grue"]', "", 6, "terms or file is missing"),
        ('terms = ["grue"]', 'terms = ["grue", 3]', 9, "must hold texts, not a whole number"),
        ('terms = ["grue"]', 'terms = ["grue", "?!"]', 9, "no letter, digit or symbol"),
        ('terms = ["grue"]', 'terms = ["grue",\n"\\u200b"]', 10, '"\\u200b" has no letter'),
        ('terms = ["grue"]', 'terms = ["grue", "\\u0301"]', 9, "no letter, digit or symbol"),
        ('terms = ["grue"]', 'terms = ["grue", "&nbsp;"]', 9, "no letter, digit or symbol"),
        ('terms = ["grue"]', 'terms = ["grue", "\\u3164"]', 9, "no letter, digit or symbol"),
        ('terms = ["grue"]', 'terms = ["grue", "a\\u0000b"]', 9, "a control character"),
        ('terms = ["grue"]', f'terms = ["{"x" * 201}"]', 9, "longer than 200"),
        ('terms = ["grue"]', 'terms = ["grue"]\nallow = ["grue"]', 6, "so it never fires"),
        ('terms = ["grue"]', 'terms = ["grue"]\nmatch = "words"', 10, 'did you mean "word"?'),
        ('terms = ["grue"]', 'file = "none.txt"', 9, "cannot be read: No such file"),
        ('terms = ["grue"]', 'file = "."', 9, "is not a file"),
        ('terms = ["grue"]', 'file = "a\\u0000"', 9, "cannot be read"),
        ('when = ["lexicon.bad >= 1"]', "", 10, "when is missing"),
        ("lexicon.bad >= 1", "lexicon.bed >= 1", 14, 'did you mean "lexicon.bad"?'),
        ("lexicon.bad >= 1", "emails", 14, 'is not a condition such as "links >= 3"'),
        ("lexicon.bad >= 1", "emails >= nan", 14, 'not "nan"'),
        ("lexicon.bad >= 1", "emails >= 1e999", 14, 'not "1e999"'),
        ("lexicon.bad >= 1", "__import__('os') == 1", 14, "is not a condition"),
        ("lexicon.bad >= 1", "upper >= 90", 14, "a share from 0 to 1, not 90"),
        ('verdict = "review"', 'verdict = "flag"\non = "clear"', 13, 'where on = "clear"'),
        ('verdict = "review"', 'verdict = "Flag"', 13, 'did you mean "flag"?'),
        ('reason = "It contains a bad word."', "raeson = 'r'", 15, 'did you mean "reason"?'),
    ],
)
def test_mistake(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    found = problems(tmp_path, changed(old, new))
    assert any(at == line and message in text for at, text in found), found


def test_category_that_is_not_enabled(tmp_path: Path) -> None:
    found = problems(tmp_path, SMALL.replace('category = "hate"', 'category = "pii"'))
    assert [line for line, _ in found] == [8, 12]
    assert all("category pii is not enabled: there is no [category.pii]" in m for _, m in found)


def test_same_rule_name_twice(tmp_path: Path) -> None:
    rule = SMALL[SMALL.index("[[rule]]") :]
    assert problems(tmp_path, SMALL + rule) == (
        (17, 'rule "bad_words": line 10 already has a rule of this name'),
    )


def test_same_lexicon_name_twice_on_one_line(tmp_path: Path) -> None:
    lexicon = '{ name = "bad", category = "hate", terms = ["grue"] }'
    text = SMALL[: SMALL.index("[[lexicon]]")]
    text = f"lexicon = [{lexicon}, {lexicon}]\n{text}"
    assert problems(tmp_path, text) == (
        (1, 'lexicon "bad": line 1 already has a lexicon of this name'),
    )


@pytest.mark.parametrize(
    "name",
    ["../x.txt", "/etc/passwd", "a/../../x.txt", "C:\\x.txt", "..\\x.txt", "\\\\host\\x", "a/.."],
)
def test_lexicon_file_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    text = changed('terms = ["grue"]', f"file = '{name}'")
    ((line, message),) = problems(tmp_path, text)
    assert (line, "leads out of the policy's folder" in message) == (9, True)


def test_lexicon_link_cannot_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    write(tmp_path, "outside\n", "outside.txt")
    (tmp_path / "inside" / "link.txt").symlink_to(tmp_path / "outside.txt")
    (tmp_path / "inside" / "loop.txt").symlink_to("loop.txt")
    text = changed('terms = ["grue"]', 'file = "link.txt"\nallow_file = "loop.txt"')
    (_, link), (_, loop) = problems(tmp_path / "inside", text)
    assert "links out of the policy's folder" in link
    assert "cannot be read" in loop


def test_lexicon_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    ((_, message),) = problems(tmp_path, changed('terms = ["grue"]', 'file = "pipe"'))
    assert message.endswith("is not a file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no terms: an empty lexicon never fires"),
        (b"# only a comment\n", "no terms: an empty lexicon never fires"),
        (b"fine\ncaf\xe9\n", 'file "a.txt" is not UTF-8 (its line 2)'),
        (b"fine\n...\n...\n", 'file "a.txt", its line 2: the term has no letter'),
        (b"fine\n\xe2\x80\x8b\n", 'file "a.txt", its line 2: the term has no letter'),
        (b"PK\x03\x04\x00", 'file "a.txt", its line 1: the term holds a control character'),
    ],
)
def test_bad_lexicon_file(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path, content, "a.txt")
    ((_, found),) = problems(tmp_path, changed('terms = ["grue"]', 'file = "a.txt"'))
    assert message in found


def test_files_over_their_limits(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(MAX_LEXICON_BYTES + 1)
    ((_, message),) = problems(tmp_path, changed('terms = ["grue"]', 'file = "a.txt"'))
    assert "is over the limit of 64 MiB" in message
    path = write(tmp_path, SMALL + "#" * MAX_POLICY_BYTES)
    with pytest.raises(PolicyError, match="the policy is over the limit of 256 KiB"):
        load_policy(path)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("name = 'a'\nversion =\n", 2, "not valid TOML: "),
        ("name = 'a'\nversion = [", 2, "not valid TOML: "),
        ("name = 'a'\nname = 'b'\n", 2, "not valid TOML: "),
        ("name = 'a'\r\nversion = 'b\r\n", 2, "not valid TOML: "),
        (b"name = 'a'\nversion = '\xff'\n", 2, "the policy is not UTF-8 (its line 2)"),
        ("name = 'a'\nversion = " + "9" * 5000, 2, "a number has too many digits"),
        ("name = 'a'\nversion = " + "[" * 50000, 2, "nested too deeply"),
        ("name = 'a'\nversion = " + "[" * 17 + "]" * 17, 2, "nested too deeply"),
        ("name = 'a'\nversion = " + "{x = " * 17 + "1" + "}" * 17, 2, "nested too deeply"),
        ("name = 'a'\na" + " . 'b'" * 20000 + " = 1", 2, "nested too deeply"),
        ("name = 'a'\n[[a" + ".b" * 16 + "]]", 2, "nested too deeply"),
        ("name = 'a'\n[a" + ".b" * 15 + "]", 2, 'unknown key "a"'),
        ("name = 'a'\nversion = \"" + '\\"' * 50000, 2, "not valid TOML: "),
        ("", 1, "name is missing"),
        (SMALL + "".join(f"\n[overlay.o{i}]" for i in range(33)), None, "more than 32 overlays"),
    ],
)
def test_what_is_not_toml(
    tmp_path: Path, text: str | bytes, line: int | None, message: str
) -> None:
    found = problems(tmp_path, text)
    assert any(at == (line or at) and message in what for at, what in found), found


def test_policy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as told:
        load_policy(tmp_path / "none.toml")
    assert told.value.problems == ()
    assert str(told.value) == (
        f"{tmp_path}/none.toml: the policy cannot be read: No such file or directory\n"
        "  Check the path, and that it is a policy that you may read."
    )
    with pytest.raises(PolicyError, match="cannot be read: Is a directory"):
        load_policy(tmp_path)


WORDS = st.sampled_from(
    ["name", "category", "lexicon", "rule", "hate", "terms", "file", "when", "filter", "severity"]
)
PIECES = st.one_of(
    WORDS,
    st.sampled_from(["[", "]", "[[", "]]", "{", "}", "=", " = ", ",", ".", "\n", "#", '"', '"""']),
    st.sampled_from(["'", "'''", "\\", "1", "0.5", "nan", "-inf", "true", "1979-05-27", "\r\n"]),
    st.builds("[category.{}]\n".format, WORDS),
    st.builds("[[{}]]\n".format, WORDS),
    st.builds("{} = {}\n".format, WORDS, st.sampled_from(['"a"', "[]", "[[1]]", "{}", "3", "inf"])),
    st.text(max_size=5),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, max_size=30).map("".join))
@example("'\x850")
def test_any_text_is_a_policy_or_a_policy_error(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text.encode("utf-8", "replace"))
    with pytest.raises(PolicyError) as caught:
        load_policy(path)  # no random text is a whole policy
    last = max(1, len(re.split("\r\n|\n", text)))
    assert all(1 <= line <= last for line, _ in caught.value.problems)


SCRAPS = st.sampled_from(
    [
        "\u200b",
        "\u0301",
        "\ufe0f",
        "\u3164",
        "\u2800",
        "\u00ad",
        "\u00a8",
        "\u1ad0",
        "&nbsp;",
        "&amp;",
    ]
)


@settings(deadline=None)
@given(st.lists(SCRAPS | st.text(max_size=2), min_size=1, max_size=3).map("".join))
def test_a_term_without_mistake_compiles(term: str) -> None:
    if not _term_mistake(term):
        Lexicons.compile([Lexicon("l", "hate", (term,), (), "word")])


@pytest.mark.parametrize("term", ["a", "7", "😀", "한", "no\u0301", "\u200bx", "\U0001fadf", "♥"])
def test_terms_that_can_be_looked_for(term: str) -> None:
    assert not _term_mistake(term)


# --- the fingerprint ----------------------------------------------------------------------------

TERMS = st.lists(st.text("abcdefghé ", min_size=1).filter(str.strip), min_size=1, max_size=4)
RULES = st.fixed_dictionaries(
    {
        "category": st.just("hate"),
        "verdict": st.just("review"),
        "on": st.sampled_from(["any", "flag", "clear"]),
        "when": st.lists(
            st.builds(
                "{} {} {}".format,
                st.sampled_from([f for f in FEATURES if "0 to 1" not in FEATURES[f]]),
                st.sampled_from(OPERATORS),
                st.integers(-9, 9999),
            ),
            min_size=1,
            max_size=3,
        ),
        "reason": st.text("abc '\"\\é", min_size=1).filter(str.strip),
    }
)
CATEGORY = st.fixed_dictionaries(
    {"severity": st.integers(1, 5), "definition": st.text("abc #é", min_size=1).filter(str.strip)},
    optional={
        "filter": st.tuples(st.floats(0, 1), st.floats(0, 1)).map(
            lambda pair: {"clear_below": min(pair), "flag_above": max(pair)}
        )
    },
)
DOCUMENTS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "name": st.just("random"),
        "version": st.just("1"),
        "languages": st.lists(st.sampled_from(LANGUAGES), max_size=4),
        "max_text_bytes": st.integers(1, 1 << 24),
        "category": st.dictionaries(st.sampled_from(CATEGORIES), CATEGORY).flatmap(
            lambda some: CATEGORY.map(lambda hate: {**some, "hate": hate})
        ),
        "lexicon": TERMS.map(lambda terms: [{"name": "l", "category": "hate", "terms": terms}]),
        "rule": st.lists(RULES, max_size=3).map(
            lambda rules: [{"name": f"r{i}", **rule} for i, rule in enumerate(rules)]
        ),
    }
)


def toml(value: Any) -> str:
    """One value as TOML; JSON strings and numbers are TOML too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[ # comment\n" + "".join(f"{toml(item)}, # comment\n" for item in value) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value)


def shuffled(value: Any, rng: random.Random) -> Any:
    """The same content with the keys of every table, and the words of every list, mixed."""
    if isinstance(value, dict):
        keys = rng.sample(list(value), len(value))
        mixed = {key: shuffled(value[key], rng) for key in keys}
        for key in {"terms", "languages"} & set(mixed):
            rng.shuffle(mixed[key])
        return mixed
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DOCUMENTS, st.randoms(use_true_random=False))
def test_fingerprint_ignores_how_it_is_written(
    tmp_path: Path, document: dict[str, Any], rng: random.Random
) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir(exist_ok=True)
    one = "".join(f"{key} = {toml(value)}\n" for key, value in document.items())
    mixed = shuffled(document, rng)
    two = "# comment\r\n" + "".join(f" {k}={toml(v)}\n" for k, v in mixed.items() if k != "lexicon")
    (lexicon,) = mixed["lexicon"]
    write(other, "# comment\n" + "\n".join(lexicon["terms"]), "terms.txt")
    two += '[[lexicon]]\nfile = "terms.txt"\ncategory = "hate"\nname = "l"\n'
    first, second = load_policy(write(tmp_path, one)), load_policy(write(other, two, "p.toml"))
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('["grue"]', '["grue", "grues"]'),
        ('["grue"]', '["grue"]\nallow = ["grue hunt"]'),
        ('["grue"]', '["grue"]\nmatch = "substring"'),
        ("severity = 4", "severity = 5"),
        ("severity = 4", "severity = 4\nfilter = { clear_below = 0.1, flag_above = 0.9 }"),
        ("Attacks on", "Attacks upon"),
        ("bad >= 1", "bad >= 2"),
        ("a bad word", "some bad word"),
        ('version = "1"', 'version = "2"'),
        ('version = "1"', 'version = "1"\nlanguages = ["en"]'),
    ],
)
def test_fingerprint_changes_with_content(tmp_path: Path, old: str, new: str) -> None:
    before = load_policy(write(tmp_path, SMALL)).fingerprint
    assert load_policy(write(tmp_path, changed(old, new))).fingerprint != before


def test_fingerprint_changes_with_a_term_in_a_file(tmp_path: Path) -> None:
    path = write(tmp_path, changed('terms = ["grue"]', 'file = "a.txt"'))
    found = set()
    for content in ("grue\n", "grue\nzork\n", "grues\n"):
        write(tmp_path, content, "a.txt")
        found.add(load_policy(path).fingerprint)
    assert len(found) == 3


# --- lines --------------------------------------------------------------------------------------

# Every number in these is the line it stands on, counted from the first line of its block.
BLOCKS = (
    "k{n} = 1\n",
    '# "quoted = [\n"k {n}" = 2 # [x]\n',
    "d{n}.e.'f.g' = 1\nd{n}.e.h = 2\n",
    "a{n} = [1, 1,\n  # ] comment\n  3, [3,\n  4], ]\n",
    'i{n} = {{ x = 1, "y" . z = [ {{ w = 1 }},\n {{ w = 2 }} ] }}\n',
    's{n} = ["""\n[x]\n# = 9 \\""" """, 3, \'\'\'\n]\'\'\'\'\', 4]\n',
    "[[t]]\nv = 2\n[t.sub]\nv = 4\n[[t.many]]\nv = 6\n[[t.many]]\nv = 8\n",
    "[ t{n} . 'u' ]\n\nv = 3\n[t{n}]\nw = 5\n",
    "\r\n[[q{n}.r]]\nv = 3\n",
)


def leaves(value: Any, place: Place = ()) -> list[tuple[Place, Any]]:
    if isinstance(value, dict):
        return [leaf for key in value for leaf in leaves(value[key], (*place, key))]
    if isinstance(value, list):
        return [leaf for i, item in enumerate(value) for leaf in leaves(item, (*place, i))]
    return [(place, value)]


def below(line: int, number: re.Match[str]) -> str:
    return str(line + int(number[0]))


@settings(deadline=None)
@given(st.lists(st.sampled_from(BLOCKS), max_size=12))
def test_locate_knows_the_line_of_every_value(blocks: list[str]) -> None:
    text, line = "", 0
    for n, block in enumerate(blocks):
        block = block.format(n=n)
        text += re.sub(r"\b\d+\b", partial(below, line), block)
        line += block.count("\n")
    text = text.replace("\r\n", "\n")
    lines = locate(text)
    for place, value in leaves(tomllib.loads(text)):
        if isinstance(value, int):
            assert lines[place] == value, (place, text)


TRICKY = st.text("ab .,#\"'[]{}=\n\\é", max_size=5)
VALUES = st.recursive(
    st.one_of(TRICKY, st.integers(-9, 9), st.floats(), st.booleans()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TRICKY, inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(TRICKY, VALUES, max_size=4))
def test_locate_has_every_place_of_a_document(document: dict[str, Any]) -> None:
    text = "".join(f"{toml(key)} = {toml(value)}\n" for key, value in document.items())
    lines = locate(text)
    places = {place[:depth] for place, _ in leaves(document) for depth in range(len(place) + 1)}
    assert places <= set(lines)
    assert max(lines.values()) <= text.count("\n") + 1


# --- the documentation --------------------------------------------------------------------------


def test_documented_example_is_a_policy_and_every_name_is_documented(tmp_path: Path) -> None:
    page = (GOLDEN.parent.parent / "docs" / "policy.md").read_text("utf-8")
    example = page.split("```toml\n")[1].split("```")[0]
    (tmp_path / "lists").mkdir()
    write(tmp_path / "lists", "grue\n", "own_terms.txt")
    write(tmp_path / "lists", "grue hunt\n", "own_allowed.txt")
    policy = load_policy(write(tmp_path, example))
    assert policy.lexicons
    assert policy.rules
    top = [field.name for field in fields(Policy)][:7]
    keys = [
        field.name for table in (Category, Thresholds, Lexicon, Rule) for field in fields(table)
    ]
    for name in (*CATEGORIES, *FEATURES, *top, *keys):
        assert f"`{name}`" in page, name


# -- test cases and overlays ---------------------------------------------------------------------

CRISIS = (
    SMALL
    + """
[[test]]
name = "plain"
text = "nothing\\n to see"
verdict = "clear"
why = "It is harmless."
[overlay.crisis]
description = "After an attack."
[overlay.crisis.category.hate]
severity = 5
model = { clear_below = 0.01, flag_above = 0.7 }
[[overlay.crisis.lexicon]]
name = "wumpus"
category = "hate"
terms = ["wumpus"]
[[overlay.crisis.rule]]
name = "wumpus_named"
category = "hate"
verdict = "flag"
when = ["lexicon.wumpus >= 1"]
reason = "It names the wumpus."
[[overlay.crisis.test]]
name = "named"
text = "the wumpus did it"
verdict = "flag"
category = "hate"
why = "So it was decided."
"""
)


def test_an_overlay_comes_before_the_policy(tmp_path: Path) -> None:
    path = write(tmp_path, CRISIS)
    plain, crisis = load_policy(path), load_policy(path, "crisis")
    assert (plain.overlays, plain.overlay) == (("crisis",), "")
    assert (crisis.overlays, crisis.overlay) == (("crisis",), "crisis")
    assert [rule.name for rule in crisis.rules] == ["wumpus_named", "bad_words"]
    assert [lexicon.name for lexicon in crisis.lexicons] == ["wumpus", "bad"]
    assert [case.name for case in crisis.tests] == ["named", "plain"]
    assert crisis.categories[0] == replace(
        plain.categories[0], severity=5, model=Thresholds(0.01, 0.7)
    )
    # What decides is in the fingerprint, and nothing else is.
    assert plain.fingerprint == load_policy(write(tmp_path, SMALL, "small.toml")).fingerprint
    assert crisis.fingerprint != plain.fingerprint
    with pytest.raises(PolicyError, match='no overlay "flood"'):
        load_policy(path, "flood")


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('verdict = "clear"\nwhy', 'verdict = "maybe"\nwhy', 20, 'unknown verdict "maybe"'),
        ('why = "It is harmless."\n', "", 17, "why is missing"),
        ("severity = 5\nmodel", "severity = 6\nmodel", 25, "severity must be"),
        ("lexicon.wumpus >= 1", "lexicon.wumpsu >= 1", 35, "unknown feature"),
        ('"the wumpus did it"', "3", 39, "text must be a text"),
        ('description = "After an attack."\n', "", 22, "description is missing"),
        ("[[overlay.crisis.rule]]", "[overlay.crisis.rule]", 31, "must be written as"),
    ],
)
def test_mistakes_in_cases_and_overlays_have_their_lines(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    assert CRISIS.count(old) == 1
    found = problems(tmp_path, CRISIS.replace(old, new))
    assert any(message in text for _, text in found), found
    assert line in [number for number, _ in found], found


def test_the_shipped_policy_passes_its_own_tests(triager: Triager) -> None:
    outcomes = rehearsal.run_tests(triager)
    assert len(outcomes) >= 9
    assert [(one.name, one.expected, one.got) for one in outcomes if not one.passed] == []


def test_failures_are_shown_with_what_fired(tmp_path: Path) -> None:
    path = write(tmp_path, CRISIS.replace('text = "nothing', 'text = "grue! nothing'))
    result = run("policy", "test", path, "--model", "none")
    assert result.returncode == 1
    assert "failed plain: expected clear, got review" in result.stdout
    assert "It contains a bad word." in result.stdout
    assert "bad at 0-4" in result.stdout
    result = run("policy", "test", path, "--model", "none", "--overlay", "crisis", "--json")
    tests = json.loads(result.stdout)["tests"]
    assert [(one["name"], one["passed"]) for one in tests] == [("named", True), ("plain", False)]
    result = run("policy", "test", write(tmp_path, SMALL), "--model", "none")
    assert (result.returncode, result.stdout) == (0, "the policy holds no tests\n")


def test_a_run_with_an_overlay_is_another_run(tmp_path: Path) -> None:
    path, dump = write(tmp_path, CRISIS), tmp_path / "d.parquet"
    pq.write_table(pa.table({"text": ["the wumpus did it", "good morning"]}), dump)
    out = tmp_path / "out"
    plain = edgemod.triage(dump, out, policy=path, model=None, workers=1)
    assert "flag" not in plain.verdicts
    with pytest.raises(RunError, match="changed: "):
        edgemod.triage(dump, out, policy=path, model=None, workers=1, overlay="crisis")
    crisis = edgemod.triage(
        dump, out, policy=path, model=None, workers=1, overlay="crisis", restart=True
    )
    assert crisis.verdicts["flag"] == 1
    assert crisis.plan["overlay"] == "crisis"
