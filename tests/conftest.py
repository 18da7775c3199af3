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


@pytest.fixture(scope="module")
def one_process() -> Iterator[None]:
    """Runs without a language model work in this process: nothing has to start."""
    from edgemod import pipeline
    from edgemod.triager import Triager
    from one_process import OneProcess

    with pytest.MonkeyPatch.context() as patch, Triager(None, None) as triager:
        patch.setattr(OneProcess, "triager", triager, raising=False)
        patch.setattr(pipeline, "Crew", OneProcess)
        yield


@pytest.fixture(scope="module")
def measured_here() -> Iterator[None]:
    """What ``score -o``, ``evaluate`` and ``calibrate`` measure, they measure in this process."""
    from edgemod import measuring
    from one_process import MeasuringHere

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "Crew", MeasuringHere)
        yield


@pytest.fixture(scope="session")
def triager() -> Iterator[Triager]:
    """The default policy, filter and language model, loaded once."""
    from edgemod.triager import Triager

    with Triager() as made:
        yield made
