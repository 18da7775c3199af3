"""What people see of imported answers and of what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgemod.screen.console import MOST_SHOWN, Console, area, safe, share, table_of
from edgemod.words import counted

if TYPE_CHECKING:
    from edgemod.reviewing.labelling import Imported
    from edgemod.reviewing.stats import Stats


def imported(done: Imported, total: int) -> None:
    """What an import did, on stdout."""
    console = Console()
    for problem in done.problems[:MOST_SHOWN]:
        console.print(f"{safe(problem.where)}: {problem.what}", style="yellow")
    if len(done.problems) > MOST_SHOWN:
        console.print(
            f"and {counted(len(done.problems) - MOST_SHOWN, 'more row')} without an answer"
        )
    if done.conflicts:
        table = table_of("conflict", "about", "answers")
        for one in done.conflicts[:MOST_SHOWN]:
            first = one.answers[0]
            told = ", ".join(f"{a.reviewer}: {a.says}" for a in one.answers)
            where = f"{first.record_id or '-'} ({first.source}#{first.source_row})"
            table.add_row(safe(where), one.about, safe(told))
        console.print(table)
        if len(done.conflicts) > MOST_SHOWN:
            console.print(f"and {len(done.conflicts) - MOST_SHOWN:,} more")
    console.print(f"{counted(done.read, 'answer')} read, {done.new:,} of them new")
    console.print(
        f"of {counted(total, 'record')}: {done.labelled:,} labelled, "
        f"{len(done.conflicts):,} in conflict, {done.escalated:,} escalated, "
        f"{done.waiting:,} waiting"
    )
    if done.other_policies:
        console.print(f"given under another policy: {counted(done.other_policies, 'answer')}")
    if done.passed_over is not None:
        left, severe = done.passed_over
        if left:
            console.print(
                f"{left:,} records before the last labelled one of the sample have no label, "
                f"{severe:,} of them severe: skipped, capped, escalated or in dispute, so not left "
                "out by chance, and rates of these labels leave them out",
                style="yellow",
            )
    elif done.waiting and done.labelled:
        console.print(
            "not all of the queue is answered, and what is came first for a reason: rates of these "
            "labels are not rates of the queue"
        )
    if done.appeals:
        console.print(
            f"{done.appeals:,} outcomes of appeals, {done.overturned:,} overturned. Who appeals is "
            "no chance: labels of these prove nothing of a whole, 'edgemod learn' can fit with them"
        )
    console.print("written: " + ", ".join(map(safe, done.files)))


def stats(found: Stats) -> None:
    """What the answers say, on stdout."""
    console = Console()
    console.print(f"{found.answered:,} of {counted(found.records, 'record')} answered")
    table = table_of(
        "reviewer", "texts", "alike", "clear", "flag", "escalate", "seconds", "an hour", "unseen"
    )
    for one in found.pace:
        table.add_row(
            safe(one.reviewer), *(f"{n:,}" for n in (one.answers, one.alike, one.clear, one.flag)),
            f"{one.escalate:,}", _number(one.seconds), _number(one.an_hour, 0),
            "-" if one.unseen is None else f"{one.unseen:.0%}",
        )  # fmt: skip
    console.print(table)
    console.print()
    table = table_of("agreement", "on", "reviewers", "records", "measured")
    for pair in found.agreement:
        names = " and ".join(pair.reviewers) if pair.figure == "kappa" else "all"
        table.add_row(
            _FIGURES[pair.figure], pair.scale, safe(names), f"{pair.records:,}", area(pair.value)
        )
    console.print(table)
    console.print()
    if found.disputes:
        table = table_of("flagged as", "pairs of answers", "the other said otherwise", "mostly")
        for one_of in found.disputes:
            table.add_row(
                safe(one_of.category), f"{one_of.pairs:,}", share(one_of.otherwise),
                safe(one_of.mostly or "-"),
            )  # fmt: skip
        console.print(table)
        console.print()
    table = table_of("reviewer", "block", "texts", "flag", "p of any", "seconds")
    for block in found.drift:
        table.add_row(
            safe(block.reviewer), str(block.number), f"{block.answers:,}", share(block.flagged),
            "-" if block.expected is None else f"{block.expected:.1%}", _number(block.seconds),
        )  # fmt: skip
    console.print(table)
    console.print()
    table = table_of("by", "of", "edgemod leaned to", "records", "decided otherwise")
    for line in found.overturned:
        table.add_row(line.by, safe(line.of), line.proposal, f"{line.records:,}", share(line.share))
    console.print(table)
    if found.appeals:
        console.print()
        table = table_of("appeals by", "of", "decision", "appeals", "overturned")
        for kind in found.appeals:
            table.add_row(
                kind.by, safe(kind.of), kind.decision, f"{kind.appeals:,}", share(kind.share)
            )
        console.print(table)
        console.print("who appeals is no chance: of other decisions these shares say nothing")
    console.print("in brackets: 95 % intervals", style="dim")


_FIGURES: Final = {"kappa": "Cohen's kappa", "alpha": "Krippendorff's alpha"}


def _number(value: float | None, places: int = 1) -> str:
    return "-" if value is None else f"{value:.{places}f}"
