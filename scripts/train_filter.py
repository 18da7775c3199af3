"""Train the filter: python scripts/train_filter.py DATA -o quantized/filter.safetensors

DATA is the folder that holds train/ and archive/ (see training_data.py for what is used).
The language model teaches it on archive posts, so train the encoder first. Takes ten minutes on
two cores, eight of them for the language model, and gives the same file each time.

The model is linear, so training is short: AdaGrad (Duchi et al. 2011) on the logistic loss of
every known label, all outputs in one pass, through the same windows that scoring uses: a
window that gives an output its score takes that output's gradient. Float weights are then
rounded to int8, one scale an output.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit

import training_data
from edgemod import features
from edgemod.calibration import sigmoid
from edgemod.filter import Filter, to_bytes
from edgemod.kernels import ngrams
from edgemod.metrics import by_output
from edgemod.words import OUTPUTS
from model_scores import model_scores
from training_data import TrainingData, in_holdout, is_weak, without_apart

SEED: Final = 20
EPOCHS: Final = 2
RATE: Final = 0.5
DECAY: Final = 1e-6
"""L2 penalty, felt by a weight each time one of its n-grams is seen."""
POSITIVES: Final = 0.5
"""Positives of an output weigh (negatives / positives) ** POSITIVES more, by total weight."""
START: Final = 0.1
"""What the sums of squared gradients start from: small gradients take small steps."""
DOUBT: Final = 0.8
"""A weak negative that the model gives at least this probability is left out of the step."""
DECORATED: Final = 4_000
"""Harmless texts with emoji."""
DISGUISED: Final = 12_000
"""Texts with words written around a filter."""
HARD_CASES: Final = 20
"""Draws from each pattern of hard_cases.py and assistant_cases.py."""
BURIED: Final = 24_000
"""Short texts, harmful and harmless, put into harmless ones."""
FRAMED: Final = 6_000
"""Requests with what people put around them."""
TAUGHT: Final = 40_000
"""Archive posts on which the language model teaches the filter."""
TAUGHT_WEIGHT: Final = 0.5
JOINED: Final = 6_000
"""Long texts made from several short ones."""

POOLS: Final = (
    "written",
    "weak topics",
    "joined",
    "decorated",
    "disguised",
    "buried",
    "hard cases",
    "framed",
    "taught",
)
"""What ablate_filter.py leaves out, one at a time. The labelled sets are always there."""

PROBE: Final = (
    "Ca\u0301fe\u0301 \uff21\uff22 \u0440aper h4t3 f-i-n-e sooooo &amp; \u201cquoted\u201d "
    "\u2014 so\u200bft "
    "https://www.Example.com/a?b=1 @Name 1488 a@b.example $$$ \U0001f600\ufe0f stra\u00dfe"
)
"""A text that most steps of the normaliser change."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Grams:
    """The n-grams of n texts: ``found[starts[i]:starts[i + 1]]`` are the buckets of text i."""

    found: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]


def normalise(texts: pa.LargeStringArray) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Texts as the filter sees them: data and offsets."""
    return features.extract(texts, features.Lexicons.compile(())).normalised


def find_grams(texts: pa.LargeStringArray) -> Grams:
    """The n-grams of normalised texts."""
    data, offsets = normalise(texts)
    starts = np.zeros(len(offsets), np.int64)
    found = np.empty(ngrams.GRAMS_PER_BYTE * (len(data) + 1), np.int32)
    return Grams(found[: _find(data, offsets, found, starts)].copy(), starts)


@njit(cache=True, nogil=True)
def _find(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    found: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int64],
) -> int:
    for i in range(len(starts) - 1):
        count = ngrams.grams(data, offsets[i], offsets[i + 1], found[starts[i] :])
        starts[i + 1] = starts[i] + count
    return int(starts[-1])


@njit(cache=True, nogil=True)
def _window_sums(
    weights: Floats, found: npt.NDArray[np.int32], best: Floats, chosen: npt.NDArray[np.int64]
) -> int:
    """The greatest score over the windows, and which window has it, of each output (K,)."""
    count, outputs = len(found), len(best)
    parts = ngrams.windows(count)
    best[:] = -np.inf
    for part in range(parts):
        first, last = count * part // parts, count * (part + 1) // parts
        total = np.zeros(outputs, np.float32)
        for j in range(first, last):
            for k in range(outputs):
                total[k] += weights[found[j], k]
        root = np.float32(np.sqrt(max(last - first, 1)))
        for k in range(outputs):
            if total[k] / root > best[k]:
                best[k], chosen[k] = total[k] / root, part
    return parts


@njit(cache=True, nogil=True)
def fit_epoch(
    found: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    targets: Floats,
    importance: Floats,
    doubtful: npt.NDArray[np.bool_],
    weights: Floats,
    squares: Floats,
    bias: Floats,
    bias_squares: Floats,
    rate: float,
    decay: float,
) -> float:
    """One pass of AdaGrad over the texts in ``order``; the mean loss before each step.

    ``targets`` (n, K), 0 to 1 or -1 unknown, ``importance`` (n, K), ``doubtful`` (n,): rows whose
    0 teaches nothing where the model is sure of the contrary. Changes ``weights`` (buckets, K),
    ``bias`` (K,) and their sums of squared gradients in place.
    """
    outputs = targets.shape[1]
    best = np.empty(outputs, np.float32)
    slope = np.empty(outputs, np.float32)
    chosen = np.empty(outputs, np.int64)
    loss = 0.0
    for i in order:
        mine = found[starts[i] : starts[i + 1]]
        count = len(mine)
        if count == 0:
            continue
        parts = _window_sums(weights, mine, best, chosen)
        for k in range(outputs):
            if targets[i, k] < 0:
                slope[k], chosen[k] = 0.0, -1
                continue
            margin = best[k] + bias[k]
            p = 1.0 / (1.0 + np.exp(-margin))
            target = targets[i, k]
            if target == 0 and doubtful[i] and p > DOUBT:
                slope[k], chosen[k] = 0.0, -1
                continue
            gain = target * np.log(max(p, 1e-12)) + (1.0 - target) * np.log(max(1.0 - p, 1e-12))
            loss -= importance[i, k] * gain
            slope[k] = importance[i, k] * (p - target)
            bias_squares[k] += slope[k] ** 2
            bias[k] -= rate * slope[k] / np.sqrt(bias_squares[k])
        for part in range(parts):
            wanted = False
            for k in range(outputs):
                wanted |= chosen[k] == part
            if not wanted:
                continue
            first, last = count * part // parts, count * (part + 1) // parts
            root = np.float32(1.0 / np.sqrt(max(last - first, 1)))
            step = np.where(chosen == part, slope * root, np.float32(0.0))
            for j in range(first, last):
                b = mine[j]
                for k in range(outputs):
                    if step[k] != 0.0:
                        g = step[k] + decay * weights[b, k]
                        squares[b, k] += g * g
                        weights[b, k] -= rate * g / np.sqrt(squares[b, k])
    return loss / len(order)


def importance(data: TrainingData) -> Floats:
    """How much each label counts, (n, K): its row's weight, more for rare positives."""
    by_row = np.repeat(data.weights[:, None], data.labels.shape[1], axis=1)
    negatives = np.sum(by_row, axis=0, where=data.labels == 0)
    positives = np.sum(by_row, axis=0, where=data.labels == 1)
    more = np.maximum(1.0, negatives / np.maximum(positives, 1.0)) ** POSITIVES
    return np.where(data.labels == 1, by_row * more, by_row).astype(np.float32)


def join(data: TrainingData, count: int, seed: int) -> TrainingData:
    """Long texts: several harmless rows, every other time with one violating row among them.

    Few long texts are labelled; without these, length itself would look harmless or not.
    """
    random = np.random.default_rng(seed)
    anything = data.labels[:, -1]
    brief = np.array([len(text) <= 600 for text in data.texts])
    good = np.flatnonzero((anything == 0) & brief)
    bad = np.flatnonzero((anything == 1) & brief)
    chance = data.weights[good] / data.weights[good].sum()
    texts, labels = [], np.zeros((count, data.labels.shape[1]), np.int8)
    for i in range(count):
        rows = random.choice(good, int(random.integers(3, 15)), p=chance)
        if i % 2:
            rows[random.integers(len(rows))] = odd = int(random.choice(bad))
            labels[i] = np.where(data.labels[odd] == 1, 1, -1)
        texts.append("\n".join(data.texts[row] for row in rows))
    return TrainingData(
        texts,
        labels,
        np.full(count, "joined"),
        np.full(count, 0.5, np.float32),
        np.zeros(count, bool),
    )


def taught(data: Path, rows: int, cache: Path | None) -> tuple[TrainingData, Floats]:
    """Archive posts and the language model's opinion of each, float32 (n, K).

    What the filter sees in a run is an archive, and what the model would say there is what it is
    to save asking for.
    """
    archive = pq.read_table(data / "archive" / "reddit_top_200k.parquet")
    chosen = np.sort(np.random.default_rng(SEED).choice(archive.num_rows, rows, replace=False))
    texts = training_data.posts(archive.take(pa.array(chosen)))
    texts = [text for text, held in zip(texts, in_holdout(texts), strict=True) if not held]
    (scores,) = model_scores(pa.array(texts, pa.large_string()), cache, workers=2)
    opinion = sigmoid(scores)
    opinion[np.isnan(opinion)] = -1
    posts = TrainingData(
        texts,
        np.full(scores.shape, -1, np.int8),
        np.full(len(texts), "archive"),
        np.full(len(texts), TAUGHT_WEIGHT, np.float32),
        np.zeros(len(texts), bool),
    )
    return posts, opinion


def pools(
    data: Path, archive: tuple[TrainingData, Floats] | None, without: str = ""
) -> tuple[TrainingData, Floats, Floats, TrainingData]:
    """What is trained on, its targets (n, K) and how much each counts (n, K), and the holdout.

    ``archive``: what ``taught`` gives; ``without``: the pool that is left out, one of ``POOLS``.
    """
    weak = training_data.load_weak_topics(data)
    everything = training_data.concatenate([training_data.load_train(data), weak])
    held = everything.take(everything.holdout)
    written = training_data.load_written()
    parts = [everything.take(~everything.holdout), written.take(~written.holdout)]
    if without == "weak topics":
        parts[0] = parts[0].take(~np.char.startswith(parts[0].sets, "reddit/"))
    if without == "written":
        parts.pop()
    train = training_data.concatenate(parts)
    made: dict[str, Callable[[], TrainingData]] = {
        "joined": lambda: join(train, JOINED, SEED),
        "decorated": lambda: training_data.decorate(train, DECORATED, SEED),
        "disguised": lambda: training_data.disguised(train, DISGUISED, SEED),
        "buried": lambda: training_data.bury(train, BURIED, SEED),
        "hard cases": lambda: training_data.load_hard_cases(HARD_CASES, SEED),
    }
    train = training_data.concatenate(
        [train, *(make() for name, make in made.items() if name != without)]
    )
    if without != "framed":
        train = training_data.concatenate([train, training_data.frame(train, FRAMED, SEED)])
    counts, targets = importance(train), without_apart(train).astype(np.float32)
    if archive and without != "taught":
        posts, opinion = archive
        train = training_data.concatenate([train, posts])
        targets = np.concatenate([targets, opinion])
        counts = np.concatenate([counts, np.repeat(posts.weights[:, None], len(OUTPUTS), 1)])
    return train, targets, counts, held


def prior(targets: Floats, counts: Floats) -> Floats:
    """The log-odds of each output over all rows, (K,)."""
    positives = np.sum(counts, axis=0, where=targets >= 0.5)
    negatives = np.sum(counts, axis=0, where=(targets >= 0) & (targets < 0.5))
    return np.asarray(np.log((positives + 1.0) / (negatives + 1.0)), np.float32)


def fit(
    grams: Grams,
    targets: Floats,
    counts: Floats,
    doubtful: npt.NDArray[np.bool_],
    *,
    seed: int = SEED,
    epochs: int = EPOCHS,
    rate: float = RATE,
    decay: float = DECAY,
) -> tuple[Floats, Floats]:
    """Weights (buckets, K) and bias (K,). The same seed gives the same weights."""
    outputs = targets.shape[1]
    weights = np.zeros((1 << ngrams.BITS, outputs), np.float32)
    squares = np.full_like(weights, START)
    bias = prior(targets, counts)
    bias_squares = np.full(outputs, 1.0, np.float32)
    random = np.random.default_rng(seed)
    for epoch in range(epochs):
        started = time.monotonic()
        order = random.permutation(len(targets))
        loss = fit_epoch(
            grams.found,
            grams.starts,
            order,
            targets,
            counts,
            doubtful,
            weights,
            squares,
            bias,
            bias_squares,
            rate,
            decay,
        )
        print(f"epoch {epoch + 1}: loss {loss:.4f}, {time.monotonic() - started:.0f} s")
    return weights, bias


@njit(cache=True, nogil=True)
def predict(
    found: npt.NDArray[np.int32], starts: npt.NDArray[np.int64], weights: Floats, bias: Floats
) -> Floats:
    """Log-odds of float weights, (n, K)."""
    result = np.empty((len(starts) - 1, len(bias)), np.float32)
    chosen = np.empty(len(bias), np.int64)
    for i in range(len(result)):
        _window_sums(weights, found[starts[i] : starts[i + 1]], result[i], chosen)
        result[i] += bias
    return result


def quantize(weights: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """Weights as int8 and what one unit is worth, (K,): ``weights ~ int8 * scale``.

    The greatest weight is 127 units. Cutting the few great weights off for finer steps was
    tried and costs more: they are the ones that decide.
    """
    greatest = np.abs(weights).max(axis=0)
    scale = np.where(greatest > 0, greatest / np.float32(127), np.float32(1))
    return np.rint(weights / scale).astype(np.int8), scale


def normal_form() -> str:
    """What the normaliser makes of a fixed text, SHA-256 hex: weights hold for one form only."""
    data, _ = normalise(pa.array([PROBE], type=pa.large_string()))
    return hashlib.sha256(data.tobytes()).hexdigest()


def thresholds(labels: npt.NDArray[np.int8], scores: Floats, missed: float = 0.02) -> Floats:
    """The score below which the share ``missed`` of an output's positives fall, (K,)."""
    found = [scores[labels[:, k] == 1, k] for k in range(len(OUTPUTS))]
    return np.array([np.quantile(s, missed) if len(s) else -np.inf for s in found], np.float32)


def report(loaded: Filter, data: Path, held: TrainingData) -> None:
    """Print what a trained filter does on the holdout and on archive posts.

    Development sets are left to scoreboard.py.
    """
    scores = loaded.scores(normalise(held.arrow()))
    weak = is_weak(held)
    limits = thresholds(held.labels[~weak], scores[~weak])
    print("\nholdout: AUPRC, and share of negatives below the score that 2 % of positives miss")
    precision = by_output(held.labels[~weak], scores[~weak])
    for k, output in enumerate(OUTPUTS):
        negative = ~weak & (held.labels[:, k] == 0)
        positives = int(np.sum(~weak & (held.labels[:, k] == 1)))
        cleared = np.mean(scores[negative, k] < limits[k])
        print(f"  {output:16} {precision[output]:.3f}  {cleared:6.1%}  ({positives} positives)")
    long = ~weak & np.array([len(text) > 1000 for text in held.texts])
    figures = by_output(held.labels[long], scores[long])
    print(f"texts over 1,000 characters ({long.sum()}): " + _line(figures))
    print("weak topics: " + _line(by_output(held.labels[weak], scores[weak])))

    archive = pq.read_table(data / "archive" / "reddit_top_200k.parquet")
    rows = np.sort(np.random.default_rng(SEED).choice(archive.num_rows, 5000, replace=False))
    texts = pa.array(training_data.posts(archive.take(pa.array(rows))), type=pa.large_string())
    below = loaded.scores(normalise(texts)) < limits
    print("\narchive, 5,000 posts: share below the same scores")
    for k, output in enumerate(OUTPUTS):
        print(f"  {output:16} {below[:, k].mean():6.1%}")
    print(f"  {'all':16} {below.all(axis=1).mean():6.1%}")


def _line(figures: dict[str, float]) -> str:
    return ", ".join(f"{output} {value:.3f}" for output, value in figures.items())


def main() -> None:
    """Train, quantize, write and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path, help="the folder with train/ and archive/")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the filter file")
    parser.add_argument("--taught", type=int, default=TAUGHT, help="posts; 0: no language model")
    parser.add_argument("--cache", type=Path, help="a folder that keeps the model's scores")
    arguments = parser.parse_args()

    count = arguments.taught
    archive = taught(arguments.data, count, arguments.cache) if count else None
    train, targets, counts, held = pools(arguments.data, archive)
    grams = find_grams(train.arrow())
    print(f"{len(train.texts):,} texts, {len(grams.found):,} n-grams; {len(held.texts):,} held out")
    weights, bias = fit(grams, targets, counts, is_weak(train))

    steps, scale = quantize(weights)
    held_grams = find_grams(held.arrow())
    real = ~is_weak(held)
    exact = by_output(
        held.labels[real], predict(held_grams.found, held_grams.starts, weights, bias)[real]
    )
    training = {
        "normal_form": normal_form(),
        "seed": str(SEED),
        "texts": str(len(train.texts)),
        "epochs": str(EPOCHS),
        "holdout_auprc": ", ".join(f"{output} {value:.4f}" for output, value in exact.items()),
    }
    arguments.output.write_bytes(to_bytes(steps, scale, bias, training))
    loaded = Filter.load(arguments.output)
    rounded = by_output(held.labels[real], loaded.scores(normalise(held.arrow()))[real])
    cost = max(exact[output] - rounded[output] for output in exact)
    print(f"\n{arguments.output}: {arguments.output.stat().st_size:,} bytes")
    print(f"rounding to int8 costs at most {cost:.4f} of AUPRC on the holdout")
    report(loaded, arguments.data, held)


if __name__ == "__main__":
    main()
