"""What people see of the patterns in an archive."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgemod.screen.console import MOST_SHOWN, Console, safe, table_of
from edgemod.words import counted

if TYPE_CHECKING:
    from edgemod.findings import Finding, Trends


TITLES: Final = {
    "campaign": "Campaigns: nearly the same text again and again",
    "burst": "Bursts: copies that came closer together than records do",
    "term": "Rising terms: commoner there than elsewhere, or than before",
    "mix": "Shifts: shares that differ from those of all other records",
    "obfuscation": "New spellings of lexicon terms",
    "near miss": "Rising words one letter from a lexicon term",
}


def trends(found: Trends, out: Path | None) -> None:
    """What was found, kind by kind, on stdout."""
    console = Console()
    for kind, of_kind in itertools.groupby(found.findings, lambda finding: finding.kind):
        findings = [*of_kind]
        console.print(f"[bold]{TITLES[kind]}[/] ({len(findings):,})")
        table = table_of("what", "where", "records", "first, last seen", "measured", "ids")
        for one in findings[:MOST_SHOWN]:
            by = f" by {one.authors:,}" if one.authors else ""
            table.add_row(
                safe(one.what or one.example),
                safe(one.where),
                f"{one.records:,}{by}",
                " to ".join(seen[:10] for seen in (one.first_seen, one.last_seen) if seen),
                measured(one),
                safe(" ".join(one.ids[:2])),
            )
        console.print(table)
        if len(findings) > MOST_SHOWN:
            console.print(f"and {len(findings) - MOST_SHOWN:,} more: -o FOLDER keeps all")
    if not found.findings:
        console.print("nothing was found")
    looked = ", ".join(f"{name} {n:,}" for name, n in found.looked.items())
    console.print(f"{counted(found.records, 'record')} looked at: {looked}", style="dim")
    console.print(
        "each kind but campaigns is found by chance alone in at most one archive of a hundred; "
        "intervals hold together. Records by so many authors; terms: log-odds ratio; shifts: "
        "difference of shares",
        style="dim",
    )
    for note in found.notes:
        console.print(safe(note), style="yellow")
    if out is not None:
        console.print(f"written to {safe(str(out))}: trends.json findings.parquet", style="dim")


def measured(one: Finding) -> str:
    """The figure of a finding with its interval, its p-value, or of a campaign its verdicts."""
    if one.value is None or one.low is None or one.high is None:
        mix = ", ".join(f"{name} {n:,}" for name, n in one.verdicts.items())
        return mix if one.p is None else f"p {one.p:.1g}"
    if one.kind == "mix":
        return f"{one.value:+.1%} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
    return f"{one.value:+.1f} ({one.low:+.1f} to {one.high:+.1f})"
