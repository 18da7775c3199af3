"""How long each stage takes on one core, in this process, by the code that a worker runs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from edgemod import features, language, records, review, store, worker
from edgemod.encoder import Encoder
from edgemod.errors import InputError
from edgemod.figures import Figure
from edgemod.kernels import automaton, normalise, pii, scan
from edgemod.llama import Tokens
from edgemod.model import Cleared, ModelScores
from edgemod.records import Chunk
from edgemod.tally import Tally
from edgemod.triager import Triager
from edgemod.words import Status

_LEAST_SECONDS: Final = 0.2  # a short step is repeated for as long

T = TypeVar("T")


@dataclass(frozen=True)
class Stages:
    """The figures of each stage, and what they were measured on."""

    figures: list[Figure]
    fingerprints: dict[str, str]
    """SHA-256 of policy, filter, model and calibration."""
    sample: dict[str, Any]
    """Digest of its texts, format, records, texts that can be scored, characters and bytes."""
    notes: list[str]


def measure(
    file: Path,
    folder: Path,
    named: Mapping[str, Any],
    models: Mapping[str, Any],
    repeats: int,
    say: Callable[[str], None],
) -> Stages:
    """Measure every stage on a file of records; what is written goes to ``folder``.

    ``named``: its columns; ``models``: policy, model and calibration, as ``edgemod.triage`` takes
    them; ``say`` is told of each stage. A rate is the best of ``repeats``, or of more where a step
    is short. Raises InputError where no record can be scored.
    """
    without = Triager(**{**models, "model": None}, trial=True)  # for all but the language model
    with Triager(**models) as triager, _one_core():
        sources = records.discover([file])
        columns = records.resolve_columns(sources, **named)
        limit = triager.policy.max_text_bytes

        say("reading")
        read, seconds, times = _best(
            lambda: [*records.read_chunks(sources, columns, max_text_bytes=limit)], repeats
        )
        texts = _readable(read)
        text_bytes = pc.sum(pc.binary_length(texts)).as_py()
        n = sum(chunk.records.num_rows for chunk in read)
        figures = [
            Figure("reading", "", unit, amount / seconds, "core", "best", times)
            for unit, amount in (
                ("records/s", n),
                ("bytes/s of the file", sources[0].size),
                ("bytes/s of text", text_bytes),
            )
        ]
        say("filter")
        figures += _filter(without, read, texts, repeats)
        notes = []
        if triager.model is not None:
            say("model")
            of_model, note = _model(triager, read, repeats)
            figures += of_model
            notes += [note] if note else []
        say("writing")
        figures += _writing(without, read, folder, repeats)
        facts = {
            "digest": _digest(texts),
            "format": sources[0].format,
            "records": n,
            "texts": len(texts),
            "characters": pc.sum(pc.utf8_length(texts)).as_py(),
            "text_bytes": text_bytes,
            "file_bytes": sources[0].size,
        }
        return Stages(figures, triager.fingerprints(), facts, notes)


@contextmanager
def _one_core() -> Iterator[None]:
    """Arrow on one thread, as in a worker."""
    before = pa.cpu_count()
    pa.set_cpu_count(1)
    try:
        yield
    finally:
        pa.set_cpu_count(before)


def _best(call: Callable[[], T], repeats: int) -> tuple[T, float, int]:
    """An answer, the least seconds it took, and how often it was tried; a first call not counted.

    At least ``repeats`` times, and until ``_LEAST_SECONDS`` have passed.
    """
    answer = call()
    taken: list[float] = []
    while len(taken) < repeats or sum(taken) < _LEAST_SECONDS:
        began = time.perf_counter()
        answer = call()
        taken.append(time.perf_counter() - began)
    return answer, max(min(taken), 1e-9), len(taken)


def _readable(chunks: Sequence[Chunk]) -> pa.LargeStringArray:
    """The texts that can be scored, at least one."""
    texts = pa.concat_arrays(
        [chunk.texts["text"].filter(pc.equal(chunk.texts["status"], Status.ok)) for chunk in chunks]
    )
    if not len(texts):
        fix = "Take more records, or spread ones, or name the text column."
        raise InputError("no record of the sample has a text that can be scored", fix=fix)
    return texts


def _digest(texts: pa.LargeStringArray) -> str:
    """SHA-256 over the lengths and bytes of the texts."""
    data, offsets = features.buffers(texts)
    digest = hashlib.sha256((offsets - offsets[0]).tobytes())
    digest.update(data[offsets[0] : offsets[-1]].tobytes())
    return digest.hexdigest()


def _filter(
    triager: Triager, chunks: Sequence[Chunk], texts: pa.LargeStringArray, repeats: int
) -> list[Figure]:
    """The filter stage as a run does it, its steps alone, and deciding, which comes with it."""

    def decide() -> tuple[float, Tally]:
        began, tally = time.perf_counter(), Tally()
        for chunk in chunks:
            tally.add(triager.triage_chunk(chunk).tally)
        return time.perf_counter() - began, tally

    tries: list[tuple[float, Tally]] = []
    _best(lambda: tries.append(decide()), repeats)
    done, tally = min(tries, key=lambda one: one[0])
    inside = tally.seconds["features"] + tally.seconds.get("filter", 0.0)
    rates = [
        ("filter", "", "texts/s", tally.seen["features"] / inside),
        ("filter", "", "characters/s", tally.characters / inside),
        ("deciding", "", "records/s", tally.records / max(done - inside, 1e-9)),
    ]
    figures = [Figure(*rate, "core", "best", len(tries)) for rate in rates]

    buffers, lexicons, policy = features.buffers(texts), triager.lexicons, triager.policy
    form, _ = normalise.normalise(*buffers)
    values = features.extract(texts, lexicons).values
    steps: dict[str, Callable[[], object]] = {
        "normalise": lambda: normalise.normalise(*buffers),
        "features": lambda: (
            scan.scan(*buffers),
            pii.contacts(*buffers),
            scan.repeated_words(*form),
        ),
        "lexicons": lambda: automaton.count(*form, lexicons.automaton, len(lexicons.groups)),
        "n-grams": lambda: triager.filter.scores(form),
    }
    if policy.unsupported_language == "review" and policy.languages:
        steps["language"] = lambda: language.unsupported(texts, values, policy.languages)
    characters = pc.sum(pc.utf8_length(texts)).as_py()
    for step, call in steps.items():
        _, seconds, times = _best(call, repeats)
        for unit, amount in (("texts/s", len(texts)), ("characters/s", characters)):
            figures.append(Figure("filter", step, unit, amount / seconds, "core", "best", times))
    return figures


class _Watched(Encoder):
    """An encoder that notes how long each window and each text takes, in seconds."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.window_seconds: list[float] = []
        self.text_seconds: list[float] = []

    def vector(self, window: Tokens) -> NDArray[np.float32]:
        began = time.perf_counter()
        answer = super().vector(window)
        self.window_seconds.append(time.perf_counter() - began)
        return answer

    def score(
        self,
        texts: pa.LargeStringArray,
        contexts: pa.LargeStringArray | None = None,
        cleared: Cleared | None = None,
    ) -> ModelScores:
        answers = []
        for i in range(len(texts)):  # an encoder's scores depend on the text alone
            began = time.perf_counter()
            answers.append(super().score(texts.slice(i, 1), None, cleared))
            self.text_seconds.append(time.perf_counter() - began)
        joined = (
            np.concatenate([getattr(answer, name) for answer in answers])
            for name in ("scores", "windows", "tokens")
        )
        return ModelScores(*joined)

    def forget(self) -> None:
        """Forget the windows that were read: those that come again are to be read again."""
        self._seen.clear()


def _model(triager: Triager, chunks: Sequence[Chunk], repeats: int) -> tuple[list[Figure], str]:
    """The language model on what the filter leaves to it; and a note, or ""."""
    assert triager.model is not None
    watched = None
    if triager.model.kind == "encoder":
        watched = _Watched.open(store.resolve(triager.model.name))
        triager.model.close()
        triager.model = watched
    tallies = []
    for _ in range(repeats):
        if watched:
            watched.forget()
        tally = Tally()
        for chunk in chunks:
            tally.add(triager.triage_chunk(chunk).tally)
        tallies.append(tally)
    best = min(tallies, key=lambda tally: tally.seconds.get("model", 0.0))
    if not best.tokens:
        return [], "no record of the sample needs the language model: it was not measured"
    seconds = best.seconds["model"]
    figures = [
        Figure("model", "", unit, amount / seconds, "core", "best", repeats)
        for unit, amount in (
            ("tokens/s", best.tokens),
            ("windows/s", best.windows),
            ("texts/s", best.seen["model"]),
        )
        if amount
    ]
    if watched is None:
        return figures, "a guard reads texts in batches: it has no time of one"
    for step, measured in (
        ("a window", watched.window_seconds),
        ("a text that needs the model", watched.text_seconds),
    ):
        for percent in (50, 90, 99):
            value = 1000 * float(np.percentile(measured, percent))
            figures.append(
                Figure("model", step, "milliseconds", value, "core", f"p{percent}", len(measured))
            )
    return figures, ""


def _writing(triager: Triager, chunks: Sequence[Chunk], folder: Path, repeats: int) -> list[Figure]:
    """What a worker writes of a chunk: its decisions, its part of the review queue, its tally."""
    out = folder / "written"
    for name in ("decisions", "work"):
        (out / name).mkdir(parents=True)
    decided = [(chunk, triager.triage_chunk(chunk)) for chunk in chunks]

    def write() -> None:
        for chunk, (decisions, tally, _) in decided:
            pending = review.pending(chunk, decisions, triager.policy)
            told = tally.to_json()
            made = worker.encoded_chunk(out, chunk.index, decisions, pending, told)
            worker.write_chunk(made)

    _, seconds, times = _best(write, repeats)
    n = sum(chunk.records.num_rows for chunk in chunks)
    return [Figure("writing", "", "records/s", n / seconds, "core", "best", times)]
