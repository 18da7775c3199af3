"""What people see of figures against labels, calibrations, audits and explanations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.padding import Padding
from rich.text import Text

from edgemod.screen.console import (
    COLOURS,
    MOST_SHOWN,
    Console,
    area,
    printable,
    safe,
    share,
    table_of,
)
from edgemod.words import CATEGORIES, counted

if TYPE_CHECKING:
    from edgemod.audit import Share
    from edgemod.calibrating import Calibrated
    from edgemod.evaluation import Evaluation
    from edgemod.explain import Explanation
    from edgemod.learning import Learned


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
    console = Console()
    for file, of_file in itertools.groupby(found, lambda line: line.file):
        lines = [*of_file]
        groups = {line.group for line in lines if line.group is not None}
        alone = f", all of it {safe(*groups)}" if len(groups) == 1 else ""
        if alone:  # its figures are those of the file
            lines = [line for line in lines if line.group is None]
        console.print(f"[bold]{safe(file)}[/]{alone}")
        areas = table_of("label", "stage", "ranked by", "violating", "AUPRC", "AUROC")
        points = table_of("label", "stage", "ranked by", *_POINTS)
        shares = table_of("label", "records", "truly", "clear", "flag", "review")
        unscored = 0
        for line in lines:
            for rank in line.rankings:
                unscored = max(unscored, rank.unscored)
                violating = f"{rank.positives:,} of {rank.n:,}"
                label = line.label if line.group is None else f"{line.label}, {safe(line.group)}"
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
                    label += "" if line.group is None else f", {safe(line.group)}"
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


def calibration(made: Calibrated, out: Path) -> None:
    """What was certified, and what was not, on stdout."""
    console = Console()
    table = table_of("risk", "of", "wrong / labelled", "found", "at most", "accepted", "certified")
    for risk in made.found.risks:
        name = risk.category + (f" in {safe(risk.stratum)}" if risk.stratum is not None else "")
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
    if not limits["filter"].clear_below.any() and made.certificate["model"] != "none":
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
    console.print(safe(made.note), style="bold")
    console.print(f"written to {safe(str(out))}: triage with --calibration", style="dim")


def learned(found: Learned, out: Path) -> None:
    """What was learned from labels, and what is suggested, on stdout."""
    console = Console()
    fit, compare, certify = found.sizes
    console.print(
        f"{counted(fit, 'record')} to fit, {compare:,} to compare, {certify:,} to certify"
    )
    if found.compared:
        table = table_of("stage", "label", "violating", "AUPRC gained", "adopted")
        for one in found.compared:
            answer = "[green]yes[/]" if one.adopted else "no"
            gain = f"{one.gain:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
            of = f"{one.violating:,} of {one.n:,}"
            table.add_row(one.stage, one.label, of, gain, answer)
        console.print(table)
    table = table_of("models", "clear", "flag", "review", "worst miss", "worst flags")
    for name, made in (("as shipped", found.before), ("moved", found.after)):
        if made is not None:
            shares = (f"{made.found.shares[v]:.1%}" for v in COLOURS)
            rates = []
            for side in ("miss", "false flag"):
                known = (risk.found for risk in made.found.risks if risk.side == side)
                worst = max((rate for rate in known if rate is not None), default=None)
                rates.append("-" if worst is None else f"{worst:.1%}")
            table.add_row(name, *shares, *rates)
    console.print(table)
    for kind, lines in _suggestions(found):
        if lines:
            console.print(f"[bold]{kind}[/] ({len(lines):,})")
            for line in lines[:MOST_SHOWN]:
                console.print(f"  {safe(line)}")
    made = found.after if found.adopted and found.after else found.before
    console.print(safe(made.note), style="bold")
    model = f" --model {found.model}" if found.adopted and found.model else ""
    what = "adopted" if found.adopted else "the models stay as shipped"
    if made.found.shares["review"] > 0.999:
        console.print(
            f"{what}, and with {safe(str(out))}/calibration.json everything would go to review: "
            "not with these labels. A miss rate of 5 % takes at least 150 that violate, one of 2 % "
            "370, more if drawn by unequal chances; until then triage as before",
            style="bold yellow",
        )
        return
    told = f"{what}; triage with --calibration {out}/calibration.json{model}"
    console.print(safe(told), style="dim")


def _suggestions(found: Learned) -> tuple[tuple[str, list[str]], ...]:
    """Headings, and lines of what a person may accept."""
    return (
        (
            "To retire: they catch nothing, or mostly what does not violate",
            [
                f"{one.kind} {one.name}: {counted(one.hits, 'hit')}, "
                f"precision {share(one.precision)}"
                for one in found.retire
            ],
        ),
        (
            "Terms to add",
            [
                f"{one.term} ({one.label}): in {one.violating:,} violating and {one.harmless:,} "
                f"harmless records, log-odds {one.odds:+.1f} ({one.low:+.1f} to {one.high:+.1f})"
                for one in found.add
            ],
        ),
        (
            "Definitions that reviewers disagree about",
            [
                f"{one.label}: {share(one.disagree)} of {counted(one.pairs, 'pair')}"
                for one in found.doubts
            ],
        ),
    )


def audit(found: Sequence[Share]) -> None:
    """What a labelled sample says of a run, on stdout."""
    console = Console()
    table = table_of("label", "share", "of", "labelled", "estimate")
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


def explanation(found: Explanation) -> None:
    """Everything that led to one decision, on stdout."""
    console = Console()
    row = found.decision
    verdict = f"[{COLOURS[row['verdict']]}]{row['verdict']}[/]"
    where = f"{row['source']}#{row['source_row']}"
    console.print(f"[bold]{safe(row['record_id'])}[/] ({safe(where)}): {verdict}")
    if found.others:
        console.print(
            f"the first record with this id, which has {counted(found.others, 'more record')}",
            style="yellow",
        )
    console.print(f"why: {safe(row['reason'])}; settled by {row['stage']}")
    if found.rule:
        when = ", ".join(f"{c['feature']} {c['op']} {c['value']:g}" for c in found.rule["when"])
        console.print(f"the rule's conditions: {safe(when)}")
    if found.category:
        console.print(f"{found.category}: {safe(found.definition, lines=True)}")
    # Indented, so that no line of it reads as one of edgemod's.
    text = Text(printable(found.text, lines=True))
    console.print(Padding(text, (1, 0, 1, 2), expand=False), style="cyan")
    table = table_of("category", "p", "filter clear, flag", "model clear, flag", "windows")
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
        console.print(f"fired: {safe(what)} at {start}-{end}")
    words = ", ".join(f"{safe(found.text[w.start : w.end])} {w.adds:+.2f}" for w in found.words)
    if words:
        console.print(f"words that weigh most in the filter: {words}")
    values = ", ".join(f"{name} {value:.3g}" for name, value in found.features.items())
    console.print(f"features: {values}", style="dim")
    console.print(f"policy: {safe(found.policy)}; calibration: {safe(found.calibration)}")
