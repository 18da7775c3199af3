"""Whether the files of a run are still those that it wrote."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgemod
from edgemod import run_folder
from edgemod.errors import InputError, RunError

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("one_process")


@pytest.fixture(scope="module")
def finished(dump: Path, tmp_path_factory: pytest.TempPathFactory, one_process: None) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    edgemod.triage(dump, out, model=None, workers=1, chunk_rows=100, review_format="label-studio")
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


def state(out: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((out / "run.json").read_text())
    return document


def test_a_run_is_as_it_was_written(finished: Path) -> None:
    found = edgemod.verify(finished)
    assert found.sound
    assert found.checked == 6 + 2
    files = [p for folder in ("decisions", "review") for p in (finished / folder).iterdir()]
    assert state(finished)["digests"] == {
        str(path.relative_to(finished)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_the_head_is_what_the_documentation_says(finished: Path) -> None:
    plan = json.dumps(state(finished)["plan"], sort_keys=True, separators=(",", ":"))
    head = hashlib.sha256(plan.encode("ascii")).digest()
    for part in sorted((finished / "decisions").iterdir()):
        head = hashlib.sha256(head + hashlib.sha256(part.read_bytes()).digest()).digest()
    assert edgemod.verify(finished).head == state(finished)["head"] == head.hex()


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_one_flipped_bit_is_noticed(finished: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(state(finished)["digests"])))
    whole = (finished / name).read_bytes()
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        (finished / name).write_bytes(flipped)
        found = edgemod.verify(finished)
    finally:
        (finished / name).write_bytes(whole)
    assert (found.altered, found.missing, found.added) == ((name,), (), ())
    assert edgemod.verify(finished).sound


def test_every_part_is_named(out: Path) -> None:
    (out / "decisions" / "part-000001.parquet").unlink()
    (out / "decisions" / "part-000002.parquet").unlink()
    (out / "decisions" / "part-000002.parquet").mkdir()
    (out / "decisions" / "part-000006.parquet").write_bytes(b"")
    (out / "decisions" / "deeper").mkdir()
    (out / "decisions" / "deeper" / ".hidden").write_bytes(b"")
    (out / "review" / "mine.txt").symlink_to(out / "nowhere")
    (out / "review" / "label-studio.xml").write_bytes(b"")
    found = edgemod.verify(out)
    assert found.altered == ("decisions/part-000002.parquet", "review/label-studio.xml")
    assert found.missing == ("decisions/part-000001.parquet",)
    assert found.added == (
        "decisions/deeper/.hidden", "decisions/part-000006.parquet", "review/mine.txt",
    )  # fmt: skip


def test_parts_that_changed_places_are_noticed(out: Path) -> None:
    one, two = (out / "decisions" / f"part-00000{k}.parquet" for k in (0, 1))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    assert edgemod.verify(out).altered == (f"decisions/{one.name}", f"decisions/{two.name}")


def rewritten(out: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = state(out)
    change(document)
    (out / "run.json").write_text(json.dumps(document))


def test_an_edited_run_json_breaks_the_chain(out: Path) -> None:
    """Who alters a part and its digest has to rewrite the head, too."""
    part = out / "decisions" / "part-000003.parquet"
    part.write_bytes(part.read_bytes() + b"x")
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    rewritten(out, lambda s: s["digests"].update({"decisions/part-000003.parquet": digest}))
    assert edgemod.verify(out).altered == ("run.json",)


@pytest.mark.parametrize("name", ["policy", "input", "code", "model"])
def test_the_chain_holds_the_plan(finished: Path, out: Path, name: str) -> None:
    rewritten(out, lambda s: s["plan"].update({name: "another"}))
    assert edgemod.verify(out).altered == ("run.json",)


def test_a_noted_head_tells_what_a_chain_inside_cannot(finished: Path, out: Path) -> None:
    noted = edgemod.verify(finished).head
    assert edgemod.verify(out, head=noted.upper()).sound
    shutil.rmtree(out)
    shutil.copytree(finished, out)
    rewritten(out, lambda s: s["plan"].update(policy="another"))
    forged = edgemod.verify(out).head
    rewritten(out, lambda s: s.update(head=forged))
    assert edgemod.verify(out).sound
    assert not edgemod.verify(out, head=noted).sound
    with pytest.raises(InputError, match="is not a head"):
        edgemod.verify(out, head=noted[:12])


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("digests"),
        lambda s: s.pop("head"),
        lambda s: s.update(digests=[]),
        lambda s: s.update(chunks=7),
        lambda s: s["digests"].update({"review/../../x": "0" * 64}),
        lambda s: s["digests"].update({"review/x": "0"}),
        lambda s: s["digests"].pop("decisions/part-000000.parquet"),
    ],
)
def test_a_run_json_without_its_digests_is_told(
    out: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    rewritten(out, change)
    with pytest.raises(RunError, match="holds no digests, or not those of this run's files"):
        edgemod.verify(out)


def test_what_is_no_complete_run_is_told(out: Path, tmp_path: Path) -> None:
    rewritten(out, lambda s: s.update(status="running"))
    for folder in (out, tmp_path, tmp_path / "none"):
        with pytest.raises(RunError, match="is not the folder of a complete run"):
            edgemod.verify(folder)


def test_a_run_that_was_continued_has_the_same_head(
    dump: Path, finished: Path, tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    def stop(_: object) -> None:
        raise StopError

    options: dict[str, Any] = {"model": None, "chunk_rows": 100, "review_format": "label-studio"}
    with pytest.raises(StopError):
        edgemod.triage(dump, tmp_path / "out", workers=1, on_progress=stop, **options)
    edgemod.triage(dump, tmp_path / "out", workers=2, **options)
    assert (tmp_path / "out" / "run.json").read_bytes() == (finished / "run.json").read_bytes()


def test_shards_carry_digests_into_the_merge(dump: Path, finished: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "s1", tmp_path / "s2"]
    for k, folder in enumerate(folders, 1):
        edgemod.triage(
            dump, folder, model=None, workers=1, chunk_rows=100, review_format="label-studio",
            shard=f"{k}/2",
        )  # fmt: skip
        assert edgemod.verify(folder).sound
    edgemod.merge(folders, tmp_path / "out")
    assert edgemod.verify(tmp_path / "out", head=edgemod.verify(finished).head).sound
    part = run_folder.parts(folders[1], state(folders[1]))[1]
    whole = part.read_bytes()
    part.unlink()  # not through the link
    part.write_bytes(whole[:99] + bytes([whole[99] ^ 1]) + whole[100:])
    assert edgemod.verify(tmp_path / "out").sound
    with pytest.raises(
        RunError, match=r"part-.*: is missing, or not the file that shard 2/2 wrote"
    ):
        edgemod.merge(folders, tmp_path / "again")


def test_a_complete_run_is_read_without_its_parts(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digests cost nothing but to ``verify``: explain, audit and diff hash no part."""

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(hashlib, "file_digest", refuse)
    assert run_folder.complete_state(finished)["chunks"] == 6


def test_the_command_line(finished: Path, out: Path) -> None:
    def run(*arguments: object) -> tuple[int, str]:
        told = subprocess.run(
            [sys.executable, "-m", "edgemod", "verify", *map(str, arguments)],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return told.returncode, told.stdout

    head = state(finished)["head"]
    expected = f"checked 8 files: all are as the run wrote them\nhead {head}\n"
    assert run(finished, "--head", head) == (0, expected)
    (out / "decisions" / "part-000005.parquet").unlink()
    (out / "review" / "new").touch()
    code, said = run(out)
    assert code == 3
    assert said.splitlines()[:-1] == [
        "missing: decisions/part-000005.parquet",
        "added: review/new",
        "checked 8 files",
    ]
    code, said = run(finished, "--head", "0" * 64, "--json")
    assert (code, json.loads(said)["noted"]) == (3, False)
    assert run(out.parent)[0] == 1
