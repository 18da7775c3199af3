"""Train the head of the default encoder on frozen sentence vectors.

    python scripts/train_head.py DATA --gguf quantized/encoder.gguf \
        -o quantized/head.safetensors --cache CACHE

DATA is the folder that training_data.py reads. Each text gives one window, at random where it has
several, so that training sees what scoring sees. The windows go through the quantized GGUF itself;
their vectors are kept in CACHE (about 70 MB), so that a second run only trains. Needs torch
(CPU). About ten minutes on two idle cores for the vectors, two for the heads and figures.

A linear head and heads with one hidden layer are trained with the masked logistic loss over
``words.OUTPUTS`` and stopped early on rows set aside; the best of them by mean AUPRC on those rows
is written. What is printed for DATA/dev, and for the rows that nobody trains on, is for reporting.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from sklearn.metrics import average_precision_score
from torch import nn

from edgemod.encoder import Encoder, Head, windows
from edgemod.llama import Llama
from edgemod.store import sha256
from edgemod.words import OUTPUTS
from training_data import TrainingData, concatenate, load_dev, load_train, load_weak_topics

Floats = NDArray[np.float32]

WINDOW: Final = 128
OVERLAP: Final = 32
SEED: Final = 1
HIDDEN: Final = (0, 256)  # units of the hidden layer to try; 0 is a linear head
STOP_SHARE: Final = 0.06  # of the training rows, set aside for early stopping
BATCH: Final = 512
PATIENCE: Final = 6
MOST_EPOCHS: Final = 60

DEV: Final = (
    ("surge_toxicity", "toxic"),
    ("toxic_chat_dev", "toxic"),
    ("olid", "toxic"),
    ("vicomtech_stormfront", "hate"),
    ("hatemoji_check", "hate"),
    ("beavertails_test_response", "any"),
    ("xstest", "illicit"),
    ("context_toxicity_dev", "toxic"),
)
"""Sets of DATA/dev and the output each is measured by."""


@dataclass(frozen=True)
class Sample:
    """Rows to train on (or to report on) and the vector of one window of each."""

    vectors: Floats
    labels: NDArray[np.int8]
    weights: Floats


def sample(data: TrainingData, rows: int, rng: np.random.Generator) -> TrainingData:
    """Draw ``rows`` of ``data`` by weight, without repeats; rare positives are always drawn."""
    counts = (data.labels == 1).sum(axis=0)
    rare = (data.labels[:, counts < rows // 20] == 1).any(axis=1)
    order = rng.exponential(size=len(data.texts)) / data.weights  # weighted, without replacement
    order[rare] = -1
    return data.take(np.sort(np.argsort(order, kind="stable")[:rows]))


def embed(gguf: Path, texts: Sequence[str], seed: int) -> Floats:
    """Return the vector of one window of each text, float32 (n, n_embd); NaN where it has none."""
    rng = np.random.default_rng(seed)
    with Llama(gguf) as llama:
        llama.open_context(n_ctx=WINDOW + 2, embeddings=True)
        ends = np.array([llama.bos, llama.sep], np.int32)
        vectors = np.full((len(texts), llama.n_embd), np.nan, np.float32)
        for i, text in enumerate(texts):
            parts = windows(llama.tokenize(text.encode()), WINDOW, OVERLAP)
            if parts:
                part = parts[rng.integers(len(parts))]
                vectors[i] = llama.embed(np.concatenate((ends[:1], part, ends[1:])))
    return vectors


def embed_cached(gguf: Path, data: TrainingData, cache: Path, processes: int) -> Floats:
    """``embed`` in slices over processes; a slice found in ``cache`` is not computed again."""
    size = 2000
    base = sha256(gguf)
    cache.mkdir(parents=True, exist_ok=True)
    files, jobs = [], []
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for start in range(0, len(data.texts), size):
            texts = data.texts[start : start + size]
            key = json.dumps([base, WINDOW, OVERLAP, SEED + start, texts])
            file = cache / f"{hashlib.sha256(key.encode()).hexdigest()}.npy"
            files.append(file)
            if not file.exists():
                jobs.append((file, pool.submit(embed, gguf, texts, SEED + start)))
        for done, (file, job) in enumerate(jobs, 1):
            np.save(file, job.result())
            print(f"\rvectors: {done} of {len(jobs)} slices", end="", flush=True)
    print()
    return np.concatenate([np.load(file) for file in files])


def network(inputs: int, hidden: int) -> nn.Sequential:
    """Build the head to train; a linear one has no hidden layer."""
    if not hidden:
        return nn.Sequential(nn.Linear(inputs, len(OUTPUTS)))
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(0.3), nn.Linear(hidden, len(OUTPUTS))
    )


def fit(train: Sample, stop: Sample, hidden: int) -> tuple[nn.Sequential, float]:
    """Train until ``stop`` stops improving; the best network and its mean AUPRC on ``stop``."""
    torch.manual_seed(SEED)
    model = network(train.vectors.shape[1], hidden)
    x, y = torch.from_numpy(train.vectors), torch.from_numpy(train.labels.astype(np.float32))
    known = (y >= 0) * torch.from_numpy(train.weights)[:, None]
    # Every output counts the same, however many labels it has.
    known = known / known.sum(0) * len(x)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3 if hidden else 1e-2)
    best, best_state, waited = -1.0, model.state_dict(), 0
    for _ in range(MOST_EPOCHS):
        model.train()
        for rows in torch.split(torch.randperm(len(x)), BATCH):
            loss = nn.functional.binary_cross_entropy_with_logits(
                model(x[rows]), y[rows].clamp(0, 1), weight=known[rows]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        model.eval()
        with torch.no_grad():
            scores = model(torch.from_numpy(stop.vectors)).numpy()
        mean = float(np.nanmean(list(auprc(scores, stop.labels).values())))
        if mean > best + 1e-4:
            best, waited = mean, 0
            best_state = {name: value.clone() for name, value in model.state_dict().items()}
        else:
            waited += 1
            if waited == PATIENCE:
                break
    model.load_state_dict(best_state)
    return model.eval(), best


def auprc(scores: Floats, labels: NDArray[np.int8]) -> dict[str, float]:
    """Area under the precision-recall curve of each output that has labels of both kinds."""
    result = {}
    for k, name in enumerate(OUTPUTS):
        known = (labels[:, k] >= 0) & np.isfinite(scores[:, k])
        truth = labels[known, k]
        if 0 < truth.sum() < len(truth):
            result[name] = float(average_precision_score(truth, scores[known, k]))
    return result


def write(
    model: nn.Sequential,
    mean: Floats,
    scale: Floats,
    base: str,
    path: Path,
    facts: dict[str, object],
) -> None:
    """Write the head as safetensors, with the standardisation of the vectors folded in.

    A linear head is written as the two layers that compute the same: x and -x, rectified.
    """
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    weights = [layer.weight.detach().numpy().astype(np.float64) for layer in layers]
    biases = [layer.bias.detach().numpy().astype(np.float64) for layer in layers]
    if len(layers) == 1:
        same = np.eye(weights[0].shape[1])
        weights = [np.concatenate((same, -same)), np.concatenate((weights[0], -weights[0]), 1)]
        biases = [np.zeros(len(weights[0])), biases[0]]
    biases[0] = biases[0] - weights[0] @ (mean / scale)
    weights[0] = weights[0] / scale
    tensors = {
        "hidden.weight": weights[0],
        "hidden.bias": biases[0],
        "output.weight": weights[1],
        "output.bias": biases[1],
    }
    facts = {
        "outputs": OUTPUTS,
        "window": WINDOW,
        "overlap": OVERLAP,
        "aggregation": "max",
        "base_sha256": base,
        "seed": SEED,
        **facts,
    }
    save_file(
        {name: np.ascontiguousarray(value, np.float32) for name, value in tensors.items()},
        path,
        # One key: safetensors writes several in any order, and equal heads shall be equal bytes.
        metadata={"head": json.dumps(facts)},
    )
    path.chmod(0o644)


def evaluate(encoder: Encoder, data: TrainingData, rows: int) -> dict[str, float]:
    """AUPRC of whole texts, scored as edgemod scores them, on up to ``rows`` of ``data``."""
    if len(data.texts) > rows:
        data = data.take(np.random.default_rng(SEED).permutation(len(data.texts))[:rows])
    return auprc(encoder.score(data.arrow()).scores, data.labels)


def main() -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--gguf", type=Path, default=Path("quantized/encoder.gguf"))
    parser.add_argument("-o", "--output", type=Path, default=Path("quantized/head.safetensors"))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--weak-rows", type=int, default=4_000)
    parser.add_argument("--dev-rows", type=int, default=1_000, help="most rows of a dev set")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    rng = np.random.default_rng(SEED)
    labelled, weak = load_train(options.data), load_weak_topics(options.data)
    held = labelled.take(labelled.holdout)
    parts = [
        sample(labelled.take(~labelled.holdout), options.rows, rng),
        sample(weak.take(~weak.holdout), options.weak_rows, rng),
    ]
    data = concatenate(parts)
    vectors = embed_cached(options.gguf, data, options.cache, options.processes)
    usable = np.isfinite(vectors[:, 0])
    mean, scale = vectors[usable].mean(axis=0), vectors[usable].std(axis=0)
    scale[scale < 1e-6] = 1  # dimensions that the network does not use
    stop = usable & (rng.random(len(vectors)) < STOP_SHARE)
    # The draw already followed the weights; they must not count twice.
    weights = np.concatenate(
        [np.ones(len(parts[0].texts), np.float32), np.full(len(parts[1].texts), 0.3, np.float32)]
    )
    standard = (vectors - mean) / scale
    train, check = (
        Sample(standard[rows], data.labels[rows], weights[rows]) for rows in (usable & ~stop, stop)
    )
    fitted = {hidden: fit(train, check, hidden) for hidden in HIDDEN}
    for hidden, (_, score) in fitted.items():
        print(f"{hidden or 'no'} hidden units: mean AUPRC {score:.4f} on rows set aside")
    chosen = max(fitted, key=lambda hidden: fitted[hidden][1])
    base = sha256(options.gguf)
    facts: dict[str, object] = {"rows": len(train.vectors), "hidden": chosen}
    write(fitted[chosen][0], mean, scale, base, options.output, facts)

    head = Head.load(options.output)
    encoder = Encoder(Llama(options.gguf), head, name="trained", fingerprint=base)
    print("AUPRC on rows that nobody trains on:")
    for name, value in evaluate(encoder, held, 4 * options.dev_rows).items():
        print(f"  {name:16s} {value:.3f}")
    print("AUPRC on dev sets, for reporting only:")
    dev = load_dev(options.data)
    for name, output in DEV:
        share = float((dev[name].labels[:, OUTPUTS.index(output)] == 1).mean())
        value = evaluate(encoder, dev[name], options.dev_rows).get(output, float("nan"))
        print(f"  {name:28s} {output:8s} {value:.3f}  ({share:.0%} positive)")
    encoder.close()


if __name__ == "__main__":
    main()
