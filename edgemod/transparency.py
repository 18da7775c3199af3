"""A run in the tables that transparency law and practice ask for. What is not known stays empty.

- ``6_own_initiative_TC.csv`` and ``8_automated_means.csv``: tables 6 and 8 of the template of
  Commission Implementing Regulation (EU) 2024/2835, for reports under Articles 15, 24 and 42 of
  Regulation (EU) 2022/2065 (DSA). Columns and indicators as providers publish them in that template
  (read off reports for the first half of 2026, not off the annex).
- ``santa_clara.csv``: the numbers of the Santa Clara Principles 2.0 (2021), "Numbers".
- ``counts.csv``: records by verdict, category, stage, group and time.
- ``statements.jsonl``: drafts of statements of reasons, Article 17 DSA, in the fields of the DSA
  Transparency Database (API version 1): no text, and no id but a pseudonym that is asked for.

A *measure* is a flag, as if whoever runs edgemod acts on every flag without a person.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow.compute as pc

from edgemod import audit, breakdown, run_folder
from edgemod.breakdown import Breakdown
from edgemod.errors import InputError, OutputError
from edgemod.metrics import Estimate
from edgemod.parts import make_folder, open_part, replacing, write_bytes
from edgemod.policy import Policy, policy_if_there
from edgemod.report import RunReport
from edgemod.words import ANY, CATEGORIES

CATEGORY: Final = {
    "hate": "STATEMENT_CATEGORY_ILLEGAL_OR_HARMFUL_SPEECH",
    "harassment": "STATEMENT_CATEGORY_CYBER_VIOLENCE",
    "threat_violence": "STATEMENT_CATEGORY_VIOLENCE",
    "sexual": "STATEMENT_CATEGORY_OTHER_VIOLATION_TC",
    "self_harm": "STATEMENT_CATEGORY_SELF_HARM",
    "spam_scam": "STATEMENT_CATEGORY_SCAMS_AND_FRAUD",
    "illicit": "STATEMENT_CATEGORY_RISK_FOR_PUBLIC_SECURITY",
    "pii": "STATEMENT_CATEGORY_DATA_PROTECTION_AND_PRIVACY_VIOLATIONS",
    "toxic": "STATEMENT_CATEGORY_OTHER_VIOLATION_TC",
}
"""The nearest category of the database and the template; a person should check the choice."""

_RESTRICTIONS: Final = (
    "Visibility restriction Removal",
    "Visibility restriction Disable",
    "Visibility restriction Demoted",
    "Visibility restriction Age restricted",
    "Visibility restriction Interaction restricted",
    "Visibility restriction Labelled",
    "Visibility restriction Other",
    "Monetary restriction Suspension",
    "Monetary restriction Termination",
    "Monetary restriction Other",
    "Provision of the service Suspension",
    "Provision of the service Termination",
    "Account restriction Suspension",
    "Account restriction Termination",
)
_MEASURES: Final = (
    "Number of measures taken at the provider's own initiative",
    "Number of measures taken after detection with solely automated means",
)
_SECTION: Final = "Use of automated means for content moderation"
_FORMULA: Final = tuple("=+-@\t\r\n＝＋－＠")  # what a spreadsheet would run; see review.py
_UNKNOWN: Final = "not known from this run"


def write(
    run: str | Path,
    folder: str | Path,
    *,
    by: str | None = None,
    times: bool = False,
    labels: str | Path | None = None,
    policy: str | Path | None = None,
    service: str = "",
    period: str = "",
    ids: bool = False,
) -> list[str]:
    """Write all tables of a complete run into a new folder; return the names of the files.

    ``by``, ``times``: as of ``breakdown.count``. ``labels``: a labelled sample of 'edgemod audit
    sample', for error rates; without it those of the certificate, if it holds and is not void.
    ``policy``: the run's, if it is not where it was, for what statements refer to. ``service``,
    ``period``: what the template wants to be said. ``ids``: pseudonyms of records as ``puid``.

    Raises RunError if ``run`` is no complete run, InputError as those do or for ``ids`` of a run
    without pseudonyms, OutputError if ``folder`` is not empty or cannot be written.
    """
    run, folder = Path(run), Path(folder)
    state = run_folder.complete_state(run)
    if ids and not state["plan"].get("pseudonyms"):
        raise InputError(
            "the run has no pseudonyms, and ids may be personal data",
            where="--ids",
            fix="Triage with --pseudonymise, or leave ids out.",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError("is there already", where=str(folder), fix="Name a new folder.")
    told = run_folder.read_report(run)
    of_run = policy_if_there(policy, state)
    found = breakdown.count(run, state, by=by, times=times)
    rates = _audited(run, state, labels) if labels is not None else _certified(told, state)
    make_folder(folder)
    tables = {
        "6_own_initiative_TC.csv": _own_initiative(found, service, period),
        "8_automated_means.csv": _automated_means(found, rates, service, period),
        "santa_clara.csv": _santa_clara(found, told, rates, by),
        "counts.csv": _counts(found, by),
    }
    for name, rows in tables.items():
        write_bytes(folder / name, _csv(rows))
    with replacing(folder / "statements.jsonl") as partial, partial.open("w") as stream:
        for statement in _statements(run, state, of_run, ids):
            stream.write(json.dumps(statement) + "\n")
    return [*tables, "statements.jsonl"]


def _csv(rows: Iterable[Sequence[object]]) -> bytes:
    """RFC 4180 in UTF-8; a cell that a spreadsheet would run gets a leading apostrophe, and no
    terminal obeys one."""
    out = io.StringIO()
    writer = csv.writer(out)
    for row in rows:
        given = ("" if cell is None else str(cell) for cell in row)
        cells = ("".join(c if c.isprintable() else "\ufffd" for c in cell) for cell in given)
        writer.writerow([f"'{c}" if c.startswith(_FORMULA) else c for c in cells])
    return out.getvalue().encode("utf-8", "replace")


# -- error rates -------------------------------------------------------------------------------

Rates = dict[str, tuple[str, str]]
"""Accuracy, Precision, Recall: a value in percent or "", and where it comes from."""


def _none(why: str) -> Rates:
    return dict.fromkeys(("Accuracy", "Precision", "Recall"), ("", f"{_UNKNOWN}: {why}"))


def _audited(run: Path, state: dict[str, Any], labels: str | Path) -> Rates:
    """From people's labels of a sample: estimates with exact 95 % intervals."""
    risk = breakdown.risk(run, state, labels)
    missed = next(
        (s.share for s in audit.report(labels) if (s.what, s.label) == ("missed", ANY)), None
    )
    found = _none(f"no label of {risk.n:,} tells")
    for name, wrong, of in (
        ("Accuracy", risk.risk, "of the records settled without a person, those settled rightly"),
        ("Precision", risk.false_flags, "of the flagged records, those that violate"),
        ("Recall", missed, "of the records that violate, those flagged or sent to a person"),
    ):
        if wrong is not None:
            right = Estimate(1 - wrong.value, 1 - wrong.high, 1 - wrong.low)
            note = f"{of}; 95 % interval {right.low:.2%} to {right.high:.2%}, {risk.n:,} labels"
            found[name] = (f"{100 * right.value:.2f}", note)
    return found


def _certified(told: RunReport, state: dict[str, Any]) -> Rates:
    """From the certificate: bounds, never values."""
    certificate = state.get("certificate")
    if not certificate or not told.certificate:
        return _none("no certificate and no labelled sample")
    if told.certificate["void"]:
        return _none("the certificate is void for these records")
    found = _none("nothing of it is certified")
    sure = 1 - certificate["goal"]["delta"]
    for name, side in (("Precision", "false flag"), ("Recall", "miss")):
        risks = [
            risk
            for risk in certificate["risks"]
            if risk["side"] == side and risk["category"] == ANY and risk["stratum"] is None
        ]
        if risks and risks[0]["certified"]:
            least = 1 - risks[0]["bound"]
            note = f"certified: at least {least:.2%} with confidence {sure:.0%}, on labels"
            found[name] = ("", f"{note} of records like these")
    return found


# -- tables ------------------------------------------------------------------------------------


def _own_initiative(found: Breakdown, service: str, period: str) -> Iterator[Sequence[object]]:
    """Table 6: measures by category; whatever was done about a flag is for the provider to fill."""
    columns = (*_MEASURES, *_RESTRICTIONS)
    yield (
        "Applicability",
        "Service",
        "Reporting period",
        "Category of incompatibility with the provider's terms and conditions",
        'Description of the sub-category "Other"',
        *columns,
        *(f"Contextual Information on {name}" for name in columns),
    )
    empty = [""] * len(_RESTRICTIONS)
    for category in ("TOTAL", *sorted({*CATEGORY.values()})):
        mine = [name for name in CATEGORIES if category in ("TOTAL", CATEGORY[name])]
        flags = sum(found.of(verdict="flag", category=name) for name in mine)
        each = ", ".join(f"{n} {found.of(verdict='flag', category=n):,}" for n in mine)
        note = f"records that edgemod flagged; by its categories: {each}"
        yield ("All", service, period, category, "", flags, flags, *empty, note, note, *empty)


def _automated_means(
    found: Breakdown, rates: Rates, service: str, period: str
) -> Iterator[Sequence[object]]:
    """Table 8, of what a provider does of its own accord; notices are not edgemod's matter."""
    yield (
        "Applicability", "Service", "Reporting period", "Section", "Indicator", "Scope", "Value",
        "Contextual Information",
    )  # fmt: skip
    waiting = found.of(verdict="review")
    rows = [
        ("Number of measures solely taken by automated means", found.of(verdict="flag"),
         "records that edgemod flagged"),
        ("Number of measures not taken by automated means", "",
         f"{_UNKNOWN}: people decide {waiting:,} records that were sent to them"),
        *((f"Accuracy of the automated means - {name}", *told) for name, told in rates.items()),
    ]  # fmt: skip
    for indicator, value, note in rows:
        yield ("All", service, period, _SECTION, indicator, "Own-initiative", value, note)


def _santa_clara(
    found: Breakdown, told: RunReport, rates: Rates, by: str | None
) -> Iterator[Sequence[object]]:
    """One row a number; those that only the provider knows are named and left empty."""
    yield ("number", "of", "value", "note")
    flags = found.of(verdict="flag")
    yield ("records examined", "", told.records, "")
    yield ("content actioned", "", flags, "records flagged")
    yield ("content sent to people", "", found.of(verdict="review"), "not decided by this run")
    for name in CATEGORIES:
        yield ("content actioned, by rule", name, found.of(verdict="flag", category=name), "")
    yield ("content actioned, by source of the flag", "automated detection", flags, "")
    yield ("content actioned, by source of the flag", "users, trusted flaggers, states", "",
           f"{_UNKNOWN}: it looks at records, not at reports")  # fmt: skip
    yield ("content actioned without human review", "", flags, "")
    for group, counts in sorted(found.groups.items()):
        n = sum(n for (verdict, _), n in counts.items() if verdict == "flag")
        yield (f"content actioned, by {by}", group, n, "")
    for name, (value, note) in rates.items():
        yield (f"automated means: {name.lower()}, percent", "", value, note)
    for name in ("accounts suspended", "appeals made", "appeals that succeeded",
                 "content reinstated without appeal", "requests by states"):  # fmt: skip
        yield (name, "", "", f"{_UNKNOWN}: the provider's records have it")


def _counts(found: Breakdown, by: str | None) -> Iterator[Sequence[object]]:
    """Every count there is, one a row."""
    yield ("dimension", "value", "verdict", "category", "records")
    for (stage, verdict, category), n in sorted(found.decided.items()):
        yield ("stage", stage, verdict, category, n)
    for group, counts in sorted(found.groups.items()):
        for (verdict, category), n in sorted(counts.items()):
            yield (by, group, verdict, category, n)
    for when, of in breakdown.periods(found.days).items():
        for verdict, n in sorted(of.items()):
            yield ("time", when, verdict, "", n)
    for verdict in breakdown.VERDICTS:
        n = found.of(verdict=verdict)
        how = "partly automated: a person decides" if verdict == "review" else "fully automated"
        yield ("automation", how, verdict, "", n)


def _statements(
    run: Path, state: dict[str, Any], policy: Policy | None, ids: bool
) -> Iterator[dict[str, Any]]:
    """A draft for each flagged record. None is for the provider to fill in before sending."""
    definitions = {} if policy is None else {c.name: c.definition for c in policy.categories}
    named = "the policy" if policy is None else f"{policy.name} {policy.version}"
    for part in run_folder.parts(run, state):
        with open_part(part) as file:
            table = file.read(["record_id", "verdict", "category", "reason"])
        for row in table.filter(pc.equal(table["verdict"].cast("string"), "flag")).to_pylist():
            name = row["category"]
            yield {
                "decision_visibility": None,
                "decision_ground": "DECISION_GROUND_INCOMPATIBLE_CONTENT",
                "incompatible_content_ground": f"{named}: {name}"[:500],
                "incompatible_content_explanation": (definitions.get(name) or name)[:2000],
                "content_type": ["CONTENT_TYPE_TEXT"],
                "category": CATEGORY.get(name, "STATEMENT_CATEGORY_OTHER_VIOLATION_TC"),
                "territorial_scope": None,
                "content_language": None,
                "content_date": None,
                "application_date": None,
                "decision_facts": f"Found and judged by automated means. {row['reason']}"[:5000],
                "source_type": "SOURCE_VOLUNTARY",
                "automated_detection": "Yes",
                "automated_decision": "AUTOMATED_DECISION_FULLY",
                "puid": row["record_id"] if ids else None,
            }
