"""A run as one HTML page to look at: no script, nothing fetched, light and dark, for A4 paper."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from edgemod import breakdown, drift, patterns, run_folder
from edgemod.breakdown import VERDICTS, Breakdown, Risk
from edgemod.errors import InputError
from edgemod.findings import Finding, Trends
from edgemod.metrics import wilson
from edgemod.parts import write_bytes
from edgemod.pictures import curve, flow, interval, meter, over_time, percent, safe, stacked
from edgemod.policy import Policy, policy_if_there
from edgemod.report import RunReport
from edgemod.screen.trends import TITLES, measured
from edgemod.words import CATEGORIES, counted

PACE: Final = 120
"""Records that one reviewer is taken to read in an hour, half a minute each, unless told."""
_REASONS: Final = 12
_FINDINGS: Final = 6
"""Of each kind of trend."""
_LONG: Final = 20
"""Characters of a term that may be cut in two lines."""
_CSS: Final = Path(__file__).with_suffix(".css")
_FINGERPRINTS: Final = ("code", "input", "policy", "overlay", "filter", "model", "calibration")


def write(
    run: str | Path,
    page: str | Path,
    *,
    by: str | None = None,
    times: bool = False,
    labels: str | Path | None = None,
    trends: str | Path | None = None,
    policy: str | Path | None = None,
    pace: int = PACE,
) -> None:
    """Write the page of a complete run.

    ``by``, ``times``: as of ``breakdown.count``; ``labels``: as of ``breakdown.risk``.
    ``trends``: trends.json of the same input, whose terms and examples are masked in any case.
    ``policy``: the one that the run was made with, for severities, if it is not where it was; the
    page does without if it is gone or has changed. ``pace``: records that one reviewer reads in an
    hour, over 0.

    Only the numbers and decisions of the run are read, and with ``by`` and ``times`` a column each
    of its input. Raises RunError if ``run`` is no complete run, InputError as those do, or for a
    policy that is named and another than the run's; OutputError if ``page`` cannot be written.
    """
    run = Path(run)
    state = run_folder.complete_state(run)
    told = run_folder.read_report(run)
    found = breakdown.count(run, state, by=by, times=times)
    risk = None if labels is None else breakdown.risk(run, state, labels)
    emerged = None if trends is None else _read_trends(trends, state)
    of_run = policy_if_there(policy, state)
    text = _page(told, state, found, of_run, risk, by, max(pace, 1), emerged)
    write_bytes(Path(page), text.encode())


def _page(
    told: RunReport,
    state: dict[str, Any],
    found: Breakdown,
    policy: Policy | None,
    risk: Risk | None,
    by: str | None,
    pace: int,
    emerged: Trends | None,
) -> str:
    names = [Path(entry["path"]).name for entry in state["inputs"]]
    title = names[0] if len(names) == 1 else counted(len(names), "file")
    sections = [
        _flow(found),
        _queue(told, found, policy, pace),
        _categories(found, told.records),
        *([_risk(risk, told.coverage)] if risk is not None else []),
        _certificate(told, state, whole=risk is None),
        *([_groups(found, by)] if by is not None else []),
        *([_times(found)] if found.days else []),
        *([_trends(emerged)] if emerged is not None else []),
        _reasons(told),
        _came_in(told, state),
        _stages(told),
        _fingerprints(state),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Whatever were in it, a browser would neither run nor fetch anything.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>Triage of {safe(title)}</title>\n<style>\n{_CSS.read_text()}</style></head>\n"
        f'<body><header><h1>Triage of {safe(title)}</h1><p class="soft">'
        "What came in, what was decided by what, and what people still have to read.</p>"
        f"</header>\n{_tiles(told)}<main>\n{''.join(sections)}</main>\n"
        "<footer>Intervals are 95 % intervals. Those of shares of all records are Wilson's: how "
        "far such a share would vary in records of the same kind; these were all counted. "
        f"Written by edgemod {safe(state['plan']['code'])}.</footer></body></html>\n"
    )


def _section(title: str, *parts: str, whole: bool = False) -> str:
    css = ' class="whole"' if whole else ""
    return f"<section{css}><h2>{title}</h2>{''.join(parts)}</section>\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; heads that begin with ">" are of numbers, with "#" of bars. Cells are HTML.

    Without heads it is of names and numbers.
    """
    kinds = {">": ' class="n"', "#": ' class="w"'}
    css = [kinds.get(head[:1], "") for head in heads or ("", ">")]
    named = zip(heads, css, strict=False)
    head = "".join(f"<th{c}>{h.lstrip('>#')}</th>" for h, c in named)
    body = "".join(
        "<tr>" + "".join(f"<td{c}>{cell}</td>" for cell, c in zip(row, css, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _key() -> str:
    names = "".join(f'<span><i class="{verdict}"></i>{verdict}</span>' for verdict in VERDICTS)
    return f'<div class="key">{names}</div>'


def _tiles(told: RunReport) -> str:
    review, flag = told.verdicts.get("review", 0), told.verdicts.get("flag", 0)
    tiles = (
        ("all", f"{told.records:,}", "records came in"),
        ("clear", percent(told.coverage), "settled without a person"),
        ("review", f"{review:,}", "go to people"),
        ("flag", f"{flag:,}", "flagged"),
    )
    inner = "".join(
        f'<div class="{css}"><strong>{number}</strong><span>{what}</span></div>'
        for css, number, what in tiles
    )
    return f'<div class="tiles">{inner}</div>\n'


def _flow(found: Breakdown) -> str:
    flows: Counter[tuple[str, str]] = Counter()
    for (stage, verdict, _), n in found.decided.items():
        flows[stage, verdict] += n
    return _section(
        "What was decided by what",
        '<p class="soft">From the records to the stage that had the last word on them, to the '
        "verdict. A band is as wide as its records are many.</p>",
        flow(flows, 960, "wide"),
        flow(flows, 360, "narrow"),
        '<p class="note">rule: a rule of the policy; filter: words and phrases; model: the '
        "language model; duplicate: the same text as an earlier record; status: could not be "
        "scored.</p>",
        whole=True,
    )


def _came_in(told: RunReport, state: dict[str, Any]) -> str:
    rows = [
        ("records", f"{told.records:,}"),
        ("files", f"{told.files:,}"),
        ("characters", f"{told.characters:,}"),
        ("characters a record, on average", f"{told.characters / max(told.records, 1):,.0f}"),
        ("texts too long for one window", f"{told.windowed_texts:,}"),
        ("same text as an earlier record", f"{told.duplicates:,}"),
        ("ids that occurred before", f"{told.repeated_ids:,}"),
        *((f"not scored: {safe(name)}", f"{n:,}") for name, n in told.failures.items()),
    ]
    columns = state["plan"]["columns"]
    read = {"text": ", ".join(columns["text"] or [])} | {
        k: v for k, v in columns.items() if k != "text" and v
    }
    files = "".join(
        f'<tr><td class="any">{safe(entry["path"])}</td><td class="n">'
        f"{entry['bytes'] / 1e6:,.1f} MB</td></tr>"
        for entry in state["inputs"][:20]
    )
    more = len(state["inputs"]) - 20
    return _section(
        "What came in",
        _table((), rows),
        f"<table>{files}</table>",
        f'<p class="note">and {counted(more, "more file")}</p>' if more > 0 else "",
        '<p class="note">Columns read: '
        + "; ".join(f"{safe(k)} from {safe(v)}" for k, v in read.items() if v)
        + ".</p>",
    )


def _reasons(told: RunReport) -> str:
    top = [*told.reasons.items()][:_REASONS]
    most = max((n for _, n in top), default=1)
    rest = len(told.reasons) - len(top)
    return _section(
        "Why",
        _table(
            ("reason", "#", ">records"),
            ((safe(why), meter(n, most, "all"), f"{n:,}") for why, n in top),
        ),
        f'<p class="note">report.json has {counted(rest, "more reason")}.</p>' if rest > 0 else "",
        whole=True,
    )


def _times(found: Breakdown) -> str:
    days = sorted(found.days)
    lost = (
        f"; without a readable time: {counted(found.timeless, 'record')}" if found.timeless else ""
    )
    return _section(
        "Over time",
        f'<p class="soft">Records by their own time, {safe(days[0])} to {safe(days[-1])}{lost}.'
        "</p>",
        over_time(breakdown.periods(found.days)),
        _key(),
        whole=True,
    )


def _queue(told: RunReport, found: Breakdown, policy: Policy | None, pace: int) -> str:
    severity = {} if policy is None else {c.name: c.severity for c in policy.categories}
    names = sorted(
        {c for _, verdict, c in found.decided if verdict == "review"},
        key=lambda name: (-severity.get(name, 0), CATEGORIES.index(name) if name else 99),
    )
    counts = {name: found.of(verdict="review", category=name) for name in names}
    total, most = sum(counts.values()), max(counts.values(), default=1)
    rows = [
        (
            safe(name or "no category"),
            _dots(severity[name]) if name in severity else "-",
            meter(counts[name], most, "review"),
            f"{counts[name]:,}",
            f"{counts[name] / pace:,.1f}",
        )
        for name in names
    ]
    rows.append(("<b>all</b>", "", "", f"<b>{total:,}</b>", f"<b>{total / pace:,.1f}</b>"))
    notes = [f"Hours of one reviewer at {pace:,} records an hour: an assumption, set with --pace."]
    if not severity:
        notes.append("The severities are the policy's: name it with --policy to see them.")
    if told.review["left_behind"]:
        notes.append(
            f"The review budget exported {told.review['exported']:,} of them and left "
            f"{told.review['left_behind']:,} behind."
        )
    return _section(
        "The queue ahead",
        _table(("category", "severity", "#", ">records", ">hours"), rows),
        f'<p class="note">{" ".join(notes)}</p>',
    )


def _dots(severity: int) -> str:
    return f'<span title="severity {severity} of 5">{"●" * severity}{"○" * (5 - severity)}</span>'


def _categories(found: Breakdown, records: int) -> str:
    rows, estimates = [], {}
    for name in CATEGORIES:
        flagged = found.of(verdict="flag", category=name)
        both = flagged + found.of(verdict="review", category=name)
        if both:
            estimates[name] = (flagged, both, wilson(both, records))
    most = max((e.high for _, _, e in estimates.values() if e), default=1.0)
    for name, (flagged, both, share) in estimates.items():
        rows.append(
            (
                name,
                f"{flagged:,}",
                f"{both - flagged:,}",
                meter(both / max(records, 1), most, "all", share),
                interval(share),
            )
        )
    return _section(
        "By category",
        _table(("category", ">flag", ">review", "#", ">of all records"), rows),
        '<p class="note">Flagged or sent to review for the category. What the models suspect, not '
        "what is so: people have judged none of it.</p>",
    )


def _groups(found: Breakdown, by: str) -> str:
    rows = []
    for name, counts in sorted(found.groups.items(), key=lambda item: -item[1].total()):
        verdicts: Counter[str] = Counter()
        for (verdict, _), n in counts.items():
            verdicts[verdict] += n
        total = verdicts.total()
        rows.append(
            (
                f'<span class="any">{safe(name)}</span>',
                f"{total:,}",
                stacked(verdicts),
                interval(wilson(verdicts["review"], total)),
                interval(wilson(verdicts["flag"], total)),
            )
        )
    return _section(
        f"By {safe(by)}",
        _key(),
        _table((safe(by), ">records", "#", ">review", ">flag"), rows),
        whole=True,
    )


def _read_trends(path: str | Path, state: dict[str, Any]) -> Trends:
    found = Trends.read(path)
    if found.input != state["plan"]["input"]:
        raise InputError(
            "is about another input than the run",
            where=str(path),
            fix="Name the trends.json of this run: 'edgemod trends OUT -o FOLDER' writes it.",
        )
    return found


def _trends(found: Trends) -> str:
    """The strongest findings of each kind. No ids, and no word that is not masked."""
    parts = [
        f'<p class="soft">Patterns in {found.records:,} records that no policy names yet: places '
        "to look at, not what is wrong. Terms and examples are masked.</p>"
    ]
    for kind, of_kind in itertools.groupby(found.findings, lambda one: one.kind):
        findings = [*of_kind]
        most = max(one.records for one in findings)
        rows = [
            (
                _what(one),
                f'<span class="any">{safe(one.where)}</span> {_soft(_seen(one))}',
                stacked(one.verdicts)
                if kind in ("campaign", "burst")
                else meter(one.records, most, "all"),
                f"{one.records:,}" + (f" {_soft(f'by {one.authors:,}')}" if one.authors else ""),
                _measured(one),
            )
            for one in findings[:_FINDINGS]
        ]
        rest = len(findings) - len(rows)
        parts += [
            f"<h3>{TITLES[kind]}</h3>",
            '<div class="trends">',
            _table(("what", "where and when", "#", ">records", ">measured"), rows),
            "</div>",
            f'<p class="note">and {rest:,} more in trends.json</p>' if rest else "",
        ]
    if not found.findings:
        parts.append("<p>Nothing was found.</p>")
    notes = [
        "Each kind but campaigns is found by chance alone in at most one archive of a hundred; "
        "intervals hold together. Bars: verdicts of copies, else records. Terms: log-odds ratio; "
        "shifts: difference of shares.",
        *(f"{safe(note[:1].upper() + note[1:])}." for note in found.notes),
    ]
    return _section("What emerges", *parts, f'<p class="note">{" ".join(notes)}</p>', whole=True)


def _seen(one: Finding) -> str:
    return " to ".join(safe(seen[:10]) for seen in (one.first_seen, one.last_seen) if seen)


def _measured(one: Finding) -> str:
    """The figure of a finding, and apart from it the interval; of a campaign its bar says it."""
    if one.value is None and one.p is None:
        return ""
    value, _, around = safe(measured(one)).partition(" (")
    return f"{value} {_soft(f'({around}')}" if around else value


def _soft(text: str) -> str:
    return f'<span class="none">{text}</span>' if text else ""


def _what(one: Finding) -> str:
    """A category as it is, terms and texts masked, whoever wrote the file."""
    what = one.what if one.kind == "mix" else patterns.masked_term(one.what)
    what = what or patterns.masked_text(one.example)
    return f'<span class="any">{safe(what)}</span>' if len(what) > _LONG else safe(what)


def _risk(risk: Risk, coverage: float) -> str:
    """``coverage``: of the whole run, which is known and not estimated."""
    lines = (
        ("settled without a person", f"{percent(coverage)}, counted"),
        ("of these, settled wrongly", interval(risk.risk)),
        ("of the cleared, violating", interval(risk.missed)),
        ("of the flagged, harmless", interval(risk.false_flags)),
    )
    left = f" {risk.unknown:,} labels are of no one record of the run." if risk.unknown else ""
    drawn = curve(risk.curve, (coverage, risk.risk)) if risk.risk else ""
    return _section(
        "How much of it is right",
        drawn,
        _table(("share", ">estimate"), lines),
        f'<p class="note">From {risk.n:,} records that people labelled.{left} The line: were the '
        "surest records settled by the probability of any category alone. The dot: the rules, "
        "thresholds and stages of this run, with its interval.</p>",
    )


def _certificate(told: RunReport, state: dict[str, Any], *, whole: bool) -> str:
    found = told.certificate
    parts = [f"<p>Calibration: {safe(told.calibration_note)}.</p>"]
    if not found:
        parts.append(
            '<p class="soft">No certificate: nothing is proved about the errors of this run. '
            "'edgemod calibrate' makes one from labels of your own records.</p>"
        )
        return _section("Certificate and drift", *parts, whole=whole)
    goal = found["goal"]
    asked = "; ".join(
        f"{name.replace('_', ' ')} {percent(value)}" for name, value in goal.items() if value
    )
    parts.append(f"<p>Asked for: {safe(asked)}.</p>")
    if found["void"]:
        parts.append(
            '<p class="warn"><b>Void.</b> These texts score unlike the labelled ones: label a '
            "sample of these and calibrate again.</p>"
        )
    else:
        parts.append(f"<p>Every claim of it holds: <b>{'yes' if found['holds'] else 'no'}</b>.</p>")
    if found["drift"] is not None:
        parts.append(
            f"<p>Drift: a difference from the labelled texts as great as this one comes by chance "
            f"alone in {found['drift']:.2g} of runs; under {drift.VOID_BELOW:g} the certificate is "
            "void.</p>"
        )
    rows = [
        (
            safe(risk["side"]),
            safe(risk["category"] + (f", {risk['stratum']}" if risk["stratum"] else "")),
            percent(risk["bound"]),
            "yes" if risk["certified"] else "no",
        )
        for risk in (state.get("certificate") or {}).get("risks", ())
    ]
    parts.append(_table(("risk", "of", ">at most", "certified"), rows) if rows else "")
    return _section("Certificate and drift", *parts, whole=whole)


def _stages(told: RunReport) -> str:
    rows = []
    for stage in ("filter", "model"):
        if told.texts_seen.get(stage):
            rate = told.rates.get(f"{stage}_texts")
            rows.append(
                (
                    stage,
                    f"{told.texts_seen[stage]:,}",
                    "-" if rate is None else f"{rate:,.{0 if rate >= 10 else 1}f}",
                )
            )
    lines = (
        ("wall time of the last session", f"{told.wall_seconds:,.0f} s"),
        ("records a second, all workers", f"{told.records_per_second:,.0f}"),
        ("workers", f"{told.workers:,}"),
        ("tokens read by the language model", f"{told.tokens:,}"),
        ("peak memory, all processes", f"{told.peak_memory_bytes / 1e6:,.0f} MB"),
        ("network kept off by", safe(told.offline.get("guard", "not attested"))),
    )
    return _section(
        "Throughput",
        _table(("stage", ">texts seen", ">texts/s a core"), rows),
        _table((), lines),
    )


def _fingerprints(state: dict[str, Any]) -> str:
    plan = state["plan"]
    rows = [(name, f"<code>{safe(plan[name])}</code>") for name in _FINGERPRINTS if plan.get(name)]
    note = "Equal fingerprints, equal decisions."
    if state.get("head"):
        note += " The last is the head of the chain that 'edgemod verify' finds again."
        rows.append(("decisions", f"<code>{safe(state['head'])}</code>"))
    return _section(
        "Fingerprints",
        _table(("of", "SHA-256"), rows),
        f'<p class="note">{note}</p>',
        whole=True,
    )
