"""Runs and sets of decisions on a Ray cluster of two nodes (on this machine) as on one machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import edgemod
from edgemod import offline, worker
from edgemod.errors import InputError, OutputError, RunError
from edgemod.triager import DECISIONS
from samples import sentences
from test_crashes import FATAL

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray", exc_type=ImportError)

ROWS = 300
ROOT = Path(__file__).parents[1]

# Ray Data sets its own old names to their defaults when it starts, and warns of them.
pytestmark = pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning:ray.data.context")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two nodes, one processor each; to their worker processes certain texts are fatal."""
    from ray.cluster_utils import Cluster

    fatal = tmp_path_factory.mktemp("fatal")
    (fatal / "sitecustomize.py").write_text(FATAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(fatal), str(ROOT)]))
        patch.setenv("DEATHS", str(fatal / "deaths"))
        head = {"num_cpus": 1, "include_dashboard": 0}
        made = Cluster(initialize_head=True, head_node_args=head)
        made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def on_ray(cluster: Any) -> Iterator[Any]:
    """``edgemod.ray``, where this process is part of the cluster."""
    ray.init(cluster.address, log_to_driver=False, logging_level="error")
    import edgemod.ray

    yield edgemod.ray
    ray.shutdown()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "dump.parquet"
    table = pa.table({"id": [f"r{i}" for i in range(ROWS)], "text": sentences(ROWS)})
    pq.write_table(table, path)
    return path


@pytest.fixture(scope="module")
def local(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("local") / "out"
    edgemod.triage(small, out, workers=1, chunk_rows=64)
    return out


@pytest.fixture(scope="module")
def filtered(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without the language model, which is much of the time of a test."""
    out = tmp_path_factory.mktemp("filtered") / "out"
    edgemod.triage(small, out, workers=1, chunk_rows=64, model=None)
    return out


def contents(out: Path) -> dict[str, bytes]:
    files = [*(out / "decisions").iterdir(), *(out / "review").iterdir()]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


# -- runs ------------------------------------------------------------------------------------


def test_a_run_on_two_nodes_gives_the_same_bytes(
    on_ray: Any, small: Path, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = set()
    exchange = on_ray.ActorWorker.exchange

    def note(self: Any, header: Any, batches: Any, limit: float) -> object:
        if batches:
            nodes.add(self._node)
        return exchange(self, header, batches, limit)

    monkeypatch.setattr(on_ray.ActorWorker, "exchange", note)
    # The second actor is to be waited for, although the first could do it all by then.
    monkeypatch.setattr(on_ray.RayCrew, "may_give_up", lambda *_: None)
    report = edgemod.triage(small, tmp_path / "out", engine="ray", chunk_rows=64)
    assert contents(tmp_path / "out") == contents(local)
    assert len(nodes) == report.workers == 2
    assert report.peak_memory_bytes > 2 * 10**8
    assert (report.offline["guard"], report.offline["parent"]) == ("none", "none")
    assert report.offline["records"] == {"none": ROWS}
    assert not (tmp_path / "out" / "work").exists()
    assert ray.is_initialized(), "the caller's cluster is the caller's to leave"


def test_more_workers_than_processors_wait_for_nothing(
    on_ray: Any, small: Path, filtered: Path, tmp_path: Path
) -> None:
    edgemod.triage(small, tmp_path / "out", engine="ray", workers=4, chunk_rows=64, model=None)
    assert contents(tmp_path / "out") == contents(filtered)


def test_a_run_stopped_on_ray_goes_on_locally(
    on_ray: Any, small: Path, filtered: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"workers": 1, "chunk_rows": 64, "model": None}

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edgemod.triage(small, tmp_path / "out", engine="ray", on_progress=stop, **options)
    assert not list((tmp_path / "out" / "work").glob("cluster-*")), "late actors must not write"
    report = edgemod.triage(small, tmp_path / "out", **options)
    assert report.resumed_chunks > 0
    assert contents(tmp_path / "out") == contents(filtered)


@pytest.mark.parametrize("lost", [False, True], ids=["process", "node"])
def test_an_actor_that_dies_is_replaced(
    lost: bool,
    on_ray: Any,
    small: Path,
    filtered: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, bool]] = []
    exchange = on_ray.ActorWorker.exchange

    def die(self: Any, header: Any, batches: Any, limit: float) -> object:
        if batches:
            asked.append((header["chunk"], header["keep"]))
            if len(asked) in ((1, 2, 3) if lost else (1,)):
                ray.kill(self._actor)
        return exchange(self, header, batches, limit)

    monkeypatch.setattr(on_ray.ActorWorker, "exchange", die)
    monkeypatch.setattr(on_ray.ActorWorker, "_is_lost", lambda *_: lost)
    options: dict[str, Any] = {"workers": 1, "chunk_rows": 64, "model": None}
    report = edgemod.triage(small, tmp_path / "out", engine="ray", **options)
    deaths = 3 if lost else 1
    # A node that is lost is not held against the chunk, however often.
    assert asked == [(0, True)] * deaths + [(k, True) for k in range(5)]
    told = "its node of the cluster was lost" if lost else "its Ray actor ended: ActorDiedError"
    assert report.workers_lost == {told: deaths}
    assert contents(tmp_path / "out") == contents(filtered)


@pytest.mark.parametrize("word", ["segfaults", "hangs"])
def test_a_record_at_fault_is_quarantined_as_on_one_machine(
    word: str, on_ray: Any, tmp_path: Path
) -> None:
    texts = ["hello there", f"this {word}", "see you at eight"]
    dump = tmp_path / "dump.parquet"
    pq.write_table(pa.table({"id": ["a", "b", "c"], "text": texts}), dump)
    report = edgemod.triage(
        dump, tmp_path / "out", engine="ray", workers=1, model=None, stall_seconds=5
    )
    told = "ended by signal 11" if word == "segfaults" else "killed because it hung"
    assert [row["record_id"] for row in report.quarantined] == ["b"]
    assert report.workers_lost.keys() == {told}
    assert report.statuses == {"ok": 2, "crashed": 1}


def test_options_of_a_run_go_with_the_cluster(on_ray: Any, small: Path, tmp_path: Path) -> None:
    table = pq.read_table(small)
    texts = [
        f"{text} write to a{i}@example.org" for i, text in enumerate(table["text"].to_pylist())
    ]
    dump, key = tmp_path / "dump.parquet", tmp_path / "key"
    pq.write_table(table.set_column(1, "text", pa.array(texts)), dump)
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    options: dict[str, Any] = {
        "chunk_rows": 64, "model": None, "keep_scores": True, "pseudonymise": key,
        "redact_pii": True, "shard": "2/2",
    }  # fmt: skip
    got, expected = tmp_path / "got", tmp_path / "expected"
    edgemod.triage(dump, got, engine="ray", **options)
    edgemod.triage(dump, expected, workers=1, **options)
    assert contents(got) == contents(expected)
    for path in (expected / "scores").iterdir():
        assert (got / "scores" / path.name).read_bytes() == path.read_bytes()
    assert {p.name for p in (got / "work").iterdir()} == {
        p.name for p in (expected / "work").iterdir()
    }


def test_the_command_reaches_the_cluster_and_says_that_nothing_held_it(
    cluster: Any, small: Path, filtered: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "edgemod", "triage", small, "-o", out,
         "--engine", "ray", "--ray-address", cluster.address, "--model", "none",
         "--chunk-rows", "64", "--workers", "1"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "nothing kept the run off the network" in told.stderr
    said = json.loads((out / "report.json").read_text())["offline"]
    assert (said["guard"], said["parent"]) == ("none", "none")
    assert contents(out) == contents(filtered)


def test_a_process_that_is_held_is_told(
    on_ray: Any, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "_held", "seccomp")
    with pytest.raises(RunError, match="kept off the network"):
        edgemod.triage(small, tmp_path / "out", engine="ray")


def test_a_node_that_does_not_see_the_folder_is_told(
    on_ray: Any, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "out" / "work" / "elsewhere"
    monkeypatch.setattr(on_ray.RayCrew, "marker", lambda _: str(elsewhere))
    with pytest.raises(OutputError, match="does not see this folder") as raised:
        edgemod.triage(small, tmp_path / "out", engine="ray", workers=1, model=None)
    assert raised.value.where == str(tmp_path / "out")
    assert not list((tmp_path / "out" / "decisions").iterdir())


def test_a_node_with_another_edgemod_is_told(
    on_ray: Any, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "code_version", lambda: "0.0.0+another")
    with pytest.raises(RunError, match="another edgemod"):
        edgemod.triage(small, tmp_path / "out", engine="ray", workers=1, model=None)


# -- Ray Data --------------------------------------------------------------------------------


def decided(rows: Any) -> dict[str, dict[str, Any]]:
    """Decisions by id, without where a record lies, which a Ray Data set does not know."""
    found = rows.to_pylist() if isinstance(rows, pa.Table) else rows.take_all()
    assert {tuple(row) for row in found} == {tuple(DECISIONS.names)}
    apart = {"source", "source_row"}
    return {row["record_id"]: {k: row[k] for k in {*row} - apart} for row in found}


def test_decisions_are_those_of_a_run(on_ray: Any, small: Path, local: Path) -> None:
    data = ray.data.from_arrow(pq.read_table(small))
    got = decided(on_ray.triage(data, id="id", chunk_rows=64, concurrency=1))
    assert got == decided(pq.read_table(local / "decisions"))


def test_where_batches_end_changes_only_what_is_said_of_duplicates(
    on_ray: Any, small: Path, filtered: Path
) -> None:
    table = pq.read_table(small)
    data = ray.data.from_arrow([table.slice(0, 110), table.slice(110, 130), table.slice(240)])
    got = decided(on_ray.triage(data, id="id", chunk_rows=100, concurrency=1, model=None))
    expected = decided(pq.read_table(filtered / "decisions"))
    moved = {i for i in expected if got[i]["duplicate_of"] != expected[i]["duplicate_of"]}
    assert moved, "the test is about something"
    for name, row in expected.items():
        apart = {"duplicate_of", "stage"} if name in moved else set()
        assert {k: got[name][k] for k in {*row} - apart} == {k: row[k] for k in {*row} - apart}


def test_decisions_and_a_review_queue_from_one_pass(
    on_ray: Any, small: Path, filtered: Path
) -> None:
    data = ray.data.from_arrow(pq.read_table(small))
    options: dict[str, Any] = {"chunk_rows": 64, "concurrency": 1, "model": None}
    triaged = on_ray.triage(data, id="id", with_review=True, **options).materialize()
    expected = decided(pq.read_table(filtered / "decisions"))
    assert decided(triaged.drop_columns(["review"])) == expected
    queue = on_ray.queue(triaged).take_all()
    local = pq.read_table(filtered / "review").to_pylist()
    assert len(queue) == len(local) > 0
    assert [row["priority"] for row in queue] == [row["priority"] for row in local]
    apart = {"rank", "source", "source_row"}
    rows = {row["record_id"]: {k: row[k] for k in {*row} - apart} for row in local}
    assert {row["record_id"]: {k: row[k] for k in {*row} - apart} for row in queue} == rows


def test_a_record_at_fault_is_quarantined_in_a_set(on_ray: Any) -> None:
    texts = ["hello there", "this segfaults", "see you at eight"]
    data = ray.data.from_arrow(pa.table({"id": ["a", "b", "c"], "text": texts}))
    got = decided(on_ray.triage(data, id="id", concurrency=1, model=None))
    assert {name: row["status"] for name, row in got.items()} == {
        "a": "ok", "b": "crashed", "c": "ok",
    }  # fmt: skip
    assert got["b"]["verdict"] == "review"


def test_a_missing_column_is_told_before_anything_runs(on_ray: Any, small: Path) -> None:
    data = ray.data.from_arrow(pq.read_table(small))
    with pytest.raises(InputError, match="no column 'body'"):
        on_ray.triage(data, id="id", text="body")
