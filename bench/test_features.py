"""Speed of features and normalisation on one core, at 100 and 650 characters a record."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from edgemod.features import Lexicons, buffers, extract
from edgemod.kernels import automaton, normalise, pii, scan
from edgemod.policy import Lexicon
from edgemod.words import FEATURES

RECORDS = 2_000
SENTENCE = (
    "I told you that it's not so bad, e.g. on page 42! We went to see https://example.com/a?b=c "
    "and SOOO liked it... Did @anna write to bob@example.org? "
)


@pytest.fixture(params=[100, 650], ids=["100 chars", "650 chars"])
def texts(request: pytest.FixtureRequest) -> pa.LargeStringArray:
    size: int = request.param
    long = SENTENCE * (size // len(SENTENCE) + 2)
    return pa.array([long[k % 97 : k % 97 + size] for k in range(RECORDS)], pa.large_string())


def test_extract(benchmark: Any, texts: pa.LargeStringArray) -> None:
    lexicons = Lexicons.compile([Lexicon("few", "toxic", ("page", "bad"), (), "word")])
    measured = benchmark(extract, texts, lexicons)
    assert measured.values.shape == (RECORDS, len(FEATURES))
    assert (measured.values[:, list(FEATURES).index("chars")] == len(texts[0].as_py())).all()
    assert (measured.hits > 0).any()


def test_normalise(benchmark: Any, texts: pa.LargeStringArray) -> None:
    (data, offsets), counts = benchmark(normalise.normalise, *buffers(texts))
    assert len(offsets) == RECORDS + 1
    assert len(data) == offsets[-1] > 0
    assert counts[:, normalise.COLUMNS.index("stretched")].any()


def test_scan(benchmark: Any, texts: pa.LargeStringArray) -> None:
    measured = benchmark(scan.scan, *buffers(texts))
    assert (measured[:, scan.COLUMNS.index("chars")] == len(texts[0].as_py())).all()


def test_contacts(benchmark: Any, texts: pa.LargeStringArray) -> None:
    counts = benchmark(pii.contacts, *buffers(texts))
    assert counts[:, pii.COLUMNS.index("emails")].any()
    assert counts[:, pii.COLUMNS.index("links")].any()


@pytest.mark.parametrize("terms", [100, 100_000])
def test_lexicon(benchmark: Any, texts: pa.LargeStringArray, terms: int) -> None:
    random = np.random.default_rng(0)
    letters = random.integers(97, 123, (terms, 9), np.uint8)
    words = tuple(row.tobytes().decode() for row in letters)
    lexicons = Lexicons.compile([Lexicon("many", "toxic", ("page", *words), (), "word")])
    (data, offsets), _ = normalise.normalise(*buffers(texts))
    groups = len(lexicons.groups)
    hits = benchmark(automaton.count, data, offsets, lexicons.automaton, groups)
    assert (hits[:, lexicons.groups.index("lexicon.many")] > 0).any()
