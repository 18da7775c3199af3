from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from samples import write_dump

if TYPE_CHECKING:
    from edgemod.triager import Triager


@pytest.fixture(scope="session")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of 600 made-up records: id, text."""
    return write_dump(tmp_path_factory.mktemp("dump") / "dump.parquet", 600)


@pytest.fixture(scope="session")
def triager() -> Iterator[Triager]:
    """The default policy, filter and language model, loaded once."""
    from edgemod.triager import Triager

    with Triager() as made:
        yield made
