"""The default language model: a sentence encoder in llama.cpp with a trained head on top.

A text is read in its normal form (kernels/normalise.py), so that a disguise changes nothing, and
with its emoji in words. It is cut into overlapping pieces, about a window of tokens each, so that
no part of it is left out; pieces that the filter clears by themselves may go unread. Each window
goes through the network alone, between [CLS] and [SEP], in a call of its own: scores depend on
nothing but the text, and for an encoder a batch of many texts would not be faster anyway. The mean
vector of a window passes the head (two layers, in float32); a text has the greatest of its windows'
scores, output by output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from edgemod import emoji, store
from edgemod.errors import ModelError
from edgemod.features import buffers
from edgemod.kernels import normalise
from edgemod.llama import Llama, Tokens
from edgemod.model import Cleared, ModelScores
from edgemod.words import OUTPUTS

Floats = NDArray[np.float32]

PARITY: Final = 0.0
"""Most that a score may differ between a text alone and among neighbours, in log-odds."""

PIECE: Final = 480
"""Bytes of a piece at most: 128 tokens of English are about 550, and most pieces are one window."""
SHARED: Final = 96
"""Bytes, about, that a piece shares with the one before."""

_KEPT: Final = 1 << 14
"""Windows whose scores are kept, some 12 MB: texts share windows (forwarded mail, pasted spam), and
the stages of an evaluation ask for the same text."""

_PARITY_TEXTS: Final = (
    "Thank you, the parcel arrived today.",
    "nobody wants you here, get lost",
    "The recipe says two cups of flour, but three work better in this oven. " * 20,
    "ok",
)


@dataclass(frozen=True)
class Head:
    """A layer of rectified units and a linear one: ``output @ relu(hidden @ x + b) + c``.

    ``window`` content tokens a window at most, ``overlap`` of them shared with the one before.
    """

    hidden: Floats
    """(h, n_embd)"""
    hidden_bias: Floats
    """(h,)"""
    output: Floats
    """(10, h), rows ``words.OUTPUTS``"""
    output_bias: Floats
    """(10,)"""
    window: int
    overlap: int
    base: str
    """SHA-256 (hex) of the GGUF it was trained on."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a head that ``scripts/train_encoder.py`` wrote.

        Raises ``ModelError`` where it is damaged or made for other outputs.
        """
        try:
            with safe_open(path, "numpy") as file:
                facts = json.loads((file.metadata() or {})["head"])
                tensors = [
                    file.get_tensor(name).astype(np.float32)
                    for name in ("hidden.weight", "hidden.bias", "output.weight", "output.bias")
                ]
            window, overlap = int(facts["window"]), int(facts["overlap"])
            known = facts["aggregation"] == "max" and tuple(facts["outputs"]) == OUTPUTS
            base = facts["base_sha256"]
        except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
            raise ModelError(f"the head cannot be read: {error}", where=str(path)) from error
        units = len(tensors[1])
        shapes = [tensor.shape for tensor in tensors]
        expected = [(units, shapes[0][-1]), (units,), (len(OUTPUTS), units), (len(OUTPUTS),)]
        if not known or shapes != expected or not 0 <= overlap < window:
            raise ModelError(
                "the head is not one this version of edgemod can use",
                where=str(path),
                fix="train it again with scripts/train_encoder.py",
            )
        hidden, hidden_bias, output, output_bias = tensors
        return cls(hidden, hidden_bias, output, output_bias, window, overlap, base)

    def __call__(self, vector: Floats) -> Floats:
        """Return the log-odds (10,) of one mean vector (n_embd,)."""
        # einsum, not BLAS: its sums do not depend on the number of threads or rows.
        units = np.einsum("hx,x->h", self.hidden, vector) + self.hidden_bias
        scores: Floats = np.einsum("kh,h->k", self.output, np.maximum(units, 0)) + self.output_bias
        return scores


def fingerprint(entry: store.ModelEntry) -> str:
    """SHA-256 (hex) of everything that the scores of an encoder depend on."""
    parts = (entry.sha256, entry.head_sha256, f"pieces {PIECE} {SHARED}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def windows(tokens: Tokens, size: int, overlap: int) -> list[Tokens]:
    """Cut ``tokens`` (n,) into windows of at most ``size``, each sharing ``overlap`` with the last.

    Every token is in some window; no tokens give no windows.
    """
    last = max(len(tokens) - overlap, 1) if len(tokens) else 0
    return [tokens[start : start + size] for start in range(0, last, size - overlap)]


def pieces(form: bytes) -> list[bytes]:
    """Cut a normal form into pieces of at most ``PIECE`` bytes, at spaces where there are any.

    Each shares about ``SHARED`` bytes with the one before; every byte is in some piece.
    """
    cut, start = [], 0
    while len(form) - start > PIECE:
        end = form.rfind(b" ", start + PIECE // 2, start + PIECE)
        end = end if end > 0 else _boundary(form, start + PIECE)
        cut.append(form[start:end])
        space = form.find(b" ", end - SHARED, end)
        start = space + 1 if space > 0 else _boundary(form, end - SHARED)
    return [*cut, form[start:]]


def _boundary(form: bytes, at: int) -> int:
    """The start of the character at ``at``."""
    while form[at] & 0xC0 == 0x80:
        at -= 1
    return at


def normal_forms(texts: pa.LargeStringArray) -> list[bytes]:
    """The normal form of each text, none of them null, as UTF-8."""
    (data, offsets), _ = normalise.normalise(*buffers(texts))
    return [data[low:high].tobytes() for low, high in pairwise(offsets.tolist())]


def reading(texts: pa.LargeStringArray) -> list[str]:
    """What the encoder reads of each text, none of them null."""
    return [emoji.in_words(form.decode()) for form in normal_forms(texts)]


class Encoder:
    """A GGUF sentence encoder and its head as a ``Model``."""

    kind: Literal["encoder"] = "encoder"
    answers: Sequence[str] = OUTPUTS

    def __init__(
        self, llama: Llama, head: Head, *, name: str, fingerprint: str, threads: int = 1
    ) -> None:
        """Take over ``llama`` (no context needs to be open). Raises ``ModelError`` on a misfit."""
        if llama.bos < 0 or llama.sep < 0 or llama.n_embd != head.hidden.shape[1]:
            raise ModelError("this is not an encoder its head fits", where=str(llama.path))
        if head.window + 2 > llama.n_ctx_train:
            raise ModelError(
                f"windows of {head.window} tokens are longer than the model", where=str(llama.path)
            )
        self.name, self.fingerprint, self.head = name, fingerprint, head
        self._seen: dict[bytes, Floats] = {}
        self._llama = llama
        llama.open_context(n_ctx=head.window + 2, embeddings=True, threads=threads)
        self._ends = np.array([llama.bos, llama.sep], np.int32)

    @classmethod
    def open(cls, entry: store.ModelEntry, *, threads: int = 1) -> Self:
        """Load the files of a registry entry, whose SHA-256 the caller has checked."""
        if entry.head is None:
            raise ModelError("an encoder needs a head", where=entry.name)
        head = Head.load(entry.head)
        if head.base != entry.sha256:
            raise ModelError(
                "the head was trained on another GGUF",
                where=str(entry.head),
                fix="train it again with scripts/train_encoder.py",
            )
        llama = Llama(entry.path)
        return cls(llama, head, name=entry.name, fingerprint=fingerprint(entry), threads=threads)

    def score(
        self,
        texts: pa.LargeStringArray,
        contexts: pa.LargeStringArray | None = None,
        cleared: Cleared | None = None,
    ) -> ModelScores:
        """Score non-null ``texts``; contexts are not read. A failing text is a row of NaN."""
        n = len(texts)
        result = ModelScores(
            scores=np.full((n, len(OUTPUTS)), np.nan, np.float32),
            windows=np.zeros(n, np.int32),
            tokens=np.zeros(n, np.int64),
        )
        parts = [pieces(form) for form in normal_forms(texts)]
        for i, some in enumerate(_left(parts, cleared) if cleared else parts):
            try:
                read = [window for piece in some for window in self._windows(piece)]
                result.tokens[i], result.windows[i] = sum(map(len, read)), len(read)
                if read:
                    result.scores[i] = np.max([self._window(window) for window in read], axis=0)
            except ModelError:
                continue  # its row stays NaN, which sends it to a person
        return result

    def by_window(self, text: str, cleared: Cleared | None = None) -> Floats:
        """Log-odds of every window that ``score`` reads of one text, (windows, 10).

        Raises ``ModelError`` where llama.cpp fails.
        """
        parts = [pieces(form) for form in normal_forms(pa.array([text], pa.large_string()))]
        (read,) = _left(parts, cleared) if cleared else parts
        found = [self._window(w) for piece in read for w in self._windows(piece)]
        return np.stack(found) if found else np.zeros((0, len(OUTPUTS)), np.float32)

    def vectors(self, text: str) -> Floats:
        """Mean vectors of every window of one text, (windows, n_embd).

        Raises ``ModelError`` where llama.cpp fails.
        """
        (parts,) = map(pieces, normal_forms(pa.array([text], pa.large_string())))
        found = [self.vector(window) for piece in parts for window in self._windows(piece)]
        return np.stack(found) if found else np.zeros((0, self.head.hidden.shape[1]), np.float32)

    def vector(self, window: Tokens) -> Floats:
        """Return the mean vector (n_embd,) of one window of content tokens.

        Raises ``ModelError`` where llama.cpp fails.
        """
        return self._llama.embed(np.concatenate((self._ends[:1], window, self._ends[1:])))

    @property
    def calls(self) -> int:
        """Calls of the network that have returned."""
        return self._llama.calls

    def self_test(self) -> float:
        """Return the most a score moves between a text alone and among neighbours, in log-odds.

        Raises ``ModelError`` above ``PARITY``.
        """
        texts = pa.array(_PARITY_TEXTS, pa.large_string())
        self._seen.clear()
        together, alone = self.score(texts).scores, []
        for i in range(len(texts)):
            self._seen.clear()
            alone.append(self.score(texts[i : i + 1]).scores)
        moved = float(np.abs(together - np.concatenate(alone)).max())
        if not moved <= PARITY:
            raise ModelError(f"scores move by {moved} among neighbours", where=self.name)
        return moved

    def close(self) -> None:
        """Free the model."""
        self._seen.clear()
        self._llama.close()

    def _windows(self, piece: bytes) -> list[Tokens]:
        tokens = self._llama.tokenize(emoji.in_words(piece.decode()).encode())
        return windows(tokens, self.head.window, self.head.overlap)

    def _window(self, window: Tokens) -> Floats:
        key = window.tobytes()
        if key not in self._seen:
            if len(self._seen) >= _KEPT:
                self._seen.clear()
            self._seen[key] = self.head(self.vector(window))
        return self._seen[key]


def _left(parts: list[list[bytes]], cleared: Cleared) -> list[list[bytes]]:
    """The pieces of each text that are to be read."""
    asked = [piece for some in parts if len(some) > 1 for piece in some]
    if not asked:
        return parts
    offsets = np.cumsum([0, *map(len, asked)], dtype=np.int64)
    data = np.frombuffer(bytearray(b"".join(asked)), np.uint8)  # writable, as the kernels know it
    answers = iter(cleared((data, offsets)))
    left = [[piece for piece in some if len(some) == 1 or not next(answers)] for some in parts]
    return [few or some for few, some in zip(left, parts, strict=True)]
