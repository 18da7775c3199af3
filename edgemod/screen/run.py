"""What people see of runs and scored texts; the summary of a run goes to stderr."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgemod import drift
from edgemod.screen.console import COLOURS, MOST_SHOWN, Console, percent, safe, table_of
from edgemod.words import OUTPUTS, counted

if TYPE_CHECKING:
    from edgemod.inspection import Inspection
    from edgemod.report import RunReport
    from edgemod.scoring import Score


_OFFLINE: Final = {
    "seccomp": "the kernel kept every worker off the network (seccomp)",
    "audit hook": "Python kept every worker off the network; the kernel did not",
    "none": "no: nothing kept the run off the network",
}


_SHOWN_RECORDS = 3


def summary(report: RunReport, out: Path) -> None:
    """The short account of a run, on stderr."""
    console = Console(stderr=True)
    if not report.records:
        console.print("no record to decide", style="yellow")
        console.print(f"written to {safe(str(out))}", style="dim")
        return
    console.print(
        f"[bold]{counted(report.records, 'record')}[/], [bold]{report.coverage:.1%}[/] settled "
        f"without a person, [bold]{report.verdicts.get('review', 0):,}[/] for review"
    )
    table = table_of("stage", "records", "share", "texts seen", "texts/s a core")
    for stage, count in report.stages.items():
        rate = report.rates.get(f"{stage}_texts")
        seen = report.texts_seen.get(stage)
        table.add_row(
            safe(stage),
            f"{count:,}",
            percent(count, report.records),
            f"{seen:,}" if seen is not None else "",
            f"{rate:,.{0 if rate >= 10 else 1}f}" if rate else "",
        )
    console.print(table)
    verdicts = table_of("verdict", "records", "share")
    for verdict, count in report.verdicts.items():
        verdicts.add_row(
            f"[{COLOURS.get(verdict, 'red')}]{safe(verdict)}[/]",
            f"{count:,}",
            percent(count, report.records),
        )
    console.print(verdicts)
    if report.categories:
        categories = table_of("category of flags and reviews", "records")
        for category, count in report.categories.items():
            categories.add_row(safe(category), f"{count:,}")
        console.print(categories)
    for status, count in report.failures.items():
        console.print(f"to review as {safe(status)}: {count:,}", style="yellow")
    if report.workers_lost:
        how = ", ".join(f"{count:,} {what}" for what, count in report.workers_lost.items())
        console.print(f"workers lost and replaced: {safe(how)}", style="yellow")
    for row in report.quarantined[:_SHOWN_RECORDS]:
        where = f"{row['record_id'] or 'a record'} ({row['source']}, row {row['source_row']})"
        console.print(f"quarantined: {safe(where)}", style="yellow")
    if report.review["left_behind"]:
        console.print(
            f"review budget: {report.review['exported']:,} exported, "
            f"{report.review['left_behind']:,} left behind",
            style="yellow",
        )
    tokens = f", {report.rates['model_tokens']:,.0f} tokens/s a core" if report.tokens else ""
    if report.shards:
        console.print(
            f"merged from {counted(report.shards['count'], 'shard')}; the longest took:",
            style="dim",
        )
    console.print(
        f"{report.wall_seconds:,.1f} s, {report.records_per_second:,.0f} records/s with "
        f"{counted(report.workers, 'worker')}{tokens}, peak memory "
        f"{report.peak_memory_bytes / 1e6:,.0f} MB",
        style="dim",
    )
    if report.resumed_chunks:
        console.print(f"done before: {counted(report.resumed_chunks, 'chunk')}", style="dim")
    if not report.certificate.get("void"):
        console.print(f"calibration: {safe(report.calibration_note)}", style="dim")
    else:
        found = report.certificate
        strata = found["drift of strata"] or {}
        unlike = [safe(name) for name, p in strata.items() if p < drift.VOID_BELOW]
        why = []
        if unlike or min(found["drift"], *strata.values(), 1.0) < drift.VOID_BELOW:
            where = f", above all in {', '.join(unlike[:MOST_SHOWN])}" if unlike else ""
            chance = f"{found['drift']:.1g}"
            why.append(f"records score unlike the labelled ones (chance {chance}{where})")
        if others := found["records of other strata"]:
            why.append(f"of strata that it does not know: {counted(others, 'record')}")
        console.print(
            f"certificate void: {'; '.join(why)}; label a sample of these and calibrate again",
            style="bold red",
        )
    guard = str(report.offline.get("guard"))
    console.print(
        f"offline: {_OFFLINE.get(guard, 'not attested')}",
        style="dim" if guard == "seccomp" else "yellow",
    )
    kept = "scores/ " if report.plan["keep_scores"] else ""
    console.print(f"written to {safe(str(out))}: decisions/ review/ {kept}report.json run.json")


def scores(answers: Sequence[Score], first: int = 0) -> None:
    """A table of scored texts, counted from ``first``, on stdout. The texts are not shown."""
    console = Console()
    for position, answer in enumerate(answers, first):
        colour = COLOURS[answer.verdict]
        what = f" ({answer.category})" if answer.category else ""
        console.print(
            f"text {position}: [bold {colour}]{answer.verdict}[/]{what} by {answer.stage}: "
            f"{safe(answer.reason)}"
        )
        table = table_of("category", "probability", "")
        for name in OUTPUTS:
            p = answer.probabilities[name]
            if p is not None:
                table.add_row(name, f"{p:.3f}", "█" * round(p * 20))
        if table.row_count:
            console.print(table)
        if answer.fired:
            fired = ", ".join(f"{what} at {start}-{end}" for start, end, what in answer.fired)
            console.print(f"fired: {safe(fired)}")


def inspection(found: Inspection) -> None:
    """What a file holds, on stdout."""
    console = Console()
    console.print(safe(found.headline))
    table = table_of("column", "type", "looks like")
    for column in found.columns:
        table.add_row(safe(column.name), safe(column.type), column.role or "")
    console.print(table)
    if found.histogram:
        lengths = table_of("characters", "texts", "")
        most = max(count for _, count in found.histogram) or 1
        for label, count in found.histogram:
            lengths.add_row(label, f"{count:,}", "█" * round(30 * count / most))
        console.print(lengths)
    for notice in found.notices:
        console.print(safe(notice), style="yellow")
    console.print(f"triage it:\n  {safe(found.command)}", soft_wrap=True)
