"""A guard: an instruction model that is asked about the policy and answers in one token.

The prompt's beginning, which holds the policy, goes through the network once and stays in its
cache. Each record continues a copy of it (copies share memory), and each question continues the
record. Many records share a call, which reads the weights once for all of them. No answer is
generated: a score is the log-odds of the answers the prompt allows,
logsumexp(logits of violation) - logsumexp(logits of none).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from edgemod import prompts, store
from edgemod.encoder import windows
from edgemod.errors import ModelError
from edgemod.llama import Llama, Tokens
from edgemod.model import Cleared, ModelScores
from edgemod.policy import Policy
from edgemod.prompts import Questions, Template
from edgemod.words import ANY, OUTPUTS

Floats = NDArray[np.float32]

PARITY: Final = 1e-3
"""Most that a score may differ between a text alone and among neighbours, in log-odds. It was 0
for every kind of weights tried (see ``Llama.open_context``); the rest is for other processors."""

WINDOW: Final = 448
"""Tokens of text a window at most; a longer text is scored in several."""
OVERLAP: Final = 64
"""Tokens that a window shares with the one before."""
CONTEXT: Final = 128
"""Tokens of the previous message that are shown, its last ones."""
BATCH: Final = 1024
"""Tokens a call, the questions included, unless a single record needs more."""
SEQUENCES: Final = 64
"""Sequences a context, the shared beginning included, unless a single record needs more."""

_ANY: Final = OUTPUTS.index(ANY)
_PARITY_TEXTS: Final = (
    "Thank you, the parcel arrived today.",
    "nobody wants you here, get lost",
    "ok",
    "Send me the money now or I will publish the photos.",
    "The recipe says two cups of flour, but three work better in this oven.",
)


@dataclass(frozen=True)
class _Body:
    """One window of one record: what goes between the prompt's beginning and a question."""

    record: int
    tokens: Tokens


def check_guard(llama: Llama) -> None:
    """Raise ``ModelError`` where a model cannot be a guard: an encoder answers no questions."""
    if llama.is_encoder():
        raise ModelError(
            "this is an encoder, which answers no questions",
            where=str(llama.path),
            fix="add an instruction-tuned model (GGUF) in its place; the only encoder that edgemod "
            "uses is the shipped one, which has a trained head",
        )


class Guard:
    """An instruction GGUF with the policy in its prompt as a ``Model``."""

    kind: Literal["guard"] = "guard"

    def __init__(
        self, llama: Llama, template: Template, *, name: str, fingerprint: str, threads: int = 1
    ) -> None:
        """Take over ``llama`` (no context needs to be open) and read the prompt's beginning.

        ``fingerprint`` is that of its files. Raises ``ModelError`` where the prompt does not fit
        the model's vocabulary or length.
        """
        self.name, self.template, self._llama = name, template, llama
        self._check_vocabulary()
        start = self._start()
        self._suffixes = [self._own(question.suffix) for question in template.questions]
        self._outputs = [OUTPUTS.index(question.output) for question in template.questions]
        self.answers: Sequence[str] = [OUTPUTS[k] for k in sorted({*self._outputs, _ANY})]
        self._header, self._footer = self._text(template.header), self._text(template.footer)
        self._answers = np.array(
            [self._first(answer) for answer in (*template.positive, *template.negative)], np.int32
        )
        if len(set(self._answers.tolist())) < len(self._answers):
            raise ModelError(
                "the answers of the prompt start with the same token in this model's vocabulary",
                where=name,
                fix="choose another prompt template",
            )
        self._start_length = len(start)
        self._window = self._fit(WINDOW)
        cuts = (self._window, OVERLAP, CONTEXT)
        canonical = json.dumps([fingerprint, asdict(template), cuts], sort_keys=True)
        self.fingerprint = hashlib.sha256(canonical.encode()).hexdigest()
        longest = CONTEXT + len(self._header) + self._window + len(self._footer)
        asked = len(self._suffixes)
        self._batch = max(BATCH, longest + sum(map(len, self._suffixes)))
        self._records = max(1, (SEQUENCES - 1) // asked)
        llama.open_context(
            n_ctx=len(start) + self._batch,
            n_batch=self._batch,
            n_seq=1 + self._records * asked,
            n_outputs=self._records * asked,
            threads=threads,
        )
        for at in range(0, len(start), self._batch):
            self._decode([(0, at, start[at : at + self._batch])], wanted=False)

    @classmethod
    def open(
        cls,
        entry: store.ModelEntry,
        *,
        policy: Policy,
        threads: int = 1,
        questions: Questions = "any",
    ) -> Self:
        """Load the file of a registry entry, whose SHA-256 the caller has checked.

        ``questions``: "any" gives one output a text; "each" gives every category of the policy,
        and costs a question more for each. Raises ``ModelError`` where the model is an encoder, or
        no prompt fits it.
        """
        llama = Llama(entry.path)
        try:
            check_guard(llama)
            if entry.adapter:
                llama.adapt(entry.adapter)
            chat_template = llama.metadata("tokenizer.chat_template") or ""
            name = entry.template or prompts.recognise(chat_template)
            template = prompts.build(name, chat_template, policy.categories, questions)
            fingerprint = " ".join(sha for _, sha in entry.files)
            return cls(llama, template, name=entry.name, fingerprint=fingerprint, threads=threads)
        except ModelError as error:
            llama.close()
            is_adapter = entry.adapter and error.where == str(entry.adapter)
            where = str(entry.adapter if is_adapter else entry.path)
            raise ModelError(error.what, where=where, fix=error.fix) from None

    def score(
        self,
        texts: pa.LargeStringArray,
        contexts: pa.LargeStringArray | None = None,
        cleared: Cleared | None = None,
    ) -> ModelScores:
        """Score non-null ``texts``; ``contexts`` (nulls allowed) are the messages before them.

        A guard reads all of a text, whatever ``cleared`` says: it judges it as a whole.

        A text has the greatest of its windows' scores. Outputs that are not asked for are NaN;
        an empty text, and one that llama.cpp cannot score, is a row of NaN.
        """
        n = len(texts)
        before = [None] * n if contexts is None else contexts.to_pylist()
        counts, tokens = np.zeros(n, np.int32), np.zeros(n, np.int64)
        bodies: list[_Body] = []
        for i, text in enumerate(texts.to_pylist()):
            if text and not text.isspace():
                parts, tokens[i] = self._bodies(text, before[i])
                counts[i] = len(parts)
                bodies += [_Body(i, part) for part in parts]
        asked = np.full((n, len(self._outputs)), -np.inf, np.float32)
        for batch in self._batches(bodies):
            for body, answer in zip(batch, self._answer(batch), strict=True):
                asked[body.record] = np.maximum(asked[body.record], answer)  # keeps NaN
        scores = np.full((n, len(OUTPUTS)), np.nan, np.float32)
        scores[:, self._outputs] = asked
        scores[:, _ANY] = asked.max(axis=1)
        scores[counts == 0] = np.nan
        return ModelScores(scores, counts, tokens)

    @property
    def calls(self) -> int:
        """Calls of the network that have returned."""
        return self._llama.calls

    def self_test(self) -> float:
        """Return the most a score moves between a text alone and among neighbours, in log-odds.

        Raises ``ModelError`` above ``PARITY``.
        """
        texts = pa.array(_PARITY_TEXTS, pa.large_string())
        together = self.score(texts).scores
        alone = np.concatenate([self.score(texts[i : i + 1]).scores for i in range(len(texts))])
        moved = float(np.abs(together - alone)[:, [*self._outputs, _ANY]].max())
        if not moved <= PARITY:
            raise ModelError(f"scores move by {moved} among neighbours", where=self.name)
        return moved

    def close(self) -> None:
        """Free the model."""
        self._llama.close()

    # --- tokens ---------------------------------------------------------------------------------

    def _own(self, text: str) -> Tokens:
        return self._llama.tokenize(text.encode(), special=True)

    def _text(self, text: str) -> Tokens:
        return self._llama.tokenize(text.encode())

    def _first(self, answer: str) -> int:
        return int(self._text(answer)[0])

    def _start(self) -> Tokens:
        """Return the prompt's beginning, after the start token where the vocabulary wants one."""
        first = self._llama.tokenize(b"", add_special=True)[:1]
        return np.concatenate((first[first == self._llama.bos], self._own(self.template.prefix)))

    def _check_vocabulary(self) -> None:
        for control in self.template.controls:
            if len(self._own(control)) != 1:
                raise ModelError(
                    f"the prompt needs the control token {control}, which this model lacks",
                    where=self.name,
                    fix="choose another prompt template",
                )

    def _fit(self, window: int) -> int:
        """Return the largest window of text, up to ``window``, that the model's length leaves."""
        around = self._start_length + CONTEXT + len(self._header) + len(self._footer)
        longest = around + max(map(len, self._suffixes))
        room = self._llama.n_ctx_train - longest
        if room < 2 * OVERLAP:
            raise ModelError(
                f"the policy's prompt takes {longest} of the {self._llama.n_ctx_train} tokens that "
                "this model reads, which leaves no room for a text",
                where=self.name,
                fix="shorten the policy's definitions or choose another model",
            )
        return min(window, room)

    def _bodies(self, text: str, before: str | None) -> tuple[list[Tokens], int]:
        """Return the windows of a text with their surroundings, and the tokens of the text.

        Text and surroundings are tokenised as one, as the model saw them in training.
        """
        shown = self.template.contained(text)
        whole = self._text(self.template.header + shown + self.template.footer)
        frame = len(self._header) + len(self._footer)
        if len(whole) <= frame + self._window:
            parts = [whole]
        else:
            parts = [
                np.concatenate((self._header, part, self._footer))
                for part in windows(self._text(shown), self._window, OVERLAP)
            ]
        if before and self.template.context is not None:
            opening, closing = (self._text(side) for side in self.template.context)
            earlier = self._text(self.template.contained(before))
            end = earlier[-(CONTEXT - len(opening) - len(closing)) :]
            parts = [np.concatenate((opening, end, closing, part)) for part in parts]
        return parts, max(len(whole) - frame, 1)

    # --- the network ----------------------------------------------------------------------------

    def _batches(self, bodies: Sequence[_Body]) -> list[list[_Body]]:
        """Fill calls in order, so that a batch depends on the chunk alone."""
        questions = sum(map(len, self._suffixes))
        batches: list[list[_Body]] = []
        room = 0
        for body in bodies:
            size = len(body.tokens) + questions
            if size > room or len(batches[-1]) == self._records:
                batches.append([])
                room = self._batch
            batches[-1].append(body)
            room -= size
        return batches

    def _answer(self, batch: Sequence[_Body]) -> Floats:
        """Return the log-odds of ``batch``, (records, questions).

        Where llama.cpp fails each record is asked about alone; one that fails alone is NaN.
        """
        try:
            return self._ask(batch)
        except ModelError:
            if len(batch) == 1:
                return np.full((1, len(self._suffixes)), np.nan, np.float32)
            return np.concatenate([self._answer([body]) for body in batch])

    def _ask(self, batch: Sequence[_Body]) -> Floats:
        # Sequence 0 is the prompt's beginning, for good; each record has one for each question.
        count = len(self._suffixes)
        sequences = [range(1 + i * count, 1 + (i + 1) * count) for i in range(len(batch))]
        try:
            for own, *_ in sequences:
                self._llama.copy_sequence(0, own)
            self._decode(
                [
                    (own, self._start_length, body.tokens)
                    for body, (own, *_) in zip(batch, sequences, strict=True)
                ],
                wanted=False,
            )
            runs = []
            for body, (own, *others) in zip(batch, sequences, strict=True):
                for other in others:
                    self._llama.copy_sequence(own, other)
                end = self._start_length + len(body.tokens)
                runs += [
                    (sequence, end, suffix)
                    for sequence, suffix in zip((own, *others), self._suffixes, strict=True)
                ]
            self._decode(runs, wanted=True)
            logits = self._llama.logits(self._answers).astype(np.float64)
        finally:
            for sequence in range(1, 1 + len(batch) * count):
                self._llama.remove_sequence(sequence)
        split = len(self.template.positive)
        violation, none = logits[:, :split], logits[:, split:]
        odds = np.logaddexp.reduce(violation, axis=1) - np.logaddexp.reduce(none, axis=1)
        return np.asarray(odds, np.float32).reshape(len(batch), count)

    def _decode(self, runs: Sequence[tuple[int, int, Tokens]], *, wanted: bool) -> None:
        """Decode runs of (sequence, first position, tokens), with logits after each if wanted."""
        lengths = [len(tokens) for _, _, tokens in runs]
        outputs = np.zeros(sum(lengths), np.bool_)
        outputs[np.cumsum(lengths) - 1] = wanted
        self._llama.decode(
            np.concatenate([tokens for _, _, tokens in runs]),
            np.concatenate([start + np.arange(len(t), dtype=np.int32) for _, start, t in runs]),
            np.repeat(np.array([sequence for sequence, _, _ in runs], np.int32), lengths),
            outputs,
        )
