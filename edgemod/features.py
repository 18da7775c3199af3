"""Cheap numbers for every text: a few passes of numba kernels over Arrow's own buffers.

Text never becomes a Python string on the way, and nothing is copied going in. What each number
means is in ``words.FEATURES``; the normal form that lexicons and the filter read is in
``kernels/normalise.py``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from edgemod.errors import InputError
from edgemod.kernels import automaton, normalise, pii, scan
from edgemod.kernels.automaton import Automaton
from edgemod.policy import Lexicon
from edgemod.words import FEATURES

Buffers = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]

# Word lists, matched as words of the normal form. A curly apostrophe is a straight one there.
_LISTS: Final = {
    "second_person": (
        "you your yours yourself yourselves u ur urself ya yall youre yr thou thee thy"
    ),
    "first_person": "i me my mine myself we us our ours ourselves im ive",
    "negations": (
        "not no never none nobody nothing nowhere neither nor cannot cant dont doesnt didnt isnt "
        "arent wasnt werent wont wouldnt shouldnt couldnt hasnt havent hadnt aint without don't "
        "doesn't didn't isn't aren't wasn't weren't won't wouldn't shouldn't couldn't hasn't "
        "haven't hadn't ain't can't mustn't needn't"
    ),
    "reported": (
        "said says saying told tells tweeted posted wrote writes quoted quote quotes claimed "
        "claims stated states reported replied shouted yelled commented called_me called_him "
        "called_her called_them called_us calls_me according_to"
    ),
}


_DOUBLE: Final = re.compile(rb"(.)\1")
_SQUEEZED_FROM: Final = 5  # bytes: shorter terms without their double letters are other words


@dataclass(frozen=True)
class Lexicons:
    """Any number of lexicons, and the word lists behind some features, as one automaton."""

    names: tuple[str, ...]
    automaton: Automaton
    squeezed: Automaton
    """The lexicons' longer terms without double letters, for stretched words that have some."""

    @classmethod
    def compile(cls, lexicons: Sequence[Lexicon]) -> Lexicons:
        """Normalise and compile the terms.

        Raises InputError for a term of which the normal form leaves nothing.
        """
        terms: list[tuple[str, int, int]] = []
        for owner, words in enumerate(_LISTS.values()):
            terms += ((word.replace("_", " "), owner, automaton.WORD) for word in words.split())
        for owner, lexicon in enumerate(lexicons, start=len(_LISTS)):
            word = automaton.WORD if lexicon.match == "word" else 0
            terms += ((term, owner, word) for term in lexicon.terms)
            terms += ((term, owner, word | automaton.ALLOW) for term in lexicon.allow)
        (data, offsets), _ = normalise.normalise(
            *buffers(pa.array([term for term, _, _ in terms], pa.large_string()))
        )
        forms = [data[low:high].tobytes() for low, high in pairwise(offsets.tolist())]
        for form, (_, owner, _) in zip(forms, terms, strict=True):
            if not form:
                raise InputError(
                    "a term has no letters, digits or symbols",
                    where=f"lexicon {lexicons[owner - len(_LISTS)].name}",
                    fix="Remove it, or write it in visible characters.",
                )
        built = [(form, term[1], term[2]) for form, term in zip(forms, terms, strict=True)]
        single = {
            (_DOUBLE.sub(rb"\1", form), owner, flags)
            for form, owner, flags in built
            if owner >= len(_LISTS)
        }
        squeezed = sorted(term for term in single if len(term[0]) >= _SQUEEZED_FROM)
        return cls(
            tuple(lexicon.name for lexicon in lexicons),
            automaton.build(built),
            automaton.build(squeezed),
        )

    @property
    def groups(self) -> tuple[str, ...]:
        """Columns of the automaton's hits: features first, then ``lexicon.<name>``."""
        return (*_LISTS, *(f"lexicon.{name}" for name in self.names))


@dataclass(frozen=True)
class Features:
    """The numbers of n texts."""

    values: npt.NDArray[np.float32]
    """(n, len(FEATURES)), columns in the order of ``words.FEATURES``."""
    hits: npt.NDArray[np.int32]
    """(n, L), hits of each lexicon, columns in the order of ``Lexicons.names``."""
    normalised: Buffers
    """The normal forms: uint8 (m,) and offsets int64 (n + 1,), the input of the filter."""


@dataclass(frozen=True)
class Span:
    """Something that fired: code points ``start`` to ``end`` of the original text."""

    start: int
    end: int
    what: str
    """A key of ``words.FEATURES``, or ``lexicon.<name>``."""


def buffers(texts: pa.LargeStringArray) -> Buffers:
    """Bytes and offsets of the texts without a copy: uint8 (m,) and int64 (n + 1,), read-only.

    The offsets may start above 0 and the bytes may go on after the last, as in any slice.
    """
    _, offsets, data = texts.buffers()
    if len(texts) == 0:
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    view = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    content = np.frombuffer(data if data is not None else b"", np.uint8)
    view.flags.writeable = content.flags.writeable = False
    return content, view


def extract(texts: pa.LargeStringArray, lexicons: Lexicons) -> Features:
    """Measure all texts, none of them null."""
    data, offsets = buffers(texts)
    normalised, disguises = normalise.normalise(data, offsets)
    hits = automaton.count(*normalised, lexicons.automaton, len(lexicons.groups))

    # A stretched word has each letter twice or once at heart: look at both (fuuuuck, asss), and
    # at neither (asssshhhole).
    stretched = np.flatnonzero(disguises[:, normalise.COLUMNS.index("stretched")])
    if len(stretched):
        short, _ = normalise.normalise(*buffers(texts.take(pa.array(stretched))), keep=1)
        for built in (lexicons.automaton, lexicons.squeezed):
            again = automaton.count(*short, built, len(lexicons.groups))
            hits[stretched] = np.maximum(hits[stretched], again)

    values = np.empty((len(texts), len(FEATURES)), np.float32)
    columns = {name: k for k, name in enumerate(FEATURES)}
    for names, part in (
        (scan.COLUMNS, scan.scan(data, offsets)),
        ((*pii.COLUMNS, "link_share"), pii.contacts(data, offsets)),
        (normalise.COLUMNS, disguises),
        (("repeated_words",), scan.repeated_words(*normalised)[:, None]),
        (tuple(_LISTS), hits[:, : len(_LISTS)]),
    ):
        for k, name in enumerate(names):  # column by column: twice as fast as all at once
            values[:, columns[name]] = part[:, k]
    return Features(values, np.ascontiguousarray(hits[:, len(_LISTS) :]), normalised)


def spans(text: str, lexicons: Lexicons) -> list[Span]:
    """The lexicon hits, links and personal data of one text, in order of their starts."""
    data = np.frombuffer(text.encode(), np.uint8)
    where = {(what, low, high) for what, low, high in pii.find_contacts(data)}
    groups = lexicons.groups
    for keep, built in ((2, lexicons.automaton), (1, lexicons.automaton), (1, lexicons.squeezed)):
        form, origin = normalise.trace(data, keep=keep)
        if built is lexicons.squeezed and len(form) == len(normalise.trace(data)[0]):
            continue  # nothing is stretched
        for owner, low, high in automaton.find(form, built, len(groups)):
            if owner >= len(_LISTS):
                where.add((groups[owner], int(origin[low]), int(origin[high])))
    # Offsets count bytes so far: how many of them begin a character?
    points = np.concatenate(([0], np.cumsum((data & 0xC0) != 0x80)))
    found = [Span(int(points[low]), int(points[high]), what) for what, low, high in where]
    return sorted(found, key=lambda span: (span.start, span.end, span.what))
