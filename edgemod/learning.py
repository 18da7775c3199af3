"""``learn()``: a user's own labels to a filter, a head and a calibration of their own. Local only.

The labelled records are split so that copies, near copies and the records of one thread are on one
side: two fifths to fit, one fifth to compare with, two fifths to certify (calibrating.py). Labels
that are no sample, such as a part of a queue or appeals, are fitted with and nothing else. An
output of the filter, or of the encoder's head, is moved only if it ranks the compared records
better, and the whole is adopted only if the last part certifies something for it, and every claim
that it certifies for the shipped models.

Where labels come with the chance that each record had of being drawn, comparing and certifying
weigh by it: they are about the archive, not about the sample. Fitting does not. Chances depend on
what the models already say, which the fit starts from, so that what violates among records of equal
scores is as in the archive; weights of 1 to 100 would leave a fit of hardly any records (Solon,
Haider and Wooldridge 2015, "What are we weighting for?").
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgemod import (
    calibrating,
    features,
    fitting,
    records,
    refitting,
    rehearsal,
    store,
    suggesting,
)
from edgemod import calibration as calibrations
from edgemod.calibrating import Calibrated
from edgemod.calibration import Calibration, Maps
from edgemod.encoder import Encoder
from edgemod.encoder import fingerprint as encoder_fingerprint
from edgemod.errors import InputError, ModelError, OutputError
from edgemod.filter import LAYOUT
from edgemod.labelled import PARTS, Labelled, read_labelled, write_labelled
from edgemod.metrics import Labels
from edgemod.parts import make_folder, remove, write_bytes
from edgemod.refitting import Move
from edgemod.suggesting import Add, Doubt, Retire
from edgemod.triager import Triager
from edgemod.words import OUTPUTS

LEAST: Final = 40
"""Labels of either kind to fit an output to, and a quarter of that to compare it on."""


@dataclass(frozen=True)
class Compared:
    """One output of a stage on ``n`` records that it was not fitted to: how much more AUPRC it has,
    ``low`` to ``high`` (95 % for all that are compared together); ``adopted`` if that is surely
    more than nothing."""

    stage: str
    label: str
    n: int
    violating: int
    gain: float
    low: float
    high: float
    adopted: bool


@dataclass(frozen=True)
class Learned:
    """What came of labels.

    ``before``, ``after``: calibrations certified on the same labels for the shipped models and for
    the moved ones (None where none was moved); ``adopted`` says whether the latter was written.
    ``sizes``: records to fit, to compare and to certify.
    """

    sizes: tuple[int, int, int]
    compared: tuple[Compared, ...]
    before: Calibrated
    after: Calibrated | None
    adopted: bool
    model: str | None
    retire: tuple[Retire, ...]
    add: tuple[Add, ...]
    doubts: tuple[Doubt, ...]


def learn(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    text: str | Sequence[str] = (),
    labels: Sequence[str] | None = None,
    name: str = "learned",
    policy: str | Path | None = None,
    model: str | None = "default",
    max_miss_rate: float = 0.05,
    max_false_flag_rate: float = 0.05,
    delta: float = 0.05,
    bar: float = 0.1,
    seed: int = 0,
    workers: int = 1,
    show: bool = False,
    on_notice: Callable[[str], None] | None = None,
) -> Learned:
    """Learn from labelled Parquet files; write calibration.json, card.json and, if adopted,
    filter.safetensors and head.safetensors to the new folder ``out``.

    ``name``: under which the encoder with a moved head is recorded. ``bar``: rules whose precision
    is surely below are suggested to be retired. ``show``: suggested terms without a mask. The other
    arguments as of ``calibrate``.

    Raises what ``calibrate`` raises; OutputError if ``out`` is not empty.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError("is there already", where=str(out), fix="Name a new folder.")
    tell = on_notice or (lambda _: None)
    sources = records.discover([inputs] if isinstance(inputs, str | Path) else inputs)
    if any(entry.name == name for entry in store.list_models()):
        raise ModelError(
            f'there already is a model "{name}"', where="learn", fix="Give another --name."
        )
    names = (text,) if isinstance(text, str) else tuple(text)
    columns = records.resolve_columns(sources, text=names)
    if columns.conversation:
        raise InputError(
            "are conversations",
            where=str(columns.conversation),
            fix="Learn from flat texts, or use 'edgemod calibrate'.",
        )
    with Triager(policy, model) as triager:
        given = read_labelled(sources, columns, labels, triager, seed, tell)
        if given.threads_apart:
            tell(
                "threads are split: one of them, with what is alike, is over a fifth of the labels"
            )
        moved = _move(triager, given, seed, tell)
        maker = _Maker(out, name, triager, moved)
        make_folder(out)
        options: dict[str, Any] = {
            "max_miss_rate": max_miss_rate,
            "max_false_flag_rate": max_false_flag_rate,
            "delta": delta,
            "seed": seed,
            "policy": policy,
            "workers": workers,
        }
        with tempfile.TemporaryDirectory(prefix="edgemod-") as folder, maker.or_undone():
            last = write_labelled(given, given.part(PARTS[1], 1.0), Path(folder) / "labels.parquet")
            before = calibrating.calibrate(last, out / "calibration.json", model=model, **options)
            after, adopted = None, False
            if maker.any:
                base, fresh = Path(folder) / "base.json", Path(folder) / "calibration.json"
                chosen = maker.write()
                base.write_text(json.dumps(calibrations.document_of(maker.calibration())))
                after = calibrating.calibrate(
                    last, fresh, calibration=base, model=chosen, **options
                )
                held, now = _certified(before), _certified(after)
                adopted = bool(now) and held <= now
                if adopted:
                    write_bytes(out / "calibration.json", fresh.read_bytes())
                else:
                    maker.undo()
        caught = rehearsal.backtest(triager.policy, given.samples, text=names, labels=labels)
        keys = given.texts.to_pylist()
        found = Learned(
            sizes=given.sizes,
            compared=moved.compared,
            before=before,
            after=after,
            adopted=adopted,
            model=name if adopted and moved.moves["model"] else model,
            retire=tuple(suggesting.retire(caught, bar, triager.policy, show=show)),
            add=tuple(suggesting.add(given.texts, given.labels, triager.policy, show=show)),
            doubts=tuple(suggesting.doubts(keys, given.reviewers, given.labels)),
        )
        card = _card(found, given, triager, out)
        write_bytes(out / "card.json", (json.dumps(card, indent=1) + "\n").encode())
    return found


def _certified(made: Calibrated) -> set[tuple[str, str]]:
    """The claims of a calibration that hold."""
    return {(risk.side, risk.category) for risk in made.found.risks if risk.certified}


# -- reading -----------------------------------------------------------------------------------


# -- fitting -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Moved:
    """What was adopted on the compared part, by stage and output, and the scores of the records to
    fit, (n, 10) by stage: of a moved output those of fits that did not see the record."""

    moves: dict[str, dict[int, Move]]
    compared: tuple[Compared, ...]
    scores: dict[str, npt.NDArray[np.float64]]
    labels: Labels


def _move(triager: Triager, given: Labelled, seed: int, tell: Callable[[str], None]) -> _Moved:
    """Fit every output that has labels enough, and adopt those that rank better elsewhere."""
    fit, other = given.part(0, PARTS[0]), given.part(*PARTS)
    tried = [
        k
        for k in range(len(OUTPUTS))
        if _enough(given.labels[fit, k], LEAST) and _enough(given.labels[other, k], LEAST // 4)
    ]
    if not tried:
        tell(
            f"too few labels to move a model: of one output {LEAST} of either kind to fit and "
            f"{LEAST // 4} to compare, two fifths and one fifth of all"
        )
        return _Moved({"filter": {}, "model": {}}, (), {}, given.labels[fit])
    stages: list[_FilterStage | _HeadStage] = [_FilterStage(triager, given)]
    if isinstance(triager.model, Encoder):
        stages.append(_HeadStage(triager.model, given))
    moves: dict[str, dict[int, Move]] = {"filter": {}, "model": {}}
    compared, scores = [], {}
    alpha = 0.05 / (len(stages) * len(tried))  # Bonferroni: none is adopted by luck
    weights = None if given.inclusion is None else 1 / given.inclusion[0]
    for stage in stages:
        crossed = stage.scores[fit]
        for k in tried:
            x, old = stage.features(k), stage.scores[:, k]
            here = fit[(given.labels[fit, k] >= 0) & np.isfinite(old[fit])]
            there = other[(given.labels[other, k] >= 0) & np.isfinite(old[other])]
            known = given.labels[here, k]
            move = refitting.fit(x[here], old[here], known, given.share[here], seed=seed)
            if move is None:
                tell(f"{stage.name}: no move of {OUTPUTS[k]} does better than none")
                continue
            answers, new = given.labels[there, k], old[there] + x[there] @ move.weights
            gain, low, high = refitting.difference(
                answers,
                old[there],
                new,
                None if weights is None else weights[there],
                alpha=alpha,
                seed=seed,
            )
            violating, adopted = int((answers == 1).sum()), low > 0
            one = Compared(stage.name, OUTPUTS[k], len(there), violating, gain, low, high, adopted)
            compared.append(one)
            if adopted:
                moves[stage.name][k] = move
                crossed[np.isin(fit, here), k] = move.crossed
        scores[stage.name] = crossed
    return _Moved(moves, tuple(compared), scores, given.labels[fit])


def _enough(labels: Labels, least: int) -> bool:
    return min(int((labels == 0).sum()), int((labels == 1).sum())) >= least


class _FilterStage:
    """The filter's scores (n, 10) of the labelled texts, and what they are made of."""

    name = "filter"

    def __init__(self, triager: Triager, given: Labelled) -> None:
        self._forms = features.extract(given.texts, triager.lexicons).normalised
        self._path = store.filter_path(triager.filter.fingerprint)
        self.scores = triager.filter.scores(self._forms).astype(np.float64)

    def features(self, output: int) -> Any:
        """(n, d)"""
        return refitting.grams(self._forms, self._path, output)


class _HeadStage:
    """The same of the encoder: the mean vector of the window that gives an output its score."""

    name = "model"

    def __init__(self, encoder: Encoder, given: Labelled) -> None:
        size = encoder.head.hidden.shape[1]
        self._vectors, self._scores = [], []
        for text in given.texts.to_pylist():
            try:
                vectors = encoder.vectors(text)
            except ModelError:  # it has no score either
                vectors = np.zeros((0, size), np.float32)
            found = [encoder.head(vector) for vector in vectors]
            none = np.full((1, len(OUTPUTS)), np.nan, np.float32)
            self._scores.append(np.stack(found) if found else none)
            self._vectors.append(vectors if found else np.zeros((1, size), np.float32))
        self.scores = np.stack([one.max(axis=0) for one in self._scores]).astype(np.float64)

    def features(self, output: int) -> Any:
        """(n, n_embd)"""
        best = [int(one[:, output].argmax()) for one in self._scores]
        chosen = [some[i] for some, i in zip(self._vectors, best, strict=True)]
        return np.stack(chosen).astype(np.float64)


# -- files -------------------------------------------------------------------------------------


class _Maker:
    """Writes and records the moved models, or takes them back."""

    def __init__(self, out: Path, name: str, triager: Triager, moved: _Moved) -> None:
        self._out, self._triager, self._moved = out, triager, moved
        self.name, self._recorded = name, False
        self._old = store.filter_path(triager.filter.fingerprint)
        self._filter = self._base = triager.filter.fingerprint
        self._model_print = triager.model.fingerprint if triager.model else "none"

    @property
    def any(self) -> bool:
        """Whether anything was moved."""
        return any(self._moved.moves.values())

    def write(self) -> str | None:
        """Write and record the moved files; the name of the model to use with them."""
        model = self._triager.model
        if self._moved.moves["filter"]:
            path = self._out / "filter.safetensors"
            about = {k: v for k, v in self._triager.filter.metadata.items() if k not in LAYOUT}
            about |= {"learned_from": self._filter}
            write_bytes(path, refitting.moved_filter(self._old, self._moved.moves["filter"], about))
            store.add_filter(path)
            self._filter = store.sha256(path)
        if not self._moved.moves["model"] or model is None:
            return None if model is None else model.name
        entry = store.resolve(model.name)
        assert entry.head is not None
        path = self._out / "head.safetensors"
        write_bytes(path, refitting.moved_head(entry.head, self._moved.moves["model"]))
        entry = store.add(entry.path, self.name, "encoder", head=path)
        self._recorded = True
        self._model_print = encoder_fingerprint(entry)
        return self.name

    def calibration(self) -> Calibration:
        """The shipped one with maps of the moved outputs, fitted to scores of unseen records."""
        base = self._triager.calibration
        maps = {
            stage: {part: values.copy() for part, values in vars(of).items()}
            for stage, of in base.maps.items()
        }
        scores, labels, moves = self._moved.scores, self._moved.labels, self._moved.moves
        for k in sorted({*moves["filter"], *moves["model"]}):
            reads = [("filter", ["filter"])] if k in moves["filter"] else []
            reads += [("model", ["model"])] if k in moves["model"] else []
            reads += [("cascade", ["model", "filter"])] if "model" in scores else []
            for stage, inputs in reads:
                x = np.stack([scores[one][:, k] for one in inputs], axis=1)
                rows = (labels[:, k] >= 0) & np.isfinite(x).all(axis=1)
                *slopes, bias = fitting.fit_map(x[rows], labels[rows, k]).tolist()
                for one, slope in zip(inputs, slopes, strict=True):
                    maps[stage][one][k] = slope
                maps[stage]["bias"][k] = bias
        return replace(
            base,
            filter_fingerprint=self._filter,
            model_fingerprint=base.model_fingerprint
            if self._model_print == "none"
            else self._model_print,
            note="learned from labels",
            maps={stage: Maps(**parts) for stage, parts in maps.items()},
        )

    def undo(self) -> None:
        """Take back what ``write`` did."""
        if self._recorded:
            store.forget(self.name, "")
        if self._filter != self._base:
            store.forget("", self._filter)
        remove(self._out / "filter.safetensors", self._out / "head.safetensors")

    @contextmanager
    def or_undone(self) -> Iterator[None]:
        """Leave nothing recorded, and the folder empty, where what is done here fails."""
        try:
            yield
        except BaseException:
            self.undo()
            remove(self._out / "calibration.json")
            raise


def _card(found: Learned, given: Labelled, triager: Triager, out: Path) -> dict[str, Any]:
    """What the files of the folder are, and what they came from."""
    files = sorted(path for path in out.iterdir() if path.suffix != ".md")
    told = {name: made and made.note for name, made in _pair(found).items()}
    return {
        "made": datetime.now(UTC).date().isoformat(),
        "labels": given.fingerprint,
        "records to fit, compare, certify": found.sizes,
        "started from": triager.fingerprints(),
        "files": {path.name: store.sha256(path) for path in files},
        "model": found.model,
        "adopted": found.adopted,
        "compared": [dataclasses.asdict(one) for one in found.compared],
        "certified": told,
        "verdicts": {name: made and made.found.shares for name, made in _pair(found).items()},
        "suggestions": {
            kind: [dataclasses.asdict(one) for one in getattr(found, kind)]
            for kind in ("retire", "add", "doubts")
        },
    }


def _pair(found: Learned) -> dict[str, Calibrated | None]:
    return {"before": found.before, "after": found.after}
