"""What people see of models, check-ups and benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgemod.screen.console import Console, safe, table_of
from edgemod.words import counted

if TYPE_CHECKING:
    from edgemod.checkup import Finding
    from edgemod.figures import Benchmark, Figure, Ratio
    from edgemod.store import ModelEntry


def models(entries: Sequence[ModelEntry], filters: Sequence[tuple[Path, str]]) -> None:
    """The known models and filters, on stdout."""
    table = table_of("model", "kind", "here", "licence", "SHA-256", "source")
    for entry in entries:
        table.add_row(
            safe(entry.name),
            entry.kind,
            "yes" if entry.present else "no",
            safe(entry.licence),
            entry.sha256[:12],
            safe(entry.source),
        )
    for path, sha in filters:
        here = "yes" if path.is_file() else "no"
        table.add_row("-", "filter", here, "", sha[:12], safe(str(path)))
    Console().print(table)


def findings(found: Sequence[Finding]) -> None:
    """The findings of the check-up, on stdout."""
    table = table_of("", "check", "finding")
    for finding in found:
        table.add_row(
            "[green]ok[/]" if finding.ok else "[red]no[/]",
            finding.name,
            safe(finding.detail, lines=True),
        )
    Console().print(table)


def benchmark(found: Benchmark, against: tuple[Sequence[Ratio], Sequence[str]] | None) -> None:
    """What a benchmark measured, and how that compares with another, on stdout."""
    console = Console()
    sample, machine = found.sample, found.machine
    console.print(
        f"{safe(machine['processor'])}, {counted(machine['cores'], 'usable core')}; "
        f"{counted(sample['records'], 'record')} ({sample['draw']}), "
        f"{sample['characters'] / sample['texts']:,.0f} characters a text, {sample['format']}"
    )
    ratios = {one.figure.key: one for one in against[0]} if against else {}
    table = table_of(
        "stage", "step", "measured", "unit", "per", "which", *["ratio", ""][: 2 * bool(against)]
    )
    for figure in found.figures:
        which = f"{figure.statistic} of {figure.count:,}"
        cells = [figure.stage, figure.step, *_measured(figure), figure.per, which]
        if one := ratios.get(figure.key):
            cells += [f"{one.ratio:.2f}", one.verdict]
        table.add_row(*cells)
    console.print(table)
    console.print(f"energy: {safe(found.energy) or 'of the whole machine'}", style="dim")
    for note in found.notes:
        console.print(safe(note), style="yellow")
    for difference in against[1] if against else ():
        console.print(f"not the same: {safe(difference)}", style="yellow")
    console.print(f"[bold]--workers {found.workers}[/]: {safe(found.why)}")


def _measured(figure: Figure) -> tuple[str, str]:
    value, unit = figure.value, figure.unit
    if figure.statistic == "share":
        return f"{value:.1%}", unit
    if unit.startswith("bytes"):
        value, unit = value / 1e6, unit.replace("bytes", "MB", 1)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}", unit
