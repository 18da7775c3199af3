"""Everything that led to one decision of a finished run, and a statement for the person concerned.

The record is scored again with the models, policy and calibration of the run, which must be the
same by their fingerprints, and the decision must come out as it did.

What a word adds to the filter's score is measured by taking it out (occlusion; Li et al. 2016,
"Understanding neural networks through representation erasure"): the filter is linear in n-grams,
but the n-grams of neighbours overlap. The language model's probability is told window by window:
a text has the greatest of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from edgemod import features, originals, privacy, run_folder
from edgemod.encoder import Encoder
from edgemod.errors import CalibrationError, InputError, RunError
from edgemod.parts import open_part
from edgemod.policy import policy_of_run
from edgemod.records import Chunk
from edgemod.triager import Triager
from edgemod.words import ANY, FEATURES, OUTPUTS, Stage, Status

WORDS: Final = 10
"""Words told of, those first that add most."""
_MOST_WORDS: Final = 400
_MOST_CHARACTERS: Final = 20_000
_FAILED: Final = (Status.failed.name, Status.model_failed.name, Status.crashed.name)


@dataclass(frozen=True)
class Word:
    """A word at code points ``start`` to ``end``, and the log-odds that the filter's score of the
    deciding category (else of ``any``) falls by without it."""

    start: int
    end: int
    adds: float


@dataclass(frozen=True)
class Explanation:
    """All of one decision. Offsets count code points of ``text``, the one that decided.

    ``decision``: its row. ``features``: those that are not 0. ``fired``: (start, end, what) of
    lexicon hits, links and personal data. ``rule``: the rule that settled it, with its conditions.
    ``windows``: probabilities of each window that the language model reads, by output.
    ``thresholds``: by category and stage, clear_below and flag_above (None: never).
    """

    text: str
    decision: dict[str, Any]
    category: str | None
    definition: str
    rule: dict[str, Any] | None
    features: dict[str, float]
    fired: tuple[tuple[int, int, str], ...]
    words: tuple[Word, ...]
    windows: tuple[dict[str, float], ...]
    thresholds: dict[str, dict[str, dict[str, float | None]]]
    calibration: str
    certificate: dict[str, Any] | None
    policy: str
    others: int
    """Other records of the run that have this id."""


def triager_of(
    run: str | Path,
    *,
    policy: str | Path | None = None,
    model: str | None = None,
    calibration: str | Path | None = None,
    overlay: str | None = None,
) -> Triager:
    """The triager of a complete run: what is named, and what is not from where the run had it.

    ``model`` "none" for none. Raises RunError if ``run`` is no complete run, InputError if what the
    run had is gone or has changed, and what ``Triager`` does.
    """
    state = run_folder.complete_state(Path(run))
    plan, told = state["plan"], state.get("made_with", {})
    if overlay not in (None, plan["overlay"]):
        raise InputError(
            f"was decided with the overlay {plan['overlay']}",
            where=str(run),
            fix="Leave --overlay out.",
        )
    had = told.get("calibration") if calibration is None else calibration
    if model is None:
        model = "none" if plan["model"] == "none" else told.get("model") or "default"
    of_run = policy_of_run(policy, state)
    try:
        made = Triager(of_run, None if model == "none" else model, calibration=had)
    except CalibrationError as error:
        if calibration is not None or had is None:
            raise
        raise _changed(str(had)) from error
    if calibration is None and made.fingerprints()["calibration"] != plan["calibration"]:
        made.close()
        raise _changed("the shipped calibration" if had is None else str(had))
    return made


def _changed(where: str) -> InputError:
    return InputError(
        "is the calibration of the run, and is gone or has changed since",
        where=where,
        fix="Put it back as it was, or name one that is as it was with --calibration.",
    )


def explain(
    run: str | Path, record_id: str, triager: Triager, pseudonymise: str | Path | None = None
) -> Explanation:
    """Explain the first record of a complete run that is called ``record_id``.

    ``triager`` as the run had it (``triager_of``). ``pseudonymise``: the key file of a run with
    pseudonyms, if ``record_id`` is the name in the input. Raises RunError if ``run`` is no complete
    run or decides otherwise now, InputError if it has no such record, if its input has changed, or
    if policy or models are not those of the run.
    """
    run = Path(run)
    state = run_folder.complete_state(run)
    for name, found in triager.fingerprints().items():
        if state["plan"][name] != found:
            raise InputError(
                f"is not that of the run ({str(state['plan'][name])[:12]}, not {found[:12]})",
                where=f"--{name}",
                fix="Name the one that the run was made with.",
            )
    called = record_id.encode("utf-8", "surrogateescape")
    if pseudonymise is not None:
        key = privacy.Pseudonyms.open(pseudonymise)
        key.check_run(state["plan"], str(pseudonymise))
        called = key.of("record_id", called).encode()
    wanted, count = _decision(run_folder.parts(run, state), called)
    if wanted is None:
        raise InputError(
            f"no record is called {record_id!r}",
            where=str(run / "decisions"),
            fix="Ids are in the column record_id of decisions/"
            + (
                "; --pseudonymise KEYFILE finds the one in the input."
                if state["plan"].get("pseudonyms") and pseudonymise is None
                else "."
            ),
        )
    sources, columns = originals.inputs(state), originals.columns(state)
    ((chunk, _),) = originals.chunks(wanted, sources, columns, triager.policy)
    row = wanted.to_pylist()[0]
    if pseudonymise is not None:
        row["record_id"] = record_id  # as the person concerned knows it
    if row["status"] in _FAILED:
        return _explained(triager, chunk, row, count - 1)
    again = triager.triage_chunk(chunk)[0].to_pylist()[0]
    as_before = all(again[name] == row[name] for name in ("verdict", "reason"))
    if row["duplicate_of"] is None and not as_before:
        raise RunError(
            "decides otherwise now; its context may have been another record",
            where=f"{row['source']}#{row['source_row']}",
            fix="Explain it with the edgemod, models and policy of the run.",
        )
    return _explained(triager, chunk, row, count - 1)


def _decision(parts: Sequence[Path], record_id: bytes) -> tuple[pa.Table | None, int]:
    """The first decision of a record with an id, None if there is none, and how many there are."""
    first, count = None, 0
    wanted = pa.scalar(record_id, pa.binary())
    for part in parts:
        with open_part(part) as file:
            ids = file.read(["record_id"])["record_id"].cast(pa.binary())
            rows = np.flatnonzero(pc.equal(ids, wanted).to_numpy(zero_copy_only=False))
            if len(rows) and first is None:
                first = file.read().slice(int(rows[0]), 1)
            count += len(rows)
    return first, count


def _explained(triager: Triager, chunk: Chunk, row: dict[str, Any], others: int) -> Explanation:
    message = -1 if row["message"] is None else row["message"]
    of = chunk.texts["message"].to_pylist().index(message)
    text = chunk.texts["text"][of].as_py() or ""
    # Whatever killed a worker shall not be tried here.
    tried = "" if row["status"] in _FAILED else text
    measured = features.extract(pa.array([tried], pa.large_string()), triager.lexicons)
    category = row["category"]
    output = category or ANY
    named = {c.name: c for c in triager.policy.categories}
    rule = next(
        (asdict(r) for r in triager.policy.rules if row["reason"] == f"rule {r.name}: {r.reason}"),
        None,
    )
    windows: list[dict[str, float]] = []
    if isinstance(triager.model, Encoder) and text and row["stage"] == Stage.model.name:
        scores = triager.model.by_window(text, triager.cleared)
        beside = np.repeat(triager.filter.scores(measured.normalised), len(scores), axis=0)
        p = triager.calibration.probabilities("cascade", beside, scores)
        windows = [dict(zip(OUTPUTS, values.tolist(), strict=True)) for values in p]
    return Explanation(
        text=text,
        decision=row,
        category=category,
        definition=named[category].definition if category in named else "",
        rule=rule,
        features={
            name: float(value)
            for name, value in zip(FEATURES, measured.values[0].tolist(), strict=True)
            if value
        },
        fired=tuple((s.start, s.end, s.what) for s in features.spans(tried, triager.lexicons)),
        words=_words(triager, tried, OUTPUTS.index(output)),
        windows=tuple(windows),
        thresholds={
            name: {
                stage: _pair(triager, stage, OUTPUTS.index(name)) for stage in ("filter", "model")
            }
            for name in (*named, ANY)
        },
        calibration=triager.calibration.note,
        certificate=None
        if triager.calibration.certificate is None
        else {k: triager.calibration.certificate[k] for k in ("goal", "holds")},
        policy=f"{triager.policy.name} {triager.policy.version}",
        others=others,
    )


def _pair(triager: Triager, stage: Any, k: int) -> dict[str, float | None]:
    limits = triager.limits(stage)
    pair = {"clear_below": float(limits.clear_below[k]), "flag_above": float(limits.flag_above[k])}
    return {name: None if math.isinf(value) else value for name, value in pair.items()}


def _words(triager: Triager, text: str, k: int) -> tuple[Word, ...]:
    """The words that add most to the filter's score of an output."""
    text = text[:_MOST_CHARACTERS]  # each word is taken out of a copy of it
    found = [*re.finditer(r"\S+", text)][:_MOST_WORDS]
    if len(found) < 2:
        return ()
    without = [text[: one.start()] + text[one.end() :] for one in found]
    column = pa.array([text, *without], pa.large_string())
    scores = triager.filter.scores(features.extract(column, triager.lexicons).normalised)[:, k]
    adds = scores[0] - scores[1:]
    words = [
        Word(one.start(), one.end(), round(float(more), 3))
        for one, more in zip(found, adds, strict=True)
        if more > 0
    ]
    return tuple(sorted(words, key=lambda word: (-word.adds, word.start))[:WORDS])


def notice(explained: Explanation, contact: str) -> str:
    """The statement for the person concerned, in plain language.

    It quotes nothing of the record, names the rule or category, says how far automation went and
    how to contest. ``contact``: where to write.

    Raises InputError where several records have the id: it would be the statement on another one.
    """
    if explained.others:
        raise InputError(
            f"{explained.others + 1:,} records have this id",
            where="--notice",
            fix="Statements need ids that are unique: triage with an --id-column that is.",
        )
    row = explained.decision
    what = {
        "clear": "It stays as it is.",
        "flag": "It was marked as breaking our rules.",
        "review": "It was put before a person, who decides what becomes of it.",
    }[row["verdict"]]
    name = (explained.category or "").replace("_", " ")
    ground = f"The rule on {name} of our policy ({explained.policy})"
    if explained.category == "self_harm":  # whoever is in distress has broken nothing
        what = {
            "flag": "It was marked, since it reads as being about suicide, self-injury or "
            "disordered eating.",
            "review": "It was put before a person, since it may be about suicide, self-injury or "
            "disordered eating.",
        }.get(row["verdict"], what)
        what += " This is no accusation: to say that one is in distress breaks no rule."
        ground = f"What our policy ({explained.policy}) says of self-harm"
    lines = [
        f"Your contribution {_line(row['record_id'])}",
        "",
        f"What was decided. {what}",
        "",
    ]
    if explained.category:
        lines += [f"On what ground. {ground}: {explained.definition}", ""]
    how = {
        "rule": f"A fixed rule found it: {explained.rule['reason'] if explained.rule else ''}",
        "filter": "A program that knows words and phrases judged it.",
        "model": "A program that was trained on examples judged it.",
        "duplicate": "It is the same as another contribution, and was judged with it.",
        "status": "It could not be judged by a program.",
    }[row["stage"]]
    lines += [f"How. {how}", ""]
    lines += [
        "Automation. The contribution was found and judged by automated means, without a person."
        if row["verdict"] != "review"
        else "Automation. Automated means chose it for a person to look at; no program decides it.",
        "",
        "Such programs make mistakes. If you think that this is one, write to "
        f"{_line(contact)} and name the contribution as above. A person will look at it.",
    ]
    if explained.category == "self_harm":
        lines += [
            "",
            "If you are thinking of harming yourself: you do not have to be alone with that. "
            "Please talk to somebody you trust, to a doctor, or to a helpline for people in "
            "crisis; if you are in danger now, call the emergency number where you are.",
        ]
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    """A text that cannot leave its line, or be anything but letters."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
