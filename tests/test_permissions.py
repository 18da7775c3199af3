"""What edgemod writes is for its owner alone, whatever the umask; folders of others stay."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import edgemod
from edgemod import audit, plots, scoring
from edgemod.errors import OutputError
from edgemod.parts import make_folder, write_bytes
from samples import sentences


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(*folders: Path) -> set[tuple[str, int]]:
    """Kind and mode of folders and of all that is in them."""
    found = set()
    for path in (p for folder in folders for p in (folder, *folder.rglob("*"))):
        found.add(("folder" if path.is_dir() else "file", stat.S_IMODE(path.stat().st_mode)))
    return found


PRIVATE = {("folder", 0o700), ("file", 0o600)}
pytestmark = pytest.mark.usefixtures("measured_here")


def test_one_file_and_folders(tmp_path: Path, umask: None) -> None:
    make_folder(tmp_path / "new" / "deep")
    write_bytes(tmp_path / "new" / "deep" / "file", b"x")
    assert modes(tmp_path / "new") == PRIVATE
    tmp_path.chmod(0o755)
    make_folder(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    with pytest.raises(OutputError, match="Not a directory"):
        make_folder(tmp_path / "new" / "deep" / "file")


@pytest.fixture
def loose() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_everything_that_is_written(tmp_path: Path, loose: None) -> None:
    """Runs, begun, resumed and in an existing folder; samples, scores, calibrations, plots."""
    texts = sentences(400)
    labels = pa.array([int("you" in text.split()[0]) for text in texts], pa.int8())
    dump = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": [*map(str, range(400))], "text": texts, "any": labels}), dump)
    new = tmp_path / "made"
    edgemod.triage(dump, new / "run" / "out", model=None, workers=1, chunk_rows=200)
    audit.sample(new / "run" / "out", new / "sample" / "deep", n=20)
    scoring.score_file(dump, new / "scores.parquet", model=None)
    edgemod.calibrate(dump, new / "own.json", model=None, workers=1)
    edgemod.evaluate(
        dump, model=None, workers=1, resamples=1, on_measured=plots.Plots(new / "plots" / "deep")
    )
    assert len([*new.rglob("*")]) > 15
    assert modes(new) == PRIVATE

    mine = tmp_path / "mine"  # a folder of the user, and in it a run that was interrupted
    shutil.copytree(new / "run" / "out", mine)
    mine.chmod(0o750)
    state = json.loads((mine / "run.json").read_text())
    (mine / "run.json").write_text(json.dumps({**state, "status": "running", "chunks": 0}))
    (mine / "decisions" / "part-000001.parquet").unlink()
    shutil.rmtree(mine / "review")
    edgemod.triage(dump, mine, model=None, workers=1, chunk_rows=200)
    assert stat.S_IMODE(mine.stat().st_mode) == 0o750
    assert modes(*mine.iterdir()) == PRIVATE
