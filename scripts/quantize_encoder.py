"""Round the encoder to four bits so that its vectors stay where they were.

    python scripts/quantize_encoder.py DATA BUILD -o quantized/encoder.gguf

DATA is the folder that training_data.py reads, BUILD what train_encoder.py wrote. llama.cpp
multiplies Q4_0 matrices nearly twice as fast as Q8_0 ones, but its own rounding, each number to
its nearest, moves the scores. Here the error of a rounded column is made good by the columns that
are not rounded yet, as far as the inputs that a matrix sees on training texts allow (Frantar et
al. 2023, "GPTQ"). Token embeddings are rounded to Q8_0.

Needs the extra ``train``; three minutes on two idle cores. The same command gives the same file
on the same machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn
from transformers import BertModel

from edgemod.encoder import reading, windows
from make_encoder import Packed, convert, report
from training_data import load_train, load_written, posts

BLOCK: Final = 32
"""Numbers that share a scale in Q4_0 (ggml-common.h)."""
LOW, HIGH = -8, 7
"""The steps of its grid."""
DAMPING: Final = 0.01
"""Added to the diagonal of the second moments, as a share of its mean (Frantar et al. 2023)."""
SHRINK: Final = tuple(np.linspace(0.6, 1.1, 41).tolist())
"""Scales that are tried, as shares of the one that just holds a block's greatest number."""

TEXTS: Final = 4_000
TOKENS: Final = 4_096
"""Of a batch, padding counted."""
SEED: Final = 7

Rounded = dict[str, torch.Tensor]
"""Name of a matrix to the scales of its blocks (rows, columns / 32)."""

Batch = tuple[torch.Tensor, torch.Tensor]
"""Token ids (windows, longest), and where they are tokens and no padding."""


# -- texts -------------------------------------------------------------------------------------


def one_window_each(data: Path, build: Path, config: dict[str, Any]) -> list[NDArray[np.int64]]:
    """Tokens of ``TEXTS`` texts, a window of each: labelled, written and archive ones."""
    rng = np.random.default_rng(SEED)
    labelled = load_train(data)
    labelled = labelled.take(~labelled.holdout)
    written = load_written()
    written = written.take(~written.holdout)
    archive = posts(pq.read_table(data / "archive" / "reddit_top_200k.parquet"))
    chance = labelled.weights.astype(np.float64)
    rows = rng.choice(len(chance), TEXTS * 6 // 10, p=chance / chance.sum())
    texts = [labelled.texts[i] for i in rows]
    for some in (written.texts, archive):
        texts += [some[i] for i in rng.choice(len(some), TEXTS * 2 // 10)]
    tokenizer = Tokenizer.from_file(str(build / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    first, last = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    found = []
    for one in tokenizer.encode_batch(
        reading(pa.array(texts, pa.large_string())), add_special_tokens=False
    ):
        if one.ids:
            cut = windows(np.array(one.ids, np.int32), config["window"], config["overlap"])
            found.append(np.array([first, *cut[rng.integers(len(cut))], last], np.int64))
    return sorted(found, key=len)


def batches(cut: list[NDArray[np.int64]]) -> Iterator[Batch]:
    """Windows, shortest first, by as many as make ``TOKENS``."""
    while cut:
        group = cut[-max(1, TOKENS // len(cut[-1])) :]
        cut = cut[: -len(group)]
        ids = np.zeros((len(group), len(group[-1])), np.int64)
        for row, window in zip(ids, group, strict=True):
            row[: len(window)] = window
        tensor = torch.from_numpy(ids)
        yield tensor, tensor != 0


# -- rounding ----------------------------------------------------------------------------------


def scales(block: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The scale of each row of ``block`` (rows, 32) that costs least: (rows,), of half precision.

    ``weight`` (32,): what an error in each column costs.
    """
    greatest = block.gather(1, block.abs().argmax(1)[:, None])
    tried = torch.tensor([share / end for share in SHRINK for end in (LOW, HIGH + 1)])
    steps = (greatest * tried).half().float()  # (rows, tried)
    steps[steps == 0] = 2.0**-24  # the least of half precision: an empty block stays empty
    grid = (block[:, None] / steps[..., None]).round().clamp(LOW, HIGH) * steps[..., None]
    cost = ((grid - block[:, None]).square() * weight).sum(-1)
    return steps.gather(1, cost.argmin(1)[:, None])[:, 0]


def rounded(matrix: torch.Tensor, moments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round ``matrix`` (rows, columns) for inputs of these second moments (columns, columns).

    Returns the matrix on its grid and the scales (rows, columns / 32). Algorithm 1 of Frantar et
    al. 2023, with a block's scales chosen once the columns before it are rounded.
    """
    left, moments = matrix.double(), moments.double()
    size = left.shape[1]
    moments = moments + DAMPING * moments.diagonal().mean() * torch.eye(size)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    upper = torch.linalg.cholesky(inverse, upper=True)
    result, found = torch.zeros_like(left), []
    for start in range(0, size, BLOCK):
        end = start + BLOCK
        block, errors = left[:, start:end].clone(), torch.zeros(len(left), BLOCK).double()
        cost = upper.diagonal()[start:end] ** -2
        scale = scales(block.float(), cost.float()).double()
        for j in range(BLOCK):
            column = block[:, j]
            result[:, start + j] = (column / scale).round().clamp(LOW, HIGH) * scale
            errors[:, j] = (column - result[:, start + j]) / upper[start + j, start + j]
            block[:, j:] -= errors[:, j, None] * upper[start + j, start + j : end]
        left[:, end:] -= errors @ upper[start:end, end:]
        found.append(scale.float())
    return result.float(), torch.stack(found, 1)


@torch.no_grad()
def round_network(network: BertModel, texts: list[Batch]) -> Rounded:
    """Round the matrices of all layers, in the order in which texts pass them."""
    network.eval()
    states = [network.embeddings(input_ids=ids) for ids, _ in texts]
    covers = [(1 - mask[:, None, None, :].float()) * torch.finfo().min for _, mask in texts]
    found: Rounded = {}
    for depth, layer in enumerate(network.encoder.layer):
        name, own = f"encoder.layer.{depth}", layer.attention
        same_inputs: list[dict[str, nn.Linear]] = [
            {
                f"attention.self.{part}": getattr(own.self, part)
                for part in ("query", "key", "value")
            },
            {"attention.output.dense": own.output.dense},
            {"intermediate.dense": layer.intermediate.dense},
            {"output.dense": layer.output.dense},
        ]
        for group in same_inputs:
            moments = _moments(layer, next(iter(group.values())), states, covers, texts)
            for part, linear in group.items():
                linear.weight.data, found[f"{name}.{part}.weight"] = rounded(
                    linear.weight.data, moments
                )
        states = [_through(layer, *both) for both in zip(states, covers, strict=True)]
    return found


def _moments(
    layer: nn.Module,
    linear: nn.Linear,
    states: list[torch.Tensor],
    covers: list[torch.Tensor],
    texts: list[Batch],
) -> torch.Tensor:
    """Sum of x xᵀ over what ``linear`` is given of every token, (in, in)."""
    total = torch.zeros(linear.in_features, linear.in_features)
    given: list[torch.Tensor] = []
    hook = linear.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    for state, cover, (_, mask) in zip(states, covers, texts, strict=True):
        _through(layer, state, cover)
        inputs = given.pop()[mask]
        total += inputs.T @ inputs
    hook.remove()
    return total


def _through(layer: nn.Module, state: torch.Tensor, cover: torch.Tensor) -> torch.Tensor:
    result = layer(state, cover)
    return result[0] if isinstance(result, tuple) else result


# -- the file ----------------------------------------------------------------------------------


def packed(matrix: NDArray[np.float32], scale: NDArray[np.float32]) -> Packed:
    """``matrix`` (rows, columns), which lies on the grid of ``scale``, as Q4_0 blocks.

    A block is its scale in half precision and 16 bytes, of which the low halves are the first 16
    numbers (``block_q4_0`` in ggml-common.h). Raises ``ValueError`` if a number is off the grid.
    """
    blocks = matrix.reshape(len(matrix), -1, BLOCK)
    steps = np.rint(blocks / scale[..., None])
    if steps.min() < LOW or steps.max() > HIGH or not np.allclose(steps * scale[..., None], blocks):
        raise ValueError("the matrix does not lie on the grid of these scales")
    nibbles = (steps - LOW).astype(np.uint8)
    bytes_ = nibbles[..., : BLOCK // 2] | nibbles[..., BLOCK // 2 :] << 4
    half = scale.astype(np.float16)[..., None].view(np.uint8)
    data = np.concatenate((half, bytes_), axis=-1).reshape(len(matrix), -1)
    return data, GGMLQuantizationType.Q4_0


def write(network: BertModel, found: Rounded, build: Path, target: Path) -> None:
    """Write the GGUF."""
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    ready = {name: packed(state[name], scale.numpy()) for name, scale in found.items()}
    words = "embeddings.word_embeddings.weight"
    kind = GGMLQuantizationType.Q8_0
    ready[words] = (quants.quantize(state[words], kind), kind)
    convert(build, target, tensors=state, packed=ready)


def main() -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("build", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the GGUF to write")
    options = parser.parse_args()
    config = json.loads((options.build / "config.edgemod.json").read_text())
    network = BertModel.from_pretrained(options.build, add_pooling_layer=False)
    texts = list(batches(one_window_each(options.data, options.build, config)))
    found = round_network(network, texts)
    write(network, found, options.build, options.output)
    report(options.build, options.output)


if __name__ == "__main__":
    main()
