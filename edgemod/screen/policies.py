"""What people see of policies, and of trying them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgemod.screen.console import MOST_SHOWN, Console, percent, safe, share, table_of
from edgemod.words import counted

if TYPE_CHECKING:
    from edgemod.policy import Policy, Thresholds
    from edgemod.rehearsal import Catch, Diff, Drill, Outcome


def tests(outcomes: Sequence[Outcome]) -> None:
    """What became of a policy's test cases, on stdout; the failures in full."""
    _failures(outcomes)
    passed = sum(one.passed for one in outcomes)
    told = (
        f"{passed:,} of {counted(len(outcomes), 'test')} passed"
        if outcomes
        else "the policy holds no tests"
    )
    Console().print(told)


def _failures(outcomes: Sequence[Outcome]) -> None:
    console = Console()
    for one in outcomes:
        if one.passed:
            continue
        expected, got = (" as ".join(words) for words in (one.expected, one.got))
        console.print(f"[red]failed[/] [bold]{safe(one.name)}[/]: expected {expected}, got {got}")
        console.print(f"  because: {safe(one.why)}")
        console.print(f"  decided by {one.stage}: {safe(one.reason)}")
        fired = ", ".join(f"{what} at {start}-{end}" for start, end, what in one.fired)
        if fired:
            console.print(f"  fired: {safe(fired)}")
        likely = sorted(
            ((p, name) for name, p in one.probabilities.items() if p is not None), reverse=True
        )
        if likely:
            console.print("  " + ", ".join(f"p_{name} {p:.3f}" for p, name in likely[:3]))


def catches(found: Sequence[Catch]) -> None:
    """What rules, lexicons and terms catch, on stdout."""
    console = Console()
    for kind, of_kind in itertools.groupby(found, lambda one: one.kind):
        some = [*of_kind]
        alive = [one for one in some if one.hits]
        table = table_of(kind, "label", "hits", "precision", "recall", "only this", "overlaps most")
        for one in alive[:MOST_SHOWN]:
            other = "" if one.overlap is None else f"{safe(one.overlap[0])} {one.overlap[1]:.0%}"
            table.add_row(
                safe(one.name),
                one.label,
                f"{one.hits:,}",
                share(one.precision),
                share(one.recall),
                f"{one.unique:,}",
                other,
            )
        console.print(table)
        if len(alive) > MOST_SHOWN:
            console.print(f"and {len(alive) - MOST_SHOWN:,} more: --json has all", style="dim")
        dead = [safe(one.name) for one in some if not one.hits]
        if dead:
            told = f"dead, {len(dead):,} of {counted(len(some), kind)}"
            more = f", and {len(dead) - MOST_SHOWN:,} more: --json has all"
            names = ", ".join(dead[:MOST_SHOWN]) + more * (len(dead) > MOST_SHOWN)
            console.print(f"{told}: {names}", style="yellow")


def diff(found: Diff) -> None:
    """How two policies decide, on stdout."""
    console = Console()
    table = table_of("from", "to", "records", "share", "the first")
    for (old, new), count in sorted(found.moved.items(), key=lambda item: -item[1]):
        if old != new:
            first = ", ".join(map(safe, found.ids[old, new][:3]))
            table.add_row(old, new, f"{count:,}", percent(count, found.records), first)
    moved = sum(n for (old, new), n in found.moved.items() if old != new)
    console.print(f"decided otherwise: [bold]{moved:,}[/] of {counted(found.records, 'record')}")
    used, chunks = found.kept
    if used < chunks:
        console.print(
            f"kept scores could stand in for the language model in {used:,} of "
            f"{counted(chunks, 'chunk')}: in the others it has read again what its answer may "
            "depend on",
            style="dim",
        )
    if not moved:
        return
    console.print(table)
    why = table_of("from", "to", "for what reason", "records")
    for (old, new, reason), count in found.why.most_common(MOST_SHOWN):
        why.add_row(old, new, safe(reason), f"{count:,}")
    console.print(why)
    load = table_of("category", "review before", "after", "flag before", "after")
    counters = (*found.reviews, *found.flags)
    for name in sorted({name for counter in counters for name in counter}):
        load.add_row(name, *(f"{counter[name]:,}" for counter in counters))
    console.print(load)
    if len(found.groups) > 1:
        files = table_of("records of", "moved", "of")
        ranked = sorted(found.groups.items(), key=lambda item: -item[1][0] / item[1][1])
        for name, (m, n) in ranked[:MOST_SHOWN]:
            files.add_row(safe(name), f"{m:,}", f"{n:,}")
        console.print(files)


def drill(found: Drill) -> None:
    """What an overlay would ask of people, on stdout."""
    diff(found.diff)
    console = Console()
    (before, after), (hours, more) = found.reviews, found.hours
    console.print(
        f"review queue: {counted(before, 'record')}, {hours:,.1f} h of the team, without the "
        f"overlay; [bold]{counted(after, 'record')}[/], [bold]{more:,.1f} h[/], with it"
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
            f"cleared with it, and not without: {counted(eased, 'record')}; an overlay should only "
            "tighten",
            style="bold yellow",
        )
    if found.failing:
        _failures(found.failing)
        console.print(
            f"tests of the policy that fail because of it: {len(found.failing):,}", style="yellow"
        )


def policy(shown: Policy) -> None:
    """A policy in tables, on stdout."""
    console = Console()
    console.print(f"[bold]{safe(shown.name)}[/] version {safe(shown.version)}")
    console.print(f"fingerprint {shown.fingerprint}", style="dim")
    console.print(
        f"languages: {', '.join(shown.languages) or 'all'} (others: "
        f"{shown.unsupported_language}); empty text: {shown.empty_text}; "
        f"texts up to {counted(shown.max_text_bytes, 'byte')}; stages: {', '.join(shown.stages)}"
    )
    table = table_of("category", "severity", "definition")
    for category in shown.categories:
        table.add_row(category.name, str(category.severity), safe(category.definition, lines=True))
    console.print(table)
    limits = table_of("category", "filter clears", "filter flags", "model clears", "model flags")
    for category in shown.categories:
        limits.add_row(category.name, *_limits(category.filter), *_limits(category.model))
    console.print(limits)
    rules = table_of("rule", "when", "verdict", "reason")
    for rule in shown.rules:
        when = " and ".join(f"{c.feature} {c.op} {c.value:g}" for c in rule.when)
        on = "" if rule.on == "any" else f"would be {rule.on}, "
        rules.add_row(
            safe(rule.name),
            safe(on + when),
            f"{rule.verdict} ({rule.category})",
            safe(rule.reason),
        )
    console.print(rules)
    lexicons = table_of("lexicon", "category", "terms", "allowed", "match")
    for lexicon in shown.lexicons:
        lexicons.add_row(
            safe(lexicon.name),
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
