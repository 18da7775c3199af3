"""What other people's classifiers say of a text: they know corpora that are not in the data.

==================== ================================================= =======================
package              what it is                                        what it was trained on
==================== ================================================= =======================
alt-profanity-check  linear, words; MIT                                Wikipedia talk, tweets
tox-block            recurrent network on GloVe vectors; MIT           223,549 Wikipedia comments
==================== ================================================= =======================

Both come from PyPI and run offline. tox-block asks for TensorFlow, which its weights do not need:
``pip install --no-deps tox-block==0.1.2``. Its network is computed here from the weights, and its
dictionary, a pickle, is read without letting it import or run anything.
"""

from __future__ import annotations

import collections
import importlib.util
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from profanity_check import predict_prob

PROFANITY: Final = "profanity"
"""alt-profanity-check's one answer."""
TOX_BLOCK: Final = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
"""tox-block's answers, in the order of its output."""
OPINIONS: Final = (PROFANITY, "toxic", "obscene", "threat", "insult", "identity_hate")
"""Columns of ``opinions``. What is severely toxic is rare, and toxic."""

# Keras' Tokenizer drops these; tox-block's dictionary was made with its defaults.
_SPLIT: Final = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', " "))
_WORDS: Final = 20_000
_LENGTH: Final = 100  # words it reads at a time; shorter ones are filled up in front with word 0
_PARTS: Final = 4  # of a longer text, which takes the greatest of its parts' answers
_BATCH: Final = 2_048

Floats = NDArray[np.float32]


def opinions(texts: Sequence[str]) -> Floats:
    """Probabilities of each of ``OPINIONS``, float32 (n, 6). A minute for 100,000 texts."""
    block = ToxBlock.load().probabilities(texts)
    kept = [TOX_BLOCK.index(name) for name in OPINIONS[1:]]
    profane = np.asarray(predict_prob(list(texts)), np.float32)
    return np.column_stack((profane, block[:, kept])).astype(np.float32)


class _Restricted(pickle.Unpickler):
    """Reads the dictionary: containers and bare attributes, nothing that runs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("collections", "OrderedDict"), ("collections", "defaultdict")}:
            return getattr(collections, name)
        if (module, name) == ("builtins", "int"):
            return int
        return type(name, (), {})  # the tokenizer's own classes: their state is all that is read


class ToxBlock:
    """tox-block 0.1.2: embedding, bidirectional LSTM, maximum over words, two dense layers."""

    def __init__(self, words: dict[str, int], weights: dict[str, torch.Tensor]) -> None:
        self.words, self.weights = words, weights

    @classmethod
    def load(cls) -> ToxBlock:
        """Read it from the installed package, without importing that."""
        spec = importlib.util.find_spec("tox_block")
        if spec is None or spec.origin is None:
            raise SystemExit("install the teacher first: pip install --no-deps tox-block==0.1.2")
        folder = Path(spec.origin).parent / "trained_models"
        with (folder / "encoder_0.1.2.pkl").open("rb") as file:
            ranks = _Restricted(file).load().tokenizer.word_index
        weights: dict[str, torch.Tensor] = {}

        def take(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                parts = name.split("/")[1:]  # layer, (layer again), part
                key = ".".join(dict.fromkeys(parts)).split(":")[0]
                weights[key] = torch.from_numpy(np.asarray(item, np.float32))

        with h5py.File(folder / "lstm_model_0.1.2.h5") as file:
            file["model_weights"].visititems(take)
        return cls({word: rank for word, rank in ranks.items() if rank < _WORDS}, weights)

    def probabilities(self, texts: Sequence[str]) -> Floats:
        """Probabilities (n, 6) of ``TOX_BLOCK``; 0 for a text of which it knows no word."""
        parts, owner = [], []
        for row, text in enumerate(texts):
            words = text.lower().translate(_SPLIT).split(" ")
            ranks = [self.words[word] for word in words if word in self.words]
            starts = range(0, len(ranks), _LENGTH)
            for start in starts[:_PARTS]:
                parts.append(ranks[start : start + _LENGTH])
                owner.append(row)
        answers = np.zeros((len(texts), len(TOX_BLOCK)), np.float32)
        order = np.argsort([len(part) for part in parts], kind="stable")
        for at in range(0, len(order), _BATCH):
            some = order[at : at + _BATCH]
            ids = np.zeros((len(some), _LENGTH), np.int64)
            for k, index in enumerate(some):
                ids[k, _LENGTH - len(parts[index]) :] = parts[index]
            with torch.inference_mode():
                found = self._forward(torch.from_numpy(ids)).numpy()
            np.maximum.at(answers, np.array(owner)[some], found)
        return answers

    def _forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Keras 2: gates in the order input, forget, cell, output; hard sigmoid 0.2 x + 0.5."""
        w = self.weights
        x = w["embedding.embeddings"][ids]
        greatest = []
        for direction in ("forward", "backward"):
            name = f"bidirectional.{direction}_lstm"
            kernel, recurrent = w[f"{name}.kernel"], w[f"{name}.recurrent_kernel"]
            size = recurrent.shape[0]
            state = cell = torch.zeros(len(ids), size)
            most = torch.full((len(ids), size), -torch.inf)
            steps = range(ids.shape[1])
            for step in steps if direction == "forward" else reversed(steps):
                gates = torch.addmm(w[f"{name}.bias"], x[:, step], kernel) + state @ recurrent
                i, f, c, o = gates.split(size, 1)
                i, f, o = ((0.2 * gate + 0.5).clamp(0, 1) for gate in (i, f, o))
                cell = f * cell + i * c.tanh()
                state = o * cell.tanh()
                most = torch.maximum(most, state)
            greatest.append(most)
        hidden = torch.addmm(w["dense.bias"], torch.cat(greatest, 1), w["dense.kernel"]).relu()
        return torch.addmm(w["dense_1.bias"], hidden, w["dense_1.kernel"]).sigmoid()
