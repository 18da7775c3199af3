"""``trends()``: emerging patterns in the archive behind a finished run.

Campaigns of nearly the same text, bursts of them, rising terms, shifts of category mix between
windows of time and between groups, new spellings of lexicon terms, and rising words that are one
letter from one. patterns.py says what each is tested against, traces.py what is kept of a record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from edgemod import columns as column_checks
from edgemod import formats, originals, patterns, privacy, run_folder, traces
from edgemod.errors import InputError, OutputError
from edgemod.features import Lexicons
from edgemod.findings import KINDS, SHOWN_IDS, Finding, Trends, write
from edgemod.kernels import shingles, terms
from edgemod.parts import open_part
from edgemod.policy import Policy, load_policy, policy_of_run
from edgemod.rehearsal import Archive
from edgemod.traces import Traces
from edgemod.triager import DECISIONS
from edgemod.words import CATEGORIES, Verdict, counted

SMALLEST: Final = 5
"""Records of a campaign, authors of a burst (where they are known), records that have a term."""
LARGEST_GROUPS: Final = 8
"""Groups that are compared with the rest."""
MOST_RECORDS: Final = 2_000_000

_UNKNOWN: Final = -1


def trends(
    run: str | Path,
    out: str | Path | None = None,
    *,
    by: str | None = None,
    time: str | None = None,
    author: str | None = None,
    windows: int = 8,
    policy: str | Path | None = None,
    most_records: int = MOST_RECORDS,
    show: bool = False,
) -> Trends:
    """Look for patterns in a complete run; write trends.json and findings.parquet to ``out``.

    ``by``: a column of channels or communities. ``time``, ``author``: columns, where the run had
    none. ``windows``: as many of equally many records. ``policy``: whose lexicons are looked for,
    those of the run's where none is named. ``show``: terms and examples as they are, but for
    personal data in the examples of a run whose queue has placeholders for it. Of more than
    ``most_records`` a random share is taken.

    Raises RunError if ``run`` is no complete run, InputError if its input is gone or has changed
    or a column will not do, PolicyError, and OutputError if ``out`` is not empty or cannot be
    written.
    """
    run, out = Path(run), None if out is None else Path(out)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError("is there already", where=str(out), fix="Name a new folder.")
    if not run_folder.is_complete(run):
        run_folder.finished_state(run)  # says why
    if windows < 2 or most_records < 1:
        raise InputError(f"{windows} windows", where="trends", fix="Two or more can be compared.")
    archive = _archive(run, by, time, author)
    if policy is None:
        chosen = policy_of_run(None, run_folder.finished_state(run))
    else:  # another may have the lexicons that are of interest
        chosen = load_policy(Path(policy))
    kept = traces.read(run, archive, chosen, Lexicons.compile(chosen.lexicons), most_records)
    look = _Look(run, archive, chosen, kept, windows, show)
    found = (
        *look.campaigns(),
        *look.terms_and_near_misses(),
        *look.mixes(),
        *look.obfuscations(),
    )
    ordered = sorted(found, key=lambda finding: KINDS.index(finding.kind))
    made = Trends(
        tuple(look.named(ordered)),
        len(kept.position),
        kept.total,
        look.edges(),
        look.looked,
        look.notes(),
        archive.run[1]["plan"]["input"] if archive.run else "",
    )
    if out is not None:
        write(made, out)
    return made


def _archive(run: Path, by: str | None, time: str | None, author: str | None) -> Archive:
    """The input of a run with the columns that trends reads."""
    archive = Archive.open(run)
    named = archive.columns
    assert archive.run is not None
    of_run = archive.run[1]["plan"]["columns"]  # with those that pseudonyms hide
    apart = (of_run[role] for role in ("conversation", "id", "author", "context"))
    if by is not None and by in (*of_run["text"], *apart):
        raise InputError(
            f"'{by}' is no column of groups",
            where="--by",
            fix="Name a channel, a community, a kind: what is in it is shown.",
        )
    named = replace(named, time=time or named.time, author=author or named.author, stratum=by)
    for source in archive.sources:
        fields = formats.schema(source)
        if len(fields) or source.format == "parquet":
            column_checks.check_columns(source, fields, named)
    return replace(archive, columns=named)


@dataclass(frozen=True)
class _Found:
    """A finding whose records are still numbers, and which record's text is its example."""

    finding: Finding
    records: tuple[int, ...]
    example: int | None = None

    @property
    def kind(self) -> str:
        return self.finding.kind


@dataclass(frozen=True)
class _Side:
    """Records that have each term (m,), here and there, and the sums over all terms."""

    where: str
    here: npt.NDArray[np.int64]
    there: npt.NDArray[np.int64]
    all_here: int
    all_there: int

    def apart(self) -> _Side:
        """With what is here left out of there."""
        return replace(self, there=self.there - self.here, all_there=self.all_there - self.all_here)


class _Look:
    """The looking: each method gives the findings of a kind or two."""

    def __init__(
        self, run: Path, archive: Archive, policy: Policy, kept: Traces, windows: int, show: bool
    ) -> None:
        self._run, self._archive, self._policy, self._kept = run, archive, policy, kept
        self._show = show
        self.looked: dict[str, int] = {}
        known = kept.moment[np.isfinite(kept.moment)]
        self._moments = np.sort(known)
        shares = np.linspace(0, 1, windows + 1)
        self._edges = np.quantile(known, shares, method="lower") if len(known) else np.zeros(1)
        inner = np.unique(self._edges[1:-1])
        self._edges = np.array([*self._edges[:1], *inner, *self._edges[-1:]])
        self._windows = max(len(self._edges) - 1, 1)
        self._window = np.where(
            np.isfinite(kept.moment), np.searchsorted(inner, kept.moment, side="right"), _UNKNOWN
        )
        sizes = np.bincount(kept.group, minlength=len(kept.groups))
        order = np.argsort(-sizes, kind="stable")[:LARGEST_GROUPS].tolist()
        self._largest: list[int] = order if kept.groups else []

    def edges(self) -> tuple[str, ...]:
        """Where windows begin and end."""
        if not self._kept.timed:
            return tuple(f"record {int(edge):,}" for edge in self._edges)
        return tuple(np.datetime64(int(edge), "s").item().isoformat() for edge in self._edges)

    def notes(self) -> tuple[str, ...]:
        """What was not looked for."""
        kept, notes = self._kept, []
        if len(kept.position) < kept.total:
            notes.append(
                f"a random share of {len(kept.position):,} of {kept.total:,} records was looked at"
            )
        if not kept.timed:
            notes.append("no times: windows are by the order of the input, bursts not looked for")
        elif np.isnan(kept.moment).any():
            unknown = int(np.isnan(kept.moment).sum())
            notes.append(f"{counted(unknown, 'record')} without a time that can be read")
        if not kept.author.any():
            notes.append("no authors: one person may be behind all copies of a text")
        return tuple(notes)

    # -- campaigns and bursts --------------------------------------------------------------------

    def campaigns(self) -> list[_Found]:
        """Clusters of nearly the same text, and those of them that came in a burst."""
        kept = self._kept
        first = shingles.clusters(kept.signatures)
        order = np.argsort(first, kind="stable")
        starts = np.flatnonzero(np.diff(first[order], prepend=-1))
        groups = np.split(kept.signed[order], starts[1:]) if len(order) else []
        clusters = sorted((g for g in groups if len(g) >= SMALLEST), key=len, reverse=True)
        self.looked["texts compared"], self.looked["campaigns"] = len(first), len(clusters)
        found = [
            self._found("campaign", "", self._of_groups(rows), rows, example=True)
            for rows in clusters
        ]
        return found + self._bursts(clusters) if kept.timed else found

    def _bursts(self, clusters: Sequence[npt.NDArray[np.int64]]) -> list[_Found]:
        tested = []
        for rows in clusters:
            moments = self._kept.moment[rows]
            rows = rows[np.argsort(moments, kind="stable")][: int(np.isfinite(moments).sum())]
            if len(rows) < SMALLEST:
                continue
            low, high = (self._rank(rows, side) for side in ("left", "right"))
            p, a, b = patterns.scan(low, high)
            tested.append((p, rows[a : b + 1], len(rows)))
        self.looked["clusters scanned for bursts"] = len(tested)
        # All that were scanned: to leave out the small and sparse ones first would be to choose
        # what is tested by what it shows.
        real = patterns.holm(np.array([p for p, _, _ in tested]))
        found = []
        for (p, rows, copies), holds in zip(tested, real, strict=True):
            authors = self._authors(rows)
            many = len(rows) >= SMALLEST and (authors is None or authors >= SMALLEST)
            if holds and many:
                span = self._kept.moment[rows[-1]] - self._kept.moment[rows[0]]
                where = f"{len(rows):,} of {copies:,} copies in {_span(span)}"
                found.append(self._found("burst", "", where, rows, p=p, example=True))
        return sorted(found, key=lambda one: one.finding.p or 0.0)

    def _rank(self, rows: npt.NDArray[np.int64], side: Any) -> npt.NDArray[np.float64]:
        """The share of all records before the moments of these, or not after them."""
        places = np.searchsorted(self._moments, self._kept.moment[rows], side=side)
        return np.asarray(places / max(len(self._moments), 1), np.float64)

    def _of_groups(self, rows: npt.NDArray[np.int64]) -> str:
        """How many groups records are from, and the one most are from."""
        if not self._kept.groups:
            return ""
        codes, counts = np.unique(self._kept.group[rows], return_counts=True)
        most = self._kept.groups[int(codes[counts.argmax()])]
        return most if len(codes) == 1 else f"{len(codes):,} groups, most in {most}"

    # -- terms -----------------------------------------------------------------------------------

    def terms_and_near_misses(self) -> list[_Found]:
        """Terms of flagged and review records, of later windows and of groups; near misses."""
        kept, w = self._kept, self._windows
        problem = kept.verdict != Verdict.clear
        window = np.where(self._window == _UNKNOWN, w, self._window)
        of_group = np.full(max(len(kept.groups), 1), -1)
        of_group[self._largest] = 2 * (w + 1) + np.arange(len(self._largest))
        group = of_group[kept.group]
        cells = np.stack([2 * window + problem, group], axis=1).astype(np.int16)
        width = 2 * (w + 1) + len(self._largest)
        table = traces.count_terms(self._archive, self._policy, kept, cells, width)
        names, at = table.found(SMALLEST)
        counts = table.counts[at].astype(np.int64)
        sums = table.counts.sum(axis=0, dtype=np.int64)
        self.looked["terms"] = len(names)
        if table.short:
            self.looked["records that a count of a term may lack"] = table.short
        edges = self.edges()
        everywhere = range(2 * (w + 1))

        def side(where: str, here: Sequence[int], there: Sequence[int]) -> _Side:
            of_both = [counts[:, [*cells]].sum(axis=1) for cells in (here, there)]
            all_ = [int(sums[[*cells]].sum()) for cells in (here, there)]
            return _Side(where, *of_both, *all_)

        sides = [side("flagged or for review", everywhere[1::2], everywhere[0::2])]
        for k, g in enumerate(self._largest):
            mine = 2 * (w + 1) + k
            one = side(f"in {kept.groups[g]}", [mine], everywhere)
            sides.append(one.apart())
        later = [
            side(f"from {edges[k]} to {edges[k + 1]}", range(2 * k, 2 * k + 2), range(2 * k))
            for k in range(1, w)
        ]
        spelled = [name.decode("utf-8", "replace") for name in names]
        place = {name: int(i) for name, i in zip(spelled, at, strict=True)}
        rows = np.arange(len(names))
        found = self._rising("term", spelled, rows, [*sides, *later], table, place)
        lexicon_terms = [t for lex in self._policy.lexicons for t in lex.terms if " " not in t]
        known = traces.normal_forms(lexicon_terms)
        allowed = {word for lex in self._policy.lexicons for t in lex.allow for word in t.split()}
        near = patterns.near([s for s in spelled if " " not in s and s not in allowed], known)
        self.looked["near misses"] = len(near)
        rows = np.array([i for i, name in enumerate(spelled) if name in near], np.int64)
        return found + self._rising("near miss", spelled, rows, later, table, place)

    def _rising(
        self,
        kind: str,
        names: Sequence[str],
        rows: npt.NDArray[np.int64],
        sides: Sequence[_Side],
        table: terms.Table,
        place: dict[str, int],
    ) -> list[_Found]:
        """Of the terms ``rows`` those that are commoner on some side than chance has it, each for
        the side where it is most so."""
        tests = len(rows) * len(sides)
        z = patterns.critical(tests)
        best: dict[int, tuple[float, float, float, _Side]] = {}
        for side in sides:
            odds, error = patterns.log_odds(
                side.here[rows], side.there[rows], side.all_here, side.all_there
            )
            scores = odds / error
            for i in np.flatnonzero((scores > z) & (side.here[rows] >= SMALLEST)):
                row = int(rows[i])
                if row not in best or scores[i] > best[row][0]:
                    best[row] = float(scores[i]), float(odds[i]), float(error[i]), side
        found = []
        for row, (score, middle, spread, side) in sorted(best.items(), key=lambda b: -b[1][0]):
            slot = place[names[row]]
            found.append(
                self._found(
                    kind,
                    self._masked(names[row]),
                    side.where,
                    table.recent[slot][table.recent[slot] >= 0].astype(np.int64),
                    p=patterns.p_of(score),
                    value=(middle, middle - z * spread, middle + z * spread),
                    records=int(side.here[row]),
                    first=int(table.first[slot]),
                )
            )
        return found

    # -- the mix of categories -------------------------------------------------------------------

    def mixes(self) -> list[_Found]:
        """Categories, flags and reviews whose share differs in a window or a group."""
        kept = self._kept
        problem = kept.verdict != Verdict.clear
        outcomes = [(name, problem & (kept.category == k)) for k, name in enumerate(CATEGORIES)]
        outcomes += [(v.name, kept.verdict == v) for v in (Verdict.flag, Verdict.review)]
        edges = self.edges()
        families = [
            (self._window, self._windows, [f"from {a} to {b}" for a, b in pairwise(edges)]),
        ]
        if len(self._largest):
            names = [f"in {kept.groups[g]}" for g in self._largest]
            code = np.full(len(kept.groups), len(self._largest))
            code[self._largest] = np.arange(len(self._largest))
            families.append((code[kept.group], len(self._largest) + 1, names))
        tested: list[tuple[float, str, str, int, tuple[float, float, float], Any]] = []
        number = sum(len(names) for _, _, names in families) * len(outcomes)
        z = patterns.critical(2 * number)
        for codes, size, names in families:
            known = codes >= 0
            totals = np.bincount(codes[known], minlength=size)
            for what, hit in outcomes:
                hits = np.bincount(codes[known & hit], minlength=size)
                compared = np.stack(patterns.shares(hits, totals, z), axis=1).tolist()
                for g, (d, low, high, p) in enumerate(compared[: len(names)]):
                    of = (hit, codes, g)
                    tested.append((p, what, names[g], int(hits[g]), (d, low, high), of))
        self.looked["shares compared"] = len(tested)
        real = patterns.holm(np.array([one[0] for one in tested]))
        found = []
        for (p, what, where, count, value, of), holds in zip(tested, real, strict=True):
            if holds:
                hit, codes, g = of
                rows = np.flatnonzero(hit & (codes == g))
                ids = rows[:SHOWN_IDS]
                found.append(
                    self._found("mix", what, where, ids, p=p, value=value, records=count, all_=rows)
                )
        return sorted(found, key=lambda one: one.finding.p or 0.0)

    # -- spellings -------------------------------------------------------------------------------

    def obfuscations(self) -> list[_Found]:
        """Spellings of lexicon terms, in the normal form alone, that were not there before."""
        kept = self._kept
        some = [
            (key, one, one.timed if kept.timed else one.records)
            for key, one in kept.spellings.items()
            if np.isfinite(kept.moment[one.first])
        ]
        some = [known for known in some if known[2] >= 3]
        self.looked["spellings"] = len(kept.spellings)
        self.looked["spellings tested"] = len(some)
        first = (kept.moment[one.first] for _, one, _ in some)
        before = np.array([np.searchsorted(self._moments, moment) for moment in first])
        sizes = np.array([size for _, _, size in some])
        p = patterns.novelty(before.astype(np.int64), sizes.astype(np.int64), len(self._moments))
        found = []
        for k in np.flatnonzero(patterns.holm(p)):
            (lexicon, spelling), one, _ = some[k]
            ids = np.array(one.ids, np.int64)
            found.append(
                self._found(
                    "obfuscation",
                    self._masked(spelling),
                    f"lexicon {lexicon}",
                    ids,
                    p=float(p[k]),
                    records=one.records,
                    first=one.first,
                )
            )
        return sorted(found, key=lambda one: one.finding.p or 0.0)

    # -- findings --------------------------------------------------------------------------------

    def _masked(self, term: str) -> str:
        return term if self._show else patterns.masked_term(term)

    def _authors(self, rows: npt.NDArray[np.int64]) -> int | None:
        """How many authors records have, None where none is known."""
        known = self._kept.author[rows]
        return len(np.unique(known[known != 0])) or None

    def _found(
        self,
        kind: str,
        what: str,
        where: str,
        rows: npt.NDArray[np.int64],
        *,
        p: float | None = None,
        value: tuple[float, float, float] | None = None,
        records: int | None = None,
        first: int | None = None,
        example: bool = False,
        all_: npt.NDArray[np.int64] | None = None,
    ) -> _Found:
        """A finding about records; ``rows`` are those that will be named."""
        kept = self._kept
        of = rows if all_ is None else all_
        order = of[np.argsort(kept.moment[of], kind="stable")]  # NaN come last
        last = order[np.isfinite(kept.moment[order])]
        first = int(order[0]) if first is None and len(order) else first
        mix = Counter(Verdict(int(v)).name for v in kept.verdict[of])
        complete = records is None or records == len(of)
        finding = Finding(
            kind=kind,
            what=what,
            where=where,
            records=len(of) if records is None else records,
            authors=self._authors(of) if complete else None,
            first_seen=None if first is None else kept.moment_text(first),
            last_seen=kept.moment_text(int(last[-1])) if len(last) and complete else None,
            value=None if value is None else value[0],
            low=None if value is None else value[1],
            high=None if value is None else value[2],
            p=p,
            verdicts=dict(mix) if complete else {},
            example="",
            ids=(),
        )
        return _Found(finding, tuple(map(int, rows)), int(of[0]) if example else None)

    def named(self, found: Sequence[_Found]) -> list[Finding]:
        """Findings with the ids of their records, and examples."""
        kept = self._kept
        wanted = {row for one in found for row in one.records}
        rows = np.array(sorted(wanted), np.int64)
        assert self._archive.run is not None
        decisions = _rows(self._run, self._archive.run[1], kept.position[rows])
        ids = dict(zip(rows.tolist(), decisions["record_id"].to_pylist(), strict=True))
        shown = np.array(sorted({o.example for o in found if o.example is not None}), np.int64)
        chosen = decisions.take(pa.array(np.searchsorted(rows, shown)))
        sources = {source.path: source for source in self._archive.sources}
        examples = {}
        parts = originals.chunks(chosen, sources, self._archive.columns, self._policy)
        for chunk, places in parts if len(shown) else ():
            texts = chunk.texts.filter(chunk.texts["text"].is_valid())
            longest: dict[int, str] = {}
            for who, text in zip(
                texts["record"].to_pylist(), texts["text"].to_pylist(), strict=True
            ):
                longest[who] = max(longest.get(who, ""), text, key=len)
            for who, text in longest.items():
                examples[int(shown[places[who]])] = text
        return [
            replace(
                one.finding,
                ids=tuple(ids[row] for row in one.records),
                example=self._excerpt(examples.get(-1 if one.example is None else one.example, "")),
            )
            for one in found
        ]

    def _excerpt(self, text: str) -> str:
        if not self._show:
            return patterns.masked_text(text)
        assert self._archive.run is not None
        if self._archive.run[1]["plan"].get("redact_pii"):
            text = privacy.redacted(text)
        return " ".join(text.split())[:60]


def _rows(run: Path, state: dict[str, Any], wanted: npt.NDArray[np.int64]) -> pa.Table:
    """The names of those records of a run, ascending."""
    names = ["record_id", "source", "source_row"]
    found, start = [DECISIONS.empty_table().select(names)], 0
    for part in run_folder.parts(run, state):
        with open_part(part) as file:
            stop = start + file.metadata.num_rows
            rows = wanted[(wanted >= start) & (wanted < stop)]
            if len(rows):
                found.append(file.read(names).take(pa.array(rows - start)).cast(found[0].schema))
            start = stop
    return pa.concat_tables(found).combine_chunks()


def _span(seconds: float) -> str:
    """A span of time in words."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
