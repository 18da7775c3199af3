"""One run in several shares: which rows of the input a shard decides.

A shard begins and ends at multiples of ``chunk_rows``, where every run begins a chunk, so that
its chunks are chunks of the whole run. Its rows are neighbours: of a Parquet input nothing before
them is decoded but the rest of a row group.
"""

from __future__ import annotations

import re

from edgemod.errors import InputError


def parse(shard: str) -> tuple[int, int]:
    """Read "i/n": share number i, from 1, of n. Raises InputError for anything else."""
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shard)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise InputError(
            f'"{shard}" is not a shard',
            where="--shard",
            fix="Say i/n with i from 1 to n: 1/4, 2/4, 3/4 and 4/4 are a whole run.",
        )
    return number, count


def name(number: int, count: int) -> str:
    """How a plan calls a shard."""
    return f"{number}/{count}"


def share(shard: str, rows: int, chunk_rows: int) -> tuple[int, int]:
    """The rows of a shard, of ``rows`` in all: the first, and the one after its last.

    The shares of all n shards follow each other without a gap; they differ by at most one multiple
    of ``chunk_rows``, and are empty where there are fewer of these than shards.
    """
    number, count = parse(shard)
    multiples = -(-rows // chunk_rows)
    first, stop = (multiples * k // count * chunk_rows for k in (number - 1, number))
    return min(first, rows), min(stop, rows)
