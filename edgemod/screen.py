"""What people see: tables, the summary of a run, the progress bar. Reports go to stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from edgemod import drift
from edgemod.words import CATEGORIES, OUTPUTS

if TYPE_CHECKING:
    from edgemod import pipeline
    from edgemod.audit import Share
    from edgemod.calibrating import Calibrated
    from edgemod.checkup import Finding
    from edgemod.evaluation import Evaluation
    from edgemod.explain import Explanation
    from edgemod.figures import Benchmark, Figure, Ratio
    from edgemod.inspection import Inspection
    from edgemod.metrics import Estimate
    from edgemod.policy import Policy, Thresholds
    from edgemod.rehearsal import Catch, Diff, Drill, Outcome
    from edgemod.report import RunReport
    from edgemod.scoring import Score
    from edgemod.store import ModelEntry


_LOG_WIDTH = 200


class _Console(Console):
    """A console that leaves it to the command line what a reader that has gone means."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, emoji=False)
        if not self.is_terminal and "COLUMNS" not in os.environ:
            self.width = _LOG_WIDTH  # what goes to a log is not cut into lines for nobody

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


_OFFLINE: Final = {
    "seccomp": "the kernel kept every worker off the network (seccomp)",
    "audit hook": "Python kept every worker off the network; the kernel did not",
}
_SHOWN_RECORDS = 3
_COLOURS = {"clear": "green", "flag": "red", "review": "yellow"}


def summary(report: RunReport, out: Path) -> None:
    """The short account of a run, on stderr."""
    console = _Console(stderr=True)
    console.print(
        f"[bold]{report.records:,}[/] records, [bold]{report.coverage:.1%}[/] settled without a "
        f"person, [bold]{report.verdicts.get('review', 0):,}[/] for review"
    )
    table = _table("stage", "records", "share", "texts seen", "texts/s a core")
    for stage, count in report.stages.items():
        rate = report.rates.get(f"{stage}_texts")
        seen = report.texts_seen.get(stage)
        table.add_row(
            _shown(stage),
            f"{count:,}",
            _share(count, report.records),
            f"{seen:,}" if seen is not None else "",
            f"{rate:,.{0 if rate >= 10 else 1}f}" if rate else "",
        )
    console.print(table)
    verdicts = _table("verdict", "records", "share")
    for verdict, count in report.verdicts.items():
        verdicts.add_row(
            f"[{_COLOURS.get(verdict, 'red')}]{_shown(verdict)}[/]",
            f"{count:,}",
            _share(count, report.records),
        )
    console.print(verdicts)
    if report.categories:
        categories = _table("category of flags and reviews", "records")
        for category, count in report.categories.items():
            categories.add_row(_shown(category), f"{count:,}")
        console.print(categories)
    for status, count in report.failures.items():
        console.print(f"to review as {_shown(status)}: {count:,}", style="yellow")
    if report.workers_lost:
        how = ", ".join(f"{count:,} {what}" for what, count in report.workers_lost.items())
        console.print(f"workers lost and replaced: {_shown(how)}", style="yellow")
    for row in report.quarantined[:_SHOWN_RECORDS]:
        where = f"{row['record_id']} ({row['source']}, row {row['source_row']})"
        console.print(f"quarantined (report.json names all): {_shown(where)}", style="yellow")
    if report.review["left_behind"]:
        console.print(
            f"review budget: {report.review['exported']:,} exported, "
            f"{report.review['left_behind']:,} left behind",
            style="yellow",
        )
    tokens = f", {report.rates['model_tokens']:,.0f} tokens/s a core" if report.tokens else ""
    if report.shards:
        console.print(
            f"merged from {report.shards['count']} shards; the longest took:", style="dim"
        )
    console.print(
        f"{report.wall_seconds:,.1f} s, {report.records_per_second:,.0f} records/s with "
        f"{report.workers} worker{'s' * (report.workers != 1)}{tokens}, peak memory "
        f"{report.peak_memory_bytes / 1e6:,.0f} MB",
        style="dim",
    )
    if not report.certificate.get("void"):
        console.print(f"calibration: {_shown(report.calibration_note)}", style="dim")
    else:
        found = report.certificate
        strata = [name for name, p in found["drift of strata"].items() if p < drift.VOID_BELOW]
        where = f", above all in {', '.join(map(_shown, strata[:_MOST_SHOWN]))}" if strata else ""
        if found["texts of other strata"]:
            where += f"; {found['texts of other strata']:,} are of strata that it does not know"
        console.print(
            "certificate void: these texts score unlike the labelled ones (chance "
            f"{found['drift']:.1g}){where}; label a sample of these and calibrate again",
            style="bold red",
        )
    guard = str(report.offline.get("guard"))
    console.print(
        f"offline: {_OFFLINE.get(guard, 'not attested')}",
        style="dim" if guard == "seccomp" else "yellow",
    )
    console.print(f"written to {_shown(str(out))}: decisions/ review/ report.json run.json")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} records/s" if task.speed else "")


@contextlib.contextmanager
def progress(kind: str) -> Iterator[Callable[[pipeline.Progress], None]]:
    """Progress on stderr as a "bar", as "json", a line a chunk, or not at all; what to call."""
    if kind == "bar":
        with bar() as update:
            yield update
        return

    def tell(event: pipeline.Progress) -> None:
        rounded = dataclasses.replace(event, seconds=round(event.seconds, 1))
        sys.stderr.write(json.dumps(dataclasses.asdict(rounded)) + "\n")
        sys.stderr.flush()

    yield tell if kind == "json" else lambda event: None


@contextlib.contextmanager
def reading(shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr for records that are read; yields what to call with how many of how many."""
    if not shown:
        yield lambda done, total: None
        return
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(SpinnerColumn(), *columns, console=_Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def bar() -> Iterator[Callable[[pipeline.Progress], None]]:
    """A progress bar on stderr with rate and time left; yields what to call after a chunk."""
    shown = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=_Console(stderr=True),
        transient=True,
    )
    with shown:
        task = shown.add_task("loading models", total=None)

        def update(event: pipeline.Progress) -> None:
            shown.update(
                task,
                completed=event.records,
                total=event.total,
                description=f"triage, {event.review:,} for review",
            )

        yield update


def scores(answers: Sequence[Score], first: int = 0) -> None:
    """A table of scored texts, counted from ``first``, on stdout. The texts are not shown."""
    console = _Console()
    for position, answer in enumerate(answers, first):
        colour = _COLOURS[answer.verdict]
        what = f" ({answer.category})" if answer.category else ""
        console.print(
            f"text {position}: [bold {colour}]{answer.verdict}[/]{what} by {answer.stage}: "
            f"{_shown(answer.reason)}"
        )
        table = _table("category", "probability", "")
        for name in OUTPUTS:
            p = answer.probabilities[name]
            if p is not None:
                table.add_row(name, f"{p:.3f}", "█" * round(p * 20))
        if table.row_count:
            console.print(table)
        if answer.fired:
            fired = ", ".join(f"{what} at {start}-{end}" for start, end, what in answer.fired)
            console.print(f"fired: {_shown(fired)}")


_POINTS: Final = {
    "F1 at .5": "f1_at_half",
    "F1 flag": "f1_at_flag_threshold",
    "F1 best": "f1_oracle",
    "R 1 %": "recall_at_fpr_1",
    "R 10 %": "recall_at_fpr_10",
    "P 90 %": "precision_at_recall_90",
    "read 2 %": "review_at_miss_2",
    "read 5 %": "review_at_miss_5",
    "AUGRC": "augrc",
    "ECE": "ece",
}
"""Headings of the figures on the screen; the rest are in the JSON."""


def evaluations(found: Sequence[Evaluation]) -> None:
    """What an evaluation found, file by file, on stdout."""
    console = _Console()
    for file, of_file in itertools.groupby(found, lambda line: line.file):
        lines = [*of_file]
        console.print(f"[bold]{_shown(file)}[/]")
        areas = _table("label", "stage", "ranked by", "violating", "AUPRC", "AUROC")
        points = _table("label", "stage", "ranked by", *_POINTS)
        shares = _table("label", "records", "truly", "clear", "flag", "review")
        unscored = 0
        for line in lines:
            for rank in line.rankings:
                unscored = max(unscored, rank.unscored)
                violating = f"{rank.positives:,} of {rank.n:,}"
                label = line.label if line.group is None else f"{line.label}, {_shown(line.group)}"
                both = area(rank.figures.get("auprc")), area(rank.figures.get("auroc"))
                areas.add_row(label, rank.stage, rank.probability, violating, *both)
                if rank.figures and line.group is None:
                    told = (rank.figures.get(name) for name in _POINTS.values())
                    values = ("-" if figure is None else f"{figure.value:.3f}" for figure in told)
                    points.add_row(label, rank.stage, rank.probability, *values)
            for truly, part in (("violating", line.violating), ("harmless", line.harmless)):
                if part and part.n:
                    decided = (part.clear, part.flag, part.review)
                    label = line.label
                    label += "" if line.group is None else f", {_shown(line.group)}"
                    shares.add_row(label, f"{part.n:,}", truly, *map(share, decided))
        console.print(areas)
        if points.row_count:
            console.print(points)
        if shares.row_count:
            console.print(shares)
        if unscored:
            console.print(f"not scored, and not in the areas: {unscored:,}", style="yellow")
    console.print(
        "in brackets: 95 % intervals; those of all figures are in --json. F1 best: with the best "
        "threshold in hindsight. R: recall at false positives; P: precision at recall; read: share "
        "for review at a miss rate",
        style="dim",
    )


def area(found: Estimate | None) -> str:
    """An area under a curve with its interval."""
    return f"{found.value:.3f} ({found.low:.2f}-{found.high:.2f})" if found else "-"


def share(found: Estimate | None) -> str:
    """A share with its interval, in percent."""
    if not found:
        return "-"
    return f"{found.value:.1%} ({100 * found.low:.0f}-{100 * found.high:.0f})"


def calibration(made: Calibrated, out: Path) -> None:
    """What was certified, and what was not, on stdout."""
    console = _Console()
    table = _table("risk", "of", "wrong / labelled", "found", "at most", "accepted", "certified")
    for risk in made.found.risks:
        name = risk.category + (f" in {_shown(risk.stratum)}" if risk.stratum is not None else "")
        answer = "[green]yes[/]" if risk.certified else "[red]no[/]"
        if risk.target is None:
            answer = "bound"
        elif risk.needed == 0:
            answer += ", held up by others"
        elif risk.needed is not None:
            answer += f", about {risk.needed:,} more"
        table.add_row(
            risk.side,
            name,
            f"{risk.bad:,} / {risk.n:,}",
            "-" if risk.found is None else f"{risk.found:.1%}",
            f"{risk.bound:.1%}",
            "-" if risk.target is None else f"{risk.target:.1%}",
            answer,
        )
    console.print(table)
    console.print(
        "miss: of the records that violate, the share cleared; false flag: of the records "
        "flagged, the share that does not violate. About N more: records of that kind.",
        style="dim",
    )
    limits = made.found.limits
    if not limits["filter"].clear_below.any():
        console.print(
            "the filter clears nothing by this: the language model reads every record, and a run "
            "takes several times as long",
            style="yellow",
        )
    silent = [
        name
        for k, name in enumerate(CATEGORIES)
        if all(math.isinf(limit.flag_above[k]) for limit in limits.values())
    ]
    if silent:
        console.print(f"never flagged, but for rules: {', '.join(silent)}", style="yellow")
    if made.certificate["labels"]["drawn by known chances"]:
        console.print("how many more weighted labels it would take cannot be told", style="dim")
    shares = made.found.shares
    console.print(", ".join(f"{verdict} {share:.1%}" for verdict, share in shares.items()))
    console.print(_shown(made.note), style="bold")
    console.print(f"written to {_shown(str(out))}: triage with --calibration", style="dim")


def audit(found: Sequence[Share]) -> None:
    """What a labelled sample says of a run, on stdout."""
    console = _Console()
    table = _table("label", "share", "of", "labelled", "estimate")
    for one in found:
        what, of = _AUDITED[one.what]
        whose = "any" if one.label == "any" else one.label
        table.add_row(one.label, what, of.format(whose), f"{one.n:,}", share(one.share))
    console.print(table)
    console.print("in brackets: 95 % intervals that hold for any number of labels", style="dim")


_AUDITED: Final = {
    "violate": ("violate", "all records"),
    "missed": ("cleared", "those that violate"),
    "violate among cleared": ("violate", "cleared records"),
    "wrong flags": ("do not violate", "records flagged for {}"),
}


def tests(outcomes: Sequence[Outcome]) -> None:
    """What became of a policy's test cases, on stdout; the failures in full."""
    console = _Console()
    for one in outcomes:
        if one.passed:
            continue
        expected, got = (" as ".join(words) for words in (one.expected, one.got))
        console.print(f"[red]failed[/] [bold]{_shown(one.name)}[/]: expected {expected}, got {got}")
        console.print(f"  because: {_shown(one.why)}")
        console.print(f"  decided by {one.stage}: {_shown(one.reason)}")
        fired = ", ".join(f"{what} at {start}-{end}" for start, end, what in one.fired)
        if fired:
            console.print(f"  fired: {_shown(fired)}")
        likely = sorted(
            ((p, name) for name, p in one.probabilities.items() if p is not None), reverse=True
        )
        if likely:
            console.print("  " + ", ".join(f"p_{name} {p:.3f}" for p, name in likely[:3]))
    passed = sum(one.passed for one in outcomes)
    told = f"{passed} of {len(outcomes)} tests passed" if outcomes else "the policy holds no tests"
    console.print(told)


def catches(found: Sequence[Catch]) -> None:
    """What rules, lexicons and terms catch, on stdout."""
    console = _Console()
    for kind, of_kind in itertools.groupby(found, lambda one: one.kind):
        some = [*of_kind]
        alive = [one for one in some if one.hits]
        table = _table(kind, "label", "hits", "precision", "recall", "only this", "overlaps most")
        for one in alive[:_MOST_SHOWN]:
            other = "" if one.overlap is None else f"{_shown(one.overlap[0])} {one.overlap[1]:.0%}"
            table.add_row(
                _shown(one.name),
                one.label,
                f"{one.hits:,}",
                share(one.precision),
                share(one.recall),
                f"{one.unique:,}",
                other,
            )
        console.print(table)
        if len(alive) > _MOST_SHOWN:
            console.print(f"and {len(alive) - _MOST_SHOWN:,} more: --json has all", style="dim")
        dead = [_shown(one.name) for one in some if not one.hits]
        if dead:
            told = f"dead, {len(dead):,} of {len(some):,} {kind}s"
            console.print(f"{told}: {', '.join(dead[:_MOST_SHOWN])}", style="yellow")


def diff(found: Diff) -> None:
    """How two policies decide, on stdout."""
    console = _Console()
    table = _table("from", "to", "records", "share", "the first")
    for (old, new), count in sorted(found.moved.items(), key=lambda item: -item[1]):
        if old != new:
            first = ", ".join(map(_shown, found.ids[old, new][:3]))
            table.add_row(old, new, f"{count:,}", _share(count, found.records), first)
    moved = sum(n for (old, new), n in found.moved.items() if old != new)
    console.print(f"[bold]{moved:,}[/] of {found.records:,} records are decided otherwise")
    if not moved:
        return
    console.print(table)
    why = _table("from", "to", "for what reason", "records")
    for (old, new, reason), count in found.why.most_common(_MOST_SHOWN):
        why.add_row(old, new, _shown(reason), f"{count:,}")
    console.print(why)
    load = _table("category", "review before", "after", "flag before", "after")
    counters = (*found.reviews, *found.flags)
    for name in sorted({name for counter in counters for name in counter}):
        load.add_row(name, *(f"{counter[name]:,}" for counter in counters))
    console.print(load)
    if len(found.groups) > 1:
        files = _table("records of", "moved", "of")
        ranked = sorted(found.groups.items(), key=lambda item: -item[1][0] / item[1][1])
        for name, (m, n) in ranked[:_MOST_SHOWN]:
            files.add_row(_shown(name), f"{m:,}", f"{n:,}")
        console.print(files)


def drill(found: Drill) -> None:
    """What an overlay would ask of people, on stdout."""
    diff(found.diff)
    console = _Console()
    (before, after), (hours, more) = found.reviews, found.hours
    console.print(
        f"review queue: {before:,} records, {hours:,.1f} h of the team, without the overlay; "
        f"[bold]{after:,}[/] records, [bold]{more:,.1f} h[/], with it"
    )
    if found.unread:
        unread = ", ".join(f"{name} {count:,}" for name, count in found.unread.items())
        console.print(
            f"not read within {found.shift:g} h: {sum(found.unread.values()):,} ({unread})",
            style="yellow",
        )
    eased = (
        sum(n for (_, to), n in found.diff.moved.items() if to == "clear")
        - (found.diff.moved["clear", "clear"])
    )
    if eased:
        console.print(
            f"{eased:,} records are cleared with it that were not: an overlay should only tighten",
            style="bold yellow",
        )
    if found.failing:
        tests(found.failing)


_MOST_SHOWN: Final = 20


def explanation(found: Explanation) -> None:
    """Everything that led to one decision, on stdout."""
    console = _Console()
    row = found.decision
    verdict = f"[{_COLOURS[row['verdict']]}]{row['verdict']}[/]"
    where = f"{row['source']}#{row['source_row']}"
    console.print(f"[bold]{_shown(row['record_id'])}[/] ({_shown(where)}): {verdict}")
    if found.others:
        console.print(
            f"{found.others} more records have this id; this is the first", style="yellow"
        )
    console.print(f"why: {_shown(row['reason'])}; settled by {row['stage']}")
    if found.rule:
        when = ", ".join(f"{c['feature']} {c['op']} {c['value']:g}" for c in found.rule["when"])
        console.print(f"the rule's conditions: {_shown(when)}")
    if found.category:
        console.print(f"{found.category}: {_shown(found.definition, lines=True)}")
    # Indented, so that no line of it reads as one of edgemod's.
    text = Text(printable(found.text, lines=True))
    console.print(Padding(text, (1, 0, 1, 2), expand=False), style="cyan")
    table = _table("category", "p", "filter clear, flag", "model clear, flag", "windows")
    for name, stages in found.thresholds.items():
        p = row[f"p_{name}"]
        pairs = (
            ", ".join("-" if v is None else f"{v:.3f}" for v in stages[stage].values())
            for stage in ("filter", "model")
        )
        windows = " ".join(f"{window[name]:.3f}" for window in found.windows[:8])
        table.add_row(name, "-" if p is None else f"{p:.3f}", *pairs, windows)
    console.print(table)
    for start, end, what in found.fired:
        console.print(f"fired: {_shown(what)} at {start}-{end}")
    words = ", ".join(f"{_shown(found.text[w.start : w.end])} {w.adds:+.2f}" for w in found.words)
    if words:
        console.print(f"words that weigh most in the filter: {words}")
    values = ", ".join(f"{name} {value:.3g}" for name, value in found.features.items())
    console.print(f"features: {values}", style="dim")
    console.print(f"policy: {_shown(found.policy)}; calibration: {_shown(found.calibration)}")


def inspection(found: Inspection) -> None:
    """What a file holds, on stdout."""
    console = _Console()
    console.print(_shown(found.headline))
    table = _table("column", "type", "looks like")
    for column in found.columns:
        table.add_row(_shown(column.name), _shown(column.type), column.role or "")
    console.print(table)
    if found.histogram:
        lengths = _table("characters", "texts", "")
        most = max(count for _, count in found.histogram) or 1
        for label, count in found.histogram:
            lengths.add_row(label, f"{count:,}", "█" * round(30 * count / most))
        console.print(lengths)
    for notice in found.notices:
        console.print(_shown(notice), style="yellow")
    console.print(f"triage it:\n  {_shown(found.command)}", soft_wrap=True)


def policy(shown: Policy) -> None:
    """A policy in tables, on stdout."""
    console = _Console()
    console.print(f"[bold]{_shown(shown.name)}[/] version {_shown(shown.version)}")
    console.print(f"fingerprint {shown.fingerprint}", style="dim")
    console.print(
        f"languages: {', '.join(shown.languages) or 'all'} (others: "
        f"{shown.unsupported_language}); empty text: {shown.empty_text}; "
        f"texts up to {shown.max_text_bytes:,} bytes; stages: {', '.join(shown.stages)}"
    )
    table = _table("category", "severity", "definition")
    for category in shown.categories:
        table.add_row(
            category.name, str(category.severity), _shown(category.definition, lines=True)
        )
    console.print(table)
    limits = _table("category", "filter clears", "filter flags", "model clears", "model flags")
    for category in shown.categories:
        limits.add_row(category.name, *_limits(category.filter), *_limits(category.model))
    console.print(limits)
    rules = _table("rule", "when", "verdict", "reason")
    for rule in shown.rules:
        when = " and ".join(f"{c.feature} {c.op} {c.value:g}" for c in rule.when)
        on = "" if rule.on == "any" else f"would be {rule.on}, "
        rules.add_row(
            _shown(rule.name),
            _shown(on + when),
            f"{rule.verdict} ({rule.category})",
            _shown(rule.reason),
        )
    console.print(rules)
    lexicons = _table("lexicon", "category", "terms", "allowed", "match")
    for lexicon in shown.lexicons:
        lexicons.add_row(
            _shown(lexicon.name),
            lexicon.category,
            f"{len(lexicon.terms):,}",
            f"{len(lexicon.allow):,}",
            lexicon.match,
        )
    console.print(lexicons)


def _limits(own: Thresholds | None) -> tuple[str, str]:
    if own is None:
        return "calibration's", "calibration's"
    flags = "never" if math.isinf(own.flag_above) else f"from {own.flag_above:g}"
    return f"below {own.clear_below:g}", flags


def models(entries: Sequence[ModelEntry]) -> None:
    """The known models, on stdout."""
    table = _table("model", "kind", "here", "licence", "SHA-256", "source")
    for entry in entries:
        table.add_row(
            _shown(entry.name),
            entry.kind,
            "yes" if entry.present else "no",
            _shown(entry.licence),
            entry.sha256[:12],
            _shown(entry.source),
        )
    _Console().print(table)


def findings(found: Sequence[Finding]) -> None:
    """The findings of the check-up, on stdout."""
    table = _table("", "check", "finding")
    for finding in found:
        table.add_row(
            "[green]ok[/]" if finding.ok else "[red]no[/]",
            finding.name,
            _shown(finding.detail, lines=True),
        )
    _Console().print(table)


def benchmark(found: Benchmark, against: tuple[Sequence[Ratio], Sequence[str]] | None) -> None:
    """What a benchmark measured, and how that compares with another, on stdout."""
    console = _Console()
    sample, machine = found.sample, found.machine
    console.print(
        f"{_shown(machine['processor'])}, {machine['cores']} usable cores; {sample['records']:,} "
        f"records ({sample['draw']}), {sample['characters'] / sample['texts']:,.0f} characters a "
        f"text, {sample['format']}"
    )
    ratios = {one.figure.key: one for one in against[0]} if against else {}
    table = _table(
        "stage", "step", "measured", "unit", "per", "which", *["ratio", ""][: 2 * bool(against)]
    )
    for figure in found.figures:
        which = f"{figure.statistic} of {figure.count:,}"
        cells = [figure.stage, figure.step, *_measured(figure), figure.per, which]
        if one := ratios.get(figure.key):
            cells += [f"{one.ratio:.2f}", one.verdict]
        table.add_row(*cells)
    console.print(table)
    console.print(f"energy: {_shown(found.energy) or 'of the whole machine'}", style="dim")
    for note in found.notes:
        console.print(_shown(note), style="yellow")
    for difference in against[1] if against else ():
        console.print(f"not the same: {_shown(difference)}", style="yellow")
    console.print(f"[bold]--workers {found.workers}[/]: {_shown(found.why)}")


def _measured(figure: Figure) -> tuple[str, str]:
    value, unit = figure.value, figure.unit
    if figure.statistic == "share":
        return f"{value:.1%}", unit
    if unit.startswith("bytes"):
        value, unit = value / 1e6, unit.replace("bytes", "MB", 1)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}", unit


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        numeric = name in {
            "records",
            "share",
            "texts seen",
            "texts/s a core",
            "probability",
            "texts",
            "terms",
            "allowed",
            "severity",
            "violating",
            "AUPRC",
            "AUROC",
            "clear",
            "flag",
            "review",
            "measured",
            "ratio",
        }
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    return table


def _shown(text: str, *, lines: bool = False) -> str:
    """Text as it is, for rich: nothing in it is markup, and nothing drives the terminal."""
    return escape(printable(text, lines=lines))


def printable(text: str, *, lines: bool = False) -> str:
    """Text with all that has no ink escaped: controls, ANSI escapes, bidirectional overrides.

    So a name can neither drive the terminal nor read as another; nor, unless ``lines``, can it
    write a line of its own.
    """
    return "".join(
        c if c.isprintable() or (lines and c == "\n") else c.encode("unicode_escape").decode()
        for c in text
    )


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else ""
