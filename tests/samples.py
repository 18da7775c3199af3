"""Made-up records for the tests."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SUBJECTS = ("the garden", "our printer", "this recipe", "my sister's bike", "the new update")
OPENINGS = (
    "I have been meaning to ask about",
    "Does anyone have advice on",
    "So happy with",
    "Could you look at",
    "Spent the whole weekend on",
)
ENDINGS = (
    "and it went better than I thought.",
    "before the end of the week?",
    "because the old one broke.",
    "with a bit of help from friends.",
)
HARSH = (
    "you are a worthless idiot and everyone hates you",
    "I will find you and break your legs tonight",
    "send 500 dollars now to claim your prize http://a.example/win",
)


def sentences(n: int, seed: int = 0) -> list[str]:
    """n made-up texts, mostly ordinary, some repeated, a few harsh."""
    draw = random.Random(seed)
    made = []
    for i in range(n):
        if i % 17 == 5:
            made.append(f"{draw.choice(HARSH)} {draw.randrange(9)}")
        elif i % 23 == 7 and made:
            made.append(draw.choice(made))
        else:
            made.append(
                f"{draw.choice(OPENINGS)} {draw.choice(SUBJECTS)} {draw.randrange(999)} "
                f"{draw.choice(ENDINGS)}"
            )
    return made


def write_dump(path: Path, n: int, seed: int = 0) -> Path:
    table = pa.table({"id": [f"r{i}" for i in range(n)], "text": sentences(n, seed)})
    pq.write_table(table, path, row_group_size=max(1, n // 3))
    return path
