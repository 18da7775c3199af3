"""Pictures of a report page as SVG and HTML: a flow, a curve, bars. Colours are those of its CSS.

Words in them stay text, and everything that is not edgemod's own is escaped by ``safe``.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgemod.breakdown import VERDICTS
from edgemod.metrics import Estimate
from edgemod.screen.console import printable
from edgemod.words import counted

_RECORDS = "records"


def safe(text: object) -> str:
    """Text for HTML and its attributes: no markup, no controls, no bidirectional overrides."""
    return html.escape(printable(str(text)))


def percent(share: float) -> str:
    """A share in percent, with more digits where it is small."""
    return f"{share:.1%}" if share >= 0.1 or not share else f"{share:.2%}"


def interval(found: Estimate | None) -> str:
    """A share with its interval, as text; what is not known says so."""
    if found is None:
        return '<span class="none">not known</span>'
    low, high = percent(found.low).rstrip("%"), percent(found.high).rstrip("%")
    return f'{percent(found.value)} <span class="none">({low} to {high})</span>'


@dataclass
class _Node:
    """A bar of the flow: its middle and height, and where the next band leaves or arrives."""

    middle: float
    height: float

    def __post_init__(self) -> None:
        self.out = self.into = self.middle - self.height / 2


def _column(counts: Mapping[str, int], unit: float, high: float, slot: float) -> dict[str, _Node]:
    """Bars one under the other, each with room for two lines of text, in the middle of ``high``."""
    slots = {name: max(n * unit, slot) for name, n in counts.items()}
    gap = min((high - sum(slots.values())) / max(len(slots) - 1, 1), 24)
    y = (high - sum(slots.values()) - gap * (len(slots) - 1)) / 2
    nodes = {}
    for name, n in counts.items():
        nodes[name] = _Node(y + slots[name] / 2, max(n * unit, 1.5))
        y += slots[name] + gap
    return nodes


def flow(flows: Mapping[tuple[str, str], int], width: int, css: str) -> str:
    """Records to stages to verdicts: bands as wide as the records are many.

    ``flows``: records by (stage, verdict). ``width``: of the picture, in the units of its text.
    """
    stages: dict[str, int] = {}
    for (stage, _), n in sorted(flows.items(), key=lambda item: -item[1]):
        stages[stage] = stages.get(stage, 0) + n
    stages = dict(sorted(stages.items(), key=lambda item: -item[1]))
    verdicts = {v: sum(n for (_, w), n in flows.items() if w == v) for v in VERDICTS}
    verdicts = {v: n for v, n in verdicts.items() if n}
    total = max(sum(stages.values()), 1)
    slot, bar = 36.0, 10.0
    unit = 240 / total
    high = max(
        sum(max(n * unit, slot) for n in column.values()) + 12 * len(column)
        for column in (stages, verdicts)
    )
    columns = [
        _column(counts, unit, high, slot) for counts in ({_RECORDS: total}, stages, verdicts)
    ]
    xs = [0.0, width * (0.36 if width > 500 else 0.31), width - (150.0 if width > 500 else 112.0)]
    bands, marks = [], []

    def band(k: int, a: _Node, b: _Node, n: int, css: str, what: str) -> None:
        thick, x, to = max(n * unit, 0.75), xs[k] + bar, xs[k + 1]
        bend, y, end = (x + to) / 2, a.out, b.into
        bands.append(
            f'<path class="band {css}" d="M{x:.1f} {y:.1f}'
            f"C{bend:.1f} {y:.1f} {bend:.1f} {end:.1f} {to:.1f} {end:.1f}v{thick:.2f}"
            f"C{bend:.1f} {end + thick:.1f} {bend:.1f} {y + thick:.1f} {x:.1f} {y + thick:.1f}z"
            f'"><title>{safe(what)}: {n:,}</title></path>'
        )
        a.out, b.into = y + n * unit, end + n * unit

    for stage, n in stages.items():
        band(0, columns[0][_RECORDS], columns[1][stage], n, "all", f"{stage}")
    for stage in stages:
        for verdict in verdicts:
            if n := flows.get((stage, verdict), 0):
                band(1, columns[1][stage], columns[2][verdict], n, verdict, f"{stage}, {verdict}")
    for k, counts in enumerate(({_RECORDS: total}, stages, verdicts)):
        for name, n in counts.items():
            node, css_of = columns[k][name], name if k == 2 else "all"
            x = xs[k]
            low = node.middle - node.height / 2
            marks.append(
                f'<rect class="bar {safe(css_of)}" x="{x:.1f}" y="{low:.1f}" '
                f'width="{bar:g}" height="{node.height:.1f}"/>'
                f'<text x="{x + bar + 6:.1f}" y="{node.middle - 3:.1f}"><tspan class="name">'
                f'{safe(name)}</tspan><tspan x="{x + bar + 6:.1f}" dy="15">{n:,}'
                f"{'' if k == 0 else f' · {percent(n / total)}'}</tspan></text>"
            )
    return (
        f'<svg class="{css}" role="img" viewBox="0 -8 {width} {high + 16:.0f}" '
        f'aria-label="flow of records to stages to verdicts">{"".join(bands + marks)}</svg>'
    )


def curve(points: Sequence[tuple[float, float]], dot: tuple[float, Estimate]) -> str:
    """Risk over coverage, and where the run is: its coverage, and its risk with an interval."""
    coverage, found = dot
    left, top, wide, high = 52, 12, 330, 190
    shown = [(x, y) for x, y in points if x >= 0.05]  # of very few records the risk jumps about
    most = max([found.high, *(y for _, y in shown)]) or 0.01
    step = next(s * 10.0**k for k in range(-6, 1) for s in (1, 2, 5) if s * 10.0**k * 5 >= most)
    lines = math.ceil(most / step)
    most = step * lines

    def at(x: float, y: float) -> str:
        return f"{left + x * wide:.1f},{top + high - y / most * high:.1f}"

    marks = []
    for k in range(lines + 1):
        (x0, y0), (x1, _) = (at(p, step * k).split(",") for p in (0, 1))
        marks.append(
            f'<line class="grid" x1="{x0}" y1="{y0}" x2="{x1}" y2="{y0}"/>'
            f'<text class="axis" x="{left - 6}" y="{float(y0) + 4:.1f}" text-anchor="end">'
            f"{100 * step * k:g}%</text>"
        )
    for x in (0, 0.25, 0.5, 0.75, 1):
        marks.append(
            f'<text class="axis" x="{left + x * wide:.1f}" y="{top + high + 17}" '
            f'text-anchor="middle">{x:.0%}</text>'
        )
    cx, cy = at(coverage, found.value).split(",")
    ends = [at(coverage, y).split(",")[1] for y in (found.low, found.high)]
    label = "end" if coverage > 0.5 else "start"
    off = -10 if coverage > 0.5 else 10
    marks.append(f'<polyline class="curve" points="{" ".join(at(x, y) for x, y in shown)}"/>')
    marks.append(f'<line class="whisker" x1="{cx}" y1="{ends[0]}" x2="{cx}" y2="{ends[1]}"/>')
    marks.append(f'<circle class="dot" cx="{cx}" cy="{cy}" r="5"/>')
    marks.append(
        f'<text class="name halo" x="{float(cx) + off:.1f}" y="{max(float(cy) - 8, 12):.1f}" '
        f'text-anchor="{label}">this run</text>'
    )
    marks.append(
        f'<text class="axis" x="{left + wide / 2}" y="{top + high + 36}" text-anchor="middle">'
        "coverage: share settled without a person</text>"
    )
    return (
        f'<svg class="chart" role="img" viewBox="0 0 {left + wide + 18} {top + high + 44}" '
        f'aria-label="risk over coverage">{"".join(marks)}</svg>'
    )


def stacked(counts: Mapping[str, int]) -> str:
    """One bar of three verdicts, in shares of their sum."""
    total = sum(counts.values()) or 1
    parts = "".join(
        f'<i class="{v}" style="width:{100 * counts.get(v, 0) / total:.3f}%"></i>' for v in VERDICTS
    )
    told = ", ".join(f"{v} {percent(counts.get(v, 0) / total)}" for v in VERDICTS)
    return f'<div class="meter" role="img" aria-label="{told}" title="{told}">{parts}</div>'


def meter(value: float, most: float, css: str, around: Estimate | None = None) -> str:
    """A bar of ``value``, full at ``most``; with a whisker where there is an interval."""
    scale = 100 / most if most else 0.0
    mark = ""
    if around is not None:
        low, high = scale * around.low, scale * around.high
        mark = f'<b style="left:{low:.2f}%;width:{max(high - low, 0.3):.2f}%"></b>'
    bar = f'<i class="{css}" style="width:{scale * value:.2f}%"></i>'
    return f'<div class="meter">{bar}{mark}</div>'


def over_time(periods: Mapping[str, Mapping[str, int]]) -> str:
    """A column for each period, of its records by verdict."""
    most = max((sum(counts.values()) for counts in periods.values()), default=1)
    columns = []
    for when, counts in periods.items():
        total = sum(counts.values())
        parts = "".join(
            f'<i class="{v}" style="height:{100 * counts.get(v, 0) / most:.3f}%"></i>'
            for v in reversed(VERDICTS)
        )
        told = ", ".join(f"{v} {counts.get(v, 0):,}" for v in VERDICTS)
        name = counted(total, "record")
        columns.append(f'<div title="{safe(when)}: {name}, {told}">{parts}</div>')
    names = [*periods]
    ends = f"<span>{safe(names[0])}</span><span>{safe(names[-1])}</span>" if names else ""
    return (
        f'<div class="times" role="img" aria-label="records over time by verdict">'
        f'{"".join(columns)}</div><div class="ends">{ends}</div>'
    )
