"""The numbers of a run: what came in, what was decided by what, at which cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, get_args, get_origin, get_type_hints

from edgemod import drift, offline
from edgemod.review import ReviewSummary
from edgemod.tally import Tally

QUARANTINED: Final = 1000
"""Quarantined records that a report names, at most."""

_NAMED: Final = ("record_id", "source", "source_row")


@dataclass(frozen=True)
class RunReport:
    """``report.json`` as an object; every field says its unit.

    ``verdicts``, ``categories``, ``stages``, ``reasons``, ``statuses``: records by word.
    ``coverage``: share of records settled without a person (clear or flag), 0 to 1;
    ``review_rate`` = 1 - coverage. ``duplicates``: records with the same text as an earlier one
    of their chunk. ``repeated_ids``: records whose id occurred before in their chunk.
    ``truncated``: texts cut before scoring, which edgemod never does; long ones are scored in
    several windows (``windowed_texts``). ``failures``: records that could not be scored, by
    status. ``seconds``: time in each stage of work, summed over workers and sessions; ``rates``:
    texts, or tokens, a second of that time, so of one worker (``filter_texts``: with the features).
    ``tokens``: those that the language model read, in windows that overlap.
    ``wall_seconds``: this session, from the first chunk; ``records_per_second``: the records of
    this session over it.
    ``peak_memory_bytes``: the greatest resident memory of the parent and each worker, added up;
    pages they share are counted in each.
    ``workers_lost``: worker processes that died, hung or failed, by what ended them, in all the
    chunks. ``quarantined``: ``record_id`` (None in an encrypted run), ``source`` and ``source_row``
    of the records with status ``crashed``, the first ``QUARANTINED``; ``failures`` counts all.
    ``certificate``: empty, or of the one that the calibration holds, the ``goal``, whether every
    claim of it ``holds``, the chance ``drift`` of texts like these if they come from where its
    labels came from (None: not tested; ``drift of strata``: of each, if it holds for strata and the
    input tells them), the number of ``records of other strata``, and whether it is ``void`` because
    a chance is too small or there are such records (drift.py).
    ``offline``: what kept the processes of the run off the network (``offline.attestation``).
    ``shards``: empty, or of a run that was merged from shards, which may have run at the same time
    or not: their ``count``, and of their own ``wall_seconds``, ``workers`` and
    ``peak_memory_bytes`` the sum and the greatest (``_sum``, ``_max``). ``wall_seconds`` and
    ``peak_memory_bytes`` above are then the greatest, ``workers`` and ``resumed_chunks`` the sums,
    and ``records_per_second`` all records over the greatest ``wall_seconds``.
    """

    records: int
    files: int
    characters: int
    verdicts: dict[str, int]
    categories: dict[str, int]
    stages: dict[str, int]
    reasons: dict[str, int]
    statuses: dict[str, int]
    coverage: float
    review_rate: float
    duplicates: int
    repeated_ids: int
    truncated: int
    windowed_texts: int
    failures: dict[str, int]
    review: dict[str, Any]
    seconds: dict[str, float]
    texts_seen: dict[str, int]
    tokens: int
    windows: int
    rates: dict[str, float]
    wall_seconds: float
    records_per_second: float
    workers: int
    peak_memory_bytes: int
    resumed_chunks: int
    workers_lost: dict[str, int]
    quarantined: list[dict[str, Any]]
    plan: dict[str, Any]
    calibration_note: str
    certificate: dict[str, Any]
    offline: dict[str, Any]
    shards: dict[str, Any]

    @classmethod
    def of(
        cls,
        *,
        tally: Tally,
        session_records: int,
        queue: ReviewSummary,
        identity: dict[str, Any],
        note: str,
        certificate: dict[str, Any] | None,
        workers: int,
        files: int,
        wall_seconds: float,
        resumed_chunks: int,
        peak_bytes: int,
        shards: dict[str, Any] | None = None,
        quarantined: list[dict[str, Any]],
    ) -> RunReport:
        """The report of a finished run from the sum of its chunks' tallies."""
        counts = {
            name: dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))
            for name, counter in tally.counts.items()
        }
        reviewed = counts["verdict"].get("review", 0)
        share = reviewed / tally.records if tally.records else 0.0
        statuses = counts["status"]
        rates = {
            f"{stage}_texts": tally.seen[stage] / tally.seconds[stage]
            for stage in tally.seen
            if tally.seconds.get(stage)
        }
        if tally.seconds.get("filter"):  # it reads what the features have normalised
            whole = tally.seconds["features"] + tally.seconds["filter"]
            rates["filter_texts"] = tally.seen["filter"] / whole
        if tally.seconds.get("model"):
            rates["model_tokens"] = tally.tokens / tally.seconds["model"]
        return cls(
            records=tally.records,
            files=files,
            characters=tally.characters,
            verdicts=counts["verdict"],
            categories=counts["category"],
            stages=counts["stage"],
            reasons=counts["reason"],
            statuses=statuses,
            coverage=(tally.records - reviewed) / tally.records if tally.records else 1.0,
            review_rate=share,
            duplicates=tally.duplicates,
            repeated_ids=tally.repeated_ids,
            truncated=0,
            windowed_texts=tally.windowed_texts,
            failures={name: count for name, count in statuses.items() if name != "ok"},
            review={**asdict(queue), "files": list(queue.files)},
            seconds={name: round(value, 3) for name, value in tally.seconds.items()},
            texts_seen=dict(tally.seen),
            tokens=tally.tokens,
            windows=tally.windows,
            rates={name: round(value, 1) for name, value in rates.items()},
            wall_seconds=round(wall_seconds, 3),
            records_per_second=round(session_records / wall_seconds, 1) if wall_seconds else 0.0,
            workers=workers,
            peak_memory_bytes=peak_bytes,
            resumed_chunks=resumed_chunks,
            workers_lost=dict(tally.lost),
            quarantined=quarantined[:QUARANTINED],
            plan=identity,
            calibration_note=note,
            certificate=_standing(certificate, tally, by_stratum=identity["columns"]["stratum"]),
            offline=offline.attestation(tally.offline),
            shards=shards or {},
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON object of ``report.json``; ``from_json`` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> RunReport:
        """The report ``to_json`` wrote. Raises TypeError or KeyError where a field is of no use."""
        report = cls(**document)
        for name, kind in get_type_hints(cls).items():
            value = getattr(report, name)
            counts = get_args(kind)[1:] in ((int,), (float,))
            if not isinstance(value, get_origin(kind) or kind) or (
                counts and not all(isinstance(count, int | float) for count in value.values())
            ):
                raise TypeError(name)
        if not all(isinstance(row, dict) and {*_NAMED} <= row.keys() for row in report.quarantined):
            raise TypeError("quarantined")
        queue = report.review
        if not (
            isinstance(queue["files"], list)
            and isinstance(queue["exported"], int)
            and isinstance(queue["left_behind"], int)
        ):
            raise TypeError("review")
        return report


def _standing(
    certificate: dict[str, Any] | None, tally: Tally, *, by_stratum: bool
) -> dict[str, Any]:
    """What a certificate is worth after a run; ``by_stratum``: whether the input tells strata."""
    if certificate is None:
        return {}
    labelled, whole, strata, others = certificate["scores"], None, {}, 0
    if labelled is not None:
        whole = drift.test(labelled, drift.counts(labelled, tally.spread))
        if by_stratum:
            others = tally.spread[drift.OTHERS]
            for name, of in labelled["strata"].items():
                strata[name] = drift.test(of, drift.counts(of, tally.spread, name))
    chances = [*strata.values(), *([] if whole is None else [whole])]
    return {
        "goal": certificate["goal"],
        "holds": certificate["holds"],
        "drift": whole,
        "drift of strata": strata if by_stratum else None,
        "records of other strata": others if by_stratum else None,
        # As seldom by chance alone, however many tests there are (Bonferroni).
        "void": others > 0 or any(p < drift.VOID_BELOW / len(chances) for p in chances),
    }
