"""One chunk of records to one chunk of decisions: features, filter, language model, verdicts.

``Triager`` holds the loaded models and is all that is needed to embed edgemod in another
program. A chunk's decisions depend on the chunk alone: what is kept between chunks, the scores of
windows that an encoder has read, is what reading them again would give.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from edgemod import decide, drift, features, language, records, store
from edgemod.calibration import Calibration, FloatMatrix, Limits, Maps
from edgemod.decide import Decided, Evidence
from edgemod.errors import ModelError
from edgemod.filter import Filter
from edgemod.model import Model, open_model
from edgemod.policy import Policy, load_policy
from edgemod.records import Chunk, Columns
from edgemod.tally import Tally
from edgemod.words import CATEGORIES, FEATURES, NO_GROUP, OUTPUTS, Stage, Status, Verdict

PROBABILITIES: Final = tuple(f"p_{name}" for name in OUTPUTS)

_WORD: Final = pa.dictionary(pa.int32(), pa.string())

DECISIONS: Final = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("source", pa.string()),
        pa.field("source_row", pa.int64()),
        pa.field("message", pa.int32()),
        pa.field("verdict", _WORD),
        pa.field("category", _WORD),
        pa.field("stage", _WORD),
        pa.field("reason", _WORD),
        pa.field("status", _WORD),
        pa.field("duplicate_of", pa.string()),
        *(pa.field(name, pa.float32()) for name in PROBABILITIES),
    ]
)
"""Columns of a decision, one row a record, in input order. No text.

``message`` is the 0-based message that decided a conversation, null for a flat record;
``duplicate_of`` the id of the earlier record of the chunk with the same text; ``p_*`` the
calibrated probability, 0 to 1, of the last stage that measured it (the greatest over the
messages of a conversation), null where nothing was scored."""


@dataclass(frozen=True)
class Cleared:
    """Which pieces of texts the filter clears by themselves; see ``edgemod.model.Cleared``."""

    filter: Filter
    maps: Maps
    limits: Limits

    def __call__(self, pieces: features.Buffers) -> npt.NDArray[np.bool_]:
        """(n,) of n pieces in their normal form."""
        p = self.maps.probabilities(self.filter.scores(pieces), None)
        return np.asarray(decide.below(p, self.limits).all(axis=1))


@dataclass(frozen=True)
class Examined:
    """What is known of the texts of ``records`` records, whatever thresholds are then applied."""

    evidence: Evidence
    owner: npt.NDArray[np.int32]
    """(texts,) the record of each text, ascending."""
    failed: npt.NDArray[np.bool_]
    """(texts,) the language model could not score it."""
    records: int

    def verdicts(
        self, policy: Policy, filter_limits: Limits, model_limits: Limits
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
        """Verdict and category, int8 (records,), that a run with these thresholds would give."""
        decided = decide.decide(self.evidence, policy, filter_limits, model_limits)
        decided = decide.fail(decided, np.flatnonzero(self.failed & decided.pending))
        text_of, _ = decide.fold(decided, self.owner, self.records, policy)
        return decided.verdict[text_of], decided.category[text_of]


@dataclass(frozen=True)
class Scores:
    """What the stages measured of a chunk's n texts: uncalibrated log-odds, NaN where they did not.

    Both float32 (n, K), columns ``words.OUTPUTS``.
    """

    filter: FloatMatrix
    model: FloatMatrix

    @classmethod
    def none(cls, n: int) -> Scores:
        """Of n texts that nothing has measured yet."""
        return cls(*(np.full((n, len(OUTPUTS)), np.nan, np.float32) for _ in range(2)))

    def spread(self, rows: npt.NDArray[np.int64], n: int) -> Scores:
        """Of n texts, those at ``rows`` (as many as there are, repeats included) having these."""
        full = Scores.none(n)
        full.filter[rows], full.model[rows] = self.filter, self.model
        return full

    def take(self, rows: npt.NDArray[np.int64]) -> Scores:
        """Of some of the texts."""
        return Scores(self.filter[rows], self.model[rows])


class Triaged(NamedTuple):
    """A chunk's decisions (schema ``DECISIONS``), what they cost, and the scores behind them."""

    decisions: pa.RecordBatch
    tally: Tally
    scores: Scores


class Triager:
    """The loaded pipeline for one policy, filter, language model and calibration.

    ``overlay``: one of the policy's, to be in force. ``beside``: a triager whose encoder this one
    shares, and what that remembers of windows it has read; use and close both together. ``trial``:
    nothing is decided in earnest, so a certificate for another policy or model is no hindrance.
    The filter is the one that the calibration names, if it was recorded (store.py); else the
    shipped one. ``model`` is a name from ``edgemod model list`` or the path of a model that was
    added; None leaves the language model out, so that what the filter does not settle goes to
    review. Not safe for use from two threads at once. Close it, or use it as a context.

    Raises PolicyError, ModelError or CalibrationError if a part is missing or does not fit.
    """

    def __init__(
        self,
        policy: Policy | str | Path | None = None,
        model: str | None = "default",
        *,
        calibration: str | Path | None = None,
        overlay: str | None = None,
        threads: int = 1,
        beside: Triager | None = None,
        trial: bool = False,
    ) -> None:
        if not isinstance(policy, Policy):
            policy = load_policy(_path(policy), overlay)
        elif overlay is not None:
            raise ValueError("name the overlay when the policy is loaded")
        self.policy = policy
        self.lexicons = features.Lexicons.compile(self.policy.lexicons)
        base = Calibration.load(_path(calibration) or default_calibration())
        self.filter = Filter.load(store.filter_path(base.filter_fingerprint))
        base.check_filter(self.filter.fingerprint)
        self.model: Model | None = None
        if beside is not None and beside.model is not None and beside.model.kind == "encoder":
            self.model = beside.model if "model" in self.policy.stages else None
        elif model is not None and "model" in self.policy.stages:
            self.model = open_model(model, policy=self.policy, threads=threads)
        prints = self.policy.fingerprint, self.model.fingerprint if self.model else "none"
        if not trial:
            base.check_certificate(*prints)
        self.calibration = base if self.model is None else base.for_model(self.model.fingerprint)
        self._filter_limits = self.calibration.thresholds("filter", self.policy)
        unread = self.calibration.unread_below(self.policy)
        self.cleared = Cleared(self.filter, self.calibration.maps["filter"], unread)
        answers = OUTPUTS if self.model is None else self.model.answers
        self._model_limits = self.calibration.thresholds("model", self.policy, answers)
        certified = self.calibration.certificate or {}
        self._spreads: dict[str, Any] | None = certified.get("scores")
        self._reasons = pa.array(decide.reasons(self.policy), pa.string())

    def __enter__(self) -> Triager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the language model. The triager cannot be used afterwards."""
        if self.model is not None:
            self.model.close()

    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of everything a decision depends on besides the code and the input."""
        return {
            "policy": self.policy.fingerprint,
            "filter": self.filter.fingerprint,
            "model": self.model.fingerprint if self.model else "none",
            "calibration": self.calibration.fingerprint,
        }

    def reading(self) -> str:
        """SHA-256 of everything that the scores of the language model depend on but the texts."""
        digest = hashlib.sha256(self.filter.fingerprint.encode())
        if self.model is not None:
            digest.update(self.model.fingerprint.encode())
            if self.model.kind == "guard":  # of a context it reads the end of what was kept
                digest.update(str(self.policy.max_text_bytes).encode())
        if "filter" in self.policy.stages:  # then pieces that it clears are not read
            maps = vars(self.cleared.maps).values()
            for part in (self.cleared.limits.clear_below, *(m for m in maps if m is not None)):
                digest.update(np.asarray(part, np.float32).tobytes())
        return digest.hexdigest()

    def limits(self, stage: Literal["filter", "model", "cascade"]) -> Limits:
        """The thresholds (K,) in use on a stage's probabilities; of the cascade, the last ones."""
        return self._filter_limits if stage == "filter" else self._model_limits

    # -- decisions ---------------------------------------------------------------------------

    def triage_batch(
        self,
        batch: pa.RecordBatch,
        *,
        text: str | Sequence[str] = "text",
        conversation: str | None = None,
        id: str | None = None,
        context: str | None = None,
    ) -> pa.RecordBatch:
        """Decisions for a batch of records: schema ``DECISIONS``, row for row.

        ``text`` names the text column, or several to be joined by a line feed; the other names
        are columns as in ``edgemod.triage``. Without ``id`` a record is named ``batch#<row>``.
        Raises InputError if a column is missing or not of the right type.
        """
        names = (text,) if isinstance(text, str) else tuple(text)
        columns = Columns(
            () if conversation else names, conversation, id, None, None, None, context, ()
        )
        limit = self.policy.max_text_bytes
        return self.triage_chunk(records.chunk_of(batch, columns, max_text_bytes=limit)).decisions

    def triage_chunk(self, chunk: Chunk, known: FloatMatrix | None = None) -> Triaged:
        """Decide a chunk. ``known``: what the language model said of its texts before, (texts, K);
        it reads those that it should read and whose row is NaN.
        """
        tally = Tally(records=chunk.records.num_rows, texts=chunk.texts.num_rows)
        status = np.array(chunk.texts["status"], np.int8)
        readable = np.flatnonzero(status == Status.ok)
        reads_context = self.model is not None and self.model.kind == "guard"
        (texts, contexts), code = _unique(chunk, readable, reads_context)
        first = readable[np.unique(code, return_index=True)[1]] if len(code) else readable[:0]
        tally.unique_texts = len(texts)
        tally.characters = pc.sum(pc.utf8_length(texts)).as_py() or 0

        earlier = None if known is None else known[first]
        decided_unique, measured = self._decide_texts(texts, contexts, earlier, tally)
        decided = _spread(decided_unique, status, readable, code, self.policy)
        scores = measured.take(code).spread(readable, len(status))

        owner = np.array(chunk.texts["record"], np.int32)
        text_of, greatest = decide.fold(decided, owner, chunk.records.num_rows, self.policy)
        original = np.arange(len(status))
        original[readable] = first[code] if len(code) else first
        batch = self._batch(chunk, decided, text_of, greatest, owner, original)
        _count(batch, chunk, tally)
        if self._spreads is not None:
            self._count_spread(chunk, scores.filter, tally)
        return Triaged(batch, tally, scores)

    def _decide_texts(
        self,
        texts: pa.LargeStringArray,
        contexts: pa.LargeStringArray,
        known: FloatMatrix | None,
        tally: Tally,
    ) -> tuple[Decided, Scores]:
        """Every distinct readable text through the cascade, and what was measured of it."""
        evidence, scores = self._by_filter(texts, tally)
        measured = Scores.none(len(texts))
        measured = measured if scores is None else replace(measured, filter=scores)
        decided = self._decide(evidence)
        if self.model is None or not decided.pending.any():
            return decided, measured
        rows = np.flatnonzero(decided.pending)
        if known is not None:
            measured.model[rows] = known[rows]
        evidence, missed = self._by_model(evidence, measured, rows, texts, contexts, tally)
        return decide.fail(self._decide(evidence), missed), measured

    def _by_filter(
        self, texts: pa.LargeStringArray, tally: Tally
    ) -> tuple[Evidence, FloatMatrix | None]:
        """What features and filter say of texts, and the filter's scores where it ran."""
        n, stages = len(texts), self.policy.stages
        with tally.timed("features"):
            measured = features.extract(texts, self.lexicons)
            status = np.zeros(n, np.int8)
            if self.policy.unsupported_language == "review" and self.policy.languages:
                foreign = language.unsupported(texts, measured.values, self.policy.languages)
                status[foreign] = Status.unsupported_language
        tally.seen["features"] += n
        scores = p_filter = None
        if "filter" in stages or self.model is not None:
            with tally.timed("filter"):
                scores = self.filter.scores(measured.normalised)
                if "filter" in stages:
                    p_filter = self.calibration.probabilities("filter", scores)
            tally.seen["filter"] += n
        return Evidence(status, measured.values, measured.hits, p_filter, None), scores

    def _by_model(
        self,
        evidence: Evidence,
        scores: Scores,
        rows: npt.NDArray[np.int64],
        texts: pa.LargeStringArray,
        contexts: pa.LargeStringArray,
        tally: Tally,
    ) -> tuple[Evidence, npt.NDArray[np.int64]]:
        """The evidence with what the language model says of ``rows``, and those it failed on.

        It reads those of them that have no row in ``scores.model`` yet, where its answers go.
        """
        assert self.model is not None
        answers = scores.model
        unread = rows[np.isnan(answers[rows]).all(axis=1)]
        with tally.timed("model"):
            chosen = pa.array(unread)
            cleared = self.cleared if "filter" in self.policy.stages else None
            answer = self.model.score(texts.take(chosen), contexts.take(chosen), cleared)
        answers[unread] = answer.scores
        tally.seen["model"] += len(unread)
        tally.tokens += int(answer.tokens.sum())
        tally.windows += int(answer.windows.sum())
        tally.windowed_texts += int((answer.windows > 1).sum())
        p = np.full((len(texts), len(OUTPUTS)), np.nan, np.float32)
        p[rows] = self.calibration.probabilities("cascade", scores.filter[rows], answers[rows])
        return replace(evidence, model=p), rows[np.isnan(answers[rows]).all(axis=1)]

    def _count_spread(self, chunk: Chunk, scores: FloatMatrix, tally: Tally) -> None:
        """Count the records of a chunk in the bins of the certificate, by stratum too.

        Strata that it does not know count together: they may be many, and name people.
        """
        assert self._spreads is not None
        n, owner = chunk.records.num_rows, np.array(chunk.texts["record"], np.int32)
        p = self.calibration.maps["filter"].probabilities(scores, None)[:, -1:]
        p = decide.greatest(p, owner, n)[:, 0]
        measured = np.isfinite(p)
        groups = {"": (self._spreads, measured)}
        if known := self._spreads["strata"]:
            names = np.array(chunk.records["stratum"].fill_null(NO_GROUP).to_pylist(), object)
            groups |= {name: (of, measured & (names == name)) for name, of in known.items()}
            tally.spread[drift.OTHERS] += int((measured & ~np.isin(names, [*known])).sum())
        for name, (of, rows) in groups.items():
            found = Counter(drift.bins(p[rows], of["edges"]).tolist())
            tally.spread.update({drift.key(place, name): count for place, count in found.items()})

    def _decide(self, evidence: Evidence) -> Decided:
        return decide.decide(evidence, self.policy, self._filter_limits, self._model_limits)

    def _batch(
        self,
        chunk: Chunk,
        decided: Decided,
        text_of: npt.NDArray[np.int64],
        greatest: FloatMatrix,
        owner: npt.NDArray[np.int32],
        original: npt.NDArray[np.int64],
    ) -> pa.RecordBatch:
        """Assemble the decisions of a chunk from those of its texts."""
        rows, n = chunk.records, chunk.records.num_rows
        twin = _duplicates(owner, original, n)
        is_twin = twin != np.arange(n)
        stage = decided.stage[text_of].astype(np.int32)
        stage[is_twin & (stage != Stage.status)] = Stage.duplicate
        category = decided.category[text_of].astype(np.int32)
        messages = chunk.texts["message"].take(pa.array(text_of))
        columns = {
            "record_id": rows["record_id"],
            "source": rows["source"],
            "source_row": rows["source_row"],
            "message": pc.if_else(pc.less(messages, 0), pa.scalar(None, pa.int32()), messages),
            "verdict": _words(decided.verdict[text_of], [v.name for v in Verdict]),
            "category": _words(category, list(CATEGORIES), category < 0),
            "stage": _words(stage, [s.name for s in Stage]),
            "reason": pa.DictionaryArray.from_arrays(
                pa.array(decided.reason[text_of], pa.int32()), self._reasons
            ),
            "status": _words(decided.status[text_of], [s.name for s in Status]),
            "duplicate_of": pc.if_else(
                pa.array(is_twin),
                rows["record_id"].take(pa.array(twin)),
                pa.scalar(None, pa.string()),
            ),
        }
        for k, name in enumerate(PROBABILITIES):
            values = np.ascontiguousarray(greatest[:, k])
            columns[name] = pa.array(values, pa.float32(), mask=np.isnan(values))
        return pa.RecordBatch.from_pydict(columns, schema=DECISIONS)

    def examine(self, chunk: Chunk) -> Examined:
        """Everything that a run may come to know of a chunk, verdicts not yet given.

        The language model reads every text that it can, and of long ones the pieces that it would
        in a run.
        """
        status = np.array(chunk.texts["status"], np.int8)
        readable = np.flatnonzero(status == Status.ok)
        reads_context = self.model is not None and self.model.kind == "guard"
        (texts, contexts), code = _unique(chunk, readable, reads_context)
        evidence, scores = self._by_filter(texts, Tally())
        measured = Scores.none(len(texts))
        measured = measured if scores is None else replace(measured, filter=scores)
        failed = np.zeros(len(texts), bool)
        if self.model is not None and not len(texts):
            nothing = np.zeros((0, len(OUTPUTS)), np.float32)
            evidence = replace(evidence, model=nothing)
        elif self.model is not None:
            rows = np.arange(len(texts))
            evidence, missed = self._by_model(evidence, measured, rows, texts, contexts, Tally())
            failed[missed] = True

        def spread(values: npt.NDArray[Any], missing: float) -> npt.NDArray[Any]:
            full = np.full((len(status), *values.shape[1:]), missing, values.dtype)
            full[readable] = values[code]
            return full

        status[readable] = evidence.status[code]
        every = Evidence(
            status=status,
            features=spread(evidence.features, 0),
            hits=spread(evidence.hits, 0),
            filter=None if evidence.filter is None else spread(evidence.filter, np.nan),
            model=None if evidence.model is None else spread(evidence.model, np.nan),
        )
        owner = np.array(chunk.texts["record"], np.int32)
        return Examined(every, owner, spread(failed, False), chunk.records.num_rows)

    # -- scores ------------------------------------------------------------------------------

    def probabilities(
        self, chunk: Chunk, stage: Literal["filter", "model", "cascade"]
    ) -> FloatMatrix:
        """Calibrated probabilities of a chunk's records, float32 (n, K); NaN where not scored.

        ``filter`` and ``model`` score every text with that one; ``cascade`` sends the language
        model only what the rules and the filter do not settle, as a triage does. A
        conversation has the greatest of its messages. Raises ModelError for ``model`` if the
        triager was made without one.
        """
        if stage == "cascade":
            return probabilities_of(self.triage_chunk(chunk).decisions)
        status = np.array(chunk.texts["status"], np.int8)
        rows = np.flatnonzero(status == Status.ok)
        of_texts = np.full((len(status), len(OUTPUTS)), np.nan, np.float32)
        texts = chunk.texts["text"].take(pa.array(rows))
        if stage == "filter":
            scores = self.filter.scores(features.extract(texts, self.lexicons).normalised)
            of_texts[rows] = self.calibration.probabilities("filter", scores)
        elif self.model is None:
            raise ModelError("there is no language model to score with", fix="Name one.")
        else:
            contexts = chunk.texts["context"].take(pa.array(rows))
            answer = self.model.score(texts, contexts)
            of_texts[rows] = self.calibration.probabilities("model", None, answer.scores)
        owner = np.array(chunk.texts["record"], np.int32)
        return decide.greatest(of_texts, owner, chunk.records.num_rows)


def probabilities_of(decisions: pa.RecordBatch) -> FloatMatrix:
    """The ``p_*`` columns of decisions, float32 (n, K); NaN where null."""
    columns = [decisions[p].to_numpy(zero_copy_only=False) for p in PROBABILITIES]
    return np.column_stack(columns).astype(np.float32, copy=False)


def default_calibration() -> Path:
    """Where the calibration that ships with edgemod lies."""
    return store.quantized_dir() / "calibration.json"


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _unique(
    chunk: Chunk, readable: npt.NDArray[np.int64], with_context: bool
) -> tuple[tuple[pa.LargeStringArray, pa.LargeStringArray], npt.NDArray[np.int64]]:
    """The distinct readable texts in order of first occurrence, and which each text is.

    Two texts are the same if their bytes are, and for a model that reads the context, if
    their contexts are too.
    """
    rows = pa.array(readable)
    texts, contexts = chunk.texts["text"].take(rows), chunk.texts["context"].take(rows)
    code = np.asarray(texts.dictionary_encode().indices, np.int64)
    if with_context:
        of_context = contexts.dictionary_encode(null_encoding="encode").indices
        pair = code * (len(readable) + 1) + np.asarray(of_context, np.int64)
        code = np.asarray(pa.array(pair).dictionary_encode().indices, np.int64)
    first = pa.array(np.unique(code, return_index=True)[1])
    return (texts.take(first), contexts.take(first)), code


def _spread(
    unique: Decided,
    status: npt.NDArray[np.int8],
    readable: npt.NDArray[np.int64],
    code: npt.NDArray[np.int64],
    policy: Policy,
) -> Decided:
    """Decisions of the distinct texts to all texts; the unreadable ones get theirs here."""
    n = len(status)
    unread = np.where(status == Status.ok, np.int8(Status.unreadable), status)
    nothing = Evidence(
        status=unread,
        features=np.zeros((n, len(FEATURES)), np.float32),
        hits=np.zeros((n, len(policy.lexicons)), np.int32),
        filter=None,
        model=None,
    )
    never = Limits(*np.full((2, len(OUTPUTS)), np.inf, np.float32))
    decided = decide.decide(nothing, policy, never, never)
    for name, values in vars(decided).items():
        values[readable] = getattr(unique, name)[code]
    return decided


def _duplicates(
    owner: npt.NDArray[np.int32], original: npt.NDArray[np.int64], records: int
) -> npt.NDArray[np.int64]:
    """The first record with the same texts in the same order, for each record; int64 (n,)."""
    starts = np.searchsorted(owner, np.arange(records + 1))
    if len(owner) == records:
        return original
    keys = (original[starts[r] : starts[r + 1]].tobytes() for r in range(records))
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(key, r) for r, key in enumerate(keys)], np.int64)


def _words(
    codes: npt.NDArray[Any], names: list[str], missing: npt.NDArray[np.bool_] | None = None
) -> pa.DictionaryArray:
    indices = pa.array(codes.astype(np.int32), pa.int32(), mask=missing)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))


def _count(batch: pa.RecordBatch, chunk: Chunk, tally: Tally) -> None:
    """Count a chunk's decisions by every word they carry."""
    for name, counter in tally.counts.items():
        for item in pc.value_counts(batch[name].dictionary_decode()).to_pylist():
            if item["values"] is not None:
                counter[item["values"]] += item["counts"]
    ids = chunk.records["record_id"]
    tally.repeated_ids = len(ids) - pc.count_distinct(ids).as_py()
    tally.duplicates = len(ids) - batch["duplicate_of"].null_count
